//! Most-significant-bit-first fields.

use crate::{ParseError, WriteError};
use std::ops::Range;

/// Reads bit fields from a slice.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// `f(n)`: the next `n` bits, 0..=32.
    pub(crate) fn bits(&mut self, n: u32) -> Result<u32, ParseError> {
        debug_assert!(n <= 32);
        let end = self.at + n as usize;
        if end > self.bytes.len() * 8 {
            return Err(ParseError::Truncated);
        }
        // Five bytes hold any 32 bits, wherever in a byte they start.
        let window = self
            .bytes
            .iter()
            .skip(self.at / 8)
            .chain(std::iter::repeat(&0))
            .take(5);
        let window = window.fold(0u64, |v, byte| v << 8 | u64::from(*byte));
        let value = window >> (40 - self.at % 8 - n as usize) & ((1 << n) - 1);
        self.at = end;
        Ok(value as u32)
    }

    /// Bits read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn flag(&mut self) -> Result<bool, ParseError> {
        Ok(self.bits(1)? == 1)
    }

    /// `ns(n)`: a non-symmetric value below `n`, 1..=64.
    pub(crate) fn non_symmetric(&mut self, n: u32) -> Result<u32, ParseError> {
        let (width, short) = non_symmetric_code(n);
        let value = self.bits(width - 1)?;
        if value < short {
            Ok(value)
        } else {
            Ok((value << 1) - short + self.bits(1)?)
        }
    }
}

/// Writes bit fields into a slice.
pub(crate) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// `f(n)`: the low `n` bits of `value`, 0..=32.
    pub(crate) fn bits(&mut self, value: u32, n: u32) -> Result<(), WriteError> {
        debug_assert!(n == 32 || value >> n == 0);
        for bit in (0..n).rev() {
            let byte = self.bytes.get_mut(self.at / 8).ok_or(WriteError::NoRoom)?;
            if self.at.is_multiple_of(8) {
                *byte = 0;
            }
            *byte |= ((value >> bit & 1) as u8) << (7 - self.at % 8);
            self.at += 1;
        }
        Ok(())
    }

    /// Bits of another slice, in which they must lie.
    pub(crate) fn copy(&mut self, from: &[u8], range: Range<usize>) -> Result<(), WriteError> {
        let mut source = BitReader {
            bytes: from,
            at: range.start,
        };
        while source.at < range.end {
            let n = (range.end - source.at).min(32) as u32;
            let value = source.bits(n).map_err(|_| WriteError::NoRoom)?;
            self.bits(value, n)?;
        }
        Ok(())
    }

    pub(crate) fn flag(&mut self, value: bool) -> Result<(), WriteError> {
        self.bits(u32::from(value), 1)
    }

    /// `ns(n)`: a non-symmetric value below `n`, 1..=64.
    pub(crate) fn non_symmetric(&mut self, value: u32, n: u32) -> Result<(), WriteError> {
        let (width, short) = non_symmetric_code(n);
        if value < short {
            self.bits(value, width - 1)
        } else {
            self.bits(value + short, width)
        }
    }

    /// Bytes written, the last one padded with zero bits.
    pub(crate) fn len(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// Width of the longer code words of `ns(n)`, and how many values have the shorter ones.
const fn non_symmetric_code(n: u32) -> (u32, u32) {
    let width = 32 - n.leading_zeros();
    (width, (1 << width) - n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shadow of the reader: a queue of bits.
    fn naive(bits: &mut Vec<bool>, n: u32) -> Option<u32> {
        if bits.len() < n as usize {
            return None;
        }
        Some(
            bits.drain(..n as usize)
                .fold(0u64, |v, bit| v * 2 + u64::from(bit)) as u32,
        )
    }

    #[test]
    fn the_code_table_of_ns_5() {
        // AV1 bitstream specification, section 4.10.7: with n = 5 the codes are 00, 01, 10, 110, 111.
        for (value, code, len) in [
            (0, 0b00, 2),
            (1, 0b01, 2),
            (2, 0b10, 2),
            (3, 0b110, 3),
            (4, 0b111, 3),
        ] {
            let mut out = [0; 1];
            let mut writer = BitWriter::new(&mut out);
            writer.non_symmetric(value, 5).expect("room");
            assert_eq!((writer.at, out[0]), (len, code << (8 - len)));
            assert_eq!(BitReader::new(&out).non_symmetric(5), Ok(value));
        }
        // One possible value takes no bits.
        assert_eq!(BitReader::new(&[]).non_symmetric(1), Ok(0));
    }

    proptest! {
        #[test]
        fn reads_are_those_of_the_shadow(bytes in prop::collection::vec(any::<u8>(), 0..20), widths in prop::collection::vec(0u32..=32, 0..20)) {
            let mut shadow: Vec<bool> = bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1 == 1)).collect();
            let mut reader = BitReader::new(&bytes);
            for n in widths {
                prop_assert_eq!(reader.bits(n).ok(), naive(&mut shadow, n));
            }
        }

        #[test]
        fn writes_come_back(fields in prop::collection::vec((any::<u32>(), 0u32..=32), 0..20), ns in prop::collection::vec((any::<u32>(), 1u32..=64), 0..20)) {
            let mut out = [0xee; 200];
            let mut writer = BitWriter::new(&mut out);
            let fields: Vec<_> = fields.into_iter().map(|(v, n)| (if n == 32 { v } else { v & ((1 << n) - 1) }, n)).collect();
            for (value, n) in &fields {
                writer.bits(*value, *n).expect("room");
            }
            for (value, n) in &ns {
                writer.non_symmetric(value % n, *n).expect("room");
            }
            let len = writer.len();
            let mut reader = BitReader::new(&out[..len]);
            for (value, n) in fields {
                prop_assert_eq!(reader.bits(n), Ok(value));
            }
            for (value, n) in ns {
                prop_assert_eq!(reader.non_symmetric(n), Ok(value % n));
            }
            prop_assert!(len * 8 - reader.at < 8);
        }
    }
}
