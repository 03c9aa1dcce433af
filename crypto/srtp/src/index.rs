//! The 48-bit packet index and its estimate from a 16-bit sequence number (RFC 3711 §3.3.1).

/// The last packet index that one key may protect: 2^48 − 1 (RFC 3711 §9.2).
pub const MAX_RTP_INDEX: u64 = (1 << 48) - 1;

/// Half of the sequence number space.
const HALF: u16 = 1 << 15;

/// The index of a packet with sequence number `seq`, given the highest index seen so far.
///
/// Right whenever the packet lies within 2^15 of `highest`. `None` if the packet would lie beyond
/// [`MAX_RTP_INDEX`].
pub(crate) fn estimate(highest: u64, seq: u16) -> Option<u64> {
    let roc = highest >> 16;
    let s_l = highest as u16;
    // RFC 3711 §3.3.1: "v is chosen from the set { ROC-1, ROC, ROC+1 } (modulo 2^32) such that i is
    // closest (in modulo 2^48 sense) to the value 2^16 * ROC + s_l"; ties as in appendix A.
    let v = if s_l < HALF {
        if seq > s_l + HALF {
            // Before the first packet of the first cycle there is nothing, so the packet is ahead.
            roc.saturating_sub(1)
        } else {
            roc
        }
    } else if seq < s_l - HALF {
        roc + 1
    } else {
        roc
    };
    let index = v << 16 | u64::from(seq);
    (index <= MAX_RTP_INDEX).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 3711 appendix A, transcribed with a ROC that does not wrap.
    fn appendix_a(roc: i64, s_l: i64, seq: i64) -> i64 {
        let v = if s_l < 32_768 {
            if seq - s_l > 32_768 { roc - 1 } else { roc }
        } else if s_l - 32_768 > seq {
            roc + 1
        } else {
            roc
        };
        v * 65_536 + seq
    }

    proptest! {
        #[test]
        fn finds_every_index_within_half_a_cycle(
            highest in 0..=MAX_RTP_INDEX, offset in -32_767i64..=32_767,
        ) {
            let truth = highest as i64 + offset;
            prop_assume!((0..=MAX_RTP_INDEX as i64).contains(&truth));
            prop_assert_eq!(estimate(highest, truth as u16), Some(truth as u64));
        }

        #[test]
        fn agrees_with_appendix_a(highest in 65_536..=MAX_RTP_INDEX, seq: u16) {
            let reference =
                appendix_a((highest >> 16) as i64, i64::from(highest as u16), i64::from(seq));
            let expected = u64::try_from(reference).ok().filter(|i| *i <= MAX_RTP_INDEX);
            prop_assert_eq!(estimate(highest, seq), expected);
        }
    }

    #[test]
    fn the_first_cycle_has_nothing_before_it() {
        assert_eq!(estimate(10, 65_530), Some(65_530));
    }

    #[test]
    fn the_last_cycle_has_nothing_after_it() {
        assert_eq!(estimate(MAX_RTP_INDEX, 0), None);
        assert_eq!(estimate(MAX_RTP_INDEX, 65_535), Some(MAX_RTP_INDEX));
    }
}
