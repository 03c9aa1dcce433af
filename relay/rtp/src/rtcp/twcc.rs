//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).
//!
//! A packet lists a run of transport sequence numbers as chunks of two-bit symbols, followed by one receive delta for
//! each that arrived. [`TransportFeedback::parse`] checks that the chunks cover exactly the announced count and that
//! all deltas are there, so that iterating cannot fail.

use crate::bytes::{Out, be16, be24, be32};
use crate::{ParseError, WriteError};

/// Unit of the reference time: 64 ms, in microseconds.
pub const REFERENCE_TICK_MICROS: i64 = 64_000;
/// Unit of a receive delta: 250 µs.
pub const DELTA_TICK_MICROS: i64 = 250;

/// Bytes of the body before the chunks: two SSRCs, base and count, reference time and feedback count.
const FIXED_LEN: usize = 16;
/// Longest run that a run-length chunk can hold: 13 bits.
const MAX_RUN: usize = 0x1fff;

/// Symbols of section 3.1.1.
mod symbol {
    pub(super) const NOT_RECEIVED: u8 = 0;
    pub(super) const SMALL_DELTA: u8 = 1;
    pub(super) const LARGE_DELTA: u8 = 2;
}

/// The fields in front of the packet statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransportFeedbackFields {
    /// Who reports.
    pub sender_ssrc: u32,
    /// Some stream of the transport that is reported on.
    pub media_ssrc: u32,
    /// Transport sequence number of the first status.
    pub base_sequence_number: u16,
    /// Counts feedback packets, so that a lost one is noticed.
    pub feedback_count: u8,
}

/// A feedback packet whose chunks and deltas are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    /// The fields in front of the statuses.
    pub fields: TransportFeedbackFields,
    /// Number of statuses, 1–65,535.
    pub status_count: u16,
    /// Reference time in units of 64 ms on the reporter's clock, 24 bits signed; it wraps after 12.4 days.
    pub reference_time: i32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let (fields, status_count, reference_time) = Self::fixed(body).ok_or(ParseError::Length)?;
        if status_count == 0 {
            return Err(ParseError::Value("packet status count"));
        }
        let rest = body.get(FIXED_LEN..).unwrap_or_default();
        let (mut at, mut seen, mut delta_len) = (0, 0usize, 0usize);
        while seen < usize::from(status_count) {
            let chunk = Chunk(be16(rest, at).ok_or(ParseError::Length)?);
            at += 2;
            let used = chunk.len().min(usize::from(status_count) - seen);
            for index in 0..used.min(chunk.distinct()) {
                match chunk.symbol(index) {
                    symbol::NOT_RECEIVED => {}
                    symbol::SMALL_DELTA => delta_len += chunk.weight(used),
                    symbol::LARGE_DELTA => delta_len += 2 * chunk.weight(used),
                    _ => return Err(ParseError::Value("packet status symbol")),
                }
            }
            seen += used;
        }
        let (chunks, rest) = rest.split_at_checked(at).ok_or(ParseError::Length)?;
        let deltas = rest.get(..delta_len).ok_or(ParseError::Length)?;
        Ok(Self {
            fields,
            status_count,
            reference_time,
            chunks,
            deltas,
        })
    }

    fn fixed(body: &[u8]) -> Option<(TransportFeedbackFields, u16, i32)> {
        let fields = TransportFeedbackFields {
            sender_ssrc: be32(body, 0)?,
            media_ssrc: be32(body, 4)?,
            base_sequence_number: be16(body, 8)?,
            feedback_count: *body.get(15)?,
        };
        let reference_time = ((be24(body, 12)? << 8) as i32) >> 8;
        Some((fields, be16(body, 10)?, reference_time))
    }

    /// Each status in order: the transport sequence number, and if the packet arrived the microseconds since the
    /// previous arrival in this packet (since the reference time for the first), in steps of 250 µs.
    #[must_use]
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            sequence_number: self.fields.base_sequence_number,
            left: self.status_count,
            chunk: Chunk(0),
            index: 0,
            chunk_left: 0,
            chunks: self.chunks,
            deltas: self.deltas,
        }
    }
}

/// Iterator over the statuses of a [`TransportFeedback`].
#[derive(Debug, Clone)]
pub struct Statuses<'a> {
    sequence_number: u16,
    left: u16,
    chunk: Chunk,
    index: usize,
    chunk_left: usize,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl Iterator for Statuses<'_> {
    type Item = (u16, Option<i32>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // A loop, because a run may be empty; parsing skipped those too.
        while self.chunk_left == 0 {
            self.chunk = Chunk(be16(self.chunks, 0)?);
            self.chunks = self.chunks.get(2..)?;
            self.chunk_left = self.chunk.len();
            self.index = 0;
        }
        let symbol = self.chunk.symbol(self.index);
        self.index += 1;
        self.chunk_left -= 1;
        let ticks = match symbol {
            symbol::SMALL_DELTA => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i32::from(*delta))
            }
            symbol::LARGE_DELTA => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                Some(i32::from(i16::from_be_bytes(*delta)))
            }
            _ => None,
        };
        let sequence_number = self.sequence_number;
        self.sequence_number = sequence_number.wrapping_add(1);
        Some((
            sequence_number,
            ticks.map(|ticks| ticks * DELTA_TICK_MICROS as i32),
        ))
    }
}

/// A packet status chunk (sections 3.1.3 and 3.1.4).
#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    const fn is_run(self) -> bool {
        self.0 & 0x8000 == 0
    }

    const fn is_two_bit(self) -> bool {
        self.0 & 0x4000 != 0
    }

    /// Number of statuses the chunk can hold, 0–8,191.
    const fn len(self) -> usize {
        if self.is_run() {
            (self.0 & 0x1fff) as usize
        } else if self.is_two_bit() {
            7
        } else {
            14
        }
    }

    /// Number of symbols that may differ: one for a run.
    const fn distinct(self) -> usize {
        if self.is_run() { 1 } else { self.len() }
    }

    /// How many statuses one distinct symbol stands for when the chunk is used for `used` statuses.
    const fn weight(self, used: usize) -> usize {
        if self.is_run() { used } else { 1 }
    }

    const fn symbol(self, index: usize) -> u8 {
        if self.is_run() {
            (self.0 >> 13 & 3) as u8
        } else if self.is_two_bit() {
            (self.0 >> (12 - 2 * (index % 7)) & 3) as u8
        } else {
            (self.0 >> (13 - index % 14) & 1) as u8
        }
    }
}

/// What [`super::RtcpWriter::transport_feedback`] has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltFeedback {
    /// How many of the arrivals the packet covers, at least 1. The rest goes into a packet that follows, with
    /// `base_sequence_number` moved on by this much.
    pub consumed: usize,
}

/// The quantised receive deltas of a row of arrivals.
///
/// Deltas are taken between quantised times, so that rounding errors do not add up.
struct Deltas {
    last_tick: i64,
}

impl Deltas {
    fn starting_at(reference_time: i64) -> Self {
        Self {
            last_tick: reference_time * (REFERENCE_TICK_MICROS / DELTA_TICK_MICROS),
        }
    }

    /// The delta in ticks; `None` if it does not fit 16 bits.
    fn next(&mut self, arrival_micros: i64) -> Option<i16> {
        let tick = arrival_micros.div_euclid(DELTA_TICK_MICROS);
        let delta = i16::try_from(tick.checked_sub(self.last_tick)?).ok()?;
        self.last_tick = tick;
        Some(delta)
    }
}

const fn delta_symbol(delta: i16) -> u8 {
    if delta >= 0 && delta <= 255 {
        symbol::SMALL_DELTA
    } else {
        symbol::LARGE_DELTA
    }
}

/// Writes the body of a feedback packet on `arrivals` (microseconds on the caller's clock, `None` where a packet did
/// not arrive), for as many of them as fit `room` bytes and the format.
pub(super) fn write_body(
    out: &mut Out<'_>,
    fields: &TransportFeedbackFields,
    arrivals: &[Option<i64>],
    room: usize,
) -> Result<BuiltFeedback, WriteError> {
    let first = arrivals
        .iter()
        .flatten()
        .next()
        .copied()
        .unwrap_or_default();
    let reference_time = first.div_euclid(REFERENCE_TICK_MICROS);
    let count = fitting(arrivals, reference_time, room.saturating_sub(FIXED_LEN));
    let arrivals = arrivals
        .get(..count)
        .filter(|a| !a.is_empty())
        .ok_or(WriteError::NoRoom)?;
    let status_count = u16::try_from(count).map_err(|_| WriteError::NoRoom)?;

    out.put32(fields.sender_ssrc)?;
    out.put32(fields.media_ssrc)?;
    out.put16(fields.base_sequence_number)?;
    out.put16(status_count)?;
    out.put32((reference_time as u32) << 8 | u32::from(fields.feedback_count))?;

    let mut deltas = Deltas::starting_at(reference_time);
    let mut chunks = ChunkWriter::default();
    for arrival in arrivals {
        let delta = arrival.and_then(|micros| deltas.next(micros));
        chunks.push(out, delta.map_or(symbol::NOT_RECEIVED, delta_symbol))?;
    }
    chunks.finish(out)?;

    let mut deltas = Deltas::starting_at(reference_time);
    for micros in arrivals.iter().flatten() {
        match deltas.next(*micros) {
            Some(delta @ 0..=255) => out.put8(delta as u8)?,
            Some(delta) => out.put16(delta as u16)?,
            None => return Err(WriteError::Unrepresentable("receive delta")),
        }
    }
    Ok(BuiltFeedback { consumed: count })
}

/// How many arrivals, from the first on, surely fit `room` bytes and have deltas that fit the format.
fn fitting(arrivals: &[Option<i64>], reference_time: i64, room: usize) -> usize {
    let mut deltas = Deltas::starting_at(reference_time);
    let mut delta_len = 0;
    for (count, arrival) in arrivals.iter().take(usize::from(u16::MAX)).enumerate() {
        if let Some(micros) = arrival {
            let Some(delta) = deltas.next(*micros) else {
                return count;
            };
            delta_len += usize::from(delta_symbol(delta));
        }
        // `ChunkWriter` never emits a chunk of fewer than seven statuses except the last.
        let chunks_len = 2 * (count + 1).div_ceil(7);
        // Padding to a word takes up to three bytes.
        if chunks_len + delta_len + 3 > room {
            return count;
        }
    }
    arrivals.len().min(usize::from(u16::MAX))
}

/// Groups symbols into chunks: runs where they pay, vectors otherwise.
#[derive(Default)]
struct ChunkWriter {
    /// Symbols not written yet, when they are not all equal: at most 14.
    pending: [u8; 14],
    /// Number of symbols not written yet. Over 14 only for a run.
    len: usize,
    mixed: bool,
    has_large: bool,
    /// No more symbols follow.
    closing: bool,
}

impl ChunkWriter {
    fn push(&mut self, out: &mut Out<'_>, symbol: u8) -> Result<(), WriteError> {
        while !self.accepts(symbol) {
            self.emit(out)?;
        }
        if let Some(place) = self.pending.get_mut(self.len) {
            *place = symbol;
        }
        self.mixed |= symbol != self.pending[0];
        self.has_large |= symbol == symbol::LARGE_DELTA;
        self.len += 1;
        Ok(())
    }

    fn accepts(&self, symbol: u8) -> bool {
        let same = self.len == 0 || (!self.mixed && symbol == self.pending[0]);
        let vector = if self.has_large || symbol == symbol::LARGE_DELTA {
            7
        } else {
            14
        };
        (same && self.len < MAX_RUN) || self.len < vector
    }

    /// Writes one chunk and keeps what did not fit it. A vector that is not full may only be the last chunk, since
    /// readers take all its places as statuses; `accepts` sees to it that 7 or 14 symbols are there before that.
    fn emit(&mut self, out: &mut Out<'_>) -> Result<(), WriteError> {
        let symbols = self.pending.iter().map(|symbol| u16::from(*symbol));
        let (chunk, used) = if !self.mixed {
            (u16::from(self.pending[0]) << 13 | self.len as u16, self.len)
        } else if !self.has_large && (self.len == 14 || self.closing) {
            (
                symbols.take(self.len).fold(0b10, |v, s| v << 1 | s) << (14 - self.len),
                self.len,
            )
        } else {
            let used = self.len.min(7);
            (
                symbols.take(used).fold(0b11, |v, s| v << 2 | s) << (14 - 2 * used),
                used,
            )
        };
        out.put16(chunk)?;
        self.keep_from(used);
        Ok(())
    }

    fn keep_from(&mut self, used: usize) {
        let kept = self.len - used;
        self.pending.copy_within(used.min(14)..self.len.min(14), 0);
        self.len = kept;
        let rest = &self.pending[..kept.min(14)];
        self.mixed = rest.iter().any(|s| *s != rest[0]);
        self.has_large = rest.contains(&symbol::LARGE_DELTA);
    }

    fn finish(mut self, out: &mut Out<'_>) -> Result<(), WriteError> {
        self.closing = true;
        while self.len > 0 {
            self.emit(out)?;
        }
        Ok(())
    }
}
