//! Counts of what a member took and refused, by reason: diagnosis without secrets. All of them are
//! bounded by the tree or by the number of reasons, never by what comes in.

use crate::error::{HandleError, MetadataError};
use sealcast_group_wire::{ToMember, WireError};
use serde::Serialize;
use std::collections::BTreeMap;

/// What happened to the frames, or to the sealed messages, that claim to be one sender's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SenderStats {
    /// Opened.
    pub opened: u64,
    /// Did not authenticate.
    pub auth: u64,
    /// Sealed with a key that is not held.
    pub unknown_kid: u64,
    /// Opened before, or too old to tell. Duplicates on the way count here.
    pub replayed: u64,
}

/// Handshakes of the delivery service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandshakeStats {
    /// Messages that were taken.
    pub taken: u64,
    /// Of these, handshakes that had been taken before: sent again after a reconnection, or
    /// replayed. They change nothing.
    pub repeated: u64,
    /// Messages that were not: by kind (`proposal`, `commit`, `welcome`, `create`, `other`, or
    /// `unreadable`), then by the code of the [`HandleError`].
    pub refused: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

impl HandshakeStats {
    pub(crate) fn record(&mut self, kind: &'static str, result: &Result<(), HandleError>) {
        match result {
            Ok(()) => self.taken += 1,
            Err(error) => {
                let reasons = self.refused.entry(kind).or_default();
                *reasons.entry(error.code()).or_default() += 1;
            }
        }
    }

    /// Refused messages of all kinds.
    pub fn refused_total(&self) -> u64 {
        self.refused.values().flat_map(BTreeMap::values).sum()
    }
}

/// Kind of a message of the delivery service, as [`HandshakeStats`] names it.
pub(crate) fn kind(message: &Result<ToMember, WireError>) -> &'static str {
    match message {
        Ok(ToMember::Proposal { .. }) => "proposal",
        Ok(ToMember::Commit { .. }) => "commit",
        Ok(ToMember::Welcome { .. }) => "welcome",
        Ok(ToMember::Create { .. }) => "create",
        Ok(_) => "other",
        Err(_) => "unreadable",
    }
}

/// Sealed messages of other members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetadataStats {
    /// By the leaf that each names, which is in the newest epoch's tree.
    pub senders: BTreeMap<u16, SenderStats>,
    /// Messages that end before header and tag.
    pub short: u64,
    /// Messages of another version, too long, or padded wrongly.
    pub malformed: u64,
    /// Messages that name no leaf of the newest epoch's tree.
    pub unknown_sender: u64,
}

impl MetadataStats {
    /// `leaf` is the one the message names, if that is in the newest epoch's tree.
    pub(crate) fn record(&mut self, leaf: Option<u16>, outcome: Result<(), MetadataError>) {
        match (outcome, leaf) {
            (Err(MetadataError::Short), _) => self.short += 1,
            (Err(MetadataError::Malformed), _) => self.malformed += 1,
            (_, None) => self.unknown_sender += 1,
            (outcome, Some(leaf)) => {
                let sender = self.senders.entry(leaf).or_default();
                match outcome {
                    Ok(()) => sender.opened += 1,
                    Err(MetadataError::UnknownKey { .. }) => sender.unknown_kid += 1,
                    Err(MetadataError::Replayed) => sender.replayed += 1,
                    Err(_) => sender.auth += 1,
                }
            }
        }
    }

    /// Refused messages, whatever the reason.
    pub fn refused_total(&self) -> u64 {
        let of = |sender: &SenderStats| sender.auth + sender.unknown_kid + sender.replayed;
        self.short
            + self.malformed
            + self.unknown_sender
            + self.senders.values().map(of).sum::<u64>()
    }
}
