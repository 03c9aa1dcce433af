//! The parts of a session description that the relay reads and writes.

use super::candidate::Candidate;
use sealcast_model::{HeaderExtension, MediaKind, Mid, Rid};

/// SHA-256 of a DTLS certificate.
pub type Fingerprint = [u8; 32];

/// A session description, either side's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDescription {
    /// Session id of the `o=` line.
    pub origin_id: u64,
    /// Session version of the `o=` line; grows with each description.
    pub origin_version: u64,
    /// MIDs of the BUNDLE group (RFC 8843), in its order.
    pub bundle: Vec<Mid>,
    /// `a=ice-lite` (RFC 8839 §5.3).
    pub ice_lite: bool,
    /// m-lines in order.
    pub media: Vec<MediaDescription>,
}

/// One m-line with its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaDescription {
    /// 1-based line of the `m=`, for error messages; 0 in what we write.
    pub line: u32,
    /// The media field as written: `audio`, `video`, `application`, or something unknown.
    pub media: String,
    /// Port; 0 means rejected or, with `bundle_only`, bundled.
    pub port: u16,
    /// The transport field as written.
    pub protocol: String,
    /// Formats as written: payload types, or `webrtc-datachannel`.
    pub formats: Vec<String>,
    /// `a=mid`.
    pub mid: Option<Mid>,
    /// Direction as this description's author sees it.
    pub direction: Direction,
    /// `a=bundle-only` (RFC 8843 §6).
    pub bundle_only: bool,
    /// `a=rtcp-mux` (RFC 5761).
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize` (RFC 5506).
    pub rtcp_rsize: bool,
    /// `a=extmap-allow-mixed` here or at session level (RFC 8285 §6).
    pub extmap_allow_mixed: bool,
    /// ICE and DTLS attributes, session level applied.
    pub transport: Transport,
    /// `a=extmap` lines of known extensions.
    pub extensions: Vec<ExtMap>,
    /// `a=rtpmap` lines.
    pub rtpmaps: Vec<RtpMap>,
    /// `a=rtcp-fb` lines: payload type (`None` for `*`) and value.
    pub feedback: Vec<(Option<u8>, String)>,
    /// `a=fmtp` lines.
    pub fmtps: Vec<Fmtp>,
    /// `a=msid` (RFC 8830).
    pub msid: Option<Msid>,
    /// `a=rid` lines (RFC 8851).
    pub rids: Vec<RidLine>,
    /// RIDs of `a=simulcast:send` (RFC 8853); of alternatives, the first.
    pub simulcast_send: Vec<Rid>,
    /// RIDs of `a=simulcast:recv`.
    pub simulcast_recv: Vec<Rid>,
    /// SSRCs of `a=ssrc` lines, each once, in order (RFC 5576).
    pub ssrcs: Vec<SsrcLine>,
    /// `a=ssrc-group:FID` pairs: stream and its retransmissions.
    pub fid_groups: Vec<(u32, u32)>,
    /// `a=candidate` lines with an IP address.
    pub candidates: Vec<Candidate>,
    /// `a=end-of-candidates`.
    pub end_of_candidates: bool,
    /// `a=sctp-port` (RFC 8841).
    pub sctp_port: Option<u16>,
    /// `a=max-message-size`, bytes.
    pub max_message_size: Option<u64>,
}

/// ICE and DTLS attributes of an m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// `a=ice-ufrag`, 4–256 ice-chars.
    pub ufrag: Option<String>,
    /// `a=ice-pwd`, 22–256 ice-chars.
    pub pwd: Option<String>,
    /// `a=fingerprint:sha-256`. Other hashes are skipped.
    pub fingerprint: Option<Fingerprint>,
    /// `a=setup`.
    pub setup: Option<Setup>,
}

/// `a=setup` (RFC 8842, RFC 4145).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The author is DTLS client.
    Active,
    /// The author is DTLS server.
    Passive,
    /// The answerer chooses.
    Actpass,
}

impl Setup {
    /// The attribute's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::Actpass => "actpass",
        }
    }
}

/// Direction of an m-line or extension as its author sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both. What a section without a direction attribute means (RFC 8866 §6.7).
    #[default]
    SendRecv,
    /// The author sends.
    SendOnly,
    /// The author receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// The direction of that name.
    pub(super) fn parse(name: &str) -> Option<Direction> {
        [
            Direction::SendRecv,
            Direction::SendOnly,
            Direction::RecvOnly,
            Direction::Inactive,
        ]
        .into_iter()
        .find(|d| d.as_str() == name)
    }

    /// Whether the author sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the author receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// `a=extmap` of a known extension (RFC 8285 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtMap {
    /// 1–14, or 16–255 in the two-byte form.
    pub id: u8,
    /// Where it is limited to one direction.
    pub direction: Option<Direction>,
    /// Which extension.
    pub extension: HeaderExtension,
}

/// `a=rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpMap {
    /// Payload type, 0–127.
    pub pt: u8,
    /// Encoding name as written.
    pub name: String,
    /// Clock rate, Hz.
    pub clock_rate: u32,
    /// Channels, where given.
    pub channels: Option<u8>,
}

/// `a=fmtp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fmtp {
    /// Payload type, 0–127.
    pub pt: u8,
    /// Parameters as written.
    pub params: String,
}

impl Fmtp {
    /// The value of parameter `name` (compared without case, RFC 4855 §3).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.split(';').find_map(|param| {
            let (key, value) = param.split_once('=')?;
            key.trim()
                .eq_ignore_ascii_case(name)
                .then_some(value.trim())
        })
    }
}

/// `a=msid` (RFC 8830).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msid {
    /// The MediaStream's id.
    pub stream: String,
    /// The track's id, where given.
    pub track: Option<String>,
}

/// `a=rid` (RFC 8851).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RidLine {
    /// The RID.
    pub rid: Rid,
    /// `send` rather than `recv`.
    pub send: bool,
    /// Restrictions as written, e.g. `pt=96;max-width=1280`; empty without.
    pub restrictions: String,
}

/// The SSRC of an `a=ssrc` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcLine {
    /// The SSRC.
    pub ssrc: u32,
    /// Its CNAME, where given.
    pub cname: Option<String>,
}

impl MediaDescription {
    /// Audio or video; `None` for a data channel and unknown media.
    #[must_use]
    pub fn kind(&self) -> Option<MediaKind> {
        match self.media.as_str() {
            "audio" => Some(MediaKind::Audio),
            "video" => Some(MediaKind::Video),
            _ => None,
        }
    }

    /// Whether the author has rejected or stopped it.
    ///
    /// RFC 8843 §6: a bundle-only m-line has port zero and is not rejected.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    /// Whether it is a WebRTC data channel (RFC 8841).
    #[must_use]
    pub fn is_data_channel(&self) -> bool {
        self.media == "application"
            && matches!(
                self.protocol.as_str(),
                "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP" | "DTLS/SCTP"
            )
            && self
                .formats
                .first()
                .is_some_and(|f| f == "webrtc-datachannel")
    }

    /// The `rtpmap` of a payload type.
    #[must_use]
    pub fn rtpmap(&self, pt: u8) -> Option<&RtpMap> {
        self.rtpmaps.iter().find(|m| m.pt == pt)
    }

    /// The `fmtp` of a payload type.
    #[must_use]
    pub fn fmtp(&self, pt: u8) -> Option<&Fmtp> {
        self.fmtps.iter().find(|f| f.pt == pt)
    }

    /// Whether a payload type has this `rtcp-fb` value.
    #[must_use]
    pub fn has_feedback(&self, pt: u8, value: &str) -> bool {
        self.feedback
            .iter()
            .any(|(of, v)| of.is_none_or(|of| of == pt) && v == value)
    }
}
