//! The bounds that docs/QUALITY.md states of paths that carry less than is asked for. One run, as a
//! trace: `cargo run --release -p sealcast-tests --bin sim -- trace steps SEED`.

use sealcast_tests::bandwidth::{self, PHASES, PLAIN, TEMPORAL};
use std::time::Duration;

/// Few in a build without optimization.
const SEEDS: u64 = if cfg!(debug_assertions) { 3 } else { 20 };

#[test]
fn capacity_steps_are_followed_down_and_up() {
    for picture in [TEMPORAL, PLAIN] {
        let best = bandwidth::best_goodput(picture).expect("every invariant holds");
        let mut goodput = Vec::new();
        for seed in 0..SEEDS {
            let run = bandwidth::steps(seed, picture).expect("every invariant holds");
            for ((capacity, _), (phase, within)) in PHASES
                .into_iter()
                .zip(run.phases.into_iter().zip([10, 3, 10]))
            {
                let name = format!("seed {seed}, {picture:?}, {capacity} bit/s: {phase:?}");
                let settled = phase.settled.expect(&name);
                assert!(settled <= Duration::from_secs(within), "{name}");
                assert!(phase.queue_p95 < Duration::from_millis(300), "{name}");
            }
            let share = run.goodput / best;
            assert!(
                share > 0.75,
                "seed {seed}, {picture:?}: {share:.2} of what layers can fill"
            );
            goodput.push(run.goodput);
        }
        goodput.sort_by(f64::total_cmp);
        let median = goodput[goodput.len() / 2];
        // Without temporal layers no choice of layers fills as much.
        assert!(
            best < 0.85 || median >= 0.85,
            "{picture:?}: {median:.3} of capacity, of {goodput:?}"
        );
    }
}

#[test]
fn two_viewers_use_a_link_together() {
    for picture in [TEMPORAL, PLAIN] {
        let mut apart = Vec::new();
        for seed in 0..SEEDS {
            let run = bandwidth::shared(seed, picture).expect("every invariant holds");
            let used = run.used();
            assert!(used > 0.7, "seed {seed}, {picture:?}: {used:.2} used");
            apart.push(run.apart());
        }
        apart.sort_by(f64::total_cmp);
        let median = apart[apart.len() / 2];
        assert!(
            median <= 0.3,
            "{picture:?}: {median:.2} apart, of {apart:?}"
        );
    }
}

#[test]
fn a_stream_that_grows_fourfold_is_not_paused() {
    let shown = bandwidth::grows(10).expect("every invariant holds");
    // The last ones are on their way.
    assert!((298..=300).contains(&shown), "{shown} of 300 frames");
}
