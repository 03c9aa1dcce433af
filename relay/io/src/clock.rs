//! The process's clock: the only place where the relay's packet path learns what time it is.

use sealcast_model::{NtpClock, Time};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A kernel timestamp further in the past than this is not believed: the wall clock was set.
const STAMP_AGE_MAX: Duration = Duration::from_secs(5);

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

    /// Maps kernel timestamps of packets that are about to be received. Reads both clocks, so it
    /// is made once per receive call.
    pub(crate) fn stamps(&self) -> StampMap {
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
    /// The monotonic time of a kernel timestamp.
    pub(crate) fn map(&self, stamp: Option<Duration>) -> Time {
        match stamp.and_then(|stamp| self.wall.checked_sub(stamp)) {
            Some(age) if age <= STAMP_AGE_MAX => self.now.saturating_sub(age),
            _ => self.now,
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
        assert_eq!(map.map(at(999_990)), Time::from_millis(9_990));
        assert_eq!(map.map(at(1_000_500)), map.now, "the wall clock went back");
        assert_eq!(map.map(at(1)), map.now, "the wall clock went forth");
        assert_eq!(map.map(None), map.now);
    }
}
