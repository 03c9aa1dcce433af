//! Sender and receiver reports, source descriptions and goodbyes (RFC 3550, sections 6.4 to 6.6).

use crate::bytes::{be24, be32, be64};
use crate::{NtpTime, ParseError};

/// Bytes of a report block on the wire.
pub(crate) const REPORT_BLOCK_LEN: usize = 24;
/// Bytes of the sender information on the wire, without the SSRC.
const SENDER_INFO_LEN: usize = 20;
/// SDES item type of the canonical name.
pub(crate) const SDES_CNAME: u8 = 1;

/// What a sender says about its own stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// The stream.
    pub ssrc: u32,
    /// Wall clock at which the report was sent.
    pub ntp: NtpTime,
    /// The same instant in the units of the RTP timestamp.
    pub rtp_timestamp: u32,
    /// RTP packets sent since the start, modulo 2^32.
    pub packet_count: u32,
    /// Payload octets sent since the start, modulo 2^32, without headers and padding.
    pub octet_count: u32,
}

/// What a receiver says about one stream that it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The stream that is reported on.
    pub ssrc: u32,
    /// Share of packets lost since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start, −8,388,608..=8,388,607; negative with duplicates.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with the count of cycles in the upper 16 bits.
    pub highest_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report received, or 0.
    pub last_sr: u32,
    /// Time since that report arrived, in 1/65,536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn parse(block: &[u8]) -> Option<Self> {
        let lost = be24(block, 5)?;
        Some(Self {
            ssrc: be32(block, 0)?,
            fraction_lost: *block.get(4)?,
            // 24-bit two's complement: shift up to the sign bit and back.
            cumulative_lost: ((lost << 8) as i32) >> 8,
            highest_sequence: be32(block, 8)?,
            jitter: be32(block, 12)?,
            last_sr: be32(block, 16)?,
            delay_since_last_sr: be32(block, 20)?,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; REPORT_BLOCK_LEN] {
        let mut out = [0; REPORT_BLOCK_LEN];
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0x00ff_ffff;
        let words = [
            self.ssrc,
            (u32::from(self.fraction_lost) << 24) | lost,
            self.highest_sequence,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ];
        for (place, word) in out.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        out
    }
}

fn report_blocks(bytes: &[u8]) -> impl Iterator<Item = ReportBlock> + '_ {
    bytes
        .chunks_exact(REPORT_BLOCK_LEN)
        .filter_map(ReportBlock::parse)
}

/// A sender report (RFC 3550, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport<'a> {
    /// The sender's own part.
    pub info: SenderInfo,
    blocks: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(crate) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let start = 4 + SENDER_INFO_LEN;
        // Bytes after the blocks are a profile's extension (section 6.4.3) and ignored.
        let blocks = body
            .get(start..start + REPORT_BLOCK_LEN * usize::from(count))
            .ok_or(ParseError::Length)?;
        let info = Self::info(body).ok_or(ParseError::Length)?;
        Ok(Self { info, blocks })
    }

    fn info(body: &[u8]) -> Option<SenderInfo> {
        Some(SenderInfo {
            ssrc: be32(body, 0)?,
            ntp: NtpTime(be64(body, 4)?),
            rtp_timestamp: be32(body, 12)?,
            packet_count: be32(body, 16)?,
            octet_count: be32(body, 20)?,
        })
    }

    /// The report blocks, at most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        report_blocks(self.blocks)
    }
}

/// A receiver report (RFC 3550, section 6.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(crate) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let ssrc = be32(body, 0).ok_or(ParseError::Length)?;
        let blocks = body
            .get(4..4 + REPORT_BLOCK_LEN * usize::from(count))
            .ok_or(ParseError::Length)?;
        Ok(Self { ssrc, blocks })
    }

    /// The report blocks, at most 31.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        report_blocks(self.blocks)
    }
}

/// A source description (RFC 3550, section 6.5). Its chunks were checked when it was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sdes<'a> {
    count: u8,
    body: &'a [u8],
}

/// One item of a source description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesItem<'a> {
    /// The source described.
    pub ssrc: u32,
    /// Item type; 1 is CNAME.
    pub kind: u8,
    /// The item's text, 0–255 bytes.
    pub value: &'a [u8],
}

impl<'a> Sdes<'a> {
    pub(crate) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let mut items = SdesItems::new(count, body);
        while items.step()?.is_some() {}
        Ok(Self { count, body })
    }

    /// All items of all chunks.
    pub fn items(&self) -> impl Iterator<Item = SdesItem<'a>> + use<'a> {
        let mut items = SdesItems::new(self.count, self.body);
        std::iter::from_fn(move || items.step().ok().flatten())
    }

    /// The sources and their canonical names.
    pub fn cnames(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        self.items()
            .filter(|item| item.kind == SDES_CNAME)
            .map(|item| (item.ssrc, item.value))
    }
}

/// Cursor over the items of a source description.
struct SdesItems<'a> {
    chunks_left: u8,
    body: &'a [u8],
    at: usize,
    ssrc: Option<u32>,
}

impl<'a> SdesItems<'a> {
    fn new(count: u8, body: &'a [u8]) -> Self {
        Self {
            chunks_left: count,
            body,
            at: 0,
            ssrc: None,
        }
    }

    fn step(&mut self) -> Result<Option<SdesItem<'a>>, ParseError> {
        loop {
            let Some(ssrc) = self.ssrc else {
                if self.chunks_left == 0 {
                    return Ok(None);
                }
                self.ssrc = Some(be32(self.body, self.at).ok_or(ParseError::Length)?);
                self.chunks_left -= 1;
                self.at += 4;
                continue;
            };
            let kind = *self.body.get(self.at).ok_or(ParseError::Length)?;
            if kind == 0 {
                // RFC 3550, section 6.5: a chunk's items end with one or more null octets up to "the next 32-bit
                // boundary".
                self.at = (self.at + 4) & !3;
                self.ssrc = None;
                continue;
            }
            let len = usize::from(*self.body.get(self.at + 1).ok_or(ParseError::Length)?);
            let start = self.at + 2;
            let value = self
                .body
                .get(start..start + len)
                .ok_or(ParseError::Length)?;
            self.at = start + len;
            return Ok(Some(SdesItem { ssrc, kind, value }));
        }
    }
}

/// A goodbye (RFC 3550, section 6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bye<'a> {
    sources: &'a [u8],
    /// Why the sources leave; empty if not said.
    pub reason: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(crate) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let (sources, rest) = body
            .split_at_checked(4 * usize::from(count))
            .ok_or(ParseError::Length)?;
        let reason = match rest.split_first() {
            None => &[][..],
            Some((len, text)) => text.get(..usize::from(*len)).ok_or(ParseError::Length)?,
        };
        Ok(Self { sources, reason })
    }

    /// The sources that leave, at most 31.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources
            .chunks_exact(4)
            .filter_map(|ssrc| be32(ssrc, 0))
    }
}
