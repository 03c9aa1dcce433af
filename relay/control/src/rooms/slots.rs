//! What a participant's slots show.

use super::room::State;
use super::{Rooms, Seat};
use crate::refusal::{Code, Refusal};
use sealcast_model::{
    AssignSlot, Command, CommandError, Mid, ParticipantId, SessionId, SlotSize, TrackId,
};

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
                self.shards.send(seat.shard, command)?;
            }
            let assigned = self
                .shards
                .request(seat.shard, move |request| Command::AssignSlots {
                    request,
                    session,
                    assign,
                });
            let p = state.present(seat.participant)?;
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
    let p = state.present(id)?;
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
