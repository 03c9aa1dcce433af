//! Tracks and slots: publishing, muting, assigning.

use super::Engine;
use crate::api::{MediaEvent, PeerKey};
use crate::bwe::RequestId;
use crate::header::HeaderTemplate;
use crate::layers::{LayerSelector, Layers};
use crate::limits::FIRST_REPORT;
use crate::mirror::Satellite;
use crate::rewriter::Rewriter;
use crate::seal::SealCheck;
use crate::slab::Slab;
use crate::stream::RtpStream;
use crate::subscription::{Pause, PayloadTypes, RemoteReception, Subscription};
use crate::timers::Timer;
use crate::track::Track;
use sealcast_model::limits::SLOTS_PER_SESSION;
use sealcast_model::{
    AssignSlot, CommandError, MediaKind, PacketPool, Publish, SealRule, SlotId, Source, Time,
};

impl Engine {
    pub(super) fn add_track(
        &mut self,
        now: Time,
        key: u32,
        publish: &Publish,
    ) -> Result<(), CommandError> {
        let peer = self.peer(key).ok_or(CommandError::NoSession)?;
        if self.track_ids.contains_key(&publish.track) || peer.session != publish.session {
            return Err(CommandError::Invalid);
        }
        let at = peer
            .sending
            .iter()
            .position(|media| media.mid == publish.mid)
            .ok_or(CommandError::NoSlot)?;
        let media = &peer.sending[at];
        if media.kind != publish.source.kind() {
            return Err(CommandError::NoSlot);
        }
        if media.track.is_some() {
            return Err(CommandError::MidInUse);
        }
        if self.tracks.len() >= self.config.tracks {
            return Err(CommandError::Limit);
        }
        let encodings = media.encodings.clone();
        let mirrored = peer.mirror.is_some();
        let track = Track {
            id: publish.track,
            room: peer.room,
            peer: key,
            media: at as u16,
            source: publish.source,
            // What comes from its home was checked there.
            seal: match mirrored {
                true => SealRule::Any,
                false => publish.seal.clone(),
            },
            blocked: false,
            muted: false,
            speaking: false,
            has_levels: false,
            audible: true,
            started: false,
            encodings,
            subscriptions: Vec::new(),
            quick: 0,
            satellites: Vec::new(),
        };
        for stream in &track.encodings {
            if let Some(stream) = self.streams.get_mut(*stream) {
                stream.seal = SealCheck::default();
            }
        }
        let index = self.tracks.insert(track);
        self.track_ids.insert(publish.track, index);
        for stream in self.tracks.get(index).iter().flat_map(|t| &t.encodings) {
            if let Some(stream) = self.streams.get_mut(*stream) {
                stream.track = Some(index);
            }
        }
        if let Some(media) = self.peer_mut(key).and_then(|peer| peer.sending.get_mut(at)) {
            media.track = Some(index);
        }
        if mirrored {
            self.note_mirrored(now, index);
        }
        self.resume_reports(now, key);
        self.publish_gauges();
        Ok(())
    }

    /// Removes a track. Without a pool its packets in the inbox wait for the next flush, which
    /// frees them unsent.
    pub(super) fn remove_track(
        &mut self,
        _now: Time,
        mut pool: Option<&mut PacketPool>,
        index: u32,
    ) {
        let Some(track) = self.tracks.remove(index) else {
            return;
        };
        self.track_ids.remove(&track.id);
        if let Some(home) = self.peer(track.peer).and_then(|peer| peer.mirror) {
            self.note_parted(home, track.id);
        }
        if let Some(room) = self.rooms.get_mut(track.room) {
            room.voices.remove(index);
        }
        for index in &track.encodings {
            self.forget(*index);
            let Some(stream) = self.streams.get_mut(*index) else {
                continue;
            };
            stream.track = None;
            if let Some(pool) = pool.as_deref_mut() {
                self.inbox.discard(&mut stream.row, pool);
            }
        }
        if let Some(pool) = pool {
            self.bury(pool);
        }
        let media = self
            .peer_mut(track.peer)
            .and_then(|peer| peer.sending.get_mut(usize::from(track.media)));
        // The m-line may be gone already, and another in its place.
        if let Some(media) = media.filter(|media| media.track == Some(index)) {
            media.track = None;
        }
        for subscription in track.subscriptions {
            if let Some(sub) = self.subscriptions.get_mut(subscription) {
                sub.clear();
                self.subscribed -= 1;
                self.announce_slot(subscription);
            }
        }
        self.publish_gauges();
    }

    /// Tells what a subscription's slot shows now.
    pub(super) fn announce_slot(&mut self, subscription: u32) {
        let Some(sub) = self.subscriptions.get(subscription) else {
            return;
        };
        let track = sub
            .track
            .and_then(|track| self.tracks.get(track))
            .map(|track| track.id);
        let Some(peer) = self
            .peers
            .get_mut(sub.peer as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Some(slot) = peer.slots.get(usize::from(sub.slot)) else {
            return;
        };
        let paused = sub.pause.is_told();
        peer.revision = peer.revision.wrapping_add(1);
        self.events.push_back(MediaEvent::SlotChanged {
            peer: PeerKey(sub.peer),
            slot: slot.id,
            mid: slot.mid,
            track,
            paused,
            revision: peer.revision,
        });
    }

    pub(super) fn mute(&mut self, _now: Time, index: u32, muted: bool) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        if std::mem::replace(&mut track.muted, muted) == muted {
            return;
        }
        track.satellites.iter_mut().for_each(Satellite::pause);
        for subscription in &track.subscriptions {
            let Some(sub) = self.subscriptions.get_mut(*subscription) else {
                continue;
            };
            // What is missed while muted leaves no gap; video goes on with a key frame.
            sub.rewriter.detach();
            if let Some(stream) = sub.awaited().filter(|_| !muted) {
                want_keyframe(&mut self.streams, &mut self.asking, stream);
            }
        }
    }

    /// Chooses the encodings of a track's subscriptions again. `keyed` has just started a key
    /// frame, so that none need be asked of it.
    pub(super) fn retarget(&mut self, index: u32, keyed: Option<u32>) {
        let Some(track) = self.tracks.get(index) else {
            return;
        };
        for subscription in &track.subscriptions {
            let Some(sub) = self.subscriptions.get_mut(*subscription) else {
                continue;
            };
            let target = track.choose(&self.streams, sub.layers.limit());
            if std::mem::replace(&mut sub.target, target) == target || track.muted {
                continue;
            }
            if let Some(stream) = sub.awaited().filter(|stream| Some(*stream) != keyed) {
                want_keyframe(&mut self.streams, &mut self.asking, stream);
            }
        }
    }

    /// Chooses the encoding of one subscription again. `resumed`: it was paused, and needs a key
    /// frame even of the same one.
    pub(super) fn retarget_one(&mut self, subscription: u32, resumed: bool) {
        let Some(sub) = self.subscriptions.get_mut(subscription) else {
            return;
        };
        let Some(track) = sub.track.and_then(|track| self.tracks.get(track)) else {
            return;
        };
        let target = track.choose(&self.streams, sub.layers.limit());
        let same = std::mem::replace(&mut sub.target, target) == target;
        if (same && !resumed) || track.muted {
            return;
        }
        if let Some(stream) = sub.awaited() {
            want_keyframe(&mut self.streams, &mut self.asking, stream);
        }
    }

    pub(super) fn limit(
        &mut self,
        key: u32,
        slot: SlotId,
        limit: Layers,
    ) -> Result<(), CommandError> {
        let peer = self.peer(key).ok_or(CommandError::NoSession)?;
        let at = peer.slot(slot).ok_or(CommandError::NoSlot)?;
        let subscription = self.subscription_of(key, at).ok_or(CommandError::NoSlot)?;
        let Some(sub) = self.subscriptions.get_mut(subscription) else {
            return Err(CommandError::NoSlot);
        };
        sub.cap = limit;
        sub.set_limit();
        self.retarget_one(subscription, false);
        self.reallocate(key);
        Ok(())
    }

    pub(super) fn size(&mut self, key: u32, slot: SlotId, side: u16) -> Result<(), CommandError> {
        let peer = self.peer(key).ok_or(CommandError::NoSession)?;
        let at = peer.slot(slot).ok_or(CommandError::NoSlot)?;
        let subscription = self.subscription_of(key, at).ok_or(CommandError::NoSlot)?;
        let Some(sub) = self.subscriptions.get_mut(subscription) else {
            return Err(CommandError::NoSlot);
        };
        if sub.kind == MediaKind::Audio || std::mem::replace(&mut sub.wanted, side) == side {
            return Ok(());
        }
        if self.control(key).is_some() {
            self.reallocate(key);
        } else {
            self.hide(subscription, side == 0);
        }
        Ok(())
    }

    pub(super) fn assign(
        &mut self,
        now: Time,
        key: u32,
        assign: &[AssignSlot],
    ) -> Result<(), CommandError> {
        let changes = self.check_assignment(key, assign)?;
        if !changes.is_empty() {
            self.reallocate(key);
        }
        for (slot, target) in changes {
            self.assign_one(now, key, slot, target);
        }
        self.publish_gauges();
        Ok(())
    }

    /// Resolves an assignment to slot and track indices without changing anything. Slots that
    /// show what they are to show are left out.
    #[expect(
        clippy::type_complexity,
        reason = "a slot, and the track with its payload types if any"
    )]
    fn check_assignment(
        &self,
        key: u32,
        assign: &[AssignSlot],
    ) -> Result<Vec<(usize, Option<(u32, PayloadTypes)>)>, CommandError> {
        let peer = self.peer(key).ok_or(CommandError::NoSession)?;
        let mut named = [false; SLOTS_PER_SESSION];
        let mut changes = Vec::new();
        let mut subscribed = self.subscribed;
        for change in assign {
            let slot = peer.slot(change.slot).ok_or(CommandError::NoSlot)?;
            let named = named.get_mut(slot).ok_or(CommandError::NoSlot)?;
            if std::mem::replace(named, true) {
                return Err(CommandError::Invalid);
            }
            let old = peer.slots[slot]
                .subscription
                .and_then(|s| self.subscriptions.get(s)?.track);
            let new = match change.track {
                Some(id) => {
                    let index = *self.track_ids.get(&id).ok_or(CommandError::NoTrack)?;
                    let track = self
                        .tracks
                        .get(index)
                        .filter(|t| t.room == peer.room)
                        .ok_or(CommandError::NoTrack)?;
                    if track.source.kind() != peer.slots[slot].kind {
                        return Err(CommandError::NoSlot);
                    }
                    let map = self
                        .payload_types(index, key, slot)
                        .ok_or(CommandError::NoTrack)?;
                    if map.is_empty() {
                        return Err(CommandError::CodecUnsupported);
                    }
                    Some((index, map))
                }
                None => None,
            };
            subscribed = subscribed + usize::from(new.is_some()) - usize::from(old.is_some());
            if old != new.map(|(index, _)| index) {
                changes.push((slot, new));
            }
        }
        if subscribed > self.config.subscriptions && subscribed > self.subscribed {
            return Err(CommandError::Limit);
        }
        Ok(changes)
    }

    fn assign_one(
        &mut self,
        now: Time,
        key: u32,
        slot: usize,
        target: Option<(u32, PayloadTypes)>,
    ) {
        let Some(subscription) = self.subscription_of(key, slot) else {
            return;
        };
        self.leave_track(subscription);
        if target.is_some() {
            self.begin_control(now, key);
        }
        let controlled = self.control(key).is_some();
        let legs = self.legs_of(key);
        if let Some((index, payload_types)) = target
            && let Some(track) = self.tracks.get_mut(index)
            && let Some(sub) = self.subscriptions.get_mut(subscription)
        {
            track.add_subscription(subscription, legs);
            self.subscribed += 1;
            sub.track = Some(index);
            sub.granted = first_grant(track, controlled);
            if sub.wanted == 0 {
                sub.pause = Pause::Hidden;
            }
            sub.set_limit();
            sub.target = track.choose(&self.streams, sub.layers.limit());
            sub.payload_types = payload_types;
            if let Some(stream) = sub.awaited().filter(|_| !track.muted) {
                want_keyframe(&mut self.streams, &mut self.asking, stream);
            }
            self.note_interest(index);
            self.report_soon(now, key);
        }
        self.announce_slot(subscription);
    }

    /// The sending side of a slot, made when it is first needed.
    fn subscription_of(&mut self, key: u32, slot: usize) -> Option<u32> {
        let (sequence, timestamp) = (self.prng.next_u32() as u16, self.prng.next_u32());
        let peer = self.peers.get_mut(key as usize)?.as_deref_mut()?;
        let place = peer.slots.get_mut(slot)?;
        if place.subscription.is_some() {
            return place.subscription;
        }
        let clock_rate = place
            .codecs
            .first()
            .map_or(90_000, |codec| codec.codec.clock_rate());
        let index = self.subscriptions.insert(Subscription {
            peer: key,
            slot: slot as u16,
            kind: place.kind,
            ssrc: place.ssrc,
            track: None,
            target: None,
            live: peer.connected,
            payload_types: PayloadTypes::map(&[], &[]),
            template: HeaderTemplate::new(
                place.ssrc,
                place.mid,
                &peer.extensions,
                peer.extmap_allow_mixed,
            ),
            rewriter: Rewriter::new(clock_rate, sequence, timestamp),
            layers: LayerSelector::new(),
            cap: Layers::ALL,
            granted: Layers::ALL,
            pause: Pause::None,
            wanted: u16::MAX,
            retransmission: None,
            packets: 0,
            octets: 0,
            reported: [0; 2],
            remote: RemoteReception::default(),
        });
        place.subscription = Some(index);
        Some(index)
    }

    /// Takes a subscription off its track, if it has one.
    fn leave_track(&mut self, subscription: u32) {
        let Some(sub) = self.subscriptions.get_mut(subscription) else {
            return;
        };
        let Some(track) = sub.track else { return };
        let (key, slot) = (sub.peer, u32::from(sub.slot));
        sub.clear();
        self.subscribed -= 1;
        if let Some(control) = self.control(key) {
            control.allocator.remove(RequestId(slot));
        }
        if let Some(track) = self.tracks.get_mut(track) {
            track.remove_subscription(subscription);
        }
        self.note_interest(track);
    }

    /// Ends a slot.
    pub(super) fn remove_subscription(&mut self, subscription: u32) {
        self.leave_track(subscription);
        self.subscriptions.remove(subscription);
    }

    /// Brings a peer's next report forward: it shows something new.
    fn report_soon(&mut self, now: Time, key: u32) {
        let soon = now + FIRST_REPORT;
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        if peer.connected && soon < peer.report_at {
            peer.report_at = self.timers.set(soon, Timer::Report(key));
        }
    }
}

/// What a subscription gets before its subscriber's bandwidth is divided: of a simulcast the
/// smallest, for that is all that may fit; of a diagnostic track everything.
fn first_grant(track: &Track, controlled: bool) -> Layers {
    if !controlled || track.source == Source::Imaging || track.encodings.len() < 2 {
        return Layers::ALL;
    }
    Layers {
        spatial: 0,
        ..Layers::ALL
    }
}

/// Notes that somebody needs a key frame of a stream; the next flush asks for it.
pub(super) fn want_keyframe(streams: &mut Slab<RtpStream>, asking: &mut Vec<u32>, stream: u32) {
    if let Some(found) = streams.get_mut(stream) {
        found.keyframes.request();
        asking.push(stream);
    }
}
