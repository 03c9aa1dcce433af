//! People come and go, and the shard holds no more than before: its heap after many turns of a
//! small room is its heap after few.
//!
//! Counted is what dropping the shard frees, in Rust and in C, so nothing of the test's own is in it. Time is
//! virtual; ten minutes of calls take seconds.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use sealcast_heap::held_by;
use sealcast_model::{CloseReason, Command, Gauge, MediaKind, SessionId, TrackId};
use std::time::Duration;
use world::World;

/// People in the room at any time.
const PRESENT: usize = 3;
/// Bytes that hash tables and queues may have grown by: a few of their doublings.
const SLACK: i64 = 64 * 1_024;

/// One leaves, another comes, publishes, and sees and hears the others, who send meanwhile.
fn turn(world: &mut World) {
    let leaver = world.clients.len() - PRESENT;
    world.command(Command::CloseSession {
        session: SessionId(leaver as u64 + 1),
        reason: CloseReason::Requested,
    });
    world.clients[leaver].dead = true;
    world.add_client(PRESENT as u16);
    world.run(Duration::from_secs(2));
    let present = leaver + 1..world.clients.len();
    let joiner = world.clients.len() - 1;
    assert!(world.clients[joiner].connected);
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let publish = world.clients[joiner].publish(kind);
        world.shard.handle_command(world.now, publish);
    }
    for i in present.clone() {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let others = present.clone().filter(|other| *other != i);
            let tracks: Vec<TrackId> = others.map(|o| world.clients[o].track(kind)).collect();
            let watch = world.clients[i].watch(kind, &tracks);
            world.shard.handle_command(world.now, watch);
        }
    }
    for i in present {
        world.send_frames(i, 4, 4);
    }
}

/// The heap of a shard after so many turns, and packets that its pool lacks.
fn heap_after(turns: usize) -> (i64, u64) {
    let mut world = World::room(PRESENT);
    for _ in 0..turns {
        turn(&mut world);
    }
    common::assert_replies_ok(&world.events);
    assert_eq!(world.closed().len(), turns);
    assert_eq!(world.stats.gauge(Gauge::Sessions), PRESENT as u64);
    assert_eq!(world.stats.gauge(Gauge::Tracks), 2 * PRESENT as u64);
    let subscriptions = 2 * PRESENT * (PRESENT - 1);
    assert_eq!(
        world.stats.gauge(Gauge::Subscriptions),
        subscriptions as u64
    );
    let missing = world.stats.gauge(Gauge::PoolCapacity) - world.stats.gauge(Gauge::PoolFree);
    (held_by(world.shard), missing)
}

#[test]
fn turns_leave_nothing_behind() {
    let (few, few_held) = heap_after(8);
    let (many, many_held) = heap_after(120);
    println!("{few} B after 8 turns, {many} B after 120; {few_held} and {many_held} packets held");
    assert!(few > 1 << 20, "the count works");
    assert!(
        many - few < SLACK,
        "{few} B after 8 turns, {many} B after 120"
    );
    // History holds packets of those who are there, whoever was there before.
    assert!(
        many_held <= 2 * few_held + 16,
        "{few_held}, then {many_held} packets"
    );
}
