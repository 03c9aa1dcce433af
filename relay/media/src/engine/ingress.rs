//! Incoming RTP: which stream a packet belongs to, and whether it may pass.

use super::Engine;
use crate::api::MediaEvent;
use crate::frame::{Descriptor, FrameInfo, frame_number};
use crate::header::{AUDIO_LEVEL, DEPENDENCY_DESCRIPTOR, Elements};
use crate::inbox::Incoming;
use crate::layers::FrameLayers;
use crate::limits::INBOX_MAX;
use crate::peer::{Binding, Peer};
use crate::seal::Verdict;
use sealcast_model::{Codec, Counter, PacketBuf, PacketPool, SealRule, Time};
use sealcast_rtp::payload::rtx;
use sealcast_rtp::{ExtensionKind, RtpHeader};

/// Why a packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It belongs to no stream, or to one that nobody may get.
    Drop(Counter),
    /// It carries nothing and never should have.
    Ignore,
    /// It is left out of its stream, whose numbers must close up behind it. Padding is not
    /// counted: it was never meant to be forwarded.
    Skip {
        counter: Option<Counter>,
        stream: u32,
        sequence: u64,
    },
}

/// A packet's stream, codec and extended sequence number.
pub(super) struct Placed {
    pub(super) stream: u32,
    pub(super) track: u32,
    pub(super) sequence: u64,
    /// Bytes in front of the codec's own payload.
    pub(super) framing: usize,
    pub(super) codec_index: u8,
    pub(super) codec: Codec,
}

impl Engine {
    pub(super) fn receive(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        key: u32,
        buf: PacketBuf,
        len: usize,
        received: Time,
    ) {
        let packet = pool.bytes(&buf).get(..len).unwrap_or_default();
        let judged = match RtpHeader::parse(packet) {
            Ok(header) => {
                self.note_transport(key, &header, packet, received);
                self.judge(now, key, &header, packet, received)
            }
            Err(_) => Err(Refusal::Drop(Counter::DropRtpMalformed)),
        };
        let judged = match judged {
            Ok((placed, incoming)) => Ok((placed.stream, placed.sequence, buf, incoming)),
            Err(refusal) => {
                pool.release(buf);
                Err(refusal)
            }
        };
        self.queue(pool, judged);
    }

    /// Puts a packet, or the gap that it leaves, into its stream's row.
    pub(super) fn queue(
        &mut self,
        pool: &mut PacketPool,
        judged: Result<(u32, u64, PacketBuf, Incoming), Refusal>,
    ) {
        let (stream, sequence, packet) = match judged {
            Ok((stream, sequence, buf, incoming)) => (stream, sequence, Some((buf, incoming))),
            Err(Refusal::Drop(counter)) => return self.stats.add(counter, 1),
            Err(Refusal::Ignore) => return,
            Err(Refusal::Skip {
                counter,
                stream,
                sequence,
            }) => {
                counter.into_iter().for_each(|c| self.stats.add(c, 1));
                (stream, sequence, None)
            }
        };
        let Some(found) = self
            .streams
            .get_mut(stream)
            .filter(|_| self.inbox.len() < INBOX_MAX)
        else {
            self.stats.add(Counter::DropPoolEmpty, 1);
            return packet.into_iter().for_each(|(buf, _)| pool.release(buf));
        };
        if found.row.is_empty() {
            self.dirty.push(stream);
        }
        let epoch = found.life(stream).epoch;
        self.inbox.push(&mut found.row, epoch, sequence, packet);
    }

    /// Finds a packet's stream and looks whether it may be forwarded.
    fn judge(
        &mut self,
        now: Time,
        key: u32,
        header: &RtpHeader,
        packet: &[u8],
        received: Time,
    ) -> Result<(Placed, Incoming), Refusal> {
        let placed = self.place(key, header, packet, received);
        if let Err(Refusal::Skip {
            stream, sequence, ..
        }) = placed
        {
            self.note_arrival(now, stream, sequence, 0, false);
        }
        let placed = placed?;
        self.examine(now, key, header, packet, received, placed)
    }

    /// Looks into a packet whose place is known.
    pub(super) fn examine(
        &mut self,
        now: Time,
        key: u32,
        header: &RtpHeader,
        packet: &[u8],
        received: Time,
        placed: Placed,
    ) -> Result<(Placed, Incoming), Refusal> {
        let repair = placed.framing > 0;
        self.note_arrival(
            now,
            placed.stream,
            placed.sequence,
            placed.codec_index,
            repair,
        );
        let skip = |counter| Refusal::Skip {
            counter,
            stream: placed.stream,
            sequence: placed.sequence,
        };
        let payload = header
            .payload(packet)
            .get(placed.framing..)
            .unwrap_or_default();
        // Padding probes and empty Opus frames (DTX) carry no media.
        if payload.is_empty() {
            return Err(skip(None));
        }
        let elements = match self.peer(key) {
            Some(peer) => Elements::find(&peer.extensions, header, packet),
            None => Elements::default(),
        };
        let descriptor = elements.get(packet, DEPENDENCY_DESCRIPTOR);
        let described = match (descriptor, self.streams.get_mut(placed.stream)) {
            (Some(descriptor), Some(stream)) => Some(stream.describe(placed.sequence, descriptor)),
            _ => None,
        };
        let mut frame = FrameInfo::read(placed.codec, payload, descriptor)
            .ok_or_else(|| skip(Some(Counter::DropRtpMalformed)))?;
        if !self.is_redundancy_known(key, &placed, frame.descriptor) {
            return Err(skip(Some(Counter::DropUnknownPayload)));
        }
        if let Some(stream) = self.streams.get_mut(placed.stream) {
            let first = stream.starts_frame(placed.sequence, header.timestamp);
            frame.key |= frame.bare_key && first;
        }
        self.check_seal(&placed, header.timestamp, payload, frame.start)
            .map_err(|refused| refused.unwrap_or_else(|| skip(Some(Counter::DropUnsealed))))?;
        self.on_media(now, &placed, &frame);
        if let Some(level) = elements.get(packet, AUDIO_LEVEL) {
            self.note_level(now, placed.track, level);
        }
        let layers = described
            .or(frame.layers.map(FrameLayers::Bits))
            .unwrap_or(FrameLayers::Unknown);
        if let Some(stream) = self.streams.get_mut(placed.stream) {
            stream.meter.add(now, &layers, packet.len());
        }
        let range = header.payload_range();
        let incoming = Incoming {
            len: packet.len() as u16,
            payload: (range.start + placed.framing) as u16..range.end as u16,
            framing: placed.framing as u8,
            timestamp: header.timestamp,
            marker: header.marker,
            codec: placed.codec_index,
            key: frame.key,
            received,
            read: now,
            elements,
            layers,
            descriptor: frame.descriptor,
            numbers: frame.descriptor.numbers(),
            frame_number: descriptor.and_then(frame_number),
        };
        Ok((placed, incoming))
    }

    /// Finds stream, codec and track, and does the bookkeeping that every packet of a stream
    /// needs, whatever becomes of it.
    fn place(
        &mut self,
        key: u32,
        header: &RtpHeader,
        packet: &[u8],
        received: Time,
    ) -> Result<Placed, Refusal> {
        let binding = self.bind(key, header, packet)?;
        let Some(peer) = self.peers.get(key as usize).and_then(Option::as_deref) else {
            return Err(Refusal::Drop(Counter::DropUnknownSource));
        };
        let stream = self
            .streams
            .get_mut(binding.stream)
            .ok_or(Refusal::Drop(Counter::DropUnknownSsrc))?;
        let unknown_payload = Refusal::Drop(Counter::DropUnknownPayload);
        let media = peer
            .sending
            .get(usize::from(stream.media))
            .ok_or(unknown_payload)?;
        let payload = header.payload(packet);
        let (codec_index, sequence, framing) = if binding.rtx {
            // RTX without a payload is padding, by which senders probe their path.
            if payload.is_empty() {
                return Err(Refusal::Ignore);
            }
            let codec_index = media
                .codec_of_rtx(header.payload_type)
                .ok_or(unknown_payload)?;
            let (original, _) =
                rtx::parse(payload).map_err(|_| Refusal::Drop(Counter::DropRtpMalformed))?;
            (codec_index, stream.repaired(original), rtx::OSN_LEN)
        } else {
            let Some(codec_index) = media.codec(header.payload_type) else {
                // Comfort noise, or a digit that was pressed (RFC 4733): the numbers of the stream
                // count it, so it is not missing from it.
                let sequence = stream.sequence(header.sequence_number);
                let sequence = sequence.ok_or(Refusal::Drop(Counter::DropDuplicate))?;
                stream.reception.on_other(sequence);
                stream.last_packet = Some(received);
                return Err(Refusal::Skip {
                    counter: Some(Counter::DropUnknownPayload),
                    stream: binding.stream,
                    sequence,
                });
            };
            stream.clock_rate = media.codecs[codec_index].codec.clock_rate();
            (codec_index, stream.sequence(header.sequence_number), 0)
        };
        let codec = media.codecs[codec_index].codec;
        let sequence = sequence.ok_or(Refusal::Drop(Counter::DropDuplicate))?;
        if binding.rtx {
            self.stats.add(Counter::RepairsReceived, 1);
        } else {
            // What was lost stays lost in reports: they tell the sender about its path.
            stream.on_arrival(sequence, header.timestamp, received, &self.clock);
        }
        Ok(Placed {
            stream: binding.stream,
            track: self.admit(binding.stream, header)?,
            sequence,
            framing,
            codec_index: codec_index as u8,
            codec,
        })
    }

    /// What a packet's SSRC carries. An unknown one is bound if the packet says what it is.
    fn bind(&mut self, key: u32, header: &RtpHeader, packet: &[u8]) -> Result<Binding, Refusal> {
        let Some(peer) = self
            .peers
            .get_mut(key as usize)
            .and_then(Option::as_deref_mut)
        else {
            return Err(Refusal::Drop(Counter::DropUnknownSource));
        };
        if let Some(binding) = peer.binding(header.ssrc) {
            return Ok(binding);
        }
        let binding =
            identify(peer, header, packet).filter(|binding| peer.bind(header.ssrc, *binding));
        let binding = binding.ok_or(Refusal::Drop(Counter::DropUnknownSsrc))?;
        if let Some(stream) = self
            .streams
            .get_mut(binding.stream)
            .filter(|_| !binding.rtx)
        {
            stream.restart(Some(header.ssrc));
        }
        Ok(binding)
    }

    /// The track of a stream's packet, if it takes packets now.
    fn admit(&mut self, stream: u32, header: &RtpHeader) -> Result<u32, Refusal> {
        let index = self.streams.get(stream).and_then(|stream| stream.track);
        let index = index.ok_or(Refusal::Drop(Counter::DropNotPublished))?;
        let track = self
            .tracks
            .get_mut(index)
            .ok_or(Refusal::Drop(Counter::DropNotPublished))?;
        self.stats
            .media(track.source)
            .received(1, header.packet_len() as u64);
        if track.blocked {
            return Err(Refusal::Drop(Counter::DropUnsealed));
        }
        if track.muted {
            return Err(Refusal::Drop(Counter::DropMuted));
        }
        if !std::mem::replace(&mut track.started, true) {
            self.events
                .push_back(MediaEvent::TrackStarted { track: track.id });
            if track.encodings.len() > 1 {
                let from = self.streams.get(stream).and_then(|s| s.last_packet);
                self.review_soon(from.unwrap_or_default());
            }
        }
        Ok(index)
    }

    /// Whether the blocks of RED are of the codec that its m-line has beside it; anything else is
    /// no RED.
    fn is_redundancy_known(&self, key: u32, placed: &Placed, descriptor: Descriptor) -> bool {
        let Descriptor::Red(red) = descriptor else {
            return true;
        };
        let media = self
            .streams
            .get(placed.stream)
            .and_then(|stream| self.peer(key)?.sending.get(usize::from(stream.media)));
        media.is_some_and(|media| {
            let block = media.codec(red.payload_type).map(|at| &media.codecs[at]);
            block.is_some_and(|codec| codec.codec == Codec::Opus)
        })
    }

    /// The structural check. `Err(None)` leaves the packet out, `Err(Some(_))` says otherwise.
    fn check_seal(
        &mut self,
        placed: &Placed,
        timestamp: u32,
        payload: &[u8],
        start: Option<usize>,
    ) -> Result<(), Option<Refusal>> {
        let (Some(track), Some(stream)) = (
            self.tracks.get_mut(placed.track),
            self.streams.get_mut(placed.stream),
        ) else {
            return Err(Some(Refusal::Drop(Counter::DropNotPublished)));
        };
        let SealRule::Contexts(contexts) = &track.seal else {
            return Ok(());
        };
        match stream
            .seal
            .check(contexts, placed.codec, timestamp, payload, start)
        {
            Verdict::Pass => Ok(()),
            Verdict::Drop => Err(None),
            Verdict::Block => {
                track.blocked = true;
                self.stats.add(Counter::TracksBlocked, 1);
                self.events
                    .push_back(MediaEvent::TrackBlocked { track: track.id });
                Err(None)
            }
        }
    }

    /// A packet that passes: what it means for key frames and for the choice of encoding.
    fn on_media(&mut self, now: Time, placed: &Placed, frame: &FrameInfo) {
        let (Some(track), Some(stream)) = (
            self.tracks.get(placed.track),
            self.streams.get_mut(placed.stream),
        ) else {
            return;
        };
        if frame.key {
            stream.keyframes.on_keyframe();
            if let Some(nacks) = &mut stream.nacks {
                nacks.on_key_frame(placed.sequence);
            }
        } else {
            stream.keyframes.on_packet();
        }
        if track.encodings.len() < 2 {
            return;
        }
        let resized = frame.pixels.is_some() && stream.pixels != frame.pixels;
        if resized {
            stream.pixels = frame.pixels;
        }
        if track.note_activity(&mut self.streams, placed.stream, now) || resized {
            self.retarget(placed.track, frame.key.then_some(placed.stream));
        }
    }
}

/// Which stream an unknown SSRC belongs to: by MID and RID of the packet, or by a payload type
/// that only one m-line uses.
fn identify(peer: &Peer, header: &RtpHeader, packet: &[u8]) -> Option<Binding> {
    let element = |kind| header.extension(packet, peer.extensions.id(kind)?);
    let media = peer
        .sending
        .get(peer.media_of(element(ExtensionKind::Mid), header.payload_type)?)?;
    let rtx = media.codec_of_rtx(header.payload_type).is_some();
    if media.rids.is_empty() {
        return Some(Binding {
            stream: *media.encodings.first()?,
            rtx,
        });
    }
    // RFC 8852 §3.3: retransmissions name the stream that they repair.
    let rid = element(if rtx {
        ExtensionKind::RepairedRid
    } else {
        ExtensionKind::Rid
    })?;
    let at = media
        .rids
        .iter()
        .position(|known| known.as_bytes() == rid)?;
    Some(Binding {
        stream: *media.encodings.get(at)?,
        rtx,
    })
}
