//! Whether the generator kept up. A run in which it did not is invalid: its latencies and losses
//! may be the generator's own.

use super::{Counter, Hist, Latencies, Window};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a generator may lag. Beyond, the run is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest single lag, milliseconds: a pause of the process.
    pub max_ms: f64,
    /// The 99th percentile of lags over the run, milliseconds: lasting overload.
    pub p99_ms: f64,
    /// Share of datagrams, 0..=1, that the generator's own sockets may drop.
    pub socket_drops: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_ms: 250.0,
            p99_ms: 10.0,
            socket_drops: 0.0,
        }
    }
}

/// The judgement of the generator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// What was allowed.
    pub limits: Limits,
    /// What was beyond it; empty in a valid run.
    pub faults: Vec<String>,
}

impl Validity {
    /// Judges a run by its windows.
    #[must_use]
    pub fn judge(limits: Limits, windows: &[Window]) -> Validity {
        let mut faults = Vec::new();
        for (hist, what) in [
            (Hist::SendLag, "timers ran late"),
            (Hist::ReceiveLag, "datagrams waited to be read"),
            (Hist::StartLag, "joins began late"),
        ] {
            let lag = Latencies::merged(windows.iter().filter_map(|w| w.hists.get(&hist)));
            check_lag(&mut faults, hist, what, &lag, &limits);
        }
        let count = |c| windows.iter().map(|w| w.count(c)).sum::<u64>();
        let drops = count(Counter::SocketDrops);
        let share = drops as f64 / (count(Counter::DatagramsReceived) + drops).max(1) as f64;
        if share > limits.socket_drops {
            faults.push(format!(
                "the generator's sockets dropped {drops} datagrams ({:.3} %); allowed are {:.3} %",
                share * 100.0,
                limits.socket_drops * 100.0
            ));
        }
        let errors = count(Counter::SendErrors);
        if errors > 0 {
            faults.push(format!("the generator's kernel refused {errors} datagrams"));
        }
        Validity { limits, faults }
    }

    /// Nothing was beyond the limits.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.faults.is_empty()
    }
}

fn check_lag(faults: &mut Vec<String>, hist: Hist, what: &str, lag: &Latencies, limits: &Limits) {
    let ms = |d: Option<Duration>| d.map_or(0.0, |d| d.as_secs_f64() * 1_000.0);
    let (max, p99) = (ms(lag.max()), ms(lag.quantile(0.99)));
    let name = hist.name();
    if max > limits.max_ms {
        let allowed = limits.max_ms;
        faults.push(format!(
            "{what} by up to {max:.0} ms ({name}.max); allowed are {allowed} ms"
        ));
    }
    // Joins are few: one that is late among ten is no overload.
    if p99 > limits.p99_ms && hist != Hist::StartLag {
        let allowed = limits.p99_ms;
        faults.push(format!(
            "{what} by {p99:.1} ms at the 99th percentile ({name}.p99); allowed are {allowed} ms"
        ));
    }
}
