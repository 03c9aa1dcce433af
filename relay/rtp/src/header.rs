//! The RTP fixed header, CSRC list, header extension and padding (RFC 3550, section 5).

use crate::bytes::{Out, be16, be32, overwrite};
use crate::ext::{Extension, Extensions, Form};
use crate::{ParseError, WriteError};
use std::ops::Range;

/// Length of the fixed header without CSRCs and extensions.
pub const FIXED_HEADER_LEN: usize = 12;

const VERSION: u8 = 2;
const PADDING_BIT: u8 = 0x20;
const EXTENSION_BIT: u8 = 0x10;
const MARKER_BIT: u8 = 0x80;

/// Where everything lies in an RTP packet. It keeps offsets and no borrow, so the packet may be changed meanwhile.
///
/// The offsets are only as good as the packet they came from: accessors given another slice return empty ranges or
/// other bytes, and never panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// The marker bit.
    pub marker: bool,
    /// Payload type, 0–127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence_number: u16,
    /// Timestamp in units of the payload's clock rate.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Number of contributing sources, 0–15.
    pub csrc_count: u8,
    /// Whether the padding bit is set.
    pub has_padding: bool,
    /// The profile-defined 16 bits of the header extension, if there is one.
    pub extension_profile: Option<u16>,
    /// Bytes of the extension data that follow its four-byte header.
    extension_len: u16,
    payload_end: u16,
    packet_len: u16,
}

impl RtpHeader {
    /// Parses a plaintext RTP packet, padding included.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::Version`], [`ParseError::Length`] (extension longer than the packet,
    /// packet over 65,535 bytes) or [`ParseError::Padding`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        let mut header = Self::parse_protected(packet)?;
        if header.has_padding {
            header.resolve_padding(packet)?;
        }
        Ok(header)
    }

    /// Parses the header of a packet whose payload is still protected by SRTP.
    ///
    /// The padding count is part of the protected bytes, so the payload range still includes padding (and the
    /// authentication tag). After the packet is opened, call [`Self::parse`] on the plaintext.
    ///
    /// # Errors
    /// As [`Self::parse`], without [`ParseError::Padding`].
    #[inline]
    pub fn parse_protected(packet: &[u8]) -> Result<Self, ParseError> {
        let fixed: &[u8; FIXED_HEADER_LEN] = packet.first_chunk().ok_or(ParseError::Truncated)?;
        if fixed[0] >> 6 != VERSION {
            return Err(ParseError::Version);
        }
        let packet_len = u16::try_from(packet.len()).map_err(|_| ParseError::Length)?;
        let mut header = Self {
            marker: fixed[1] & MARKER_BIT != 0,
            payload_type: fixed[1] & !MARKER_BIT,
            sequence_number: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            csrc_count: fixed[0] & 0x0f,
            has_padding: fixed[0] & PADDING_BIT != 0,
            extension_profile: None,
            extension_len: 0,
            payload_end: packet_len,
            packet_len,
        };
        if fixed[0] & EXTENSION_BIT != 0 {
            let at = header.extension_header_offset();
            header.extension_profile = Some(be16(packet, at).ok_or(ParseError::Truncated)?);
            // RFC 3550, section 5.3.1: the length "counts the number of 32-bit words in the extension, excluding the
            // four-octet extension header".
            let words = be16(packet, at + 2).ok_or(ParseError::Truncated)?;
            header.extension_len = words.checked_mul(4).ok_or(ParseError::Length)?;
        }
        if header.payload_start() > packet.len() {
            return Err(if header.extension_len > 0 {
                ParseError::Length
            } else {
                ParseError::Truncated
            });
        }
        Ok(header)
    }

    /// RFC 3550, section 5.1: "The last octet of the padding contains a count of how many padding octets should be
    /// ignored, including itself."
    fn resolve_padding(&mut self, packet: &[u8]) -> Result<(), ParseError> {
        let count = usize::from(packet.last().copied().ok_or(ParseError::Padding)?);
        let room = packet.len() - self.payload_start();
        if count == 0 || count > room {
            return Err(ParseError::Padding);
        }
        self.payload_end = self.packet_len - count as u16;
        Ok(())
    }

    fn extension_header_offset(&self) -> usize {
        FIXED_HEADER_LEN + 4 * usize::from(self.csrc_count)
    }

    fn payload_start(&self) -> usize {
        let extension = if self.extension_profile.is_some() {
            4 + usize::from(self.extension_len)
        } else {
            0
        };
        self.extension_header_offset() + extension
    }

    /// Length of everything before the payload, 12..=65,535.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.payload_start()
    }

    /// Length of the packet that was parsed.
    #[inline]
    #[must_use]
    pub fn packet_len(&self) -> usize {
        usize::from(self.packet_len)
    }

    /// Number of padding bytes at the end, the count byte included; 0 without padding.
    #[inline]
    #[must_use]
    pub fn padding_len(&self) -> usize {
        usize::from(self.packet_len - self.payload_end)
    }

    /// Where the payload lies, without padding.
    #[inline]
    #[must_use]
    pub fn payload_range(&self) -> Range<usize> {
        self.payload_start()..usize::from(self.payload_end)
    }

    /// Where the extension data lies (after its four-byte header); empty without an extension.
    #[inline]
    #[must_use]
    pub fn extension_range(&self) -> Range<usize> {
        if self.extension_profile.is_none() {
            return 0..0;
        }
        let start = self.extension_header_offset() + 4;
        start..start + usize::from(self.extension_len)
    }

    /// The payload without padding.
    #[inline]
    #[must_use]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.payload_range()).unwrap_or_default()
    }

    /// Contributing source number `index`.
    #[must_use]
    pub fn csrc(&self, packet: &[u8], index: usize) -> Option<u32> {
        if index >= usize::from(self.csrc_count) {
            return None;
        }
        be32(packet, FIXED_HEADER_LEN + 4 * index)
    }

    /// The header extension elements of RFC 8285, in order. Empty for a profile that RFC 8285 does not define.
    #[inline]
    #[must_use]
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> Extensions<'a> {
        match self.extension_profile {
            Some(profile) => Extensions::new(
                profile,
                packet.get(self.extension_range()).unwrap_or_default(),
            ),
            None => Extensions::none(),
        }
    }

    /// The data of the first extension element with this local id.
    #[inline]
    #[must_use]
    pub fn extension<'a>(&self, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
        self.extensions(packet).find(|e| e.id == id).map(|e| e.data)
    }

    /// Where the data of the first extension element with this local id lies, for rewriting it in place.
    #[must_use]
    pub fn extension_data_range(&self, packet: &[u8], id: u8) -> Option<Range<usize>> {
        let range = self.extension_range();
        let found = self.extensions(packet).data_range(id)?;
        Some(range.start + found.start..range.start + found.end)
    }
}

/// Sets the sequence number in place. `false` if the packet is shorter than a header.
#[inline]
#[must_use]
pub fn set_sequence_number(packet: &mut [u8], sequence_number: u16) -> bool {
    overwrite(packet, 2, &sequence_number.to_be_bytes())
}

/// Sets the timestamp in place. `false` if the packet is shorter than a header.
#[inline]
#[must_use]
pub fn set_timestamp(packet: &mut [u8], timestamp: u32) -> bool {
    overwrite(packet, 4, &timestamp.to_be_bytes())
}

/// Sets the SSRC in place. `false` if the packet is shorter than a header.
#[inline]
#[must_use]
pub fn set_ssrc(packet: &mut [u8], ssrc: u32) -> bool {
    overwrite(packet, 8, &ssrc.to_be_bytes())
}

/// Sets the payload type (0–127; the top bit is ignored) in place, keeping the marker bit.
#[inline]
#[must_use]
pub fn set_payload_type(packet: &mut [u8], payload_type: u8) -> bool {
    let Some(byte) = packet.get_mut(1) else {
        return false;
    };
    *byte = (*byte & MARKER_BIT) | (payload_type & !MARKER_BIT);
    true
}

/// Sets the marker bit in place, keeping the payload type.
#[inline]
#[must_use]
pub fn set_marker(packet: &mut [u8], marker: bool) -> bool {
    let Some(byte) = packet.get_mut(1) else {
        return false;
    };
    *byte = (*byte & !MARKER_BIT) | (u8::from(marker) << 7);
    true
}

/// The fields of a fixed header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderFields {
    /// The marker bit.
    pub marker: bool,
    /// Whether the payload that follows ends in padding.
    pub has_padding: bool,
    /// Payload type, 0–127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence_number: u16,
    /// Timestamp in units of the payload's clock rate.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
}

/// Writes a header without CSRCs and with these extensions; returns its length.
///
/// One-byte elements are used where all of `extensions` fit them, two-byte elements otherwise. Without extensions
/// there is no extension header.
///
/// # Errors
/// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for a payload type over 127, an id of 0 or data over
/// 255 bytes.
pub fn write_header(
    out: &mut [u8],
    fields: &HeaderFields,
    extensions: &[Extension<'_>],
) -> Result<usize, WriteError> {
    let form = if extensions
        .iter()
        .all(|e| Form::OneByte.fits(e.id, e.data.len()))
    {
        Form::OneByte
    } else {
        Form::TwoByte
    };
    let mut writer = HeaderWriter::new(out, fields, form)?;
    for extension in extensions {
        writer.push(extension.id, extension.data)?;
    }
    writer.finish()
}

/// Writes a header element by element into a caller's slice.
///
/// Each extension may be encoded straight into its place with [`HeaderWriter::reserve`].
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: Out<'a>,
    form: Form,
}

impl<'a> HeaderWriter<'a> {
    /// Starts a header whose extensions, if any follow, take this form.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for a payload type over 127.
    #[inline]
    pub fn new(out: &'a mut [u8], fields: &HeaderFields, form: Form) -> Result<Self, WriteError> {
        if fields.payload_type > 127 {
            return Err(WriteError::Unrepresentable("payload type"));
        }
        let mut out = Out::new(out);
        let place = out.reserve(FIXED_HEADER_LEN)?;
        let first: &mut [u8; FIXED_HEADER_LEN] =
            place.first_chunk_mut().ok_or(WriteError::NoRoom)?;
        first[0] = (VERSION << 6) | if fields.has_padding { PADDING_BIT } else { 0 };
        first[1] = (u8::from(fields.marker) << 7) | fields.payload_type;
        first[2..4].copy_from_slice(&fields.sequence_number.to_be_bytes());
        first[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        first[8..12].copy_from_slice(&fields.ssrc.to_be_bytes());
        Ok(Self { out, form })
    }

    /// Appends an extension element.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    #[inline]
    pub fn push(&mut self, id: u8, data: &[u8]) -> Result<(), WriteError> {
        self.reserve(id, data.len())?.copy_from_slice(data);
        Ok(())
    }

    /// Appends an extension element of `len` bytes and returns the place of its data, to be filled in by the caller.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] if this form cannot hold the id or the length.
    #[inline]
    pub fn reserve(&mut self, id: u8, len: usize) -> Result<&mut [u8], WriteError> {
        if !self.form.fits(id, len) {
            return Err(WriteError::Unrepresentable("extension id or length"));
        }
        let before = self.out.len();
        let element = self.form.element_header_len();
        let opening = if before == FIXED_HEADER_LEN { 4 } else { 0 };
        let place = self.out.reserve(opening + element + len)?;
        let (head, data) = place
            .split_at_mut_checked(opening + element)
            .ok_or(WriteError::NoRoom)?;
        let (opening, head) = head
            .split_at_mut_checked(opening)
            .ok_or(WriteError::NoRoom)?;
        if let Some(profile) = opening.first_chunk_mut::<2>() {
            *profile = self.form.profile().to_be_bytes();
        }
        self.form.write_element_header(head, id, len);
        Ok(data)
    }

    /// Closes the extension block and returns the length of the header.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for more extension data than 262,140 bytes.
    #[inline]
    pub fn finish(mut self) -> Result<usize, WriteError> {
        if self.out.len() == FIXED_HEADER_LEN {
            return Ok(FIXED_HEADER_LEN);
        }
        // RFC 8285, section 4.1.2: padding bytes "have the value of 0".
        self.out.pad_to_word(FIXED_HEADER_LEN)?;
        let words = (self.out.len() - FIXED_HEADER_LEN - 4) / 4;
        let words = u16::try_from(words)
            .map_err(|_| WriteError::Unrepresentable("extension block length"))?;
        self.out.patch(FIXED_HEADER_LEN + 2, &words.to_be_bytes())?;
        self.out.set_bits(0, EXTENSION_BIT);
        Ok(self.out.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> impl Strategy<Value = HeaderFields> {
        (
            any::<bool>(),
            0u8..128,
            any::<u16>(),
            any::<u32>(),
            any::<u32>(),
        )
            .prop_map(|(marker, payload_type, sequence_number, timestamp, ssrc)| {
                HeaderFields {
                    marker,
                    has_padding: false,
                    payload_type,
                    sequence_number,
                    timestamp,
                    ssrc,
                }
            })
    }

    /// Shadow parser: RFC 3550 read byte by byte, with plain indexing. Returns (header length, payload end).
    fn naive_layout(packet: &[u8]) -> Option<(usize, usize)> {
        if packet.len() < 12 || packet.len() > 65_535 || packet[0] / 64 != 2 {
            return None;
        }
        let mut at = 12 + (packet[0] as usize % 16) * 4;
        if packet[0] & 16 != 0 {
            if packet.len() < at + 4 {
                return None;
            }
            at += 4 + 4 * (packet[at + 2] as usize * 256 + packet[at + 3] as usize);
        }
        if at > packet.len() {
            return None;
        }
        let mut end = packet.len();
        if packet[0] & 32 != 0 {
            let count = packet[end - 1] as usize;
            if count == 0 || end - at < count {
                return None;
            }
            end -= count;
        }
        Some((at, end))
    }

    #[test]
    fn padding_is_validated() {
        let mut packet = [0u8; 16];
        packet[0] = 0xa0;
        packet[15] = 4;
        let header = RtpHeader::parse(&packet).expect("all four bytes are padding");
        assert_eq!((header.payload_range(), header.padding_len()), (12..12, 4));
        for bad in [0, 5, 255] {
            packet[15] = bad;
            assert_eq!(RtpHeader::parse(&packet), Err(ParseError::Padding));
            assert!(RtpHeader::parse_protected(&packet).is_ok());
        }
        // A header alone cannot hold a padding count, whatever its last byte is.
        assert_eq!(RtpHeader::parse(&packet[..12]), Err(ParseError::Padding));
    }

    #[test]
    fn a_wrong_version_or_a_short_packet_is_refused() {
        assert_eq!(RtpHeader::parse(&[0x40; 20]), Err(ParseError::Version));
        assert_eq!(RtpHeader::parse(&[0x80; 11]), Err(ParseError::Truncated));
        assert_eq!(RtpHeader::parse(&[0x81; 15]), Err(ParseError::Truncated));
        let mut packet = [0u8; 20];
        packet[0] = 0x90;
        packet[15] = 2;
        assert_eq!(RtpHeader::parse(&packet), Err(ParseError::Length));
    }

    #[test]
    fn an_extension_that_fails_leaves_no_trace() {
        let mut buf = [0u8; 24];
        let mut writer =
            HeaderWriter::new(&mut buf, &HeaderFields::default(), Form::OneByte).expect("room");
        assert_eq!(
            writer.push(15, &[1]),
            Err(WriteError::Unrepresentable("extension id or length"))
        );
        assert_eq!(writer.push(1, &[0; 9]), Err(WriteError::NoRoom));
        assert_eq!(writer.finish(), Ok(12));
        assert_eq!(
            RtpHeader::parse(&buf[..12])
                .expect("valid")
                .extension_profile,
            None
        );
    }

    proptest! {
        #[test]
        fn what_is_written_parses(
            fields in fields(),
            elements in prop::collection::vec((1u8..=255, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let extensions: Vec<_> = elements.iter().map(|(id, data)| Extension { id: *id, data }).collect();
            let mut packet = vec![0xee; 600];
            let len = write_header(&mut packet, &fields, &extensions).expect("room");
            packet.truncate(len);
            packet.extend(&payload);
            let header = RtpHeader::parse(&packet).expect("own header");
            prop_assert_eq!(header.header_len(), len);
            prop_assert_eq!(header.payload(&packet), &payload[..]);
            prop_assert_eq!(header.extensions(&packet).collect::<Vec<_>>(), extensions);
            let back = HeaderFields {
                marker: header.marker, has_padding: header.has_padding, payload_type: header.payload_type,
                sequence_number: header.sequence_number, timestamp: header.timestamp, ssrc: header.ssrc,
            };
            prop_assert_eq!(back, fields);
            for (id, _) in &elements {
                let range = header.extension_data_range(&packet, *id).expect("present");
                prop_assert_eq!(Some(&packet[range]), header.extension(&packet, *id));
            }
        }

        #[test]
        fn setters_change_their_field_only(fields in fields(), other in fields()) {
            let mut packet = [0u8; 12];
            write_header(&mut packet, &fields, &[]).expect("room");
            prop_assert!(set_sequence_number(&mut packet, other.sequence_number));
            prop_assert!(set_timestamp(&mut packet, other.timestamp));
            prop_assert!(set_payload_type(&mut packet, other.payload_type));
            let mut want = [0u8; 12];
            let mixed = HeaderFields { marker: fields.marker, ssrc: fields.ssrc, ..other };
            write_header(&mut want, &mixed, &[]).expect("room");
            prop_assert_eq!(packet, want);
            prop_assert!(set_marker(&mut packet, other.marker) && set_ssrc(&mut packet, other.ssrc));
            write_header(&mut want, &other, &[]).expect("room");
            prop_assert_eq!(packet, want);
            prop_assert!(!set_ssrc(&mut packet[..11], 0));
        }

        #[test]
        fn any_bytes_have_the_layout_of_the_shadow(
            first in 0x80u8..=0xbf, words in 0u16..6, mut packet in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            if let Some(b) = packet.first_mut() { *b = first; }
            let at = 12 + 4 * usize::from(first & 15);
            if let Some(b) = packet.get_mut(at + 2..at + 4) { b.copy_from_slice(&words.to_be_bytes()); }
            let ours = RtpHeader::parse(&packet).ok().map(|h| (h.payload_range().start, h.payload_range().end));
            prop_assert_eq!(ours, naive_layout(&packet));
        }

        #[test]
        fn no_bytes_panic(packet in prop::collection::vec(any::<u8>(), 0..200), other in prop::collection::vec(any::<u8>(), 0..30)) {
            if let Ok(header) = RtpHeader::parse(&packet) {
                for bytes in [&packet, &other] {
                    let _ = (header.payload(bytes), header.csrc(bytes, 3), header.extensions(bytes).count());
                    let _ = (header.extension(bytes, 5), header.extension_data_range(bytes, 5));
                }
            }
        }
    }
}
