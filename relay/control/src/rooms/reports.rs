//! What shards report: sessions that connected or closed, tracks that were blocked.

use super::event::{ClientEvent, RoomEvent};
use super::{Rooms, Seat};
use crate::sdp::Role;
use sealcast_model::{CloseReason, Event, SessionId, TrackId, TransportKind};
use std::sync::Arc;

impl Rooms {
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
            Event::DataOpen { session } => self.data_opened(session),
            Event::Data {
                session,
                binary,
                data,
            } => self.data_message(session, binary, data),
        }
    }

    pub(super) fn seat_of(&self, session: SessionId) -> Option<Seat> {
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
        self.sync_mirrors(&seat.room, &mut state);
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
}
