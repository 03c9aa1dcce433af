//! Congestion control feedback (RFC 8888).

use crate::ParseError;
use crate::bytes::{be16, be32};

/// RFC 8888, section 3.1: "MUST NOT include more than 16384" reports for one SSRC.
pub(super) const MAX_REPORTS_PER_SSRC: usize = 16_384;
/// Bytes of a block's header: SSRC, first sequence number, number of reports.
const BLOCK_HEADER_LEN: usize = 8;

/// A congestion control feedback packet. Its blocks were checked when it was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CongestionFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// When the report was made: the middle 32 bits of the reporter's NTP time.
    pub report_timestamp: u32,
    blocks: &'a [u8],
}

/// Explicit congestion notification of a received packet (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// Not ECN-capable transport.
    NotEct,
    /// ECT(1).
    Ect1,
    /// ECT(0).
    Ect0,
    /// Congestion experienced.
    Ce,
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CongestionReport {
    /// The stream.
    pub ssrc: u32,
    /// RTP sequence number.
    pub sequence_number: u16,
    /// ECN marking if it arrived, `None` if it is reported lost.
    pub received: Option<Ecn>,
    /// Time from arrival to [`CongestionFeedback::report_timestamp`] in 1/1,024 s, 0–8,189; `None` if lost, beyond
    /// that range, or not available.
    pub arrival_offset: Option<u16>,
}

impl<'a> CongestionFeedback<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let sender_ssrc = be32(body, 0).ok_or(ParseError::Length)?;
        let end = body
            .len()
            .checked_sub(4)
            .filter(|end| *end >= 4)
            .ok_or(ParseError::Length)?;
        let report_timestamp = be32(body, end).ok_or(ParseError::Length)?;
        let blocks = body.get(4..end).unwrap_or_default();
        let mut rest = blocks;
        while !rest.is_empty() {
            (_, rest) = Block::split(rest)?;
        }
        Ok(Self {
            sender_ssrc,
            report_timestamp,
            blocks,
        })
    }

    /// All reports of all streams. Bounded by the datagram: one for every two bytes.
    pub fn reports(&self) -> impl Iterator<Item = CongestionReport> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let block;
            (block, rest) = Block::split(rest).ok()?;
            Some(block)
        })
        .flat_map(Block::reports)
    }
}

/// Longest time before the report that is told. RFC 8888, section 3.1: longer ones are 0x1FFE.
const MAX_OFFSET: u16 = 0x1ffd;

/// The metric block of a packet without ECN: bit 15 says that it arrived.
pub(super) fn report_word(offset: Option<u16>) -> u16 {
    match offset {
        None => 0,
        Some(offset) if offset > MAX_OFFSET => 0x8000 | 0x1ffe,
        Some(offset) => 0x8000 | offset,
    }
}

/// The reports of one stream.
struct Block<'a> {
    ssrc: u32,
    begin: u16,
    reports: &'a [u8],
}

impl<'a> Block<'a> {
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let ssrc = be32(bytes, 0).ok_or(ParseError::Length)?;
        let begin = be16(bytes, 4).ok_or(ParseError::Length)?;
        let count = usize::from(be16(bytes, 6).ok_or(ParseError::Length)?);
        if count > MAX_REPORTS_PER_SSRC {
            return Err(ParseError::Value("number of reports"));
        }
        let reports = bytes
            .get(BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + 2 * count)
            .ok_or(ParseError::Length)?;
        // RFC 8888, section 3.1: an odd number of reports is followed by 16 bits of zero padding.
        let end = BLOCK_HEADER_LEN + 4 * count.div_ceil(2);
        let rest = bytes.get(end..).ok_or(ParseError::Length)?;
        Ok((
            Self {
                ssrc,
                begin,
                reports,
            },
            rest,
        ))
    }

    fn reports(self) -> impl Iterator<Item = CongestionReport> + use<'a> {
        let Self {
            ssrc,
            begin,
            reports,
        } = self;
        reports
            .chunks_exact(2)
            .zip(0u16..)
            .map(move |(report, index)| {
                let word = be16(report, 0).unwrap_or_default();
                let received = (word & 0x8000 != 0).then_some(match word >> 13 & 3 {
                    0 => Ecn::NotEct,
                    1 => Ecn::Ect1,
                    2 => Ecn::Ect0,
                    _ => Ecn::Ce,
                });
                // RFC 8888, section 3.1: 0x1FFE is "over-range", 0x1FFF is "not available".
                let offset = word & 0x1fff;
                let arrival_offset = (received.is_some() && offset < 0x1ffe).then_some(offset);
                CongestionReport {
                    ssrc,
                    sequence_number: begin.wrapping_add(index),
                    received,
                    arrival_offset,
                }
            })
    }
}
