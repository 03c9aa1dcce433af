//! The structural check: is what a publisher sends sealed, as far as one can tell without a key?
//!
//! Each frame must start, after its codec's clear prefix, with an SFrame header (RFC 9605 §4.3)
//! whose key id belongs to an announced context and whose counter grows. Cleartext passes this by
//! chance once in about 2^40 frames with one context announced, and a row of frames never does.

use crate::limits::{SEAL_COUNTER_WINDOW, SEAL_KEYS, SEAL_UNCHECKED, SEAL_VIOLATIONS};
use sealcast_model::Codec;

/// Bits of a key id below its context: 16 of leaf and 8 of epoch.
const CONTEXT_SHIFT: u32 = 24;

/// Bytes of a VP8 key frame that stay clear: frame tag, start code, dimensions (RFC 6386 §9.1).
const VP8_KEY_PREFIX: usize = 10;
/// Bytes of any other VP8 frame that stay clear: the frame tag.
const VP8_DELTA_PREFIX: usize = 3;

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

/// The sealed part of a frame that starts with `frame`, or `None` if the codec has no sealed form
/// that a relay can check.
fn sealed_part(codec: Codec, frame: &[u8]) -> Option<&[u8]> {
    let prefix = match codec {
        Codec::Opus | Codec::Red | Codec::Vp9 => 0,
        // RFC 6386 §9.1: the lowest bit of the first byte is 0 for key frames.
        Codec::Vp8 if frame.first()? & 1 == 0 => VP8_KEY_PREFIX,
        Codec::Vp8 => VP8_DELTA_PREFIX,
        Codec::Av1 | Codec::H264 => return None,
    };
    frame.get(prefix..)
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
    /// Judges a packet. `frame` is the start of a frame if the packet holds one.
    pub(crate) fn check(
        &mut self,
        contexts: &[u64],
        codec: Codec,
        timestamp: u32,
        frame: Option<&[u8]>,
    ) -> Verdict {
        let Some(frame) = frame else {
            return self.continuation(timestamp);
        };
        let header = sealed_part(codec, frame).and_then(SframeHeader::parse);
        match header {
            Some(header) if self.accepts(contexts, header) => {
                (self.sealed, self.checked) = (true, Some(timestamp));
                (self.violations, self.unchecked) = (0, 0);
                Verdict::Pass
            }
            _ => {
                (self.sealed, self.rejected) = (false, Some(timestamp));
                self.violation()
            }
        }
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
                SealCheck::default().check(&CONTEXTS, codec, 0, Some(&frame)),
                Verdict::Pass
            );
        }
        for codec in [Codec::Av1, Codec::H264] {
            assert_eq!(
                SealCheck::default().check(&CONTEXTS, codec, 0, Some(&header)),
                Verdict::Drop
            );
        }
    }

    #[test]
    fn an_unsealed_frame_never_passes_and_a_row_blocks() {
        let mut check = SealCheck::default();
        for n in 1..SEAL_VIOLATIONS {
            assert_eq!(
                check.check(&CONTEXTS, Codec::Vp9, 0, None),
                Verdict::Drop,
                "nothing checked yet"
            );
            assert_eq!(
                check.check(&CONTEXTS, Codec::Vp9, u32::from(n), Some(b"cleartext")),
                Verdict::Drop
            );
        }
        assert_eq!(
            check.check(&CONTEXTS, Codec::Vp9, 99, Some(b"cleartext")),
            Verdict::Block
        );
    }

    #[test]
    fn one_good_frame_ends_the_row() {
        let mut check = SealCheck::default();
        for round in 0..20 {
            let bad = check.check(&CONTEXTS, Codec::Opus, 2 * round, Some(&[]));
            assert_eq!(bad, Verdict::Drop);
            let good = sealed(kid(0x1234_5678, 0xabcdef), u64::from(round));
            assert_eq!(
                check.check(&CONTEXTS, Codec::Opus, 2 * round + 1, Some(&good)),
                Verdict::Pass
            );
        }
    }

    #[test]
    fn the_rest_of_a_frame_follows_its_start() {
        let mut check = SealCheck::default();
        let good = sealed(kid(7, 0), 1);
        assert_eq!(
            check.check(&CONTEXTS, Codec::Vp9, 1, Some(&good)),
            Verdict::Pass
        );
        assert_eq!(check.check(&CONTEXTS, Codec::Vp9, 1, None), Verdict::Pass);
        assert_eq!(
            check.check(&CONTEXTS, Codec::Vp9, 2, None),
            Verdict::Pass,
            "overtook its start"
        );
        assert_eq!(
            check.check(&CONTEXTS, Codec::Vp9, 2, Some(b"clear")),
            Verdict::Drop
        );
        assert_eq!(check.check(&CONTEXTS, Codec::Vp9, 2, None), Verdict::Drop);
        assert_eq!(
            check.check(&CONTEXTS, Codec::Vp9, 3, Some(&good)),
            Verdict::Pass
        );
        assert_eq!(
            check.check(&CONTEXTS, Codec::Vp9, 2, None),
            Verdict::Drop,
            "late, and known bad"
        );
    }

    #[test]
    fn starts_cannot_be_left_out_for_ever() {
        let mut check = SealCheck::default();
        check.check(&CONTEXTS, Codec::Vp9, 0, Some(&sealed(kid(7, 0), 1)));
        let verdicts: Vec<_> = (0..SEAL_UNCHECKED + u16::from(SEAL_VIOLATIONS))
            .map(|n| check.check(&CONTEXTS, Codec::Vp9, u32::from(n) + 1, None))
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
            check.check(&CONTEXTS, Codec::Opus, 0, Some(&sealed(kid, counter))) == Verdict::Pass
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
            packets in prop::collection::vec((any::<u32>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..24)), 0usize..6), 0..40),
        ) {
            let codecs = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
            let mut check = SealCheck::default();
            for (timestamp, frame, codec) in packets {
                let verdict = check.check(&[0x00ff_ffff_ffff], codecs[codec], timestamp, frame.as_deref());
                // No 20-byte random frame carries this context.
                prop_assert_ne!(verdict, Verdict::Pass);
            }
        }

        #[test]
        fn what_was_written_is_read(kid: u64, counter: u64, shift_kid in 0..64u32, shift_counter in 0..64u32) {
            let want = SframeHeader { kid: kid >> shift_kid, counter: counter >> shift_counter };
            prop_assert_eq!(SframeHeader::parse(&sealed(want.kid, want.counter)), Some(want));
        }
    }
}
