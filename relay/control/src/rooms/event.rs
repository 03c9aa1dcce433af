//! Room events and snapshots, as they go over the wire (PROTOCOL.md §4 and §6.1).

use axum::extract::ws::Utf8Bytes;
use sealcast_model::{Mid, ParticipantId, Source, TrackId};
use serde::{Serialize, Serializer};
use std::fmt::Display;

/// An event that everyone in a room gets, with the room's next `seq`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum RoomEvent {
    /// Somebody joined.
    ParticipantJoined {
        /// Who.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
    },
    /// Somebody is gone.
    ParticipantLeft {
        /// Who.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
        /// `left`, `removed`, `timeout`, or a session's close reason.
        reason: &'static str,
    },
    /// A track can be shown.
    TrackPublished {
        /// Whose.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
        /// Its description.
        #[serde(flatten)]
        info: TrackInfo,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Whose.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
        /// Which.
        #[serde(serialize_with = "text")]
        track: TrackId,
        /// `requested`, `left` or `session_closed`.
        reason: &'static str,
    },
    /// A track was muted or unmuted.
    TrackMuted {
        /// Whose.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
        /// Which.
        #[serde(serialize_with = "text")]
        track: TrackId,
        /// Muted now.
        muted: bool,
        /// By whom.
        #[serde(serialize_with = "text")]
        by: ParticipantId,
    },
    /// A track's media was not sealed; nothing of it is forwarded any more.
    TrackBlocked {
        /// Whose.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
        /// Which.
        #[serde(serialize_with = "text")]
        track: TrackId,
        /// `unsealed`.
        reason: &'static str,
    },
}

/// An event to one client.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ClientEvent {
    /// ICE and DTLS are done.
    MediaConnected {
        /// `udp` or `tcp`.
        transport: &'static str,
        /// `1.2` or `1.3`.
        dtls: &'static str,
        /// IANA name.
        srtp_profile: &'static str,
    },
    /// The media session ended.
    MediaClosed {
        /// Why.
        reason: &'static str,
    },
    /// A moderator removed this participant.
    Removed {
        /// Who did.
        #[serde(serialize_with = "text")]
        by: ParticipantId,
    },
    /// Somebody says that they cannot open a track of this participant, or can again.
    TrackUnopened {
        /// Who.
        #[serde(serialize_with = "text")]
        participant: ParticipantId,
        /// Which.
        #[serde(serialize_with = "text")]
        track: TrackId,
        /// They cannot.
        failing: bool,
    },
    /// The relay stops.
    GoingAway {
        /// In this time.
        seconds: u64,
    },
}

/// A participant in a snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct ParticipantInfo {
    /// Who.
    #[serde(serialize_with = "text")]
    pub participant: ParticipantId,
    /// Its tracks in order of publication.
    pub tracks: Vec<TrackInfo>,
}

/// A track as others see it.
#[derive(Clone, Debug, Serialize)]
pub struct TrackInfo {
    /// Its id.
    #[serde(serialize_with = "text")]
    pub track: TrackId,
    /// What it shows.
    #[serde(serialize_with = "source")]
    pub source: Source,
    /// Whether it is muted.
    pub muted: bool,
    /// Its codec's encoding name.
    pub codec: &'static str,
    /// Whether the relay demands that it is sealed.
    pub sealed: bool,
}

/// A track as its owner sees it.
#[derive(Clone, Debug, Serialize)]
pub struct OwnTrackInfo {
    /// Its id.
    #[serde(serialize_with = "text")]
    pub track: TrackId,
    /// The m-line that carries it.
    #[serde(serialize_with = "text")]
    pub mid: Mid,
    /// What it shows.
    #[serde(serialize_with = "source")]
    pub source: Source,
    /// Whether it is muted.
    pub muted: bool,
}

/// What a slot shows.
#[derive(Clone, Debug, Serialize)]
pub struct SlotInfo {
    /// The slot's m-line.
    #[serde(serialize_with = "text")]
    pub mid: Mid,
    /// The track.
    #[serde(serialize_with = "text")]
    pub track: TrackId,
}

/// A room as one of its participants finds it.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The others.
    pub participants: Vec<ParticipantInfo>,
    /// The last event that is part of this.
    pub seq: u64,
}

impl RoomEvent {
    /// The event as a message.
    pub(crate) fn message(&self, seq: u64) -> Utf8Bytes {
        #[derive(Serialize)]
        struct Numbered<'a> {
            #[serde(flatten)]
            event: &'a RoomEvent,
            seq: u64,
        }
        message(&Numbered { event: self, seq })
    }
}

/// A value as a message.
pub(crate) fn message<T: Serialize>(value: &T) -> Utf8Bytes {
    match serde_json::to_string(value) {
        Ok(text) => Utf8Bytes::from(text),
        // Serializing to a string fails only for maps whose keys are not strings: none is.
        Err(_) => Utf8Bytes::from_static("{}"),
    }
}

fn text<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields by reference"
)]
fn source<S: Serializer>(value: &Source, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(value.as_str())
}
