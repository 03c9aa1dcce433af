//! Where one thread counts, until a window takes it.

use crate::result::{Counter, Hist, Latencies, Recorder};
use std::collections::BTreeMap;
use std::time::Duration;

/// Recorders and counters of one writer at a time.
#[derive(Debug)]
pub(super) struct Account {
    hists: Vec<Recorder>,
    counters: Vec<u64>,
}

impl Default for Account {
    fn default() -> Self {
        Account {
            hists: Hist::ALL.iter().map(|_| Recorder::new()).collect(),
            counters: vec![0; Counter::ALL.len()],
        }
    }
}

impl Account {
    pub(super) fn record(&mut self, hist: Hist, d: Duration) {
        if let Some(recorder) = self.hists.get_mut(hist as usize) {
            recorder.record(d);
        }
    }

    /// Takes what another recorder recorded.
    pub(super) fn merge(&mut self, hist: Hist, mut other: Recorder) {
        for (micros, n) in other.take().buckets() {
            if let Some(recorder) = self.hists.get_mut(hist as usize) {
                recorder.record_n(Duration::from_micros(*micros), *n);
            }
        }
    }

    pub(super) fn add(&mut self, counter: Counter, n: u64) {
        if let Some(sum) = self.counters.get_mut(counter as usize) {
            *sum += n;
        }
    }

    /// Everything since the last call.
    pub(super) fn take(&mut self) -> (BTreeMap<Hist, Latencies>, BTreeMap<Counter, u64>) {
        let hists = Hist::ALL
            .iter()
            .zip(&mut self.hists)
            .filter(|(_, r)| r.count() > 0)
            .map(|(h, r)| (*h, r.take()))
            .collect();
        let counters = Counter::ALL
            .iter()
            .zip(&mut self.counters)
            .filter(|(_, n)| **n > 0)
            .map(|(c, n)| (*c, std::mem::take(n)))
            .collect();
        (hists, counters)
    }
}
