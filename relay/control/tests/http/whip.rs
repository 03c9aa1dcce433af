//! WHIP and WHEP from POST to DELETE.

use super::*;

const SEND: &[(&str, &str, &str)] = &[("0", "audio", "sendrecv"), ("1", "video", "sendonly")];
const RECEIVE: &[(&str, &str, &str)] = &[("0", "audio", "recvonly"), ("1", "video", "recvonly")];

#[tokio::test]
async fn a_whip_session_from_post_to_delete() {
    let http = start(Setup::default()).await;
    let mut viewer = http.relay.client("r").await;
    let token = http.relay.token("r");
    let created = http
        .offer("/whip/r?video=imaging", &token, &sdp(SEND))
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("content-type"), Some("application/sdp"));
    assert!(created.header("etag").is_some());
    assert!(created.body.contains("a=ice-lite") && created.body.contains("a=recvonly"));
    let location = created.header("location").unwrap().to_owned();
    assert!(location.starts_with("/whip/r/") && location.len() == "/whip/r/".len() + 32);
    let sources = [
        viewer.event("track_published").await["source"].clone(),
        viewer.event("track_published").await["source"].clone(),
    ];
    assert_eq!(sources, [json!("audio"), json!("imaging")]);

    let fragment = [("content-type", "application/trickle-ice-sdpfrag")];
    let patch = |body: &'static str| http.request("PATCH", &location, &fragment, body);
    assert_eq!(
        patch("a=ice-ufrag:abcd\r\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n")
            .await
            .status,
        204
    );
    assert_eq!(
        patch("a=ice-ufrag:new1\r\n").await.status,
        422,
        "an ICE restart"
    );
    assert_eq!(http.request("PATCH", &location, &[], "").await.status, 415);
    let elsewhere = location.replace("/whip/r/", "/whip/other/");
    let player = location.replace("/whip/", "/whep/");
    for wrong in [elsewhere.as_str(), player.as_str(), "/whip/r/00"] {
        assert_eq!(
            http.request("DELETE", wrong, &[], "").await.status,
            404,
            "{wrong}"
        );
    }
    assert_eq!(http.request("DELETE", &location, &[], "").await.status, 200);
    assert_eq!(viewer.event("participant_left").await["reason"], "left");
    assert_eq!(http.request("DELETE", &location, &[], "").await.status, 404);
    assert_eq!(http.counted("whip", "POST", 201), 1.0);
    assert_eq!(http.counted("whip", "DELETE", 404), 3.0);
    let closed = http.relay.shard().take();
    assert!(
        closed
            .iter()
            .any(|c| matches!(c, Command::CloseSession { .. }))
    );
}

#[tokio::test]
async fn a_whip_publisher_that_vanishes_leaves() {
    let http = start(Setup::default()).await;
    let mut viewer = http.relay.client("r").await;
    let created = http
        .offer("/whip/r", &http.relay.token("r"), &sdp(SEND))
        .await;
    assert_eq!(created.status, 201);
    let session = http.relay.shard().last_session();
    http.relay.emit(Event::SessionClosed {
        session,
        reason: CloseReason::ConsentLost,
    });
    assert_eq!(
        viewer.event("participant_left").await["reason"],
        "consent_lost"
    );
    let gone = http
        .request("DELETE", created.header("location").unwrap(), &[], "")
        .await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn a_whep_player_gets_tracks_as_they_come_and_go() {
    let http = start(Setup::default()).await;
    let mut a = http.relay.client("r").await;
    a.offer(&[
        ("0", "video", "sendonly"),
        ("1", "video", "sendonly"),
        ("2", "audio", "sendonly"),
    ])
    .await;
    let first = a.publish("0", "camera").await;
    let created = http
        .offer("/whep/r", &http.relay.token("r"), &sdp(RECEIVE))
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(created.body.contains("a=sendonly"));
    assert_eq!(
        a.event("participant_joined").await["type"],
        "participant_joined"
    );
    let shows = |track: &str| {
        let track = track.to_owned();
        let shard = Arc::clone(&http.relay.shards[0]);
        async move {
            let assigned = async {
                loop {
                    let seen = shard.seen.lock().unwrap().iter().any(|c| match c {
                        Command::AssignSlots { assign, .. } => assign
                            .iter()
                            .any(|s| s.track.is_some_and(|t| t.to_string() == track)),
                        _ => false,
                    });
                    if seen {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, assigned)
                .await
                .expect("the track is assigned");
        }
    };
    shows(&first).await;
    let second = a.publish("1", "screen").await;
    let sound = a.publish("2", "audio").await;
    shows(&sound).await;
    let count = |track: &str| {
        let seen = http.relay.shard().seen.lock().unwrap();
        let assigned = seen.iter().filter(|c| {
            format!("{c:?}").contains(track) && matches!(c, Command::AssignSlots { .. })
        });
        assigned.count()
    };
    assert_eq!(count(&second), 0, "the only video slot is taken");
    a.ok("unpublish", json!({"track": first})).await;
    shows(&second).await;
}

#[tokio::test]
async fn whip_and_whep_refuse_with_the_right_status() {
    let http = start(Setup::default()).await;
    let offer = sdp(SEND);
    let good = http.relay.token("r");
    let with = |grants: Grants| http.relay.token_with("r", grants);
    let sealed = with(Grants {
        unsealed: false,
        ..all_grants()
    });
    let silent = with(Grants {
        publish: vec![Source::Camera],
        ..all_grants()
    });
    let deaf = with(Grants {
        subscribe: false,
        ..all_grants()
    });
    let big = format!("v=0\r\n{}", "a=x\r\n".repeat(2 << 20));
    let useless = offer.replace("opus", "speex").replace("VP8", "Theora");
    let m_lines = format!("v=0\n{}", "m=a 9 R 0\n".repeat(10_000));
    for (path, token, body, status) in [
        ("/whip/r", "", offer.as_str(), 401),
        ("/whip/r", "junk", &offer, 401),
        ("/whip/other", &good, &offer, 403),
        ("/whip/r", &sealed, &offer, 403),
        ("/whip/r", &silent, &offer, 403),
        ("/whep/r", &deaf, &sdp(RECEIVE), 403),
        ("/whip/r", &good, "", 400),
        ("/whip/r", &good, "v=0\r\nm=audio\r\n", 400),
        ("/whip/r", &good, &m_lines, 413),
        ("/whip/r", &good, &useless, 406),
        ("/whip/r", &good, &sdp(RECEIVE), 406),
        ("/whep/r", &good, &sdp(&[("0", "video", "sendonly")]), 406),
        ("/whip/r?video=audio", &good, &offer, 400),
        ("/whip/r", &good, &big, 413),
    ] {
        let got = http.offer(path, token, body).await;
        assert_eq!(got.status, status, "{path} {got:?}");
        assert_eq!(
            got.header("access-control-allow-origin"),
            Some("*"),
            "{path}"
        );
        assert_eq!(got.header("www-authenticate").is_some(), status == 401);
    }
    let bearer = format!("Bearer {good}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "text/plain"),
    ];
    assert_eq!(
        http.request("POST", "/whip/r", &headers, &offer)
            .await
            .status,
        415
    );
    assert_eq!(http.counted("whip", "POST", 403), 3.0);
    assert_eq!(http.counted("whip", "POST", 413), 2.0);
    assert_eq!(
        http.relay.app.rooms.participants(),
        0,
        "nobody is left behind"
    );
    assert_eq!(
        http.relay
            .metric("sealcast_http_errors_total{cause=\"body_too_large\"}"),
        1.0
    );
    assert_eq!(
        http.relay
            .metric("sealcast_tokens_refused_total{reason=\"wrong_room\"}"),
        1.0
    );
    let preflight = http.request("OPTIONS", "/whip/r", &[], "").await;
    assert_eq!(
        (preflight.status, preflight.header("accept-post")),
        (204, Some("application/sdp"))
    );

    let strict = start(Setup {
        sealed_required: true,
        ..Setup::default()
    })
    .await;
    let got = strict
        .offer("/whip/r", &strict.relay.token("r"), &offer)
        .await;
    assert_eq!(got.status, 403, "whatever the token says");
}

#[tokio::test]
async fn a_full_or_stopping_relay_refuses() {
    let http = start(Setup {
        max_participants: 1,
        ..Setup::default()
    })
    .await;
    let token = http.relay.token("r");
    assert_eq!(http.offer("/whip/r", &token, &sdp(SEND)).await.status, 201);
    assert_eq!(
        http.offer("/whep/r", &token, &sdp(RECEIVE)).await.status,
        429
    );
    assert_eq!(http.get("/readyz").await.status, 200);
    http.relay.app.rooms.stop(Duration::ZERO).await;
    let got = http.offer("/whep/r", &token, &sdp(RECEIVE)).await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("5")));
    assert_eq!(http.get("/readyz").await.status, 503);
    assert_eq!(
        http.get("/healthz").await.status,
        200,
        "the process is fine"
    );
    http.stop.send_replace(true);
    timeout(PATIENCE, http.server)
        .await
        .expect("the server ends")
        .unwrap();
    assert!(
        TcpStream::connect(http.addr).await.is_err(),
        "and with it the listener"
    );
}
