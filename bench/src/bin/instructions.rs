//! How many instructions a forwarded packet takes, and whether that is more than it was.
//!
//! ```text
//! cargo run --release -p bench --bin instructions -- check
//! cargo run --release -p bench --bin instructions -- update
//! ```
//!
//! A whole shard forwards packets from memory to memory under `valgrind --tool=callgrind`, which
//! counts alike on every machine, however busy. Counted is what the relay's own code executes:
//! opening, parsing, choosing, rewriting, and the way to the sealed packet and back. What the
//! cryptographic library executes is left out, since valgrind knows no AVX-512 and the library
//! takes another way there than it does on the machine. Instructions that lock a cache line, which
//! mutexes and shared counts are made of, are counted in all code, and there must be none. `check` fails if a shape takes over 5 %
//! more than the committed baseline; `update` writes the baseline anew.

use bench::Result;
use bench::callgrind::{Profile as Counts, count, locking};
use bench::client::Features;
use bench::report::chart::{Bar, bars};
use bench::report::{Page, Results, Verdict, verdict_table};
use bench::shape::{Topology, Traffic};
use bench::world::World;
use clap::{Parser, Subcommand};
use sealcast_srtp::{Backend, Profile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

/// Growth that fails the check.
const ALLOWED: f64 = 0.05;
/// Frames forwarded per shape.
const FRAMES: usize = 64;
/// The function that callgrind counts inside of.
const COUNTED: &str = "*World*forward*";

/// Counts instructions per forwarded packet.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The committed counts.
    #[arg(long, default_value = "bench/instructions.json", global = true)]
    baseline: PathBuf,
    /// A directory for a table, JSON and a page of what `check` finds.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Compares with the baseline, and fails if it is exceeded.
    Check,
    /// Writes the baseline.
    Update,
    /// Forwards one shape; runs under valgrind.
    #[command(hide = true)]
    Forward {
        #[arg(long)]
        shape: usize,
    },
}

/// Shapes that are counted: fan-out and traffic. Video in single packets and in frames, audio.
const SHAPES: [(Topology, usize); 4] = [
    (Topology::TO_20, 0),
    (Topology::TO_20, 2),
    (Topology::TO_20, 3),
    (Topology::ROOMS, 0),
];

fn name(shape: usize) -> String {
    let (topology, traffic) = &SHAPES[shape];
    format!("{}, {}", topology.name, Traffic::ALL[*traffic].name)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Forward { shape } => forward(shape),
        Command::Check => check(&arguments.baseline, arguments.out.as_deref()),
        Command::Update => update(&arguments.baseline),
    };
    bench::exit_code("instructions", result)
}

/// What valgrind watches: a first load warms everything up, and says so by what it is not.
fn forward(shape: usize) -> Result<()> {
    let (topology, traffic) = SHAPES.get(shape).ok_or("no such shape")?;
    let traffic = Traffic::ALL.get(*traffic).ok_or("no such traffic")?;
    let features = Features {
        repair: true,
        transport_cc: true,
    };
    let profile = Profile::AeadAes128Gcm;
    let mut world = World::new(*topology, features, profile, Backend::AwsLcRs)?;
    let load = world.prepare(traffic, FRAMES)?;
    println!("{}", world.forward(&load));
    Ok(())
}

/// Instructions per forwarded packet of each shape.
fn measure() -> Result<BTreeMap<String, f64>> {
    let program = std::env::current_exe()?;
    let mut counted = BTreeMap::new();
    for shape in 0..SHAPES.len() {
        let out = std::env::temp_dir().join(format!(
            "sealcast-instructions-{}-{shape}",
            std::process::id()
        ));
        let output = Process::new("valgrind")
            .args(["--tool=callgrind", "--collect-atstart=no", "--quiet"])
            .arg("--dump-instr=yes")
            .arg(format!("--toggle-collect={COUNTED}"))
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(&program)
            .args(["forward", "--shape", &shape.to_string()])
            .output()
            .map_err(|e| format!("valgrind: {e}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {said}", name(shape)).into());
        }
        let packets: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        let counts: Counts = count(&std::fs::read_to_string(&out)?, locking)?;
        std::fs::remove_file(&out)?;
        println!(
            "{:<24}{:>8.1} instructions per forwarded packet, and {:.1} of the cryptographic library; \
             {} lock operations",
            name(shape),
            counts.own as f64 / packets,
            counts.crypto as f64 / packets,
            counts.locked as f64 / packets
        );
        if counts.locked > 0 {
            let of = name(shape);
            return Err(format!("{of}: the packet path locks: {} times", counts.locked).into());
        }
        counted.insert(name(shape), counts.own as f64 / packets);
    }
    Ok(counted)
}

fn update(baseline: &Path) -> Result<()> {
    let counted = measure()?;
    let rounded: BTreeMap<_, _> = counted
        .into_iter()
        .map(|(name, count)| (name, (count * 10.0).round() / 10.0))
        .collect();
    std::fs::write(baseline, serde_json::to_string_pretty(&rounded)? + "\n")?;
    println!("wrote {}", baseline.display());
    Ok(())
}

/// A shape's count beside the baseline's.
#[derive(Serialize)]
struct Compared {
    shape: String,
    instructions: f64,
    baseline: f64,
}

fn check(baseline: &Path, out: Option<&Path>) -> Result<()> {
    let allowed: BTreeMap<String, f64> = serde_json::from_slice(&std::fs::read(baseline)?)?;
    let mut compared = Vec::new();
    for (shape, instructions) in measure()? {
        let was = allowed
            .get(&shape)
            .ok_or_else(|| format!("the baseline has no \"{shape}\": run `instructions update`"))?;
        compared.push(Compared {
            shape,
            instructions,
            baseline: *was,
        });
    }
    let growth = |of: &Compared| 100.0 * (of.instructions / of.baseline - 1.0);
    let judge = |of: &Compared| {
        let what = format!("instructions over the baseline's, {}", of.shape);
        Verdict::at_most(what, growth(of), 100.0 * ALLOWED, "%")
    };
    let verdicts: Vec<_> = compared.iter().map(judge).collect();
    let results = Results::new(&compared, &verdicts);
    match out {
        Some(out) => results.publish(out, "instructions", &table(&compared), page(&compared))?,
        None => print!("{}", verdict_table(&verdicts)),
    }
    let worse: Vec<_> = verdicts.iter().filter(|v| !v.held()).collect();
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "over {:.0} % more instructions per forwarded packet than the baseline in {} shapes. If it \
         is worth it, run `cargo run --release -p bench --bin instructions -- update` and say why.",
        100.0 * ALLOWED,
        worse.len()
    )
    .into())
}

fn table(compared: &[Compared]) -> String {
    let mut out = String::from("instructions of the relay's own code per forwarded packet\n");
    for of in compared {
        // Writing to a string cannot fail.
        let (now, was) = (of.instructions, of.baseline);
        let _ = writeln!(out, "{:<24}{now:>8.1}, baseline {was:.1}", of.shape);
    }
    out
}

fn page(compared: &[Compared]) -> Page {
    let rows: Vec<_> = (compared.iter())
        .map(|of| Bar {
            label: of.shape.clone(),
            parts: vec![(of.instructions, 0)],
            goal: Some(of.baseline * (1.0 + ALLOWED)),
            note: format!("{:.0}, baseline {:.0}", of.instructions, of.baseline),
            ..Bar::default()
        })
        .collect();
    Page::new(
        "Instructions per forwarded packet",
        "Of the relay's own code, counted by callgrind; the same on every machine.",
    )
    .plot(
        "Instructions",
        "The mark is what fails the check: 5 % more than the baseline.",
        &bars(&rows, &[]),
    )
}
