//! Sealcast itself: a shard's thread with its sockets, fed by real publishers over SRTP.
//!
//! Clients connect with ICE and DTLS over the very sockets that carry the media. While a
//! measurement runs they only take packets; between measurements they answer for their consent
//! (RFC 7675). What is measured is the shard's thread: everything between the wake-up for a frame
//! and the system call that sends its last packet.

mod client;

use crate::cpu::{Meter, ThreadId};
use crate::feed::{self, Feed};
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Contender, Result, Sample, clock, cpu};
use client::Client;
use sealcast_io::{Bind, Clock, ShardIo, ShardIoConfig, ShardPort};
use sealcast_model::{Command, Counter, Event, ShardId, ShardStats, Source};
use sealcast_session::SessionContext;
use sealcast_srtp::{Backend, Profile};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Clients that connect at the same time.
const CONNECTING: usize = 40;
/// All of them must have connected, and every command been answered, within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long clients are served between measurements.
const REST: Duration = Duration::from_millis(30);

/// A running shard with its clients.
pub struct Sealcast {
    topology: Topology,
    clients: Vec<Client>,
    port: ShardPort,
    address: SocketAddr,
    events: Receiver<Event>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    meter: Meter,
    cpu: usize,
    feeder_cpu: usize,
}

impl Sealcast {
    /// The profile that the shard agrees on with str0m's clients.
    pub const PROFILE: Profile = Profile::AeadAes256Gcm;

    /// Starts a shard on `cpu` and connects the clients of `topology`, who are the sink's.
    /// Publishers will run on `feeder_cpu`.
    ///
    /// # Errors
    /// If the shard cannot start or a client cannot connect.
    pub fn new(
        topology: Topology,
        backend: Backend,
        sink: &mut Sink,
        cpu: usize,
        feeder_cpu: usize,
    ) -> Result<Sealcast> {
        let clock = Clock::start();
        let context = SessionContext::generate(clock.epoch(), backend)?;
        let fingerprint = context.fingerprint_sha256();
        let mut config = ShardIoConfig::new(ShardId(0));
        config.udp = vec![Bind::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))];
        let (to_us, events) = channel();
        let deliver = move |_: ShardId, event| {
            // The receiving end is gone at the end only, when nobody wants events any more.
            let _ = to_us.send(event);
            Ok(())
        };
        let (io, port) = ShardIo::bind(&config, context, clock, Box::new(deliver))?;
        let address = *port.udp.first().ok_or("the shard has no socket")?;
        let (to_us, thread_id) = channel();
        let thread = std::thread::Builder::new()
            .name("shard-0".into())
            .spawn(move || {
                cpu::pin_to(cpu)?;
                to_us
                    .send(ThreadId::current())
                    .map_err(std::io::Error::other)?;
                io.run()
            })?;
        let mut sealcast = Sealcast {
            topology,
            clients: Vec::new(),
            port,
            address,
            events,
            thread: Some(thread),
            meter: Meter::open(thread_id.recv()?),
            cpu,
            feeder_cpu,
        };
        sink.pause()?;
        sealcast.connect(sink, fingerprint)?;
        sealcast.subscribe()?;
        sink.resume()?;
        Ok(sealcast)
    }

    fn connect(&mut self, sink: &Sink, fingerprint: [u8; 32]) -> Result<()> {
        for index in 0..self.topology.clients() {
            let socket = sink
                .socket(index)
                .ok_or("the sink has too few clients")?
                .try_clone()?;
            let client = Client::new(&self.topology, index, socket, self.address, fingerprint)?;
            self.send(client.open(&self.topology))?;
            self.clients.push(client);
            if self.clients.len().is_multiple_of(CONNECTING) || index + 1 == self.topology.clients()
            {
                self.serve_until(|s| s.clients.iter().all(Client::is_connected))?;
            }
        }
        self.replies(self.topology.clients())
    }

    fn subscribe(&mut self) -> Result<()> {
        let mut commands = Vec::new();
        for client in &self.clients {
            commands.extend(client.publish());
        }
        let published = commands.len();
        for command in commands.drain(..) {
            self.send(command)?;
        }
        self.replies(published)?;
        for (index, client) in self.clients.iter().enumerate() {
            commands.extend(client.assign(&self.topology, index));
        }
        let assigned = commands.len();
        for command in commands {
            self.send(command)?;
        }
        self.replies(assigned)
    }

    fn send(&self, command: Command) -> Result<()> {
        Ok(self.port.commands.send(command)?)
    }

    /// Waits for so many replies, all of which must be good, and serves the clients meanwhile.
    fn replies(&mut self, mut count: usize) -> Result<()> {
        let start = clock::now();
        while count > 0 {
            self.serve()?;
            for event in self.events.try_iter() {
                match event {
                    Event::Reply { result, .. } => {
                        result?;
                        count -= 1;
                    }
                    Event::SessionClosed { reason, .. } => {
                        return Err(format!("a session closed: {}", reason.as_str()).into());
                    }
                    _ => {}
                }
            }
            if start.elapsed() > PATIENCE {
                return Err("the shard does not answer".into());
            }
        }
        Ok(())
    }

    /// Lets every client take in what has arrived and send what is due.
    fn serve(&mut self) -> Result<()> {
        clock::sleep(Duration::from_millis(1));
        let now = clock::now();
        self.clients.iter_mut().try_for_each(|c| c.serve(now))
    }

    fn serve_until(&mut self, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let start = clock::now();
        while !condition(self) {
            self.serve()?;
            if start.elapsed() > PATIENCE {
                return Err("clients do not connect".into());
            }
        }
        Ok(())
    }
}

/// What has left the engine, of both kinds.
fn forwarded(stats: &ShardStats) -> (u64, u64) {
    [Source::Audio, Source::Camera]
        .into_iter()
        .fold((0, 0), |(packets, bytes), source| {
            let media = stats.media(source);
            (
                packets + media.packets_out.load(Ordering::Relaxed),
                bytes + media.bytes_out.load(Ordering::Relaxed),
            )
        })
}

impl Contender for Sealcast {
    fn run(&mut self, traffic: &Traffic, packets: u64, _: &mut Meter) -> Result<Sample> {
        let frames = traffic.frames(&self.topology, packets);
        let now = clock::now();
        let mut sealed = Vec::new();
        for client in self.clients.iter_mut().filter(|c| c.publishes()) {
            let packets = client.seal_packets(traffic, frames, now)?;
            sealed.push((client.socket()?, packets));
        }
        let feeds: Vec<_> = sealed
            .iter_mut()
            .map(|(socket, packets)| {
                Ok(Feed {
                    socket: socket.try_clone()?,
                    packets,
                })
            })
            .collect::<Result<_>>()?;
        let fan_out = self.topology.fan_out() as u64;
        let expected = (frames * traffic.frame * feeds.len()) as u64 * fan_out;
        let stats: Arc<ShardStats> = Arc::clone(&self.port.stats);
        let (packets_before, bytes_before) = forwarded(&stats);
        let calls_before = stats.get(Counter::SendCalls);
        let sent_before = stats.get(Counter::DatagramsOut);

        // This thread is the publishers now.
        cpu::pin_to(self.feeder_cpu)?;
        let start = self.meter.read()?;
        let fed = feed::send(&feeds, traffic.frame, self.address, || {
            (forwarded(&stats).0 - packets_before) / fan_out
        });
        let done = fed.and_then(|()| {
            feed::wait_until(|| stats.get(Counter::DatagramsOut) >= sent_before + expected)
        });
        let cost = start.until(&self.meter.read()?);
        cpu::pin_to(self.cpu)?;
        let (packets, bytes) = forwarded(&stats);
        done.map_err(|e| {
            format!(
                "sealcast forwarded {} of {expected}: {e}",
                packets - packets_before
            )
        })?;
        let packets = packets - packets_before;
        Ok(Sample {
            packets,
            // The engine counts what it hands to be sealed.
            bytes: bytes - bytes_before + packets * Self::PROFILE.rtp_overhead() as u64,
            calls: stats.get(Counter::SendCalls) - calls_before,
            cost,
        })
    }

    fn rest(&mut self, sink: &mut Sink) -> Result<()> {
        sink.pause()?;
        let start = clock::now();
        while start.elapsed() < REST {
            self.serve()?;
        }
        sink.resume()
    }
}

impl Drop for Sealcast {
    fn drop(&mut self) {
        let stopped = self.send(Command::Stop);
        if let (Ok(()), Some(thread)) = (&stopped, self.thread.take()) {
            match thread.join() {
                Ok(Ok(())) => {}
                other => eprintln!("the shard did not stop well: {other:?}"),
            }
        }
    }
}
