//! What the control plane's SDP negotiation yields: plain values that a shard acts on.

use crate::ids::SlotId;
use std::fmt;

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// Opus audio.
    Audio,
    /// Camera, screen or imaging video.
    Video,
}

/// What a published track shows. Sets its priority and how it may be degraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A microphone, or the audio of a shared screen.
    Audio,
    /// A camera that shows a person.
    Camera,
    /// A shared screen.
    Screen,
    /// Diagnostic imaging: ultrasound, endoscopy, dermatoscopy. Never silently degraded.
    Imaging,
}

impl Source {
    /// Every source, in the order of their metric labels.
    pub const ALL: [Source; 4] = [
        Source::Audio,
        Source::Camera,
        Source::Screen,
        Source::Imaging,
    ];

    /// The source's name on the wire and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Audio => "audio",
            Source::Camera => "camera",
            Source::Screen => "screen",
            Source::Imaging => "imaging",
        }
    }

    /// The media kind that carries it.
    #[must_use]
    pub const fn kind(self) -> MediaKind {
        match self {
            Source::Audio => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }
}

/// A short ASCII token of an SDP: MID or RID. At most 16 bytes, which is what a one-byte header
/// extension (RFC 8285 §4.2) can carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    len: u8,
    bytes: [u8; Token::MAX],
}

impl Token {
    /// Longest token, bytes.
    pub const MAX: usize = 16;

    /// A token of these bytes, or `None` if empty, too long, or not visible ASCII.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Token> {
        if text.is_empty() || text.len() > Token::MAX || !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut bytes = [0; Token::MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Token {
            len: text.len() as u8,
            bytes,
        })
    }

    /// The token's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in, so this never falls back.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Media identification (RFC 8843 §15): names an m-line, and packets by header extension.
pub type Mid = Token;

/// RTP stream identifier (RFC 8852): names a simulcast encoding of an m-line.
pub type Rid = Token;

/// The codecs the relay routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// RFC 7587, 48 kHz.
    Opus,
    /// Opus in RFC 2198 redundancy: each packet repeats frames of those before it. Never without
    /// Opus beside it in the same m-line.
    Red,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// AV1 RTP payload format.
    Av1,
    /// RFC 6184.
    H264,
}

impl Codec {
    /// The encoding name of its `rtpmap` (compared without case, RFC 4855 §3).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::Red => "red",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::H264 => "H264",
        }
    }

    /// Audio or video.
    #[must_use]
    pub const fn kind(self) -> MediaKind {
        match self {
            Codec::Opus | Codec::Red => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }

    /// RTP clock rate, Hz.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self.kind() {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        }
    }
}

/// One negotiated payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecParams {
    /// Payload type, 0..=127, as this peer uses it.
    pub pt: u8,
    /// The codec.
    pub codec: Codec,
    /// Distinguishes formats of one codec that do not interoperate: H264 profile and
    /// packetization mode, VP9 and AV1 profile. Equal numbers interoperate.
    pub profile: u32,
    /// Payload type of its retransmissions (RFC 4588), if negotiated.
    pub rtx_pt: Option<u8>,
    /// Generic NACK negotiated (RFC 4585).
    pub nack: bool,
    /// PLI negotiated (RFC 4585).
    pub pli: bool,
    /// FIR negotiated (RFC 5104).
    pub fir: bool,
    /// Transport-wide congestion control negotiated.
    pub transport_cc: bool,
    /// Congestion control feedback negotiated (RFC 8888).
    pub ccfb: bool,
    /// REMB negotiated.
    pub remb: bool,
}

/// Header extensions the relay reads or writes. What it does not know it does not negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeaderExtension {
    /// RFC 8843.
    Mid,
    /// RFC 8852, `rtp-stream-id`.
    Rid,
    /// RFC 8852, `repaired-rtp-stream-id`.
    RepairedRid,
    /// RFC 6464.
    AudioLevel,
    /// Absolute send time (24-bit 6.18 seconds).
    AbsSendTime,
    /// Transport-wide sequence number.
    TransportCc,
    /// Coordination of video orientation (3GPP TS 26.114).
    VideoOrientation,
    /// Playout delay limits.
    PlayoutDelay,
    /// Absolute capture time.
    AbsCaptureTime,
    /// AV1 dependency descriptor, used with every video codec.
    DependencyDescriptor,
}

impl HeaderExtension {
    /// Every extension.
    pub const ALL: [HeaderExtension; 10] = [
        HeaderExtension::Mid,
        HeaderExtension::Rid,
        HeaderExtension::RepairedRid,
        HeaderExtension::AudioLevel,
        HeaderExtension::AbsSendTime,
        HeaderExtension::TransportCc,
        HeaderExtension::VideoOrientation,
        HeaderExtension::PlayoutDelay,
        HeaderExtension::AbsCaptureTime,
        HeaderExtension::DependencyDescriptor,
    ];

    /// The URI of its `extmap` line.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            HeaderExtension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            HeaderExtension::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            HeaderExtension::RepairedRid => {
                "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
            }
            HeaderExtension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            HeaderExtension::AbsSendTime => {
                "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
            }
            HeaderExtension::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            HeaderExtension::VideoOrientation => "urn:3gpp:video-orientation",
            HeaderExtension::PlayoutDelay => {
                "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
            }
            HeaderExtension::AbsCaptureTime => {
                "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
            }
            HeaderExtension::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }
}

/// Direction of an m-line, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client sends.
    Send,
    /// The client receives into a slot.
    Receive,
}

/// An m-line on which the client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveMedia {
    /// Its MID.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// Payload types the client may send, in the answer's order.
    pub codecs: Vec<CodecParams>,
    /// Simulcast encodings in the offer's order; empty without simulcast.
    pub rids: Vec<Rid>,
    /// SSRCs announced by `a=ssrc`, media before its RTX; empty when bound by MID and RID.
    pub ssrcs: Vec<AnnouncedSsrc>,
}

impl ReceiveMedia {
    /// The codec of what the m-line carries: its first, but for RED, which is another codec's
    /// redundancy.
    #[must_use]
    pub fn codec(&self) -> Option<&CodecParams> {
        self.codecs.iter().find(|params| params.codec != Codec::Red)
    }
}

/// An SSRC named in an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedSsrc {
    /// The stream's SSRC.
    pub ssrc: u32,
    /// SSRC of its retransmissions, from `a=ssrc-group:FID` (RFC 5576 §4.2).
    pub rtx: Option<u32>,
}

/// An m-line on which the client receives: one slot of its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMedia {
    /// The slot's index in the session.
    pub slot: SlotId,
    /// Its MID.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// Payload types the client takes.
    pub codecs: Vec<CodecParams>,
    /// SSRC the relay sends on, unique in the session, constant for the slot's life.
    pub ssrc: u32,
    /// SSRC of retransmissions, if RTX was negotiated.
    pub rtx_ssrc: Option<u32>,
}

/// Everything negotiated for one session. Extensions share one id space (RFC 8843 §9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionMedia {
    /// Negotiated ids, 1..=14 one-byte or up to 255 two-byte.
    pub extensions: Vec<(u8, HeaderExtension)>,
    /// `a=extmap-allow-mixed` negotiated: the two-byte form may be sent (RFC 8285 §6).
    pub extmap_allow_mixed: bool,
    /// m-lines on which the client sends.
    pub receive: Vec<ReceiveMedia>,
    /// m-lines on which the client receives.
    pub slots: Vec<SlotMedia>,
    /// Reduced-size RTCP negotiated (RFC 5506).
    pub rtcp_rsize: bool,
}

/// What a shard needs to build the transport of a WebRTC session. The relay is ICE-lite and DTLS
/// passive.
#[derive(Clone, PartialEq, Eq)]
pub struct WebRtcParams {
    /// Our ICE user fragment: names the session in STUN, so unique in the relay.
    pub local_ufrag: String,
    /// Our ICE password.
    pub local_pwd: String,
    /// The client's ICE user fragment.
    pub remote_ufrag: String,
    /// The client's ICE password.
    pub remote_pwd: String,
    /// SHA-256 of the client's DTLS certificate.
    pub remote_fingerprint: [u8; 32],
    /// The offer has an `application` m-line: start SCTP on this remote port.
    pub sctp_port: Option<u16>,
}

impl fmt::Debug for WebRtcParams {
    /// Leaves both passwords out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebRtcParams")
            .field("local_ufrag", &self.local_ufrag)
            .field("remote_ufrag", &self.remote_ufrag)
            .field("sctp_port", &self.sctp_port)
            .finish_non_exhaustive()
    }
}

/// What the relay checks on a track's payloads without a key (structural check): each frame
/// must start, after its codec's clear prefix, with an SFrame header (RFC 9605 §4.3) of one of
/// these contexts and a counter that grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealRule {
    /// Anything passes. Only for participants whose grant allows unsealed media.
    Any,
    /// `KID >> 24` must be one of these.
    Contexts(Vec<u64>),
}
