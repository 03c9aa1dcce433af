//! One peer's socket: UDP, or an ICE-TCP connection that is opened when first written to.

use super::framing::{Deframer, append_frame};
use crate::peer::{Proto, Route};
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Bytes queued on a TCP connection before packets are dropped: half a second of 4 Mbit/s.
const TCP_QUEUE: usize = 256 * 1024;

/// Packets taken from one socket before the next has its turn.
const RECEIVE_TURN: usize = 64;

/// RFC 6544 §4.5: an active candidate's port is 9, for it has none yet.
const ACTIVE_PORT: u16 = 9;

/// Datagrams that did not leave, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketStats {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Dropped because the socket's buffer or the TCP queue was full.
    pub congested: u64,
    /// Dropped because the kernel refused them.
    pub failed: u64,
}

pub(super) enum Socket {
    Udp {
        socket: UdpSocket,
        local: SocketAddr,
    },
    Tcp(Box<Tcp>),
}

pub(super) struct Tcp {
    local: SocketAddr,
    stream: Option<(TcpStream, SocketAddr)>,
    connected: bool,
    queue: Vec<u8>,
    deframer: Deframer,
}

impl Socket {
    /// A socket on `ip`, not registered yet.
    pub(super) fn bind(proto: Proto, addr: SocketAddr) -> io::Result<Socket> {
        match proto {
            Proto::Udp => {
                let socket = UdpSocket::bind(addr)?;
                let local = socket.local_addr()?;
                Ok(Socket::Udp { socket, local })
            }
            Proto::Tcp => Ok(Socket::Tcp(Box::new(Tcp {
                local: SocketAddr::new(addr.ip(), ACTIVE_PORT),
                stream: None,
                connected: false,
                queue: Vec::new(),
                deframer: Deframer::default(),
            }))),
        }
    }

    /// The address of its candidate.
    pub(super) fn local(&self) -> (Proto, SocketAddr) {
        match self {
            Socket::Udp { local, .. } => (Proto::Udp, *local),
            Socket::Tcp(tcp) => (Proto::Tcp, tcp.local),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Socket::Udp { socket, .. } => registry.register(socket, token, Interest::READABLE),
            Socket::Tcp(_) => Ok(()), // Once there is a connection.
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // A socket that is dropped leaves the poll by itself; this is for good order.
        let _ = match self {
            Socket::Udp { socket, .. } => registry.deregister(socket),
            Socket::Tcp(tcp) => match &mut tcp.stream {
                Some((stream, _)) => registry.deregister(stream),
                None => Ok(()),
            },
        };
    }

    /// Sends a datagram, or queues its frame.
    pub(super) fn send(
        &mut self,
        registry: &Registry,
        token: Token,
        remote: SocketAddr,
        packet: &[u8],
        stats: &mut SocketStats,
    ) {
        let sent = match self {
            Socket::Udp { socket, .. } => socket.send_to(packet, remote).map(|_| ()),
            Socket::Tcp(tcp) => tcp.send(registry, token, remote, packet),
        };
        match sent {
            Ok(()) => stats.sent += 1,
            Err(e) if e.kind() == ErrorKind::WouldBlock => stats.congested += 1,
            Err(_) => stats.failed += 1,
        }
    }

    /// Takes what has arrived. True if there may be more.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        stats: &mut SocketStats,
        on_packet: &mut dyn FnMut(Route, &mut [u8]),
    ) -> bool {
        match self {
            Socket::Udp { socket, local } => {
                for _ in 0..RECEIVE_TURN {
                    match socket.recv_from(buffer) {
                        Ok((len, remote)) => {
                            stats.received += 1;
                            let route = Route {
                                proto: Proto::Udp,
                                local: *local,
                                remote,
                            };
                            on_packet(route, buffer.get_mut(..len).unwrap_or_default());
                        }
                        // An ICMP error of an earlier datagram; the socket lives on.
                        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                        Err(_) => return false,
                    }
                }
                true
            }
            Socket::Tcp(tcp) => {
                tcp.receive(buffer, stats, on_packet);
                false
            }
        }
    }

    /// The socket takes more.
    pub(super) fn on_writable(&mut self) {
        if let Socket::Tcp(tcp) = self {
            tcp.connected = true;
            tcp.flush();
        }
    }
}

impl Tcp {
    fn send(
        &mut self,
        registry: &Registry,
        token: Token,
        remote: SocketAddr,
        packet: &[u8],
    ) -> io::Result<()> {
        if self.stream.as_ref().is_none_or(|(_, to)| *to != remote) {
            let mut stream = TcpStream::connect(remote)?;
            // Media is not to wait for acknowledgements.
            stream.set_nodelay(true)?;
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.stream = Some((stream, remote));
            self.connected = false;
            self.queue.clear();
            self.deframer = Deframer::default();
        }
        if self.queue.len() + packet.len() > TCP_QUEUE {
            return Err(ErrorKind::WouldBlock.into());
        }
        if !append_frame(&mut self.queue, packet) {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        let Some((stream, _)) = self.stream.as_mut().filter(|_| self.connected) else {
            return;
        };
        let mut written = 0;
        while let Some(rest) = self.queue.get(written..).filter(|r| !r.is_empty()) {
            match stream.write(rest) {
                Ok(0) | Err(_) => break, // Full, or closed: reading will tell.
                Ok(n) => written += n,
            }
        }
        self.queue.drain(..written);
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        stats: &mut SocketStats,
        on_packet: &mut dyn FnMut(Route, &mut [u8]),
    ) {
        while let Some((stream, remote)) = &mut self.stream {
            match stream.read(buffer) {
                Ok(0) => self.stream = None,
                Ok(n) => {
                    let route = Route {
                        proto: Proto::Tcp,
                        local: self.local,
                        remote: *remote,
                    };
                    self.deframer.push(buffer.get(..n).unwrap_or_default());
                    while let Some(frame) = self.deframer.next_frame() {
                        stats.received += 1;
                        on_packet(route, frame);
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return;
                }
                Err(_) => self.stream = None,
            }
        }
    }
}
