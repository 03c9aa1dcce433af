//! As much of the RTP and RTCP headers as protection needs (RFC 3550 §5.1, §6.4.1).

/// The part of an RTP header that decides what is encrypted and under which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RtpHeader {
    /// Bytes of fixed header, CSRCs and extension: what stays clear.
    pub(crate) len: usize,
    pub(crate) seq: u16,
    pub(crate) ssrc: u32,
}

/// Bytes of the fixed RTP header.
pub(crate) const RTP_FIXED_HEADER: usize = 12;
/// Bytes of an SRTCP packet that stay clear: the first RTCP header and the sender's SSRC.
pub(crate) const RTCP_CLEAR_HEADER: usize = 8;

/// True if the first byte says version 2.
fn is_version_2(packet: &[u8]) -> bool {
    packet.first().is_some_and(|b| b >> 6 == 2)
}

/// Reads an RTP header. `None` if it is not version 2 or runs past the end of `packet`.
#[inline]
pub(crate) fn parse_rtp(packet: &[u8]) -> Option<RtpHeader> {
    let fixed: &[u8; RTP_FIXED_HEADER] = packet.first_chunk()?;
    if !is_version_2(packet) {
        return None;
    }
    let [flags, _, s0, s1, _, _, _, _, c0, c1, c2, c3] = *fixed;
    let mut len = RTP_FIXED_HEADER + 4 * usize::from(flags & 0x0f);
    if flags & 0x10 != 0 {
        // RFC 3550 §5.3.1: 16 bits of profile, then the number of 32-bit words that follow.
        let [_, _, w0, w1] = *packet.get(len..)?.first_chunk()?;
        len += 4 + 4 * usize::from(u16::from_be_bytes([w0, w1]));
    }
    if len > packet.len() {
        return None;
    }
    Some(RtpHeader {
        len,
        seq: u16::from_be_bytes([s0, s1]),
        ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// The SSRC of an RTCP packet's first header. `None` if it is too short or not version 2.
pub(crate) fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let [_, _, _, _, s0, s1, s2, s3] = *packet.first_chunk::<RTCP_CLEAR_HEADER>()?;
    is_version_2(packet).then_some(u32::from_be_bytes([s0, s1, s2, s3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_csrcs_and_extension() {
        let mut packet = vec![0x80 | 0x10 | 2, 96, 0x12, 0x34, 0, 0, 0, 0, 1, 2, 3, 4];
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        let header = RtpHeader {
            len: 28,
            seq: 0x1234,
            ssrc: 0x0102_0304,
        };
        assert_eq!(parse_rtp(&packet), Some(header));
        for len in 0..packet.len() {
            assert_eq!(parse_rtp(&packet[..len]), None, "{len} bytes");
        }
        packet[0] = 0x40 | 0x10 | 2;
        assert_eq!(parse_rtp(&packet), None, "version 1");
    }

    proptest! {
        #[test]
        fn never_claims_more_than_there_is(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(header) = parse_rtp(&packet) {
                prop_assert!((RTP_FIXED_HEADER..=packet.len()).contains(&header.len));
            }
            if rtcp_ssrc(&packet).is_some() {
                prop_assert!(packet.len() >= RTCP_CLEAR_HEADER);
            }
        }
    }
}
