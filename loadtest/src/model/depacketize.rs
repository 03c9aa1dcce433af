//! Putting frames together from RTP payloads that come late, twice, out of order or not at all.
//!
//! Packets in order are appended to the frame at once; only what lies beyond a gap is kept aside.
//! Nothing here allocates once buffers have grown to the stream's size.
//!
//! Invariants: every kept packet lies beyond `next`; at most [`MAX_KEPT`] are kept; a frame is
//! handed out whole or not at all.

use super::Codec;
use super::unpack::Unpacked;
use sealcast_model::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Packets kept beyond a gap: the gap is given up when there are more. Two large key frames.
const MAX_KEPT: usize = 1_024;

/// A whole frame, as it crossed the network: still sealed.
#[derive(Debug)]
pub struct Frame<'a> {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Arrival of its first packet.
    pub first_packet: Time,
    /// The frame. May be changed in place.
    pub data: &'a mut [u8],
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepacketizerStats {
    /// Frames handed out.
    pub frames: u64,
    /// Frames of which a part was missing.
    pub broken: u64,
    /// Packets given up as lost.
    pub lost: u64,
    /// Packets that came after they had been given up, or twice.
    pub late: u64,
    /// Packets without a payload: padding, or an encoder's place holder.
    pub empty: u64,
    /// Packets whose descriptor does not parse.
    pub malformed: u64,
}

struct Packet {
    arrived: Time,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

/// Reassembles the frames of one stream.
pub struct Depacketizer {
    codec: Codec,
    max_wait: Duration,
    /// Index that is awaited; `None` before the first packet.
    next: Option<u64>,
    kept: BTreeMap<u64, Packet>,
    /// Since when `next` is overdue.
    gap_since: Option<Time>,
    /// Payload buffers to use again.
    spare: Vec<Vec<u8>>,
    assembly: Assembly,
    stats: DepacketizerStats,
}

/// The frame under construction.
#[derive(Default)]
struct Assembly {
    /// Its first packet was there, and every one since.
    whole: bool,
    /// Packets of a frame were seen since the last one ended.
    any: bool,
    timestamp: u32,
    first_packet: Time,
    bytes: Unpacked,
}

impl Depacketizer {
    /// A depacketizer that waits `max_wait` for a missing packet.
    #[must_use]
    pub fn new(codec: Codec, max_wait: Duration) -> Self {
        Depacketizer {
            codec,
            max_wait,
            next: None,
            kept: BTreeMap::new(),
            gap_since: None,
            spare: Vec::new(),
            assembly: Assembly::default(),
            stats: DepacketizerStats::default(),
        }
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn stats(&self) -> DepacketizerStats {
        self.stats
    }

    /// The packets that follow are of another codec; what is kept of the one before is lost.
    pub fn follow(&mut self, codec: Codec) {
        self.codec = codec;
        self.stats.lost += self.missing().count() as u64;
        self.break_frame();
        let newest = self.kept.keys().next_back().copied();
        self.next = newest.map_or(self.next, |newest| Some(newest + 1));
        self.kept.clear();
        self.gap_since = None;
    }

    /// Takes a packet. `index` is its sequence number, extended. Calls `on_frame` for each frame
    /// that is whole now.
    pub fn push(
        &mut self,
        now: Time,
        index: u64,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) {
        if self.codec == Codec::Opus {
            // A packet is a frame. SRTP has dropped duplicates, and order does not matter here.
            self.next = Some(self.next.unwrap_or(0).max(index + 1));
            return self.opus(now, timestamp, payload, on_frame);
        }
        let next = *self.next.get_or_insert(index);
        if index < next || self.kept.contains_key(&index) {
            self.stats.late += 1;
        } else if index == next {
            self.take(now, timestamp, marker, payload, on_frame);
            self.next = Some(index + 1);
            self.take_kept(on_frame);
        } else {
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.clear();
            buffer.extend_from_slice(payload);
            let packet = Packet {
                arrived: now,
                timestamp,
                marker,
                payload: buffer,
            };
            self.kept.insert(index, packet);
            self.gap_since.get_or_insert(now);
            if self.kept.len() > MAX_KEPT {
                self.give_up(on_frame);
            }
        }
    }

    /// Gives up what has been missing for too long.
    pub fn handle_timeout(&mut self, now: Time, on_frame: &mut dyn FnMut(Frame<'_>)) {
        while self.poll_timeout() <= now {
            self.give_up(on_frame);
        }
    }

    /// When [`Depacketizer::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.gap_since
            .map_or(Time::NEVER, |since| since + self.max_wait)
    }

    /// Indices that are missing before the newest packet, oldest first.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        let start = self.next.unwrap_or(0);
        let end = self.kept.keys().next_back().copied().unwrap_or(start);
        (start..end).filter(|i| !self.kept.contains_key(i))
    }

    /// Skips the first gap.
    fn give_up(&mut self, on_frame: &mut dyn FnMut(Frame<'_>)) {
        let (Some(next), Some(first)) = (self.next, self.kept.keys().next().copied()) else {
            self.gap_since = None;
            return;
        };
        self.stats.lost += first - next;
        self.break_frame();
        self.next = Some(first);
        self.take_kept(on_frame);
    }

    /// Takes the kept packets that are in order now.
    fn take_kept(&mut self, on_frame: &mut dyn FnMut(Frame<'_>)) {
        while let Some(next) = self.next
            && let Some(packet) = self.kept.remove(&next)
        {
            let Packet {
                arrived,
                timestamp,
                marker,
                payload,
            } = packet;
            self.take(arrived, timestamp, marker, &payload, on_frame);
            self.spare.push(payload);
            self.next = Some(next + 1);
        }
        // The packet behind a gap shows it.
        self.gap_since = self
            .kept
            .first_key_value()
            .map(|(_, packet)| packet.arrived);
    }

    fn opus(
        &mut self,
        now: Time,
        timestamp: u32,
        payload: &[u8],
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) {
        if payload.is_empty() {
            self.stats.empty += 1;
            return;
        }
        self.assembly.bytes.clear();
        self.assembly.bytes.data.extend_from_slice(payload);
        self.stats.frames += 1;
        on_frame(Frame {
            timestamp,
            first_packet: now,
            data: &mut self.assembly.bytes.data,
        });
    }

    /// Takes the packet that comes next in order.
    fn take(
        &mut self,
        arrived: Time,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) {
        if payload.is_empty() {
            self.stats.empty += 1;
            return;
        }
        let begun = self.assembly.whole && self.assembly.timestamp == timestamp;
        let Ok(starts) = Unpacked::starts(self.codec, payload, begun) else {
            self.stats.malformed += 1;
            self.break_frame();
            return;
        };
        if starts {
            self.break_frame(); // One that never ended.
            self.assembly.whole = true;
            self.assembly.timestamp = timestamp;
            self.assembly.first_packet = arrived;
        } else if self.assembly.timestamp != timestamp {
            self.break_frame();
        }
        self.assembly.any = true;
        if self.assembly.bytes.append(self.codec, payload).is_err() {
            self.stats.malformed += 1;
            self.break_frame();
            return;
        }
        if marker {
            if self.assembly.whole {
                self.stats.frames += 1;
                on_frame(Frame {
                    timestamp,
                    first_packet: self.assembly.first_packet,
                    data: &mut self.assembly.bytes.data,
                });
                self.assembly.any = false;
            }
            self.break_frame();
        }
    }

    /// Drops what there is of a frame.
    fn break_frame(&mut self) {
        self.stats.broken += u64::from(self.assembly.any);
        self.assembly.any = false;
        self.assembly.whole = false;
        self.assembly.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packetizer, VideoModel, VideoParams, content};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Sent {
        index: u64,
        timestamp: u32,
        marker: bool,
        payload: Vec<u8>,
        frame: u64,
    }

    /// Packets of `count` frames, 1 to 30 packets each.
    fn stream(count: u64) -> Vec<Sent> {
        let params = VideoParams {
            bitrate: 3_000_000,
            ..VideoParams::default()
        };
        let mut model = VideoModel::new(params, 9, 9);
        let mut packetizer = Packetizer::new(Codec::Vp8, 1_000, 0, (640, 360));
        let (mut frame, mut scratch, mut sent) = (vec![], vec![], vec![]);
        for n in 0..count {
            let payload = model.encode(Time::from_millis(33 * n), n, &mut frame);
            packetizer.packetize(&frame, payload.key, &mut scratch, |data, marker| {
                let index = 100 + sent.len() as u64;
                let payload_data = data.to_vec();
                let timestamp = payload.timestamp;
                sent.push(Sent {
                    index,
                    timestamp,
                    marker,
                    payload: payload_data,
                    frame: n,
                });
            });
        }
        sent
    }

    proptest! {
        #[test]
        fn frames_come_whole_or_not_at_all(
            fate in prop::collection::vec((0u8..20, 0usize..12), 1..400),
        ) {
            let sent = stream(40);
            let fate = |i: usize| fate[i % fate.len()];
            // Lost where the fate is 0; duplicated where it is 1; delayed by some packets.
            let lost: BTreeSet<u64> =
                sent.iter().enumerate().skip(1).filter(|(i, _)| fate(*i).0 == 0).map(|(_, p)| p.index).collect();
            let mut order: Vec<(usize, usize)> = vec![];
            for (i, p) in sent.iter().enumerate() {
                if !lost.contains(&p.index) {
                    let delay = if i == 0 { 0 } else { fate(i).1 };
                    order.push((i + delay, i));
                    if fate(i).0 == 1 {
                        order.push((i + delay + 5, i));
                    }
                }
            }
            order.sort_unstable();

            let mut depacketizer = Depacketizer::new(Codec::Vp8, Duration::from_millis(100));
            let mut got = vec![];
            let mut on_frame = |f: Frame<'_>| {
                got.push(content::check(Codec::Vp8, f.data).unwrap().number);
            };
            let mut now = Time::ZERO;
            for (_, i) in order {
                now += Duration::from_millis(1);
                depacketizer.handle_timeout(now, &mut on_frame);
                let p = &sent[i];
                depacketizer.push(now, p.index, p.timestamp, p.marker, &p.payload, &mut on_frame);
                prop_assert!(depacketizer.missing().all(|m| m >= 100));
            }
            depacketizer.handle_timeout(now + Duration::from_secs(1), &mut on_frame);

            // Every frame that lost nothing, in order, but those after the last packet that
            // arrived, of which nobody can know.
            let hurt: BTreeSet<u64> =
                sent.iter().filter(|p| lost.contains(&p.index)).map(|p| p.frame).collect();
            let want: Vec<u64> = (0..40).filter(|f| !hurt.contains(f)).collect();
            prop_assert_eq!(&got, &want);
            let stats = depacketizer.stats();
            prop_assert_eq!(stats.frames, want.len() as u64);
            let known = sent.iter().rposition(|p| !lost.contains(&p.index)).unwrap();
            let known_lost = sent[..known].iter().filter(|p| lost.contains(&p.index)).count();
            prop_assert_eq!(stats.lost, known_lost as u64);
        }
    }

    #[test]
    fn what_is_missing_is_listed_and_a_repair_completes_the_frame() {
        let sent = stream(3);
        let mut depacketizer = Depacketizer::new(Codec::Vp8, Duration::from_secs(1));
        let mut frames = 0;
        for (i, p) in sent.iter().enumerate().filter(|(i, _)| *i != 2 && *i != 4) {
            let now = Time::from_millis(i as u64);
            depacketizer.push(now, p.index, p.timestamp, p.marker, &p.payload, &mut |_| {
                frames += 1
            });
        }
        assert_eq!(depacketizer.missing().collect::<Vec<_>>(), [102, 104]);
        for i in [4, 2] {
            let p = &sent[i];
            let now = Time::from_millis(50);
            depacketizer.push(now, p.index, p.timestamp, p.marker, &p.payload, &mut |_| {
                frames += 1
            });
        }
        assert_eq!(frames, 3);
        assert_eq!(depacketizer.poll_timeout(), Time::NEVER);
        assert_eq!(depacketizer.stats().lost, 0);
    }

    #[test]
    fn a_gap_without_end_is_given_up() {
        let p = &stream(1)[0];
        let mut depacketizer = Depacketizer::new(Codec::Vp8, Duration::from_secs(1_000));
        depacketizer.push(Time::ZERO, 1, 0, false, &p.payload, &mut |_| {});
        for index in 0..10_000 {
            depacketizer.push(Time::ZERO, 1_000 + index, 0, false, &p.payload, &mut |_| {});
            assert!(depacketizer.kept.len() <= MAX_KEPT);
        }
        assert_eq!(depacketizer.stats().lost, 998);
    }
}
