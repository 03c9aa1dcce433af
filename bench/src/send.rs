//! Many datagrams in one system call: `sendmmsg`, each message cut up by UDP_SEGMENT.
//!
//! The batch shapes are the relay's: runs of equal segments per destination, sent when the next
//! would not fit into 256 KiB. Written anew here, so that the floor stays a floor.

#![expect(unsafe_code, reason = "sendmmsg")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// Most bytes of a batch.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Most messages of a batch.
pub const BATCH_RUNS: usize = 512;
/// Most bytes of one message.
const RUN_BYTES: usize = 65_507;

/// A `UDP_SEGMENT` control message.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
    padding: [u8; 6],
}

/// `CMSG_LEN(sizeof(u16))`.
const SEGMENT_CMSG_LEN: usize = size_of::<libc::cmsghdr>() + size_of::<u16>();

struct Run {
    to: libc::sockaddr_in,
    offset: usize,
    len: usize,
    segment: usize,
}

/// Datagrams that wait for one `sendmmsg`.
pub struct SendBatch {
    arena: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
    vectors: Vec<libc::iovec>,
    controls: Vec<SegmentSize>,
    messages: Vec<libc::mmsghdr>,
    /// System calls made so far.
    pub calls: u64,
}

impl Default for SendBatch {
    fn default() -> Self {
        SendBatch {
            arena: vec![0; BATCH_BYTES].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(BATCH_RUNS),
            vectors: Vec::with_capacity(BATCH_RUNS),
            controls: Vec::with_capacity(BATCH_RUNS),
            messages: Vec::with_capacity(BATCH_RUNS),
            calls: 0,
        }
    }
}

impl SendBatch {
    /// Begins a run of `segments` datagrams of `segment` bytes each to `to`, and returns its bytes.
    ///
    /// # Errors
    /// If the run is longer than a UDP datagram may be.
    pub fn run(
        &mut self,
        to: Destination,
        segment: usize,
        segments: usize,
    ) -> io::Result<&mut [u8]> {
        let len = segment * segments;
        if len > RUN_BYTES {
            return Err(io::Error::other("run exceeds a datagram"));
        }
        let offset = self.used;
        self.used += len;
        self.runs.push(Run {
            to: to.0,
            offset,
            len,
            segment,
        });
        self.arena
            .get_mut(offset..offset + len)
            .ok_or_else(|| io::Error::other("batch overrun"))
    }

    /// Whether a run of `len` bytes would still fit.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        self.used + len <= BATCH_BYTES && self.runs.len() < BATCH_RUNS
    }

    /// Sends everything.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn flush(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.vectors.clear();
        self.controls.clear();
        self.messages.clear();
        for run in &self.runs {
            self.vectors.push(libc::iovec {
                iov_base: self.arena[run.offset..].as_mut_ptr().cast(),
                iov_len: run.len,
            });
            self.controls.push(SegmentSize {
                header: libc::cmsghdr {
                    cmsg_len: SEGMENT_CMSG_LEN,
                    cmsg_level: libc::SOL_UDP,
                    cmsg_type: libc::UDP_SEGMENT,
                },
                size: run.segment as u16,
                padding: [0; 6],
            });
        }
        // All pointers are taken after the vectors they point into have stopped growing.
        let parts = self
            .runs
            .iter()
            .zip(&mut self.vectors)
            .zip(&mut self.controls);
        for ((run, vector), control) in parts {
            let segmented = run.len > run.segment;
            self.messages.push(libc::mmsghdr {
                msg_hdr: libc::msghdr {
                    msg_name: (&raw const run.to).cast_mut().cast(),
                    msg_namelen: size_of::<libc::sockaddr_in>() as u32,
                    msg_iov: vector,
                    msg_iovlen: 1,
                    msg_control: if segmented {
                        (&raw mut *control).cast()
                    } else {
                        null_mut()
                    },
                    msg_controllen: if segmented {
                        size_of::<SegmentSize>()
                    } else {
                        0
                    },
                    msg_flags: 0,
                },
                msg_len: 0,
            });
        }
        let mut rest = &mut self.messages[..];
        while !rest.is_empty() {
            // SAFETY: `rest` holds initialised messages; their names, vectors and controls point
            // into `runs`, `vectors`, `controls` and `arena`, which are not touched until the loop
            // has ended, and the lengths given are those of what they point to.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0)
            };
            self.calls += 1;
            let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
            rest = &mut rest[sent..];
        }
        self.runs.clear();
        self.used = 0;
        Ok(())
    }
}

/// An address as the kernel wants it.
#[derive(Clone, Copy)]
pub struct Destination(libc::sockaddr_in);

impl TryFrom<SocketAddr> for Destination {
    type Error = io::Error;

    fn try_from(address: SocketAddr) -> io::Result<Destination> {
        let SocketAddr::V4(v4) = address else {
            return Err(io::Error::other("the bench runs over IPv4 loopback"));
        };
        Ok(Destination(libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: v4.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(v4.ip().octets()),
            },
            sin_zero: [0; 8],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_arrive_as_single_datagrams() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = Destination::try_from(receiver.local_addr().unwrap()).unwrap();
        let mut batch = SendBatch::default();
        for (segment, segments) in [(100, 3), (7, 1)] {
            let run = batch.run(to, segment, segments).unwrap();
            run.chunks_mut(segment)
                .zip(1u8..)
                .for_each(|(chunk, i)| chunk.fill(i));
        }
        batch.flush(&sender).unwrap();
        assert_eq!(batch.calls, 1);
        let mut buf = [0; 2_000];
        for expected in [vec![1; 100], vec![2; 100], vec![3; 100], vec![1; 7]] {
            let len = receiver.recv(&mut buf).unwrap();
            assert_eq!(buf[..len], expected);
        }
    }
}
