//! Monotonic time as a value.
//!
//! [`Time`] is nanoseconds since an epoch that the process chose at start. Only the I/O crate
//! reads a clock; everything else is handed a `Time`, which is what makes the relay simulable.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point in monotonic time: nanoseconds since the process's epoch. Range: 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The process's epoch.
    pub const ZERO: Time = Time(0);
    /// Later than any other time: "no timer is set".
    pub const NEVER: Time = Time(u64::MAX);

    /// A time `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// A time `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Time(micros.saturating_mul(1_000))
    }

    /// A time `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Time(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub const fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This time moved back by `d`, but not before the epoch.
    #[must_use]
    pub fn saturating_sub(self, d: Duration) -> Time {
        Time(self.0.saturating_sub(nanos(d)))
    }
}

/// Nanoseconds of a duration, saturating at `u64::MAX`.
fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(nanos(d)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Time> for Time {
    type Output = Duration;
    /// Saturates at zero.
    fn sub(self, earlier: Time) -> Duration {
        self.saturating_since(earlier)
    }
}

/// Maps [`Time`] to NTP wall time, for RTCP sender reports (RFC 3550 §6.4.1).
///
/// The pair is read once at start; a wall clock that is stepped later does not move media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpClock {
    /// NTP time (32.32 fixed point, seconds since 1900) at [`Time::ZERO`].
    ntp_at_zero: u64,
}

impl NtpClock {
    /// Seconds between the NTP era (1900) and the Unix epoch (1970).
    const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

    /// A clock for which [`Time::ZERO`] is `unix` after 1970-01-01.
    #[must_use]
    pub fn from_unix(unix: Duration) -> Self {
        NtpClock {
            ntp_at_zero: ((unix.as_secs().wrapping_add(Self::NTP_UNIX_OFFSET)) << 32)
                .wrapping_add(fraction(unix.subsec_nanos())),
        }
    }

    /// NTP time (32.32) at `t`.
    #[must_use]
    pub fn at(&self, t: Time) -> u64 {
        let n = t.as_nanos();
        let nanos = u32::try_from(n % 1_000_000_000).unwrap_or(0);
        self.ntp_at_zero
            .wrapping_add(((n / 1_000_000_000) << 32).wrapping_add(fraction(nanos)))
    }
}

/// Nanoseconds below a second as a 0.32 fixed-point fraction.
fn fraction(nanos: u32) -> u64 {
    (u64::from(nanos) << 32) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Time::ZERO - Time::from_millis(5), Duration::ZERO);
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
        assert_eq!(
            Time::from_millis(3).saturating_sub(Duration::from_secs(1)),
            Time::ZERO
        );
        assert_eq!(Time::from_micros(7).as_nanos(), 7_000);
    }

    #[test]
    fn ntp_follows_monotonic_time() {
        let clock = NtpClock::from_unix(Duration::new(1_000, 500_000_000));
        let zero = clock.at(Time::ZERO);
        assert_eq!(zero >> 32, 1_000 + 2_208_988_800);
        assert_eq!(zero & 0xffff_ffff, 0x8000_0000);
        let later = clock.at(Time::from_millis(1_250));
        let elapsed = later.wrapping_sub(zero);
        assert_eq!(elapsed >> 32, 1);
        assert!((elapsed & 0xffff_ffff).abs_diff(0x4000_0000) <= 1);
    }
}
