//! The SFrame header (RFC 9605 §4.3): a config byte, then KID and CTR in as few bytes as they take.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-+-+-+-+-+-+-+------------+------------+
//! |X|  K  |Y|  C  |   KID...   |   CTR...   |
//! +-+-+-+-+-+-+-+-+------------+------------+
//! ```

use crate::{Kid, OpenError};

/// Longest header: config byte, 8-byte KID, 8-byte CTR.
pub const MAX_HEADER_LEN: usize = 17;

/// Values up to this one sit in the config byte.
const MAX_INLINE: u64 = 7;

/// The two fields of an SFrame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which key sealed the frame.
    pub kid: Kid,
    /// The frame's counter under that key.
    pub counter: u64,
}

impl Header {
    /// Length of the encoding in bytes, 1 to [`MAX_HEADER_LEN`].
    pub const fn encoded_len(&self) -> usize {
        1 + field_len(self.kid.0) + field_len(self.counter)
    }

    /// Writes the header to the front of `out` and returns its length; `None` if `out` is too
    /// short.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let (kid_len, counter_len) = (field_len(self.kid.0), field_len(self.counter));
        let len = self.encoded_len();
        let (config, fields) = out.get_mut(..len)?.split_first_mut()?;
        *config =
            config_nibble(self.kid.0, kid_len) << 4 | config_nibble(self.counter, counter_len);
        let (kid, counter) = fields.split_at_mut(kid_len);
        kid.copy_from_slice(&self.kid.0.to_be_bytes()[8 - kid_len..]);
        counter.copy_from_slice(&self.counter.to_be_bytes()[8 - counter_len..]);
        Some(len)
    }

    /// Reads a header from the front of `bytes`; returns it with its length.
    ///
    /// # Errors
    /// [`OpenError::Short`] if `bytes` ends early; [`OpenError::Malformed`] if a field takes more
    /// bytes than it needs: "the value MUST be encoded with the minimum number of bytes required"
    /// (§4.3), which leaves one encoding per header.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), OpenError> {
        let (&config, rest) = bytes.split_first().ok_or(OpenError::Short)?;
        let (kid, kid_len, rest) = parse_field(config >> 4, rest)?;
        let (counter, counter_len, _) = parse_field(config & 0x0f, rest)?;
        let header = Self {
            kid: Kid(kid),
            counter,
        };
        Ok((header, 1 + kid_len + counter_len))
    }
}

/// Bytes that `value` takes behind the config byte, 0 to 8.
const fn field_len(value: u64) -> usize {
    if value <= MAX_INLINE {
        0
    } else {
        (64 - value.leading_zeros()).div_ceil(8) as usize
    }
}

/// The flag and the three bits that go with it: the value itself, or the field's length less one.
const fn config_nibble(value: u64, len: usize) -> u8 {
    if len == 0 {
        value as u8
    } else {
        0b1000 | (len as u8 - 1)
    }
}

/// Value and length of the field that `nibble` announces, and what follows it.
fn parse_field(nibble: u8, rest: &[u8]) -> Result<(u64, usize, &[u8]), OpenError> {
    let bits = nibble & 0b111;
    if nibble & 0b1000 == 0 {
        return Ok((u64::from(bits), 0, rest));
    }
    let len = usize::from(bits) + 1;
    let (field, rest) = rest.split_at_checked(len).ok_or(OpenError::Short)?;
    let value = field
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte));
    if field_len(value) != len {
        return Err(OpenError::Malformed("header field longer than needed"));
    }
    Ok((value, len, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_fields_longer_than_needed() {
        for bytes in [&[0x80, 0x07][..], &[0x08, 0x00], &[0x09, 0x00, 0xff]] {
            assert!(matches!(Header::parse(bytes), Err(OpenError::Malformed(_))));
        }
    }

    #[test]
    fn refuses_to_encode_into_too_little() {
        let header = Header {
            kid: Kid(8),
            counter: 256,
        };
        assert_eq!(header.encode(&mut [0; 3]), None);
        assert_eq!(header.encode(&mut [0; 4]), Some(4));
    }

    proptest! {
        #[test]
        fn round_trips(kid: u64, kid_shift in 0..64u32, counter: u64, counter_shift in 0..64u32) {
            let header = Header { kid: Kid(kid >> kid_shift), counter: counter >> counter_shift };
            let mut bytes = [0; MAX_HEADER_LEN];
            let len = header.encode(&mut bytes).unwrap();
            prop_assert_eq!(len, header.encoded_len());
            prop_assert_eq!(Header::parse(&bytes), Ok((header, len)));
            for cut in 0..len {
                prop_assert_eq!(Header::parse(&bytes[..cut]), Err(OpenError::Short));
            }
        }

        #[test]
        fn what_parses_encodes_to_the_same_bytes(bytes: Vec<u8>) {
            if let Ok((header, len)) = Header::parse(&bytes) {
                let mut again = [0; MAX_HEADER_LEN];
                prop_assert_eq!(header.encode(&mut again), Some(len));
                prop_assert_eq!(&again[..len], &bytes[..len]);
            }
        }
    }
}
