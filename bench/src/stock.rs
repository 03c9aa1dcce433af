//! What one would write without Sealcast: an SFU on str0m's RTP mode, one `send_to` per packet.
//!
//! It is written as an application developer would who has read str0m's documentation and its chat
//! example, and treated well where a careful developer would take care: sessions are found by
//! source address in a hash map rather than asked in turn, bandwidth estimation and its pacer are
//! off, and timers are served every ten milliseconds rather than after every packet.
//!
//! Sessions are real: ICE and DTLS run in memory before the measurement, between this SFU's `Rtc`
//! and a client's, over the addresses that carry the media later. What is measured is the SFU's
//! thread while a publisher on another core sends it SRTP through a socket.

mod handshake;

use crate::cpu::Meter;
use crate::feed::{self, Feed, LOST};
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Contender, Result, Sample, clock, cpu};
use handshake::{Sender, connect};
use sealcast_srtp::Profile;
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use str0m::media::Pt;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Event, Input, Output, Rtc};

/// How often timers of all sessions are served.
const TICK: Duration = Duration::from_millis(10);

/// The SFU's side of one client.
struct Session {
    rtc: Rtc,
    /// Where this client's packets go: session, SSRC there.
    subscribers: Vec<(usize, Ssrc)>,
}

/// The stock SFU with its sessions connected.
pub struct Stock {
    topology: Topology,
    socket: UdpSocket,
    sessions: Vec<Session>,
    by_address: HashMap<SocketAddr, usize>,
    publishers: Vec<Client>,
    /// The CPU that publishers run on.
    feeder_cpu: usize,
    pt: Pt,
    /// What to add to the machine's clock: the handshakes ran ahead of it.
    ahead: Duration,
    next_tick: Instant,
    sent: u64,
    sent_bytes: u64,
}

impl Stock {
    /// The profile that two ends of str0m agree on.
    pub const PROFILE: Profile = Profile::AeadAes256Gcm;

    /// Connects all sessions of `topology`, whose clients are the sink's. Publishers will run on
    /// `feeder_cpu`.
    ///
    /// # Errors
    /// If a session does not connect.
    pub fn new(topology: Topology, sink: &Sink, feeder_cpu: usize) -> Result<Stock> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LOST))?;
        let start = clock::now();
        let mut latest = start;
        let mut sessions = Vec::new();
        let mut publishers = Vec::new();
        let mut by_address = HashMap::new();
        let mut ssrcs = HashMap::new();
        let mut pt = None;
        for (client, address) in sink.addresses().iter().take(topology.clients()).enumerate() {
            let tracks: Vec<_> = topology.publishers_of(client).collect();
            let publishes = topology.publishes(client);
            let connected = connect(
                socket.local_addr()?,
                *address,
                tracks.len(),
                publishes,
                start,
            )?;
            latest = latest.max(connected.now);
            ssrcs.extend(tracks.iter().map(|p| (*p, client)).zip(connected.ssrcs));
            pt = Some(connected.pt);
            by_address.insert(*address, client);
            sessions.push(Session {
                rtc: connected.rtc,
                subscribers: Vec::new(),
            });
            if let Some(sender) = connected.sender {
                let from = sink.socket(client).ok_or("a publisher without socket")?;
                publishers.push(Client {
                    sender,
                    socket: from.try_clone()?,
                });
            }
        }
        for publisher in topology.all_publishers() {
            let subscribers = topology
                .receivers_of(publisher)
                .map(|r| {
                    Ok((
                        r,
                        *ssrcs
                            .get(&(publisher, r))
                            .ok_or("a subscription without SSRC")?,
                    ))
                })
                .collect::<Result<_>>()?;
            sessions[publisher].subscribers = subscribers;
        }
        Ok(Stock {
            topology,
            socket,
            sessions,
            by_address,
            publishers,
            feeder_cpu,
            pt: pt.ok_or("a topology without clients")?,
            ahead: latest - start,
            next_tick: latest,
            sent: 0,
            sent_bytes: 0,
        })
    }

    fn now(&self) -> Instant {
        clock::now() + self.ahead
    }

    /// One turn of the SFU's loop: a datagram in, its copies out.
    fn turn(&mut self, buf: &mut [u8]) -> Result<()> {
        let (len, from) = self.socket.recv_from(buf)?;
        let now = self.now();
        let publisher = *self
            .by_address
            .get(&from)
            .ok_or("a datagram from nowhere")?;
        let receive = Receive {
            proto: Protocol::Udp,
            source: from,
            destination: self.socket.local_addr()?,
            contents: buf[..len].try_into()?,
        };
        let session = &mut self.sessions[publisher];
        session.rtc.handle_input(Input::Receive(now, receive))?;
        let mut packets = Vec::new();
        self.poll(publisher, &mut packets)?;
        for packet in packets {
            self.propagate(publisher, &packet, now)?;
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            for session in 0..self.sessions.len() {
                self.sessions[session]
                    .rtc
                    .handle_input(Input::Timeout(now))?;
                self.poll(session, &mut Vec::new())?;
            }
        }
        Ok(())
    }

    fn propagate(&mut self, publisher: usize, packet: &RtpPacket, now: Instant) -> Result<()> {
        for i in 0..self.sessions[publisher].subscribers.len() {
            let (subscriber, ssrc) = self.sessions[publisher].subscribers[i];
            let session = &mut self.sessions[subscriber];
            let mut api = session.rtc.direct_api();
            let stream = api
                .stream_tx(&ssrc)
                .ok_or("a subscription without stream")?;
            stream.write_rtp(
                RtpWrite::new(
                    self.pt,
                    packet.seq_no,
                    packet.header.timestamp,
                    now,
                    packet.payload.clone(),
                )
                .marker(packet.header.marker)
                .ext_vals(packet.header.ext_vals.clone())
                .nackable(true),
            );
            session.rtc.handle_input(Input::Timeout(now))?;
            self.poll(subscriber, &mut Vec::new())?;
        }
        Ok(())
    }

    /// Sends what a session has to send, and collects what it received.
    fn poll(&mut self, session: usize, packets: &mut Vec<RtpPacket>) -> Result<()> {
        loop {
            match self.sessions[session].rtc.poll_output()? {
                Output::Timeout(_) => return Ok(()),
                Output::Transmit(transmit) => {
                    self.socket
                        .send_to(&transmit.contents, transmit.destination)?;
                    if is_media(&transmit.contents, self.pt) {
                        self.sent += 1;
                        self.sent_bytes += transmit.contents.len() as u64;
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => packets.push(packet),
                Output::Event(_) => {}
            }
        }
    }
}

/// Whether a datagram is RTP of this payload type.
fn is_media(datagram: &[u8], pt: Pt) -> bool {
    matches!(datagram, [first, second, ..] if first >> 6 == 2 && second & 0x7f == *pt)
}

/// A publisher outside the SFU.
struct Client {
    sender: Sender,
    socket: UdpSocket,
}

impl Contender for Stock {
    fn run(&mut self, traffic: &Traffic, packets: u64, meter: &mut Meter) -> Result<Sample> {
        let frames = traffic.frames(&self.topology, packets);
        let mut feeds = Vec::new();
        for publisher in &mut self.publishers {
            feeds.push(Feed {
                socket: publisher.socket.try_clone()?,
                packets: publisher.sender.seal_packets(traffic, frames)?,
            });
        }
        let total = (frames * traffic.frame * feeds.len()) as u64;
        let (to, cpu) = (self.socket.local_addr()?, self.feeder_cpu);
        let consumed = AtomicU64::new(0);
        (self.sent, self.sent_bytes) = (0, 0);
        let cost = std::thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                cpu::pin_to(cpu)?;
                feed::send(&feeds, traffic.frame, to, || {
                    consumed.load(Ordering::Relaxed)
                })
            });
            let mut buf = vec![0; 2_000];
            let start = meter.read()?;
            for done in 1..=total {
                self.turn(&mut buf)?;
                consumed.store(done, Ordering::Relaxed);
            }
            let cost = start.until(&meter.read()?);
            feeder.join().map_err(|_| "the feeder panicked")??;
            Result::Ok(cost)
        })?;
        let expected = total * self.topology.fan_out() as u64;
        if self.sent != expected {
            return Err(format!("stock sent {} packets of {expected}", self.sent).into());
        }
        Ok(Sample {
            packets: self.sent,
            bytes: self.sent_bytes,
            calls: self.sent,
            cost,
        })
    }
}
