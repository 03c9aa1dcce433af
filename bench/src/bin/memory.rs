//! What a relay's memory goes into: an empty shard, an idle session, a track, a subscription, a
//! second of history.
//!
//! ```text
//! cargo run --release -p bench --bin memory
//! cargo run --release -p bench --bin memory -- --receivers 1000
//! ```
//!
//! The shard runs in this process with nothing beside it; its clients are another process. *Rust*
//! is what Rust code has allocated and not freed, to the byte; *C* the same of the cryptographic
//! library. *RSS* is what the system says the process has in RAM: it has what both allocators round
//! up, keep for later and have handed out in part.

#![expect(unsafe_code, reason = "a global allocator that counts")]

use bench::cli::{self, Child, Place};
use bench::client::Features;
use bench::crowd::{Crowd, Pace, topology};
use bench::relay::Relay;
use bench::report::chart::{Bar, bars};
use bench::report::{Page, Results, Verdict};
use bench::shape::Topology;
use bench::{Result, clock};
use clap::Parser;
use mimalloc::MiMalloc;
use sealcast_model::Gauge;
use sealcast_model::limits::PACKET_SLOT;
use sealcast_srtp::{Backend, Profile};
use serde::Serialize;
use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write as _;
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

/// The line of an empty shard.
const EMPTY: &str = "an empty shard, its pools untouched";

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
    child: Option<Child>,
    #[command(flatten)]
    place: Place,
    /// Sessions that are measured, beside the publisher's.
    #[arg(long, default_value_t = 500)]
    receivers: usize,
    /// End with an error if a session or a subscription takes more than its limit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::main("memory", arguments.child.as_ref(), || measure(&arguments))
}

/// Memory at one moment, bytes.
#[derive(Clone, Copy)]
struct Mark {
    rust: f64,
    c: f64,
    rss: f64,
}

impl Mark {
    fn now() -> Result<Mark> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|l| l.split_whitespace().next());
        let kib: f64 = kib.ok_or("the system does not tell")?.parse()?;
        Ok(Mark {
            rust: LIVE.load(Relaxed) as f64,
            // Rust's allocations do not pass through `malloc` here.
            c: sealcast_heap::process().live as f64,
            rss: kib * 1_024.0,
        })
    }

    /// What each of `count` things took since `earlier`.
    fn each(&self, earlier: &Mark, count: usize) -> Mark {
        Mark {
            rust: (self.rust - earlier.rust) / count as f64,
            c: (self.c - earlier.c) / count as f64,
            rss: (self.rss - earlier.rss) / count as f64,
        }
    }

    fn heap(&self) -> f64 {
        self.rust + self.c
    }
}

/// What one of something takes.
#[derive(Serialize)]
struct Line {
    what: &'static str,
    rust: f64,
    c: f64,
    rss: f64,
}

impl Line {
    fn new(what: &'static str, of: Mark) -> Line {
        let Mark { rust, c, rss } = of;
        Line { what, rust, c, rss }
    }
}

/// A whole run.
#[derive(Serialize)]
struct Report {
    lines: Vec<Line>,
    /// Packets in the pool for one video track, and what a second of them takes, bytes.
    history: (u64, f64),
}

impl Report {
    fn table(&self) -> String {
        let mut out = format!("{:<52}{:>12}{:>12}{:>12}\n", "bytes", "Rust", "C", "RSS");
        for line in &self.lines {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{:<52}{:>12.0}{:>12.0}{:>12.0}",
                line.what, line.rust, line.c, line.rss
            );
        }
        let (packets, bytes) = self.history;
        let _ = writeln!(
            out,
            "history of a video track: {packets} packets in slots of {PACKET_SLOT} B, {:.1} s at \
             {RATE} packets/s; a second of it: {bytes:.0} B",
            packets as f64 / RATE
        );
        out
    }

    /// The small ones: beside them an empty shard would leave nothing to see.
    fn page(&self) -> Page {
        let mut rows = Vec::new();
        for line in self.lines.iter().filter(|line| line.what != EMPTY) {
            let heap = line.rust + line.c;
            for (kind, bytes, colour) in [("heap", heap, 0), ("RSS", line.rss, 1)] {
                rows.push(Bar {
                    label: format!("{} · {kind}", line.what),
                    parts: vec![(bytes.max(0.0), colour)],
                    note: format!("{bytes:.0} B"),
                    begins_group: kind == "heap",
                    ..Bar::default()
                });
            }
        }
        Page::new(
            "Memory",
            "What each more of something takes in a relay's shard.",
        )
        .plot(
            "Bytes each",
            "Heap is what Rust and the cryptographic library have allocated; RSS is what the system says is resident.",
            &bars(&rows, &[]),
        )
    }
}

/// Measures, and fails if something takes more than its limit, and that is asked about.
fn measure(arguments: &Arguments) -> Result<()> {
    let features = Features {
        repair: true,
        transport_cc: true,
    };
    let mut lines = Vec::new();
    let (session, subscription, history) = sessions(arguments, features, &mut lines)?;
    lines.push(tracks(arguments, features)?);
    let verdicts = [
        Verdict::at_most("an idle session", session.heap(), SESSION_LIMIT, "B"),
        Verdict::at_most(
            "a subscription",
            subscription.heap(),
            SUBSCRIPTION_LIMIT,
            "B",
        ),
    ];
    let report = Report { lines, history };
    let results = Results::new(&report, &verdicts);
    results.publish(
        &arguments.place.out,
        "memory",
        &report.table(),
        report.page(),
    )?;
    if arguments.check && !verdicts.iter().all(Verdict::held) {
        return Err("something takes more than its limit".into());
    }
    Ok(())
}

/// An empty shard, idle sessions, subscriptions, history. Gives a session, a subscription, and the
/// packets of a video track's history with the bytes of a second of it.
fn sessions(
    arguments: &Arguments,
    features: Features,
    lines: &mut Vec<Line>,
) -> Result<(Mark, Mark, (u64, f64))> {
    let program = std::env::current_exe()?;
    let mut crowd = Crowd::start(&program, arguments.place.other_cpu)?;
    let start = Mark::now()?;
    let relay = Relay::start(Backend::AwsLcRs, arguments.place.cpu, |_| ())?;
    lines.push(Line::new(EMPTY, Mark::now()?.each(&start, 1)));

    let receivers = arguments.receivers;
    let topology = topology(receivers);
    let before = Mark::now()?;
    crowd.connect(&relay, Profile::AeadAes256Gcm, receivers, features)?;
    clock::sleep(SETTLED);
    let idle = Mark::now()?;
    let session = idle.each(&before, topology.clients());
    lines.push(Line::new(
        "an idle session: connected, two slots, no track",
        session,
    ));

    relay.publish(&topology, features)?;
    let published = Mark::now()?;
    relay.assign(&topology, 1)?;
    let first = Mark::now()?.each(&published, receivers);
    lines.push(Line::new(
        "the first subscription, with its path's control",
        first,
    ));
    let before = Mark::now()?;
    relay.assign(&topology, 2)?;
    let subscribed = Mark::now()?;
    let subscription = subscribed.each(&before, receivers);
    lines.push(Line::new(
        "each further one: a slot that shows a track",
        subscription,
    ));

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
    let grown = sending.each(&subscribed, receivers);
    lines.push(Line::new(
        "what a path adds that carries video: its log",
        grown,
    ));
    Ok((session, subscription, (used, RATE * PACKET_SLOT as f64)))
}

/// Published tracks, of sessions whose clients never come.
fn tracks(arguments: &Arguments, features: Features) -> Result<Line> {
    let relay = Relay::start(Backend::AwsLcRs, arguments.place.cpu, |_| ())?;
    let topology = Topology::ROOMS;
    relay.open_sessions(&topology, features, 0..topology.clients(), [0; 32])?;
    let before = Mark::now()?;
    relay.publish(&topology, features)?;
    clock::sleep(Duration::from_millis(100));
    let tracks = 2 * topology.all_publishers().count();
    Ok(Line::new(
        "a published track",
        Mark::now()?.each(&before, tracks),
    ))
}
