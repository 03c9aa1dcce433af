//! Waiting for many descriptors, and taking many datagrams with one call.

#![expect(unsafe_code, reason = "epoll and recvmmsg")]

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::null_mut;
use std::time::Duration;

/// Descriptors reported by one wait.
const EVENTS: usize = 256;
/// Datagrams taken by one call.
pub const DATAGRAMS: usize = 64;
/// Room for each.
const ROOM: usize = 2_048;

/// A level-triggered epoll set for reading.
pub struct Poller {
    epoll: File,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Poller {
            // SAFETY: just created, owned by nobody else.
            epoll: unsafe { File::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
        })
    }

    /// Adds a descriptor, which must stay open.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add(&self, fd: RawFd, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: key,
        };
        let (set, add) = (self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: the kernel reads one event, which is ours.
        match unsafe { libc::epoll_ctl(set, add, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until something is readable, or for `timeout`, and yields the keys.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<impl Iterator<Item = u64>> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the kernel writes at most EVENTS events, for which there is room, and reads one
        // timespec; there is no signal mask.
        let ready = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS as libc::c_int,
                &raw const timeout,
                std::ptr::null(),
            )
        };
        let ready = match usize::try_from(ready) {
            Ok(ready) => ready,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        Ok(self.events[..ready].iter().map(|event| event.u64))
    }
}

/// Room for the datagrams of one call.
pub struct Inbox {
    bytes: Vec<u8>,
    lens: Vec<usize>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox {
            bytes: vec![0; DATAGRAMS * ROOM],
            lens: Vec::with_capacity(DATAGRAMS),
        }
    }
}

impl Inbox {
    /// Takes what has arrived, without waiting, and returns how many datagrams that was.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.lens.clear();
        let mut vectors = [libc::iovec {
            iov_base: null_mut(),
            iov_len: ROOM,
        }; DATAGRAMS];
        // SAFETY: zero is valid for a header: null pointers, lengths of zero.
        let mut headers: [libc::mmsghdr; DATAGRAMS] = unsafe { std::mem::zeroed() };
        let rooms = self.bytes.chunks_exact_mut(ROOM);
        for ((header, vector), room) in headers.iter_mut().zip(&mut vectors).zip(rooms) {
            vector.iov_base = room.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to one vector, and that to ROOM bytes of ours; both outlive
        // the call.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                DATAGRAMS as libc::c_uint,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        match usize::try_from(taken) {
            Ok(taken) => {
                let lens = headers.iter().take(taken).map(|h| h.msg_len as usize);
                self.lens.extend(lens);
                Ok(taken)
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
                e => Err(e),
            },
        }
    }

    /// The datagrams of the last call.
    pub fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let rooms = self.bytes.chunks_exact_mut(ROOM);
        rooms.zip(&self.lens).map(|(room, len)| &mut room[..*len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_waited_for_and_taken() {
        let (from, to) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let mut poller = Poller::new().unwrap();
        poller.add(to.as_raw_fd(), 7).unwrap();
        assert_eq!(poller.wait(Duration::ZERO).unwrap().count(), 0);
        for datagram in [&b"one"[..], b"two!"] {
            from.send_to(datagram, to.local_addr().unwrap()).unwrap();
        }
        let keys: Vec<_> = poller.wait(Duration::from_secs(5)).unwrap().collect();
        assert_eq!(keys, [7]);
        let mut inbox = Inbox::default();
        assert_eq!(inbox.receive(&to).unwrap(), 2);
        let taken: Vec<_> = inbox.datagrams().map(|d| d.to_vec()).collect();
        assert_eq!(taken, [&b"one"[..], b"two!"]);
        assert_eq!(inbox.receive(&to).unwrap(), 0);
    }
}
