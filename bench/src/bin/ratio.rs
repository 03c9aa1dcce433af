//! What forwarding a packet costs: the floor, Sealcast and stock str0m, in one run.
//!
//! ```text
//! cargo run --release -p bench --bin ratio
//! cargo run --release -p bench --bin ratio -- --quick --topology 1→20
//! cargo run --release -p bench --bin ratio -- --all
//! ```
//!
//! Without arguments it takes two topologies, one profile and one back end, and a minute.

use bench::cli::{self, Child, Place};
use bench::client::Features;
use bench::drift::Drift;
use bench::floor::Floor;
use bench::ratio::{Report, Row};
use bench::report::Results;
use bench::sealcast::Sealcast;
use bench::shape::{Topology, Traffic};
use bench::sink::Sink;
use bench::stock::Stock;
use bench::{Contender, Result, Sample, cpu};
use clap::Parser;
use sealcast_srtp::{Backend, Profile};
use std::process::ExitCode;

/// Packets forwarded without a rest. Clients check their paths in rests only, and a relay gives up
/// those that it has not heard of for half a minute (RFC 7675 §5.1); also, what a publisher is to
/// send is sealed beforehand and takes memory.
const MOST_AT_ONCE: u64 = 250_000;

/// Measures the CPU time that forwarding a packet takes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    child: Option<Child>,
    #[command(flatten)]
    place: Place,
    /// Forwarded packets per measurement.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Measurements of each kind; the median counts.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// A tenth of the packets and three repetitions: to see that all works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Every topology, profile and back end.
    #[arg(long)]
    all: bool,
    /// The topologies: 1→20, 1→100, "10 rooms of 10", 1→1000.
    #[arg(long, value_delimiter = ',', default_values = ["1→20", "1→100"])]
    topology: Vec<String>,
    /// The SRTP profiles, by their IANA names. Stock str0m negotiates the first default alone.
    #[arg(long, value_delimiter = ',', default_values = ["AEAD_AES_256_GCM"])]
    profile: Vec<String>,
    /// The cryptographic libraries: aws-lc-rs, openssl.
    #[arg(long, value_delimiter = ',', default_values = ["aws-lc-rs"])]
    backend: Vec<String>,
    /// Sealcast negotiates neither repair nor congestion control.
    #[arg(long)]
    plain: bool,
    /// Only traffic whose name contains this.
    #[arg(long, default_value = "")]
    traffic: String,
    /// Leave out stock str0m, whose sessions take a while to connect.
    #[arg(long)]
    no_stock: bool,
    /// Let receivers take coalesced datagrams (UDP_GRO). The kernel then never cuts a run up on
    /// loopback, as with a network card that does it in hardware.
    #[arg(long)]
    gro: bool,
    /// What the files with the results are called.
    #[arg(long, default_value = "ratio")]
    name: String,
}

impl Arguments {
    /// Whether something of this name is to be measured.
    fn takes(&self, chosen: &[String], name: &str) -> bool {
        self.all || chosen.iter().any(|chosen| chosen == name)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::main("ratio", arguments.child.as_ref(), || measure(&arguments))
}

fn measure(arguments: &Arguments) -> Result<()> {
    cpu::pin_to(arguments.place.cpu)?;
    known(&arguments.topology, Topology::ALL.map(|t| t.name))?;
    known(&arguments.profile, Profile::ALL.map(Profile::name))?;
    known(&arguments.backend, Backend::ALL.map(Backend::name))?;
    let topologies: Vec<_> = Topology::ALL
        .into_iter()
        .filter(|t| arguments.takes(&arguments.topology, t.name))
        .collect();
    let clients = topologies
        .iter()
        .map(Topology::clients)
        .max()
        .ok_or("no such topology")?;
    let clients = clients.max(Topology::TO_20.clients());
    let program = std::env::current_exe()?;
    let mut sink = Sink::start(&program, clients, arguments.place.other_cpu, arguments.gro)?;
    let mut meter = cpu::Meter::open(cpu::ThreadId::current());
    let mut drift = Drift::new(&sink, &mut meter)?;
    let mut rows = Vec::new();
    for topology in &topologies {
        rows.extend(measure_topology(
            arguments, topology, &mut sink, &mut drift, &mut meter,
        )?);
    }
    let (drift_user, drift_system) = drift.spread().ok_or("nothing was measured")?;
    let mut report = Report {
        gro: arguments.gro,
        split: meter.split().name(),
        repetitions: repetitions(arguments),
        drift_user,
        drift_system,
        rows,
    };
    report.relate();
    Results::new(&report, &report.verdicts()).publish(
        &arguments.place.out,
        &arguments.name,
        &report.table(),
        report.page(),
    )
}

/// Says which of the chosen names is none.
fn known<const N: usize>(chosen: &[String], names: [&str; N]) -> Result<()> {
    match chosen
        .iter()
        .find(|chosen| !names.contains(&chosen.as_str()))
    {
        Some(unknown) => Err(format!("no \"{unknown}\" among {}", names.join(", ")).into()),
        None => Ok(()),
    }
}

/// One contender of a topology, with its repetitions so far.
struct Lane {
    name: &'static str,
    profile: Profile,
    backend: Backend,
    contender: Box<dyn Contender>,
    samples: Vec<Sample>,
    received_bytes: u64,
}

impl Lane {
    fn new(
        name: &'static str,
        (profile, backend): (Profile, Backend),
        contender: impl Contender + 'static,
    ) -> Lane {
        let contender = Box::new(contender);
        Lane {
            name,
            profile,
            backend,
            contender,
            samples: Vec::new(),
            received_bytes: 0,
        }
    }

    /// Forwards so many packets, with rests, and says what that cost and how many bytes arrived.
    fn run(
        &mut self,
        traffic: &Traffic,
        packets: u64,
        sink: &mut Sink,
        meter: &mut cpu::Meter,
    ) -> Result<(Sample, u64)> {
        let (mut whole, mut received): (Option<Sample>, u64) = (None, 0);
        let mut left = packets;
        while left > 0 {
            let now = left.min(MOST_AT_ONCE);
            self.contender.rest(sink)?;
            sink.settle()?;
            let sample = self.contender.run(traffic, now, meter)?;
            received += sink.settle()?;
            whole = Some(whole.map_or(sample, |whole| whole.plus(&sample)));
            left -= now;
        }
        Ok((whole.ok_or("no packets were asked for")?, received))
    }
}

/// All contenders of a topology, connected.
fn connect(arguments: &Arguments, topology: &Topology, sink: &mut Sink) -> Result<Vec<Lane>> {
    let cpus = (arguments.place.cpu, arguments.place.other_cpu);
    let features = Features {
        repair: !arguments.plain,
        transport_cc: !arguments.plain,
    };
    let mut lanes: Vec<Lane> = Vec::new();
    let profiles = Profile::ALL.into_iter();
    let profiles = profiles.filter(|p| arguments.takes(&arguments.profile, p.name()));
    for profile in profiles {
        let backends = Backend::ALL.into_iter();
        for backend in backends.filter(|b| arguments.takes(&arguments.backend, b.name())) {
            let crypto = (profile, backend);
            // Those who wait must not be taken for gone.
            for lane in &mut lanes {
                lane.contender.rest(sink)?;
            }
            let floor = Floor::new(*topology, profile, backend, sink)?;
            lanes.push(Lane::new("floor", crypto, floor));
            let sealcast = Sealcast::new(*topology, features, crypto, sink, cpus)?;
            lanes.push(Lane::new("sealcast", crypto, sealcast));
        }
        if profile == Stock::PROFILE && !arguments.no_stock {
            let stock = Stock::new(*topology, sink, arguments.place.other_cpu)?;
            lanes.push(Lane::new("stock", (profile, Backend::AwsLcRs), stock));
        }
    }
    Ok(lanes)
}

fn measure_topology(
    arguments: &Arguments,
    topology: &Topology,
    sink: &mut Sink,
    drift: &mut Drift,
    meter: &mut cpu::Meter,
) -> Result<Vec<Row>> {
    let mut lanes = connect(arguments, topology, sink)?;
    let packets = if arguments.quick {
        arguments.packets / 10
    } else {
        arguments.packets
    };
    let mut rows = Vec::new();
    for traffic in Traffic::ALL
        .iter()
        .filter(|t| t.name.contains(&arguments.traffic))
    {
        eprintln!("{}, {}", topology.name, traffic.name);
        sink.received()?;
        // Contenders take turns, so that a slow moment of the machine hits all of them.
        for repetition in 0..=repetitions(arguments) {
            drift.read(meter)?;
            sink.settle()?;
            for lane in &mut lanes {
                let (sample, received) = lane.run(traffic, packets, sink, meter)?;
                // The first round warms caches and tables up.
                if repetition > 0 {
                    lane.samples.push(sample);
                    lane.received_bytes += received;
                }
            }
        }
        for lane in &mut lanes {
            let crypto = (lane.profile, lane.backend);
            let samples = std::mem::take(&mut lane.samples);
            let received = std::mem::take(&mut lane.received_bytes);
            rows.extend(Row::new(
                lane.name,
                (topology, traffic),
                crypto,
                &samples,
                received,
            ));
        }
    }
    Ok(rows)
}

fn repetitions(arguments: &Arguments) -> usize {
    if arguments.quick {
        3
    } else {
        arguments.repetitions.max(1)
    }
}
