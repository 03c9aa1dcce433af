//! What a session refuses, and who is at fault.

use sealcast_model::Counter;

/// Why a received packet was dropped. The sender is at fault, never the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Neither STUN nor DTLS by its first byte (RFC 7983 §7).
    #[error("not STUN or DTLS")]
    UnknownProtocol,
    /// Not a STUN binding request that ICE-lite answers.
    #[error("malformed STUN")]
    StunMalformed,
    /// STUN for another user, or with a wrong MESSAGE-INTEGRITY.
    #[error("STUN did not authenticate")]
    StunUnauthenticated,
    /// DTLS from an address without an authenticated STUN request.
    #[error("DTLS from an address that ICE has not validated")]
    DtlsUnvalidated,
    /// DTLS that the handshake or the record layer rejected.
    #[error("malformed DTLS")]
    DtlsMalformed,
    /// SRTP before the handshake finished.
    #[error("SRTP before keys")]
    SrtpNoKeys,
    /// SRTP or SRTCP whose tag is wrong.
    #[error("SRTP did not authenticate")]
    SrtpAuth,
    /// SRTP or SRTCP seen before, or too old to tell.
    #[error("SRTP replayed")]
    SrtpReplay,
    /// Not SRTP or SRTCP.
    #[error("malformed SRTP")]
    SrtpMalformed,
    /// Authenticated, but of one SSRC more than a session may use.
    #[error("too many SSRCs")]
    SrtpTooManySsrcs,
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
}

impl Refusal {
    /// The drop counter of this refusal.
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Refusal::UnknownProtocol => Counter::DropUnknownProtocol,
            Refusal::StunMalformed => Counter::DropStunMalformed,
            Refusal::StunUnauthenticated => Counter::DropStunUnauthenticated,
            Refusal::DtlsUnvalidated => Counter::DropDtlsUnvalidated,
            Refusal::DtlsMalformed => Counter::DropDtlsMalformed,
            Refusal::SrtpNoKeys => Counter::DropSrtpNoKeys,
            Refusal::SrtpAuth => Counter::DropSrtpAuth,
            Refusal::SrtpReplay => Counter::DropSrtpReplay,
            Refusal::SrtpMalformed => Counter::DropSrtpMalformed,
            Refusal::SrtpTooManySsrcs => Counter::DropUnknownSsrc,
            Refusal::Closed => Counter::DropUnknownSource,
        }
    }
}

/// Why nothing was sealed or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not connected (any more).
    #[error("the session has no keys")]
    NoKeys,
    /// The output slice is shorter than the packet plus its overhead: a bug of the caller.
    #[error("the output is too short")]
    OutputTooShort,
    /// The data channel is not open, or its buffer is full.
    #[error("the data channel takes nothing now")]
    ChannelBusy,
    /// A data-channel message over the limit: a bug of the caller.
    #[error("the message is too long")]
    MessageTooLong,
    /// Not a whole RTP or RTCP packet: a bug of the caller.
    #[error("malformed packet")]
    Malformed,
    /// This packet index was sealed before, or may have been: a bug of the caller.
    #[error("the packet index was used before")]
    IndexReused,
    /// More SSRCs than a session may send on.
    #[error("too many SSRCs")]
    TooManySsrcs,
    /// The SRTP key's packet limit is used up (RFC 3711 §9.2): close the session.
    #[error("the key is used up")]
    KeyExhausted,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Backend,
}

/// Why a session could not be built. The control plane is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// An ICE user fragment or password outside RFC 8839 §5.4.
    #[error("invalid ICE credentials")]
    IceCredentials,
    /// str0m refused to start.
    #[error("the session engine did not start: {0}")]
    Engine(String),
}
