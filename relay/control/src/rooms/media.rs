//! A participant's media: its session, its tracks, its slots.
//!
//! Commands are queued under the room's lock and their replies awaited outside of it, so that
//! the shard sees changes in the order in which the room's state took them.

use super::event::RoomEvent;
use super::room::{Session, State, Track};
use super::{Rooms, Seat};
use crate::random;
use crate::refusal::{Code, Refusal};
use crate::sdp::{self, LocalTransport, Negotiated};
use sealcast_model::limits::TRACKS_PER_SESSION;
use sealcast_model::{
    AssignSlot, CloseReason, Command, CommandError, Mid, ParticipantId, Publish, ReceiveMedia,
    SealRule, SessionId, SlotId, SlotMedia, SlotSize, Source, TrackId, WebRtcParams,
};

/// A track to publish, as a client asks for it.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// The sending m-line.
    pub mid: Mid,
    /// What it shows.
    pub source: Source,
    /// KID contexts of its encodings; `None` for unsealed media.
    pub contexts: Option<Vec<u64>>,
}

/// A slot to change, as a client asks for it.
#[derive(Clone, Copy, Debug)]
pub struct SlotRequest {
    /// The slot's m-line.
    pub mid: Mid,
    /// What it is to show.
    pub track: Option<TrackId>,
    /// Width and height that it is shown at, in pixels, if that is said.
    pub size: Option<(u16, u16)>,
}

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
            let p = state
                .participant(seat.participant)
                .ok_or(Refusal::NO_SESSION)?;
            let kept = p.session.as_ref().filter(|_| !restart);
            let kept = kept.map(|s| (s.id, s.ufrag.clone(), s.pwd.clone(), s.negotiated.clone()));
            (p.role, kept)
        };
        let (role, kept) = current;
        let offer = sdp::parse(sdp).map_err(|e| self.refuse_sdp(e))?;
        let (ufrag, pwd) = match &kept {
            Some((_, ufrag, pwd, _)) => (ufrag.clone(), pwd.clone()),
            None => (random::ice_ufrag(), random::ice_pwd()),
        };
        let local = LocalTransport {
            ufrag,
            pwd,
            fingerprint: self.fingerprint,
            candidates: self.shards.candidates(seat.room.shard).to_vec(),
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
        let shard = seat.room.shard;
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
            let p = state
                .participant(seat.participant)
                .ok_or(Refusal::NO_SESSION)?;
            let old = p.session.replace(Session {
                id: session,
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
            self.shards.request(shard, |request| Command::OpenSession {
                request,
                session,
                participant: seat.participant,
                room: seat.room.id,
                webrtc: Box::new(webrtc),
                media: Box::new(media),
            })
        };
        if let Err(error) = opened.await {
            // A shard that did answer has no session; one that is merely slow must not keep it.
            self.close_session(shard, session, CloseReason::Requested);
            let mut state = seat.room.lock();
            if let Some(p) = state.participant(seat.participant) {
                p.session.take_if(|s| s.id == session);
            }
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
            .request(seat.room.shard, |request| Command::UpdateMedia {
                request,
                session,
                media: Box::new(negotiated.media.clone()),
            });
        updated.await?;
        let mut state = seat.room.lock();
        let p = state
            .participant(seat.participant)
            .ok_or(Refusal::NO_SESSION)?;
        let current = p.session.as_mut().filter(|s| s.id == session);
        let current = current.ok_or(Refusal::NO_SESSION)?;
        let receive = negotiated.media.receive.clone();
        p.slots
            .retain(|mid, _| negotiated.media.slots.iter().any(|s| s.mid == *mid));
        current.negotiated = negotiated;
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
        let shard = seat.room.shard;
        let mut pending = Vec::new();
        {
            let mut state = seat.room.lock();
            let Some((session, media)) = session_media(&mut state, seat.participant) else {
                return;
            };
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
        let mut assign: Vec<(SessionId, SlotId, TrackId)> = Vec::new();
        for p in &mut state.participants {
            if p.id == seat.participant {
                p.slots.retain(|mid, _| slots.iter().any(|s| s.mid == *mid));
                for (mid, track) in &p.slots {
                    let slot = slots.iter().find(|s| s.mid == *mid);
                    assign.extend(slot.map(|s| (session, s.slot, *track)));
                }
            } else if let Some(other) = &p.session {
                for (mid, track) in p.slots.iter().filter(|(_, t)| own.contains(t)) {
                    let mut slots = other.negotiated.media.slots.iter();
                    let slot = slots.find(|s| s.mid == *mid);
                    assign.extend(slot.map(|s| (other.id, s.slot, *track)));
                }
            }
        }
        for (session, slot, track) in assign {
            let track = Some(track);
            let command = Command::AssignSlots {
                request: self.shards.unanswered(),
                session,
                assign: vec![AssignSlot { slot, track }],
            };
            self.send_soon(seat.room.shard, command);
        }
    }

    /// Makes a sending m-line a track.
    ///
    /// # Errors
    /// `forbidden`, `unsealed`, `no_session`, `no_slot`, `mid_in_use`, `limit`, `busy`.
    pub async fn publish(&self, seat: &Seat, request: PublishRequest) -> Result<TrackId, Refusal> {
        let _turn = seat.turn.lock().await;
        let track = TrackId(random::u64());
        let published = {
            let mut state = seat.room.lock();
            let p = state
                .participant(seat.participant)
                .ok_or(Refusal::NO_SESSION)?;
            if !p.grants.publish.contains(&request.source) {
                return Err(Refusal::new(
                    Code::Forbidden,
                    "the token does not allow this source",
                ));
            }
            let seal = self.seal_rule(p.grants.unsealed, request.contexts)?;
            let session = p.session.as_ref().ok_or(Refusal::NO_SESSION)?;
            let receive = &session.negotiated.media.receive;
            let media = receive.iter().find(|r| r.mid == request.mid);
            let media = media.filter(|m| m.kind == request.source.kind());
            let codec = media.and_then(|m| m.codecs.first());
            let codec = codec.ok_or(Refusal::new(
                Code::NoSlot,
                "no sending m-line of this kind has this mid",
            ))?;
            let new = Track {
                id: track,
                owner: seat.participant,
                mid: request.mid,
                source: request.source,
                codec: codec.codec,
                profile: codec.profile,
                seal,
                muted: false,
                live: false,
            };
            let session = session.id;
            let mut own = state.tracks.iter().filter(|t| t.owner == seat.participant);
            if own.clone().count() >= TRACKS_PER_SESSION {
                return Err(Refusal::new(Code::Limit, "16 tracks per participant"));
            }
            if own.any(|t| t.mid == request.mid) {
                return Err(CommandError::MidInUse.into());
            }
            let published = self.publish_command(seat.room.shard, session, &new);
            self.tracks.insert(track, seat.room.clone());
            state.tracks.push(new);
            published
        };
        let result = published.await;
        let mut state = seat.room.lock();
        if let Err(error) = result {
            self.end_track(&mut state, seat, track, "requested");
            return Err(error.into());
        }
        // The participant may have left meanwhile, or its session ended for good.
        let new = state.track(track).ok_or(Refusal::NO_SESSION)?;
        new.live = true;
        let event = RoomEvent::TrackPublished {
            participant: new.owner,
            info: new.info(),
        };
        state.broadcast(&event);
        tracing::info!(room = %seat.room.id, %track, source = request.source.as_str(), "published");
        Ok(track)
    }

    fn publish_command(
        &self,
        shard: usize,
        session: SessionId,
        track: &Track,
    ) -> impl Future<Output = Result<(), CommandError>> + Send + use<'_> {
        let publish = Publish {
            track: track.id,
            session,
            mid: track.mid,
            source: track.source,
            seal: track.seal.clone(),
        };
        self.shards.request(shard, |request| Command::Publish {
            request,
            publish: Box::new(publish),
        })
    }

    fn seal_rule(&self, granted: bool, contexts: Option<Vec<u64>>) -> Result<SealRule, Refusal> {
        match contexts {
            Some(contexts) => Ok(SealRule::Contexts(contexts)),
            None if self.config.sealed_required => Err(Refusal::new(
                Code::Unsealed,
                "this relay takes sealed media only: seal.contexts is missing",
            )),
            None if !granted => Err(Refusal::new(
                Code::Unsealed,
                "the token does not allow unsealed media: seal.contexts is missing",
            )),
            None => Ok(SealRule::Any),
        }
    }

    /// Ends a track of one's own.
    ///
    /// # Errors
    /// `no_track`.
    pub async fn unpublish(&self, seat: &Seat, track: TrackId) -> Result<(), Refusal> {
        let _turn = seat.turn.lock().await;
        let mut state = seat.room.lock();
        let own = state
            .track(track)
            .is_some_and(|t| t.owner == seat.participant);
        if !own {
            return Err(CommandError::NoTrack.into());
        }
        self.end_track(&mut state, seat, track, "requested");
        Ok(())
    }

    fn end_track(&self, state: &mut State, seat: &Seat, track: TrackId, reason: &'static str) {
        self.tracks.remove(&track);
        if state.remove_track(track, reason) {
            self.send_soon(seat.room.shard, Command::Unpublish { track });
        }
    }

    /// Mutes or unmutes a track. Others' tracks can be muted by a moderator, and unmuted by
    /// nobody but their owner.
    ///
    /// # Errors
    /// `no_track`, `forbidden`.
    pub async fn mute(&self, seat: &Seat, track: TrackId, muted: bool) -> Result<(), Refusal> {
        let _turn = seat.turn.lock().await;
        let mut state = seat.room.lock();
        let p = state
            .participant(seat.participant)
            .ok_or(Refusal::NO_SESSION)?;
        let moderate = p.grants.moderate;
        let found = state.track(track).filter(|t| t.live);
        let found = found.ok_or(Refusal::from(CommandError::NoTrack))?;
        if found.owner != seat.participant && !(moderate && muted) {
            return Err(Refusal::new(
                Code::Forbidden,
                "only a moderator mutes others, and only the owner unmutes",
            ));
        }
        if found.muted == muted {
            return Ok(());
        }
        found.muted = muted;
        let event = RoomEvent::TrackMuted {
            participant: found.owner,
            track,
            muted,
            by: seat.participant,
        };
        self.send_soon(seat.room.shard, Command::SetMuted { track, muted });
        state.broadcast(&event);
        Ok(())
    }

    /// Changes what slots show, all or nothing.
    ///
    /// # Errors
    /// `forbidden`, `no_session`, `no_slot`, `no_track`, `codec_unsupported`, `limit`, `busy`.
    pub async fn assign(&self, seat: &Seat, requests: &[SlotRequest]) -> Result<(), Refusal> {
        let _turn = seat.turn.lock().await;
        self.assign_in_turn(seat, requests).await
    }

    pub(super) async fn assign_in_turn(
        &self,
        seat: &Seat,
        requests: &[SlotRequest],
    ) -> Result<(), Refusal> {
        let (assigned, before) = {
            let mut state = seat.room.lock();
            let (session, assign) = check_assignment(&mut state, seat.participant, requests)?;
            let sizes: Vec<SlotSize> = requests
                .iter()
                .zip(&assign)
                .filter_map(|(request, assign)| {
                    let (width, height) = request.size?;
                    Some(SlotSize {
                        slot: assign.slot,
                        width,
                        height,
                    })
                })
                .collect();
            if !sizes.is_empty() {
                let command = Command::SizeSlots { session, sizes };
                self.shards.send(seat.room.shard, command)?;
            }
            let assigned =
                self.shards
                    .request(seat.room.shard, move |request| Command::AssignSlots {
                        request,
                        session,
                        assign,
                    });
            let p = state
                .participant(seat.participant)
                .ok_or(Refusal::NO_SESSION)?;
            let before = p.slots.clone();
            for request in requests {
                match request.track {
                    Some(track) => p.slots.insert(request.mid, track),
                    None => p.slots.remove(&request.mid),
                };
            }
            (assigned, before)
        };
        if let Err(error) = assigned.await {
            let mut state = seat.room.lock();
            let tracks: Vec<TrackId> = state.tracks.iter().map(|t| t.id).collect();
            if let Some(p) = state.participant(seat.participant) {
                // Tracks that ended while the shard thought about it stay ended.
                p.slots = before;
                p.slots.retain(|_, track| tracks.contains(track));
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Removes a participant, who may already be gone.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn remove(&self, seat: &Seat, target: ParticipantId) -> Result<(), Refusal> {
        let _turn = seat.turn.lock().await;
        let removed = {
            let mut state = seat.room.lock();
            let p = state
                .participant(seat.participant)
                .ok_or(Refusal::NO_SESSION)?;
            if !p.grants.moderate {
                return Err(Refusal::new(
                    Code::Forbidden,
                    "only a moderator removes participants",
                ));
            }
            let by = seat.participant;
            state.tell(target, &super::ClientEvent::Removed { by });
            state.participant(target).map(|p| Seat {
                room: seat.room.clone(),
                participant: target,
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

    /// The peer's ICE user fragment.
    #[must_use]
    pub fn remote_ufrag(&self, seat: &Seat) -> Option<String> {
        let mut state = seat.room.lock();
        let session = state.participant(seat.participant)?.session.as_ref()?;
        Some(session.negotiated.remote.ufrag.clone())
    }

    /// The tracks a WHIP client's offer makes: its first audio m-line, and its first video m-line
    /// as `video`.
    ///
    /// # Errors
    /// As [`Rooms::publish`].
    pub async fn publish_all(&self, seat: &Seat, video: Source) -> Result<(), Refusal> {
        let (audio_mid, video_mid) = {
            let mut state = seat.room.lock();
            let (_, media) =
                session_media(&mut state, seat.participant).ok_or(Refusal::NO_SESSION)?;
            let first = |source: Source| {
                let mut of_kind = media.receive.iter().filter(|r| r.kind == source.kind());
                of_kind.next().map(|r| r.mid)
            };
            (first(Source::Audio), first(video))
        };
        for (mid, source) in [(audio_mid, Source::Audio), (video_mid, video)] {
            if let Some(mid) = mid {
                let request = PublishRequest {
                    mid,
                    source,
                    contexts: None,
                };
                self.publish(seat, request).await?;
            }
        }
        Ok(())
    }
}

/// A participant's session and its media.
fn session_media(
    state: &mut State,
    id: ParticipantId,
) -> Option<(SessionId, sealcast_model::SessionMedia)> {
    let session = state.participant(id)?.session.as_ref()?;
    Some((session.id, session.negotiated.media.clone()))
}

/// Brings a track in line with renegotiated m-lines; false if none carries it any more.
fn refresh(state: &mut State, track: TrackId, receive: &[ReceiveMedia]) -> bool {
    let Some(track) = state.track(track) else {
        return false;
    };
    let media = receive
        .iter()
        .find(|r| r.mid == track.mid && r.kind == track.source.kind());
    let Some(codec) = media.and_then(|m| m.codecs.first()) else {
        return false;
    };
    (track.codec, track.profile) = (codec.codec, codec.profile);
    true
}

/// Checks a `slots` request against the room and translates it for the shard.
fn check_assignment(
    state: &mut State,
    id: ParticipantId,
    requests: &[SlotRequest],
) -> Result<(SessionId, Vec<AssignSlot>), Refusal> {
    let tracks: Vec<_> = requests
        .iter()
        .map(|r| {
            r.track.map(|id| {
                state
                    .track(id)
                    .filter(|t| t.live)
                    .map(|t| (t.source.kind(), t.codec, t.profile))
            })
        })
        .collect();
    let p = state.participant(id).ok_or(Refusal::NO_SESSION)?;
    if !p.grants.subscribe {
        return Err(Refusal::new(
            Code::Forbidden,
            "the token does not allow receiving",
        ));
    }
    let session = p.session.as_ref().ok_or(Refusal::NO_SESSION)?;
    let slots = &session.negotiated.media.slots;
    let mut assign: Vec<AssignSlot> = Vec::with_capacity(requests.len());
    for (request, track) in requests.iter().zip(tracks) {
        let slot = slots.iter().find(|s| s.mid == request.mid);
        let slot = slot.ok_or(Refusal::from(CommandError::NoSlot))?;
        if assign.iter().any(|a| a.slot == slot.slot) {
            return Err(Refusal::new(Code::BadMessage, "a slot is assigned twice"));
        }
        match track {
            Some(None) => return Err(CommandError::NoTrack.into()),
            Some(Some((kind, ..))) if kind != slot.kind => {
                return Err(CommandError::NoSlot.into());
            }
            Some(Some((_, codec, profile)))
                if !slot
                    .codecs
                    .iter()
                    .any(|c| (c.codec, c.profile) == (codec, profile)) =>
            {
                return Err(CommandError::CodecUnsupported.into());
            }
            _ => assign.push(AssignSlot {
                slot: slot.slot,
                track: request.track,
            }),
        }
    }
    Ok((session.id, assign))
}
