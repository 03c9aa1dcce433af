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

    /// As [`get`](FrameWindow::get), by the 16 bits on the wire.
    pub(super) fn get_wire(&self, number: u16) -> Option<Fate> {
        let newest = self.newest?;
        self.get(newest.checked_sub(u64::from((newest as u16).wrapping_sub(number)))?)
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

/// What was decided of the newest pictures, by RTP timestamp.
#[derive(Clone, Debug)]
pub(super) struct Pictures<T> {
    /// Overwritten in turn.
    ring: [(u32, T); PICTURES],
    len: usize,
    next: usize,
}

/// Pictures remembered: about a second.
const PICTURES: usize = 32;

impl<T: Copy> Pictures<T> {
    /// No pictures. `empty` is never seen.
    pub(super) const fn new(empty: T) -> Self {
        Pictures {
            ring: [(0, empty); PICTURES],
            len: 0,
            next: 0,
        }
    }

    /// Newest first, in the order in which they were noted.
    fn iter(&self) -> impl Iterator<Item = &(u32, T)> {
        let (new, old) = self.ring.split_at(self.next);
        let known = old.iter().take(self.len.saturating_sub(self.next));
        new.iter().rev().chain(known.rev())
    }

    pub(super) fn get(&self, timestamp: u32) -> Option<T> {
        let found = self.iter().find(|(at, _)| *at == timestamp);
        found.map(|(_, fate)| *fate)
    }

    /// The latest of the pictures before this one, by timestamp.
    pub(super) fn before(&self, timestamp: u32) -> Option<T> {
        let ahead = |at: u32| timestamp.wrapping_sub(at);
        let older = self.iter().filter(|(at, _)| newer32(timestamp, *at));
        older
            .min_by_key(|(at, _)| ahead(*at))
            .map(|(_, fate)| *fate)
    }

    /// Whether a picture is older than all that are remembered.
    pub(super) fn has_passed(&self, timestamp: u32) -> bool {
        self.len == PICTURES && self.before(timestamp).is_none() && self.get(timestamp).is_none()
    }

    /// Notes what is decided of a picture, in place of what was.
    pub(super) fn set(&mut self, timestamp: u32, fate: T) {
        let known = self.ring.iter_mut().take(self.len);
        if let Some((_, old)) = known.into_iter().find(|(at, _)| *at == timestamp) {
            *old = fate;
            return;
        }
        self.ring[self.next] = (timestamp, fate);
        self.next = (self.next + 1) % PICTURES;
        self.len = (self.len + 1).min(PICTURES);
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
                    if number + 256 > newest && number <= newest {
                        prop_assert_eq!(window.get_wire(number as u16), known.copied());
                    }
                }
            }
        }

        /// Shadow: a list of the last 32.
        #[test]
        fn pictures_are_found_as_in_a_list(
            times in prop::collection::vec(0u32..200, 1..120), ask in prop::collection::vec(0u32..200, 20),
        ) {
            let offset = u32::MAX - 100;
            let mut pictures = Pictures::new(0);
            let mut shadow: Vec<(u32, usize)> = Vec::new();
            for (n, time) in times.into_iter().enumerate() {
                let timestamp = offset.wrapping_add(time);
                pictures.set(timestamp, n);
                let kept = shadow.len().saturating_sub(32);
                match shadow[kept..].iter_mut().find(|(at, _)| *at == time) {
                    Some((_, old)) => *old = n,
                    None => shadow.push((time, n)),
                }
                let kept = &shadow[shadow.len().saturating_sub(32)..];
                for time in &ask {
                    let timestamp = offset.wrapping_add(*time);
                    let known = kept.iter().find(|(at, _)| at == time).map(|(_, fate)| *fate);
                    prop_assert_eq!(pictures.get(timestamp), known);
                    let before = kept.iter().filter(|(at, _)| at < time).max_by_key(|(at, _)| *at);
                    let passed = shadow.len() >= 32 && known.is_none() && before.is_none();
                    prop_assert_eq!(pictures.has_passed(timestamp), passed);
                    prop_assert_eq!(pictures.before(timestamp), before.map(|(_, fate)| *fate));
                }
            }
        }
    }
}
