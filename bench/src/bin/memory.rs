//! What a relay's memory goes into: an empty shard, an idle session, a track, a subscription, a
//! second of history.
//!
//! ```text
//! cargo run --release -p bench --bin memory
//! cargo run --release -p bench --bin memory -- --receivers 1000
//! ```
//!
//! The shard runs in this process with nothing beside it; its clients are another process. *Heap*
//! is what Rust code has allocated and not freed, to the byte. *RSS* is what the system says the
//! process has in RAM: it has the allocator's rounding in it, and what the cryptographic library
//! allocates in C.

#![expect(unsafe_code, reason = "a global allocator that counts")]

use bench::client::Features;
use bench::crowd::{Crowd, Pace, topology};
use bench::relay::Relay;
use bench::report::machine;
use bench::shape::Topology;
use bench::{Result, clock, crowd};
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use sealcast_model::Gauge;
use sealcast_model::limits::PACKET_SLOT;
use sealcast_srtp::{Backend, Profile};
use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// Idle sessions are measured when their handshakes have been over for so long.
const SETTLED: Duration = Duration::from_secs(2);
/// How long media is sent before subscriptions are measured: longer than history reaches back.
const SENDING: Duration = Duration::from_secs(6);
/// What is sent meanwhile, packets per second: about 2.6 Mbit/s.
const RATE: f64 = 300.0;
/// What a session, history aside, and a subscription may take.
const SESSION_LIMIT: f64 = 40.0 * 1_024.0;
const SUBSCRIPTION_LIMIT: f64 = 2.0 * 1_024.0;

static LIVE: AtomicI64 = AtomicI64::new(0);

/// The relay's allocator, with a count.
struct Counting;

// SAFETY: every call goes to mimalloc unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures what a relay's memory goes into.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Sessions that are measured, beside the publisher's.
    #[arg(long, default_value_t = 500)]
    receivers: usize,
    /// The CPU of the shard.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// The CPU for the clients.
    #[arg(long, default_value_t = 1)]
    other_cpu: usize,
    /// End with an error if a session or a subscription takes more than its limit.
    #[arg(long)]
    check: bool,
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
        Some(Command::Crowd { cpu }) => crowd::serve(*cpu).map(|()| true),
        None => measure(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Memory at one moment, bytes.
#[derive(Clone, Copy)]
struct Mark {
    heap: f64,
    rss: f64,
}

impl Mark {
    fn now() -> Result<Mark> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|l| l.split_whitespace().next());
        let kib: f64 = kib.ok_or("the system does not tell")?.parse()?;
        Ok(Mark {
            heap: LIVE.load(Relaxed) as f64,
            rss: kib * 1_024.0,
        })
    }

    /// What each of `count` things took since `earlier`.
    fn each(&self, earlier: &Mark, count: usize) -> Mark {
        Mark {
            heap: (self.heap - earlier.heap) / count as f64,
            rss: (self.rss - earlier.rss) / count as f64,
        }
    }
}

fn print(what: &str, of: Mark) {
    println!("{what:<52}{:>12.0}{:>12.0}", of.heap, of.rss);
}

/// Measures and prints; false if something takes more than its limit, and that is asked about.
fn measure(arguments: &Arguments) -> Result<bool> {
    println!("{}\n{:<52}{:>12}{:>12}", machine(), "bytes", "heap", "RSS");
    let features = Features {
        repair: true,
        transport_cc: true,
    };
    let (session, subscription) = sessions(arguments, features)?;
    tracks(arguments, features)?;
    let mut held = true;
    for (what, of, limit) in [
        ("idle session", session.rss.max(session.heap), SESSION_LIMIT),
        ("subscription", subscription.heap, SUBSCRIPTION_LIMIT),
    ] {
        let verdict = if of < limit { "held" } else { "NOT held" };
        println!("{what}: {of:.0} of {limit:.0} B: {verdict}");
        held &= of < limit;
    }
    Ok(held || !arguments.check)
}

/// An empty shard, idle sessions, subscriptions, history. Gives a session and a subscription.
fn sessions(arguments: &Arguments, features: Features) -> Result<(Mark, Mark)> {
    let program = std::env::current_exe()?;
    let mut crowd = Crowd::start(&program, arguments.other_cpu)?;
    let start = Mark::now()?;
    let relay = Relay::start(Backend::AwsLcRs, arguments.cpu, |_| ())?;
    print(
        "an empty shard, its pools untouched",
        Mark::now()?.each(&start, 1),
    );

    let receivers = arguments.receivers;
    let topology = topology(receivers);
    let before = Mark::now()?;
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
    clock::sleep(SETTLED);
    let idle = Mark::now()?;
    let session = idle.each(&before, topology.clients());
    print("an idle session: connected, two slots, no track", session);

    relay.subscribe(&topology, features)?;
    clock::sleep(Duration::from_millis(100));
    let subscribed = Mark::now()?;
    // Each receiver gets audio and video; the publisher's two tracks are lost among them.
    let assigned = subscribed.each(&idle, 2 * receivers);
    print("a subscription: a slot that shows a track", assigned);

    crowd.run(Pace {
        rate: RATE,
        frame: 1,
        payload: 1_100,
    })?;
    clock::sleep(SENDING);
    let sending = Mark::now()?;
    let stats = relay.stats();
    let used = stats.gauge(Gauge::PoolCapacity) - stats.gauge(Gauge::PoolFree);
    crowd.stop()?;
    relay.check()?;
    // Video alone is sent, so one of two is in use.
    let grown = sending.each(&subscribed, receivers);
    let in_use = Mark {
        heap: assigned.heap + grown.heap,
        rss: assigned.rss + grown.rss,
    };
    print("a subscription to video that is sent", in_use);
    let seconds = used as f64 / RATE;
    println!(
        "history of a video track: {used} packets in slots of {PACKET_SLOT} B, {seconds:.1} s at \
         {RATE} packets/s; a second of it: {:.0} B",
        RATE * PACKET_SLOT as f64
    );
    Ok((session, in_use))
}

/// Published tracks, of sessions whose clients never come.
fn tracks(arguments: &Arguments, features: Features) -> Result<()> {
    let relay = Relay::start(Backend::AwsLcRs, arguments.cpu, |_| ())?;
    let topology = Topology::ROOMS;
    relay.open_sessions(&topology, features, 0..topology.clients(), [0; 32])?;
    let before = Mark::now()?;
    relay.publish(&topology, features)?;
    clock::sleep(Duration::from_millis(100));
    let tracks = 2 * topology.all_publishers().count();
    print("a published track", Mark::now()?.each(&before, tracks));
    Ok(())
}
