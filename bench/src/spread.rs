//! Several shards at once: rooms of their own, or one room spread over all of them.
//!
//! What is compared is CPU time per forwarded packet, summed over the shards' threads: if it is
//! what one shard spends, as many shards forward as many times more, each on a core of its own.

use crate::client::{self, Client, Features, Identity, Link, UdpLink};
use crate::cpu::{Cost, Meter};
use crate::feed;
use crate::relay::Relay;
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Result, Sample, clock, cpu};
use sealcast_io::{Clock, Mesh};
use sealcast_model::{Counter, ShardId};
use sealcast_srtp::{Backend, Profile};
use std::sync::Arc;

/// Nothing beyond plain forwarding.
const FEATURES: Features = Features {
    repair: false,
    transport_cc: false,
};

/// Frames that publishers are ahead of the slowest shard.
const AHEAD: u64 = 4;

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

    /// Packets and bytes that all shards have forwarded.
    fn forwarded(&self) -> (u64, u64) {
        let each = self.shards.iter().map(|(relay, _)| relay.forwarded());
        each.fold((0, 0), |(p, b), (packets, bytes)| (p + packets, b + bytes))
    }

    /// Forwards about `packets` packets of `traffic`, and says what that cost all shards together.
    ///
    /// # Errors
    /// If packets are lost, which they must not be.
    pub fn run(&mut self, traffic: &Traffic, packets: u64) -> Result<Sample> {
        let frames = traffic.frames(&self.topology, packets);
        let mut feeds = Vec::new();
        for publisher in self.topology.all_publishers() {
            let client = self.clients.get_mut(publisher).ok_or("no such client")?;
            let packets = client.seal_frames(traffic, frames, true)?;
            feeds.push((client.link().clone(), packets));
        }
        let fan_out = self.topology.fan_out() as u64;
        let expected = (frames * traffic.frame * feeds.len()) as u64 * fan_out;
        let (packets_before, bytes_before) = self.forwarded();
        let sent_before = self.total(Counter::DatagramsOut);
        let calls_before = self.total(Counter::SendCalls);
        let mut starts = Vec::new();
        for (_, meter) in &mut self.shards {
            starts.push(meter.read()?);
        }
        cpu::pin_to(self.feeder_cpu)?;
        self.feed(&feeds, traffic, packets_before)?;
        feed::wait_until(|| self.total(Counter::DatagramsOut) >= sent_before + expected)?;
        let mut cost = Cost::default();
        for ((_, meter), start) in self.shards.iter_mut().zip(starts) {
            let spent = start.until(&meter.read()?);
            cost.user_ns += spent.user_ns;
            cost.system_ns += spent.system_ns;
        }
        let (packets, bytes) = self.forwarded();
        for (relay, _) in &self.shards {
            relay.check()?;
        }
        Ok(Sample {
            packets: packets - packets_before,
            bytes: bytes - bytes_before,
            calls: self.total(Counter::SendCalls) - calls_before,
            cost,
        })
    }

    /// Sends a frame of each publisher in turn, so that all shards work at once, and never far
    /// ahead of what they have forwarded.
    fn feed(
        &self,
        feeds: &[(UdpLink, Vec<Vec<u8>>)],
        traffic: &Traffic,
        before: u64,
    ) -> Result<()> {
        let fan_out = self.topology.fan_out() as u64;
        let frames = feeds.iter().map(|(_, p)| p.len() / traffic.frame).max();
        let ahead = AHEAD * (traffic.frame * feeds.len()) as u64;
        let mut sent = 0;
        for frame in 0..frames.unwrap_or(0) {
            feed::wait_until(|| sent <= (self.forwarded().0 - before) / fan_out + ahead)?;
            for (link, packets) in feeds {
                let packets = packets.iter().skip(frame * traffic.frame);
                for packet in packets.take(traffic.frame) {
                    link.send(packet)?;
                    sent += 1;
                }
            }
        }
        Ok(())
    }

    /// Messages that lanes between the shards refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.total(Counter::MeshFull) + self.total(Counter::MeshNoBuffer)
    }
}
