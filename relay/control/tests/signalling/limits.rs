//! What ends or slows a socket, a room or a relay: malformed, oversized, too many, too slow.

use super::*;

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
