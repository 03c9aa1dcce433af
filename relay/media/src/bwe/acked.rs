//! Throughput that the receiver has confirmed.

/// Length of the first window, and of the later ones, microseconds. The first is longer because
/// nothing is known before it.
const FIRST_WINDOW: i64 = 500_000;
const WINDOW: i64 = 150_000;

/// How far a sample is trusted: its uncertainty is this times its relative distance from the
/// estimate, squared. Samples below the estimate while the sender is idle say little.
const UNCERTAINTY: f64 = 10.0;
const IDLE_UNCERTAINTY: f64 = 20.0;
/// How much the estimate may have moved in one window, in (kbit/s)².
const DRIFT: f64 = 5.0;

/// An estimate of acknowledged bits per second, from windows of the receiver's time.
#[derive(Debug, Default)]
pub(super) struct AckedBitrate {
    window_start: Option<i64>,
    bytes: u64,
    /// kbit/s.
    estimate: Option<f64>,
    variance: f64,
}

impl AckedBitrate {
    /// Bits per second; `None` before the first window is full.
    pub(super) fn bitrate(&self) -> Option<u64> {
        self.estimate.map(|kbits| (kbits * 1_000.0) as u64)
    }

    /// `bytes` arrived at `arrival` (receiver's microseconds); `idle` if the sender had less to
    /// send than it might have.
    pub(super) fn on_packet(&mut self, arrival: i64, bytes: u16, idle: bool) {
        let start = *self.window_start.get_or_insert(arrival);
        let length = if self.estimate.is_none() {
            FIRST_WINDOW
        } else {
            WINDOW
        };
        let passed = arrival - start;
        if passed >= length {
            // Bytes over the whole time they took: a window that nothing ended was longer.
            let sample = self.bytes as f64 * 8_000.0 / passed as f64;
            self.add_sample(sample, idle);
            self.window_start = Some(arrival);
            self.bytes = 0;
        }
        self.bytes += u64::from(bytes);
    }

    fn add_sample(&mut self, sample: f64, idle: bool) {
        let Some(estimate) = self.estimate else {
            self.estimate = Some(sample);
            self.variance = 50.0;
            return;
        };
        let scale = if idle && sample < estimate {
            IDLE_UNCERTAINTY
        } else {
            UNCERTAINTY
        };
        let uncertainty =
            scale * (estimate - sample).abs() / (estimate + sample.min(25.0)).max(1.0);
        let sample_variance = uncertainty * uncertainty;
        let predicted = self.variance + DRIFT;
        let weight = sample_variance + predicted;
        self.estimate = Some((sample_variance * estimate + predicted * sample) / weight);
        self.variance = sample_variance * predicted / weight;
    }

    /// Starts over from a throughput measured otherwise, as by a probe.
    pub(super) fn reset_to(&mut self, bitrate: u64) {
        self.estimate = Some(bitrate as f64 / 1_000.0);
        self.variance = 50.0;
        self.window_start = None;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds packets of 1,000 bytes at `bitrate` for `millis`, from `start` microseconds on.
    fn feed(acked: &mut AckedBitrate, start: i64, millis: i64, bitrate: i64) -> i64 {
        let interval = 8_000_000_000 / bitrate;
        let end = start + millis * 1_000;
        let mut at = start;
        while at < end {
            acked.on_packet(at, 1_000, false);
            at += interval;
        }
        end
    }

    #[test]
    fn steady_throughput_is_measured_within_two_percent() {
        for bitrate in [100_000, 500_000, 3_000_000, 20_000_000] {
            let mut acked = AckedBitrate::default();
            assert_eq!(acked.bitrate(), None);
            feed(&mut acked, 0, 2_000, bitrate);
            let measured = acked.bitrate().expect("known") as i64;
            assert!(
                (measured - bitrate).abs() < bitrate / 50,
                "{measured} of {bitrate}"
            );
        }
    }

    #[test]
    fn a_step_down_shows_soon() {
        let mut acked = AckedBitrate::default();
        let end = feed(&mut acked, 0, 2_000, 3_000_000);
        let end = feed(&mut acked, end, 350, 500_000);
        feed(&mut acked, end, 2_000, 500_000);
        let measured = acked.bitrate().expect("known");
        assert!(measured < 700_000, "{measured}");
    }
}
