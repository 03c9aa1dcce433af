//! The seeds of CI. More, or one again: `cargo run --release -p sealcast-tests --bin sim`.

use sealcast_tests::scenario;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 200;

#[test]
fn two_hundred_seeds_keep_every_invariant() {
    let next = AtomicU64::new(0);
    let (mut packets, mut shown) = (0, 0);
    let workers: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut sums = (0, 0);
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return sums;
                }
                match scenario::run(seed) {
                    Ok(outcome) => sums = (sums.0 + outcome.packets, sums.1 + outcome.shown),
                    Err(fault) => panic!("{fault}"),
                }
            }
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(sums) => sums,
                Err(fault) => std::panic::resume_unwind(fault),
            })
            .collect()
    });
    for (p, s) in workers {
        packets += p;
        shown += s;
    }
    // Runs in which nothing flows would keep every invariant.
    assert!(packets > SEEDS * 1_000, "{packets}");
    assert!(shown > SEEDS * 100, "{shown}");
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    let hash = |seed| scenario::run(seed).map(|outcome| outcome.hash);
    let hashes: Vec<_> = (0..4).map(hash).collect();
    assert_eq!(hashes, (0..4).map(hash).collect::<Vec<_>>());
    assert_ne!(hashes[0], hashes[1]);
}
