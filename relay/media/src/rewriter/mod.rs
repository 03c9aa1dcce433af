//! How the numbers of incoming streams become those of one outgoing stream.
//!
//! A slot sends on one SSRC for its whole life, whatever it shows. To its receiver it must look
//! like one stream: sequence numbers that skip only what the network lost, timestamps that run
//! with the clock, picture ids that count on. The [`Rewriter`] of a subscription sees to that
//! across sources, layers, mutes and packets that the relay leaves out.
//!
//! Invariant: an outgoing packet index is given to at most one incoming packet, ever. SRTP takes
//! its nonce from the index, so a second use would break the seal (RFC 3711 §9.1).

mod counter;
mod segments;

pub(crate) use counter::Counter;
pub(crate) use segments::Origin;
use segments::Segments;

use sealcast_rtp::seq::newer32;
use std::mem::offset_of;

/// An incoming stream, and which of its lives: streams start again with new numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamLife {
    /// Index of the stream.
    pub(crate) stream: u32,
    /// Counts the stream's restarts.
    pub(crate) epoch: u32,
}

/// The first packet of a source that a subscription turns to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    /// The source.
    pub(crate) source: StreamLife,
    /// Extended sequence number of the first packet to forward.
    pub(crate) sequence: u64,
    /// Its RTP timestamp.
    pub(crate) timestamp: u32,
    /// When it was captured, as relay NTP time (32.32).
    pub(crate) captured: u64,
    /// The outgoing timestamp that belongs to it, where that is known exactly.
    pub(crate) aligned: Option<u32>,
}

/// VP8 pictures left out that are remembered: those of over a second of 30 pictures each, three in
/// four of which are left out.
const PICTURES_SKIPPED: usize = 32;

/// The numbering of one outgoing stream.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Rewriter {
    segments: Segments,
    timestamp_offset: u32,
    /// Newest outgoing timestamp, once a packet was sent.
    last_timestamp: Option<u32>,
    /// VP8 and VP9 TL0PICIDX, 8 bits.
    pub(crate) tl0_pic_idx: Counter<8, 0>,
    /// Frame numbers of the dependency descriptor, 16 bits.
    pub(crate) frame_number: Counter<16, 0>,
    /// VP8 and VP9 picture ids, 15 bits.
    pub(crate) picture_id: Counter<15, PICTURES_SKIPPED>,
    clock_rate: u32,
    /// Counts how often it turned away from a source.
    turns: u32,
    /// A point of the outgoing timeline: relay NTP time and timestamp.
    anchor: (u64, u32),
}

impl Rewriter {
    /// Heap memory of one rewriter.
    #[cfg(test)]
    pub(crate) const HEAP_BYTES: usize = Segments::HEAP_BYTES;

    /// Bytes from its beginning that a packet reads and writes: all but what was left out before.
    pub(crate) const HOT_BYTES: usize =
        offset_of!(Rewriter, picture_id) + Counter::<15, PICTURES_SKIPPED>::HOT_BYTES;

    /// A rewriter whose first packet has this sequence number and timestamp.
    ///
    /// RFC 3711 §3.3.1 has both ends start with a roll-over counter of zero, so the first number
    /// lies in the lower half of the circle: the loss of the first packets then cannot make the
    /// receiver miss a wrap.
    pub(crate) fn new(clock_rate: u32, first_sequence: u16, first_timestamp: u32) -> Self {
        Rewriter {
            segments: Segments::new(u64::from(first_sequence & 0x7fff)),
            timestamp_offset: 0,
            last_timestamp: None,
            tl0_pic_idx: Counter::new(),
            frame_number: Counter::new(),
            picture_id: Counter::new(),
            clock_rate,
            turns: 0,
            anchor: (0, first_timestamp),
        }
    }

    /// The source that is forwarded now.
    #[inline]
    pub(crate) fn source(&self) -> Option<StreamLife> {
        self.segments.source()
    }

    /// Turns to a source from its packet `at.sequence` on. Sequence numbers continue without a
    /// gap; the timestamp moves on by the time that passed between captures.
    pub(crate) fn attach(&mut self, at: Attachment) {
        self.segments.attach(at.source, at.sequence);
        let (anchor_ntp, anchor_timestamp) = self.anchor;
        let target = match (self.last_timestamp, at.aligned) {
            (None, _) => anchor_timestamp,
            (Some(last), Some(aligned)) => at_least_after(aligned, last),
            (Some(last), None) => {
                let passed = ticks(at.captured.wrapping_sub(anchor_ntp) as i64, self.clock_rate);
                at_least_after(anchor_timestamp.wrapping_add(passed as u32), last)
            }
        };
        self.anchor = (at.captured, target);
        self.timestamp_offset = target.wrapping_sub(at.timestamp);
        self.picture_id.attach();
        self.tl0_pic_idx.attach();
        self.frame_number.attach();
    }

    /// Whether the packet `sequence` lies before others that were sent when this source was the
    /// newest one.
    #[inline]
    pub(crate) fn has_passed(&self, source: StreamLife, sequence: u64) -> bool {
        self.segments.has_passed(source, sequence)
    }

    /// Turns away from the source: nothing maps until the next [`attach`](Rewriter::attach).
    pub(crate) fn detach(&mut self) {
        self.turns = self.turns.wrapping_add(1);
        self.segments.detach();
    }

    /// How often it turned away from a source: what was to be sent before that is void.
    pub(crate) fn turns(&self) -> u32 {
        self.turns
    }

    /// The outgoing packet index of the incoming packet `sequence`, or `None` if it belongs
    /// before the start of this source, was left out, or is older than what is remembered.
    #[inline]
    pub(crate) fn map(&mut self, sequence: u64) -> Option<u64> {
        self.segments.map(sequence)
    }

    /// The relay leaves out the incoming packet `sequence`: those after it move up. A packet that
    /// comes late cannot be left out without a trace, since later ones have been sent.
    pub(crate) fn skip(&mut self, sequence: u64) {
        self.segments.skip(sequence);
    }

    /// The outgoing timestamp of a packet of the current source.
    #[inline]
    pub(crate) fn timestamp(&mut self, timestamp: u32) -> u32 {
        let out = self.peek_timestamp(timestamp);
        if self.last_timestamp.is_none_or(|last| newer32(out, last)) {
            self.last_timestamp = Some(out);
        }
        out
    }

    /// As [`timestamp`](Rewriter::timestamp), for an instant of which no packet is sent.
    pub(crate) fn peek_timestamp(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_add(self.timestamp_offset)
    }

    /// The packet of the current source that was sent as outgoing sequence number `sequence`, if
    /// it is remembered.
    pub(crate) fn origin(&self, sequence: u16) -> Option<Origin> {
        self.segments.origin(sequence)
    }
}

/// `timestamp`, or one tick after `last` if it is not after that.
fn at_least_after(timestamp: u32, last: u32) -> u32 {
    if newer32(timestamp, last) {
        timestamp
    } else {
        last.wrapping_add(1)
    }
}

/// A span of NTP time (32.32, signed) in ticks of a media clock.
pub(crate) fn ticks(ntp_span: i64, clock_rate: u32) -> i64 {
    ((i128::from(ntp_span) * i128::from(clock_rate)) >> 32) as i64
}

#[cfg(test)]
mod tests;
