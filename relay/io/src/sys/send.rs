//! `sendmmsg`: many messages with one system call, each cut into datagrams by the kernel.

use super::addr::RawAddr;
use super::check;
use super::cmsg::Control;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Messages handed over by one call.
pub(crate) const MESSAGES: usize = 128;

/// One message: one datagram, or a run of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// Where from, if the socket has more than one address.
    pub(crate) source: Option<IpAddr>,
    /// Payload of all datagrams, one after another.
    pub(crate) bytes: &'a [u8],
    /// Cut into datagrams of this size (UDP_SEGMENT); `None` for one datagram.
    pub(crate) segment_size: Option<u16>,
    /// Ask for a transmit timestamp, which the error queue will hold.
    pub(crate) stamp: bool,
}

/// The headers of one call, reused.
pub(crate) struct SendBatch {
    names: Box<[RawAddr]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

// SAFETY: the pointers in `iovecs` and `headers` are written anew before each use; those that
// remain between uses are never followed.
unsafe impl Send for SendBatch {}

impl SendBatch {
    pub(crate) fn new() -> Self {
        // SAFETY: zero is valid for a header: null pointers, lengths of zero.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        SendBatch {
            names: vec![RawAddr::EMPTY; MESSAGES].into_boxed_slice(),
            controls: vec![Control::EMPTY; MESSAGES].into_boxed_slice(),
            iovecs: vec![iovec; MESSAGES].into_boxed_slice(),
            headers: vec![header; MESSAGES].into_boxed_slice(),
        }
    }

    /// Hands over the first of `datagrams`, without waiting; returns how many went.
    ///
    /// # Errors
    /// Why the very first one did not go.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        datagrams: impl Iterator<Item = Datagram<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let parts = self.names.iter_mut().zip(&mut self.controls);
        let heads = self.headers.iter_mut().zip(&mut self.iovecs);
        for (((header, iovec), (name, control)), datagram) in heads.zip(parts).zip(datagrams) {
            let (raw, len) = RawAddr::new(&datagram.to);
            *name = raw;
            write_control(control, &datagram);
            iovec.iov_base = datagram.bytes.as_ptr().cast_mut().cast();
            iovec.iov_len = datagram.bytes.len();
            let h = &mut header.msg_hdr;
            h.msg_name = std::ptr::from_mut(name).cast();
            h.msg_namelen = len;
            h.msg_iov = iovec;
            h.msg_iovlen = 1;
            h.msg_control = match control.len() {
                0 => std::ptr::null_mut(),
                _ => control.as_mut_ptr(),
            };
            h.msg_controllen = control.len();
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers were just pointed at boxes that this value owns and at
        // payloads that live for 'a, which outlasts this call; sendmmsg only reads through them.
        let sent = check(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        })?;
        Ok(sent as usize)
    }
}

fn write_control(control: &mut Control, datagram: &Datagram<'_>) {
    control.clear();
    if let Some(size) = datagram.segment_size {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }
    if datagram.stamp {
        let wanted = libc::SOF_TIMESTAMPING_TX_SOFTWARE.to_ne_bytes();
        control.push(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &wanted);
    }
    match datagram.source {
        None => {}
        // in_pktinfo: interface (0: any), source address, unused.
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        // in6_pktinfo: source address, interface (0: any).
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recv::ReceiveBatch;
    use super::super::socket::{UdpOptions, bind_udp, refuse_segmentation};
    use super::*;

    fn socket(addr: &str, gro: bool) -> UdpSocket {
        let options = UdpOptions {
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            gro,
            packet_info: true,
            hardware_stamps: false,
            share_port: false,
        };
        bind_udp(addr.parse().unwrap(), &options).unwrap()
    }

    /// Everything that arrives for a moment, cut into datagrams.
    fn receive(socket: &UdpSocket, expected: usize) -> (Vec<Vec<u8>>, Vec<Option<IpAddr>>) {
        let mut batch = ReceiveBatch::new(8);
        let (mut datagrams, mut to) = (Vec::new(), Vec::new());
        while datagrams.len() < expected && batch.receive(socket).unwrap() > 0 {
            let filled = (0..batch.capacity()).map_while(|i| batch.message(i));
            for message in filled {
                assert!(!message.truncated);
                let segments = message.bytes.chunks(message.segment_size.max(1));
                datagrams.extend(segments.map(<[u8]>::to_vec));
                to.push(message.to);
            }
        }
        (datagrams, to)
    }

    fn segments(payload: &[u8], gro: bool, bind: &str) {
        let (from, to) = (socket(bind, false), socket(bind, gro));
        let datagram = Datagram {
            to: to.local_addr().unwrap(),
            source: Some(from.local_addr().unwrap().ip()),
            bytes: payload,
            segment_size: Some(1_000),
            stamp: false,
        };
        let sent = SendBatch::new().send(&from, std::iter::once(datagram));
        assert_eq!(sent.unwrap(), 1);
        let want: Vec<Vec<u8>> = payload.chunks(1_000).map(<[u8]>::to_vec).collect();
        let (got, told) = receive(&to, want.len());
        assert_eq!(got, want);
        assert!(
            told.iter()
                .all(|t| *t == Some(to.local_addr().unwrap().ip()))
        );
        assert_eq!(told.len() == 1, gro, "joined only when asked");
    }

    #[test]
    fn the_kernel_cuts_and_joins() {
        let payload: Vec<u8> = (0..63_500u32).map(|i| (i / 7) as u8).collect();
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            segments(&payload, true, bind);
            segments(&payload, false, bind);
        }
    }

    #[test]
    fn a_refusal_is_an_error_of_the_first() {
        let (from, to) = (socket("127.0.0.1:0", false), socket("127.0.0.1:0", false));
        refuse_segmentation(&from).unwrap();
        let datagram = |segment_size| Datagram {
            to: to.local_addr().unwrap(),
            source: None,
            bytes: &[1; 2_000],
            segment_size,
            stamp: false,
        };
        let mut batch = SendBatch::new();
        let both = [datagram(None), datagram(Some(1_000))];
        assert_eq!(batch.send(&from, both.into_iter()).unwrap(), 1);
        let refused = batch.send(&from, std::iter::once(datagram(Some(1_000))));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(batch.send(&from, std::iter::empty()).unwrap(), 0);
    }

    #[test]
    fn many_messages_take_several_calls() {
        let (from, to) = (socket("127.0.0.1:0", false), socket("127.0.0.1:0", true));
        let addr = to.local_addr().unwrap();
        let mut batch = SendBatch::new();
        let datagrams = (0..MESSAGES + 5).map(|_| Datagram {
            to: addr,
            source: None,
            bytes: b"x",
            segment_size: None,
            stamp: false,
        });
        assert_eq!(batch.send(&from, datagrams).unwrap(), MESSAGES);
        assert_eq!(receive(&to, MESSAGES).0.len(), MESSAGES);
    }
}
