//! Reception statistics of one incoming stream, for receiver reports (RFC 3550 §6.4.1, §A.3, §A.8).

use sealcast_model::Time;

/// Counts what arrived and what should have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reception {
    /// First extended sequence number, once a packet arrived.
    base: Option<u64>,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Relative transit time of the previous packet, timestamp units.
    transit: Option<u32>,
    /// Interarrival jitter times 16, timestamp units.
    jitter_16: u32,
}

/// The loss and jitter fields of a report block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceptionReport {
    pub(crate) fraction_lost: u8,
    pub(crate) cumulative_lost: i32,
    pub(crate) highest_sequence: u32,
    pub(crate) jitter: u32,
}

impl Reception {
    /// A packet of the stream arrived for the first time.
    pub(crate) fn on_packet(
        &mut self,
        sequence: u64,
        timestamp: u32,
        received: Time,
        clock_rate: u32,
    ) {
        self.on_other(sequence);
        let arrival =
            (u128::from(received.as_nanos()) * u128::from(clock_rate) / 1_000_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit {
            let d = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // RFC 3550 §A.8: J += (1/16) * (|D| - J), in fixed point.
            self.jitter_16 = self
                .jitter_16
                .saturating_add(d)
                .saturating_sub((self.jitter_16 + 8) >> 4);
        }
        self.transit = Some(transit);
    }

    /// As [`on_packet`](Reception::on_packet), for one of another clock rate, as comfort noise has:
    /// it counts, and says nothing about jitter.
    pub(crate) fn on_other(&mut self, sequence: u64) {
        if self.base.is_none_or(|base| sequence < base) {
            self.base = Some(sequence);
        }
        self.highest = self.highest.max(sequence);
        self.received += 1;
    }

    /// Whether a packet arrived since the previous report.
    pub(crate) fn is_fresh(&self) -> bool {
        self.received > self.received_before
    }

    /// The report since the previous one.
    pub(crate) fn report(&mut self) -> Option<ReceptionReport> {
        let expected = self.highest + 1 - self.base?;
        let expected_interval = expected - self.expected_before;
        let received_interval = self.received - self.received_before;
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction = (lost_interval << 8)
            .checked_div(expected_interval)
            .unwrap_or(0);
        let lost = expected as i64 - self.received as i64;
        Some(ReceptionReport {
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            // The extender starts in its second cycle; on the wire cycles count from zero.
            highest_sequence: self.highest.saturating_sub(0x1_0000) as u32,
            jitter: self.jitter_16 >> 4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(reception: &mut Reception, sequences: impl IntoIterator<Item = u64>) {
        for s in sequences {
            reception.on_packet(s, (s * 960) as u32, Time::from_millis(s * 20), 48_000);
        }
    }

    #[test]
    fn loss_is_counted_per_interval_and_in_all() {
        let mut r = Reception::default();
        assert_eq!(r.report(), None);
        feed(&mut r, (65_536..65_636).filter(|s| s % 10 != 1));
        let report = r.report().unwrap();
        assert_eq!((report.cumulative_lost, report.fraction_lost), (10, 25));
        assert_eq!(
            report.highest_sequence, 99,
            "without the extender's first cycle"
        );
        assert!(!r.is_fresh());
        feed(&mut r, 65_636..65_646);
        let report = r.report().unwrap();
        assert_eq!((report.cumulative_lost, report.fraction_lost), (10, 0));
        // Two that were given up on arrive.
        feed(&mut r, [65_621, 65_611]);
        assert_eq!(r.report().unwrap().cumulative_lost, 8);
    }

    #[test]
    fn jitter_converges_to_the_mean_deviation() {
        let mut r = Reception::default();
        for s in 0..2_000u64 {
            let late = if s % 2 == 0 { 0 } else { 10 };
            r.on_packet(
                s,
                (s * 960) as u32,
                Time::from_millis(s * 20 + late),
                48_000,
            );
        }
        // |D| is 10 ms each time: 480 ticks.
        let jitter = r.report().unwrap().jitter;
        assert!((470..=490).contains(&jitter), "{jitter}");
        let mut steady = Reception::default();
        feed(&mut steady, 0..100);
        assert_eq!(steady.report().unwrap().jitter, 0);
    }
}
