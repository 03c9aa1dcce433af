//! What every measuring program leaves behind: a table, JSON, and a page with plots, with the goals
//! that its figures are held against.

pub mod chart;
pub mod page;

use crate::Result;
pub use page::Page;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Results of one program.
#[derive(Debug, Serialize)]
pub struct Results<'a, T> {
    /// CPU model and kernel.
    pub machine: String,
    /// What was measured.
    pub measured: &'a T,
    /// What of it has a goal.
    pub verdicts: &'a [Verdict],
}

/// A figure and the goal that it is held against.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Verdict {
    /// What the figure is of.
    pub what: String,
    /// The figure.
    pub figure: f64,
    /// What it is to be.
    pub goal: Goal,
    /// Unit of both; empty for ratios.
    pub unit: String,
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Verdict {
    /// A figure that is to be no more than `goal`.
    pub fn at_most(what: impl Into<String>, figure: f64, goal: f64, unit: &str) -> Verdict {
        Verdict {
            what: what.into(),
            figure,
            goal: Goal::AtMost(goal),
            unit: unit.into(),
        }
    }

    /// A figure that is to be no less than `goal`.
    pub fn at_least(what: impl Into<String>, figure: f64, goal: f64, unit: &str) -> Verdict {
        Verdict {
            goal: Goal::AtLeast(goal),
            ..Verdict::at_most(what, figure, goal, unit)
        }
    }

    /// Whether the figure is what it is to be. What could not be measured is not.
    #[must_use]
    pub fn held(&self) -> bool {
        match self.goal {
            Goal::AtMost(goal) => self.figure <= goal,
            Goal::AtLeast(goal) => self.figure >= goal,
        }
    }
}

/// A line for each verdict.
#[must_use]
pub fn verdict_table(verdicts: &[Verdict]) -> String {
    let mut out = String::new();
    for verdict in verdicts {
        let (bound, goal) = match verdict.goal {
            Goal::AtMost(goal) => ("≤", goal),
            Goal::AtLeast(goal) => ("≥", goal),
        };
        let held = if verdict.held() { "held" } else { "MISSED" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{held:<8}{:<70}{:>9}  {bound} {} {}",
            verdict.what,
            short(verdict.figure),
            short(goal),
            verdict.unit
        );
    }
    out
}

/// A number to three digits, or all that stand before the point.
#[must_use]
pub fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 || number == 0.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

impl<'a, T: Serialize> Results<'a, T> {
    /// Results of this machine.
    pub fn new(measured: &'a T, verdicts: &'a [Verdict]) -> Results<'a, T> {
        Results {
            machine: machine(),
            measured,
            verdicts,
        }
    }

    /// Prints `table` and the verdicts, and writes `name.txt`, `name.json` and `name.html` into
    /// `directory`. `page` has the plots; table and verdicts are put under them.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn publish(&self, directory: &Path, name: &str, table: &str, page: Page) -> Result<()> {
        let mut text = format!("{}\n{table}", self.machine);
        if !self.verdicts.is_empty() {
            text += "\n";
            text += &verdict_table(self.verdicts);
        }
        print!("{text}");
        let files = [
            ("txt", text.clone()),
            ("json", serde_json::to_string_pretty(self)? + "\n"),
            ("html", page.table(&text).html()),
        ];
        std::fs::create_dir_all(directory)?;
        for (extension, contents) in files {
            let path: PathBuf = directory.join(format!("{name}.{extension}"));
            std::fs::write(&path, contents)?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}

/// CPU model and kernel of this machine.
#[must_use]
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let cpus = cpuinfo
        .lines()
        .filter(|l| l.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cpus} × {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_goal() {
        assert!(Verdict::at_most("a", 1.6, 1.6, "").held());
        assert!(!Verdict::at_most("a", 1.61, 1.6, "").held());
        assert!(Verdict::at_least("a", 1.85, 1.85, "").held());
        assert!(!Verdict::at_least("a", 1.8, 1.85, "").held());
        assert!(!Verdict::at_most("not measured", f64::NAN, 1.0, "").held());
        let table = verdict_table(&[Verdict::at_most("p99", 2_300.0, 1_000.0, "µs")]);
        assert!(table.starts_with("MISSED  p99"), "{table}");
        assert!(table.ends_with("2300  ≤ 1000 µs\n"), "{table}");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.0, 0.123, 1.666, 12.34, 890_123.4].map(short);
        assert_eq!(shown, ["0", "0.12", "1.67", "12.3", "890123"]);
    }
}
