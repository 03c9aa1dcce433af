//! Feedback messages: generic NACK, PLI (RFC 4585), FIR (RFC 5104) and REMB (draft-alvestrand-rmcat-remb-03).

use crate::ParseError;
use crate::bytes::{be16, be32};

/// Bytes of the two SSRCs that every feedback message starts with.
const SSRCS_LEN: usize = 8;

fn ssrcs(body: &[u8]) -> Result<(u32, u32), ParseError> {
    Ok((
        be32(body, 0).ok_or(ParseError::Length)?,
        be32(body, 4).ok_or(ParseError::Length)?,
    ))
}

/// A generic NACK (RFC 4585, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// The stream whose packets are missing.
    pub media_ssrc: u32,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (sender_ssrc, media_ssrc) = ssrcs(body)?;
        let entries = body.get(SSRCS_LEN..).unwrap_or_default();
        if entries.is_empty() {
            return Err(ParseError::Length);
        }
        Ok(Self {
            sender_ssrc,
            media_ssrc,
            entries,
        })
    }

    /// The missing sequence numbers, in the order asked for. A datagram may name up to 17 for each four bytes, so
    /// the caller bounds how many it answers.
    pub fn sequence_numbers(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.entries.chunks_exact(4).flat_map(|entry| {
            let first = be16(entry, 0).unwrap_or_default();
            let bitmask = be16(entry, 2).unwrap_or_default();
            // RFC 4585, section 6.2.1: bit i of the BLP is set if "RTP packet number (PID+i)" is lost, i from 1.
            let following = (0..16u16).filter(move |i| bitmask >> i & 1 == 1);
            std::iter::once(first).chain(following.map(move |i| first.wrapping_add(i + 1)))
        })
    }
}

/// A picture loss indication (RFC 4585, section 6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender_ssrc: u32,
    /// The stream that lost a picture.
    pub media_ssrc: u32,
}

impl Pli {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let (sender_ssrc, media_ssrc) = ssrcs(body)?;
        Ok(Self {
            sender_ssrc,
            media_ssrc,
        })
    }
}

/// A full intra request (RFC 5104, section 4.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [u8],
}

/// One request of a [`Fir`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirEntry {
    /// The stream that is to send an intra picture.
    pub ssrc: u32,
    /// Command sequence number; the same number again is a repetition of the same command.
    pub sequence_number: u8,
}

impl<'a> Fir<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        // RFC 5104, section 4.3.1.2: the media source SSRC "is not used and SHALL be set to 0"; some senders set it.
        let (sender_ssrc, _) = ssrcs(body)?;
        let entries = body.get(SSRCS_LEN..).unwrap_or_default();
        if entries.is_empty() || !entries.len().is_multiple_of(8) {
            return Err(ParseError::Length);
        }
        Ok(Self {
            sender_ssrc,
            entries,
        })
    }

    /// The requests.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + use<'a> {
        self.entries.chunks_exact(8).filter_map(|entry| {
            Some(FirEntry {
                ssrc: be32(entry, 0)?,
                sequence_number: *entry.get(4)?,
            })
        })
    }
}

/// The text that makes application layer feedback a REMB.
pub(crate) const REMB_MARK: &[u8; 4] = b"REMB";

/// Receiver estimated maximum bitrate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender_ssrc: u32,
    /// Estimated maximum, bits per second; saturates at 2^64 − 1.
    pub bitrate: u64,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    pub(crate) fn is_remb(body: &[u8]) -> bool {
        body.get(SSRCS_LEN..)
            .is_some_and(|rest| rest.starts_with(REMB_MARK))
    }

    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (sender_ssrc, _) = ssrcs(body)?;
        let word = be32(body, SSRCS_LEN + 4).ok_or(ParseError::Length)?;
        let count = (word >> 24) as usize;
        let (exponent, mantissa) = (word >> 18 & 0x3f, u64::from(word & 0x3_ffff));
        let bitrate = if mantissa.leading_zeros() >= exponent {
            mantissa << exponent
        } else {
            u64::MAX
        };
        let start = SSRCS_LEN + 8;
        let ssrcs = body
            .get(start..start + 4 * count)
            .ok_or(ParseError::Length)?;
        Ok(Self {
            sender_ssrc,
            bitrate,
            ssrcs,
        })
    }

    /// The streams that share the bitrate, at most 255.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.ssrcs.chunks_exact(4).filter_map(|ssrc| be32(ssrc, 0))
    }
}

/// The six-bit exponent and 18-bit mantissa of a bitrate, rounded down.
pub(crate) fn remb_bitrate(bitrate: u64) -> u32 {
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    (exponent << 18) | (bitrate >> exponent) as u32
}
