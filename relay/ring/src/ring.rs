//! A bounded queue from one thread to another.
//!
//! Positions count up for ever (modulo the word) and are reduced to a slot by a mask. The producer
//! alone writes `tail`, the consumer alone writes `head`, and each keeps its own position and the
//! last it saw of the other's, so that neither touches the other's cache line unless the ring looks
//! full or empty.
//!
//! Invariant: `head <= tail <= head + capacity`; the slots in `head..tail` hold values and belong
//! to the consumer, the others hold none and belong to the producer.

use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};
use std::mem::MaybeUninit;

/// Keeps what two threads write on cache lines of their own. Two lines: processors fetch pairs.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// The position that is read next. Written by the consumer.
    head: Padded<AtomicUsize>,
    /// The position that is written next. Written by the producer.
    tail: Padded<AtomicUsize>,
}

// SAFETY: a slot is accessed by one thread at a time: by the producer before the release store of
// `tail` that hands it over, by the consumer between the acquire load that sees this store and its
// own release store of `head`. Values move from thread to thread, so they must be `Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the slots own their values.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // The length is a power of two, so the mask keeps the index inside.
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone, and with the last of them came everything that they wrote.
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: positions from head to tail hold values, and nobody else is left.
            self.slot(head)
                .with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that puts values in.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The consumer's position when it was last looked at; it may be further.
    head: usize,
}

/// The end that takes values out.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The producer's position when it was last looked at; it may be further.
    tail: usize,
}

/// A ring for at least `capacity` values, rounded up to a power of two. Allocates all of it.
#[must_use]
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.clamp(1, 1 << 24).next_power_of_two();
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit()));
    let shared = Arc::new(Shared {
        slots: slots.collect(),
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
    });
    let producer = Producer {
        shared: Arc::clone(&shared),
        tail: 0,
        head: 0,
    };
    let consumer = Consumer {
        shared,
        head: 0,
        tail: 0,
    };
    (producer, consumer)
}

impl<T> Producer<T> {
    /// Values that the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Free places for certain; the consumer may be making more. Looks at its position only if
    /// fewer than `wanted` are known to be free.
    #[inline]
    #[must_use]
    pub fn free(&mut self, wanted: usize) -> usize {
        let known = self.capacity() - self.tail.wrapping_sub(self.head);
        if known >= wanted {
            return known;
        }
        // Acquire: what the consumer did with a slot comes before what is done with it here.
        self.head = self.shared.head.0.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head)
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// The value, if the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.free(1) == 0 {
            return Err(value);
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the position is not in head..tail, so the slot holds no value and is ours.
            unsafe { (*slot).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: whoever sees the position sees the value.
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            // Acquire: sees the values of the positions that it sees.
            self.tail = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let value = self.shared.slot(self.head).with_mut(|slot| {
            // SAFETY: the position is in head..tail, so the slot holds a value and is ours; the
            // position moves on, so that it is taken once.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        // Release: the value is out before the producer may use the slot again.
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}
