//! What the layers of an incoming stream cost: a rate for each spatial and temporal layer.
//!
//! An idle stream keeps its last rates. That is what it will cost again when it goes on, and what
//! the allocator plans with before it asks a publisher for an encoding that is switched off.

use crate::layers::FrameLayers;
use crate::limits::{METER_FIRST, METER_INTERVAL};
use sealcast_model::Time;

/// Spatial layers told apart; higher ones count as the highest of these.
pub(crate) const SPATIAL: usize = 4;
/// Temporal layers told apart.
pub(crate) const TEMPORAL: usize = 4;

/// Bytes of IP, UDP and SRTP tag around an RTP packet (IPv4, AES-GCM).
pub(crate) const WIRE_OVERHEAD: usize = 20 + 8 + 16;

/// Measures one stream.
#[derive(Debug, Default)]
pub(crate) struct LayerMeter {
    /// Bytes since `since`.
    bytes: [[u32; TEMPORAL]; SPATIAL],
    /// Bits per second, smoothed.
    rates: [[u32; TEMPORAL]; SPATIAL],
    since: Option<Time>,
    measured: bool,
}

impl LayerMeter {
    /// A packet of `len` bytes arrived.
    #[inline]
    pub(crate) fn add(&mut self, now: Time, layers: &FrameLayers, len: usize) {
        let since = *self.since.get_or_insert(now);
        let interval = if self.measured {
            METER_INTERVAL
        } else {
            METER_FIRST
        };
        if now - since >= interval {
            self.fold(now, since);
        }
        let (spatial, temporal) = layers.ids();
        let spatial = usize::from(spatial).min(SPATIAL - 1);
        let temporal = usize::from(temporal).min(TEMPORAL - 1);
        let bytes = &mut self.bytes[spatial][temporal];
        *bytes = bytes.saturating_add((len + WIRE_OVERHEAD) as u32);
    }

    fn fold(&mut self, now: Time, since: Time) {
        let elapsed = now - since;
        self.since = Some(now);
        // A pause is not a rate: what it cost before it will cost again.
        if elapsed > METER_INTERVAL * 4 {
            self.bytes = Default::default();
            return;
        }
        let micros = elapsed.as_micros().max(1) as u64;
        for (rates, bytes) in self.rates.iter_mut().zip(&mut self.bytes) {
            for (rate, bytes) in rates.iter_mut().zip(bytes) {
                let seen = u64::from(std::mem::take(bytes)) * 8_000_000 / micros;
                let seen = u32::try_from(seen).unwrap_or(u32::MAX);
                *rate = match *rate {
                    0 => seen,
                    // Alike in both directions: with every key frame a rate that rises faster would
                    // be above what is sent for seconds.
                    old if seen > old => old + (seen - old) / 4,
                    old => old - (old - seen) / 4,
                };
            }
        }
        self.measured = true;
    }

    /// Whether rates are known.
    pub(crate) fn is_measured(&self) -> bool {
        self.measured
    }

    /// Bits per second of a layer with those below it, or 0 if nothing was sent of the layer
    /// itself.
    pub(crate) fn rate(&self, spatial: usize, temporal: usize) -> u64 {
        let own = self.rates.get(spatial).and_then(|r| r.get(temporal));
        if own.is_none_or(|rate| *rate == 0) {
            return 0;
        }
        let rows = self.rates.iter().take(spatial + 1);
        rows.flat_map(|row| row.iter().take(temporal + 1))
            .map(|rate| u64::from(*rate))
            .sum()
    }

    /// As [`rate`](LayerMeter::rate), with all spatial layers: of an encoding of a simulcast.
    pub(crate) fn rate_of_encoding(&self, temporal: usize) -> u64 {
        let of = |temporal: usize| -> u64 {
            let layers = self.rates.iter().filter_map(|row| row.get(temporal));
            layers.map(|rate| u64::from(*rate)).sum()
        };
        if of(temporal) == 0 {
            return 0;
        }
        (0..=temporal).map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LayerBits;
    use std::time::Duration;

    fn bits(spatial: u8, temporal: u8) -> FrameLayers {
        FrameLayers::Bits(LayerBits {
            spatial,
            temporal,
            syncs_here: false,
            syncs_above: false,
            intra: false,
            ends_frame: true,
        })
    }

    #[test]
    fn layers_cost_what_is_sent_of_them_and_of_those_below() {
        let mut meter = LayerMeter::default();
        let mut now = Time::from_millis(5);
        for n in 0..400 {
            meter.add(now, &bits(0, (n % 2) as u8), 1_000 - WIRE_OVERHEAD);
            meter.add(now, &bits(1, (n % 2) as u8), 3_000 - WIRE_OVERHEAD);
            now += Duration::from_millis(10);
        }
        assert!(meter.is_measured());
        let near = |rate: u64, want: u64| assert!(rate.abs_diff(want) < want / 20, "{rate} {want}");
        near(meter.rate(0, 0), 400_000);
        near(meter.rate(0, 1), 800_000);
        near(meter.rate(1, 0), 1_600_000);
        near(meter.rate(1, 1), 3_200_000);
        assert_eq!(meter.rate(2, 0), 0);
        assert_eq!(meter.rate(1, 2), 0);
        near(meter.rate_of_encoding(1), 3_200_000);
        // A pause changes nothing.
        now += Duration::from_secs(30);
        meter.add(now, &bits(0, 0), 1_000);
        near(meter.rate(0, 0), 400_000);
    }
}
