//! What became of the newest frames of a subscription, so that late packets share their fate.

use sealcast_rtp::seq::newer32;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) forwarded: bool,
    /// It is the last of its picture that this receiver gets.
    pub(super) closes: bool,
}

const WORDS: usize = FrameWindow::LEN as usize / u64::BITS as usize;

/// A window of fates by frame number, which runs on by one with each frame of a stream.
#[derive(Clone, Debug)]
pub(super) struct FrameWindow {
    newest: Option<u64>,
    /// By number modulo [`FrameWindow::LEN`].
    known: [u64; WORDS],
    forwarded: [u64; WORDS],
    closes: [u64; WORDS],
}

impl FrameWindow {
    /// Frames remembered: what a packet may be late by, and how far back dependencies are followed.
    /// Chains reach 255 frames back; pictures of three layers, 30 a second, fill three seconds.
    pub(super) const LEN: u64 = 256;

    pub(super) const fn new() -> Self {
        FrameWindow {
            newest: None,
            known: [0; WORDS],
            forwarded: [0; WORDS],
            closes: [0; WORDS],
        }
    }

    /// The newest frame's number.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % FrameWindow::LEN;
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Whether a frame is too old to be remembered.
    pub(super) fn has_passed(&self, number: u64) -> bool {
        self.newest
            .is_some_and(|newest| number + FrameWindow::LEN <= newest)
    }

    pub(super) fn get(&self, number: u64) -> Option<Fate> {
        if self.has_passed(number) || self.newest.is_none_or(|newest| number > newest) {
            return None;
        }
        let (word, bit) = FrameWindow::place(number);
        (self.known[word] & bit != 0).then_some(Fate {
            forwarded: self.forwarded[word] & bit != 0,
            closes: self.closes[word] & bit != 0,
        })
    }

    /// Notes the fate of a frame; one that has passed is not noted.
    pub(super) fn set(&mut self, number: u64, fate: Fate) {
        if self.has_passed(number) {
            return;
        }
        let newest = *self.newest.get_or_insert(number);
        let fresh = number.saturating_sub(newest).min(FrameWindow::LEN);
        for unknown in 0..fresh {
            let (word, bit) = FrameWindow::place(number - unknown);
            self.known[word] &= !bit;
        }
        self.newest = Some(newest.max(number));
        let (word, bit) = FrameWindow::place(number);
        let put = |word: &mut u64, value| *word = if value { *word | bit } else { *word & !bit };
        put(&mut self.known[word], true);
        put(&mut self.forwarded[word], fate.forwarded);
        put(&mut self.closes[word], fate.closes);
    }
}

/// What was decided of the newest pictures, by RTP timestamp. Of what is older than all of them
/// nothing is known any more, and nothing is noted.
#[derive(Clone, Debug)]
pub(super) struct Pictures<T> {
    /// In order of time from `oldest` on, around the end.
    ring: [(u32, T); PICTURES],
    oldest: usize,
    len: usize,
}

/// Pictures remembered: about a second.
const PICTURES: usize = 32;

/// Ticks of 90 kHz, ten seconds: a picture that comes this long after a newer one is not late, but
/// of another timeline. Histories that late packets come from are shorter.
const JUMP: u32 = 900_000;

impl<T: Copy> Pictures<T> {
    /// No pictures. `empty` is never seen.
    pub(super) const fn new(empty: T) -> Self {
        Pictures {
            ring: [(0, empty); PICTURES],
            oldest: 0,
            len: 0,
        }
    }

    /// The place of the `nth` newest picture.
    fn place(&self, nth: usize) -> usize {
        (self.oldest + self.len - 1 - nth) % PICTURES
    }

    /// Newest first.
    fn iter(&self) -> impl Iterator<Item = (u32, T)> {
        (0..self.len).map(|nth| self.ring[self.place(nth)])
    }

    pub(super) fn get(&self, timestamp: u32) -> Option<T> {
        let not_newer = self.iter().find(|(at, _)| !newer32(*at, timestamp));
        not_newer
            .filter(|(at, _)| *at == timestamp)
            .map(|(_, fate)| fate)
    }

    /// The latest of the pictures before this one.
    pub(super) fn before(&self, timestamp: u32) -> Option<T> {
        let older = self.iter().find(|(at, _)| newer32(timestamp, *at));
        older.map(|(_, fate)| fate)
    }

    /// The first of the pictures after this one.
    pub(super) fn after(&self, timestamp: u32) -> Option<T> {
        let newer = self.iter().take_while(|(at, _)| newer32(*at, timestamp));
        newer.last().map(|(_, fate)| fate)
    }

    /// Whether a picture is older than all that are remembered.
    pub(super) fn has_passed(&self, timestamp: u32) -> bool {
        self.len == PICTURES && newer32(self.ring[self.oldest].0, timestamp)
    }

    /// Whether the timeline goes on elsewhere with this picture: the others are no guide to it.
    pub(super) fn is_elsewhere(&self, timestamp: u32) -> bool {
        let newest = self.iter().next().map(|(at, _)| at);
        newest.is_some_and(|at| newer32(at.wrapping_sub(JUMP), timestamp))
            && self.get(timestamp).is_none()
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Notes what is decided of a picture, in place of what was.
    pub(super) fn set(&mut self, timestamp: u32, fate: T) {
        let newer = self.iter().take_while(|(at, _)| newer32(*at, timestamp));
        let newer = newer.count();
        if newer < self.len && self.ring[self.place(newer)].0 == timestamp {
            self.ring[self.place(newer)].1 = fate;
            return;
        }
        if self.len < PICTURES {
            self.len += 1;
        } else if newer < PICTURES {
            self.oldest = (self.oldest + 1) % PICTURES;
        } else {
            return;
        }
        for nth in 0..newer {
            self.ring[self.place(nth)] = self.ring[self.place(nth + 1)];
        }
        self.ring[self.place(newer)] = (timestamp, fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Shadow: a map of all frames ever noted.
        #[test]
        fn the_window_remembers_as_a_map_does(
            steps in prop::collection::vec((-300i64..40, any::<bool>(), any::<bool>()), 1..300),
            jump in prop::option::of((0usize..300, 0i64..2_000)),
        ) {
            let mut window = FrameWindow::new();
            let mut shadow: BTreeMap<u64, Fate> = BTreeMap::new();
            let mut at = 70_000u64;
            for (n, (step, forwarded, closes)) in steps.into_iter().enumerate() {
                let further = jump.filter(|(when, _)| *when == n).map_or(0, |(_, by)| by);
                at = at.saturating_add_signed(step + further);
                let newest = shadow.keys().last().copied();
                let passed = newest.is_some_and(|newest| at + 256 <= newest);
                prop_assert_eq!(window.has_passed(at), passed);
                let fate = Fate { forwarded, closes };
                window.set(at, fate);
                if !passed {
                    shadow.insert(at, fate);
                }
                let newest = shadow.keys().last().copied().unwrap_or(0);
                for number in newest.saturating_sub(300)..newest + 10 {
                    let known = shadow.get(&number).filter(|_| number + 256 > newest);
                    prop_assert_eq!(window.get(number), known.copied(), "{} of {}", number, newest);
                }
            }
        }

        /// Shadow: a map, of which the 32 newest are left.
        #[test]
        fn pictures_are_found_as_in_a_map(
            times in prop::collection::vec(0u32..200, 1..120), ask in prop::collection::vec(0u32..200, 20),
        ) {
            let offset = u32::MAX - 100;
            let mut pictures = Pictures::new(0);
            let mut shadow: BTreeMap<u32, usize> = BTreeMap::new();
            for (n, time) in times.into_iter().enumerate() {
                pictures.set(offset.wrapping_add(time), n);
                shadow.insert(time, n);
                if shadow.len() > 32 {
                    shadow.pop_first();
                }
                let oldest = *shadow.keys().next().expect("one was noted");
                for time in &ask {
                    let timestamp = offset.wrapping_add(*time);
                    let before = shadow.range(..time).next_back().map(|(_, fate)| *fate);
                    let after = shadow.range(time + 1..).next().map(|(_, fate)| *fate);
                    let passed = shadow.len() == 32 && *time < oldest;
                    prop_assert_eq!(pictures.get(timestamp), shadow.get(time).copied());
                    prop_assert_eq!(pictures.before(timestamp), before);
                    prop_assert_eq!(pictures.after(timestamp), after);
                    prop_assert_eq!(pictures.has_passed(timestamp), passed);
                    prop_assert!(!pictures.is_elsewhere(timestamp));
                }
            }
        }
    }

    #[test]
    fn a_timeline_that_jumps_is_another_one() {
        let mut pictures = Pictures::new(0);
        assert!(!pictures.is_elsewhere(7));
        for (n, at) in [5_000_000u32, 4_000_000, 6_000_000].into_iter().enumerate() {
            pictures.set(at, n);
        }
        assert!(!pictures.is_elsewhere(6_003_000) && !pictures.is_elsewhere(5_100_000));
        assert!(pictures.is_elsewhere(5_099_999));
        assert!(!pictures.is_elsewhere(4_000_000), "it is remembered");
        assert!(pictures.is_elsewhere(6_000_000 + (1 << 31) + 1));
        pictures.clear();
        assert_eq!(pictures.get(6_000_000), None);
        assert!(!pictures.is_elsewhere(7));
    }
}
