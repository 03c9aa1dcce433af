//! The load tester against a relay whose faults are made on purpose: each must be found, and none
//! where there is none. The relay is the real one, of production configuration; a proxy between it
//! and the clients' media has the faults.
//!
//! Judged are counts, and times that a busy machine does not change: it makes latency longer and
//! never shorter, so a delay that was added shows in the smallest latencies.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails to start processes has failed; real processes need the real clock"
)]

mod support;

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use support::proxy::{Fault, Proxy};
use support::{CONSULT, Relay, Run, alone, quantile, relay_binary};

/// A fault that has a beginning begins when two windows have been measured, however long it took
/// to come so far.
fn run_through(fault: Fault, slo: &[&str]) -> (Run, Arc<Proxy>) {
    let relay = Relay::start();
    let (front, proxy) = Proxy::start(relay.media, fault);
    let front = front.to_string();
    let mut arguments = vec!["--media-address", &front];
    slo.iter()
        .for_each(|target| arguments.extend(["--slo", target]));
    let load = relay.load(CONSULT, &arguments);
    (load.run_and(2, |_| proxy.begin()), proxy)
}

#[test]
fn a_sound_relay_passes() {
    let _turn = alone();
    let targets = [
        "delivery > 99%",
        "srtp_failures = 0",
        "seal_failures = 0",
        "content_failures = 0",
        "misrouted = 0",
        "silent_slots = 0",
        "join_failures = 0",
        "sessions_lost = 0",
    ];
    let (run, _) = run_through(Fault::None, &targets);
    assert_eq!(run.code, 0, "{}", run.told);
    assert_eq!(run.count("joins_done"), 4);
    assert!(run.count("video.frames_received") > 4 * 3 * 100);
    assert!(
        !run.result["relay"].as_array().unwrap().is_empty(),
        "metrics were scraped"
    );
}

#[test]
fn one_packet_in_a_hundred_dropped_is_found() {
    let _turn = alone();
    let (run, proxy) = run_through(Fault::Drop, &["network_loss < 0.5%"]);
    assert_eq!(run.code, 1, "{}", run.told);
    let missing = run.count("packets_lost") + run.count("packets_repaired");
    let dropped = proxy.faults();
    // Retransmissions may be dropped too, and asked for again.
    assert!(
        missing > dropped / 2 && missing < dropped * 3,
        "{missing} of {dropped}"
    );
}

#[test]
fn five_milliseconds_more_are_found() {
    let _turn = alone();
    let fault = Fault::Delay(Duration::from_millis(5));
    let (run, proxy) = run_through(fault, &["audio.packet_latency.p90 < 5ms"]);
    assert!(proxy.faults() > 1_000, "{}", run.told);
    // In windows with the delay nothing is faster; the one in which it began is neither.
    let windows = run.samples_by_window("audio.packet_latency");
    let fastest = |w: &&Vec<(u64, u64)>| w.first().is_some_and(|(us, _)| *us < 5_000);
    let begun = windows.iter().rposition(|w| fastest(&w)).unwrap();
    let low = |windows: &[Vec<(u64, u64)>]| {
        let each = windows.iter().map(|w| quantile(w, 0.05));
        each.fold(f64::INFINITY, f64::min)
    };
    let (before, after) = (low(&windows[..begun]), low(&windows[begun + 1..]));
    let more = after - before;
    assert!((4_500.0..6_500.0).contains(&more), "{before} to {after} µs");
    assert_eq!(run.code, 1, "{}", run.told);
}

#[test]
fn a_byte_in_ten_thousand_packets_is_found() {
    let _turn = alone();
    let (run, proxy) = run_through(Fault::Corrupt, &["srtp_failures = 0"]);
    let corrupted = proxy.faults();
    assert!(corrupted > 0, "{}", run.told);
    assert_eq!(run.code, 1, "{}", run.told);
    // The last may have come when its client had left.
    let found = run.count("srtp_failures");
    assert!(
        found >= 1 && found <= corrupted && found + 1 >= corrupted,
        "{found} of {corrupted}"
    );
    assert_eq!(
        run.count("content_failures") + run.count("seal_failures"),
        0
    );
}

#[test]
fn a_freeze_of_300_ms_is_found() {
    let _turn = alone();
    let fault = Fault::Freeze(Duration::from_millis(300));
    let targets = ["freezes = 0", "packet_latency.max < 250ms"];
    let (run, proxy) = run_through(fault, &targets);
    assert!(proxy.faults() > 100, "{}", run.told);
    assert_eq!(run.code, 1, "{}", run.told);
    assert!(!run.met("packet_latency.max"), "{}", run.told);
    // A buffer that the machine has made long hides a freeze of some of the twelve pictures.
    assert!(!run.met("freezes"), "{}", run.told);
    let held = quantile(&run.samples("video.packet_latency"), 1.0);
    assert!(held >= 290_000.0, "{held} µs");
}

#[test]
fn a_client_that_is_put_into_another_room_is_found() {
    let _turn = alone();
    let relay = Relay::start();
    // One client of room 0 gets a token that puts it into room 1.
    let token = format!(
        "[ $SUBJECT = load-2 ] && ROOM=${{ROOM%-0}}-1; exec {} token --config {} --room $ROOM --publish $PUBLISH",
        relay_binary().display(),
        relay.dir.join("sealcast.toml").display()
    );
    // With the room's group it has the keys, and sees whom it should not; with a link it has not.
    for (keys, count) in [("group", "misrouted"), ("link", "seal_failures")] {
        let rooms = format!("rooms = 2\nkeys = \"{keys}\"\njoins_per_second");
        let scenario = CONSULT.replace("joins_per_second", &rooms);
        let mut load = support::Load::new(&relay.dir, &scenario, &relay.url(""));
        let target = format!("{count} = 0");
        load.command
            .args(["--token-command", &token, "--slo", &target]);
        let run = load.run();
        assert_eq!(run.code, 1, "{}", run.told);
        assert!(run.count(count) > 100, "{keys}: {}", run.told);
    }
}

#[test]
fn a_media_address_that_does_not_answer_is_found() {
    let _turn = alone();
    let relay = Relay::start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let targets = ["--media-address", &address, "--slo", "join_failures = 0"];
    let run = relay.load(CONSULT, &targets).run();
    assert_eq!(run.code, 3, "{}", run.told);
    assert_eq!(run.count("join_failures"), 4, "{}", run.told);
    assert!(run.told.contains("media was not connected"), "{}", run.told);
}

#[test]
fn a_paused_generator_makes_the_run_invalid() {
    let _turn = alone();
    let relay = Relay::start();
    // The scenario's own limits are wide, for busy machines; these are the default's and wide.
    let limits = ["--max-lag", "250", "--max-lag-p99", "60000"];
    let run = relay.load(CONSULT, &limits).run_and(1, |generator| {
        let signal = |name: &str| {
            let sent = Command::new("kill")
                .args([name, &generator.to_string()])
                .status();
            assert!(sent.unwrap().success());
        };
        signal("-STOP");
        thread::sleep(Duration::from_millis(500));
        signal("-CONT");
    });
    assert_eq!(run.code, 2, "{}", run.told);
    let faults = run.result["validity"]["faults"].to_string();
    assert!(faults.contains("timers ran late"), "{faults}");
}

#[test]
fn latencies_agree_with_the_configured_network() {
    let _turn = alone();
    let relay = Relay::start();
    let path = |direction, delay| format!("[impairment.{direction}]\ndelay = {delay}.0\n");
    let far = format!("{CONSULT}\n{}{}", path("up", 160), path("down", 240));
    let run = relay.load(&far, &[]).run();
    for name in [
        "audio.packet_latency",
        "audio.frame_latency",
        "video.packet_latency",
    ] {
        let median = quantile(&run.samples(name), 0.5);
        assert!(
            (380_000.0..420_000.0).contains(&median),
            "{name}: {median} µs"
        );
    }
    let lossy =
        format!("{CONSULT}\n[impairment.down.loss]\nmodel = \"uniform\"\nprobability = 0.02\n");
    let run = relay.load(&lossy, &[]).run();
    let expected = run.count("audio.frames_expected") as f64;
    let share = 1.0 - run.count("audio.frames_received") as f64 / expected;
    // 2 % of some 4,000 frames: five standard deviations are 1.1 %.
    assert!((0.009..0.031).contains(&share), "{share}");
}
