//! Who speaks, who is heard, and which encodings anybody wants.
//!
//! Levels are read outside the seal (RFC 6464). A track whose packets carry none is always heard.

use super::Engine;
use crate::api::{MediaEvent, PeerKey};
use crate::limits::{ATTENTION_INTERVAL, ENCODING_UNWANTED};
use crate::mirror::Satellite;
use crate::timers::Timer;
use crate::track::Track;
use sealcast_model::{Source, Time};
use sealcast_rtp::ext::AudioLevel;

impl Engine {
    /// A packet of an audio track tells its level.
    pub(super) fn note_level(&mut self, now: Time, index: u32, data: &[u8]) {
        let Some(level) = AudioLevel::parse(data) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(track.room) else {
            return;
        };
        if !std::mem::replace(&mut track.has_levels, true) {
            room.voices.add(now, index);
        }
        room.voices.on_level(now, index, level);
        if !std::mem::replace(&mut room.attentive, true) {
            self.timers
                .set(now + ATTENTION_INTERVAL, Timer::Attention(track.room));
        }
    }

    /// Looks at a room's voices anew.
    pub(super) fn on_attention(&mut self, now: Time, index: u32) {
        let Some(room) = self.rooms.get_mut(index) else {
            return;
        };
        let change = room.voices.update(now);
        // The next packet with a level sets the timer again: a silent room has none.
        room.attentive = false;
        self.choose_audible(index);
        if let Some(change) = change {
            self.on_speaker(index, change.speaker);
        }
    }

    /// Forwards the loudest of a room and leaves the others out, without a gap in their numbers.
    fn choose_audible(&mut self, index: u32) {
        let Some(room) = self.rooms.get(index) else {
            return;
        };
        for key in room.voices.tracks() {
            let Some(track) = self.tracks.get_mut(key) else {
                continue;
            };
            let audible = room.voices.is_among_loudest(key);
            if std::mem::replace(&mut track.audible, audible) == audible || audible {
                continue;
            }
            track.satellites.iter_mut().for_each(Satellite::pause);
            for subscription in &track.subscriptions {
                if let Some(sub) = self.subscriptions.get_mut(*subscription) {
                    sub.rewriter.detach();
                }
            }
        }
    }

    /// Somebody else speaks: their pictures go before others, and everybody in the room is told.
    fn on_speaker(&mut self, room: u32, speaker: Option<u32>) {
        let speaking = speaker.and_then(|track| self.tracks.get(track));
        let (peer, id) = (speaking.map(|t| t.peer), speaking.map(|t| t.id));
        for track in self.tracks.iter_mut() {
            if track.room == room {
                track.speaking = Some(track.peer) == peer && track.source == Source::Camera;
            }
        }
        for (key, peer) in (0..).zip(&self.peers) {
            if peer.as_ref().is_some_and(|p| p.room == room && p.connected) {
                self.events.push_back(MediaEvent::SpeakerChanged {
                    peer: PeerKey(key),
                    track: id,
                });
            }
        }
    }

    /// Sees to it that encodings are reviewed regularly from `at` on.
    pub(super) fn review_soon(&mut self, at: Time) {
        if !std::mem::replace(&mut self.reviewing, true) {
            self.timers.set(at, Timer::Review);
        }
    }

    /// Tells publishers which encodings of their simulcasts nobody gets.
    pub(super) fn review_encodings(&mut self, now: Time) {
        let mut simulcasts = std::mem::take(&mut self.simulcasts);
        let started = |track: &Track| track.encodings.len() > 1 && track.started;
        let found = self.tracks.indexed().filter(|(_, track)| started(track));
        simulcasts.extend(found.map(|(index, _)| index));
        self.reviewing = !simulcasts.is_empty();
        for index in simulcasts.drain(..) {
            self.review(now, index);
        }
        self.simulcasts = simulcasts;
        if self.reviewing {
            self.timers.set(now + ATTENTION_INTERVAL * 5, Timer::Review);
        }
    }

    fn review(&mut self, now: Time, index: u32) {
        let Some(track) = self.tracks.get(index) else {
            return;
        };
        let wanted = self.wanted_ranks(track);
        let mut changed = false;
        let mut active = 0u8;
        for (place, encoding) in track.encodings.iter().enumerate() {
            let Some(stream) = self.streams.get(*encoding) else {
                continue;
            };
            let is_wanted = wanted >> track.rank(&self.streams, stream) & 1 == 1;
            let Some(stream) = self.streams.get_mut(*encoding) else {
                continue;
            };
            // What was never measured cannot be planned with, and so not be asked for again.
            let since = match is_wanted || !stream.meter.is_measured() {
                true => None,
                false => Some(*stream.idle_since.get_or_insert(now)),
            };
            stream.idle_since = since;
            let unwanted = since.is_some_and(|since| now - since >= ENCODING_UNWANTED);
            changed |= std::mem::replace(&mut stream.unwanted, unwanted) != unwanted;
            active |= u8::from(!unwanted) << place;
        }
        if !changed {
            return;
        }
        let publisher = self.peers.get(track.peer as usize);
        let publisher = publisher.and_then(Option::as_deref);
        if publisher.is_some_and(|peer| peer.mirror.is_some()) {
            // The home hears of it, and tells the publisher what all shards want.
            return self.note_interest(index);
        }
        if let Some(media) = publisher.and_then(|p| p.sending.get(usize::from(track.media))) {
            self.events.push_back(MediaEvent::EncodingsWanted {
                peer: PeerKey(track.peer),
                mid: media.mid,
                active,
                count: track.encodings.len() as u8,
            });
        }
    }

    /// The encodings that somebody gets or is to get, as bits by rank. The smallest is always one
    /// of them, so that a picture is there as soon as somebody looks.
    pub(super) fn wanted_ranks(&self, track: &Track) -> u8 {
        let mut wanted = 1;
        for (place, stream) in track.encodings.iter().enumerate() {
            let elsewhere = |s: &Satellite| s.needed >> place & 1 == 1;
            if let Some(stream) = self.streams.get(*stream)
                && track.satellites.iter().any(elsewhere)
            {
                wanted |= 1 << track.rank(&self.streams, stream);
            }
        }
        for subscription in &track.subscriptions {
            let Some(sub) = self.subscriptions.get(*subscription) else {
                continue;
            };
            if !sub.forwards() {
                continue;
            }
            let highest = track.encodings.len() - 1;
            let limit = sub.layers.limit().spatial;
            wanted |= 1 << usize::from(limit).min(highest);
            let current = sub.rewriter.source().map(|life| life.stream);
            for stream in current.into_iter().chain(sub.target) {
                if let Some(stream) = self.streams.get(stream) {
                    wanted |= 1 << track.rank(&self.streams, stream);
                }
            }
        }
        wanted
    }
}
