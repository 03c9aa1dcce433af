//! Two runs side by side: each figure's difference with a 95 % confidence interval.
//!
//! Intervals are by moving-block bootstrap over the measured windows: neighbouring windows depend
//! on each other, so blocks of them are drawn. A difference whose interval leaves out zero is one
//! that chance alone would rarely make.

use crate::result::{Figures, Outcome, Phase, RunResult, Unit, Window};
use sealcast_netsim::Rng;
use serde::Serialize;
use std::fmt;

/// Resamples of each run.
const ROUNDS: usize = 400;
/// Fewer windows than this give no interval worth its name.
const MIN_WINDOWS: usize = 8;

/// What is compared.
const COMPARED: &[&str] = &[
    "video.frame_latency.p50",
    "video.frame_latency.p99",
    "video.frame_latency.p99.9",
    "audio.frame_latency.p50",
    "audio.frame_latency.p99",
    "audio.frame_latency.p99.9",
    "packet_latency.p50",
    "packet_latency.p99",
    "loss",
    "network_loss",
    "delivery",
    "freezes",
    "freeze_share",
    "audio.concealed",
    "mos",
    "bitrate_in",
    "seal_failures",
    "misrouted",
    "generator.lag.p99",
    "generator.cpu_per_packet",
];

/// Joins happen before measuring; they are compared without an interval.
const COMPARED_ONCE: &[&str] = &[
    "join.http.p99",
    "join.ice.p99",
    "join.dtls.p99",
    "join.total.p50",
    "join.total.p99",
    "join_failures",
    "relay.dwell.p50",
    "relay.dwell.p99",
    "relay.dwell.mean",
    "relay.cpu",
];

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub figure: String,
    /// Its unit.
    pub unit: Unit,
    /// Of the first run.
    pub a: Option<f64>,
    /// Of the second run.
    pub b: Option<f64>,
    /// 95 % confidence interval of `b - a`.
    pub interval: Option<(f64, f64)>,
}

/// Every figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Reasons to distrust it.
    pub warnings: Vec<String>,
    /// The figures.
    pub differences: Vec<Difference>,
}

impl Difference {
    /// The interval leaves out zero.
    #[must_use]
    pub fn significant(&self) -> bool {
        self.interval
            .is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// Compares two runs.
#[must_use]
pub fn compare(a: &RunResult, b: &RunResult) -> Comparison {
    let (samples_a, samples_b) = (resample(a, 1), resample(b, 2));
    let (figures_a, figures_b) = (a.figures(), b.figures());
    let difference = |name: &str, with_interval: bool| {
        let unit = figures_a.unit(name).unwrap_or(Unit::Count);
        let (a, b) = (figures_a.value(name), figures_b.value(name));
        let interval = a.zip(b).filter(|_| with_interval);
        let interval = interval.and_then(|_| interval_of(name, &samples_a, &samples_b));
        Difference {
            figure: name.to_owned(),
            unit,
            a,
            b,
            interval,
        }
    };
    let once = COMPARED_ONCE.iter().map(|name| difference(name, false));
    let differences = COMPARED
        .iter()
        .map(|name| difference(name, true))
        .chain(once);
    Comparison {
        warnings: warnings(a, b),
        differences: differences
            .filter(|d| d.a.is_some() || d.b.is_some())
            .collect(),
    }
}

fn warnings(a: &RunResult, b: &RunResult) -> Vec<String> {
    let mut warnings = vec![];
    for (name, run) in [("A", a), ("B", b)] {
        if matches!(run.outcome(), Outcome::Invalid | Outcome::CouldNotRun) {
            warnings.push(format!(
                "{name} is {}",
                run.outcome().label().to_lowercase()
            ));
        }
        let measured = measured(run).len();
        if measured < MIN_WINDOWS {
            warnings.push(format!(
                "{name} has {measured} measured windows; {MIN_WINDOWS} give intervals"
            ));
        }
    }
    if a.scenario != b.scenario {
        warnings.push("the scenarios differ".to_owned());
    }
    warnings
}

fn measured(run: &RunResult) -> Vec<&Window> {
    run.windows
        .iter()
        .filter(|w| w.phase == Phase::Measure)
        .collect()
}

/// Figures of runs that might have been: blocks of measured windows, drawn with replacement.
fn resample(run: &RunResult, seed: u64) -> Vec<Figures> {
    let windows = measured(run);
    if windows.len() < MIN_WINDOWS {
        return vec![];
    }
    // The usual rate of growth for moving blocks (Künsch, 1989).
    let block = (windows.len() as f64).cbrt().ceil() as usize;
    let starts = (windows.len() - block + 1) as u64;
    let mut rng = Rng::new(seed);
    (0..ROUNDS)
        .map(|_| {
            let mut drawn: Vec<&Window> = Vec::with_capacity(windows.len() + block);
            while drawn.len() < windows.len() {
                let from = rng.below(starts) as usize;
                let chosen = windows.get(from..from + block).unwrap_or_default();
                drawn.extend(chosen);
            }
            drawn.truncate(windows.len());
            Figures::new(drawn, &[])
        })
        .collect()
}

/// Percentiles 2.5 and 97.5 of the resampled differences.
fn interval_of(name: &str, a: &[Figures], b: &[Figures]) -> Option<(f64, f64)> {
    let difference = |(a, b): (&Figures, &Figures)| Some(b.value(name)? - a.value(name)?);
    let mut differences: Vec<f64> = a.iter().zip(b).filter_map(difference).collect();
    if differences.len() < ROUNDS / 2 {
        return None;
    }
    differences.sort_by(f64::total_cmp);
    let at = |q: f64| differences.get((q * (differences.len() - 1) as f64).round() as usize);
    Some((*at(0.025)?, *at(0.975)?))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "note: {warning}")?;
        }
        writeln!(
            f,
            "{:<28}{:>14}{:>14}{:>14}  95 % interval of B − A",
            "", "A", "B", "B − A"
        )?;
        for d in &self.differences {
            let text = |v: Option<f64>| v.map_or("–".to_owned(), |v| d.unit.format(v));
            let by = d.a.zip(d.b).map(|(a, b)| b - a);
            let interval = d.interval.map_or(String::new(), |(low, high)| {
                let mark = if d.significant() { " *" } else { "" };
                format!("{} to {}{mark}", d.unit.format(low), d.unit.format(high))
            });
            writeln!(
                f,
                "{:<28}{:>14}{:>14}{:>14}  {interval}",
                d.figure,
                text(d.a),
                text(d.b),
                text(by)
            )?;
        }
        writeln!(f, "* the interval leaves out zero")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Counter, Hist, Recorder};
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Thirty windows whose latencies spread around a mean.
    fn run(mean_ms: f64, seed: u64) -> RunResult {
        let mut rng = Rng::new(seed);
        let window = |_| {
            let mut recorder = Recorder::new();
            for _ in 0..50 {
                let ms = mean_ms * (0.5 + rng.unit());
                recorder.record(Duration::from_secs_f64(ms / 1_000.0));
            }
            let lost = rng.below(3);
            Window {
                length_ms: 1_000,
                phase: Phase::Measure,
                hists: BTreeMap::from([(Hist::VideoFrame, recorder.take())]),
                counters: BTreeMap::from([
                    (Counter::PacketsReceived, 1_000),
                    (Counter::PacketsLost, lost),
                ]),
                ..Window::default()
            }
        };
        RunResult {
            windows: (0..30).map(window).collect(),
            ..RunResult::default()
        }
    }

    fn of<'a>(comparison: &'a Comparison, name: &str) -> &'a Difference {
        comparison
            .differences
            .iter()
            .find(|d| d.figure == name)
            .unwrap()
    }

    #[test]
    fn a_difference_is_found_and_covered_by_its_interval() {
        let comparison = compare(&run(20.0, 1), &run(25.0, 2));
        let p50 = of(&comparison, "video.frame_latency.p50");
        assert!(p50.significant());
        let (low, high) = p50.interval.unwrap();
        assert!(low < 0.005 && 0.005 < high, "{low} {high}");
        assert!(comparison.to_string().contains('*'));
    }

    #[test]
    fn chance_alone_seldom_looks_like_a_difference() {
        let found = (0..12).filter(|seed| {
            let comparison = compare(&run(20.0, 100 + seed), &run(20.0, 200 + seed));
            of(&comparison, "video.frame_latency.p50").significant()
        });
        // One in twenty is expected; four in twelve would be rare.
        assert!(found.count() <= 3);
    }

    #[test]
    fn short_and_unlike_runs_are_pointed_out() {
        let mut short = run(20.0, 1);
        short.windows.truncate(3);
        short.scenario.name = "other".into();
        let comparison = compare(&short, &run(20.0, 2));
        assert_eq!(comparison.warnings.len(), 2, "{:?}", comparison.warnings);
        assert!(of(&comparison, "loss").interval.is_none());
    }
}
