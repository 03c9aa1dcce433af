//! The parts of RTP payloads that stay outside the end-to-end seal: payload descriptors and framing.

pub mod av1;
pub mod h264;
pub mod opus;
pub mod red;
pub mod rtx;
pub mod sps;
pub mod vp8;
pub mod vp9;

/// A VP8 or VP9 picture id, with the width that its sender chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PictureId {
    /// The number: 0–127, or 0–32,767 if `wide`.
    pub value: u16,
    /// Whether it has 15 bits on the wire instead of 7.
    pub wide: bool,
}

impl PictureId {
    /// Largest number of this width.
    #[must_use]
    pub const fn max(self) -> u16 {
        if self.wide { 0x7fff } else { 0x7f }
    }

    /// Reads the id at `at`; also returns how many bytes it takes.
    fn read(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let first = *bytes.get(at)?;
        if first & 0x80 == 0 {
            return Some((
                Self {
                    value: u16::from(first),
                    wide: false,
                },
                1,
            ));
        }
        let value = crate::bytes::be16(bytes, at)? & 0x7fff;
        Some((Self { value, wide: true }, 2))
    }

    /// Overwrites the id at `at` with `value`, reduced to this width.
    fn write(self, bytes: &mut [u8], at: usize, value: u16) -> bool {
        if self.wide {
            crate::bytes::overwrite(bytes, at, &(value | 0x8000).to_be_bytes())
        } else {
            crate::bytes::overwrite(bytes, at, &[(value & 0x7f) as u8])
        }
    }
}
