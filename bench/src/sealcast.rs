//! Sealcast itself: a shard's thread with its sockets, fed by real publishers over SRTP.
//!
//! Clients connect with ICE and DTLS over the very sockets that carry the media. While a
//! measurement runs they only take packets; between measurements they make the connectivity checks
//! that keep their consent (RFC 7675). What is measured is the shard's thread: everything between
//! the wake-up for a frame and the system call that sends its last packet.
//!
//! Repair and congestion control are negotiated, so every packet is kept, numbered and logged for
//! them; the sink sends no feedback, which the paced measurement covers ([`crate::crowd`]).

use crate::client::{Client, Features, Identity, Link, UdpLink};
use crate::cpu::Meter;
use crate::feed::{self, Feed};
use crate::relay::{Relay, forwarded};
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Contender, Result, Sample, clock, cpu};
use sealcast_model::Counter;
use sealcast_srtp::{Backend, Profile};
use std::sync::Arc;
use std::time::Duration;

/// A client that gives no feedback for this long after its first packet is sent everything: three
/// seconds, and some to spare.
const UNHEARD: Duration = Duration::from_millis(3_500);

/// A running shard with its clients.
pub struct Sealcast {
    topology: Topology,
    profile: Profile,
    clients: Vec<Client>,
    relay: Relay,
    meter: Meter,
    cpu: usize,
    feeder_cpu: usize,
}

impl Sealcast {
    /// Starts a shard on `cpu` and connects the clients of `topology`, who are the sink's and
    /// offer `profile`. Publishers will run on `feeder_cpu`.
    ///
    /// # Errors
    /// If the shard cannot start or a client cannot connect.
    pub fn new(
        topology: Topology,
        features: Features,
        (profile, backend): (Profile, Backend),
        sink: &mut Sink,
        (cpu, feeder_cpu): (usize, usize),
    ) -> Result<Sealcast> {
        let relay = Relay::start(backend, cpu, |_| ())?;
        let identity = Identity::generate()?;
        let mut clients = Vec::with_capacity(topology.clients());
        sink.pause()?;
        for index in 0..topology.clients() {
            // One by one: a session that waits too long for its client is closed.
            let fingerprint = identity.fingerprint()?;
            relay.open_sessions(&topology, features, index..index + 1, fingerprint)?;
            let socket = sink.socket(index).ok_or("the sink has too few clients")?;
            let link = UdpLink {
                socket: Arc::new(socket.try_clone()?),
                relay: relay.address,
            };
            let client = Client::connect(index, link, &identity, relay.fingerprint, profile)?;
            clients.push(client);
        }
        relay.subscribe(&topology, features)?;
        sink.resume()?;
        let mut sealcast = Sealcast {
            topology,
            profile,
            clients,
            meter: Meter::open(relay.thread_id),
            relay,
            cpu,
            feeder_cpu,
        };
        if features.transport_cc {
            sealcast.begin()?;
        }
        Ok(sealcast)
    }

    /// Sends a first frame of each kind and waits until missing feedback holds nothing up.
    fn begin(&mut self) -> Result<()> {
        let [video, .., audio] = &Traffic::ALL;
        for publisher in self.topology.all_publishers() {
            let client = self.clients.get_mut(publisher).ok_or("no such client")?;
            for traffic in [video, audio] {
                for packet in client.seal_frames(traffic, 1, true)? {
                    client.link().send(&packet)?;
                }
            }
        }
        clock::sleep(UNHEARD);
        Ok(())
    }
}

impl Contender for Sealcast {
    fn run(&mut self, traffic: &Traffic, packets: u64, _: &mut Meter) -> Result<Sample> {
        let frames = traffic.frames(&self.topology, packets);
        let mut sealed = Vec::new();
        for publisher in self.topology.all_publishers() {
            let client = self.clients.get_mut(publisher).ok_or("no such client")?;
            let packets = client.seal_frames(traffic, frames, true)?;
            sealed.push((client.link().socket.try_clone()?, packets));
        }
        let feeds: Vec<_> = sealed
            .into_iter()
            .map(|(socket, packets)| Feed { socket, packets })
            .collect();
        let fan_out = self.topology.fan_out() as u64;
        let expected = (frames * traffic.frame * feeds.len()) as u64 * fan_out;
        let stats = Arc::clone(self.relay.stats());
        let (packets_before, bytes_before) = forwarded(&stats);
        let calls_before = stats.get(Counter::SendCalls);
        let sent_before = stats.get(Counter::DatagramsOut);

        // This thread is the publishers now.
        cpu::pin_to(self.feeder_cpu)?;
        let start = self.meter.read()?;
        let fed = feed::send(&feeds, traffic.frame, self.relay.address, || {
            (forwarded(&stats).0 - packets_before) / fan_out
        });
        let done = fed.and_then(|()| {
            feed::wait_until(|| stats.get(Counter::DatagramsOut) >= sent_before + expected)
        });
        let cost = start.until(&self.meter.read()?);
        cpu::pin_to(self.cpu)?;
        let (packets, bytes) = forwarded(&stats);
        let packets = packets - packets_before;
        self.relay.check()?;
        done.map_err(|e| format!("sealcast forwarded {packets} of {expected}: {e}"))?;
        Ok(Sample {
            packets,
            // The engine counts what it hands to be sealed.
            bytes: bytes - bytes_before + packets * self.profile.rtp_overhead() as u64,
            calls: stats.get(Counter::SendCalls) - calls_before,
            cost,
        })
    }

    fn rest(&mut self, _: &mut Sink) -> Result<()> {
        let now = clock::now();
        self.clients
            .iter_mut()
            .try_for_each(|client| client.keep_alive(now))
    }
}
