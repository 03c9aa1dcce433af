//! One core's engine: sessions and media, driven by time, bytes and commands.

use crate::config::ShardConfig;
use crate::demux::Demux;
use crate::egress::{EgressBatch, Outbox};
use crate::events::EventQueue;
use crate::journal::Turn;
use crate::mesh::{Letter, Mesh};
use crate::sealer::Sealer;
use crate::sessions::Sessions;
use crate::wheel::TimerWheel;
use sealcast_media::{Engine, Mirror, PeerKey};
use sealcast_model::limits::DATAGRAM_MAX;
use sealcast_model::{
    CloseReason, Counter, Event, Gauge, NtpClock, PacketBuf, PacketPool, SessionId, ShardId,
    ShardStats, Time,
};
use sealcast_rtp::demux::{Protocol, classify};
use sealcast_session::{Path, SessionContext, Transport, stun_username};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The engine of one core.
///
/// Contract: hand in datagrams, commands and timeouts in any order, then call
/// [`flush`](Shard::flush) once for all of them, deliver [`poll_event`](Shard::poll_event) until
/// `None`, and sleep until [`poll_timeout`](Shard::poll_timeout). Call `flush` earlier whenever
/// [`wants_flush`](Shard::wants_flush). Time must not run backwards.
///
/// Nothing that arrives makes it panic, wait or grow without bound. A bug inside one session is
/// contained: that session is closed with [`CloseReason::Internal`].
pub struct Shard {
    pub(crate) context: SessionContext,
    pub(crate) config: ShardConfig,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) sessions: Sessions,
    pub(crate) by_id: HashMap<SessionId, u32>,
    /// Mirrors of sessions on other shards, by index.
    pub(crate) mirrors: HashMap<SessionId, u32>,
    pub(crate) demux: Demux,
    pub(crate) wheel: TimerWheel,
    pub(crate) media: Engine,
    pub(crate) pool: PacketPool,
    pub(crate) batch: EgressBatch,
    pub(crate) events: EventQueue,
    pub(crate) mesh: Option<Box<Mesh>>,
    /// The shards share a port.
    shares_port: bool,
    /// What other shards are to be told of 5-tuples.
    moved: Vec<Letter>,
    pub(crate) stopping: bool,
}

impl Shard {
    /// A shard without sessions. Allocates its packet pool and egress arena.
    #[must_use]
    pub fn new(
        config: ShardConfig,
        context: SessionContext,
        clock: NtpClock,
        stats: Arc<ShardStats>,
    ) -> Self {
        let pool = PacketPool::new(config.pool_packets);
        stats.set(Gauge::PoolCapacity, pool.capacity() as u64);
        stats.set(Gauge::PoolFree, pool.available() as u64);
        Shard {
            media: Engine::new(config.media, clock, config.seed, Arc::clone(&stats)),
            context,
            config,
            stats,
            sessions: Sessions::default(),
            by_id: HashMap::new(),
            mirrors: HashMap::new(),
            demux: Demux::default(),
            wheel: TimerWheel::new(),
            pool,
            batch: EgressBatch::new(),
            events: EventQueue::default(),
            mesh: None,
            shares_port: false,
            moved: Vec::new(),
            stopping: false,
        }
    }

    /// The thread waited from `slept` to `woke` and has a turn to do now. Only the flight recorder
    /// wants to know.
    pub fn begin_turn(&mut self, slept: Time, woke: Time) {
        self.batch.turn = Turn { slept, woke };
    }

    /// Makes it one of several shards, whose rooms may spread.
    pub fn join_mesh(&mut self, mesh: Mesh) {
        self.shares_port = mesh.shares_port();
        self.mesh = Some(Box::new(mesh));
    }

    /// Takes what other shards have sent, up to a bound. True if there may be more.
    pub fn handle_mesh(&mut self, now: Time) -> bool {
        let Some(mut mesh) = self.mesh.take() else {
            return false;
        };
        let mut wanted = false;
        let mut routes = Vec::new();
        let more = mesh.take(|from, letter, payload| {
            self.count(Counter::MeshReceived);
            match letter {
                Letter::Media(message) => {
                    wanted |= matches!(message, Mirror::Want { .. });
                    self.handle_mirror(now, from, &message, payload);
                }
                Letter::Datagram { path, received } => {
                    self.handle_datagram(now, received, &path, payload);
                }
                Letter::Route(_) | Letter::Unroute(_) => routes.push((from, letter)),
            }
        });
        if wanted {
            mesh.prepare();
        }
        for (from, letter) in routes {
            mesh.on_route(from, &letter, &self.stats);
        }
        self.mesh = Some(mesh);
        more
    }

    fn handle_mirror(&mut self, now: Time, from: ShardId, message: &Mirror, packet: &[u8]) {
        let (media, pool) = (&mut self.media, &mut self.pool);
        let taken = AssertUnwindSafe(|| media.handle_mirror(now, pool, from, message, packet));
        if catch_unwind(taken).is_err() {
            self.count(Counter::SessionPanics);
            tracing::error!("a bug was contained to one message from another shard");
        }
    }

    /// Takes what arrived from one 5-tuple: one datagram, or several of `segment_size` bytes each
    /// (the last may be shorter) as UDP_GRO yields them. A frame of RFC 4571 is a datagram.
    /// `received` is when the kernel got it, `now` when it was read from there.
    pub fn handle_datagrams(
        &mut self,
        now: Time,
        received: Time,
        from: &Path,
        bytes: &[u8],
        segment_size: usize,
    ) {
        for datagram in bytes.chunks(segment_size.max(1)) {
            self.handle_datagram(now, received, from, datagram);
        }
    }

    /// Takes one datagram. What is not from a session is counted and never answered.
    pub fn handle_datagram(&mut self, now: Time, received: Time, from: &Path, datagram: &[u8]) {
        if datagram.len() > DATAGRAM_MAX {
            return self.count(Counter::DropOversize);
        }
        let protocol = classify(datagram);
        let key = match protocol {
            // A known address may begin a new session, so the name in the request decides.
            Protocol::Stun => match stun_username(datagram) {
                Some(ufrag) => self
                    .demux
                    .by_ufrag(ufrag)
                    .ok_or(Counter::DropStunUnknownUser),
                None => self.demux.by_path(from).ok_or(Counter::DropStunMalformed),
            },
            Protocol::Dtls => self.demux.by_path(from).ok_or(Counter::DropDtlsUnvalidated),
            Protocol::Rtp | Protocol::Rtcp => {
                self.demux.by_path(from).ok_or(Counter::DropUnknownSource)
            }
            Protocol::TurnChannel | Protocol::Unknown => Err(Counter::DropUnknownProtocol),
        };
        match (key, protocol) {
            (Err(reason), _) => {
                if !self.hand_on(from, received, datagram, protocol) {
                    self.count(reason);
                }
            }
            (Ok(key), Protocol::Rtp | Protocol::Rtcp) => {
                self.handle_srtp(now, received, from, key, datagram, protocol);
            }
            (Ok(key), _) => {
                let result = self.drive(now, key, |s| s.handle_packet(now, *from, datagram));
                if let Some(Err(refusal)) = result {
                    self.count(refusal.counter());
                }
            }
        }
    }

    /// Hands a datagram to the shard whose it is, where shards share a port.
    fn hand_on(
        &mut self,
        from: &Path,
        received: Time,
        datagram: &[u8],
        protocol: Protocol,
    ) -> bool {
        // While the mesh is read it is not here: what was handed on once is not handed on again.
        let Some(mesh) = self.mesh.as_deref_mut() else {
            return false;
        };
        let ufrag = match protocol {
            Protocol::Stun => stun_username(datagram),
            _ => None,
        };
        mesh.hand_on(ufrag, from, received, datagram, &self.stats)
    }

    /// Other shards hear with the next flush whose a 5-tuple is, where they share a port.
    pub(crate) fn announce(&mut self, letter: impl FnOnce(Path) -> Letter, path: Path) {
        if self.shares_port && path.transport == Transport::Udp {
            self.moved.push(letter(path));
        }
    }

    /// Opens SRTP or SRTCP in a pool slot and hands it to the media plane.
    fn handle_srtp(
        &mut self,
        now: Time,
        received: Time,
        from: &Path,
        key: u32,
        datagram: &[u8],
        protocol: Protocol,
    ) {
        let Some(buf) = self.pool.alloc() else {
            return self.count(Counter::DropPoolEmpty);
        };
        // DATAGRAM_MAX was checked and is less than a slot.
        let slot = &mut self.pool.bytes_mut(&buf)[..datagram.len()];
        slot.copy_from_slice(datagram);
        let step = self.sessions.step(key, |session| match protocol {
            Protocol::Rtp => session.open_rtp(now, from, slot),
            _ => session.open_rtcp(now, from, slot),
        });
        match self.settle(now, key, step) {
            Some(Ok(len)) => self.handle_opened(now, received, key, buf, len, protocol),
            Some(Err(refusal)) => {
                self.pool.release(buf);
                self.count(refusal.counter());
            }
            None => self.pool.release(buf),
        }
    }

    /// Hands an opened packet to the media plane, which keeps or releases the buffer.
    fn handle_opened(
        &mut self,
        now: Time,
        received: Time,
        key: u32,
        buf: PacketBuf,
        len: usize,
        protocol: Protocol,
    ) {
        let peer = PeerKey(key);
        let Shard { media, pool, .. } = self;
        let result = catch_unwind(AssertUnwindSafe(|| match protocol {
            Protocol::Rtp => media.handle_rtp(now, pool, peer, buf, len, received),
            _ => {
                media.handle_rtcp(now, peer, pool.bytes(&buf).get(..len).unwrap_or_default());
                pool.release(buf);
            }
        }));
        if result.is_err() {
            self.contain(now, key);
        }
    }

    /// The TCP connection of this path is gone.
    pub fn tcp_closed(&mut self, now: Time, path: &Path) {
        if let Some(key) = self.demux.by_path(path) {
            self.drive(now, key, |s| s.path_closed(now, path));
            if let Some(entry) = self.sessions.get_mut(key) {
                self.demux.remove_path(path, key, &mut entry.paths);
            }
        }
    }

    /// Whether ICE has authenticated this path, so that the I/O layer should keep its connection.
    #[must_use]
    pub fn is_routed(&mut self, path: &Path) -> bool {
        self.demux.by_path(path).is_some()
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(key) = self.wheel.pop(now) {
            let due = self
                .sessions
                .get(key)
                .is_some_and(|e| e.session.poll_timeout() <= now);
            // A timer that moved to a later time is set again by `settle`.
            self.drive(now, key, |s| {
                if due {
                    s.handle_timeout(now);
                }
            });
        }
        if self.media.poll_timeout() <= now {
            let media = &mut self.media;
            if catch_unwind(AssertUnwindSafe(|| media.handle_timeout(now))).is_err() {
                self.count(Counter::SessionPanics);
            }
        }
    }

    /// When [`handle_timeout`](Shard::handle_timeout) wants to be called next.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Time {
        self.wheel.next_deadline().min(self.media.poll_timeout())
    }

    /// The batch is filling up: flush before taking more.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        self.batch.is_half_full()
    }

    /// Forwards what has arrived and sends everything that waits to be sent.
    pub fn flush(&mut self, now: Time, outbox: &mut impl Outbox) {
        let mut sealer = Sealer::new(
            &mut self.sessions,
            &mut self.batch,
            outbox,
            &self.stats,
            self.mesh.as_deref_mut(),
        );
        let (media, pool) = (&mut self.media, &mut self.pool);
        let result = catch_unwind(AssertUnwindSafe(|| media.flush(now, pool, &mut sealer)));
        match (result, sealer.current()) {
            (Ok(()), _) => {}
            (Err(_), Some(key)) => self.contain(now, key),
            // Before anything was sent: nobody to blame, but not unseen.
            (Err(_), None) => self.count(Counter::SessionPanics),
        }
        self.take_media_events(now);
        self.batch.send(outbox, &self.stats);
        if let Some(mesh) = &mut self.mesh {
            self.moved
                .drain(..)
                .for_each(|letter| mesh.announce(letter, &self.stats));
            mesh.send_routes(&self.stats);
            mesh.ring();
        }
        self.stats
            .set(Gauge::PoolFree, self.pool.available() as u64);
    }

    /// The next thing to tell the control plane.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Puts back an event that could not be delivered.
    pub fn unpoll_event(&mut self, event: Event) {
        self.events.unpop(event);
    }

    /// Whether events wait.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether commands may be handed in. False while the control plane is behind with events.
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        !self.events.is_full() && !self.stopping
    }

    /// [`Command::Stop`](sealcast_model::Command::Stop) was carried out: every session is closed
    /// and none is opened any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Sessions open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What this shard counts.
    #[must_use]
    pub fn stats(&self) -> &Arc<ShardStats> {
        &self.stats
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.stats.add(counter, 1);
    }

    /// The kind of transport that carries a path, for events.
    pub(crate) fn transport(path: Option<&Path>) -> sealcast_model::TransportKind {
        path.map_or(Transport::Udp, |p| p.transport).kind()
    }

    /// Ends a session after a panic in it or on its behalf.
    pub(crate) fn contain(&mut self, now: Time, key: u32) {
        self.count(Counter::SessionPanics);
        tracing::error!("a bug was contained to one session");
        self.remove_session(now, key, CloseReason::Internal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::SendReport;
    use sealcast_model::{Command, ParticipantId, RequestId, RoomId, SessionMedia, WebRtcParams};
    use sealcast_srtp::Backend;
    use std::time::Duration;

    struct Nowhere;

    impl Outbox for Nowhere {
        fn send(&mut self, _: &EgressBatch, report: &mut SendReport) {
            report.all_taken(Time::ZERO);
        }
    }

    fn shard() -> Shard {
        #[expect(clippy::disallowed_methods, reason = "an epoch; time is virtual")]
        let epoch = std::time::Instant::now();
        let context = SessionContext::generate(epoch, Backend::AwsLcRs).unwrap();
        let clock = NtpClock::from_unix(Duration::from_secs(1));
        let stats = Arc::new(ShardStats::default());
        Shard::new(ShardConfig::default(), context, clock, stats)
    }

    fn open(shard: &mut Shard, id: u64) {
        let webrtc = WebRtcParams {
            local_ufrag: format!("local{id}"),
            local_pwd: "relay-password-with-22-chars".into(),
            remote_ufrag: format!("remote{id}"),
            remote_pwd: "client-password-with-22-chars".into(),
            remote_fingerprint: [0; 32],
            sctp_port: Some(5_000),
        };
        let command = Command::OpenSession {
            request: RequestId(id),
            session: SessionId(id),
            participant: ParticipantId(id),
            room: RoomId(1),
            webrtc: Box::new(webrtc),
            media: Box::new(SessionMedia::default()),
        };
        shard.handle_command(Time::ZERO, command);
    }

    #[test]
    fn a_panic_costs_one_session() {
        let mut shard = shard();
        open(&mut shard, 1);
        open(&mut shard, 2);
        let key = shard.by_id[&SessionId(1)];
        shard.sessions.get_mut(key).unwrap().sabotaged = true;
        assert!(shard.drive(Time::from_millis(5), key, |_| ()).is_none());
        shard.flush(Time::from_millis(5), &mut Nowhere);
        assert_eq!(shard.stats.get(Counter::SessionPanics), 1);
        assert_eq!(shard.stats.closed_count(CloseReason::Internal), 1);
        assert_eq!(shard.session_count(), 1);
        assert!(shard.drive(Time::from_millis(6), key, |_| ()).is_none());
        let other = shard.by_id[&SessionId(2)];
        assert!(shard.drive(Time::from_millis(6), other, |_| ()).is_some());
        let closed: Vec<_> = std::iter::from_fn(|| shard.poll_event())
            .filter(|e| matches!(e, Event::SessionClosed { .. }))
            .collect();
        assert_eq!(closed.len(), 1);
        // The index and the user fragment are free again.
        open(&mut shard, 1);
        assert_eq!(shard.session_count(), 2);
    }

    #[test]
    fn sessions_are_limited() {
        let mut shard = shard();
        shard.config.media.peers = 2;
        for id in 1..=3 {
            open(&mut shard, id);
        }
        assert_eq!(shard.session_count(), 2);
        let refused = std::iter::from_fn(|| shard.poll_event()).any(|e| {
            matches!(
                e,
                Event::Reply {
                    request: RequestId(3),
                    result: Err(sealcast_model::CommandError::Limit)
                }
            )
        });
        assert!(refused);
    }
}
