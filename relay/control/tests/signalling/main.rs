//! The signalling protocol from a client's side: every rule of PROTOCOL.md §3 to §6 that needs
//! no packet.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod limits;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use sealcast_control::clock;
use sealcast_control::token::{Grants, TokenRequest};
use sealcast_model::{CloseReason, Command, CommandError, Event, Source, TransportKind};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Relay, Setup, all_grants, minter_with, moderator, sdp, sdp_of};
use tokio::time::sleep;

fn relay() -> Relay {
    Relay::start(Setup::default())
}

const MEDIA: &[(&str, &str, &str)] = &[
    ("0", "audio", "sendonly"),
    ("1", "video", "sendonly"),
    ("2", "audio", "recvonly"),
    ("3", "video", "recvonly"),
    ("4", "video", "recvonly"),
];

async fn join_error(relay: &Relay, fields: Value) -> (String, Option<u16>) {
    let mut socket = relay.socket().await;
    let code = socket.refused("join", fields).await;
    (code, socket.closed().await)
}

#[tokio::test(start_paused = true)]
async fn tokens_that_do_not_open_the_room() {
    let relay = relay();
    let foreign = minter_with(&support::ec_key());
    let request = |expires| TokenRequest {
        subject: "x".into(),
        room: "r".into(),
        grants: Grants::default(),
        expires,
    };
    let now = clock::unix_now();
    let payload = "eyJpc3MiOiJ0ZXN0LWFwcCJ9";
    let cases = [
        (
            foreign.mint(&request(now + 60)).unwrap(),
            "unauthorized",
            4401,
            "signature",
        ),
        (
            relay.minter.mint(&request(now - 1)).unwrap(),
            "token_expired",
            4401,
            "expired",
        ),
        (
            relay.minter.mint(&request(now + 99_999)).unwrap(),
            "unauthorized",
            4401,
            "lifetime",
        ),
        (
            format!("eyJhbGciOiJub25lIn0.{payload}."),
            "unauthorized",
            4401,
            "algorithm",
        ),
        ("nonsense".into(), "unauthorized", 4401, "malformed"),
        (String::new(), "unauthorized", 4401, "missing"),
    ];
    for (token, code, close, reason) in cases {
        let got = join_error(&relay, json!({"protocol": 1, "token": token})).await;
        assert_eq!(got, (code.to_owned(), Some(close)), "{reason}");
        let counted = |reason: &str| {
            relay.metric(&format!(
                "sealcast_tokens_refused_total{{reason=\"{reason}\"}}"
            ))
        };
        assert!(counted(reason) >= 1.0, "{reason}");
    }
    let token = relay.token("r");
    let got = join_error(
        &relay,
        json!({"protocol": 1, "token": token, "room": "other"}),
    )
    .await;
    assert_eq!(got, ("wrong_room".into(), Some(4403)));
    let got = join_error(&relay, json!({"protocol": 2, "token": token})).await;
    assert_eq!(got, ("unsupported_version".into(), Some(4400)));
    assert_eq!(relay.app.rooms.participants(), 0);
    assert_eq!(relay.metric("sealcast_tokens_accepted_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_room_and_its_events() {
    let relay = relay();
    let mut a = relay.client("r").await;
    assert_eq!(a.joined["participants"], json!([]));
    assert_eq!(a.joined["sealed"], "optional");
    assert_eq!(a.joined["room"], "r");
    a.offer(MEDIA).await;
    let track = a.publish("1", "camera").await;
    let mut b = relay.client("r").await;
    assert_eq!(
        b.joined["participants"],
        json!([{"participant": a.id(), "tracks": [
            {"track": track, "source": "camera", "muted": false, "codec": "VP8", "sealed": true}
        ]}])
    );
    let seen = a.event("participant_joined").await;
    assert_eq!(seen["participant"], json!(b.id()));
    assert_eq!(
        seen["seq"], b.joined["seq"],
        "the snapshot includes one's own join"
    );
    a.ok("mute", json!({"track": track, "muted": true})).await;
    let muted = b.event("track_muted").await;
    assert_eq!(
        (&muted["muted"], &muted["by"]),
        (&json!(true), &json!(a.id()))
    );
    assert_eq!(
        muted["seq"].as_u64(),
        b.joined["seq"].as_u64().map(|s| s + 1)
    );
    a.ok("unpublish", json!({"track": track})).await;
    assert_eq!(b.event("track_unpublished").await["reason"], "requested");
    assert_eq!(a.request("leave", json!({})).await["type"], "left");
    assert_eq!(a.closed().await, Some(1000));
    let left = b.event("participant_left").await;
    assert_eq!(
        (&left["participant"], &left["reason"]),
        (&json!(a.id()), &json!("left"))
    );
    b.ok("leave", json!({})).await;
    b.closed().await;
    assert_eq!(relay.app.rooms.participants(), 0);
    assert_eq!(
        relay.metric("sealcast_participants{role=\"interactive\"}"),
        0.0
    );
}

#[tokio::test(start_paused = true)]
async fn commands_reach_the_shard_in_order() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let answer = a.offer(MEDIA).await;
    let text = answer["sdp"].as_str().unwrap();
    assert!(text.contains("a=ice-lite") && text.contains("192.0.2.1 7000 typ host"));
    assert!(text.contains("tcptype passive"));
    let track = a.publish("0", "audio").await;
    let fields = json!({"assign": [{"mid": "2", "track": track}, {"mid": "3", "track": null}]});
    a.ok("slots", fields).await;
    a.ok("mute", json!({"track": track, "muted": true})).await;
    a.ok("mute", json!({"track": track, "muted": true})).await;
    a.ok("unpublish", json!({"track": track})).await;
    a.ok("leave", json!({})).await;
    a.closed().await;
    let seen = relay.shard().take();
    let names: Vec<&str> = seen
        .iter()
        .map(|c| match c {
            Command::OpenSession { webrtc, media, .. } => {
                assert_eq!((media.receive.len(), media.slots.len()), (2, 3));
                assert_eq!(webrtc.remote_fingerprint, [0xab; 32]);
                "open"
            }
            Command::Publish { publish, .. } => {
                assert_eq!(publish.source, Source::Audio);
                "publish"
            }
            Command::AssignSlots { assign, .. } => {
                assert_eq!(assign.len(), 2);
                "assign"
            }
            Command::SetMuted { muted: true, .. } => "mute",
            Command::Unpublish { .. } => "unpublish",
            Command::CloseSession { .. } => "close",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        names,
        ["open", "publish", "assign", "mute", "unpublish", "close"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_is_refused_and_the_socket_stays() {
    let relay = Relay::start(Setup {
        sealed_required: true,
        ..Setup::default()
    });
    let grants = Grants {
        publish: vec![Source::Audio],
        subscribe: false,
        unsealed: true,
        moderate: false,
    };
    let mut a = relay.client_with("r", grants).await;
    let seal = json!({"contexts": [1]});
    let publish = |mid: &str, source: &str| json!({"mid": mid, "source": source, "seal": seal});
    assert_eq!(
        a.refused("publish", publish("0", "audio")).await,
        "no_session"
    );
    a.offer(MEDIA).await;
    assert_eq!(
        a.refused("publish", publish("1", "camera")).await,
        "forbidden"
    );
    assert_eq!(
        a.refused("publish", json!({"mid": "0", "source": "audio"}))
            .await,
        "unsealed"
    );
    assert_eq!(
        a.refused("publish", publish("1", "audio")).await,
        "no_slot",
        "audio on video"
    );
    assert_eq!(
        a.refused("publish", publish("2", "audio")).await,
        "no_slot",
        "a slot"
    );
    let track = a.publish("0", "audio").await;
    assert_eq!(
        a.refused("publish", publish("0", "audio")).await,
        "mid_in_use"
    );
    assert_eq!(
        a.refused("slots", json!({"assign": [{"mid": "2", "track": track}]}))
            .await,
        "forbidden"
    );
    assert_eq!(
        a.refused("remove", json!({"participant": a.id()})).await,
        "forbidden"
    );
    assert_eq!(
        a.refused("join", json!({"protocol": 1, "token": ""})).await,
        "already_joined"
    );
    assert_eq!(
        a.refused("resume", json!({"protocol": 1, "resume_token": ""}))
            .await,
        "already_joined"
    );
    assert_eq!(a.refused("dance", json!({})).await, "unknown_type");
    let mut b = relay.client("r").await;
    assert_eq!(
        b.refused("mute", json!({"track": track, "muted": true}))
            .await,
        "forbidden"
    );
    assert_eq!(
        b.refused("unpublish", json!({"track": track})).await,
        "no_track",
        "not its own"
    );
    b.offer(MEDIA).await;
    for (assign, code) in [
        (
            json!([{"mid": "2", "track": "TR_00000000000000aa"}]),
            "no_track",
        ),
        (json!([{"mid": "9", "track": track}]), "no_slot"),
        (json!([{"mid": "3", "track": track}]), "no_slot"),
        (
            json!([{"mid": "2", "track": track}, {"mid": "2", "track": null}]),
            "bad_message",
        ),
    ] {
        assert_eq!(b.refused("slots", json!({"assign": assign})).await, code);
    }
    assert_eq!(
        relay.metric("sealcast_signal_requests_total{result=\"forbidden\",type=\"mute\"}"),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_cannot_decode_the_track_is_refused() {
    let relay = relay();
    let mut a = relay.client("r").await;
    a.offer(&[("0", "h264", "sendonly")]).await;
    let track = a.publish("0", "screen").await;
    let mut b = relay.client("r").await;
    b.offer(&[("0", "video", "recvonly"), ("1", "h264", "recvonly")])
        .await;
    assert_eq!(
        b.refused("slots", json!({"assign": [{"mid": "0", "track": track}]}))
            .await,
        "codec_unsupported"
    );
    relay.shard().take();
    let sized = json!({"assign": [{"mid": "1", "track": track, "size": [640, 360]}]});
    b.ok("slots", sized).await;
    let sizes: Vec<_> = relay
        .shard()
        .take()
        .into_iter()
        .filter_map(|command| match command {
            Command::SizeSlots { sizes, .. } => Some(sizes),
            _ => None,
        })
        .flatten()
        .map(|size| (size.width, size.height))
        .collect();
    assert_eq!(sizes, [(640, 360)]);
}

#[tokio::test(start_paused = true)]
async fn moderators_mute_and_remove_but_never_unmute() {
    let relay = relay();
    let mut a = relay.client("r").await;
    a.offer(MEDIA).await;
    let track = a.publish("0", "audio").await;
    let mut m = relay.client_with("r", moderator()).await;
    m.ok("mute", json!({"track": track, "muted": true})).await;
    assert_eq!(a.event("track_muted").await["by"], json!(m.id()));
    assert_eq!(
        m.refused("mute", json!({"track": track, "muted": false}))
            .await,
        "forbidden"
    );
    a.ok("mute", json!({"track": track, "muted": false})).await;
    m.ok("remove", json!({"participant": a.id()})).await;
    assert_eq!(a.event("removed").await["by"], json!(m.id()));
    assert_eq!(a.closed().await, Some(4410));
    assert_eq!(m.event("participant_left").await["reason"], "removed");
    m.ok("remove", json!({"participant": a.id()})).await;
    // A removed participant cannot come back by its old token of resumption.
    let mut again = relay.socket().await;
    let token = a.joined["resume_token"].clone();
    assert_eq!(
        again
            .refused("resume", json!({"protocol": 1, "resume_token": token}))
            .await,
        "resume_unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unsealed_track_is_blocked_for_all_to_see() {
    let relay = relay();
    let mut a = relay.client("r").await;
    a.offer(MEDIA).await;
    let track = a.publish("1", "camera").await;
    relay.emit(Event::TrackBlocked {
        track: track.parse().unwrap(),
    });
    let blocked = a.event("track_blocked").await;
    assert_eq!(
        (&blocked["track"], &blocked["reason"]),
        (&json!(track), &json!("unsealed"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopping_relay_says_so() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let rooms = std::sync::Arc::clone(&relay.app.rooms);
    let stop = tokio::spawn(async move { rooms.stop(Duration::from_secs(3)).await });
    assert_eq!(a.event("going_away").await["seconds"], 3);
    let late = a.refused("offer", json!({"sdp": sdp(MEDIA)})).await;
    assert_eq!(late, "going_away");
    assert_eq!(a.closed().await, Some(1001));
    stop.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn grants_in_the_answer_are_those_of_the_token() {
    let relay = relay();
    let a = relay
        .client_with(
            "r",
            Grants {
                publish: vec![Source::Imaging],
                ..all_grants()
            },
        )
        .await;
    assert_eq!(
        a.joined["grants"],
        json!({"publish": ["imaging"], "subscribe": true, "unsealed": true, "moderate": false})
    );
    assert_eq!(a.joined["grace_seconds"], 30);
    assert_eq!(
        a.joined["limits"],
        json!({"slots": 128, "tracks": 16, "data_message": 16384})
    );
}
