//! The packets of one incoming stream that may still be asked for, shared by all its subscribers.

use sealcast_model::Time;
use std::time::Duration;

/// Bounds of a [`PacketHistory`]. Whichever is reached first evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Packets, rounded up to a power of two. Sequence numbers further back are gone.
    pub packets: usize,
    /// Bytes of pool that the packets hold.
    pub bytes: u64,
    /// Age. No receiver waits longer for a frame.
    pub age: Duration,
}

impl Default for HistoryLimits {
    /// A second of 5 Mbit/s video: no subscriber waits longer for a packet, and 1,024 of the pool's
    /// slots for each stream is what the pool is sized for.
    fn default() -> Self {
        HistoryLimits {
            packets: 1_024,
            bytes: 1_024 * 1_536,
            age: Duration::from_secs(1),
        }
    }
}

#[derive(Debug)]
struct Stored<H> {
    sequence: u64,
    received: Time,
    bytes: u32,
    handle: H,
}

/// A ring of handles by extended sequence number.
///
/// A handle is whatever owns the packet's buffer. Every handle put in comes out exactly once: by
/// the `evict` callback of the call that displaced it.
#[derive(Debug)]
pub struct PacketHistory<H> {
    slots: Box<[Option<Stored<H>>]>,
    limits: HistoryLimits,
    /// Lowest number that may be stored, and one past the highest stored.
    low: u64,
    high: u64,
    len: usize,
    bytes: u64,
}

impl<H> PacketHistory<H> {
    /// An empty history. Its ring is allocated here and never grows.
    #[must_use]
    pub fn new(limits: HistoryLimits) -> Self {
        let slots = limits.packets.max(1).next_power_of_two();
        let slots = std::iter::repeat_with(|| None).take(slots).collect();
        PacketHistory {
            slots,
            limits,
            low: 0,
            high: 0,
            len: 0,
            bytes: 0,
        }
    }

    /// Stores the packet `sequence`. What it displaces goes to `evict`, and so does `handle` itself
    /// if its number is stored already or too far back.
    pub fn insert(
        &mut self,
        now: Time,
        sequence: u64,
        bytes: u32,
        handle: H,
        mut evict: impl FnMut(H),
    ) {
        self.expire(now, &mut evict);
        if self.len == 0 {
            (self.low, self.high) = (sequence, sequence);
        }
        let ring = self.slots.len() as u64;
        if sequence + ring <= self.high || self.get(sequence).is_some() {
            evict(handle);
            return;
        }
        if sequence >= self.high {
            self.high = sequence + 1;
            let floor = self.high.saturating_sub(ring);
            self.evict_below(floor, &mut evict);
        }
        // A late packet may lie below everything stored.
        self.low = self.low.min(sequence);
        let place = self.place(sequence);
        self.slots[place] = Some(Stored {
            sequence,
            received: now,
            bytes,
            handle,
        });
        self.len += 1;
        self.bytes += u64::from(bytes);
        while self.bytes > self.limits.bytes && self.len > 1 {
            self.evict_oldest(&mut evict);
        }
    }

    /// The packet `sequence`, if it is still here.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&H> {
        let stored = self.slots[self.place(sequence)].as_ref()?;
        (stored.sequence == sequence).then_some(&stored.handle)
    }

    /// Whether a packet with a higher number than `sequence` was stored.
    #[must_use]
    pub fn is_passed(&self, sequence: u64) -> bool {
        self.len > 0 && sequence + 1 < self.high
    }

    /// Evicts what is older than the limit.
    pub fn expire(&mut self, now: Time, mut evict: impl FnMut(H)) {
        while let Some(stored) = self.oldest() {
            if now - stored.received <= self.limits.age {
                return;
            }
            self.evict_oldest(&mut evict);
        }
    }

    /// Evicts everything.
    pub fn clear(&mut self, mut evict: impl FnMut(H)) {
        self.evict_below(self.high, &mut evict);
    }

    /// Packets held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no packet is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The packet with the lowest number. Moves `low` up to it, so that each place is passed once.
    fn oldest(&mut self) -> Option<&Stored<H>> {
        if self.len == 0 {
            return None;
        }
        while self.get(self.low).is_none() {
            self.low += 1;
        }
        self.slots[self.place(self.low)].as_ref()
    }

    fn evict_oldest(&mut self, evict: &mut impl FnMut(H)) {
        if self.oldest().is_some() {
            let low = self.low;
            self.evict_at(low, evict);
            self.low += 1;
        }
    }

    /// Evicts all numbers below `floor`.
    fn evict_below(&mut self, floor: u64, evict: &mut impl FnMut(H)) {
        while self.low < floor && self.len > 0 {
            let low = self.low;
            self.evict_at(low, evict);
            self.low += 1;
        }
        self.low = self.low.max(floor);
    }

    fn evict_at(&mut self, sequence: u64, evict: &mut impl FnMut(H)) {
        let slot = &mut self.slots[sequence as usize & (self.slots.len() - 1)];
        if slot
            .as_ref()
            .is_some_and(|stored| stored.sequence == sequence)
            && let Some(stored) = slot.take()
        {
            self.len -= 1;
            self.bytes -= u64::from(stored.bytes);
            evict(stored.handle);
        }
    }

    fn place(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Shadow: a map of everything, with each rule applied by looking at all of it.
    #[derive(Default)]
    struct Shadow {
        packets: BTreeMap<u64, (Time, u32, u32)>,
        evicted: Vec<u32>,
    }

    impl Shadow {
        fn remove(&mut self, gone: Vec<u64>) {
            for sequence in gone {
                let (_, _, id) = self.packets.remove(&sequence).expect("present");
                self.evicted.push(id);
            }
        }

        fn insert(&mut self, now: Time, sequence: u64, bytes: u32, id: u32, limits: HistoryLimits) {
            // By number, oldest first, up to the first young one: age is checked at the low end.
            let old = self
                .packets
                .iter()
                .take_while(|(_, p)| now - p.0 > limits.age);
            let old = old.map(|(s, _)| *s).collect();
            self.remove(old);
            let ring = limits.packets as u64;
            let newest = self.packets.keys().next_back().copied();
            if newest.is_some_and(|n| sequence + ring <= n + 1)
                || self.packets.contains_key(&sequence)
            {
                self.evicted.push(id);
                return;
            }
            self.packets.insert(sequence, (now, bytes, id));
            let newest = newest.map_or(sequence, |n| n.max(sequence));
            let far = self
                .packets
                .keys()
                .copied()
                .filter(|s| s + ring <= newest)
                .collect();
            self.remove(far);
            while self.packets.values().map(|p| u64::from(p.1)).sum::<u64>() > limits.bytes
                && self.packets.len() > 1
            {
                let first = *self.packets.keys().next().expect("not empty");
                self.remove(vec![first]);
            }
        }
    }

    proptest! {
        #[test]
        fn a_map_of_everything_says_the_same(
            ops in prop::collection::vec(
                (prop_oneof![8 => -6i64..6, 1 => -80i64..100, 1 => 500i64..600], 0u64..40, 1u32..1500), 1..400),
        ) {
            let limits = HistoryLimits { packets: 64, bytes: 40_000, age: Duration::from_millis(500) };
            let mut history = PacketHistory::new(limits);
            let mut shadow = Shadow::default();
            let (mut now, mut at) = (Time::ZERO, 70_000u64);
            for (id, (step, wait, bytes)) in ops.into_iter().enumerate() {
                now += Duration::from_millis(wait);
                at = at.saturating_add_signed(step);
                let mut evicted = Vec::new();
                history.insert(now, at, bytes, id as u32, |h| evicted.push(h));
                shadow.insert(now, at, bytes, id as u32, limits);
                prop_assert_eq!(evicted, std::mem::take(&mut shadow.evicted));
                prop_assert_eq!(history.len(), shadow.packets.len());
                prop_assert_eq!(history.bytes(), shadow.packets.values().map(|p| u64::from(p.1)).sum::<u64>());
                for sequence in at.saturating_sub(70)..at + 70 {
                    let want = shadow.packets.get(&sequence).map(|p| p.2);
                    prop_assert_eq!(history.get(sequence).copied(), want);
                }
                prop_assert!(history.len() <= 64);
            }
            let mut rest = Vec::new();
            history.clear(|h| rest.push(h));
            prop_assert!(rest.into_iter().eq(shadow.packets.values().map(|p| p.2)));
            prop_assert!(history.is_empty() && history.bytes() == 0);
        }
    }
}
