//! What clients send each other sealed (PROTOCOL.md §6.2), and what they report about opening each
//! other's frames (§6.3).

use super::client::Client;
use super::event::message;
use super::{Rooms, Seat};
use crate::refusal::Refusal;
use sealcast_model::{ParticipantId, TrackId};
use serde::Serialize;

/// What a client tells about the frames of one track since its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackReport {
    /// The track.
    pub track: TrackId,
    /// Frames that were opened.
    pub opened: u32,
    /// Frames under a key that the client does not hold.
    pub unknown_key: u32,
    /// Frames that did not open for another reason.
    pub failed: u32,
}

impl Rooms {
    /// Hands a sealed message on to one participant, or to all others. Nobody but them can read
    /// it; it is not kept for those whose socket is away.
    ///
    /// # Errors
    /// `forbidden` if `client` is no longer the participant's socket.
    pub fn relay_sealed(
        &self,
        seat: &Seat,
        client: &Client,
        to: Option<ParticipantId>,
        data: &str,
    ) -> Result<(), Refusal> {
        #[derive(Serialize)]
        struct Sealed<'a> {
            r#type: &'static str,
            participant: String,
            data: &'a str,
        }
        let text = message(&Sealed {
            r#type: "sealed",
            participant: seat.participant.to_string(),
            data,
        });
        let state = seat.room.lock();
        state.check_socket(seat.participant, client)?;
        for p in &state.participants {
            let addressed = to.is_none_or(|to| to == p.id) && p.id != seat.participant;
            if let Some(client) = p.client.as_ref().filter(|_| addressed) {
                client.send(text.clone());
            }
        }
        drop(state);
        self.metrics.sealed_message();
        Ok(())
    }

    /// Takes a client's word on what it could open. Operators see sums; the log says which
    /// participant cannot open which track.
    pub fn report(&self, seat: &Seat, reports: &[TrackReport]) {
        for report in reports {
            self.metrics
                .client_frames(report.opened, report.unknown_key, report.failed);
            let failures = report.unknown_key.saturating_add(report.failed);
            if failures > 0 && report.opened == 0 {
                tracing::warn!(
                    room = %seat.room.id,
                    participant = %seat.participant,
                    track = %report.track,
                    unknown_key = report.unknown_key,
                    failed = report.failed,
                    "cannot open a track"
                );
            }
        }
    }
}
