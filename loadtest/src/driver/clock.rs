//! The generator's clock.

use sealcast_model::Time;
use std::time::{Duration, Instant, SystemTime};

/// Turns the system's monotonic clock into [`Time`]. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that is at [`Time::ZERO`] now.
    #[must_use]
    pub fn start() -> Clock {
        #[expect(clippy::disallowed_methods, reason = "the edge that owns the clock")]
        Clock {
            epoch: Instant::now(),
        }
    }

    /// The `Instant` of [`Time::ZERO`].
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// `t` as an `Instant`.
    #[must_use]
    pub fn instant(&self, t: Time) -> Instant {
        self.epoch + Duration::from_nanos(t.as_nanos())
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        #[expect(clippy::disallowed_methods, reason = "the edge that owns the clock")]
        let now = Instant::now();
        Time::ZERO + now.saturating_duration_since(self.epoch)
    }
}

/// Wall-clock time since 1970: for reports, and to compare with the kernel's receive timestamps.
#[must_use]
pub fn unix_now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the edge that owns the clock")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
