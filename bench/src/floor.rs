//! The floor: write a header, seal, hand batches to the kernel. Nothing else.
//!
//! No packet is received, parsed, checked or kept; every key, nonce and destination is at hand. It
//! seals with the cryptographic libraries directly, so that nothing of Sealcast's own is in it. A
//! relay cannot cost less without sending less or sealing faster.

mod seal;

use crate::cpu::Meter;
use crate::send::{Destination, SendBatch};
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Contender, Result, Sample};
use seal::{AwsCm, AwsGcm, Key, OpenSslCm, OpenSslGcm, SealPacket};
use sealcast_srtp::{Backend, Profile};
use std::net::UdpSocket;

/// Bytes of the header written per packet: fixed header and one-byte extensions with a
/// transport-wide sequence number.
pub const HEADER: usize = 20;

const TEMPLATE: [u8; HEADER] = [
    0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 1, 0x31, 0, 0, 0,
];

/// The floor for one topology, profile and back end.
pub struct Floor {
    inner: Box<dyn Contender>,
}

impl Floor {
    /// Keys and destinations for `topology`, whose clients are the sink's.
    ///
    /// # Errors
    /// If a key cannot be set up.
    pub fn new(
        topology: Topology,
        profile: Profile,
        backend: Backend,
        sink: &Sink,
    ) -> Result<Floor> {
        let inner: Box<dyn Contender> = match (backend, profile) {
            (Backend::AwsLcRs, Profile::Aes128CmSha1_80) => {
                Box::new(Fanout::<AwsCm>::new(topology, profile, sink)?)
            }
            (Backend::AwsLcRs, _) => Box::new(Fanout::<AwsGcm>::new(topology, profile, sink)?),
            (Backend::OpenSsl, Profile::Aes128CmSha1_80) => {
                Box::new(Fanout::<OpenSslCm>::new(topology, profile, sink)?)
            }
            (Backend::OpenSsl, _) => Box::new(Fanout::<OpenSslGcm>::new(topology, profile, sink)?),
        };
        Ok(Floor { inner })
    }
}

impl Contender for Floor {
    fn run(&mut self, traffic: &Traffic, packets: u64, meter: &mut Meter) -> Result<Sample> {
        self.inner.run(traffic, packets, meter)
    }
}

/// One receiver's session: its address and the key that seals towards it.
struct Receiver<S> {
    to: Destination,
    seal: S,
    transport_seq: u16,
}

/// One subscription: where its packets go and how far it is.
struct Subscription {
    receiver: usize,
    ssrc: u32,
    index: u64,
    timestamp_offset: u32,
}

struct Fanout<S> {
    topology: Topology,
    socket: UdpSocket,
    receivers: Vec<Receiver<S>>,
    /// The subscriptions of each publisher.
    subscriptions: Vec<Vec<Subscription>>,
    batch: SendBatch,
}

impl<S: SealPacket> Fanout<S> {
    fn new(topology: Topology, profile: Profile, sink: &Sink) -> Result<Self> {
        let addresses = sink.addresses().iter().take(topology.clients());
        let receivers: Vec<_> = addresses
            .enumerate()
            .map(|(client, address)| {
                Ok(Receiver {
                    to: Destination::try_from(*address)?,
                    seal: S::new(&Key::of_client(profile, client))?,
                    transport_seq: 0,
                })
            })
            .collect::<Result<_>>()?;
        if receivers.len() < topology.clients() {
            return Err("the sink has fewer clients than the topology".into());
        }
        let subscription = |publisher: usize, receiver: usize| Subscription {
            receiver,
            ssrc: (publisher << 16 | receiver) as u32,
            index: 0,
            timestamp_offset: (publisher * 7_919 + receiver) as u32,
        };
        let subscriptions = topology
            .all_publishers()
            .map(|p| {
                topology
                    .receivers_of(p)
                    .map(|r| subscription(p, r))
                    .collect()
            })
            .collect();
        Ok(Fanout {
            topology,
            socket: UdpSocket::bind("127.0.0.1:0")?,
            receivers,
            subscriptions,
            batch: SendBatch::default(),
        })
    }

    /// Forwards one frame of one publisher to its receivers.
    #[inline]
    fn forward(
        &mut self,
        publisher: usize,
        traffic: &Traffic,
        payloads: &[Vec<u8>],
        timestamp: u32,
    ) -> Result<()> {
        let segment = HEADER + traffic.payload + S::TAG;
        for subscription in &mut self.subscriptions[publisher] {
            if !self.batch.has_room(segment * traffic.frame) {
                self.batch.flush(&self.socket)?;
            }
            let receiver = &mut self.receivers[subscription.receiver];
            let run = self.batch.run(receiver.to, segment, traffic.frame)?;
            for (out, payload) in run.chunks_exact_mut(segment).zip(payloads) {
                subscription.index += 1;
                receiver.transport_seq = receiver.transport_seq.wrapping_add(1);
                let (header, body) = out.split_at_mut(HEADER);
                write_header(header, subscription, timestamp, receiver.transport_seq);
                receiver
                    .seal
                    .seal(subscription.ssrc, subscription.index, header, payload, body)?;
            }
        }
        Ok(())
    }
}

#[inline]
fn write_header(out: &mut [u8], subscription: &Subscription, timestamp: u32, transport_seq: u16) {
    let timestamp = timestamp.wrapping_add(subscription.timestamp_offset);
    out.copy_from_slice(&TEMPLATE);
    out[2..4].copy_from_slice(&(subscription.index as u16).to_be_bytes());
    out[4..8].copy_from_slice(&timestamp.to_be_bytes());
    out[8..12].copy_from_slice(&subscription.ssrc.to_be_bytes());
    out[17..19].copy_from_slice(&transport_seq.to_be_bytes());
}

impl<S: SealPacket> Contender for Fanout<S> {
    fn run(&mut self, traffic: &Traffic, packets: u64, meter: &mut Meter) -> Result<Sample> {
        let frames = traffic.frames(&self.topology, packets);
        let payloads: Vec<_> = (0..traffic.frame)
            .map(|i| vec![i as u8 ^ 0x5a; traffic.payload])
            .collect();
        let publishers = self.subscriptions.len();
        self.batch.calls = 0;
        let start = meter.read()?;
        for frame in 0..frames {
            for publisher in 0..publishers {
                self.forward(publisher, traffic, &payloads, frame as u32 * 3_000)?;
                // A frame does not wait for the next one.
                self.batch.flush(&self.socket)?;
            }
        }
        let end = meter.read()?;
        let packets = frames * publishers * self.topology.fan_out() * traffic.frame;
        Ok(Sample {
            packets: packets as u64,
            bytes: (packets * (HEADER + traffic.payload + S::TAG)) as u64,
            calls: self.batch.calls,
            cost: start.until(&end),
        })
    }
}
