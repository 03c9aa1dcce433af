//! What a run of contenders came to: a table, bars, and the goals that its ratios are held against.

use crate::Sample;
use crate::drift::Spread;
use crate::report::chart::{Bar, bars};
use crate::report::{Page, Verdict};
use crate::shape::{Topology, Traffic};
use sealcast_srtp::{Backend, Profile};
use serde::Serialize;
use std::fmt::Write as _;

/// User time over the floor's, at most, at 1→100 with AES-GCM.
const USER_GOAL: f64 = 1.6;
/// Total time over the floor's, likewise.
const TOTAL_GOAL: f64 = 1.15;
/// How many times less than stock, for frames of four packets or more.
const STOCK_GOAL: f64 = 4.0;
/// Total time at 1→1000 over that at 1→20.
const FAN_OUT_GOAL: f64 = 1.15;

/// What was measured of one contender in one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who receives whom.
    pub topology: &'static str,
    /// What is sent.
    pub traffic: &'static str,
    /// Packets of it that arrive together.
    pub packets_in_frame: usize,
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
            packets_in_frame: traffic.frame,
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
        line(format!(
            "ns of thread CPU per forwarded packet, median of {}; user and system by {}",
            self.repetitions, self.split
        ));
        line(format!(
            "receivers {} UDP_GRO",
            if self.gro { "with" } else { "without" }
        ));
        line(format!(
            "{:<15}{:<11}{:<18}{:<11}{:<9}{:>7}{:>8}{:>8}  {:<15}{:>7}{:>8}{:>10}{:>7}",
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
                "{:<15}{:<11}{:<18}{:<11}{:<9}{:>7.0}{:>8.0}{:>8.0}  {:<15}{:>7}{:>8}{:>10.1}{:>6.0}%",
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

    /// The ratios that have a goal, as far as they were measured.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for row in self.rows.iter().filter(|r| r.contender == "sealcast") {
            let shape = format!(
                "{}, {}, {}, {}",
                row.topology, row.traffic, row.profile, row.backend
            );
            let video = row.traffic.starts_with("video");
            if row.topology == Topology::TO_100.name && video && row.profile.ends_with("GCM") {
                let ratios = [
                    ("user", row.user_ratio, USER_GOAL),
                    ("total", row.total_ratio, TOTAL_GOAL),
                ];
                for (time, ratio, goal) in ratios {
                    let ratio = ratio.unwrap_or(f64::NAN);
                    verdicts.push(Verdict::at_most(
                        format!("{time} over floor, {shape}"),
                        ratio,
                        goal,
                        "",
                    ));
                }
            }
            let stock = self.beside(row, "stock", row.topology);
            if let Some(stock) = stock.filter(|_| video && row.packets_in_frame >= 4) {
                let times = [
                    ("user", stock.user_ns / row.user_ns),
                    ("total", stock.total_ns.median / row.total_ns.median),
                ];
                for (time, ratio) in times {
                    verdicts.push(Verdict::at_least(
                        format!("stock over ours, {time}, {shape}"),
                        ratio,
                        STOCK_GOAL,
                        "",
                    ));
                }
            }
            let small = self.beside(row, "sealcast", Topology::TO_20.name);
            if let Some(small) = small.filter(|_| row.topology == Topology::TO_1000.name) {
                let ratio = row.total_ns.median / small.total_ns.median;
                verdicts.push(Verdict::at_most(
                    format!("total over 1→20, {shape}"),
                    ratio,
                    FAN_OUT_GOAL,
                    "",
                ));
            }
        }
        verdicts
    }

    /// The row of another contender or topology with the traffic, profile and back end of `row`.
    fn beside(&self, row: &Row, contender: &str, topology: &str) -> Option<&Row> {
        let crypto = |r: &Row| (r.traffic, r.profile, r.backend);
        self.rows.iter().find(|r| {
            r.contender == contender && r.topology == topology && crypto(r) == crypto(row)
        })
    }

    /// A bar for each row, user time beside system time.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut group = ("", "", "", "");
        let bar = |row: &Row| {
            let of = (row.topology, row.traffic, row.profile, row.backend);
            let begins_group = std::mem::replace(&mut group, of) != of;
            let ratios = row.user_ratio.zip(row.total_ratio);
            let ratios = ratios.filter(|_| row.contender != "floor");
            let ratios = ratios.map_or_else(String::new, |(user, total)| {
                format!(", ×{total:.2} (user ×{user:.2})")
            });
            Bar {
                label: format!(
                    "{} · {} · {} · {} · {}",
                    row.topology,
                    row.traffic,
                    row.profile
                        .trim_start_matches("AEAD_")
                        .trim_start_matches("SRTP_"),
                    row.backend,
                    row.contender
                ),
                parts: vec![(row.user_ns, 0), (row.system_ns, 1)],
                note: format!("{:.0} ns{ratios}", row.total_ns.median),
                begins_group,
                ..Bar::default()
            }
        };
        let rows: Vec<_> = self.rows.iter().map(bar).collect();
        let introduction = format!(
            "Thread CPU time per forwarded packet over loopback, medians of {}. The floor writes a \
             header, seals and makes the same system calls; stock is a plain str0m relay.",
            self.repetitions
        );
        Page::new("CPU per forwarded packet", &introduction).plot(
            "Nanoseconds per packet",
            "Behind each bar: its length, and what it is over the floor's.",
            &bars(&rows, &[("user", 0), ("system", 1)]),
        )
    }
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
    fn the_page_has_a_bar_for_each_row() {
        let page = report().page().html();
        assert!(
            page.contains("video ×1 · AES_128_GCM · aws-lc-rs · stock"),
            "{page}"
        );
        assert!(page.contains("800 ns, ×2.00 (user ×2.00)"), "{page}");
    }

    #[test]
    fn goals_are_asked_of_the_shapes_that_they_are_set_for() {
        let cost = |user_ns: f64, system_ns: f64| Sample {
            packets: 10,
            bytes: 1_000,
            calls: 5,
            cost: Cost {
                user_ns,
                system_ns,
                user_instructions: None,
            },
        };
        let row = |contender, topology, sample| {
            let crypto = (Profile::AeadAes256Gcm, Backend::AwsLcRs);
            Row::new(
                contender,
                (&topology, &Traffic::ALL[1]),
                crypto,
                &[sample],
                1_000,
            )
            .unwrap()
        };
        let mut report = Report {
            rows: vec![
                row("sealcast", Topology::TO_20, cost(2_000.0, 8_000.0)),
                row("floor", Topology::TO_100, cost(1_000.0, 9_000.0)),
                row("sealcast", Topology::TO_100, cost(2_000.0, 9_500.0)),
                row("stock", Topology::TO_100, cost(12_000.0, 20_000.0)),
                row("sealcast", Topology::TO_1000, cost(2_000.0, 9_000.0)),
            ],
            ..report()
        };
        report.relate();
        let verdicts = report.verdicts();
        let told: Vec<_> = verdicts.iter().map(|v| (v.figure, v.held())).collect();
        assert_eq!(
            told,
            [
                (2.0, false),
                (1.15, true),
                (6.0, true),
                (32_000.0 / 11_500.0, false),
                (1.1, true)
            ]
        );
    }
}
