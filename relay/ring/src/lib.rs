//! Hand-off between two threads without a lock, a wait or an allocation.
//!
//! [`ring()`] is a bounded queue with one producer and one consumer. [`lane()`] carries messages
//! with payloads over a ring; the payload's buffer comes back to its owner's [`BufferPool`] over a
//! second one. Both refuse when they are full, and never make either side wait.
//!
//! This crate and `relay/io` are the only ones with unsafe code. The ring's slots are written by
//! one thread and read by another, which the type system cannot follow; `tests/loom.rs` runs the
//! same source under every interleaving and every reordering that the memory model allows.

mod lane;
#[allow(unsafe_code, reason = "slots cross threads; see the safety comments")]
mod ring;
mod sync;

pub use lane::{BufferPool, LaneReceiver, LaneSender, Refused, lane};
pub use ring::{Consumer, Producer, ring};
