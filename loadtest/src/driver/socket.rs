//! One peer's socket: UDP, or an ICE-TCP connection that is opened when first written to.

use super::framing::{Deframer, append_frame};
use crate::peer::{Proto, Route, Run};
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Bytes queued on a TCP connection before packets are dropped: half a second of 4 Mbit/s.
const TCP_QUEUE: usize = 256 * 1024;

/// Packets taken from one socket before the next has its turn.
const RECEIVE_TURN: usize = 64;

/// Receive buffer that is asked for, bytes: a burst of 500 packets, which the kernel counts as more
/// than twice their size, and then as much again for a loop that is busy with others.
const RECEIVE_BUFFER: usize = 4 << 20;

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
    /// Arrived and were dropped by the kernel, because they were not read in time.
    pub overflowed: u64,
    /// System calls to send datagrams.
    pub send_calls: u64,
    /// System calls to receive datagrams.
    pub receive_calls: u64,
}

/// Takes a packet with its route and, where the kernel told, its arrival since 1970.
pub(super) type OnPacket<'a> = dyn FnMut(Route, Option<Duration>, &mut [u8]) + 'a;

pub(super) enum Socket {
    Udp(Udp),
    Tcp(Box<Tcp>),
}

pub(super) struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
    control: Vec<u8>,
    /// Datagrams that the kernel dropped so far, as it counts them.
    dropped: u32,
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
            Proto::Udp => Udp::bind(addr).map(Socket::Udp),
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
            Socket::Udp(udp) => (Proto::Udp, udp.local),
            Socket::Tcp(tcp) => (Proto::Tcp, tcp.local),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Socket::Udp(udp) => registry.register(&mut udp.socket, token, Interest::READABLE),
            Socket::Tcp(_) => Ok(()), // Once there is a connection.
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // A socket that is dropped leaves the poll by itself; this is for good order.
        let _ = match self {
            Socket::Udp(udp) => registry.deregister(&mut udp.socket),
            Socket::Tcp(tcp) => match &mut tcp.stream {
                Some((stream, _)) => registry.deregister(stream),
                None => Ok(()),
            },
        };
    }

    /// Sends datagrams, or queues their frames.
    pub(super) fn send(
        &mut self,
        registry: &Registry,
        token: Token,
        run: &Run<'_>,
        stats: &mut SocketStats,
    ) {
        match self {
            Socket::Udp(udp) => udp.send(run, stats),
            Socket::Tcp(tcp) => {
                for packet in run.bytes.chunks(run.segment.max(1)) {
                    let sent = tcp.send(registry, token, run.route.remote, packet);
                    stats.count(1, sent);
                }
            }
        }
    }

    /// Takes what has arrived. True if there may be more.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        stats: &mut SocketStats,
        on_packet: &mut OnPacket<'_>,
    ) -> bool {
        match self {
            Socket::Udp(udp) => {
                for _ in 0..RECEIVE_TURN {
                    match udp.receive(buffer, stats, on_packet) {
                        Ok(()) => {}
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

impl SocketStats {
    fn count(&mut self, datagrams: u64, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.sent += datagrams,
            Err(e) if e.kind() == ErrorKind::WouldBlock => self.congested += datagrams,
            Err(_) => self.failed += datagrams,
        }
    }
}

impl Udp {
    fn bind(addr: SocketAddr) -> io::Result<Udp> {
        let socket = UdpSocket::bind(addr)?;
        let local = socket.local_addr()?;
        // Privileged callers may exceed the system's maximum; others get what it allows.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        // A kernel without receive offload hands datagrams over one by one.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        let space = cmsg_space::<TimeSpec>() + cmsg_space::<i32>() + cmsg_space::<u32>();
        Ok(Udp {
            socket,
            local,
            control: vec![0; space],
            dropped: 0,
        })
    }

    fn send(&mut self, run: &Run<'_>, stats: &mut SocketStats) {
        let segment = u16::try_from(run.segment).unwrap_or(u16::MAX);
        let offload = [ControlMessage::UdpGsoSegments(&segment)];
        let control: &[ControlMessage<'_>] = if run.count > 1 { &offload } else { &[] };
        let (fd, remote) = (
            self.socket.as_raw_fd(),
            SockaddrStorage::from(run.route.remote),
        );
        let bytes = [IoSlice::new(run.bytes)];
        let sent = sendmsg(fd, &bytes, control, MsgFlags::empty(), Some(&remote));
        stats.send_calls += 1;
        stats.count(run.count as u64, sent.map(|_| ()).map_err(io::Error::from));
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        stats: &mut SocketStats,
        on_packet: &mut OnPacket<'_>,
    ) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        let (mut segment, mut arrived) = (usize::MAX, None);
        stats.receive_calls += 1;
        let (len, remote) = {
            let mut bytes = [IoSliceMut::new(buffer)];
            let control = Some(&mut self.control[..]);
            let message = recvmsg::<SockaddrStorage>(fd, &mut bytes, control, MsgFlags::empty())?;
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::UdpGroSegments(size) => {
                        segment = usize::try_from(size).unwrap_or(usize::MAX).max(1);
                    }
                    ControlMessageOwned::ScmTimestampns(at) => arrived = Some(Duration::from(at)),
                    ControlMessageOwned::RxqOvfl(dropped) => {
                        stats.overflowed += u64::from(dropped.wrapping_sub(self.dropped));
                        self.dropped = dropped;
                    }
                    _ => {}
                }
            }
            (
                message.bytes,
                message.address.as_ref().and_then(socket_addr),
            )
        };
        let remote = remote.ok_or(ErrorKind::InvalidData)?;
        let route = Route {
            proto: Proto::Udp,
            local: self.local,
            remote,
        };
        for packet in buffer
            .get_mut(..len)
            .unwrap_or_default()
            .chunks_mut(segment)
        {
            stats.received += 1;
            on_packet(route, arrived, packet);
        }
        Ok(())
    }
}

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
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
        on_packet: &mut OnPacket<'_>,
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
                        on_packet(route, None, frame);
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
