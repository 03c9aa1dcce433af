//! The flight recorder as operators read it.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod support;

use sealcast_model::{FlightRecord, Source, Stage, Time};
use serde_json::Value;
use std::time::Duration;
use support::{Relay, Setup};
use tower::Service;

async fn get(relay: &Relay, accept: &str) -> (String, String) {
    let request = axum::http::Request::get("/debug/flight")
        .header("accept", accept)
        .body(axum::body::Body::empty())
        .unwrap();
    let response = relay.router().call(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (kind, String::from_utf8(body.to_vec()).unwrap())
}

fn note(relay: &Relay, track: &str, done: Time) {
    let before = |micros| done.saturating_sub(Duration::from_micros(micros));
    relay.stats[0].flight.note(&FlightRecord {
        received: before(1_000),
        read: before(400),
        started: before(150),
        done,
        slept: before(5_000),
        woke: before(420),
        track: track.parse().unwrap(),
        source: Source::Imaging,
        tcp: false,
        size: 1_180,
        packets: 12,
        position: 4,
        runs: 9,
        datagrams: 40,
    });
}

#[tokio::test]
async fn the_slowest_packets_are_told_by_pseudonym() {
    let relay = Relay::start(Setup::default());
    let mut client = relay.client("room-canary").await;
    client.offer(&[("0", "audio", "sendonly")]).await;
    let track = client.publish("0", "audio").await;
    note(&relay, "TR_00000000000000ff", Time::from_millis(20_000));
    note(&relay, "TR_00000000000000ff", Time::from_millis(88_000));
    note(&relay, &track, Time::from_millis(89_500));
    let media = relay.stats[0].media(Source::Imaging);
    media.dwell.record(Duration::from_micros(1_000), 12);
    media
        .stage(Stage::Relay)
        .record(Duration::from_micros(250), 12);

    let (kind, body) = get(&relay, "*/*").await;
    assert_eq!(kind, "application/json");
    let report: Value = serde_json::from_str(&body).unwrap();
    let shard = &report["shards"][0];
    let slowest = shard["slowest"].as_array().unwrap();
    assert_eq!(slowest.len(), 2, "one is older than a minute");
    let ours = slowest
        .iter()
        .find(|s| s["track"] == track.as_str())
        .unwrap();
    assert!(ours["room"].as_str().unwrap().starts_with("RM_"));
    for (key, value) in [
        ("ago_seconds", 0.5),
        ("packets", 12.0),
        ("bytes", 1_180.0),
        ("total_us", 1_000.0),
        ("kernel_queue_us", 600.0),
        ("wake_up_us", 580.0),
        ("relay_us", 250.0),
        ("send_us", 150.0),
    ] {
        assert_eq!(ours[key].as_f64(), Some(value), "{key}");
    }
    let ended = slowest
        .iter()
        .find(|s| s["track"] != track.as_str())
        .unwrap();
    assert!(
        ended.get("room").is_none(),
        "its room is not known any more"
    );
    let stages = shard["dwell"][0]["stages"].as_array().unwrap();
    let relay_stage = stages.iter().find(|s| s["stage"] == "relay").unwrap();
    assert_eq!(relay_stage["p99_us"], 250.0);
    for secret in ["room-canary", "tester", "192.0.2", "127.0.0.1"] {
        assert!(!body.contains(secret), "{secret}");
    }

    let (kind, page) = get(&relay, "text/html,application/xhtml+xml").await;
    assert!(kind.starts_with("text/html"));
    assert!(page.contains(&track) && page.contains("<td>12 × 1180<td>1000.0<td>600.0<td>580.0"));
}
