//! The packet pool: fixed slots, one owner, no allocation after start.
//!
//! A pool belongs to one shard. A [`PacketBuf`] is a counted reference to a slot, but the count is
//! kept by the pool and not by the handle, so cloning and freeing are explicit
//! ([`PacketPool::retain`], [`PacketPool::release`]) and cost no atomic operation.
//!
//! Invariant: a slot is on the free list exactly when its count is zero.

use crate::limits::PACKET_SLOT;

/// A reference to one slot of a [`PacketPool`]. Must go back by [`PacketPool::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not released is lost to its pool"]
pub struct PacketBuf(u32);

/// A slab of `capacity` slots of [`PACKET_SLOT`] bytes.
pub struct PacketPool {
    storage: Box<[u8]>,
    counts: Box<[u16]>,
    free: Vec<u32>,
}

impl PacketPool {
    /// A pool of `capacity` slots (1..=2^31), all free. Allocates `capacity × PACKET_SLOT` bytes,
    /// which the system backs with memory as slots are first used.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, 1 << 31);
        PacketPool {
            storage: vec![0; capacity * PACKET_SLOT].into_boxed_slice(),
            counts: vec![0; capacity].into_boxed_slice(),
            // Popped from the back: low slots first, so a quiet relay touches little memory.
            free: (0..capacity as u32).rev().collect(),
        }
    }

    /// A free slot with count one, or `None` if the pool is exhausted.
    pub fn alloc(&mut self) -> Option<PacketBuf> {
        let index = self.free.pop()?;
        self.counts[index as usize] = 1;
        Some(PacketBuf(index))
    }

    /// A further reference to the same slot, or `None` if it has 65,535 already.
    pub fn retain(&mut self, buf: &PacketBuf) -> Option<PacketBuf> {
        let count = &mut self.counts[buf.0 as usize];
        *count = count.checked_add(1)?;
        Some(PacketBuf(buf.0))
    }

    /// Gives a reference back; the last one frees the slot.
    pub fn release(&mut self, buf: PacketBuf) {
        let count = &mut self.counts[buf.0 as usize];
        debug_assert!(*count > 0, "a handle outlived its count");
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.free.push(buf.0);
        }
    }

    /// The slot's bytes, all [`PACKET_SLOT`] of them; what of them is a packet, the holder knows.
    #[must_use]
    pub fn bytes(&self, buf: &PacketBuf) -> &[u8] {
        let start = buf.0 as usize * PACKET_SLOT;
        &self.storage[start..start + PACKET_SLOT]
    }

    /// The slot's bytes, writable. Other references to the slot see the change.
    pub fn bytes_mut(&mut self, buf: &PacketBuf) -> &mut [u8] {
        let start = buf.0 as usize * PACKET_SLOT;
        &mut self.storage[start..start + PACKET_SLOT]
    }

    /// Free slots.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// All slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.counts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausts_and_recovers() {
        let mut pool = PacketPool::new(2);
        let a = pool.alloc().unwrap();
        let b = pool.alloc().unwrap();
        assert!(pool.alloc().is_none());
        let again = pool.retain(&a).unwrap();
        pool.release(a);
        assert_eq!(pool.available(), 0, "still referenced");
        pool.release(again);
        assert_eq!(pool.available(), 1);
        pool.release(b);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn slots_do_not_overlap() {
        let mut pool = PacketPool::new(3);
        let bufs: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        for (i, b) in bufs.iter().enumerate() {
            pool.bytes_mut(b).fill(i as u8 + 1);
        }
        for (i, b) in bufs.iter().enumerate() {
            assert!(pool.bytes(b).iter().all(|x| *x == i as u8 + 1));
        }
        bufs.into_iter().for_each(|b| pool.release(b));
    }
}
