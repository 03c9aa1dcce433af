//! What is measured of a path beside its rate: how much was sent, and how long its queue is.

use sealcast_model::Time;
use std::time::Duration;

/// Sending below this share of the estimate is application-limited.
const IDLE_SHARE: f64 = 0.65;
/// ... over this long, in as many parts.
const SENT_WINDOW: Duration = Duration::from_millis(500);
const SENT_PARTS: usize = 5;

/// The least delay of this long stands for the empty path. Two such windows are kept.
const BASE_DELAY_WINDOW: i64 = 10_000_000;

/// A queue over this that grew by that much since the last feedback is overuse at once.
const JUMP_FROM_MICROS: i64 = 100_000;
const JUMP_MICROS: i64 = 30_000;

/// The bottleneck's rate is measured over this long, microseconds: several frames, so that the
/// largest of them does not stand for all. A shorter time in which it was busy counts from the
/// lesser length on.
const BUSY_WINDOW: i64 = 100_000;
const BUSY_LEAST: i64 = 40_000;
/// After so many windows in a row what was measured is what the path has, and not a rival's burst.
const BUSY_SUSTAINED: usize = 3;

/// A queue of this length is none that a burst made, a rival's or our own: both are paced.
const LONG_QUEUE_MICROS: i64 = 150_000;

/// What was measured holds for this long, microseconds.
const BUSY_MEMORY: i64 = 500_000;

/// Bytes sent lately.
#[derive(Debug, Default)]
pub(super) struct SentRate {
    parts: [u64; SENT_PARTS],
    /// Number of the current part since the epoch, and its place.
    part: u64,
    place: usize,
    /// Nanoseconds since the epoch at which it ends.
    ends: u64,
}

impl SentRate {
    const PART_NANOS: u64 = SENT_WINDOW.as_nanos() as u64 / SENT_PARTS as u64;

    #[inline]
    pub(super) fn add(&mut self, now: Time, bytes: u16) {
        self.slide(now);
        if let Some(part) = self.parts.get_mut(self.place) {
            *part += u64::from(bytes);
        }
    }

    #[inline]
    fn slide(&mut self, now: Time) {
        if now.as_nanos() >= self.ends {
            self.turn(now);
        }
    }

    /// Begins the part that `now` is in.
    #[cold]
    fn turn(&mut self, now: Time) {
        let part = now.as_nanos() / Self::PART_NANOS;
        for passed in (self.part + 1..=part).take(SENT_PARTS) {
            self.parts[passed as usize % SENT_PARTS] = 0;
        }
        self.part = self.part.max(part);
        self.place = self.part as usize % SENT_PARTS;
        self.ends = (self.part + 1) * Self::PART_NANOS;
    }

    /// Bits per second, over half a second.
    pub(super) fn bitrate(&mut self, now: Time) -> u64 {
        self.slide(now);
        let bits = self.parts.iter().sum::<u64>() as f64 * 8.0;
        (bits / SENT_WINDOW.as_secs_f64()) as u64
    }

    /// Whether less was sent than `estimate` allows.
    pub(super) fn is_idle(&mut self, now: Time, estimate: u64) -> bool {
        (self.bitrate(now) as f64) < estimate as f64 * IDLE_SHARE
    }
}

/// One-way delay over the least one seen, which stands for the empty path.
#[derive(Debug, Default)]
pub(super) struct QueueDelay {
    /// Microseconds; the last packet's.
    pub(super) delay: i64,
    window_start: Option<i64>,
    base: Option<i64>,
    previous_base: Option<i64>,
    /// The delay when it was last asked for.
    before: i64,
}

impl QueueDelay {
    pub(super) fn on_packet(&mut self, sent: Time, arrival: i64) {
        let transit = arrival.wrapping_sub(i64::try_from(sent.as_micros()).unwrap_or(i64::MAX));
        let start = *self.window_start.get_or_insert(arrival);
        if arrival - start > BASE_DELAY_WINDOW {
            self.window_start = Some(arrival);
            self.previous_base = self.base.replace(transit);
        }
        self.base = Some(self.base.map_or(transit, |base| base.min(transit)));
        let least = self
            .base
            .into_iter()
            .chain(self.previous_base)
            .min()
            .unwrap_or(transit);
        self.delay = transit - least;
    }

    /// Whether a long queue has grown a lot since this was last asked. A regression needs many
    /// groups to see what one look at such a jump tells.
    pub(super) fn has_jumped(&mut self) -> bool {
        let grown = self.delay - self.before;
        self.before = self.delay;
        self.delay > JUMP_FROM_MICROS && grown > JUMP_MICROS
    }
}

/// The rate at which packets leave the bottleneck while it is busy: what the path has for this
/// sender, however little the sender happened to send around that time.
///
/// A packet that waited for at least as long as the one before it is ago was in the queue when that
/// one left: in between the bottleneck did not rest.
#[derive(Debug, Default)]
pub(super) struct BusyRate {
    /// Arrival of the packet that the window starts behind, and of the last one, microseconds.
    since: Option<i64>,
    last: i64,
    bytes: u64,
    /// Bits per second of the newest windows, newest first, and how many of them the bottleneck has
    /// been busy for without a rest.
    recent: [u64; BUSY_SUSTAINED],
    windows: usize,
    /// When the newest one ended.
    at: i64,
}

impl BusyRate {
    /// A packet arrived at `arrival`, after `waited` microseconds in the queue.
    pub(super) fn on_packet(&mut self, arrival: i64, waited: i64, bytes: u16) {
        let gap = arrival - self.last;
        let since = match self.since {
            Some(since) if (0..=waited).contains(&gap) => since,
            _ => {
                self.close(BUSY_LEAST);
                (self.since, self.last) = (Some(arrival), arrival);
                (self.bytes, self.windows) = (0, 0);
                return;
            }
        };
        self.last = arrival;
        self.bytes += u64::from(bytes);
        if arrival - since >= BUSY_WINDOW {
            self.close(BUSY_WINDOW);
        }
    }

    /// Ends the window if it has this length.
    fn close(&mut self, least: i64) {
        let Some(passed) = self.since.map(|since| self.last - since) else {
            return;
        };
        if passed < least {
            return;
        }
        self.recent.rotate_right(1);
        self.recent[0] = self.bytes * 8_000_000 / passed.unsigned_abs();
        (self.windows, self.at) = (self.windows + 1, self.last);
        (self.since, self.bytes) = (Some(self.last), 0);
    }

    /// Bits per second, if that was measured lately.
    pub(super) fn bitrate(&self) -> Option<u64> {
        let [newest, ..] = self.recent;
        (newest > 0 && self.last - self.at <= BUSY_MEMORY).then_some(newest)
    }

    /// Bits per second of a bottleneck whose queue, of `queue` microseconds now, stands: it is longer
    /// than a burst makes it, or the bottleneck has been busy for long.
    pub(super) fn standing(&self, queue: i64) -> Option<u64> {
        let newest = self.bitrate().filter(|_| queue > LONG_QUEUE_MICROS);
        newest.or(self.sustained())
    }

    /// As [`bitrate`](Self::bitrate), if the bottleneck has been busy for so long that no burst
    /// explains it.
    pub(super) fn sustained(&self) -> Option<u64> {
        self.bitrate().filter(|_| self.windows >= BUSY_SUSTAINED)?;
        self.recent.into_iter().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends packets of 1,000 bytes at `times` (µs) through a bottleneck that takes `spacing` µs for
    /// each, and gives what was measured.
    fn measure(busy: &mut BusyRate, times: impl Iterator<Item = i64>, spacing: i64) -> Option<u64> {
        let mut free = 0;
        for sent in times {
            free = free.max(sent) + spacing;
            busy.on_packet(free, free - sent - spacing, 1_000);
        }
        busy.bitrate()
    }

    #[test]
    fn a_bottleneck_that_rests_tells_nothing() {
        let mut busy = BusyRate::default();
        // A packet every 10 ms through 4 Mbit/s.
        assert_eq!(
            measure(&mut busy, (0..200).map(|n| n * 10_000), 2_000),
            None
        );
    }

    #[test]
    fn one_burst_shows_the_rate_of_the_path_whatever_is_sent_otherwise() {
        let mut busy = BusyRate::default();
        // 30 packets at once, after a second of next to nothing.
        let burst = (0..30).map(|_| 1_000_000);
        let times = (0..10).map(|n| n * 100_000).chain(burst).chain([1_200_000]);
        let rate = measure(&mut busy, times, 2_000).expect("60 ms were busy");
        assert!((3_900_000..4_100_000).contains(&rate), "{rate}");
        assert_eq!(busy.sustained(), None, "not for long enough");
    }

    #[test]
    fn a_path_that_got_narrow_shows_in_three_windows() {
        let mut busy = BusyRate::default();
        // 2 Mbit/s into 0.5 Mbit/s.
        measure(&mut busy, (0..30).map(|n| n * 4_000), 16_000);
        let rate = busy.sustained().expect("480 ms were busy");
        assert!((490_000..510_000).contains(&rate), "{rate}");
        // What was measured long ago is not held against the path.
        busy.on_packet(9_000_000, 0, 1_000);
        assert_eq!((busy.bitrate(), busy.sustained()), (None, None));
    }
}
