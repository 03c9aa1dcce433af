//! What became of each datagram of a batch, and how long it took: dwell, by packet.
//!
//! A batch holds packets that arrived at different times and leaves by several system calls, some
//! of which may be refused. The journal knows for each datagram with which arrival it came, the
//! [`SendReport`] when its run was taken and how much of it. Observations are made once for each
//! arrival and call, so that a packet costs two bytes and an increment, not a histogram each.
//!
//! Invariant: what the kernel refused is in no histogram.

use crate::egress::Run;
use crate::limits::{EGRESS_ARRIVALS, EGRESS_DATAGRAMS, EGRESS_RUNS};
use sealcast_media::PacketMeta;
use sealcast_model::{FlightRecord, ShardStats, Stage, Time};
use sealcast_session::Transport;

/// A datagram that no dwell is recorded for: STUN, DTLS, RTCP.
const NONE: u16 = u16::MAX;
/// Places of the table that finds an arrival again: more than a frame has packets.
const PLACES: usize = 64;

const _: () = assert!(EGRESS_ARRIVALS < NONE as usize);

/// What became of a batch's runs.
#[derive(Debug, Default)]
pub struct SendReport {
    runs: Vec<Taken>,
}

/// What became of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    /// Datagrams that were taken, from the first on.
    datagrams: u32,
    /// The call that took them began.
    started: Time,
    /// It returned.
    done: Time,
}

impl SendReport {
    /// With room for a batch.
    pub(crate) fn new() -> Self {
        SendReport {
            runs: Vec::with_capacity(EGRESS_RUNS),
        }
    }

    /// Nothing of a batch of so many runs has been taken.
    pub fn begin(&mut self, runs: usize) {
        self.runs.clear();
        self.runs.resize(runs, Taken::default());
    }

    /// `datagrams` more of the `run`-th run were taken, by a call that began at `started` and was
    /// over at `done`.
    pub fn taken(&mut self, run: usize, datagrams: usize, started: Time, done: Time) {
        if let Some(taken) = self.runs.get_mut(run) {
            taken.datagrams += datagrams as u32;
            (taken.started, taken.done) = (started, done);
        }
    }

    /// How many datagrams of a run were taken.
    #[must_use]
    pub fn datagrams(&self, run: usize) -> usize {
        self.runs
            .get(run)
            .map_or(0, |taken| taken.datagrams as usize)
    }

    /// Everything was taken at once, at `now`: for outboxes without a clock of their own.
    pub fn all_taken(&mut self, now: Time) {
        self.runs.fill(Taken {
            datagrams: u32::MAX,
            started: now,
            done: now,
        });
    }
}

/// When the shard's thread went to wait last, and when it woke.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) slept: Time,
    pub(crate) woke: Time,
}

/// Packets of one track that arrived together.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    meta: PacketMeta,
    /// Of them taken by the call that is being looked at.
    taken: u32,
    /// First run of that call that has one.
    run: u32,
}

/// Which datagram of a batch came with which arrival. Allocated once.
pub(crate) struct Journal {
    arrivals: Vec<Arrival>,
    /// For each datagram, an index into `arrivals` or [`NONE`].
    datagrams: Vec<u16>,
    /// The latest arrival by its time. Packets of a frame alternate, receiver by receiver.
    latest: [u16; PLACES],
    /// Arrivals of which something was taken by the call that is being looked at.
    touched: Vec<u16>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Journal {
            arrivals: Vec::with_capacity(EGRESS_ARRIVALS),
            datagrams: Vec::with_capacity(EGRESS_DATAGRAMS),
            latest: [NONE; PLACES],
            touched: Vec::with_capacity(EGRESS_ARRIVALS),
        }
    }

    /// Takes no further datagram.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.arrivals.len() >= EGRESS_ARRIVALS || self.datagrams.len() >= EGRESS_DATAGRAMS
    }

    /// Datagrams noted.
    pub(crate) fn datagrams(&self) -> usize {
        self.datagrams.len()
    }

    /// Notes the next datagram. `None`, or a packet of no track: no dwell is recorded for it.
    #[inline]
    pub(crate) fn push(&mut self, meta: Option<&PacketMeta>) {
        let Some(meta) = meta.filter(|meta| meta.track.is_some()) else {
            return self.datagrams.push(NONE);
        };
        // Fibonacci hashing: neighbouring times fall far apart.
        let hash = meta.received.as_nanos().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        let Some(latest) = self.latest.get_mut(hash as usize) else {
            return self.datagrams.push(NONE);
        };
        let known = self.arrivals.get(usize::from(*latest));
        if known.is_none_or(|arrival| arrival.meta != *meta) {
            *latest = self.arrivals.len() as u16;
            self.arrivals.push(Arrival {
                meta: *meta,
                taken: 0,
                run: 0,
            });
        }
        self.datagrams.push(*latest);
    }

    /// What a datagram is, if dwell is recorded for it.
    pub(crate) fn meta(&self, datagram: usize) -> Option<&PacketMeta> {
        let arrival = self.datagrams.get(datagram)?;
        Some(&self.arrivals.get(usize::from(*arrival))?.meta)
    }

    pub(crate) fn clear(&mut self) {
        self.arrivals.clear();
        self.datagrams.clear();
    }

    /// Records the dwell of everything that was taken.
    pub(crate) fn settle(
        &mut self,
        runs: &[Run],
        report: &SendReport,
        stats: &ShardStats,
        turn: Turn,
    ) {
        let mut call = Taken::default();
        for (index, (run, taken)) in runs.iter().zip(&report.runs).enumerate() {
            if taken.datagrams == 0 {
                continue;
            }
            if (taken.started, taken.done) != (call.started, call.done) {
                self.settle_call(runs, call, stats, turn);
                call = *taken;
            }
            let segments = run.segments().min(taken.datagrams as usize);
            let first = run.first as usize;
            let of = self.datagrams.get(first..first + segments);
            for arrival in of.unwrap_or_default() {
                let Some(of) = self.arrivals.get_mut(usize::from(*arrival)) else {
                    continue;
                };
                if of.taken == 0 {
                    of.run = index as u32;
                    self.touched.push(*arrival);
                }
                of.taken += 1;
            }
        }
        self.settle_call(runs, call, stats, turn);
    }

    /// Records the dwell of what one call took.
    fn settle_call(&mut self, runs: &[Run], call: Taken, stats: &ShardStats, turn: Turn) {
        for arrival in self.touched.drain(..) {
            let Some(of) = self.arrivals.get_mut(usize::from(arrival)) else {
                continue;
            };
            let packets = std::mem::take(&mut of.taken);
            let meta = of.meta;
            let media = stats.media(meta.source);
            let total = call.done - meta.received;
            media.dwell.record(total, u64::from(packets));
            // Without a stamp a packet counts as received when it was read.
            if meta.received < meta.read {
                let queued = meta.read - meta.received;
                media
                    .stage(Stage::KernelQueue)
                    .record(queued, u64::from(packets));
            }
            media
                .stage(Stage::Relay)
                .record(call.started - meta.read, u64::from(packets));
            if stats.flight.wants(total, call.done)
                && let (Some(run), Some(track)) = (runs.get(of.run as usize), meta.track)
            {
                stats.flight.note(&FlightRecord {
                    received: meta.received,
                    read: meta.read,
                    started: call.started,
                    done: call.done,
                    slept: turn.slept,
                    woke: turn.woke,
                    track,
                    source: meta.source,
                    tcp: matches!(run.path.transport, Transport::Tcp(_)),
                    size: run.segment_size as u16,
                    packets,
                    position: of.run as u16,
                    runs: runs.len() as u16,
                    datagrams: self.datagrams.len() as u32,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressBatch, Outbox};
    use proptest::prelude::*;
    use sealcast_model::{Source, TrackId};
    use sealcast_session::Path;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    const SENT: Time = Time::from_millis(50);

    /// Takes what the plan says of each run, by one call for each step of the plan.
    struct Planned<'a> {
        /// For each run: by which call, and how much of it.
        plan: &'a [(u64, usize)],
        /// Whether each datagram was taken, and when its call began and ended.
        outcome: Vec<Option<(Time, Time)>>,
    }

    impl Outbox for Planned<'_> {
        fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
            for (i, run) in batch.runs().iter().enumerate() {
                let (call, share) = self.plan[i % self.plan.len()];
                let started = SENT + Duration::from_millis(10 * call);
                let done = started + Duration::from_millis(3);
                let taken = run.segments().min(share);
                if taken > 0 {
                    report.taken(i, taken, started, done);
                }
                let outcome = (0..run.segments()).map(|n| (n < taken).then_some((started, done)));
                self.outcome.extend(outcome);
            }
        }
    }

    fn path(owner: u32) -> Path {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Path {
            transport: Transport::Udp,
            local: at(1),
            remote: at(100 + owner as u16),
        }
    }

    fn meta(track: u64, received: u64) -> PacketMeta {
        PacketMeta {
            source: Source::ALL[track as usize % 4],
            track: Some(TrackId(track)),
            received: Time::from_millis(received),
            // Every fifth was not stamped.
            read: Time::from_millis(received + (received % 5)),
        }
    }

    proptest! {
        /// Against a sum over all datagrams, one by one: whatever the kernel refuses, and however
        /// many calls it takes, each packet that left is counted once with its own times.
        #[test]
        fn dwell_is_that_of_packets_that_left(
            packets in proptest::collection::vec((0u32..4, proptest::option::of((0u64..6, 0u64..40))), 1..300),
            plan in proptest::collection::vec((0u64..4, 0usize..5), 1..6),
        ) {
            let stats = ShardStats::default();
            let mut batch = EgressBatch::new();
            for (owner, what) in &packets {
                batch.space(100).unwrap().fill(0);
                let meta = what.map(|(track, received)| meta(track, received));
                batch.commit(*owner, &path(*owner), 100, meta.as_ref());
            }
            let mut outbox = Planned { plan: &plan, outcome: Vec::new() };
            batch.send(&mut outbox, &stats);
            prop_assert_eq!(outbox.outcome.len(), packets.len());
            for source in Source::ALL {
                let left: Vec<_> = packets
                    .iter()
                    .zip(&outbox.outcome)
                    .filter_map(|((_, what), taken)| Some((what.map(|(t, r)| meta(t, r))?, (*taken)?)))
                    .filter(|(meta, _)| meta.source == source)
                    .collect();
                let sum = |of: &dyn Fn(&PacketMeta, Time, Time) -> Duration| -> u64 {
                    left.iter().map(|(m, (s, d))| of(m, *s, *d).as_nanos() as u64).sum()
                };
                let media = stats.media(source);
                let dwell = media.dwell.snapshot();
                prop_assert_eq!(dwell.count(), left.len() as u64);
                prop_assert_eq!(dwell.sum_nanos(), sum(&|m, _, d| d - m.received));
                let queue = media.stage(Stage::KernelQueue).snapshot();
                let stamped = left.iter().filter(|(m, _)| m.received < m.read).count();
                prop_assert_eq!(queue.count(), stamped as u64);
                prop_assert_eq!(queue.sum_nanos(), sum(&|m, _, _| m.read - m.received));
                let relay = media.stage(Stage::Relay).snapshot();
                prop_assert_eq!(relay.count(), left.len() as u64);
                prop_assert_eq!(relay.sum_nanos(), sum(&|m, s, _| s - m.read));
            }
            prop_assert!(batch.is_empty());
        }
    }

    #[test]
    fn padding_and_refused_packets_have_no_dwell() {
        let stats = ShardStats::default();
        let mut batch = EgressBatch::new();
        let padding = PacketMeta {
            track: None,
            ..meta(1, 10)
        };
        for meta in [padding, meta(1, 10)] {
            batch.space(100).unwrap().fill(0);
            batch.commit(0, &path(0), 100, Some(&meta));
        }
        let mut refusing = Planned {
            plan: &[(0, 1)],
            outcome: Vec::new(),
        };
        batch.send(&mut refusing, &stats);
        assert_eq!(stats.media(Source::Camera).dwell.snapshot().count(), 0);
        assert!(stats.flight.slowest(SENT).is_empty());
    }

    #[test]
    fn the_recorder_says_where_the_time_went() {
        let stats = ShardStats::default();
        let mut batch = EgressBatch::new();
        batch.turn = Turn {
            slept: Time::from_millis(5),
            woke: Time::from_millis(12),
        };
        for (owner, what) in [(0, None), (1, Some(meta(7, 11))), (2, Some(meta(7, 11)))] {
            batch.space(100).unwrap().fill(0);
            batch.commit(owner, &path(owner), 100, what.as_ref());
        }
        let mut outbox = Planned {
            plan: &[(0, 1)],
            outcome: Vec::new(),
        };
        batch.send(&mut outbox, &stats);
        let records = stats.flight.slowest(SENT);
        let [record] = records[..] else {
            panic!("{records:?}");
        };
        assert_eq!((record.track, record.source), (TrackId(7), Source::Imaging));
        assert_eq!((record.packets, record.position, record.runs), (2, 1, 3));
        assert_eq!((record.size, record.datagrams, record.tcp), (100, 3, false));
        assert_eq!(record.wake_up(), Duration::from_millis(1));
        assert_eq!(record.total(), Duration::from_millis(50 + 3 - 11));
    }
}
