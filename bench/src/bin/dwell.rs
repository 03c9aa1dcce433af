//! How long packets stay in a relay that is half busy, stage by stage, from the kernel's receipt to
//! its transmit timestamp; and beside it how late a thread that only sleeps runs on the same core.
//!
//! ```text
//! cargo run --release -p bench --bin dwell
//! cargo run --release -p bench --bin dwell -- --receivers 100 --frame 1 --seconds 20
//! ```
//!
//! The shard runs on a CPU of its own, its clients in another process on another. The rate is found
//! first: that at which the shard's thread uses half of its core. Then the relay is left alone for
//! a while, and what it recorded in a stretch of time is printed. Timer lateness is measured on the
//! shard's CPU while the relay idles, before and after, and with few wake-ups while it works.

use bench::cli::{self, Child, Place};
use bench::client::Features;
use bench::crowd::{Pace, Tally};
use bench::dwell::{self, Report, Row, Shape};
use bench::noise::Noise;
use bench::report::Results;
use bench::setting::Setting;
use bench::{Result, clock, cpu};
use clap::Parser;
use sealcast_model::{Counter, ShardStats, Snapshot, Source, Stage};
use sealcast_srtp::Profile;
use std::process::ExitCode;
use std::time::Duration;

/// Where the search for the rate begins, packets per second out.
const FIRST_RATE: f64 = 60_000.0;
/// How long one step of the search takes.
const GLANCE: Duration = Duration::from_millis(1_500);
/// Steps of the search: batches fill as the rate grows, so the cost of a packet changes with it.
const STEPS: usize = 4;
/// How long timers are watched while the relay idles, each time.
const IDLE: Duration = Duration::from_secs(2);
/// The timer's interval while the relay idles, and while it works: then it must not disturb.
const IDLE_TICK: Duration = Duration::from_millis(1);
const BUSY_TICK: Duration = Duration::from_millis(20);

/// Measures dwell by stage at half load.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    child: Option<Child>,
    #[command(flatten)]
    place: Place,
    /// Receivers of one publisher.
    #[arg(long, value_delimiter = ',', default_values = ["20", "100"])]
    receivers: Vec<usize>,
    /// Packets that the publisher sends at once.
    #[arg(long, value_delimiter = ',', default_values = ["1", "4"])]
    frame: Vec<usize>,
    /// Bytes of payload.
    #[arg(long, default_value_t = 1_100)]
    payload: usize,
    /// Share of the core that the shard is to use.
    #[arg(long, default_value_t = 0.5)]
    load: f64,
    /// Length of one measurement.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// One message in so many is asked for its transmit timestamp.
    #[arg(long, default_value_t = 128)]
    stamp_interval: u32,
    /// Real-time priority of the shard's thread, and of the one that only sleeps; 0: none.
    #[arg(long, default_value_t = 0)]
    realtime: u8,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::main("dwell", arguments.child.as_ref(), || measure(&arguments))
}

fn measure(arguments: &Arguments) -> Result<()> {
    cpu::pin_to(arguments.place.other_cpu)?;
    let mut shapes = Vec::new();
    for receivers in &arguments.receivers {
        let mut measured = Measured::new(arguments, *receivers)?;
        for frame in &arguments.frame {
            eprintln!("1→{receivers}, frames of {frame}");
            shapes.push(measured.measure(*frame)?);
        }
    }
    let report = Report {
        load: arguments.load,
        seconds: arguments.seconds,
        realtime: arguments.realtime,
        shapes,
    };
    Results::new(&report, &report.verdicts()).publish(
        &arguments.place.out,
        report.name(),
        &report.table(),
        report.page(),
    )
}

/// A relay with its clients, and a meter of its thread.
struct Measured<'a> {
    arguments: &'a Arguments,
    setting: Setting,
    meter: cpu::Meter,
}

/// What a run came to.
struct Ran {
    /// What the shard's thread spent from the first packet to the last.
    whole: cpu::Cost,
    /// Share of a core that it used while it was measured.
    load: f64,
    /// What the clients counted.
    tally: Tally,
}

impl<'a> Measured<'a> {
    fn new(arguments: &'a Arguments, receivers: usize) -> Result<Self> {
        let features = Features {
            repair: true,
            // It would not grant a loopback receiver what half a core can send.
            transport_cc: false,
        };
        let (profile, interval) = (Profile::AeadAes256Gcm, arguments.stamp_interval);
        let setting = Setting::connect(&arguments.place, profile, receivers, features, |config| {
            config.stamp_interval = interval;
            config.realtime_priority = arguments.realtime;
        })?;
        Ok(Measured {
            arguments,
            meter: cpu::Meter::open(setting.relay.thread_id),
            setting,
        })
    }

    fn measure(&mut self, frame: usize) -> Result<Shape> {
        let arguments = self.arguments;
        let idle_before = idle_noise(arguments)?;
        let receivers = self.setting.receivers;
        let rate = self.rate_at_load(frame)?;
        let seconds = Duration::from_secs_f64(arguments.seconds);
        let noise = Noise::start(arguments.place.cpu, BUSY_TICK, arguments.realtime)?;
        let stats = std::sync::Arc::clone(self.setting.relay.stats());
        let mut before = None;
        let ran = self.run(rate, frame, seconds, |stats| {
            before = Some((stages(stats), counted(stats)));
        })?;
        let [software, none, out, lost, sent] = counted(&stats);
        let now = stages(&stats);
        let busy = noise.stop()?;
        let idle = idle_before.plus(&idle_noise(arguments)?);
        self.setting.relay.check()?;

        let (before, counted_before) = before.ok_or("nothing was measured")?;
        let [
            software_before,
            none_before,
            out_before,
            lost_before,
            sent_before,
        ] = counted_before;
        let (software, none) = (software - software_before, none - none_before);
        let stamped = out - out_before;
        let mut rows: Vec<_> = (now.iter().zip(&before))
            .map(|((what, now), (_, before))| Row::new(what, &now.since(before)))
            .collect();
        rows.push(Row::new(dwell::TIMER_IDLE, &idle));
        rows.push(Row::new(dwell::TIMER_BUSY, &busy));
        Ok(Shape {
            receivers,
            frame,
            payload: arguments.payload,
            in_per_second: rate,
            out_per_second: (sent - sent_before) as f64 / arguments.seconds,
            core: ran.load,
            not_arrived: 1.0
                - ran.tally.received as f64 / (ran.tally.sent * receivers as u64) as f64,
            stamped_in: software as f64 / (software + none).max(1) as f64,
            stamped_out: (stamped, stamped + lost - lost_before),
            rows,
        })
    }

    /// The rate at which the shard's thread uses the share of its core that was asked for, packets
    /// per second in.
    fn rate_at_load(&mut self, frame: usize) -> Result<f64> {
        let receivers = self.setting.receivers as f64;
        let mut rate = FIRST_RATE / receivers;
        for _ in 0..STEPS {
            // By cost and not by load, which is less than it should be when others use the core.
            let sent_before = self.setting.relay.forwarded().0;
            let ran = self.run(rate, frame, GLANCE, |_| ())?;
            let forwarded = (self.setting.relay.forwarded().0 - sent_before) as f64;
            let cost = ran.whole.total_ns() / 1e9 / forwarded;
            rate = self.arguments.load / cost / receivers;
        }
        Ok(rate)
    }

    /// Sends at `rate` packets a second into the relay; after a while calls `begin` and measures
    /// for `duration`.
    fn run(
        &mut self,
        rate: f64,
        frame: usize,
        duration: Duration,
        begin: impl FnOnce(&ShardStats),
    ) -> Result<Ran> {
        let start = self.meter.read()?;
        self.setting.crowd.run(Pace {
            rate,
            frame,
            payload: self.arguments.payload,
        })?;
        clock::sleep(GLANCE / 3);
        begin(self.setting.relay.stats());
        let (begun, at) = (self.meter.read()?, clock::now());
        clock::sleep(duration);
        let stretch = begun.until(&self.meter.read()?);
        let load = stretch.total_ns() / at.elapsed().as_nanos() as f64;
        let tally = self.setting.crowd.stop()?;
        let whole = start.until(&self.meter.read()?);
        Ok(Ran { whole, load, tally })
    }
}

/// Timer lateness on the shard's CPU while nothing is sent.
fn idle_noise(arguments: &Arguments) -> Result<Snapshot> {
    let noise = Noise::start(arguments.place.cpu, IDLE_TICK, arguments.realtime)?;
    clock::sleep(IDLE);
    noise.stop()
}

/// Every stage of video, the whole last.
fn stages(stats: &ShardStats) -> [(&'static str, Snapshot); 5] {
    let media = stats.media(Source::Camera);
    let stage = |stage| media.stage(stage).snapshot();
    [
        (dwell::KERNEL_QUEUE, stage(Stage::KernelQueue)),
        (dwell::RELAY, stage(Stage::Relay)),
        (dwell::WIRE, stage(Stage::Wire)),
        (dwell::END_OF_CALL, media.dwell.snapshot()),
        (dwell::TOTAL, stage(Stage::Total)),
    ]
}

/// Datagrams in with and without a stamp, messages out whose stamp came back and was lost,
/// datagrams out.
fn counted(stats: &ShardStats) -> [u64; 5] {
    [
        Counter::StampedIn,
        Counter::UnstampedIn,
        Counter::StampedOut,
        Counter::StampLost,
        Counter::DatagramsOut,
    ]
    .map(|counter| stats.get(counter))
}
