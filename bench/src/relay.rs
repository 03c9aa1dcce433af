//! A relay to measure: one shard on a thread of its own, commanded as control would.

use crate::client::{self, Features};
use crate::cpu::{self, ThreadId};
use crate::shape::Topology;
use crate::{Result, clock};
use sealcast_io::{Bind, Clock, Mesh, ShardIo, ShardIoConfig, ShardPort};
use sealcast_model::{Command, Event, ShardId, ShardStats, Source};
use sealcast_session::SessionContext;
use sealcast_srtp::Backend;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Every command must have been answered within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running shard.
pub struct Relay {
    port: ShardPort,
    /// Where its clients send to.
    pub address: SocketAddr,
    /// Digest of its certificate.
    pub fingerprint: [u8; 32],
    /// Its thread.
    pub thread_id: ThreadId,
    events: Receiver<Event>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Relay {
    /// Starts a shard on `cpu`. `adjust` may change its configuration.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn start(
        backend: Backend,
        cpu: usize,
        adjust: impl FnOnce(&mut ShardIoConfig),
    ) -> Result<Relay> {
        let mut config = ShardIoConfig::new(ShardId(0));
        adjust(&mut config);
        Relay::launch(backend, cpu, Clock::start(), config, None)
    }

    /// Starts one of several shards, which have one clock.
    ///
    /// # Errors
    /// If it cannot start.
    pub fn start_in(backend: Backend, cpu: usize, clock: Clock, mesh: Mesh) -> Result<Relay> {
        let config = ShardIoConfig::new(mesh.id());
        Relay::launch(backend, cpu, clock, config, Some(mesh))
    }

    fn launch(
        backend: Backend,
        cpu: usize,
        clock: Clock,
        mut config: ShardIoConfig,
        mesh: Option<Mesh>,
    ) -> Result<Relay> {
        let context = SessionContext::generate(clock.epoch(), backend)?;
        let fingerprint = context.fingerprint_sha256();
        config.udp = vec![Bind::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))];
        let (to_us, events) = channel();
        let deliver = move |_: ShardId, event| {
            // The receiving end is gone at the end only, when nobody wants events any more.
            let _ = to_us.send(event);
            Ok(())
        };
        let (io, port) = ShardIo::bind_in(&config, context, clock, Box::new(deliver), mesh)?;
        let address = *port.udp.first().ok_or("the shard has no socket")?;
        let (to_us, thread_id) = channel();
        let priority = config.realtime_priority;
        let thread = std::thread::Builder::new()
            .name("shard-0".into())
            .spawn(move || {
                cpu::pin_to(cpu)?;
                cpu::prioritise(priority)?;
                to_us
                    .send(ThreadId::current())
                    .map_err(std::io::Error::other)?;
                io.run()
            })?;
        Ok(Relay {
            port,
            address,
            fingerprint,
            thread_id: thread_id.recv()?,
            events,
            thread: Some(thread),
        })
    }

    /// What the shard counts.
    #[must_use]
    pub fn stats(&self) -> &Arc<ShardStats> {
        &self.port.stats
    }

    /// Opens a session for every client of `topology`, which have the certificate of this
    /// fingerprint.
    ///
    /// # Errors
    /// If the shard refuses one.
    pub fn open_sessions(
        &self,
        topology: &Topology,
        features: Features,
        clients: std::ops::Range<usize>,
        fingerprint: [u8; 32],
    ) -> Result<()> {
        let open = |index| client::open(topology, features, index, fingerprint);
        self.carry_out(clients.map(open))
    }

    /// Publishes what clients send and shows it to everybody who is to receive it.
    ///
    /// # Errors
    /// If the shard refuses anything.
    pub fn subscribe(&self, topology: &Topology, features: Features) -> Result<()> {
        self.publish(topology, features)?;
        self.assign(topology, usize::MAX)
    }

    /// Shows what is published in the first `slots` slots of everybody who is to receive it.
    ///
    /// # Errors
    /// If the shard refuses.
    pub fn assign(&self, topology: &Topology, slots: usize) -> Result<()> {
        let assign = |index| client::assign(topology, index, slots);
        self.carry_out((0..topology.clients()).filter_map(assign).map(Ok))
    }

    /// Publishes what clients send.
    ///
    /// # Errors
    /// If the shard refuses anything.
    pub fn publish(&self, topology: &Topology, features: Features) -> Result<()> {
        for index in topology.all_publishers() {
            let commands = client::publish(topology, features, index)?;
            self.carry_out(commands.into_iter().map(Ok))?;
        }
        Ok(())
    }

    /// Queues a command that has no reply.
    ///
    /// # Errors
    /// If the shard's queue is full.
    pub fn tell(&self, command: Command) -> Result<()> {
        Ok(self.port.commands.send(command)?)
    }

    /// Has commands carried out, all of which must succeed, one after another.
    ///
    /// # Errors
    /// If the shard refuses one or does not answer.
    pub fn carry_out(&self, commands: impl Iterator<Item = Result<Command>>) -> Result<()> {
        for command in commands {
            self.port.commands.send(command?)?;
            self.await_reply()?;
        }
        Ok(())
    }

    fn await_reply(&self) -> Result<()> {
        let start = clock::now();
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(Event::Reply { result, .. }) => return Ok(result?),
                Ok(Event::SessionClosed { reason, .. }) => {
                    return Err(format!("a session closed: {}", reason.as_str()).into());
                }
                Ok(_) if start.elapsed() < PATIENCE => {}
                _ => return Err("the shard does not answer".into()),
            }
        }
    }

    /// Whether no session has ended.
    ///
    /// # Errors
    /// If one has.
    pub fn check(&self) -> Result<()> {
        for event in self.events.try_iter() {
            if let Event::SessionClosed { reason, .. } = event {
                return Err(format!("a session closed: {}", reason.as_str()).into());
            }
        }
        Ok(())
    }

    /// Packets and bytes of media that have left the engine, of both kinds.
    #[must_use]
    pub fn forwarded(&self) -> (u64, u64) {
        forwarded(&self.port.stats)
    }
}

/// As [`Relay::forwarded`].
#[must_use]
pub fn forwarded(stats: &ShardStats) -> (u64, u64) {
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

impl Drop for Relay {
    fn drop(&mut self) {
        let stopped = self.port.commands.send(Command::Stop);
        if let (Ok(()), Some(thread)) = (&stopped, self.thread.take()) {
            match thread.join() {
                Ok(Ok(())) => {}
                other => eprintln!("the shard did not stop well: {other:?}"),
            }
        }
    }
}
