//! The signalling protocol from a client's side: every rule of PROTOCOL.md §3 to §6 that needs
//! no packet.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

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
async fn malformed_messages_end_the_socket_at_the_tenth() {
    let relay = relay();
    let mut a = relay.client("r").await;
    for n in 0..10 {
        a.send(["{", "[]", "{\"id\":1}", "\u{0}"][n % 4]).await;
    }
    assert_eq!(a.closed().await, Some(4400));
    let errors = a
        .events
        .iter()
        .filter(|e| e["code"] == "bad_message")
        .count();
    assert_eq!(errors, 10);
    assert_eq!(
        relay.metric("sealcast_signal_requests_total{result=\"bad_message\",type=\"unknown\"}"),
        10.0
    );
    // Its participant may still resume.
    assert_eq!(relay.app.rooms.participants(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_before_joining_and_binary_frames() {
    let relay = relay();
    let mut a = relay.socket().await;
    assert_eq!(a.refused("leave", json!({})).await, "not_joined");
    assert_eq!(a.closed().await, Some(4400));
    use futures_util::SinkExt;
    use tungstenite::Message;
    let mut b = relay.client("r").await;
    b.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(b.event("error").await["code"], "bad_message");
}

#[tokio::test(start_paused = true)]
async fn an_oversized_message_is_named_and_closes() {
    let relay = relay();
    for size in [257 * 1024, 10 << 20] {
        let mut a = relay.client("r").await;
        let text = format!(
            "{{\"type\":\"offer\",\"id\":5,\"sdp\":\"{}\"}}",
            "x".repeat(size)
        );
        use futures_util::SinkExt;
        // The relay stops reading at its limit, so the rest may meet a closed socket.
        let _ = a.socket.send(tungstenite::Message::text(text)).await;
        assert_eq!(a.closed().await, Some(1009), "{size}");
        assert!(a.events.iter().any(|e| e["code"] == "too_large"), "{size}");
    }
    assert_eq!(
        relay.metric("sealcast_signal_requests_total{result=\"too_large\",type=\"unknown\"}"),
        2.0
    );
}

#[tokio::test(start_paused = true)]
async fn oversized_and_malformed_offers() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let long = format!("v=0\r\n{}", "a=x\r\n".repeat(27_000));
    assert_eq!(
        a.refused("offer", json!({"sdp": long})).await,
        "sdp_too_large"
    );
    let many = format!("v=0\n{}", "m=a 9 R 0\n".repeat(10_000));
    assert_eq!(
        a.refused("offer", json!({"sdp": many})).await,
        "sdp_too_large"
    );
    let error = a
        .request("offer", json!({"sdp": "v=0\r\nm=audio\r\n"}))
        .await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("bad_sdp"), &json!("line 2: malformed m-line"))
    );
    assert_eq!(a.refused("offer", json!({"sdp": ""})).await, "bad_sdp");
    assert_eq!(
        relay.metric("sealcast_sdp_refused_total{reason=\"too_many\"}"),
        1.0
    );
    assert_eq!(
        relay.metric("sealcast_sdp_refused_total{reason=\"too_large\"}"),
        1.0
    );
    assert_eq!(
        relay.metric("sealcast_sdp_refused_total{reason=\"malformed\"}"),
        1.0
    );
    assert!(relay.shard().take().is_empty(), "no session was opened");
    a.offer(MEDIA).await;
}

#[tokio::test(start_paused = true)]
async fn requests_are_limited_by_rate() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let track = "TR_0000000000000000";
    let mute =
        |id: u64| json!({"type": "mute", "id": id, "track": track, "muted": true}).to_string();
    for id in 1_000..1_100 {
        a.send(mute(id)).await;
    }
    // Refusals overtake what is still being done, so responses come in any order.
    let mut limited = 0;
    for _ in 0..100 {
        let response = a.next().await.unwrap();
        limited += usize::from(response["code"] == "rate_limited");
    }
    // The join took one of the 100; what else is refused was over 32 at once.
    assert!(limited >= 1, "{limited}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        a.refused("mute", json!({"track": track, "muted": true}))
            .await,
        "no_track"
    );
    for id in 2_000..2_300 {
        a.send(mute(id)).await;
    }
    assert_eq!(a.closed().await, Some(4429));
}

#[tokio::test(start_paused = true)]
async fn sockets_that_do_not_join_or_fall_silent_are_closed() {
    let relay = relay();
    let mut never = relay.socket().await;
    let start = tokio::time::Instant::now();
    assert_eq!(never.closed().await, Some(4408));
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(never);
    // One that reads answers pings, without knowing it.
    let mut idle = relay.client("r").await;
    let alive = tokio::time::timeout(Duration::from_secs(300), idle.next()).await;
    assert!(alive.is_err(), "{alive:?}");
    // One that does not read does not.
    sleep(Duration::from_secs(60)).await;
    idle.closed().await;
    for cause in ["join_timeout", "idle"] {
        let series = format!("sealcast_signal_sockets_closed_total{{cause=\"{cause}\"}}");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(relay.metric(&series), 1.0, "{cause}");
    }
    assert_eq!(relay.metric("sealcast_signal_sockets"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_socket_resumes_within_its_grace() {
    let relay = relay();
    let mut a = relay.client("r").await;
    a.offer(MEDIA).await;
    let track = a.publish("0", "audio").await;
    let mut b = relay.client("r").await;
    b.offer(MEDIA).await;
    b.ok("slots", json!({"assign": [{"mid": "2", "track": track}]}))
        .await;
    let token = b.joined["resume_token"].clone();
    drop(b);
    a.stay(Duration::from_secs(29)).await;
    assert_eq!(relay.app.rooms.participants(), 2);
    let mut c = relay.socket().await;
    let resumed = c
        .ok("resume", json!({"protocol": 1, "resume_token": token}))
        .await;
    assert_eq!(resumed["session"], true);
    assert_eq!(resumed["slots"], json!([{"mid": "2", "track": track}]));
    assert_eq!(
        resumed["participants"][0]["tracks"][0]["track"],
        json!(track)
    );
    // The token is spent.
    let mut d = relay.socket().await;
    assert_eq!(
        d.refused("resume", json!({"protocol": 1, "resume_token": token}))
            .await,
        "resume_unknown"
    );
    assert_eq!(d.closed().await, Some(4404));
    // Another socket takes over from a live one.
    let mut e = relay.socket().await;
    e.ok(
        "resume",
        json!({"protocol": 1, "resume_token": resumed["resume_token"]}),
    )
    .await;
    assert_eq!(c.closed().await, Some(4409));
    let time = Duration::from_secs(31);
    tokio::join!(a.stay(time), e.stay(time));
    assert_eq!(
        relay.app.rooms.participants(),
        2,
        "the replaced socket's end counts for nothing"
    );
    drop(e);
    let left = a.event("participant_left").await;
    assert_eq!(left["reason"], "timeout");
    assert!(
        relay
            .shard()
            .take()
            .iter()
            .any(|c| matches!(c, Command::CloseSession { .. }))
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_cut_off_and_nobody_waits_for_it() {
    let relay = relay();
    let mut a = relay.client("r").await;
    a.offer(MEDIA).await;
    let track = a.publish("0", "audio").await;
    // It joins and then reads nothing; little fits into its connection.
    let mut slow = relay.socket_with(2_048).await;
    slow.ok("join", json!({"protocol": 1, "token": relay.token("r")}))
        .await;
    let start = tokio::time::Instant::now();
    for n in 0..700 {
        a.ok("mute", json!({"track": track, "muted": n % 2 == 0}))
            .await;
        if n % 40 == 39 {
            sleep(Duration::from_millis(800)).await;
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "only the rate limit held it up"
    );
    assert_eq!(
        relay.metric("sealcast_signal_sockets_closed_total{cause=\"too_slow\"}"),
        1.0
    );
    sleep(Duration::from_secs(40)).await;
    assert_eq!(relay.app.rooms.participants(), 1, "it did not resume");
}

#[tokio::test(start_paused = true)]
async fn media_that_ends_is_told_and_can_be_taken_up_again() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let mut b = relay.client("r").await;
    a.offer(MEDIA).await;
    let first = relay.shard().last_session();
    relay.emit(Event::SessionConnected {
        session: first,
        transport: TransportKind::Tcp,
        dtls: "1.3",
        srtp_profile: "AEAD_AES_256_GCM",
    });
    let connected = a.event("media_connected").await;
    assert_eq!(
        (&connected["transport"], &connected["dtls"]),
        (&json!("tcp"), &json!("1.3"))
    );
    let track = a.publish("0", "audio").await;
    a.ok("mute", json!({"track": track, "muted": true})).await;
    b.offer(MEDIA).await;
    let of_b = relay.shard().last_session();
    b.ok("slots", json!({"assign": [{"mid": "2", "track": track}]}))
        .await;
    relay.shard().take();
    relay.emit(Event::SessionClosed {
        session: first,
        reason: CloseReason::ConsentLost,
    });
    assert_eq!(a.event("media_closed").await["reason"], "consent_lost");
    assert_eq!(
        a.refused(
            "publish",
            json!({"mid": "1", "source": "camera", "seal": {"contexts": [2]}})
        )
        .await,
        "no_session"
    );
    a.ok(
        "offer",
        json!({"sdp": sdp_of("efgh", MEDIA), "restart": true}),
    )
    .await;
    let second = relay.shard().last_session();
    assert_ne!(first, second);
    let seen = relay.shard().take();
    let names: Vec<String> = seen
        .iter()
        .map(|c| match c {
            Command::OpenSession { session, .. } => format!("open {}", *session == second),
            Command::Publish { publish, .. } => {
                format!(
                    "publish {}",
                    publish.session == second && publish.track.to_string() == track
                )
            }
            Command::SetMuted { muted, .. } => format!("muted {muted}"),
            Command::AssignSlots { session, .. } => format!("assign {}", *session == of_b),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        names,
        ["open true", "publish true", "muted true", "assign true"]
    );
    // Nobody heard of a track going or coming, and the late grace timer changes nothing.
    sleep(Duration::from_secs(31)).await;
    assert_eq!(
        b.refused("mute", json!({"track": track, "muted": true}))
            .await,
        "forbidden"
    );
    assert!(
        b.events.iter().all(|e| e["type"] != "track_unpublished"),
        "{:?}",
        b.events
    );
}

#[tokio::test(start_paused = true)]
async fn media_that_stays_away_ends_its_tracks() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let mut b = relay.client("r").await;
    a.offer(MEDIA).await;
    a.publish("0", "audio").await;
    let session = relay.shard().last_session();
    relay.emit(Event::SessionClosed {
        session,
        reason: CloseReason::DtlsFailed,
    });
    let start = tokio::time::Instant::now();
    assert_eq!(
        b.event("track_unpublished").await["reason"],
        "session_closed"
    );
    assert_eq!(start.elapsed().as_secs(), 30);
    // With its socket gone too, it leaves for the reason that its media did.
    drop(a);
    assert_eq!(b.event("participant_left").await["reason"], "dtls_failed");
}

#[tokio::test(start_paused = true)]
async fn renegotiation_ends_tracks_whose_m_line_no_longer_sends() {
    let relay = relay();
    let mut a = relay.client("r").await;
    a.offer(MEDIA).await;
    let kept = a.publish("0", "audio").await;
    let gone = a.publish("1", "camera").await;
    let session = relay.shard().last_session();
    relay.shard().take();
    let changed: Vec<_> = MEDIA
        .iter()
        .map(|(mid, kind, direction)| {
            (
                *mid,
                *kind,
                if *mid == "1" { "inactive" } else { *direction },
            )
        })
        .collect();
    a.offer(&changed).await;
    let event = a.event("track_unpublished").await;
    assert_eq!(event["track"], json!(gone));
    let seen = relay.shard().take();
    assert!(
        matches!(&seen[0], Command::UpdateMedia { session: s, media, .. } if *s == session && media.receive.len() == 1)
    );
    assert!(matches!(&seen[1], Command::Unpublish { track } if track.to_string() == gone));
    assert_eq!(
        a.refused("mute", json!({"track": gone, "muted": true}))
            .await,
        "no_track"
    );
    a.ok("mute", json!({"track": kept, "muted": true})).await;
    let restart = a
        .refused("offer", json!({"sdp": sdp_of("other", MEDIA)}))
        .await;
    assert_eq!(restart, "bad_sdp", "new credentials need restart");
}

#[tokio::test(start_paused = true)]
async fn what_the_shard_refuses_is_undone() {
    let relay = relay();
    let mut a = relay.client("r").await;
    relay
        .shard()
        .refuse
        .lock()
        .unwrap()
        .push(CommandError::Limit);
    assert_eq!(
        a.refused("offer", json!({"sdp": sdp(MEDIA)})).await,
        "limit"
    );
    a.offer(MEDIA).await;
    relay
        .shard()
        .refuse
        .lock()
        .unwrap()
        .push(CommandError::Busy);
    let publish = json!({"mid": "0", "source": "audio", "seal": {"contexts": [1]}});
    let error = a.request("publish", publish.clone()).await;
    assert_eq!(
        (&error["code"], &error["retry"]),
        (&json!("busy"), &json!(true))
    );
    let track = a.publish("0", "audio").await;
    relay
        .shard()
        .refuse
        .lock()
        .unwrap()
        .push(CommandError::NoSlot);
    assert_eq!(
        a.refused("slots", json!({"assign": [{"mid": "2", "track": track}]}))
            .await,
        "no_slot"
    );
    let token = a.joined["resume_token"].clone();
    let mut again = relay.socket().await;
    let resumed = again
        .ok("resume", json!({"protocol": 1, "resume_token": token}))
        .await;
    assert_eq!(
        resumed["slots"],
        json!([]),
        "the refused assignment left no trace"
    );
    // A shard that says nothing is waited for, but not for ever.
    *relay.shard().silent.lock().unwrap() = true;
    let start = tokio::time::Instant::now();
    assert_eq!(
        again
            .refused("slots", json!({"assign": [{"mid": "2", "track": track}]}))
            .await,
        "busy"
    );
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(relay.metric("sealcast_shard_requests_refused_total{error=\"busy\"}") >= 2.0);
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
async fn rooms_and_relay_have_limits_and_rooms_spread_over_shards() {
    let relay = Relay::start(Setup {
        max_participants: 4,
        max_participants_per_room: 2,
        shards: 2,
        ..Setup::default()
    });
    let mut kept = Vec::new();
    for room in ["a", "b", "a"] {
        let mut client = relay.client(room).await;
        client.offer(MEDIA).await;
        kept.push(client);
    }
    let token = relay.token("a");
    let got = join_error(&relay, json!({"protocol": 1, "token": token})).await;
    assert_eq!(got, ("room_full".into(), Some(4429)));
    kept.push(relay.client("c").await);
    let got = join_error(&relay, json!({"protocol": 1, "token": relay.token("d")})).await;
    assert_eq!(got, ("room_full".into(), Some(4429)));
    let opened = |i: usize| relay.shards[i].take().len();
    assert_eq!(
        (opened(0), opened(1)),
        (2, 1),
        "a on one shard, b on the other"
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
