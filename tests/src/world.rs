//! The engine and its clients, with a link each way between them.

use crate::check::Checker;
use crate::packet::{context, token};
use crate::publisher::{Picture, Publisher};
use crate::session::{AUDIO_MID, AUDIO_SLOTS, Profile, VIDEO_MID, media, track};
use crate::subscriber::Subscriber;
use sealcast_media::{Engine, MediaConfig, MediaEvent, PeerKey};
use sealcast_model::{
    AssignSlot, NtpClock, PacketPool, ParticipantId, Publish, RoomId, SealRule, SessionId,
    ShardStats, SlotId, Source, Time,
};
use sealcast_netsim::{Link, LinkConfig};
use sealcast_rtp::demux::{Protocol, classify};
use std::sync::Arc;
use std::time::Duration;

/// Length of a step.
pub const STEP: Duration = Duration::from_millis(1);
/// IP, UDP and SRTP tag around a packet.
pub(crate) const OVERHEAD: usize = 44;
/// Slots of the packet pool; most of what the engine may ever hold.
const POOL: usize = 16_384;

/// A client and its path.
pub struct Client {
    /// Its key.
    pub key: u32,
    /// Its room.
    pub room: u32,
    /// What it sends.
    pub publisher: Publisher,
    /// What it receives.
    pub subscriber: Subscriber,
    /// To the relay.
    pub up: Link<Vec<u8>>,
    /// From the relay; clients may share one.
    pub down: usize,
    /// Notices of slots that are paused for want of bandwidth, and that go on.
    pub pauses: Vec<(Time, u16, bool)>,
}

/// Everything.
pub struct World {
    /// The relay.
    pub engine: Engine,
    pool: PacketPool,
    /// The relay's counters.
    pub stats: Arc<ShardStats>,
    clock: NtpClock,
    /// The virtual time.
    pub now: Time,
    /// The judge.
    pub checker: Checker,
    /// Those who are there.
    pub clients: Vec<Client>,
    /// Links from the relay.
    pub downs: Vec<Link<(u32, Vec<u8>)>>,
    seed: u64,
    /// How long the engine has been at work on this machine, and how often it was woken by a timer.
    pub work: Work,
}

/// What the engine took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Time in the engine's calls. On a silent machine that is CPU time.
    pub time: Duration,
    /// Timeouts handled.
    pub wake_ups: u64,
}

impl World {
    /// A relay without clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = NtpClock::from_unix(Duration::from_secs(1_800_000_000));
        let stats = Arc::new(ShardStats::default());
        World {
            engine: Engine::new(MediaConfig::default(), clock, seed, stats.clone()),
            pool: PacketPool::new(POOL),
            stats,
            clock,
            now: Time::from_millis(1_000),
            checker: Checker::default(),
            clients: Vec::new(),
            downs: Vec::new(),
            seed,
            work: Work::default(),
        }
    }

    /// Adds a link from the relay.
    pub fn add_down(&mut self, config: LinkConfig) -> usize {
        let seed = self.seed ^ (0x1000 + self.downs.len() as u64) << 20;
        self.downs.push(Link::new(config, seed));
        self.downs.len() - 1
    }

    /// A client joins, publishes a camera (or whatever `source` is) and a microphone, and is
    /// connected.
    ///
    /// # Errors
    /// Says what the engine refused.
    pub fn join(
        &mut self,
        key: u32,
        room: u32,
        profile: Profile,
        picture: Picture,
        source: Source,
        links: (LinkConfig, usize),
    ) -> Result<(), String> {
        let (up, down) = links;
        let refused = |error| format!("join of {key}: {error}");
        let media = media(key, profile, picture.format);
        let (session, participant) = (SessionId(key.into()), ParticipantId(key.into()));
        let room_id = RoomId(room.into());
        self.engine
            .add_peer(
                self.now,
                PeerKey(key),
                session,
                participant,
                room_id,
                &media,
            )
            .map_err(refused)?;
        for (audio, mid, source) in [(true, AUDIO_MID, Source::Audio), (false, VIDEO_MID, source)] {
            let publish = Publish {
                track: track(key, audio),
                session,
                mid: token(mid),
                source,
                seal: SealRule::Contexts(vec![context(key, audio)]),
            };
            self.engine
                .publish(self.now, PeerKey(key), &publish)
                .map_err(refused)?;
        }
        self.engine.peer_connected(self.now, PeerKey(key));
        self.checker.joined(key, room);
        let start = self.now + Duration::from_millis(u64::from(key) * 3 % 33);
        let mut subscriber = Subscriber::new(
            key,
            profile.video_slots,
            profile.controlled,
            self.clock,
            self.now,
        );
        let delay = self
            .downs
            .get(down)
            .map_or(up.delay, |down| down.config().delay);
        subscriber.rtt = up.delay + delay;
        self.clients.push(Client {
            key,
            room,
            publisher: Publisher::new(key, room, profile.simulcast, picture, start),
            subscriber,
            up: Link::new(up, self.seed ^ u64::from(key) << 32),
            down,
            pauses: Vec::new(),
        });
        Ok(())
    }

    /// A client leaves.
    pub fn leave(&mut self, key: u32) {
        self.engine
            .remove_peer(self.now, &mut self.pool, PeerKey(key));
        self.clients.retain(|client| client.key != key);
    }

    /// Shows somebody's track in a slot: the `n`-th of its kind.
    ///
    /// # Errors
    /// Says what the engine refused.
    pub fn show(
        &mut self,
        key: u32,
        audio: bool,
        n: u16,
        whose: Option<u32>,
    ) -> Result<(), String> {
        let assign = AssignSlot {
            slot: SlotId(if audio { n } else { AUDIO_SLOTS + n }),
            track: whose.map(|whose| track(whose, audio)),
        };
        self.engine
            .assign_slots(self.now, PeerKey(key), &[assign])
            .map_err(|error| format!("slot {n} of {key} to show {whose:?}: {error}"))
    }

    /// A client.
    #[must_use]
    pub fn client(&mut self, key: u32) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.key == key)
    }

    /// Runs for this long.
    ///
    /// # Errors
    /// The first thing that must not be.
    pub fn run(&mut self, duration: Duration) -> Result<(), String> {
        let end = self.now + duration;
        while self.now < end {
            self.step()
                .map_err(|fault| format!("after {} ms: {fault}", self.now.as_millis() - 1_000))?;
            self.now += STEP;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let now = self.now;
        let mut sent = Vec::new();
        for client in &mut self.clients {
            client.publisher.poll(now, &mut sent);
            client.subscriber.poll(now, &mut sent);
            for packet in sent.drain(..) {
                let bytes = packet.len() + OVERHEAD;
                client.up.push(now, packet, bytes);
            }
        }
        let begun = stopwatch();
        self.receive();
        if self.engine.poll_timeout() <= now {
            self.work.wake_ups += 1;
            self.engine.handle_timeout(now);
        }
        self.engine.flush(now, &mut self.pool, &mut self.checker);
        self.work.time += begun.elapsed();
        self.take_events();
        self.checker.judge()?;
        if self.pool.available() + self.engine.held_packets() != self.pool.capacity() {
            return Err("a buffer was lost".to_owned());
        }
        for (to, bytes) in std::mem::take(&mut self.checker.out) {
            let Some(client) = self.clients.iter().find(|client| client.key == to) else {
                return Err(format!("{to} is gone and is still sent to"));
            };
            let len = bytes.len() + OVERHEAD;
            self.downs[client.down].push(now, (to, bytes), len);
        }
        self.deliver();
        Ok(())
    }

    /// Hands the engine what has arrived.
    fn receive(&mut self) {
        let now = self.now;
        for client in &mut self.clients {
            while let Some(packet) = client.up.pop(now) {
                if classify(&packet) == Protocol::Rtcp {
                    self.engine.handle_rtcp(now, PeerKey(client.key), &packet);
                    continue;
                }
                let Some(buf) = self.pool.alloc() else {
                    continue;
                };
                self.pool.bytes_mut(&buf)[..packet.len()].copy_from_slice(&packet);
                self.checker.received(now, &packet);
                let (pool, key) = (&mut self.pool, PeerKey(client.key));
                self.engine
                    .handle_rtp(now, pool, key, buf, packet.len(), now);
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            let now = self.now;
            match event {
                MediaEvent::EncodingsWanted { peer, active, .. } => {
                    if let Some(client) = self.client(peer.0) {
                        client.publisher.on_encodings(active);
                    }
                }
                MediaEvent::SlotChanged {
                    peer, slot, paused, ..
                } => {
                    if let Some(client) = self.client(peer.0) {
                        client.pauses.push((now, slot.0, paused));
                    }
                }
                _ => {}
            }
        }
    }

    /// Hands clients what has arrived.
    fn deliver(&mut self) {
        let now = self.now;
        for down in &mut self.downs {
            while let Some((to, bytes)) = down.pop(now) {
                let found = self.clients.iter_mut().find(|client| client.key == to);
                let Some(client) = found else { continue };
                if classify(&bytes) == Protocol::Rtp {
                    client.subscriber.on_rtp(now, &bytes);
                    continue;
                }
                client.subscriber.on_rtcp(now, &bytes);
                let mut again = Vec::new();
                client.publisher.on_rtcp(now, &bytes, &mut again);
                for packet in again {
                    let len = packet.len() + OVERHEAD;
                    client.up.push(now, packet, len);
                }
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures what the engine costs here; nothing that is simulated depends on it"
)]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}
