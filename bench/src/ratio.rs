//! The result of a run: a table, JSON, and a page with a plot.

mod plot;

use crate::drift::Spread;
use crate::shape::{Topology, Traffic};
use crate::{Error, Sample};
use sealcast_srtp::{Backend, Profile};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What was measured of one contender in one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who receives whom.
    pub topology: &'static str,
    /// What is sent.
    pub traffic: &'static str,
    /// SRTP profile.
    pub profile: &'static str,
    /// Cryptographic library.
    pub backend: &'static str,
    /// `floor`, `sealcast` or `stock`.
    pub contender: &'static str,
    /// User time per forwarded packet, nanoseconds: median of the repetitions.
    pub user_ns: f64,
    /// System time per forwarded packet, nanoseconds: median of the repetitions.
    pub system_ns: f64,
    /// Sum of the two, per repetition.
    pub total_ns: Spread,
    /// Instructions in user mode per forwarded packet, where counted.
    pub user_instructions: Option<f64>,
    /// Forwarded packets per send system call.
    pub packets_per_call: f64,
    /// Share of the bytes sent in all repetitions that the receivers' sockets took.
    pub delivered: f64,
    /// User time over the floor's of the same shape, profile and back end.
    pub user_ratio: Option<f64>,
    /// Total time over the floor's.
    pub total_ratio: Option<f64>,
}

impl Row {
    /// Sums up the repetitions of one contender. `None` without any.
    #[must_use]
    pub fn new(
        contender: &'static str,
        (topology, traffic): (&Topology, &Traffic),
        (profile, backend): (Profile, Backend),
        samples: &[Sample],
        received_bytes: u64,
    ) -> Option<Row> {
        let per_packet = |f: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
            samples.iter().map(|s| f(s) / s.packets as f64).collect()
        };
        let instructions: Option<Vec<f64>> = samples
            .iter()
            .map(|s| Some(s.cost.user_instructions? as f64 / s.packets as f64))
            .collect();
        let sent: u64 = samples.iter().map(|s| s.packets).sum();
        let bytes: u64 = samples.iter().map(|s| s.bytes).sum();
        let calls: u64 = samples.iter().map(|s| s.calls).sum();
        Some(Row {
            topology: topology.name,
            traffic: traffic.name,
            profile: profile.name(),
            backend: backend.name(),
            contender,
            user_ns: Spread::of(&per_packet(&|s| s.cost.user_ns))?.median,
            system_ns: Spread::of(&per_packet(&|s| s.cost.system_ns))?.median,
            total_ns: Spread::of(&per_packet(&|s| s.cost.total_ns()))?,
            user_instructions: instructions.and_then(|i| Spread::of(&i)).map(|s| s.median),
            packets_per_call: sent as f64 / calls as f64,
            delivered: received_bytes as f64 / bytes as f64,
            user_ratio: None,
            total_ratio: None,
        })
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// CPU model and kernel.
    pub machine: String,
    /// Receivers took coalesced datagrams.
    pub gro: bool,
    /// How user and system time were told apart.
    pub split: &'static str,
    /// Repetitions of each measurement.
    pub repetitions: usize,
    /// Readings of the reference work, user time per packet, nanoseconds.
    pub drift_user: Spread,
    /// Readings of the reference work, system time per packet, nanoseconds.
    pub drift_system: Spread,
    /// The measurements.
    pub rows: Vec<Row>,
}

impl Report {
    /// Relates every row to the floor of its shape, profile and back end.
    pub fn relate(&mut self) {
        let key = |r: &Row| (r.topology, r.traffic, r.profile, r.backend);
        let floors: Vec<_> = self
            .rows
            .iter()
            .filter(|r| r.contender == "floor")
            .map(|r| (key(r), r.user_ns, r.total_ns.median))
            .collect();
        for row in &mut self.rows {
            if let Some((_, user, total)) = floors.iter().find(|(k, ..)| *k == key(row)) {
                row.user_ratio = Some(row.user_ns / user);
                row.total_ratio = Some(row.total_ns.median / total);
            }
        }
    }

    /// The table, as text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |s: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}", s.trim_end());
        };
        line(self.machine.clone());
        line(format!(
            "ns of thread CPU per forwarded packet, median of {}; user and system by {}",
            self.repetitions, self.split
        ));
        line(format!(
            "receivers {} UDP_GRO",
            if self.gro { "with" } else { "without" }
        ));
        line(format!(
            "{:<15}{:<11}{:<18}{:<11}{:<9}{:>7}{:>8}{:>8}  {:<15}{:>7}{:>7}{:>8}{:>7}",
            "topology",
            "traffic",
            "profile",
            "back end",
            "",
            "user",
            "system",
            "total",
            "(least–most)",
            "×user",
            "×total",
            "pkt/call",
            "taken"
        ));
        let ratio = |r: Option<f64>| r.map_or_else(String::new, |r| format!("{r:.2}"));
        for row in &self.rows {
            line(format!(
                "{:<15}{:<11}{:<18}{:<11}{:<9}{:>7.0}{:>8.0}{:>8.0}  {:<15}{:>7}{:>7}{:>8.1}{:>6.0}%",
                row.topology,
                row.traffic,
                row.profile,
                row.backend,
                row.contender,
                row.user_ns,
                row.system_ns,
                row.total_ns.median,
                format!("({:.0}–{:.0})", row.total_ns.min, row.total_ns.max),
                ratio(row.user_ratio),
                ratio(row.total_ratio),
                row.packets_per_call,
                100.0 * row.delivered
            ));
        }
        for (name, spread) in [("user", self.drift_user), ("system", self.drift_system)] {
            line(format!(
                "drift, {name}: reference work took {:.0}–{:.0} ns per packet, median {:.0}: {:.0} %",
                spread.min,
                spread.max,
                spread.median,
                100.0 * spread.relative()
            ));
        }
        out
    }

    /// Writes `ratio.txt`, `ratio.json` and `ratio.html` into `directory`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<Vec<PathBuf>, Error> {
        std::fs::create_dir_all(directory)?;
        let table = self.table();
        let json = serde_json::to_string_pretty(self)?;
        let html = plot::page(self, &table);
        let mut paths = Vec::new();
        for (name, contents) in [
            ("ratio.txt", table),
            ("ratio.json", json),
            ("ratio.html", html),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, contents)?;
            paths.push(path);
        }
        Ok(paths)
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
    use crate::cpu::Cost;

    fn report() -> Report {
        let sample = |user_ns, system_ns| Sample {
            packets: 10,
            bytes: 1_000,
            calls: 5,
            cost: Cost {
                user_ns,
                system_ns,
                user_instructions: Some(20_000),
            },
        };
        let row = |contender, samples: &[Sample]| {
            let shape = (&Topology::TO_20, &Traffic::ALL[0]);
            let crypto = (Profile::AeadAes128Gcm, Backend::AwsLcRs);
            Row::new(contender, shape, crypto, samples, 2_000).unwrap()
        };
        let spread = Spread {
            min: 1.0,
            median: 2.0,
            max: 3.0,
        };
        let rows = vec![
            row(
                "floor",
                &[sample(1_000.0, 1_000.0), sample(3_000.0, 1_000.0)],
            ),
            row(
                "stock",
                &[sample(6_000.0, 2_000.0), sample(6_000.0, 2_000.0)],
            ),
        ];
        let mut report = Report {
            machine: "here <&>".into(),
            gro: false,
            split: "guess",
            repetitions: 2,
            drift_user: spread,
            drift_system: spread,
            rows,
        };
        report.relate();
        report
    }

    #[test]
    fn rows_are_related_to_their_floor() {
        let report = report();
        let [floor, stock] = &report.rows[..] else {
            panic!("two rows")
        };
        assert_eq!((floor.user_ns, floor.total_ns.median), (300.0, 400.0));
        assert_eq!(stock.user_ratio, Some(2.0));
        assert_eq!(stock.total_ratio, Some(2.0));
        assert_eq!((stock.packets_per_call, stock.delivered), (2.0, 1.0));
        assert_eq!(stock.user_instructions, Some(2_000.0));
    }

    #[test]
    fn the_page_is_self_contained_and_escaped() {
        let report = report();
        let page = plot::page(&report, &report.table());
        assert!(page.contains("<svg") && page.contains("here &lt;&amp;&gt;"));
        assert!(!page.contains("http-equiv") && !page.contains("src="));
    }
}
