//! The ranges of a scenario's values.

use super::{Audio, Churn, KeySource, Pointer, Ramp, Role, Scenario, ScenarioError, Video};
use sealcast_netsim::{ConfigError, LinkConfig};

/// Clients of one plan at most: what file descriptors and memory of one machine carry.
pub const MAX_CLIENTS: u64 = 20_000;
/// Streams that a client sends or receives, of each kind, at most (the relay's own limit).
const MAX_STREAMS: u32 = 128;
/// Encodings beside the largest, at most: browsers send three in all.
const MAX_SMALLER: usize = 2;
/// Sealed messages of one client per second, at most: the relay's own limit.
const MAX_MESSAGE_RATE: f64 = 20.0;
/// Rate of joins at most: the schedule's resolution.
const MAX_JOIN_RATE: f64 = 10_000.0;

/// That `what` is in its range, or else what it must be.
fn range(ok: bool, what: &'static str, must: &'static str) -> Result<(), ScenarioError> {
    match ok {
        true => Ok(()),
        false => Err(ScenarioError::Range(what, must)),
    }
}

fn within(value: f64, low: f64, high: f64) -> bool {
    (low..=high).contains(&value)
}

impl Scenario {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first value that is out of range.
    pub fn check(&self) -> Result<(), ScenarioError> {
        range(self.rooms >= 1, "rooms", "at least 1")?;
        range(
            within(self.joins_per_second, 0.001, MAX_JOIN_RATE),
            "joins_per_second",
            "0.001 to 10000",
        )?;
        self.check_times()?;
        range(!self.roles.is_empty(), "roles", "one or more")?;
        for role in &self.roles {
            role.check()?;
            range(
                role.pointer.is_none() || self.keys == KeySource::Group,
                "keys",
                "\"group\" where a role has a pointer",
            )?;
        }
        range(
            (1..=MAX_CLIENTS).contains(&self.clients()),
            "rooms times counts",
            "1 to 20000 clients",
        )?;
        self.check_links()?;
        if let Some(churn) = &self.churn {
            churn.check()?;
        }
        if let Some(ramp) = &self.ramp {
            ramp.check(self.window)?;
            range(!self.slo.is_empty(), "slo", "set, for a ramp to end at")?;
        }
        self.targets().map(|_| ())
    }

    fn check_times(&self) -> Result<(), ScenarioError> {
        range(
            within(self.warm_up, 0.0, 3_600.0),
            "warm_up",
            "0 to 3600 seconds",
        )?;
        range(
            within(self.duration, 1.0, 2_592_000.0),
            "duration",
            "1 second to 30 days",
        )?;
        range(
            within(self.window, 0.1, 600.0),
            "window",
            "0.1 to 600 seconds",
        )?;
        range(
            self.window <= self.duration,
            "window",
            "at most the duration",
        )
    }

    fn check_links(&self) -> Result<(), ScenarioError> {
        let links = [self.impairment.up, self.impairment.down];
        links
            .iter()
            .try_for_each(LinkConfig::check)
            .map_err(|ConfigError(what)| ScenarioError::Range(what, "in its range"))
    }
}

impl Churn {
    fn check(&self) -> Result<(), ScenarioError> {
        range(within(self.share, 0.0, 1.0), "churn.share", "0 to 1")?;
        range(
            within(self.within, 0.1, 3_600.0),
            "churn.within",
            "0.1 to 3600 seconds",
        )?;
        range(
            self.every >= self.within,
            "churn.every",
            "at least churn.within",
        )?;
        range(
            within(self.slot_changes, 0.0, 10.0),
            "churn.slot_changes",
            "0 to 10",
        )
    }
}

impl Ramp {
    fn check(&self, window: f64) -> Result<(), ScenarioError> {
        range(
            self.start >= 1 && self.step >= 1,
            "ramp.start and ramp.step",
            "at least 1",
        )?;
        range(self.max >= self.start, "ramp.max", "at least ramp.start")?;
        range(
            within(self.hold, window, 3_600.0),
            "ramp.hold",
            "a window to 3600 seconds",
        )
    }
}

impl Role {
    fn check(&self) -> Result<(), ScenarioError> {
        range(self.count >= 1, "roles.count", "at least 1")?;
        range(
            self.audio_slots.max(self.video_slots) <= MAX_STREAMS,
            "roles slots",
            "at most 128",
        )?;
        self.pointer.as_ref().map_or(Ok(()), Pointer::check)?;
        self.audio.as_ref().map_or(Ok(()), Audio::check)?;
        self.video.as_ref().map_or(Ok(()), Video::check)
    }
}

impl Pointer {
    fn check(&self) -> Result<(), ScenarioError> {
        range(within(self.rate, 1.0, 1_000.0), "pointer.rate", "1 to 1000")?;
        range(
            (1..=100).contains(&self.batch)
                && self.rate / f64::from(self.batch) <= MAX_MESSAGE_RATE,
            "pointer.batch",
            "1 to 100, and enough for 20 messages a second",
        )
    }
}

impl Audio {
    fn check(&self) -> Result<(), ScenarioError> {
        range(
            (12_000..=510_000).contains(&self.bitrate),
            "audio.bitrate",
            "12000 to 510000",
        )?;
        range(within(self.speaking, 0.0, 1.0), "audio.speaking", "0 to 1")
    }
}

impl Video {
    fn check(&self) -> Result<(), ScenarioError> {
        range(
            ["camera", "screen", "imaging"].contains(&self.source.as_str()),
            "video.source",
            "camera, screen or imaging",
        )?;
        range(
            self.codec.is_video(),
            "video.codec",
            "vp8, vp9, av1 or h264",
        )?;
        range((1..=120).contains(&self.fps), "video.fps", "1 to 120")?;
        range(
            (10_000..=200_000_000).contains(&self.bitrate),
            "video.bitrate",
            "10000 to 200000000",
        )?;
        range(
            within(self.key_factor, 1.0, 200.0),
            "video.key_factor",
            "1 to 200",
        )?;
        range(
            self.simulcast.len() <= MAX_SMALLER,
            "video.simulcast",
            "at most two encodings",
        )?;
        range(
            self.simulcast
                .iter()
                .all(|e| (10_000..self.bitrate).contains(&e.bitrate)),
            "video.simulcast bitrate",
            "10000 to less than video.bitrate",
        )?;
        range(
            self.key_interval.is_none_or(|s| within(s, 0.1, 3_600.0)),
            "video.key_interval",
            "0.1 to 3600 seconds",
        )
    }
}
