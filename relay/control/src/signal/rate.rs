//! A token bucket: so many at once, so many a second.

use std::time::Duration;
use tokio::time::Instant;

/// Counts in thousandths of a token, so that refilling needs no fractions.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u64,
    capacity: u64,
    level: u64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens that gains `per_second`.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let capacity = u64::from(burst) * 1_000;
        Bucket {
            per_second: u64::from(per_second),
            capacity,
            level: capacity,
            filled: now,
        }
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        // Only whole milliseconds are credited, and the rest is left for the next time.
        self.filled += Duration::from_millis(elapsed);
        let gained = elapsed.saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        if self.level < 1_000 {
            return false;
        }
        self.level -= 1_000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(50, 100, start);
        let taken =
            |bucket: &mut Bucket, at: Instant| (0..1_000).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 100);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(19)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(20)), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(1_020)), 50);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3_600)), 100);
    }
}
