//! The egress batch: sealed datagrams, laid out so that one system call sends many.
//!
//! Datagrams lie one after another in a fixed arena. A [`Run`] is a stretch of it for one
//! destination that the kernel can cut up by itself (UDP_SEGMENT): every datagram but the last has
//! the same length, and the last is not longer. Media leaves the engine destination by destination,
//! so a frame makes one run per receiver.
//!
//! Invariant: runs are contiguous, in arena order, and none exceeds [`SEGMENTS_PER_RUN`] or
//! [`RUN_BYTES`].

use crate::journal::{Journal, SendReport, Turn};
use crate::limits::{EGRESS_ARENA, EGRESS_RUNS, RUN_BYTES, SEGMENTS_PER_RUN};
use sealcast_media::PacketMeta;
use sealcast_model::ShardStats;
use sealcast_model::limits::DATAGRAM_MAX;
use sealcast_session::Path;

/// Hands batches to the kernel. Implemented by the I/O layer.
pub trait Outbox {
    /// Sends every run of the batch, without waiting for more than a moment, and reports what was
    /// taken and when. What cannot be sent is dropped and counted there.
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport);

    /// This address will be read soon: where the processor can be told, it is. A hint, and nothing
    /// but: the address need not be valid.
    #[inline]
    fn prefetch(&self, _address: *const u8) {}
}

/// Datagrams for one destination that one `sendmsg` with UDP_SEGMENT can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where to and where from.
    pub path: Path,
    /// Offset of the first datagram in the arena.
    pub offset: usize,
    /// Bytes of all datagrams, 1..=[`RUN_BYTES`].
    pub len: usize,
    /// Length of every datagram but the last, 1..=[`DATAGRAM_MAX`].
    pub segment_size: usize,
    /// Index of the first datagram in the batch.
    pub first: u32,
    /// Datagrams, 1..=[`SEGMENTS_PER_RUN`].
    count: usize,
}

impl Run {
    /// Datagrams in the run.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.count
    }
}

/// Owns runs that no peer's media may lengthen.
const NOBODY: u32 = u32::MAX;

/// Sealed datagrams on their way out. Allocated once.
pub struct EgressBatch {
    arena: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
    journal: Journal,
    /// Whose run the next datagram may lengthen.
    open: Option<u32>,
    report: SendReport,
    /// The turn that fills it.
    pub(crate) turn: Turn,
}

impl EgressBatch {
    /// An empty batch with its full memory.
    #[must_use]
    pub fn new() -> Self {
        EgressBatch {
            arena: vec![0; EGRESS_ARENA].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(EGRESS_RUNS),
            journal: Journal::new(),
            open: None,
            report: SendReport::new(),
            turn: Turn::default(),
        }
    }

    /// The runs, in order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// A run's datagrams, one after another.
    #[must_use]
    pub fn bytes(&self, run: &Run) -> &[u8] {
        self.arena
            .get(run.offset..run.offset.saturating_add(run.len))
            .unwrap_or_default()
    }

    /// A run's datagrams, one by one.
    pub fn datagrams(&self, run: &Run) -> impl Iterator<Item = &[u8]> {
        self.bytes(run).chunks(run.segment_size.max(1))
    }

    /// Nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Free for less than half of what it holds at most: time to send.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.used > EGRESS_ARENA / 2 || self.runs.len() > EGRESS_RUNS / 2
    }

    /// Whether one more datagram of at most `max` bytes fits, or the batch must be sent first.
    /// `max` over [`DATAGRAM_MAX`] never fits.
    #[inline]
    pub(crate) fn has_room(&self, max: usize) -> bool {
        max <= DATAGRAM_MAX
            && self.runs.len() < EGRESS_RUNS
            && !self.journal.is_full()
            && EGRESS_ARENA - self.used >= max
    }

    /// Room for one more datagram of at most `max` bytes, or `None` as
    /// [`has_room`](Self::has_room) tells.
    #[inline]
    pub(crate) fn space(&mut self, max: usize) -> Option<&mut [u8]> {
        if !self.has_room(max) {
            return None;
        }
        self.arena.get_mut(self.used..self.used.checked_add(max)?)
    }

    /// Takes the first `len` bytes of the last [`space`](Self::space) as a datagram of `owner`.
    #[inline]
    pub(crate) fn commit(
        &mut self,
        owner: u32,
        path: &Path,
        len: usize,
        meta: Option<&PacketMeta>,
    ) {
        if len == 0 {
            return;
        }
        let offset = self.used;
        self.used += len;
        match self.runs.last_mut() {
            Some(run) if self.open == Some(owner) && fits(run, len) => {
                run.len += len;
                run.count += 1;
                if len < run.segment_size {
                    self.open = None;
                }
            }
            _ => self.begin_run(owner, path, offset, len),
        }
        self.journal.push(meta);
    }

    fn begin_run(&mut self, owner: u32, path: &Path, offset: usize, len: usize) {
        self.runs.push(Run {
            path: *path,
            offset,
            len,
            segment_size: len,
            first: self.journal.datagrams() as u32,
            count: 1,
        });
        self.open = Some(owner);
    }

    /// Copies a finished datagram in. False if it does not fit and the batch must be sent first.
    #[must_use]
    pub fn append(&mut self, path: &Path, datagram: &[u8]) -> bool {
        let Some(out) = self.space(datagram.len()) else {
            return false;
        };
        out.copy_from_slice(datagram);
        if self.runs.last().is_some_and(|run| run.path != *path) {
            self.close_run();
        }
        self.commit(self.open.unwrap_or(NOBODY), path, datagram.len(), None);
        true
    }

    /// Ends the current run: the next datagram may go elsewhere.
    pub(crate) fn close_run(&mut self) {
        self.open = None;
    }

    /// What the `nth` datagram of a run is, if it is one that dwell is recorded for.
    #[must_use]
    pub fn packet(&self, run: &Run, nth: usize) -> Option<&PacketMeta> {
        self.journal.meta(run.first as usize + nth)
    }

    /// Sends what is there and records how long each packet that the kernel took was in the relay.
    pub(crate) fn send(&mut self, outbox: &mut impl Outbox, stats: &ShardStats) {
        if self.runs.is_empty() {
            return;
        }
        let mut report = std::mem::take(&mut self.report);
        report.begin(self.runs.len());
        outbox.send(self, &mut report);
        self.journal.settle(&self.runs, &report, stats, self.turn);
        self.report = report;
        self.used = 0;
        self.runs.clear();
        self.journal.clear();
        self.open = None;
    }
}

impl Default for EgressBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a run that has not ended takes one more datagram of `len` bytes.
#[inline]
fn fits(run: &Run, len: usize) -> bool {
    len <= run.segment_size && run.len + len <= RUN_BYTES && run.count < SEGMENTS_PER_RUN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_session::Transport;
    use std::net::{Ipv4Addr, SocketAddr};

    fn path(owner: u32) -> Path {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Path {
            transport: Transport::Udp,
            local: at(1),
            remote: at(100 + owner as u16),
        }
    }

    fn put(batch: &mut EgressBatch, owner: u32, datagram: &[u8]) -> bool {
        let Some(out) = batch.space(datagram.len()) else {
            return false;
        };
        out.copy_from_slice(datagram);
        batch.commit(owner, &path(owner), datagram.len(), None);
        true
    }

    /// What the kernel would put on the wire.
    fn wire(batch: &EgressBatch) -> Vec<(Path, Vec<u8>)> {
        batch
            .runs()
            .iter()
            .flat_map(|run| batch.datagrams(run).map(|d| (run.path, d.to_vec())))
            .collect()
    }

    proptest! {
        /// However runs are formed, the wire sees each datagram whole, in order, where it belongs.
        #[test]
        fn the_wire_sees_what_was_put(
            datagrams in proptest::collection::vec(
                (0u32..3, prop_oneof![Just(1_100usize), Just(1_500), 1usize..1_500]), 0..400),
        ) {
            let mut batch = EgressBatch::new();
            let mut want = Vec::new();
            for (i, (owner, len)) in datagrams.into_iter().enumerate() {
                let datagram: Vec<u8> = (0..len).map(|j| (i * 7 + j) as u8).collect();
                if !put(&mut batch, owner, &datagram) {
                    break;
                }
                want.push((path(owner), datagram));
            }
            for run in batch.runs() {
                prop_assert!(run.segments() <= SEGMENTS_PER_RUN && run.len <= RUN_BYTES);
            }
            prop_assert_eq!(wire(&batch), want);
        }
    }

    #[test]
    fn a_frame_is_one_run_and_a_longer_or_later_datagram_is_not() {
        let mut batch = EgressBatch::new();
        for len in [1_000, 1_000, 1_000, 400] {
            assert!(put(&mut batch, 0, &vec![1; len]));
        }
        assert_eq!(batch.runs().len(), 1, "equal, and a shorter last one");
        assert!(put(&mut batch, 0, &[1; 400]));
        assert_eq!(
            batch.runs().len(),
            2,
            "a run ends with its shorter datagram"
        );
        assert!(put(&mut batch, 0, &[1; 401]));
        assert_eq!(batch.runs().len(), 3, "a longer datagram starts another");
        for _ in 0..SEGMENTS_PER_RUN {
            assert!(put(&mut batch, 1, &[1; 100]));
        }
        assert_eq!(batch.runs().len(), 4);
        assert!(put(&mut batch, 1, &[1; 100]));
        assert_eq!(batch.runs().len(), 5, "no more than the kernel takes");
    }

    #[test]
    fn appended_datagrams_keep_to_their_paths() {
        let mut batch = EgressBatch::new();
        assert!(put(&mut batch, 7, &[1; 100]));
        for owner in [7, 7, 8] {
            assert!(batch.append(&path(owner), &[2; 100]));
        }
        assert!(put(&mut batch, 9, &[3; 100]));
        let runs: Vec<_> = batch
            .runs()
            .iter()
            .map(|r| (r.path, r.segments()))
            .collect();
        assert_eq!(runs, [(path(7), 3), (path(8), 1), (path(9), 1)]);
    }

    #[test]
    fn a_full_batch_refuses() {
        let mut batch = EgressBatch::new();
        let fitted = (0..)
            .take_while(|_| put(&mut batch, 0, &[0; 1_100]))
            .count();
        assert_eq!(fitted, EGRESS_ARENA / 1_100);
        assert!(batch.space(DATAGRAM_MAX + 1).is_none());
        assert!(!batch.append(&path(0), &[0; 1_100]));
    }
}
