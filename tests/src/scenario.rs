//! A run of a seed: who joins, over which paths, and what happens to them.

use crate::layered::Mode;
use crate::payload::Format;
use crate::publisher::Picture;
use crate::session::{AUDIO_SLOTS, Profile, track};
use crate::world::World;
use sealcast_media::{LayerLimit, PeerKey};
use sealcast_model::{SlotId, Source};
use sealcast_netsim::{LinkConfig, Loss, Rate, Rng};
use std::collections::BTreeMap;
use std::time::Duration;

/// Video slots of a client.
const VIDEO_SLOTS: u16 = 3;
/// Virtual time between two happenings, and how many there are.
const PAUSE: Duration = Duration::from_millis(200);
const HAPPENINGS: u64 = 15;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of every packet that left the relay.
    pub hash: u64,
    /// How many RTP packets that were.
    pub packets: u64,
    /// Frames that clients could show.
    pub shown: u64,
    /// What came of each format.
    pub formats: BTreeMap<Format, Share>,
}

/// What came of the cameras of one format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Frames that clients could show.
    pub shown: u64,
    /// Packets that the relay left out between others.
    pub left_out: u64,
}

/// Runs a seed.
///
/// # Errors
/// What must not have happened, and how to see it again.
pub fn run(seed: u64) -> Result<Outcome, String> {
    Run {
        rng: Rng::new(seed),
        world: World::new(seed),
        next_key: 1,
        formats: BTreeMap::new(),
        shown: BTreeMap::new(),
    }
    .run()
    .map_err(|fault| {
        format!(
            "seed {seed}: {fault}\nreplay: cargo run -p sealcast-tests --bin sim -- seed {seed}"
        )
    })
}

struct Run {
    rng: Rng,
    world: World,
    next_key: u32,
    /// The format in which each client began.
    formats: BTreeMap<u32, Format>,
    /// Frames shown, by publisher, to clients that have left.
    shown: BTreeMap<u32, u64>,
}

impl Run {
    fn run(mut self) -> Result<Outcome, String> {
        for _ in 0..3 + self.rng.below(3) {
            self.join()?;
        }
        for key in self.keys() {
            self.show(key)?;
        }
        for _ in 0..HAPPENINGS {
            self.world.run(PAUSE)?;
            self.happen()?;
        }
        self.world.run(PAUSE)?;
        for key in self.keys() {
            self.count_shown(key);
        }
        let mut formats: BTreeMap<Format, Share> = BTreeMap::new();
        for (key, format) in &self.formats {
            let share = formats.entry(*format).or_default();
            share.shown += self.shown.get(key).unwrap_or(&0);
            share.left_out += self.world.checker.left_out.get(key).unwrap_or(&0);
        }
        Ok(Outcome {
            hash: self.world.checker.hash(),
            packets: self.world.checker.packets,
            shown: self.shown.values().sum(),
            formats,
        })
    }

    /// Counts what was shown to a client that leaves.
    fn count_shown(&mut self, key: u32) {
        let client = self.world.clients.iter().find(|client| client.key == key);
        for shown in client.iter().flat_map(|client| &client.subscriber.shown) {
            *self.shown.entry(shown.tag.publisher).or_default() += 1;
        }
    }

    fn keys(&self) -> Vec<u32> {
        self.world.clients.iter().map(|client| client.key).collect()
    }

    fn pick(&mut self) -> Option<u32> {
        let keys = self.keys();
        keys.get(self.rng.below(keys.len() as u64) as usize)
            .copied()
    }

    fn join(&mut self) -> Result<(), String> {
        let key = self.next_key;
        self.next_key += 1;
        let room = 1 + self.rng.below(2) as u32;
        let profile = Profile {
            simulcast: self.rng.chance(0.4),
            controlled: self.rng.chance(0.6),
            video_slots: VIDEO_SLOTS,
        };
        let formats: &[Format] = match profile.simulcast || self.rng.chance(0.15) {
            true => &Format::SIMULCAST,
            false => &Format::LAYERED,
        };
        let format = formats[self.rng.below(formats.len() as u64) as usize];
        self.formats.insert(key, format);
        let picture = Picture {
            bitrates: match profile.simulcast || format.mode.spatial > 1 {
                true => [40_000, 100_000, 240_000],
                false => [200_000; 3],
            },
            packet_bytes: 250,
            format,
        };
        let source = match self.rng.below(5) {
            0 => Source::Imaging,
            1 => Source::Screen,
            _ => Source::Camera,
        };
        let (up, down) = (self.link(), self.link());
        let down = self.world.add_down(down);
        self.world
            .join(key, room, profile, picture, source, (up, down))?;
        let level = 20 + self.rng.below(100) as u8;
        if let Some(client) = self.world.client(key) {
            client.publisher.level = level;
        }
        Ok(())
    }

    fn link(&mut self) -> LinkConfig {
        let rng = &mut self.rng;
        let loss = match rng.below(4) {
            0 => Loss::None,
            1 => Loss::Burst {
                enter: 0.01,
                leave: 0.2,
                inside: 0.6,
                outside: 0.002,
            },
            _ => Loss::Uniform {
                probability: 0.12 * rng.unit(),
            },
        };
        LinkConfig {
            loss,
            delay: Duration::from_millis(1 + rng.below(60)),
            jitter: Duration::from_millis(rng.below(15)),
            reorder: 0.03 * rng.unit(),
            duplicate: 0.03 * rng.unit(),
            rate: rng.chance(0.4).then(|| Rate {
                bits_per_second: 150_000 + rng.below(2_000_000),
                queue_bytes: 5_000 + rng.below(60_000),
            }),
        }
    }

    /// Shows a client some of the others of its room.
    fn show(&mut self, key: u32) -> Result<(), String> {
        let Some(room) = self.world.client(key).map(|client| client.room) else {
            return Ok(());
        };
        let others: Vec<u32> = self
            .world
            .clients
            .iter()
            .filter(|client| client.room == room && client.key != key)
            .map(|client| client.key)
            .collect();
        for (n, whose) in (0..VIDEO_SLOTS).zip(&others) {
            self.world.show(key, false, n, Some(*whose))?;
        }
        for (n, whose) in (0..AUDIO_SLOTS).zip(&others) {
            self.world.show(key, true, n, Some(*whose))?;
        }
        Ok(())
    }

    /// Something happens to somebody.
    fn happen(&mut self) -> Result<(), String> {
        let Some(key) = self.pick() else {
            return self.join();
        };
        let now = self.world.now;
        let slot = self.rng.below(VIDEO_SLOTS.into()) as u16;
        match self.rng.below(11) {
            0 => {
                let muted = self.rng.chance(0.5);
                let audio = self.rng.chance(0.5);
                self.world.engine.set_muted(now, track(key, audio), muted);
            }
            1 => self.world.show(key, false, slot, None)?,
            2 => self.show(key)?,
            3 => {
                let limit = LayerLimit {
                    spatial: self.rng.below(3) as u8,
                    temporal: self.rng.below(3) as u8,
                };
                self.limit(key, slot, limit)?;
            }
            4 => self.limit(key, slot, LayerLimit::ALL)?,
            5 => {
                let side = [0, 180, 360, 1_080][self.rng.below(4) as usize];
                let slot = SlotId(AUDIO_SLOTS + slot);
                self.world
                    .engine
                    .size_slot(now, PeerKey(key), slot, side, side)
                    .map_err(|error| error.to_string())?;
            }
            6 => {
                let config = self.link();
                if let Some(client) = self.world.client(key) {
                    let down = client.down;
                    client.up.set_config(config);
                    self.world.downs[down].set_config(config);
                }
            }
            7 => {
                self.count_shown(key);
                self.world.leave(key);
            }
            8 => {
                let layers = 1 + self.rng.below(3) as u8;
                if let Some(client) = self.world.client(key) {
                    client.publisher.activate_layers(layers);
                }
            }
            9 => self.change_mode(key),
            _ => {
                self.join()?;
                for key in self.keys() {
                    self.show(key)?;
                }
            }
        }
        Ok(())
    }

    /// A publisher's encoder goes on in another mode that its codec has.
    fn change_mode(&mut self, key: u32) {
        let Some(client) = self.world.client(key) else {
            return;
        };
        let format = client.publisher.picture().format;
        let mut modes: Vec<Mode> = Format::SIMULCAST
            .iter()
            .chain(&Format::LAYERED)
            .filter(|other| (other.codec, other.described) == (format.codec, format.described))
            .map(|other| other.mode)
            .collect();
        modes.sort();
        modes.dedup();
        let mode = modes[self.rng.below(modes.len() as u64) as usize];
        if let Some(client) = self.world.client(key) {
            client.publisher.change_mode(mode);
        }
    }

    fn limit(&mut self, key: u32, slot: u16, limit: LayerLimit) -> Result<(), String> {
        let slot = SlotId(AUDIO_SLOTS + slot);
        self.world
            .engine
            .limit_slot(self.world.now, PeerKey(key), slot, limit)
            .map_err(|error| error.to_string())
    }
}
