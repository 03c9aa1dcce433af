//! The edge that reads the wall clock: JWTs expire by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
