//! What an RTP payload adds to its frame, codec by codec.

use super::Codec;
use super::heads::write_leb128;
use sealcast_rtp::ParseError;
use sealcast_rtp::payload::av1::AggregationHeader;
use sealcast_rtp::payload::h264::H264Payload;
use sealcast_rtp::payload::vp8::Vp8Descriptor;
use sealcast_rtp::payload::vp9::Vp9Descriptor;

/// `obu_extension_flag` and `obu_has_size_field` in the first byte of an OBU.
const OBU_EXTENSION: u8 = 0b100;
const OBU_HAS_SIZE: u8 = 0b10;
/// Annex B of ITU-T H.264.
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Type bits of a NAL unit header.
const NAL_TYPE: u8 = 0x1f;

/// Bytes of a frame under construction.
#[derive(Default)]
pub(super) struct Unpacked {
    pub(super) data: Vec<u8>,
    /// An AV1 OBU of which more is to come.
    obu: Vec<u8>,
}

impl Unpacked {
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.obu.clear();
    }

    /// Whether a payload starts a frame; `begun` says that something of its frame was there.
    pub(super) fn starts(codec: Codec, payload: &[u8], begun: bool) -> Result<bool, ParseError> {
        Ok(match codec {
            Codec::Opus => true,
            Codec::Vp8 => Vp8Descriptor::parse(payload)?.is_frame_start(),
            Codec::Vp9 => Vp9Descriptor::parse(payload)?.frame_start,
            Codec::Av1 => !begun && !AggregationHeader::parse(payload)?.continues,
            Codec::H264 => {
                let part = H264Payload::parse(payload)?;
                !begun && !matches!(part, H264Payload::Fragment { start: false, .. })
            }
        })
    }

    /// Appends what a payload holds.
    pub(super) fn append(&mut self, codec: Codec, payload: &[u8]) -> Result<(), ParseError> {
        match codec {
            Codec::Opus => self.data.extend_from_slice(payload),
            Codec::Vp8 => {
                let len = Vp8Descriptor::parse(payload)?.len();
                self.data
                    .extend_from_slice(payload.get(len..).unwrap_or_default());
            }
            Codec::Vp9 => {
                let len = Vp9Descriptor::parse(payload)?.len();
                self.data
                    .extend_from_slice(payload.get(len..).unwrap_or_default());
            }
            Codec::Av1 => self.append_av1(payload)?,
            Codec::H264 => self.append_h264(payload)?,
        }
        Ok(())
    }

    fn append_av1(&mut self, payload: &[u8]) -> Result<(), ParseError> {
        let header = AggregationHeader::parse(payload)?;
        let mut elements = header.elements(payload).peekable();
        let mut first = true;
        while let Some(element) = elements.next() {
            if !(first && header.continues) {
                self.obu.clear();
            }
            first = false;
            self.obu.extend_from_slice(element?);
            if elements.peek().is_some() || !header.will_continue {
                self.end_obu();
            }
        }
        Ok(())
    }

    /// "OBUs [..] SHOULD [..] be without size" on the wire (AV1 RTP §5): here they get it back.
    fn end_obu(&mut self) {
        let Some((first, rest)) = self.obu.split_first() else {
            return;
        };
        let extension = usize::from(first & OBU_EXTENSION != 0);
        let (extension, payload) = rest.split_at_checked(extension).unwrap_or((rest, &[]));
        if first & OBU_HAS_SIZE != 0 {
            self.data.extend_from_slice(&self.obu);
        } else {
            self.data.push(first | OBU_HAS_SIZE);
            self.data.extend_from_slice(extension);
            write_leb128(payload.len(), &mut self.data);
            self.data.extend_from_slice(payload);
        }
        self.obu.clear();
    }

    fn append_h264(&mut self, payload: &[u8]) -> Result<(), ParseError> {
        match H264Payload::parse(payload)? {
            H264Payload::Single { .. } => {
                self.data.extend_from_slice(&START_CODE);
                self.data.extend_from_slice(payload);
            }
            H264Payload::Aggregate(units) => {
                for unit in units {
                    self.data.extend_from_slice(&START_CODE);
                    self.data.extend_from_slice(unit);
                }
            }
            H264Payload::Fragment { start, .. } => {
                let (head, part) = payload.split_at_checked(2).ok_or(ParseError::Truncated)?;
                if let (true, [indicator, header]) = (start, head) {
                    // RFC 6184 §5.8: the unit's header is F and NRI of the one and type of the other.
                    self.data.extend_from_slice(&START_CODE);
                    self.data.push(indicator & !NAL_TYPE | header & NAL_TYPE);
                }
                self.data.extend_from_slice(part);
            }
        }
        Ok(())
    }
}
