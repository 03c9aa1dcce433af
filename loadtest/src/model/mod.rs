//! Model media: encoders that produce frames as real ones do in size, timing and framing, with
//! contents that a receiver can check byte by byte.
//!
//! Nothing here knows of the network or of seals: an encoder yields frames, a packetizer cuts
//! them, a depacketizer puts them together again.

mod content;
mod depacketize;
mod heads;
mod opus;
mod packetize;
mod unpack;
mod video;

pub use content::{ContentError, FrameInfo, check};
pub use depacketize::{Depacketizer, DepacketizerStats, Frame};
pub use opus::{OpusModel, OpusParams};
pub use packetize::{Packetizer, Payload};
pub use video::{VideoModel, VideoParams};

use serde::{Deserialize, Serialize};

/// The codecs that are modelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Opus at 48 kHz.
    Opus,
    /// VP8.
    #[default]
    Vp8,
    /// VP9, profile 0.
    Vp9,
    /// AV1, Main profile.
    Av1,
    /// H.264, constrained Baseline, packetization mode 1.
    H264,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 5] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];

    /// Those of video.
    pub const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];

    /// Video, not audio.
    #[must_use]
    pub const fn is_video(self) -> bool {
        !matches!(self, Codec::Opus)
    }

    /// RTP clock rate, Hz.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        if self.is_video() { 90_000 } else { 48_000 }
    }

    /// Its encoding name in SDP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
            Codec::H264 => "H264",
        }
    }

    /// The codec of this encoding name, which is told without regard to case (RFC 8866 §6.6).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Codec> {
        let same = |c: &&Codec| c.name().eq_ignore_ascii_case(name);
        Codec::ALL.iter().find(same).copied()
    }

    /// How its frames are sealed.
    #[must_use]
    pub const fn layout(self) -> sealcast_sframe::layout::Codec {
        use sealcast_sframe::layout::Codec as Layout;
        match self {
            Codec::Opus => Layout::Opus,
            Codec::Vp8 => Layout::Vp8,
            Codec::Vp9 => Layout::Vp9,
            Codec::Av1 => Layout::Av1,
            Codec::H264 => Layout::H264,
        }
    }
}
