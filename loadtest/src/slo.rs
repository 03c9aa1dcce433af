//! Targets: `figure operator bound`, as in `frame_latency.p99 < 150ms`.
//!
//! Bounds carry the figure's unit: `ms`, `s` or `us` for times, `%` or a plain share for shares,
//! `kbps`, `Mbps` or `Gbps` for bit rates, plain numbers for counts and scores. A target whose
//! figure was not measured at all is missed, not passed.

use crate::result::{Figures, Unit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How figure and bound are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// Longest first, so that `<=` is not read as `<`.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("==", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equal),
];

/// A target.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    text: String,
    figure: String,
    operator: Operator,
    bound: f64,
}

/// What is wrong with a target. Its author is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SloError {
    /// No comparison in it.
    #[error("target {0:?}: expected a figure, one of < <= > >= =, and a bound")]
    Shape(String),
    /// No such figure.
    #[error("target {0:?}: {1}")]
    Figure(String, String),
    /// The bound is no number, or in a unit that the figure has not.
    #[error("target {0:?}: the bound must be a number with one of the units {1}")]
    Bound(String, &'static str),
}

/// A target and how it was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The target.
    pub target: String,
    /// The figure's value, for people; `None` if nothing was measured.
    pub measured: Option<String>,
    /// It was met.
    pub met: bool,
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Slo, SloError> {
        let shape = || SloError::Shape(text.to_owned());
        let at = text.find(['<', '>', '=']).ok_or_else(shape)?;
        let (figure, rest) = text.split_at(at);
        let figure = figure.trim();
        let (symbol, operator) = OPERATORS
            .iter()
            .find(|(symbol, _)| rest.starts_with(symbol))
            .ok_or_else(shape)?;
        let bound = rest[symbol.len()..].trim();
        if figure.is_empty() || bound.is_empty() {
            return Err(shape());
        }
        let unit = Figures::default()
            .unit(figure)
            .map_err(|e| SloError::Figure(text.to_owned(), e.to_string()))?;
        let (units, names) = units(unit);
        Ok(Slo {
            text: text.trim().to_owned(),
            figure: figure.to_owned(),
            operator: *operator,
            bound: parse_bound(bound, units)
                .ok_or_else(|| SloError::Bound(text.to_owned(), names))?,
        })
    }
}

/// Suffixes with their factor, and how to name them.
fn units(unit: Unit) -> (&'static [(&'static str, f64)], &'static str) {
    match unit {
        Unit::Seconds => (
            &[("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("s", 1.0)],
            "us, ms, s",
        ),
        Unit::Share => (&[("%", 1e-2), ("", 1.0)], "% or none"),
        Unit::BitsPerSecond => (
            &[("kbps", 1e3), ("Mbps", 1e6), ("Gbps", 1e9)],
            "kbps, Mbps, Gbps",
        ),
        Unit::Count | Unit::PerSecond | Unit::Score | Unit::Cores => (&[("", 1.0)], "none"),
    }
}

fn parse_bound(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(suffix, factor)| {
        let number: f64 = text.strip_suffix(suffix)?.trim().parse().ok()?;
        number.is_finite().then_some(number * factor)
    })
}

impl Slo {
    /// Judges a run by its figures.
    #[must_use]
    pub fn judge(&self, figures: &Figures) -> Verdict {
        // The name was checked when the target was read.
        let figure = figures.get(&self.figure).ok().flatten();
        Verdict {
            target: self.text.clone(),
            measured: figure.map(|f| f.unit.format(f.value)),
            met: figure.is_some_and(|f| self.holds(f.value)),
        }
    }

    /// The name of its figure.
    #[must_use]
    pub fn figure(&self) -> &str {
        &self.figure
    }

    fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::Less => value < self.bound,
            Operator::LessOrEqual => value <= self.bound,
            Operator::Greater => value > self.bound,
            Operator::GreaterOrEqual => value >= self.bound,
            Operator::Equal => value == self.bound,
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Counter, Hist, Phase, Recorder, Window};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn figures() -> Figures {
        let mut recorder = Recorder::new();
        recorder.record(Duration::from_millis(100));
        let window = Window {
            length_ms: 1_000,
            phase: Phase::Measure,
            hists: BTreeMap::from([(Hist::VideoFrame, recorder.take())]),
            counters: BTreeMap::from([
                (Counter::PacketsReceived, 99),
                (Counter::PacketsLost, 1),
                (Counter::OctetsReceived, 125_000),
            ]),
            ..Window::default()
        };
        Figures::new(&[window], &[])
    }

    #[test]
    fn bounds_are_in_the_figures_unit() {
        for (target, met) in [
            ("frame_latency.p99 < 150ms", true),
            ("video.frame_latency.p99.9 < 0.05 s", false),
            ("frame_latency.max>=99000us", true),
            ("loss <= 1 %", true),
            ("loss < 0.01", false),
            ("bitrate_in > 0.9Mbps", true),
            ("misrouted = 0", true),
            ("packets_lost == 1", true),
            ("packets_lost = 0", false),
        ] {
            let slo: Slo = target.parse().unwrap();
            assert_eq!(slo.judge(&figures()).met, met, "{target}");
        }
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let verdict = Slo::from_str("audio.frame_latency.p99 < 1s")
            .unwrap()
            .judge(&figures());
        assert_eq!((verdict.met, verdict.measured), (false, None));
    }

    #[test]
    fn authors_are_told_what_is_wrong() {
        for (target, says) in [
            ("", "expected a figure"),
            ("loss", "expected a figure"),
            ("loss <", "expected a figure"),
            ("los < 1%", "no figure is called"),
            ("loss < 1ms", "one of the units % or none"),
            ("frame_latency.p99 < 150", "us, ms, s"),
            ("frame_latency < 150ms", "no figure is called"),
        ] {
            let error = Slo::from_str(target).unwrap_err().to_string();
            assert!(error.contains(says), "{target}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "[ -~µ]{0,40}") {
            let _ = Slo::from_str(&text);
        }
    }
}
