//! What the delivery service knows of one participant.

use crate::limits::{BURST, RATE};
use openmls::prelude::KeyPackage;
use sealcast_group_wire::{MAX_KEY_PACKAGES, Resume};
use sealcast_model::{Time, TokenBucket};
use std::collections::VecDeque;

/// One participant of the room, member of the group or not.
pub(crate) struct Participant {
    /// Messages can be sent to it. Others are not kept: it says anew what it holds.
    pub(crate) connected: bool,
    /// Signature key of its KeyPackages, and of its leaf. Known from its first Hello on.
    pub(crate) signature_key: Option<Vec<u8>>,
    /// One-time KeyPackages, the next to be used in front.
    key_packages: VecDeque<KeyPackage>,
    /// More KeyPackages were asked for.
    asked_for_key_packages: bool,
    /// What it said it holds, for the rebuild of a group.
    pub(crate) resume: Option<Resume>,
    /// Latest epoch that it is ready for.
    pub(crate) ready: Option<u64>,
    /// Its leaf is of no use to it: to be removed, then added anew.
    pub(crate) stale_leaf: bool,
    /// The members declined to add it.
    pub(crate) declined: bool,
    bucket: TokenBucket,
}

impl Participant {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            connected: false,
            signature_key: None,
            key_packages: VecDeque::new(),
            asked_for_key_packages: false,
            resume: None,
            ready: None,
            stale_leaf: false,
            declined: false,
            bucket: TokenBucket::new(RATE, BURST, now),
        }
    }

    /// Whether it may send another message now.
    pub(crate) fn may_send(&mut self, now: Time) -> bool {
        self.bucket.take(now)
    }

    /// Takes KeyPackages into store, as many as fit.
    pub(crate) fn store(&mut self, key_packages: Vec<KeyPackage>) {
        self.asked_for_key_packages = false;
        for key_package in key_packages {
            if self.key_packages.len() < MAX_KEY_PACKAGES {
                self.key_packages.push_back(key_package);
            }
        }
    }

    /// Forgets the KeyPackages of an earlier connection: their keys may be gone.
    pub(crate) fn discard_key_packages(&mut self) {
        self.key_packages.clear();
    }

    /// The KeyPackage to add it with. It stays in store until it has served.
    pub(crate) fn key_package(&self) -> Option<&KeyPackage> {
        self.key_packages.front()
    }

    /// The KeyPackage in front has served ("one-time", RFC 9420 §16.8).
    pub(crate) fn use_up_key_package(&mut self) {
        self.key_packages.pop_front();
    }

    /// Whether more KeyPackages are to be asked for, now; it is done once.
    pub(crate) fn ask_for_key_packages(&mut self) -> bool {
        let ask = self.connected && self.key_packages.is_empty() && !self.asked_for_key_packages;
        self.asked_for_key_packages |= ask;
        ask
    }
}
