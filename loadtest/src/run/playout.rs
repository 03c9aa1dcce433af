//! The jitter buffer of a slot: when each frame would have been shown or heard, and where the
//! viewer saw a freeze.
//!
//! Senders' and receivers' clocks need not agree: only differences of transit times matter. The
//! buffer's delay rises at once to what a late frame needed and sinks slowly, as buffers of
//! conferencing clients do.

use sealcast_model::Time;
use std::time::Duration;

/// A buffer delays no more than this; what comes later is shown late (video) or not (audio).
const MAX_DELAY: Duration = Duration::from_millis(500);
/// What the delay sinks by with each frame, as a share: halved in about 14 s of 50 frames/s.
const DECAY: f64 = 0.001;
/// It does not sink for this many frames after it was needed.
const HOLD: u32 = 250;
/// It was needed if a frame took this share of it.
const NEEDED: f64 = 0.8;
/// What the smallest transit seen rises by with each frame, seconds: follows a path that became
/// longer, within half a minute for 50 ms.
const DRIFT: f64 = 0.000_03;
/// Frames over which the mean interval is taken (W3C webrtc-stats, `freezeCount`).
const INTERVALS: usize = 30;

/// The playout of one slot.
#[derive(Debug, Default)]
pub(super) struct Playout {
    /// Smallest transit time, seconds on differing clocks: may be negative.
    base: Option<f64>,
    /// Of the buffer, seconds.
    delay: f64,
    /// Frames until it may sink.
    hold: u32,
    shown: Option<Time>,
    intervals: Vec<f64>,
    next: usize,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Played {
    /// It came after its time.
    pub(super) late: bool,
    /// What the buffer added.
    pub(super) buffered: Duration,
    /// Time since the frame before it was shown.
    pub(super) gap: Duration,
    /// That time was a freeze.
    pub(super) freeze: bool,
}

impl Playout {
    /// Takes a frame that was due at `due` on its sender's clock and whole at `complete`.
    pub(super) fn on_frame(&mut self, due: Time, complete: Time) -> Played {
        let transit = seconds(complete) - seconds(due);
        let base = self.base.map_or(transit, |b| (b + DRIFT).min(transit));
        self.base = Some(base);
        let needed = transit - base;
        // A millisecond is within the resolution of any player.
        let late = self.shown.is_some() && needed > self.delay + 0.001;
        if needed >= self.delay * NEEDED {
            self.hold = HOLD;
            self.delay = needed.clamp(self.delay, MAX_DELAY.as_secs_f64().max(self.delay));
        } else if self.hold > 0 {
            self.hold -= 1;
        } else {
            self.delay *= 1.0 - DECAY;
        }
        let buffered = Duration::from_secs_f64((self.delay - needed).max(0.0));
        let shown = (complete + buffered).max(self.shown.unwrap_or(Time::ZERO));
        let gap = self.shown.map_or(Duration::ZERO, |last| shown - last);
        let freeze = self.is_freeze(gap);
        if self.shown.is_some() && !freeze {
            self.keep_interval(gap.as_secs_f64());
        }
        self.shown = Some(shown);
        Played {
            late,
            buffered,
            gap,
            freeze,
        }
    }

    /// The freeze that lasts at `now`, if one does: nothing was shown for too long.
    pub(super) fn frozen(&self, now: Time) -> Option<Duration> {
        let gap = now.saturating_since(self.shown?);
        self.is_freeze(gap).then_some(gap)
    }

    /// "It is counted as a freeze if the interval between two consecutive rendered frames is
    /// equal or greater than Max(3 * avg_frame_duration, avg_frame_duration + 150 ms)" (W3C
    /// webrtc-stats, `freezeCount`).
    fn is_freeze(&self, gap: Duration) -> bool {
        if self.intervals.is_empty() {
            return false;
        }
        let average = self.intervals.iter().sum::<f64>() / self.intervals.len() as f64;
        gap.as_secs_f64() >= (3.0 * average).max(average + 0.150)
    }

    fn keep_interval(&mut self, interval: f64) {
        if self.intervals.len() < INTERVALS {
            self.intervals.push(interval);
        } else if let Some(oldest) = self.intervals.get_mut(self.next) {
            *oldest = interval;
            self.next = (self.next + 1) % INTERVALS;
        }
    }
}

fn seconds(t: Time) -> f64 {
    Duration::from_nanos(t.as_nanos()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 33;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn an_even_stream_neither_freezes_nor_waits() {
        let mut playout = Playout::default();
        for n in 0..300 {
            let played = playout.on_frame(at(n * FRAME), at(n * FRAME + 20));
            assert!(!played.late && !played.freeze);
            assert!(played.buffered < Duration::from_millis(2));
        }
    }

    #[test]
    fn a_pause_is_one_freeze_of_its_length() {
        let mut playout = Playout::default();
        let mut freezes = vec![];
        for n in 0..300u64 {
            // Everything due in these 300 ms comes at their end.
            let (due, arrives) = (n * FRAME, n * FRAME + 20);
            let arrives = if (3_000..3_300).contains(&arrives) {
                3_300
            } else {
                arrives
            };
            let played = playout.on_frame(at(due), at(arrives));
            if played.freeze {
                freezes.push(played.gap.as_millis());
            }
        }
        let [freeze] = freezes[..] else {
            panic!("{freezes:?}")
        };
        assert!((300..=340).contains(&freeze), "{freeze}");
    }

    #[test]
    fn jitter_within_the_buffer_is_not_seen() {
        let mut playout = Playout::default();
        let (mut late, mut freezes) = (0, 0);
        for n in 0..1_000u64 {
            let jitter = n * 7919 % 40;
            let played = playout.on_frame(at(n * 20), at(n * 20 + 15 + jitter));
            late += u32::from(played.late && n > 50);
            freezes += u32::from(played.freeze);
        }
        assert_eq!((late, freezes), (0, 0));
    }

    #[test]
    fn clocks_need_not_agree() {
        let mut playout = Playout::default();
        for n in 0..100u64 {
            // The sender's clock is an hour ahead.
            let played = playout.on_frame(at(3_600_000 + n * 20), at(n * 20 + 30));
            assert!(!played.late);
        }
        assert_eq!(playout.frozen(at(99 * 20 + 40)), None);
        assert!(playout.frozen(at(99 * 20 + 530)).is_some());
    }
}
