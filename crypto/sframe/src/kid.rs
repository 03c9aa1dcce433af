//! Key ids as Sealcast lays them out.
//!
//! With group keys (RFC 9605 §5.2) a KID is `context ‖ leaf index ‖ epoch`:
//!
//! ```text
//!  63            40 39           24 23            8 7       0
//! +----------------+---------------+---------------+---------+
//! |       0        |  context (16) | leaf index 16 | epoch 8 |
//! +----------------+---------------+---------------+---------+
//! ```
//!
//! The context is a number that a sender never gives to two encoders in one epoch: "each stream and
//! simulcast encoding has its own", so that no two encoders share a key and a counter.
//!
//! With a link key there is no group: the KID is [`Kid::LINK_BITS`] random bits per outgoing
//! encoding, and its upper 32 bits serve as the context. Either way the relay is told the context
//! of each published encoding, and may check the structure of what arrives against it.

use std::fmt;

/// A key id (RFC 9605 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(pub u64);

impl Kid {
    /// Random bits in a KID of link-key mode.
    pub const LINK_BITS: u32 = 56;

    const EPOCH_BITS: u32 = 8;
    const LEAF_BITS: u32 = 16;
    const CONTEXT_SHIFT: u32 = Self::EPOCH_BITS + Self::LEAF_BITS;

    /// The KID of a group member's encoder. Of `epoch` the low 8 bits count.
    pub const fn from_parts(context: u16, leaf: u16, epoch: u64) -> Self {
        Self(
            (context as u64) << Self::CONTEXT_SHIFT
                | (leaf as u64) << Self::EPOCH_BITS
                | (epoch & 0xff),
        )
    }

    /// The KID of an encoder in link-key mode, from random bits of the caller's. The top 8 bits of
    /// `random` are cut off.
    pub const fn from_random(random: u64) -> Self {
        Self(random & ((1 << Self::LINK_BITS) - 1))
    }

    /// Context, leaf index and low 8 bits of the epoch; `None` if the KID has bits set beyond the
    /// group layout's 40.
    pub fn parts(self) -> Option<(u16, u16, u8)> {
        let context = u16::try_from(self.0 >> Self::CONTEXT_SHIFT).ok()?;
        Some((context, (self.0 >> Self::EPOCH_BITS) as u16, self.0 as u8))
    }

    /// What identifies the encoder to the relay: `KID >> 24`, up to 40 bits wide.
    pub const fn context(self) -> u64 {
        self.0 >> Self::CONTEXT_SHIFT
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip_and_epoch_wraps() {
        let kid = Kid::from_parts(0xabcd, 0x1234, 0x1_56);
        assert_eq!(kid.0, 0xab_cd12_3456);
        assert_eq!(kid.parts(), Some((0xabcd, 0x1234, 0x56)));
        assert_eq!(kid.context(), 0xabcd);
    }

    #[test]
    fn link_kids_use_56_bits_and_rarely_look_like_group_kids() {
        let kid = Kid::from_random(u64::MAX);
        assert_eq!(kid.0, 0x00ff_ffff_ffff_ffff);
        assert_eq!(kid.context(), 0xffff_ffff);
        assert_eq!(kid.parts(), None);
    }
}
