//! The shards as the control plane sees them: where rooms are placed, commands with their
//! replies, and what an answer says of their addresses.

use crate::limits;
use crate::metrics::Metrics;
use crate::sdp::{Candidate, host_candidates};
use dashmap::DashMap;
use sealcast_model::{Command, CommandError, CommandSender, RequestId, ShardId, ShardStats};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;

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

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shards(Arc<Inner>);

struct Inner {
    shards: Vec<Shard>,
    stopped: AtomicBool,
    /// Requests under way. An entry goes when its reply comes or its waiter gives up.
    pending: DashMap<RequestId, oneshot::Sender<Result<(), CommandError>>>,
    next_request: AtomicU64,
    metrics: Arc<Metrics>,
}

struct Shard {
    port: ShardPort,
    candidates: Vec<Candidate>,
    /// Participants placed here.
    load: AtomicUsize,
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
        let shards = ports
            .into_iter()
            .map(|port| Shard {
                candidates: host_candidates(&port.udp, &port.tcp),
                port,
                load: AtomicUsize::new(0),
            })
            .collect();
        Shards(Arc::new(Inner {
            shards,
            stopped: AtomicBool::new(false),
            pending: DashMap::new(),
            next_request: AtomicU64::new(1),
            metrics,
        }))
    }

    /// The shard with the fewest participants; the first of equals.
    pub(crate) fn least_loaded(&self) -> Option<usize> {
        let loads = self.0.shards.iter().map(|s| s.load.load(Relaxed));
        loads
            .enumerate()
            .min_by_key(|(_, load)| *load)
            .map(|(i, _)| i)
    }

    /// One participant more on a shard.
    pub(crate) fn occupy(&self, shard: usize) {
        if let Some(s) = self.0.shards.get(shard) {
            s.load.fetch_add(1, Relaxed);
        }
    }

    /// One participant fewer.
    pub(crate) fn vacate(&self, shard: usize) {
        if let Some(s) = self.0.shards.get(shard) {
            s.load.fetch_sub(1, Relaxed);
        }
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
