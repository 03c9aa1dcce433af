//! Rooms: the directory of them, and what is common to the parts that follow.
//!
//! The directory (room name → room, session → seat, resume token → seat) is shared by all control
//! threads; a room's own state sits behind its lock. Locks are held for a few list operations and
//! never across an await or while a directory entry is borrowed.

mod client;
mod event;
mod group;
mod mirrors;
mod placement;
mod player;
mod presence;
mod reports;
mod room;
mod sealed;
mod session;
mod shards;
mod slots;
mod tracks;

pub use client::{Client, ClientQueue, Outgoing};
pub use event::{OwnTrackInfo, SlotInfo, Snapshot};
pub use placement::Spread;
pub use presence::{Joined, Resumed};
pub use sealed::TrackReport;
pub use shards::ShardPort;
pub use slots::SlotRequest;
pub use tracks::PublishRequest;

use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::sdp::MediaPolicy;
use dashmap::DashMap;
use event::ClientEvent;
pub(crate) use event::message;
use room::Room;
use sealcast_delivery::DeliveryKey;
use sealcast_model::{Command, ParticipantId, RoomId, SessionId, TrackId};
use shards::Shards;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::runtime::Handle;

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
    /// What a room may have on one shard before it is spread over several.
    pub spread: Spread,
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
    /// Where its sessions live.
    shard: usize,
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
        let shards = Shards::new(shards, Arc::clone(&metrics));
        shards.watch(&runtime);
        Arc::new(Rooms {
            config,
            policy,
            fingerprint,
            shards,
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

    /// The room of a track; `None` if it is no longer published.
    #[must_use]
    pub fn room_of(&self, track: TrackId) -> Option<RoomId> {
        self.tracks.get(&track).map(|room| room.id)
    }

    /// Participants of the relay.
    #[must_use]
    pub fn participants(&self) -> usize {
        self.participants.load(SeqCst)
    }

    /// Whether there are shards and none of them has ended.
    #[must_use]
    pub fn has_shards(&self) -> bool {
        !self.shard_ended.load(SeqCst) && !self.shards.is_empty()
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
