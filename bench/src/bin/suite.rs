//! Every measurement, one after another, and what it came to: what `make bench` runs.
//!
//! ```text
//! make bench
//! cargo run --release -p bench --bin suite -- --only paced,dwell
//! ```
//!
//! Each part is a program of its own, with a limit on its time. Tables, JSON and pages go to
//! `bench/out`; `index.html` there has all plots and the summary. A part that fails makes the whole
//! fail, at its end; a goal that is missed is said, and fails nothing: another machine may miss it.

use bench::report::{Page, Results, Verdict, verdict_table};
use bench::{Result, clock, process, steps};
use clap::Parser;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Runs every measurement.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The directory that results go to.
    #[arg(long, default_value = "bench/out")]
    out: PathBuf,
}

/// One measurement.
struct Part {
    name: &'static str,
    what: &'static str,
    /// The program beside this one; none for the criterion benches.
    program: Option<&'static str>,
    arguments: &'static [&'static str],
    /// Its results in the output directory, without ending.
    results: &'static str,
    /// Whether its figures are held against goals in the summary.
    judged: bool,
    /// A part that takes longer is ended: twice what it takes on two cores of 2023.
    limit: Duration,
}

/// In the order of what they need of the machine: first what does not mind its noise.
const PARTS: [Part; 9] = [
    Part {
        name: "instructions",
        what: "instructions per forwarded packet, against the committed counts",
        program: Some("instructions"),
        arguments: &["check"],
        results: "instructions",
        judged: true,
        limit: Duration::from_secs(120),
    },
    Part {
        name: "steps",
        what: "each step of a packet's way (criterion)",
        program: None,
        arguments: &["--bench", "--quick", "--noplot"],
        results: "steps",
        judged: true,
        limit: Duration::from_secs(120),
    },
    Part {
        name: "ratio",
        what: "floor, Sealcast and stock at 1→20, 1→100 and 1→1000",
        program: Some("ratio"),
        arguments: &["--topology", "1→20,1→100,1→1000", "--repetitions", "3"],
        results: "ratio",
        judged: true,
        limit: Duration::from_secs(240),
    },
    Part {
        name: "profiles",
        what: "floor and Sealcast in every topology, profile and back end",
        program: Some("ratio"),
        arguments: &[
            "--all",
            "--no-stock",
            "--packets",
            "20000",
            "--repetitions",
            "3",
            "--name",
            "profiles",
        ],
        results: "profiles",
        judged: false,
        limit: Duration::from_secs(300),
    },
    Part {
        name: "paced",
        what: "set rates, and saturation",
        program: Some("paced"),
        arguments: &["--seconds", "2"],
        results: "paced",
        judged: true,
        limit: Duration::from_secs(240),
    },
    Part {
        name: "dwell",
        what: "time in the relay at half load",
        program: Some("dwell"),
        arguments: &["--seconds", "4"],
        results: "dwell",
        judged: true,
        limit: Duration::from_secs(180),
    },
    Part {
        name: "shards",
        what: "one shard and two",
        program: Some("shards"),
        arguments: &[],
        results: "shards",
        judged: true,
        limit: Duration::from_secs(120),
    },
    Part {
        name: "memory",
        what: "bytes per session, track and subscription",
        program: Some("memory"),
        arguments: &[],
        results: "memory",
        judged: true,
        limit: Duration::from_secs(120),
    },
    Part {
        name: "zerocopy",
        what: "MSG_ZEROCOPY and io_uring beside what is shipped, over loopback",
        program: Some("zerocopy"),
        arguments: &["--repetitions", "3"],
        results: "zerocopy",
        judged: false,
        limit: Duration::from_secs(120),
    },
];

/// What became of a part.
struct Outcome {
    part: &'static Part,
    seconds: f64,
    failure: Option<String>,
    verdicts: Vec<Verdict>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = process::end_together().and_then(|()| run(&arguments));
    bench::exit_code("suite", result)
}

fn run(arguments: &Arguments) -> Result<()> {
    let unknown = arguments
        .only
        .iter()
        .find(|name| PARTS.iter().all(|part| part.name != **name));
    if let Some(unknown) = unknown {
        let known: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        return Err(format!("no part is called {unknown}: {}", known.join(", ")).into());
    }
    let is_chosen = |part: &&Part| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == part.name)
    };
    let parts: Vec<&Part> = PARTS.iter().filter(is_chosen).collect();
    std::fs::create_dir_all(&arguments.out)?;
    let start = clock::now();
    let mut outcomes = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        println!("\n» {}/{} {}: {}", i + 1, parts.len(), part.name, part.what);
        let begun = clock::now();
        let failure = measure(part, &arguments.out).err().map(|e| e.to_string());
        let seconds = begun.elapsed().as_secs_f64();
        match &failure {
            None => println!("» {} took {seconds:.0} s", part.name),
            Some(failure) => println!("» {} FAILED after {seconds:.0} s: {failure}", part.name),
        }
        let verdicts = match &failure {
            None if part.judged => verdicts(part, &arguments.out)?,
            _ => Vec::new(),
        };
        outcomes.push(Outcome {
            part,
            seconds,
            failure,
            verdicts,
        });
    }
    let summary = summary(&outcomes, start.elapsed());
    println!("\n{summary}");
    write_index(&outcomes, &summary, &arguments.out)?;
    let failed: Vec<_> = outcomes.iter().filter(|o| o.failure.is_some()).collect();
    match failed.len() {
        0 => Ok(()),
        n => Err(format!("{n} of {} parts failed", outcomes.len()).into()),
    }
}

/// Runs a part, which leaves its results in `out`.
fn measure(part: &Part, out: &Path) -> Result<()> {
    // What an earlier run left must not pass for this one's.
    for ending in ["txt", "json", "html"] {
        let path = result(part, out, ending);
        if path.exists() {
            std::fs::remove_file(path)?;
        }
    }
    let Some(program) = part.program else {
        return measure_steps(part, out);
    };
    let own = std::env::current_exe()?;
    let program = own.with_file_name(program);
    let mut command = Command::new(&program);
    command.args(part.arguments).arg("--out").arg(out);
    succeed(&mut command, part.limit)
}

fn succeed(command: &mut Command, limit: Duration) -> Result<()> {
    let status = process::run(command.stdin(Stdio::null()), limit)
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{}: {status}", command.get_program().display()).into())
}

fn result(part: &Part, out: &Path, ending: &str) -> PathBuf {
    out.join(format!("{}.{ending}", part.results))
}

/// Runs the criterion benches and gathers what they leave.
fn measure_steps(part: &Part, out: &Path) -> Result<()> {
    let home = std::path::absolute(out)?.join("criterion");
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    for bench in benches()? {
        let mut command = Command::new(bench);
        command.args(part.arguments).env("CRITERION_HOME", &home);
        // Criterion's own lines are for a person who looks at one bench.
        succeed(
            command.stdout(Stdio::null()).stderr(Stdio::null()),
            part.limit,
        )?;
    }
    let steps = steps::collect(&home)?;
    Results::new(&steps, &[]).publish(
        out,
        part.results,
        &steps::table(&steps),
        steps::page(&steps),
    )
}

/// Cargo's message about a finished target, as far as it is needed.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// The criterion benches' executables; builds them if they are not there yet.
fn benches() -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--no-run", "--quiet", "--locked", "-p", "bench"])
        .args(["--bench", "*", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the benches do not build".into());
    }
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let mut executables = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let message: Message = serde_json::from_slice(line)?;
        let is_bench = |target: &Target| target.kind.iter().any(|kind| kind == "bench");
        if message.target.as_ref().is_some_and(is_bench) {
            executables.extend(message.executable);
        }
    }
    match executables.len() {
        0 => Err("cargo names no benches".into()),
        _ => Ok(executables),
    }
}

/// A program's JSON, as far as it is needed.
#[derive(Deserialize)]
struct Written {
    verdicts: Vec<Verdict>,
}

fn verdicts(part: &Part, out: &Path) -> Result<Vec<Verdict>> {
    let path = result(part, out, "json");
    let json = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let written: Written = serde_json::from_slice(&json)?;
    Ok(written.verdicts)
}

fn summary(outcomes: &[Outcome], took: Duration) -> String {
    let mut out = String::from("Summary\n");
    // Writing to a string cannot fail.
    for outcome in outcomes {
        let name = outcome.part.name;
        let _ = match &outcome.failure {
            None => writeln!(out, "{name:<14}{:>6.0} s", outcome.seconds),
            Some(failure) => writeln!(
                out,
                "{name:<14}{:>6.0} s  FAILED: {failure}",
                outcome.seconds
            ),
        };
    }
    let _ = writeln!(out, "{:<14}{:>6.0} s", "altogether", took.as_secs_f64());
    for outcome in outcomes.iter().filter(|o| !o.verdicts.is_empty()) {
        let _ = write!(
            out,
            "\n{}\n{}",
            outcome.part.name,
            verdict_table(&outcome.verdicts)
        );
    }
    let all = || outcomes.iter().flat_map(|o| &o.verdicts);
    let held = all().filter(|v| v.held()).count();
    let goals = all().count();
    if goals > 0 {
        let _ = writeln!(out, "\n{held} of {goals} goals held on this machine, now");
    }
    out
}

/// Puts every part's page on one.
fn write_index(outcomes: &[Outcome], summary: &str, out: &Path) -> Result<()> {
    let mut page =
        Page::new("Sealcast: all measurements", &bench::report::machine()).table(summary);
    for outcome in outcomes.iter().filter(|o| o.failure.is_none()) {
        page = page.embed(&std::fs::read_to_string(result(outcome.part, out, "html"))?);
    }
    for (name, contents) in [
        ("index.html", page.html()),
        ("summary.txt", summary.to_owned()),
    ] {
        let path = out.join(name);
        std::fs::write(&path, contents)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
