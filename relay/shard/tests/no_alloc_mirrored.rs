//! A packet that crosses to another shard allocates nothing: opened and copied into the ring at
//! home, taken from there, rewritten and sealed for every receiver on the satellite, and its buffer
//! given back.
//!
//! The count is exact, because nothing but RTP reaches either shard while it counts.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::{Client, Shape, assert_replies_ok, epoch, instant};
use sealcast_heap::allocations;
use sealcast_model::{
    Command, Counter, Event, MediaKind, MirrorSession, NtpClock, ParticipantId, RoomId, ShardId,
    ShardStats, Source, Time,
};
use sealcast_rtp::demux::{Protocol, classify};
use sealcast_shard::{EgressBatch, Mesh, Outbox, SendReport, SessionContext, Shard, ShardConfig};
use sealcast_srtp::Backend;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use world::{Memory, client_addr, path, relay};

/// Where the publisher is.
const HOME: usize = 0;
/// Where everybody else is.
const SATELLITE: usize = 1;
const RECEIVERS: usize = 4;
const FRAMES: usize = 200;
const PACKETS: usize = 8;
const KINDS: [MediaKind; 2] = [MediaKind::Audio, MediaKind::Video];

/// Counts datagrams and drops them.
struct Void(u64, Time);

impl Outbox for Void {
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        let segments = batch.runs().iter().map(|run| run.segments() as u64);
        self.0 += segments.sum::<u64>();
        report.all_taken(self.1);
    }
}

/// A room on two shards.
struct Pair {
    epoch: Instant,
    now: Time,
    shards: [Shard; 2],
    stats: [Arc<ShardStats>; 2],
    /// The first is the publisher.
    clients: Vec<Client>,
    outbox: Memory,
    events: Vec<Event>,
}

impl Pair {
    fn new() -> Pair {
        let epoch = epoch();
        let ctx = SessionContext::generate(epoch, Backend::AwsLcRs).unwrap();
        let stats: [Arc<ShardStats>; 2] = Default::default();
        let clock = NtpClock::from_unix(Duration::from_secs(1_700_000_000));
        let mut meshes = Mesh::of(2).into_iter();
        let shards = stats.each_ref().map(|stats| {
            let config = ShardConfig {
                pool_packets: 2_000,
                ..ShardConfig::default()
            };
            let mut shard = Shard::new(config, ctx.clone(), clock, Arc::clone(stats));
            shard.join_mesh(meshes.next().unwrap());
            shard
        });
        let now = Time::from_millis(1_000);
        let client = |index: usize| {
            let start = instant(epoch, now);
            let shape = Shape::slots(1);
            Client::new(
                index as u32,
                start,
                client_addr(index),
                relay(),
                &ctx,
                shape,
            )
        };
        let mut pair = Pair {
            epoch,
            now,
            shards,
            stats,
            clients: (0..=RECEIVERS).map(client).collect(),
            outbox: Memory::default(),
            events: Vec::new(),
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        for i in 0..self.clients.len() {
            let open = self.clients[i].open(1);
            self.shards[shard(i)].handle_command(self.now, open);
        }
        self.run(3_000);
        let publisher = &self.clients[0];
        let mirror = MirrorSession {
            session: publisher.session(),
            participant: ParticipantId(0),
            room: RoomId(1),
            media: publisher.media.clone(),
            home: ShardId(HOME as u16),
        };
        let [home, satellite] = &mut self.shards;
        satellite.handle_command(self.now, Command::Mirror(Box::new(mirror)));
        for kind in KINDS {
            let command = publisher.publish(kind);
            if let Command::Publish { publish, .. } = &command {
                let mirrored = Command::MirrorTrack(publish.clone());
                satellite.handle_command(self.now, mirrored);
            }
            home.handle_command(self.now, command);
            for receiver in &self.clients[1..] {
                let watch = receiver.watch(kind, &[publisher.track(kind)]);
                satellite.handle_command(self.now, watch);
            }
        }
        self.run(200);
        assert!(self.clients.iter().all(|client| client.connected));
        assert_replies_ok(&self.events);
    }

    /// Advances the virtual clock, carrying everything at once.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            while self.exchange() {}
            self.now += Duration::from_millis(1);
        }
    }

    fn exchange(&mut self) -> bool {
        let now = instant(self.epoch, self.now);
        let mut out = Vec::new();
        for (i, client) in self.clients.iter_mut().enumerate() {
            client.poll(now, &mut out);
            for datagram in out.drain(..) {
                let from = path(client.local);
                self.shards[shard(i)].handle_datagram(self.now, self.now, &from, &datagram);
            }
        }
        self.outbox.now = self.now;
        for shard in &mut self.shards {
            let _rest_next_time = shard.handle_mesh(self.now);
            if shard.poll_timeout() <= self.now {
                shard.handle_timeout(self.now);
            }
            shard.flush(self.now, &mut self.outbox);
            self.events
                .extend(std::iter::from_fn(|| shard.poll_event()));
        }
        let carried = !self.outbox.datagrams.is_empty();
        for (to, datagram) in self.outbox.datagrams.drain(..) {
            let client = self.clients.iter_mut().find(|c| c.local == to.remote);
            client.unwrap().receive(now, &datagram);
        }
        carried
    }

    fn send_frames(&mut self, frames: usize) {
        for _ in 0..frames {
            let now = instant(self.epoch, self.now);
            self.clients[0].send_frame(now, PACKETS, 1_000);
            self.run(20);
        }
    }

    fn forwarded(&self, shard: usize) -> u64 {
        let media = self.stats[shard].media(Source::Camera);
        media.packets_out.load(Relaxed)
    }
}

/// The shard that a client is on.
fn shard(client: usize) -> usize {
    if client == 0 { HOME } else { SATELLITE }
}

#[test]
fn a_packet_that_crosses_allocates_nothing() {
    let mut pair = Pair::new();
    // Warm-up: mirrors, streams, histories and the buffers that the home lends come to be.
    pair.send_frames(50);
    let received = pair.clients[1].received_of(MediaKind::Video).len();
    assert!(received >= 49 * PACKETS, "the warm-up arrived: {received}");

    // What the publisher sends is made beforehand, so that only the shards run while counting.
    let from = path(pair.clients[0].local);
    let mut packets = Vec::new();
    for _ in 0..FRAMES {
        let now = instant(pair.epoch, pair.now);
        pair.clients[0].send_frame(now, PACKETS, 1_000);
        pair.clients[0].poll(now, &mut packets);
    }
    packets.retain(|packet| classify(packet) == Protocol::Rtp);
    assert_eq!(packets.len(), FRAMES * (PACKETS + 1));

    let before = pair.forwarded(SATELLITE);
    let crossed = pair.stats[HOME].get(Counter::MeshSent);
    let mut outbox = Void(0, pair.now);
    let Pair { shards, now, .. } = &mut pair;
    let [home, satellite] = shards;
    let counted = allocations(|| {
        for frame in packets.chunks(PACKETS + 1) {
            for packet in frame {
                home.handle_datagram(*now, *now, &from, packet);
            }
            home.flush(*now, &mut outbox);
            satellite.handle_mesh(*now);
            satellite.flush(*now, &mut outbox);
            home.handle_mesh(*now);
            *now += Duration::from_micros(50);
        }
    });
    let forwarded = pair.forwarded(SATELLITE) - before;
    assert_eq!(forwarded, (FRAMES * PACKETS * RECEIVERS) as u64);
    assert!(outbox.0 >= forwarded);
    assert_eq!(pair.forwarded(HOME), 0, "nobody watches there");
    let crossed = pair.stats[HOME].get(Counter::MeshSent) - crossed;
    assert!(crossed >= (FRAMES * PACKETS) as u64, "each crosses once");
    assert_eq!(counted, 0, "allocations over {forwarded} forwarded packets");
}
