//! Durations as HDR histograms: dense while recording, sparse while kept, mergeable throughout.
//!
//! Resolution is three significant digits and one microsecond, whichever is coarser.
//! [`Recorder`] is what a hot loop writes into; [`Latencies`] is what a window, a file and a merge
//! hold: some hundred pairs instead of tens of thousands of cells.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Significant decimal digits that are kept.
const DIGITS: u8 = 3;
/// Longest duration that is told apart: an hour. Longer ones count as an hour.
const MAX_MICROS: u64 = 3_600_000_000;

/// A dense histogram for one writer.
#[derive(Clone, Debug)]
pub struct Recorder(Option<hdrhistogram::Histogram<u64>>);

impl Default for Recorder {
    fn default() -> Self {
        Recorder::new()
    }
}

impl Recorder {
    /// An empty one. It takes memory with its first value.
    #[must_use]
    pub const fn new() -> Self {
        Recorder(None)
    }

    /// Counts a duration.
    pub fn record(&mut self, d: Duration) {
        self.record_n(d, 1);
    }

    /// Counts a duration `n` times.
    pub fn record_n(&mut self, d: Duration, n: u64) {
        if self.0.is_none() {
            // 1..=an hour and three digits are within the library's limits.
            self.0 = hdrhistogram::Histogram::new_with_bounds(1, MAX_MICROS, DIGITS).ok();
        }
        let micros = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        if let Some(h) = &mut self.0 {
            h.saturating_record_n(micros.min(MAX_MICROS), n);
        }
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, hdrhistogram::Histogram::len)
    }

    /// What was recorded; the recorder is empty then.
    pub fn take(&mut self) -> Latencies {
        let Some(h) = &mut self.0 else {
            return Latencies::default();
        };
        let buckets = h
            .iter_recorded()
            .map(|v| {
                (
                    h.median_equivalent(v.value_iterated_to()),
                    v.count_at_value(),
                )
            })
            .collect();
        h.reset();
        Latencies { buckets }
    }
}

/// A histogram at rest: pairs of microseconds and count, ascending, no microsecond twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies {
    buckets: Vec<(u64, u64)>,
}

impl Latencies {
    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }

    /// Nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The value below or at which a share `q` of the durations lies, 0..=1: the smallest one of
    /// rank `ceil(q · n)`, as nearest-rank percentiles have it. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let n = self.count();
        // Percentiles such as 0.999 have no exact binary form; 0.999 · 1000 must not be rank 1000.
        let rank = ((q.clamp(0.0, 1.0) * n as f64) - 1e-6).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets
            .iter()
            .find(|(_, count)| {
                seen += count;
                seen >= rank
            })
            .map(|(micros, _)| Duration::from_micros(*micros))
    }

    /// The longest one.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.buckets.last().map(|(v, _)| Duration::from_micros(*v))
    }

    /// The sum of all.
    #[must_use]
    pub fn sum(&self) -> Duration {
        let sum = |(v, n): &(u64, u64)| v.saturating_mul(*n);
        Duration::from_micros(self.buckets.iter().map(sum).fold(0, u64::saturating_add))
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let n = self.count();
        (n > 0).then(|| self.sum().div_f64(n as f64))
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Latencies) {
        if other.buckets.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut a, mut b) = (
            self.buckets.iter().peekable(),
            other.buckets.iter().peekable(),
        );
        while let Some((x, y)) = a.peek().copied().zip(b.peek().copied()) {
            match x.0.cmp(&y.0) {
                std::cmp::Ordering::Less => merged.extend(a.next()),
                std::cmp::Ordering::Greater => merged.extend(b.next()),
                std::cmp::Ordering::Equal => {
                    merged.push((x.0, x.1 + y.1));
                    a.next();
                    b.next();
                }
            }
        }
        merged.extend(a);
        merged.extend(b);
        self.buckets = merged;
    }

    /// Pairs of microseconds and count, ascending.
    #[must_use]
    pub fn buckets(&self) -> &[(u64, u64)] {
        &self.buckets
    }

    /// All of `parts` together.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Latencies>) -> Latencies {
        let mut all: Vec<(u64, u64)> = parts
            .into_iter()
            .flat_map(|p| &p.buckets)
            .copied()
            .collect();
        all.sort_unstable_by_key(|(micros, _)| *micros);
        let mut buckets: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (micros, n) in all {
            match buckets.last_mut() {
                Some((last, count)) if *last == micros => *count += n,
                _ => buckets.push((micros, n)),
            }
        }
        Latencies { buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Nearest rank on the sorted samples.
    fn exact(sorted: &[u64], per_mille: usize) -> u64 {
        sorted[(sorted.len() * per_mille).div_ceil(1_000).max(1) - 1]
    }

    fn close(got: Duration, want: u64) -> bool {
        let got = got.as_micros() as f64;
        (got - want as f64).abs() <= (want as f64 * 0.001).max(1.0)
    }

    fn recorded(samples: &[u64]) -> Latencies {
        let mut recorder = Recorder::new();
        samples
            .iter()
            .for_each(|s| recorder.record(Duration::from_micros(*s)));
        recorder.take()
    }

    fn samples() -> impl Strategy<Value = Vec<u64>> {
        let sample = prop_oneof![1u64..100, 1u64..20_000, 1u64..3_000_000_000];
        proptest::collection::vec(sample, 1..2_000)
    }

    proptest! {
        #[test]
        fn percentiles_agree_with_the_sorted_samples(mut samples in samples()) {
            let h = recorded(&samples);
            samples.sort_unstable();
            prop_assert_eq!(h.count(), samples.len() as u64);
            for per_mille in [1, 10, 500, 900, 990, 999, 1_000] {
                let got = h.quantile(per_mille as f64 / 1_000.0).unwrap();
                let want = exact(&samples, per_mille);
                prop_assert!(close(got, want), "p{per_mille}: {got:?} for {want}");
            }
            prop_assert!(close(h.max().unwrap(), *samples.last().unwrap()));
        }

        #[test]
        fn merging_is_recording_together(a in samples(), b in samples()) {
            let mut merged = recorded(&a);
            merged.merge(&recorded(&b));
            prop_assert_eq!(&merged, &Latencies::merged([&recorded(&b), &recorded(&a)]));
            let together: Vec<u64> = a.into_iter().chain(b).collect();
            prop_assert_eq!(merged, recorded(&together));
        }
    }

    #[test]
    fn survives_its_file_and_extremes() {
        let mut recorder = Recorder::new();
        assert_eq!(recorder.take(), Latencies::default());
        recorder.record(Duration::ZERO);
        recorder.record(Duration::MAX);
        let h = recorder.take();
        assert_eq!((h.count(), recorder.count()), (2, 0));
        let json = serde_json::to_string(&h).unwrap();
        assert_eq!(serde_json::from_str::<Latencies>(&json).unwrap(), h);
        assert!(Latencies::default().quantile(0.5).is_none());
    }
}
