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

use bench::client::Features;
use bench::crowd::{Crowd, Pace, Tally, topology};
use bench::noise::Noise;
use bench::relay::Relay;
use bench::report::machine;
use bench::{Result, clock, cpu, crowd};
use clap::{Parser, Subcommand};
use sealcast_model::{Counter, ShardStats, Snapshot, Source, Stage};
use sealcast_srtp::{Backend, Profile};
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
    command: Option<Command>,
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
    /// The CPU of the shard.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// The CPU for the clients.
    #[arg(long, default_value_t = 1)]
    other_cpu: usize,
}

#[derive(Subcommand)]
enum Command {
    /// The clients' process; started by the measuring one.
    #[command(hide = true)]
    Crowd {
        #[arg(long)]
        cpu: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Crowd { cpu }) => crowd::serve(*cpu),
        None => measure(&arguments),
    };
    bench::exit_code("dwell", result)
}

fn measure(arguments: &Arguments) -> Result<()> {
    cpu::pin_to(arguments.other_cpu)?;
    println!(
        "{}; the rate is that at which the shard's thread uses {:.0} % of its core",
        machine(),
        100.0 * arguments.load
    );
    for receivers in &arguments.receivers {
        let mut setting = Setting::new(arguments, *receivers)?;
        for frame in &arguments.frame {
            setting.measure(arguments, *frame)?;
        }
    }
    Ok(())
}

/// A relay with its clients connected.
struct Setting {
    receivers: usize,
    relay: Relay,
    crowd: Crowd,
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

/// What the relay recorded of one stage, with what to call it.
type Row = (&'static str, Snapshot);

impl Setting {
    fn new(arguments: &Arguments, receivers: usize) -> Result<Setting> {
        let features = Features {
            repair: true,
            // It would not grant a loopback receiver what half a core can send.
            transport_cc: false,
        };
        let interval = arguments.stamp_interval;
        let relay = Relay::start(Backend::AwsLcRs, arguments.cpu, |config| {
            config.stamp_interval = interval;
        })?;
        let program = std::env::current_exe()?;
        let mut crowd = Crowd::start(&program, arguments.other_cpu)?;
        let topology = topology(receivers);
        relay.open_sessions(
            &topology,
            features,
            0..topology.clients(),
            crowd.fingerprint,
        )?;
        let profile = Profile::AeadAes256Gcm;
        crowd.connect(
            relay.address,
            relay.fingerprint,
            profile,
            receivers,
            features,
        )?;
        relay.subscribe(&topology, features)?;
        Ok(Setting {
            receivers,
            meter: cpu::Meter::open(relay.thread_id),
            relay,
            crowd,
        })
    }

    fn measure(&mut self, arguments: &Arguments, frame: usize) -> Result<()> {
        let idle_before = idle_noise(arguments.cpu)?;
        let mut rate = FIRST_RATE / self.receivers as f64;
        for _ in 0..STEPS {
            // By cost and not by load, which is less than it should be when others use the core.
            let sent_before = self.relay.forwarded().0;
            let ran = self.run(arguments, rate, frame, GLANCE, |_| ())?;
            let forwarded = (self.relay.forwarded().0 - sent_before) as f64;
            rate =
                arguments.load / (ran.whole.total_ns() / 1e9 / forwarded) / self.receivers as f64;
        }
        let seconds = Duration::from_secs_f64(arguments.seconds);
        let noise = Noise::start(arguments.cpu, BUSY_TICK)?;
        let mut before = None;
        let stats = std::sync::Arc::clone(self.relay.stats());
        let sent_before = stats.get(Counter::DatagramsOut);
        let ran = self.run(arguments, rate, frame, seconds, |stats| {
            before = Some((rows(stats), stamps(stats)));
        })?;
        let sent = stats.get(Counter::DatagramsOut) - sent_before;
        let busy = noise.stop()?;
        let idle = idle_before.plus(&idle_noise(arguments.cpu)?);
        self.relay.check()?;

        let (before, stamps_before) = before.ok_or("nothing was measured")?;
        let now = rows(&stats);
        println!(
            "\n1→{}, frames of {frame} × {} bytes, {:.0} packets/s in, {:.0} datagrams/s out, \
             {:.0} % of a core; {:.2} % of what was forwarded did not arrive",
            self.receivers,
            arguments.payload,
            rate,
            sent as f64 / arguments.seconds,
            100.0 * ran.load,
            100.0
                * (1.0
                    - ran.tally.received as f64 / (ran.tally.sent * self.receivers as u64) as f64),
        );
        let [software, none, out, lost] = stamps(&stats);
        let [software_before, none_before, out_before, lost_before] = stamps_before;
        println!(
            "stamped: {:.2} % of {} datagrams in; {} of {} messages out that asked",
            100.0 * (software - software_before) as f64
                / (software + none - software_before - none_before).max(1) as f64,
            software + none - software_before - none_before,
            out - out_before,
            out + lost - out_before - lost_before,
        );
        println!(
            "{:<26}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "µs", "packets", "p50", "p90", "p99", "p99.9", "max"
        );
        for ((name, now), (_, before)) in now.iter().zip(&before) {
            print_row(name, &now.since(before));
        }
        print_row("timer, relay idle", &idle);
        print_row("timer, relay at work", &busy);
        let total = now.iter().zip(&before).next_back().ok_or("no stages")?;
        verdict(&total.0.1.since(&total.1.1), &idle);
        Ok(())
    }

    /// Sends at `rate` packets a second into the relay; after a while calls `begin` and measures
    /// for `duration`.
    fn run(
        &mut self,
        arguments: &Arguments,
        rate: f64,
        frame: usize,
        duration: Duration,
        begin: impl FnOnce(&ShardStats),
    ) -> Result<Ran> {
        let start = self.meter.read()?;
        self.crowd.run(Pace {
            rate,
            frame,
            payload: arguments.payload,
        })?;
        clock::sleep(GLANCE / 3);
        begin(self.relay.stats());
        let (begun, at) = (self.meter.read()?, clock::now());
        clock::sleep(duration);
        let stretch = begun.until(&self.meter.read()?);
        let load = stretch.total_ns() / at.elapsed().as_nanos() as f64;
        let tally = self.crowd.stop()?;
        let whole = start.until(&self.meter.read()?);
        Ok(Ran { whole, load, tally })
    }
}

/// Timer lateness on the shard's CPU while nothing is sent.
fn idle_noise(cpu: usize) -> Result<Snapshot> {
    let noise = Noise::start(cpu, IDLE_TICK)?;
    clock::sleep(IDLE);
    noise.stop()
}

/// Every stage of video, the whole last.
fn rows(stats: &ShardStats) -> Vec<Row> {
    let media = stats.media(Source::Camera);
    let stage = |stage| media.stage(stage).snapshot();
    vec![
        ("kernel queue", stage(Stage::KernelQueue)),
        ("relay", stage(Stage::Relay)),
        ("wire (sampled)", stage(Stage::Wire)),
        ("to end of call", media.dwell.snapshot()),
        ("kernel to kernel (sampled)", stage(Stage::Total)),
    ]
}

/// Datagrams in with and without a stamp, messages out whose stamp came back and was lost.
fn stamps(stats: &ShardStats) -> [u64; 4] {
    [
        Counter::StampedIn,
        Counter::UnstampedIn,
        Counter::StampedOut,
        Counter::StampLost,
    ]
    .map(|counter| stats.get(counter))
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

fn print_row(name: &str, of: &Snapshot) {
    let at = |q| micros(of.quantile(q));
    println!(
        "{name:<26}{:>10}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
        of.count(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
    );
}

/// Says whether p50 is under 100 µs and p99 under 1 ms, and whether the machine allows it.
fn verdict(total: &Snapshot, idle: &Snapshot) {
    for (name, q, bound) in [("p50", 0.5, 100.0), ("p99", 0.99, 1_000.0)] {
        let (dwell, noise) = (micros(total.quantile(q)), micros(idle.quantile(q)));
        let held = if dwell < bound { "held" } else { "NOT held" };
        println!(
            "{name} {dwell:.1} µs, target {bound:.0} µs: {held} (a sleeping thread's {name}: {noise:.1} µs)"
        );
    }
}
