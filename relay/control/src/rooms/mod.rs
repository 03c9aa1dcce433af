//! Rooms and who is in them: joining, resuming, leaving, and what shards report.
//!
//! The directory (room name → room, session → seat, resume token → seat) is shared by all control
//! threads; a room's own state sits behind its lock. Locks are held for a few list operations and
//! never across an await or while a directory entry is borrowed.

mod client;
mod event;
mod group;
mod media;
mod player;
mod room;
mod sealed;
mod shards;

pub use client::{Client, ClientQueue, Outgoing};
pub use event::{OwnTrackInfo, SlotInfo, Snapshot};
pub use media::{PublishRequest, SlotRequest};
pub use sealed::TrackReport;
pub use shards::ShardPort;

use crate::metrics::Metrics;
use crate::random;
use crate::refusal::{Code, Refusal};
use crate::sdp::{MediaPolicy, Role};
use crate::token::Identity;
use dashmap::DashMap;
pub(crate) use event::message;
use event::{ClientEvent, RoomEvent};
use group::Group;
use room::{Participant, Room, State};
use sealcast_delivery::DeliveryKey;
use sealcast_model::{
    CloseReason, Command, Event, ParticipantId, RoomId, SessionId, TrackId, TransportKind,
};
use shards::Shards;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// What an operator sets about rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomsConfig {
    /// How long a participant stays without a socket, or its tracks without a media session.
    pub grace: Duration,
    /// Whether unsealed media is refused even to those whose grants allow it.
    pub sealed_required: bool,
    /// Participants of one room.
    pub max_participants_per_room: usize,
    /// Participants of the relay.
    pub max_participants: usize,
}

/// The directory of rooms.
pub struct Rooms {
    config: RoomsConfig,
    policy: MediaPolicy,
    fingerprint: [u8; 32],
    shards: Shards,
    /// Signs for the delivery services of rooms with group keys.
    delivery: Option<Arc<DeliveryKey>>,
    rooms: DashMap<String, Arc<Room>>,
    sessions: DashMap<SessionId, Seat>,
    tracks: DashMap<TrackId, Arc<Room>>,
    resume: DashMap<String, Seat>,
    /// WHIP and WHEP sessions by the secret part of their location.
    locations: DashMap<String, Seat>,
    participants: AtomicUsize,
    stopping: AtomicBool,
    shard_ended: AtomicBool,
    metrics: Arc<Metrics>,
    runtime: Handle,
}

/// A participant's place in a room: what its socket or its location stands for.
#[derive(Clone)]
pub struct Seat {
    room: Arc<Room>,
    participant: ParticipantId,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Seat {
    /// Whose seat it is.
    #[must_use]
    pub const fn participant(&self) -> ParticipantId {
        self.participant
    }

    /// The room's pseudonym, for logs.
    #[must_use]
    pub fn room(&self) -> RoomId {
        self.room.id
    }

    /// The room's name, for its participants alone.
    #[must_use]
    pub fn room_name(&self) -> &str {
        &self.room.name
    }
}

/// What a participant learns on joining.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Itself.
    pub participant: ParticipantId,
    /// For the next socket.
    pub resume_token: String,
    /// Everybody else.
    pub snapshot: Snapshot,
}

/// What a participant learns on resuming.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Itself.
    pub participant: ParticipantId,
    /// For the next socket.
    pub resume_token: String,
    /// Whether the media session still stands.
    pub session: bool,
    /// Its own tracks.
    pub tracks: Vec<OwnTrackInfo>,
    /// What its slots show.
    pub slots: Vec<SlotInfo>,
    /// Everybody else.
    pub snapshot: Snapshot,
}

impl Rooms {
    /// An empty directory over `shards`, whose DTLS certificate has `fingerprint`. Timers run on
    /// `runtime`. The rooms have link keys only.
    #[must_use]
    pub fn new(
        config: RoomsConfig,
        policy: MediaPolicy,
        fingerprint: [u8; 32],
        shards: Vec<ShardPort>,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> Arc<Self> {
        Self::with_group_keys(config, policy, fingerprint, shards, metrics, runtime, None)
    }

    /// As [`Rooms::new`]; with a key, every room has a delivery service for a group's handshakes.
    #[must_use]
    pub fn with_group_keys(
        config: RoomsConfig,
        policy: MediaPolicy,
        fingerprint: [u8; 32],
        shards: Vec<ShardPort>,
        metrics: Arc<Metrics>,
        runtime: Handle,
        delivery: Option<Arc<DeliveryKey>>,
    ) -> Arc<Self> {
        Arc::new(Rooms {
            config,
            policy,
            fingerprint,
            shards: Shards::new(shards, Arc::clone(&metrics)),
            delivery,
            rooms: DashMap::new(),
            sessions: DashMap::new(),
            tracks: DashMap::new(),
            resume: DashMap::new(),
            locations: DashMap::new(),
            participants: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            shard_ended: AtomicBool::new(false),
            metrics,
            runtime,
        })
    }

    /// The rooms' configuration.
    #[must_use]
    pub const fn config(&self) -> &RoomsConfig {
        &self.config
    }

    /// What media the relay takes.
    #[must_use]
    pub const fn policy(&self) -> &MediaPolicy {
        &self.policy
    }

    /// The MLS cipher suite of the rooms' groups, where they have group keys.
    #[must_use]
    pub fn group_suite(&self) -> Option<u16> {
        self.delivery.as_ref().map(|key| key.suite_number())
    }

    /// Participants of the relay.
    #[must_use]
    pub fn participants(&self) -> usize {
        self.participants.load(SeqCst)
    }

    /// Whether there are shards and none of them has ended.
    #[must_use]
    pub fn has_shards(&self) -> bool {
        !self.shard_ended.load(SeqCst) && self.shards.least_loaded().is_some()
    }

    /// A shard's thread has ended: the relay is no longer ready.
    pub fn shard_ended(&self) {
        self.shard_ended.store(true, SeqCst);
    }

    /// Whether the relay is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Lets a participant in. `respond` is called before any later event can reach `client`.
    ///
    /// # Errors
    /// `going_away`, `room_full`, `busy`.
    pub fn join(
        &self,
        identity: Identity,
        role: Role,
        client: Option<Client>,
        respond: impl FnOnce(&Joined),
    ) -> Result<Seat, Refusal> {
        if self.is_stopping() {
            return Err(Refusal::GOING_AWAY);
        }
        if self.participants.fetch_add(1, SeqCst) >= self.config.max_participants {
            self.participants.fetch_sub(1, SeqCst);
            return Err(Refusal::new(Code::RoomFull, "the relay is full"));
        }
        let seated = self.sit(identity, role, client, respond);
        if seated.is_err() {
            self.participants.fetch_sub(1, SeqCst);
        }
        seated
    }

    fn sit(
        &self,
        identity: Identity,
        role: Role,
        client: Option<Client>,
        respond: impl FnOnce(&Joined),
    ) -> Result<Seat, Refusal> {
        loop {
            let room = self.find_or_open(&identity.room)?;
            let mut group = room.group.lock();
            let mut state = room.lock();
            if state.closed {
                drop((state, group));
                self.forget_room(&room);
                continue;
            }
            if state.participants.len() >= self.config.max_participants_per_room {
                return Err(Refusal::new(Code::RoomFull, "the room is full"));
            }
            let participant = Participant {
                id: ParticipantId(random::u64()),
                role,
                grants: identity.grants,
                client,
                resume_token: None,
                attachment: 0,
                session: None,
                session_generation: 0,
                session_end: None,
                location: None,
                slots: BTreeMap::new(),
                changed: (role == Role::Player).then(|| Arc::new(Notify::new())),
                turn: Arc::default(),
            };
            let seat = Seat {
                room: Arc::clone(&room),
                participant: participant.id,
                turn: Arc::clone(&participant.turn),
            };
            state.broadcast(&RoomEvent::ParticipantJoined {
                participant: participant.id,
            });
            state.participants.push(participant);
            if role == Role::Interactive {
                group.on_joined(seat.participant);
            }
            respond(&Joined {
                participant: seat.participant,
                resume_token: self.renew_resume_token(&mut state, &seat),
                snapshot: state.snapshot(seat.participant),
            });
            self.shards.occupy(room.shard);
            self.metrics.participant_joined(role);
            tracing::info!(room = %room.id, participant = %seat.participant, ?role, "joined");
            drop((state, group));
            return Ok(seat);
        }
    }

    fn find_or_open(&self, name: &str) -> Result<Arc<Room>, Refusal> {
        if let Some(room) = self.rooms.get(name) {
            return Ok(Arc::clone(&room));
        }
        let shard = self
            .shards
            .least_loaded()
            .ok_or(Refusal::new(Code::Busy, "the relay has no shard"))?;
        let room = self.rooms.entry(name.to_owned()).or_insert_with(|| {
            let id = RoomId(random::u64());
            tracing::info!(room = %id, shard, "room opened");
            let group = Group::new(self.delivery.as_ref(), &self.metrics);
            Arc::new(Room::new(id, name.to_owned(), shard, group))
        });
        Ok(Arc::clone(&room))
    }

    fn forget_room(&self, room: &Arc<Room>) {
        let removed = self
            .rooms
            .remove_if(&room.name, |_, there| Arc::ptr_eq(there, room));
        if removed.is_some() {
            tracing::info!(room = %room.id, "room closed");
        }
    }

    /// Gives a participant a new resume token; the old one opens nothing any more. Only those
    /// who have a socket can resume.
    fn renew_resume_token(&self, state: &mut State, seat: &Seat) -> String {
        let token = random::resume_token();
        if let Some(p) = state.participant(seat.participant) {
            if let Some(old) = p.resume_token.replace(token.clone()) {
                self.resume.remove(&old);
            }
            if p.role == Role::Interactive {
                self.resume.insert(token.clone(), seat.clone());
            }
        }
        token
    }

    /// Takes up a participant whose socket dropped, or is being replaced. `respond` is called
    /// before any later event can reach `client`.
    ///
    /// # Errors
    /// `resume_unknown`, `going_away`.
    pub async fn resume(
        &self,
        token: &str,
        client: Client,
        respond: impl FnOnce(&Resumed),
    ) -> Result<Seat, Refusal> {
        const UNKNOWN: Refusal =
            Refusal::new(Code::ResumeUnknown, "no participant has this resume token");
        if self.is_stopping() {
            return Err(Refusal::GOING_AWAY);
        }
        let Some((_, seat)) = self.resume.remove(token) else {
            self.metrics.resumed(false);
            return Err(UNKNOWN);
        };
        // A request of the old socket that is still under way belongs into the snapshot.
        let _turn = seat.turn.lock().await;
        let group = seat.room.group.lock();
        let mut state = seat.room.lock();
        let Some(p) = state.participant(seat.participant) else {
            self.metrics.resumed(false);
            return Err(UNKNOWN);
        };
        p.attachment += 1;
        let session = p.session.is_some();
        if let Some(old) = p.client.replace(client) {
            old.close(4409, "resumed on another socket");
        }
        let (tracks, slots) = state.own(seat.participant);
        respond(&Resumed {
            participant: seat.participant,
            resume_token: self.renew_resume_token(&mut state, &seat),
            session,
            tracks,
            slots,
            snapshot: state.snapshot(seat.participant),
        });
        self.metrics.resumed(true);
        tracing::info!(room = %seat.room.id, participant = %seat.participant, session, "resumed");
        drop(state);
        // What was on its way to the former socket may be lost: nothing more of the group goes
        // out until the new one has said what its client holds.
        group.on_disconnected(&seat.room, seat.participant);
        Ok(seat.clone())
    }

    /// The socket `client` is gone. Its participant stays for the grace period, unless another
    /// socket has taken over.
    pub fn detach(self: &Arc<Self>, seat: &Seat, client: &Client) {
        let group = seat.room.group.lock();
        let mut state = seat.room.lock();
        let Some(p) = state.participant(seat.participant) else {
            return;
        };
        if !p.client.as_ref().is_some_and(|c| c.is(client)) {
            return;
        }
        p.client = None;
        let attachment = p.attachment;
        drop(state);
        group.on_disconnected(&seat.room, seat.participant);
        tracing::info!(room = %seat.room.id, participant = %seat.participant, "socket lost");
        let (rooms, seat) = (Arc::clone(self), seat.clone());
        self.runtime.spawn(async move {
            tokio::time::sleep(rooms.config.grace).await;
            rooms.detached_too_long(&seat, attachment);
        });
    }

    fn detached_too_long(&self, seat: &Seat, attachment: u64) {
        let reason = {
            let mut state = seat.room.lock();
            match state.participant(seat.participant) {
                Some(p) if p.client.is_none() && p.attachment == attachment => {
                    p.session_end.map_or("timeout", CloseReason::as_str)
                }
                _ => return,
            }
        };
        self.leave(seat, reason);
    }

    /// Takes a participant out of its room with all that it has. False if it was gone.
    pub fn leave(&self, seat: &Seat, reason: &'static str) -> bool {
        let room = &seat.room;
        let group = room.group.lock();
        let mut state = room.lock();
        let index = state
            .participants
            .iter()
            .position(|p| p.id == seat.participant);
        let Some(index) = index else {
            return false;
        };
        let gone = state.participants.remove(index);
        for track in state.tracks_of(gone.id) {
            self.tracks.remove(&track);
            state.remove_track(track, "left");
        }
        if let Some(session) = gone.session {
            self.close_session(room.shard, session.id, CloseReason::Requested);
        }
        if let Some(token) = gone.resume_token {
            self.resume.remove(&token);
        }
        if let Some(location) = gone.location {
            self.locations.remove(&location);
        }
        if let Some(changed) = gone.changed {
            changed.notify_one();
        }
        state.broadcast(&RoomEvent::ParticipantLeft {
            participant: gone.id,
            reason,
        });
        state.closed = state.participants.is_empty();
        let empty = state.closed;
        drop(state);
        group.on_left(room, gone.id);
        if empty {
            room.group.on_room_closed();
            self.forget_room(room);
        }
        self.shards.vacate(room.shard);
        self.participants.fetch_sub(1, SeqCst);
        self.metrics.participant_left(gone.role);
        tracing::info!(room = %room.id, participant = %gone.id, reason, "left");
        true
    }

    /// Forgets a session and has its shard close it.
    fn close_session(&self, shard: usize, session: SessionId, reason: CloseReason) {
        self.sessions.remove(&session);
        self.send_soon(shard, Command::CloseSession { session, reason });
    }

    /// Sends a command that must not be lost: one that ends somebody's sending or receiving. A
    /// full queue is tried again until it has room.
    fn send_soon(&self, shard: usize, command: Command) {
        if self.shards.send(shard, command.clone()).is_ok() {
            return;
        }
        let shards = self.shards.clone();
        self.runtime.spawn(async move {
            while shards.send(shard, command.clone()).is_err() && !shards.stopped() {
                tokio::time::sleep(shards::RETRY).await;
            }
        });
    }

    /// Takes in what a shard reports. May be called from any thread; never waits.
    pub fn handle_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Reply { request, result } => self.shards.reply(request, result),
            Event::SessionConnected {
                session,
                transport,
                dtls,
                srtp_profile,
            } => {
                let Some(seat) = self.seat_of(session) else {
                    return;
                };
                let transport = match transport {
                    TransportKind::Udp => "udp",
                    TransportKind::Tcp => "tcp",
                };
                tracing::info!(participant = %seat.participant, transport, dtls, srtp_profile, "media connected");
                self.metrics.connected(transport, dtls, srtp_profile);
                let connected = ClientEvent::MediaConnected {
                    transport,
                    dtls,
                    srtp_profile,
                };
                seat.room.lock().tell(seat.participant, &connected);
            }
            Event::SessionClosed { session, reason } => self.session_closed(session, reason),
            Event::TrackBlocked { track } => self.track_blocked(track),
            Event::TrackStarted { track } => tracing::debug!(%track, "first packet"),
            // Version 1 has no message from client to relay on the data channel, and slot
            // notices are the shard's.
            Event::DataOpen { .. } | Event::Data { .. } => {}
        }
    }

    fn seat_of(&self, session: SessionId) -> Option<Seat> {
        self.sessions.get(&session).map(|seat| seat.clone())
    }

    fn session_closed(self: &Arc<Self>, session: SessionId, reason: CloseReason) {
        // A session that the control plane closed itself is no longer in the table.
        let Some((_, seat)) = self.sessions.remove(&session) else {
            return;
        };
        let mut state = seat.room.lock();
        let Some(p) = state.participant(seat.participant) else {
            return;
        };
        if p.session.as_ref().is_none_or(|s| s.id != session) {
            return;
        }
        p.session = None;
        p.session_end = Some(reason);
        let (role, generation) = (p.role, p.session_generation);
        let closed = ClientEvent::MediaClosed {
            reason: reason.as_str(),
        };
        state.tell(seat.participant, &closed);
        drop(state);
        tracing::info!(participant = %seat.participant, reason = reason.as_str(), "media closed");
        if role != Role::Interactive {
            // Nothing else keeps a WHIP or WHEP participant in its room.
            self.leave(&seat, reason.as_str());
            return;
        }
        let rooms = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(rooms.config.grace).await;
            rooms.without_session_too_long(&seat, generation);
        });
    }

    fn without_session_too_long(&self, seat: &Seat, generation: u64) {
        let mut state = seat.room.lock();
        let Some(p) = state.participant(seat.participant) else {
            return;
        };
        if p.session.is_some() || p.session_generation != generation {
            return;
        }
        p.slots.clear();
        for track in state.tracks_of(seat.participant) {
            self.tracks.remove(&track);
            state.remove_track(track, "session_closed");
        }
    }

    fn track_blocked(&self, track: TrackId) {
        let Some(room) = self.tracks.get(&track).map(|r| Arc::clone(&r)) else {
            return;
        };
        let mut state = room.lock();
        let Some(owner) = state.track(track).map(|t| t.owner) else {
            return;
        };
        tracing::warn!(room = %room.id, %track, "track blocked: its media is not sealed");
        state.broadcast(&RoomEvent::TrackBlocked {
            participant: owner,
            track,
            reason: "unsealed",
        });
    }

    /// Binds a secret location to a WHIP or WHEP participant. False if it has left already.
    pub fn locate(&self, seat: &Seat, location: &str) -> bool {
        let mut state = seat.room.lock();
        let Some(p) = state.participant(seat.participant) else {
            return false;
        };
        p.location = Some(location.to_owned());
        self.locations.insert(location.to_owned(), seat.clone());
        true
    }

    /// The participant at a location of this room and role.
    #[must_use]
    pub fn at_location(&self, room: &str, role: Role, location: &str) -> Option<Seat> {
        let seat = self.locations.get(location).map(|seat| seat.clone())?;
        let fits =
            seat.room.name == room && seat.room.lock().participant(seat.participant)?.role == role;
        fits.then_some(seat)
    }

    /// Takes nothing new from now on, tells every client and, after `notice`, closes their
    /// sockets. Media sessions end with their shards.
    pub async fn stop(&self, notice: Duration) {
        self.stopping.store(true, SeqCst);
        let seconds = notice.as_secs_f64().ceil() as u64;
        let going = message(&ClientEvent::GoingAway { seconds });
        if self.for_each_client(|client| client.send(going.clone())) > 0 {
            tokio::time::sleep(notice).await;
        }
        let last = Refusal::GOING_AWAY.message(None);
        self.for_each_client(|client| {
            client.send(last.clone());
            client.close(1001, "the relay is stopping");
        });
    }

    /// Tells every shard to close its sessions and end.
    pub fn stop_shards(&self) {
        self.shards.stop();
    }

    fn for_each_client(&self, mut act: impl FnMut(&Client)) -> usize {
        let rooms: Vec<Arc<Room>> = self.rooms.iter().map(|r| Arc::clone(&r)).collect();
        let mut count = 0;
        for room in rooms {
            for client in room
                .lock()
                .participants
                .iter()
                .filter_map(|p| p.client.as_ref())
            {
                act(client);
                count += 1;
            }
        }
        count
    }
}
