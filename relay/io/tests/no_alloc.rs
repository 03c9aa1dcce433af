//! A forwarded packet allocates nothing, from `recvmmsg` to `sendmmsg`.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod net;

use net::{Relay, audience, config, play};
use sealcast_model::{MediaKind, Source};
use std::sync::atomic::Ordering::Relaxed;

/// Allocations of the shard's thread: of all threads but this one, on which the clients are.
fn allocations() -> u64 {
    sealcast_heap::process().allocations - sealcast_heap::thread().allocations
}

/// Parts of the measurement; each forwards a few frames to every receiver.
const PARTS: usize = 40;

#[test]
fn forwarding_allocates_nothing() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let mut callers = audience(&relay, &[false; 4]);
    // Warm-up: streams, histories and buffers come to be.
    play(&mut callers, 64, 200);
    assert!(allocations() > 0, "the counter counts");

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
        let (made, before) = (allocations(), forwarded());
        let count = callers[1].client.received_of(MediaKind::Video).len();
        play(&mut callers, 8, count + 32);
        packets += forwarded() - before;
        free += usize::from(allocations() == made);
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
