//! What the paced measurement came to: a table, plots beside what others published, and goals.

pub mod peers;
mod plots;

use crate::drift::Spread;
use crate::report::Verdict;
use peers::{FLOOR_SINGLE, NO_LOSS_TO, PACED, SATURATED, reference_floor};
use serde::Serialize;
use std::fmt::Write as _;

/// What a point was measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A set rate.
    Paced,
    /// One of rising rates.
    Saturating,
}

/// One rate at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Receivers × packets per second in.
    pub shape: String,
    /// Receivers.
    pub receivers: usize,
    /// What it was measured for.
    pub kind: Kind,
    /// CPU time of the whole process per forwarded packet, nanoseconds.
    pub process_ns: f64,
    /// The shard's user time of it.
    pub user_ns: f64,
    /// The shard's system time of it.
    pub system_ns: f64,
    /// The floor of single datagrams, measured just before, nanoseconds.
    pub single_floor_ns: f64,
    /// The floor of messages of as many segments as the shard sent, measured just after.
    pub floor_ns: f64,
    /// At a set rate, the floor's cost if it, too, sleeps between frames at that rate and finds its
    /// core and its caches as whoever else ran left them, nanoseconds. Its waking is not counted.
    pub resting_floor_ns: Option<f64>,
    /// Datagrams per message: above one, the kernel segments.
    pub segments: f64,
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

impl Point {
    /// The cost as it would be if the floor of the same messages were what it was where the goals
    /// and others' figures come from, nanoseconds.
    #[must_use]
    pub fn scaled_ns(&self) -> f64 {
        self.process_ns * reference_floor(self.segments) / self.floor_ns
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// SRTP profile.
    pub profile: &'static str,
    /// Length of each measurement.
    pub seconds: f64,
    /// The measurements.
    pub points: Vec<Point>,
}

/// Columns of the table: heading, width, and what stands there.
type Column = (&'static str, usize, fn(&Point) -> String);

fn micros(nanos: f64) -> String {
    format!("{:.2}", nanos / 1e3)
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.2}%", 100.0 * share))
}

const COLUMNS: [Column; 19] = [
    ("process", 9, |p| micros(p.process_ns)),
    ("user", 6, |p| micros(p.user_ns)),
    ("system", 8, |p| micros(p.system_ns)),
    ("floor", 7, |p| micros(p.floor_ns)),
    ("×floor", 8, |p| {
        format!("{:.2}", p.process_ns / p.floor_ns)
    }),
    ("resting", 9, |p| {
        p.resting_floor_ns.map_or_else(|| "-".into(), micros)
    }),
    ("scaled", 8, |p| micros(p.scaled_ns())),
    ("single", 8, |p| micros(p.single_floor_ns)),
    ("out/s", 9, |p| format!("{:.0}", p.out_per_second)),
    ("core", 6, |p| format!("{:.0}%", 100.0 * p.core)),
    ("wakes", 7, |p| format!("{:.2}", p.wakeups)),
    ("recv", 6, |p| format!("{:.2}", p.receive_calls)),
    ("send", 6, |p| format!("{:.2}", p.send_calls)),
    ("other", 7, |p| format!("{:.2}", p.other_datagrams)),
    ("seg", 6, |p| format!("{:.1}", p.segments)),
    ("/call", 7, |p| format!("{:.1}", p.per_call)),
    ("late", 6, |p| format!("{:.0}%", 100.0 * p.late)),
    ("lost", 8, |p| share(p.lost)),
    ("untaken", 9, |p| share(p.untaken)),
];

impl Report {
    /// The table, as text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!(
            "CPU time of the whole process per forwarded packet, µs; {}, {} s each; wake-ups and \
             system calls per packet in\nfloor: of messages of as many segments (seg); resting: \
             if it sleeps between frames as the relay does; scaled: as if that floor were {:.2} µs with one segment, {:.2} with eight\n{:<14}",
            self.profile,
            self.seconds,
            reference_floor(1.0) / 1e3,
            reference_floor(8.0) / 1e3,
            "shape"
        );
        // Writing to a string cannot fail.
        for (heading, width, _) in COLUMNS {
            let _ = write!(out, "{heading:>width$}");
        }
        out.push('\n');
        for point in &self.points {
            let _ = write!(out, "{:<14}", point.shape);
            for (_, width, of) in COLUMNS {
                let _ = write!(out, "{:>width$}", of(point));
            }
            out.push('\n');
        }
        let singles: Vec<_> = self.points.iter().map(|p| p.single_floor_ns).collect();
        if let Some(spread) = Spread::of(&singles) {
            let _ = writeln!(
                out,
                "drift: the floor of single datagrams took {:.2}–{:.2} µs, median {:.2}: {:.0} %; \
                 {:.2} times less than where the goals and others' figures come from",
                spread.min / 1e3,
                spread.max / 1e3,
                spread.median / 1e3,
                100.0 * spread.relative(),
                (FLOOR_SINGLE / spread.median)
            );
        }
        out
    }

    /// The points of rising rates at so many receivers.
    fn saturating(&self, receivers: usize) -> impl Iterator<Item = &Point> {
        let points = self.points.iter();
        points.filter(move |p| p.kind == Kind::Saturating && p.receivers == receivers)
    }

    /// The point at which most came out.
    fn saturated(&self, receivers: usize) -> Option<&Point> {
        self.saturating(receivers)
            .max_by(|a, b| a.out_per_second.total_cmp(&b.out_per_second))
    }

    /// The figures that have a goal, as measured and scaled to the floor there.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let mut judge = |what: &str, point: &Point, goal: f64| {
            let (as_is, scaled) = (point.process_ns / 1e3, point.scaled_ns() / 1e3);
            verdicts.push(Verdict::at_most(what, as_is, goal, "µs"));
            verdicts.push(Verdict::at_most(
                format!("{what}, scaled"),
                scaled,
                goal,
                "µs",
            ));
        };
        for of in &PACED {
            let found = |p: &&Point| p.kind == Kind::Paced && p.shape == of.shape;
            if let Some(point) = self.points.iter().find(found) {
                judge(&format!("process, {}", of.shape), point, of.goal);
            }
        }
        for of in &SATURATED {
            if let Some(point) = self.saturated(of.receivers) {
                judge(
                    &format!("saturated, {} receivers", of.receivers),
                    point,
                    of.goal,
                );
            }
        }
        for of in &SATURATED {
            let below = self
                .saturating(of.receivers)
                .filter(|p| p.core <= NO_LOSS_TO);
            if let Some(lost) = below.filter_map(|p| p.lost).reduce(f64::max) {
                let what = format!(
                    "lost up to {:.0} % of a core, {} receivers",
                    100.0 * NO_LOSS_TO,
                    of.receivers
                );
                verdicts.push(Verdict::at_most(what, 100.0 * lost, 0.0, "%"));
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn point(kind: Kind, receivers: usize, core: f64, lost: f64) -> Point {
        Point {
            shape: format!("{receivers}×500"),
            receivers,
            kind,
            process_ns: 2_000.0,
            user_ns: 500.0,
            system_ns: 1_400.0,
            single_floor_ns: 1_000.0,
            floor_ns: 1_000.0,
            resting_floor_ns: None,
            segments: 1.0,
            in_per_second: 500.0,
            out_per_second: 1e6 * core,
            core,
            wakeups: 1.1,
            receive_calls: 1.0,
            send_calls: 1.0,
            other_datagrams: 0.1,
            per_call: 20.0,
            late: 0.0,
            lost: Some(lost),
            untaken: Some(0.0),
        }
    }

    #[test]
    fn costs_are_scaled_by_the_floor_of_the_same_messages() {
        let single = point(Kind::Paced, 20, 0.1, 0.0);
        assert!((single.scaled_ns() - 2.0 * FLOOR_SINGLE).abs() < 1e-6);
        let eight = Point {
            segments: 8.0,
            ..single
        };
        assert!((eight.scaled_ns() - 2.0 * reference_floor(8.0)).abs() < 1e-6);
    }

    #[test]
    fn loss_counts_up_to_the_load_that_it_is_promised_for() {
        let points = vec![
            point(Kind::Paced, 20, 0.1, 0.5),
            point(Kind::Saturating, 20, 0.5, 0.0),
            point(Kind::Saturating, 20, 0.89, 0.001),
            point(Kind::Saturating, 20, 0.99, 0.2),
        ];
        let report = Report {
            profile: "p",
            seconds: 1.0,
            points,
        };
        let verdicts = report.verdicts();
        let named: Vec<_> = verdicts
            .iter()
            .map(|v| (v.what.as_str(), v.held()))
            .collect();
        assert_eq!(
            named,
            [
                ("process, 20×500", true),
                ("process, 20×500, scaled", false),
                ("saturated, 20 receivers", false),
                ("saturated, 20 receivers, scaled", false),
                ("lost up to 90 % of a core, 20 receivers", false),
            ]
        );
        assert!((report.verdicts()[4].figure - 0.1).abs() < 1e-9);
        let page = report.page().html();
        assert!(page.contains("PulseBeam") && page.contains("<svg"));
        assert!(report.table().contains("20×500"));
    }
}
