//! NTP timestamps as RTCP carries them (RFC 3550, section 4).

/// Seconds from 1900-01-01 to 1970-01-01.
const UNIX_EPOCH_IN_NTP: u64 = 2_208_988_800;

/// A 64-bit NTP timestamp: 32 bits of seconds since 1900 and 32 bits of fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From microseconds since the Unix epoch. Wraps in 2036 as the wire format does.
    #[must_use]
    pub const fn from_unix_micros(micros: u64) -> Self {
        let seconds = (micros / 1_000_000).wrapping_add(UNIX_EPOCH_IN_NTP);
        // Rounded up, so that `to_unix_micros` gives the same microsecond back.
        let fraction = ((micros % 1_000_000) << 32).div_ceil(1_000_000);
        Self((seconds << 32).wrapping_add(fraction))
    }

    /// Microseconds since the Unix epoch, rounded down; `None` before 1970 in NTP era 0.
    #[must_use]
    pub const fn to_unix_micros(self) -> Option<u64> {
        let Some(seconds) = (self.0 >> 32).checked_sub(UNIX_EPOCH_IN_NTP) else {
            return None;
        };
        Some(seconds * 1_000_000 + (((self.0 & 0xffff_ffff) * 1_000_000) >> 32))
    }

    /// "The middle 32 bits out of 64 in the NTP timestamp" (RFC 3550, section 6.4.1, LSR), in units of 1/65,536 s.
    #[must_use]
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// Microseconds from `earlier` to `self` along the 64-bit circle; negative if `self` is earlier.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        let ticks = self.0.wrapping_sub(earlier.0) as i64;
        ((ticks as i128 * 1_000_000) >> 32) as i64
    }

    /// This time moved by `micros`, forward or back.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(
            self.0
                .wrapping_add((((micros as i128) << 32) / 1_000_000) as u64),
        )
    }
}

/// A span in units of 1/65,536 s (DLSR, and the difference of two [`NtpTime::middle`]) as microseconds.
#[must_use]
pub const fn micros_from_short(short: u32) -> u64 {
    (short as u64 * 1_000_000) >> 16
}

/// Microseconds as a span in units of 1/65,536 s, saturating at about 18 hours.
#[must_use]
pub const fn short_from_micros(micros: u64) -> u32 {
    let short = (micros as u128 * 65_536) / 1_000_000;
    if short > u32::MAX as u128 {
        u32::MAX
    } else {
        short as u32
    }
}

/// Round-trip time in microseconds from a report block, or `None` if the block carries none or is not plausible.
///
/// RFC 3550, section 6.4.1: "A - LSR - DLSR", with A the middle 32 bits of the arrival time of the report.
#[must_use]
pub const fn round_trip_micros(
    arrival: NtpTime,
    last_sr: u32,
    delay_since_last_sr: u32,
) -> Option<u64> {
    if last_sr == 0 {
        return None;
    }
    let rtt = arrival
        .middle()
        .wrapping_sub(last_sr)
        .wrapping_sub(delay_since_last_sr);
    // Clock resolution can make the difference slightly negative; anything above half the circle is that or a lie.
    if rtt >= 0x8000_0000 {
        return if rtt > 0xffff_ff00 { Some(0) } else { None };
    }
    Some(micros_from_short(rtt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_3550_figure_2() {
        // A = b710:8000, DLSR = 0005:4000, LSR = b705:2000, delay = 6.125 s.
        let arrival = NtpTime(0xb710_8000 << 16);
        assert_eq!(
            round_trip_micros(arrival, 0xb705_2000, 0x0005_4000),
            Some(6_125_000)
        );
    }

    #[test]
    fn an_implausible_report_gives_no_round_trip() {
        let arrival = NtpTime(100 << 32);
        assert_eq!(round_trip_micros(arrival, 0, 0), None);
        assert_eq!(
            round_trip_micros(arrival, NtpTime(200 << 32).middle(), 0),
            None
        );
        assert_eq!(round_trip_micros(arrival, arrival.middle(), 3), Some(0));
    }

    proptest! {
        #[test]
        fn unix_time_comes_back(micros in 0u64..2_085_978_496_000_000) {
            prop_assert_eq!(NtpTime::from_unix_micros(micros).to_unix_micros(), Some(micros));
        }

        #[test]
        fn moving_and_measuring_agree(start: u64, micros in -1_000_000_000_000i64..1_000_000_000_000) {
            let start = NtpTime(start);
            let measured = start.plus_micros(micros).micros_since(start);
            prop_assert!((measured - micros).abs() <= 1);
        }

        #[test]
        fn short_spans_come_back(micros in 0u64..65_000_000_000) {
            let back = micros_from_short(short_from_micros(micros));
            prop_assert!(micros - back <= 31);
        }
    }
}
