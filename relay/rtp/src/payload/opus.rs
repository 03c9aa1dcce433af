//! Opus packets (RFC 6716, section 3; RFC 7587): duration and discontinuous transmission.
//!
//! These read the first byte of a clear Opus packet. A sealed one shows only its length.

/// Timestamp units per second: RFC 7587, section 4.1 fixes the RTP clock to 48 kHz.
pub const CLOCK_RATE: u32 = 48_000;

/// RFC 6716, section 3.2.1, requirement R5: a packet holds "no more than 120 ms" of audio.
const MAX_PACKET_SAMPLES: u32 = CLOCK_RATE / 1000 * 120;

/// Whether a clear packet is one of discontinuous transmission: nothing but a TOC byte, or that and one more.
///
/// An encoder in DTX codes a silent frame in at most one byte beside the TOC, and sends such a packet every 400 ms
/// (RFC 6716, section 2.1.9). An empty payload is a comfort gap and counts too.
#[inline]
#[must_use]
pub const fn is_dtx(packet: &[u8]) -> bool {
    packet.len() <= 2
}

/// Duration of a clear packet in samples at 48 kHz, 120..=5,760; `None` if it is empty or breaks RFC 6716.
#[must_use]
pub fn duration_samples(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    // RFC 6716, section 3.1, table 2: durations by configuration number.
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..=15 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    let samples = frame * frames;
    (samples > 0 && samples <= MAX_PACKET_SAMPLES).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_table_2() {
        let ms = |config: u8, code: u8, count: u8| {
            duration_samples(&[config << 3 | code, count]).map(|s| f64::from(s) / 48.0)
        };
        assert_eq!(
            [0, 1, 2, 3].map(|c| ms(c, 0, 0)),
            [10.0, 20.0, 40.0, 60.0].map(Some)
        );
        assert_eq!(
            [8, 9, 10, 11].map(|c| ms(c, 0, 0)),
            [10.0, 20.0, 40.0, 60.0].map(Some)
        );
        assert_eq!(
            [12, 13, 14, 15].map(|c| ms(c, 0, 0)),
            [10.0, 20.0, 10.0, 20.0].map(Some)
        );
        assert_eq!(
            [16, 21, 26, 31].map(|c| ms(c, 0, 0)),
            [2.5, 5.0, 10.0, 20.0].map(Some)
        );
        assert_eq!(
            [0, 1, 2, 3].map(|code| ms(31, code, 6)),
            [20.0, 40.0, 40.0, 120.0].map(Some)
        );
        assert_eq!(ms(31, 3, 7), None);
        assert_eq!(ms(31, 3, 0), None);
        assert_eq!(duration_samples(&[31 << 3 | 3]), None);
        assert_eq!(duration_samples(&[]), None);
    }

    #[test]
    fn dtx_is_short() {
        assert!(is_dtx(&[]) && is_dtx(&[0x78]) && is_dtx(&[0x78, 0]) && !is_dtx(&[0x78, 0, 0]));
    }
}
