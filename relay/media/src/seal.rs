//! The structural check: is what a publisher sends sealed, as far as one can tell without a key?
//!
//! Each frame must start, after its codec's clear prefix, with an SFrame header (RFC 9605 §4.3)
//! whose key id belongs to an announced context and whose counter grows. Cleartext passes this by
//! chance once in about 2^40 frames with one context announced, and a row of frames never does.

use crate::limits::{SEAL_COUNTER_WINDOW, SEAL_KEYS, SEAL_UNCHECKED, SEAL_VIOLATIONS};
use sealcast_model::Codec;
use sealcast_rtp::payload::av1::{self, AggregationHeader, obu};
use sealcast_rtp::payload::h264::{H264Payload, nal};
use sealcast_rtp::payload::red::RedPayload;

/// Bits of a key id below its context: 16 of leaf and 8 of epoch.
const CONTEXT_SHIFT: u32 = 24;

/// Bytes of a VP8 key frame that stay clear: frame tag, start code, dimensions (RFC 6386 §9.1).
const VP8_KEY_PREFIX: usize = 10;
/// Bytes of any other VP8 frame that stay clear: the frame tag.
const VP8_DELTA_PREFIX: usize = 3;

/// NAL unit type of a slice that is not IDR (ITU-T H.264 table 7-1).
const H264_SLICE: u8 = 1;
/// Bytes of a slice that stay clear, for the Exp-Golomb codes at its start.
const H264_SLICE_CLEAR: usize = 6;
/// Longest clear parameter set. They take about 40 bytes together.
const H264_CLEAR_MAX: usize = 1_024;
/// Longest clear OBU. Sequence headers take about 12 bytes; more would be content.
const AV1_CLEAR_MAX: usize = 256;
/// Longest SFrame header: a byte and two fields of eight.
const SFRAME_HEADER_MAX: usize = 17;

/// The fields of an SFrame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SframeHeader {
    kid: u64,
    counter: u64,
}

impl SframeHeader {
    /// Reads a header from the front of `bytes`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (config, rest) = bytes.split_first()?;
        let (kid, rest) = field(config >> 4, rest)?;
        let (counter, _) = field(config & 0x0f, rest)?;
        Some(SframeHeader { kid, counter })
    }
}

/// RFC 9605 §4.3: a clear flag bit means that the three bits are the value, a set one that they
/// are the length of the field less one, and "the value MUST be encoded with the minimum number
/// of bytes required".
fn field(nibble: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    let bits = nibble & 0b111;
    if nibble & 0b1000 == 0 {
        return Some((u64::from(bits), rest));
    }
    let (bytes, rest) = rest.split_at_checked(usize::from(bits) + 1)?;
    let value = bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    let shortest = bytes.len() == 1 && value > 7 || bytes.len() > 1 && bytes[0] != 0;
    shortest.then_some((value, rest))
}

/// What a packet holds, to the check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Contents {
    /// It goes on with what an earlier packet started.
    continues: bool,
    /// Something starts in it that ought to be sealed and is not.
    unsealed: bool,
}

/// Finds the SFrame headers of what starts in a packet. `start` is where a frame's first byte lies
/// in the payload, if the packet holds one.
fn inspect(
    codec: Codec,
    payload: &[u8],
    start: Option<usize>,
    mut found: impl FnMut(SframeHeader),
) -> Contents {
    let mut contents = Contents::default();
    let mut take = |header: Option<SframeHeader>| match header {
        Some(header) => found(header),
        None => contents.unsealed = true,
    };
    match (codec, start) {
        (Codec::Av1, _) => contents.continues = inspect_av1(payload, take),
        (Codec::H264, _) => contents.continues = inspect_h264(payload, take),
        (Codec::Red, _) => inspect_red(payload, take),
        (_, None) => contents.continues = true,
        (_, Some(at)) => {
            let frame = payload.get(at..).unwrap_or_default();
            let prefix = match (codec, frame.first()) {
                // RFC 6386 §9.1: the lowest bit of the first byte is 0 for key frames.
                (Codec::Vp8, Some(first)) if first & 1 == 0 => VP8_KEY_PREFIX,
                (Codec::Vp8, _) => VP8_DELTA_PREFIX,
                _ => 0,
            };
            take(frame.get(prefix..).and_then(SframeHeader::parse));
        }
    }
    contents
}

/// The blocks of a RED payload: each is a frame that was sealed by itself, repeated ones included.
fn inspect_red(payload: &[u8], mut take: impl FnMut(Option<SframeHeader>)) {
    let Ok(red) = RedPayload::parse(payload) else {
        return take(None);
    };
    red.redundant()
        .map(|block| block.data)
        .filter(|data| !data.is_empty())
        .chain([red.primary])
        .for_each(|data| take(SframeHeader::parse(data)));
}

/// The OBUs that start in an AV1 payload. Sequence headers and temporal delimiters are copies in
/// the clear; everything else is an OBU of type frame around a whole sealed frame. Returns whether
/// the first element continues one.
fn inspect_av1(payload: &[u8], mut take: impl FnMut(Option<SframeHeader>)) -> bool {
    let Ok(aggregation) = AggregationHeader::parse(payload) else {
        take(None);
        return false;
    };
    for (n, element) in aggregation.elements(payload).enumerate() {
        if n == 0 && aggregation.continues {
            continue;
        }
        let Ok(element) = element else {
            return aggregation.continues;
        };
        match av1::obu_type(element) {
            Some(obu::SEQUENCE_HEADER | obu::TEMPORAL_DELIMITER)
                if element.len() <= AV1_CLEAR_MAX => {}
            Some(obu::FRAME) => take(obu_payload(element).and_then(SframeHeader::parse)),
            _ => take(None),
        }
    }
    aggregation.continues
}

/// What follows an OBU's header (AV1 bitstream specification §5.3.2): a byte, one more with the
/// extension flag, and a size with the size flag.
fn obu_payload(obu: &[u8]) -> Option<&[u8]> {
    let header = *obu.first()?;
    let rest = obu.get(1 + usize::from(header & 0b100 != 0)..)?;
    if header & 0b10 == 0 {
        return Some(rest);
    }
    let (_, taken) = av1::leb128(rest)?;
    rest.get(taken..)
}

/// The NAL units that start in an H264 payload. Parameter sets are copies in the clear; slices hold
/// a whole sealed frame behind their first bytes. Returns whether it continues a unit.
fn inspect_h264(payload: &[u8], mut take: impl FnMut(Option<SframeHeader>)) -> bool {
    let mut unit = |nal_type: u8, slice: &[u8]| match nal_type {
        nal::SPS | nal::PPS if slice.len() < H264_CLEAR_MAX => {}
        H264_SLICE | nal::IDR => take(
            slice
                .get(H264_SLICE_CLEAR..)
                .and_then(|_| escaped_header(slice)),
        ),
        _ => take(None),
    };
    match H264Payload::parse(payload) {
        Ok(H264Payload::Single { nal_type }) => {
            unit(nal_type, payload.get(1..).unwrap_or_default())
        }
        Ok(H264Payload::Aggregate(units)) => units.for_each(|nal| {
            let (header, slice) = nal.split_first().unwrap_or((&0, &[]));
            unit(header & 0x1f, slice);
        }),
        Ok(H264Payload::Fragment {
            nal_type,
            start: true,
            ..
        }) => unit(nal_type, payload.get(2..).unwrap_or_default()),
        Ok(H264Payload::Fragment { .. }) => return true,
        Err(_) => unit(0, &[]),
    }
    false
}

/// The SFrame header behind a slice's clear bytes, with the emulation prevention bytes of ITU-T
/// H.264 §7.4.1 taken out.
fn escaped_header(slice: &[u8]) -> Option<SframeHeader> {
    let mut plain = [0; SFRAME_HEADER_MAX];
    let (mut len, mut zeros) = (0, 0);
    for (at, byte) in slice.iter().enumerate() {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        if at >= H264_SLICE_CLEAR {
            *plain.get_mut(len)? = *byte;
            len += 1;
            if len == plain.len() {
                break;
            }
        }
    }
    SframeHeader::parse(plain.get(..len)?)
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Forward it.
    Pass,
    /// Drop it: its frame is not sealed, or that cannot be told.
    Drop,
    /// Drop it and block the track: its publisher does not seal.
    Block,
}

/// The check's memory of one incoming stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct SealCheck {
    /// Key ids with their highest counter, newest last.
    heads: [Option<SframeHeader>; SEAL_KEYS],
    /// The newest frame start that was checked was sealed.
    sealed: bool,
    /// Timestamp of the newest frame that was not.
    rejected: Option<u32>,
    /// Timestamp of the newest frame that was.
    checked: Option<u32>,
    violations: u8,
    unchecked: u16,
}

impl SealCheck {
    /// Judges a packet by its payload, in which a frame's first byte lies at `start` if the packet
    /// holds one.
    pub(crate) fn check(
        &mut self,
        contexts: &[u64],
        codec: Codec,
        timestamp: u32,
        payload: &[u8],
        start: Option<usize>,
    ) -> Verdict {
        let (mut sealed, mut foreign) = (false, false);
        let contents = inspect(codec, payload, start, |header| {
            if self.accepts(contexts, header) {
                sealed = true;
            } else {
                foreign = true;
            }
        });
        if contents.unsealed || foreign {
            (self.sealed, self.rejected) = (false, Some(timestamp));
            return self.violation();
        }
        if contents.continues {
            let verdict = self.continuation(timestamp);
            if verdict != Verdict::Pass {
                return verdict;
            }
        }
        if sealed {
            (self.sealed, self.checked) = (true, Some(timestamp));
            (self.violations, self.unchecked) = (0, 0);
        }
        Verdict::Pass
    }

    /// A packet from the middle of a frame follows the start of its frame, where that was seen.
    fn continuation(&mut self, timestamp: u32) -> Verdict {
        if !self.sealed || self.rejected == Some(timestamp) {
            return Verdict::Drop;
        }
        if self.checked == Some(timestamp) {
            return Verdict::Pass;
        }
        // The start is lost or comes later. A publisher that never sends one is not let through.
        self.unchecked = self.unchecked.saturating_add(1);
        if self.unchecked <= SEAL_UNCHECKED {
            Verdict::Pass
        } else {
            self.violation()
        }
    }

    fn violation(&mut self) -> Verdict {
        self.violations = self.violations.saturating_add(1);
        if self.violations >= SEAL_VIOLATIONS {
            Verdict::Block
        } else {
            Verdict::Drop
        }
    }

    fn accepts(&mut self, contexts: &[u64], header: SframeHeader) -> bool {
        if !contexts.contains(&(header.kid >> CONTEXT_SHIFT)) {
            return false;
        }
        let known = self
            .heads
            .iter_mut()
            .flatten()
            .find(|head| head.kid == header.kid);
        if let Some(head) = known {
            if header.counter.saturating_add(SEAL_COUNTER_WINDOW) <= head.counter {
                return false;
            }
            head.counter = head.counter.max(header.counter);
            return true;
        }
        self.heads.rotate_left(1);
        if let Some(last) = self.heads.last_mut() {
            *last = Some(header);
        }
        true
    }
}

#[cfg(test)]
mod tests;
