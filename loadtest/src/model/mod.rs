//! Model media: encoders that produce frames as real ones do in size, timing and framing, with
//! contents that a receiver can check byte by byte.
//!
//! Nothing here knows of the network or of seals: an encoder yields frames, a packetizer cuts
//! them, a depacketizer puts them together again.

mod content;
mod depacketize;
mod opus;
mod packetize;
mod vp8;

pub use content::{ContentError, FrameInfo, check};
pub use depacketize::{Depacketizer, DepacketizerStats, Frame};
pub use opus::{OpusModel, OpusParams};
pub use packetize::{Packetizer, Payload};
pub use vp8::{Vp8Model, Vp8Params};

/// The codecs that are modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus at 48 kHz.
    Opus,
    /// VP8.
    Vp8,
}

impl Codec {
    /// RTP clock rate, Hz.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::Vp8 => 90_000,
        }
    }

    /// How its frames are sealed.
    #[must_use]
    pub const fn layout(self) -> sealcast_sframe::layout::Codec {
        match self {
            Codec::Opus => sealcast_sframe::layout::Codec::Opus,
            Codec::Vp8 => sealcast_sframe::layout::Codec::Vp8,
        }
    }
}
