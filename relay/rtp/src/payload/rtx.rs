//! Retransmission payload format (RFC 4588, section 4).

use crate::ParseError;
use crate::bytes::{be16, overwrite};

/// Bytes of the original sequence number in front of the original payload.
pub const OSN_LEN: usize = 2;

/// Reads an RTX payload: the original sequence number, and the original payload.
///
/// A payload without padding that is empty is a bandwidth probe, which has no original: check that first.
///
/// # Errors
/// [`ParseError::Truncated`].
#[inline]
pub fn parse(payload: &[u8]) -> Result<(u16, &[u8]), ParseError> {
    let osn = be16(payload, 0).ok_or(ParseError::Truncated)?;
    Ok((osn, payload.get(OSN_LEN..).unwrap_or_default()))
}

/// Writes the original sequence number at the start of an RTX payload. `false` if there is no room.
#[inline]
#[must_use]
pub fn write_osn(payload: &mut [u8], original_sequence_number: u16) -> bool {
    overwrite(payload, 0, &original_sequence_number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_payloads() {
        assert_eq!(parse(&[]), Err(ParseError::Truncated));
        assert_eq!(parse(&[1]), Err(ParseError::Truncated));
        assert_eq!(parse(&[1, 2]), Ok((0x0102, &[][..])));
        assert!(!write_osn(&mut [0], 1));
    }

    proptest! {
        #[test]
        fn comes_back(osn: u16, original in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut payload = [&[0, 0], &original[..]].concat();
            prop_assert!(write_osn(&mut payload, osn));
            prop_assert_eq!(parse(&payload), Ok((osn, &original[..])));
        }
    }
}
