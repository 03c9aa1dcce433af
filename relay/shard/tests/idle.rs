//! How often sessions that do nothing wake their shard, on a virtual clock.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::instant;
use sealcast_model::Time;
use std::time::Duration;
use world::{World, path};

/// Long enough for every timer there is.
const WATCHED: Duration = Duration::from_secs(120);

/// What woke the shard while it was watched.
#[derive(Debug, Default)]
struct Woken {
    /// A timer of its own.
    timers: usize,
    /// Datagrams from clients: connectivity checks, what keeps associations alive.
    datagrams: usize,
}

/// Watches a shard with clients that are connected and do nothing.
fn watch(world: &mut World) -> Woken {
    let mut woken = Woken::default();
    let end = world.now + WATCHED;
    while world.now < end {
        let next_of_clients = world.clients.iter().filter(|c| !c.dead);
        let next_of_clients = next_of_clients
            .map(|c| Time::ZERO + c.timeout.saturating_duration_since(world.epoch))
            .min()
            .unwrap_or(Time::NEVER);
        let own = world.shard.poll_timeout();
        world.now = own.min(next_of_clients).max(world.now);
        if own <= world.now {
            woken.timers += 1;
            world.shard.handle_timeout(world.now);
            assert!(world.shard.poll_timeout() > world.now, "a timer goes round");
            settle(world, &mut woken);
        }
        settle(world, &mut woken);
    }
    woken
}

/// Carries what there is until nobody has more to say.
fn settle(world: &mut World, woken: &mut Woken) {
    let mut out = Vec::new();
    loop {
        let now = instant(world.epoch, world.now);
        world.outbox.now = world.now;
        world.shard.flush(world.now, &mut world.outbox);
        for (to, datagram) in std::mem::take(&mut world.outbox.datagrams) {
            let client = world.clients.iter_mut().find(|c| c.local == to.remote);
            client.unwrap().receive(now, &datagram);
        }
        let mut said = 0;
        for client in &mut world.clients {
            client.poll(now, &mut out);
            for datagram in out.drain(..) {
                let from = path(client.local);
                world
                    .shard
                    .handle_datagram(world.now, world.now, &from, &datagram);
                said += 1;
            }
        }
        woken.datagrams += said;
        if said == 0 {
            return;
        }
    }
}

#[test]
fn an_idle_session_hardly_wakes_its_shard() {
    for sessions in [1, 10] {
        let mut world = World::new();
        for _ in 0..sessions {
            world.add_client(4);
        }
        world.run(Duration::from_secs(10));
        assert!(world.clients.iter().all(|c| c.connected));
        let woken = watch(&mut world);
        let each = |count: usize| count as f64 / sessions as f64 / WATCHED.as_secs_f64();
        println!(
            "{sessions} idle sessions: {:.3} wake-ups a second each by the shard's timers, \
             {:.3} datagrams from the client",
            each(woken.timers),
            each(woken.datagrams)
        );
        assert!(each(woken.timers) < 0.5, "{woken:?}");
    }
}
