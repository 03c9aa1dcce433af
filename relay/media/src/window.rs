//! Which of a stream's newest packets have arrived: a bitmap that slides with the stream.

use crate::limits::RECEIVE_WINDOW;

const WORDS: usize = RECEIVE_WINDOW / 64;

/// Tells packets seen for the first time from repetitions, over the newest [`RECEIVE_WINDOW`]
/// extended sequence numbers.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveWindow {
    /// Bit `s % RECEIVE_WINDOW` belongs to number `s` of `newest - RECEIVE_WINDOW + 1..=newest`.
    bits: [u64; WORDS],
    newest: Option<u64>,
}

/// What [`ReceiveWindow::insert`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Newer than everything so far.
    Newest,
    /// Missing until now.
    Late,
    /// Arrived before, or too old to tell.
    Stale,
}

impl ReceiveWindow {
    pub(crate) const fn new() -> Self {
        ReceiveWindow {
            bits: [0; WORDS],
            newest: None,
        }
    }

    /// Takes note of the arrival of `seq`.
    pub(crate) fn insert(&mut self, seq: u64) -> Arrival {
        let arrival = match self.newest {
            Some(newest) if seq <= newest => {
                if newest - seq >= RECEIVE_WINDOW as u64 || self.bit(seq) {
                    return Arrival::Stale;
                }
                Arrival::Late
            }
            Some(newest) => {
                self.slide(newest, seq);
                Arrival::Newest
            }
            None => Arrival::Newest,
        };
        if arrival == Arrival::Newest {
            self.newest = Some(seq);
        }
        let (word, mask) = place(seq);
        self.bits[word] |= mask;
        arrival
    }

    /// Clears the places between the old newest number and the new one.
    fn slide(&mut self, newest: u64, seq: u64) {
        if seq - newest >= RECEIVE_WINDOW as u64 {
            self.bits = [0; WORDS];
            return;
        }
        for passed in newest + 1..=seq {
            let (word, mask) = place(passed);
            self.bits[word] &= !mask;
        }
    }

    fn bit(&self, seq: u64) -> bool {
        let (word, mask) = place(seq);
        self.bits[word] & mask != 0
    }
}

fn place(seq: u64) -> (usize, u64) {
    let bit = seq as usize % RECEIVE_WINDOW;
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_all_numbers_says_the_same(
            start in 65_536u64..70_000,
            steps in prop::collection::vec(prop_oneof![
                6 => -40i64..60,
                2 => -2_200i64..10,
                1 => 2_000i64..2_200,
                1 => 100_000i64..100_002,
            ], 1..300),
        ) {
            let mut window = ReceiveWindow::new();
            let mut seen = BTreeSet::new();
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                let newest = seen.last().copied();
                let want = match newest {
                    Some(n) if at <= n && (n - at >= RECEIVE_WINDOW as u64 || seen.contains(&at)) => Arrival::Stale,
                    Some(n) if at <= n => Arrival::Late,
                    _ => Arrival::Newest,
                };
                prop_assert_eq!(window.insert(at), want);
                if want != Arrival::Stale {
                    seen.insert(at);
                }
            }
        }
    }
}
