//! AV1: the whole frame sealed inside one OBU, behind copies of its sequence headers.
//!
//! A packetizer splits an AV1 frame at its OBUs, drops temporal delimiters and size fields and
//! writes sizes anew at the other end (AV1 RTP payload format §5). So the sealed frame has to be a
//! sequence of OBUs, and none of its bytes outside an OBU's payload may matter.
//!
//! ```text
//! copies of leading sequence header OBUs ‖ OBU_FRAME with size ‖ SFrame(the whole frame)
//! ```
//!
//! The copies are for packetizers, jitter buffers and the relay. The receiver's decoder gets what
//! was sealed, and nothing else.

use crate::{Header, OpenError};
use std::ops::Range;

/// OBU types (AV1 bitstream specification §6.2.2).
const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_FRAME: u8 = 6;

/// `obu_extension_flag` and `obu_has_size_field` in the first byte of an OBU.
const EXTENSION_FLAG: u8 = 0b100;
const HAS_SIZE: u8 = 0b10;

/// Longest size field: leb128() reads at most eight bytes (§4.10.5).
const MAX_LEB128: usize = 8;

/// Sequence headers that are copied: at most this many bytes. One takes about 12.
const MAX_COPIED: usize = 256;

/// One OBU within a frame.
struct Obu {
    kind: u8,
    /// Header and size field included.
    whole: Range<usize>,
    payload: Range<usize>,
}

/// Appends the copies of the frame's leading sequence headers. `None` if `frame` does not start
/// with an OBU.
pub(super) fn write_clear_part(frame: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut at = 0;
    let mut copied = 0;
    while at < frame.len() {
        let obu = parse_obu(frame, at)?;
        match obu.kind {
            OBU_TEMPORAL_DELIMITER => {}
            OBU_SEQUENCE_HEADER if copied + obu.payload.len() <= MAX_COPIED => {
                copied += obu.payload.len();
                let header = frame[obu.whole.start];
                out.push(header | HAS_SIZE);
                if header & EXTENSION_FLAG != 0 {
                    out.push(frame[obu.whole.start + 1]);
                }
                write_leb128(obu.payload.len(), out);
                out.extend_from_slice(&frame[obu.payload]);
            }
            _ => break,
        }
        at = obu.whole.end;
    }
    Some(())
}

/// Appends header and size of the OBU that holds `len` sealed bytes.
pub(super) fn write_container(len: usize, out: &mut Vec<u8>) {
    out.push(OBU_FRAME << 3 | HAS_SIZE);
    write_leb128(len, out);
}

/// Where the SFrame ciphertext lies in a sealed frame, or in the part of it that is there.
pub(super) fn find_sealed(sealed: &[u8], may_be_cut: bool) -> Result<Range<usize>, OpenError> {
    let mut at = 0;
    loop {
        let (kind, payload) = parse_header(sealed, at)?;
        let end = match payload.1 {
            Some(len) => payload.0.checked_add(len).ok_or(OpenError::Short)?,
            None => sealed.len(),
        };
        if payload.0 > sealed.len() {
            return Err(OpenError::Short);
        }
        match kind {
            OBU_SEQUENCE_HEADER | OBU_TEMPORAL_DELIMITER if end <= sealed.len() => at = end,
            OBU_FRAME if end == sealed.len() => return Ok(payload.0..end),
            OBU_FRAME if end > sealed.len() && may_be_cut => return Ok(payload.0..sealed.len()),
            OBU_FRAME if end < sealed.len() => {
                return Err(OpenError::Malformed("bytes after the sealed OBU"));
            }
            OBU_SEQUENCE_HEADER | OBU_TEMPORAL_DELIMITER | OBU_FRAME => {
                return Err(OpenError::Short);
            }
            _ => return Err(OpenError::Malformed("OBU that is not sealed")),
        }
    }
}

/// Reads the SFrame header of a sealed frame from one OBU element of an RTP packet (its first bytes
/// suffice). `None` for an OBU that is not sealed and need not be: a sequence header or temporal
/// delimiter.
///
/// # Errors
/// [`OpenError::Short`] or [`OpenError::Malformed`] if the OBU ought to be sealed and is not.
pub fn peek_obu(element: &[u8]) -> Result<Option<Header>, OpenError> {
    let (kind, (start, _)) = parse_header(element, 0)?;
    match kind {
        OBU_SEQUENCE_HEADER | OBU_TEMPORAL_DELIMITER => Ok(None),
        OBU_FRAME => {
            let sframe = element.get(start..).ok_or(OpenError::Short)?;
            Ok(Some(Header::parse(sframe)?.0))
        }
        _ => Err(OpenError::Malformed("OBU that is not sealed")),
    }
}

fn parse_obu(frame: &[u8], at: usize) -> Option<Obu> {
    let (kind, (start, len)) = parse_header(frame, at).ok()?;
    let end = match len {
        Some(len) => start.checked_add(len)?,
        // Without a size, an OBU is the last one.
        None => frame.len(),
    };
    (start <= end && end <= frame.len()).then_some(Obu {
        kind,
        whole: at..end,
        payload: start..end,
    })
}

/// Type of the OBU at `at`, where its payload starts, and its length if it says so.
fn parse_header(bytes: &[u8], at: usize) -> Result<(u8, (usize, Option<usize>)), OpenError> {
    let &header = bytes.get(at).ok_or(OpenError::Short)?;
    if header & 0x80 != 0 {
        return Err(OpenError::Malformed("forbidden bit of an OBU"));
    }
    let mut start = at + 1 + usize::from(header & EXTENSION_FLAG != 0);
    let kind = header >> 3 & 0xf;
    if header & HAS_SIZE == 0 {
        return Ok((kind, (start, None)));
    }
    let mut len = 0u64;
    for index in 0..MAX_LEB128 {
        let &byte = bytes.get(start).ok_or(OpenError::Short)?;
        start += 1;
        len |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let len = usize::try_from(len).map_err(|_| OpenError::Short)?;
            return Ok((kind, (start, Some(len))));
        }
    }
    Err(OpenError::Malformed("size of an OBU"))
}

fn write_leb128(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Codec, open, peek, seal, tests::pair};

    /// Temporal delimiter, sequence header, frame: as an encoder emits a key frame.
    fn key_frame() -> Vec<u8> {
        let mut frame = vec![0x12, 0x00, 0x0a, 0x0b];
        frame.extend([0xaa; 11]);
        frame.extend([0x32, 0xc8, 0x01]);
        frame.extend([0xbb; 200]);
        frame
    }

    /// What packetizer and depacketizer do to a frame: no delimiters, sizes written anew, here in
    /// five bytes each.
    fn through_rtp(frame: &[u8]) -> Vec<u8> {
        let (mut at, mut out) = (0, Vec::new());
        while at < frame.len() {
            let obu = parse_obu(frame, at).unwrap();
            if obu.kind != OBU_TEMPORAL_DELIMITER {
                out.push(frame[at]);
                let len = obu.payload.len();
                out.extend((0..4).map(|byte| (len >> (7 * byte)) as u8 & 0x7f | 0x80));
                out.push(0);
                out.extend_from_slice(&frame[obu.payload]);
            }
            at = obu.whole.end;
        }
        out
    }

    #[test]
    fn the_sequence_header_stays_readable_and_the_rest_does_not() {
        let (mut sealer, mut keys) = pair();
        let mut sealed = Vec::new();
        seal(Codec::Av1, &mut sealer, &key_frame(), &mut sealed).unwrap();
        assert_eq!(sealed[..13], key_frame()[2..15]);
        assert!(!sealed.windows(4).any(|bytes| bytes == [0xbb; 4]));
        let mut received = through_rtp(&sealed);
        let opened = open(Codec::Av1, &mut keys, &mut received).unwrap().unwrap();
        assert_eq!(received[opened.frame], key_frame());
    }

    #[test]
    fn a_changed_clear_part_does_not_reach_the_decoder() {
        let (mut sealer, mut keys) = pair();
        let mut sealed = Vec::new();
        seal(Codec::Av1, &mut sealer, &key_frame(), &mut sealed).unwrap();
        sealed[5] ^= 0xff;
        let opened = open(Codec::Av1, &mut keys, &mut sealed).unwrap().unwrap();
        assert_eq!(sealed[opened.frame], key_frame());
    }

    #[test]
    fn the_header_is_found_in_frames_and_in_obu_elements() {
        let (mut sealer, _) = pair();
        let mut sealed = Vec::new();
        seal(Codec::Av1, &mut sealer, &key_frame(), &mut sealed).unwrap();
        let header = peek(Codec::Av1, &sealed[..40]).unwrap();
        assert_eq!((header.kid, header.counter), (sealer.kid(), 0));
        let sframe = find_sealed(&sealed, false).unwrap();
        let element = [
            &[OBU_FRAME << 3][..],
            &sealed[sframe.start..sframe.start + 17],
        ]
        .concat();
        assert_eq!(peek_obu(&element), Ok(Some(header)));
        assert_eq!(peek_obu(&[OBU_SEQUENCE_HEADER << 3, 1, 2]), Ok(None));
        assert!(peek_obu(&[4 << 3, 1, 2]).is_err());
        assert_eq!(peek_obu(&[]), Err(OpenError::Short));
    }
}
