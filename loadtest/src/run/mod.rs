//! A run: clients live by the plan on media threads, windows are harvested on one time axis, the
//! relay is asked for its own figures meanwhile.

mod account;
mod client;
mod group;
mod meter;
mod playout;
mod preflight;
mod registry;
mod scrape;
mod session;
mod slot;
mod usage;
mod whip;
mod worker;

pub use preflight::{Preflight, PreflightError, could_not_run};

use crate::driver::{Clock, StartError, unix_now};
use crate::http::{self, Http};
use crate::peer::{ContextError, PeerContext};
use crate::result::{
    Counter, FORMAT, Figures, Generator, Hist, Mark, Meta, Phase, RelaySample, RunResult, Step,
    Validity, Window,
};
use crate::scenario::{Impairment, Role, Scenario, ScenarioError};
use crate::schedule::{ClientPlan, Plan, Share, StepPlan};
use crate::slo::{Slo, Verdict};
use crate::tokens::TokenSource;
use account::Account;
use client::Client;
use registry::Registry;
use sealcast_model::Time;
use sealcast_netsim::Rng;
use sealcast_srtp::Backend;
use session::JOIN_OVERDUE;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use worker::{Worker, lock};

/// Kinds of errors that are kept; what comes beyond is counted as one.
const MAX_ERRORS: usize = 50;
/// File descriptors that a client takes: a media socket and a signalling socket.
const FILES_PER_CLIENT: u64 = 2;
/// And the program itself, with requests under way.
const FILES_SPARE: u64 = 100;
/// Threads, joins and the first window need a moment before the first client is due.
const HEAD_START: Duration = Duration::from_millis(300);

/// What to run, against what.
pub struct Options {
    /// The scenario, overrides applied.
    pub scenario: Scenario,
    /// The relay's HTTP address.
    pub target: String,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// Makes requests.
    pub http: Http,
    /// Everything random follows from this.
    pub seed: u64,
    /// Media threads; `None`: one, or one per core for many clients.
    pub threads: Option<usize>,
    /// Which part of the clients is ours.
    pub share: Share,
    /// Names the rooms; the same on every generator of a run.
    pub tag: String,
    /// Speaks WHIP and WHEP instead of our own signalling.
    pub whip: Option<Whip>,
    /// Where the relay's metrics are; `None`: `/metrics` of the target.
    pub metrics: Option<String>,
    /// Sends media here instead of to the relay's candidates.
    pub media_address: Option<SocketAddr>,
    /// Names this machine in reports.
    pub name: String,
    /// When to begin, Unix time; generators of one run begin together. `None`: now.
    pub begin_at: Option<Duration>,
}

/// Addresses of a server that speaks WHIP and WHEP; `{room}` stands for the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whip {
    /// Where to publish.
    pub publish: String,
    /// Where to play.
    pub play: String,
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// DTLS.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A media thread.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Too few file descriptors.
    #[error("{clients} clients need {need} file descriptors; the limit is {limit} (ulimit -n)")]
    Files {
        /// Clients of this generator.
        clients: u64,
        /// What they need.
        need: u64,
        /// What there is.
        limit: u64,
    },
    /// A media thread ended.
    #[error("a media thread ended")]
    ThreadGone,
}

/// What every client's task needs.
struct Setup {
    scenario: Scenario,
    target: String,
    tokens: TokenSource,
    http: Http,
    seed: u64,
    tag: String,
    clock: Clock,
    /// The run's start.
    begin: Time,
    registry: Arc<Registry>,
    impairment: Option<Impairment>,
    media_address: Option<SocketAddr>,
    /// Senders have stopped.
    stopped: AtomicBool,
    control: Mutex<Account>,
    /// Joins under way, by the session's name: when each was due.
    joining: Mutex<BTreeMap<u64, Time>>,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Setup {
    fn role(&self, plan: &ClientPlan) -> &Role {
        // The plan was made of this scenario's roles.
        &self.scenario.roles[plan.role]
    }

    fn room_name(&self, room: u64) -> String {
        format!("load-{}-{room}", self.tag)
    }

    fn room_key(&self, room: u64) -> Vec<u8> {
        let mut rng = Rng::new(self.seed ^ room.wrapping_mul(0xd6e8_feb8_6659_fd93));
        (0..4).flat_map(|_| rng.next_u64().to_be_bytes()).collect()
    }

    fn control(&self) -> MutexGuard<'_, Account> {
        lock(&self.control)
    }

    /// The run ends: joins that have taken too long by now count as failed, though none of them has
    /// been told so yet.
    fn give_up_joins(&self, now: Time) {
        for due in lock(&self.joining).values() {
            self.error("media was not connected when the run ended");
            if now.saturating_since(*due) >= JOIN_OVERDUE {
                self.control().add(Counter::JoinFailed, 1);
            }
        }
    }

    fn error(&self, text: &str) {
        let mut errors = lock(&self.errors);
        let known = errors.contains_key(text) || errors.len() < MAX_ERRORS;
        let text = if known {
            text
        } else {
            "further kinds of errors"
        };
        *errors.entry(text.to_owned()).or_default() += 1;
    }

    async fn sleep_until(&self, t: Time) {
        if t == Time::NEVER {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(self.clock.instant(t).into()).await;
    }
}

/// What is told while a run is under way.
pub struct Progress<'a> {
    /// The window that has just ended.
    pub window: &'a Window,
    /// Clients of the plan.
    pub clients: u64,
    /// When the run will end, milliseconds from its start.
    pub end_ms: u64,
}

/// Runs a scenario that was checked, and judges it.
///
/// # Errors
/// [`RunError`]. Whatever goes wrong once clients join is in the result.
pub async fn run(
    options: Options,
    preflight: &Preflight,
    on_window: &mut (dyn FnMut(&Progress<'_>) + Send),
) -> Result<RunResult, RunError> {
    let plan = Plan::new(&options.scenario, options.seed, options.share);
    let targets = options.scenario.targets()?;
    check_files(plan.clients.len() as u64)?;
    let mut running = Running::start(options, plan, targets)?;
    running
        .result
        .meta
        .target_version
        .clone_from(&preflight.version);
    running
        .result
        .not_supported
        .clone_from(&preflight.not_supported);
    running.windows(on_window).await?;
    Ok(running.finish())
}

fn check_files(clients: u64) -> Result<(), RunError> {
    let limit = usage::open_files();
    let need = clients * FILES_PER_CLIENT + FILES_SPARE;
    if need > limit {
        return Err(RunError::Files {
            clients,
            need,
            limit,
        });
    }
    Ok(())
}

struct Running {
    setup: Arc<Setup>,
    workers: Vec<Arc<Worker>>,
    plan: Plan,
    targets: Vec<Slo>,
    stop: watch::Sender<bool>,
    stopped_senders: bool,
    scrapes: Arc<Mutex<Vec<RelaySample>>>,
    metrics: Option<hyper::Uri>,
    no_metrics: Arc<AtomicBool>,
    process_cpu: Duration,
    result: RunResult,
}

impl Running {
    fn start(options: Options, plan: Plan, targets: Vec<Slo>) -> Result<Running, RunError> {
        let clock = Clock::start();
        let registry = Arc::new(Registry::default());
        let ctx = PeerContext::new(clock.epoch(), Backend::AwsLcRs)?;
        let clients = plan.clients.len();
        let threads = options.threads.unwrap_or_else(|| default_threads(clients));
        let worker = |n| {
            Worker::spawn(
                &format!("media-{n}"),
                clock,
                ctx.clone(),
                Arc::clone(&registry),
            )
        };
        let workers: Vec<_> = (0..threads.max(1)).map(worker).collect::<Result<_, _>>()?;
        let wait = options
            .begin_at
            .map_or(HEAD_START, |at| at.saturating_sub(unix_now()));
        let metrics = match &options.metrics {
            Some(url) => url.parse().ok(),
            None => http::join(&options.target, "/metrics").ok(),
        };
        let impaired = options.scenario.impairment.any();
        let setup = Arc::new(Setup {
            impairment: impaired.then_some(options.scenario.impairment),
            scenario: options.scenario,
            target: options.target,
            tokens: options.tokens,
            http: options.http,
            seed: options.seed,
            tag: options.tag,
            clock,
            begin: clock.now() + wait,
            registry,
            media_address: options.media_address,
            stopped: AtomicBool::new(false),
            control: Mutex::default(),
            joining: Mutex::default(),
            errors: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let whip = options.whip.map(Arc::new);
        for (n, client) in plan.clients.iter().enumerate() {
            let worker = Arc::clone(&workers[n % workers.len()]);
            let (setup, client, stopped) = (Arc::clone(&setup), client.clone(), stopped.clone());
            match &whip {
                Some(whip) => {
                    tokio::spawn(whip::live(setup, worker, Arc::clone(whip), client, stopped));
                }
                None => {
                    tokio::spawn(Client::live(setup, worker, client, stopped));
                }
            }
        }
        let result = RunResult {
            format: FORMAT,
            meta: Meta {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                target: setup.target.clone(),
                signalling: if whip.is_some() { "whip" } else { "sealcast" }.to_owned(),
                started: (unix_now() + wait).as_secs(),
                seed: setup.seed,
                clients: clients as u64,
                generators: vec![Generator {
                    name: options.name,
                    cores: usage::cores() as u32,
                    threads: workers.len() as u32,
                }],
                target_version: None,
            },
            scenario: setup.scenario.clone(),
            ..RunResult::default()
        };
        Ok(Running {
            setup,
            workers,
            plan,
            targets,
            stop,
            stopped_senders: false,
            scrapes: Arc::default(),
            metrics,
            no_metrics: Arc::default(),
            process_cpu: usage::process_cpu(),
            result,
        })
    }

    /// Harvests one window after the other until the plan, or the ramp, has ended.
    async fn windows(
        &mut self,
        on_window: &mut (dyn FnMut(&Progress<'_>) + Send),
    ) -> Result<(), RunError> {
        let length = Duration::from_secs_f64(self.setup.scenario.window);
        let mut start = Duration::ZERO;
        while start < self.plan.end {
            self.scrape(start);
            let end = start + length;
            self.setup.sleep_until(self.setup.begin + end).await;
            if end >= self.plan.measure_to && !self.stopped_senders {
                self.stop_senders()?;
            }
            let last = end >= self.plan.end;
            let window = self.harvest(start, length, last).await?;
            self.result.windows.push(window);
            if let Some(window) = self.result.windows.last() {
                on_window(&Progress {
                    window,
                    clients: self.result.meta.clients,
                    end_ms: millis(self.plan.end),
                });
            }
            self.judge_step(end);
            start = end;
        }
        self.scrape(start);
        // Nobody is left to hear it if every client has ended.
        let _ = self.stop.send(true);
        // Clients say goodbye, and the last scrape arrives.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    fn stop_senders(&mut self) -> Result<(), RunError> {
        self.stopped_senders = true;
        self.setup.stopped.store(true, Ordering::Relaxed);
        for worker in &self.workers {
            Worker::post(worker, self.setup.clock, |media, meter, _| {
                meter.stop_all(media)
            })
            .map_err(|_| RunError::ThreadGone)?;
        }
        Ok(())
    }

    async fn harvest(
        &mut self,
        start: Duration,
        length: Duration,
        last: bool,
    ) -> Result<Window, RunError> {
        // Every thread tells what it sent before any thread says what it should have received.
        self.on_every_worker(|media, meter, _| meter.publish_sent(media))
            .await?;
        let parts = self
            .on_every_worker(move |media, meter, now| {
                meter.harvest(now, media, last);
                let (hists, counters) = meter.account.take();
                Window {
                    connected: meter.connected(),
                    hists,
                    counters,
                    ..Window::default()
                }
            })
            .await?;
        if last {
            self.setup.give_up_joins(self.setup.clock.now());
        }
        let process = usage::process_cpu();
        let used = process.saturating_sub(std::mem::replace(&mut self.process_cpu, process));
        let media: u64 = parts.iter().map(|p| p.count(Counter::CpuMicros)).sum();
        let (hists, counters) = {
            let mut control = self.setup.control();
            let rest = u64::try_from(used.as_micros())
                .unwrap_or(0)
                .saturating_sub(media);
            control.add(Counter::ControlCpuMicros, rest);
            control.take()
        };
        let mut window = Window {
            start_ms: millis(start),
            length_ms: millis(length),
            phase: self.phase(start, start + length),
            connected: 0,
            hists,
            counters,
        };
        parts.iter().for_each(|part| window.merge(part));
        Ok(window)
    }

    fn phase(&self, start: Duration, end: Duration) -> Phase {
        // Boundaries are sums of floating-point seconds.
        let slack = Duration::from_millis(1);
        if start + slack < self.plan.measure_from {
            Phase::Start
        } else if end <= self.plan.measure_to + slack {
            Phase::Measure
        } else {
            Phase::Drain
        }
    }

    async fn on_every_worker<R: Send + 'static>(
        &self,
        job: impl Fn(&mut crate::driver::MediaLoop, &mut meter::Meter, Time) -> R
        + Clone
        + Send
        + 'static,
    ) -> Result<Vec<R>, RunError> {
        let mut results = Vec::new();
        for worker in &self.workers {
            let (reply, result) = oneshot::channel();
            let job = job.clone();
            Worker::post(worker, self.setup.clock, move |media, meter, now| {
                // Without a receiver the run is over.
                let _ = reply.send(job(media, meter, now));
            })
            .map_err(|_| RunError::ThreadGone)?;
            results.push(result);
        }
        let mut values = Vec::new();
        for result in results {
            values.push(result.await.map_err(|_| RunError::ThreadGone)?);
        }
        Ok(values)
    }

    /// Asks for the relay's metrics, without waiting for them.
    fn scrape(&self, at: Duration) {
        // A server that has no metrics is asked once.
        if self.no_metrics.load(Ordering::Relaxed) {
            return;
        }
        let Some(uri) = self.metrics.clone() else {
            return;
        };
        let none = Arc::clone(&self.no_metrics);
        let (setup, scrapes) = (Arc::clone(&self.setup), Arc::clone(&self.scrapes));
        tokio::spawn(async move {
            let asked = setup.clock.now();
            match setup
                .http
                .request(hyper::Method::GET, &uri, &[], Vec::new())
                .await
            {
                Ok(response) => {
                    let took = setup.clock.now().saturating_since(asked);
                    setup.control().record(Hist::Scrape, took);
                    let text = String::from_utf8_lossy(&response.body);
                    lock(&scrapes).push(scrape::parse(&text, millis(at)));
                }
                Err(e) => {
                    none.store(lock(&scrapes).is_empty(), Ordering::Relaxed);
                    setup.error(&format!("metrics: {e}"));
                }
            }
        });
    }

    /// Judges the step of a ramp that ends here; one that fails is the last.
    fn judge_step(&mut self, end: Duration) {
        let slack = Duration::from_millis(1);
        let ends_here = |s: &&StepPlan| s.to <= end + slack && end < s.to + slack + slack;
        let Some(step) = self.plan.steps.iter().find(ends_here).copied() else {
            return;
        };
        let window = Duration::from_secs_f64(self.setup.scenario.window);
        let index = |d: Duration| (d.as_secs_f64() / window.as_secs_f64()).round() as usize;
        let windows = (index(step.from), index(step.to));
        let figures = Figures::new(
            self.result
                .windows
                .get(windows.0..windows.1)
                .unwrap_or_default(),
            &[],
        );
        let verdicts: Vec<Verdict> = self.targets.iter().map(|t| t.judge(&figures)).collect();
        let passed = verdicts.iter().all(|v| v.met);
        self.result.steps.push(Step {
            load: step.load,
            windows,
            passed,
            verdicts,
        });
        if !passed {
            self.mark(end, format!("a target broke at a load of {}", step.load));
            self.plan.measure_to = end;
            self.plan.end = end;
        }
    }

    fn mark(&mut self, at: Duration, text: String) {
        let at_ms = millis(at);
        self.result.marks.push(Mark { at_ms, text });
    }

    fn finish(mut self) -> RunResult {
        let mut result = std::mem::take(&mut self.result);
        result.relay = std::mem::take(&mut *lock(&self.scrapes));
        result.relay.sort_by_key(|s| s.at_ms);
        result.errors = std::mem::take(&mut *lock(&self.setup.errors));
        judge(&mut result, &self.targets);
        result
    }
}

/// Judges a whole run: the generator first, then the targets.
pub fn judge(result: &mut RunResult, targets: &[Slo]) {
    let faults = std::mem::take(&mut result.validity.faults);
    result.validity = Validity::judge(result.scenario.limits, &result.windows);
    for fault in faults {
        if !result.validity.faults.contains(&fault) {
            result.validity.faults.push(fault);
        }
    }
    if let Some(ramp) = &result.scenario.ramp {
        let good = result
            .steps
            .iter()
            .filter(|s| s.passed)
            .map(|s| s.load)
            .max();
        result.verdicts = vec![Verdict {
            target: format!(
                "targets hold at a load of {}",
                ramp.require.unwrap_or(ramp.start)
            ),
            measured: good.map(|load| format!("they hold up to {load}")),
            met: good >= Some(ramp.require.unwrap_or(ramp.start)),
        }];
        return;
    }
    let figures = result.figures();
    result.verdicts = targets.iter().map(|t| t.judge(&figures)).collect();
}

fn default_threads(clients: usize) -> usize {
    /// Clients that one thread drives without being pressed.
    const EASY: usize = 200;
    clients.div_ceil(EASY).clamp(1, usage::cores())
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
