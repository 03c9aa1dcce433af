//! The generator's clock.

use sealcast_model::Time;
use std::time::Instant;

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

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        #[expect(clippy::disallowed_methods, reason = "the edge that owns the clock")]
        let now = Instant::now();
        Time::ZERO + now.saturating_duration_since(self.epoch)
    }
}
