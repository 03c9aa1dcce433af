//! A shard with its clients in memory, under a virtual clock: no socket, no thread, no waiting.
//!
//! What is left is exactly the work of the relay's own code, the same in every run.

use crate::client::{self, Client, Features, Identity, Link};
use crate::shape::{Topology, Traffic};
use crate::{Result, clock};
use sealcast_model::{Command, Event, NtpClock, ShardStats, Time};
use sealcast_shard::{
    EgressBatch, Outbox, Path, SendReport, SessionContext, Shard, ShardConfig, Transport,
};
use sealcast_srtp::{Backend, Profile};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What the clock advances by when somebody waits.
const STEP: Duration = Duration::from_millis(1);
/// Time between two packets of a publisher.
const PACKET_INTERVAL: Duration = Duration::from_millis(2);
/// A client that gives no feedback for this long after its first packet is sent everything.
const UNHEARD: Duration = Duration::from_millis(3_500);

/// The shard, and what waits to be taken by its clients.
struct Inner {
    shard: Shard,
    now: Time,
    relay: SocketAddr,
    out: Out,
}

/// Keeps what is not media for the clients, and counts the rest.
struct Out {
    now: Time,
    inboxes: Vec<VecDeque<Vec<u8>>>,
    media: u64,
    /// The clients that each call sent media to.
    #[cfg(test)]
    sent_to: Vec<Vec<usize>>,
}

impl Outbox for Out {
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        #[cfg(test)]
        self.sent_to.push(Vec::new());
        for run in batch.runs() {
            let first = batch.bytes(run).first().copied().unwrap_or_default();
            if (128..=191).contains(&first) {
                self.media += run.segments() as u64;
                #[cfg(test)]
                if let Some(to) = self.sent_to.last_mut() {
                    to.push(usize::from(run.path.remote.port()) - FIRST_PORT);
                }
                continue;
            }
            let inbox = usize::from(run.path.remote.port()).checked_sub(FIRST_PORT);
            if let Some(inbox) = inbox.and_then(|i| self.inboxes.get_mut(i)) {
                inbox.extend(batch.datagrams(run).map(<[u8]>::to_vec));
            }
        }
        report.all_taken(self.now);
    }
}

/// The port of the first client.
const FIRST_PORT: usize = 10_000;

fn address(client: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, (FIRST_PORT + client) as u16))
}

impl Inner {
    fn path(&self, client: usize) -> Path {
        Path {
            transport: Transport::Udp,
            local: self.relay,
            remote: address(client),
        }
    }

    fn take(&mut self, client: usize, datagram: &[u8]) {
        let path = self.path(client);
        self.shard
            .handle_datagram(self.now, self.now, &path, datagram);
        self.shard.flush(self.now, &mut self.out);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.out.now = self.now;
        if self.shard.poll_timeout() <= self.now {
            self.shard.handle_timeout(self.now);
        }
        self.shard.flush(self.now, &mut self.out);
    }
}

/// A client's way to the shard.
#[derive(Clone)]
struct MemoryLink {
    inner: Rc<RefCell<Inner>>,
    client: usize,
}

impl Link for MemoryLink {
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.inner.borrow_mut().take(self.client, datagram);
        Ok(())
    }

    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.borrow_mut();
        let inbox = inner.out.inboxes.get_mut(self.client);
        let Some(datagram) = inbox.and_then(VecDeque::pop_front) else {
            inner.advance(STEP);
            return Err(io::ErrorKind::WouldBlock.into());
        };
        buf[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

/// A shard with its clients connected and subscribed.
pub struct World {
    topology: Topology,
    inner: Rc<RefCell<Inner>>,
    clients: Vec<Client<MemoryLink>>,
}

impl World {
    /// Connects the clients of `topology`.
    ///
    /// # Errors
    /// If one does not connect, or the shard refuses a command.
    pub fn new(
        topology: Topology,
        features: Features,
        profile: Profile,
        backend: Backend,
    ) -> Result<World> {
        Self::mixed(topology, features, |_| profile, backend)
    }

    /// As [`new`](World::new), with a profile for each client.
    ///
    /// # Errors
    /// As [`new`](World::new).
    pub fn mixed(
        topology: Topology,
        features: Features,
        profile: impl Fn(usize) -> Profile,
        backend: Backend,
    ) -> Result<World> {
        let context = SessionContext::generate(clock::now(), backend)?;
        let fingerprint = context.fingerprint_sha256();
        let stats = Arc::new(ShardStats::default());
        let clock = NtpClock::from_unix(Duration::from_secs(1_700_000_000));
        let now = Time::from_millis(1_000);
        let inner = Rc::new(RefCell::new(Inner {
            shard: Shard::new(ShardConfig::default(), context, clock, stats),
            now,
            relay: SocketAddr::from((Ipv4Addr::LOCALHOST, 7_900)),
            out: Out {
                now,
                inboxes: vec![VecDeque::new(); topology.clients()],
                media: 0,
                #[cfg(test)]
                sent_to: Vec::new(),
            },
        }));
        let identity = Identity::generate()?;
        let mut world = World {
            topology,
            inner,
            clients: Vec::new(),
        };
        for index in 0..topology.clients() {
            let command = client::open(&topology, features, index, identity.fingerprint()?)?;
            world.carry_out(command)?;
            let link = MemoryLink {
                inner: Rc::clone(&world.inner),
                client: index,
            };
            let client = Client::connect(index, link, &identity, fingerprint, profile(index))?;
            world.clients.push(client);
        }
        for index in topology.all_publishers() {
            for command in client::publish(&topology, features, index)? {
                world.carry_out(command)?;
            }
        }
        for command in
            (0..topology.clients()).filter_map(|i| client::assign(&topology, i, usize::MAX))
        {
            world.carry_out(command)?;
        }
        world.begin()?;
        Ok(world)
    }

    fn carry_out(&self, command: Command) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        let now = inner.now;
        inner.shard.handle_command(now, command);
        while let Some(event) = inner.shard.poll_event() {
            if let Event::Reply { result, .. } = event {
                result?;
            }
        }
        Ok(())
    }

    /// Sends a first frame of each kind and waits until missing feedback holds nothing up.
    fn begin(&mut self) -> Result<()> {
        let [video, .., audio] = &Traffic::ALL;
        for traffic in [video, audio] {
            for (publisher, packets) in self.seal(traffic, 1, true)? {
                for packet in packets {
                    self.inner.borrow_mut().take(publisher, &packet);
                }
            }
        }
        let mut waited = Duration::ZERO;
        while waited < UNHEARD {
            self.inner.borrow_mut().advance(STEP);
            waited += STEP;
        }
        Ok(())
    }

    /// The next packets of every publisher, sealed.
    fn seal(
        &mut self,
        traffic: &Traffic,
        frames: usize,
        key_frame: bool,
    ) -> Result<Vec<(usize, Vec<Vec<u8>>)>> {
        let publishers = self.topology.all_publishers();
        publishers
            .map(|publisher| {
                let client = self.clients.get_mut(publisher).ok_or("no such client")?;
                let packets = client.seal_frames(traffic, frames, key_frame)?;
                Ok((publisher, packets))
            })
            .collect()
    }

    /// Prepares `frames` frames of each publisher, for [`forward`](World::forward).
    ///
    /// # Errors
    /// If they cannot be sealed.
    pub fn prepare(&mut self, traffic: &Traffic, frames: usize) -> Result<Load> {
        // Every client checks its path: the virtual clock may outrun what its consent lasts.
        for client in 0..self.clients.len() {
            self.clients.get(client).ok_or("no such client")?.check()?;
            if let Some(inbox) = self.inner.borrow_mut().out.inboxes.get_mut(client) {
                inbox.clear();
            }
        }
        Ok(Load {
            frame: traffic.frame,
            publishers: self.seal(traffic, frames, true)?,
        })
    }

    /// Forwards what was prepared, frame by frame, and returns how many packets left.
    #[inline(never)]
    pub fn forward(&mut self, load: &Load) -> u64 {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let before = inner.out.media;
        for (publisher, packets) in &load.publishers {
            let path = inner.path(*publisher);
            for frame in packets.chunks(load.frame) {
                inner.now += PACKET_INTERVAL;
                inner.out.now = inner.now;
                for packet in frame {
                    inner
                        .shard
                        .handle_datagram(inner.now, inner.now, &path, packet);
                }
                inner.shard.flush(inner.now, &mut inner.out);
            }
        }
        inner.out.media - before
    }

    /// Runs what is due.
    pub fn rest(&mut self) {
        self.inner.borrow_mut().advance(STEP);
    }
}

/// Sealed packets of every publisher.
pub struct Load {
    frame: usize,
    publishers: Vec<(usize, Vec<Vec<u8>>)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_is_forwarded_to_everybody() {
        let features = Features {
            repair: true,
            transport_cc: true,
        };
        let topology = Topology::TO_20;
        let profile = Profile::AeadAes128Gcm;
        let mut world = World::new(topology, features, profile, Backend::AwsLcRs).unwrap();
        for traffic in &Traffic::ALL {
            let load = world.prepare(traffic, 10).unwrap();
            let expected = 10 * traffic.frame * topology.fan_out();
            assert_eq!(world.forward(&load), expected as u64, "{}", traffic.name);
            world.rest();
        }
    }

    /// Four of five receivers negotiated AES-CM with SHA-1, which costs four times as much to seal.
    #[test]
    fn what_is_sealed_quickly_has_left_before_the_rest_is_sealed() {
        let features = Features {
            repair: true,
            transport_cc: true,
        };
        let topology = Topology::TO_20;
        let is_slow = |client: usize| !client.is_multiple_of(5);
        let profile = |client| match is_slow(client) {
            true => Profile::Aes128CmSha1_80,
            false => Profile::AeadAes128Gcm,
        };
        let mut world = World::mixed(topology, features, profile, Backend::AwsLcRs).unwrap();
        for traffic in &Traffic::ALL {
            let load = world.prepare(traffic, 10).unwrap();
            world.inner.borrow_mut().out.sent_to.clear();
            let expected = 10 * traffic.frame * topology.fan_out();
            assert_eq!(world.forward(&load), expected as u64, "{}", traffic.name);
            let calls = std::mem::take(&mut world.inner.borrow_mut().out.sent_to);
            // The last packets of a long frame leave by a call of their own.
            let media: Vec<&Vec<usize>> = calls.iter().filter(|call| !call.is_empty()).collect();
            let same = |a: &&Vec<usize>, b: &&Vec<usize>| is_slow(a[0]) == is_slow(b[0]);
            let turns = media.chunk_by(same);
            for (n, turn) in turns.enumerate() {
                let to: BTreeSet<usize> = turn.iter().flat_map(|call| *call).copied().collect();
                let slow = n % 2 == 1;
                let all = (1..=topology.fan_out()).filter(|c| is_slow(*c) == slow);
                assert_eq!(to, all.collect(), "{}: turn {n}", traffic.name);
            }
            assert_eq!(media.chunk_by(same).count(), 2 * 10, "{}", traffic.name);
            world.rest();
        }
    }
}
