//! One room: its participants, their tracks and slots, and the numbering of its events.
//!
//! Everything here is synchronous and runs under the room's lock; nothing here waits.
//! Invariant: every track's owner is a participant; every slot shows a track of the room.

use super::client::Client;
use super::event::{
    ClientEvent, OwnTrackInfo, ParticipantInfo, RoomEvent, SlotInfo, Snapshot, TrackInfo, message,
};
use super::group::Group;
use super::mirrors::Mirrors;
use crate::refusal::{Code, Refusal};
use crate::sdp::{Negotiated, Role};
use crate::token::Grants;
use sealcast_model::{
    CloseReason, Codec, Mid, ParticipantId, RoomId, SealRule, SessionId, Source, TrackId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A room. Its name stays in the directory and in the participants' hands; logs have the id.
pub(crate) struct Room {
    pub(crate) id: RoomId,
    pub(crate) name: String,
    pub(crate) group: Group,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The number of the last event.
    seq: u64,
    /// The last participant has left and the room is out of the directory: nobody may enter.
    pub(crate) closed: bool,
    /// In order of joining, since ids are random and a snapshot should not be.
    pub(crate) participants: Vec<Participant>,
    /// In order of publication.
    pub(crate) tracks: Vec<Track>,
    /// What shards were told to mirror.
    pub(crate) mirrors: Mirrors,
}

pub(crate) struct Participant {
    pub(crate) id: ParticipantId,
    /// The shard that its sessions live on.
    pub(crate) shard: usize,
    pub(crate) role: Role,
    pub(crate) grants: Grants,
    /// The signalling socket, while there is one.
    pub(crate) client: Option<Client>,
    /// What the socket's successor must present.
    pub(crate) resume_token: Option<String>,
    /// Counts sockets, so that a timer for an earlier one is known to be stale.
    pub(crate) attachment: u64,
    pub(crate) session: Option<Session>,
    /// Counts sessions, likewise.
    pub(crate) session_generation: u64,
    /// How the last session ended, while there is none.
    pub(crate) session_end: Option<CloseReason>,
    /// What the slots show, by the client's will. Outlives a session.
    pub(crate) slots: BTreeMap<Mid, TrackId>,
    /// Tracks of others that it says it cannot open.
    pub(crate) cannot_open: BTreeSet<TrackId>,
    /// The secret part of a WHIP or WHEP session's URL.
    pub(crate) location: Option<String>,
    /// For a player: something in the room changed.
    pub(crate) changed: Option<Arc<Notify>>,
    /// Requests of one participant run one after the other.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// A media session, from the moment its shard was told of it.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Its data channel is open.
    pub(crate) data_open: bool,
    pub(crate) negotiated: Negotiated,
    /// Our ICE credentials, which every answer of the session repeats.
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) owner: ParticipantId,
    pub(crate) mid: Mid,
    pub(crate) source: Source,
    pub(crate) codec: Codec,
    pub(crate) profile: u32,
    pub(crate) seal: SealRule,
    pub(crate) muted: bool,
    /// The shard has confirmed it and the room has been told.
    pub(crate) live: bool,
}

impl Track {
    pub(crate) fn info(&self) -> TrackInfo {
        TrackInfo {
            track: self.id,
            source: self.source,
            muted: self.muted,
            codec: self.codec.name(),
            sealed: self.seal != SealRule::Any,
        }
    }
}

impl Room {
    pub(crate) fn new(id: RoomId, name: String, group: Group) -> Self {
        Room {
            id,
            name,
            group,
            state: Mutex::default(),
        }
    }

    /// The room's state. Never held across an await: the guard is not `Send`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held is a bug that has been reported; the state is a list
        // of independent entries and stays usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn participant(&mut self, id: ParticipantId) -> Option<&mut Participant> {
        self.participants.iter_mut().find(|p| p.id == id)
    }

    /// The participant, whose request this is.
    ///
    /// # Errors
    /// `no_session` if it has left meanwhile.
    pub(crate) fn present(&mut self, id: ParticipantId) -> Result<&mut Participant, Refusal> {
        self.participant(id).ok_or(Refusal::NO_SESSION)
    }

    /// Checks that `client` is the participant's socket.
    ///
    /// # Errors
    /// `forbidden` if it is not any more: whatever it still had to say would be out of order.
    pub(crate) fn check_socket(&self, id: ParticipantId, client: &Client) -> Result<(), Refusal> {
        let p = self.participants.iter().find(|p| p.id == id);
        if p.is_some_and(|p| p.client.as_ref().is_some_and(|c| c.is(client))) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Forbidden,
            "another socket has taken over",
        ))
    }

    pub(crate) fn track(&mut self, id: TrackId) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|t| t.id == id)
    }

    /// Sends an event to everyone.
    pub(crate) fn broadcast(&mut self, event: &RoomEvent) {
        self.seq += 1;
        let text = event.message(self.seq);
        for participant in &self.participants {
            if let Some(client) = &participant.client {
                client.send(text.clone());
            }
            if let Some(changed) = &participant.changed {
                changed.notify_one();
            }
        }
    }

    /// Sends an event to one participant, if its socket is there.
    pub(crate) fn tell(&mut self, id: ParticipantId, event: &ClientEvent) {
        if let Some(client) = self.participant(id).and_then(|p| p.client.as_ref()) {
            client.send(message(event));
        }
    }

    /// Takes a track out of the room and tells everyone.
    pub(crate) fn remove_track(&mut self, id: TrackId, reason: &'static str) -> bool {
        let Some(index) = self.tracks.iter().position(|t| t.id == id) else {
            return false;
        };
        let track = self.tracks.remove(index);
        for participant in &mut self.participants {
            participant.slots.retain(|_, shown| *shown != id);
            participant.cannot_open.remove(&id);
        }
        if track.live {
            self.broadcast(&RoomEvent::TrackUnpublished {
                participant: track.owner,
                track: id,
                reason,
            });
        }
        true
    }

    /// Ids of a participant's tracks.
    pub(crate) fn tracks_of(&self, owner: ParticipantId) -> Vec<TrackId> {
        let own = self.tracks.iter().filter(|t| t.owner == owner);
        own.map(|t| t.id).collect()
    }

    /// The room as participant `of` finds it.
    pub(crate) fn snapshot(&self, of: ParticipantId) -> Snapshot {
        let others = self.participants.iter().filter(|p| p.id != of);
        Snapshot {
            participants: others
                .map(|p| ParticipantInfo {
                    participant: p.id,
                    tracks: self
                        .tracks
                        .iter()
                        .filter(|t| t.owner == p.id && t.live)
                        .map(Track::info)
                        .collect(),
                })
                .collect(),
            seq: self.seq,
        }
    }

    /// A participant's own tracks and slots.
    pub(crate) fn own(&self, id: ParticipantId) -> (Vec<OwnTrackInfo>, Vec<SlotInfo>) {
        let own = self.tracks.iter().filter(|t| t.owner == id && t.live);
        let tracks = own
            .map(|t| OwnTrackInfo {
                track: t.id,
                mid: t.mid,
                source: t.source,
                muted: t.muted,
            })
            .collect();
        let slots = self.participants.iter().find(|p| p.id == id).map(|p| {
            let shown = p.slots.iter();
            shown
                .map(|(mid, track)| SlotInfo {
                    mid: *mid,
                    track: *track,
                })
                .collect()
        });
        (tracks, slots.unwrap_or_default())
    }
}
