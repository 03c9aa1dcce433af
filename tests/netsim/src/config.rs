//! What a path does to packets.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Impairments of one direction. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// How packets are lost.
    pub loss: Loss,
    /// Delay of every packet.
    #[serde(with = "millis")]
    pub delay: Duration,
    /// Further delay, uniform between zero and this, keeping the order.
    #[serde(with = "millis")]
    pub jitter: Duration,
    /// Share of packets, 0..=1, that skip the delay and overtake others.
    pub reorder: f64,
    /// Share of packets, 0..=1, that arrive twice.
    pub duplicate: f64,
    /// Rate cap with its queue; none by default.
    pub rate: Option<Rate>,
}

/// A loss model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "lowercase", deny_unknown_fields)]
pub enum Loss {
    /// Nothing is lost.
    #[default]
    None,
    /// Each packet alone.
    Uniform {
        /// Share lost, 0..=1.
        probability: f64,
    },
    /// Gilbert–Elliott: a good and a bad state, tossed per packet.
    Burst {
        /// Probability of turning bad.
        enter: f64,
        /// Probability of turning good.
        leave: f64,
        /// Loss in the bad state.
        inside: f64,
        /// Loss in the good state.
        outside: f64,
    },
}

/// A rate cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bits a second, at least 1.
    pub bits_per_second: u64,
    /// Bytes that may wait; further packets are dropped.
    pub queue_bytes: u64,
}

/// A share outside 0..=1 or a rate of zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub &'static str);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is out of range", self.0)
    }
}
impl std::error::Error for ConfigError {}

impl LinkConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let share = |name, p: f64| {
            if (0.0..=1.0).contains(&p) {
                Ok(())
            } else {
                Err(ConfigError(name))
            }
        };
        share("reorder", self.reorder)?;
        share("duplicate", self.duplicate)?;
        match self.loss {
            Loss::None => {}
            Loss::Uniform { probability } => share("loss.probability", probability)?,
            Loss::Burst {
                enter,
                leave,
                inside,
                outside,
            } => {
                share("loss.enter", enter)?;
                share("loss.leave", leave)?;
                share("loss.inside", inside)?;
                share("loss.outside", outside)?;
            }
        }
        match self.rate {
            Some(Rate {
                bits_per_second: 0, ..
            }) => Err(ConfigError("rate.bits_per_second")),
            _ => Ok(()),
        }
    }
}

/// Durations as milliseconds, which may be fractions.
mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(d.as_secs_f64() * 1_000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let ms = f64::deserialize(d)?;
        Duration::try_from_secs_f64(ms / 1_000.0).map_err(serde::de::Error::custom)
    }
}
