//! The process's clock: the only place where the relay's packet path learns what time it is.

use crate::limits::HARDWARE_LEAD;
use crate::sys::Timestamps;
use sealcast_model::{Counter, NtpClock, Time};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A kernel timestamp further in the past than this is not believed: the wall clock was set.
const STAMP_AGE_MAX: Duration = Duration::from_secs(5);

/// Readings of the two clocks that lie further apart than this are repeated: several times what
/// they take.
const STAMP_APART: Duration = Duration::from_micros(1);

/// How often they are repeated at most, on a machine that takes that long for each.
const STAMP_READINGS: usize = 3;

/// Monotonic time since the process's epoch, and how it maps to wall time. One for all shards.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    ntp: NtpClock,
}

impl Clock {
    /// A clock whose [`Time::ZERO`] is now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge that owns the clock"
    )]
    pub fn start() -> Self {
        Clock {
            epoch: Instant::now(),
            ntp: NtpClock::from_unix(wall()),
        }
    }

    /// The time.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge that owns the clock"
    )]
    pub fn now(&self) -> Time {
        let nanos = Instant::now().duration_since(self.epoch).as_nanos();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX - 1))
    }

    /// The `Instant` of [`Time::ZERO`].
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Maps to NTP time for sender reports.
    #[must_use]
    pub fn ntp(&self) -> NtpClock {
        self.ntp
    }

    /// Lets time pass.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the edge that owns the clock"
    )]
    pub(crate) fn pause(&self, span: Duration) {
        std::thread::sleep(span);
    }

    /// Maps kernel timestamps of packets that were just received. Reads both clocks, so it is made
    /// once per receive call.
    pub(crate) fn stamps(&self) -> StampMap {
        let mut before = self.now();
        for _ in 0..STAMP_READINGS {
            let (wall, now) = (wall(), self.now());
            // A thread that is preempted between the two readings must not make packets younger.
            if now - before <= STAMP_APART {
                return StampMap { wall, now };
            }
            before = now;
        }
        StampMap {
            wall: wall(),
            now: self.now(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "kernel timestamps are wall time")]
fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Both clocks, read at the same moment. A step of the wall clock is harmless: what was received
/// before it is taken as received now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StampMap {
    wall: Duration,
    now: Time,
}

impl StampMap {
    /// Now.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// The monotonic time of a kernel timestamp, if it is plausible.
    pub(crate) fn map(&self, stamp: Option<Duration>) -> Option<Time> {
        let age = self.wall.checked_sub(stamp?)?;
        (age <= STAMP_AGE_MAX).then(|| self.now.saturating_sub(age))
    }

    /// When a packet was received, by the best of its timestamps, and which one that was. Now, if
    /// there is none.
    pub(crate) fn received(&self, stamps: Timestamps) -> (Time, Counter) {
        let software = self.map(stamps.software);
        let hardware = self.map(stamps.hardware).filter(|hardware| {
            software.is_none_or(|by| *hardware <= by && by - *hardware <= HARDWARE_LEAD)
        });
        match (hardware, software) {
            (Some(at), _) => (at, Counter::StampedInHardware),
            (None, Some(at)) => (at, Counter::StampedIn),
            (None, None) => (self.now, Counter::UnstampedIn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_monotonic_and_counts_from_the_epoch() {
        let clock = Clock::start();
        let (a, b) = (clock.now(), clock.now());
        assert!(a <= b);
        assert!(a < Time::from_millis(60_000));
    }

    #[test]
    fn stamps_map_by_age_and_implausible_ones_are_now() {
        let map = StampMap {
            wall: Duration::from_secs(1_000),
            now: Time::from_millis(10_000),
        };
        let at = |millis| Some(Duration::from_millis(millis));
        assert_eq!(map.map(at(999_990)), Some(Time::from_millis(9_990)));
        let received = |software, hardware| map.received(Timestamps { software, hardware });
        let now = (map.now, Counter::UnstampedIn);
        assert_eq!(
            received(at(1_000_500), None),
            now,
            "the wall clock went back"
        );
        assert_eq!(received(at(1), None), now, "the wall clock went forth");
        assert_eq!(received(None, None), now);
        let software = (Time::from_millis(9_990), Counter::StampedIn);
        let hardware = (Time::from_millis(9_985), Counter::StampedInHardware);
        assert_eq!(received(at(999_990), at(999_985)), hardware);
        assert_eq!(received(at(999_990), at(999_991)), software, "the future");
        assert_eq!(
            received(at(999_990), at(999_900)),
            software,
            "another clock"
        );
        assert_eq!(received(at(999_990), None), software);
        assert_eq!(received(None, at(999_985)), hardware);
    }
}
