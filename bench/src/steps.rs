//! What the criterion benches measured, read from the files that they leave, as one table.

use crate::Result;
use crate::report::Page;
use crate::report::chart::{Bar, bars};
use crate::report::short;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// One step of a packet's way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What is done: a group of benches.
    pub step: String,
    /// To what.
    pub of: String,
    /// Nanoseconds each: median.
    pub median_ns: f64,
    /// Ends of the median's confidence interval.
    pub between_ns: (f64, f64),
}

/// `benchmark.json`, as far as it is needed.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    /// How many of what an iteration handles: `Elements` are packets.
    throughput: Option<BTreeMap<String, u64>>,
}

/// `estimates.json`, as far as it is needed.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Reads all that lies under criterion's directory, in order of names.
///
/// # Errors
/// If a file cannot be read or has another form, or there is none.
pub fn collect(directory: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
        if directory.ends_with("new") {
            steps.push(read(&directory)?);
        }
    }
    if steps.is_empty() {
        return Err("the benches left nothing".into());
    }
    steps.sort_by(|a, b| (&a.step, &a.of).cmp(&(&b.step, &b.of)));
    Ok(steps)
}

fn read(directory: &Path) -> Result<Step> {
    let file = |name: &str| std::fs::read(directory.join(name));
    let benchmark: Benchmark = serde_json::from_slice(&file("benchmark.json")?)?;
    let Estimates { median } = serde_json::from_slice(&file("estimates.json")?)?;
    let handled = benchmark.throughput.unwrap_or_default();
    let elements = handled
        .get("Elements")
        .map_or(1.0, |packets| *packets as f64);
    let of: Vec<String> = [benchmark.function_id, benchmark.value_str]
        .into_iter()
        .flatten()
        .collect();
    let of = of.join(", ");
    let (step, of) = if of.is_empty() {
        // A bench without a group is named `step/what`.
        let (step, of) = (benchmark.group_id.split_once('/')).ok_or("a bench without a step")?;
        (step.to_owned(), of.to_owned())
    } else {
        (benchmark.group_id, of)
    };
    Ok(Step {
        step,
        of,
        median_ns: median.point_estimate / elements,
        between_ns: (
            median.confidence_interval.lower_bound / elements,
            median.confidence_interval.upper_bound / elements,
        ),
    })
}

/// The table, as text.
#[must_use]
pub fn table(steps: &[Step]) -> String {
    let mut out = String::from("ns each, without the kernel: median and its confidence interval\n");
    for step in steps {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{:<28}{:<44}{:>10}  ({}–{})",
            step.step,
            step.of,
            short(step.median_ns),
            short(step.between_ns.0),
            short(step.between_ns.1)
        );
    }
    out
}

/// A bar for each step.
#[must_use]
pub fn page(steps: &[Step]) -> Page {
    let mut group = "";
    let bar = |step: &Step| Bar {
        label: format!("{} · {}", step.step, step.of),
        parts: vec![(step.median_ns, 0)],
        note: format!("{} ns", short(step.median_ns)),
        begins_group: false,
        ..Bar::default()
    };
    let mut rows = Vec::new();
    for step in steps {
        let begins_group = std::mem::replace(&mut group, step.step.as_str()) != step.step;
        rows.push(Bar {
            begins_group,
            ..bar(step)
        });
    }
    Page::new(
        "Steps",
        "Each step of a packet's way by itself, without the kernel.",
    )
    .plot(
        "Nanoseconds each",
        "Medians; per packet where a bench handles many.",
        &bars(&rows, &[]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_criterion_leaves_is_read_per_element() {
        let home = std::env::temp_dir().join(format!("sealcast-steps-{}", std::process::id()));
        let estimates = r#"{"median":{"point_estimate":640.0,"standard_error":1.0,
            "confidence_interval":{"confidence_level":0.95,"lower_bound":64.0,"upper_bound":6400.0}}}"#;
        for (name, benchmark) in [
            (
                "open/a/new",
                r#"{"group_id":"open_120","function_id":"a","value_str":"b","throughput":{"Elements":64}}"#,
            ),
            (
                "c/new",
                r#"{"group_id":"history/look up","function_id":null,"value_str":null,"throughput":null}"#,
            ),
        ] {
            let directory = home.join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("benchmark.json"), benchmark).unwrap();
            std::fs::write(directory.join("estimates.json"), estimates).unwrap();
        }
        let steps = collect(&home).unwrap();
        std::fs::remove_dir_all(&home).unwrap();
        let of = |step: &Step| {
            (
                step.step.clone(),
                step.of.clone(),
                step.median_ns,
                step.between_ns,
            )
        };
        assert_eq!(
            steps.iter().map(of).collect::<Vec<_>>(),
            [
                ("history".into(), "look up".into(), 640.0, (64.0, 6_400.0)),
                ("open_120".into(), "a, b".into(), 10.0, (1.0, 100.0)),
            ]
        );
        assert!(table(&steps).contains("open_120"));
    }
}
