//! What a second shard adds: CPU time per forwarded packet on one shard and on two.
//!
//! `cargo run --release -p bench --bin shards` measures one room on one shard against a room on each
//! of two shards, and one room on one shard against the same room spread over two. On two cores the
//! publishers and the sink need one of them, so what is compared is thread CPU time and not the
//! rate: `2 × one / two` is how many times more two shards forward that have a core each.
//!
//! Whatever runs beside a shard on its core takes of its caches. So the one shard is measured on
//! each of the two cores, beside what is there, and two shards are compared with the mean of both:
//! what is left is what shards cost each other.

use bench::cli::{self, Child};
use bench::report::chart::{Bar, bars};
use bench::report::{Page, Results, Verdict, short};
use bench::shape::{Topology, Traffic};
use bench::sink::Sink;
use bench::spread::{Spread, Work};
use bench::{Result, cpu};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    child: Option<Child>,
    /// Packets forwarded by each shard in one measurement.
    #[arg(long, default_value_t = 60_000)]
    packets: u64,
    /// Measurements of each; the median counts.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
    /// Packets of a frame: 1, 4 or 16.
    #[arg(long, default_value_t = 4)]
    frame: usize,
    /// Frames that the publishers send before the first of them is sent on. With more than one, how
    /// many a shard finds waiting depends on who else is on its core.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    ahead: u64,
    /// CPUs of the two shards; the second is also the publishers' and the sink's.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    cpus: Vec<usize>,
    /// Fail if two shards forward less than this many times what one does.
    #[arg(long)]
    at_least: Option<f64>,
    /// A directory for a table, JSON and a page.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What one shard has, and what two have.
struct Case {
    name: &'static str,
    one: Topology,
    two: Topology,
}

/// Two shards are to forward this many times what one does.
const GOAL: f64 = 1.85;

const CASES: [Case; 2] = [
    Case {
        name: "a room 1→50 each",
        one: Topology::broadcast("1→50", 50),
        two: Topology {
            rooms: 2,
            ..Topology::broadcast("two rooms 1→50", 50)
        },
    },
    Case {
        name: "one room 1→100",
        one: Topology::TO_100,
        two: Topology::TO_100,
    },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::main("shards", arguments.child.as_ref(), || measure(&arguments))
}

fn measure(arguments: &Arguments) -> Result<()> {
    let [first, second] = arguments.cpus[..] else {
        return Err("--cpus takes two numbers".into());
    };
    let is_chosen = |t: &&Traffic| t.frame == arguments.frame && t.is_video();
    let chosen = Traffic::ALL.iter().find(is_chosen);
    let traffic = chosen.ok_or("frames have 1, 4 or 16 packets")?;
    println!(
        "{}; µs of shard threads per datagram (datagrams a message, wake-ups a frame), medians of {}",
        traffic.name, arguments.repetitions
    );
    println!(
        "{:<17} {:>18} {:>18} {:>18} {:>18} {:>18} {:>11}",
        "",
        format!("one on CPU {first}"),
        format!("one on CPU {second}"),
        format!("two: on CPU {first}"),
        format!("on CPU {second}"),
        "both",
        "2×one/two"
    );
    let (mut falls_short, mut gains) = (false, Vec::new());
    for case in &CASES {
        let gain = measure_case(arguments, case, traffic, (first, second))?;
        falls_short |= arguments.at_least.is_some_and(|least| gain < least);
        gains.push((case.name, gain));
    }
    if let Some(out) = &arguments.out {
        publish(&gains, out)?;
    }
    if falls_short {
        return Err("two shards forward less than they must".into());
    }
    Ok(())
}

/// Writes how many times what one shard does two do.
fn publish(gains: &[(&'static str, f64)], out: &Path) -> Result<()> {
    let judge = |(name, gain): &(&str, f64)| {
        Verdict::at_least(format!("two shards over one, {name}"), *gain, GOAL, "")
    };
    let bar = |(name, gain): &(&str, f64)| Bar {
        label: (*name).into(),
        parts: vec![(*gain, 0)],
        goal: Some(GOAL),
        note: short(*gain),
        ..Bar::default()
    };
    let verdicts: Vec<_> = gains.iter().map(judge).collect();
    let rows: Vec<_> = gains.iter().map(bar).collect();
    let page = Page::new(
        "A second shard",
        "How many times what one shard forwards two forward, by CPU time per packet.",
    )
    .plot(
        "Times one shard",
        "The mark is the goal.",
        &bars(&rows, &[]),
    );
    Results::new(&gains, &verdicts).publish(out, "shards", "", page)
}

/// Shards with clients and a sink of their own, and what they have done so far.
struct Lane {
    sink: Sink,
    spread: Spread,
    runs: Vec<Vec<Work>>,
}

impl Lane {
    fn new(topology: Topology, cpus: &[usize], other: usize) -> Result<Lane> {
        let program = std::env::current_exe()?;
        let mut sink = Sink::start(&program, topology.clients(), other, true)?;
        let spread = Spread::new(topology, &mut sink, cpus, other)?;
        sink.pause()?;
        Ok(Lane {
            sink,
            spread,
            runs: Vec::new(),
        })
    }

    fn run(&mut self, traffic: &Traffic, packets: u64, ahead: u64) -> Result<Vec<Work>> {
        self.sink.resume()?;
        self.spread.rest()?;
        self.sink.settle()?;
        let works = self.spread.run(traffic, packets, ahead)?;
        self.sink.settle()?;
        // While others are measured this one must not take their core.
        self.sink.pause()?;
        Ok(works)
    }

    /// Median cost of the shards in `of`, and how they went about it.
    fn cell(&self, of: std::ops::Range<usize>, frames: f64) -> (f64, String) {
        let chosen = || self.runs.iter().filter_map(|works| works.get(of.clone()));
        let cost = median(chosen().map(Work::per_datagram).collect()) / 1_000.0;
        let all = || chosen().flatten();
        let datagrams: u64 = all().map(|work| work.datagrams).sum();
        let messages: u64 = all().map(|work| work.messages).sum();
        let wakeups: u64 = all().map(|work| work.wakeups).sum();
        let runs = (self.runs.len() * of.len()) as f64;
        let cell = format!(
            "{cost:.3} ({:.1}, {:.1})",
            datagrams as f64 / messages as f64,
            wakeups as f64 / runs / frames
        );
        (cost, cell)
    }
}

/// Measures one case and prints its line; returns how many times what one shard does two do.
fn measure_case(
    arguments: &Arguments,
    case: &Case,
    traffic: &Traffic,
    (first, second): (usize, usize),
) -> Result<f64> {
    cpu::pin_to(first)?;
    let mut lanes = [
        Lane::new(case.one, &[first], second)?,
        Lane::new(case.one, &[second], second)?,
        Lane::new(case.two, &[first, second], second)?,
    ];
    for repetition in 0..=arguments.repetitions {
        for lane in &mut lanes {
            let rooms = if lane.spread.shards() > 1 {
                case.two.rooms
            } else {
                1
            };
            let works = lane.run(traffic, arguments.packets * rooms as u64, arguments.ahead)?;
            // The first round warms caches and tables up.
            if repetition > 0 {
                lane.runs.push(works);
            }
        }
    }
    let frames = traffic.frames(&case.one, arguments.packets) as f64;
    let [on_first, on_second, two] = &lanes;
    let (first_cost, first_cell) = on_first.cell(0..1, frames);
    let (second_cost, second_cell) = on_second.cell(0..1, frames);
    let (_, two_first) = two.cell(0..1, frames);
    let (_, two_second) = two.cell(1..2, frames);
    let (two_cost, two_cell) = two.cell(0..2, frames);
    let gain = (first_cost + second_cost) / two_cost;
    println!(
        "{:<17} {first_cell:>18} {second_cell:>18} {two_first:>18} {two_second:>18} {two_cell:>18} {gain:>11.2}",
        case.name
    );
    if two.spread.refused() > 0 {
        println!("  messages that lanes refused: {}", two.spread.refused());
    }
    Ok(gain)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
