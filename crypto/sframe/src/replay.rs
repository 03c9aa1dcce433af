//! The replay window of one key: which of the newest [`REPLAY_WINDOW`] counters were opened.

/// Counters behind the newest one that are still told apart. A frame that a NACK repaired, or one of
/// another spatial layer, arrives late by tens of frames; 1,024 are 20 s of audio.
pub const REPLAY_WINDOW: u64 = 1024;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// A sliding window over a counter that may skip ahead by any amount (the relay drops layers).
///
/// Contract: [`is_fresh`](Self::is_fresh) before the frame is opened, [`record`](Self::record) once
/// it has authenticated, and never otherwise: a forged counter must not move the window.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// One past the highest counter recorded; 0 while empty. In u128 so that the highest counter,
    /// `u64::MAX`, has a successor.
    next: u128,
    /// Bit `c % REPLAY_WINDOW` is set if counter `c` within the window was recorded.
    seen: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }
}

impl ReplayWindow {
    /// Whether `counter` is neither recorded nor behind the window.
    pub fn is_fresh(&self, counter: u64) -> bool {
        let past_end = u128::from(counter) + 1;
        if past_end > self.next {
            return true;
        }
        if self.next - past_end >= u128::from(REPLAY_WINDOW) {
            return false;
        }
        let (word, bit) = position(counter);
        self.seen[word] & bit == 0
    }

    /// Marks `counter` as opened. A counter behind the window changes nothing.
    pub fn record(&mut self, counter: u64) {
        let past_end = u128::from(counter) + 1;
        if past_end > self.next {
            self.advance(past_end);
        } else if self.next - past_end >= u128::from(REPLAY_WINDOW) {
            return;
        }
        let (word, bit) = position(counter);
        self.seen[word] |= bit;
    }

    /// Moves the window's end to `next`, forgetting the counters that drop out of it.
    fn advance(&mut self, next: u128) {
        if next - self.next >= u128::from(REPLAY_WINDOW) {
            self.seen = [0; WORDS];
        } else {
            // `self.next` is at most u64::MAX here, as `next` is above it and at most 2^64.
            for counter in self.next..next {
                let (word, bit) = position(counter as u64);
                self.seen[word] &= !bit;
            }
        }
        self.next = next;
    }
}

/// Word and bit of `counter` in [`ReplayWindow::seen`]; the word is below [`WORDS`].
fn position(counter: u64) -> (usize, u64) {
    let offset = counter % REPLAY_WINDOW;
    ((offset / 64) as usize, 1 << (offset % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_last_counter_is_accepted_once() {
        let mut window = ReplayWindow::default();
        assert!(window.is_fresh(u64::MAX));
        window.record(u64::MAX);
        assert!(!window.is_fresh(u64::MAX));
        assert!(window.is_fresh(u64::MAX - 1));
        assert!(!window.is_fresh(u64::MAX - REPLAY_WINDOW));
    }

    proptest! {
        /// Against a set of all counters ever recorded.
        #[test]
        fn agrees_with_a_set(
            base in prop_oneof![Just(0), any::<u64>()],
            steps in prop::collection::vec(prop_oneof![0..40i64, -1200..1200i64, -3..5000i64], 1..600),
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut at = base;
            for step in steps {
                at = at.saturating_add_signed(step);
                let behind = seen.last().is_some_and(|&newest: &u64| {
                    u128::from(at) + u128::from(REPLAY_WINDOW) <= u128::from(newest)
                });
                let fresh = !behind && !seen.contains(&at);
                prop_assert_eq!(window.is_fresh(at), fresh, "counter {}", at);
                if fresh {
                    window.record(at);
                    seen.insert(at);
                }
            }
        }
    }
}
