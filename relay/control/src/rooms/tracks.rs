//! A participant's tracks: published, muted, ended.

use super::event::RoomEvent;
use super::room::{State, Track};
use super::{Rooms, Seat};
use crate::random;
use crate::refusal::{Code, Refusal};
use sealcast_model::limits::TRACKS_PER_SESSION;
use sealcast_model::{Command, CommandError, Mid, Publish, SealRule, SessionId, Source, TrackId};

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

impl Rooms {
    /// Makes a sending m-line a track.
    ///
    /// # Errors
    /// `forbidden`, `unsealed`, `no_session`, `no_slot`, `mid_in_use`, `limit`, `busy`.
    pub async fn publish(&self, seat: &Seat, request: PublishRequest) -> Result<TrackId, Refusal> {
        let _turn = seat.turn.lock().await;
        let track = TrackId(random::u64());
        let published = {
            let mut state = seat.room.lock();
            let p = state.present(seat.participant)?;
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
            let codec = media.and_then(|m| m.codec());
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
            let published = self.publish_command(seat.shard, session, &new);
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
        // Before anybody hears of it and asks for it.
        self.sync_mirrors(&seat.room, &mut state);
        state.broadcast(&event);
        tracing::info!(room = %seat.room.id, %track, source = request.source.as_str(), "published");
        Ok(track)
    }

    pub(super) fn publish_command(
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

    /// The tracks a WHIP client's offer makes: its first audio m-line, and its first video m-line
    /// as `video`.
    ///
    /// # Errors
    /// As [`Rooms::publish`].
    pub async fn publish_all(&self, seat: &Seat, video: Source) -> Result<(), Refusal> {
        let (audio_mid, video_mid) = {
            let mut state = seat.room.lock();
            let session = state.present(seat.participant)?.session.as_ref();
            let media = &session.ok_or(Refusal::NO_SESSION)?.negotiated.media;
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

    pub(super) fn end_track(
        &self,
        state: &mut State,
        seat: &Seat,
        track: TrackId,
        reason: &'static str,
    ) {
        self.tracks.remove(&track);
        if state.remove_track(track, reason) {
            self.send_soon(seat.shard, Command::Unpublish { track });
            self.sync_mirrors(&seat.room, state);
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
        let p = state.present(seat.participant)?;
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
        let owner = found.owner;
        let event = RoomEvent::TrackMuted {
            participant: found.owner,
            track,
            muted,
            by: seat.participant,
        };
        let home = state
            .participants
            .iter()
            .find(|p| p.id == owner)
            .map(|p| p.shard);
        let command = Command::SetMuted { track, muted };
        self.tell_mirrors(&state, track, &command);
        if let Some(home) = home {
            self.send_soon(home, command);
        }
        state.broadcast(&event);
        Ok(())
    }
}
