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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTEXTS: [u64; 2] = [7, 0x1234_5678];

    fn sealed(kid: u64, counter: u64) -> Vec<u8> {
        let nibble = |v: u64, out: &mut Vec<u8>| -> u8 {
            if v <= 7 {
                return v as u8;
            }
            let bytes = v.to_be_bytes();
            let skip = v.leading_zeros() as usize / 8;
            out.extend(&bytes[skip..]);
            (8 - skip - 1) as u8 | 8
        };
        let mut fields = Vec::new();
        let kid = nibble(kid, &mut fields);
        let counter = nibble(counter, &mut fields);
        [vec![kid << 4 | counter], fields, vec![0xaa; 30]].concat()
    }

    fn kid(context: u64, low: u64) -> u64 {
        context << 24 | low
    }

    /// Judges a packet that starts with a frame, or one from the middle of a frame.
    fn judge(check: &mut SealCheck, codec: Codec, timestamp: u32, frame: Option<&[u8]>) -> Verdict {
        match frame {
            Some(frame) => check.check(&CONTEXTS, codec, timestamp, frame, Some(0)),
            None => check.check(&CONTEXTS, codec, timestamp, &[0x55; 9], None),
        }
    }

    #[test]
    fn headers_of_rfc_9605_figure_3() {
        assert_eq!(
            SframeHeader::parse(&[0x00]),
            Some(SframeHeader { kid: 0, counter: 0 })
        );
        assert_eq!(
            SframeHeader::parse(&[0x9f, 0x01, 0x23, 0xff]),
            None,
            "counter cut short"
        );
        assert_eq!(
            SframeHeader::parse(&[0x99, 0x01, 0x23, 0x45, 0x67]),
            Some(SframeHeader {
                kid: 0x0123,
                counter: 0x4567
            })
        );
        assert_eq!(
            SframeHeader::parse(&[0x80, 0x07]),
            None,
            "longer than needed"
        );
        assert_eq!(
            SframeHeader::parse(&[0x90, 0x00, 0x10]),
            None,
            "longer than needed"
        );
    }

    #[test]
    fn each_codec_is_read_behind_its_prefix() {
        let header = sealed(kid(7, 1), 9);
        let cases = [
            (Codec::Opus, vec![]),
            (Codec::Vp9, vec![]),
            (Codec::Vp8, vec![0xf1, 0, 0]),
            (Codec::Vp8, vec![0xf0, 0, 0, 0x9d, 1, 0x2a, 0, 5, 0xd0, 2]),
        ];
        for (codec, prefix) in cases {
            let frame = [prefix, header.clone()].concat();
            assert_eq!(
                SealCheck::default().check(&CONTEXTS, codec, 0, &frame, Some(0)),
                Verdict::Pass
            );
        }
    }

    #[test]
    fn every_block_of_red_is_sealed() {
        let block = |counter| sealed(kid(7, 1), counter);
        let red = |redundant: &[&[u8]], primary: &[u8]| {
            let headers = redundant
                .iter()
                .flat_map(|data| [0x80 | 111, 0x0f, 0x00, data.len() as u8]);
            let headers: Vec<u8> = headers.chain([111]).collect();
            [&headers, &redundant.concat()[..], primary].concat()
        };
        let mut check = SealCheck::default();
        let mut verdict = |payload: &[u8]| check.check(&CONTEXTS, Codec::Red, 0, payload, Some(0));
        assert_eq!(verdict(&red(&[], &block(1))), Verdict::Pass);
        assert_eq!(verdict(&red(&[&block(1)], &block(2))), Verdict::Pass);
        assert_eq!(
            verdict(&red(&[&block(1), &block(2)], &block(3))),
            Verdict::Pass
        );
        assert_eq!(verdict(&red(&[&[], &block(3)], &block(4))), Verdict::Pass);
        let clear = [0x7b; 40];
        for payload in [
            red(&[], &clear),
            red(&[&block(4)], &clear),
            red(&[&clear], &block(5)),
            // Sealed as a whole, which no relay can take apart.
            block(6),
        ] {
            assert_eq!(verdict(&payload), Verdict::Drop);
            assert_eq!(verdict(&red(&[], &block(7))), Verdict::Pass);
        }
    }

    #[test]
    fn av1_frames_are_sealed_in_one_obu_behind_clear_sequence_headers() {
        let verdict =
            |payload: &[u8]| SealCheck::default().check(&CONTEXTS, Codec::Av1, 0, payload, None);
        let header = sealed(kid(7, 1), 9);
        // W = 2: a sequence header with its length, then the rest: a frame OBU, without and with size.
        let copy = [&[0x20, 3, 0x08, 1, 2][..]].concat();
        assert_eq!(
            verdict(&[&copy[..], &[0x30], &header].concat()),
            Verdict::Pass
        );
        assert_eq!(
            verdict(&[&copy[..], &[0x32, 0x80, 0x08], &header].concat()),
            Verdict::Pass
        );
        assert_eq!(
            verdict(&[&[0x10, 0x34, 0][..], &header].concat()),
            Verdict::Pass,
            "with OBU extension"
        );
        assert_eq!(
            verdict(&[&copy[..], &[0x30], &[0x55; 20]].concat()),
            Verdict::Drop,
            "cleartext"
        );
        assert_eq!(
            verdict(&[&copy[..], &[0x18], &header].concat()),
            Verdict::Drop,
            "a frame header OBU"
        );
        assert_eq!(
            verdict(&[0x10, 0x08, 1, 2]),
            Verdict::Pass,
            "a sequence header alone"
        );
        assert_eq!(
            verdict(&[&[0x10, 0x08][..], &[1; 300]].concat()),
            Verdict::Drop,
            "that is not one"
        );
        assert_eq!(
            verdict(&[&[0x90][..], &header].concat()),
            Verdict::Drop,
            "goes on with what never started"
        );
    }

    #[test]
    fn h264_frames_are_sealed_in_one_slice_behind_clear_parameter_sets() {
        let verdict =
            |payload: &[u8]| SealCheck::default().check(&CONTEXTS, Codec::H264, 0, payload, None);
        // A key id with zeros in it, to be escaped: 07 00 00 01 becomes 07 00 00 03 01.
        let plain = sealed(kid(7, 1), 9);
        assert_eq!(plain[1..5], [7, 0, 0, 1]);
        let header = [&plain[..4], &[3], &plain[4..]].concat();
        let slice = [&[0x65, 1, 2, 3, 4, 5, 6][..], &header].concat();
        assert_eq!(verdict(&slice), Verdict::Pass);
        assert_eq!(
            verdict(&[&[0x65, 1, 2, 3, 4, 5, 6][..], &plain].concat()),
            Verdict::Pass,
            "unescaped reads too"
        );
        assert_eq!(verdict(&[0x67, 1, 2, 3]), Verdict::Pass, "a parameter set");
        assert_eq!(verdict(&[0x65; 40]), Verdict::Drop, "cleartext");
        assert_eq!(
            verdict(&[&[0x06][..], &slice[1..]].concat()),
            Verdict::Drop,
            "another unit"
        );
        let stap = [&[0x78, 0, 2, 0x67, 1, 0, slice.len() as u8][..], &slice].concat();
        assert_eq!(verdict(&stap), Verdict::Pass);
        let fragment = |start: u8| [&[0x7c, start | 5][..], &slice[1..]].concat();
        assert_eq!(verdict(&fragment(0x80)), Verdict::Pass);
        assert_eq!(
            verdict(&fragment(0)),
            Verdict::Drop,
            "goes on with what never started"
        );
        assert_eq!(
            verdict(&[0x65, 1, 2]),
            Verdict::Drop,
            "too short to be sealed"
        );
    }

    #[test]
    fn an_unsealed_frame_never_passes_and_a_row_blocks() {
        let mut check = SealCheck::default();
        for n in 1..SEAL_VIOLATIONS {
            assert_eq!(
                judge(&mut check, Codec::Vp9, 0, None),
                Verdict::Drop,
                "nothing checked yet"
            );
            assert_eq!(
                judge(&mut check, Codec::Vp9, u32::from(n), Some(b"cleartext")),
                Verdict::Drop
            );
        }
        assert_eq!(
            judge(&mut check, Codec::Vp9, 99, Some(b"cleartext")),
            Verdict::Block
        );
    }

    #[test]
    fn one_good_frame_ends_the_row() {
        let mut check = SealCheck::default();
        for round in 0..20 {
            let bad = judge(&mut check, Codec::Opus, 2 * round, Some(&[]));
            assert_eq!(bad, Verdict::Drop);
            let good = sealed(kid(0x1234_5678, 0xabcdef), u64::from(round));
            assert_eq!(
                judge(&mut check, Codec::Opus, 2 * round + 1, Some(&good)),
                Verdict::Pass
            );
        }
    }

    #[test]
    fn the_rest_of_a_frame_follows_its_start() {
        let mut check = SealCheck::default();
        let good = sealed(kid(7, 0), 1);
        assert_eq!(judge(&mut check, Codec::Vp9, 1, Some(&good)), Verdict::Pass);
        assert_eq!(judge(&mut check, Codec::Vp9, 1, None), Verdict::Pass);
        assert_eq!(
            judge(&mut check, Codec::Vp9, 2, None),
            Verdict::Pass,
            "overtook its start"
        );
        assert_eq!(
            judge(&mut check, Codec::Vp9, 2, Some(b"clear")),
            Verdict::Drop
        );
        assert_eq!(judge(&mut check, Codec::Vp9, 2, None), Verdict::Drop);
        assert_eq!(judge(&mut check, Codec::Vp9, 3, Some(&good)), Verdict::Pass);
        assert_eq!(
            judge(&mut check, Codec::Vp9, 2, None),
            Verdict::Drop,
            "late, and known bad"
        );
    }

    #[test]
    fn starts_cannot_be_left_out_for_ever() {
        let mut check = SealCheck::default();
        judge(&mut check, Codec::Vp9, 0, Some(&sealed(kid(7, 0), 1)));
        let verdicts: Vec<_> = (0..SEAL_UNCHECKED + u16::from(SEAL_VIOLATIONS))
            .map(|n| judge(&mut check, Codec::Vp9, u32::from(n) + 1, None))
            .collect();
        let (before, after) = verdicts.split_at(usize::from(SEAL_UNCHECKED));
        assert!(before.iter().all(|v| *v == Verdict::Pass));
        assert!(after.iter().all(|v| *v != Verdict::Pass));
        assert_eq!(after.last(), Some(&Verdict::Block));
    }

    #[test]
    fn counters_grow_per_key_and_keys_may_change() {
        let mut check = SealCheck::default();
        let mut pass = |kid, counter| {
            judge(&mut check, Codec::Opus, 0, Some(&sealed(kid, counter))) == Verdict::Pass
        };
        assert!(pass(kid(7, 1), 10_000));
        assert!(pass(kid(7, 1), 10_001 - SEAL_COUNTER_WINDOW), "reordered");
        assert!(
            !pass(kid(7, 1), 10_000 - SEAL_COUNTER_WINDOW),
            "started again"
        );
        assert!(pass(kid(7, 2), 0), "a new epoch starts at zero");
        assert!(
            pass(kid(7, 1), 10_001),
            "the previous one is still under way"
        );
        assert!(!pass(kid(8, 0), 0), "a context that was not announced");
        assert!(pass(kid(7, 3), u64::MAX));
        assert!(
            !pass(kid(7, 3), 5),
            "the greatest counter does not overflow"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(
            packets in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..24), prop::option::of(0usize..30), 0usize..6), 0..40),
        ) {
            let codecs = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
            let mut check = SealCheck::default();
            for (timestamp, payload, start, codec) in packets {
                let verdict = check.check(&[0x00ff_ffff_ffff], codecs[codec], timestamp, &payload, start);
                // No random frame carries this context. AV1 and H264 have parts in the clear.
                prop_assert!(verdict != Verdict::Pass || codec >= 4);
            }
        }

        #[test]
        fn what_was_written_is_read(kid: u64, counter: u64, shift_kid in 0..64u32, shift_counter in 0..64u32) {
            let want = SframeHeader { kid: kid >> shift_kid, counter: counter >> shift_counter };
            prop_assert_eq!(SframeHeader::parse(&sealed(want.kid, want.counter)), Some(want));
        }
    }
}
