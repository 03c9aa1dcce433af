//! A counter of `BITS` bits that lives on when the stream that feeds it is replaced, and counts
//! without a gap what the relay lets through of it.

use std::mem::offset_of;

/// Maps a source's counter of `BITS` bits onto one that continues where the previous source stopped.
/// It remembers `SKIPS` values that were left out: what comes later than this many of them after its
/// turn gets a number that is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Counter<const BITS: u32, const SKIPS: usize> {
    offset: u16,
    /// Newest value of the source and newest outgoing one, once there were any.
    newest: Option<(u16, u16)>,
    /// The next value is the first of a new source.
    attaching: bool,
    /// How many places of `skipped` are in use, and the next one.
    skips: u8,
    next_skip: u8,
    /// The source's newest values that were left out.
    skipped: [u16; SKIPS],
}

impl<const BITS: u32, const SKIPS: usize> Counter<BITS, SKIPS> {
    const MASK: u16 = u16::MAX >> (16 - BITS);
    /// Bytes from its beginning that a value which comes in order reads and writes.
    pub(crate) const HOT_BYTES: usize = offset_of!(Self, skipped);

    pub(crate) const fn new() -> Self {
        Counter {
            offset: 0,
            newest: None,
            attaching: true,
            skips: 0,
            next_skip: 0,
            skipped: [0; SKIPS],
        }
    }

    /// The next value comes from another source.
    pub(crate) fn attach(&mut self) {
        self.attaching = true;
    }

    /// The outgoing value for the source's `value`.
    #[inline]
    pub(crate) fn map(&mut self, value: u16) -> u16 {
        if self.attaching {
            self.attaching = false;
            (self.skips, self.next_skip) = (0, 0);
            // The first source keeps its own values.
            let next = self
                .newest
                .map_or(value, |(_, out)| out.wrapping_add(1) & Self::MASK);
            self.offset = next.wrapping_sub(value);
            self.newest = Some((value, next));
            return next;
        }
        let Some((newest, _)) = self.newest else {
            return value;
        };
        let mut out = value.wrapping_add(self.offset);
        if Self::is_after(value, newest) {
            self.newest = Some((value, out & Self::MASK));
        } else {
            // Values left out after this one had not moved it up when its turn was.
            let used = self.skipped.iter().take(usize::from(self.skips));
            out = out.wrapping_add(
                used.filter(|skipped| Self::is_after(**skipped, value))
                    .count() as u16,
            );
        }
        out & Self::MASK
    }

    /// The source's `value` is left out: those after it move up. Called again for the same value,
    /// or for one whose turn is over, it changes nothing.
    pub(crate) fn skip(&mut self, value: u16) {
        let Some((newest, out)) = self.newest.filter(|_| !self.attaching) else {
            return;
        };
        if !Self::is_after(value, newest) {
            return;
        }
        if let Some(place) = self.skipped.get_mut(usize::from(self.next_skip)) {
            *place = value;
            self.next_skip = (self.next_skip + 1) % SKIPS as u8;
            self.skips = (self.skips + 1).min(SKIPS as u8);
        }
        self.offset = self.offset.wrapping_sub(1);
        // What was lost between the two keeps its place in the outgoing numbers.
        let lost = value.wrapping_sub(newest).wrapping_sub(1);
        self.newest = Some((value, out.wrapping_add(lost) & Self::MASK));
    }

    /// Whether `a` comes after `b` on the circle.
    fn is_after(a: u16, b: u16) -> bool {
        let ahead = a.wrapping_sub(b) & Self::MASK;
        ahead != 0 && ahead <= Self::MASK / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SKIPS: usize = 16;

    #[test]
    fn the_first_value_passes_unchanged() {
        let mut counter = Counter::<8, 0>::new();
        assert_eq!(counter.map(200), 200);
        assert_eq!(counter.map(255), 255);
        assert_eq!(counter.map(0), 0, "wraps at eight bits");
        counter.attach();
        assert_eq!(counter.map(77), 1, "the next source continues");
        assert_eq!(counter.map(76), 0, "a late frame of it keeps its distance");
        counter.attach();
        assert_eq!(counter.map(5), 2);
    }

    #[test]
    fn what_is_left_out_leaves_no_gap() {
        let mut counter = Counter::<15, SKIPS>::new();
        assert_eq!(counter.map(0x7ffe), 0x7ffe);
        counter.skip(0x7fff);
        counter.skip(0x7fff);
        assert_eq!(counter.map(0), 0x7fff);
        assert_eq!(counter.map(2), 1, "1 is lost, not left out");
        counter.skip(3);
        assert_eq!(
            (counter.map(1), counter.map(0), counter.map(4)),
            (0, 0x7fff, 2)
        );
        counter.attach();
        assert_eq!(counter.map(9), 3);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Map(i64),
        Skip(i64),
        Attach(u16),
    }

    proptest! {
        /// Shadow: unbounded integers, and a set of all values left out.
        #[test]
        fn counts_like_unbounded_integers(ops in prop::collection::vec(prop_oneof![
            8 => (-6i64..12).prop_map(Op::Map),
            4 => (-2i64..4).prop_map(Op::Skip),
            1 => (0u16..0x8000).prop_map(Op::Attach),
        ], 1..200)) {
            let mut counter = Counter::<15, SKIPS>::new();
            // Source values relative to the source's first one, which lies at `start` and is
            // sent as `base`. `state`: passed values, true if they were left out.
            let (mut start, mut base) = (100i64, 100i64);
            let mut newest_out = None::<i64>;
            let mut state: BTreeMap<i64, bool> = BTreeMap::new();
            for op in ops {
                let head = state.keys().last().copied();
                let skipped_before = |state: &BTreeMap<i64, bool>, at: i64| state.range(..at).filter(|(_, s)| **s).count() as i64;
                match op {
                    Op::Attach(value) => {
                        counter.attach();
                        start = value.into();
                        base = newest_out.map_or(start, |n| n + 1);
                        state.clear();
                    }
                    Op::Skip(step) => {
                        let Some(head) = head else { continue };
                        let at = head + step;
                        counter.skip((start + at).rem_euclid(0x8000) as u16);
                        if at > head {
                            state.insert(at, true);
                            newest_out = Some(base + at - skipped_before(&state, at) - 1);
                        }
                    }
                    Op::Map(step) => {
                        let at = head.map_or(0, |h| h + step);
                        // A frame that was left out as a whole is not mapped.
                        if state.get(&at) == Some(&true) {
                            continue;
                        }
                        if state.range(at..).filter(|(_, s)| **s).count() > SKIPS {
                            continue;
                        }
                        let want = base + at - skipped_before(&state, at);
                        let got = counter.map((start + at).rem_euclid(0x8000) as u16);
                        prop_assert_eq!(i64::from(got), want.rem_euclid(0x8000));
                        if head.is_none_or(|h| at > h) {
                            state.insert(at, false);
                            newest_out = Some(want);
                        }
                    }
                }
            }
        }
    }
}
