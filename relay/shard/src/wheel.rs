//! A hierarchical timer wheel for thousands of timers that mostly never fire.
//!
//! One timer per key, keys are small integers. Setting, moving and cancelling are O(1); a timer is
//! moved at most once per level on its way down. Timers fire late by less than one tick and never
//! early, and [`TimerWheel::next_deadline`] is exact, so that an idle relay does not wake to move timers
//! between levels.
//!
//! Invariant: a timer of tick `t > elapsed` is in the level of the highest bit in which `t` and
//! `elapsed` differ. So each level holds only slots after its current one, and every timer of a
//! level is earlier than every timer of the level above.

use sealcast_model::Time;

/// log2 of a tick in nanoseconds: 1.05 ms.
const TICK_SHIFT: u32 = 20;
/// log2 of the slots per level.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Eight levels of six bits cover the 44 bits that a [`Time`] in ticks can have.
const LEVELS: usize = 8;
/// End of a list.
const NIL: u32 = u32::MAX;

/// Where a timer is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// Not set.
    None,
    /// Its tick has been reached; waits to be popped.
    Due,
    /// In a slot of a level.
    Slot { level: u8, slot: u8 },
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    tick: u64,
    next: u32,
    prev: u32,
    home: Home,
}

impl Timer {
    const UNSET: Timer = Timer {
        tick: u64::MAX,
        next: NIL,
        prev: NIL,
        home: Home::None,
    };
}

#[derive(Clone, Debug)]
struct Level {
    /// Bit `i`: slot `i` is not empty.
    occupied: u64,
    heads: [u32; SLOTS],
}

/// Timers by key. See the module's documentation.
#[derive(Debug)]
pub struct TimerWheel {
    timers: Vec<Timer>,
    levels: [Level; LEVELS],
    due: u32,
    /// Every timer with a tick up to this one is in the due list.
    elapsed: u64,
    /// The earliest tick, if known.
    earliest: Option<u64>,
}

impl TimerWheel {
    /// A wheel without timers. It takes keys as they come and keeps memory for the largest one.
    #[must_use]
    pub fn new() -> Self {
        TimerWheel {
            timers: Vec::new(),
            levels: std::array::from_fn(|_| Level {
                occupied: 0,
                heads: [NIL; SLOTS],
            }),
            due: NIL,
            elapsed: 0,
            earliest: Some(u64::MAX),
        }
    }

    /// Sets the key's timer, wherever it was before. [`Time::NEVER`] cancels it.
    pub fn set(&mut self, key: u32, deadline: Time) {
        let index = key as usize;
        if index >= self.timers.len() {
            if deadline == Time::NEVER {
                return;
            }
            self.timers.resize(index + 1, Timer::UNSET);
        }
        self.unlink(key);
        if deadline == Time::NEVER {
            return;
        }
        let tick = tick_at_or_after(deadline);
        self.timers[index].tick = tick;
        self.link(key);
        if let Some(earliest) = &mut self.earliest {
            *earliest = (*earliest).min(tick);
        }
    }

    /// Cancels the key's timer, if set.
    pub fn cancel(&mut self, key: u32) {
        self.set(key, Time::NEVER);
    }

    /// Whether the key's timer is set and fires at or before `deadline`.
    #[must_use]
    pub fn covers(&self, key: u32, deadline: Time) -> bool {
        self.timers
            .get(key as usize)
            .is_some_and(|t| t.home != Home::None && t.tick <= tick_at_or_after(deadline))
    }

    /// When the earliest timer fires, or [`Time::NEVER`].
    pub fn next_deadline(&mut self) -> Time {
        let tick = match self.earliest {
            Some(tick) => tick,
            None => {
                let tick = self.find_earliest();
                self.earliest = Some(tick);
                tick
            }
        };
        if tick == u64::MAX {
            return Time::NEVER;
        }
        Time::from_nanos(tick.saturating_mul(1 << TICK_SHIFT))
    }

    /// Takes a timer that is due by `now`; call until `None`. `now` must not go back.
    pub fn pop(&mut self, now: Time) -> Option<u32> {
        let now = now.as_nanos() >> TICK_SHIFT;
        if self.due == NIL {
            self.advance(now);
        }
        let key = self.due;
        if key == NIL {
            return None;
        }
        self.unlink(key);
        Some(key)
    }

    /// Moves every timer with a tick up to `now` into the due list.
    fn advance(&mut self, now: u64) {
        while self.elapsed < now {
            let Some((level, slot)) = self.first_slot() else {
                break;
            };
            let start = self.slot_start(level, slot);
            if start > now {
                break;
            }
            // Only slots between `elapsed` and `start` are passed over, and they are empty, so the
            // timers that stay keep their level.
            self.elapsed = start;
            let level = &mut self.levels[level];
            let mut key = std::mem::replace(&mut level.heads[slot], NIL);
            level.occupied &= !(1 << slot);
            while key != NIL {
                let next = self.timers[key as usize].next;
                self.link(key);
                key = next;
            }
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// Links a timer, whose tick is set and which is in no list, where it belongs.
    fn link(&mut self, key: u32) {
        let tick = self.timers[key as usize].tick;
        let (home, head) = if tick <= self.elapsed {
            (Home::Due, &mut self.due)
        } else {
            let level = ((tick ^ self.elapsed).ilog2() / SLOT_BITS) as usize;
            let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
            self.levels[level].occupied |= 1 << slot;
            let home = Home::Slot {
                level: level as u8,
                slot: slot as u8,
            };
            (home, &mut self.levels[level].heads[slot])
        };
        let next = std::mem::replace(head, key);
        if next != NIL {
            self.timers[next as usize].prev = key;
        }
        let timer = &mut self.timers[key as usize];
        (timer.home, timer.next, timer.prev) = (home, next, NIL);
    }

    /// Takes a timer out of its list, if it is in one.
    fn unlink(&mut self, key: u32) {
        let timer = std::mem::replace(&mut self.timers[key as usize], Timer::UNSET);
        if timer.home == Home::None {
            return;
        }
        if self.earliest == Some(timer.tick) {
            self.earliest = None;
        }
        if timer.next != NIL {
            self.timers[timer.next as usize].prev = timer.prev;
        }
        if timer.prev != NIL {
            self.timers[timer.prev as usize].next = timer.next;
            return;
        }
        match timer.home {
            Home::None => {}
            Home::Due => self.due = timer.next,
            Home::Slot { level, slot } => {
                let level = &mut self.levels[usize::from(level)];
                level.heads[usize::from(slot)] = timer.next;
                if timer.next == NIL {
                    level.occupied &= !(1 << slot);
                }
            }
        }
    }

    /// The earliest slot that is not empty.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.levels.iter().position(|l| l.occupied != 0)?;
        Some((level, self.levels[level].occupied.trailing_zeros() as usize))
    }

    /// The first tick of a slot after the current one.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = SLOT_BITS * level as u32;
        let above = self.elapsed >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        above | (slot as u64) << shift
    }

    /// The earliest tick by looking, or `u64::MAX`.
    fn find_earliest(&self) -> u64 {
        let head = if self.due != NIL {
            self.due
        } else if let Some((level, slot)) = self.first_slot() {
            self.levels[level].heads[slot]
        } else {
            return u64::MAX;
        };
        std::iter::successors(Some(head), |&key| {
            Some(self.timers[key as usize].next).filter(|next| *next != NIL)
        })
        .map(|key| self.timers[key as usize].tick)
        .min()
        .unwrap_or(u64::MAX)
    }
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self::new()
    }
}

/// The tick at which a timer for `deadline` fires: rounded up, so never early.
fn tick_at_or_after(deadline: Time) -> u64 {
    deadline.as_nanos().div_ceil(1 << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn fires_in_time_and_not_before() {
        let mut wheel = TimerWheel::new();
        let deadline = Time::from_millis(60_000);
        wheel.set(7, deadline);
        let next = wheel.next_deadline();
        assert!(next >= deadline && next - deadline < std::time::Duration::from_millis(2));
        assert_eq!(wheel.pop(Time::from_millis(59_999)), None);
        assert_eq!(
            wheel.next_deadline(),
            next,
            "looking does not change what is next"
        );
        assert_eq!(wheel.pop(next), Some(7));
        assert_eq!(wheel.pop(next), None);
        assert_eq!(wheel.next_deadline(), Time::NEVER);
    }

    #[test]
    fn takes_the_whole_range_of_time() {
        let mut wheel = TimerWheel::new();
        wheel.set(0, Time::from_nanos(u64::MAX - 1));
        wheel.set(1, Time::ZERO);
        assert_eq!(wheel.pop(Time::ZERO), Some(1));
        assert_eq!(wheel.pop(Time::from_nanos(u64::MAX / 2)), None);
        wheel.cancel(0);
        assert_eq!(wheel.next_deadline(), Time::NEVER);
        wheel.cancel(40_000);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    /// Spans from a tick to years, so that every level is used.
    fn span() -> impl Strategy<Value = u64> {
        (0u32..58, 0.5f64..1.0).prop_map(|(bits, part)| ((1u64 << bits) as f64 * part) as u64)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..40, span()).prop_map(|(key, after)| Op::Set(key, after)),
            1 => (0u32..40).prop_map(Op::Cancel),
            2 => span().prop_map(Op::Advance),
        ]
    }

    proptest! {
        /// Against a sorted map: the same timers fire at the same instants.
        #[test]
        fn agrees_with_a_naive_shadow(ops in proptest::collection::vec(op(), 1..300)) {
            let mut wheel = TimerWheel::new();
            let mut shadow: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0u64;
            for op in ops {
                match op {
                    Op::Set(key, after) => {
                        wheel.set(key, Time::from_nanos(now + after));
                        shadow.insert(key, (now + after).div_ceil(1 << TICK_SHIFT));
                    }
                    Op::Cancel(key) => {
                        wheel.cancel(key);
                        shadow.remove(&key);
                    }
                    Op::Advance(by) => {
                        now = (now + by).min(1 << 62);
                        let mut fired: Vec<u32> =
                            std::iter::from_fn(|| wheel.pop(Time::from_nanos(now))).collect();
                        fired.sort_unstable();
                        let due: Vec<u32> = shadow
                            .iter()
                            .filter(|(_, tick)| **tick <= now >> TICK_SHIFT)
                            .map(|(key, _)| *key)
                            .collect();
                        shadow.retain(|key, _| !due.contains(key));
                        prop_assert_eq!(fired, due);
                    }
                }
                let next = shadow.values().min().map_or(u64::MAX, |t| t << TICK_SHIFT);
                prop_assert_eq!(wheel.next_deadline().as_nanos(), next);
                for key in 0..40 {
                    let set = shadow.get(&key).is_some_and(|t| *t <= (now + 5_000_000).div_ceil(1 << TICK_SHIFT));
                    prop_assert_eq!(wheel.covers(key, Time::from_nanos(now + 5_000_000)), set);
                }
            }
        }
    }
}
