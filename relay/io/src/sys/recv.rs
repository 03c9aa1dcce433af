//! `recvmmsg`: many datagrams with one system call, with UDP_GRO, timestamps and packet info.

use super::addr::RawAddr;
use super::check;
use super::cmsg::Control;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Room for one message: the largest that UDP_GRO joins.
const MESSAGE: usize = 65_536;
/// Distance of two messages' room: odd in cache lines, so that their beginnings do not share the
/// same few sets of the cache.
const STRIDE: usize = MESSAGE + 17 * 64;

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// Who sent it.
    pub(crate) from: SocketAddr,
    /// To which of our addresses, if the socket is asked to tell.
    pub(crate) to: Option<IpAddr>,
    /// When it was received, since the Unix epoch.
    pub(crate) stamps: Timestamps,
    /// One datagram, or several of `segment_size` bytes each.
    pub(crate) bytes: &'a [u8],
    /// Bytes of each datagram but the last.
    pub(crate) segment_size: usize,
    /// It was longer than there was room for.
    pub(crate) truncated: bool,
}

/// Room for messages, reused for every call.
pub(crate) struct ReceiveBatch {
    bytes: Box<[u8]>,
    names: Box<[RawAddr]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

// SAFETY: the pointers in `iovecs` and `headers` are written anew before each use and point into
// boxes that this value owns, which do not move when it does.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// Room for `messages` (1..=1,024) messages. The system backs it with memory as it is used.
    pub(crate) fn new(messages: usize) -> Self {
        let messages = messages.clamp(1, 1_024);
        // SAFETY: zero is valid for a header: null pointers, lengths of zero.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        ReceiveBatch {
            bytes: vec![0; messages * STRIDE].into_boxed_slice(),
            names: vec![RawAddr::EMPTY; messages].into_boxed_slice(),
            controls: vec![Control::EMPTY; messages].into_boxed_slice(),
            iovecs: vec![iovec; messages].into_boxed_slice(),
            headers: vec![header; messages].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Messages there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Takes what has arrived, without waiting; zero if nothing has. The messages of the call
    /// before are gone.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.filled = 0;
        let rooms = self.bytes.chunks_exact_mut(STRIDE);
        let parts = self.names.iter_mut().zip(&mut self.controls).zip(rooms);
        let heads = self.headers.iter_mut().zip(&mut self.iovecs);
        for ((header, iovec), ((name, control), room)) in heads.zip(parts) {
            iovec.iov_base = room.as_mut_ptr().cast();
            iovec.iov_len = MESSAGE;
            let h = &mut header.msg_hdr;
            h.msg_name = std::ptr::from_mut(name).cast();
            h.msg_namelen = RawAddr::LEN;
            h.msg_iov = iovec;
            h.msg_iovlen = 1;
            h.msg_control = control.as_mut_ptr();
            h.msg_controllen = Control::capacity();
            h.msg_flags = 0;
        }
        // SAFETY: the headers were just pointed at boxes that this value owns, each valid for
        // writes of the length given with it and none shared; the timeout is null.
        let received = check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        });
        match received {
            Ok(n) => self.filled = n as usize,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(self.filled)
    }

    /// The `i`-th message of the last call, or `None` if there is none or its sender has no IP
    /// address.
    pub(crate) fn message(&self, i: usize) -> Option<Message<'_>> {
        let header = self.headers.get(..self.filled)?.get(i)?;
        let len = header.msg_len as usize;
        let room = self.bytes.get(i * STRIDE..i * STRIDE + MESSAGE)?;
        let mut message = Message {
            from: self.names.get(i)?.get()?,
            to: None,
            stamps: Timestamps::default(),
            bytes: room.get(..len)?,
            segment_size: len,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
        let used = header.msg_hdr.msg_controllen;
        for (level, kind, data) in self.controls.get(i)?.messages(used) {
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    if let Some(size) = int(data).filter(|s| *s > 0) {
                        message.segment_size = size as usize;
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) => message.stamps = timestamps(data),
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => message.to = packet_info_v4(data),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => message.to = packet_info_v6(data),
                _ => {}
            }
        }
        Some(message)
    }
}

/// What the kernel and the network device say when a packet passed, since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// By the kernel's wall clock.
    pub(crate) software: Option<Duration>,
    /// By the device's clock, which may be any.
    pub(crate) hardware: Option<Duration>,
}

/// `scm_timestamping`: three times, the kernel's, one no longer used, and the device's. Zero: none.
pub(super) fn timestamps(data: &[u8]) -> Timestamps {
    let at = |i: usize| {
        let stamp = timespec(data.get(16 * i..)?)?;
        (!stamp.is_zero()).then_some(stamp)
    };
    Timestamps {
        software: at(0),
        hardware: at(2),
    }
}

fn int(data: &[u8]) -> Option<libc::c_int> {
    Some(libc::c_int::from_ne_bytes(*data.first_chunk()?))
}

/// A `timespec` of two 64-bit words.
fn timespec(data: &[u8]) -> Option<Duration> {
    let (secs, rest) = data.split_first_chunk::<8>()?;
    let secs = u64::try_from(i64::from_ne_bytes(*secs)).ok()?;
    let nanos = u32::try_from(i64::from_ne_bytes(*rest.first_chunk::<8>()?)).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(secs, nanos))
}

/// `in_pktinfo`: interface index, local address, destination address of the packet.
fn packet_info_v4(data: &[u8]) -> Option<IpAddr> {
    let destination: [u8; 4] = *data.get(8..)?.first_chunk()?;
    Some(IpAddr::V4(Ipv4Addr::from(destination)))
}

/// `in6_pktinfo`: destination address of the packet, interface index.
fn packet_info_v6(data: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::V6(Ipv6Addr::from(*data.first_chunk::<16>()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_of_which_two_count() {
        let mut data = [0u8; 48];
        assert_eq!(timestamps(&data), Timestamps::default());
        data[..8].copy_from_slice(&7i64.to_ne_bytes());
        data[8..16].copy_from_slice(&5i64.to_ne_bytes());
        data[16] = 1;
        let software = Some(Duration::new(7, 5));
        let hardware = None;
        assert_eq!(timestamps(&data), Timestamps { software, hardware });
        data[32..40].copy_from_slice(&6i64.to_ne_bytes());
        let hardware = Some(Duration::new(6, 0));
        assert_eq!(timestamps(&data), Timestamps { software, hardware });
        data[..8].copy_from_slice(&(-1i64).to_ne_bytes());
        assert_eq!(timestamps(&data).software, None);
        assert_eq!(timestamps(&data[..40]).hardware, None);
    }
}
