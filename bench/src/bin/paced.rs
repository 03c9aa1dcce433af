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

use bench::cli::{self, Child, Place};
use bench::client::Features;
use bench::crowd::{Pace, Tally, topology};
use bench::drift::Spread;
use bench::floor::Floor;
use bench::paced::{Kind, Point, Report};
use bench::report::Results;
use bench::setting::Setting;
use bench::shape::Traffic;
use bench::sink::Sink;
use bench::{Contender, Result, clock, cpu};
use clap::Parser;
use sealcast_model::{Counter, Source};
use sealcast_srtp::{Backend, Profile};
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
const FIRST_STEP: f64 = 140_000.0;
/// A relay that loses this share is saturated.
const LOSING: f64 = 0.02;
/// If less than this share of a rate comes out and little is lost, the publisher cannot send more.
const KEPT_UP: f64 = 0.85;
/// Packets of one measurement of the floor.
const FLOOR_PACKETS: u64 = 40_000;
/// How long the floor is measured that sleeps between frames.
const RESTING: Duration = Duration::from_secs(2);
/// The kernel takes no more segments of this size in one message: 64 KiB.
const MOST_SEGMENTS: usize = 57;

/// Measures a relay's process at set rates.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    child: Option<Child>,
    #[command(flatten)]
    place: Place,
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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::main("paced", arguments.child.as_ref(), || measure(&arguments))
}

fn measure(arguments: &Arguments) -> Result<()> {
    cpu::pin_to(arguments.place.cpu)?;
    let mut shapes = Vec::new();
    for shape in &arguments.shape {
        let (receivers, rate) = shape.split_once('×').ok_or("a shape is written 20×500")?;
        shapes.push((receivers.parse::<usize>()?, rate.parse::<f64>()?));
    }
    let mut bench = Bench::new(arguments)?;
    let mut points = Vec::new();
    for (receivers, rate) in shapes {
        // A new session each time: what congestion control learnt of one rate would slow the next.
        let mut measured = bench.setting(receivers, !arguments.plain)?;
        points.push(bench.paced(&mut measured, rate)?);
    }
    if !arguments.no_saturation {
        for receivers in &arguments.saturate {
            // What one receiver gets at saturation is beyond what congestion control grants.
            let mut measured = bench.setting(*receivers, false)?;
            points.extend(bench.saturated(&mut measured)?);
        }
    }
    let report = Report {
        profile: bench.profile.name(),
        seconds: arguments.seconds,
        points,
    };
    Results::new(&report, &report.verdicts()).publish(
        &arguments.place.out,
        "paced",
        &report.table(),
        report.page(),
    )
}

/// What all measurements share.
struct Bench<'a> {
    arguments: &'a Arguments,
    profile: Profile,
    sink: Sink,
}

/// A relay with its clients, and the floor of the same receivers.
struct Measured {
    setting: Setting,
    floor: Floor,
}

/// Where everything stood.
struct Mark {
    at: Instant,
    process: u64,
    thread: cpu::Reading,
    taken_in: u64,
    forwarded: u64,
    counters: [u64; 6],
}

/// What the relay does per arrival.
const COUNTED: [Counter; 6] = [
    Counter::Wakeups,
    Counter::ReceiveCalls,
    Counter::SendCalls,
    Counter::DatagramsIn,
    Counter::DatagramsOut,
    Counter::MessagesOut,
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
        let mut sink = Sink::start(&program, clients, arguments.place.other_cpu, false)?;
        // It polls, and must not while others are measured.
        sink.pause()?;
        Ok(Bench {
            arguments,
            profile,
            sink,
        })
    }

    fn setting(&mut self, receivers: usize, transport_cc: bool) -> Result<Measured> {
        let features = Features {
            repair: !self.arguments.plain,
            transport_cc,
        };
        let coalesce = Duration::from_micros(self.arguments.coalesce);
        let place = &self.arguments.place;
        let setting = Setting::connect(place, self.profile, receivers, features, |config| {
            config.coalesce = coalesce;
        })?;
        let (topology, backend) = (topology(receivers), Backend::AwsLcRs);
        Ok(Measured {
            setting,
            floor: Floor::new(topology, self.profile, backend, &self.sink)?,
        })
    }

    /// Nanoseconds per packet of the floor, measured now, with messages of so many segments.
    fn floor(&mut self, measured: &mut Measured, segments: f64) -> Result<f64> {
        let mut meter = cpu::Meter::open(cpu::ThreadId::current());
        let [single, ..] = Traffic::ALL;
        let traffic = Traffic {
            frame: (segments.round() as usize).clamp(1, MOST_SEGMENTS),
            ..single
        };
        self.sink.resume()?;
        let mut readings = Vec::new();
        for _ in 0..5 {
            let sample = measured.floor.run(&traffic, FLOOR_PACKETS, &mut meter)?;
            readings.push(sample.cost.total_ns() / sample.packets as f64);
        }
        self.sink.settle()?;
        self.sink.pause()?;
        Ok(Spread::of(&readings).ok_or("no readings")?.median)
    }

    /// As [`floor`](Bench::floor), of single datagrams, with a sleep before each frame.
    fn resting_floor(&mut self, measured: &mut Measured, rate: f64) -> Result<f64> {
        let mut meter = cpu::Meter::open(cpu::ThreadId::current());
        let [single, ..] = &Traffic::ALL;
        let receivers = measured.setting.receivers as u64;
        self.sink.resume()?;
        let (mut spent, mut packets) = (0.0, 0);
        let start = clock::now();
        while start.elapsed() < RESTING {
            clock::sleep(Duration::from_secs_f64(1.0 / rate));
            let sample = measured.floor.run(single, receivers, &mut meter)?;
            spent += sample.cost.total_ns();
            packets += sample.packets;
        }
        self.sink.settle()?;
        self.sink.pause()?;
        Ok(spent / packets as f64)
    }

    fn paced(&mut self, measured: &mut Measured, rate: f64) -> Result<Point> {
        let single_floor_ns = self.floor(measured, 1.0)?;
        let setting = &mut measured.setting;
        let shape = format!("{}×{rate}", setting.receivers);
        eprintln!("{shape}");
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
        let window = self.window(setting)?;
        let tally = setting.crowd.stop()?;
        let floor_ns = self.floor(measured, window.segments())?;
        let resting_floor_ns = Some(self.resting_floor(measured, rate)?);
        Ok(Point {
            single_floor_ns,
            floor_ns,
            resting_floor_ns,
            ..window.point(shape, Kind::Paced, &tally)
        })
    }

    /// Rising rates, until nothing more comes out.
    fn saturated(&mut self, measured: &mut Measured) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        let mut out = FIRST_STEP;
        loop {
            let single_floor_ns = self.floor(measured, 1.0)?;
            let setting = &mut measured.setting;
            let rate = out / setting.receivers as f64;
            let shape = format!("{}×{rate:.0}", setting.receivers);
            eprintln!("{shape}, saturating");
            let sent_before = setting.relay.forwarded().0;
            setting.crowd.run(pace(rate))?;
            clock::sleep(GLANCE);
            let window = self.window(setting)?;
            let tally = setting.crowd.stop()?;
            let forwarded = (setting.relay.forwarded().0 - sent_before) as f64;
            let expected = tally.sent as f64 * setting.receivers as f64;
            let floor_ns = self.floor(measured, window.segments())?;
            let lost = 1.0 - forwarded / expected;
            let point = Point {
                single_floor_ns,
                floor_ns,
                lost: Some(lost),
                untaken: Some(1.0 - tally.received as f64 / forwarded),
                ..window.point(shape, Kind::Saturating, &tally)
            };
            // A relay whose core is full can still take more: what arrives together is cheaper.
            let full = lost > LOSING || point.out_per_second < KEPT_UP * out;
            points.push(point);
            if full {
                return Ok(points);
            }
            out *= STEP;
        }
    }

    /// Measures for the time asked for.
    fn window(&self, setting: &Setting) -> Result<Window> {
        let mut meter = cpu::Meter::open(setting.relay.thread_id);
        let start = mark(setting, &mut meter)?;
        clock::sleep(Duration::from_secs_f64(self.arguments.seconds));
        let end = mark(setting, &mut meter)?;
        setting.relay.check()?;
        if end.forwarded == start.forwarded {
            return Err("nothing was forwarded".into());
        }
        Ok(Window {
            receivers: setting.receivers,
            start,
            end,
        })
    }
}

/// A stretch of time that was measured.
struct Window {
    receivers: usize,
    start: Mark,
    end: Mark,
}

impl Window {
    /// How much each of [`COUNTED`] grew.
    fn counted(&self) -> [f64; COUNTED.len()] {
        let mut grown = self.end.counters;
        grown
            .iter_mut()
            .zip(self.start.counters)
            .for_each(|(end, start)| *end -= start);
        grown.map(|count| count as f64)
    }

    /// Datagrams per message.
    fn segments(&self) -> f64 {
        let [.., datagrams, messages] = self.counted();
        datagrams / messages
    }

    /// What it came to, but for what is known only later: the floors and what was lost.
    fn point(&self, shape: String, kind: Kind, tally: &Tally) -> Point {
        let Window { start, end, .. } = self;
        let cost = start.thread.until(&end.thread);
        let seconds = (end.at - start.at).as_secs_f64();
        let arrivals = (end.taken_in - start.taken_in) as f64;
        let packets = (end.forwarded - start.forwarded) as f64;
        let process = (end.process - start.process) as f64;
        let [
            wakeups,
            receive_calls,
            send_calls,
            datagrams_in,
            datagrams_out,
            _,
        ] = self.counted();
        Point {
            shape,
            receivers: self.receivers,
            kind,
            process_ns: process / packets,
            user_ns: cost.user_ns / packets,
            system_ns: cost.system_ns / packets,
            single_floor_ns: f64::NAN,
            floor_ns: f64::NAN,
            resting_floor_ns: None,
            segments: self.segments(),
            in_per_second: arrivals / seconds,
            out_per_second: packets / seconds,
            core: process / 1e9 / seconds,
            wakeups: wakeups / arrivals,
            receive_calls: receive_calls / arrivals,
            send_calls: send_calls / arrivals,
            other_datagrams: datagrams_in / arrivals - 1.0,
            per_call: datagrams_out / send_calls,
            late: tally.late as f64 / tally.sent as f64,
            lost: None,
            untaken: None,
        }
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
