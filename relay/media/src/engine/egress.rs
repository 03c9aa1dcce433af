//! Outgoing RTP: each stream's packets to each of its subscriptions.

use super::Engine;
use super::departures::plan_departure;
use super::legs::Legs;
use super::tracks::want_keyframe;
use crate::api::{Egress, PacketMeta, PeerKey};
use crate::downlink::Downlink;
use crate::frame::{Descriptor, PictureNumbers, Rewritten};
use crate::header::PacketFields;
use crate::inbox::{Entry, Incoming, Row};
use crate::layers::{DecodeTargets, Selection};
use crate::limits::{HEADER_MAX, POOL_RESERVE};
use crate::peer::Peer;
use crate::rewriter::{Attachment, StreamLife};
use crate::slab::Slab;
use crate::stream::RtpStream;
use crate::subscription::{RedTypes, Subscription};
use crate::track::Track;
use sealcast_model::{
    Counter, MediaKind, NtpClock, PacketBuf, PacketPool, ShardStats, Source, Time, TrackId,
};
use sealcast_rtp::ext::AbsSendTime;

/// What all packets of one stream in one flush have in common.
pub(super) struct Run<'a> {
    pub(super) now: Time,
    pub(super) life: StreamLife,
    pub(super) stats: &'a ShardStats,
    source: Source,
    track: TrackId,
    send_time: [u8; 3],
    /// Added to the clock offset of absolute capture times.
    capture_offset: u64,
    /// What the stream's dependency descriptors told.
    targets: Option<&'a DecodeTargets>,
}

/// What one subscription was sent in a run.
#[derive(Default)]
struct Sent {
    packets: u64,
    bytes: u64,
    /// Entries of the row from here on have to wait.
    held_from: Option<usize>,
}

/// What is left to do with a row that was sent.
struct Served {
    /// Somebody waits for a key frame.
    keyframe_wanted: bool,
    /// The slow legs are yet to come.
    is_unfinished: bool,
    /// Other shards get it.
    is_mirrored: bool,
    /// It may be asked for again.
    is_kept: bool,
}

impl Served {
    fn of(track: &Track, legs: Legs, keyframe_wanted: bool) -> Self {
        let is_first = legs == Legs::Quick;
        Served {
            keyframe_wanted,
            is_unfinished: is_first && !track.subscriptions_of(Legs::Slow).is_empty(),
            is_mirrored: is_first && !track.satellites.is_empty(),
            is_kept: track.source.kind() == MediaKind::Video && track.is_wanted(),
        }
    }
}

impl Engine {
    pub(super) fn forward_all<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        legs: Legs,
    ) {
        // Not taken out meanwhile: should one subscriber's turn panic, the other streams are served
        // with the next flush.
        let mut unfinished = 0;
        for at in 0..self.dirty.len() {
            let Some(stream) = self.dirty.get(at).copied() else {
                break;
            };
            if self.forward_stream(now, pool, egress, stream, legs) {
                self.dirty.swap(unfinished, at);
                unfinished += 1;
            }
        }
        self.dirty.truncate(unfinished);
        if legs == Legs::Slow {
            self.inbox.clear(pool);
        }
    }

    /// Sends what one stream has in the inbox to all that get it. True if its slow legs are yet to
    /// come.
    fn forward_stream<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        index: u32,
        legs: Legs,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(index) else {
            return false;
        };
        let row = std::mem::replace(&mut stream.row, Row::EMPTY);
        let Some(served) = self.serve(now, pool, egress, index, row, legs) else {
            return false;
        };
        if served.keyframe_wanted {
            want_keyframe(&mut self.streams, &mut self.asking, index);
        }
        if served.is_mirrored {
            self.mirror_row(pool, egress, index, row);
        }
        if served.is_unfinished {
            if let Some(stream) = self.streams.get_mut(index) {
                stream.row = row;
            }
        } else if served.is_kept {
            self.remember(now, pool, index, row);
        }
        self.void_overrun();
        served.is_unfinished
    }

    /// Sends a row, subscription by subscription. `None` if the stream's track goes to nobody.
    fn serve<E: Egress>(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        egress: &mut E,
        index: u32,
        row: Row,
        legs: Legs,
    ) -> Option<Served> {
        let stream = self.streams.get(index)?;
        let life = stream.life(index);
        let track = self.tracks.get(stream.track?)?;
        if !track.forwards() {
            return None;
        }
        let publisher = self.peers.get(stream.peer as usize);
        let publisher = publisher.and_then(Option::as_deref);
        let targets = stream.decode_targets();
        let run = Run::new(now, life, &self.stats, track, publisher, targets);
        let mut keyframe_wanted = false;
        let mut total = Sent::default();
        let mut header = [0; HEADER_MAX];
        let subscriptions = track.subscriptions_of(legs);
        let mut ahead = Ahead::of(subscriptions);
        // What waits is kept in the history, which gives up first when the pool runs low.
        let pressed = pool.available() < pool.capacity() / POOL_RESERVE;
        for subscription in subscriptions {
            ahead.fetch(&self.subscriptions, &self.downlinks, egress);
            let Some(sub) = self.subscriptions.get_mut(*subscription) else {
                continue;
            };
            let attached = sub.rewriter.source() == Some(life);
            if !sub.forwards() || !(attached || sub.target == Some(index)) {
                continue;
            }
            let Some(downlink) = self.downlinks.get_mut(sub.peer as usize) else {
                continue;
            };
            let entries = || self.inbox.iter(row, life.epoch);
            let mut held_from = Some(0);
            if attached || sub.kind == MediaKind::Audio || pressed || downlink.may_pass(now) {
                let skip = match attached {
                    true => Some(0),
                    false => join(sub, &run, entries(), &self.streams, publisher, &self.clock),
                };
                let Some(skip) = skip else {
                    keyframe_wanted |= sub.kind == MediaKind::Video;
                    continue;
                };
                let rest = entries().enumerate().skip(skip);
                let sent = run.send(sub, downlink, rest, pressed, &mut header, pool, egress);
                keyframe_wanted |= sub.layers.take_keyframe_wish();
                total.packets += sent.packets;
                total.bytes += sent.bytes;
                held_from = sent.held_from;
            }
            if let Some((from, control)) = held_from.zip(downlink.control.as_deref_mut()) {
                let rest = entries().skip(from);
                keyframe_wanted |= run.hold(*subscription, sub, control, rest, &mut self.overrun);
                plan_departure(&mut self.timers, now, sub.peer, control);
            }
        }
        let media = self.stats.media(track.source);
        media.forwarded(total.packets, total.bytes);
        Some(Served::of(track, legs, keyframe_wanted))
    }
}

/// Turns a subscription to a stream at the first packet where it can be joined; returns how many
/// entries of the row come before that, or `None` if there is no such packet.
fn join<'a>(
    sub: &mut Subscription,
    run: &Run<'_>,
    entries: impl Iterator<Item = &'a Entry>,
    streams: &Slab<RtpStream>,
    publisher: Option<&Peer>,
    clock: &NtpClock,
) -> Option<usize> {
    let (skip, sequence, packet) = entries.enumerate().find_map(|(at, entry)| {
        let (_, packet) = entry.packet.as_ref()?;
        if sub.rewriter.has_passed(run.life, entry.sequence) {
            return None;
        }
        joinable(sub, packet).then_some((at, entry.sequence, packet))
    })?;
    attach(sub, run, sequence, packet, streams, publisher, clock)?;
    Some(skip)
}

/// Turns a subscription to a stream from this packet on.
pub(super) fn attach(
    sub: &mut Subscription,
    run: &Run<'_>,
    sequence: u64,
    packet: &Incoming,
    streams: &Slab<RtpStream>,
    publisher: Option<&Peer>,
    clock: &NtpClock,
) -> Option<()> {
    let stream = streams.get(run.life.stream)?;
    let point = publisher.and_then(|publisher| stream.clock_point(publisher.clock));
    let captured = match point {
        Some(point) => point.ntp_of(packet.timestamp, stream.clock_rate),
        None => clock.at(packet.received),
    };
    let aligned = aligned_timestamp(sub, streams, stream, packet.timestamp);
    sub.rewriter.attach(Attachment {
        source: run.life,
        sequence,
        timestamp: packet.timestamp,
        captured,
        aligned,
    });
    sub.layers.attach();
    Some(())
}

/// Whether a receiver can start with this packet.
pub(super) fn joinable(sub: &Subscription, packet: &Incoming) -> bool {
    let takes = sub.payload_types.get(packet.codec).is_some();
    takes && (packet.key || sub.kind == MediaKind::Audio)
}

/// The outgoing timestamp that continues the current source exactly, where both are streams of
/// one publisher whose sender reports tie them to one clock: the encodings of a simulcast.
fn aligned_timestamp(
    sub: &Subscription,
    streams: &Slab<RtpStream>,
    new: &RtpStream,
    timestamp: u32,
) -> Option<u32> {
    let current = sub.rewriter.source()?;
    let old = streams
        .get(current.stream)
        .filter(|old| old.life(current.stream) == current && old.peer == new.peer)?;
    let captured = new.sender_report?.point.ntp_of(timestamp, new.clock_rate);
    let continued = old
        .sender_report?
        .point
        .timestamp_of(captured, old.clock_rate);
    Some(sub.rewriter.peek_timestamp(continued))
}

/// Closes the gap that a packet of a layer above the receiver's would leave.
fn leave_out(sub: &mut Subscription, sequence: u64, packet: &Incoming) {
    sub.rewriter.skip(sequence);
    // VP8 picture ids have to count on; VP9's, which all layers of a picture share, need not.
    if let (Descriptor::Vp8(_), Some(id)) =
        (packet.descriptor, packet.numbers.and_then(|n| n.picture_id))
    {
        sub.rewriter.picture_id.skip(id);
    }
}

/// Fetches the state of receivers that are yet to be sent to. It is spread over memory, and has left
/// the nearest caches by the time that the next frame comes; each step finds what the next one
/// fetches.
struct Ahead<'a> {
    subscriptions: &'a [u32],
    /// The next to fetch the subscription of.
    next: usize,
}

impl<'a> Ahead<'a> {
    /// Receivers between the first step for one and its turn: three further steps and one to spare.
    const STEPS: usize = 4;

    fn of(subscriptions: &'a [u32]) -> Self {
        Ahead {
            subscriptions,
            next: 0,
        }
    }

    /// To be called before each receiver's turn.
    #[inline]
    fn fetch<E: Egress>(
        &mut self,
        subscriptions: &Slab<Subscription>,
        downlinks: &[Downlink],
        egress: &mut E,
    ) {
        // Before the first one's turn, all steps for those that come at once.
        let steps = if self.next == 0 { Self::STEPS } else { 1 };
        for _ in 0..steps {
            let back = |steps: usize| {
                let at = self.next.checked_sub(steps)?;
                self.subscriptions.get(at).copied()
            };
            if let Some(first) = back(0) {
                let lines = Subscription::lines(subscriptions.address(first));
                lines.for_each(|at| egress.prefetch(at));
            }
            let downlink = |index| {
                let sub = subscriptions.get(index)?;
                Some((sub, downlinks.get(sub.peer as usize)?))
            };
            if let Some((sub, downlink)) = back(1).and_then(downlink) {
                egress.prepare(PeerKey(sub.peer));
                downlink.hot().for_each(|at| egress.prefetch(at));
                sub.lines_of_layers().for_each(|at| egress.prefetch(at));
            }
            if let Some((_, downlink)) = back(2).and_then(downlink)
                && let Some(at) = downlink.hot_log()
            {
                egress.prefetch(at);
            }
            self.next += 1;
        }
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        now: Time,
        life: StreamLife,
        stats: &'a ShardStats,
        track: &Track,
        publisher: Option<&Peer>,
        targets: Option<&'a DecodeTargets>,
    ) -> Self {
        let offset = publisher.and_then(|publisher| publisher.clock.to_relay(0));
        Run {
            now,
            life,
            stats,
            source: track.source,
            track: track.id,
            send_time: AbsSendTime::from_micros(now.as_micros()).to_bytes(),
            capture_offset: offset.unwrap_or(0).wrapping_neg(),
            targets,
        }
    }

    /// Sends entries of a row to one subscription, as far as its pacer lets them. `all`: whatever
    /// the pacer says.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site; a struct of these would be built per subscription"
    )]
    fn send<'e, E: Egress>(
        &self,
        sub: &mut Subscription,
        downlink: &mut Downlink,
        entries: impl Iterator<Item = (usize, &'e Entry)>,
        all: bool,
        header: &mut [u8; HEADER_MAX],
        pool: &mut PacketPool,
        egress: &mut E,
    ) -> Sent {
        let mut sent = Sent::default();
        let paced = sub.kind == MediaKind::Video && !all;
        for (at, entry) in entries {
            let sequence = entry.sequence;
            let waits = sent.held_from.is_some() || (paced && !downlink.may_pass(self.now));
            // What comes late is missed already, and is asked for: it does not wait.
            if waits && !sub.rewriter.has_passed(self.life, sequence) {
                sent.held_from.get_or_insert(at);
                continue;
            }
            let Some((buf, packet)) = &entry.packet else {
                sub.rewriter.skip(sequence);
                continue;
            };
            if let Some(len) =
                self.send_packet(sub, downlink, sequence, buf, packet, header, pool, egress)
            {
                sent.bytes += len;
                sent.packets += 1;
            }
        }
        sent
    }

    /// Sends a packet of the subscription's source, if its layers are wanted; returns its length.
    #[expect(
        clippy::too_many_arguments,
        reason = "two call sites; a struct of these would be built per packet"
    )]
    #[inline(always)]
    pub(super) fn send_packet<E: Egress>(
        &self,
        sub: &mut Subscription,
        downlink: &mut Downlink,
        sequence: u64,
        buf: &PacketBuf,
        packet: &Incoming,
        header: &mut [u8; HEADER_MAX],
        pool: &mut PacketPool,
        egress: &mut E,
    ) -> Option<u64> {
        let Some(payload_type) = sub.payload_types.get(packet.codec) else {
            self.stats.add(Counter::DropCodec, 1);
            sub.rewriter.skip(sequence);
            return None;
        };
        let Selection::Forward { ends_picture } =
            sub.layers
                .select(&packet.layers, packet.timestamp, self.targets)
        else {
            leave_out(sub, sequence, packet);
            return None;
        };
        // From before the join, or later than the rewriter remembers.
        let index = sub.rewriter.map(sequence)?;
        let red = match packet.descriptor {
            Descriptor::Red(_) if !downlink.is_lean() => sub.payload_types.red,
            _ => None,
        };
        let fields = PacketFields {
            marker: packet.marker || ends_picture,
            payload_type: red.map_or(payload_type, |types| types.packet),
            sequence_number: index as u16,
            timestamp: sub.rewriter.timestamp(packet.timestamp),
            send_time: self.send_time,
            transport_cc: downlink.next(),
            frame_number: packet
                .frame_number
                .map(|number| sub.rewriter.frame_number.map(number)),
            active_targets: sub.layers.active_targets(&packet.layers),
            capture_offset: self.capture_offset,
        };
        let len = self.send_one(sub, index, &fields, red, header, buf, packet, pool, egress);
        if downlink.notes(sub.template.numbers_transport()) {
            downlink.on_sent(self.now, sub.ssrc, index as u16, len as usize);
        }
        Some(len)
    }

    /// Writes one header and hands the packet over; returns its length. Without `red`, what is new
    /// in RED is all that is sent of it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site; a struct of these would be built per packet"
    )]
    #[inline]
    fn send_one<E: Egress>(
        &self,
        sub: &mut Subscription,
        index: u64,
        fields: &PacketFields,
        red: Option<RedTypes>,
        header: &mut [u8; HEADER_MAX],
        buf: &PacketBuf,
        packet: &Incoming,
        pool: &mut PacketPool,
        egress: &mut E,
    ) -> u64 {
        let bytes = pool
            .bytes(buf)
            .get(..usize::from(packet.len))
            .unwrap_or_default();
        let header_len = sub.template.write(header, fields, bytes, &packet.elements);
        let mut range = usize::from(packet.payload.start)..usize::from(packet.payload.end);
        let rewritten = match (packet.descriptor, packet.numbers) {
            (Descriptor::Red(layout), _) => match red {
                Some(types) => Some((layout.payload_type, types.block))
                    .filter(|(old, new)| old != new)
                    .map(|(old, new)| (Rewritten::Blocks(old), Rewritten::Blocks(new))),
                None => {
                    range.start += layout.primary();
                    None
                }
            },
            (_, Some(old)) => {
                let new = PictureNumbers {
                    picture_id: old.picture_id.map(|id| sub.rewriter.picture_id.map(id)),
                    tl0_pic_idx: old
                        .tl0_pic_idx
                        .map(|tl0| sub.rewriter.tl0_pic_idx.map(tl0.into()) as u8),
                };
                (new != old).then_some((Rewritten::Numbers(old), Rewritten::Numbers(new)))
            }
            _ => None,
        };
        // The slot's descriptor is patched for this one packet and restored: sealing from the
        // slot stays the only copy.
        if let Some((_, new)) = rewritten {
            packet.descriptor.rewrite(
                pool.bytes_mut(buf)
                    .get_mut(range.clone())
                    .unwrap_or_default(),
                new,
            );
        }
        let payload = pool.bytes(buf).get(range.clone()).unwrap_or_default();
        let meta = PacketMeta {
            source: self.source,
            track: Some(self.track),
            received: packet.received,
            read: packet.read,
        };
        egress.rtp(
            PeerKey(sub.peer),
            index,
            header.get(..header_len).unwrap_or_default(),
            payload,
            meta,
        );
        sub.packets = sub.packets.wrapping_add(1);
        if let Some(retransmission) = &mut sub.retransmission {
            retransmission
                .sender
                .on_media((header_len + payload.len()) as u16);
        }
        sub.octets = sub.octets.wrapping_add(payload.len() as u32);
        let len = (header_len + payload.len()) as u64;
        if let Some((old, _)) = rewritten {
            packet
                .descriptor
                .rewrite(pool.bytes_mut(buf).get_mut(range).unwrap_or_default(), old);
        }
        len
    }
}
