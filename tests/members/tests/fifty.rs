//! Fifty members join a consult within five seconds, over a relay that runs as a process of its
//! own. Prints what a join takes in time and bytes:
//!
//! ```sh
//! SEALCAST_BIN=target/release/sealcast cargo test --release -p sealcast-members -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use sealcast_members::{GroupState, Peer, Relay};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

const MEMBERS: usize = 50;

/// Time over which they come.
const WITHIN: Duration = Duration::from_secs(5);

/// All of them agree within this time after the last has come, on any machine that tests run on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Frames of a sender whom a member can open may be missing for this long at a time.
const MAX_LOSS: Duration = Duration::from_secs(2);

/// Bytes of the delivery service's messages that anybody may send or get while all the others come.
/// One member commits for all, and sends each newcomer the tree: some 300 KiB. A message that grows
/// with the square of the group would show.
const MAX_GROUP_BYTES: usize = 1024 * 1024;

/// Such bytes that the last to come may send, and get: the tree with fifty leaves and its Welcome.
const MAX_LAST_UP: usize = 8 * 1024;
/// See [`MAX_LAST_UP`].
const MAX_LAST_DOWN: usize = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_members_join_within_five_seconds_and_agree() {
    let relay = Relay::start().await;
    let room = "fifty";
    let (frames, _) = broadcast::channel(1 << 16);
    let mut tokens = Vec::new();
    for _ in 0..MEMBERS {
        tokens.push(relay.token(room).await);
    }
    let mut ticks = interval(WITHIN / MEMBERS as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut peers = Vec::new();
    for (id, token) in tokens.into_iter().enumerate() {
        ticks.tick().await;
        peers.push(Peer::join(id, relay.signal_url(), token, frames.clone()));
    }
    let came = began.elapsed();
    let states = converged(&peers).await;
    let agreed = began.elapsed();
    let epochs = states[0].epoch.unwrap();
    // Frames of everybody, in the epoch that all are in.
    sleep(Duration::from_secs(1)).await;
    let mut joins = Vec::new();
    for peer in peers {
        joins.push(peer.stop().await);
    }

    let took = joins.iter().map(|join| join.took.as_millis() as usize);
    println!("{MEMBERS} members came within {came:.1?}, agreed after {agreed:.1?}, epoch {epochs}");
    println!("join, ms:        {}", spread(took));
    let traffic = states.iter().map(|state| state.traffic);
    println!(
        "group bytes up:  {}",
        spread(traffic.clone().map(|t| t.group_up))
    );
    println!(
        "group bytes down: {}",
        spread(traffic.clone().map(|t| t.group_down))
    );
    println!("all bytes up:    {}", spread(traffic.clone().map(|t| t.up)));
    println!(
        "all bytes down:  {}",
        spread(traffic.clone().map(|t| t.down))
    );
    let last = states[MEMBERS - 1].traffic;
    println!(
        "the last to come: {} up, {} down",
        last.group_up, last.group_down
    );

    assert!(
        epochs <= MEMBERS as u64,
        "{epochs} epochs for {MEMBERS} joins"
    );
    for traffic in traffic {
        assert!(
            traffic.group_up < MAX_GROUP_BYTES && traffic.group_down < MAX_GROUP_BYTES,
            "{traffic:?}"
        );
    }
    assert!(
        last.group_up < MAX_LAST_UP && last.group_down < MAX_LAST_DOWN,
        "{last:?}"
    );
    let (mut opened, mut lost, mut longest) = (0, 0, Duration::ZERO);
    for (id, join) in joins.iter().enumerate() {
        assert_eq!(join.surprises, Vec::<String>::new(), "member {id}");
        assert_eq!(
            join.watched.len(),
            MEMBERS - 1,
            "member {id} opens everybody"
        );
        for watched in join.watched.values() {
            opened += watched.opened;
            lost += watched.lost;
            longest = longest.max(watched.longest_loss);
        }
    }
    println!("frames opened {opened}, lost {lost}, longest loss {longest:?}");
    assert!(longest < MAX_LOSS, "frames were lost for {longest:?}");
    for event in ["invalid_commit", "undone", "added_again", "stalled"] {
        let series = format!("sealcast_group_events_total{{event=\"{event}\"}}");
        assert_eq!(relay.metric(&series).await, 0.0, "{event}");
    }
}

/// Waits until all are one group and seal with its keys; how each of them stands then.
async fn converged(peers: &[Peer]) -> Vec<GroupState> {
    let agreed = |states: &[GroupState]| {
        let code = &states[0].authenticator;
        code.is_some()
            && states.iter().all(|state| {
                state.authenticator == *code
                    && state.members == MEMBERS
                    && state.sending == state.epoch
            })
    };
    let states = || peers.iter().map(|peer| peer.state.borrow().clone());
    let wait = async {
        loop {
            let now: Vec<_> = states().collect();
            if agreed(&now) {
                return now;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
        let stand: Vec<_> = states().map(|s| (s.epoch, s.sending, s.members)).collect();
        panic!("{MEMBERS} members do not agree: {stand:?}")
    })
}

/// Percentiles of a sample.
fn spread(sample: impl Iterator<Item = usize>) -> String {
    let mut sample: Vec<_> = sample.collect();
    sample.sort_unstable();
    let at = |percent: usize| sample[(sample.len() * percent).div_ceil(100) - 1];
    format!("p50 {}, p95 {}, max {}", at(50), at(95), at(100))
}
