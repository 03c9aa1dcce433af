//! Wrapping sequence arithmetic (RFC 1982) for 16-bit sequence numbers and 32-bit timestamps.

/// Whether `a` comes after `b` on the 16-bit circle. Half a circle apart counts as older, both ways.
#[inline]
#[must_use]
pub const fn newer16(a: u16, b: u16) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 0x8000
}

/// Whether `a` comes after `b` on the 32-bit circle. Half a circle apart counts as older, both ways.
#[inline]
#[must_use]
pub const fn newer32(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 0x8000_0000
}

/// Signed distance from `b` to `a`: positive if `a` is newer. Range −32,768..=32,767.
#[inline]
#[must_use]
pub const fn distance16(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

/// Signed distance from `b` to `a`: positive if `a` is newer.
#[inline]
#[must_use]
pub const fn distance32(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// Unwraps 16-bit sequence numbers onto a 64-bit line that never wraps.
///
/// The first number is placed in the second cycle (65,536 + n), so that a packet that was reordered across the very
/// start keeps a place below it. Each later number goes to the place nearest to the newest one seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeqExtender {
    newest: Option<u64>,
}

impl SeqExtender {
    /// An extender that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { newest: None }
    }

    /// The newest extended number seen.
    #[must_use]
    pub const fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Where `seq` lies, without taking note of it.
    #[inline]
    #[must_use]
    pub fn peek(&self, seq: u16) -> u64 {
        match self.newest {
            None => 0x1_0000 + u64::from(seq),
            Some(newest) => {
                let step = i64::from(distance16(seq, newest as u16));
                // A number before the start of the line can only be a number of the next cycle.
                newest
                    .checked_add_signed(step)
                    .unwrap_or(newest + u64::from(seq.wrapping_sub(newest as u16)))
            }
        }
    }

    /// Where `seq` lies; the newest place moves forward if `seq` is newer.
    #[inline]
    pub fn extend(&mut self, seq: u16) -> u64 {
        let place = self.peek(seq);
        if self.newest.is_none_or(|newest| place > newest) {
            self.newest = Some(place);
        }
        place
    }

    /// Where `seq` lies if it is known to be newer than all before it, however far its number jumps.
    pub fn advance(&mut self, seq: u16) -> u64 {
        let place = match self.newest {
            None => self.peek(seq),
            Some(newest) => newest + u64::from(seq.wrapping_sub(newest as u16)),
        };
        self.newest = Some(place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shadow of `newer16`: walk forward from `b` for half a circle and see whether `a` is met.
    fn naive_newer16(a: u16, b: u16) -> bool {
        let mut at = b;
        for _ in 1..0x8000u32 {
            at = if at == u16::MAX { 0 } else { at + 1 };
            if at == a {
                return true;
            }
        }
        false
    }

    /// Shadow of `newer32`, by arithmetic in a wider type.
    fn naive_newer32(a: u32, b: u32) -> bool {
        let (a, b) = (i128::from(a), i128::from(b));
        [a, a + (1 << 32)]
            .iter()
            .any(|a| *a > b && a - b < (1 << 31))
    }

    /// Shadow of the extender: of all candidates congruent to `seq`, the one nearest to `newest` (older on a tie).
    fn naive_place(newest: u64, seq: u16) -> u64 {
        let cycle = newest >> 16;
        (cycle.saturating_sub(1)..=cycle + 1)
            .map(|c| (c << 16) + u64::from(seq))
            .min_by_key(|place| (place.abs_diff(newest), *place))
            .expect("three candidates")
    }

    #[test]
    fn wraps() {
        assert!(newer16(0, 65_535));
        assert!(!newer16(65_535, 0));
        assert!(!newer16(7, 7));
        assert!(!newer16(0x8000, 0) && !newer16(0, 0x8000));
        assert!(newer32(3, u32::MAX - 3));
        assert_eq!(distance16(2, 65_534), 4);
        assert_eq!(distance32(u32::MAX, 1), -2);
    }

    #[test]
    fn a_packet_from_before_the_first_stays_below_it() {
        let mut seq = SeqExtender::new();
        let first = seq.extend(2);
        assert_eq!(seq.extend(65_535), first - 3);
        assert_eq!(seq.newest(), Some(first));
    }

    proptest! {
        #[test]
        fn newer16_is_the_walk(a: u16, b: u16) {
            prop_assert_eq!(newer16(a, b), naive_newer16(a, b));
        }

        #[test]
        fn newer32_is_wide_arithmetic(a: u32, b: u32) {
            prop_assert_eq!(newer32(a, b), naive_newer32(a, b));
            prop_assert_eq!(newer32(a, a.wrapping_add(b % 3)), false);
        }

        #[test]
        fn extender_takes_the_nearest_place(first: u16, steps in prop::collection::vec(any::<u16>(), 0..400)) {
            let mut seq = SeqExtender::new();
            let mut newest = seq.extend(first);
            for s in steps {
                let place = seq.extend(s);
                prop_assert_eq!(place as u16, s);
                prop_assert_eq!(place, naive_place(newest, s));
                newest = newest.max(place);
                prop_assert_eq!(seq.newest(), Some(newest));
            }
        }

        /// Shadow: walk on from the newest place until the number is met.
        #[test]
        fn advancing_meets_the_number_at_its_next_turn(
            first: u16, steps in prop::collection::vec((any::<u16>(), any::<bool>()), 0..30),
        ) {
            let mut seq = SeqExtender::new();
            let mut newest = None;
            for (s, known_newer) in [(first, true)].into_iter().chain(steps) {
                if !known_newer {
                    newest = newest.max(Some(seq.extend(s)));
                    continue;
                }
                let place = seq.advance(s);
                let walk = newest.map_or(0x1_0000..=0x1_ffff, |newest: u64| newest..=newest + 0xffff);
                let met = walk.into_iter().find(|place| *place as u16 == s);
                prop_assert_eq!(Some(place), met);
                prop_assert_eq!(seq.newest(), met);
                newest = met;
            }
        }

        #[test]
        fn a_true_line_with_small_reordering_comes_back(
            start: u16, jumps in prop::collection::vec(-300i64..3000, 1..300),
        ) {
            let mut seq = SeqExtender::new();
            let base = seq.extend(start);
            let (mut truth, mut top) = (base as i64, base as i64);
            for jump in jumps {
                truth = (top + jump).max(0);
                top = top.max(truth);
                prop_assert_eq!(seq.extend(truth as u16) as i64, truth);
            }
            prop_assert!(truth <= top);
        }
    }
}
