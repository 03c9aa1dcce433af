//! A forwarded packet allocates nothing: opened, bound, rewritten and sealed for every receiver.
//!
//! The count is exact, because nothing but RTP reaches the shard while it counts: connectivity
//! checks and timers, which may allocate, do not fall into it.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::instant;
use sealcast_heap::allocations;
use sealcast_model::{MediaKind, Source, Time};
use sealcast_rtp::demux::{Protocol, classify};
use sealcast_shard::{EgressBatch, Outbox, SendReport};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use world::{World, path};

/// Counts datagrams and drops them.
struct Void {
    datagrams: u64,
    now: Time,
}

impl Outbox for Void {
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        self.datagrams += batch
            .runs()
            .iter()
            .map(|r| r.segments() as u64)
            .sum::<u64>();
        report.all_taken(self.now);
    }
}

const FRAMES: usize = 200;
const PACKETS: usize = 8;
const RECEIVERS: usize = 4;

#[test]
fn a_forwarded_packet_allocates_nothing() {
    let mut world = World::room(RECEIVERS + 1);
    // Warm-up: streams, histories and buffers come to be.
    world.send_frames(0, 50, PACKETS);

    // What the publisher sends is made beforehand, so that only the shard runs while counting.
    let from = path(world.clients[0].local);
    let mut packets = Vec::new();
    for _ in 0..FRAMES {
        let now = instant(world.epoch, world.now);
        world.clients[0].send_frame(now, PACKETS, 1_000);
        world.clients[0].poll(now, &mut packets);
    }
    packets.retain(|p| classify(p) == Protocol::Rtp);
    assert_eq!(packets.len(), FRAMES * (PACKETS + 1));

    let sent = |world: &World| world.stats.media(Source::Camera).packets_out.load(Relaxed);
    let before = sent(&world);
    let mut outbox = Void {
        datagrams: 0,
        now: world.now,
    };
    let counted = allocations(|| {
        for frame in packets.chunks(PACKETS + 1) {
            for packet in frame {
                world
                    .shard
                    .handle_datagram(world.now, world.now, &from, packet);
            }
            world.shard.flush(world.now, &mut outbox);
            world.now += Duration::from_micros(50);
        }
    });
    let forwarded = sent(&world) - before;
    assert_eq!(forwarded, (FRAMES * PACKETS * RECEIVERS) as u64);
    assert!(outbox.datagrams >= forwarded);
    assert_eq!(counted, 0, "allocations over {forwarded} forwarded packets");
    assert!(
        world.clients[1].received_of(MediaKind::Video).len() >= 50 * PACKETS,
        "the warm-up arrived"
    );
}
