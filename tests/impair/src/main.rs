//! Joins two network namespaces by a seeded, impaired path.
//!
//! A TUN device is made in each namespace, 10.78.0.1/24 and fd78::1/64 in the first, .2 and ::2 in
//! the second, and packets cross between them through a [`sealcast_netsim::Link`] each way. While
//! it runs, lines on standard input change a direction: `{"direction":"ab","config":{…}}`. It ends
//! after `--seconds`, or when standard input closes, and prints the links' statistics as JSON.

mod tun;

use clap::Parser;
use sealcast_model::Time;
use sealcast_netsim::{Link, LinkConfig, LinkStats};
use std::io::{BufRead, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(about)]
struct Args {
    /// The first namespace's name.
    #[arg(long)]
    a: String,
    /// The second namespace's name.
    #[arg(long)]
    b: String,
    /// Seed of both directions.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Impairments from the first to the second, JSON.
    #[arg(long, default_value = "{}", value_parser = parse_config)]
    ab: LinkConfig,
    /// Impairments from the second to the first, JSON.
    #[arg(long, default_value = "{}", value_parser = parse_config)]
    ba: LinkConfig,
    /// Ends after this many seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// A change on standard input.
#[derive(serde::Deserialize)]
struct Change {
    direction: Direction,
    config: LinkConfig,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Ab,
    Ba,
}

fn parse_config(text: &str) -> Result<LinkConfig, String> {
    let config: LinkConfig = serde_json::from_str(text).map_err(|e| e.to_string())?;
    config.check().map_err(|e| e.to_string())?;
    Ok(config)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let ends = [
        tun::open(&args.a, &["10.78.0.1/24", "fd78::1/64"])?,
        tun::open(&args.b, &["10.78.0.2/24", "fd78::2/64"])?,
    ];
    let mut links = [
        Link::new(args.ab, args.seed),
        Link::new(args.ba, args.seed ^ 0x5eed),
    ];
    let changes = read_changes();
    println!("{{\"state\":\"ready\"}}");
    std::io::stdout().flush()?;

    let started = clock();
    let deadline = Duration::from_secs(args.seconds);
    let mut buffer = vec![0; 65_536];
    while started.elapsed() < deadline {
        match changes.try_recv() {
            Ok(change) => links[change.direction as usize].set_config(change.config),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        let next = links[0].poll_timeout().min(links[1].poll_timeout());
        let wait = next
            .saturating_since(at(started))
            .min(Duration::from_millis(20));
        tun::wait_readable([ends[0].as_raw_fd(), ends[1].as_raw_fd()], wait)?;
        for (from, link) in links.iter_mut().enumerate() {
            while let Some(n) = tun::read(&ends[from], &mut buffer)? {
                link.push(at(started), buffer[..n].to_vec(), n);
            }
        }
        for (from, link) in links.iter_mut().enumerate() {
            while let Some(packet) = link.pop(at(started)) {
                tun::write(&ends[1 - from], &packet)?;
            }
        }
    }
    let [ab, ba] = [links[0].stats(), links[1].stats()];
    println!(
        "{{\"state\":\"done\",\"ab\":{},\"ba\":{}}}",
        json(&ab),
        json(&ba)
    );
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program is an edge: it owns the clock"
)]
fn clock() -> Instant {
    Instant::now()
}

fn at(started: Instant) -> Time {
    Time::from_nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn json(s: &LinkStats) -> String {
    format!(
        r#"{{"offered":{},"accepted":{},"lost":{},"overflowed":{},"duplicated":{},"reordered":{}}}"#,
        s.offered, s.accepted, s.lost, s.overflowed, s.duplicated, s.reordered
    )
}

/// Changes from standard input. The channel closes with the input; a bad line is reported.
fn read_changes() -> Receiver<Change> {
    let (send, receive) = std::sync::mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str::<Change>(&line) {
                Ok(change) if change.config.check().is_ok() => {
                    if send.send(change).is_err() {
                        return;
                    }
                }
                Ok(_) => eprintln!("out of range: {line}"),
                Err(e) => eprintln!("not a change: {e}: {line}"),
            }
        }
    });
    receive
}
