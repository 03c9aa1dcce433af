//! Rooms on several shards: which sessions are mirrored where.
//!
//! What is wanted follows from the room: every session with a track is mirrored on every other
//! shard that has a session of the room. [`sync`] compares that with what the shards were told and
//! tells them the difference, so that no event of a room needs to know what it means for mirrors.

use super::Rooms;
use super::room::{Room, Session, State, Track};
use super::shards::{RETRY, Shards};
use sealcast_model::{
    CloseReason, Command, CommandError, MirrorSession, ParticipantId, Publish, RoomId, SessionId,
    ShardId, TrackId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sessions that shards were told to mirror, and which of their tracks.
pub(crate) type Mirrors = BTreeMap<(usize, SessionId), BTreeSet<TrackId>>;

impl Rooms {
    /// Tells shards what has changed for them. A full queue is tried again until it has room.
    pub(super) fn sync_mirrors(&self, room: &Arc<Room>, state: &mut State) {
        if sync(&self.shards, room.id, state).is_ok() {
            return;
        }
        let (shards, room) = (self.shards.clone(), Arc::clone(room));
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(RETRY).await;
                if shards.stopped() || sync(&shards, room.id, &mut room.lock()).is_ok() {
                    return;
                }
            }
        });
    }

    /// Sends what concerns a track to every shard that mirrors it.
    pub(super) fn tell_mirrors(&self, state: &State, track: TrackId, command: &Command) {
        let mirrors = state.mirrors.iter();
        for ((shard, _), _) in mirrors.filter(|(_, tracks)| tracks.contains(&track)) {
            self.send_soon(*shard, command.clone());
        }
    }

    /// Tells the shards that mirror a participant's session that it was renegotiated.
    pub(super) fn update_mirrors(&self, room: RoomId, state: &State, of: ParticipantId) {
        let Some((home, session)) = session_of(state, of) else {
            return;
        };
        for (shard, _) in state.mirrors.keys().filter(|(_, id)| *id == session.id) {
            self.send_soon(*shard, mirror(room, of, home, session));
        }
    }
}

/// The shard and the session of a participant that has one.
fn session_of(state: &State, of: ParticipantId) -> Option<(usize, &Session)> {
    let participant = state.participants.iter().find(|p| p.id == of)?;
    Some((participant.shard, participant.session.as_ref()?))
}

fn mirror(room: RoomId, of: ParticipantId, home: usize, session: &Session) -> Command {
    Command::Mirror(Box::new(MirrorSession {
        session: session.id,
        participant: of,
        room,
        media: session.negotiated.media.clone(),
        home: ShardId(home as u16),
    }))
}

/// What is to be mirrored: nothing while the room is on one shard.
fn wanted(state: &State) -> Mirrors {
    let connected = state.participants.iter().filter(|p| p.session.is_some());
    let shards: BTreeSet<usize> = connected.map(|p| p.shard).collect();
    let mut wanted = Mirrors::new();
    if shards.len() < 2 {
        return wanted;
    }
    for track in state.tracks.iter().filter(|track| track.live) {
        let Some((home, session)) = session_of(state, track.owner) else {
            continue;
        };
        for shard in shards.iter().filter(|shard| **shard != home) {
            wanted
                .entry((*shard, session.id))
                .or_default()
                .insert(track.id);
        }
    }
    wanted
}

/// Tells shards the difference between what they mirror and what they should.
///
/// # Errors
/// A queue was full. What was told is noted; call again for the rest.
fn sync(shards: &Shards, room: RoomId, state: &mut State) -> Result<(), CommandError> {
    let wanted = wanted(state);
    let mut told = std::mem::take(&mut state.mirrors);
    let result = end(shards, &wanted, &mut told)
        .and_then(|()| begin(shards, room, state, &wanted, &mut told));
    state.mirrors = told;
    result
}

/// Ends mirrors that are not wanted any more.
fn end(shards: &Shards, wanted: &Mirrors, told: &mut Mirrors) -> Result<(), CommandError> {
    let mut gone = Vec::new();
    for (key @ (shard, session), tracks) in &mut *told {
        let Some(kept) = wanted.get(key) else {
            gone.push((*shard, *session));
            continue;
        };
        while let Some(track) = tracks.difference(kept).next().copied() {
            shards.send(*shard, Command::Unpublish { track })?;
            tracks.remove(&track);
        }
    }
    for key @ (shard, session) in gone {
        let reason = CloseReason::Requested;
        shards.send(shard, Command::CloseSession { session, reason })?;
        told.remove(&key);
    }
    Ok(())
}

/// Begins mirrors that are not there yet.
fn begin(
    shards: &Shards,
    room: RoomId,
    state: &State,
    wanted: &Mirrors,
    told: &mut Mirrors,
) -> Result<(), CommandError> {
    for (key @ (shard, id), tracks) in wanted {
        let owner = state.tracks.iter().find(|track| tracks.contains(&track.id));
        let owner = owner.map(|track| track.owner);
        let Some((of, (home, session))) = owner.and_then(|of| Some((of, session_of(state, of)?)))
        else {
            continue;
        };
        if !told.contains_key(key) {
            shards.send(*shard, mirror(room, of, home, session))?;
            told.insert(*key, BTreeSet::new());
        }
        let Some(there) = told.get_mut(key) else {
            continue;
        };
        for track in state.tracks.iter().filter(|t| tracks.contains(&t.id)) {
            if there.contains(&track.id) {
                continue;
            }
            shards.send(*shard, mirror_track(*id, track))?;
            there.insert(track.id);
            if track.muted {
                let (track, muted) = (track.id, true);
                shards.send(*shard, Command::SetMuted { track, muted })?;
            }
        }
    }
    Ok(())
}

fn mirror_track(session: SessionId, track: &Track) -> Command {
    Command::MirrorTrack(Box::new(Publish {
        track: track.id,
        session,
        mid: track.mid,
        source: track.source,
        seal: track.seal.clone(),
    }))
}
