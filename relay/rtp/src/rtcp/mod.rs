//! RTCP: compound (RFC 3550) and reduced-size (RFC 5506) packets.
//!
//! [`Compound::parse`] checks the framing of the whole datagram; [`Compound::iter`] then yields each packet, or what
//! is wrong with that one packet, so that one bad report costs no other. Packet types that the relay has no use for
//! (XR, APP and whatever comes) are yielded as [`Packet::Other`], to be counted.

mod ccfb;
mod feedback;
mod report;
mod twcc;
mod write;

pub use ccfb::{CongestionFeedback, CongestionReport, Ecn};
pub use feedback::{Fir, FirEntry, Nack, Pli, Remb};
pub use report::{Bye, ReceiverReport, ReportBlock, Sdes, SdesItem, SenderInfo, SenderReport};
pub use twcc::{
    BuiltFeedback, DELTA_TICK_MICROS, REFERENCE_TICK_MICROS, TransportFeedback,
    TransportFeedbackFields,
};
pub use write::{MAX_COUNT, RtcpWriter};

use crate::ParseError;
use crate::bytes::be16;

/// Packet types (RFC 3550, section 12.1, and RFC 4585, section 6.1).
pub mod packet_type {
    /// Sender report.
    pub const SR: u8 = 200;
    /// Receiver report.
    pub const RR: u8 = 201;
    /// Source description.
    pub const SDES: u8 = 202;
    /// Goodbye.
    pub const BYE: u8 = 203;
    /// Application-defined.
    pub const APP: u8 = 204;
    /// Transport layer feedback.
    pub const RTPFB: u8 = 205;
    /// Payload-specific feedback.
    pub const PSFB: u8 = 206;
    /// Extended report (RFC 3611).
    pub const XR: u8 = 207;
}

/// Feedback message types, in the five bits that other packets use for a count.
pub(crate) mod format {
    /// Generic NACK, RTPFB (RFC 4585, section 6.2.1).
    pub(crate) const NACK: u8 = 1;
    /// Congestion control feedback, RTPFB (RFC 8888, section 3.1).
    pub(crate) const CCFB: u8 = 11;
    /// Transport-wide feedback, RTPFB.
    pub(crate) const TWCC: u8 = 15;
    /// Picture loss indication, PSFB (RFC 4585, section 6.3.1).
    pub(crate) const PLI: u8 = 1;
    /// Full intra request, PSFB (RFC 5104, section 4.3.1).
    pub(crate) const FIR: u8 = 4;
    /// Application layer feedback, PSFB; REMB lives here.
    pub(crate) const AFB: u8 = 15;
}

/// One RTCP packet of a compound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packet<'a> {
    /// Sender report.
    SenderReport(SenderReport<'a>),
    /// Receiver report.
    ReceiverReport(ReceiverReport<'a>),
    /// Source description.
    Sdes(Sdes<'a>),
    /// Goodbye.
    Bye(Bye<'a>),
    /// Generic NACK.
    Nack(Nack<'a>),
    /// Transport-wide congestion control feedback.
    TransportFeedback(TransportFeedback<'a>),
    /// Congestion control feedback (RFC 8888).
    CongestionFeedback(CongestionFeedback<'a>),
    /// Picture loss indication.
    Pli(Pli),
    /// Full intra request.
    Fir(Fir<'a>),
    /// Receiver estimated maximum bitrate.
    Remb(Remb<'a>),
    /// A well-framed packet that this crate does not interpret.
    Other {
        /// The packet type, 192–223.
        packet_type: u8,
        /// The count, or the feedback message type, 0–31.
        format: u8,
    },
}

/// A datagram of RTCP packets whose framing is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compound<'a> {
    bytes: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Checks that the datagram is a row of whole RTCP packets.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] (empty, or a packet is cut off), [`ParseError::Version`],
    /// [`ParseError::Value`] for a packet type that RFC 5761 gives to RTP.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut rest = bytes;
        loop {
            (_, rest) = Frame::split(rest)?;
            if rest.is_empty() {
                return Ok(Self { bytes });
            }
        }
    }

    /// Whether this is a reduced-size packet (RFC 5506): one that does not start with a sender or receiver report.
    #[must_use]
    pub fn is_reduced_size(&self) -> bool {
        !matches!(
            self.bytes.get(1),
            Some(&(packet_type::SR | packet_type::RR))
        )
    }

    /// The packets in order, each parsed or with its own error.
    #[must_use]
    pub fn iter(&self) -> Packets<'a> {
        Packets { rest: self.bytes }
    }
}

impl<'a> IntoIterator for Compound<'a> {
    type Item = Result<Packet<'a>, ParseError>;
    type IntoIter = Packets<'a>;

    fn into_iter(self) -> Packets<'a> {
        self.iter()
    }
}

/// Iterator over the packets of a [`Compound`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        // `Compound::parse` has seen every frame, so the error is unreachable; ending is right all the same.
        let (frame, rest) = Frame::split(self.rest).ok()?;
        self.rest = rest;
        Some(frame.packet())
    }
}

/// The common header of RTCP packets and what its length covers.
struct Frame<'a> {
    packet_type: u8,
    format: u8,
    padded: bool,
    content: &'a [u8],
}

impl<'a> Frame<'a> {
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let &[first, packet_type, ..] = bytes else {
            return Err(ParseError::Truncated);
        };
        if first >> 6 != 2 {
            return Err(ParseError::Version);
        }
        if !crate::demux::is_rtcp_packet_type(packet_type) {
            return Err(ParseError::Value("RTCP packet type"));
        }
        // RFC 3550, section 6.4.1: "The length of this RTCP packet in 32-bit words minus one".
        let len = 4 * (usize::from(be16(bytes, 2).ok_or(ParseError::Truncated)?) + 1);
        let (packet, rest) = bytes.split_at_checked(len).ok_or(ParseError::Truncated)?;
        Ok((
            Self {
                packet_type,
                format: first & 0x1f,
                padded: first & 0x20 != 0,
                content: packet.get(4..).unwrap_or_default(),
            },
            rest,
        ))
    }

    /// What the packet says, without padding.
    ///
    /// RFC 3550, section 6.4.1, has the count of padding octets be "a multiple of four", and padding on the last
    /// packet of a compound only. libwebrtc obeys neither: it pads transport-wide feedback up to a word, by one to
    /// three octets under the padding bit, and combines it with others in any order. The count is unambiguous all the
    /// same, so any is taken that the packet can hold, on any packet.
    fn body(&self) -> Result<&'a [u8], ParseError> {
        if !self.padded {
            return Ok(self.content);
        }
        let count = usize::from(self.content.last().copied().ok_or(ParseError::Padding)?);
        let keep = self.content.len().checked_sub(count);
        keep.filter(|_| count > 0)
            .and_then(|keep| self.content.get(..keep))
            .ok_or(ParseError::Padding)
    }

    fn packet(&self) -> Result<Packet<'a>, ParseError> {
        let (format, body) = (self.format, self.body()?);
        Ok(match (self.packet_type, format) {
            (packet_type::SR, count) => Packet::SenderReport(SenderReport::parse(count, body)?),
            (packet_type::RR, count) => Packet::ReceiverReport(ReceiverReport::parse(count, body)?),
            (packet_type::SDES, count) => Packet::Sdes(Sdes::parse(count, body)?),
            (packet_type::BYE, count) => Packet::Bye(Bye::parse(count, body)?),
            (packet_type::RTPFB, format::NACK) => Packet::Nack(Nack::parse(body)?),
            (packet_type::RTPFB, format::TWCC) => {
                Packet::TransportFeedback(TransportFeedback::parse(body)?)
            }
            (packet_type::RTPFB, format::CCFB) => {
                Packet::CongestionFeedback(CongestionFeedback::parse(body)?)
            }
            (packet_type::PSFB, format::PLI) => Packet::Pli(Pli::parse(body)?),
            (packet_type::PSFB, format::FIR) => Packet::Fir(Fir::parse(body)?),
            (packet_type::PSFB, format::AFB) if Remb::is_remb(body) => {
                Packet::Remb(Remb::parse(body)?)
            }
            (packet_type, format) => Packet::Other {
                packet_type,
                format,
            },
        })
    }
}

#[cfg(test)]
mod tests;
