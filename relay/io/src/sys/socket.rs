//! Making sockets with the options that matter.

use super::addr::RawAddr;
use super::check;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 256;

/// Options of a UDP socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UdpOptions {
    /// Bytes asked for; the kernel may grant less (net.core.rmem_max).
    pub(crate) receive_buffer: usize,
    /// Bytes asked for; the kernel may grant less (net.core.wmem_max).
    pub(crate) send_buffer: usize,
    /// Let the kernel join datagrams of one sender (UDP_GRO).
    pub(crate) gro: bool,
    /// Learn to which address a datagram was sent.
    pub(crate) packet_info: bool,
    /// Other sockets of this process may have the same address.
    pub(crate) share_port: bool,
    /// Ask the network device for receive timestamps, too.
    pub(crate) hardware_stamps: bool,
}

/// A non-blocking UDP socket at `addr`, with kernel receive timestamps. Messages that ask for a
/// transmit timestamp find it in the error queue: numbered (OPT_ID), and without a copy of the
/// packet (OPT_TSONLY).
pub(crate) fn bind_udp(addr: SocketAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
    let fd = open(addr, libc::SOCK_DGRAM)?;
    if options.share_port {
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    let bytes = |n: usize| libc::c_int::try_from(n).unwrap_or(libc::c_int::MAX);
    set(
        &fd,
        libc::SOL_SOCKET,
        libc::SO_RCVBUF,
        bytes(options.receive_buffer),
    )?;
    set(
        &fd,
        libc::SOL_SOCKET,
        libc::SO_SNDBUF,
        bytes(options.send_buffer),
    )?;
    let mut stamps = libc::SOF_TIMESTAMPING_SOFTWARE
        | libc::SOF_TIMESTAMPING_RX_SOFTWARE
        | libc::SOF_TIMESTAMPING_OPT_ID
        | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    if options.hardware_stamps {
        stamps |= libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE;
    }
    set(
        &fd,
        libc::SOL_SOCKET,
        libc::SO_TIMESTAMPING,
        stamps as libc::c_int,
    )?;
    if options.gro {
        set(&fd, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    if options.packet_info {
        match addr {
            SocketAddr::V4(_) => set(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            SocketAddr::V6(_) => set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        }
    }
    bind(&fd, addr)?;
    Ok(UdpSocket::from(fd))
}

/// A non-blocking listener at `addr`.
pub(crate) fn listen_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let fd = open(addr, libc::SOCK_STREAM)?;
    // A restarted relay takes its port over from connections that linger.
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    bind(&fd, addr)?;
    // SAFETY: the descriptor is open; no pointers are passed.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(TcpListener::from(fd))
}

/// Options of an accepted connection: send at once, buffer at most `send_buffer` bytes in the
/// kernel, and give up when nothing is acknowledged for `user_timeout`.
pub(crate) fn set_tcp_options(
    stream: &TcpStream,
    send_buffer: usize,
    user_timeout: Duration,
) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let int = |n: u128| libc::c_int::try_from(n).unwrap_or(libc::c_int::MAX);
    let send_buffer = int(send_buffer as u128);
    set(stream, libc::SOL_SOCKET, libc::SO_SNDBUF, send_buffer)?;
    let millis = int(user_timeout.as_millis());
    set(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis)
}

/// Waits until a socket may be written to; false if `timeout` passed first.
pub(crate) fn wait_writable(socket: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one pollfd is valid for reads and writes.
    let ready = unsafe { libc::poll(&mut poll, 1, timeout) };
    ready > 0 && poll.revents & libc::POLLOUT != 0
}

fn open(addr: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if addr.is_ipv6() {
        // IPv4 has a socket of its own, so that its addresses look the same everywhere.
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(fd)
}

fn bind(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let (raw, len) = RawAddr::new(&addr);
    // SAFETY: the address is valid for reads of `len` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), len) }).map(drop)
}

fn set(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is valid for reads of `len` bytes.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Makes the kernel refuse to segment on this socket: it does so when checksums are off.
#[cfg(test)]
pub(crate) fn refuse_segmentation(socket: &UdpSocket) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}
