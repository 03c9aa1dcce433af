//! What clients negotiate, and the packets they send.

use crate::Result;
use crate::shape::{Topology, Traffic};
use sealcast_model::media::AnnouncedSsrc;
use sealcast_model::{
    Codec, CodecParams, HeaderExtension, MediaKind, Mid, ReceiveMedia, SessionMedia, SlotId,
    SlotMedia, Source, TrackId,
};

/// The kinds of media, with payload type and source.
pub(super) const KINDS: [(MediaKind, Codec, u8, Source); 2] = [
    (MediaKind::Audio, Codec::Opus, 111, Source::Audio),
    (MediaKind::Video, Codec::Vp8, VIDEO_PT, Source::Camera),
];
/// Payload type of video.
pub const VIDEO_PT: u8 = 96;
/// Payload type of its retransmissions.
const RTX_PT: u8 = 97;
/// Slots have SSRCs from here on, their retransmissions with [`RTX_BIT`].
const SLOT_SSRC: u32 = 0x5000_0000;
/// Clients send on SSRCs from here on, their retransmissions with [`RTX_BIT`].
const CLIENT_SSRC: u32 = 0x1000_0000;
const RTX_BIT: u32 = 0x0800_0000;
/// Local id of the transport-wide sequence number.
pub const TRANSPORT_CC_ID: u8 = 3;

/// What is negotiated beyond plain RTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Features {
    /// NACK and RTX for video.
    pub repair: bool,
    /// Transport-wide congestion control.
    pub transport_cc: bool,
}

pub(super) fn track(client: usize, kind: MediaKind) -> TrackId {
    TrackId(client as u64 * 2 + u64::from(kind == MediaKind::Video))
}

/// The SSRC that a client sends audio (0) or video (1) on.
pub(super) fn ssrc(client: usize, kind: usize) -> u32 {
    CLIENT_SSRC + (client * 2 + kind) as u32
}

/// The SSRC of a client's slot.
#[must_use]
pub const fn slot_ssrc(slot: u32) -> u32 {
    SLOT_SSRC + slot
}

/// As browsers send it: fixed header and the transport-wide sequence number.
pub(super) fn header(
    kind: usize,
    marker: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    transport_sequence: u16,
) -> [u8; 20] {
    let (_, _, payload_type, _) = KINDS[kind];
    let mut header = [0; 20];
    header[0] = 0x90;
    header[1] = u8::from(marker) << 7 | payload_type;
    header[2..4].copy_from_slice(&sequence.to_be_bytes());
    header[4..8].copy_from_slice(&timestamp.to_be_bytes());
    header[8..12].copy_from_slice(&ssrc.to_be_bytes());
    // RFC 8285 §4.2: one-byte form, one word of elements, of which one has two bytes.
    header[12..17].copy_from_slice(&[0xbe, 0xde, 0, 1, TRANSPORT_CC_ID << 4 | 1]);
    header[17..19].copy_from_slice(&transport_sequence.to_be_bytes());
    header
}

/// Opus is anything; VP8 (RFC 7741 §4.2, §4.3) has a descriptor of one byte, and the beginning of
/// a frame.
pub(super) fn payload(traffic: &Traffic, key_frame: bool, first: bool) -> Vec<u8> {
    let mut payload = vec![0x5a; traffic.payload];
    if !traffic.is_video() {
        return payload;
    }
    payload[0] = if first { 0x10 } else { 0 };
    if first && key_frame {
        payload[1..11].copy_from_slice(&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0]);
    } else if first {
        payload[1] = 0x11;
    }
    payload
}

fn mid(number: usize) -> Result<Mid> {
    Ok(Mid::new(number.to_string().as_bytes()).ok_or("a number is not a MID")?)
}

/// What control would have negotiated with client `index`.
pub(super) fn session_media(
    topology: &Topology,
    features: Features,
    index: usize,
) -> Result<SessionMedia> {
    let codec = |kind, codec, pt| {
        let repair = features.repair && kind == MediaKind::Video;
        CodecParams {
            pt,
            codec,
            profile: 0,
            rtx_pt: repair.then_some(RTX_PT),
            nack: repair,
            pli: true,
            fir: false,
            transport_cc: features.transport_cc,
            ccfb: false,
            remb: false,
        }
    };
    let mut extensions = vec![(4, HeaderExtension::Mid)];
    if features.transport_cc {
        extensions.push((2, HeaderExtension::AbsSendTime));
        extensions.push((TRANSPORT_CC_ID, HeaderExtension::TransportCc));
    }
    let rtx_of =
        |kind, ssrc| (features.repair && kind == MediaKind::Video).then_some(ssrc | RTX_BIT);
    let mut media = SessionMedia {
        extensions,
        extmap_allow_mixed: false,
        receive: Vec::new(),
        slots: Vec::new(),
        rtcp_rsize: true,
    };
    if topology.publishes(index) {
        for (number, (kind, c, pt, _)) in KINDS.into_iter().enumerate() {
            let ssrc = ssrc(index, number);
            media.receive.push(ReceiveMedia {
                mid: mid(number)?,
                kind,
                codecs: vec![codec(kind, c, pt)],
                rids: Vec::new(),
                ssrcs: vec![AnnouncedSsrc {
                    ssrc,
                    rtx: rtx_of(kind, ssrc),
                }],
            });
        }
    }
    let slots = topology.publishers_of(index).flat_map(|_| KINDS);
    for (number, (kind, c, pt, _)) in slots.enumerate() {
        let ssrc = slot_ssrc(number as u32);
        media.slots.push(SlotMedia {
            slot: SlotId(number as u16),
            mid: mid(number + KINDS.len())?,
            kind,
            codecs: vec![codec(kind, c, pt)],
            ssrc,
            rtx_ssrc: rtx_of(kind, ssrc),
        });
    }
    Ok(media)
}
