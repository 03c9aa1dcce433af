//! The shards as the control plane sees them: where rooms are placed, commands with their
//! replies, and what an answer says of their addresses.

use super::placement::{self, Reading, ShardLoad, Spread};
use crate::limits;
use crate::metrics::Metrics;
use crate::sdp::{Candidate, host_candidates};
use dashmap::DashMap;
use sealcast_model::{
    Command, CommandError, CommandSender, Counter, RequestId, ShardId, ShardStats, Source,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A running shard, handed to the control plane by whoever runs it.
#[derive(Clone)]
pub struct ShardPort {
    /// Its index.
    pub id: ShardId,
    /// Its command queue.
    pub commands: CommandSender,
    /// Addresses that clients reach it at by UDP.
    pub udp: Vec<SocketAddr>,
    /// Addresses that clients reach it at by TCP; empty where ICE-TCP is off.
    pub tcp: Vec<SocketAddr>,
    /// Its counters.
    pub stats: Arc<ShardStats>,
}

/// How long after a full queue a command that must not be lost is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// How often shards' loads are read.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shards(Arc<Inner>);

struct Inner {
    shards: Vec<Shard>,
    /// In the order of the shards.
    loads: Mutex<Vec<ShardLoad>>,
    stopped: AtomicBool,
    /// Requests under way. An entry goes when its reply comes or its waiter gives up.
    pending: DashMap<RequestId, oneshot::Sender<Result<(), CommandError>>>,
    next_request: AtomicU64,
    metrics: Arc<Metrics>,
}

struct Shard {
    port: ShardPort,
    candidates: Vec<Candidate>,
}

/// Takes a request out of the table even if its waiter is dropped half-way.
struct Waiting<'a>(&'a Shards, RequestId);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.pending.remove(&self.1);
    }
}

impl Shards {
    pub(crate) fn new(ports: Vec<ShardPort>, metrics: Arc<Metrics>) -> Self {
        let shards: Vec<Shard> = ports
            .into_iter()
            .map(|port| Shard {
                candidates: host_candidates(&port.udp, &port.tcp),
                port,
            })
            .collect();
        Shards(Arc::new(Inner {
            loads: Mutex::new(vec![ShardLoad::default(); shards.len()]),
            shards,
            stopped: AtomicBool::new(false),
            pending: DashMap::new(),
            next_request: AtomicU64::new(1),
            metrics,
        }))
    }

    /// Whether there is no shard.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.shards.is_empty()
    }

    fn loads(&self) -> MutexGuard<'_, Vec<ShardLoad>> {
        // A panic in between leaves numbers, which stay usable.
        self.0.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places one more participant of a room whose others are on the shards `placed`. `None` if
    /// there is no shard.
    pub(crate) fn place(
        &self,
        placed: impl Iterator<Item = usize>,
        spread: Spread,
    ) -> Option<usize> {
        let mut there = vec![0; self.0.shards.len()];
        for shard in placed {
            if let Some(count) = there.get_mut(shard) {
                *count += 1;
            }
        }
        let mut loads = self.loads();
        let shard = placement::place(&loads, &there, spread)?;
        loads.get_mut(shard)?.occupy();
        Some(shard)
    }

    /// One participant fewer on a shard.
    pub(crate) fn vacate(&self, shard: usize) {
        if let Some(load) = self.loads().get_mut(shard) {
            load.vacate();
        }
    }

    /// Reads the shards' counters, `elapsed` after the last time.
    fn sample(&self, elapsed: Duration) {
        let mut loads = self.loads();
        for (shard, load) in self.0.shards.iter().zip(loads.iter_mut()) {
            let stats = &shard.port.stats;
            let forwarded = Source::ALL.iter();
            let forwarded = forwarded
                .map(|s| stats.media(*s).packets_out.load(Relaxed))
                .sum();
            let busy_nanos = stats.get(Counter::BusyNanos);
            load.read(
                Reading {
                    busy_nanos,
                    forwarded,
                },
                elapsed,
            );
        }
    }

    /// Keeps loads up to date until the shards are stopped or forgotten.
    pub(crate) fn watch(&self, runtime: &Handle) {
        let shards = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            let mut last = Instant::now();
            loop {
                tokio::time::sleep(SAMPLE_INTERVAL).await;
                let Some(inner) = shards.upgrade() else {
                    return;
                };
                let shards = Shards(inner);
                if shards.stopped() {
                    return;
                }
                let now = Instant::now();
                shards.sample(now - last);
                last = now;
            }
        });
    }

    /// ICE candidates of a shard.
    pub(crate) fn candidates(&self, shard: usize) -> &[Candidate] {
        self.0.shards.get(shard).map_or(&[], |s| &s.candidates)
    }

    /// Queues a command that has no reply, or whose reply nobody waits for.
    pub(crate) fn send(&self, shard: usize, command: Command) -> Result<(), CommandError> {
        let shard = self.0.shards.get(shard).ok_or(CommandError::Invalid)?;
        let result = shard.port.commands.send(command);
        if let Err(error) = result {
            self.0.metrics.shard_refused(error);
        }
        result
    }

    /// Queues a command now; the future waits for its reply.
    ///
    /// Queueing happens in the call and not in the future, so that a caller that holds a room's
    /// lock decides the order of commands by the order of its calls.
    pub(crate) fn request<'a, F>(
        &'a self,
        shard: usize,
        command: F,
    ) -> impl Future<Output = Result<(), CommandError>> + Send + use<'a, F>
    where
        F: FnOnce(RequestId) -> Command,
    {
        let request = RequestId(self.0.next_request.fetch_add(1, Relaxed));
        let (tx, rx) = oneshot::channel();
        self.0.pending.insert(request, tx);
        let waiting = Waiting(self, request);
        let sent = self.send(shard, command(request));
        async move {
            let _waiting = waiting;
            sent?;
            let result = match tokio::time::timeout(limits::SHARD_REPLY, rx).await {
                Ok(Ok(result)) => result,
                // The reply never came, or the shard is gone.
                Ok(Err(_)) | Err(_) => Err(CommandError::Busy),
            };
            if let Err(error) = result {
                self.0.metrics.shard_refused(error);
            }
            result
        }
    }

    /// A request id for a command whose reply nobody waits for.
    pub(crate) fn unanswered(&self) -> RequestId {
        RequestId(self.0.next_request.fetch_add(1, Relaxed))
    }

    /// Hands a reply to whoever waits for it.
    pub(crate) fn reply(&self, request: RequestId, result: Result<(), CommandError>) {
        if let Some((_, waiter)) = self.0.pending.remove(&request) {
            // The waiter may have given up in this moment.
            let _ = waiter.send(result);
        }
    }

    /// Whether the shards were told to stop.
    pub(crate) fn stopped(&self) -> bool {
        self.0.stopped.load(Relaxed)
    }

    /// Tells every shard to stop.
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Relaxed);
        for index in 0..self.0.shards.len() {
            // A shard whose queue is full or that is gone is ended by the owner of its thread.
            let _ = self.send(index, Command::Stop);
        }
    }
}
