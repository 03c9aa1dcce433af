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

/// Bytes sent lately.
#[derive(Debug, Default)]
pub(super) struct SentRate {
    parts: [u64; SENT_PARTS],
    /// Number of the current part since the epoch.
    part: u64,
    /// Nanoseconds since the epoch at which it ends.
    ends: u64,
}

impl SentRate {
    const PART_NANOS: u64 = SENT_WINDOW.as_nanos() as u64 / SENT_PARTS as u64;

    #[inline]
    pub(super) fn add(&mut self, now: Time, bytes: u16) {
        self.slide(now);
        self.parts[self.part as usize % SENT_PARTS] += u64::from(bytes);
    }

    #[inline]
    fn slide(&mut self, now: Time) {
        if now.as_nanos() < self.ends {
            return;
        }
        let part = now.as_nanos() / Self::PART_NANOS;
        for passed in (self.part + 1..=part).take(SENT_PARTS) {
            self.parts[passed as usize % SENT_PARTS] = 0;
        }
        self.part = self.part.max(part);
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
