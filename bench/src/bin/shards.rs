//! What a second shard adds: CPU time per forwarded packet on one shard and on two.
//!
//! `cargo run --release -p bench --bin shards` measures two rooms on one shard against one room on
//! each of two, and one room on one shard against the same room spread over two. On two cores the
//! publishers and the sink need some of them, so what is compared is thread CPU time and not the
//! rate: `2 × one / two` is how many times more two shards forward that have a core each.

use bench::report::chart::{Bar, bars};
use bench::report::{Page, Results, Verdict, short};
use bench::shape::{Topology, Traffic};
use bench::sink::{self, Sink};
use bench::spread::Spread;
use bench::{Result, cpu};
use clap::{Parser, Subcommand};
use std::os::fd::RawFd;
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Packets forwarded in one measurement.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Measurements of each; the median counts.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
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

#[derive(Subcommand)]
enum Command {
    /// Internal: drains the receivers' sockets.
    #[command(hide = true)]
    Sink {
        #[arg(long)]
        cpu: usize,
        #[arg(long, value_delimiter = ',')]
        descriptors: Vec<RawFd>,
    },
}

const TWO_ROOMS: Topology = Topology {
    name: "two rooms 1→50",
    rooms: 2,
    publishers: 1,
    receivers: 50,
    publishers_receive: false,
};

/// Two shards are to forward this many times what one does.
const GOAL: f64 = 1.85;

const ONE_ROOM: Topology = Topology::TO_100;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Sink { cpu, descriptors }) = &arguments.command {
        return sink::drain(descriptors, *cpu);
    }
    let [first, second] = arguments.cpus[..] else {
        return Err("--cpus takes two numbers".into());
    };
    let traffic = Traffic::ALL
        .iter()
        .find(|t| t.frame == 4)
        .ok_or("no frames of four packets")?;
    println!(
        "{}; µs of shard threads per forwarded packet, medians of {}",
        traffic.name, arguments.repetitions
    );
    println!(
        "{:<16} {:>10} {:>10} {:>10}",
        "", "one shard", "two", "2×one/two"
    );
    let (mut falls_short, mut gains) = (false, Vec::new());
    for topology in [TWO_ROOMS, ONE_ROOM] {
        cpu::pin_to(first)?;
        let program = std::env::current_exe()?;
        // Each has clients of its own, and so a sink of its own.
        let mut sinks = [
            Sink::start(&program, topology.clients(), second, true)?,
            Sink::start(&program, topology.clients(), second, true)?,
        ];
        let [sink_one, sink_two] = &mut sinks;
        let mut one = Spread::new(topology, sink_one, &[first], second)?;
        let mut two = Spread::new(topology, sink_two, &[first, second], second)?;
        let mut costs = [Vec::new(), Vec::new()];
        for repetition in 0..=arguments.repetitions {
            for ((spread, sink), costs) in [(&mut one, &mut *sink_one), (&mut two, &mut *sink_two)]
                .into_iter()
                .zip(&mut costs)
            {
                spread.rest()?;
                sink.settle()?;
                let sample = spread.run(traffic, arguments.packets)?;
                sink.settle()?;
                // The first round warms caches and tables up.
                if repetition > 0 {
                    costs.push(sample.cost.total_ns() / sample.packets as f64 / 1_000.0);
                }
            }
        }
        let [one_cost, two_cost] = costs.map(median);
        let gain = 2.0 * one_cost / two_cost;
        println!(
            "{:<16} {one_cost:>10.3} {two_cost:>10.3} {gain:>10.2}",
            topology.name
        );
        if two.refused() > 0 {
            println!("  messages that lanes refused: {}", two.refused());
        }
        falls_short |= arguments.at_least.is_some_and(|least| gain < least);
        gains.push((topology.name, gain));
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
fn publish(gains: &[(&'static str, f64)], out: &std::path::Path) -> Result<()> {
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
