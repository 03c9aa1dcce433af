//! Waiting for sockets and for other threads.

use super::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events taken from the kernel by one wait. What does not fit comes with the next.
const EVENTS: usize = 64;

/// What a file is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The token it was added with.
    pub(crate) token: u64,
    /// May be read without waiting, or has ended.
    pub(crate) readable: bool,
    /// May be written without waiting.
    pub(crate) writable: bool,
    /// Has something in its error queue, or has failed.
    pub(crate) failed: bool,
}

/// A level-triggered epoll set.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event; EVENTS]>,
    ready: usize,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Epoll {
            // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS]),
            ready: 0,
        })
    }

    /// Watches a file for reading. It leaves the set when it is closed.
    pub(crate) fn add(&self, file: &impl AsFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, file, token, false)
    }

    /// Says whether a watched file is to be watched for writing too.
    pub(crate) fn watch_writable(
        &self,
        file: &impl AsFd,
        token: u64,
        writable: bool,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, file, token, writable)
    }

    fn control(
        &self,
        operation: libc::c_int,
        file: &impl AsFd,
        token: u64,
        writable: bool,
    ) -> io::Result<()> {
        let wanted = libc::EPOLLIN | if writable { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: wanted as u32,
            u64: token,
        };
        let (set, fd) = (self.fd.as_raw_fd(), file.as_fd().as_raw_fd());
        // SAFETY: both descriptors are open, since they are borrowed; the event is valid for reads.
        check(unsafe { libc::epoll_ctl(set, operation, fd, &mut event) }).map(drop)
    }

    /// Waits until a file is ready or `timeout` has passed; for ever if it is `None`. A signal ends
    /// the wait as if it had timed out.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.ready = 0;
        let timeout = timeout.map(|t| libc::timespec {
            tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the set is open; the kernel writes at most EVENTS events, for which there is room;
        // the timeout is null or valid for reads; no signal mask is given.
        let ready = check(unsafe {
            libc::epoll_pwait2(
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS as libc::c_int,
                timeout,
                std::ptr::null(),
            )
        });
        match ready {
            Ok(ready) => self.ready = ready as usize,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Files that the last wait found ready.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// The `i`-th of them.
    pub(crate) fn get(&self, i: usize) -> Option<Ready> {
        let event = self.events.get(..self.ready)?.get(i)?;
        let events = event.events as libc::c_int;
        let ended = libc::EPOLLERR | libc::EPOLLHUP;
        Some(Ready {
            token: event.u64,
            readable: events & (libc::EPOLLIN | ended) != 0,
            writable: events & (libc::EPOLLOUT | ended) != 0,
            failed: events & libc::EPOLLERR != 0,
        })
    }
}

/// A counter that makes a waiting thread wake.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable.
    pub(crate) fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes are valid for reads. The only failure is a counter at its maximum,
        // and then it is readable already.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes are valid for writes. The only failure is a counter of zero.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_wakes_until_cleared() {
        let mut epoll = Epoll::new().unwrap();
        let event = EventFd::new().unwrap();
        epoll.add(&event, 42).unwrap();
        epoll.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(epoll.ready(), 0);
        event.signal();
        event.signal();
        epoll.wait(None).unwrap();
        let ready = epoll.get(0).unwrap();
        assert_eq!((ready.token, ready.readable), (42, true));
        assert_eq!(epoll.get(1), None);
        event.clear();
        epoll.wait(Some(Duration::from_micros(50))).unwrap();
        assert_eq!(epoll.ready(), 0);
    }
}
