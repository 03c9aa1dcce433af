//! H.264 sequence parameter sets (ITU-T H.264, section 7.3.2.1.1), as far as the picture's size.
//!
//! Every field has the range that the standard gives it, and no more than [`MAX_LEN`] bytes are
//! looked at: a set within those limits takes bounded work.

use crate::ParseError;
use crate::bits::BitReader;
use crate::payload::h264::nal;

/// Bytes of a unit that are looked at. Scaling lists of every size leave room to spare; what may
/// follow the size (VUI parameters) is not needed.
pub const MAX_LEN: usize = 1_024;

/// The longest side in macroblocks: the square root of 8 × 139,264, of level 6.2 (table A-1 and section A.3.1).
const MAX_SIDE: u32 = 1_055;

/// Profiles whose sets tell the chroma format and scaling lists.
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Width and height in pixels, of what is left after cropping, that a sequence parameter set gives
/// its pictures. `unit` is a whole NAL unit with its header, and with emulation prevention.
///
/// # Errors
/// [`ParseError::Truncated`] for a set that ends, or goes on beyond [`MAX_LEN`], before its size;
/// and [`ParseError::Value`] for another unit, or a field outside its range.
pub fn picture_size(unit: &[u8]) -> Result<(u16, u16), ParseError> {
    let (header, escaped) = unit.split_first().ok_or(ParseError::Truncated)?;
    if header & 0x1f != nal::SPS {
        return Err(ParseError::Value("NAL unit type"));
    }
    let mut content = [0; MAX_LEN];
    let len = unescape(escaped, &mut content);
    let mut bits = Fields(BitReader::new(content.get(..len).unwrap_or_default()));
    let profile = bits.0.bits(8)?;
    // Constraints and level.
    bits.0.bits(16)?;
    bits.unsigned(31, "seq_parameter_set_id")?;
    let chroma = match HIGH_PROFILES.contains(&profile) {
        true => bits.chroma()?,
        false => Chroma::YUV_420,
    };
    bits.unsigned(12, "log2_max_frame_num_minus4")?;
    bits.skip_order_count()?;
    bits.unsigned(16, "max_num_ref_frames")?;
    bits.0.flag()?;
    bits.size(chroma)
}

/// Removes emulation prevention (section 7.4.1) as far as there is room; returns the length.
fn unescape(escaped: &[u8], out: &mut [u8]) -> usize {
    let (mut len, mut zeros) = (0, 0);
    for byte in escaped {
        if zeros == 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(place) = out.get_mut(len) else {
            break;
        };
        *place = *byte;
        len += 1;
        zeros = if *byte == 0 { (zeros + 1).min(2) } else { 0 };
    }
    len
}

/// How many luma samples a chroma sample spans: what cropping counts in (table 6-1).
#[derive(Clone, Copy)]
struct Chroma {
    width: u32,
    height: u32,
}

impl Chroma {
    const YUV_420: Chroma = Chroma {
        width: 2,
        height: 2,
    };
}

struct Fields<'a>(BitReader<'a>);

impl Fields<'_> {
    /// `ue(v)` (section 9.1), at most `most`.
    fn unsigned(&mut self, most: u32, name: &'static str) -> Result<u32, ParseError> {
        let mut zeros = 0;
        while !self.0.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(ParseError::Value(name));
            }
        }
        // At most 2^31 - 1 + 2^31 - 1.
        let value = (1u32 << zeros) - 1 + self.0.bits(zeros)?;
        match value <= most {
            true => Ok(value),
            false => Err(ParseError::Value(name)),
        }
    }

    /// `se(v)` (section 9.1.1).
    fn signed(&mut self) -> Result<i64, ParseError> {
        let code = i64::from(self.unsigned(u32::MAX, "se(v)")?);
        Ok(match code % 2 {
            0 => -(code / 2),
            _ => code / 2 + 1,
        })
    }

    fn chroma(&mut self) -> Result<Chroma, ParseError> {
        let format = self.unsigned(3, "chroma_format_idc")?;
        let separate = format == 3 && self.0.flag()?;
        self.unsigned(6, "bit_depth_luma_minus8")?;
        self.unsigned(6, "bit_depth_chroma_minus8")?;
        self.0.flag()?;
        if self.0.flag()? {
            for list in 0..if format == 3 { 12 } else { 8 } {
                if self.0.flag()? {
                    self.skip_scaling_list(if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        let (width, height) = match (format, separate) {
            (1, _) => (2, 2),
            (2, _) => (2, 1),
            // Without chroma, of one plane, or of as many samples as luma.
            _ => (1, 1),
        };
        Ok(Chroma { width, height })
    }

    /// `scaling_list` (section 7.3.2.1.1.1).
    fn skip_scaling_list(&mut self, size: u32) -> Result<(), ParseError> {
        let mut last = 8;
        for _ in 0..size {
            let delta = self.signed()?;
            if !(-128..=127).contains(&delta) {
                return Err(ParseError::Value("delta_scale"));
            }
            let next = (last + delta).rem_euclid(256);
            if next == 0 {
                break;
            }
            last = next;
        }
        Ok(())
    }

    fn skip_order_count(&mut self) -> Result<(), ParseError> {
        match self.unsigned(2, "pic_order_cnt_type")? {
            0 => {
                self.unsigned(12, "log2_max_pic_order_cnt_lsb_minus4")?;
            }
            1 => {
                self.0.flag()?;
                self.signed()?;
                self.signed()?;
                for _ in 0..self.unsigned(255, "num_ref_frames_in_pic_order_cnt_cycle")? {
                    self.signed()?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn size(&mut self, chroma: Chroma) -> Result<(u16, u16), ParseError> {
        let width = 16 * (self.unsigned(MAX_SIDE - 1, "pic_width_in_mbs_minus1")? + 1);
        let units = self.unsigned(MAX_SIDE - 1, "pic_height_in_map_units_minus1")? + 1;
        let frames_only = self.0.flag()?;
        if !frames_only {
            self.0.flag()?;
        }
        // Of fields, two make a frame.
        let fields = if frames_only { 1 } else { 2 };
        let height = 16 * units * fields;
        self.0.flag()?;
        let mut crop = [0; 4];
        if self.0.flag()? {
            for edge in &mut crop {
                *edge = self.unsigned(16 * MAX_SIDE, "frame_crop_offset")?;
            }
        }
        let [left, right, top, bottom] = crop;
        let side = |len: u32, cropped: u32| {
            let left = len.checked_sub(cropped).filter(|left| *left > 0);
            left.and_then(|left| u16::try_from(left).ok())
                .ok_or(ParseError::Value("frame cropping"))
        };
        Ok((
            side(width, chroma.width * (left + right))?,
            side(height, chroma.height * fields * (top + bottom))?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sets in the manner of two encoders, written by hand, with what their pictures are.
    #[test]
    fn sizes_of_usual_sets() {
        // As OpenH264 has them: 640 × 360: 23 rows of macroblocks, eight lines cropped.
        let openh264 = [
            0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84,
            0x6a,
        ];
        assert_eq!(picture_size(&openh264), Ok((640, 360)));
        // As x264 has them: High, 1920 × 1080: 68 rows, and an emulation prevention byte in what follows.
        let x264 = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0xc0, 0x44, 0x00,
            0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc6, 0x58,
        ];
        assert_eq!(picture_size(&x264), Ok((1920, 1080)));
        for len in 0..9 {
            assert_eq!(
                picture_size(&x264[..len]),
                Err(ParseError::Truncated),
                "{len} bytes"
            );
        }
        assert_eq!(
            picture_size(&[0x68, 0x42]),
            Err(ParseError::Value("NAL unit type"))
        );
    }

    /// Bits one by one: a writer that shares nothing with the reader.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn bits(&mut self, value: u32, n: u32) {
            self.0.extend((0..n).rev().map(|bit| value >> bit & 1 == 1));
        }

        fn ue(&mut self, value: u32) {
            let code = value + 1;
            let len = 32 - code.leading_zeros();
            self.bits(0, len - 1);
            self.bits(code, len);
        }

        fn se(&mut self, value: i32) {
            let code = 2 * value.unsigned_abs();
            self.ue(if value > 0 { code - 1 } else { code });
        }

        /// The unit, with a stop bit and emulation prevention.
        fn unit(mut self) -> Vec<u8> {
            self.0.push(true);
            let mut unit = vec![0x67];
            for byte in self.0.chunks(8) {
                let bits = byte.iter().chain(std::iter::repeat(&false)).take(8);
                let byte = bits.fold(0, |byte, bit| byte << 1 | u8::from(*bit));
                if unit.len() > 2 && unit.ends_with(&[0, 0]) && byte <= 3 {
                    unit.push(3);
                }
                unit.push(byte);
            }
            unit
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            profile in prop::sample::select(vec![66u32, 77, 88, 100, 110, 122, 244, 44, 118]),
            format in 0u32..4, separate: bool,
            lists in prop::option::of(prop::collection::vec(prop::option::of(prop::collection::vec(-3i32..4, 64)), 12)),
            order in 0u32..3, offsets in prop::collection::vec(-70_000i32..70_000, 0..20),
            width in 1u32..=1_055, units in 1u32..=527, fields: bool,
            crop in prop::option::of(prop::array::uniform4(0u32..4)),
        ) {
            let mut out = Writer::default();
            out.bits(profile, 8);
            out.bits(0x00_1f, 16);
            out.ue(0);
            let high = HIGH_PROFILES.contains(&profile);
            let format = if high { format } else { 1 };
            if high {
                out.ue(format);
                if format == 3 {
                    out.bits(separate.into(), 1);
                }
                out.ue(0);
                out.ue(6);
                out.bits(0, 1);
                out.bits(lists.is_some().into(), 1);
                let count = if format == 3 { 12 } else { 8 };
                for (n, list) in lists.iter().flatten().take(count).enumerate() {
                    out.bits(list.is_some().into(), 1);
                    let mut scale = 8;
                    for delta in list.iter().flatten().take(if n < 6 { 16 } else { 64 }) {
                        out.se(*delta);
                        scale = (scale + delta).rem_euclid(256);
                        if scale == 0 {
                            break;
                        }
                    }
                }
            }
            out.ue(12);
            out.ue(order);
            match order {
                0 => out.ue(3),
                1 => {
                    out.bits(1, 1);
                    out.se(-5);
                    out.se(70_000);
                    out.ue(offsets.len() as u32);
                    offsets.iter().for_each(|offset| out.se(*offset));
                }
                _ => {}
            }
            out.ue(16);
            out.bits(1, 1);
            out.ue(width - 1);
            out.ue(units - 1);
            out.bits(u32::from(!fields), 1);
            if fields {
                out.bits(1, 1);
            }
            out.bits(1, 1);
            out.bits(crop.is_some().into(), 1);
            crop.iter().flatten().for_each(|edge| out.ue(*edge));
            out.bits(0, 1);

            let [left, right, top, bottom] = crop.unwrap_or_default();
            let rows = if fields { 2 } else { 1 };
            let across = if format == 1 || format == 2 { 2 } else { 1 };
            let down = if format == 1 { 2 } else { 1 };
            let size = (
                (16 * width).checked_sub(across * (left + right)).filter(|side| *side > 0),
                (16 * rows * units).checked_sub(rows * down * (top + bottom)).filter(|side| *side > 0),
            );
            let read = picture_size(&out.unit());
            match size {
                (Some(width), Some(height)) => {
                    prop_assert_eq!(read, Ok((width as u16, height as u16)));
                }
                _ => prop_assert_eq!(read, Err(ParseError::Value("frame cropping"))),
            }
        }

        #[test]
        fn no_bytes_panic(mut unit in prop::collection::vec(any::<u8>(), 1..200)) {
            unit[0] = unit[0] & 0x60 | 7;
            if let Ok((width, height)) = picture_size(&unit) {
                prop_assert!(width > 0 && height > 0);
            }
        }
    }
}
