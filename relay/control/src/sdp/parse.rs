//! Text to [`SessionDescription`]: lenient about what the relay does not use, strict about what
//! it does, and bounded throughout.

use super::candidate::Candidate;
use super::description::{
    Direction, ExtMap, Fmtp, MediaDescription, Msid, RidLine, RtpMap, SessionDescription, Setup,
    SsrcLine, Transport,
};
use super::error::{SdpError, SdpErrorKind};
use super::limits;
use sealcast_model::{HeaderExtension, Mid, Rid};

/// Reads a session description.
///
/// Lines may end in CRLF or LF. Unknown line types, attributes, extensions, candidates that are
/// not host addresses and fingerprints that are not SHA-256 are skipped.
///
/// # Errors
/// The first rule broken, with its line.
pub fn parse(text: &str) -> Result<SessionDescription, SdpError> {
    if text.len() > limits::SDP_BYTES {
        return Err(SdpErrorKind::TooLarge.into());
    }
    let mut parser = Parser::default();
    let mut number = 0;
    for line in text.split('\n') {
        number += 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() > limits::LINE_BYTES {
            return Err(SdpErrorKind::LineTooLong.at(number));
        }
        if number == 1 && line != "v=0" {
            return Err(SdpErrorKind::NotSdp.at(number));
        }
        // Some writers end with empty lines, or put them between sections.
        if line.is_empty() {
            continue;
        }
        parser.line(line, number).map_err(|kind| kind.at(number))?;
    }
    Ok(parser.finish())
}

/// What has been read so far.
#[derive(Default)]
struct Parser {
    out: SessionDescription,
    /// Session-level transport attributes, the default of every section.
    transport: Transport,
    /// Session-level direction, likewise.
    direction: Direction,
    extmap_allow_mixed: bool,
}

type LineResult = Result<(), SdpErrorKind>;

impl Parser {
    fn line(&mut self, line: &str, number: u32) -> LineResult {
        let (kind, value) = line.split_once('=').ok_or(SdpErrorKind::NotSdp)?;
        match kind {
            "o" => self.origin(value),
            "m" => self.media(value, number),
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                match self.out.media.last_mut() {
                    Some(media) => media_attribute(media, name, value.trim()),
                    None => self.session_attribute(name, value.trim()),
                }
            }
            // "A type is always exactly one case-significant character" (RFC 8866 §5).
            _ if kind.len() == 1 && kind.as_bytes()[0].is_ascii_lowercase() => Ok(()),
            _ => Err(SdpErrorKind::NotSdp),
        }
    }

    /// `o=<username> <sess-id> <sess-version> <nettype> <addrtype> <unicast-address>`
    fn origin(&mut self, value: &str) -> LineResult {
        let mut fields = value.split(' ').skip(1);
        // The numbers serve only to tell descriptions apart; some writers exceed 64 bits.
        let mut next = || fields.next().and_then(|f| f.parse().ok()).unwrap_or(0);
        self.out.origin_id = next();
        self.out.origin_version = next();
        Ok(())
    }

    /// `m=<media> <port> <proto> <fmt> ...`
    fn media(&mut self, value: &str, line: u32) -> LineResult {
        const WHAT: SdpErrorKind = SdpErrorKind::Malformed("m-line");
        if self.out.media.len() == limits::MEDIA_SECTIONS {
            return Err(SdpErrorKind::TooManyMediaSections);
        }
        // What an answer echoes for an unknown m-line must be printable.
        if !value.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(WHAT);
        }
        let mut fields = value.split(' ').filter(|f| !f.is_empty());
        let media = fields.next().ok_or(WHAT)?.to_owned();
        let port = fields.next().ok_or(WHAT)?;
        // `<port>/<number of ports>` is legal and means nothing to WebRTC.
        let port = port.split('/').next().unwrap_or(port);
        let port = port.parse().map_err(|_| WHAT)?;
        let protocol = fields.next().ok_or(WHAT)?.to_owned();
        let mut formats = Vec::new();
        for format in fields {
            push(&mut formats, format.to_owned(), "formats")?;
        }
        if formats.is_empty() {
            return Err(WHAT);
        }
        self.out.media.push(MediaDescription {
            line,
            media,
            port,
            protocol,
            formats,
            direction: self.direction,
            extmap_allow_mixed: self.extmap_allow_mixed,
            ..MediaDescription::default()
        });
        Ok(())
    }

    fn session_attribute(&mut self, name: &str, value: &str) -> LineResult {
        match name {
            "group" => {
                let mut fields = value.split_ascii_whitespace();
                // RFC 8843 allows several groups; WebRTC uses one, the first.
                if fields.next() == Some("BUNDLE") && self.out.bundle.is_empty() {
                    for mid in fields {
                        if self.out.bundle.len() == limits::MEDIA_SECTIONS {
                            return Err(SdpErrorKind::TooMany("BUNDLE members"));
                        }
                        self.out.bundle.push(parse_mid(mid)?);
                    }
                }
                Ok(())
            }
            "ice-lite" => {
                self.out.ice_lite = true;
                Ok(())
            }
            "extmap-allow-mixed" => {
                self.extmap_allow_mixed = true;
                Ok(())
            }
            _ => match Direction::parse(name) {
                Some(direction) => {
                    self.direction = direction;
                    Ok(())
                }
                None => transport_attribute(&mut self.transport, name, value).map(|_| ()),
            },
        }
    }

    fn finish(mut self) -> SessionDescription {
        for media in &mut self.out.media {
            let of = &mut media.transport;
            let or = &self.transport;
            of.ufrag = of.ufrag.take().or_else(|| or.ufrag.clone());
            of.pwd = of.pwd.take().or_else(|| or.pwd.clone());
            of.fingerprint = of.fingerprint.or(or.fingerprint);
            of.setup = of.setup.or(or.setup);
        }
        self.out
    }
}

fn media_attribute(media: &mut MediaDescription, name: &str, value: &str) -> LineResult {
    match name {
        "mid" => media.mid = Some(parse_mid(value)?),
        "bundle-only" => media.bundle_only = true,
        "rtcp-mux" => media.rtcp_mux = true,
        "rtcp-rsize" => media.rtcp_rsize = true,
        "extmap-allow-mixed" => media.extmap_allow_mixed = true,
        "end-of-candidates" => media.end_of_candidates = true,
        "extmap" => {
            if let Some(ext) = parse_extmap(value)? {
                push(&mut media.extensions, ext, "extmap lines")?;
            }
        }
        "rtpmap" => push(&mut media.rtpmaps, parse_rtpmap(value)?, "rtpmap lines")?,
        // Some writers leave an `fmtp` empty, which says nothing.
        "fmtp" if !value.contains(' ') => {}
        "fmtp" => {
            let (pt, params) = split_pt(value, "fmtp")?;
            let params = params.to_owned();
            push(&mut media.fmtps, Fmtp { pt, params }, "fmtp lines")?;
        }
        "rtcp-fb" => {
            let (pt, fb) = match value.strip_prefix("* ") {
                Some(fb) => (None, fb.trim()),
                None => split_pt(value, "rtcp-fb").map(|(pt, fb)| (Some(pt), fb))?,
            };
            // Several lines per format are normal, hence the higher bound.
            if media.feedback.len() >= 4 * limits::ENTRIES {
                return Err(SdpErrorKind::TooMany("rtcp-fb lines"));
            }
            media.feedback.push((pt, fb.to_owned()));
        }
        "msid" => {
            let mut fields = value.split_ascii_whitespace();
            let stream = fields.next().ok_or(SdpErrorKind::Malformed("msid"))?;
            media.msid = Some(Msid {
                stream: stream.to_owned(),
                track: fields.next().map(str::to_owned),
            });
        }
        "rid" => push(&mut media.rids, parse_rid(value)?, "rid lines")?,
        "simulcast" => parse_simulcast(media, value)?,
        "ssrc" => parse_ssrc(media, value)?,
        "ssrc-group" => {
            let mut fields = value.split_ascii_whitespace();
            if fields.next() == Some("FID") {
                const WHAT: SdpErrorKind = SdpErrorKind::Malformed("ssrc-group");
                let mut next = || fields.next().and_then(|f| f.parse().ok()).ok_or(WHAT);
                let pair = (next()?, next()?);
                push(&mut media.fid_groups, pair, "ssrc-group lines")?;
            }
        }
        "candidate" => {
            if let Some(candidate) = Candidate::parse(value) {
                push(&mut media.candidates, candidate, "candidates")?;
            }
        }
        "sctp-port" => {
            let port = value.parse().ok().filter(|p| *p != 0);
            media.sctp_port = Some(port.ok_or(SdpErrorKind::Malformed("sctp-port"))?);
        }
        "max-message-size" => {
            let size = value.parse();
            media.max_message_size =
                Some(size.map_err(|_| SdpErrorKind::Malformed("max-message-size"))?);
        }
        _ => match Direction::parse(name) {
            Some(direction) => media.direction = direction,
            None => {
                transport_attribute(&mut media.transport, name, value)?;
            }
        },
    }
    Ok(())
}

/// Takes an ICE or DTLS attribute; an unknown one is skipped.
fn transport_attribute(to: &mut Transport, name: &str, value: &str) -> LineResult {
    match name {
        // RFC 8839 §5.4: "ufrag = 4*256ice-char", "password = 22*256ice-char".
        "ice-ufrag" => to.ufrag = Some(ice_chars(value, 4, "ice-ufrag")?),
        "ice-pwd" => to.pwd = Some(ice_chars(value, 22, "ice-pwd")?),
        "fingerprint" => {
            let (hash, bytes) = value
                .split_once(' ')
                .ok_or(SdpErrorKind::Malformed("fingerprint"))?;
            if hash.eq_ignore_ascii_case("sha-256") {
                let parsed = parse_fingerprint(bytes.trim());
                to.fingerprint = Some(parsed.ok_or(SdpErrorKind::Malformed("fingerprint"))?);
            }
        }
        "setup" => {
            to.setup = Some(match value {
                "active" => Setup::Active,
                "passive" => Setup::Passive,
                "actpass" => Setup::Actpass,
                "holdconn" => return Err(SdpErrorKind::Unsupported("a=setup:holdconn")),
                _ => return Err(SdpErrorKind::Malformed("setup")),
            });
        }
        _ => {}
    }
    Ok(())
}

/// `ice-char = ALPHA / DIGIT / "+" / "/"` (RFC 8839 §5.1). GStreamer and others also use `-`, `_`
/// and `=`, which do no harm: the text is only compared.
fn ice_chars(value: &str, min: usize, what: &'static str) -> Result<String, SdpErrorKind> {
    let fine = (min..=256).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/-_=".contains(&b));
    fine.then(|| value.to_owned())
        .ok_or(SdpErrorKind::Malformed(what))
}

/// 32 bytes in hexadecimal, separated by colons (RFC 8122 §5).
fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let mut parts = text.split(':');
    for byte in &mut out {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(out)
}

fn parse_mid(text: &str) -> Result<Mid, SdpErrorKind> {
    Mid::new(text.as_bytes()).ok_or(SdpErrorKind::Malformed("mid (1–16 visible ASCII bytes)"))
}

/// `<id>[/<direction>] <URI> [<attributes>]`; `None` for an extension that the relay does not
/// know.
fn parse_extmap(value: &str) -> Result<Option<ExtMap>, SdpErrorKind> {
    const WHAT: SdpErrorKind = SdpErrorKind::Malformed("extmap");
    let mut fields = value.split_ascii_whitespace();
    let id = fields.next().ok_or(WHAT)?;
    let uri = fields.next().ok_or(WHAT)?;
    let Some(extension) = HeaderExtension::ALL.into_iter().find(|e| e.uri() == uri) else {
        return Ok(None);
    };
    let (id, direction) = match id.split_once('/') {
        Some((id, direction)) => (id, Some(Direction::parse(direction).ok_or(WHAT)?)),
        None => (id, None),
    };
    // RFC 8285 §5: 0 is padding, 15 is reserved; ids over 255 are placeholders in an offer.
    match id.parse::<u16>().map_err(|_| WHAT)? {
        0 | 15 => Err(WHAT),
        id @ 1..=255 => Ok(Some(ExtMap {
            id: id as u8,
            direction,
            extension,
        })),
        _ => Ok(None),
    }
}

/// `<pt> <rest>`
fn split_pt<'a>(value: &'a str, what: &'static str) -> Result<(u8, &'a str), SdpErrorKind> {
    let (pt, rest) = value.split_once(' ').ok_or(SdpErrorKind::Malformed(what))?;
    match pt.parse::<u8>() {
        Ok(pt @ 0..=127) => Ok((pt, rest.trim())),
        _ => Err(SdpErrorKind::Malformed(what)),
    }
}

/// `<pt> <name>/<clock rate>[/<channels>]`
fn parse_rtpmap(value: &str) -> Result<RtpMap, SdpErrorKind> {
    const WHAT: SdpErrorKind = SdpErrorKind::Malformed("rtpmap");
    let (pt, rest) = split_pt(value, "rtpmap")?;
    let mut fields = rest.split('/');
    let name = fields.next().filter(|n| !n.is_empty()).ok_or(WHAT)?;
    let clock_rate = fields.next().and_then(|c| c.parse().ok()).ok_or(WHAT)?;
    let channels = match fields.next() {
        Some(c) => Some(c.parse().map_err(|_| WHAT)?),
        None => None,
    };
    Ok(RtpMap {
        pt,
        name: name.to_owned(),
        clock_rate,
        channels,
    })
}

/// `<rid> <send|recv>[ <restrictions>]`
fn parse_rid(value: &str) -> Result<RidLine, SdpErrorKind> {
    const WHAT: SdpErrorKind = SdpErrorKind::Malformed("rid");
    let mut fields = value.splitn(3, ' ');
    let rid = fields.next().and_then(rid_token).ok_or(WHAT)?;
    let send = match fields.next() {
        Some("send") => true,
        Some("recv") => false,
        _ => return Err(WHAT),
    };
    let restrictions = fields.next().unwrap_or_default().trim();
    // Echoed in the answer, so it must be printable.
    if !restrictions.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(WHAT);
    }
    Ok(RidLine {
        rid,
        send,
        restrictions: restrictions.to_owned(),
    })
}

/// `rid-id = 1*(alpha-numeric / "-" / "_")` (RFC 8851 §10, `-` and `_` as browsers use them).
fn rid_token(text: &str) -> Option<Rid> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    Rid::new(text.as_bytes()).filter(|_| text.bytes().all(fine))
}

/// `send <streams>[ recv <streams>]`, streams separated by `;`, alternatives by `,`, paused ones
/// marked `~` (RFC 8853 §5.1).
fn parse_simulcast(media: &mut MediaDescription, value: &str) -> LineResult {
    const WHAT: SdpErrorKind = SdpErrorKind::Malformed("simulcast");
    let mut fields = value.split_ascii_whitespace();
    while let Some(direction) = fields.next() {
        let list = fields.next().ok_or(WHAT)?;
        let to = match direction {
            "send" => &mut media.simulcast_send,
            "recv" => &mut media.simulcast_recv,
            _ => return Err(WHAT),
        };
        if !to.is_empty() {
            return Err(WHAT);
        }
        for stream in list.split(';') {
            let first = stream.split(',').next().unwrap_or(stream);
            let rid = first.strip_prefix('~').unwrap_or(first);
            let rid = rid_token(rid).ok_or(WHAT)?;
            push(to, rid, "simulcast streams")?;
        }
    }
    Ok(())
}

/// `<ssrc> <attribute>[:<value>]`
fn parse_ssrc(media: &mut MediaDescription, value: &str) -> LineResult {
    let (ssrc, rest) = value.split_once(' ').unwrap_or((value, ""));
    let ssrc = ssrc.parse().map_err(|_| SdpErrorKind::Malformed("ssrc"))?;
    let cname = rest.strip_prefix("cname:").map(str::to_owned);
    match media.ssrcs.iter_mut().find(|s| s.ssrc == ssrc) {
        Some(known) => known.cname = known.cname.take().or(cname),
        None => push(&mut media.ssrcs, SsrcLine { ssrc, cname }, "ssrc lines")?,
    }
    Ok(())
}

/// Appends within [`limits::ENTRIES`].
fn push<T>(to: &mut Vec<T>, item: T, what: &'static str) -> LineResult {
    if to.len() == limits::ENTRIES {
        return Err(SdpErrorKind::TooMany(what));
    }
    to.push(item);
    Ok(())
}
