//! The first bytes of model frames: what a packetizer, a decoder's parser or a relay may read of
//! them, codec by codec. What follows is content.

use super::Codec;

/// RFC 6386 §9.1: the bytes that follow a VP8 key frame's tag.
const VP8_START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
/// VP9 bitstream specification §7.2: `frame_sync_code`.
const VP9_SYNC_CODE: [u8; 3] = [0x49, 0x83, 0x42];
/// VP9 uncompressed header: frame marker 2, profile 0, shown; key frame or not.
const VP9_FIRST: [u8; 2] = [0x86, 0x82];
/// Sync code, colour space and range, width and height.
const VP9_KEY_LEN: usize = 1 + 3 + 5;
/// AV1 OBU headers with `obu_has_size_field`: sequence header and frame.
const AV1_SEQUENCE: u8 = 1 << 3 | 0b10;
const AV1_FRAME: u8 = 6 << 3 | 0b10;
/// RFC 6184: NAL units with their start codes.
const START_CODE: [u8; 4] = [0, 0, 0, 1];
const H264_SPS: u8 = 0x67;
const H264_PPS: [u8; 3] = [0x68, 0xce, 0x38];
/// IDR and other slice; `first_mb_in_slice` 0, I or P slice, parameter set 0, then filling.
const H264_IDR: [u8; 7] = [0x65, 0x88, 0x84, 0xff, 0xff, 0xff, 0xff];
const H264_SLICE: [u8; 7] = [0x41, 0x9a, 0x84, 0xff, 0xff, 0xff, 0xff];

/// The head of a frame of about `len` bytes with `body` bytes behind the head at least, and the
/// length that the frame then must have.
pub(super) fn write(
    codec: Codec,
    key: bool,
    size: (u16, u16),
    len: usize,
    body: usize,
) -> (Vec<u8>, usize) {
    let head = head(codec, key, size, len, body);
    let len = match codec {
        // The head has said how long the rest is.
        Codec::Av1 => head.len() + len.saturating_sub(av1_before(&head)).max(body),
        _ => len.max(head.len() + body),
    };
    (head, len)
}

/// Bytes of an AV1 frame of some length that are not the frame OBU's payload, as they are reckoned:
/// its size field takes three at most.
fn av1_before(head: &[u8]) -> usize {
    let sequence = match head {
        [AV1_SEQUENCE, rest @ ..] => read_leb128(rest).map_or(0, |(size, taken)| 1 + taken + size),
        _ => 0,
    };
    sequence + 4
}

fn head(codec: Codec, key: bool, (width, height): (u16, u16), len: usize, body: usize) -> Vec<u8> {
    match codec {
        Codec::Opus => super::opus::TOC.to_vec(),
        Codec::Vp8 => vp8(key, width, height, len),
        Codec::Vp9 => vp9(key, width, height),
        Codec::Av1 => {
            let mut head = vec![];
            if key {
                let sequence = av1_sequence(width, height);
                head.push(AV1_SEQUENCE);
                write_leb128(sequence.len(), &mut head);
                head.extend_from_slice(&sequence);
            }
            let payload = len.saturating_sub(av1_before(&head)).max(body);
            head.push(AV1_FRAME);
            write_leb128(payload, &mut head);
            head
        }
        Codec::H264 => {
            let mut head = vec![];
            if key {
                for nal in [&h264_sps(width, height)[..], &H264_PPS] {
                    head.extend_from_slice(&START_CODE);
                    head.extend_from_slice(nal);
                }
            }
            head.extend_from_slice(&START_CODE);
            head.extend_from_slice(if key { &H264_IDR } else { &H264_SLICE });
            head
        }
    }
}

/// Length of the head that `frame` starts with; `None` if it ends before its head does.
pub(super) fn len(codec: Codec, frame: &[u8]) -> Option<usize> {
    let first = *frame.first()?;
    let len = match codec {
        Codec::Opus => super::opus::TOC_LEN,
        Codec::Vp8 => codec.layout().clear_prefix_len(first),
        Codec::Vp9 if first == VP9_FIRST[1] => VP9_KEY_LEN,
        Codec::Vp9 => 1,
        Codec::Av1 => {
            let mut at = 0;
            if first == AV1_SEQUENCE {
                let (size, taken) = read_leb128(frame.get(1..)?)?;
                at = 1 + taken + size;
            }
            let (_, taken) = read_leb128(frame.get(at + 1..)?)?;
            at + 1 + taken
        }
        Codec::H264 => {
            let slice = [&START_CODE[..], &H264_IDR[..1]].concat();
            let other = [&START_CODE[..], &H264_SLICE[..1]].concat();
            // Parameter sets are short, and hold no start code.
            let near = frame.get(..frame.len().min(64))?;
            let at = near.windows(5).position(|w| w == slice || w == other)?;
            at + START_CODE.len() + H264_IDR.len()
        }
    };
    (len <= frame.len()).then_some(len)
}

/// Whether a head is that of a shown frame of this kind.
pub(super) fn check(codec: Codec, head: &[u8], key: bool) -> bool {
    match (codec, head) {
        (Codec::Opus, _) => super::opus::check_toc(head),
        (Codec::Vp8, [tag, _, _]) => !key && tag & 0x11 == 0x11,
        (Codec::Vp8, [tag, _, _, a, b, c, ..]) => {
            key && tag & 0x11 == 0x10 && [*a, *b, *c] == VP8_START_CODE
        }
        (Codec::Vp8, _) => false,
        (Codec::Vp9, [first]) => !key && *first == VP9_FIRST[0],
        (Codec::Vp9, [first, sync @ ..]) => {
            key && *first == VP9_FIRST[1] && sync.starts_with(&VP9_SYNC_CODE)
        }
        (Codec::Vp9, []) => false,
        (Codec::Av1, _) => head.first() == Some(if key { &AV1_SEQUENCE } else { &AV1_FRAME }),
        (Codec::H264, _) => head.ends_with(if key { &H264_IDR } else { &H264_SLICE }),
    }
}

/// The frame tag, and for a key frame start code and size (RFC 6386 §9.1).
fn vp8(key: bool, width: u16, height: u16, len: usize) -> Vec<u8> {
    // "A 19-bit field containing the size of the first data partition": half of the frame.
    let first_partition = (len / 2).min((1 << 19) - 1) as u32;
    let show_frame = 1;
    let tag = u32::from(!key) | show_frame << 4 | first_partition << 5;
    let mut head = tag.to_le_bytes()[..3].to_vec();
    if key {
        head.extend_from_slice(&VP8_START_CODE);
        head.extend_from_slice(&(width & 0x3fff).to_le_bytes());
        head.extend_from_slice(&(height & 0x3fff).to_le_bytes());
    }
    head
}

/// VP9 bitstream specification §6.2: `uncompressed_header`, as far as the frame's size.
fn vp9(key: bool, width: u16, height: u16) -> Vec<u8> {
    let mut head = vec![VP9_FIRST[usize::from(key)]];
    if key {
        head.extend_from_slice(&VP9_SYNC_CODE);
        let mut bits = Bits::default();
        bits.put(2, 3); // color_space: BT.709
        bits.put(0, 1); // color_range
        bits.put(u32::from(width.max(1) - 1), 16);
        bits.put(u32::from(height.max(1) - 1), 16);
        head.extend_from_slice(&bits.bytes);
    }
    head
}

/// AV1 bitstream specification §5.5: `sequence_header_obu` of the Main profile without options.
fn av1_sequence(width: u16, height: u16) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0, 3 + 1 + 1); // seq_profile, still_picture, reduced_still_picture_header
    bits.put(0, 1 + 1 + 5 + 12); // timing, display delay, one operating point of everything
    bits.put(8, 5); // seq_level_idx: 4.0, and seq_tier
    bits.put(0, 1);
    bits.put(15, 4); // frame_width_bits_minus_1, frame_height_bits_minus_1
    bits.put(15, 4);
    bits.put(u32::from(width.max(1) - 1), 16);
    bits.put(u32::from(height.max(1) - 1), 16);
    bits.put(0, 1 + 3 + 4 + 1); // frame ids, superblocks and filters, tools, order hint
    bits.put(0b11, 2); // screen content tools and integer motion vectors chosen by frame
    bits.put(0, 3); // superres, cdef, restoration
    bits.put(0, 1 + 1 + 1 + 1 + 2 + 1 + 1); // 8 bits 4:2:0, no film grain
    bits.put(1, 1); // trailing_one_bit
    bits.bytes
}

/// ITU-T H.264 §7.3.2.1: sequence parameter set, constrained Baseline at level 3.1.
fn h264_sps(width: u16, height: u16) -> Vec<u8> {
    let mut bits = Bits::default();
    for byte in [H264_SPS, 0x42, 0xe0, 0x1f] {
        bits.put(u32::from(byte), 8);
    }
    let macroblocks = |pixels: u16| u32::from(pixels.div_ceil(16).max(1)) - 1;
    // Id, log2_max_frame_num_minus4, pic_order_cnt_type 2, one reference frame, no gaps.
    for value in [0, 0, 2, 1] {
        bits.put_ue(value);
    }
    bits.put(0, 1);
    bits.put_ue(macroblocks(width));
    bits.put_ue(macroblocks(height));
    bits.put(0b11, 2); // frame_mbs_only, direct_8x8_inference
    bits.put(0, 2); // no cropping, no VUI
    bits.put(1, 1); // rbsp_stop_one_bit
    bits.bytes
}

/// Appends `value` as leb128 (AV1 bitstream specification §4.10.5).
pub(super) fn write_leb128(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let (value, taken) = sealcast_rtp::payload::av1::leb128(bytes)?;
    Some((usize::try_from(value).ok()?, taken))
}

/// Bits, most significant first; the last byte is filled up with zeros.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken.
    used: u32,
}

impl Bits {
    /// Appends the low `count` bits of `value`, at most 32.
    fn put(&mut self, value: u32, count: u32) {
        for n in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> n & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// Appends an unsigned Exp-Golomb code (ITU-T H.264 §9.1).
    fn put_ue(&mut self, value: u32) {
        let bits = 32 - (value + 1).leading_zeros();
        self.put(0, bits - 1);
        self.put(value + 1, bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_are_found_and_right(
            codec in prop::sample::select(vec![Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264]),
            key in any::<bool>(), size in (1u16..8_000, 1u16..8_000), filling in 0usize..3_000,
        ) {
            let (head, total) = write(codec, key, size, filling, 29);
            let mut frame = head.clone();
            frame.resize(total, 0xaa);
            prop_assert!(total >= head.len() + 29);
            prop_assert!(codec != Codec::Av1 || head.len() < 100 && total.abs_diff(filling) <= 100);
            prop_assert_eq!(len(codec, &frame), Some(head.len()));
            prop_assert!(check(codec, &head, key) && !check(codec, &head, !key));
            for cut in 0..head.len() {
                // What is cut off is no head, or not all of it.
                prop_assert!(len(codec, &frame[..cut]).is_none_or(|n| n <= cut));
            }
        }

        #[test]
        fn parameter_sets_hold_no_start_code(size in (1u16..8_000, 1u16..8_000)) {
            let sps = h264_sps(size.0, size.1);
            prop_assert!(!sps.windows(3).any(|w| w[0] == 0 && w[1] == 0 && w[2] <= 3), "{sps:?}");
        }
    }

    #[test]
    fn exp_golomb_codes_are_those_of_the_standard() {
        let mut bits = Bits::default();
        for value in [0, 1, 2, 3] {
            bits.put_ue(value);
        }
        // 1, 010, 011, 00100 (table 9-2).
        assert_eq!(bits.bytes, [0b1010_0110, 0b0100_0000]);
    }
}
