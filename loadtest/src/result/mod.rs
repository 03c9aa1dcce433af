//! What a run yields: windows of histograms and counters on one time axis, what the relay said of
//! itself meanwhile, and the judgement. This is also the JSON file, version [`FORMAT`].
//!
//! Windows merge: those of several threads, of several machines, of a whole run.

mod figures;
mod histogram;
mod names;
mod validity;

pub use figures::{DERIVED, DWELL, Figure, Figures, Unit, UnknownFigure};
pub use histogram::{Latencies, Recorder};
pub use names::{Counter, Hist};
pub use validity::{Limits, Validity};

use crate::scenario::Scenario;
use crate::slo::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Version of the file.
pub const FORMAT: u32 = 1;

/// What the run was doing in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Clients are joining, or the warm-up is not over. Joins count, latencies do not.
    #[default]
    Start,
    /// What targets are judged by.
    Measure,
    /// Senders have stopped; what is in flight still counts as delivered.
    Drain,
}

/// One stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Milliseconds from the run's start to the window's.
    pub start_ms: u64,
    /// Its length, milliseconds.
    pub length_ms: u64,
    /// What the run was doing.
    pub phase: Phase,
    /// Clients with a connected media session at its end.
    pub connected: u64,
    /// Distributions.
    pub hists: BTreeMap<Hist, Latencies>,
    /// Counts within the window.
    pub counters: BTreeMap<Counter, u64>,
}

impl Window {
    /// Adds what another thread or machine saw in the same stretch.
    pub fn merge(&mut self, other: &Window) {
        self.connected += other.connected;
        for (hist, latencies) in &other.hists {
            self.hists.entry(*hist).or_default().merge(latencies);
        }
        for (counter, n) in &other.counters {
            *self.counters.entry(*counter).or_default() += n;
        }
    }

    /// A counter; zero if it did not count.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or(0)
    }

    /// Its length.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms)
    }
}

/// What the relay's `/metrics` said at one time: series summed up over shards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RelaySample {
    /// Milliseconds from the run's start.
    pub at_ms: u64,
    /// Values by `name` or `name{label="value"}`.
    pub values: BTreeMap<String, f64>,
    /// Histograms by name: upper bound in seconds (infinity is `null`) and cumulative count.
    pub buckets: BTreeMap<String, Vec<(Option<f64>, f64)>>,
}

/// Who loaded whom with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// This program's version.
    pub version: String,
    /// Where the load went.
    pub target: String,
    /// Its own version, where it says one.
    pub target_version: Option<String>,
    /// Signalling: `sealcast` or `whip`.
    pub signalling: String,
    /// Unix time of the run's start, seconds.
    pub started: u64,
    /// Everything random follows from this.
    pub seed: u64,
    /// Clients in the plan.
    pub clients: u64,
    /// Machines and threads that generated the load.
    pub generators: Vec<Generator>,
}

/// One machine that generated load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// Its name: host name, or as given.
    pub name: String,
    /// Cores it has.
    pub cores: u32,
    /// Media threads it ran.
    pub threads: u32,
}

/// A step of a ramp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Load units: rooms or clients, as the scenario says.
    pub load: u64,
    /// Window range `from..to` that was judged.
    pub windows: (usize, usize),
    /// Its targets were met.
    pub passed: bool,
    /// Its verdicts.
    pub verdicts: Vec<Verdict>,
}

/// Something that happened at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Milliseconds from the run's start.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// The whole of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`FORMAT`].
    pub format: u32,
    /// Who, whom, when.
    pub meta: Meta,
    /// What was run, with every override applied.
    pub scenario: Scenario,
    /// What the scenario wants and the relay or the generator lacks.
    pub not_supported: Vec<String>,
    /// The first errors of each kind, with how often they came.
    pub errors: BTreeMap<String, u64>,
    /// Stretches of time, without gaps.
    pub windows: Vec<Window>,
    /// The relay's own figures.
    pub relay: Vec<RelaySample>,
    /// Steps of a ramp.
    pub steps: Vec<Step>,
    /// Events of the run.
    pub marks: Vec<Mark>,
    /// Whether the generator kept up.
    pub validity: Validity,
    /// Targets and how they were met.
    pub verdicts: Vec<Verdict>,
}

/// How a run ended, and the process with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every target was met.
    Passed,
    /// A target was missed.
    Missed,
    /// The generator was the bottleneck: the run says nothing of the relay.
    Invalid,
    /// It could not run.
    CouldNotRun,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Outcome::Passed => 0,
            Outcome::Missed => 1,
            Outcome::Invalid => 2,
            Outcome::CouldNotRun => 3,
        }
    }

    /// In capitals, as reports print it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Passed => "PASSED",
            Outcome::Missed => "TARGET MISSED",
            Outcome::Invalid => "INVALID",
            Outcome::CouldNotRun => "COULD NOT RUN",
        }
    }
}

/// Why a result file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// It is no result file.
    #[error("{0}: {1}")]
    Json(String, serde_json::Error),
    /// It is of another version of this program.
    #[error("{0}: format {1}, this program reads {FORMAT}")]
    Format(String, u32),
}

impl RunResult {
    /// Reads a result file.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &std::path::Path) -> Result<RunResult, ReadError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| ReadError::Io(name.clone(), e))?;
        let result: RunResult =
            serde_json::from_slice(&bytes).map_err(|e| ReadError::Json(name.clone(), e))?;
        if result.format == FORMAT {
            Ok(result)
        } else {
            Err(ReadError::Format(name, result.format))
        }
    }

    /// How the run ended. An invalid run has neither passed nor failed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let count = |c| self.windows.iter().map(|w| w.count(c)).sum::<u64>();
        let nobody_in = count(Counter::JoinStarted) > 0 && count(Counter::JoinDone) == 0;
        if nobody_in || self.windows.iter().all(|w| w.phase != Phase::Measure) {
            return Outcome::CouldNotRun;
        }
        if !self.validity.valid() {
            Outcome::Invalid
        } else if self.verdicts.iter().all(|v| v.met) {
            Outcome::Passed
        } else {
            Outcome::Missed
        }
    }

    /// Figures of the whole run.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::new(&self.windows, &self.relay)
    }

    /// Figures of a range of windows, and of what the relay said between their ends.
    #[must_use]
    pub fn figures_of(&self, range: std::ops::Range<usize>) -> Figures {
        let windows = self.windows.get(range).unwrap_or_default();
        let from = windows.first().map_or(0, |w| w.start_ms);
        let to = windows.last().map_or(0, |w| w.start_ms + w.length_ms);
        let relay: Vec<RelaySample> = self
            .relay
            .iter()
            .filter(|s| (from..=to + 500).contains(&s.at_ms))
            .cloned()
            .collect();
        Figures::new(windows, &relay)
    }

    /// Merges what another generator saw of the same run: windows by index, the rest appended.
    pub fn merge(&mut self, other: RunResult) {
        for (index, window) in other.windows.into_iter().enumerate() {
            match self.windows.get_mut(index) {
                Some(mine) => mine.merge(&window),
                None => self.windows.push(window),
            }
        }
        self.meta.clients += other.meta.clients;
        self.meta.generators.extend(other.meta.generators);
        for (error, n) in other.errors {
            *self.errors.entry(error).or_default() += n;
        }
        for lack in other.not_supported {
            if !self.not_supported.contains(&lack) {
                self.not_supported.push(lack);
            }
        }
        if self.relay.is_empty() {
            self.relay = other.relay;
        }
        self.marks.extend(other.marks);
        self.validity.faults.extend(other.validity.faults);
    }
}

#[cfg(test)]
mod tests;
