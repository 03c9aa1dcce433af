//! What can go wrong, and whose fault it is.

use crate::Profile;

/// Why a received packet was not opened. Drop the packet and count it; the session lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// Shorter than a header with its tag. The sender's fault.
    #[error("packet is too short")]
    TooShort,
    /// Longer than [`crate::limits::MAX_PACKET`]. The sender's fault.
    #[error("packet is too long")]
    TooLong,
    /// Not version 2, or the header claims more bytes than the packet has. The sender's fault.
    #[error("packet header is malformed")]
    Malformed,
    /// SRTCP with the E flag clear where encryption was negotiated. The sender's fault.
    #[error("SRTCP packet is not encrypted")]
    Unencrypted,
    /// The tag does not match: forged, damaged, sealed under another key, or more than 2^15
    /// packets away from the last one that authenticated.
    #[error("packet did not authenticate")]
    AuthFailed,
    /// This index was received before: duplicated by the network, or replayed.
    #[error("packet was received before")]
    Replayed,
    /// Too far behind the newest packet to tell late from replayed.
    #[error("packet is older than the replay window")]
    TooOld,
    /// The session already uses as many SSRCs as it may.
    #[error("session has too many SSRCs")]
    TooManySsrcs,
    /// The caller's output buffer cannot hold the plaintext. Our bug.
    #[error("output buffer is too small")]
    OutputTooSmall,
    /// The cryptographic library failed for a reason other than the packet.
    #[error("cryptographic library failed")]
    Backend,
}

impl OpenError {
    /// All kinds, in declaration order, for tables of counters.
    pub const ALL: [OpenError; 10] = [
        OpenError::TooShort,
        OpenError::TooLong,
        OpenError::Malformed,
        OpenError::Unencrypted,
        OpenError::AuthFailed,
        OpenError::Replayed,
        OpenError::TooOld,
        OpenError::TooManySsrcs,
        OpenError::OutputTooSmall,
        OpenError::Backend,
    ];

    /// A stable name for a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            OpenError::TooShort => "too_short",
            OpenError::TooLong => "too_long",
            OpenError::Malformed => "malformed",
            OpenError::Unencrypted => "unencrypted",
            OpenError::AuthFailed => "auth_failed",
            OpenError::Replayed => "replayed",
            OpenError::TooOld => "too_old",
            OpenError::TooManySsrcs => "too_many_ssrcs",
            OpenError::OutputTooSmall => "output_too_small",
            OpenError::Backend => "backend",
        }
    }
}

/// Why a packet was not sealed. All but the last two are faults of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SealError {
    /// The output buffer cannot hold header, payload and tag.
    #[error("output buffer is too small")]
    OutputTooSmall,
    /// The sealed packet would be longer than [`crate::limits::MAX_PACKET`].
    #[error("packet is too long")]
    TooLong,
    /// The header is not a whole RTP or RTCP header of version 2.
    #[error("packet header is malformed")]
    Malformed,
    /// The header's SSRC is not the stream's.
    #[error("header SSRC is not the stream's")]
    WrongSsrc,
    /// This index was sealed before. Sealing other bytes under it would give the keystream away.
    #[error("packet index was sealed before")]
    IndexReused,
    /// [`crate::Outbound::reseal_rtp`] on an index that was never sealed.
    #[error("packet index was never sealed")]
    NeverSealed,
    /// So far behind the stream's newest packet that reuse cannot be ruled out.
    #[error("packet index is older than the window")]
    TooOld,
    /// A handle for this SSRC was given out before.
    #[error("SSRC already has a stream")]
    SsrcInUse,
    /// The session already sends as many SSRCs as it may.
    #[error("session has too many SSRCs")]
    TooManySsrcs,
    /// 2^48 RTP or 2^31 RTCP packets were sealed under this key (RFC 3711 §9.2): close the session.
    #[error("key has sealed as many packets as it may")]
    KeyExhausted,
    /// The cryptographic library failed.
    #[error("cryptographic library failed")]
    Backend,
}

/// Why a context could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key material is not of the profile's length.
    #[error("{profile} needs {expected} bytes of key material, not {actual}")]
    Length {
        /// The profile asked for.
        profile: Profile,
        /// Bytes it needs.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// The cryptographic library refused the key or lacks the algorithm.
    #[error("cryptographic library cannot set up {0}")]
    Backend(Profile),
}
