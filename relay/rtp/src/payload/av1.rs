//! AV1 aggregation header and OBU elements (RTP Payload Format For AV1, section 4).

use crate::ParseError;

/// OBU types (AV1 bitstream specification, section 6.2.2).
pub mod obu {
    /// Sequence header.
    pub const SEQUENCE_HEADER: u8 = 1;
    /// Temporal delimiter; it should not be sent over RTP.
    pub const TEMPORAL_DELIMITER: u8 = 2;
    /// Frame header.
    pub const FRAME_HEADER: u8 = 3;
    /// Metadata.
    pub const METADATA: u8 = 5;
    /// Frame.
    pub const FRAME: u8 = 6;
}

/// The first byte of an AV1 payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AggregationHeader {
    /// Z: the first OBU element continues one of the previous packet.
    pub continues: bool,
    /// Y: the last OBU element continues in the next packet.
    pub will_continue: bool,
    /// W: number of OBU elements, 1–3, of which the last has no length; 0 if each has a length.
    pub element_count: u8,
    /// N: the packet is the first of a coded video sequence, that is, of a key frame with a sequence header.
    pub new_sequence: bool,
}

impl AggregationHeader {
    /// Reads the header at the start of an RTP payload.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], or [`ParseError::Value`] for N together with Z.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let byte = *payload.first().ok_or(ParseError::Truncated)?;
        let header = Self {
            continues: byte & 0x80 != 0,
            will_continue: byte & 0x40 != 0,
            element_count: byte >> 4 & 3,
            new_sequence: byte & 0x08 != 0,
        };
        // Section 4.4: "if N equals 1 then Z must equal 0".
        if header.new_sequence && header.continues {
            return Err(ParseError::Value("AV1 aggregation header"));
        }
        Ok(header)
    }

    /// The header's byte. `element_count` is reduced to two bits.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        (self.continues as u8) << 7
            | (self.will_continue as u8) << 6
            | (self.element_count & 3) << 4
            | (self.new_sequence as u8) << 3
    }

    /// The OBU elements of the payload that this header starts.
    #[must_use]
    pub fn elements<'a>(&self, payload: &'a [u8]) -> ObuElements<'a> {
        let rest = payload.get(1..).unwrap_or_default();
        ObuElements {
            rest,
            before_last: self.element_count.checked_sub(1),
        }
    }
}

/// Iterator over OBU elements; it yields one error and ends where lengths do not fit the payload.
#[derive(Debug, Clone)]
pub struct ObuElements<'a> {
    rest: &'a [u8],
    /// Elements before the one without a length; `None` if all have lengths.
    before_last: Option<u8>,
}

impl<'a> Iterator for ObuElements<'a> {
    type Item = Result<&'a [u8], ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if self.before_last == Some(0) {
            return Some(Ok(std::mem::take(&mut self.rest)));
        }
        self.before_last = self.before_last.map(|left| left - 1);
        let split = leb128(self.rest).and_then(|(len, taken)| {
            self.rest
                .get(taken..)?
                .split_at_checked(usize::try_from(len).ok()?)
        });
        match split {
            Some((element, rest)) => {
                self.rest = rest;
                Some(Ok(element))
            }
            None => {
                self.rest = &[];
                Some(Err(ParseError::Length))
            }
        }
    }
}

/// The type of the OBU that an element starts with; meaningless for an element that continues another.
#[inline]
#[must_use]
pub fn obu_type(element: &[u8]) -> Option<u8> {
    element.first().map(|byte| byte >> 3 & 0x0f)
}

/// Reads a leb128 value (AV1 bitstream specification, section 4.10.5): the value and how many bytes it takes.
#[must_use]
pub fn leb128(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // Section 4.10.5: "It is a requirement of bitstream conformance that the value returned from the leb128
            // parsing process is less than or equal to (1 << 32) - 1."
            return Some((u32::try_from(value).ok()?, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_leb128(out: &mut Vec<u8>, mut value: usize) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    #[test]
    fn a_sequence_cannot_start_in_the_middle_of_an_obu() {
        assert_eq!(
            AggregationHeader::parse(&[0x88]),
            Err(ParseError::Value("AV1 aggregation header"))
        );
        assert_eq!(AggregationHeader::parse(&[]), Err(ParseError::Truncated));
    }

    #[test]
    fn leb128_is_bounded() {
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX, 5)));
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(leb128(&[0x80; 9]), None);
        assert_eq!(leb128(&[0x80, 0x80, 0x00]), Some((0, 3)));
    }

    #[test]
    fn an_element_longer_than_the_payload_is_an_error_once() {
        let payload = [0x00, 1, 0x0a, 5, 1, 2];
        let elements: Vec<_> = AggregationHeader::parse(&payload)
            .expect("header")
            .elements(&payload)
            .collect();
        assert_eq!(elements, [Ok(&[0x0a][..]), Err(ParseError::Length)]);
        assert_eq!(obu_type(&[0x0a]), Some(obu::SEQUENCE_HEADER));
    }

    proptest! {
        #[test]
        fn elements_come_back(
            flags: (bool, bool, bool), counted: bool,
            elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..4),
        ) {
            let header = AggregationHeader {
                continues: flags.0 && !flags.2, will_continue: flags.1, new_sequence: flags.2,
                element_count: if counted { elements.len() as u8 } else { 0 },
            };
            let mut payload = vec![header.to_byte()];
            for (i, element) in elements.iter().enumerate() {
                if !counted || i + 1 < elements.len() {
                    put_leb128(&mut payload, element.len());
                }
                payload.extend(element);
            }
            prop_assert_eq!(AggregationHeader::parse(&payload), Ok(header));
            let found: Vec<_> = header.elements(&payload).map(|e| e.expect("sound").to_vec()).collect();
            prop_assert_eq!(found, elements);
        }

        #[test]
        fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(header) = AggregationHeader::parse(&payload) {
                prop_assert!(header.elements(&payload).count() <= payload.len());
            }
        }
    }
}
