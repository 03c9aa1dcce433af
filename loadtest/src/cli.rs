//! The command line.

use clap::{Args, Parser, Subcommand};
use sealcast_load::agents;
use sealcast_load::compare::{self, Comparison};
use sealcast_load::driver::unix_now;
use sealcast_load::http::Http;
use sealcast_load::report::{html, junit, terminal};
use sealcast_load::result::{Counter, DERIVED, Hist, Outcome, RunResult};
use sealcast_load::run::{self, Options, Preflight, Progress, Whip};
use sealcast_load::scenario::{BUILT_IN, Scenario};
use sealcast_load::schedule::Share;
use sealcast_load::tokens::{Key, TokenSource};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Failure = Box<dyn std::error::Error>;

/// Characters of an agent's secret at least: it opens a load generator to whoever knows it.
const MIN_SECRET: usize = 16;

/// Loads a relay with clients that check every byte they receive, and judges the run by targets.
///
/// Exit code: 0 every target met, 1 a target missed, 2 the run is invalid because the generator did
/// not keep up, 3 it could not run.
#[derive(Parser)]
#[command(name = "sealcast-load", version)]
pub(crate) struct Cli {
    /// Tell more, on standard error.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario.
    Run(Box<RunArgs>),
    /// Wait for a coordinator's work on this machine.
    Agent(Box<AgentArgs>),
    /// Compare two runs, with confidence intervals.
    Compare {
        /// Result file of the run to compare with.
        a: PathBuf,
        /// Result file of the run that may differ.
        b: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Render a result file anew.
    Report {
        /// Result file.
        result: PathBuf,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// List the built-in scenarios, or print one.
    Scenarios {
        /// Its name.
        name: Option<String>,
    },
    /// List every figure that a target can be set for.
    Figures,
}

#[derive(Args)]
struct RunArgs {
    /// A built-in scenario, or a TOML file.
    scenario: String,
    /// The relay's HTTP address, such as http://127.0.0.1:7880; for WHIP, that of the server.
    #[arg(long, value_name = "URL")]
    against: String,
    /// A further target, such as 'frame_latency.p99 < 150ms'.
    #[arg(long = "slo", value_name = "TARGET")]
    slo: Vec<String>,
    /// Leave the scenario's own targets out.
    #[arg(long)]
    only_slo: bool,
    /// Seconds to measure.
    #[arg(long)]
    duration: Option<f64>,
    /// Rooms.
    #[arg(long)]
    rooms: Option<u64>,
    /// Clients of a role in each room, as ROLE=N.
    #[arg(long, value_name = "ROLE=N", value_parser = role_count)]
    count: Vec<(String, u64)>,
    /// Joins begun per second.
    #[arg(long)]
    joins_per_second: Option<f64>,
    /// Everything random follows from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Media threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Longest lag of the generator, milliseconds, before the run is invalid.
    #[arg(long)]
    max_lag: Option<f64>,
    /// 99th percentile of the generator's lag, milliseconds, before the run is invalid.
    #[arg(long)]
    max_lag_p99: Option<f64>,
    /// Publish by WHIP here instead; {room} stands for the room.
    #[arg(long, value_name = "URL", requires = "whep")]
    whip: Option<String>,
    /// Play by WHEP from here.
    #[arg(long, value_name = "URL", requires = "whip")]
    whep: Option<String>,
    /// Where the relay's metrics are, if not at /metrics of its HTTP address.
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// Send media here instead of to the relay's candidates.
    #[arg(long, value_name = "ADDRESS")]
    media_address: Option<SocketAddr>,
    /// Name of this machine in reports.
    #[arg(long, default_value = "generator")]
    name: String,
    /// Run on this agent, such as 192.0.2.7:7999; several share the rooms.
    #[arg(long = "agent", value_name = "ADDRESS", requires = "agent_secret")]
    agents: Vec<String>,
    /// File with the agents' secret.
    #[arg(long, value_name = "FILE")]
    agent_secret: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Args)]
struct AgentArgs {
    /// Where to listen. Lines are not encrypted: loopback, or a network of its own.
    #[arg(long, default_value = "127.0.0.1:7999")]
    listen: SocketAddr,
    /// File with the secret that coordinators must know.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Media threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Name of this machine in reports.
    #[arg(long, default_value = "agent")]
    name: String,
    #[command(flatten)]
    access: Access,
}

/// Where tokens come from; a development relay gives them to anybody.
#[derive(Args)]
struct Access {
    /// No tokens: for servers that want none.
    #[arg(long, conflicts_with_all = ["token_command", "key"])]
    no_token: bool,
    /// A shell command that prints a token; ROOM, SUBJECT and PUBLISH are in its environment.
    #[arg(long, value_name = "COMMAND", conflicts_with = "key")]
    token_command: Option<String>,
    /// The application's private key or secret, to sign tokens with.
    #[arg(long, value_name = "FILE", requires_all = ["issuer", "audience"])]
    key: Option<PathBuf>,
    /// The key's algorithm: ES256, EdDSA or HS256.
    #[arg(long, default_value = "ES256")]
    algorithm: String,
    /// The key's id.
    #[arg(long)]
    kid: Option<String>,
    /// Issuer of the tokens.
    #[arg(long)]
    issuer: Option<String>,
    /// Audience of the tokens.
    #[arg(long)]
    audience: Option<String>,
    /// Certificates to trust beside the system's, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Args)]
struct Outputs {
    /// Write the result here, for `compare` and `report`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write JUnit XML here.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a report for people here.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn role_count(text: &str) -> Result<(String, u64), String> {
    let (role, n) = text.split_once('=').ok_or("expected ROLE=N")?;
    let n = n.parse().map_err(|_| format!("{n:?} is no number"))?;
    Ok((role.to_owned(), n))
}

/// Does what the arguments say.
///
/// # Errors
/// Whatever keeps it from being done, for people.
pub(crate) fn execute(arguments: Cli) -> Result<Outcome, Failure> {
    match arguments.command {
        Command::Run(arguments) => run_scenario(*arguments),
        Command::Agent(arguments) => serve_agent(&arguments),
        Command::Compare { a, b, json } => {
            let comparison = compare::compare(&RunResult::read(&a)?, &RunResult::read(&b)?);
            tell_comparison(&comparison, json)?;
            Ok(Outcome::Passed)
        }
        Command::Report { result, outputs } => {
            let result = RunResult::read(&result)?;
            outputs.write(&result)?;
            print!("{}", terminal::summary(&result));
            Ok(result.outcome())
        }
        Command::Scenarios { name: None } => {
            for (name, toml) in BUILT_IN {
                println!("{name:<14} {}", Scenario::parse(toml)?.about);
            }
            Ok(Outcome::Passed)
        }
        Command::Scenarios { name: Some(name) } => {
            let toml = BUILT_IN.iter().find(|(n, _)| *n == name);
            print!("{}", toml.ok_or("no such scenario")?.1);
            Ok(Outcome::Passed)
        }
        Command::Figures => {
            list_figures();
            Ok(Outcome::Passed)
        }
    }
}

fn tell_comparison(comparison: &Comparison, json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(comparison)?);
    } else {
        print!("{comparison}");
    }
    Ok(())
}

fn list_figures() {
    for (name, _, help) in DERIVED {
        println!("{name:<28} {help}");
    }
    for counter in Counter::ALL {
        println!("{:<28} {}", counter.name(), counter.help());
    }
    println!("\nWith .p50, .p90, .p95, .p99, .p99.9, .max, .mean or .count:");
    for (name, help) in [
        ("frame_latency", "Audio and video together."),
        ("packet_latency", "Audio and video together."),
        ("generator.lag", "Timers and reading together."),
    ] {
        println!("{name:<28} {help}");
    }
    for hist in Hist::ALL {
        println!("{:<28} {}", hist.name(), hist.help());
    }
}

fn run_scenario(arguments: RunArgs) -> Result<Outcome, Failure> {
    let outputs = Outputs {
        json: arguments.outputs.json.clone(),
        junit: arguments.outputs.junit.clone(),
        html: arguments.outputs.html.clone(),
    };
    let agents = arguments.agents.clone();
    let secret = arguments
        .agent_secret
        .as_deref()
        .map(read_secret)
        .transpose()?;
    let options = arguments.options()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut tell = tell_progress;
    let result = runtime.block_on(async {
        if let Some(secret) = secret.filter(|_| !agents.is_empty()) {
            let run = agents::coordinate(&agents, &secret, &options, &mut tell);
            return run.await.map_err(Failure::from);
        }
        match Preflight::look(&options).await {
            Err(e) => Ok(run::could_not_run(&options, &e)),
            Ok(preflight) => {
                let run = run::run(options, &preflight, &mut tell);
                run.await.map_err(Failure::from)
            }
        }
    })?;
    outputs.write(&result)?;
    print!("{}", terminal::summary(&result));
    Ok(result.outcome())
}

fn tell_progress(progress: &Progress<'_>) {
    let line = terminal::progress(progress);
    if std::io::stderr().is_terminal() {
        // The line is written over itself; \x1b[K clears what was longer.
        eprint!("\r{line}\x1b[K");
    } else {
        eprintln!("{line}");
    }
}

impl RunArgs {
    fn options(self) -> Result<Options, Failure> {
        let mut scenario = Scenario::load(&self.scenario)?;
        scenario.duration = self.duration.unwrap_or(scenario.duration);
        scenario.rooms = self.rooms.unwrap_or(scenario.rooms);
        scenario.joins_per_second = self.joins_per_second.unwrap_or(scenario.joins_per_second);
        scenario.limits.max_ms = self.max_lag.unwrap_or(scenario.limits.max_ms);
        scenario.limits.p99_ms = self.max_lag_p99.unwrap_or(scenario.limits.p99_ms);
        for (name, n) in &self.count {
            let role = scenario.roles.iter_mut().find(|r| r.name == *name);
            role.ok_or_else(|| format!("no role is called {name:?}"))?
                .count = *n;
        }
        if self.only_slo {
            scenario.slo.clear();
        }
        scenario.slo.extend(self.slo.iter().cloned());
        scenario.check()?;
        let whip = whip(&self);
        Ok(Options {
            scenario,
            whip,
            http: Http::new(self.access.ca.as_deref())?,
            tokens: self.access.tokens(&self.against)?,
            target: self.against,
            seed: self.seed,
            threads: self.threads,
            share: Share::ALL,
            // Two runs at the same time must not meet in a room.
            tag: format!("{:x}-{}", unix_now().as_millis(), std::process::id()),
            metrics: self.metrics,
            media_address: self.media_address,
            name: self.name,
            begin_at: None,
        })
    }
}

impl Access {
    fn tokens(&self, against: &str) -> Result<TokenSource, Failure> {
        Ok(match (&self.token_command, &self.key) {
            (Some(command), _) => TokenSource::Command(command.clone()),
            (None, Some(key)) => {
                let (issuer, audience) = (self.issuer.clone(), self.audience.clone());
                let key = Key::load(
                    key,
                    &self.algorithm,
                    self.kid.clone(),
                    issuer.unwrap_or_default(),
                    audience.unwrap_or_default(),
                )?;
                TokenSource::Key(Arc::new(key))
            }
            (None, None) if self.no_token => TokenSource::None,
            (None, None) => TokenSource::Development {
                base: against.to_owned(),
            },
        })
    }
}

fn whip(arguments: &RunArgs) -> Option<Whip> {
    Some(Whip {
        publish: arguments.whip.clone()?,
        play: arguments.whep.clone()?,
    })
}

fn read_secret(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    match text.trim() {
        secret if secret.len() >= MIN_SECRET => Ok(secret.to_owned()),
        _ => Err(format!(
            "{}: a secret has {MIN_SECRET} characters or more",
            path.display()
        )
        .into()),
    }
}

fn serve_agent(arguments: &AgentArgs) -> Result<Outcome, Failure> {
    let secret = read_secret(&arguments.secret)?;
    let http = Http::new(arguments.access.ca.as_deref())?;
    let tokens = arguments.access.tokens("")?;
    // Everything else comes with the order.
    let options = || Options {
        scenario: Scenario::default(),
        target: String::new(),
        tokens: tokens.clone(),
        http: http.clone(),
        seed: 0,
        threads: arguments.threads,
        share: Share::ALL,
        tag: String::new(),
        whip: None,
        metrics: None,
        media_address: None,
        name: arguments.name.clone(),
        begin_at: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(agents::serve(arguments.listen, &secret, options))?;
    Ok(Outcome::Passed)
}

impl Outputs {
    fn write(&self, result: &RunResult) -> Result<(), Failure> {
        let save = |path: &Option<PathBuf>, text: &dyn Fn() -> Result<String, Failure>| {
            let Some(path) = path else { return Ok(()) };
            std::fs::write(path, text()?)
                .map_err(|e| Failure::from(format!("{}: {e}", path.display())))
        };
        save(&self.json, &|| Ok(serde_json::to_string(result)?))?;
        save(&self.junit, &|| Ok(junit::render(result)))?;
        save(&self.html, &|| Ok(html::render(result)))
    }
}
