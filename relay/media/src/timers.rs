//! Deadlines of many owners in one queue.
//!
//! Owners keep their own deadline; the queue holds hints. A hint that comes up earlier than its
//! owner's deadline is put back, so moving a deadline later costs nothing, and an owner never has
//! more than one hint that is not older than another.

use crate::limits::{NACK_GRID, TIMER_GRID};
use sealcast_model::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Who wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A peer's next RTCP report.
    Report(u32),
    /// A stream's next key-frame request.
    Keyframe(u32),
    /// A stream's next NACK.
    Nack(u32),
    /// A publisher's next transport-wide feedback.
    Arrivals(u32),
    /// A controlled path's next turn.
    Bandwidth(u32),
    /// A pacer's next packets.
    Pace(u32),
    /// A room's voices are looked at.
    Attention(u32),
    /// Publishers are told which encodings nobody wants.
    Review,
    /// Histories give up what is too old.
    Sweep,
    /// Other shards are told again what is wanted of their tracks.
    Mirrors,
}

/// A queue of hints.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Timer)>>,
}

impl Timers {
    /// Adds a hint and returns the deadline that it stands for: `at`, moved up to the grid of its
    /// kind.
    pub(crate) fn set(&mut self, at: Time, timer: Timer) -> Time {
        let grid = if matches!(timer, Timer::Nack(_) | Timer::Pace(_)) {
            NACK_GRID
        } else {
            TIMER_GRID
        };
        let at = round_up(at, grid);
        self.heap.push(Reverse((at, timer)));
        at
    }

    /// The next hint that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, Timer)> {
        if self.next() > now {
            return None;
        }
        self.heap.pop().map(|Reverse(hint)| hint)
    }

    /// The earliest hint.
    pub(crate) fn next(&self) -> Time {
        self.heap.peek().map_or(Time::NEVER, |Reverse((at, _))| *at)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

fn round_up(at: Time, grid: Duration) -> Time {
    let grid = grid.as_nanos() as u64;
    at.as_nanos()
        .checked_next_multiple_of(grid)
        .map_or(Time::NEVER, Time::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_come_in_order_and_on_the_grid() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), Time::NEVER);
        assert_eq!(
            timers.set(Time::from_micros(15_001), Timer::Report(1)),
            Time::from_millis(20)
        );
        assert_eq!(
            timers.set(Time::from_millis(10), Timer::Keyframe(2)),
            Time::from_millis(10)
        );
        assert_eq!(timers.pop_due(Time::from_millis(9)), None);
        assert_eq!(
            timers.pop_due(Time::from_millis(20)),
            Some((Time::from_millis(10), Timer::Keyframe(2)))
        );
        assert_eq!(
            timers.pop_due(Time::from_millis(20)),
            Some((Time::from_millis(20), Timer::Report(1)))
        );
        assert_eq!(timers.len(), 0);
    }
}
