//! Writing compound and reduced-size RTCP into a caller's slice.

use super::ccfb;
use super::feedback::{REMB_MARK, remb_bitrate};
use super::report::{REPORT_BLOCK_LEN, SDES_CNAME};
use super::twcc::{self, BuiltFeedback, TransportFeedbackFields};
use super::{FirEntry, Pli, ReportBlock, SenderInfo, format, packet_type};
use crate::WriteError;
use crate::bytes::Out;

/// Most report blocks, sources or chunks in one packet: the count has five bits.
pub const MAX_COUNT: usize = 31;

/// Appends RTCP packets to a caller's slice.
///
/// Each method appends one packet whole, or returns an error and leaves what was written before untouched. The caller
/// chooses the order: RFC 3550 wants a compound to start with a report, RFC 5506 allows feedback alone.
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    out: Out<'a>,
    limit: usize,
}

impl<'a> RtcpWriter<'a> {
    /// A writer with all of `out` as room.
    #[must_use]
    pub fn new(out: &'a mut [u8]) -> Self {
        let limit = out.len();
        Self {
            out: Out::new(out),
            limit,
        }
    }

    /// Bytes written so far; a multiple of four.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that may still be written.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit - self.len()
    }

    /// Appends a sender report (RFC 3550, section 6.4.1) with up to 31 blocks.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for more than 31 blocks.
    pub fn sender_report(
        &mut self,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Result<(), WriteError> {
        let count = five_bits(blocks.len(), "report blocks")?;
        self.packet(packet_type::SR, count, |out| {
            out.put32(info.ssrc)?;
            out.put(&info.ntp.0.to_be_bytes())?;
            out.put32(info.rtp_timestamp)?;
            out.put32(info.packet_count)?;
            out.put32(info.octet_count)?;
            put_blocks(out, blocks)
        })
    }

    /// Appends a receiver report (RFC 3550, section 6.4.2) with up to 31 blocks.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for more than 31 blocks.
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> Result<(), WriteError> {
        let count = five_bits(blocks.len(), "report blocks")?;
        self.packet(packet_type::RR, count, |out| {
            out.put32(ssrc)?;
            put_blocks(out, blocks)
        })
    }

    /// Appends a source description (RFC 3550, section 6.5) with one canonical name.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for a name over 255 bytes.
    pub fn sdes_cname(&mut self, ssrc: u32, cname: &[u8]) -> Result<(), WriteError> {
        let len =
            u8::try_from(cname.len()).map_err(|_| WriteError::Unrepresentable("CNAME length"))?;
        self.packet(packet_type::SDES, 1, |out| {
            out.put32(ssrc)?;
            out.put(&[SDES_CNAME, len])?;
            out.put(cname)?;
            // The item list ends with a null octet, then `packet` pads with more of them.
            out.put8(0)
        })
    }

    /// Appends a goodbye (RFC 3550, section 6.6) for up to 31 sources; an empty `reason` is left out.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for over 31 sources or 255 bytes of reason.
    pub fn bye(&mut self, ssrcs: &[u32], reason: &[u8]) -> Result<(), WriteError> {
        let count = five_bits(ssrcs.len(), "sources")?;
        let len =
            u8::try_from(reason.len()).map_err(|_| WriteError::Unrepresentable("reason length"))?;
        self.packet(packet_type::BYE, count, |out| {
            for ssrc in ssrcs {
                out.put32(*ssrc)?;
            }
            if len > 0 {
                out.put8(len)?;
                out.put(reason)?;
            }
            Ok(())
        })
    }

    /// Appends a generic NACK (RFC 4585, section 6.2.1). Numbers that lie within 16 above their predecessor share an
    /// entry, so ascending order gives the shortest packet. Nothing is written for no numbers.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`].
    pub fn nack(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        sequence_numbers: impl IntoIterator<Item = u16>,
    ) -> Result<(), WriteError> {
        let mut numbers = sequence_numbers.into_iter();
        let Some(mut first) = numbers.next() else {
            return Ok(());
        };
        self.packet(packet_type::RTPFB, format::NACK, |out| {
            out.put32(sender_ssrc)?;
            out.put32(media_ssrc)?;
            let mut bitmask = 0u16;
            for number in numbers {
                match number.wrapping_sub(first) {
                    0 => {}
                    ahead @ 1..=16 => bitmask |= 1 << (ahead - 1),
                    _ => {
                        out.put16(first)?;
                        out.put16(bitmask)?;
                        (first, bitmask) = (number, 0);
                    }
                }
            }
            out.put16(first)?;
            out.put16(bitmask)
        })
    }

    /// Appends a picture loss indication (RFC 4585, section 6.3.1).
    ///
    /// # Errors
    /// [`WriteError::NoRoom`].
    pub fn pli(&mut self, pli: Pli) -> Result<(), WriteError> {
        self.packet(packet_type::PSFB, format::PLI, |out| {
            out.put32(pli.sender_ssrc)?;
            out.put32(pli.media_ssrc)
        })
    }

    /// Appends a full intra request (RFC 5104, section 4.3.1).
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] without entries.
    pub fn fir(&mut self, sender_ssrc: u32, entries: &[FirEntry]) -> Result<(), WriteError> {
        if entries.is_empty() {
            return Err(WriteError::Unrepresentable("FIR without entries"));
        }
        self.packet(packet_type::PSFB, format::FIR, |out| {
            out.put32(sender_ssrc)?;
            // RFC 5104, section 4.3.1.2: "the SSRC of media source is not used and SHALL be set to 0".
            out.put32(0)?;
            for entry in entries {
                out.put32(entry.ssrc)?;
                out.put(&[entry.sequence_number, 0, 0, 0])?;
            }
            Ok(())
        })
    }

    /// Appends a REMB for `bitrate` bits per second, rounded down to 18 significant bits, over up to 255 streams.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for over 255 streams.
    pub fn remb(
        &mut self,
        sender_ssrc: u32,
        bitrate: u64,
        ssrcs: &[u32],
    ) -> Result<(), WriteError> {
        let count =
            u8::try_from(ssrcs.len()).map_err(|_| WriteError::Unrepresentable("REMB streams"))?;
        self.packet(packet_type::PSFB, format::AFB, |out| {
            out.put32(sender_ssrc)?;
            out.put32(0)?;
            out.put(REMB_MARK)?;
            out.put32(u32::from(count) << 24 | remb_bitrate(bitrate))?;
            for ssrc in ssrcs {
                out.put32(*ssrc)?;
            }
            Ok(())
        })
    }

    /// Appends transport-wide feedback on `arrivals`, starting at `fields.base_sequence_number`: microseconds on a
    /// clock of the caller's, or `None` for a packet that has not arrived. Covers as many as fit the room and the
    /// format; the result says how many.
    ///
    /// Reordered arrivals (a time before its predecessor's) are representable down to −8 s.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if `arrivals` is empty or not one of them fits.
    pub fn transport_feedback(
        &mut self,
        fields: &TransportFeedbackFields,
        arrivals: &[Option<i64>],
    ) -> Result<BuiltFeedback, WriteError> {
        let room = self.room().saturating_sub(4);
        let mut built = BuiltFeedback { consumed: 0 };
        self.packet(packet_type::RTPFB, format::TWCC, |out| {
            built = twcc::write_body(out, fields, arrivals, room)?;
            Ok(())
        })?;
        Ok(built)
    }

    /// Appends congestion control feedback (RFC 8888, section 3.1) on the packets of one stream from `begin` on: how
    /// long before `report_timestamp` each arrived, in 1/1,024 s, or `None` for one that has not. ECN is not told.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], or [`WriteError::Unrepresentable`] for over 16,384 packets.
    pub fn congestion_feedback(
        &mut self,
        sender_ssrc: u32,
        report_timestamp: u32,
        ssrc: u32,
        begin: u16,
        offsets: &[Option<u16>],
    ) -> Result<(), WriteError> {
        let count = u16::try_from(offsets.len())
            .ok()
            .filter(|count| usize::from(*count) <= ccfb::MAX_REPORTS_PER_SSRC)
            .ok_or(WriteError::Unrepresentable("congestion reports"))?;
        self.packet(packet_type::RTPFB, format::CCFB, |out| {
            out.put32(sender_ssrc)?;
            out.put32(ssrc)?;
            out.put16(begin)?;
            out.put16(count)?;
            for offset in offsets {
                out.put16(ccfb::report_word(*offset))?;
            }
            // RFC 8888, section 3.1: an odd number of reports is followed by 16 bits of zero padding.
            if count % 2 == 1 {
                out.put16(0)?;
            }
            out.put32(report_timestamp)
        })
    }

    /// Ends writing and returns the number of bytes written.
    #[must_use]
    pub fn finish(self) -> usize {
        self.out.len()
    }

    /// Writes a common header, the body, and null octets up to a whole word.
    fn packet(
        &mut self,
        packet_type: u8,
        format: u8,
        body: impl FnOnce(&mut Out<'a>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let start = self.out.len();
        let result = Self::try_packet(&mut self.out, start, packet_type, format, body);
        if result.is_err() {
            self.out.truncate(start);
        }
        result
    }

    fn try_packet(
        out: &mut Out<'a>,
        start: usize,
        packet_type: u8,
        format: u8,
        body: impl FnOnce(&mut Out<'a>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        out.put(&[2 << 6 | format, packet_type, 0, 0])?;
        body(out)?;
        out.pad_to_word(start)?;
        let words = (out.len() - start) / 4 - 1;
        let words = u16::try_from(words).map_err(|_| WriteError::Unrepresentable("RTCP length"))?;
        out.patch(start + 2, &words.to_be_bytes())
    }
}

fn five_bits(count: usize, field: &'static str) -> Result<u8, WriteError> {
    u8::try_from(count)
        .ok()
        .filter(|c| usize::from(*c) <= MAX_COUNT)
        .ok_or(WriteError::Unrepresentable(field))
}

fn put_blocks(out: &mut Out<'_>, blocks: &[ReportBlock]) -> Result<(), WriteError> {
    for block in blocks {
        let bytes: [u8; REPORT_BLOCK_LEN] = block.to_bytes();
        out.put(&bytes)?;
    }
    Ok(())
}
