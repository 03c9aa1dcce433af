//! Timestamps of the kernel, on real sockets: where packets' time goes, and that asking costs no
//! rest.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod net;

use net::{Relay, audience, config, pause, play, run_for};
use sealcast_model::{Counter, Source, Stage};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A short call whose every message asks for a transmit timestamp.
fn stamped_call(bind: &str, gso: bool) {
    let mut config = config(bind);
    (config.gso, config.stamp_interval) = (gso, 1);
    let relay = Relay::start(&config);
    let mut callers = audience(&relay, &[false; 3]);
    let stats = Arc::clone(&relay.port.stats);
    let of = |stage| Source::ALL.map(|s| stats.media(s).stage(stage).snapshot());
    let count = |stage| of(stage).iter().map(|s| s.count()).sum::<u64>();
    // How many packets of a frame are read together, and so leave by one call or as one message, is
    // the scheduler's choice: until there are enough calls, and some such messages, more is sent.
    for received in (160..2_000).step_by(16) {
        play(&mut callers, 16, received);
        let stamped = stats.get(Counter::StampedOut);
        if stamped >= 10 && (!gso || count(Stage::Wire) > stamped) {
            break;
        }
    }
    relay.stop();
    // The kernel begins to stamp a moment after the first socket of the system asks for it.
    let (with, without) = (
        stats.get(Counter::StampedIn),
        stats.get(Counter::UnstampedIn),
    );
    assert_eq!(with + without, stats.get(Counter::DatagramsIn));
    assert!(with > without, "{with} with a stamp, {without} without");
    // Loopback stamps a message within the call that sends it.
    let stamped = stats.get(Counter::StampedOut);
    assert!(stamped >= 10, "{stamped} stamps");
    assert_eq!(stats.get(Counter::StampLost), 0);
    let timed = count(Stage::Wire);
    assert!(if gso {
        timed > stamped
    } else {
        timed == stamped
    });
    assert!(count(Stage::Total) <= timed);
    for source in [Source::Audio, Source::Camera] {
        let media = stats.media(source);
        let forwarded = media.packets_out.load(Relaxed);
        assert_eq!(media.dwell.snapshot().count(), forwarded);
        let queued = media.stage(Stage::KernelQueue).snapshot().count();
        assert!(queued <= forwarded && queued > forwarded / 2, "{queued}");
        assert_eq!(media.stage(Stage::Relay).snapshot().count(), forwarded);
        let part = |stage| media.stage(stage).snapshot().sum_nanos();
        let parts = part(Stage::KernelQueue) + part(Stage::Relay);
        assert!(parts <= media.dwell.snapshot().sum_nanos());
        let (wire, total) = (part(Stage::Wire), part(Stage::Total));
        let all = count(Stage::Total) == timed;
        assert!(!all || wire <= total, "the whole is more than its part");
    }
}

#[test]
fn every_packet_is_timed_over_ipv4_and_ipv6_with_and_without_offload() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        stamped_call(bind, true);
        stamped_call(bind, false);
    }
}

#[test]
fn a_stamp_does_not_keep_the_thread_awake() {
    let mut config = config("127.0.0.1:0");
    config.stamp_interval = 1;
    let relay = Relay::start(&config);
    let mut callers = audience(&relay, &[false; 2]);
    play(&mut callers, 4, 40);
    run_for(&mut callers, Duration::from_millis(100));
    let before = relay.port.stats.get(Counter::Wakeups);
    pause(Duration::from_millis(300));
    let woken = relay.port.stats.get(Counter::Wakeups) - before;
    // Were the error queue left full, epoll would not wait at all: some 100,000 times.
    assert!(woken < 300, "woken {woken} times by nothing");
    relay.stop();
}

#[test]
fn the_recorder_names_the_slowest() {
    let relay = Relay::start(&config("127.0.0.1:0"));
    let mut callers = audience(&relay, &[false; 3]);
    play(&mut callers, 16, 160);
    let stats = Arc::clone(&relay.port.stats);
    relay.stop();
    let media = Source::ALL.map(|s| stats.media(s).dwell.snapshot());
    let slowest = media.iter().map(|m| m.max()).max().unwrap();
    let records = stats.flight.slowest(sealcast_model::Time::ZERO);
    assert_eq!(records[0].total(), slowest);
    for r in &records {
        assert!(r.received <= r.read && r.read <= r.started && r.started < r.done);
        assert!(r.slept <= r.woke && r.woke <= r.read);
        assert!(r.packets > 0 && r.position < r.runs);
    }
}
