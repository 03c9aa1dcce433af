//! A token bucket: so many at once, so many a second.

use crate::Time;

/// Thousandths of a token, so that refilling by the millisecond needs no fractions.
const TOKEN: u64 = 1_000;

/// A bucket of `burst` tokens that gains `per_second` of them. Each thing that is to be limited
/// takes one.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: u64,
    capacity: u64,
    level: u64,
    filled: Time,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now: Time) -> Self {
        let capacity = u64::from(burst) * TOKEN;
        TokenBucket {
            per_second: u64::from(per_second),
            capacity,
            level: capacity,
            filled: now,
        }
    }

    /// Takes a token; false if there is none. Time that runs backwards adds nothing.
    pub fn take(&mut self, now: Time) -> bool {
        let elapsed = now.as_nanos().saturating_sub(self.filled.as_nanos()) / 1_000_000;
        // Only whole milliseconds are credited, and the rest is left for the next time.
        let credited = elapsed.saturating_mul(1_000_000);
        self.filled = Time::from_nanos(self.filled.as_nanos().saturating_add(credited));
        let gained = elapsed.saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        let enough = self.level >= TOKEN;
        if enough {
            self.level -= TOKEN;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(50, 100, Time::ZERO);
        let mut taken = |millis: u64| {
            let now = Time::from_millis(millis);
            (0..1_000).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(0), 100);
        assert_eq!(taken(19), 0);
        assert_eq!(taken(20), 1);
        assert_eq!(taken(1_020), 50);
        assert_eq!(taken(500), 0, "back in time");
        assert_eq!(taken(3_600_000), 100, "never more than a burst");
    }

    #[test]
    fn parts_of_a_millisecond_are_not_lost() {
        let mut bucket = TokenBucket::new(1_000, 1, Time::ZERO);
        let taken = (0..10_000).filter(|n| bucket.take(Time::from_micros(n * 700)));
        assert_eq!(taken.count(), 6_999 + 1);
    }
}
