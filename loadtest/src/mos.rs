//! Listening quality estimated by the E-model, ITU-T G.107 (06/2015).
//!
//! Only what a network changes is modelled: delay (§7.4, Idd) and loss (§7.5, Ie,eff); every other
//! parameter has its default, so without delay and loss R is 93.2. ITU-T G.113 has no values for
//! Opus; those of G.711 with packet loss concealment are taken (Ie 0, Bpl 25.1), which is why
//! reports call the result estimated. Not for comparing codecs.

use std::time::Duration;

/// R with every parameter at its default and no delay (G.107 §7.7).
const DEFAULT_R: f64 = 93.2;
/// Equipment impairment without loss.
const IE: f64 = 0.0;
/// Robustness against random loss.
const BPL: f64 = 25.1;
/// A frame of 20 ms and 6.5 ms of look-ahead (RFC 6716 §2).
const CODEC_DELAY: Duration = Duration::from_micros(26_500);

/// The mean opinion score, 1..=4.5, for a delay from sender to loudspeaker (codec left out) and a
/// share of frames, 0..=1, that were not heard.
#[must_use]
pub fn estimate(delay: Duration, loss: f64) -> f64 {
    score(rating(delay + CODEC_DELAY, loss))
}

/// R of the E-model, for mouth-to-ear delay and random loss.
fn rating(delay: Duration, loss: f64) -> f64 {
    let ppl = loss.clamp(0.0, 1.0) * 100.0;
    // G.107 equation 7-29, with BurstR 1.
    let ie_eff = IE + (95.0 - IE) * ppl / (ppl + BPL);
    DEFAULT_R - delay_impairment(delay.as_secs_f64() * 1_000.0) - ie_eff
}

/// Idd, G.107 equations 7-27 and 7-28. `ta` is in milliseconds.
fn delay_impairment(ta: f64) -> f64 {
    if ta <= 100.0 {
        return 0.0;
    }
    let x = (ta / 100.0).log2();
    let root = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (root(x) - 3.0 * root(x / 3.0) + 2.0)
}

/// MOS-CQE of R, G.107 annex B.
fn score(r: f64) -> f64 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        // The cubic dips below one for small R.
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn agrees_with_the_published_points() {
        // G.107 annex B, table B.1: R 90 → 4.34, 80 → 4.03, 70 → 3.60, 60 → 3.10, 50 → 2.58.
        for (r, mos) in [
            (90.0, 4.34),
            (80.0, 4.03),
            (70.0, 3.60),
            (60.0, 3.10),
            (50.0, 2.58),
        ] {
            assert!((score(r) - mos).abs() < 0.01, "{r}: {}", score(r));
        }
        assert!((score(DEFAULT_R) - 4.41).abs() < 0.005);
        // Figure of Idd in G.107: none up to 100 ms, a marked knee behind 150 to 200 ms.
        assert!(delay_impairment(100.0) == 0.0);
        assert!((2.0..4.0).contains(&delay_impairment(200.0)));
        assert!((22.0..28.0).contains(&delay_impairment(400.0)));
    }

    proptest! {
        #[test]
        fn worse_networks_never_sound_better(d in 0u64..2_000, e in 0u64..500, p in 0.0..1.0f64, q in 0.0..1.0f64) {
            let ms = Duration::from_millis;
            let here = estimate(ms(d), p);
            prop_assert!((1.0..=4.5).contains(&here));
            prop_assert!(estimate(ms(d + e), p) <= here + 1e-9);
            prop_assert!(estimate(ms(d), p.max(q)) <= here + 1e-9);
        }
    }
}
