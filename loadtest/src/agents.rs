//! Several generators for one scenario: agents wait for work, a coordinator gives each its share of
//! the rooms, lets them begin together, and merges what they saw.
//!
//! A share is whole rooms, so both ends of every stream are on one machine's clock. Machines' clocks
//! need not agree: the coordinator learns each one's offset from an exchange and names the start in
//! the agent's own time.
//!
//! Lines of JSON over TCP, not encrypted: the port belongs on loopback (behind an SSH tunnel) or in a
//! network of its own. Tokens' keys never cross it; each agent has its own.

use crate::driver::unix_now;
use crate::result::{FORMAT, RunResult, Window};
use crate::run::{self, Options, Preflight, Progress, RunError};
use crate::scenario::{Scenario, ScenarioError};
use crate::schedule::Share;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Longest line: a day of windows.
const MAX_LINE: u64 = 256 << 20;
/// A peer that has connected must say something within this time.
const GREETING: Duration = Duration::from_secs(30);
/// Time for the start to reach every agent before it comes.
const HEAD_START: Duration = Duration::from_secs(2);

/// From coordinator to agent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    Prepare {
        secret: String,
        scenario: Box<Scenario>,
        target: String,
        seed: u64,
        tag: String,
        index: u64,
        of: u64,
    },
    /// Unix time of the agent's clock, nanoseconds.
    Begin { at: u64 },
}

/// From agent to coordinator.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Report {
    /// The agent's Unix time, nanoseconds.
    Ready {
        now: u64,
        version: Option<String>,
        not_supported: Vec<String>,
    },
    Window(Box<Window>),
    Done(Box<RunResult>),
    Failed(String),
}

/// What went wrong between coordinator and agents.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The network.
    #[error("agent {0}: {1}")]
    Io(String, std::io::Error),
    /// Not a line of this protocol: another version, or no agent at all.
    #[error("agent {0}: {1}")]
    Protocol(String, String),
    /// The connection ended.
    #[error("agent {0}: hung up")]
    HungUp(String),
    /// The agent cannot run its share.
    #[error("agent {0}: {1}")]
    Failed(String, String),
    /// The scenario cannot be shared.
    #[error("{0}")]
    Scenario(&'static str),
    /// The scenario's targets do not read.
    #[error(transparent)]
    Targets(#[from] ScenarioError),
    /// The run.
    #[error(transparent)]
    Run(#[from] RunError),
}

struct Lines {
    who: String,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Lines {
    fn new(who: String, stream: TcpStream) -> Lines {
        let (read, write) = stream.into_split();
        Lines {
            who,
            read: BufReader::new(read),
            write,
        }
    }

    fn io(&self, e: std::io::Error) -> AgentError {
        AgentError::Io(self.who.clone(), e)
    }

    async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), AgentError> {
        let protocol = |e: serde_json::Error| AgentError::Protocol(self.who.clone(), e.to_string());
        let mut line = serde_json::to_vec(message).map_err(protocol)?;
        line.push(b'\n');
        self.write.write_all(&line).await.map_err(|e| self.io(e))
    }

    async fn receive<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, AgentError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.read).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line).await;
        read.map_err(|e| self.io(e))?;
        if line.is_empty() {
            return Err(AgentError::HungUp(self.who.clone()));
        }
        serde_json::from_slice(&line)
            .map_err(|e| AgentError::Protocol(self.who.clone(), e.to_string()))
    }

    async fn greeted<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, AgentError> {
        let silent = || AgentError::Protocol(self.who.clone(), "silent".to_owned());
        let silent = silent();
        let receive = tokio::time::timeout(GREETING, self.receive());
        receive.await.unwrap_or(Err(silent))
    }
}

/// Waits for work and does it, one order at a time, until the process ends.
///
/// # Errors
/// [`AgentError::Io`] if nobody can be listened to. What goes wrong with one coordinator is told to
/// it and logged.
pub async fn serve(
    listen: SocketAddr,
    secret: &str,
    options: impl Fn() -> Options,
) -> Result<(), AgentError> {
    let failed = |e| AgentError::Io(listen.to_string(), e);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    tracing::info!(address = ?listener.local_addr().ok(), "waiting for work");
    loop {
        let (stream, from) = listener.accept().await.map_err(failed)?;
        let mut lines = Lines::new(from.to_string(), stream);
        if let Err(e) = work(&mut lines, secret, options()).await {
            if matches!(e, AgentError::HungUp(_)) {
                continue; // Somebody looked whether the port is open.
            }
            tracing::warn!(error = %e, "the run failed");
            // The coordinator may be what failed.
            let _ = lines.send(&Report::Failed(e.to_string())).await;
        }
    }
}

async fn work(lines: &mut Lines, expected: &str, mut options: Options) -> Result<(), AgentError> {
    let fail = |who: &str, why: &str| AgentError::Failed(who.to_owned(), why.to_owned());
    let Order::Prepare {
        secret,
        scenario,
        target,
        seed,
        tag,
        index,
        of,
    } = lines.greeted().await?
    else {
        return Err(fail(&lines.who, "expected a scenario"));
    };
    if !same(secret.as_bytes(), expected.as_bytes()) {
        return Err(fail(&lines.who, "the secret is another one"));
    }
    scenario.check()?;
    if of == 0 || index >= of {
        return Err(fail(&lines.who, "no such share"));
    }
    options.tokens.point_at(&target);
    options.scenario = *scenario;
    options.share = Share { index, of };
    (options.target, options.seed, options.tag) = (target, seed, tag);
    let preflight = Preflight::look(&options).await;
    let preflight = preflight.map_err(|e| fail(&lines.who, &e.to_string()))?;
    let ready = Report::Ready {
        now: nanos(unix_now()),
        version: preflight.version.clone(),
        not_supported: preflight.not_supported.clone(),
    };
    lines.send(&ready).await?;
    let Order::Begin { at } = lines.greeted().await? else {
        return Err(fail(&lines.who, "expected the start"));
    };
    options.begin_at = Some(Duration::from_nanos(at));
    let (windows, mut told) = unbounded_channel();
    let mut on_window = |p: &Progress<'_>| {
        // Without a reader the run has ended.
        let _ = windows.send(p.window.clone());
    };
    let running = run::run(options, &preflight, &mut on_window);
    tokio::pin!(running);
    let result = loop {
        tokio::select! {
            result = &mut running => break result?,
            Some(window) = told.recv() => lines.send(&Report::Window(Box::new(window))).await?,
        }
    };
    lines.send(&Report::Done(Box::new(result))).await
}

/// Compares without telling by its time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs a scenario on agents.
///
/// # Errors
/// [`AgentError`] if an agent cannot begin. One that fails later makes the run invalid.
pub async fn coordinate(
    agents: &[String],
    secret: &str,
    options: &Options,
    on_window: &mut (dyn FnMut(&Progress<'_>) + Send),
) -> Result<RunResult, AgentError> {
    let scenario = &options.scenario;
    if scenario.ramp.is_some() {
        return Err(AgentError::Scenario(
            "a ramp runs on one generator: its end depends on what it sees",
        ));
    }
    if scenario.rooms < agents.len() as u64 {
        return Err(AgentError::Scenario(
            "there are fewer rooms than agents; rooms are not divided",
        ));
    }
    let targets = scenario.targets()?;
    let mut prepared = Vec::new();
    for (index, agent) in agents.iter().enumerate() {
        prepared.push(prepare(agent, secret, options, index as u64, agents.len() as u64).await?);
    }
    let begin = unix_now() + HEAD_START;
    for agent in &mut prepared {
        let at = i128::from(nanos(begin)) + agent.offset;
        agent
            .lines
            .send(&Order::Begin {
                at: u64::try_from(at).unwrap_or(0),
            })
            .await?;
    }
    let (told, mut inbox) = unbounded_channel();
    let names: Vec<String> = agents.to_vec();
    for (index, agent) in prepared.into_iter().enumerate() {
        tokio::spawn(follow(agent.lines, index, told.clone()));
    }
    drop(told);
    let mut merged: Option<RunResult> = None;
    let mut faults = vec![];
    let mut windows: Vec<(usize, Window)> = vec![];
    let mut seen = vec![0; names.len()];
    let plan = crate::schedule::Plan::new(scenario, options.seed, Share::ALL);
    while let Some((index, report)) = inbox.recv().await {
        match report {
            Ok(Report::Window(window)) => {
                let nth = seen[index];
                seen[index] += 1;
                if let Some(done) = add_window(&mut windows, nth, *window, names.len()) {
                    on_window(&Progress {
                        window: &done,
                        clients: plan.clients.len() as u64,
                        end_ms: u64::try_from(plan.end.as_millis()).unwrap_or(u64::MAX),
                    });
                }
            }
            Ok(Report::Done(result)) => match &mut merged {
                Some(merged) => merged.merge(*result),
                None => merged = Some(*result),
            },
            Ok(Report::Failed(why)) => faults.push(format!("agent {}: {why}", names[index])),
            Ok(Report::Ready { .. }) => {}
            Err(e) => faults.push(e.to_string()),
        }
    }
    let mut result = merged.unwrap_or_else(|| RunResult {
        format: FORMAT,
        scenario: scenario.clone(),
        ..RunResult::default()
    });
    // The others' figures are of less load than was planned.
    result.validity.faults.extend(faults);
    run::judge(&mut result, &targets);
    Ok(result)
}

/// Adds an agent's n-th window; the merged one once every agent's is there.
fn add_window(
    windows: &mut Vec<(usize, Window)>,
    nth: usize,
    window: Window,
    agents: usize,
) -> Option<Window> {
    if windows.len() <= nth {
        windows.resize_with(nth + 1, Default::default);
    }
    let (count, merged) = windows.get_mut(nth)?;
    if *count == 0 {
        *merged = window;
    } else {
        merged.merge(&window);
    }
    *count += 1;
    (*count == agents).then(|| std::mem::take(merged))
}

struct Prepared {
    lines: Lines,
    /// The agent's clock minus ours, nanoseconds.
    offset: i128,
}

async fn prepare(
    agent: &str,
    secret: &str,
    options: &Options,
    index: u64,
    of: u64,
) -> Result<Prepared, AgentError> {
    let stream = TcpStream::connect(agent).await;
    let stream = stream.map_err(|e| AgentError::Io(agent.to_owned(), e))?;
    let mut lines = Lines::new(agent.to_owned(), stream);
    lines
        .send(&Order::Prepare {
            secret: secret.to_owned(),
            scenario: Box::new(options.scenario.clone()),
            target: options.target.clone(),
            seed: options.seed,
            tag: options.tag.clone(),
            index,
            of,
        })
        .await?;
    match lines.greeted().await? {
        // The answer is read at once; its way here, some milliseconds, is the error of the offset.
        Report::Ready { now, .. } => Ok(Prepared {
            lines,
            offset: i128::from(now) - i128::from(nanos(unix_now())),
        }),
        Report::Failed(why) => Err(AgentError::Failed(agent.to_owned(), why)),
        _ => Err(AgentError::Protocol(
            agent.to_owned(),
            "not ready".to_owned(),
        )),
    }
}

type Told = (usize, Result<Report, AgentError>);

async fn follow(mut lines: Lines, index: usize, told: UnboundedSender<Told>) {
    loop {
        let report = lines.receive().await;
        let last = !matches!(report, Ok(Report::Window(_)));
        if told.send((index, report)).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_told_once_every_agent_has_them() {
        let window = || Window {
            connected: 2,
            ..Window::default()
        };
        let mut windows = vec![];
        assert!(add_window(&mut windows, 0, window(), 2).is_none());
        assert!(add_window(&mut windows, 1, window(), 2).is_none());
        assert_eq!(
            add_window(&mut windows, 0, window(), 2).unwrap().connected,
            4
        );
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab"));
    }
}
