//! Redundant audio data (RFC 2198).

use crate::bytes::{Out, be24};
use crate::{ParseError, WriteError};

/// Most redundant blocks accepted in front of the primary one. Browsers send one or two; libwebrtc refuses over 32.
pub const MAX_REDUNDANT_BLOCKS: usize = 32;
/// Largest timestamp offset: 14 bits.
pub const MAX_TIMESTAMP_OFFSET: u16 = 0x3fff;
/// Largest redundant block: 10 bits of length.
pub const MAX_BLOCK_LEN: usize = 0x3ff;

/// Bytes of a redundant block's header, and of the primary one's.
const HEADER_LEN: usize = 4;
const PRIMARY_HEADER_LEN: usize = 1;

/// One redundant block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedundantBlock<'a> {
    /// Payload type of the block, 0–127.
    pub payload_type: u8,
    /// How far the block's timestamp lies before the packet's, 0–16,383 timestamp units.
    pub timestamp_offset: u16,
    /// The block's data, 0–1,023 bytes.
    pub data: &'a [u8],
}

/// A RED payload whose headers and lengths fit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedPayload<'a> {
    headers: &'a [u8],
    redundant_data: &'a [u8],
    /// Payload type of the primary block, 0–127.
    pub primary_payload_type: u8,
    /// Data of the primary block: the newest, with the packet's own timestamp.
    pub primary: &'a [u8],
}

impl<'a> RedPayload<'a> {
    /// Reads a RED payload (section 3).
    ///
    /// # Errors
    /// [`ParseError::Truncated`] (headers do not end), [`ParseError::Length`] (blocks longer than the payload) or
    /// [`ParseError::Limit`] (over 32 redundant blocks).
    pub fn parse(payload: &'a [u8]) -> Result<Self, ParseError> {
        let (mut at, mut data_len) = (0, 0);
        for _ in 0..=MAX_REDUNDANT_BLOCKS {
            let first = *payload.get(at).ok_or(ParseError::Truncated)?;
            // Section 3: F is set "if this header block is followed by another header block".
            if first & 0x80 == 0 {
                let (headers, rest) = payload.split_at_checked(at).ok_or(ParseError::Truncated)?;
                let rest = rest
                    .get(PRIMARY_HEADER_LEN..)
                    .ok_or(ParseError::Truncated)?;
                let (redundant_data, primary) =
                    rest.split_at_checked(data_len).ok_or(ParseError::Length)?;
                return Ok(Self {
                    headers,
                    redundant_data,
                    primary_payload_type: first,
                    primary,
                });
            }
            data_len += (be24(payload, at + 1).ok_or(ParseError::Truncated)? & 0x3ff) as usize;
            at += HEADER_LEN;
        }
        Err(ParseError::Limit("RED blocks"))
    }

    /// The redundant blocks, oldest first as senders order them; at most 32.
    pub fn redundant(&self) -> impl Iterator<Item = RedundantBlock<'a>> + use<'a> {
        let mut data = self.redundant_data;
        self.headers
            .chunks_exact(HEADER_LEN)
            .filter_map(move |header| {
                let word = be24(header, 1)?;
                let (block, rest) = data.split_at_checked((word & 0x3ff) as usize)?;
                data = rest;
                Some(RedundantBlock {
                    payload_type: header.first()? & 0x7f,
                    timestamp_offset: (word >> 10) as u16,
                    data: block,
                })
            })
    }
}

/// Where the blocks of a RED payload lie whose blocks all have one payload type, and that type: enough to take the
/// payload apart again, or to give it to a receiver with another payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedLayout {
    /// Payload type of every block, 0–127.
    pub payload_type: u8,
    /// Redundant blocks, at most 32.
    redundant: u8,
    primary: u16,
}

impl RedLayout {
    /// The layout of a payload; `None` if its blocks differ in type, or it is longer than a datagram.
    #[must_use]
    pub fn of(payload: &RedPayload<'_>) -> Option<Self> {
        let payload_type = payload.primary_payload_type;
        let (mut redundant, mut same) = (0, true);
        for block in payload.redundant() {
            redundant += 1;
            same &= block.payload_type == payload_type;
        }
        let primary = payload.headers.len() + PRIMARY_HEADER_LEN + payload.redundant_data.len();
        let primary = u16::try_from(primary).ok().filter(|_| same)?;
        Some(Self {
            payload_type,
            redundant,
            primary,
        })
    }

    /// Where the primary block starts in the payload. It goes on to the payload's end.
    #[must_use]
    pub fn primary(self) -> usize {
        self.primary.into()
    }

    /// Gives every block of `payload`, which the layout was read from, another payload type. `false`, and nothing
    /// done, if the payload is too short or the type over 127.
    pub fn rewrite(self, payload: &mut [u8], payload_type: u8) -> bool {
        let last = HEADER_LEN * usize::from(self.redundant);
        if payload_type > 0x7f || payload.len() <= last {
            return false;
        }
        for first in payload.iter_mut().take(last + 1).step_by(HEADER_LEN) {
            *first = *first & 0x80 | payload_type;
        }
        true
    }
}

/// Writes a RED payload and returns its length.
///
/// # Errors
/// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for over 32 blocks or a value over its limit above.
pub fn write(
    out: &mut [u8],
    redundant: &[RedundantBlock<'_>],
    primary_payload_type: u8,
    primary: &[u8],
) -> Result<usize, WriteError> {
    if redundant.len() > MAX_REDUNDANT_BLOCKS {
        return Err(WriteError::Unrepresentable("RED blocks"));
    }
    let mut out = Out::new(out);
    for block in redundant {
        if block.data.len() > MAX_BLOCK_LEN {
            return Err(WriteError::Unrepresentable("RED block length"));
        }
        if block.timestamp_offset > MAX_TIMESTAMP_OFFSET {
            return Err(WriteError::Unrepresentable("RED timestamp offset"));
        }
        let word = u32::from(0x80 | payload_type(block.payload_type)?) << 24
            | u32::from(block.timestamp_offset) << 10
            | block.data.len() as u32;
        out.put32(word)?;
    }
    out.put8(payload_type(primary_payload_type)?)?;
    for block in redundant {
        out.put(block.data)?;
    }
    out.put(primary)?;
    Ok(out.len())
}

fn payload_type(value: u8) -> Result<u8, WriteError> {
    if value < 0x80 {
        Ok(value)
    } else {
        Err(WriteError::Unrepresentable("payload type"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn faults() {
        assert_eq!(RedPayload::parse(&[]), Err(ParseError::Truncated));
        assert_eq!(
            RedPayload::parse(&[0x80 | 111, 0, 0]),
            Err(ParseError::Truncated)
        );
        assert_eq!(
            RedPayload::parse(&[0x80 | 111, 0, 0, 2, 111, 9]),
            Err(ParseError::Length)
        );
        let endless = [0x80 | 111, 0, 0, 0].repeat(40);
        assert_eq!(
            RedPayload::parse(&endless),
            Err(ParseError::Limit("RED blocks"))
        );
        let long = [0; MAX_BLOCK_LEN + 1];
        let block = RedundantBlock {
            payload_type: 1,
            timestamp_offset: 0,
            data: &long,
        };
        assert_eq!(
            write(&mut [0; 2000], &[block], 1, &[]),
            Err(WriteError::Unrepresentable("RED block length"))
        );
        assert_eq!(write(&mut [0; 4], &[], 1, &[0; 4]), Err(WriteError::NoRoom));
    }

    #[test]
    fn a_primary_alone_costs_one_byte() {
        let parsed = RedPayload::parse(&[111, 1, 2, 3]).expect("sound");
        assert_eq!(
            (
                parsed.primary_payload_type,
                parsed.primary,
                parsed.redundant().count()
            ),
            (111, &[1u8, 2, 3][..], 0)
        );
    }

    proptest! {
        #[test]
        fn comes_back(
            blocks in prop::collection::vec((0u8..128, 0u16..=MAX_TIMESTAMP_OFFSET, prop::collection::vec(any::<u8>(), 0..60)), 0..=32),
            primary_type in 0u8..128, primary in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let blocks: Vec<_> = blocks.iter()
                .map(|(payload_type, timestamp_offset, data)| RedundantBlock { payload_type: *payload_type, timestamp_offset: *timestamp_offset, data })
                .collect();
            let mut out = [0; 4000];
            let len = write(&mut out, &blocks, primary_type, &primary).expect("room");
            let parsed = RedPayload::parse(&out[..len]).expect("own payload");
            prop_assert_eq!(parsed.redundant().collect::<Vec<_>>(), blocks);
            prop_assert_eq!((parsed.primary_payload_type, parsed.primary), (primary_type, &primary[..]));
        }

        #[test]
        fn blocks_get_another_type_and_nothing_else_changes(
            blocks in prop::collection::vec((0u16..=MAX_TIMESTAMP_OFFSET, prop::collection::vec(any::<u8>(), 0..60)), 0..=32),
            primary in prop::collection::vec(any::<u8>(), 0..60), old in 0u8..128, new in 0u8..128, odd: Option<u8>,
        ) {
            let write_as = |payload_type| {
                let blocks: Vec<_> = blocks.iter()
                    .map(|(timestamp_offset, data)| RedundantBlock { payload_type, timestamp_offset: *timestamp_offset, data })
                    .collect();
                let mut out = vec![0; 4000];
                let len = write(&mut out, &blocks, payload_type, &primary).expect("room");
                out.truncate(len);
                out
            };
            let mut payload = write_as(old);
            let layout = RedLayout::of(&RedPayload::parse(&payload).expect("own payload")).expect("of one type");
            prop_assert_eq!(layout.payload_type, old);
            prop_assert_eq!(&payload[layout.primary()..], &primary[..]);
            prop_assert!(layout.rewrite(&mut payload, new));
            prop_assert_eq!(&payload, &write_as(new));
            if let (Some(odd), false) = (odd.map(|odd| odd & 0x7f), blocks.is_empty()) {
                payload[0] = 0x80 | odd;
                let layout = RedLayout::of(&RedPayload::parse(&payload).expect("sound"));
                prop_assert_eq!(layout.is_some(), odd == new);
            }
        }

        #[test]
        fn any_bytes_are_read_whole_or_not_at_all(payload in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4], 0..80)) {
            if let Ok(parsed) = RedPayload::parse(&payload) {
                let blocks: Vec<_> = parsed.redundant().collect();
                let total: usize = blocks.iter().map(|b| b.data.len() + 4).sum();
                prop_assert_eq!(total + 1 + parsed.primary.len(), payload.len());
            }
        }
    }
}
