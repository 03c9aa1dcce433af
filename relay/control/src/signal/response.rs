//! Responses (PROTOCOL.md §3–§6) as values.

use super::message::PROTOCOL;
use crate::rooms::{Joined, OwnTrackInfo, Resumed, SlotInfo, Snapshot};
use crate::token::Grants;
use sealcast_model::limits::{DATA_MESSAGE_MAX, SLOTS_PER_SESSION, TRACKS_PER_SESSION};
use serde::Serialize;

/// A response, with the id of its request.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Response<'a> {
    Joined {
        id: u64,
        protocol: u64,
        participant: String,
        room: &'a str,
        resume_token: &'a str,
        grace_seconds: u64,
        sealed: &'static str,
        keys: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        group_suite: Option<u16>,
        grants: &'a Grants,
        limits: Limits,
        #[serde(flatten)]
        snapshot: &'a Snapshot,
    },
    Resumed {
        id: u64,
        participant: String,
        resume_token: &'a str,
        session: bool,
        tracks: &'a [OwnTrackInfo],
        slots: &'a [SlotInfo],
        #[serde(flatten)]
        snapshot: &'a Snapshot,
    },
    Left {
        id: u64,
    },
    Answer {
        id: u64,
        sdp: &'a str,
    },
    Published {
        id: u64,
        track: String,
    },
    Ok {
        id: u64,
    },
}

/// What `joined` says about limits.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    slots: usize,
    tracks: usize,
    data_message: usize,
}

impl<'a> Response<'a> {
    pub(super) fn joined(
        id: u64,
        room: &'a str,
        grants: &'a Grants,
        grace_seconds: u64,
        sealed_required: bool,
        group_suite: Option<u16>,
        joined: &'a Joined,
    ) -> Self {
        Response::Joined {
            id,
            protocol: PROTOCOL,
            participant: joined.participant.to_string(),
            room,
            resume_token: &joined.resume_token,
            grace_seconds,
            sealed: sealed_name(sealed_required),
            keys: keys_name(group_suite.is_some()),
            group_suite,
            grants,
            limits: Limits {
                slots: SLOTS_PER_SESSION,
                tracks: TRACKS_PER_SESSION,
                data_message: DATA_MESSAGE_MAX,
            },
            snapshot: &joined.snapshot,
        }
    }

    pub(super) fn resumed(id: u64, resumed: &'a Resumed) -> Self {
        Response::Resumed {
            id,
            participant: resumed.participant.to_string(),
            resume_token: &resumed.resume_token,
            session: resumed.session,
            tracks: &resumed.tracks,
            slots: &resumed.slots,
            snapshot: &resumed.snapshot,
        }
    }
}

/// `sealed` on the wire.
pub(crate) const fn sealed_name(required: bool) -> &'static str {
    if required { "required" } else { "optional" }
}

/// `keys` on the wire.
pub(crate) const fn keys_name(group: bool) -> &'static str {
    if group { "group" } else { "link" }
}
