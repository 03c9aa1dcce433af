//! The seeds of CI. More, or one again: `cargo run --release -p sealcast-tests --bin sim`.

use sealcast_tests::layered::Mode;
use sealcast_tests::payload::Format;
use sealcast_tests::scenario::{self, Share};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 200;

#[test]
fn two_hundred_seeds_keep_every_invariant() {
    let next = AtomicU64::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return outcomes;
            }
            match scenario::run(seed) {
                Ok(outcome) => outcomes.push(outcome),
                Err(fault) => panic!("{fault}"),
            }
        }
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<_>>| match thread.join() {
            Ok(outcomes) => outcomes,
            Err(fault) => std::panic::resume_unwind(fault),
        };
        threads.into_iter().flat_map(join).collect()
    });
    // Runs in which nothing flows, or nothing is left out, would keep every invariant.
    let packets: u64 = outcomes.iter().map(|outcome| outcome.packets).sum();
    assert!(packets > SEEDS * 1_000, "{packets}");
    let mut formats: BTreeMap<Format, Share> = BTreeMap::new();
    for (format, share) in outcomes.iter().flat_map(|outcome| &outcome.formats) {
        let sum = formats.entry(*format).or_default();
        sum.shown += share.shown;
        sum.left_out += share.left_out;
    }
    for format in Format::SIMULCAST.iter().chain(&Format::LAYERED) {
        let Share { shown, left_out } = formats.get(format).copied().unwrap_or_default();
        println!("{format:?}: {shown} frames shown, {left_out} packets left out");
        assert!(shown > SEEDS * 5, "{format:?}: {shown} frames shown");
        let layered = format.mode != Mode::L1T1;
        assert!(
            !layered || left_out > SEEDS,
            "{format:?}: {left_out} left out"
        );
    }
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    let hash = |seed| scenario::run(seed).map(|outcome| outcome.hash);
    let hashes: Vec<_> = (0..4).map(hash).collect();
    assert_eq!(hashes, (0..4).map(hash).collect::<Vec<_>>());
    assert_ne!(hashes[0], hashes[1]);
}
