//! RFC 4571 framing: packets over a byte stream, each behind its length in 16 bits.

use crate::limits::{TCP_RECEIVE_BUFFER, TCP_SEND_QUEUE};
use sealcast_model::limits::DATAGRAM_MAX;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a frame's length field.
const LENGTH: usize = 2;

const _: () = assert!(TCP_RECEIVE_BUFFER >= 2 * (LENGTH + DATAGRAM_MAX));

/// Why a stream cannot be read any further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// There is nothing to read now.
    Dry,
    /// The turn's share has been read.
    Share,
    /// The peer closed, or the connection failed.
    Closed,
    /// The peer sent a frame longer than any packet.
    TooLong,
}

/// Takes frames out of a stream, with room for a few of them and no more.
pub(crate) struct FrameReader {
    buffer: Box<[u8; TCP_RECEIVE_BUFFER]>,
    /// What has been read and not taken: `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        FrameReader {
            buffer: Box::new([0; TCP_RECEIVE_BUFFER]),
            start: 0,
            end: 0,
        }
    }

    /// Reads until the stream is dry or `share` bytes were read, and hands each frame to `frame`.
    pub(crate) fn read(
        &mut self,
        stream: &mut impl Read,
        mut share: usize,
        mut frame: impl FnMut(&[u8]),
    ) -> ReadEnd {
        loop {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match stream.read(&mut self.buffer[self.end..]) {
                // There is always room, since what was left is less than a frame.
                Ok(0) => return ReadEnd::Closed,
                Ok(n) => {
                    self.end += n;
                    share = share.saturating_sub(n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return ReadEnd::Dry,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return ReadEnd::Closed,
            }
            if !self.take_frames(&mut frame) {
                return ReadEnd::TooLong;
            }
            if share == 0 {
                return ReadEnd::Share;
            }
        }
    }

    /// Hands over the frames that are whole. False if one is too long.
    fn take_frames(&mut self, frame: &mut impl FnMut(&[u8])) -> bool {
        let mut rest = &self.buffer[self.start..self.end];
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > DATAGRAM_MAX {
                return false;
            }
            let Some((packet, after)) = after.split_at_checked(length) else {
                break;
            };
            // RFC 4571 §2: "A LENGTH field value of zero is a null packet".
            if !packet.is_empty() {
                frame(packet);
            }
            rest = after;
        }
        self.start = self.end - rest.len();
        true
    }
}

/// Frames that wait to be written. A frame is taken whole or not at all.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    bytes: Vec<u8>,
    written: usize,
}

impl FrameQueue {
    /// Queues a packet. False if it was dropped because the peer is too far behind.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        let Ok(length) = u16::try_from(packet.len()) else {
            return false;
        };
        if self.bytes.len() - self.written + LENGTH + packet.len() > TCP_SEND_QUEUE {
            return false;
        }
        if self.written > TCP_SEND_QUEUE {
            self.compact();
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(packet);
        true
    }

    /// Writes what the stream takes. True if all of it went.
    ///
    /// # Errors
    /// The connection failed.
    pub(crate) fn write(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match stream.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(true)
    }

    fn compact(&mut self) {
        self.bytes.drain(..self.written);
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A stream that yields its bytes in pieces, and then is dry.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.first_mut() else {
                return Err(ErrorKind::WouldBlock.into());
            };
            let n = piece.len().min(out.len());
            out[..n].copy_from_slice(&piece[..n]);
            piece.drain(..n);
            if piece.is_empty() {
                self.0.remove(0);
            }
            Ok(n)
        }
    }

    /// A stream that takes so many bytes a call and so many in all.
    struct Narrow(Vec<u8>, usize, usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.1).min(self.2);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.2 -= n;
            self.0.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read_all(pieces: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, ReadEnd) {
        let mut got = Vec::new();
        let end =
            FrameReader::new().read(&mut Pieces(pieces), usize::MAX, |f| got.push(f.to_vec()));
        (got, end)
    }

    proptest! {
        /// However the stream is torn apart, the frames that went in come out.
        #[test]
        fn frames_survive_any_stream(
            packets in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..1_500), 0..30),
            piece in 1usize..4_000,
            narrow in 1usize..3_000,
        ) {
            let mut queue = FrameQueue::default();
            let mut stream = Narrow(Vec::new(), narrow, usize::MAX);
            for packet in &packets {
                prop_assert!(queue.push(packet));
            }
            prop_assert!(queue.write(&mut stream).unwrap());
            let pieces = stream.0.chunks(piece).map(<[u8]>::to_vec).collect();
            let (got, end) = read_all(pieces);
            let want: Vec<_> = packets.into_iter().filter(|p| !p.is_empty()).collect();
            prop_assert_eq!(got, want);
            prop_assert_eq!(end, ReadEnd::Dry);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 1..5_000)) {
            let (got, _) = read_all(vec![bytes]);
            prop_assert!(got.iter().all(|f| !f.is_empty() && f.len() <= DATAGRAM_MAX));
        }
    }

    #[test]
    fn a_frame_longer_than_a_packet_ends_the_stream() {
        let length = (DATAGRAM_MAX as u16 + 1).to_be_bytes().to_vec();
        assert_eq!(
            read_all(vec![vec![0, 1, 7], length]),
            (vec![vec![7]], ReadEnd::TooLong)
        );
        assert_eq!(read_all(vec![vec![0, 1], vec![]]).1, ReadEnd::Closed);
    }

    #[test]
    fn one_connection_reads_no_more_than_its_share() {
        let frames: Vec<u8> = [0, 2, 1, 1].repeat(10_000);
        let mut stream = Pieces(vec![frames]);
        let mut count = 0;
        let end = FrameReader::new().read(&mut stream, 20_000, |_| count += 1);
        assert_eq!(end, ReadEnd::Share);
        assert!((5_000..8_000).contains(&count), "{count}");
    }

    #[test]
    fn a_slow_peer_loses_whole_frames_and_keeps_the_stream() {
        let mut queue = FrameQueue::default();
        let packet = [9; 1_000];
        let fitted = (0..10_000).filter(|_| queue.push(&packet)).count();
        assert_eq!(fitted, TCP_SEND_QUEUE / 1_002);
        let mut stream = Narrow(Vec::new(), 700, 3_000);
        assert!(!queue.write(&mut stream).unwrap());
        assert!(queue.push(&packet) && queue.push(&packet));
        stream.2 = usize::MAX;
        assert!(queue.write(&mut stream).unwrap());
        let (got, _) = read_all(vec![stream.0]);
        assert_eq!(got, vec![packet.to_vec(); fitted + 2]);
    }

    #[test]
    fn a_queue_that_never_runs_dry_stays_bounded() {
        let mut queue = FrameQueue::default();
        let mut stream = Narrow(Vec::new(), 5_000, 0);
        for _ in 0..5_000 {
            queue.push(&[1; 1_000]);
            stream.2 = 1_002;
            assert!(!queue.write(&mut stream).unwrap() || queue.bytes.is_empty());
            stream.0.clear();
            queue.push(&[1; 1_000]);
        }
        assert!(
            queue.bytes.capacity() <= 4 * TCP_SEND_QUEUE,
            "{}",
            queue.bytes.capacity()
        );
    }
}
