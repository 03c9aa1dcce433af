//! H.264 payloads (RFC 6184): which NAL units a packet starts, from their clear headers.

use crate::ParseError;
use crate::bytes::be16;

/// NAL unit types (RFC 6184, section 5.2, and H.264 table 7-1).
pub mod nal {
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Single-time aggregation packet without decoding order number.
    pub const STAP_A: u8 = 24;
    /// Fragmentation unit without decoding order number.
    pub const FU_A: u8 = 28;
}

/// Bytes of the FU indicator and FU header.
const FU_HEADER_LEN: usize = 2;

/// How a payload carries NAL units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum H264Payload<'a> {
    /// One whole NAL unit (section 5.6).
    Single {
        /// Its type, 1–23.
        nal_type: u8,
    },
    /// Several whole NAL units (section 5.7.1).
    Aggregate(NalUnits<'a>),
    /// A part of one NAL unit (section 5.8).
    Fragment {
        /// The type of the fragmented unit, 0–31.
        nal_type: u8,
        /// S: the first part.
        start: bool,
        /// E: the last part.
        end: bool,
    },
}

impl<'a> H264Payload<'a> {
    /// Reads how an RTP payload carries NAL units. Packetization modes 0 and 1 only, as WebRTC uses (RFC 7742).
    ///
    /// # Errors
    /// [`ParseError::Truncated`]; [`ParseError::Length`] for an aggregate whose units do not fill it;
    /// [`ParseError::Value`] for other types, or a fragment that is both first and last.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ParseError> {
        let first = *payload.first().ok_or(ParseError::Truncated)?;
        match first & 0x1f {
            nal_type @ 1..=23 => Ok(Self::Single { nal_type }),
            nal::STAP_A => {
                let units = NalUnits {
                    rest: payload.get(1..).unwrap_or_default(),
                };
                if units.rest.is_empty() || units.clone().any(|unit| unit.is_empty()) {
                    return Err(ParseError::Length);
                }
                let used: usize = units.clone().map(|unit| unit.len() + 2).sum();
                if used == units.rest.len() {
                    Ok(Self::Aggregate(units))
                } else {
                    Err(ParseError::Length)
                }
            }
            nal::FU_A => {
                let header = *payload
                    .get(FU_HEADER_LEN - 1)
                    .ok_or(ParseError::Truncated)?;
                let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
                // RFC 6184, section 5.8: "the Start bit and End bit MUST NOT both be set to one".
                if start && end {
                    return Err(ParseError::Value("FU-A start and end"));
                }
                Ok(Self::Fragment {
                    nal_type: header & 0x1f,
                    start,
                    end,
                })
            }
            _ => Err(ParseError::Value("H264 packet type")),
        }
    }

    /// Whether a NAL unit of this type starts in this payload.
    #[must_use]
    pub fn starts(&self, wanted: u8) -> bool {
        match self {
            Self::Single { nal_type } => *nal_type == wanted,
            Self::Aggregate(units) => units.clone().any(|unit| nal_type(unit) == Some(wanted)),
            Self::Fragment {
                nal_type, start, ..
            } => *start && *nal_type == wanted,
        }
    }
}

/// The first whole NAL unit of a type in a payload, with its header.
#[must_use]
pub fn whole_unit(payload: &[u8], wanted: u8) -> Option<&[u8]> {
    match H264Payload::parse(payload).ok()? {
        H264Payload::Single { nal_type } => (nal_type == wanted).then_some(payload),
        H264Payload::Aggregate(mut units) => units.find(|unit| nal_type(unit) == Some(wanted)),
        H264Payload::Fragment { .. } => None,
    }
}

/// The type in a NAL unit's header.
fn nal_type(unit: &[u8]) -> Option<u8> {
    unit.first().map(|byte| byte & 0x1f)
}

/// Iterator over the NAL units of a STAP-A.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NalUnits<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(be16(self.rest, 0)?);
        let (unit, rest) = self.rest.get(2..)?.split_at_checked(len)?;
        self.rest = rest;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_frames_are_seen_in_each_form() {
        let key = |payload: &[u8]| {
            let parsed = H264Payload::parse(payload).expect("sound");
            parsed.starts(nal::SPS) || parsed.starts(nal::IDR)
        };
        assert!(key(&[0x67, 1]) && key(&[0x65, 1]) && !key(&[0x61, 1]) && !key(&[0x68, 1]));
        assert!(key(&[0x78, 0, 1, 0x67, 0, 2, 0x68, 9]));
        assert!(!key(&[0x78, 0, 1, 0x61]));
        assert!(
            key(&[0x7c, 0x85]) && !key(&[0x7c, 0x05]) && !key(&[0x7c, 0x45]) && !key(&[0x7c, 0x81])
        );
    }

    #[test]
    fn faults() {
        assert_eq!(H264Payload::parse(&[]), Err(ParseError::Truncated));
        assert_eq!(H264Payload::parse(&[0x7c]), Err(ParseError::Truncated));
        assert_eq!(
            H264Payload::parse(&[0x7c, 0xc5]),
            Err(ParseError::Value("FU-A start and end"))
        );
        for kind in [0, 25, 26, 27, 29, 30, 31] {
            assert_eq!(
                H264Payload::parse(&[kind, 0, 0]),
                Err(ParseError::Value("H264 packet type"))
            );
        }
        for aggregate in [
            &[0x78][..],
            &[0x78, 0],
            &[0x78, 0, 2, 1],
            &[0x78, 0, 0],
            &[0x78, 0, 1, 7, 0],
        ] {
            assert_eq!(
                H264Payload::parse(aggregate),
                Err(ParseError::Length),
                "{aggregate:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn aggregates_come_back(units in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..6)) {
            let mut payload = vec![0x78];
            for unit in &units {
                payload.extend((unit.len() as u16).to_be_bytes());
                payload.extend(unit);
            }
            let Ok(H264Payload::Aggregate(found)) = H264Payload::parse(&payload) else { panic!("aggregate") };
            prop_assert_eq!(found.map(<[u8]>::to_vec).collect::<Vec<_>>(), units);
        }

        #[test]
        fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..60), aggregate: bool) {
            let payload = if aggregate { [&[0x18], &payload[..]].concat() } else { payload };
            if let Ok(parsed) = H264Payload::parse(&payload) {
                let _ = parsed.starts(nal::SPS) || parsed.starts(nal::IDR);
            }
        }
    }
}
