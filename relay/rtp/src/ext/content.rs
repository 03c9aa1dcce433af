//! What the elements hold: fixed-size values with `parse` from an element's data and `to_bytes` for writing.

use crate::bytes::{be16, be24, be64};

/// Longest MID, RID or RRID accepted, in bytes.
///
/// RFC 8852 sets no limit; libwebrtc refuses more than 16, and longer ones would be a cost on every packet.
pub const MAX_ID_TOKEN_LEN: usize = 16;

/// Reads a MID, RID or RRID: 1–16 characters of the `token` alphabet.
///
/// RFC 8852, section 3: a RID is alphanumeric; RFC 5888's `identification-tag` is a `token` of RFC 8866, and browsers
/// generate MIDs from that wider alphabet, so the wider one is accepted for all three.
#[inline]
#[must_use]
pub fn parse_id_token(data: &[u8]) -> Option<&str> {
    if data.is_empty() || data.len() > MAX_ID_TOKEN_LEN || !data.iter().copied().all(is_token_char)
    {
        return None;
    }
    std::str::from_utf8(data).ok()
}

/// `token-char` of RFC 8866, section 9.
const fn is_token_char(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x27 | 0x2a..=0x2b | 0x2d..=0x2e | 0x30..=0x39 | 0x41..=0x5a | 0x5e..=0x7e)
}

/// Client-to-mixer audio level (RFC 6464).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioLevel {
    /// Whether the sender's encoder believes that this is speech.
    pub voice_activity: bool,
    /// Level below overload in dB, 0 (loudest) to 127 (digital silence).
    pub minus_dbov: u8,
}

impl AudioLevel {
    /// Reads an element's data. Accepts trailing bytes, as RFC 6464's two-byte form has.
    #[inline]
    #[must_use]
    pub const fn parse(data: &[u8]) -> Option<Self> {
        match data {
            &[byte, ..] => Some(Self {
                voice_activity: byte & 0x80 != 0,
                minus_dbov: byte & 0x7f,
            }),
            [] => None,
        }
    }

    /// The element's data. Levels over 127 are written as 127.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 1] {
        let level = if self.minus_dbov > 127 {
            127
        } else {
            self.minus_dbov
        };
        [((self.voice_activity as u8) << 7) | level]
    }
}

/// Absolute send time: seconds as 6.18 fixed point, wrapping every 64 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbsSendTime(
    /// Time in units of 2^-18 s, 0..2^24.
    pub u32,
);

impl AbsSendTime {
    /// Reads an element's data.
    #[inline]
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        if data.len() == 3 {
            be24(data, 0).map(Self)
        } else {
            None
        }
    }

    /// From microseconds on any clock, rounded to the nearest 3.8 µs.
    #[inline]
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        let wrapped = micros % 64_000_000;
        Self(((((wrapped << 18) + 500_000) / 1_000_000) & 0x00ff_ffff) as u32)
    }

    /// The element's data.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Signed microseconds from `earlier` to `self` along the 64 s circle.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        // Shifting the 24-bit difference to the top of an i32 sign-extends it.
        let ticks = ((self.0.wrapping_sub(earlier.0) << 8) as i32) >> 8;
        (ticks as i64 * 1_000_000) >> 18
    }
}

/// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportCc(
    /// The sequence number, shared by all packets of a transport.
    pub u16,
);

impl TransportCc {
    /// Reads an element's data.
    #[inline]
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        be16(data, 0).map(Self)
    }

    /// The element's data.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

/// Transport-wide sequence number with an optional request for feedback (transport-wide-cc-02).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportCc02 {
    /// The sequence number, shared by all packets of a transport.
    pub sequence_number: u16,
    /// If set: feedback is to be sent at once, on this many packets (0–32,767), with arrival times if the flag is set.
    pub feedback_request: Option<(u16, bool)>,
}

impl TransportCc02 {
    /// Reads an element's data.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let sequence_number = be16(data, 0)?;
        let feedback_request = match be16(data, 2) {
            Some(request) if request & 0x7fff != 0 => {
                Some((request & 0x7fff, request & 0x8000 != 0))
            }
            _ => None,
        };
        Some(Self {
            sequence_number,
            feedback_request,
        })
    }
}

/// Video orientation (3GPP TS 26.114, section 7.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VideoOrientation {
    /// From the back-facing camera.
    pub back_camera: bool,
    /// Flipped horizontally.
    pub flip: bool,
    /// Clockwise quarter turns to apply for display, 0–3.
    pub quarter_turns: u8,
}

impl VideoOrientation {
    /// Reads an element's data.
    #[must_use]
    pub const fn parse(data: &[u8]) -> Option<Self> {
        match data {
            &[byte] => Some(Self {
                back_camera: byte & 8 != 0,
                flip: byte & 4 != 0,
                quarter_turns: byte & 3,
            }),
            _ => None,
        }
    }

    /// The element's data.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 1] {
        [((self.back_camera as u8) << 3) | ((self.flip as u8) << 2) | (self.quarter_turns & 3)]
    }
}

/// Playout delay limits in units of 10 ms, each 0..=4,095.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlayoutDelay {
    /// Least delay in units of 10 ms.
    pub min: u16,
    /// Greatest delay in units of 10 ms.
    pub max: u16,
}

impl PlayoutDelay {
    /// Reads an element's data; `None` if the limits are in the wrong order.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let value = if data.len() == 3 {
            be24(data, 0)?
        } else {
            return None;
        };
        let (min, max) = ((value >> 12) as u16, (value & 0xfff) as u16);
        (min <= max).then_some(Self { min, max })
    }

    /// The element's data. Values over 4,095 are written as 4,095.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let value = (u32::from(self.min.min(0xfff)) << 12) | u32::from(self.max.min(0xfff));
        let [_, a, b, c] = value.to_be_bytes();
        [a, b, c]
    }
}

/// Absolute capture time: the capturer's NTP time of a frame, and optionally its offset to the sender's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbsCaptureTime {
    /// Capture time, NTP 32.32.
    pub capture: crate::NtpTime,
    /// Estimated offset of the capturer's clock to the sender's, in units of 2^-32 s.
    pub clock_offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Reads an element's data: 8 bytes, or 16 with the offset.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let clock_offset = match data.len() {
            8 => None,
            16 => Some(be64(data, 8)? as i64),
            _ => return None,
        };
        Some(Self {
            capture: crate::NtpTime(be64(data, 0)?),
            clock_offset,
        })
    }

    /// Writes the element's data into `out` and returns its length, 8 or 16; `None` if `out` is too short.
    #[must_use]
    pub fn write(self, out: &mut [u8]) -> Option<usize> {
        *out.first_chunk_mut()? = self.capture.0.to_be_bytes();
        let Some(offset) = self.clock_offset else {
            return Some(8);
        };
        *out.get_mut(8..)?.first_chunk_mut()? = offset.to_be_bytes();
        Some(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NtpTime;
    use proptest::prelude::*;

    #[test]
    fn id_tokens() {
        assert_eq!(parse_id_token(b"hi"), Some("hi"));
        assert_eq!(
            parse_id_token(b"0123456789abcdef"),
            Some("0123456789abcdef")
        );
        for bad in [
            &b""[..],
            b"0123456789abcdefg",
            b"a b",
            b"a\0",
            b"\xff",
            b"a/b",
            b"a:b",
        ] {
            assert_eq!(parse_id_token(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn send_time_wraps_and_measures() {
        let before = AbsSendTime::from_micros(63_999_000);
        let after = AbsSendTime::from_micros(64_001_000);
        assert!((after.micros_since(before) - 2_000).abs() <= 4);
        assert!((before.micros_since(after) + 2_000).abs() <= 4);
        assert_eq!(AbsSendTime::from_micros(1_000_000), AbsSendTime(1 << 18));
        assert_eq!(AbsSendTime::parse(&[1, 2]), None);
    }

    #[test]
    fn playout_delay_limits_are_ordered() {
        assert_eq!(PlayoutDelay::parse(&[0, 0x10, 0]), None);
        assert_eq!(
            PlayoutDelay::parse(&[0, 0x10, 2]),
            Some(PlayoutDelay { min: 1, max: 2 })
        );
    }

    #[test]
    fn feedback_request_of_twcc_02() {
        let none = TransportCc02 {
            sequence_number: 0x0102,
            feedback_request: None,
        };
        assert_eq!(TransportCc02::parse(&[1, 2]), Some(none));
        assert_eq!(TransportCc02::parse(&[1, 2, 0, 0]), Some(none));
        let some = TransportCc02 {
            sequence_number: 0x0102,
            feedback_request: Some((5, true)),
        };
        assert_eq!(TransportCc02::parse(&[1, 2, 0x80, 5]), Some(some));
    }

    proptest! {
        #[test]
        fn values_come_back(
            voice: bool, level in 0u8..128, ticks in 0u32..1 << 24, seq: u16, turns in 0u8..4,
            min in 0u16..4096, spread in 0u16..4096, capture: u64, clock_offset: Option<i64>,
        ) {
            let level = AudioLevel { voice_activity: voice, minus_dbov: level };
            prop_assert_eq!(AudioLevel::parse(&level.to_bytes()), Some(level));
            prop_assert_eq!(AbsSendTime::parse(&AbsSendTime(ticks).to_bytes()), Some(AbsSendTime(ticks)));
            prop_assert_eq!(TransportCc::parse(&TransportCc(seq).to_bytes()), Some(TransportCc(seq)));
            let turn = VideoOrientation { back_camera: voice, flip: seq % 2 == 1, quarter_turns: turns };
            prop_assert_eq!(VideoOrientation::parse(&turn.to_bytes()), Some(turn));
            let delay = PlayoutDelay { min, max: min.saturating_add(spread).min(4095) };
            prop_assert_eq!(PlayoutDelay::parse(&delay.to_bytes()), Some(delay));
            let time = AbsCaptureTime { capture: NtpTime(capture), clock_offset };
            let mut out = [0; 16];
            let len = time.write(&mut out).expect("room");
            prop_assert_eq!(AbsCaptureTime::parse(&out[..len]), Some(time));
        }

        #[test]
        fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = (parse_id_token(&data), AudioLevel::parse(&data), AbsSendTime::parse(&data));
            let _ = (TransportCc::parse(&data), TransportCc02::parse(&data), VideoOrientation::parse(&data));
            let _ = (PlayoutDelay::parse(&data), AbsCaptureTime::parse(&data));
        }
    }
}
