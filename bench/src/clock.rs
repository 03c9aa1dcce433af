//! The clock of the measuring program.

use std::time::{Duration, Instant};

/// Now.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark is an edge that owns the clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps: for the threads and processes that feed and drain, never the measured one.
#[expect(
    clippy::disallowed_methods,
    reason = "feeders and sinks poll at leisure"
)]
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
