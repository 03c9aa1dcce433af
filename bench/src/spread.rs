//! Several shards at once: rooms of their own, or one room spread over all of them.
//!
//! What is compared is CPU time per forwarded packet, summed over the shards' threads: if it is
//! what one shard spends, as many shards forward as many times more, each on a core of its own.
//! A frame is sent when the one before is forwarded, so that every turn of every shard has the same
//! work: with more under way, how many frames a shard finds waiting, and so how long the runs are
//! that the kernel segments, would depend on who else is on its core.

use crate::client::{self, Client, Features, Identity, UdpLink};
use crate::cpu::{Cost, Meter};
use crate::feed;
use crate::relay::Relay;
use crate::send::{Destination, SendBatch};
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Result, clock, cpu};
use sealcast_io::{Clock, Mesh};
use sealcast_model::{Counter, ShardId};
use sealcast_srtp::{Backend, Profile};
use std::sync::Arc;

/// Nothing beyond plain forwarding.
const FEATURES: Features = Features {
    repair: false,
    transport_cc: false,
};

/// What one shard did in a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Datagrams that it sent.
    pub datagrams: u64,
    /// Messages that they left by.
    pub messages: u64,
    /// Times that its thread woke.
    pub wakeups: u64,
    /// CPU time of its thread.
    pub cost: Cost,
}

impl Work {
    /// What a shard has counted so far.
    fn counted(relay: &Relay) -> Work {
        let stats = relay.stats();
        Work {
            datagrams: stats.get(Counter::DatagramsOut),
            messages: stats.get(Counter::MessagesOut),
            wakeups: stats.get(Counter::Wakeups),
            cost: Cost::default(),
        }
    }

    /// CPU time of all per datagram of all, nanoseconds.
    #[must_use]
    pub fn per_datagram(works: &[Work]) -> f64 {
        let cost: f64 = works.iter().map(|work| work.cost.total_ns()).sum();
        let datagrams: u64 = works.iter().map(|work| work.datagrams).sum();
        cost / datagrams as f64
    }
}

/// Shards with one set of clients.
pub struct Spread {
    topology: Topology,
    shards: Vec<(Relay, Meter)>,
    clients: Vec<Client>,
    feeder_cpu: usize,
}

impl Spread {
    /// Starts a shard on each of `cpus` and connects the clients of `topology`, who are the sink's:
    /// whole rooms in turn, or, of a single room, everybody in turn.
    ///
    /// # Errors
    /// If a shard cannot start or a client cannot connect.
    pub fn new(
        topology: Topology,
        sink: &mut Sink,
        cpus: &[usize],
        feeder_cpu: usize,
    ) -> Result<Spread> {
        let clock = Clock::start();
        let meshes = Mesh::of(u16::try_from(cpus.len())?);
        let mut spread = Spread {
            topology,
            shards: Vec::new(),
            clients: Vec::new(),
            feeder_cpu,
        };
        for (mesh, cpu) in meshes.into_iter().zip(cpus) {
            let relay = Relay::start_in(Backend::AwsLcRs, *cpu, clock, mesh)?;
            let meter = Meter::open(relay.thread_id);
            spread.shards.push((relay, meter));
        }
        sink.pause()?;
        spread.connect(sink)?;
        spread.subscribe()?;
        sink.resume()?;
        Ok(spread)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a client.
    fn shard_of(&self, client: usize) -> usize {
        let turn = match self.topology.rooms {
            1 => client,
            _ => client / self.topology.members(),
        };
        turn % self.shards.len()
    }

    fn connect(&mut self, sink: &Sink) -> Result<()> {
        let identity = Identity::generate()?;
        for index in 0..self.topology.clients() {
            let (relay, _) = &self.shards[self.shard_of(index)];
            let fingerprint = identity.fingerprint()?;
            relay.open_sessions(&self.topology, FEATURES, index..index + 1, fingerprint)?;
            let socket = sink.socket(index).ok_or("the sink has too few clients")?;
            let link = UdpLink {
                socket: Arc::new(socket.try_clone()?),
                relay: relay.address,
            };
            let profile = Profile::AeadAes256Gcm;
            let client = Client::connect(index, link, &identity, relay.fingerprint, profile)?;
            self.clients.push(client);
        }
        Ok(())
    }

    fn subscribe(&self) -> Result<()> {
        for publisher in self.topology.all_publishers() {
            let home = self.shard_of(publisher);
            let commands = client::publish(&self.topology, FEATURES, publisher)?;
            self.shards[home]
                .0
                .carry_out(commands.into_iter().map(Ok))?;
            for (shard, (relay, _)) in self.shards.iter().enumerate() {
                if self.topology.rooms == 1 && shard != home {
                    let home = ShardId(u16::try_from(home)?);
                    for command in client::mirror(&self.topology, FEATURES, publisher, home)? {
                        relay.tell(command)?;
                    }
                }
            }
        }
        for index in 0..self.topology.clients() {
            let assign = client::assign(&self.topology, index, usize::MAX);
            let (relay, _) = &self.shards[self.shard_of(index)];
            relay.carry_out(assign.into_iter().map(Ok))?;
        }
        Ok(())
    }

    /// Between measurements: clients keep their consent.
    ///
    /// # Errors
    /// If a socket refuses.
    pub fn rest(&mut self) -> Result<()> {
        let now = clock::now();
        self.clients
            .iter_mut()
            .try_for_each(|client| client.keep_alive(now))
    }

    fn total(&self, counter: Counter) -> u64 {
        let each = self.shards.iter();
        each.map(|(relay, _)| relay.stats().get(counter)).sum()
    }

    /// Forwards about `packets` packets of `traffic`, with `ahead` (at least 1) frames of each
    /// publisher under way, and says what each shard did.
    ///
    /// # Errors
    /// If packets are lost, which they must not be.
    pub fn run(&mut self, traffic: &Traffic, packets: u64, ahead: u64) -> Result<Vec<Work>> {
        let frames = traffic.frames(&self.topology, packets);
        let mut feeds = Vec::new();
        for publisher in self.topology.all_publishers() {
            let client = self.clients.get_mut(publisher).ok_or("no such client")?;
            let packets = client.seal_frames(traffic, frames, true)?;
            feeds.push((client.link().clone(), packets));
        }
        cpu::pin_to(self.feeder_cpu)?;
        let mut starts = Vec::new();
        for (relay, meter) in &mut self.shards {
            starts.push((Work::counted(relay), meter.read()?));
        }
        self.feed(&feeds, traffic, ahead)?;
        let mut works = Vec::new();
        for ((relay, meter), (before, start)) in self.shards.iter_mut().zip(starts) {
            let cost = start.until(&meter.read()?);
            let now = Work::counted(relay);
            works.push(Work {
                datagrams: now.datagrams - before.datagrams,
                messages: now.messages - before.messages,
                wakeups: now.wakeups - before.wakeups,
                cost,
            });
            relay.check()?;
        }
        Ok(works)
    }

    /// Sends a frame of each publisher in turn, so that all shards work at once, and the next ones
    /// when those have been sent on. A frame arrives in one piece: else a shard that has its core
    /// for itself would begin with the first packet, and one that has not would find them all.
    fn feed(&self, feeds: &[(UdpLink, Vec<Vec<u8>>)], traffic: &Traffic, ahead: u64) -> Result<()> {
        let fan_out = self.topology.fan_out() as u64;
        let frames = feeds.iter().map(|(_, p)| p.len() / traffic.frame).max();
        let before = self.total(Counter::DatagramsOut);
        let mut batch = SendBatch::default();
        let mut sent = 0;
        for frame in 0..frames.unwrap_or(0) {
            for (link, packets) in feeds {
                let packets = packets.chunks_exact(traffic.frame).nth(frame);
                let packets = packets.ok_or("a publisher has fewer frames")?;
                let len = packets.first().map_or(0, Vec::len);
                let run = batch.run(Destination::try_from(link.relay)?, len, packets.len())?;
                for (place, packet) in run.chunks_exact_mut(len).zip(packets) {
                    place.copy_from_slice(packet);
                }
                batch.flush(&link.socket)?;
                sent += packets.len() as u64 * fan_out;
            }
            let under_way = (ahead - 1) * (traffic.frame * feeds.len()) as u64 * fan_out;
            let least = before + sent.saturating_sub(under_way);
            feed::wait_until(|| self.total(Counter::DatagramsOut) >= least)?;
        }
        feed::wait_until(|| self.total(Counter::DatagramsOut) >= before + sent)?;
        Ok(())
    }

    /// Messages that lanes between the shards refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.total(Counter::MeshFull) + self.total(Counter::MeshNoBuffer)
    }
}
