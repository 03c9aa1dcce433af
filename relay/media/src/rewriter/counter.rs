//! A counter of `BITS` bits that lives on when the stream that feeds it is replaced.

/// Maps a source's counter onto one that continues where the previous source stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter<const BITS: u32> {
    offset: u16,
    /// Newest outgoing value, once there was one.
    last: Option<u16>,
    /// The next value is the first of a new source.
    attaching: bool,
}

impl<const BITS: u32> Counter<BITS> {
    const MASK: u16 = u16::MAX >> (16 - BITS);

    pub(crate) const fn new() -> Self {
        Counter {
            offset: 0,
            last: None,
            attaching: true,
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
            // The first source keeps its own values.
            let next = self.last.map_or(value, |last| last.wrapping_add(1));
            self.offset = next.wrapping_sub(value);
        }
        let out = value.wrapping_add(self.offset) & Self::MASK;
        let ahead = self
            .last
            .map_or(1, |last| out.wrapping_sub(last) & Self::MASK);
        if ahead != 0 && ahead <= Self::MASK / 2 {
            self.last = Some(out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_value_passes_unchanged() {
        let mut counter = Counter::<8>::new();
        assert_eq!(counter.map(200), 200);
        assert_eq!(counter.map(255), 255);
        assert_eq!(counter.map(0), 0, "wraps at eight bits");
        counter.attach();
        assert_eq!(counter.map(77), 1, "the next source continues");
        assert_eq!(counter.map(76), 0, "a late frame of it keeps its distance");
        counter.attach();
        assert_eq!(counter.map(5), 2);
    }

    proptest! {
        /// Shadow: unbounded integers, wrapped at the end.
        #[test]
        fn counts_like_unbounded_integers(
            sources in prop::collection::vec((0u16..0x8000, prop::collection::vec(-6i64..20, 1..30)), 1..6),
        ) {
            let mut counter = Counter::<15>::new();
            let mut newest: Option<i64> = None;
            for (start, steps) in sources {
                counter.attach();
                let base = newest.map_or(i64::from(start), |n| n + 1);
                // Walks around the source's newest value: late by up to 6, ahead by up to 20.
                let (mut head, mut first) = (0i64, true);
                for step in steps {
                    let at = if first { 0 } else { head + step };
                    first = false;
                    head = head.max(at);
                    let value = (i64::from(start) + at).rem_euclid(0x8000) as u16;
                    let want = base + at;
                    prop_assert_eq!(i64::from(counter.map(value)), want.rem_euclid(0x8000));
                    newest = Some(newest.map_or(want, |n| n.max(want)));
                }
            }
        }
    }
}
