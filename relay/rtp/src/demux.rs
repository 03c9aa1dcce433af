//! What a datagram is, told from its first two bytes (RFC 7983, RFC 5761).

/// The protocol of a datagram on a WebRTC 5-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// First byte 0–3.
    Stun,
    /// First byte 20–63.
    Dtls,
    /// First byte 64–79: TURN channel data.
    TurnChannel,
    /// First byte 128–191, and not RTCP.
    Rtp,
    /// First byte 128–191 with a packet type of RTCP.
    Rtcp,
    /// First byte outside every range, or an empty datagram: to be dropped.
    Unknown,
}

/// Classifies a datagram by RFC 7983, section 7, and splits RTP from RTCP by RFC 5761, section 4.
#[inline]
#[must_use]
pub fn classify(datagram: &[u8]) -> Protocol {
    match datagram {
        [0..=3, ..] => Protocol::Stun,
        [20..=63, ..] => Protocol::Dtls,
        [64..=79, ..] => Protocol::TurnChannel,
        [128..=191, second, ..] if is_rtcp_packet_type(*second) => Protocol::Rtcp,
        [128..=191, _, ..] => Protocol::Rtp,
        _ => Protocol::Unknown,
    }
}

/// Whether the second byte of an RTP-or-RTCP packet is an RTCP packet type.
///
/// RFC 5761, section 4: "payload type values in the range 64-95 MUST NOT be used", which leaves the second bytes
/// 192–223 to RTCP.
#[inline]
#[must_use]
pub const fn is_rtcp_packet_type(second_byte: u8) -> bool {
    matches!(second_byte, 192..=223)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_the_class_of_rfc_7983() {
        for first in 0..=255u8 {
            let want = match first {
                0..=3 => Protocol::Stun,
                20..=63 => Protocol::Dtls,
                64..=79 => Protocol::TurnChannel,
                128..=191 => Protocol::Rtp,
                _ => Protocol::Unknown,
            };
            assert_eq!(classify(&[first, 96, 0, 0]), want, "first byte {first}");
        }
        assert_eq!(classify(&[]), Protocol::Unknown);
        assert_eq!(classify(&[0x80]), Protocol::Unknown);
    }

    #[test]
    fn rtcp_is_told_by_its_packet_type() {
        for packet_type in 200..=207 {
            assert_eq!(classify(&[0x80, packet_type]), Protocol::Rtcp);
        }
        // Payload types 0–63 and 96–127, with and without the marker bit.
        for payload_type in (0..64).chain(96..128) {
            assert_eq!(classify(&[0x90, payload_type]), Protocol::Rtp);
            assert_eq!(classify(&[0x90, payload_type | 0x80]), Protocol::Rtp);
        }
    }
}
