//! A forwarded packet allocates nothing, from `recvmmsg` to `sendmmsg`.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]
#![expect(unsafe_code, reason = "a global allocator that counts")]

mod net;

use net::{Relay, audience, config, play};
use sealcast_model::{MediaKind, Source};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

thread_local! {
    /// This is the shard's thread.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count() {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Parts of the measurement; each forwards a few frames to every receiver.
const PARTS: usize = 40;

#[test]
fn forwarding_allocates_nothing() {
    let relay = Relay::start(&config("127.0.0.1:0"), || COUNTED.with(|c| c.set(true)));
    let mut callers = audience(&relay, &[false; 4]);
    // Warm-up: streams, histories and buffers come to be.
    play(&mut callers, 64, 200);
    assert!(ALLOCATIONS.load(Relaxed) > 0, "the counter counts");

    let forwarded = || {
        relay
            .port
            .stats
            .media(Source::Camera)
            .packets_out
            .load(Relaxed)
    };
    let mut free = 0;
    let mut packets = 0;
    for _ in 0..PARTS {
        let (allocations, before) = (ALLOCATIONS.load(Relaxed), forwarded());
        let count = callers[1].client.received_of(MediaKind::Video).len();
        play(&mut callers, 8, count + 32);
        packets += forwarded() - before;
        free += usize::from(ALLOCATIONS.load(Relaxed) == allocations);
    }
    println!("{packets} packets in {PARTS} parts, {free} of them without an allocation");
    // Parts overlap by what was still under way when one ended, so this is less than 3 × 32 each.
    assert!(packets >= 2 * 32 * PARTS as u64);
    // Connectivity checks and timers allocate, and fall into more parts the slower the machine is.
    // Packets fall into all parts: were one of them to allocate, no part would be free. The exact
    // count, without checks and timers, is taken in the shard's tests.
    assert!(free > 0);
    relay.stop();
}
