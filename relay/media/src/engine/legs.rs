//! In which order a flush serves subscribers: those whose packets are quick to seal come first.
//!
//! AES-CM with HMAC-SHA1 costs four times what AES-GCM does. Were receivers served as they joined,
//! one of GCM would wait for the sealing of hundreds that are not. The order among packets for one
//! receiver is untouched, since all of a receiver's are of one kind.

use super::Engine;
use crate::api::Egress;
use crate::limits::SLOW_LEGS_UNNOTICED;
use sealcast_model::{PacketPool, Time};

/// Subscribers by what sealing for them costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Legs {
    /// AEAD ciphers.
    Quick,
    /// Peers that were named by [`Engine::peer_seals_slowly`].
    Slow,
}

impl Engine {
    /// What sealing for a peer costs.
    #[inline]
    pub(super) fn legs_of(&self, key: u32) -> Legs {
        match self.peer(key) {
            Some(peer) if peer.seals_slowly => Legs::Slow,
            _ => Legs::Quick,
        }
    }

    pub(super) fn put_last(&mut self, key: u32) {
        let Some(peer) = self.peer_mut(key) else {
            return;
        };
        if std::mem::replace(&mut peer.seals_slowly, true) {
            return;
        }
        let subscriptions: Vec<u32> = peer.subscriptions().collect();
        for subscription in subscriptions {
            let sub = self.subscriptions.get(subscription);
            let track = sub.and_then(|sub| sub.track);
            if let Some(track) = track.and_then(|track| self.tracks.get_mut(track)) {
                track.remove_subscription(subscription);
                track.add_subscription(subscription, Legs::Slow);
            }
        }
    }

    /// Sends all media that is due to these subscribers.
    pub(super) fn send_media<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        legs: Legs,
    ) {
        self.resend_all(now, pool, egress, legs);
        self.depart_all(now, pool, egress, legs);
        self.forward_all(now, pool, egress, legs);
    }

    /// Whether enough is left for slow legs that what was handed over for the quick ones should not
    /// wait for it. To be asked between the two.
    pub(super) fn slow_legs_wait(&self) -> bool {
        let slow = |key: &&u32| self.legs_of(**key) == Legs::Slow;
        let departures = self.departing.iter().filter(slow).count();
        let streams = self
            .dirty
            .iter()
            .filter_map(|s| self.streams.get(*s)?.track);
        let forwarded = streams.filter_map(|track| self.tracks.get(track));
        let forwarded = forwarded.map(|track| track.subscriptions_of(Legs::Slow).len());
        self.resends.len() + departures + forwarded.sum::<usize>() > SLOW_LEGS_UNNOTICED
    }
}
