//! What can go wrong, and whose fault it is: [`KeyError`] and [`SealError`] are the caller's,
//! [`OpenError`] is the sender's or the network's. Each message starts with a stable word and a
//! colon, for callers in other languages.

use crate::Kid;
use thiserror::Error;

/// A key that cannot be made or stored. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The number is not in RFC 9605's registry.
    #[error("suite: {0} is not registered")]
    UnknownSuite(u16),
    /// A base key shorter than [`crate::MIN_BASE_KEY_LEN`] or longer than
    /// [`crate::MAX_BASE_KEY_LEN`].
    #[error("base-key: {0} bytes long")]
    BaseKeyLength(usize),
    /// The store already holds [`crate::MAX_KEYS`] keys or [`crate::MAX_BASE_KEYS`] base keys.
    #[error("full: no room for another key")]
    StoreFull,
    /// The KID has a key already; replacing it would reset its replay window.
    #[error("duplicate: key id {0} has a key")]
    Duplicate(Kid),
}

/// A frame that cannot be sealed. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The key has sealed as many frames as it may: switch to a new one.
    #[error("exhausted: frame limit of {0} reached")]
    Exhausted(u64),
    /// The output slice does not have exactly the sealed length.
    #[error("output-length: {have} bytes where {need} are needed")]
    OutputLength {
        /// Bytes the sealed frame takes.
        need: usize,
        /// Bytes the caller offered.
        have: usize,
    },
    /// The frame is not one of its codec, so that nobody could find the clear prefix again.
    #[error("not-this-codec: frame of {len} bytes is no {codec} frame")]
    NotThisCodec {
        /// The codec that was named.
        codec: crate::layout::Codec,
        /// Length of the frame in bytes.
        len: usize,
    },
    /// The cipher refused: the frame exceeds what AES-GCM seals in one go (64 GiB).
    #[error("too-long: more than the cipher seals at once")]
    TooLong,
}

/// A frame that was not opened. The fault of its sender or of the network; the buffer's content is
/// unspecified afterwards, but holds no plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Ends before its header, or leaves no room for the tag.
    #[error("short: frame ends before header and tag")]
    Short,
    /// The header or the codec's clear part breaks its format.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// No key for this KID.
    #[error("unknown-kid: {0}")]
    UnknownKid(Kid),
    /// Authentic or not, this counter was opened before or lies behind the replay window.
    #[error("replayed: counter {counter} of key id {kid}")]
    Replayed {
        /// Key id of the frame.
        kid: Kid,
        /// Counter of the frame.
        counter: u64,
    },
    /// The tag does not match: wrong key, or bytes changed on the way.
    #[error("auth: frame of key id {0} does not authenticate")]
    Auth(Kid),
}

impl OpenError {
    /// A stable word for counters and for callers in other languages.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Malformed(_) => "malformed",
            Self::UnknownKid(_) => "unknown-kid",
            Self::Replayed { .. } => "replayed",
            Self::Auth(_) => "auth",
        }
    }
}
