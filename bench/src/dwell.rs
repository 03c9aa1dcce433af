//! What the dwell measurement came to: a table by stage, a plot, and goals.

use crate::report::chart::{Bar, bars};
use crate::report::{Page, Verdict, short};
use sealcast_model::Snapshot;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Dwell may be so long at the median and at the 99th percentile, µs.
const P50_GOAL: f64 = 100.0;
const P99_GOAL: f64 = 1_000.0;

/// The rows of a shape, by name.
pub const KERNEL_QUEUE: &str = "kernel queue";
/// From the thread's receipt to the call that sends.
pub const RELAY: &str = "relay";
/// From that call to the transmit timestamp.
pub const WIRE: &str = "wire (sampled)";
/// From the kernel's receipt to the end of the call that sends.
pub const END_OF_CALL: &str = "to end of call";
/// From the kernel's receipt to its transmit timestamp.
pub const TOTAL: &str = "kernel to kernel (sampled)";
/// How late a thread that sleeps wakes while the relay idles.
pub const TIMER_IDLE: &str = "timer, relay idle";
/// The same while it works.
pub const TIMER_BUSY: &str = "timer, relay at work";

/// One distribution, µs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What took so long.
    pub what: &'static str,
    /// Observations.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90 % took no longer.
    pub p90: f64,
    /// 99 % took no longer.
    pub p99: f64,
    /// 99.9 % took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Row {
    /// Of what was recorded.
    #[must_use]
    pub fn new(what: &'static str, of: &Snapshot) -> Row {
        let micros = |duration: Duration| duration.as_nanos() as f64 / 1e3;
        let at = |q| micros(of.quantile(q));
        Row {
            what,
            count: of.count(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// One shape at its rate.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// Receivers of one publisher.
    pub receivers: usize,
    /// Packets that arrive together.
    pub frame: usize,
    /// Bytes of payload.
    pub payload: usize,
    /// Packets per second in.
    pub in_per_second: f64,
    /// Datagrams per second out.
    pub out_per_second: f64,
    /// Share of its core that the shard's thread used.
    pub core: f64,
    /// Share of what was forwarded that did not arrive.
    pub not_arrived: f64,
    /// Share of datagrams in that had the kernel's receive timestamp.
    pub stamped_in: f64,
    /// Messages out whose transmit timestamp came back, and that were asked for one.
    pub stamped_out: (u64, u64),
    /// The stages, the whole, and the machine's own lateness.
    pub rows: Vec<Row>,
}

impl Shape {
    fn name(&self) -> String {
        let frames = match self.frame {
            1 => "single packets".into(),
            n => format!("frames of {n}"),
        };
        format!("1→{}, {frames}", self.receivers)
    }

    fn row(&self, what: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what)
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The share of its core that the shard was to use.
    pub load: f64,
    /// Length of each measurement.
    pub seconds: f64,
    /// Real-time priority of the shard's thread and of the timer's; 0: none.
    pub realtime: u8,
    /// The shapes.
    pub shapes: Vec<Shape>,
}

impl Report {
    /// What its files are called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.realtime {
            0 => "dwell",
            _ => "dwell-realtime",
        }
    }

    /// The table, as text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!(
            "dwell, µs; the rate is that at which the shard's thread uses {:.0} % of its core; {} s each{}\n",
            100.0 * self.load,
            self.seconds,
            match self.realtime {
                0 => String::new(),
                priority => format!("; its thread and the timer's by SCHED_FIFO at {priority}"),
            }
        );
        // Writing to a string cannot fail.
        for shape in &self.shapes {
            let (stamped, asked) = shape.stamped_out;
            let _ = writeln!(
                out,
                "\n{} of {} bytes: {:.0} packets/s in, {:.0} datagrams/s out, {:.0} % of a core; \
                 {:.2} % of what was forwarded did not arrive\n\
                 stamped: {:.2} % of datagrams in; {stamped} of {asked} messages out that asked\n\
                 {:<28}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}",
                shape.name(),
                shape.payload,
                shape.in_per_second,
                shape.out_per_second,
                100.0 * shape.core,
                100.0 * shape.not_arrived,
                100.0 * shape.stamped_in,
                "",
                "count",
                "p50",
                "p90",
                "p99",
                "p99.9",
                "max"
            );
            for row in &shape.rows {
                let _ = writeln!(
                    out,
                    "{:<28}{:>10}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
                    row.what, row.count, row.p50, row.p90, row.p99, row.p999, row.max
                );
            }
        }
        out
    }

    /// Dwell from kernel to kernel against its goals.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for shape in &self.shapes {
            let total = shape.row(TOTAL);
            let [p50, p99] = total.map_or([f64::NAN; 2], |row| [row.p50, row.p99]);
            for (name, figure, goal) in [("p50", p50, P50_GOAL), ("p99", p99, P99_GOAL)] {
                let what = format!("dwell {name}, {}", shape.name());
                verdicts.push(Verdict::at_most(what, figure, goal, "µs"));
            }
        }
        verdicts
    }

    /// Stages of the median packet, and the tail beside the machine's own.
    #[must_use]
    pub fn page(&self) -> Page {
        let introduction = "How long packets stay in a relay that uses half of its core, from the \
             kernel's receipt to its transmit timestamp; and how late a thread that only sleeps \
             wakes on the same core.";
        let quantile = |what: [(&'static str, usize); 4], of: fn(&Row) -> f64| {
            let mut rows = Vec::new();
            for shape in &self.shapes {
                for (i, (what, colour)) in what.iter().enumerate() {
                    let value = shape.row(what).map_or(0.0, of);
                    rows.push(Bar {
                        label: format!("{} · {what}", shape.name()),
                        parts: vec![(value, *colour)],
                        note: format!("{} µs", short(value)),
                        begins_group: i == 0,
                        ..Bar::default()
                    });
                }
            }
            rows
        };
        let shown = [(KERNEL_QUEUE, 1), (RELAY, 0), (WIRE, 4), (TOTAL, 5)];
        let tails = [(KERNEL_QUEUE, 1), (RELAY, 0), (TOTAL, 5), (TIMER_IDLE, 3)];
        let goal = |bars: Vec<Bar>, goal: f64| -> Vec<Bar> {
            let marked = |bar: Bar| Bar {
                goal: bar.label.ends_with(TOTAL).then_some(goal),
                ..bar
            };
            bars.into_iter().map(marked).collect()
        };
        Page::new("Dwell at half load", introduction)
            .plot(
                "Median, µs",
                "Medians of stages do not add up to the median of the whole. The mark is the goal.",
                &bars(&goal(quantile(shown, |row| row.p50), P50_GOAL), &[]),
            )
            .plot(
                "99th percentile, µs",
                "A relay cannot be on time more often than a thread that does nothing but sleep.",
                &bars(&goal(quantile(tails, |row| row.p99), P99_GOAL), &[]),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_model::Histogram;

    #[test]
    fn the_whole_is_held_against_the_goals() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(50), 980);
        histogram.record(Duration::from_micros(5_000), 20);
        let report = Report {
            load: 0.5,
            seconds: 1.0,
            realtime: 0,
            shapes: vec![Shape {
                receivers: 20,
                frame: 1,
                payload: 1_100,
                in_per_second: 1.0,
                out_per_second: 20.0,
                core: 0.5,
                not_arrived: 0.0,
                stamped_in: 1.0,
                stamped_out: (9, 10),
                rows: vec![Row::new(TOTAL, &histogram.snapshot())],
            }],
        };
        let held: Vec<_> = report.verdicts().iter().map(Verdict::held).collect();
        assert_eq!(held, [true, false]);
        assert!(report.table().contains("9 of 10"));
        assert!(
            report
                .page()
                .html()
                .contains("1→20, single packets · kernel to kernel")
        );
    }
}
