//! A published track, and the room it is published in.

use crate::audio::ActiveSpeaker;
use crate::engine::Legs;
use crate::layers::Layers;
use crate::limits::ENCODING_IDLE;
use crate::mirror::Satellite;
use crate::slab::Slab;
use crate::stream::RtpStream;
use sealcast_model::{RoomId, SealRule, ShardId, Source, Time, TrackId};

/// A room: a set of peers that may subscribe to each other's tracks.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    /// Its peers.
    pub(crate) peers: usize,
    /// Its audio tracks whose packets tell their level.
    pub(crate) voices: ActiveSpeaker<u32>,
    /// The timer that looks at them is set.
    pub(crate) attentive: bool,
}

impl Room {
    pub(crate) fn new(id: RoomId, loudest: usize) -> Self {
        Room {
            id,
            peers: 0,
            voices: ActiveSpeaker::new(loudest),
            attentive: false,
        }
    }
}

/// What one m-line of a publisher carries.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) room: u32,
    /// The publishing peer.
    pub(crate) peer: u32,
    /// Index of the m-line among those the peer sends on.
    pub(crate) media: u16,
    pub(crate) source: Source,
    pub(crate) seal: SealRule,
    /// The structural check failed.
    pub(crate) blocked: bool,
    pub(crate) muted: bool,
    /// Its participant speaks.
    pub(crate) speaking: bool,
    /// Its packets tell their level.
    pub(crate) has_levels: bool,
    /// It is one of the loudest of its room, or cannot be judged.
    pub(crate) audible: bool,
    /// A packet has arrived.
    pub(crate) started: bool,
    /// Its streams, in the offer's order.
    pub(crate) encodings: Vec<u32>,
    /// Its subscriptions, those of quick legs first.
    pub(crate) subscriptions: Vec<u32>,
    /// How many of them are of quick legs.
    pub(crate) quick: usize,
    /// Other shards that want it.
    pub(crate) satellites: Vec<Satellite>,
}

impl Track {
    /// Whether anybody, here or on another shard, gets it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.subscriptions.is_empty() || !self.satellites.is_empty()
    }

    /// Its subscriptions on these legs.
    #[inline]
    pub(crate) fn subscriptions_of(&self, legs: Legs) -> &[u32] {
        let (quick, slow) = self
            .subscriptions
            .split_at_checked(self.quick)
            .unwrap_or_default();
        match legs {
            Legs::Quick => quick,
            Legs::Slow => slow,
        }
    }

    pub(crate) fn add_subscription(&mut self, subscription: u32, legs: Legs) {
        match legs {
            Legs::Quick => {
                self.subscriptions.insert(self.quick, subscription);
                self.quick += 1;
            }
            Legs::Slow => self.subscriptions.push(subscription),
        }
    }

    pub(crate) fn remove_subscription(&mut self, subscription: u32) {
        let found = self.subscriptions.iter().position(|s| *s == subscription);
        if let Some(at) = found {
            self.subscriptions.remove(at);
            self.quick -= usize::from(at < self.quick);
        }
    }

    /// Whether what comes of it goes to those who want it.
    #[inline]
    pub(crate) fn forwards(&self) -> bool {
        !self.muted && !self.blocked && self.audible
    }

    /// What is known of another shard that wants it.
    pub(crate) fn satellite(&mut self, shard: ShardId) -> Option<&mut Satellite> {
        self.satellites.iter_mut().find(|s| s.shard == shard)
    }

    /// The encoding that a subscription with this limit is to get: the largest that sends and is
    /// within the limit, or the smallest that sends. A single encoding is chosen before it sends,
    /// so that a key frame can be asked for.
    pub(crate) fn choose(&self, streams: &Slab<RtpStream>, limit: Layers) -> Option<u32> {
        if let &[only] = self.encodings.as_slice() {
            return Some(only);
        }
        let sending = || {
            self.encodings
                .iter()
                .filter_map(|e| Some((*e, streams.get(*e)?)))
                .filter(|(_, s)| s.active)
        };
        let rank = |of: &RtpStream| self.rank(streams, of);
        let within = sending().filter(|(_, stream)| rank(stream) <= usize::from(limit.spatial));
        let best = within.max_by_key(|(_, stream)| rank(stream));
        best.or_else(|| sending().min_by_key(|(_, stream)| rank(stream)))
            .map(|(index, _)| index)
    }

    /// How many encodings are smaller than this one.
    pub(crate) fn rank(&self, streams: &Slab<RtpStream>, of: &RtpStream) -> usize {
        self.encodings
            .iter()
            .filter_map(|e| streams.get(*e))
            .filter(|e| larger(of, e))
            .count()
    }

    /// Takes note of which encodings send, now that `arrived` has sent a packet. Returns whether
    /// that has changed.
    pub(crate) fn note_activity(
        &self,
        streams: &mut Slab<RtpStream>,
        arrived: u32,
        now: Time,
    ) -> bool {
        let mut changed = false;
        for encoding in &self.encodings {
            let Some(stream) = streams.get_mut(*encoding) else {
                continue;
            };
            let idle = |last: Time| now.saturating_since(last) > ENCODING_IDLE;
            let active =
                *encoding == arrived || stream.active && !stream.last_packet.is_none_or(idle);
            changed |= std::mem::replace(&mut stream.active, active) != active;
        }
        changed
    }
}

/// Whether encoding `a` is larger than `b`: in pixels where both show them, else by their order,
/// in which senders list the smallest first.
fn larger(a: &RtpStream, b: &RtpStream) -> bool {
    match (a.pixels, b.pixels) {
        (Some(a), Some(b)) if a != b => a > b,
        _ => a.encoding > b.encoding,
    }
}
