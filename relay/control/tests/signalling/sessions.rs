//! Sockets that drop and media that end: what is kept, for how long, and what is undone.

use super::*;

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
