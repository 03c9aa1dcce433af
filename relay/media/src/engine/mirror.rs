//! Rooms on several shards: what goes to other shards, and what comes from them.

use super::Engine;
use super::ingress::{Placed, Refusal};
use super::tracks::want_keyframe;
use crate::api::Egress;
use crate::inbox::{Incoming, Row};
use crate::limits::{MIRROR_REFRESH, MIRROR_REPAIRS, MIRROR_ROUND_TRIP, MIRRORS_PARTED};
use crate::mirror::{MISSING_MAX, Mirror, MirrorPlace, Satellite};
use crate::stream::SenderReportSeen;
use crate::sync::ClockPoint;
use crate::timers::Timer;
use crate::track::Track;
use sealcast_model::{
    CommandError, Counter, MediaKind, PacketPool, ParticipantId, RoomId, SessionId, SessionMedia,
    ShardId, Time, TrackId,
};
use sealcast_rtp::RtpHeader;
use sealcast_rtp::payload::rtx::OSN_LEN;

/// What the engine remembers between flushes for other shards.
#[derive(Debug, Default)]
pub(super) struct Mirroring {
    /// Mirrored tracks whose home is to be told what is wanted of them.
    wishing: Vec<u32>,
    /// Tracks that are not mirrored here any more, whose home is to be told.
    parted: Vec<(ShardId, TrackId)>,
    /// Packets that satellites asked for.
    repairs: Vec<Repair>,
    /// The timer that says again what is wanted is set.
    refreshing: bool,
    /// Mirrored tracks.
    pub(super) tracks: usize,
}

/// A packet that a satellite asked for.
#[derive(Clone, Copy, Debug)]
struct Repair {
    to: ShardId,
    stream: u32,
    number: u16,
}

/// What the home says of a packet.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    sequence: u64,
    repaired: bool,
    received: Time,
}

impl Engine {
    #[expect(clippy::too_many_arguments, reason = "those of `add`, and the home")]
    pub(super) fn add_mirrored(
        &mut self,
        now: Time,
        key: u32,
        session: SessionId,
        participant: ParticipantId,
        room: RoomId,
        media: &SessionMedia,
        home: ShardId,
    ) -> Result<(), CommandError> {
        self.add(now, key, session, participant, room, &mirrored(media))?;
        if let Some(peer) = self.peer_mut(key) {
            peer.mirror = Some(home);
            peer.round_trip = Some(MIRROR_ROUND_TRIP);
        }
        Ok(())
    }

    pub(super) fn update_mirrored(
        &mut self,
        now: Time,
        key: u32,
        media: &SessionMedia,
    ) -> Result<(), CommandError> {
        self.update(now, key, &mirrored(media))
    }

    /// The shard that a track is at home on, if it is another one.
    fn home_of(&self, track: &Track) -> Option<ShardId> {
        self.peer(track.peer).and_then(|peer| peer.mirror)
    }

    /// Who wants something of a track has changed.
    pub(super) fn note_interest(&mut self, index: u32) {
        let track = self.tracks.get(index);
        if track.is_some_and(|track| self.home_of(track).is_some()) {
            self.mirroring.wishing.push(index);
        }
    }

    /// A mirrored track comes to be.
    pub(super) fn note_mirrored(&mut self, now: Time, index: u32) {
        self.mirroring.tracks += 1;
        self.mirroring.wishing.push(index);
        if !std::mem::replace(&mut self.mirroring.refreshing, true) {
            self.timers.set(now + MIRROR_REFRESH, Timer::Mirrors);
        }
    }

    /// A mirrored track is gone.
    pub(super) fn note_parted(&mut self, home: ShardId, track: TrackId) {
        self.mirroring.tracks -= 1;
        self.part(home, track);
    }

    fn part(&mut self, home: ShardId, track: TrackId) {
        let parted = &mut self.mirroring.parted;
        // What does not fit is noticed when its next packet comes.
        if parted.len() < MIRRORS_PARTED && !parted.contains(&(home, track)) {
            parted.push((home, track));
        }
    }

    /// Says again what is wanted: a message may have been lost, or come before its track.
    pub(super) fn refresh_mirrors(&mut self, now: Time) {
        let mirrored = self.tracks.indexed().filter(|(_, track)| {
            let publisher = self.peers.get(track.peer as usize);
            let publisher = publisher.and_then(Option::as_deref);
            publisher.is_some_and(|peer| peer.mirror.is_some())
        });
        self.mirroring
            .wishing
            .extend(mirrored.map(|(index, _)| index));
        self.mirroring.refreshing = self.mirroring.tracks > 0;
        if self.mirroring.refreshing {
            self.timers.set(now + MIRROR_REFRESH, Timer::Mirrors);
        }
    }

    /// Tells homes what is wanted of their tracks. What is refused is said with the next flush.
    pub(super) fn send_wishes<E: Egress>(&mut self, egress: &mut E) {
        let mut parted = std::mem::take(&mut self.mirroring.parted);
        parted.retain(|(home, track)| {
            let want = Mirror::Want {
                track: *track,
                index: 0,
                encodings: 0,
                needed: 0,
            };
            !egress.mirror(*home, &want, &[])
        });
        self.mirroring.parted = parted;
        let mut wishing = std::mem::take(&mut self.mirroring.wishing);
        wishing.retain(|index| {
            let Some(track) = self.tracks.get(*index) else {
                return false;
            };
            let Some(home) = self.home_of(track) else {
                return false;
            };
            let want = Mirror::Want {
                track: track.id,
                index: *index,
                encodings: self.wanted_encodings(track),
                needed: self.needed_encodings(track),
            };
            !egress.mirror(home, &want, &[])
        });
        self.mirroring.wishing = wishing;
    }

    /// What is wanted of a mirrored track. Audio always is: who speaks is judged on every shard.
    fn wanted_encodings(&self, track: &Track) -> u8 {
        if track.source.kind() == MediaKind::Audio {
            return 1;
        }
        if track.subscriptions.is_empty() {
            return 0;
        }
        let wanted = track.encodings.iter().enumerate().filter(|(_, stream)| {
            let stream = self.streams.get(**stream);
            stream.is_some_and(|stream| !stream.unwanted)
        });
        wanted.fold(0, |bits, (place, _)| bits | 1 << place)
    }

    /// What somebody gets of a mirrored track now.
    fn needed_encodings(&self, track: &Track) -> u8 {
        if track.subscriptions.is_empty() {
            return 0;
        }
        let ranks = self.wanted_ranks(track);
        let streams = track.encodings.iter().enumerate();
        let needed = streams.filter(|(_, stream)| {
            let stream = self.streams.get(**stream);
            stream.is_some_and(|stream| ranks >> track.rank(&self.streams, stream) & 1 == 1)
        });
        needed.fold(0, |bits, (place, _)| bits | 1 << place)
    }

    /// Passes a row on to the shards that want its stream. What a full ring refuses is missing
    /// there, and asked for again.
    pub(super) fn mirror_row<E: Egress>(
        &mut self,
        pool: &PacketPool,
        egress: &mut E,
        index: u32,
        row: Row,
    ) {
        let Some(stream) = self.streams.get(index) else {
            return;
        };
        let (epoch, encoding) = (stream.life(index).epoch, stream.encoding);
        let Some(track) = stream.track.and_then(|track| self.tracks.get_mut(track)) else {
            return;
        };
        for satellite in &mut track.satellites {
            let Some(place) = satellite.place(track.id, encoding, epoch) else {
                continue;
            };
            if let Some(report) = stream.sender_report
                && satellite.is_news(encoding, report.point.ntp)
                && egress.mirror(satellite.shard, &clock(place, report), &[])
            {
                satellite.told(encoding, report.point.ntp);
            }
            for entry in self.inbox.iter(row, epoch) {
                let sequence = entry.sequence;
                let _repaired_if_refused = match &entry.packet {
                    None => egress.mirror(satellite.shard, &Mirror::Skip { place, sequence }, &[]),
                    Some((buf, packet)) => {
                        let message = Mirror::Packet {
                            place,
                            sequence,
                            repaired: packet.framing != 0,
                            received: packet.received,
                        };
                        let bytes = pool.bytes(buf).get(..usize::from(packet.len));
                        egress.mirror(satellite.shard, &message, bytes.unwrap_or_default())
                    }
                };
            }
        }
    }

    /// Sends satellites once more what did not reach them.
    pub(super) fn repair_mirrors<E: Egress>(&mut self, pool: &PacketPool, egress: &mut E) {
        let mut repairs = std::mem::take(&mut self.mirroring.repairs);
        for repair in repairs.drain(..) {
            let counter = match self.repair_mirror(pool, egress, repair) {
                Some(true) => Counter::MeshRepaired,
                // Not here yet, or not any more, or the ring is still full.
                Some(false) | None => Counter::MeshUnrepaired,
            };
            self.stats.add(counter, 1);
        }
        self.mirroring.repairs = repairs;
    }

    fn repair_mirror<E: Egress>(
        &mut self,
        pool: &PacketPool,
        egress: &mut E,
        repair: Repair,
    ) -> Option<bool> {
        let stream = self.streams.get(repair.stream)?;
        let epoch = stream.life(repair.stream).epoch;
        let (of, history) = stream.history.as_ref()?;
        let sequence = stream.extended(repair.number);
        let held = history.get(sequence).filter(|_| *of == epoch)?;
        let track = self.tracks.get_mut(stream.track?).filter(|t| !t.muted)?;
        let id = track.id;
        let satellite = track.satellite(repair.to)?;
        let message = Mirror::Packet {
            place: satellite.current(id, stream.encoding, epoch)?,
            sequence,
            repaired: held.framing != 0,
            received: held.forwarded,
        };
        let bytes = pool.bytes(&held.buf).get(..usize::from(held.len))?;
        Some(egress.mirror(repair.to, &message, bytes))
    }

    /// Asks a mirrored track's home for packets that did not come.
    pub(super) fn send_missing<E: Egress>(
        home: ShardId,
        track: TrackId,
        encoding: u8,
        missing: &[u16],
        egress: &mut E,
    ) {
        for chunk in missing.chunks(MISSING_MAX) {
            let mut numbers = [0; MISSING_MAX];
            for (place, number) in numbers.iter_mut().zip(chunk) {
                *place = *number;
            }
            let message = Mirror::Missing {
                track,
                encoding,
                numbers,
                count: chunk.len() as u8,
            };
            // What is refused is asked for again in its turn.
            let _asked_again_if_refused = egress.mirror(home, &message, &[]);
        }
    }

    pub(super) fn on_mirror(
        &mut self,
        now: Time,
        pool: &mut PacketPool,
        from: ShardId,
        message: &Mirror,
        bytes: &[u8],
    ) {
        match *message {
            Mirror::Packet {
                place,
                sequence,
                repaired,
                received,
            } => {
                let Some((track, stream)) = self.mirror_at(from, place) else {
                    return self.refuse_mirrored(from, place.track);
                };
                // Without a buffer it counts as missing, and is asked for again.
                let Some(buf) = pool.alloc() else {
                    return self.stats.add(Counter::DropPoolEmpty, 1);
                };
                let judged = match pool.bytes_mut(&buf).get_mut(..bytes.len()) {
                    Some(copy) => {
                        copy.copy_from_slice(bytes);
                        let arrival = Arrival {
                            sequence,
                            repaired,
                            received,
                        };
                        self.judge_mirrored(now, track, stream, arrival, bytes)
                    }
                    None => Err(Refusal::Drop(Counter::DropOversize)),
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
            Mirror::Skip { place, sequence } => {
                let Some((track, stream)) = self.mirror_at(from, place) else {
                    return self.refuse_mirrored(from, place.track);
                };
                let fresh = self.streams.get_mut(stream);
                if fresh.is_some_and(|stream| stream.mirrored(sequence)) && self.passes(track) {
                    self.note_arrival(now, stream, sequence, 0, false);
                    let skipped = Refusal::Skip {
                        counter: None,
                        stream,
                        sequence,
                    };
                    self.queue(pool, Err(skipped));
                }
            }
            Mirror::Clock {
                place,
                ntp,
                timestamp,
                arrived,
            } => {
                if let Some((track, stream)) = self.mirror_at(from, place) {
                    let point = ClockPoint { ntp, timestamp };
                    self.on_mirrored_clock(track, stream, SenderReportSeen { point, arrived });
                }
            }
            Mirror::Want {
                track,
                index,
                encodings,
                needed,
            } => self.on_want(from, track, index, encodings, needed),
            Mirror::Keyframe { track, encoding } => {
                if let Some(stream) = self.stream_of(track, encoding) {
                    want_keyframe(&mut self.streams, &mut self.asking, stream);
                }
            }
            Mirror::Missing {
                track,
                encoding,
                numbers,
                count,
            } => {
                let Some(stream) = self.stream_of(track, encoding) else {
                    return;
                };
                for number in numbers.into_iter().take(usize::from(count)) {
                    if self.mirroring.repairs.len() < MIRROR_REPAIRS {
                        self.mirroring.repairs.push(Repair {
                            to: from,
                            stream,
                            number,
                        });
                    }
                }
            }
        }
    }

    /// The stream of an encoding of a track that is at home here.
    fn stream_of(&self, track: TrackId, encoding: u8) -> Option<u32> {
        let track = self.tracks.get(*self.track_ids.get(&track)?)?;
        let stream = *track.encodings.get(usize::from(encoding))?;
        self.home_of(track).is_none().then_some(stream)
    }

    /// A satellite says what it wants of a track.
    fn on_want(&mut self, from: ShardId, track: TrackId, index: u32, encodings: u8, needed: u8) {
        let Some(found) = self.track_ids.get(&track).copied() else {
            return;
        };
        let Some(track) = self.tracks.get_mut(found) else {
            return;
        };
        let publisher = self.peers.get(track.peer as usize);
        if publisher
            .and_then(Option::as_deref)
            .is_none_or(|peer| peer.mirror.is_some())
        {
            return;
        }
        if encodings == 0 {
            track.satellites.retain(|satellite| satellite.shard != from);
        } else {
            if track.satellite(from).is_none() {
                track.satellites.push(Satellite::new(from, index));
            }
            if let Some(satellite) = track.satellite(from) {
                satellite.update(index, encodings, needed);
            }
        }
    }

    /// A packet came for a mirror that is not here: its home is told what is.
    fn refuse_mirrored(&mut self, from: ShardId, track: TrackId) {
        match self.track_ids.get(&track).copied() {
            Some(index) => self.note_interest(index),
            None => self.part(from, track),
        }
    }

    /// Finds the track and the stream that a message is about, and starts the stream's next life if
    /// the message is of one. `None` if there is no such mirror.
    fn mirror_at(&mut self, from: ShardId, place: MirrorPlace) -> Option<(u32, u32)> {
        let track = self
            .tracks
            .get(place.index)
            .filter(|t| t.id == place.track)?;
        if self.home_of(track) != Some(from) {
            return None;
        }
        let index = *track.encodings.get(usize::from(place.encoding))?;
        let stream = self.streams.get_mut(index)?;
        if stream.mirror_life != place.life {
            stream.restart(stream.ssrc);
            stream.mirror_life = place.life;
        }
        Some((place.index, index))
    }

    /// Whether a mirrored track's packets go on; notes its first one.
    fn passes(&mut self, index: u32) -> bool {
        let Some(track) = self.tracks.get_mut(index) else {
            return false;
        };
        if !std::mem::replace(&mut track.started, true) && track.encodings.len() > 1 {
            self.review_soon(Time::ZERO);
        }
        self.tracks.get(index).is_some_and(|track| !track.muted)
    }

    /// Does the bookkeeping that every packet of a mirrored stream needs.
    fn place_mirrored(
        &mut self,
        track: u32,
        index: u32,
        arrival: Arrival,
        header: &RtpHeader,
    ) -> Result<Placed, Refusal> {
        let Arrival {
            sequence,
            repaired,
            received,
        } = arrival;
        if !self.passes(track) {
            return Err(Refusal::Drop(Counter::DropMuted));
        }
        let unknown = Refusal::Drop(Counter::DropUnknownSsrc);
        let stream = self.streams.get_mut(index).ok_or(unknown)?;
        let publisher = self.peers.get(stream.peer as usize);
        let publisher = publisher.and_then(Option::as_deref).ok_or(unknown)?;
        let media = publisher
            .sending
            .get(usize::from(stream.media))
            .ok_or(unknown)?;
        let codec_index = match repaired {
            true => media.codec_of_rtx(header.payload_type),
            false => media.codec(header.payload_type),
        };
        // Renegotiated, and this shard was told later than the home.
        let codec_index = codec_index.ok_or(Refusal::Drop(Counter::DropUnknownPayload))?;
        let codec = media.codecs[codec_index].codec;
        if !stream.mirrored(sequence) {
            return Err(Refusal::Drop(Counter::DropDuplicate));
        }
        stream.clock_rate = codec.clock_rate();
        if !repaired {
            stream.ssrc = Some(header.ssrc);
            stream.on_arrival(sequence, header.timestamp, received, &self.clock);
        }
        Ok(Placed {
            stream: index,
            track,
            sequence,
            framing: if repaired { OSN_LEN } else { 0 },
            codec_index: codec_index as u8,
            codec,
        })
    }

    /// As [`Engine::judge`], where the home has found stream and number already.
    fn judge_mirrored(
        &mut self,
        now: Time,
        track: u32,
        stream: u32,
        arrival: Arrival,
        bytes: &[u8],
    ) -> Result<(Placed, Incoming), Refusal> {
        let header = RtpHeader::parse(bytes);
        let header = header.map_err(|_| Refusal::Drop(Counter::DropRtpMalformed))?;
        let placed = self.place_mirrored(track, stream, arrival, &header)?;
        let key = self.tracks.get(track).map_or(u32::MAX, |track| track.peer);
        self.examine(now, key, &header, bytes, arrival.received, placed)
    }

    fn on_mirrored_clock(&mut self, track: u32, stream: u32, report: SenderReportSeen) {
        let key = self.tracks.get(track).map_or(u32::MAX, |track| track.peer);
        let arrived = self.clock.at(report.arrived);
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.sender_report = Some(report);
        }
        if let Some(peer) = self.peer_mut(key) {
            peer.clock.on_report(report.point.ntp, arrived);
        }
    }

    /// Asks a mirrored stream's home for a key frame.
    pub(super) fn send_mirrored_keyframe<E: Egress>(
        &self,
        home: ShardId,
        stream: u32,
        egress: &mut E,
    ) {
        let Some(stream) = self.streams.get(stream) else {
            return;
        };
        if let Some(track) = stream.track.and_then(|track| self.tracks.get(track)) {
            let message = Mirror::Keyframe {
                track: track.id,
                encoding: stream.encoding,
            };
            // What is refused is asked for again in its turn.
            let _asked_again_if_refused = egress.mirror(home, &message, &[]);
        }
    }
}

fn clock(place: MirrorPlace, report: SenderReportSeen) -> Mirror {
    Mirror::Clock {
        place,
        ntp: report.point.ntp,
        timestamp: report.point.timestamp,
        arrived: report.arrived,
    }
}

/// A publisher's media as its mirrors have it: it receives nothing, is given no feedback, and its
/// home sends again what was lost, whatever the client negotiated.
fn mirrored(media: &SessionMedia) -> SessionMedia {
    let mut media = media.clone();
    media.slots.clear();
    for receive in &mut media.receive {
        receive.ssrcs.clear();
        let video = receive.kind == MediaKind::Video;
        for codec in &mut receive.codecs {
            codec.nack = video;
            (codec.transport_cc, codec.ccfb, codec.remb) = (false, false, false);
        }
    }
    media
}
