//! The map between incoming and outgoing packet numbers, as runs of equal distance.
//!
//! Outgoing numbers form one line. Each segment says from which outgoing number on which incoming
//! numbers lie there; it ends where the next begins. What the network lost keeps its place on the
//! line, so that it may still arrive; what the relay leaves out has none.

use super::StreamLife;
use crate::limits::REWRITER_SEGMENTS;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
struct Segment {
    /// First outgoing index.
    out: u64,
    /// The incoming number that lies there.
    sequence: u64,
}

impl Segment {
    /// Where `sequence`, not below the segment's, lies.
    fn place(&self, sequence: u64) -> u64 {
        self.out + (sequence - self.sequence)
    }
}

/// Where an outgoing packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The stream it was received on.
    pub(crate) source: StreamLife,
    /// Its extended sequence number there.
    pub(crate) sequence: u64,
    /// The outgoing packet index.
    pub(crate) index: u64,
}

/// A bounded row of segments of the present source. What came from an earlier one is neither mapped
/// nor sent again.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Segments {
    /// The last segment, which nearly every packet falls into: kept out of the heap. While attached.
    last: Option<Segment>,
    /// The next incoming number of the newest source.
    next_sequence: u64,
    /// The outgoing index that it gets.
    next_out: u64,
    /// The last source that it was attached to.
    newest: Option<StreamLife>,
    /// The segments before the last, oldest first.
    earlier: VecDeque<Segment>,
}

impl Segments {
    /// Heap memory of one row.
    #[cfg(test)]
    pub(crate) const HEAP_BYTES: usize = Self::EARLIER * size_of::<Segment>();
    /// Segments before the last one that are remembered.
    const EARLIER: usize = REWRITER_SEGMENTS - 1;

    pub(crate) fn new(first_out: u64) -> Self {
        Segments {
            last: None,
            next_sequence: 0,
            next_out: first_out,
            newest: None,
            earlier: VecDeque::with_capacity(Self::EARLIER),
        }
    }

    pub(crate) fn attach(&mut self, source: StreamLife, sequence: u64) {
        self.detach();
        self.newest = Some(source);
        self.next_sequence = sequence;
        self.push();
    }

    /// The source that it is attached to.
    #[inline]
    pub(crate) fn source(&self) -> Option<StreamLife> {
        self.last.and(self.newest)
    }

    /// Whether the packet `sequence` lies before others that were sent when this source was the
    /// newest one.
    #[inline]
    pub(crate) fn has_passed(&self, source: StreamLife, sequence: u64) -> bool {
        self.newest == Some(source) && sequence < self.next_sequence
    }

    pub(crate) fn detach(&mut self) {
        self.last = None;
        self.earlier.clear();
    }

    #[inline]
    pub(crate) fn map(&mut self, sequence: u64) -> Option<u64> {
        if sequence < self.next_sequence {
            return self.find(sequence);
        }
        let out = self.last?.place(sequence);
        self.next_sequence = sequence + 1;
        self.next_out = out + 1;
        Some(out)
    }

    pub(crate) fn skip(&mut self, sequence: u64) {
        if sequence < self.next_sequence {
            return;
        }
        let Some(last) = self.last else {
            return;
        };
        // The skipped packet's own place goes to the one that follows it.
        self.next_out = last.place(sequence);
        self.next_sequence = sequence + 1;
        self.push();
    }

    /// Starts a segment at the next numbers. An empty last segment is replaced.
    fn push(&mut self) {
        let segment = Segment {
            out: self.next_out,
            sequence: self.next_sequence,
        };
        let last = self.last.replace(segment);
        if let Some(last) = last.filter(|last| last.out != segment.out) {
            if self.earlier.len() == Self::EARLIER {
                self.earlier.pop_front();
            }
            self.earlier.push_back(last);
        }
    }

    /// All segments, the last first.
    fn backwards(&self) -> impl Iterator<Item = &Segment> {
        self.last.iter().chain(self.earlier.iter().rev())
    }

    /// The place of a number that has been passed.
    #[cold]
    fn find(&self, sequence: u64) -> Option<u64> {
        let mut end = self.next_out;
        for segment in self.backwards() {
            if segment.sequence <= sequence {
                let out = segment.place(sequence);
                return (out < end).then_some(out);
            }
            end = segment.out;
        }
        None
    }

    /// Of the current attachment alone: other sources' timestamps and pictures are not mapped any
    /// more, and a receiver that has moved on does not need them.
    pub(crate) fn origin(&self, sequence: u16) -> Option<Origin> {
        let newest = self.next_out.checked_sub(1)?;
        // The latest index not above the newest that ends in these 16 bits.
        let index = newest.checked_sub(u64::from((newest as u16).wrapping_sub(sequence)))?;
        let segment = self.backwards().find(|segment| segment.out <= index)?;
        Some(Origin {
            source: self.source()?,
            sequence: segment.sequence + (index - segment.out),
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Op {
        /// To a number so far from the next one.
        Map(i64),
        Skip(i64),
        Attach(u64),
        Detach,
    }

    /// Every number of the line, each by itself: what was not left out has a place.
    #[derive(Default)]
    struct Shadow {
        source: Option<StreamLife>,
        newest: Option<StreamLife>,
        /// The incoming number at each place of the present attachment.
        line: BTreeMap<u64, u64>,
        next_sequence: u64,
        next_out: u64,
    }

    impl Shadow {
        fn place(&self, sequence: u64) -> Option<u64> {
            let found = self.line.iter().find(|(_, of)| **of == sequence);
            found.map(|(place, _)| *place)
        }

        /// What lies between, and was lost, keeps its place.
        fn go_to(&mut self, sequence: u64) {
            for lost in self.next_sequence..sequence {
                self.line.insert(self.next_out, lost);
                self.next_out += 1;
            }
            self.next_sequence = sequence;
        }

        fn map(&mut self, sequence: u64) -> Option<u64> {
            if sequence >= self.next_sequence && self.source.is_some() {
                self.go_to(sequence + 1);
            }
            self.place(sequence)
        }

        fn skip(&mut self, sequence: u64) {
            if sequence >= self.next_sequence && self.source.is_some() {
                self.go_to(sequence);
                self.next_sequence += 1;
            }
        }
    }

    proptest! {
        #[test]
        fn segments_are_a_line_of_single_numbers(
            first_out in 0u64..0x1_0000,
            ops in prop::collection::vec(prop_oneof![
                8 => (-12i64..6).prop_map(Op::Map),
                5 => (-3i64..4).prop_map(Op::Skip),
                1 => (0x1_0000u64..0x1_0100).prop_map(Op::Attach),
                1 => Just(Op::Detach),
            ], 1..120),
        ) {
            let mut segments = Segments::new(first_out);
            let mut shadow = Shadow { next_out: first_out, ..Shadow::default() };
            for (stream, op) in (0..).zip(ops) {
                match op {
                    Op::Attach(sequence) => {
                        let source = StreamLife { stream, epoch: 0 };
                        segments.attach(source, sequence);
                        (shadow.source, shadow.newest) = (Some(source), Some(source));
                        shadow.line.clear();
                        shadow.next_sequence = sequence;
                    }
                    Op::Detach => {
                        segments.detach();
                        shadow.source = None;
                        shadow.line.clear();
                    }
                    Op::Map(step) => {
                        let sequence = shadow.next_sequence.saturating_add_signed(step);
                        prop_assert_eq!(segments.map(sequence), shadow.map(sequence));
                    }
                    Op::Skip(step) => {
                        let sequence = shadow.next_sequence.saturating_add_signed(step);
                        segments.skip(sequence);
                        shadow.skip(sequence);
                    }
                }
                prop_assert!(segments.backwards().count() <= REWRITER_SEGMENTS);
                let next = shadow.next_sequence;
                for sequence in next.saturating_sub(20)..next + 3 {
                    let passed = shadow.newest.is_some_and(|s| segments.has_passed(s, sequence));
                    prop_assert_eq!(passed, shadow.newest.is_some() && sequence < next);
                    // Nobody asks for what is to come.
                    if shadow.source.is_some() && sequence < next {
                        prop_assert_eq!(segments.clone().map(sequence), shadow.place(sequence));
                    }
                }
                for place in shadow.next_out.saturating_sub(20)..shadow.next_out {
                    let origin = shadow.line.get(&place).zip(shadow.source);
                    let origin = origin.map(|(sequence, source)| Origin {
                        source,
                        sequence: *sequence,
                        index: place,
                    });
                    prop_assert_eq!(segments.origin(place as u16), origin);
                }
            }
        }
    }
}
