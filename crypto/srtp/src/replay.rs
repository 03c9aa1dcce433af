//! A window over packet indices that knows which were used (RFC 3711 §3.3.2).
//!
//! Invariant: for every index in `(highest - 1024, highest]`, its bit in `used` is set exactly
//! when the index was marked. Bits are addressed by the index modulo 1,024.

use crate::index;
use crate::limits::REPLAY_WINDOW;

const WORDS: usize = REPLAY_WINDOW as usize / 64;
const _: () = assert!(REPLAY_WINDOW.is_multiple_of(64) && REPLAY_WINDOW.is_power_of_two());

/// What a window knows of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not used before.
    Fresh,
    /// Used before.
    Used,
    /// Behind the window: unknown.
    TooOld,
}

/// Which of the last 1,024 indices were used.
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    highest: u64,
    used: [u64; WORDS],
}

impl ReplayWindow {
    /// A window whose first used index is `first`.
    pub(crate) fn new(first: u64) -> Self {
        let mut window = ReplayWindow {
            highest: first,
            used: [0; WORDS],
        };
        window.set(first);
        window
    }

    /// The highest index used.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// The index that a 16-bit sequence number stands for ([`index::estimate`]).
    pub(crate) fn estimate(&self, seq: u16) -> Option<u64> {
        index::estimate(self.highest, seq)
    }

    /// What is known of `index`. Changes nothing, so it may be asked before authentication.
    #[inline]
    pub(crate) fn status(&self, index: u64) -> Status {
        if index > self.highest {
            Status::Fresh
        } else if self.highest - index >= REPLAY_WINDOW {
            Status::TooOld
        } else if self.used[word(index)] & bit(index) != 0 {
            Status::Used
        } else {
            Status::Fresh
        }
    }

    /// Marks `index` used and moves the window up to it. An index behind the window is ignored.
    ///
    /// RFC 3711 §3.3.2: "After the packet has been authenticated (if necessary the window is first
    /// moved ahead), the replay list SHALL be updated with the new index."
    #[inline]
    pub(crate) fn mark(&mut self, index: u64) {
        if index == self.highest + 1 {
            // Nearly always the next one, whose bit is about to be set: nothing to clear.
            self.highest = index;
        } else if index > self.highest {
            self.clear_range(self.highest + 1, index);
            self.highest = index;
        } else if self.highest - index >= REPLAY_WINDOW {
            return;
        }
        self.set(index);
    }

    #[inline]
    fn set(&mut self, index: u64) {
        self.used[word(index)] |= bit(index);
    }

    /// Clears the bits of `from..=to`, whole words at a time.
    #[inline]
    fn clear_range(&mut self, from: u64, to: u64) {
        if to - from >= REPLAY_WINDOW - 1 {
            self.used = [0; WORDS];
            return;
        }
        let mut next = from;
        while next <= to {
            let last_in_word = (next | 63).min(to);
            let mask = (u64::MAX << (next % 64)) & (u64::MAX >> (63 - last_in_word % 64));
            self.used[word(next)] &= !mask;
            next = last_in_word + 1;
        }
    }
}

#[inline]
fn word(index: u64) -> usize {
    (index / 64) as usize % WORDS
}

#[inline]
fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The naive shadow: every index ever marked.
    struct Shadow {
        highest: u64,
        used: BTreeSet<u64>,
    }

    impl Shadow {
        fn status(&self, index: u64) -> Status {
            if index + REPLAY_WINDOW <= self.highest {
                Status::TooOld
            } else if self.used.contains(&index) {
                Status::Used
            } else {
                Status::Fresh
            }
        }

        fn mark(&mut self, index: u64) {
            self.highest = self.highest.max(index);
            self.used.insert(index);
        }
    }

    /// Steps that stay near the window's edges, with jumps of every size.
    fn step() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => 1..3i64,
            4 => -70..70i64,
            2 => -1_100..1_100i64,
            1 => prop::sample::select(vec![-1_025, -1_024, -1_023, 63, 64, 65, 1_023, 1_024, 1_025]),
            1 => 0..200_000i64,
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(first in 0..5_000u64, steps in prop::collection::vec(step(), 1..400)) {
            let mut window = ReplayWindow::new(first);
            let mut shadow = Shadow { highest: first, used: BTreeSet::from([first]) };
            for step in steps {
                let index = window.highest().saturating_add_signed(step);
                prop_assert_eq!(window.status(index), shadow.status(index), "index {}", index);
                if window.status(index) == Status::Fresh {
                    window.mark(index);
                    shadow.mark(index);
                }
                prop_assert_eq!(window.highest(), shadow.highest);
                for probe in (window.highest().saturating_sub(1_030)..=window.highest() + 2).step_by(7) {
                    prop_assert_eq!(window.status(probe), shadow.status(probe), "probe {}", probe);
                }
            }
        }
    }

    #[test]
    fn holds_exactly_1024_indices() {
        let mut window = ReplayWindow::new(0);
        window.mark(1_023);
        assert_eq!(window.status(0), Status::Used);
        window.mark(1_024);
        assert_eq!(window.status(0), Status::TooOld);
        assert_eq!(window.status(1), Status::Fresh);
    }

    #[test]
    fn marking_behind_the_window_changes_nothing() {
        let mut window = ReplayWindow::new(5_000);
        window.mark(5_000 - 1_024);
        assert_eq!(window.status(5_000), Status::Used);
        assert_eq!(window.status(5_000 - 1_023), Status::Fresh);
    }
}
