//! The flight recorder: the slowest packets of the last minute, with where their time went.
//!
//! For each second the slowest few are kept, in a ring of seconds, so that neither a bad second
//! nor a burst hides the rest. A shard's thread writes, and only when a packet is among the
//! slowest of its second; others read without stopping it: each place has a version that is odd
//! while it is written, and a reader that saw it change looks again.
//!
//! Invariant: the places of a row hold the slowest of its second that were noted.

use crate::ids::TrackId;
use crate::media::Source;
use crate::time::Time;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use std::time::Duration;

/// Seconds that are remembered.
pub const FLIGHT_SECONDS: usize = 60;
/// Records kept of each second: enough to tell one stall from several.
pub const FLIGHT_PER_SECOND: usize = 8;
/// Records that are shown of a shard.
pub const FLIGHT_SHOWN: usize = 64;
/// Times that a reader looks again at a record that is being written.
const READS: usize = 8;
/// Words of a record.
const WORDS: usize = 9;

/// Packets that arrived together and left by one send call, and when what happened to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightRecord {
    /// The kernel received them, by its timestamp.
    pub received: Time,
    /// The shard had read them from its socket.
    pub read: Time,
    /// The send call that took them began.
    pub started: Time,
    /// It returned.
    pub done: Time,
    /// The shard went to wait last before that.
    pub slept: Time,
    /// It woke.
    pub woke: Time,
    /// Their track.
    pub track: TrackId,
    /// What it shows.
    pub source: Source,
    /// They left over ICE-TCP.
    pub tcp: bool,
    /// Bytes of the first of them as it went out, without UDP and IP headers.
    pub size: u16,
    /// How many packets they are, all receivers together.
    pub packets: u32,
    /// Position in the batch of the first run that had one of them, from 0.
    pub position: u16,
    /// Runs in the batch: messages to one destination each.
    pub runs: u16,
    /// Datagrams in the batch.
    pub datagrams: u32,
}

impl FlightRecord {
    /// From the kernel's receipt to the end of the call that sent them.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.done - self.received
    }

    /// How late the shard's thread ran, if it slept when they arrived; zero if it was at work.
    #[must_use]
    pub fn wake_up(&self) -> Duration {
        if self.received > self.slept {
            self.woke - self.received
        } else {
            Duration::ZERO
        }
    }

    fn to_words(self) -> [u64; WORDS] {
        let source = Source::ALL.iter().position(|s| *s == self.source);
        [
            self.received.as_nanos(),
            self.read.as_nanos(),
            self.started.as_nanos(),
            self.done.as_nanos(),
            self.slept.as_nanos(),
            self.woke.as_nanos(),
            self.track.0,
            u64::from(self.packets) << 32
                | u64::from(self.size) << 16
                | u64::from(self.tcp) << 8
                | source.unwrap_or(0) as u64,
            u64::from(self.datagrams) << 32 | u64::from(self.runs) << 16 | u64::from(self.position),
        ]
    }

    fn from_words(words: [u64; WORDS]) -> Option<Self> {
        let [
            received,
            read,
            started,
            done,
            slept,
            woke,
            track,
            what,
            batch,
        ] = words;
        Some(FlightRecord {
            received: Time::from_nanos(received),
            read: Time::from_nanos(read),
            started: Time::from_nanos(started),
            done: Time::from_nanos(done),
            slept: Time::from_nanos(slept),
            woke: Time::from_nanos(woke),
            track: TrackId(track),
            source: *Source::ALL.get((what & 0xff) as usize)?,
            tcp: what >> 8 & 1 == 1,
            size: (what >> 16) as u16,
            packets: (what >> 32) as u32,
            position: batch as u16,
            runs: (batch >> 16) as u16,
            datagrams: (batch >> 32) as u32,
        })
    }
}

/// A record's place.
#[derive(Debug, Default)]
struct Place {
    /// Odd while the words are written.
    version: AtomicU64,
    /// All zero: empty.
    words: [AtomicU64; WORDS],
}

impl Place {
    fn write(&self, words: [u64; WORDS]) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        // No word may be seen before the version is odd.
        fence(Release);
        for (to, word) in self.words.iter().zip(words) {
            to.store(word, Relaxed);
        }
        self.version.store(version.wrapping_add(2), Release);
    }

    /// The words as they were between two writes.
    fn read(&self) -> Option<[u64; WORDS]> {
        (0..READS).find_map(|_| {
            let version = self.version.load(Acquire);
            let words = std::array::from_fn(|i| self.words[i].load(Relaxed));
            // No word may be read after the version is.
            fence(Acquire);
            (version & 1 == 0 && self.version.load(Relaxed) == version).then_some(words)
        })
    }

    /// Nanoseconds that the record took in all; for the writer.
    fn total(&self) -> u64 {
        let [received, .., _] = &self.words;
        self.words[3]
            .load(Relaxed)
            .saturating_sub(received.load(Relaxed))
    }
}

/// The slowest packets of the last [`FLIGHT_SECONDS`], single writer. 38 KiB.
#[derive(Debug)]
pub struct FlightRecorder {
    rows: Box<[[Place; FLIGHT_PER_SECOND]]>,
    /// The second that is being written.
    second: AtomicU64,
    /// The least that its row holds, nanoseconds: what takes no longer need not be noted.
    least: AtomicU64,
}

impl Default for FlightRecorder {
    fn default() -> Self {
        FlightRecorder {
            rows: std::iter::repeat_with(Default::default)
                .take(FLIGHT_SECONDS)
                .collect(),
            second: AtomicU64::default(),
            least: AtomicU64::default(),
        }
    }
}

impl FlightRecorder {
    /// Whether something that took `total` and was over at `done` is to be [noted](Self::note).
    /// Only the writer's thread may call this.
    #[must_use]
    pub fn wants(&self, total: Duration, done: Time) -> bool {
        total.as_nanos() > u128::from(self.least.load(Relaxed))
            || second_of(done) != self.second.load(Relaxed)
    }

    /// Keeps a record if it is among the slowest of its second. Only the writer's thread may call
    /// this, with times that do not run backwards.
    pub fn note(&self, record: &FlightRecord) {
        let second = second_of(record.done);
        let last = self.second.load(Relaxed);
        if second != last {
            // Seconds in which nothing was noted have rows of a minute ago.
            let skipped = (last + 1..=second).rev().take(FLIGHT_SECONDS);
            skipped.for_each(|s| self.row(s).iter().for_each(|place| place.write([0; WORDS])));
            self.second.store(second, Relaxed);
            self.least.store(0, Relaxed);
        }
        let row = self.row(second);
        let Some(place) = row.iter().min_by_key(|place| place.total()) else {
            return;
        };
        if record.total().as_nanos() > u128::from(place.total()) {
            place.write(record.to_words());
        }
        let least = row.iter().map(Place::total).min();
        self.least.store(least.unwrap_or(0), Relaxed);
    }

    fn row(&self, second: u64) -> &[Place] {
        let row = self.rows.get((second % FLIGHT_SECONDS as u64) as usize);
        row.map_or(&[], |row| row.as_slice())
    }

    /// The slowest that were over within the last [`FLIGHT_SECONDS`] before `now`, slowest first,
    /// at most [`FLIGHT_SHOWN`].
    #[must_use]
    pub fn slowest(&self, now: Time) -> Vec<FlightRecord> {
        let window = Duration::from_secs(FLIGHT_SECONDS as u64);
        let mut records: Vec<_> = self
            .rows
            .iter()
            .flatten()
            .filter_map(Place::read)
            .filter(|words| words.iter().any(|word| *word != 0))
            .filter_map(FlightRecord::from_words)
            .filter(|record| now - record.done < window)
            .collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.total()));
        records.truncate(FLIGHT_SHOWN);
        records
    }
}

fn second_of(time: Time) -> u64 {
    time.as_nanos() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    fn record(done: Time, total: Duration) -> FlightRecord {
        let received = done.saturating_sub(total);
        FlightRecord {
            received,
            read: received,
            started: received,
            done,
            slept: received,
            woke: received,
            track: TrackId(7),
            source: Source::Imaging,
            tcp: true,
            size: 1_200,
            packets: 70_000,
            position: 3,
            runs: 500,
            datagrams: 90_000,
        }
    }

    #[test]
    fn records_survive_as_words() {
        for source in Source::ALL {
            let record = FlightRecord {
                source,
                ..record(Time::from_millis(9), Duration::from_millis(2))
            };
            assert_eq!(FlightRecord::from_words(record.to_words()), Some(record));
        }
    }

    #[test]
    fn a_shard_at_work_was_not_late_to_wake() {
        let mut r = record(Time::from_millis(9), Duration::from_millis(5));
        (r.slept, r.woke) = (Time::from_millis(3), Time::from_millis(6));
        assert_eq!(r.wake_up(), Duration::from_millis(2));
        r.slept = Time::from_millis(5);
        assert_eq!(r.wake_up(), Duration::ZERO);
    }

    proptest! {
        /// Against a list of everything that was noted.
        #[test]
        fn the_slowest_of_each_second_are_kept(
            steps in proptest::collection::vec((0u64..700, 1u64..50), 1..600),
            pause in 0u64..200_000,
        ) {
            let recorder = FlightRecorder::default();
            let mut all = Vec::new();
            let mut now = 100_000;
            for (i, (step, total)) in steps.iter().enumerate() {
                now += step + if i == steps.len() / 2 { pause } else { 0 };
                let record = record(Time::from_millis(now), Duration::from_millis(*total));
                if recorder.wants(record.total(), record.done) {
                    recorder.note(&record);
                }
                all.push((second_of(record.done), *total));
            }
            let end = Time::from_millis(now);
            let mut naive = Vec::new();
            // The oldest second is partly over.
            let oldest = (second_of(end) + 1).saturating_sub(FLIGHT_SECONDS as u64 - 1);
            for second in oldest..=second_of(end) {
                let mut row: Vec<_> =
                    all.iter().filter(|(s, _)| *s == second).map(|(_, t)| *t).collect();
                row.sort_unstable_by(|a, b| b.cmp(a));
                naive.extend(row.into_iter().take(FLIGHT_PER_SECOND));
            }
            naive.sort_unstable_by(|a, b| b.cmp(a));
            naive.truncate(FLIGHT_SHOWN);
            let kept = recorder.slowest(end);
            let told: Vec<_> = kept
                .iter()
                .filter(|r| second_of(r.done) >= oldest)
                .map(|r| r.total().as_millis() as u64)
                .collect();
            if kept.len() < FLIGHT_SHOWN {
                prop_assert_eq!(told, naive);
            } else {
                // Records of the oldest second may have taken places of the list.
                prop_assert_eq!(&told[..], &naive[..told.len()]);
            }
        }
    }

    /// All words of a record are of one write, however often it is written meanwhile.
    #[test]
    fn readers_see_whole_records() {
        let place = Place::default();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..200_000u64 {
                    place.write([n; WORDS]);
                }
                stop.store(true, Relaxed);
            });
            let mut seen = 0u64;
            while !stop.load(Relaxed) {
                if let Some(words) = place.read() {
                    assert!(words.iter().all(|w| *w == words[0]), "{words:?}");
                    assert!(words[0] >= seen, "time runs backwards");
                    seen = words[0];
                }
            }
        });
        assert_eq!(place.read(), Some([199_999; WORDS]));
    }
}
