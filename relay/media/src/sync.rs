//! Clocks: what a publisher's sender reports say about when a packet was captured, in the relay's
//! own time, so that the reports which receivers get keep audio and video of one person together.
//!
//! All times are NTP, 32.32 fixed point, on a circle of 136 years.

use crate::limits::{CLOCK_CREEP, CLOCK_JUMP};
use crate::rewriter::ticks;
use std::time::Duration;

/// Sender reports in a row that must disagree with the offset before it is set anew.
const JUMP_CONFIRMATIONS: u8 = 3;

/// The distance from a publisher's NTP clock to the relay's, one for all streams of a session:
/// audio and video share it, so an error in it moves both and parts neither.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerClock {
    offset: Option<u64>,
    jumps: u8,
}

impl PeerClock {
    /// A sender report with the publisher's time `theirs` arrived at `ours`.
    pub(crate) fn on_report(&mut self, theirs: u64, ours: u64) {
        let sample = ours.wrapping_sub(theirs);
        let Some(offset) = self.offset else {
            self.offset = Some(sample);
            return;
        };
        let excess = sample.wrapping_sub(offset) as i64;
        if excess.unsigned_abs() > span(CLOCK_JUMP) {
            self.jumps += 1;
            if self.jumps >= JUMP_CONFIRMATIONS {
                *self = PeerClock {
                    offset: Some(sample),
                    jumps: 0,
                };
            }
            return;
        }
        self.jumps = 0;
        // A report that took less time on the way tells more about the clocks than one that took
        // longer: follow the former at once within reason, the latter slowly.
        let creep = span(CLOCK_CREEP) as i64;
        let step = excess.clamp(-20 * creep, creep);
        self.offset = Some(offset.wrapping_add(step as u64));
    }

    /// The publisher's time `theirs` on the relay's clock, once a report has come.
    pub(crate) fn to_relay(self, theirs: u64) -> Option<u64> {
        Some(theirs.wrapping_add(self.offset?))
    }
}

/// A point where a media clock and the publisher's NTP clock meet: a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockPoint {
    /// NTP time.
    pub(crate) ntp: u64,
    /// The RTP timestamp of the same instant.
    pub(crate) timestamp: u32,
}

impl ClockPoint {
    /// The NTP time of an RTP timestamp within six hours of the point.
    pub(crate) fn ntp_of(self, timestamp: u32, clock_rate: u32) -> u64 {
        let ticks = i128::from(timestamp.wrapping_sub(self.timestamp) as i32);
        let span = (ticks << 32) / i128::from(clock_rate.max(1));
        self.ntp.wrapping_add(span as u64)
    }

    /// The RTP timestamp of an NTP time.
    pub(crate) fn timestamp_of(self, ntp: u64, clock_rate: u32) -> u32 {
        let passed = ticks(ntp.wrapping_sub(self.ntp) as i64, clock_rate);
        self.timestamp.wrapping_add(passed as u32)
    }
}

/// A duration as an NTP span.
fn span(duration: Duration) -> u64 {
    (u128::from(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)) << 32)
        .wrapping_div(1_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1 << 32;

    #[test]
    fn the_offset_follows_the_quickest_reports() {
        let mut clock = PeerClock::default();
        assert_eq!(clock.to_relay(5), None);
        clock.on_report(100 * SECOND, 900 * SECOND);
        assert_eq!(clock.to_relay(101 * SECOND), Some(901 * SECOND));
        // Half a second of queue on the way: the offset hardly moves.
        clock.on_report(101 * SECOND, 901 * SECOND + SECOND / 2);
        let moved = clock.to_relay(0).unwrap() - 800 * SECOND;
        assert_eq!(moved, span(CLOCK_CREEP));
    }

    #[test]
    fn a_stepped_clock_is_followed_after_a_few_reports() {
        let mut clock = PeerClock::default();
        clock.on_report(100 * SECOND, 900 * SECOND);
        for n in 1..JUMP_CONFIRMATIONS {
            clock.on_report(5_000 * SECOND, 901 * SECOND);
            assert_eq!(clock.to_relay(0), Some(800 * SECOND), "report {n}");
        }
        clock.on_report(5_000 * SECOND, 901 * SECOND);
        assert_eq!(clock.to_relay(5_000 * SECOND), Some(901 * SECOND));
    }

    proptest! {
        #[test]
        fn a_clock_point_maps_both_ways(ntp: u64, timestamp: u32, ahead in -1_000_000_000i32..1_000_000_000, audio: bool) {
            let rate = if audio { 48_000 } else { 90_000 };
            let point = ClockPoint { ntp, timestamp };
            let other = timestamp.wrapping_add(ahead as u32);
            let back = point.timestamp_of(point.ntp_of(other, rate), rate);
            prop_assert!((back.wrapping_sub(other) as i32).abs() <= 1, "{} {}", back, other);
        }
    }
}
