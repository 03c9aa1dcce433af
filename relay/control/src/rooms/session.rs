//! A participant's media session: opened, renegotiated and replaced by its offers.
//!
//! Commands are queued under the room's lock and their replies awaited outside of it, so that
//! the shard sees changes in the order in which the room's state took them.

use super::room::{Session, State};
use super::{Rooms, Seat};
use crate::random;
use crate::refusal::Refusal;
use crate::sdp::{self, LocalTransport, Negotiated};
use sealcast_model::{
    AssignSlot, CloseReason, Command, ReceiveMedia, SessionId, ShardId, SlotId, SlotMedia, TrackId,
    WebRtcParams,
};

impl Rooms {
    /// Answers an offer: opens a media session, or renegotiates the one there is. With `restart`
    /// the old session is replaced, and tracks and slots move to the new one by MID.
    ///
    /// # Errors
    /// `bad_sdp`, `sdp_too_large`, `busy`, `limit`, `no_session`.
    pub async fn offer(&self, seat: &Seat, sdp: &str, restart: bool) -> Result<String, Refusal> {
        let _turn = seat.turn.lock().await;
        let current = {
            let mut state = seat.room.lock();
            let p = state.present(seat.participant)?;
            let kept = p.session.as_ref().filter(|_| !restart);
            let kept = kept.map(|s| (s.id, s.ufrag.clone(), s.pwd.clone(), s.negotiated.clone()));
            (p.role, kept)
        };
        let (role, kept) = current;
        let offer = sdp::parse(sdp).map_err(|e| self.refuse_sdp(e))?;
        let (ufrag, pwd) = match &kept {
            Some((_, ufrag, pwd, _)) => (ufrag.clone(), pwd.clone()),
            None => (
                random::ice_ufrag(ShardId(seat.shard as u16)),
                random::ice_pwd(),
            ),
        };
        let local = LocalTransport {
            ufrag,
            pwd,
            fingerprint: self.fingerprint,
            candidates: self.shards.candidates(seat.shard).to_vec(),
        };
        let previous = kept.as_ref().map(|(_, _, _, negotiated)| negotiated);
        let negotiated = sdp::negotiate(
            &offer,
            &self.policy,
            role,
            &local,
            previous,
            &mut random::u32,
        )
        .map_err(|e| self.refuse_sdp(e))?;
        let answer = negotiated.answer.to_string();
        match kept {
            Some((session, ..)) => self.renegotiate(seat, session, negotiated).await?,
            None => self.open_session(seat, negotiated, local).await?,
        }
        Ok(answer)
    }

    fn refuse_sdp(&self, error: sdp::SdpError) -> Refusal {
        self.metrics.sdp_refused(error.kind);
        error.into()
    }

    async fn open_session(
        &self,
        seat: &Seat,
        negotiated: Negotiated,
        local: LocalTransport,
    ) -> Result<(), Refusal> {
        let session = SessionId(random::u64());
        let shard = seat.shard;
        let webrtc = WebRtcParams {
            local_ufrag: local.ufrag.clone(),
            local_pwd: local.pwd.clone(),
            remote_ufrag: negotiated.remote.ufrag.clone(),
            remote_pwd: negotiated.remote.pwd.clone(),
            remote_fingerprint: negotiated.remote.fingerprint,
            sctp_port: negotiated.sctp_port,
        };
        let media = negotiated.media.clone();
        let opened = {
            let mut state = seat.room.lock();
            let p = state.present(seat.participant)?;
            let old = p.session.replace(Session {
                id: session,
                data_open: false,
                negotiated,
                ufrag: local.ufrag,
                pwd: local.pwd,
            });
            p.session_generation += 1;
            p.session_end = None;
            if let Some(old) = old {
                self.close_session(shard, old.id, CloseReason::Requested);
            }
            self.sessions.insert(session, seat.clone());
            let opened = self.shards.request(shard, |request| Command::OpenSession {
                request,
                session,
                participant: seat.participant,
                room: seat.room.id,
                webrtc: Box::new(webrtc),
                media: Box::new(media),
            });
            self.sync_mirrors(&seat.room, &mut state);
            opened
        };
        if let Err(error) = opened.await {
            // A shard that did answer has no session; one that is merely slow must not keep it.
            self.close_session(shard, session, CloseReason::Requested);
            let mut state = seat.room.lock();
            if let Some(p) = state.participant(seat.participant) {
                p.session.take_if(|s| s.id == session);
            }
            self.sync_mirrors(&seat.room, &mut state);
            return Err(error.into());
        }
        self.take_up(seat).await;
        Ok(())
    }

    async fn renegotiate(
        &self,
        seat: &Seat,
        session: SessionId,
        negotiated: Negotiated,
    ) -> Result<(), Refusal> {
        let updated = self
            .shards
            .request(seat.shard, |request| Command::UpdateMedia {
                request,
                session,
                media: Box::new(negotiated.media.clone()),
            });
        updated.await?;
        let mut state = seat.room.lock();
        let p = state.present(seat.participant)?;
        let current = p.session.as_mut().filter(|s| s.id == session);
        let current = current.ok_or(Refusal::NO_SESSION)?;
        let receive = negotiated.media.receive.clone();
        p.slots
            .retain(|mid, _| negotiated.media.slots.iter().any(|s| s.mid == *mid));
        current.negotiated = negotiated;
        self.update_mirrors(seat.room.id, &state, seat.participant);
        // A track whose m-line no longer sends is over.
        for track in state.tracks_of(seat.participant) {
            if !refresh(&mut state, track, &receive) {
                self.end_track(&mut state, seat, track, "requested");
            }
        }
        Ok(())
    }

    /// Moves tracks and slots that outlived the last session to the new one.
    async fn take_up(&self, seat: &Seat) {
        let shard = seat.shard;
        let mut pending = Vec::new();
        {
            let mut state = seat.room.lock();
            let Ok(Some(current)) = state.present(seat.participant).map(|p| &p.session) else {
                return;
            };
            let (session, media) = (current.id, current.negotiated.media.clone());
            for track in state.tracks_of(seat.participant) {
                if !refresh(&mut state, track, &media.receive) {
                    self.tracks.remove(&track);
                    state.remove_track(track, "session_closed");
                    continue;
                }
                let Some(t) = state.track(track) else {
                    continue;
                };
                pending.push((track, self.publish_command(shard, session, t)));
                if t.muted {
                    self.send_soon(shard, Command::SetMuted { track, muted: true });
                }
            }
            // What ended with the refresh above.
            self.sync_mirrors(&seat.room, &mut state);
            self.reassign(&mut state, seat, session, &media.slots);
        }
        for (track, published) in pending {
            if published.await.is_err() {
                let mut state = seat.room.lock();
                self.end_track(&mut state, seat, track, "session_closed");
            }
        }
    }

    /// Repeats the assignments that a replaced session undid: its own slots, and the slots of
    /// others that show its tracks. Nobody waits for these; a slot that cannot show its track
    /// any more is told so by its shard's notice.
    fn reassign(&self, state: &mut State, seat: &Seat, session: SessionId, slots: &[SlotMedia]) {
        let own = state.tracks_of(seat.participant);
        let mut assign: Vec<(usize, SessionId, SlotId, TrackId)> = Vec::new();
        for p in &mut state.participants {
            if p.id == seat.participant {
                p.slots.retain(|mid, _| slots.iter().any(|s| s.mid == *mid));
                for (mid, track) in &p.slots {
                    let slot = slots.iter().find(|s| s.mid == *mid);
                    assign.extend(slot.map(|s| (p.shard, session, s.slot, *track)));
                }
            } else if let Some(other) = &p.session {
                for (mid, track) in p.slots.iter().filter(|(_, t)| own.contains(t)) {
                    let mut slots = other.negotiated.media.slots.iter();
                    let slot = slots.find(|s| s.mid == *mid);
                    assign.extend(slot.map(|s| (p.shard, other.id, s.slot, *track)));
                }
            }
        }
        for (shard, session, slot, track) in assign {
            let track = Some(track);
            let command = Command::AssignSlots {
                request: self.shards.unanswered(),
                session,
                assign: vec![AssignSlot { slot, track }],
            };
            self.send_soon(shard, command);
        }
    }

    /// Forgets a session and has its shard close it.
    pub(super) fn close_session(&self, shard: usize, session: SessionId, reason: CloseReason) {
        self.sessions.remove(&session);
        self.send_soon(shard, Command::CloseSession { session, reason });
    }

    /// The peer's ICE user fragment.
    #[must_use]
    pub fn remote_ufrag(&self, seat: &Seat) -> Option<String> {
        let mut state = seat.room.lock();
        let session = state.participant(seat.participant)?.session.as_ref()?;
        Some(session.negotiated.remote.ufrag.clone())
    }
}

/// Brings a track in line with renegotiated m-lines; false if none carries it any more.
fn refresh(state: &mut State, track: TrackId, receive: &[ReceiveMedia]) -> bool {
    let Some(track) = state.track(track) else {
        return false;
    };
    let media = receive
        .iter()
        .find(|r| r.mid == track.mid && r.kind == track.source.kind());
    let Some(codec) = media.and_then(ReceiveMedia::codec) else {
        return false;
    };
    (track.codec, track.profile) = (codec.codec, codec.profile);
    true
}
