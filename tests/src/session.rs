//! What a model client negotiates.

use crate::packet::{
    EXT_DEPENDENCY, EXT_LEVEL, EXT_MID, EXT_REPAIRED_RID, EXT_RID, EXT_SEND_TIME, EXT_TWCC, OPUS,
    RIDS, VIDEO, token,
};
use crate::payload::Format;
use sealcast_model::media::AnnouncedSsrc;
use sealcast_model::{
    Codec, CodecParams, HeaderExtension, MediaKind, ReceiveMedia, SessionMedia, SlotId, SlotMedia,
    TrackId,
};

/// Audio slots of a session; video slots follow.
pub const AUDIO_SLOTS: u16 = 8;
/// MID of the microphone.
pub const AUDIO_MID: &str = "a";
/// MID of the camera.
pub const VIDEO_MID: &str = "v";

/// How a client is made.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// It sends three encodings.
    pub simulcast: bool,
    /// It gives transport-wide feedback.
    pub controlled: bool,
    /// Video slots.
    pub video_slots: u16,
}

/// SSRC of an audio stream.
#[must_use]
pub fn audio_ssrc(client: u32) -> u32 {
    0x1000_0000 + client
}

/// SSRC of an encoding.
#[must_use]
pub fn video_ssrc(client: u32, encoding: u32) -> u32 {
    0x2000_0000 + client * 16 + encoding
}

/// SSRC of an encoding's retransmissions.
#[must_use]
pub fn repair_ssrc(client: u32, encoding: u32) -> u32 {
    video_ssrc(client, encoding) + 8
}

/// SSRC that the relay sends a slot on.
#[must_use]
pub fn slot_ssrc(client: u32, slot: u16) -> u32 {
    0x4000_0000 + client * 1_024 + u32::from(slot)
}

/// SSRC of a slot's retransmissions.
#[must_use]
pub fn slot_repair_ssrc(client: u32, slot: u16) -> u32 {
    slot_ssrc(client, slot) + 512
}

/// A client's audio or video track.
#[must_use]
pub fn track(client: u32, audio: bool) -> TrackId {
    TrackId(u64::from(client) * 2 + u64::from(audio))
}

fn codec(pt: u8, codec: Codec, rtx_pt: Option<u8>, controlled: bool) -> CodecParams {
    let video = codec.kind() == MediaKind::Video;
    CodecParams {
        pt,
        codec,
        profile: 0,
        rtx_pt,
        nack: video,
        pli: video,
        fir: false,
        transport_cc: controlled,
        ccfb: false,
        remb: false,
    }
}

/// The result of its negotiation: it sends in `format`, and takes every codec.
#[must_use]
pub fn media(client: u32, profile: Profile, format: Format) -> SessionMedia {
    let opus = codec(OPUS, Codec::Opus, None, profile.controlled);
    let video = VIDEO.map(|(of, pt, rtx)| codec(pt, of, Some(rtx), profile.controlled));
    let sent = video.iter().find(|video| video.codec == format.codec);
    let announced = AnnouncedSsrc {
        ssrc: video_ssrc(client, 0),
        rtx: Some(repair_ssrc(client, 0)),
    };
    let slot = |n: u16| {
        let audio = n < AUDIO_SLOTS;
        SlotMedia {
            slot: SlotId(n),
            mid: token(&format!("s{n}")),
            kind: if audio {
                MediaKind::Audio
            } else {
                MediaKind::Video
            },
            codecs: match audio {
                true => vec![opus.clone()],
                false => video.to_vec(),
            },
            ssrc: slot_ssrc(client, n),
            rtx_ssrc: (!audio).then(|| slot_repair_ssrc(client, n)),
        }
    };
    SessionMedia {
        extensions: vec![
            (EXT_LEVEL, HeaderExtension::AudioLevel),
            (EXT_SEND_TIME, HeaderExtension::AbsSendTime),
            (EXT_TWCC, HeaderExtension::TransportCc),
            (EXT_MID, HeaderExtension::Mid),
            (EXT_RID, HeaderExtension::Rid),
            (EXT_REPAIRED_RID, HeaderExtension::RepairedRid),
            (EXT_DEPENDENCY, HeaderExtension::DependencyDescriptor),
        ],
        extmap_allow_mixed: true,
        receive: vec![
            ReceiveMedia {
                mid: token(AUDIO_MID),
                kind: MediaKind::Audio,
                codecs: vec![opus.clone()],
                rids: Vec::new(),
                ssrcs: vec![AnnouncedSsrc {
                    ssrc: audio_ssrc(client),
                    rtx: None,
                }],
            },
            ReceiveMedia {
                mid: token(VIDEO_MID),
                kind: MediaKind::Video,
                codecs: sent.into_iter().cloned().collect(),
                rids: match profile.simulcast {
                    true => RIDS.into_iter().map(token).collect(),
                    false => Vec::new(),
                },
                ssrcs: match profile.simulcast {
                    true => Vec::new(),
                    false => vec![announced],
                },
            },
        ],
        slots: (0..AUDIO_SLOTS + profile.video_slots).map(slot).collect(),
        rtcp_rsize: true,
    }
}
