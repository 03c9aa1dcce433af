//! A model subscriber: puts frames together, asks for what is missing, and tells how packets
//! arrive. It is written apart from the relay's own generator, so that the two do not share bugs.
//!
//! It asks as libwebrtc's `NackRequester` does: at once for a gap, unless packets have come out of
//! order before, and then, looking every 20 ms, again for what has not come a round trip after the
//! last request, ten times at most. What it cannot do either: ask for packets before the first one
//! that came. Key frames are asked for after a freeze of 200 ms, as libwebrtc's video stream does.

use crate::packet::{EXT_TWCC, Tag, is_repair};
use crate::session::{AUDIO_SLOTS, slot_repair_ssrc, slot_ssrc};
use crate::world::OVERHEAD;
use sealcast_media::bwe::TwccReceiver;
use sealcast_model::{NtpClock, Time};
use sealcast_rtp::rtcp::{Compound, Packet, Pli, ReportBlock, RtcpWriter};
use sealcast_rtp::{NtpTime, RtpHeader, SeqExtender};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How often it looks for requests to repeat.
const NACK_TICK: Duration = Duration::from_millis(20);
/// Requests for one packet.
const TRIES: u8 = 10;
/// Missing packets that are remembered. With more, all are given up for a key frame.
const MISSING_MAX: usize = 1_000;
/// Round trip before its reports tell, and how long they take to.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);
const RTT_AFTER: Duration = Duration::from_millis(1_000);
/// Displacements of packets out of order that are remembered; a gap is asked for when as many
/// packets have passed it as their median.
const DISPLACEMENTS: usize = 128;
/// Without a picture for this long it asks for a key frame.
const FROZEN: Duration = Duration::from_millis(200);
/// Time between two such requests.
const PLI_PAUSE: Duration = Duration::from_millis(200);
/// Time between reports.
const REPORT: Duration = Duration::from_millis(500);

/// A frame that could be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its last packet's tag.
    pub tag: Tag,
    /// When it and all it depends on were there.
    pub at: Time,
}

/// Publisher, encoding and frame.
type FrameId = (u32, u32, u32);

/// One slot's stream.
#[derive(Debug, Default)]
struct Slot {
    extender: SeqExtender,
    highest: Option<u64>,
    missing: BTreeMap<u64, Missing>,
    /// How far packets that came out of order lay behind, newest last.
    displacements: VecDeque<u64>,
    /// The packets that have come of frames that are not whole.
    partial: BTreeMap<FrameId, BTreeSet<u32>>,
    /// Whole, and waiting for what they depend on.
    waiting: BTreeMap<FrameId, Tag>,
    decodable: BTreeSet<FrameId>,
    last_shown: Time,
    last_packet: Time,
    pli_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    /// Asked for once this number has come.
    from: u64,
    asked: Option<Time>,
    tries: u8,
}

/// A receiving client.
#[derive(Debug)]
pub struct Subscriber {
    client: u32,
    /// Round trip to the relay, as its reports will tell.
    pub rtt: Duration,
    joined: Time,
    tick_at: Time,
    clock: NtpClock,
    slots: Vec<Slot>,
    arrivals: Option<TwccReceiver>,
    reports: BTreeMap<u32, (u32, Time)>,
    report_at: Time,
    /// Frames of video that came whole, whatever became of those they depend on.
    pub whole: Vec<Shown>,
    /// Frames of video that could be shown.
    pub shown: Vec<Shown>,
    /// Every media packet of video, retransmissions left out: arrival, and time since capture.
    pub delays: Vec<(Time, Duration)>,
    /// Audio packets that arrived, by slot.
    pub audio: Vec<Tag>,
    /// Bytes of packets that arrived.
    pub bytes: u64,
    /// Bytes on the wire of media that arrived for the first time: no padding, no repetition.
    pub media_bytes: u64,
    /// Retransmissions that arrived.
    pub repaired: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// Asks for a key frame as often as it can, whatever it sees.
    pub nagging: bool,
}

impl Subscriber {
    /// A subscriber with this many video slots.
    #[must_use]
    pub fn new(
        client: u32,
        video_slots: u16,
        controlled: bool,
        clock: NtpClock,
        joined: Time,
    ) -> Self {
        Subscriber {
            client,
            rtt: RTT_UNKNOWN,
            joined,
            tick_at: joined,
            clock,
            slots: (0..AUDIO_SLOTS + video_slots)
                .map(|_| Slot::default())
                .collect(),
            arrivals: controlled.then(TwccReceiver::new),
            reports: BTreeMap::new(),
            report_at: Time::ZERO,
            whole: Vec::new(),
            shown: Vec::new(),
            delays: Vec::new(),
            audio: Vec::new(),
            bytes: 0,
            media_bytes: 0,
            repaired: 0,
            plis: 0,
            nagging: false,
        }
    }

    /// A packet of the relay.
    pub fn on_rtp(&mut self, now: Time, bytes: &[u8]) {
        let Ok(header) = RtpHeader::parse(bytes) else {
            return;
        };
        self.bytes += bytes.len() as u64;
        let number = header.extension(bytes, EXT_TWCC);
        if let (Some(arrivals), Some([a, b])) = (&mut self.arrivals, number) {
            arrivals.on_packet(now, u16::from_be_bytes([*a, *b]));
        }
        let payload = header.payload(bytes);
        if payload.is_empty() {
            return;
        }
        let client = self.client;
        let repair = is_repair(header.payload_type);
        let ssrc = |slot: u16| match repair {
            true => slot_repair_ssrc(client, slot),
            false => slot_ssrc(client, slot),
        };
        let Some(at) = (0..self.slots.len()).find(|at| ssrc(*at as u16) == header.ssrc) else {
            return;
        };
        let (sequence, payload) = match (repair, payload) {
            (true, [a, b, rest @ ..]) => (u16::from_be_bytes([*a, *b]), rest),
            _ => (header.sequence_number, payload),
        };
        let Some(tag) = Tag::read(payload) else {
            return;
        };
        self.repaired += u64::from(repair);
        let wire = (bytes.len() + OVERHEAD) as u64;
        if at < usize::from(AUDIO_SLOTS) {
            self.media_bytes += wire;
            return self.audio.push(tag);
        }
        if !repair {
            self.delays.push((now, now - tag.captured_at()));
        }
        let slot = &mut self.slots[at];
        slot.last_packet = now;
        if slot.is_new(&tag) {
            self.media_bytes += wire;
        }
        slot.note(sequence, repair);
        slot.collect(now, tag, &mut self.whole, &mut self.shown);
    }

    /// RTCP of the relay: sender reports, to be echoed.
    pub fn on_rtcp(&mut self, now: Time, bytes: &[u8]) {
        let Ok(compound) = Compound::parse(bytes) else {
            return;
        };
        for packet in compound.iter().flatten() {
            if let Packet::SenderReport(report) = packet {
                let seen = (report.info.ntp.middle(), now);
                self.reports.insert(report.info.ssrc, seen);
            }
        }
    }

    /// Writes the feedback that is due.
    pub fn poll(&mut self, now: Time, out: &mut Vec<Vec<u8>>) {
        let mut write = |write: &mut dyn FnMut(&mut RtcpWriter<'_>) -> bool| {
            loop {
                let mut bytes = vec![0; 1_200];
                let mut writer = RtcpWriter::new(&mut bytes);
                let more = write(&mut writer);
                let len = writer.finish();
                bytes.truncate(len);
                if len > 0 {
                    out.push(bytes);
                }
                if !more {
                    break;
                }
            }
        };
        if let Some(arrivals) = &mut self.arrivals {
            write(&mut |writer| arrivals.write_feedback(now, 1, 1, writer));
        }
        let tick = now >= self.tick_at;
        if tick {
            self.tick_at = now + NACK_TICK;
        }
        let rtt = match now - self.joined < RTT_AFTER {
            true => RTT_UNKNOWN,
            false => self.rtt,
        };
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let ssrc = slot_ssrc(self.client, at as u16);
            let due = slot.due(now, tick.then_some(rtt));
            for chunk in due.chunks(60) {
                write(&mut |writer| {
                    // 60 numbers fit 1,200 bytes however they lie.
                    let _ = writer.nack(1, ssrc, chunk.iter().copied());
                    false
                });
            }
            if slot.wants_keyframe(now, self.nagging) {
                self.plis += 1;
                let pli = Pli {
                    sender_ssrc: 1,
                    media_ssrc: ssrc,
                };
                write(&mut |writer| {
                    let _ = writer.pli(pli);
                    false
                });
            }
        }
        if now >= self.report_at {
            self.report_at = now + REPORT;
            let clock = self.clock;
            let blocks: Vec<_> = self
                .reports
                .iter()
                .map(|(ssrc, (last_sr, at))| ReportBlock {
                    ssrc: *ssrc,
                    last_sr: *last_sr,
                    delay_since_last_sr: NtpTime(clock.at(now))
                        .middle()
                        .wrapping_sub(NtpTime(clock.at(*at)).middle()),
                    ..ReportBlock::default()
                })
                .collect();
            for blocks in blocks.chunks(31) {
                write(&mut |writer| {
                    let _ = writer.receiver_report(1, blocks);
                    false
                });
            }
        }
    }
}

impl Slot {
    /// Whether a packet has not come before.
    fn is_new(&self, tag: &Tag) -> bool {
        let id = (tag.publisher, tag.encoding, tag.frame);
        let partial = self.partial.get(&id);
        !self.decodable.contains(&id)
            && !self.waiting.contains_key(&id)
            && partial.is_none_or(|got| !got.contains(&tag.packet))
    }

    fn note(&mut self, sequence: u16, repair: bool) {
        let number = self.extender.extend(sequence);
        let highest = *self.highest.get_or_insert(number);
        if self.missing.remove(&number).is_some() && !repair {
            self.displacements.push_back(highest - number);
            if self.displacements.len() > DISPLACEMENTS {
                self.displacements.pop_front();
            }
        }
        let wait = self.wait();
        for missing in highest + 1..number {
            let entry = Missing {
                from: missing + wait,
                asked: None,
                tries: 0,
            };
            self.missing.insert(missing, entry);
        }
        self.highest = Some(highest.max(number));
        if self.missing.len() > MISSING_MAX {
            self.missing.clear();
            self.last_shown = Time::ZERO;
        }
    }

    /// How many packets a gap is given to be reordering.
    fn wait(&self) -> u64 {
        let mut sorted: Vec<_> = self.displacements.iter().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map_or(0, |median| **median)
    }

    /// Numbers that a request is due for: those of new gaps and, at a tick, those that did not come
    /// within the round trip of the last request.
    fn due(&mut self, now: Time, tick: Option<Duration>) -> Vec<u16> {
        let highest = self.highest.unwrap_or(0);
        let mut due = Vec::new();
        self.missing.retain(|number, missing| {
            let again = tick
                .zip(missing.asked)
                .is_some_and(|(rtt, at)| now - at >= rtt);
            let first = missing.asked.is_none() && highest >= missing.from;
            if again && missing.tries >= TRIES {
                return false;
            }
            if again || first {
                missing.tries += 1;
                missing.asked = Some(now);
                due.push(*number as u16);
            }
            true
        });
        due
    }

    fn collect(&mut self, now: Time, tag: Tag, whole: &mut Vec<Shown>, shown: &mut Vec<Shown>) {
        let id = (tag.publisher, tag.encoding, tag.frame);
        if self.decodable.contains(&id) || self.waiting.contains_key(&id) {
            return;
        }
        let got = self.partial.entry(id).or_default();
        got.insert(tag.packet);
        if got.len() < tag.packets as usize {
            return;
        }
        self.partial.remove(&id);
        whole.push(Shown { tag, at: now });
        self.waiting.insert(id, tag);
        while let Some(id) = self.next_decodable() {
            let Some(tag) = self.waiting.remove(&id) else {
                break;
            };
            self.decodable.insert(id);
            self.last_shown = now;
            shown.push(Shown { tag, at: now });
        }
        // What is far behind will not come.
        let floor = tag.frame.saturating_sub(300);
        let stale = |id: &FrameId| (id.0, id.1) == (tag.publisher, tag.encoding) && id.2 < floor;
        self.partial.retain(|id, _| !stale(id));
        self.waiting.retain(|id, _| !stale(id));
        self.decodable.retain(|id| !stale(id));
    }

    fn next_decodable(&self) -> Option<FrameId> {
        let ready = |id: &FrameId, tag: &Tag| {
            let mut references = tag.references();
            references.all(|on| self.decodable.contains(&(id.0, id.1, on)))
        };
        let mut waiting = self.waiting.iter();
        waiting.find(|(id, tag)| ready(id, tag)).map(|(id, _)| *id)
    }

    fn wants_keyframe(&mut self, now: Time, nagging: bool) -> bool {
        let receiving = self.highest.is_some() && now - self.last_packet < FROZEN;
        let frozen = nagging || now - self.last_shown > FROZEN;
        let wants = receiving && frozen && now >= self.pli_at;
        if wants {
            self.pli_at = now + PLI_PAUSE;
        }
        wants
    }
}
