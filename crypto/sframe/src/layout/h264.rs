//! H.264: the whole frame sealed inside one slice NAL unit, behind copies of its parameter sets.
//!
//! A packetizer splits an H.264 frame (Annex B) at its start codes, and writes them anew at the
//! other end. Receivers look into parameter sets and the first bits of slice headers; some rewrite
//! parameter sets. So the sealed frame has to be a sequence of NAL units, without a start code in
//! the sealed bytes, and none of its bytes outside may matter.
//!
//! ```text
//! copies of SPS and PPS ‖ start code ‖ NAL header ‖ first 6 bytes of the slice ‖ escaped(SFrame(the whole frame) ‖ 0x80)
//! ```
//!
//! NAL header and slice bytes are copies of the frame's first slice. Escaping is the emulation
//! prevention of ITU-T H.264 §7.4.1: no three bytes 00 00 00 to 00 00 03, and with the byte 0x80
//! behind, no zero at the end. The receiver's decoder gets what was sealed, and nothing else.

use crate::{Header, MAX_HEADER_LEN, OpenError};
use std::ops::Range;

/// NAL unit types (ITU-T H.264 table 7-1).
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Bytes of the slice that stay readable: `first_mb_in_slice`, `slice_type` and
/// `pic_parameter_set_id` are Exp-Golomb codes of a few bits each.
const SLICE_CLEAR: usize = 6;

/// Stands in for slice bytes that are not there.
const FILLER: u8 = 0xff;

/// Ends the sealed bytes, like the stop bit of a slice.
const STOP: u8 = 0x80;

/// Parameter sets that are copied: at most this many bytes. They take about 40.
const MAX_COPIED: usize = 1024;

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Appends the copies, up to where the escaped bytes follow. `None` if the frame has no slice.
pub(super) fn write_clear_part(frame: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut copied = 0;
    for nal in nal_units(frame) {
        let nal = &frame[nal];
        let Some((&header, slice)) = nal.split_first() else {
            continue;
        };
        match header & 0x1f {
            SPS | PPS if copied + nal.len() <= MAX_COPIED => {
                copied += nal.len();
                out.extend_from_slice(&START_CODE);
                out.extend_from_slice(nal);
            }
            SLICE | IDR_SLICE => {
                out.extend_from_slice(&START_CODE);
                out.push(header);
                let clear = &slice[..slice.len().min(SLICE_CLEAR)];
                out.extend_from_slice(clear);
                out.resize(out.len() + SLICE_CLEAR - clear.len(), FILLER);
                return Some(());
            }
            _ => {}
        }
    }
    None
}

/// Appends `sframe`, escaped, to what [`write_clear_part`] wrote.
pub(super) fn write_escaped(sframe: &[u8], out: &mut Vec<u8>) {
    let mut zeros = trailing_zeros(out);
    for &byte in sframe.iter().chain(&[STOP]) {
        if zeros == 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        out.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
}

/// Removes the escapes of a sealed frame in place; where its SFrame ciphertext lies then.
pub(super) fn unescape(sealed: &mut [u8]) -> Result<Range<usize>, OpenError> {
    let (start, end) = find_escaped(sealed)?;
    if end != sealed.len() {
        return Err(OpenError::Malformed("bytes after the sealed slice"));
    }
    let mut zeros = trailing_zeros(&sealed[..start]);
    let mut write = start;
    for read in start..end {
        let byte = sealed[read];
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        sealed[write] = byte;
        write += 1;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    match sealed[start..write].last() {
        Some(&STOP) => Ok(start..write - 1),
        _ => Err(OpenError::Short),
    }
}

/// Reads the SFrame header of a sealed frame from its first bytes.
pub(super) fn peek(start: &[u8]) -> Result<Header, OpenError> {
    let (at, _) = find_escaped(start)?;
    peek_escaped(start, at)
}

/// Reads the SFrame header of a sealed frame from its slice NAL unit (its first bytes suffice): a
/// single NAL unit packet, one of a STAP-A, or the first FU-A with its NAL header restored. `None`
/// for a NAL unit that is not sealed and need not be: a parameter set.
///
/// # Errors
/// [`OpenError::Short`] or [`OpenError::Malformed`] if the NAL unit ought to be sealed and is not.
pub fn peek_nal(nal: &[u8]) -> Result<Option<Header>, OpenError> {
    let &header = nal.first().ok_or(OpenError::Short)?;
    match header & 0x1f {
        SPS | PPS => Ok(None),
        SLICE | IDR_SLICE => peek_escaped(nal, 1 + SLICE_CLEAR).map(Some),
        _ => Err(OpenError::Malformed("NAL unit that is not sealed")),
    }
}

fn peek_escaped(bytes: &[u8], at: usize) -> Result<Header, OpenError> {
    let (clear, escaped) = bytes.split_at_checked(at).ok_or(OpenError::Short)?;
    let mut zeros = trailing_zeros(clear);
    let mut header = [0; MAX_HEADER_LEN];
    let mut len = 0;
    for &byte in escaped {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(slot) = header.get_mut(len) else {
            break;
        };
        *slot = byte;
        len += 1;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    Ok(Header::parse(&header[..len])?.0)
}

/// Where the escaped bytes of a sealed frame start and end.
fn find_escaped(sealed: &[u8]) -> Result<(usize, usize), OpenError> {
    for nal in nal_units(sealed) {
        let Some(&header) = sealed.get(nal.start) else {
            return Err(OpenError::Short);
        };
        match header & 0x1f {
            SPS | PPS => {}
            SLICE | IDR_SLICE => {
                let start = nal.start + 1 + SLICE_CLEAR;
                return if start <= nal.end {
                    Ok((start, nal.end))
                } else {
                    Err(OpenError::Short)
                };
            }
            _ => return Err(OpenError::Malformed("NAL unit that is not sealed")),
        }
    }
    Err(OpenError::Short)
}

/// Zeros at the end of `bytes`, up to two: more make no difference.
fn trailing_zeros(bytes: &[u8]) -> usize {
    let zeros = bytes.iter().rev().take_while(|&&byte| byte == 0);
    zeros.take(2).count()
}

/// NAL units of a byte stream, without their start codes and the zeros before those (Annex B).
fn nal_units(stream: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = next_start_code(stream, 0).map(|code| code + 3);
    std::iter::from_fn(move || {
        let start = at?;
        let next = next_start_code(stream, start);
        at = next.map(|code| code + 3);
        let mut end = next.unwrap_or(stream.len());
        // A start code of four bytes is one of three behind a zero.
        while next.is_some() && end > start && stream[end - 1] == 0 {
            end -= 1;
        }
        Some(start..end)
    })
}

/// Where the next 00 00 01 is, from `from` on.
fn next_start_code(stream: &[u8], from: usize) -> Option<usize> {
    let tail = stream.get(from..)?;
    let found = tail.windows(3).position(|bytes| bytes == [0, 0, 1])?;
    Some(from + found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Codec, open, peek as peek_frame, seal, tests::pair};
    use proptest::prelude::*;

    /// SPS, PPS, SEI and two slices, as an encoder emits a key frame.
    fn key_frame() -> Vec<u8> {
        let mut frame = vec![
            0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0, 0, 1, 0x68, 0xce, 0x3c,
        ];
        frame.extend([0, 0, 1, 6, 5, 1, 0x80]);
        for _ in 0..2 {
            frame.extend([0, 0, 0, 1, 0x65, 0x88, 0x84, 0x00, 0x33]);
            frame.extend([0xbb; 100]);
        }
        frame
    }

    /// What packetizer and depacketizer do to a frame: start codes of four bytes each.
    fn through_rtp(frame: &[u8]) -> Vec<u8> {
        nal_units(frame)
            .flat_map(|nal| [&START_CODE[..], &frame[nal]].concat())
            .collect()
    }

    #[test]
    fn parameter_sets_and_slice_header_stay_readable_and_the_rest_does_not() {
        let (mut sealer, mut keys) = pair();
        let mut sealed = Vec::new();
        seal(Codec::H264, &mut sealer, &key_frame(), &mut sealed).unwrap();
        let nals: Vec<_> = nal_units(&sealed).map(|nal| sealed[nal].to_vec()).collect();
        assert_eq!(nals[0], [0x67, 0x42, 0xe0, 0x1f]);
        assert_eq!(nals[1], [0x68, 0xce, 0x3c]);
        assert_eq!(nals[2][..7], [0x65, 0x88, 0x84, 0x00, 0x33, 0xbb, 0xbb]);
        assert_eq!(nals.len(), 3);
        assert!(!sealed.windows(4).any(|bytes| bytes == [0xbb; 4]));
        let mut received = through_rtp(&sealed);
        let opened = open(Codec::H264, &mut keys, &mut received)
            .unwrap()
            .unwrap();
        assert_eq!(received[opened.frame], key_frame());
    }

    #[test]
    fn a_changed_clear_part_does_not_reach_the_decoder() {
        let (mut sealer, mut keys) = pair();
        let mut sealed = Vec::new();
        seal(Codec::H264, &mut sealer, &key_frame(), &mut sealed).unwrap();
        sealed[6] ^= 0x10;
        let opened = open(Codec::H264, &mut keys, &mut sealed).unwrap().unwrap();
        assert_eq!(sealed[opened.frame], key_frame());
    }

    #[test]
    fn the_header_is_found_in_frames_and_in_nal_units() {
        let (mut sealer, _) = pair();
        let mut sealed = Vec::new();
        seal(Codec::H264, &mut sealer, &key_frame(), &mut sealed).unwrap();
        let header = peek_frame(Codec::H264, &sealed[..60]).unwrap();
        assert_eq!((header.kid, header.counter), (sealer.kid(), 0));
        let peeked: Vec<_> = nal_units(&sealed)
            .map(|nal| peek_nal(&sealed[nal]))
            .collect();
        assert_eq!(peeked, [Ok(None), Ok(None), Ok(Some(header))]);
        assert!(peek_nal(&[6, 1, 2]).is_err());
        assert_eq!(peek_nal(&[0x65, 1, 2]), Err(OpenError::Short));
    }

    proptest! {
        /// Bytes that are mostly what escaping is about.
        #[test]
        fn escaping_leaves_no_start_code_and_can_be_undone(
            slice in prop::collection::vec(0..4u8, 0..10),
            sframe in prop::collection::vec(0..5u8, 0..300),
        ) {
            let frame = [&[0, 0, 1, 0x61][..], &slice].concat();
            let mut out = Vec::new();
            // Raw bytes may hold start codes themselves; those are no frame.
            prop_assume!(nal_units(&frame).count() == 1);
            prop_assume!(!slice.windows(3).any(|bytes| bytes[..2] == [0, 0] && bytes[2] < 3));
            write_clear_part(&frame, &mut out).unwrap();
            write_escaped(&sframe, &mut out);
            prop_assert_eq!(nal_units(&out).count(), 1);
            let sealed = &out[4 + 1 + SLICE_CLEAR - 2..];
            prop_assert!(!sealed.windows(3).any(|bytes| bytes[..2] == [0, 0] && bytes[2] < 3));
            prop_assert_ne!(out.last(), Some(&0));
            let range = unescape(&mut out).unwrap();
            prop_assert_eq!(&out[range], &sframe[..]);
        }
    }
}
