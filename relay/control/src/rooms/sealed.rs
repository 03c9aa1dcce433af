//! What clients send each other sealed, by signalling (PROTOCOL.md §6.2) or the data channel (§8),
//! and what they report about opening each other's frames (§6.3).

use super::client::Client;
use super::event::{ClientEvent, message};
use super::{Rooms, Seat};
use crate::refusal::{Code, Refusal};
use crate::sdp::Role;
use axum::extract::ws::Utf8Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealcast_model::{Command, ParticipantId, SessionId, TrackId};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a client tells about the frames of one track since its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackReport {
    /// The track.
    pub track: TrackId,
    /// Frames that were opened.
    pub opened: u32,
    /// Frames under a key that the client does not hold.
    pub unknown_key: u32,
    /// Frames that a key it holds does not open.
    pub altered: u32,
    /// Frames that open, but are another member's than the track's owner.
    pub misattributed: u32,
    /// Frames that are not SFrame at all.
    pub malformed: u32,
    /// The newest frames did not open.
    pub failing: bool,
}

impl TrackReport {
    /// Of a track of which nothing came.
    pub(crate) const NOTHING: TrackReport = TrackReport {
        track: TrackId(0),
        opened: 0,
        unknown_key: 0,
        altered: 0,
        misattributed: 0,
        malformed: 0,
        failing: false,
    };

    /// What became of the frames, by label.
    pub(crate) const fn by_result(&self) -> [(&'static str, u32); 5] {
        [
            ("opened", self.opened),
            ("unknown_key", self.unknown_key),
            ("altered", self.altered),
            ("misattributed", self.misattributed),
            ("malformed", self.malformed),
        ]
    }
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
        let text = sealed_event(seat.participant, data);
        let state = seat.room.lock();
        state.check_socket(seat.participant, client)?;
        for p in &state.participants {
            let addressed = to.is_none_or(|to| to == p.id) && p.id != seat.participant;
            if let Some(client) = p.client.as_ref().filter(|_| addressed) {
                client.send(text.clone());
            }
        }
        drop(state);
        self.metrics.sealed_message("signalling");
        Ok(())
    }

    /// A session's data channel is open: sealed messages reach it there from now on.
    pub(super) fn data_opened(&self, session: SessionId) {
        let Some(seat) = self.seat_of(session) else {
            return;
        };
        let mut state = seat.room.lock();
        let open = state.participant(seat.participant);
        let open = open.and_then(|p| p.session.as_mut());
        if let Some(open) = open.filter(|s| s.id == session) {
            open.data_open = true;
        }
    }

    /// Takes a client's message on the data channel. A sealed one goes to all others: on their
    /// data channels, and to those who have none open by signalling.
    ///
    /// The shard has seen to it that nobody says too much.
    pub(super) fn data_message(&self, session: SessionId, binary: bool, data: Vec<u8>) {
        let Some(seat) = self.seat_of(session) else {
            return;
        };
        if let Err(refusal) = check_data(&seat, binary, &data) {
            self.metrics.request::<()>("data", &Err(refusal.clone()));
            let told = refusal.message(None);
            return self.send_data(&seat, seat.shard, vec![session], false, told.as_bytes());
        }
        let mut channels: BTreeMap<usize, Vec<SessionId>> = BTreeMap::new();
        let mut sockets = Vec::new();
        {
            let state = seat.room.lock();
            for p in state
                .participants
                .iter()
                .filter(|p| p.id != seat.participant)
            {
                let open = p.session.as_ref().filter(|s| s.data_open);
                match (open, &p.client) {
                    (Some(open), _) if p.role == Role::Interactive => {
                        channels.entry(p.shard).or_default().push(open.id);
                    }
                    (_, Some(client)) => sockets.push(client.clone()),
                    _ => {}
                }
            }
        }
        if !sockets.is_empty() {
            let text = sealed_event(seat.participant, &STANDARD.encode(&data));
            for client in sockets {
                client.send(text.clone());
            }
        }
        for (shard, channels) in channels {
            self.send_data(&seat, shard, channels, true, &data);
        }
        self.metrics.sealed_message("data_channel");
    }

    /// Has a shard send on data channels. What it does not take for lack of room is lost and
    /// counted, as whatever a channel does not take is.
    fn send_data(
        &self,
        seat: &Seat,
        shard: usize,
        sessions: Vec<SessionId>,
        binary: bool,
        data: &[u8],
    ) {
        let command = Command::SendData {
            sessions,
            binary,
            data: data.to_vec(),
        };
        if self.shards.send(shard, command).is_err() {
            tracing::debug!(room = %seat.room.id, "the shard took no data message");
        }
    }

    /// Takes a client's word on what it could open. Operators see sums by reason; the log, and the
    /// track's owner, are told which participant cannot open it, and when it can again.
    pub fn report(&self, seat: &Seat, reports: &[TrackReport]) {
        let mut state = seat.room.lock();
        for report in reports {
            self.metrics.client_frames(report);
            let Some(owner) = state.track(report.track).map(|t| t.owner) else {
                continue;
            };
            let Some(p) = state.participant(seat.participant) else {
                return;
            };
            let changed = if report.failing {
                p.cannot_open.insert(report.track)
            } else {
                p.cannot_open.remove(&report.track)
            };
            if !changed {
                continue;
            }
            tracing::warn!(
                room = %seat.room.id,
                participant = %seat.participant,
                track = %report.track,
                unknown_key = report.unknown_key,
                altered = report.altered,
                misattributed = report.misattributed,
                malformed = report.malformed,
                "{}",
                if report.failing { "cannot open a track" } else { "opens a track again" }
            );
            let unopened = ClientEvent::TrackUnopened {
                participant: seat.participant,
                track: report.track,
                failing: report.failing,
            };
            state.tell(owner, &unopened);
        }
    }
}

/// Whether this may be a sealed message, from somebody who may send one.
fn check_data(seat: &Seat, binary: bool, data: &[u8]) -> Result<(), Refusal> {
    if !binary || data.is_empty() {
        return Err(Refusal::new(
            Code::BadMessage,
            "what a client sends on the data channel is binary: a sealed message",
        ));
    }
    if seat.room.lock().present(seat.participant)?.role != Role::Interactive {
        return Err(Refusal::new(
            Code::Forbidden,
            "WHIP and WHEP have no sealed messages",
        ));
    }
    Ok(())
}

fn sealed_event(from: ParticipantId, data: &str) -> Utf8Bytes {
    #[derive(Serialize)]
    struct Sealed<'a> {
        r#type: &'static str,
        participant: String,
        data: &'a str,
    }
    message(&Sealed {
        r#type: "sealed",
        participant: from.to_string(),
        data,
    })
}
