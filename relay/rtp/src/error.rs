//! Errors of this crate, by who is at fault: the peer ([`ParseError`]) or the caller ([`WriteError`]).

/// Bytes from the network that break their specification. The peer is at fault; drop the packet and count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The packet ends before a field that its own header announces.
    #[error("peer sent a packet that ends too early")]
    Truncated,
    /// The version field is not 2 (RFC 3550, section 5.1 and 6.4.1).
    #[error("peer sent RTP or RTCP of another version than 2")]
    Version,
    /// The padding count is zero or larger than the room for it (RFC 3550, section 5.1).
    #[error("peer sent a packet with an impossible padding count")]
    Padding,
    /// A length field disagrees with the bytes that are there.
    #[error("peer sent a length field that does not fit the packet")]
    Length,
    /// A field holds a value its specification forbids; the text names the field.
    #[error("peer sent a forbidden value: {0}")]
    Value(&'static str),
    /// The packet is well formed and larger than a named limit of this crate; the text names the limit.
    #[error("peer exceeded a limit: {0}")]
    Limit(&'static str),
}

/// What the caller asked to write cannot be written. The relay is at fault; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output slice is too short.
    #[error("output slice is too short")]
    NoRoom,
    /// A value does not fit its field on the wire; the text names the field.
    #[error("value does not fit the wire: {0}")]
    Unrepresentable(&'static str),
}
