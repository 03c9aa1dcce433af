//! Scenarios: who joins which rooms when, what they send and receive, over what network, and by
//! which targets the run is judged. TOML; the built-in ones are embedded.

use crate::model::{Codec, OpusParams, VideoParams};
use crate::peer::SenderParams;
use crate::result::Limits;
use crate::slo::{Slo, SloError};
use sealcast_netsim::LinkConfig;
use serde::{Deserialize, Serialize};
use std::time::Duration;

mod check;

pub use check::MAX_CLIENTS;

/// A scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// One sentence for reports.
    pub about: String,
    /// Rooms at the same time.
    #[serde(default = "one")]
    pub rooms: u64,
    /// Joins begun per second, evenly spaced, whatever the relay makes of them.
    pub joins_per_second: f64,
    /// Seconds after the last join is due before measuring begins.
    #[serde(default = "default_warm_up")]
    pub warm_up: f64,
    /// Seconds that are measured.
    pub duration: f64,
    /// Length of a window, seconds.
    #[serde(default = "one_second")]
    pub window: f64,
    /// Who is in a room.
    pub roles: Vec<Role>,
    /// Without these the scenario would say nothing: it is reported as not supported, and not run.
    #[serde(default)]
    pub needs: Vec<Lane>,
    /// Without these it runs, and what it leaves out is reported as not supported.
    #[serde(default)]
    pub wants: Vec<Lane>,
    /// The network between generator and relay.
    #[serde(default)]
    pub impairment: Impairment,
    /// Clients that leave and come back.
    #[serde(default)]
    pub churn: Option<Churn>,
    /// Load that rises until a target breaks.
    #[serde(default)]
    pub ramp: Option<Ramp>,
    /// Where the keys of frames come from.
    #[serde(default)]
    pub keys: KeySource,
    /// Targets.
    #[serde(default)]
    pub slo: Vec<String>,
    /// How far the generator may lag.
    #[serde(default)]
    pub limits: Limits,
}

fn one() -> u64 {
    1
}
fn one_second() -> f64 {
    1.0
}
fn default_warm_up() -> f64 {
    3.0
}

/// A kind of client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// How many of them are in each room.
    pub count: u64,
    /// Audio it sends.
    #[serde(default)]
    pub audio: Option<Audio>,
    /// Video it sends.
    #[serde(default)]
    pub video: Option<Video>,
    /// Audio tracks that it receives at most.
    #[serde(default)]
    pub audio_slots: u32,
    /// Video tracks that it receives at most.
    #[serde(default)]
    pub video_slots: u32,
    /// Pointer positions that it sends to the others of its room.
    #[serde(default)]
    pub pointer: Option<Pointer>,
    /// Pixels at which its video slots are shown, slot by slot, the last for all further ones; none:
    /// as large as there is.
    #[serde(default)]
    pub sizes: Vec<(u16, u16)>,
}

/// Where the keys of frames come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The room's group, if the relay has them; a join link otherwise.
    #[default]
    Relay,
    /// The room's group (MLS): at most 128 clients in a room.
    Group,
    /// A join link: one key for the room, that does not change.
    Link,
}

/// Pointer positions of a role: sealed messages over the data channel, of which the relay takes 20 a
/// second (PROTOCOL.md §8).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    /// Positions per second.
    pub rate: f64,
    /// Positions in one message, which waits for the last of them.
    pub batch: u32,
}

/// Audio of a role.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audio {
    /// Bits per second while speaking.
    pub bitrate: u32,
    /// Share of the time that somebody speaks.
    pub speaking: f64,
    /// Pauses in silence.
    #[serde(default)]
    pub dtx: bool,
}

/// Video of a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// `camera`, `screen` or `imaging`.
    #[serde(default = "camera")]
    pub source: String,
    /// `vp8`, `vp9`, `av1` or `h264`.
    #[serde(default)]
    pub codec: Codec,
    /// Width, pixels.
    pub width: u16,
    /// Height, pixels.
    pub height: u16,
    /// Frames per second.
    pub fps: u32,
    /// Bits per second.
    pub bitrate: u32,
    /// A key frame's size as a multiple of the mean frame.
    pub key_factor: f64,
    /// Seconds between key frames; none: the first, and on request.
    #[serde(default)]
    pub key_interval: Option<f64>,
    /// Smaller encodings sent beside this one (simulcast).
    #[serde(default)]
    pub simulcast: Vec<Encoding>,
}

fn camera() -> String {
    "camera".to_owned()
}

/// A smaller encoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    /// Width, pixels.
    pub width: u16,
    /// Height, pixels.
    pub height: u16,
    /// Bits per second.
    pub bitrate: u32,
}

/// What a relay may offer beside media tracks. Names are those of `lanes` in `/v1/config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Small messages between participants, latest first.
    Messages,
    /// Large objects, reliably.
    Objects,
    /// Group keys and rekeying.
    Groups,
}

impl Lane {
    /// Its name in `/v1/config`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Lane::Messages => "messages",
            Lane::Objects => "objects",
            Lane::Groups => "groups",
        }
    }
}

/// The network, per direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Impairment {
    /// From client to relay.
    pub up: LinkConfig,
    /// From relay to client.
    pub down: LinkConfig,
}

impl Impairment {
    /// It does something.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Impairment::default()
    }
}

/// Clients that leave and come back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Share of the clients that reconnect in one wave, 0..=1.
    pub share: f64,
    /// Seconds over which a wave is spread.
    pub within: f64,
    /// Seconds between the starts of two waves.
    pub every: f64,
    /// Slot changes per second and receiving client.
    #[serde(default)]
    pub slot_changes: f64,
}

/// Load that rises until a target breaks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Rooms at first.
    pub start: u64,
    /// Rooms added with each step.
    pub step: u64,
    /// Rooms at most.
    pub max: u64,
    /// Seconds that each step is held and judged, after warm-up.
    pub hold: f64,
    /// Rooms that must be carried for the run to pass; by default those of the first step.
    #[serde(default)]
    pub require: Option<u64>,
}

/// What is wrong with a scenario. Its author is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, or a key that is unknown, missing or of the wrong type.
    #[error("scenario: {0}")]
    Toml(String),
    /// A value out of range.
    #[error("scenario: {0} must be {1}")]
    Range(&'static str, &'static str),
    /// A target.
    #[error("scenario: {0}")]
    Slo(#[from] SloError),
    /// No built-in scenario of the name, and no such file.
    #[error("no built-in scenario and no file is called {0:?}; built in are {1}")]
    Unknown(String, String),
}

macro_rules! built_in {
    ($($name:literal),*) => {
        /// Names and TOML of the built-in scenarios.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*];
    };
}
built_in!(
    "consult",
    "ultrasound",
    "endoscopy",
    "dermatoscopy",
    "slide",
    "pointer",
    "webinar",
    "churn",
    "ramp",
    "soak",
    "idle"
);

impl Scenario {
    /// The built-in scenario of this name, or the one in this file.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn load(name_or_path: &str) -> Result<Scenario, ScenarioError> {
        if let Some((_, toml)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Scenario::parse(toml);
        }
        let toml = std::fs::read_to_string(name_or_path).map_err(|_| {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            ScenarioError::Unknown(name_or_path.to_owned(), names.join(", "))
        })?;
        Scenario::parse(&toml)
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn parse(toml: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario =
            toml::from_str(toml).map_err(|e| ScenarioError::Toml(e.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Its targets.
    ///
    /// # Errors
    /// [`ScenarioError::Slo`] for the first that does not read.
    pub fn targets(&self) -> Result<Vec<Slo>, ScenarioError> {
        Ok(self
            .slo
            .iter()
            .map(|s| s.parse())
            .collect::<Result<_, _>>()?)
    }

    /// Anybody sends anything.
    #[must_use]
    pub fn sends(&self) -> bool {
        let sends = |r: &Role| r.audio.is_some() || r.video.is_some();
        self.roles.iter().any(sends)
    }

    /// Clients in a room.
    #[must_use]
    pub fn clients_per_room(&self) -> u64 {
        self.roles
            .iter()
            .map(|r| r.count)
            .fold(0, u64::saturating_add)
    }

    /// Clients at the most.
    #[must_use]
    pub fn clients(&self) -> u64 {
        let rooms = self.ramp.map_or(self.rooms, |r| r.max);
        rooms.saturating_mul(self.clients_per_room())
    }
}

impl Audio {
    /// The model encoder's parameters.
    #[must_use]
    pub fn params(&self) -> OpusParams {
        OpusParams {
            bitrate: self.bitrate,
            speaking: self.speaking,
            dtx: self.dtx,
        }
    }
}

impl Video {
    /// The model encoder's parameters.
    #[must_use]
    pub fn params(&self) -> VideoParams {
        VideoParams {
            codec: self.codec,
            width: self.width,
            height: self.height,
            fps: self.fps,
            bitrate: self.bitrate,
            key_factor: self.key_factor,
            key_interval: self.key_interval.map(Duration::from_secs_f64),
        }
    }

    /// The sender's parameters: all encodings, smallest first.
    #[must_use]
    pub fn sender(&self) -> SenderParams {
        let full = self.params();
        if self.simulcast.is_empty() {
            return SenderParams::Video(full);
        }
        let smaller = self.simulcast.iter().map(|e| VideoParams {
            width: e.width,
            height: e.height,
            bitrate: e.bitrate,
            ..full
        });
        let mut all: Vec<VideoParams> = smaller.chain([full]).collect();
        all.sort_by_key(|p| p.bitrate);
        SenderParams::Simulcast(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_reads_and_says_its_name() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(scenario.name, *name);
            assert!(!scenario.slo.is_empty(), "{name} has no targets");
            let again = toml::to_string(&scenario).unwrap();
            assert_eq!(Scenario::parse(&again).unwrap(), scenario);
        }
    }

    #[test]
    fn authors_are_told_what_is_wrong() {
        let consult = BUILT_IN[0].1;
        for (from, to, says) in [
            ("duration = 30", "duration = 0", "duration must be"),
            ("duration = 30", "length = 30", "unknown field"),
            ("count = 6", "count = 30000", "20000 clients"),
            ("fps = 30", "fps = 0", "video.fps"),
            ("misrouted = 0", "misroute = 0", "no figure is called"),
        ] {
            let broken = consult.replacen(from, to, 1);
            assert_ne!(broken, consult, "{from}");
            let error = Scenario::parse(&broken).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let lossy =
            format!("{consult}\n[impairment.up.loss]\nmodel = \"uniform\"\nprobability = 2.0\n");
        assert!(Scenario::parse(&lossy).is_err());
        assert!(matches!(
            Scenario::load("no-such"),
            Err(ScenarioError::Unknown(..))
        ));
    }

    #[test]
    fn endoscopy_bursts_five_hundred_packets() {
        let endoscopy = Scenario::load("endoscopy").unwrap();
        let video = endoscopy
            .roles
            .iter()
            .find_map(|r| r.video.as_ref())
            .unwrap();
        let frame = f64::from(video.bitrate) / 8.0 / f64::from(video.fps);
        let packets = frame * video.key_factor / 1_100.0;
        assert!((490.0..=560.0).contains(&packets), "{packets}");
    }
}
