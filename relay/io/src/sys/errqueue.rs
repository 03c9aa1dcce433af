//! A socket's error queue, where the kernel leaves transmit timestamps (SO_TIMESTAMPING).

use super::check;
use super::cmsg::Control;
use super::recv::timestamps;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// What the kernel left in an error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// A message was handed to the network device.
    Transmitted {
        /// The kernel's count of messages that it stamped or tried to stamp, by socket.
        id: u32,
        /// When, since the Unix epoch.
        at: Duration,
    },
    /// Something that was not asked for.
    Other,
}

/// Takes one entry out of the error queue; `None` if there is none. Never waits.
///
/// # Errors
/// What `recvmsg` reports.
pub(crate) fn take_error(socket: &UdpSocket) -> io::Result<Option<Left>> {
    let mut control = Control::EMPTY;
    // SAFETY: zero is valid for a header: null pointers, lengths of zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_control = control.as_mut_ptr();
    header.msg_controllen = Control::capacity();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the control buffer is valid for writes of the length given; there is no payload to
    // write, since the socket asks for stamps without their packets (SOF_TIMESTAMPING_OPT_TSONLY).
    let taken = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) };
    match check(taken.clamp(-1, 1) as libc::c_int) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(e) => return Err(e),
    }
    let (mut id, mut at) = (None, None);
    for (level, kind, data) in control.messages(header.msg_controllen) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => at = timestamps(data).software,
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                id = stamp_id(data);
            }
            _ => {}
        }
    }
    Ok(Some(match (id, at) {
        (Some(id), Some(at)) => Left::Transmitted { id, at },
        _ => Left::Other,
    }))
}

/// The id in a `sock_extended_err` of a timestamp: errno, then origin, type, code and padding of a
/// byte each, info (which stamp it is; 0: handed to the device), data (the id).
fn stamp_id(data: &[u8]) -> Option<u32> {
    let (errno, rest) = data.split_first_chunk::<4>()?;
    let (&[origin, ..], rest) = rest.split_first_chunk::<4>()?;
    let (info, rest) = rest.split_first_chunk::<4>()?;
    let stamp = u32::from_ne_bytes(*errno) == libc::ENOMSG as u32
        && origin == libc::SO_EE_ORIGIN_TIMESTAMPING
        && u32::from_ne_bytes(*info) == 0;
    let id = u32::from_ne_bytes(*rest.first_chunk()?);
    stamp.then_some(id)
}
