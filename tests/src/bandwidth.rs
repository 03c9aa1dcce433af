//! The cases of docs/QUALITY.md in which a path carries less than is asked for: capacity that
//! steps down and up, and two viewers behind one link.
//!
//! Four cameras with three encodings each are watched over the link; together they ask for more
//! than it ever carries, so that what is received shows what it carries. A seed gives the cameras'
//! phases, when the viewer joins, and the size of every frame, which varies by a fifth.

use crate::payload::Format;
use crate::publisher::Picture;
use crate::session::{AUDIO_SLOTS, Profile};
use crate::world::World;
use sealcast_media::{LayerLimit, PathState, PeerKey};
use sealcast_model::{SlotId, Source, Time};
use sealcast_netsim::{LinkConfig, Rate, Rng};
use std::time::Duration;

/// One way between a client and the relay.
const DELAY: Duration = Duration::from_millis(25);

/// Cameras.
pub const CAMERAS: u32 = 4;
/// The first viewer's key.
pub const VIEWER: u32 = 101;

/// What the cameras send: 60, 250 and 900 kbit/s, each encoding in two temporal layers, as browsers
/// do.
pub const TEMPORAL: Picture = Picture {
    bitrates: [60_000, 250_000, 900_000],
    packet_bytes: 1_100,
    format: Format::VP8_L1T2,
};
/// The same encodings without temporal layers.
pub const PLAIN: Picture = Picture {
    format: Format::VP8,
    ..TEMPORAL
};

/// Capacity in bits per second, and from which second on.
pub const PHASES: [(u64, u64); 3] = [(3_000_000, 0), (500_000, 20), (3_000_000, 40)];
/// Length of a phase, seconds.
pub const PHASE_SECONDS: u64 = 20;
/// Capacity of the link that two viewers share, bits per second.
pub const SHARED: u64 = 3_000_000;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What was seen at a moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the viewer joined.
    pub at: Duration,
    /// What the link carries, bits per second.
    pub capacity: u64,
    /// The link's queue.
    pub queue: Duration,
    /// What the engine knows.
    pub path: PathState,
    /// Bytes of RTP that left for the viewer so far.
    pub sent: u64,
    /// Bytes of media on the wire that reached the viewer so far, repetitions left out.
    pub media: u64,
    /// Key frames that all cameras were asked for so far.
    pub key_requests: usize,
    /// The newest frame of each camera that was shown: its encoding.
    pub shown: Vec<Option<u32>>,
    /// Frames shown so far.
    pub frames: usize,
}

/// How a phase of constant capacity went.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// When the estimate first came within 15 % of the capacity.
    pub settled: Option<Duration>,
    /// Share of the time from then on in which it was, 0..=1.
    pub within: f64,
    /// The queueing delay below which 95 % of packets stayed, from the second second on.
    pub queue_p95: Duration,
}

/// How a run over capacity steps went.
#[derive(Clone, Debug)]
pub struct Steps {
    /// By phase.
    pub phases: [Phase; 3],
    /// Media received, as a share of capacity, 0..=1.
    pub goodput: f64,
    /// Every tenth of a second.
    pub samples: Vec<Sample>,
}

/// How two viewers shared a link.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Media received by each, bits per second.
    pub rates: [f64; 2],
    /// Every tenth of a second, of each viewer.
    pub samples: [Vec<Sample>; 2],
}

impl Shared {
    /// How much less the one got, as a share of what the other one got, 0..=1.
    #[must_use]
    pub fn apart(&self) -> f64 {
        let [a, b] = self.rates;
        (a - b).abs() / a.max(b).max(1.0)
    }

    /// Share of the link that both used, 0..=1.
    #[must_use]
    pub fn used(&self) -> f64 {
        self.rates.iter().sum::<f64>() / SHARED as f64
    }
}

fn path() -> LinkConfig {
    LinkConfig {
        delay: DELAY,
        ..LinkConfig::default()
    }
}

/// A link of this rate whose queue holds half a second, and no less than a few key frames.
pub(crate) fn capped(bits_per_second: u64) -> LinkConfig {
    LinkConfig {
        rate: Some(Rate {
            bits_per_second,
            queue_bytes: (bits_per_second / 8 / 2).max(60_000),
        }),
        ..path()
    }
}

/// A room of cameras, and nobody who watches yet.
fn cameras(seed: u64, picture: Picture) -> Result<World, String> {
    let mut world = World::new(seed);
    let mut rng = Rng::new(seed);
    for key in 1..=CAMERAS {
        let back = world.add_down(path());
        let profile = Profile {
            simulcast: true,
            controlled: true,
            video_slots: 1,
        };
        world.join(key, 1, profile, picture, Source::Camera, (path(), back))?;
        if let Some(client) = world.client(key) {
            client.publisher.vary_frames(rng.next_u64());
        }
        world.run(Duration::from_millis(rng.below(33)))?;
    }
    world.run(Duration::from_millis(rng.below(200)))?;
    Ok(world)
}

/// A client that sends no video watches all cameras over this link from the relay.
fn viewer(world: &mut World, key: u32, down: usize) -> Result<(), String> {
    let profile = Profile {
        simulcast: false,
        controlled: true,
        video_slots: CAMERAS as u16,
    };
    world.join(key, 1, profile, TEMPORAL, Source::Camera, (path(), down))?;
    if let Some(client) = world.client(key) {
        client.publisher.video = false;
    }
    for (slot, camera) in (0..).zip(1..=CAMERAS) {
        world.show(key, false, slot, Some(camera))?;
    }
    world.show(key, true, 0, Some(1))
}

fn look(world: &mut World, key: u32, down: usize, joined: Time) -> Result<Sample, String> {
    let path = world
        .engine
        .path_state(PeerKey(key))
        .ok_or("the viewer's path is not controlled")?;
    let link = &world.downs[down];
    let capacity = link.config().rate.map_or(0, |rate| rate.bits_per_second);
    let (now, queue) = (world.now, link.queue_delay(world.now));
    let sent = world.checker.bytes.get(&key).copied().unwrap_or(0);
    let cameras = world.clients.iter();
    let key_requests = cameras.map(|c| c.publisher.key_requests.len()).sum();
    let client = world.client(key).ok_or("the viewer has left")?;
    let shown = &client.subscriber.shown;
    let newest = |camera| {
        let frame = shown.iter().rev().take_while(|s| now - s.at < LOOK * 3);
        let mut frame = frame.filter(|s| s.tag.publisher == camera);
        frame.next().map(|s| s.tag.encoding)
    };
    Ok(Sample {
        at: now - joined,
        capacity,
        queue,
        path,
        sent,
        media: client.subscriber.media_bytes,
        key_requests,
        shown: (1..=CAMERAS).map(newest).collect(),
        frames: shown.len(),
    })
}

/// Four simulcast cameras over a path of 3, then 0.5, then 3 Mbit/s.
///
/// # Errors
/// A run that broke an invariant.
pub fn steps(seed: u64, picture: Picture) -> Result<Steps, String> {
    let mut world = cameras(seed, picture)?;
    let down = world.add_down(capped(PHASES[0].0));
    viewer(&mut world, VIEWER, down)?;
    let joined = world.now;
    let mut samples = Vec::new();
    for (capacity, _) in PHASES {
        world.downs[down].set_config(capped(capacity));
        for _ in 0..PHASE_SECONDS * 10 {
            world.run(LOOK)?;
            samples.push(look(&mut world, VIEWER, down, joined)?);
        }
    }
    let viewer = world.client(VIEWER).ok_or("the viewer has left")?;
    let delays = &viewer.subscriber.delays;
    let phases = PHASES.map(|(capacity, from)| {
        let begin = Duration::from_secs(from);
        let end = begin + Duration::from_secs(PHASE_SECONDS);
        let seen = samples.iter().filter(|s| s.at > begin && s.at <= end);
        Phase::of(capacity, begin, seen).with_queue(delays, joined + begin, joined + end)
    });
    let capacity: u64 = PHASES
        .iter()
        .map(|(rate, _)| rate * PHASE_SECONDS / 8)
        .sum();
    let got = samples.last().map_or(0, |sample| sample.media);
    Ok(Steps {
        phases,
        goodput: got as f64 / capacity as f64,
        samples,
    })
}

impl Phase {
    fn of<'a>(
        capacity: u64,
        begin: Duration,
        samples: impl Iterator<Item = &'a Sample> + Clone,
    ) -> Self {
        let within = |sample: &&Sample| {
            let share = sample.path.estimate as f64 / capacity as f64;
            (0.85..=1.15).contains(&share)
        };
        let first = samples.clone().find(within).map(|sample| sample.at);
        let rest = || samples.clone().filter(|s| Some(s.at) >= first);
        let good = rest().filter(within).count();
        Phase {
            settled: first.map(|at| at.saturating_sub(begin)),
            within: first.map_or(0.0, |_| good as f64 / rest().count() as f64),
            queue_p95: Duration::ZERO,
        }
    }

    /// Delay over the path's own, from the second second on.
    fn with_queue(self, delays: &[(Time, Duration)], begin: Time, end: Time) -> Self {
        let window = begin + Duration::from_secs(1)..end;
        let within = delays.iter().filter(|(at, _)| window.contains(at));
        let mut delays: Vec<_> = within.map(|(_, d)| d.saturating_sub(2 * DELAY)).collect();
        delays.sort_unstable();
        let place = delays.len() * 95 / 100;
        Phase {
            queue_p95: delays.get(place).copied().unwrap_or_default(),
            ..self
        }
    }
}

/// Two viewers behind one link of [`SHARED`], the second one ten seconds late; what they receive
/// in the minute after thirty seconds.
///
/// # Errors
/// A run that broke an invariant.
pub fn shared(seed: u64, picture: Picture) -> Result<Shared, String> {
    let mut world = cameras(seed, picture)?;
    let down = world.add_down(capped(SHARED));
    viewer(&mut world, VIEWER, down)?;
    let joined = world.now;
    let mut samples = [Vec::new(), Vec::new()];
    for tenth in 0..900 {
        if tenth == 100 {
            viewer(&mut world, VIEWER + 1, down)?;
        }
        world.run(LOOK)?;
        samples[0].push(look(&mut world, VIEWER, down, joined)?);
        if tenth >= 100 {
            samples[1].push(look(&mut world, VIEWER + 1, down, joined)?);
        }
    }
    let rates = [&samples[0], &samples[1]].map(|samples| {
        let minute = &samples[samples.len() - 601..];
        let bytes = |sample: Option<&Sample>| sample.map_or(0, |s| s.media);
        (bytes(minute.last()) - bytes(minute.first())) as f64 * 8.0 / 60.0
    });
    Ok(Shared { rates, samples })
}

/// A camera without layers over a path without limits: 4.4 Mbit/s for ten seconds, and then 17.6 at
/// once. Frames shown in the first so many seconds of that, of 30 a second.
///
/// # Errors
/// A run that broke an invariant.
pub fn grows(seconds: u64) -> Result<usize, String> {
    const BEFORE: u64 = 4_400_000;
    const AFTER: u64 = 17_600_000;
    let mut world = World::new(0);
    let picture = Picture {
        bitrates: [BEFORE; 3],
        ..PLAIN
    };
    let (back, down) = (world.add_down(path()), world.add_down(path()));
    let profile = Profile {
        simulcast: false,
        controlled: true,
        video_slots: 1,
    };
    world.join(1, 1, profile, picture, Source::Camera, (path(), back))?;
    world.join(VIEWER, 1, profile, picture, Source::Camera, (path(), down))?;
    world.show(VIEWER, false, 0, Some(1))?;
    world.run(Duration::from_secs(10))?;
    if let Some(client) = world.client(1) {
        client.publisher.set_bitrates([AFTER; 3]);
    }
    let shown = |world: &mut World| world.client(VIEWER).map_or(0, |c| c.subscriber.shown.len());
    let before = shown(&mut world);
    world.run(Duration::from_secs(seconds))?;
    Ok(shown(&mut world) - before)
}

/// The largest share of capacity that layers can fill in [`steps`], were they chosen at once and
/// without any overhead: in each phase the largest sum of one layer of each camera, and of the
/// audio, that does not exceed the capacity.
///
/// # Errors
/// A run that broke an invariant.
pub fn best_goodput(picture: Picture) -> Result<f64, String> {
    let (audio, layers) = layer_rates(picture)?;
    let best = |capacity: u64| {
        let mut sums = vec![audio];
        for _ in 0..CAMERAS {
            let with = |sum: &f64| layers.iter().map(|rate| sum + rate).collect::<Vec<_>>();
            sums = sums.iter().flat_map(with).collect();
        }
        let within = sums.into_iter().filter(|sum| *sum <= capacity as f64);
        within.fold(0.0, f64::max)
    };
    let filled: f64 = PHASES.iter().map(|(capacity, _)| best(*capacity)).sum();
    let capacity: u64 = PHASES.iter().map(|(capacity, _)| capacity).sum();
    Ok(filled / capacity as f64)
}

/// What the audio, and each layer of a camera, cost on the wire, bits per second: measured on a path
/// without limits.
fn layer_rates(picture: Picture) -> Result<(f64, Vec<f64>), String> {
    const MEASURED: Duration = Duration::from_secs(10);
    let mut world = cameras(1, picture)?;
    let down = world.add_down(path());
    let profile = Profile {
        simulcast: false,
        controlled: false,
        video_slots: 1,
    };
    world.join(VIEWER, 1, profile, picture, Source::Camera, (path(), down))?;
    world.show(VIEWER, true, 0, Some(1))?;
    let measure = |world: &mut World| -> Result<f64, String> {
        let bytes =
            |world: &mut World| world.client(VIEWER).map_or(0, |c| c.subscriber.media_bytes);
        // A change of encoding takes a key frame, which is no part of the steady rate.
        world.run(Duration::from_secs(1))?;
        let before = bytes(world);
        world.run(MEASURED)?;
        Ok((bytes(world) - before) as f64 * 8.0 / MEASURED.as_secs_f64())
    };
    let audio = measure(&mut world)?;
    world.show(VIEWER, false, 0, Some(1))?;
    let mut layers = Vec::new();
    for spatial in 0..3 {
        for temporal in 0..1 + u8::from(picture.format == Format::VP8_L1T2) {
            let limit = LayerLimit { spatial, temporal };
            let slot = SlotId(AUDIO_SLOTS);
            let (now, viewer) = (world.now, PeerKey(VIEWER));
            let limited = world.engine.limit_slot(now, viewer, slot, limit);
            limited.map_err(|error| error.to_string())?;
            layers.push(measure(&mut world)? - audio);
        }
    }
    Ok((audio, layers))
}
