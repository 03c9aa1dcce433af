//! Our offer and the relay's answer, as PROTOCOL.md §5 has them.

use super::transport::{Local, Proto, Remote};
use crate::model::Codec;
use sealcast_rtp::{ExtensionKind, ExtensionMap};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Payload type of Opus.
const OPUS_PT: u8 = 111;
/// Video codecs with their payload types, that of retransmissions, and their parameters, most
/// wanted first.
const VIDEO: [(Codec, u8, u8, &str); 4] = [
    (Codec::Vp8, 96, 97, ""),
    (Codec::Vp9, 98, 99, "profile-id=0"),
    (Codec::Av1, 100, 101, "level-idx=5;profile=0;tier=0"),
    (
        Codec::H264,
        102,
        103,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    ),
];

/// Header extensions we offer, with the ids that browsers use.
const EXTENSIONS: [(u8, ExtensionKind); 7] = [
    (1, ExtensionKind::AudioLevel),
    (2, ExtensionKind::AbsSendTime),
    (3, ExtensionKind::TransportCc),
    (4, ExtensionKind::Mid),
    (8, ExtensionKind::DependencyDescriptor),
    (10, ExtensionKind::Rid),
    (11, ExtensionKind::RepairedRid),
];

/// One m-line of our offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfferMedia {
    /// The one that is sent; a slot for video receives any.
    pub(super) codec: Codec,
    pub(super) direction: OfferDirection,
}

/// What we do on an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OfferDirection {
    /// Send, on this SSRC and this one for retransmissions.
    Send(u32, u32),
    /// Send encodings of these RIDs.
    Simulcast(Vec<&'static str>),
    /// Receive: it is a slot.
    Receive,
}

/// An m-line of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerMedia {
    /// Its MID.
    pub mid: String,
    /// Not rejected, and not inactive.
    pub active: bool,
    /// Payload types with their encoding name in lower case.
    pub codecs: Vec<(u8, String)>,
    /// The remote side's SSRC, where it sends.
    pub ssrc: Option<u32>,
    /// Its retransmissions' SSRC.
    pub rtx_ssrc: Option<u32>,
    /// RTX payload types, each with the one that it repairs (RFC 4588 §8.6).
    pub rtx: Vec<(u8, u8)>,
    /// RIDs of a simulcast that the remote side receives.
    pub rids: Vec<String>,
}

/// What we need of an answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) remote: Remote,
    /// m-lines in the offer's order, the data channel's left out.
    pub media: Vec<AnswerMedia>,
    /// Negotiated header extensions.
    pub extensions: ExtensionMap,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A line that must be there is missing.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// A line does not parse.
    #[error("line {0} of the answer is malformed")]
    Malformed(usize),
    /// The answer does not fit the offer.
    #[error("the answer has {got} m-lines, the offer {want}")]
    MediaCount {
        /// m-lines of the offer.
        want: usize,
        /// m-lines of the answer.
        got: usize,
    },
}

/// Renders an offer. m-lines get their index as MID, the data channel is the last.
pub(super) fn offer(local: &Local, media: &[OfferMedia], data: bool, session: u64) -> String {
    let mut sdp = String::with_capacity(1_024 * (media.len() + 1));
    let count = media.len() + usize::from(data);
    let mids: Vec<String> = (0..count).map(|m| m.to_string()).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        sdp,
        "v=0\r\no=- {session} 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\n",
        mids.join(" ")
    );
    for (media, mid) in media.iter().zip(&mids) {
        offer_media(&mut sdp, local, media, mid);
    }
    if data {
        sdp.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n");
        offer_transport(&mut sdp, local, mids.last().map_or("0", String::as_str));
        sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n");
    }
    sdp
}

fn offer_transport(sdp: &mut String, local: &Local, mid: &str) {
    let fingerprint: Vec<String> = local
        .fingerprint
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect();
    let _ = write!(
        sdp,
        "a=mid:{mid}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n\
         a=setup:actpass\r\n",
        local.ufrag,
        local.pwd,
        fingerprint.join(":")
    );
}

fn offer_media(sdp: &mut String, local: &Local, media: &OfferMedia, mid: &str) {
    let audio = !media.codec.is_video();
    let slot = media.direction == OfferDirection::Receive;
    let offered = |(codec, ..): &(Codec, u8, u8, &str)| !audio && (slot || *codec == media.codec);
    let videos: Vec<_> = VIDEO.into_iter().filter(offered).collect();
    let formats = |(_, pt, rtx, _): &(Codec, u8, u8, &str)| format!("{pt} {rtx}");
    let formats: Vec<String> = videos.iter().map(formats).collect();
    let (kind, formats) = if audio {
        ("audio", OPUS_PT.to_string())
    } else {
        ("video", formats.join(" "))
    };
    let _ = write!(
        sdp,
        "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\n"
    );
    offer_transport(sdp, local, mid);
    sdp.push_str(match media.direction {
        OfferDirection::Receive => "a=recvonly\r\n",
        OfferDirection::Send(..) | OfferDirection::Simulcast(_) => "a=sendonly\r\n",
    });
    sdp.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
    for (id, kind) in EXTENSIONS {
        let for_audio = matches!(
            kind,
            ExtensionKind::AudioLevel
                | ExtensionKind::Mid
                | ExtensionKind::AbsSendTime
                | ExtensionKind::TransportCc
        );
        let offered = if audio {
            for_audio
        } else {
            kind != ExtensionKind::AudioLevel
        };
        if offered {
            let _ = write!(sdp, "a=extmap:{id} {}\r\n", kind.uri());
        }
    }
    if audio {
        let _ = write!(
            sdp,
            "a=rtpmap:{OPUS_PT} opus/48000/2\r\na=fmtp:{OPUS_PT} minptime=10;useinbandfec=1\r\n\
             a=rtcp-fb:{OPUS_PT} transport-cc\r\n"
        );
    }
    for (codec, pt, rtx, parameters) in videos {
        let _ = write!(sdp, "a=rtpmap:{pt} {}/90000\r\n", codec.name());
        if !parameters.is_empty() {
            let _ = write!(sdp, "a=fmtp:{pt} {parameters}\r\n");
        }
        for feedback in ["transport-cc", "ccm fir", "nack", "nack pli"] {
            let _ = write!(sdp, "a=rtcp-fb:{pt} {feedback}\r\n");
        }
        let _ = write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n");
    }
    match &media.direction {
        OfferDirection::Receive => {}
        OfferDirection::Send(ssrc, rtx) => {
            let _ = write!(sdp, "a=msid:- send-{mid}\r\n");
            if !audio {
                let _ = write!(sdp, "a=ssrc-group:FID {ssrc} {rtx}\r\n");
            }
            // The first is the one that carries media, as browsers have it and some stacks need it.
            let _ = write!(sdp, "a=ssrc:{ssrc} cname:load\r\n");
            if !audio {
                let _ = write!(sdp, "a=ssrc:{rtx} cname:load\r\n");
            }
        }
        OfferDirection::Simulcast(rids) => {
            let _ = write!(sdp, "a=msid:- send-{mid}\r\n");
            for rid in rids {
                let _ = write!(sdp, "a=rid:{rid} send\r\n");
            }
            // RFC 8853 §5.1.
            let _ = write!(sdp, "a=simulcast:send {}\r\n", rids.join(";"));
        }
    }
}

/// Everything about the transport that has been seen, on whatever m-line.
#[derive(Default)]
struct Seen {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<[u8; 32]>,
    candidates: Vec<(Proto, SocketAddr)>,
    passive: bool,
    data: bool,
}

impl AnswerMedia {
    /// Payload types of codecs that are modelled.
    pub(super) fn known(&self) -> impl Iterator<Item = (u8, Codec)> {
        let known = |(pt, name): &(u8, String)| Some((*pt, Codec::from_name(name)?));
        self.codecs.iter().filter_map(known)
    }
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn parse(sdp: &str) -> Result<Answer, AnswerError> {
        let mut seen = Seen::default();
        let mut media: Vec<AnswerMedia> = vec![];
        let mut extensions = ExtensionMap::new();
        let mut in_data = false;
        for (n, line) in sdp.lines().enumerate() {
            let malformed = AnswerError::Malformed(n + 1);
            if let Some(m) = line.strip_prefix("m=") {
                let mut fields = m.split(' ');
                in_data = fields.next() == Some("application");
                let accepted = fields.next().ok_or(malformed)? != "0";
                if in_data {
                    seen.data = accepted;
                } else {
                    media.push(AnswerMedia {
                        active: accepted,
                        ..AnswerMedia::default()
                    });
                }
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else {
                continue;
            };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            if !transport_line(&mut seen, name, value).ok_or(malformed)?
                && !in_data
                && let Some(m) = media.last_mut()
            {
                media_line(m, &mut extensions, name, value).ok_or(malformed)?;
            }
        }
        let missing = AnswerError::Missing;
        Ok(Answer {
            remote: Remote {
                ufrag: seen.ufrag.ok_or(missing("ice-ufrag"))?,
                pwd: seen.pwd.ok_or(missing("ice-pwd"))?,
                fingerprint: seen.fingerprint.ok_or(missing("sha-256 fingerprint"))?,
                candidates: seen.candidates,
                dtls_passive: seen.passive,
                data: seen.data,
            },
            media,
            extensions,
        })
    }

    /// The first candidate of this protocol.
    #[must_use]
    pub fn candidate(&self, proto: Proto) -> Option<SocketAddr> {
        self.remote
            .candidates
            .iter()
            .find(|(p, _)| *p == proto)
            .map(|(_, addr)| *addr)
    }

    /// Replaces the candidates by this one: for a relay behind an address that it does not know.
    pub fn via(&mut self, proto: Proto, addr: SocketAddr) {
        self.remote.candidates = vec![(proto, addr)];
    }

    /// Leaves only candidates of this protocol.
    pub fn only(&mut self, proto: Proto) {
        self.remote.candidates.retain(|(p, _)| *p == proto);
    }
}

/// Takes an attribute of the transport; `Some(false)` if it is none, `None` if malformed.
fn transport_line(seen: &mut Seen, name: &str, value: &str) -> Option<bool> {
    match name {
        "ice-ufrag" => seen.ufrag = Some(value.to_owned()),
        "ice-pwd" => seen.pwd = Some(value.to_owned()),
        "setup" => seen.passive = value == "passive",
        "fingerprint" => {
            let (hash, hex) = value.split_once(' ')?;
            if hash.eq_ignore_ascii_case("sha-256") {
                let bytes: Option<Vec<u8>> = hex
                    .split(':')
                    .map(|b| u8::from_str_radix(b, 16).ok())
                    .collect();
                seen.fingerprint = Some(bytes?.try_into().ok()?);
            }
        }
        "candidate" => {
            // foundation component transport priority address port typ ..
            let fields: Vec<&str> = value.split(' ').collect();
            let [_, _, transport, _, address, port, ..] = fields[..] else {
                return None;
            };
            let proto = if transport.eq_ignore_ascii_case("tcp") {
                Proto::Tcp
            } else {
                Proto::Udp
            };
            // Names (mDNS) are browsers' business.
            if let Ok(ip) = address.parse::<IpAddr>() {
                let candidate = (proto, SocketAddr::new(ip, port.parse().ok()?));
                if !seen.candidates.contains(&candidate) {
                    seen.candidates.push(candidate);
                }
            }
        }
        _ => return Some(false),
    }
    Some(true)
}

fn media_line(
    media: &mut AnswerMedia,
    extensions: &mut ExtensionMap,
    name: &str,
    value: &str,
) -> Option<()> {
    match name {
        "mid" => media.mid = value.to_owned(),
        "inactive" => media.active = false,
        "rtpmap" => {
            let (pt, encoding) = value.split_once(' ')?;
            let codec = encoding.split('/').next()?.to_ascii_lowercase();
            media.codecs.push((pt.parse().ok()?, codec));
        }
        "fmtp" => {
            let (pt, params) = value.split_once(' ')?;
            if let Some(apt) = params.strip_prefix("apt=") {
                media.rtx.push((pt.parse().ok()?, apt.trim().parse().ok()?));
            }
        }
        "extmap" => {
            let (id, uri) = value.split_once(' ')?;
            let id = id.split('/').next()?.parse().ok()?;
            if let Some(kind) = ExtensionKind::from_uri(uri.split(' ').next()?) {
                extensions.set(id, kind);
            }
        }
        "simulcast" => {
            // RFC 8853 §5.1: alternatives are set apart by commas, "~" marks what is paused.
            let rids = value.strip_prefix("recv ").unwrap_or_default();
            let rids = rids.split(' ').next().unwrap_or_default();
            let first = |r: &str| {
                let rid = r.split(',').next().unwrap_or_default();
                rid.trim_start_matches('~').to_owned()
            };
            let rids = rids.split(';').map(first);
            media.rids = rids.filter(|r| !r.is_empty()).collect();
        }
        "ssrc-group" => {
            let mut fields = value.split(' ');
            if fields.next() == Some("FID") {
                media.ssrc = Some(fields.next()?.parse().ok()?);
                media.rtx_ssrc = Some(fields.next()?.parse().ok()?);
            }
        }
        "ssrc" => {
            let ssrc = value.split(' ').next()?.parse().ok()?;
            if media.rtx_ssrc != Some(ssrc) {
                media.ssrc.get_or_insert(ssrc);
            }
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
        a=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 \
        00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
        a=setup:passive\r\na=candidate:1 1 udp 2130706431 127.0.0.1 7000 typ host\r\n\
        a=candidate:2 1 tcp 1 ::1 7001 typ host tcptype passive\r\na=recvonly\r\n\
        a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtpmap:111 opus/48000/2\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=ssrc-group:FID 7 8\r\na=ssrc:7 cname:x\r\n\
        a=ssrc:8 cname:x\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";

    #[test]
    fn reads_what_matters() {
        let answer = Answer::parse(ANSWER).unwrap();
        assert_eq!(answer.remote.ufrag, "abcd");
        assert_eq!(answer.remote.fingerprint[10], 0xaa);
        assert!(answer.remote.dtls_passive && answer.remote.data);
        assert_eq!(
            answer.candidate(Proto::Udp),
            Some("127.0.0.1:7000".parse().unwrap())
        );
        assert_eq!(
            answer.candidate(Proto::Tcp),
            Some("[::1]:7001".parse().unwrap())
        );
        assert_eq!(answer.extensions.id(ExtensionKind::Mid), Some(4));
        let [audio, video] = &answer.media[..] else {
            panic!()
        };
        assert_eq!((audio.mid.as_str(), audio.ssrc), ("0", None));
        assert_eq!(audio.codecs, [(111, "opus".to_owned())]);
        assert_eq!(
            (video.ssrc, video.rtx_ssrc, &video.rtx[..]),
            (Some(7), Some(8), &[(97, 96)][..])
        );
    }

    #[test]
    fn simulcast_is_offered_and_its_answer_read() {
        let local = Local {
            ufrag: "u".into(),
            pwd: "p".into(),
            fingerprint: [0; 32],
        };
        let media = OfferMedia {
            codec: Codec::Vp8,
            direction: OfferDirection::Simulcast(vec!["q", "h", "f"]),
        };
        let sdp = offer(&local, &[media], false, 1);
        assert!(sdp.contains("a=rid:h send\r\n") && sdp.contains("a=simulcast:send q;h;f\r\n"));
        assert!(!sdp.contains("a=ssrc"));
        for (line, want) in [
            ("a=simulcast:recv q;~h,x;f", vec!["q", "h", "f"]),
            ("a=simulcast:recv f", vec!["f"]),
            ("a=simulcast:send q;h", vec![]),
        ] {
            let answer = ANSWER.replace("a=sendonly", &format!("{line}\r\na=sendonly"));
            let answer = Answer::parse(&answer).unwrap();
            assert_eq!(answer.media[1].rids, want, "{line}");
        }
    }

    #[test]
    fn says_what_is_missing() {
        let without = |line: &str| {
            let kept: String = ANSWER
                .split_inclusive('\n')
                .filter(|l| !l.starts_with(line))
                .collect();
            Answer::parse(&kept).map(|_| ())
        };
        assert_eq!(without("a=ice-pwd"), Err(AnswerError::Missing("ice-pwd")));
        assert_eq!(
            without("a=fingerprint"),
            Err(AnswerError::Missing("sha-256 fingerprint"))
        );
        let bad = ANSWER.replace("a=fmtp:97", "a=fmtp:x");
        assert!(matches!(
            Answer::parse(&bad),
            Err(AnswerError::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "(a=|m=|[a-z]{0,6}:)?[ -~]{0,60}", at in 0usize..30) {
            let mut lines: Vec<&str> = ANSWER.lines().collect();
            let at = at.min(lines.len());
            lines.insert(at, &text);
            let _ = Answer::parse(&lines.join("\r\n"));
            let _ = Answer::parse(&text);
        }
    }
}
