//! RTP header extensions (RFC 8285): elements, the negotiated map of ids, and the typed contents.

mod content;
mod map;

pub use content::{
    AbsCaptureTime, AbsSendTime, AudioLevel, MAX_ID_TOKEN_LEN, PlayoutDelay, TransportCc,
    TransportCc02, VideoOrientation, parse_id_token,
};
pub use map::{ExtensionKind, ExtensionMap};

use crate::bytes::be16;
use std::ops::Range;

/// RFC 8285, section 4.2: the profile of one-byte elements.
const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// RFC 8285, section 4.3: 0x100, followed by four application bits.
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// One header extension element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The negotiated local id: 1–14 in one-byte form, 1–255 in two-byte form.
    pub id: u8,
    /// The element's data: 1–16 bytes in one-byte form, 0–255 in two-byte form.
    pub data: &'a [u8],
}

/// How elements are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Ids 1–14, data 1–16 bytes (RFC 8285, section 4.2).
    OneByte,
    /// Ids 1–255, data 0–255 bytes (RFC 8285, section 4.3). Only for peers that negotiated `extmap-allow-mixed` or
    /// an id over 14.
    TwoByte,
}

impl Form {
    /// Whether this form can hold an element with this id and data length.
    #[inline]
    #[must_use]
    pub const fn fits(self, id: u8, data_len: usize) -> bool {
        match self {
            Self::OneByte => id >= 1 && id <= 14 && data_len >= 1 && data_len <= 16,
            Self::TwoByte => id >= 1 && data_len <= 255,
        }
    }

    pub(crate) const fn profile(self) -> u16 {
        match self {
            Self::OneByte => ONE_BYTE_PROFILE,
            Self::TwoByte => TWO_BYTE_PROFILE,
        }
    }

    pub(crate) const fn element_header_len(self) -> usize {
        match self {
            Self::OneByte => 1,
            Self::TwoByte => 2,
        }
    }

    /// Fills in an element's header; the caller has checked [`Form::fits`].
    pub(crate) fn write_element_header(self, head: &mut [u8], id: u8, data_len: usize) {
        match (self, head) {
            // RFC 8285, section 4.2: "The 4-bit length is the number, minus one, of data bytes".
            (Self::OneByte, [byte]) => {
                *byte = (id << 4) | (data_len.saturating_sub(1) as u8 & 0x0f)
            }
            (Self::TwoByte, [first, second]) => (*first, *second) = (id, data_len as u8),
            _ => debug_assert!(false, "head has element_header_len() bytes"),
        }
    }
}

/// Iterator over the elements of one extension block.
///
/// It ends at the first element that does not fit the block; what came before is still good. RFC 8285 asks receivers
/// to ignore what they do not understand, so a malformed tail is not an error of the packet.
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    form: Option<Form>,
    block: &'a [u8],
    at: usize,
}

impl<'a> Extensions<'a> {
    /// The elements of a block with this profile. Profiles outside RFC 8285 have none.
    #[inline]
    #[must_use]
    pub const fn new(profile: u16, block: &'a [u8]) -> Self {
        let form = match profile {
            ONE_BYTE_PROFILE => Some(Form::OneByte),
            // RFC 8285, section 4.3: the low four bits are "appbits" and "MUST be ignored".
            p if p & 0xfff0 == TWO_BYTE_PROFILE => Some(Form::TwoByte),
            _ => None,
        };
        Self { form, block, at: 0 }
    }

    /// No elements.
    #[inline]
    #[must_use]
    pub const fn none() -> Self {
        Self {
            form: None,
            block: &[],
            at: 0,
        }
    }

    /// The elements of an extension that starts with its four-byte header, as it lies in a packet.
    #[must_use]
    pub fn from_extension_header(bytes: &'a [u8]) -> Option<Self> {
        let block = bytes.get(4..4 + 4 * usize::from(be16(bytes, 2)?))?;
        Some(Self::new(be16(bytes, 0)?, block))
    }

    /// The layout of this block, or `None` if RFC 8285 does not define its profile.
    #[must_use]
    pub const fn form(&self) -> Option<Form> {
        self.form
    }

    /// Where the data of the first remaining element with this id lies in the block.
    pub(crate) fn data_range(mut self, id: u8) -> Option<Range<usize>> {
        loop {
            let (found, range) = self.next_range()?;
            if found == id {
                return Some(range);
            }
        }
    }

    #[inline]
    fn next_range(&mut self) -> Option<(u8, Range<usize>)> {
        let form = self.form?;
        loop {
            let first = *self.block.get(self.at)?;
            if first == 0 {
                // RFC 8285, section 4.1.2: a byte of value 0 is padding.
                self.at += 1;
                continue;
            }
            let (id, len) = match form {
                // RFC 8285, section 4.2: id 15 ends the processing of the whole extension. An element of id 0 with a
                // length is padding that some senders write; its data is skipped like any other element's.
                Form::OneByte if first >> 4 == 15 => {
                    self.at = self.block.len();
                    return None;
                }
                Form::OneByte => (first >> 4, usize::from(first & 0x0f) + 1),
                Form::TwoByte => (first, usize::from(*self.block.get(self.at + 1)?)),
            };
            let start = self.at + form.element_header_len();
            if start + len > self.block.len() {
                self.at = self.block.len();
                return None;
            }
            self.at = start + len;
            if id != 0 {
                return Some((id, start..start + len));
            }
        }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    #[inline]
    fn next(&mut self) -> Option<Extension<'a>> {
        let (id, range) = self.next_range()?;
        Some(Extension {
            id,
            data: self.block.get(range)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shadow iterator: consumes a vector from the front, one rule of RFC 8285 at a time.
    fn naive(profile: u16, block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut rest = block.to_vec();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let first = rest.remove(0);
            if first == 0 {
                continue;
            }
            let (id, len);
            if profile == 0xBEDE {
                (id, len) = (first / 16, usize::from(first % 16) + 1);
                if id == 15 {
                    break;
                }
            } else if (0x1000..=0x100f).contains(&profile) {
                if rest.is_empty() {
                    break;
                }
                (id, len) = (first, usize::from(rest.remove(0)));
            } else {
                break;
            }
            if rest.len() < len {
                break;
            }
            let tail = rest.split_off(len);
            if id != 0 {
                found.push((id, rest));
            }
            rest = tail;
        }
        found
    }

    fn ours(profile: u16, block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        Extensions::new(profile, block)
            .map(|e| (e.id, e.data.to_vec()))
            .collect()
    }

    #[test]
    fn the_one_byte_example_of_rfc_8285() {
        // Section 4.2: two elements, then padding, then a third.
        let block = [0x10, 0xaa, 0x21, 0xbb, 0xcc, 0, 0, 0x33, 1, 2, 3, 4];
        assert_eq!(
            ours(0xBEDE, &block),
            [
                (1, vec![0xaa]),
                (2, vec![0xbb, 0xcc]),
                (3, vec![1, 2, 3, 4])
            ]
        );
    }

    #[test]
    fn id_fifteen_stops_a_one_byte_block() {
        assert_eq!(ours(0xBEDE, &[0x10, 7, 0xf0, 1, 0x20, 9]), [(1, vec![7])]);
        // In two-byte form 15 is an id like any other.
        assert_eq!(
            ours(0x1000, &[15, 0, 1, 1, 9]),
            [(15, vec![]), (1, vec![9])]
        );
    }

    proptest! {
        #[test]
        fn any_block_reads_as_the_shadow_reads_it(
            profile in prop_oneof![Just(0xBEDEu16), 0x1000u16..=0x100f, any::<u16>()],
            block in prop::collection::vec(prop_oneof![2 => 0u8..=0x34, 1 => any::<u8>()], 0..64),
        ) {
            prop_assert_eq!(ours(profile, &block), naive(profile, &block));
        }

        #[test]
        fn an_extension_header_is_read_whole_or_not_at_all(bytes in prop::collection::vec(0u8..4, 0..40)) {
            if let Some(found) = Extensions::from_extension_header(&bytes) {
                prop_assert!(4 + 4 * usize::from(bytes[3]) <= bytes.len());
                prop_assert_eq!(found.form(), None);
            }
        }
    }
}
