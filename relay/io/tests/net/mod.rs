//! Clients on real sockets, and shards to call.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

#[path = "../../../shard/tests/common/mod.rs"]
pub(crate) mod common;

use common::{Client, Shape, assert_replies_ok};
use sealcast_io::{Bind, Clock, SessionContext, ShardIo, ShardIoConfig, ShardPort};
use sealcast_model::{Command, Event, MediaKind, ShardId, TrackId};
use sealcast_srtp::Backend;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shard that runs on its own thread.
pub(crate) struct Relay {
    pub(crate) ctx: SessionContext,
    pub(crate) port: ShardPort,
    pub(crate) events: Receiver<Event>,
    thread: JoinHandle<std::io::Result<()>>,
}

/// A configuration that binds one address for UDP and TCP.
pub(crate) fn config(bind: &str) -> ShardIoConfig {
    let mut config = ShardIoConfig::new(ShardId(0));
    config.udp = vec![Bind::new(bind.parse().unwrap())];
    config.tcp = config.udp.clone();
    config
}

impl Relay {
    /// Starts a shard.
    pub(crate) fn start(config: &ShardIoConfig) -> Relay {
        let clock = Clock::start();
        let ctx = SessionContext::generate(clock.epoch(), Backend::AwsLcRs).unwrap();
        let (to, events) = channel();
        let sink = move |_, event| to.send(event).map_err(|e| e.0);
        let (io, port) = ShardIo::bind(config, ctx.clone(), clock, Box::new(sink)).unwrap();
        let thread = std::thread::spawn(move || io.run());
        Relay {
            ctx,
            port,
            events,
            thread,
        }
    }

    pub(crate) fn send(&self, command: Command) {
        self.port.commands.send(command).unwrap();
    }

    /// Stops it, and checks that it ends well.
    pub(crate) fn stop(self) -> Vec<Event> {
        self.send(Command::Stop);
        self.thread.join().unwrap().unwrap();
        self.events.iter().collect()
    }
}

enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, read: Vec<u8> },
}

/// A client with its socket.
pub(crate) struct Caller {
    pub(crate) client: Client,
    link: Link,
}

impl Caller {
    pub(crate) fn new(relay: &Relay, index: u32, slots: u16, tcp: bool) -> Caller {
        let to = if tcp {
            relay.port.tcp[0]
        } else {
            relay.port.udp[0]
        };
        let (link, local) = if tcp {
            let stream = TcpStream::connect(to).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            let local = stream.local_addr().unwrap();
            (
                Link::Tcp {
                    stream,
                    read: Vec::new(),
                },
                local,
            )
        } else {
            let any = SocketAddr::new(to.ip(), 0);
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_nonblocking(true).unwrap();
            let local = socket.local_addr().unwrap();
            (Link::Udp(socket), local)
        };
        let shape = Shape {
            tcp,
            ..Shape::slots(slots)
        };
        let client = Client::new(index, common::epoch(), local, to, &relay.ctx, shape);
        relay.send(client.open(1));
        Caller { client, link }
    }

    /// Sends and receives what there is. False if there was nothing.
    fn turn(&mut self) -> bool {
        let now = common::epoch();
        let mut out = Vec::new();
        self.client.poll(now, &mut out);
        let mut busy = !out.is_empty();
        for datagram in out {
            self.link.send(&datagram, self.client.relay);
        }
        while let Some(datagram) = self.link.receive() {
            self.client.receive(now, &datagram);
            busy = true;
        }
        busy
    }
}

impl Link {
    fn send(&mut self, datagram: &[u8], to: SocketAddr) {
        match self {
            // A full socket buffer loses a datagram, as networks do.
            Link::Udp(socket) => drop(socket.send_to(datagram, to)),
            Link::Tcp { stream, .. } => {
                let length = (datagram.len() as u16).to_be_bytes();
                let mut frame = &[&length[..], datagram].concat()[..];
                while !frame.is_empty() {
                    match stream.write(frame) {
                        Ok(n) => frame = &frame[n..],
                        Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(_) => return,
                    }
                }
            }
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4_096];
        match self {
            Link::Udp(socket) => socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()),
            Link::Tcp { stream, read } => {
                if let Ok(n) = stream.read(&mut buffer) {
                    read.extend_from_slice(&buffer[..n]);
                }
                let length = usize::from(u16::from_be_bytes(*read.first_chunk()?));
                let frame = read.get(2..2 + length)?.to_vec();
                read.drain(..2 + length);
                Some(frame)
            }
        }
    }
}

/// Runs all callers until `done`.
pub(crate) fn run_until(callers: &mut [Caller], mut done: impl FnMut(&[Caller]) -> bool) {
    let start = common::epoch();
    while !done(callers) {
        assert!(start.elapsed() < PATIENCE, "nothing came of it");
        let busy = callers.iter_mut().fold(false, |busy, c| c.turn() | busy);
        if !busy {
            pause(Duration::from_micros(300));
        }
    }
}

/// Runs all callers for some time.
pub(crate) fn run_for(callers: &mut [Caller], duration: Duration) {
    let end: Instant = common::epoch() + duration;
    run_until(callers, |_| common::epoch() >= end);
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another thread")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Callers that are connected, the first of whom publishes audio and video to all others.
pub(crate) fn audience(relay: &Relay, links: &[bool]) -> Vec<Caller> {
    let callers = links.iter().enumerate();
    let mut callers: Vec<Caller> = callers
        .map(|(i, tcp)| Caller::new(relay, i as u32, 1, *tcp))
        .collect();
    run_until(&mut callers, |c| {
        c.iter()
            .all(|c| c.client.connected && c.client.channel.is_some())
    });
    for kind in [MediaKind::Audio, MediaKind::Video] {
        relay.send(callers[0].client.publish(kind));
        let track: TrackId = callers[0].client.track(kind);
        for caller in &callers[1..] {
            relay.send(caller.client.watch(kind, &[track]));
        }
    }
    // Both slots of every receiver are told on its channel.
    run_until(&mut callers, |c| {
        c[1..].iter().all(|c| c.client.notices.len() == 2)
    });
    assert_replies_ok(&relay.events.try_iter().collect::<Vec<_>>());
    callers
}

/// The first caller sends frames of so many packets until every other has received `count` video
/// packets.
pub(crate) fn play(callers: &mut [Caller], packets: usize, count: usize) {
    let mut last = common::epoch();
    callers[0].client.send_frame(last, packets, 1_100);
    run_until_sending(callers, |callers| {
        if last.elapsed() > Duration::from_millis(5) {
            last = common::epoch();
            callers[0].client.send_frame(last, packets, 1_100);
        }
        callers[1..]
            .iter()
            .all(|c| c.client.received_of(MediaKind::Video).len() >= count)
    });
}

fn run_until_sending(callers: &mut [Caller], mut done: impl FnMut(&mut [Caller]) -> bool) {
    let start = common::epoch();
    while !done(callers) {
        assert!(start.elapsed() < PATIENCE, "nothing came of it");
        let busy = callers.iter_mut().fold(false, |busy, c| c.turn() | busy);
        if !busy {
            pause(Duration::from_micros(300));
        }
    }
}
