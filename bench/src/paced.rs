//! The result of the paced measurement: a table and JSON.

use crate::Error;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One rate at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Receivers × packets per second in.
    pub shape: String,
    /// `paced` or `saturating`.
    pub kind: &'static str,
    /// CPU time of the whole process per forwarded packet, nanoseconds.
    pub process_ns: f64,
    /// The shard's user time of it.
    pub user_ns: f64,
    /// The shard's system time of it.
    pub system_ns: f64,
    /// The floor of the same batch shape, measured before and after.
    pub floor_ns: f64,
    /// Packets that the publisher sent and the relay took, per second.
    pub in_per_second: f64,
    /// Packets forwarded per second.
    pub out_per_second: f64,
    /// Share of one core.
    pub core: f64,
    /// Wake-ups per packet taken in.
    pub wakeups: f64,
    /// Receive system calls per packet taken in.
    pub receive_calls: f64,
    /// Send system calls per packet taken in.
    pub send_calls: f64,
    /// Datagrams that are not media (feedback, reports, checks) per packet taken in.
    pub other_datagrams: f64,
    /// Datagrams per send system call.
    pub per_call: f64,
    /// Share of packets that the publisher sent together with the next.
    pub late: f64,
    /// Share of what should have left the relay that did not.
    pub lost: Option<f64>,
    /// Share of what left the relay that the receivers' sockets did not take.
    pub untaken: Option<f64>,
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// CPU model and kernel.
    pub machine: String,
    /// SRTP profile.
    pub profile: &'static str,
    /// Length of each measurement.
    pub seconds: f64,
    /// The measurements.
    pub points: Vec<Point>,
}

impl Report {
    /// The table, as text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!(
            "{}\nCPU time of the whole process per forwarded packet, µs; {}, {} s each; \
             wake-ups and system calls per packet in\n",
            self.machine, self.profile, self.seconds
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{:<14}{:<11}{:>8}{:>7}{:>7}{:>7}{:>9}{:>6}{:>7}{:>6}{:>6}{:>7}{:>7}{:>6}{:>7}{:>8}",
            "shape",
            "",
            "process",
            "user",
            "system",
            "floor",
            "out/s",
            "core",
            "wakes",
            "recv",
            "send",
            "other",
            "/call",
            "late",
            "lost",
            "untaken"
        );
        let share = |s: Option<f64>| s.map_or_else(|| "-".into(), |s| format!("{:.1}%", 100.0 * s));
        for p in &self.points {
            let _ = writeln!(
                out,
                "{:<14}{:<11}{:>8.2}{:>7.2}{:>7.2}{:>7.2}{:>9.0}{:>5.0}%{:>7.2}{:>6.2}{:>6.2}{:>7.2}{:>7.1}{:>5.0}%{:>7}{:>8}",
                p.shape,
                p.kind,
                p.process_ns / 1e3,
                p.user_ns / 1e3,
                p.system_ns / 1e3,
                p.floor_ns / 1e3,
                p.out_per_second,
                100.0 * p.core,
                p.wakeups,
                p.receive_calls,
                p.send_calls,
                p.other_datagrams,
                p.per_call,
                100.0 * p.late,
                share(p.lost),
                share(p.untaken),
            );
        }
        out
    }

    /// Writes `paced.txt` and `paced.json` into `directory`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<Vec<PathBuf>, Error> {
        std::fs::create_dir_all(directory)?;
        let mut paths = Vec::new();
        for (name, contents) in [
            ("paced.txt", self.table()),
            ("paced.json", serde_json::to_string_pretty(self)?),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, contents)?;
            paths.push(path);
        }
        Ok(paths)
    }
}
