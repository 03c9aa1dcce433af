//! One shard with its clients, in memory and under a virtual clock.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use crate::common::{Client, Shape, assert_replies_ok, epoch, instant};
use sealcast_model::{
    CloseReason, Command, CommandError, Event, MediaKind, NtpClock, RequestId, SessionId,
    ShardStats, Time, TrackId,
};
use sealcast_shard::{
    EgressBatch, Outbox, Path, SendReport, SessionContext, Shard, ShardConfig, Transport,
};
use sealcast_srtp::Backend;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Collects what the shard sends.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) datagrams: Vec<(Path, Vec<u8>)>,
    pub(crate) longest_run: usize,
    pub(crate) now: Time,
}

impl Outbox for Memory {
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        for run in batch.runs() {
            self.longest_run = self.longest_run.max(run.segments());
            let datagrams = batch.datagrams(run).map(|d| (run.path, d.to_vec()));
            self.datagrams.extend(datagrams);
        }
        report.all_taken(self.now);
    }
}

pub(crate) struct World {
    pub(crate) epoch: Instant,
    pub(crate) now: Time,
    pub(crate) ctx: SessionContext,
    pub(crate) shard: Shard,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) clients: Vec<Client>,
    pub(crate) outbox: Memory,
    pub(crate) events: Vec<Event>,
}

pub(crate) fn relay() -> SocketAddr {
    "203.0.113.1:7000".parse().unwrap()
}

pub(crate) fn client_addr(index: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 1_000 + index as u16))
}

pub(crate) fn path(remote: SocketAddr) -> Path {
    Path {
        transport: Transport::Udp,
        local: relay(),
        remote,
    }
}

impl World {
    pub(crate) fn new() -> World {
        let epoch = epoch();
        let ctx = SessionContext::generate(epoch, Backend::AwsLcRs).unwrap();
        let stats = Arc::new(ShardStats::default());
        let clock = NtpClock::from_unix(Duration::from_secs(1_700_000_000));
        let config = ShardConfig {
            pool_packets: 2_000,
            ..ShardConfig::default()
        };
        World {
            epoch,
            now: Time::from_millis(1_000),
            shard: Shard::new(config, ctx.clone(), clock, Arc::clone(&stats)),
            ctx,
            stats,
            clients: Vec::new(),
            outbox: Memory::default(),
            events: Vec::new(),
        }
    }

    pub(crate) fn add_client(&mut self, slots: u16) {
        self.add(Shape::slots(slots));
    }

    pub(crate) fn add(&mut self, shape: Shape) {
        let index = self.clients.len();
        let client = Client::new(
            index as u32,
            instant(self.epoch, self.now),
            client_addr(index),
            relay(),
            &self.ctx,
            shape,
        );
        self.shard.handle_command(self.now, client.open(1));
        self.clients.push(client);
    }

    /// Clients that are connected, publish both tracks, and see and hear each other.
    pub(crate) fn room(clients: usize) -> World {
        let mut world = World::new();
        for _ in 0..clients {
            world.add_client(clients as u16);
        }
        world.run(Duration::from_secs(3));
        for i in 0..clients {
            for kind in [MediaKind::Audio, MediaKind::Video] {
                let publish = world.clients[i].publish(kind);
                world.shard.handle_command(world.now, publish);
            }
        }
        for i in 0..clients {
            for kind in [MediaKind::Audio, MediaKind::Video] {
                let others = world.clients.iter().filter(|c| c.index != i as u32);
                let tracks: Vec<TrackId> = others.map(|c| c.track(kind)).collect();
                let watch = world.clients[i].watch(kind, &tracks);
                world.shard.handle_command(world.now, watch);
            }
        }
        world.run(Duration::from_millis(200));
        assert!(world.clients.iter().all(|c| c.connected));
        assert_replies_ok(&world.events);
        world
    }

    /// Advances the virtual clock by `d`, carrying every datagram at once.
    pub(crate) fn run(&mut self, d: Duration) {
        let end = self.now + d;
        loop {
            while self.exchange() {}
            let clients = self.clients.iter().filter(|c| !c.dead);
            let next = clients
                .map(|c| Time::ZERO + c.timeout.duration_since(self.epoch))
                .min();
            let next = next.unwrap_or(Time::NEVER).min(self.shard.poll_timeout());
            self.now = next.max(self.now + Duration::from_millis(1)).min(end);
            if self.now >= end {
                while self.exchange() {}
                return;
            }
        }
    }

    pub(crate) fn exchange(&mut self) -> bool {
        let now = instant(self.epoch, self.now);
        let mut out = Vec::new();
        for i in 0..self.clients.len() {
            self.clients[i].poll(now, &mut out);
            for datagram in out.drain(..) {
                let from = path(self.clients[i].local);
                self.shard
                    .handle_datagram(self.now, self.now, &from, &datagram);
            }
        }
        if self.shard.poll_timeout() <= self.now {
            self.shard.handle_timeout(self.now);
        }
        self.outbox.now = self.now;
        self.shard.flush(self.now, &mut self.outbox);
        self.events
            .extend(std::iter::from_fn(|| self.shard.poll_event()));
        let carried = !self.outbox.datagrams.is_empty();
        for (to, datagram) in self.outbox.datagrams.drain(..) {
            if let Some(client) = self.clients.iter_mut().find(|c| c.local == to.remote) {
                client.receive(now, &datagram);
            }
        }
        carried
    }

    pub(crate) fn send_frames(&mut self, from: usize, frames: usize, packets: usize) {
        for _ in 0..frames {
            let now = instant(self.epoch, self.now);
            self.clients[from].send_frame(now, packets, 1_000);
            self.run(Duration::from_millis(20));
        }
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
        self.run(Duration::from_millis(50));
    }

    pub(crate) fn reply(&self, request: u64) -> Option<Result<(), CommandError>> {
        self.events.iter().find_map(|e| match e {
            Event::Reply { request: r, result } if *r == RequestId(request) => Some(*result),
            _ => None,
        })
    }

    pub(crate) fn closed(&self) -> Vec<(SessionId, CloseReason)> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::SessionClosed { session, reason } => Some((*session, *reason)),
                _ => None,
            })
            .collect()
    }
}
