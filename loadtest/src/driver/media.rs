//! A thread that runs peers.
//!
//! One turn: run the commands that came in, wait for packets or the next timer, hand packets to
//! their peers, run timers that are due, send. Whoever owns the thread talks to it by closures
//! ([`MediaThread::call`]), so that it needs no message for each thing a scenario may want.

use super::clock::{Clock, unix_now};
use super::impair::{ImpairStats, Impairment};
use super::socket::{Socket, SocketStats};
use crate::peer::{
    Answer, Outbox, Peer, PeerConfig, PeerContext, PeerError, PeerEvent, Proto, Run,
};
use crate::result::Recorder;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use sealcast_model::Time;
use sealcast_netsim::LinkConfig;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// Largest datagram or read.
const BUFFER: usize = 65_536;
/// Longest wait: a thread that has nothing to do looks at itself this often.
const IDLE: Duration = Duration::from_millis(500);
/// The waker's token; peers count from 0.
const WAKER: Token = Token(usize::MAX);
/// The timer's token. epoll itself waits for whole milliseconds, which would show as latency.
const TIMER: Token = Token(usize::MAX - 1);
/// Datagrams of one segmented send (the kernel's UDP_MAX_SEGMENTS is 64 on older ones).
const MAX_SEGMENTS: usize = 64;

/// A peer of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub usize);

/// Where a peer's socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// UDP or TCP.
    pub proto: Proto,
    /// Address; port 0 takes any.
    pub addr: SocketAddr,
}

/// Takes a peer's events, on the media thread: it must not wait.
pub type EventSink = Box<dyn FnMut(Time, PeerEvent) + Send>;

/// Why a thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// epoll or the thread.
    #[error("media thread: {0}")]
    Io(#[from] io::Error),
}

/// The media thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media thread has ended")]
pub struct ThreadGone;

/// How far a thread lagged since this was last taken.
#[derive(Debug, Default)]
pub struct LoopLag {
    /// How late timers ran.
    pub timers: Recorder,
    /// How long datagrams lay in the kernel before they were read.
    pub receive: Recorder,
}

type Job = Box<dyn FnOnce(&mut MediaLoop) + Send>;

/// A handle of a thread that runs peers. The thread ends when the last handle is dropped and its
/// peers with it.
pub struct MediaThread {
    jobs: Option<Sender<Job>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl MediaThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn spawn(name: &str, clock: Clock, ctx: PeerContext) -> Result<MediaThread, StartError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK);
        let timer = timer.map_err(io::Error::from)?;
        let fd = timer.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        let (jobs, inbox) = channel();
        let mut media = MediaLoop {
            poll,
            timer,
            lag: LoopLag::default(),
            clock,
            ctx,
            peers: HashMap::new(),
            next_id: 0,
            timers: BinaryHeap::new(),
            out: Outbox::new(),
            buffer: vec![0; BUFFER],
            stats: SocketStats::default(),
        };
        let run = move || media.run(&inbox);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)?;
        Ok(MediaThread {
            jobs: Some(jobs),
            waker,
            thread: Some(thread),
        })
    }

    /// Runs `job` on the thread, between two of its turns, and does not wait for it.
    ///
    /// # Errors
    /// [`ThreadGone`].
    pub fn post(
        &self,
        job: impl FnOnce(&mut MediaLoop) + Send + 'static,
    ) -> Result<(), ThreadGone> {
        let jobs = self.jobs.as_ref().ok_or(ThreadGone)?;
        jobs.send(Box::new(job)).map_err(|_| ThreadGone)?;
        self.waker.wake().map_err(|_| ThreadGone)
    }

    /// Runs `job` on the thread, between two of its turns, and waits for what it returns.
    ///
    /// # Errors
    /// [`ThreadGone`].
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut MediaLoop) -> R + Send + 'static,
    ) -> Result<R, ThreadGone> {
        let (reply, result) = channel();
        let job: Job = Box::new(move |media| {
            // The caller may have gone; its result goes with it.
            let _ = reply.send(job(media));
        });
        self.jobs
            .as_ref()
            .ok_or(ThreadGone)?
            .send(job)
            .map_err(|_| ThreadGone)?;
        self.waker.wake().map_err(|_| ThreadGone)?;
        result.recv().map_err(|_| ThreadGone)
    }
}

impl Drop for MediaThread {
    fn drop(&mut self) {
        self.jobs = None;
        let woken = self.waker.wake().is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            // A panic of the thread was printed by it.
            let _ = thread.join();
        }
    }
}

struct Running {
    peer: Peer,
    socket: Socket,
    on_event: EventSink,
    impairment: Option<Box<Impairment>>,
    /// The timer that counts; others in the heap are stale.
    armed: Time,
}

/// The thread's peers, for [`MediaThread::call`].
pub struct MediaLoop {
    poll: Poll,
    timer: TimerFd,
    lag: LoopLag,
    clock: Clock,
    ctx: PeerContext,
    peers: HashMap<usize, Running>,
    next_id: usize,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    out: Outbox,
    buffer: Vec<u8>,
    stats: SocketStats,
}

impl MediaLoop {
    /// Adds a peer and returns its offer. `config.locals` is replaced by the socket's address.
    ///
    /// # Errors
    /// [`PeerError::Config`], also if the socket cannot be bound.
    pub fn add(
        &mut self,
        bind: Bind,
        mut config: PeerConfig,
        on_event: EventSink,
    ) -> Result<(PeerId, String), PeerError> {
        let io = |e: io::Error| PeerError::Config(format!("{}: {e}", bind.addr));
        let mut socket = Socket::bind(bind.proto, bind.addr).map_err(io)?;
        config.locals = vec![socket.local()];
        let mut peer = Peer::new(self.clock.now(), &self.ctx, &config)?;
        let id = self.next_id;
        self.next_id += 1;
        socket
            .register(self.poll.registry(), Token(id))
            .map_err(io)?;
        let offer = peer.offer();
        self.peers.insert(
            id,
            Running {
                peer,
                socket,
                on_event,
                impairment: None,
                armed: Time::NEVER,
            },
        );
        Ok((PeerId(id), offer))
    }

    /// Connects a peer.
    ///
    /// # Errors
    /// [`PeerError`], also for a peer that is gone.
    pub fn accept(&mut self, id: PeerId, answer: &Answer) -> Result<(), PeerError> {
        let now = self.clock.now();
        let gone = || PeerError::Config("no such peer".into());
        let running = self.peers.get_mut(&id.0).ok_or_else(gone)?;
        let accepted = running.peer.accept(now, answer, &mut self.out);
        self.settle(now, id.0);
        accepted
    }

    /// Does something with a peer: start and stop senders, read statistics, send data.
    pub fn with<R>(
        &mut self,
        id: PeerId,
        f: impl FnOnce(Time, &mut Peer, &mut Outbox) -> R,
    ) -> Option<R> {
        let now = self.clock.now();
        let running = self.peers.get_mut(&id.0)?;
        let result = f(now, &mut running.peer, &mut self.out);
        self.settle(now, id.0);
        Some(result)
    }

    /// Puts a bad network between a peer and its socket.
    pub fn impair(&mut self, id: PeerId, up: LinkConfig, down: LinkConfig, seed: u64) {
        if let Some(running) = self.peers.get_mut(&id.0) {
            running.impairment = Some(Box::new(Impairment::new(up, down, seed)));
        }
    }

    /// What the bad network of a peer did.
    #[must_use]
    pub fn impair_stats(&self, id: PeerId) -> ImpairStats {
        let impairment = self.peers.get(&id.0).and_then(|r| r.impairment.as_ref());
        impairment.map(|i| i.stats()).unwrap_or_default()
    }

    /// The address of a peer's socket.
    #[must_use]
    pub fn local(&self, id: PeerId) -> Option<SocketAddr> {
        self.peers.get(&id.0).map(|r| r.socket.local().1)
    }

    /// How far the thread lagged since this was last called.
    pub fn take_lag(&mut self) -> LoopLag {
        std::mem::take(&mut self.lag)
    }

    /// Closes a peer, telling the relay, and forgets it.
    pub fn remove(&mut self, id: PeerId) {
        self.with(id, |now, peer, out| peer.close(now, out));
        if let Some(mut running) = self.peers.remove(&id.0) {
            running.socket.deregister(self.poll.registry());
        }
    }

    /// Peers that are not removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// No peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// What the sockets of all peers did.
    #[must_use]
    pub fn socket_stats(&self) -> SocketStats {
        self.stats
    }

    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            loop {
                match jobs.try_recv() {
                    Ok(job) => job(self),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let wait = self.arm_timer();
            match self.poll.poll(&mut events, Some(wait)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(error = %e, "epoll failed");
                    return;
                }
                _ => {}
            }
            for event in &events {
                if event.token().0 < TIMER.0 {
                    self.on_ready(event.token().0, event.is_writable());
                }
            }
            self.run_timers();
        }
    }

    fn on_ready(&mut self, id: usize, writable: bool) {
        let mut more = true;
        while more {
            let clock = self.clock;
            let Some(running) = self.peers.get_mut(&id) else {
                return;
            };
            let Running {
                peer,
                socket,
                impairment,
                ..
            } = running;
            if writable {
                socket.on_writable();
            }
            let (out, lag) = (&mut self.out, &mut self.lag.receive);
            let mut on_packet = |route, arrived: Option<Duration>, packet: &mut [u8]| {
                // Read after the packet: this thread may have waited since the turn began, and
                // what arrived meanwhile would look faster than it was.
                let now = clock.now();
                if let Some(arrived) = arrived {
                    lag.record(unix_now().saturating_sub(arrived));
                }
                match impairment {
                    None => peer.handle_packet(now, route, packet, out),
                    Some(impairment) => impairment.push_down(now, route, packet),
                }
            };
            more = socket.receive(&mut self.buffer, &mut self.stats, &mut on_packet);
            self.settle(clock.now(), id);
        }
    }

    fn run_timers(&mut self) {
        let now = self.clock.now();
        while let Some(Reverse((due, id))) = self.timers.peek().copied()
            && due <= now
        {
            self.timers.pop();
            let Some(running) = self.peers.get_mut(&id) else {
                continue;
            };
            if running.armed == due {
                running.armed = Time::NEVER;
                self.lag
                    .timers
                    .record(self.clock.now().saturating_since(due));
                if let Some(impairment) = &mut running.impairment {
                    while let Some((route, mut packet)) = impairment.pop_down(now) {
                        running
                            .peer
                            .handle_packet(now, route, &mut packet, &mut self.out);
                    }
                }
                running.peer.handle_timeout(now, &mut self.out);
                self.settle(now, id);
            }
        }
    }

    /// Sets the timer for what is due next, and returns how long to wait at most.
    fn arm_timer(&mut self) -> Duration {
        let Some(Reverse((due, _))) = self.timers.peek() else {
            return IDLE;
        };
        let wait = due.saturating_since(self.clock.now());
        if wait.is_zero() || wait >= IDLE {
            return wait.min(IDLE);
        }
        let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
        let flags = TimerSetTimeFlags::empty();
        // Without the timer, waits end with the next whole millisecond.
        self.timer.set(expiration, flags).map_or(wait, |()| IDLE)
    }

    /// Sends what a peer produced, hands its events on, arms its timer.
    fn settle(&mut self, now: Time, id: usize) {
        if let Some(running) = self.peers.get_mut(&id) {
            let (registry, token) = (self.poll.registry(), Token(id));
            if let Some(impairment) = &mut running.impairment {
                impairment.push_up(now, &self.out);
                while let Some((route, packet)) = impairment.pop_up(now) {
                    let run = Run {
                        route,
                        bytes: &packet,
                        segment: packet.len(),
                        count: 1,
                    };
                    running.socket.send(registry, token, &run, &mut self.stats);
                }
            } else {
                for run in self.out.runs(MAX_SEGMENTS) {
                    running.socket.send(registry, token, &run, &mut self.stats);
                }
            }
            while let Some(event) = running.peer.poll_event() {
                (running.on_event)(now, event);
            }
            // If an earlier timer is armed, it fires for nothing and arms this one.
            let impaired = running.impairment.as_ref();
            let impaired = impaired.map_or(Time::NEVER, |i| i.poll_timeout());
            let due = running.peer.poll_timeout().min(impaired);
            if due < running.armed {
                running.armed = due;
                self.timers.push(Reverse((due, id)));
            }
        }
        self.out.clear();
    }
}
