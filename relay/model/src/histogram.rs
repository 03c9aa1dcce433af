//! A histogram of durations with two significant digits: one writer, many readers, no allocation.
//!
//! Buckets are linear within a decade and decades are logarithmic, as in an HDR histogram, so that
//! a percentile is as exact at 40 µs as at 40 ms. Decades are of ten and not of two, so that the
//! bounds that operators write down (10 µs, 500 µs, 2 ms) are bounds of buckets, and what is
//! exported by them is exact.
//!
//! Invariant: bucket `i` counts the values in `(bound(i - 1), bound(i)]`, and its width is at most a
//! hundredth of its upper bound.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bound of the first bucket, nanoseconds: shorter than any reading of the clock.
const LOWEST: u64 = 100;
/// Buckets of a decade: from just over 100 to 1,000 units.
const PER_DECADE: usize = 900;
/// Decades: from 100 ns to 10 s. What takes longer is broken, and all counted in one bucket.
const DECADES: usize = 8;
/// All buckets: the first, the decades, and the open one.
const BUCKETS: usize = 1 + DECADES * PER_DECADE + 1;

/// Upper bounds at which histograms are exported, microseconds; a further bucket is open.
pub const BUCKETS_MICROS: [u64; 19] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000,
];

/// Durations from 100 ns to 10 s, to two significant digits; single writer. 56 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::iter::repeat_with(AtomicU64::default)
                .take(BUCKETS)
                .collect(),
            sum_nanos: AtomicU64::default(),
            max_nanos: AtomicU64::default(),
        }
    }
}

impl Histogram {
    /// Records `count` observations of `value`. Only the writer's thread may call this.
    pub fn record(&self, value: Duration, count: u64) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            bump(bucket, count);
        }
        bump(&self.sum_nanos, nanos.saturating_mul(count));
        if nanos > self.max_nanos.load(Relaxed) {
            self.max_nanos.store(nanos, Relaxed);
        }
    }

    /// What has been recorded so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: self.buckets.iter().map(|b| b.load(Relaxed)).collect(),
            sum_nanos: self.sum_nanos.load(Relaxed),
            max_nanos: self.max_nanos.load(Relaxed),
        }
    }
}

/// A histogram's contents at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counts: Box<[u64]>,
    sum_nanos: u64,
    max_nanos: u64,
}

impl Snapshot {
    /// Observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, nanoseconds.
    #[must_use]
    pub fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }

    /// The greatest that was ever recorded, also by a snapshot that this one was made from by
    /// [`since`](Self::since).
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// How many were at most each of `bounds`, microseconds, ascending. Exact for bounds of two
    /// significant digits.
    pub fn at_most(&self, bounds: &[u64]) -> impl Iterator<Item = u64> {
        let mut cumulative = 0;
        let mut next = 0;
        bounds.iter().map(move |bound| {
            let end = bucket_of(bound.saturating_mul(1_000)) + 1;
            let counts = self.counts.get(next..end).unwrap_or_default();
            cumulative += counts.iter().sum::<u64>();
            next = end;
            cumulative
        })
    }

    /// The least bound that at least the share `q` (0..=1) of the observations do not exceed; zero
    /// if there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        let total = self.count();
        let wanted = ((q * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(bound_of(i).min(self.max_nanos));
            }
        }
        Duration::ZERO
    }

    /// What was recorded after `earlier`, a snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Snapshot {
            counts: pairs.map(|(now, then)| now.wrapping_sub(*then)).collect(),
            sum_nanos: self.sum_nanos.wrapping_sub(earlier.sum_nanos),
            max_nanos: self.max_nanos,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Snapshot) -> Snapshot {
        let pairs = self.counts.iter().zip(&other.counts);
        Snapshot {
            counts: pairs.map(|(a, b)| a + b).collect(),
            sum_nanos: self.sum_nanos.saturating_add(other.sum_nanos),
            max_nanos: self.max_nanos.max(other.max_nanos),
        }
    }
}

/// The bucket that counts a value.
fn bucket_of(nanos: u64) -> usize {
    if nanos <= LOWEST {
        return 0;
    }
    // The decade is (100 × unit, 1,000 × unit], hence the one less.
    let decade = (nanos - 1).ilog10() - 2;
    if decade as usize >= DECADES {
        return BUCKETS - 1;
    }
    let step = nanos.div_ceil(10u64.pow(decade)) - LOWEST;
    decade as usize * PER_DECADE + step as usize
}

/// The greatest value that a bucket counts, nanoseconds.
fn bound_of(bucket: usize) -> u64 {
    let Some(i) = bucket.checked_sub(1) else {
        return LOWEST;
    };
    let decade = i / PER_DECADE;
    if decade >= DECADES {
        return u64::MAX;
    }
    (LOWEST + 1 + (i % PER_DECADE) as u64) * 10u64.pow(decade as u32)
}

/// Adds to a single-writer atomic.
pub(crate) fn bump(a: &AtomicU64, n: u64) {
    a.store(a.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_meet_without_gaps() {
        for i in 0..BUCKETS - 1 {
            let bound = bound_of(i);
            assert_eq!(bucket_of(bound), i, "{bound} is the last of {i}");
            assert_eq!(bucket_of(bound + 1), i + 1, "and {bound} + 1 the next");
        }
        assert_eq!(bound_of(BUCKETS - 2), 10_000_000_000);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(0), 0);
    }

    #[test]
    fn exported_bounds_are_inclusive() {
        let h = Histogram::default();
        h.record(Duration::from_micros(10), 1);
        h.record(Duration::from_nanos(10_001), 2);
        h.record(Duration::from_secs(100), 3);
        let s = h.snapshot();
        let at_most: Vec<_> = s.at_most(&BUCKETS_MICROS).collect();
        assert_eq!(at_most[..5], [0, 0, 0, 1, 3]);
        assert_eq!((at_most[18], s.count()), (3, 6));
        assert_eq!(s.sum_nanos(), 10_000 + 20_002 + 300_000_000_000);
        assert_eq!(s.quantile(1.0), Duration::from_secs(100));
        assert_eq!(
            Histogram::default().snapshot().quantile(0.5),
            Duration::ZERO
        );
    }

    proptest! {
        /// Against a sorted list: counts are exact at round bounds, quantiles within a hundredth.
        #[test]
        fn percentiles_are_those_of_a_list(
            values in proptest::collection::vec(1u64..9_000_000_000, 1..300),
            q in 0.0f64..=1.0,
            split in 0usize..300,
        ) {
            let h = Histogram::default();
            let split = split.min(values.len());
            values[..split].iter().for_each(|v| h.record(Duration::from_nanos(*v), 1));
            let earlier = h.snapshot();
            values[split..].iter().for_each(|v| h.record(Duration::from_nanos(*v), 1));
            let s = h.snapshot();
            for (bound, n) in BUCKETS_MICROS.iter().zip(s.at_most(&BUCKETS_MICROS)) {
                let naive = values.iter().filter(|v| **v <= bound * 1_000).count();
                prop_assert_eq!(n, naive as u64);
            }
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let naive = sorted[rank - 1] as f64;
            let told = s.quantile(q).as_nanos() as f64;
            prop_assert!(told >= naive && told <= (naive * 1.01).max(100.0), "{told} for {naive}");
            prop_assert_eq!(s.since(&earlier).count(), (values.len() - split) as u64);
            prop_assert_eq!(s.since(&earlier).plus(&earlier), s);
        }
    }
}
