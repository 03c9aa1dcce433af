//! Where a session's packets come from and go to.

use sealcast_model::TransportKind;
use std::net::SocketAddr;

/// What carries a path's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// An ICE-TCP connection (RFC 6544); the number is the I/O layer's handle and must not be
    /// reused while the session lives.
    Tcp(u64),
}

impl Transport {
    /// UDP or TCP.
    #[must_use]
    pub const fn kind(self) -> TransportKind {
        match self {
            Transport::Udp => TransportKind::Udp,
            Transport::Tcp(_) => TransportKind::Tcp,
        }
    }
}

/// A transport 5-tuple, seen from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// UDP, or which TCP connection.
    pub transport: Transport,
    /// The relay's own address: destination of received packets, source of sent ones.
    pub local: SocketAddr,
    /// The client's address.
    pub remote: SocketAddr,
}
