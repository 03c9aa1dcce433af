//! The thread of one shard: waits, receives, lets the engine work, sends.

use crate::clock::Clock;
use crate::config::ShardIoConfig;
use crate::limits::{COALESCE_MAX, COMMANDS_PER_TURN, EVENT_RETRY, RECEIVE_ROUNDS, STOP_PATIENCE};
use crate::sys::{
    Epoll, EventFd, Ready, ReceiveBatch, pin_to_core, prefetch, run_realtime, usable_cores,
};
use crate::tcp::{CONNECTION, TcpSide};
use crate::udp::{Sending, UdpSide};
use sealcast_model::limits::COMMAND_QUEUE;
use sealcast_model::{Command, CommandSender, Counter, Event, ShardId, ShardStats, Time, Wake};
use sealcast_shard::{EgressBatch, Mesh, Outbox, SendReport, SessionContext, Shard, Transport};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Epoll tokens. Connections have [`CONNECTION`] set.
const WAKER: u64 = 0;
const UDP: u64 = 1;
const LISTENER: u64 = 1 << 32;

/// Takes a shard's events to the control plane.
pub trait EventSink: Send {
    /// Takes the event, or gives it back if there is no room now. Must not wait.
    ///
    /// # Errors
    /// The event, to be offered again soon.
    fn deliver(&mut self, shard: ShardId, event: Event) -> Result<(), Event>;
}

impl<F: FnMut(ShardId, Event) -> Result<(), Event> + Send> EventSink for F {
    fn deliver(&mut self, shard: ShardId, event: Event) -> Result<(), Event> {
        self(shard, event)
    }
}

/// Why a shard could not start. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A UDP address cannot be bound.
    #[error("binding UDP sockets {addresses:?}: {error}")]
    Udp {
        /// What was asked for.
        addresses: Vec<SocketAddr>,
        /// What the system said.
        error: io::Error,
    },
    /// A TCP address cannot be bound.
    #[error("listening on TCP {addresses:?}: {error}")]
    Tcp {
        /// What was asked for.
        addresses: Vec<SocketAddr>,
        /// What the system said.
        error: io::Error,
    },
    /// The thread cannot run on the core.
    #[error("pinning to core {core}: {error}")]
    Core {
        /// What was asked for.
        core: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The system is out of descriptors or threads.
    #[error("starting a shard: {0}")]
    System(#[from] io::Error),
}

/// Wakes a shard's thread.
struct Waker {
    event: EventFd,
    /// The event is set and has not been seen: no need to set it again.
    set: AtomicBool,
}

impl Waker {
    /// Takes the wake-up. What was queued before any wake-up that is not signalled after this
    /// call is visible to the caller.
    ///
    /// The event is cleared before the flag. The other way round, a wake-up in between would have
    /// its event cleared and its flag kept, and no later one would be signalled.
    fn take(&self) {
        self.event.clear();
        // An exchange and not a store: it reads what a waker that saw the flag set has written,
        // and so sees what that waker had queued.
        self.set.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if !self.set.swap(true, Ordering::AcqRel) {
            self.event.signal();
        }
    }
}

/// A shard with its sockets, to be run on the thread that is to be its own.
pub struct ShardIo {
    id: ShardId,
    shard: Shard,
    outside: Outside,
    commands: Receiver<Command>,
    waker: Arc<Waker>,
    sink: Box<dyn EventSink>,
    /// Events were refused; offer them again at this time.
    retry: Time,
    readable: Vec<usize>,
    /// How long arriving datagrams wait for others.
    coalesce: Duration,
    /// The last turn left datagrams in a socket.
    behind: bool,
    received: ReceiveBatch,
    /// Commands were left in their queue until events are taken.
    commands_wait: bool,
    /// When the last turn began.
    turned: Time,
    /// When the shard stopped.
    stopped: Option<Time>,
}

/// Everything that sends.
struct Outside {
    clock: Clock,
    epoll: Epoll,
    udp: UdpSide,
    tcp: TcpSide,
    stats: Arc<ShardStats>,
}

/// What the rest of the process holds of a shard.
pub struct ShardPort {
    /// The shard.
    pub id: ShardId,
    /// Where its UDP sockets are bound, as clients are to be told; an unspecified address stands
    /// for every address of its family.
    pub udp: Vec<SocketAddr>,
    /// Where it listens for ICE-TCP, likewise.
    pub tcp: Vec<SocketAddr>,
    /// Takes commands.
    pub commands: CommandSender,
    /// What it counts.
    pub stats: Arc<ShardStats>,
}

impl ShardIo {
    /// Binds the sockets. Events go to `sink`.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind(
        config: &ShardIoConfig,
        context: SessionContext,
        clock: Clock,
        sink: Box<dyn EventSink>,
    ) -> Result<(ShardIo, ShardPort), StartError> {
        Self::bind_in(config, context, clock, sink, None)
    }

    /// As [`bind`](ShardIo::bind), for one of several shards. Its mesh must have its id.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind_in(
        config: &ShardIoConfig,
        context: SessionContext,
        clock: Clock,
        sink: Box<dyn EventSink>,
        mesh: Option<Mesh>,
    ) -> Result<(ShardIo, ShardPort), StartError> {
        debug_assert!(mesh.as_ref().is_none_or(|mesh| mesh.id() == config.id));
        let addresses = |binds: &[crate::config::Bind]| binds.iter().map(|b| b.addr).collect();
        let udp = UdpSide::new(config).map_err(|error| StartError::Udp {
            addresses: addresses(&config.udp),
            error,
        })?;
        let tcp = TcpSide::new(config).map_err(|error| StartError::Tcp {
            addresses: addresses(&config.tcp),
            error,
        })?;
        let waker = Arc::new(Waker {
            event: EventFd::new()?,
            set: AtomicBool::new(false),
        });
        let epoll = Epoll::new()?;
        epoll.add(&waker.event, WAKER)?;
        udp.watch(&epoll, UDP)?;
        tcp.watch(&epoll, LISTENER)?;
        let (queue, commands) = sync_channel(COMMAND_QUEUE);
        let stats = Arc::new(ShardStats::default());
        let port = ShardPort {
            id: config.id,
            udp: udp.addresses()?,
            tcp: tcp.addresses()?,
            commands: CommandSender::new(queue, Arc::clone(&waker) as Arc<dyn Wake>),
            stats: Arc::clone(&stats),
        };
        let mut shard = Shard::new(config.shard, context, clock.ntp(), Arc::clone(&stats));
        if let Some(mesh) = mesh {
            mesh.set_wake(Arc::clone(&waker) as Arc<dyn Wake>);
            shard.join_mesh(mesh);
        }
        let io = ShardIo {
            id: config.id,
            shard,
            readable: Vec::with_capacity(udp.len()),
            coalesce: config.coalesce.min(COALESCE_MAX),
            behind: false,
            outside: Outside {
                clock,
                epoll,
                udp,
                tcp,
                stats,
            },
            commands,
            waker,
            sink,
            retry: Time::NEVER,
            received: ReceiveBatch::new(config.receive_batch),
            commands_wait: false,
            turned: clock.now(),
            stopped: None,
        };
        Ok((io, port))
    }

    /// Runs until [`Command::Stop`] has been carried out and every event was taken, or the system
    /// fails.
    ///
    /// # Errors
    /// Waiting for sockets failed, which no network input can cause.
    pub fn run(mut self) -> io::Result<()> {
        while !self.has_ended() {
            self.turn()?;
        }
        Ok(())
    }

    /// Everything is closed and told, or has had its time to be told.
    fn has_ended(&mut self) -> bool {
        if !self.shard.is_stopping() {
            return false;
        }
        let now = self.outside.clock.now();
        let since = *self.stopped.get_or_insert(now);
        !self.shard.has_events() || now - since > STOP_PATIENCE
    }

    /// Waits for something to do and does it.
    fn turn(&mut self) -> io::Result<()> {
        let deadline = self
            .shard
            .poll_timeout()
            .min(self.outside.tcp.poll_timeout())
            .min(self.retry);
        let before = self.outside.clock.now();
        let worked = before.saturating_since(self.turned);
        self.outside
            .stats
            .add(Counter::BusyNanos, worked.as_nanos() as u64);
        let timeout = (deadline != Time::NEVER).then(|| deadline - before);
        self.outside.epoll.wait(timeout)?;
        // The reading of the clock that everything in this turn goes by, until packets are read.
        let now = self.outside.clock.now();
        self.turned = now;
        self.outside.stats.add(Counter::Wakeups, 1);
        self.outside.udp.begin_turn();
        self.shard.begin_turn(before, now);

        self.take_ready(now);
        self.coalesce();
        let now = self.receive(now);
        if self.shard.handle_mesh(now) {
            // The rest has the next turn.
            self.waker.wake();
        }
        if self.shard.poll_timeout() <= now {
            let late = now - self.shard.poll_timeout();
            self.outside.stats.loop_lag.record(late, 1);
            self.shard.handle_timeout(now);
        }
        self.shard.flush(now, &mut self.outside);
        self.outside.tcp.sweep(now, &mut self.shard);
        self.deliver_events(now);
        Ok(())
    }

    /// Gives datagrams that are about to arrive their time to, if so configured and if the last
    /// turn took all that had arrived before.
    fn coalesce(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        if !self.coalesce.is_zero() && !behind && !self.readable.is_empty() {
            self.outside.clock.pause(self.coalesce);
        }
    }

    /// Does what the wait found, and notes which UDP sockets are readable.
    fn take_ready(&mut self, now: Time) {
        self.readable.clear();
        for i in 0..self.outside.epoll.ready() {
            let Some(ready) = self.outside.epoll.get(i) else {
                break;
            };
            match ready.token {
                WAKER => self.take_commands(now),
                token if token & CONNECTION != 0 => self.handle_connection(now, ready),
                token if token >= LISTENER => {
                    let Outside { tcp, epoll, .. } = &mut self.outside;
                    let listener = (token - LISTENER) as usize;
                    tcp.accept(now, listener, epoll, &mut self.shard);
                }
                token => {
                    let index = (token - UDP) as usize;
                    if ready.failed {
                        // Or it would be ready for ever.
                        let Outside {
                            udp, clock, stats, ..
                        } = &mut self.outside;
                        udp.read_stamps(index, clock, stats);
                    }
                    self.readable.push(index);
                }
            }
            if self.shard.wants_flush() {
                self.shard.flush(now, &mut self.outside);
            }
        }
    }

    fn handle_connection(&mut self, now: Time, ready: Ready) {
        let Outside { tcp, epoll, .. } = &mut self.outside;
        tcp.handle_ready(now, ready, epoll, &mut self.shard);
    }

    /// Receives from the readable sockets, each in its turn, and forwards after each round, so that
    /// a packet never waits for more than one batch. Returns the time of the last call.
    fn receive(&mut self, mut now: Time) -> Time {
        for round in 0..RECEIVE_ROUNDS {
            if self.readable.is_empty() {
                break;
            }
            if round > 0 {
                self.shard.flush(now, &mut self.outside);
            }
            let mut i = 0;
            while let Some(socket) = self.readable.get(i).copied() {
                if self.receive_from(&mut now, socket) {
                    i += 1;
                } else {
                    self.readable.swap_remove(i);
                }
            }
        }
        self.behind = !self.readable.is_empty();
        now
    }

    /// Takes what one call gives, and reports whether there may be more. Sets `now` to when the
    /// call was over: to when its packets were read.
    fn receive_from(&mut self, now: &mut Time, index: usize) -> bool {
        let stats = Arc::clone(&self.outside.stats);
        let Some(socket) = self.outside.udp.socket(index) else {
            return false;
        };
        stats.add(Counter::ReceiveCalls, 1);
        let count = match self.received.receive(socket) {
            Ok(count) => count,
            Err(e) => {
                // What ICMP reports about some destination ends up here; nothing is lost by it.
                tracing::debug!(error = %e, "receive failed");
                return false;
            }
        };
        let stamps = self.outside.clock.stamps();
        *now = stamps.now().max(*now);
        for i in 0..count {
            let Some(message) = self.received.message(i) else {
                continue;
            };
            let Some(path) = self.outside.udp.path_of(index, &message) else {
                continue;
            };
            if message.truncated {
                stats.add(Counter::DropOversize, 1);
                continue;
            }
            let (bytes, segment_size) = (message.bytes, message.segment_size.max(1));
            let datagrams = bytes.len().div_ceil(segment_size);
            stats.add(Counter::DatagramsIn, datagrams as u64);
            let (received, stamp) = stamps.received(message.stamps);
            stats.add(stamp, datagrams as u64);
            self.shard
                .handle_datagrams(*now, received, &path, bytes, segment_size);
            if self.shard.wants_flush() {
                self.shard.flush(*now, &mut self.outside);
            }
        }
        count == self.received.capacity()
    }

    /// Carries out what the control plane asks for.
    fn take_commands(&mut self, now: Time) {
        // Taken before looking, so that a command queued after the look wakes again.
        self.waker.take();
        for _ in 0..COMMANDS_PER_TURN {
            if !self.shard.takes_commands() {
                self.commands_wait = true;
                return;
            }
            match self.commands.try_recv() {
                Ok(command) => self.shard.handle_command(now, command),
                Err(TryRecvError::Empty) => return,
                // Nobody can reach this shard any more.
                Err(TryRecvError::Disconnected) => {
                    return self.shard.handle_command(now, Command::Stop);
                }
            }
        }
        // There may be more.
        self.waker.wake();
    }

    fn deliver_events(&mut self, now: Time) {
        self.retry = Time::NEVER;
        while let Some(event) = self.shard.poll_event() {
            if let Err(event) = self.sink.deliver(self.id, event) {
                self.shard.unpoll_event(event);
                self.retry = now + EVENT_RETRY;
                return;
            }
        }
        if std::mem::take(&mut self.commands_wait) {
            self.waker.wake();
        }
    }
}

impl Outbox for Outside {
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        self.udp.send(Sending {
            batch,
            report,
            clock: &self.clock,
            stats: &self.stats,
        });
        if !self.tcp.is_idle() {
            self.send_tcp(batch, report);
        }
    }

    #[inline]
    fn prefetch(&self, address: *const u8) {
        prefetch(address);
    }
}

impl Outside {
    fn send_tcp(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        let started = self.clock.now();
        let runs = || batch.runs().iter().enumerate();
        for (i, run) in runs() {
            let Transport::Tcp(handle) = run.path.transport else {
                continue;
            };
            let packets = batch.datagrams(run);
            let taken = packets.filter(|p| self.tcp.push(handle, p, &self.stats));
            report.taken(i, taken.count(), started, started);
        }
        self.tcp.write_dirty(&self.epoll, &self.stats);
        let done = self.clock.now();
        for (i, run) in runs() {
            if matches!(run.path.transport, Transport::Tcp(_)) {
                report.taken(i, 0, started, done);
            }
        }
    }
}

/// A running shard.
pub struct ShardThread {
    /// How to reach it.
    pub port: ShardPort,
    thread: JoinHandle<io::Result<()>>,
}

impl ShardThread {
    /// Binds the sockets and starts the thread.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn spawn(
        config: &ShardIoConfig,
        context: SessionContext,
        clock: Clock,
        sink: Box<dyn EventSink>,
    ) -> Result<ShardThread, StartError> {
        Self::spawn_in(config, context, clock, sink, None)
    }

    /// As [`spawn`](ShardThread::spawn), for one of several shards. Its mesh must have its id.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn spawn_in(
        config: &ShardIoConfig,
        context: SessionContext,
        clock: Clock,
        sink: Box<dyn EventSink>,
        mesh: Option<Mesh>,
    ) -> Result<ShardThread, StartError> {
        if let Some(core) = config.core
            && !usable_cores()?.contains(&core)
        {
            let error = io::Error::other("the process may not run on it");
            return Err(StartError::Core { core, error });
        }
        let (io, port) = ShardIo::bind_in(config, context, clock, sink, mesh)?;
        let (core, priority) = (config.core, config.realtime_priority);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", config.id.0))
            .spawn(move || {
                if let Some(Err(e)) = core.map(pin_to_core) {
                    tracing::warn!(error = %e, "a shard runs unpinned");
                }
                if priority > 0
                    && let Err(e) = run_realtime(priority)
                {
                    tracing::warn!(error = %e, "a shard runs without real-time priority");
                }
                io.run()
            })?;
        Ok(ShardThread { port, thread })
    }

    /// Asks it to stop; see [`Command::Stop`]. False if its queue is full: ask again.
    #[must_use]
    pub fn stop(&self) -> bool {
        self.port.commands.send(Command::Stop).is_ok()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread to end.
    ///
    /// # Errors
    /// What [`ShardIo::run`] returned, or that the thread panicked.
    pub fn join(self) -> io::Result<()> {
        let panicked = |_| Err(io::Error::other("a shard's thread panicked"));
        self.thread.join().unwrap_or_else(panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    /// Far longer than a wake-up takes on any machine: only a lost one waits for it.
    const LOST: Duration = Duration::from_secs(20);
    const WAKE_UPS: u32 = 100_000;

    /// The producer is at most one command ahead: it can wake in the middle of a take, and a single
    /// lost wake-up stops both for good.
    #[test]
    fn no_wake_up_is_lost() {
        let waker = Arc::new(Waker {
            event: EventFd::new().unwrap(),
            set: AtomicBool::new(false),
        });
        let queued = Arc::new(AtomicU32::new(0));
        let taken = Arc::new(AtomicU32::new(0));
        let producer = std::thread::spawn({
            let (waker, queued, taken) = (waker.clone(), queued.clone(), taken.clone());
            move || {
                for n in 1..=WAKE_UPS {
                    queued.store(n, Ordering::Relaxed);
                    waker.wake();
                    while taken.load(Ordering::Relaxed).saturating_add(1) < n {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let mut epoll = Epoll::new().unwrap();
        epoll.add(&waker.event, WAKER).unwrap();
        while taken.load(Ordering::Relaxed) < WAKE_UPS {
            epoll.wait(Some(LOST)).unwrap();
            if epoll.ready() == 0 {
                // Lets the producer end as well.
                taken.store(u32::MAX, Ordering::Relaxed);
                break;
            }
            waker.take();
            taken.store(queued.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let last = taken.load(Ordering::Relaxed);
        producer.join().unwrap();
        assert_eq!(last, WAKE_UPS, "a wake-up was lost");
    }
}
