//! How a client reaches the relay.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

/// Carries datagrams to and from the relay.
pub trait Link {
    /// Sends one.
    ///
    /// # Errors
    /// If it cannot be sent.
    fn send(&self, datagram: &[u8]) -> io::Result<()>;

    /// Takes one, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize>;
}

/// A socket that does not block, shared with whoever else drains it, and the relay's address.
#[derive(Clone, Debug)]
pub struct UdpLink {
    /// The socket.
    pub socket: Arc<UdpSocket>,
    /// The relay.
    pub relay: SocketAddr,
}

impl Link for UdpLink {
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.relay).map(drop)
    }

    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buf)
    }
}
