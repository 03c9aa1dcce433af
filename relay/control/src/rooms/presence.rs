//! Who is in a room: joining, resuming on another socket, losing a socket, leaving, being removed.

use super::client::Client;
use super::event::{ClientEvent, OwnTrackInfo, RoomEvent, SlotInfo, Snapshot};
use super::group::Group;
use super::room::{Participant, Room, State};
use super::{Rooms, Seat};
use crate::random;
use crate::refusal::{Code, Refusal};
use crate::sdp::Role;
use crate::token::Identity;
use sealcast_model::{CloseReason, ParticipantId, RoomId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tokio::sync::Notify;

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

/// A relay that cannot carry media.
const NO_SHARD: Refusal = Refusal::new(Code::Busy, "the relay has no shard");

impl Rooms {
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
            let placed = state.participants.iter().map(|p| p.shard);
            let shard = self
                .shards
                .place(placed, self.config.spread)
                .ok_or(NO_SHARD)?;
            let participant = Participant {
                id: ParticipantId(random::u64()),
                shard,
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
                cannot_open: BTreeSet::new(),
                changed: (role == Role::Player).then(|| Arc::new(Notify::new())),
                turn: Arc::default(),
            };
            let seat = Seat {
                room: Arc::clone(&room),
                participant: participant.id,
                shard,
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
            self.metrics.participant_joined(role);
            tracing::info!(room = %room.id, participant = %seat.participant, ?role, shard, "joined");
            drop((state, group));
            return Ok(seat);
        }
    }

    fn find_or_open(&self, name: &str) -> Result<Arc<Room>, Refusal> {
        if let Some(room) = self.rooms.get(name) {
            return Ok(Arc::clone(&room));
        }
        if self.shards.is_empty() {
            return Err(NO_SHARD);
        }
        let room = self.rooms.entry(name.to_owned()).or_insert_with(|| {
            let id = RoomId(random::u64());
            tracing::info!(room = %id, "room opened");
            let group = Group::new(self.delivery.as_ref(), &self.metrics);
            Arc::new(Room::new(id, name.to_owned(), group))
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
            self.close_session(seat.shard, session.id, CloseReason::Requested);
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
        self.sync_mirrors(room, &mut state);
        state.closed = state.participants.is_empty();
        let empty = state.closed;
        drop(state);
        group.on_left(room, gone.id);
        if empty {
            room.group.on_room_closed();
            self.forget_room(room);
        }
        self.shards.vacate(seat.shard);
        self.participants.fetch_sub(1, SeqCst);
        self.metrics.participant_left(gone.role);
        tracing::info!(room = %room.id, participant = %gone.id, reason, "left");
        true
    }

    /// Removes a participant, who may already be gone.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn remove(&self, seat: &Seat, target: ParticipantId) -> Result<(), Refusal> {
        let _turn = seat.turn.lock().await;
        let removed = {
            let mut state = seat.room.lock();
            let p = state.present(seat.participant)?;
            if !p.grants.moderate {
                return Err(Refusal::new(
                    Code::Forbidden,
                    "only a moderator removes participants",
                ));
            }
            let by = seat.participant;
            state.tell(target, &ClientEvent::Removed { by });
            state.participant(target).map(|p| Seat {
                room: seat.room.clone(),
                participant: target,
                shard: p.shard,
                turn: p.turn.clone(),
            })
        };
        if let Some(removed) = removed {
            self.evict(&removed);
        }
        Ok(())
    }

    fn evict(&self, seat: &Seat) {
        let client = {
            let mut state = seat.room.lock();
            state
                .participant(seat.participant)
                .and_then(|p| p.client.take())
        };
        self.leave(seat, "removed");
        if let Some(client) = client {
            client.close(4410, "removed by a moderator");
        }
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
}
