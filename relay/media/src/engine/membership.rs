//! Peers and rooms: joining, renegotiating, connecting, leaving.

use super::Engine;
use super::tracks::want_keyframe;
use crate::downlink::Downlink;
use crate::header::{HeaderTemplate, extension_map};
use crate::limits::REPORT_INTERVAL;
use crate::peer::{Arrivals, Binding, Peer, SendingMedia, Slot, validate};
use crate::stream::RtpStream;
use crate::subscription::PayloadTypes;
use crate::timers::Timer;
use crate::track::Room;
use sealcast_model::{
    CommandError, PacketPool, ParticipantId, ReceiveMedia, RoomId, SessionId, SessionMedia,
    SlotMedia, Time,
};

impl Engine {
    pub(super) fn add(
        &mut self,
        _now: Time,
        key: u32,
        session: SessionId,
        participant: ParticipantId,
        room: RoomId,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        if key as usize >= self.config.peers {
            return Err(CommandError::Limit);
        }
        if self.peer(key).is_some() {
            return Err(CommandError::Invalid);
        }
        validate(media)?;
        if !self.room_ids.contains_key(&room) && self.rooms.len() >= self.config.rooms {
            return Err(CommandError::Limit);
        }
        let (rooms, loudest) = (&mut self.rooms, self.config.loudest);
        let room = *self
            .room_ids
            .entry(room)
            .or_insert_with(|| rooms.insert(Room::new(room, loudest)));
        if let Some(room) = self.rooms.get_mut(room) {
            room.peers += 1;
        }
        let feedback_ssrc = self.unused_ssrc(media);
        let mut peer = Box::new(Peer::new(session, participant, room, feedback_ssrc, media));
        for receive in &media.receive {
            self.add_sending(key, &mut peer, receive);
        }
        peer.slots = media.slots.iter().map(Slot::new).collect();
        let index = key as usize;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, || None);
            self.downlinks.resize_with(index + 1, Downlink::default);
        }
        self.peers[index] = Some(peer);
        self.downlinks[index] = Downlink::new(media);
        self.publish_gauges();
        Ok(())
    }

    /// An SSRC that nothing in the session uses.
    fn unused_ssrc(&mut self, media: &SessionMedia) -> u32 {
        loop {
            let ssrc = self.prng.next_u32();
            let by_slot = media
                .slots
                .iter()
                .any(|s| s.ssrc == ssrc || s.rtx_ssrc == Some(ssrc));
            let by_client = media
                .receive
                .iter()
                .flat_map(|m| &m.ssrcs)
                .any(|s| s.ssrc == ssrc || s.rtx == Some(ssrc));
            if ssrc != 0 && !by_slot && !by_client {
                return ssrc;
            }
        }
    }

    fn add_sending(&mut self, key: u32, peer: &mut Peer, receive: &ReceiveMedia) {
        let media = peer.sending.len() as u16;
        let clock_rate = receive
            .codecs
            .first()
            .map_or(90_000, |codec| codec.codec.clock_rate());
        let encodings = (0..receive.rids.len().max(1))
            .map(|encoding| {
                self.streams
                    .insert(RtpStream::new(key, media, encoding as u8, clock_rate))
            })
            .collect();
        peer.sending.push(SendingMedia {
            mid: receive.mid,
            kind: receive.kind,
            codecs: receive.codecs.clone(),
            rids: receive.rids.clone(),
            encodings,
            track: None,
        });
        self.bind_announced(peer, usize::from(media), receive);
    }

    /// Binds the SSRCs that an offer names, unless encodings are told apart by RID.
    fn bind_announced(&mut self, peer: &mut Peer, media: usize, receive: &ReceiveMedia) {
        let (Some(sending), Some(announced)) = (peer.sending.get(media), receive.ssrcs.first())
        else {
            return;
        };
        let &[stream] = sending.encodings.as_slice() else {
            return;
        };
        if peer.binding(announced.ssrc) != Some(Binding { stream, rtx: false }) {
            if let Some(found) = self.streams.get_mut(stream) {
                found.restart(Some(announced.ssrc));
            }
            peer.bind(announced.ssrc, Binding { stream, rtx: false });
        }
        if let Some(rtx) = announced.rtx {
            peer.bind(rtx, Binding { stream, rtx: true });
        }
    }

    pub(super) fn update(
        &mut self,
        now: Time,
        key: u32,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        let peer = self.peer(key).ok_or(CommandError::NoSession)?;
        validate(media)?;
        let kept_kind = |receive: &ReceiveMedia| {
            peer.sending
                .iter()
                .all(|old| old.mid != receive.mid || old.kind == receive.kind)
        };
        let kept_slot = |new: &SlotMedia| {
            peer.slots
                .iter()
                .all(|old| old.id != new.slot || (old.ssrc, old.kind) == (new.ssrc, new.kind))
        };
        if !media.receive.iter().all(kept_kind) || !media.slots.iter().all(kept_slot) {
            return Err(CommandError::Invalid);
        }
        // Taken out meanwhile, so that its streams and subscriptions can be reached beside it.
        let Some(mut peer) = self.peers.get_mut(key as usize).and_then(Option::take) else {
            return Err(CommandError::NoSession);
        };
        peer.extensions = extension_map(&media.extensions);
        peer.extmap_allow_mixed = media.extmap_allow_mixed;
        peer.rtcp_rsize = media.rtcp_rsize;
        Arrivals::update(&mut peer.arrivals, media);
        if let Some(downlink) = self.downlinks.get_mut(key as usize) {
            downlink.update(media);
        }
        let ended = self.update_sending(key, &mut peer, media);
        self.update_slots(&mut peer, media);
        self.peers[key as usize] = Some(peer);
        for track in ended {
            self.remove_track(now, None, track);
        }
        self.remap_payload_types(key);
        // It may tell of its path now and not have before.
        let shown = |peer: &Peer| peer.subscriptions().next().is_some();
        if self.peer(key).is_some_and(shown) {
            self.begin_control(now, key);
        }
        self.publish_gauges();
        Ok(())
    }

    /// Brings the m-lines on which the client sends up to date; returns the tracks of those that
    /// are gone.
    fn update_sending(&mut self, key: u32, peer: &mut Peer, media: &SessionMedia) -> Vec<u32> {
        let mut ended = Vec::new();
        let mut old = std::mem::take(&mut peer.sending);
        for receive in &media.receive {
            let found = old
                .iter()
                .position(|m| m.mid == receive.mid && m.rids == receive.rids);
            let Some(mut sending) = found.map(|at| old.swap_remove(at)) else {
                self.add_sending(key, peer, receive);
                continue;
            };
            sending.codecs.clone_from(&receive.codecs);
            let index = peer.sending.len();
            for stream in &sending.encodings {
                if let Some(stream) = self.streams.get_mut(*stream) {
                    stream.media = index as u16;
                }
            }
            if let Some(track) = sending.track.and_then(|t| self.tracks.get_mut(t)) {
                track.media = index as u16;
            }
            peer.sending.push(sending);
            self.bind_announced(peer, index, receive);
        }
        for sending in old {
            ended.extend(sending.track);
            for stream in sending.encodings {
                peer.unbind(stream);
                self.retire_stream(stream);
            }
        }
        ended
    }

    /// Removes a stream. Its packets in the inbox are freed with the next flush.
    fn retire_stream(&mut self, stream: u32) {
        self.dirty.retain(|dirty| *dirty != stream);
        self.forget(stream);
        self.streams.remove(stream);
    }

    fn update_slots(&mut self, peer: &mut Peer, media: &SessionMedia) {
        let mut old = std::mem::take(&mut peer.slots);
        for new in &media.slots {
            let found = old.iter().position(|slot| slot.id == new.slot);
            let mut slot = Slot::new(new);
            slot.subscription = found.and_then(|at| old.swap_remove(at).subscription);
            if let Some(sub) = slot
                .subscription
                .and_then(|s| self.subscriptions.get_mut(s))
            {
                let rtx = sub.retransmission.as_deref_mut().zip(new.rtx_ssrc);
                if let Some((retransmission, ssrc)) = rtx {
                    retransmission.template = HeaderTemplate::new(
                        ssrc,
                        new.mid,
                        &peer.extensions,
                        peer.extmap_allow_mixed,
                    );
                }
                sub.slot = peer.slots.len() as u16;
                sub.template = HeaderTemplate::new(
                    new.ssrc,
                    new.mid,
                    &peer.extensions,
                    peer.extmap_allow_mixed,
                );
            }
            peer.slots.push(slot);
        }
        for slot in old {
            if let Some(subscription) = slot.subscription {
                self.remove_subscription(subscription);
            }
        }
    }

    /// Matches codecs again for everything that a peer publishes or receives.
    fn remap_payload_types(&mut self, key: u32) {
        let Some(peer) = self.peer(key) else { return };
        let published = peer
            .sending
            .iter()
            .filter_map(|m| self.tracks.get(m.track?));
        let affected: Vec<u32> = published
            .flat_map(|t| t.subscriptions.iter().copied())
            .chain(peer.subscriptions())
            .collect();
        for index in affected {
            let Some(sub) = self.subscriptions.get(index) else {
                continue;
            };
            let map = sub
                .track
                .and_then(|track| self.payload_types(track, sub.peer, usize::from(sub.slot)));
            if let (Some(map), Some(sub)) = (map, self.subscriptions.get_mut(index)) {
                sub.payload_types = map;
            }
        }
    }

    /// How the codecs of a track map onto those of a slot.
    pub(super) fn payload_types(&self, track: u32, peer: u32, slot: usize) -> Option<PayloadTypes> {
        let track = self.tracks.get(track)?;
        let publisher = self
            .peer(track.peer)?
            .sending
            .get(usize::from(track.media))?;
        let receiver = self.peer(peer)?.slots.get(slot)?;
        Some(PayloadTypes::map(&publisher.codecs, &receiver.codecs))
    }

    pub(super) fn connected(&mut self, now: Time, key: u32) {
        let jitter = self.report_jitter();
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        if std::mem::replace(&mut peer.connected, true) {
            return;
        }
        peer.report_at = self.timers.set(now + jitter, Timer::Report(key));
        let controlled = self
            .downlinks
            .get(key as usize)
            .is_some_and(|d| d.control.is_some());
        if controlled {
            self.timers.set(now, Timer::Bandwidth(key));
        }
        for index in peer.subscriptions() {
            let Some(sub) = self.subscriptions.get_mut(index) else {
                continue;
            };
            sub.live = true;
            if let Some(stream) = sub.awaited() {
                want_keyframe(&mut self.streams, &mut self.asking, stream);
            }
        }
    }

    /// RFC 3550 §6.2: the interval is "varied randomly over the range [0.5,1.5] times the
    /// calculated interval" so that reports do not fall into step.
    pub(super) fn report_jitter(&mut self) -> std::time::Duration {
        let half = REPORT_INTERVAL / 2;
        half + REPORT_INTERVAL * self.prng.below(1_000) / 1_000
    }

    pub(super) fn remove(&mut self, now: Time, pool: &mut PacketPool, key: u32) {
        let Some(peer) = self.peer(key) else { return };
        let tracks: Vec<u32> = peer
            .sending
            .iter()
            .filter_map(|media| media.track)
            .collect();
        for track in tracks {
            self.remove_track(now, Some(pool), track);
        }
        let Some(peer) = self.peers.get_mut(key as usize).and_then(Option::take) else {
            return;
        };
        for stream in peer.streams() {
            self.retire_stream(stream);
        }
        for subscription in peer.subscriptions() {
            self.remove_subscription(subscription);
        }
        if let Some(downlink) = self.downlinks.get_mut(key as usize) {
            *downlink = Downlink::default();
        }
        self.bury(pool);
        if let Some(room) = self.rooms.get_mut(peer.room) {
            room.peers -= 1;
            if room.peers == 0
                && let Some(room) = self.rooms.remove(peer.room)
            {
                self.room_ids.remove(&room.id);
            }
        }
        self.publish_gauges();
    }
}
