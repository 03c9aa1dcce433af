//! What a session and a subscription take of a shard's memory, in Rust and in C.
//!
//! Counted is what dropping the shard frees, and how that grows with sessions and with
//! subscriptions: their share of every table and queue is in it, what a shard has once is not.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::{Shape, assert_replies_ok};
use sealcast_heap::held_by;
use sealcast_model::{Gauge, MediaKind, TrackId};
use std::time::Duration;
use str0m::config::DtlsVersion;
use world::World;

/// Bytes that a session may take which is connected and neither sends nor is shown anything.
const SESSION: i64 = 40 * 1_024;
/// Bytes that a subscription may take, history aside, which is in the packet pool.
const SUBSCRIPTION: i64 = 2_048;

/// Connected clients with data channel, NACK and congestion control, whose handshakes were over a
/// minute ago.
fn idle(clients: usize, shape: Shape) -> World {
    let mut world = World::new();
    for _ in 0..clients {
        world.add(Shape {
            feedback: true,
            ..shape
        });
    }
    world.run(Duration::from_secs(60));
    assert!(
        world
            .clients
            .iter()
            .all(|c| c.connected && c.channel.is_some())
    );
    assert_eq!(world.stats.gauge(Gauge::Sessions), clients as u64);
    world
}

/// What each of `many - few` more makes.
fn slope(few: usize, many: usize, held: impl Fn(usize) -> i64) -> i64 {
    let (less, more) = (held(few), held(many));
    (more - less) / (many - few) as i64
}

#[test]
fn an_idle_session_takes_less_than_40_kib() {
    for dtls in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let shape = Shape {
            dtls,
            listens: true,
            ..Shape::slots(1)
        };
        let bytes = slope(16, 48, |clients| held_by(idle(clients, shape).shard));
        println!("an idle session, {dtls:?}: {bytes} B");
        assert!((10_000..SESSION).contains(&bytes), "{dtls:?}: {bytes} B");
    }
}

/// A call in which the first client publishes and each other shows its picture in so many slots.
fn shown(slots: usize) -> i64 {
    const CLIENTS: usize = 9;
    let mut world = idle(CLIENTS, Shape::slots(16));
    let publish = world.clients[0].publish(MediaKind::Video);
    world.command(publish);
    let track = world.clients[0].track(MediaKind::Video);
    for client in 1..CLIENTS {
        let tracks: Vec<TrackId> = vec![track; slots];
        let watch = world.clients[client].watch(MediaKind::Video, &tracks);
        world.command(watch);
    }
    // Few packets: the log of what was sent to a path is the path's, and as long as a second of it.
    world.send_frames(0, 2, 1);
    assert_replies_ok(&world.events);
    let subscriptions = slots * (CLIENTS - 1);
    assert_eq!(
        world.stats.gauge(Gauge::Subscriptions),
        subscriptions as u64
    );
    for client in 1..CLIENTS {
        assert!(world.clients[client].received.len() >= slots);
    }
    held_by(world.shard) / (CLIENTS - 1) as i64
}

#[test]
fn a_subscription_takes_less_than_2_kib() {
    let bytes = slope(4, 16, shown);
    println!("a subscription: {bytes} B");
    assert!((500..SUBSCRIPTION).contains(&bytes), "{bytes} B");
}
