//! The edges that read clocks: the wall clock, by which JWTs expire, and tokio's, by which limits
//! and timers run.

use sealcast_model::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Tokio's clock as [`Time`], counted from when this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at zero.
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// The time now.
    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// When a time is, or was.
    pub(crate) fn at(&self, time: Time) -> Instant {
        self.0 + Duration::from_nanos(time.as_nanos())
    }
}

/// Seconds since 1970; zero if the system's clock is before that.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "tokens expire by wall time; everything below takes it as an argument"
)]
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
