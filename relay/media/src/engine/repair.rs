//! Repair: NACKs to publishers, and what subscribers are sent again.

use super::Engine;
use super::legs::Legs;
use super::reports::{Compound, feedback_preamble};
use super::tracks::want_keyframe;
use crate::api::{Egress, PacketMeta, PeerKey};
use crate::bwe::LostPacket;
use crate::frame::{FrameInfo, PictureNumbers, Rewritten};
use crate::header::{DEPENDENCY_DESCRIPTOR, Elements, HeaderTemplate, PacketFields};
use crate::inbox::Row;
use crate::layers::{FrameLayers, Selection};
use crate::limits::{
    HEADER_MAX, NACKED_PER_DATAGRAM, POOL_RESERVE, ROUND_TRIP_DEFAULT, SWEEP_INTERVAL,
};
use crate::peer::Peer;
use crate::repair::{HistoryLimits, NackGenerator, PacketHistory, RtxCause, RtxRefusal, RtxSender};
use crate::rewriter::Origin;
use crate::stream::{Held, RtpStream};
use crate::subscription::{Retransmission, Subscription};
use crate::timers::Timer;
use sealcast_model::limits::PACKET_SLOT;
use sealcast_model::{CodecParams, Counter, MediaKind, PacketPool, Source, Time, TrackId};
use sealcast_rtp::dd::MandatoryFields;
use sealcast_rtp::ext::AbsSendTime;
use sealcast_rtp::payload::rtx::OSN_LEN;
use sealcast_rtp::rtcp::Nack;
use sealcast_rtp::{RtpHeader, set_sequence_number};
use std::time::Duration;

/// Sequence numbers in one NACK to a publisher; what the generator yields at once.
const NACK_MAX: usize = 64;

/// What round trips vary by when a request is judged to have crossed what it asks for.
const LATE_SLACK: Duration = Duration::from_millis(5);

/// A packet that a subscriber misses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resend {
    subscription: u32,
    origin: Origin,
    cause: RtxCause,
}

impl Engine {
    /// A packet of a stream arrived for the first time: what is missing before it?
    pub(super) fn note_arrival(
        &mut self,
        now: Time,
        index: u32,
        sequence: u64,
        codec: u8,
        repair: bool,
    ) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        if stream.nacks.is_none() {
            let peer = self
                .peers
                .get(stream.peer as usize)
                .and_then(Option::as_deref);
            let media = peer.and_then(|peer| peer.sending.get(usize::from(stream.media)));
            if !media
                .and_then(|media| media.codecs.get(usize::from(codec)))
                .is_some_and(|codec| codec.nack)
            {
                return;
            }
        }
        let nacks = stream.nacks.get_or_insert_with(NackGenerator::new);
        nacks.on_packet(now, sequence);
        let given_up = nacks.take_key_frame_request();
        // A publisher that receives nothing, as by WHIP, has no reports to tell its round trip by.
        if let Some(round_trip) = nacks.take_round_trip().filter(|_| repair)
            && let Some(Some(peer)) = self.peers.get_mut(stream.peer as usize)
        {
            peer.note_repair_time(round_trip);
        }
        if nacks.missing() > 0 {
            self.plan_nack(now, index);
        }
        if given_up {
            self.on_given_up(index);
        }
    }

    /// More is missing than will come: pictures need a key frame.
    fn on_given_up(&mut self, index: u32) {
        let track = self
            .streams
            .get(index)
            .and_then(|stream| self.tracks.get(stream.track?));
        if track.is_some_and(|t| !t.muted && t.is_wanted() && t.source.kind() == MediaKind::Video) {
            want_keyframe(&mut self.streams, &mut self.asking, index);
        }
    }

    /// Sees to it that a stream's generator is polled when it wants to be.
    fn plan_nack(&mut self, now: Time, index: u32) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let due = stream
            .nacks
            .as_ref()
            .map_or(Time::NEVER, NackGenerator::poll_timeout);
        if due <= now {
            self.nacking.push(index);
        } else if due < stream.nack_timer {
            stream.nack_timer = self.timers.set(due, Timer::Nack(index));
        }
    }

    /// Asks publishers for what is missing.
    pub(super) fn send_nacks<E: Egress>(&mut self, now: Time, egress: &mut E) {
        let mut nacking = std::mem::take(&mut self.nacking);
        for index in nacking.drain(..) {
            if self.send_nack(now, index, egress).is_some() {
                self.plan_nack(now, index);
            }
        }
        debug_assert!(
            self.nacking.is_empty(),
            "what was polled is not due at once"
        );
        self.nacking = nacking;
    }

    /// `None` if there is nobody to ask.
    fn send_nack<E: Egress>(&mut self, now: Time, index: u32, egress: &mut E) -> Option<()> {
        let stream = self.streams.get_mut(index)?;
        let peer = self.peers.get(stream.peer as usize)?.as_deref()?;
        let track = stream.track.and_then(|track| self.tracks.get(track));
        let wanted = track.is_some_and(|track| !track.muted && !track.blocked && track.is_wanted());
        let home = peer.mirror.zip(track.map(|track| track.id));
        let encoding = stream.encoding;
        let (nacks, ssrc) = (stream.nacks.as_mut()?, stream.ssrc?);
        loop {
            let mut numbers = [0u16; NACK_MAX];
            let mut count = 0;
            let due = nacks.poll(now, peer.uplink_round_trip().unwrap_or(ROUND_TRIP_DEFAULT));
            for (place, number) in numbers.iter_mut().zip(due) {
                *place = number;
                count += 1;
            }
            if count == 0 {
                break;
            }
            if let Some((home, track)) = home.filter(|_| wanted) {
                let numbers = numbers.get(..count).unwrap_or_default();
                Self::send_missing(home, track, encoding, numbers, egress);
            }
            if !wanted || !peer.connected {
                continue;
            }
            let mut compound = Compound::new(stream.peer, egress);
            compound.append(|writer| {
                feedback_preamble(writer, peer)?;
                writer.nack(peer.feedback_ssrc, ssrc, numbers.into_iter().take(count))
            });
            compound.send();
            self.stats.add(Counter::RtcpOutNack, 1);
        }
        if nacks.take_key_frame_request() {
            self.on_given_up(index);
        }
        Some(())
    }

    /// Keeps what was just forwarded of a stream for those who will ask for it.
    pub(super) fn remember(&mut self, now: Time, pool: &mut PacketPool, index: u32, row: Row) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let epoch = stream.life(index).epoch;
        let (life, history) = stream
            .history
            .get_or_insert_with(|| (epoch, PacketHistory::new(HistoryLimits::default())));
        if std::mem::replace(life, epoch) != epoch {
            history.clear(|held| pool.release(held.buf));
        }
        self.inbox.take(row, epoch, |sequence, buf, packet| {
            if pool.available() < pool.capacity() / POOL_RESERVE {
                history.clear(|held| pool.release(held.buf));
                return pool.release(buf);
            }
            let held = Held {
                buf,
                len: packet.len,
                framing: packet.framing,
                codec: packet.codec,
                forwarded: now,
                late: history.is_passed(sequence),
            };
            history.insert(now, sequence, PACKET_SLOT as u32, held, |held| {
                pool.release(held.buf)
            });
        });
        if !history.is_empty() && self.sweep_at == Time::NEVER {
            self.sweep_at = self.timers.set(now + SWEEP_INTERVAL, Timer::Sweep);
        }
    }

    /// Gives up what is too old in all histories.
    pub(super) fn sweep(&mut self, now: Time) {
        let mut left = false;
        for (_, history) in self
            .streams
            .iter_mut()
            .filter_map(|stream| stream.history.as_mut())
        {
            history.expire(now, |held| self.graveyard.push(held.buf));
            left |= !history.is_empty();
        }
        self.sweep_at = if left {
            self.timers.set(now + SWEEP_INTERVAL, Timer::Sweep)
        } else {
            Time::NEVER
        };
    }

    /// Forgets a stream's history. Its buffers are free after [`Engine::bury`].
    pub(super) fn forget(&mut self, index: u32) {
        let history = self
            .streams
            .get_mut(index)
            .and_then(|stream| stream.history.as_mut());
        if let Some((_, history)) = history {
            history.clear(|held| self.graveyard.push(held.buf));
        }
    }

    /// Frees buffers that were given up where no pool was at hand.
    pub(super) fn bury(&mut self, pool: &mut PacketPool) {
        self.graveyard.drain(..).for_each(|buf| pool.release(buf));
    }

    /// Packets in histories: pool slots that are in use between flushes.
    pub(super) fn held(&self) -> usize {
        self.streams
            .iter()
            .filter_map(|stream| stream.history.as_ref())
            .map(|(_, history)| history.len())
            .sum()
    }

    /// A subscriber misses packets of one of its slots.
    pub(super) fn on_nack(&mut self, key: u32, nack: &Nack<'_>) {
        let Some(subscription) = self
            .peer(key)
            .and_then(|peer| peer.subscription(nack.media_ssrc))
        else {
            return;
        };
        let Some(sub) = self.subscriptions.get(subscription) else {
            return;
        };
        for number in nack.sequence_numbers().take(NACKED_PER_DATAGRAM) {
            match sub.rewriter.origin(number) {
                Some(origin)
                    if self.resends.len() < NACKED_PER_DATAGRAM * self.config.peers.max(1) =>
                {
                    self.resends.push(Resend {
                        subscription,
                        origin,
                        cause: RtxCause::Asked,
                    });
                }
                _ => self.stats.add(Counter::RetransmitGone, 1),
            }
        }
    }

    /// Transport-wide feedback says that a packet of one of a subscriber's slots was lost, or a
    /// retransmission of one.
    pub(super) fn on_lost(&mut self, key: u32, lost: LostPacket) {
        let Some(peer) = self.peer(key) else { return };
        let slot = peer.slots.iter().find(|slot| {
            slot.kind == MediaKind::Video
                && (slot.ssrc == lost.ssrc || slot.rtx_ssrc == Some(lost.ssrc))
        });
        let Some((ssrc, subscription)) = slot.and_then(|s| Some((s.ssrc, s.subscription?))) else {
            return;
        };
        let Some(sub) = self.subscriptions.get(subscription) else {
            return;
        };
        let number = lost.sequence_number;
        let (number, cause) = if ssrc == lost.ssrc {
            (number, RtxCause::Lost)
        } else {
            let sender = sub.retransmission.as_ref().map(|r| &r.sender);
            let Some(original) = sender.and_then(|sender| sender.carried_by(number)) else {
                // It was padding.
                return;
            };
            (original, RtxCause::LostAgain(number))
        };
        if let Some(origin) = sub.rewriter.origin(number)
            && self.resends.len() < NACKED_PER_DATAGRAM * self.config.peers.max(1)
        {
            self.resends.push(Resend {
                subscription,
                origin,
                cause,
            });
        }
    }

    /// Sends what subscribers asked for, as far as their budgets go.
    pub(super) fn resend_all<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        legs: Legs,
    ) {
        let mut resends = std::mem::take(&mut self.resends);
        resends.retain(|resend| {
            let resend = *resend;
            let sub = self.subscriptions.get(resend.subscription);
            if sub.is_some_and(|sub| self.legs_of(sub.peer) != legs) {
                return true;
            }
            let counter = match self.resend(now, pool, egress, resend) {
                Ok(repeated) => {
                    // Its frame will not wait for a third time. Of all losses this concerns the
                    // few that were lost twice, so it costs little.
                    let cause = RtxCause::Copy;
                    let copy = Resend { cause, ..resend };
                    if repeated && self.resend(now, pool, egress, copy).is_ok() {
                        self.stats.add(Counter::RetransmitSent, 1);
                    }
                    Counter::RetransmitSent
                }
                // Nobody asked.
                Err(Some(RtxRefusal::TooSoon)) if resend.cause != RtxCause::Asked => return false,
                Err(Some(RtxRefusal::TooSoon)) => Counter::RetransmitTooSoon,
                Err(Some(RtxRefusal::OverBudget)) => Counter::RetransmitOverBudget,
                Err(None) => Counter::RetransmitGone,
            };
            self.stats.add(counter, 1);
            false
        });
        self.resends = resends;
    }

    /// Whether it was not the first time. `Err(None)`: the packet is not there any more, or cannot
    /// be sent again to this receiver.
    fn resend<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        resend: Resend,
    ) -> Result<bool, Option<RtxRefusal>> {
        let Resend {
            subscription,
            origin,
            cause,
        } = resend;
        let sub = self
            .subscriptions
            .get_mut(subscription)
            .filter(|sub| sub.forwards())
            .ok_or(None)?;
        let stream = self.streams.get(origin.source.stream).ok_or(None)?;
        let (epoch, history) = stream.history.as_ref().ok_or(None)?;
        let held = history
            .get(origin.sequence)
            .filter(|_| *epoch == origin.source.epoch)
            .ok_or(None)?;
        let publisher = self
            .peers
            .get(stream.peer as usize)
            .and_then(Option::as_deref)
            .ok_or(None)?;
        let receiver = self
            .peers
            .get(sub.peer as usize)
            .and_then(Option::as_deref)
            .ok_or(None)?;
        let media = publisher
            .sending
            .get(usize::from(stream.media))
            .ok_or(None)?;
        let codec = media.codecs.get(usize::from(held.codec)).ok_or(None)?;
        let track = stream
            .track
            .and_then(|track| self.tracks.get(track))
            .filter(|t| !t.muted)
            .ok_or(None)?;
        // What was lost on its way to the relay is missed before it is sent. Who asked for it less
        // than a round trip after that did not know that it was on its way.
        if held.late
            && cause == RtxCause::Asked
            && let Some(rtt) = receiver.round_trip
            && now - held.forwarded < rtt + LATE_SLACK
        {
            return Err(Some(RtxRefusal::TooSoon));
        }

        let payload_type = sub.payload_types.rtx(held.codec).ok_or(None)?;
        let sequence = self.prng.next_u32() as u16;
        let sender = &retransmission(sub, receiver, sequence).ok_or(None)?.sender;
        let repeated = sender.has_sent(origin.index);
        let downlink = self.downlinks.get_mut(sub.peer as usize).ok_or(None)?;
        let fields = PacketFields {
            marker: false,
            payload_type,
            sequence_number: 0,
            timestamp: 0,
            send_time: AbsSendTime::from_micros(now.as_micros()).to_bytes(),
            transport_cc: downlink.next(),
            frame_number: None,
            active_targets: None,
            capture_offset: publisher.clock.to_relay(0).unwrap_or(0).wrapping_neg(),
        };
        let numbered = sub.template.numbers_transport();
        let slot = receiver.slots.get(usize::from(sub.slot));
        let rtx_ssrc = slot.and_then(|slot| slot.rtx_ssrc).ok_or(None)?;
        let rtt = receiver.round_trip.unwrap_or(ROUND_TRIP_DEFAULT);
        let (index, len) = Again {
            sub,
            stream,
            held,
            origin,
            publisher,
            codec,
            source: track.source,
            track: track.id,
            now,
            rtt,
            cause,
        }
        .send(fields, pool, egress)?;
        if downlink.notes(numbered) {
            downlink.on_sent(now, rtx_ssrc, index as u16, len);
        }
        Ok(repeated)
    }
}

/// The retransmission side of a subscription, made when it is first needed.
pub(super) fn retransmission<'a>(
    sub: &'a mut Subscription,
    receiver: &Peer,
    sequence: u16,
) -> Option<&'a mut Retransmission> {
    if sub.retransmission.is_none() {
        let slot = receiver.slots.get(usize::from(sub.slot))?;
        let template = HeaderTemplate::new(
            slot.rtx_ssrc?,
            slot.mid,
            &receiver.extensions,
            receiver.extmap_allow_mixed,
        );
        sub.retransmission = Some(Box::new(Retransmission {
            sender: RtxSender::new(sequence),
            template,
        }));
    }
    sub.retransmission.as_deref_mut()
}

/// A packet on its way to a subscriber for the second time.
struct Again<'a> {
    sub: &'a mut Subscription,
    stream: &'a RtpStream,
    held: &'a Held,
    origin: Origin,
    publisher: &'a Peer,
    codec: &'a CodecParams,
    source: Source,
    track: TrackId,
    now: Time,
    rtt: Duration,
    cause: RtxCause,
}

impl Again<'_> {
    /// Reads the packet again, and sends it as RTX; gives its index and length. `Err(None)` if it
    /// does not read as it once did.
    fn send<E: Egress>(
        self,
        fields: PacketFields,
        pool: &mut PacketPool,
        egress: &mut E,
    ) -> Result<(u64, usize), Option<RtxRefusal>> {
        let Again {
            sub,
            stream,
            held,
            origin,
            publisher,
            codec,
            source,
            track,
            now,
            rtt,
            cause,
        } = self;
        let packet = pool
            .bytes(&held.buf)
            .get(..usize::from(held.len))
            .ok_or(None)?;
        let header = RtpHeader::parse(packet).map_err(|_| None)?;
        let elements = Elements::find(&publisher.extensions, &header, packet);
        let descriptor = elements.get(packet, DEPENDENCY_DESCRIPTOR);
        let range = header.payload_range();
        let range = range.start + usize::from(held.framing)..range.end;
        let payload = packet.get(range.clone()).ok_or(None)?;
        let frame = FrameInfo::read(codec.codec, payload, descriptor).ok_or(None)?;
        let numbers = frame.descriptor.numbers();
        let renumbered = numbers.map(|old| PictureNumbers {
            picture_id: old.picture_id.map(|id| sub.rewriter.picture_id.map(id)),
            tl0_pic_idx: old
                .tl0_pic_idx
                .map(|tl0| sub.rewriter.tl0_pic_idx.map(tl0.into()) as u8),
        });
        let described = descriptor.and_then(|d| MandatoryFields::parse(d).ok());
        let layers = descriptor
            .and_then(|descriptor| stream.describe_again(descriptor))
            .or(frame.layers.map(FrameLayers::Bits))
            .unwrap_or(FrameLayers::Unknown);
        let decided = sub
            .layers
            .recall(&layers, header.timestamp, stream.decode_targets());
        let Selection::Forward { ends_picture } = decided else {
            return Err(None);
        };
        let fields = PacketFields {
            marker: header.marker || ends_picture,
            timestamp: sub.rewriter.peek_timestamp(header.timestamp),
            frame_number: described.map(|d| sub.rewriter.frame_number.map(d.frame_number)),
            active_targets: sub.layers.active_targets(&layers),
            ..fields
        };
        let Retransmission { sender, template } = sub.retransmission.as_deref_mut().ok_or(None)?;
        let mut out = [0; HEADER_MAX];
        let header_len = template.write(&mut out, &fields, packet, &elements);
        let front = range.start.checked_sub(OSN_LEN).ok_or(None)?;
        let bytes = header_len + (range.end - front);
        let index = sender
            .request(now, origin.index, bytes as u16, rtt, cause)
            .map_err(Some)?;
        let out = out.get_mut(..header_len).ok_or(None)?;
        if !set_sequence_number(out, index as u16) {
            return Err(None);
        }

        // RFC 4588 §4: the original sequence number goes in front of the original payload. In the
        // slot there is the header in its place, which is put back.
        let slot = pool
            .bytes_mut(&held.buf)
            .get_mut(front..range.end)
            .ok_or(None)?;
        let (place, body) = slot.split_first_chunk_mut::<OSN_LEN>().ok_or(None)?;
        let saved = std::mem::replace(place, (origin.index as u16).to_be_bytes());
        if let Some(new) = renumbered {
            frame.descriptor.rewrite(body, Rewritten::Numbers(new));
        }
        egress.rtp(
            PeerKey(sub.peer),
            index,
            out,
            slot,
            PacketMeta {
                source,
                track: Some(track),
                received: now,
                read: now,
            },
        );
        let (place, body) = slot.split_first_chunk_mut::<OSN_LEN>().ok_or(None)?;
        *place = saved;
        if let Some(old) = numbers {
            frame.descriptor.rewrite(body, Rewritten::Numbers(old));
        }
        Ok((index, bytes))
    }
}
