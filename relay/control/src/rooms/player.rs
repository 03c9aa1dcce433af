//! WHEP players do not signal, so the relay fills their slots for them (PROTOCOL.md §9): tracks
//! in order of publication, each slot keeping what it shows for as long as that lasts.

use super::room::State;
use super::slots::SlotRequest;
use super::{Rooms, Seat};
use crate::refusal::Code;
use sealcast_model::{Mid, ParticipantId, TrackId};
use std::sync::Arc;
use std::time::Duration;

/// How long an overloaded shard is left alone.
const BUSY: Duration = Duration::from_secs(1);

impl Rooms {
    /// Fills a player's slots from now until it leaves.
    pub fn play(self: &Arc<Self>, seat: &Seat) {
        let (rooms, seat) = (Arc::clone(self), seat.clone());
        let changed = {
            let mut state = seat.room.lock();
            state
                .participant(seat.participant)
                .and_then(|p| p.changed.clone())
        };
        let Some(changed) = changed else {
            return;
        };
        self.runtime.spawn(async move {
            loop {
                if !rooms.fill_slots(&seat).await {
                    return;
                }
                changed.notified().await;
            }
        });
    }

    /// One pass over a player's slots; false once it has left.
    async fn fill_slots(&self, seat: &Seat) -> bool {
        // What the shard refused in this pass is not tried again in it.
        let mut refused: Vec<SlotRequest> = Vec::new();
        loop {
            let next = {
                let mut state = seat.room.lock();
                if state.participant(seat.participant).is_none() {
                    return false;
                }
                next_assignment(&mut state, seat.participant, &refused)
            };
            let Some((mid, track)) = next else {
                return true;
            };
            let request = SlotRequest {
                mid,
                track: Some(track),
                size: None,
            };
            match self.assign(seat, &[request]).await {
                Ok(()) => {}
                Err(refusal) if refusal.code == Code::Busy => tokio::time::sleep(BUSY).await,
                Err(_) => refused.push(request),
            }
        }
    }
}

/// The first empty slot, and the oldest track that no slot shows and that this one can.
fn next_assignment(
    state: &mut State,
    id: ParticipantId,
    refused: &[SlotRequest],
) -> Option<(Mid, TrackId)> {
    let p = state.participants.iter().find(|p| p.id == id)?;
    let slots = &p.session.as_ref()?.negotiated.media.slots;
    for slot in slots.iter().filter(|s| !p.slots.contains_key(&s.mid)) {
        let was_refused = |track: TrackId| {
            let mut of_slot = refused.iter().filter(|r| r.mid == slot.mid);
            of_slot.any(|r| r.track == Some(track))
        };
        let found = state.tracks.iter().find(|t| {
            t.live
                && t.owner != id
                && t.source.kind() == slot.kind
                && !p.slots.values().any(|shown| *shown == t.id)
                && slot
                    .codecs
                    .iter()
                    .any(|c| (c.codec, c.profile) == (t.codec, t.profile))
                && !was_refused(t.id)
        });
        if let Some(track) = found {
            return Some((slot.mid, track.id));
        }
    }
    None
}
