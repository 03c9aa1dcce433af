//! What a relay's process spends per forwarded packet at set rates, and what it carries at most.
//!
//! ```text
//! cargo run --release -p bench --bin paced
//! cargo run --release -p bench --bin paced -- --shape 20×500 --seconds 5
//! ```
//!
//! The relay runs in this process: one shard, and a thread that sleeps. Its clients are another
//! process on another CPU ([`bench::crowd`]): a publisher that sends single packets of 1,100 bytes
//! at a set rate, and receivers that give transport-wide feedback, report and check their path.
//! Counted is all CPU time of this process, over the media packets that left it. The floor of the
//! same batch shape (header, seal, system call, hot caches, no waiting) is measured around each.

use bench::client::Features;
use bench::crowd::{Crowd, Pace, Tally, topology};
use bench::drift::Spread;
use bench::floor::Floor;
use bench::paced::{Point, Report};
use bench::relay::Relay;
use bench::report::machine;
use bench::shape::Traffic;
use bench::sink::{Sink, drain};
use bench::{Contender, Result, clock, cpu, crowd};
use clap::{Parser, Subcommand};
use sealcast_model::{Counter, Source};
use sealcast_srtp::{Backend, Profile};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Congestion control lets a path have its full rate by then, or not at all.
const RAMP: Duration = Duration::from_secs(20);
/// A step of the ramp, and the pause after which a first look is worth while.
const GLANCE: Duration = Duration::from_millis(500);
/// Each step of saturation sends so much more than the one before.
const STEP: f64 = 1.2;
/// Where saturation begins, packets per second out.
const FIRST_STEP: f64 = 100_000.0;
/// A relay that is busy for this share of the time, or loses this share, is saturated.
const SATURATED: f64 = 0.985;
const LOSING: f64 = 0.02;
/// Packets of one measurement of the floor.
const FLOOR_PACKETS: u64 = 40_000;

/// Measures a relay's process at set rates.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Receivers × packets per second in.
    #[arg(long, value_delimiter = ',',
          default_values = ["20×500", "20×2000", "100×100", "100×400"])]
    shape: Vec<String>,
    /// Receivers of the measurements at saturation.
    #[arg(long, value_delimiter = ',', default_values = ["20", "100"])]
    saturate: Vec<usize>,
    /// Leave saturation out.
    #[arg(long)]
    no_saturation: bool,
    /// Length of one measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// The SRTP profile, by its IANA name.
    #[arg(long, default_value = "AEAD_AES_256_GCM")]
    profile: String,
    /// Neither repair nor congestion control is negotiated.
    #[arg(long)]
    plain: bool,
    /// Microseconds that arriving packets wait for others.
    #[arg(long, default_value_t = 0)]
    coalesce: u64,
    /// The CPU to measure on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// The CPU for the clients.
    #[arg(long, default_value_t = 1)]
    other_cpu: usize,
    /// Where paced.txt and paced.json go.
    #[arg(long, default_value = "bench/out")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// The clients' process; started by the measuring one.
    #[command(hide = true)]
    Crowd {
        #[arg(long)]
        cpu: usize,
    },
    /// The floor's receiving process; likewise.
    #[command(hide = true)]
    Sink {
        #[arg(long)]
        cpu: usize,
        #[arg(long, value_delimiter = ',')]
        descriptors: Vec<i32>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Crowd { cpu }) => crowd::serve(*cpu),
        Some(Command::Sink { cpu, descriptors }) => drain(descriptors, *cpu),
        None => measure(&arguments),
    };
    bench::exit_code("paced", result)
}

fn measure(arguments: &Arguments) -> Result<()> {
    cpu::pin_to(arguments.cpu)?;
    let mut shapes = Vec::new();
    for shape in &arguments.shape {
        let (receivers, rate) = shape.split_once('×').ok_or("a shape is written 20×500")?;
        shapes.push((receivers.parse::<usize>()?, rate.parse::<f64>()?));
    }
    let mut bench = Bench::new(arguments)?;
    let mut points = Vec::new();
    for (receivers, rate) in shapes {
        // A new session each time: what congestion control learnt of one rate would slow the next.
        let mut setting = bench.setting(receivers, !arguments.plain)?;
        points.push(bench.paced(&mut setting, rate)?);
    }
    if !arguments.no_saturation {
        for receivers in &arguments.saturate {
            // What one receiver gets at saturation is beyond what congestion control grants.
            let mut setting = bench.setting(*receivers, false)?;
            points.extend(bench.saturated(&mut setting)?);
        }
    }
    let report = Report {
        machine: machine(),
        profile: bench.profile.name(),
        seconds: arguments.seconds,
        points,
    };
    print!("{}", report.table());
    for path in report.write(&arguments.out)? {
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// What all measurements share.
struct Bench<'a> {
    arguments: &'a Arguments,
    profile: Profile,
    sink: Sink,
}

/// A relay with its clients connected.
struct Setting {
    receivers: usize,
    relay: Relay,
    crowd: Crowd,
    floor: Floor,
}

/// Where everything stood.
struct Mark {
    at: Instant,
    process: u64,
    thread: cpu::Reading,
    taken_in: u64,
    forwarded: u64,
    counters: [u64; 5],
}

/// What the relay does per arrival.
const COUNTED: [Counter; 5] = [
    Counter::Wakeups,
    Counter::ReceiveCalls,
    Counter::SendCalls,
    Counter::DatagramsIn,
    Counter::DatagramsOut,
];

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        let profile = Profile::ALL
            .into_iter()
            .find(|p| p.name() == arguments.profile)
            .ok_or("no such profile")?;
        let most = arguments.saturate.iter().copied().max().unwrap_or(0);
        let program = std::env::current_exe()?;
        let clients = topology(most.max(1_000)).clients();
        let mut sink = Sink::start(&program, clients, arguments.other_cpu, false)?;
        // It polls, and must not while others are measured.
        sink.pause()?;
        Ok(Bench {
            arguments,
            profile,
            sink,
        })
    }

    fn setting(&mut self, receivers: usize, transport_cc: bool) -> Result<Setting> {
        let features = Features {
            repair: !self.arguments.plain,
            transport_cc,
        };
        let program = std::env::current_exe()?;
        let mut crowd = Crowd::start(&program, self.arguments.other_cpu)?;
        let coalesce = Duration::from_micros(self.arguments.coalesce);
        let relay = Relay::start(Backend::AwsLcRs, self.arguments.cpu, |config| {
            config.coalesce = coalesce;
        })?;
        let topology = topology(receivers);
        let all = 0..topology.clients();
        relay.open_sessions(&topology, features, all, crowd.fingerprint)?;
        let (to, theirs) = (relay.address, relay.fingerprint);
        crowd.connect(to, theirs, self.profile, receivers, features)?;
        relay.subscribe(&topology, features)?;
        Ok(Setting {
            receivers,
            relay,
            crowd,
            floor: Floor::new(topology, self.profile, Backend::AwsLcRs, &self.sink)?,
        })
    }

    /// Nanoseconds per packet of the floor, measured now.
    fn floor(&mut self, setting: &mut Setting) -> Result<f64> {
        let mut meter = cpu::Meter::open(cpu::ThreadId::current());
        let [single, ..] = &Traffic::ALL;
        self.sink.resume()?;
        let mut readings = Vec::new();
        for _ in 0..5 {
            let sample = setting.floor.run(single, FLOOR_PACKETS, &mut meter)?;
            readings.push(sample.cost.total_ns() / sample.packets as f64);
        }
        self.sink.settle()?;
        self.sink.pause()?;
        Ok(Spread::of(&readings).ok_or("no readings")?.median)
    }

    fn paced(&mut self, setting: &mut Setting, rate: f64) -> Result<Point> {
        let shape = format!("{}×{rate}", setting.receivers);
        eprintln!("{shape}");
        let before = self.floor(setting)?;
        setting.crowd.run(pace(rate))?;
        let wanted = rate * setting.receivers as f64;
        let start = clock::now();
        loop {
            let mark = setting.relay.forwarded().0;
            clock::sleep(GLANCE);
            let flows = (setting.relay.forwarded().0 - mark) as f64 / GLANCE.as_secs_f64();
            if flows > 0.98 * wanted || start.elapsed() > RAMP {
                break;
            }
        }
        let point = self.window(setting)?;
        let tally = setting.crowd.stop()?;
        let floor = f64::midpoint(before, self.floor(setting)?);
        Ok(point(shape, "paced", &tally, None, floor))
    }

    /// Rising rates, until nothing more comes out.
    fn saturated(&mut self, setting: &mut Setting) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        let mut out = FIRST_STEP;
        loop {
            let rate = out / setting.receivers as f64;
            let shape = format!("{}×{rate:.0}", setting.receivers);
            eprintln!("{shape}, saturating");
            let floor = self.floor(setting)?;
            let sent_before = setting.relay.forwarded().0;
            setting.crowd.run(pace(rate))?;
            clock::sleep(GLANCE);
            let point = self.window(setting)?;
            let tally = setting.crowd.stop()?;
            let forwarded = setting.relay.forwarded().0 - sent_before;
            let point = point(shape, "saturating", &tally, Some(forwarded), floor);
            let full = point.core >= SATURATED || point.lost.is_some_and(|lost| lost > LOSING);
            points.push(point);
            // Twice beyond what comes out there is nothing to find.
            if full || out > 4_000_000.0 {
                return Ok(points);
            }
            out *= STEP;
        }
    }

    /// Measures for the time asked for; the rest of the point is known later.
    fn window(
        &self,
        setting: &Setting,
    ) -> Result<impl FnOnce(String, &'static str, &Tally, Option<u64>, f64) -> Point + use<>> {
        let mut meter = cpu::Meter::open(setting.relay.thread_id);
        let start = mark(setting, &mut meter)?;
        clock::sleep(Duration::from_secs_f64(self.arguments.seconds));
        let end = mark(setting, &mut meter)?;
        setting.relay.check()?;
        let receivers = setting.receivers as f64;
        let cost = start.thread.until(&end.thread);
        let seconds = (end.at - start.at).as_secs_f64();
        let arrivals = (end.taken_in - start.taken_in) as f64;
        let packets = (end.forwarded - start.forwarded) as f64;
        let process = (end.process - start.process) as f64;
        let counted: Vec<f64> = (start.counters.iter().zip(&end.counters))
            .map(|(start, end)| (end - start) as f64)
            .collect();
        Ok(
            move |shape, kind, tally: &Tally, forwarded: Option<u64>, floor| {
                let expected = tally.sent as f64 * receivers;
                Point {
                    shape,
                    kind,
                    process_ns: process / packets,
                    user_ns: cost.user_ns / packets,
                    system_ns: cost.system_ns / packets,
                    floor_ns: floor,
                    in_per_second: arrivals / seconds,
                    out_per_second: packets / seconds,
                    core: process / 1e9 / seconds,
                    wakeups: counted[0] / arrivals,
                    receive_calls: counted[1] / arrivals,
                    send_calls: counted[2] / arrivals,
                    other_datagrams: counted[3] / arrivals - 1.0,
                    per_call: counted[4] / counted[2],
                    late: tally.late as f64 / tally.sent as f64,
                    lost: forwarded.map(|forwarded| 1.0 - forwarded as f64 / expected),
                    untaken: forwarded.map(|f| 1.0 - tally.received as f64 / f as f64),
                }
            },
        )
    }
}

/// Single packets at this rate.
fn pace(rate: f64) -> Pace {
    let [single, ..] = &Traffic::ALL;
    Pace {
        rate,
        frame: single.frame,
        payload: single.payload,
    }
}

fn mark(setting: &Setting, meter: &mut cpu::Meter) -> Result<Mark> {
    let stats = setting.relay.stats();
    Ok(Mark {
        at: clock::now(),
        process: cpu::process_ns()?,
        thread: meter.read()?,
        taken_in: setting
            .relay
            .stats()
            .media(Source::Camera)
            .packets_in
            .load(Relaxed),
        forwarded: setting.relay.forwarded().0,
        counters: COUNTED.map(|counter| stats.get(counter)),
    })
}
