//! One slot: an incoming stream from RTP to checked frames, with its feedback.

use crate::model::{Codec, ContentError, Depacketizer, DepacketizerStats, Frame, FrameInfo, check};
use sealcast_model::Time;
use sealcast_rtp::payload::rtx;
use sealcast_rtp::rtcp::ReportBlock;
use sealcast_rtp::{NtpTime, RtpHeader, SeqExtender};
use sealcast_sframe::{KeyStore, OpenError, layout};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a missing packet holds frames up where it is asked for again: several round trips.
const REPAIR_WAIT: Duration = Duration::from_millis(400);
/// How long where it is not: it may be out of order.
const REORDER_WAIT: Duration = Duration::from_millis(50);
/// A packet is asked for again after this long; before, it may just be out of order.
const NACK_DELAY: Duration = Duration::from_millis(10);
/// Time between two requests for one packet.
const NACK_INTERVAL: Duration = Duration::from_millis(80);
/// Requests for one packet.
const NACK_TRIES: u8 = 5;
/// Packets that are asked for at one time.
const NACK_MAX: usize = 128;
/// Time between two key-frame requests.
const PLI_INTERVAL: Duration = Duration::from_millis(500);

/// A frame that arrived whole, was opened, and is right in every byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Index of the slot.
    pub slot: usize,
    /// Audio or video.
    pub codec: Codec,
    /// Whose frame, which one, and when it was due to be sent.
    pub info: FrameInfo,
    /// Arrival of its first packet.
    pub first_packet: Time,
    /// When it was whole.
    pub complete: Time,
    /// Its plaintext's length, bytes.
    pub len: usize,
    /// A decoder could show it: no frame it builds on is missing.
    pub decodable: bool,
}

/// Why a frame that arrived whole was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The seal did not open; the error's code.
    Seal(&'static str),
    /// It is sealed with a key that the client does not hold: of an epoch before it joined, or of
    /// one that it has not entered yet.
    UnknownKey,
    /// It opened, and the contents are not what a model encoder writes.
    Content(ContentError),
    /// The same frame, or an older one, of its stream came before.
    Repeated,
}

/// What a slot received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStats {
    /// RTP packets, retransmissions left out.
    pub packets: u64,
    /// Their payload bytes.
    pub octets: u64,
    /// Retransmissions that arrived.
    pub repaired: u64,
    /// Frames opened and right in every byte.
    pub frames: u64,
    /// Frames that a decoder could not have shown.
    pub undecodable: u64,
    /// Frames refused.
    pub rejected: u64,
    /// Retransmissions asked for.
    pub nacks: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// What became of the packets.
    pub depacketizer: DepacketizerStats,
}

/// What comes out of a slot.
pub(super) enum SlotEvent {
    Received(Received),
    Rejected(RejectReason),
}

/// Feedback that is due.
#[derive(Default)]
pub(super) struct Feedback {
    /// Sequence numbers to ask for again.
    pub(super) nack: Vec<u16>,
    pub(super) pli: bool,
}

pub(super) struct Slot {
    /// Of the latest packet.
    codec: Codec,
    /// By payload type.
    codecs: Vec<(u8, Codec)>,
    ssrc: u32,
    /// SSRC of retransmissions, and their payload types with those that they repair.
    rtx: Option<(u32, Vec<(u8, u8)>)>,
    seq: SeqExtender,
    depacketizer: Depacketizer,
    checker: Checker,
    /// Requests sent for missing packets: when last, and how many.
    nacked: BTreeMap<u64, (Time, u8)>,
    last_pli: Option<Time>,
    reception: Reception,
    stats: ReceiveStats,
}

impl Slot {
    pub(super) fn new(
        index: usize,
        codec: Codec,
        ssrc: u32,
        codecs: Vec<(u8, Codec)>,
        rtx: Option<(u32, Vec<(u8, u8)>)>,
    ) -> Slot {
        let max_wait = rtx.as_ref().map_or(REORDER_WAIT, |_| REPAIR_WAIT);
        Slot {
            codec,
            codecs,
            ssrc,
            rtx,
            seq: SeqExtender::new(),
            depacketizer: Depacketizer::new(codec, max_wait),
            checker: Checker {
                slot: index,
                codec,
                newest: BTreeMap::new(),
                chain: None,
                frames: 0,
                undecodable: 0,
                rejected: 0,
            },
            nacked: BTreeMap::new(),
            last_pli: None,
            reception: Reception::default(),
            stats: ReceiveStats::default(),
        }
    }

    pub(super) fn index(&self) -> usize {
        self.checker.slot
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(super) fn takes(&self, ssrc: u32) -> bool {
        self.ssrc == ssrc || self.rtx.as_ref().is_some_and(|(rtx, _)| *rtx == ssrc)
    }

    pub(super) fn stats(&self) -> ReceiveStats {
        ReceiveStats {
            frames: self.checker.frames,
            undecodable: self.checker.undecodable,
            rejected: self.checker.rejected,
            depacketizer: self.depacketizer.stats(),
            ..self.stats
        }
    }

    /// Takes an opened RTP packet of this slot.
    pub(super) fn on_rtp(
        &mut self,
        now: Time,
        header: &RtpHeader,
        payload: &[u8],
        mut keys: Option<&mut KeyStore>,
        on_event: &mut dyn FnMut(SlotEvent),
    ) {
        let (seq, payload) = if header.ssrc == self.ssrc {
            self.stats.packets += 1;
            self.stats.octets += payload.len() as u64;
            self.follow(header.payload_type);
            (header.sequence_number, payload)
        } else {
            // RFC 4588 §4; empty ones are probes.
            match rtx::parse(payload) {
                Ok((seq, original)) if !payload.is_empty() && self.repairs(header.payload_type) => {
                    self.stats.repaired += 1;
                    (seq, original)
                }
                _ => return,
            }
        };
        let index = self.seq.extend(seq);
        if header.ssrc == self.ssrc {
            self.reception
                .on_packet(now, index, header.timestamp, self.codec.clock_rate());
        }
        self.nacked.remove(&index);
        let Slot {
            depacketizer,
            checker,
            ..
        } = self;
        depacketizer.push(
            now,
            index,
            header.timestamp,
            header.marker,
            payload,
            &mut |f| {
                checker.take(now, keys.as_deref_mut(), f, on_event);
            },
        );
    }

    /// A slot shows tracks of whatever codec was negotiated; what is missing of one before is lost.
    fn follow(&mut self, payload_type: u8) {
        let known = self.codecs.iter().find(|(pt, _)| *pt == payload_type);
        if let Some((_, codec)) = known
            && *codec != self.codec
        {
            self.codec = *codec;
            self.checker.codec = *codec;
            self.checker.chain = None;
            self.depacketizer.follow(*codec);
        }
    }

    /// Retransmissions of this payload type are of the codec that the slot shows.
    fn repairs(&self, payload_type: u8) -> bool {
        let repaired = self.rtx.iter().flat_map(|(_, pts)| pts);
        let repaired = repaired.filter(|(rtx, _)| *rtx == payload_type);
        let codec = |apt: u8| self.codecs.iter().find(|(pt, _)| *pt == apt);
        let mut codecs = repaired.filter_map(|(_, apt)| codec(*apt));
        codecs.any(|(_, codec)| *codec == self.codec)
    }

    /// Gives up what is missing for too long.
    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
        mut keys: Option<&mut KeyStore>,
        on_event: &mut dyn FnMut(SlotEvent),
    ) {
        if self.depacketizer.poll_timeout() > now {
            return;
        }
        let Slot {
            depacketizer,
            checker,
            ..
        } = self;
        depacketizer.handle_timeout(now, &mut |f| {
            checker.take(now, keys.as_deref_mut(), f, on_event);
        });
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.depacketizer.poll_timeout()
    }

    /// What to ask the relay for now.
    pub(super) fn feedback(&mut self, now: Time) -> Feedback {
        let mut feedback = Feedback::default();
        if self.codec == Codec::Opus || self.stats.packets == 0 {
            return feedback;
        }
        if self.rtx.is_some() {
            self.collect_nacks(now, &mut feedback.nack);
        }
        let due = self.last_pli.is_none_or(|t| now >= t + PLI_INTERVAL);
        if self.checker.chain.is_none() && due {
            self.last_pli = Some(now);
            self.stats.plis += 1;
            feedback.pli = true;
        }
        feedback
    }

    fn collect_nacks(&mut self, now: Time, nack: &mut Vec<u16>) {
        let missing: Vec<u64> = self.depacketizer.missing().take(NACK_MAX).collect();
        let oldest = missing.first().copied().unwrap_or(u64::MAX);
        self.nacked.retain(|index, _| *index >= oldest);
        for index in missing {
            // First seen now: due after the delay.
            let (due, tries) = self.nacked.entry(index).or_insert((now + NACK_DELAY, 0));
            if now >= *due && *tries < NACK_TRIES {
                *due = now + NACK_INTERVAL;
                *tries += 1;
                self.stats.nacks += 1;
                nack.push(index as u16);
            }
        }
    }

    pub(super) fn on_sender_report(&mut self, now: Time, ntp: NtpTime) {
        self.reception.last_sr = Some((ntp, now));
    }

    /// The slot's block of a receiver report, once something has arrived.
    pub(super) fn report(&mut self, now: Time) -> Option<ReportBlock> {
        self.reception.report(now, self.ssrc)
    }
}

/// Streams that one slot remembers: whom it showed lately.
const MAX_STREAMS: usize = 64;

/// Opens and checks frames as the depacketizer yields them.
struct Checker {
    slot: usize,
    codec: Codec,
    /// The newest frame of each stream that the slot has shown.
    newest: BTreeMap<u64, u64>,
    /// Stream and number that a delta frame must follow.
    chain: Option<(u64, u64)>,
    frames: u64,
    undecodable: u64,
    rejected: u64,
}

impl Checker {
    fn take(
        &mut self,
        now: Time,
        keys: Option<&mut KeyStore>,
        frame: Frame<'_>,
        on_event: &mut dyn FnMut(SlotEvent),
    ) {
        let first_packet = frame.first_packet;
        match self.open(keys, frame.data) {
            Ok(Some((info, len))) => {
                let decodable = self.follows(&info);
                self.frames += 1;
                self.undecodable += u64::from(!decodable);
                on_event(SlotEvent::Received(Received {
                    slot: self.slot,
                    codec: self.codec,
                    info,
                    first_packet,
                    complete: now,
                    len,
                    decodable,
                }));
            }
            Ok(None) => {}
            Err(reason) => {
                self.rejected += 1;
                on_event(SlotEvent::Rejected(reason));
            }
        }
    }

    /// The frame's label and plaintext length; `None` for an empty one.
    fn open(
        &mut self,
        keys: Option<&mut KeyStore>,
        data: &mut [u8],
    ) -> Result<Option<(FrameInfo, usize)>, RejectReason> {
        let range = match keys {
            None => 0..data.len(),
            Some(keys) => match layout::open(self.codec.layout(), keys, data) {
                Ok(None) => return Ok(None),
                Ok(Some(opened)) => opened.frame,
                Err(OpenError::Replayed { .. }) => return Err(RejectReason::Repeated),
                Err(OpenError::UnknownKid(_)) => return Err(RejectReason::UnknownKey),
                Err(e) => return Err(RejectReason::Seal(e.code())),
            },
        };
        let plain = data.get(range).unwrap_or_default();
        let info = check(self.codec, plain).map_err(RejectReason::Content)?;
        if self.newest.len() >= MAX_STREAMS && !self.newest.contains_key(&info.stream) {
            self.newest.pop_first();
        }
        // Audio packets may overtake each other; then the seal's window tells a repetition.
        let newest = self.newest.entry(info.stream).or_insert(info.number);
        if self.codec.is_video() && info.number < *newest {
            return Err(RejectReason::Repeated);
        }
        *newest = info.number.max(*newest);
        Ok(Some((info, plain.len())))
    }

    /// Whether a decoder could show the frame after those before it.
    fn follows(&mut self, info: &FrameInfo) -> bool {
        let follows = self.codec == Codec::Opus
            || info.key
            || self.chain == Some((info.stream, info.number.wrapping_sub(1)));
        self.chain = follows.then_some((info.stream, info.number));
        follows
    }
}

/// Reception statistics as RFC 3550 appendix A.3 and A.8 have them.
#[derive(Default)]
struct Reception {
    first: Option<u64>,
    highest: u64,
    received: u64,
    /// `expected` and `received` at the last report.
    prior: (u64, u64),
    /// Jitter in 1/16 timestamp units.
    jitter: u32,
    transit: Option<u32>,
    last_sr: Option<(NtpTime, Time)>,
}

impl Reception {
    fn on_packet(&mut self, now: Time, index: u64, timestamp: u32, clock_rate: u32) {
        self.first = Some(self.first.map_or(index, |f| f.min(index)));
        self.highest = self.highest.max(index);
        self.received += 1;
        let arrival = u128::from(now.as_nanos()) * u128::from(clock_rate) / 1_000_000_000;
        let transit = (arrival as u32).wrapping_sub(timestamp);
        if let Some(last) = self.transit {
            let d = (transit.wrapping_sub(last) as i32).unsigned_abs();
            // "J = J + (|D(i-1,i)| - J)/16", kept times 16 (appendix A.8).
            let jitter = self.jitter;
            self.jitter = jitter.wrapping_add(d).wrapping_sub((jitter + 8) >> 4);
        }
        self.transit = Some(transit);
    }

    fn report(&mut self, now: Time, ssrc: u32) -> Option<ReportBlock> {
        let expected = self.highest - self.first? + 1;
        let (prior_expected, prior_received) = self.prior;
        let interval = expected - prior_expected.min(expected);
        let lost = interval.saturating_sub(self.received - prior_received);
        self.prior = (expected, self.received);
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost * 256).checked_div(interval).unwrap_or(0).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff)
                as i32,
            // The extender starts in cycle 1.
            highest_sequence: (self.highest - 0x1_0000) as u32,
            jitter: self.jitter >> 4,
            last_sr: self.last_sr.map_or(0, |(ntp, _)| ntp.middle()),
            delay_since_last_sr: self.last_sr.map_or(0, |(_, at)| {
                sealcast_rtp::ntp::short_from_micros(
                    u64::try_from(now.saturating_since(at).as_micros()).unwrap_or(u64::MAX),
                )
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_loss_as_rfc_3550_does() {
        let mut r = Reception::default();
        assert!(r.report(Time::ZERO, 7).is_none());
        for index in (0x1_0000..0x1_0064).filter(|i| i % 4 != 3) {
            r.on_packet(
                Time::from_millis(20 * index),
                index,
                960 * index as u32,
                48_000,
            );
        }
        let block = r.report(Time::ZERO, 7).unwrap();
        // 0..=98, of which 24 are missing (the 25th comes after the last that arrived).
        assert_eq!((block.cumulative_lost, block.highest_sequence), (24, 98));
        assert_eq!(block.fraction_lost, (24 * 256 / 99) as u8);
        assert_eq!(block.jitter, 0);
        r.on_packet(Time::ZERO, 0x1_0064, 0, 48_000);
        assert_eq!(r.report(Time::ZERO, 7).unwrap().fraction_lost, 128);
    }
}
