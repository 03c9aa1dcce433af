//! How much the machine changes under us.
//!
//! A shared or virtual machine is faster at one moment than at the next. One fixed piece of work,
//! a floor of one shape, is measured again before every shape of the run; how far those readings
//! lie apart is how far two figures of this run may differ without meaning anything.

use crate::cpu::Meter;
use crate::floor::Floor;
use crate::shape::{Topology, Traffic};
use crate::sink::Sink;
use crate::{Contender, Result};
use sealcast_srtp::{Backend, Profile};

/// Packets of one reading: some 15 milliseconds.
const PACKETS: u64 = 10_000;

/// The reference work and its readings.
pub struct Drift {
    floor: Floor,
    user: Vec<f64>,
    system: Vec<f64>,
}

/// Least, median and greatest of the readings, nanoseconds per packet.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Spread {
    /// Least reading.
    pub min: f64,
    /// Median reading.
    pub median: f64,
    /// Greatest reading.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            min: *sorted.first()?,
            median: *sorted.get(sorted.len() / 2)?,
            max: *sorted.last()?,
        })
    }

    /// Distance of the extremes, as a share of the median.
    #[must_use]
    pub fn relative(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

impl Drift {
    /// The reference work, warmed up.
    ///
    /// # Errors
    /// If its keys or sockets cannot be had.
    pub fn new(sink: &Sink, meter: &mut Meter) -> Result<Drift> {
        let floor = Floor::new(
            Topology::TO_20,
            Profile::AeadAes128Gcm,
            Backend::AwsLcRs,
            sink,
        )?;
        let mut drift = Drift {
            floor,
            user: Vec::new(),
            system: Vec::new(),
        };
        drift.read(meter)?;
        drift.user.clear();
        drift.system.clear();
        Ok(drift)
    }

    /// Takes a reading.
    ///
    /// # Errors
    /// If the system refuses a call.
    pub fn read(&mut self, meter: &mut Meter) -> Result<()> {
        let [_, four, ..] = Traffic::ALL;
        let sample = self.floor.run(&four, PACKETS, meter)?;
        let packets = sample.packets as f64;
        self.user.push(sample.cost.user_ns / packets);
        self.system.push(sample.cost.system_ns / packets);
        Ok(())
    }

    /// The readings' spread: user and system.
    #[must_use]
    pub fn spread(&self) -> Option<(Spread, Spread)> {
        Some((Spread::of(&self.user)?, Spread::of(&self.system)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_orders_its_values() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert!((spread.relative() - 1.0).abs() < 1e-9);
        assert!(Spread::of(&[]).is_none());
    }
}
