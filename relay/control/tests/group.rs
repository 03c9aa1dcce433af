//! Rooms with group keys over signalling: native members on the clients' side, on a paused clock.
//! What members and the delivery service make of each other's messages is tested in
//! `sealcast-delivery`; here it is what signalling adds: sockets that drop and resume, participants
//! that leave, limits, metrics.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, Member, MemberConfig, MemberKey};
use sealcast_model::{CloseReason, Command, Event};
use serde_json::json;
use std::time::Duration;
use support::{Relay, Setup, Socket, moderator};
use tokio::time::{Instant, sleep, timeout};

/// A wall time for members: what KeyPackages say of theirs is checked by the library's own clock.
const START: Duration = Duration::from_secs(1_800_000_000);

/// How long a step of [`settle`] listens for messages.
const STEP: Duration = Duration::from_millis(20);

struct Peer {
    socket: Socket,
    member: Member,
    started: Instant,
    /// Codes of refused group messages.
    refused: Vec<String>,
}

impl Peer {
    async fn join(relay: &Relay, room: &str, name: &str, started: Instant) -> Peer {
        let socket = relay.client_with(room, moderator()).await;
        assert_eq!(socket.joined["keys"], "group");
        assert_eq!(socket.joined["group_suite"], 1);
        let key = MemberKey::generate(GroupSuite::X25519).unwrap();
        let claim = Claim::Id(name.into());
        let now = START + started.elapsed();
        let member = Member::new(now, MemberConfig::default(), key, &claim).unwrap();
        Peer {
            socket,
            member,
            started,
            refused: Vec::new(),
        }
    }

    fn now(&self) -> Duration {
        START + self.started.elapsed()
    }

    async fn group(&mut self, data: &[u8]) -> serde_json::Value {
        let fields = json!({"data": STANDARD.encode(data)});
        self.socket.request("group", fields).await
    }

    /// Sends what is to be sent and takes in what has come.
    async fn step(&mut self) {
        if self
            .member
            .poll_timeout()
            .is_some_and(|at| at <= self.now())
        {
            self.member.handle_timeout(self.now()).unwrap();
        }
        while let Some(message) = self.member.poll_outgoing() {
            let response = self.group(&message).await;
            if response["type"] == "error" {
                self.refused.push(response["code"].as_str().unwrap().into());
            }
        }
        while let Ok(Ok(message)) = timeout(STEP, self.socket.next()).await {
            self.socket.events.push(message);
        }
        for event in std::mem::take(&mut self.socket.events) {
            if event["type"] != "group" {
                continue;
            }
            let message = STANDARD.decode(event["data"].as_str().unwrap()).unwrap();
            self.member.handle_message(self.now(), &message).unwrap();
        }
    }

    fn is_settled(&self) -> bool {
        self.member.epoch().is_some() && self.member.sending_epoch() == self.member.epoch()
    }
}

/// Lets everybody talk until they are one group, and nobody else is in it.
async fn settle(peers: &mut [&mut Peer]) {
    for _ in 0..200 {
        for peer in peers.iter_mut() {
            peer.step().await;
        }
        let code = peers[0].member.epoch_authenticator();
        let agreed = code.is_some()
            && peers.iter().all(|p| {
                p.is_settled()
                    && p.member.epoch_authenticator() == code
                    && p.member.members().len() == peers.len()
            });
        if agreed {
            return;
        }
    }
    panic!("{} members do not agree", peers.len());
}

fn relay() -> Relay {
    Relay::start(Setup {
        group_keys: true,
        ..Setup::default()
    })
}

#[tokio::test(start_paused = true)]
async fn joining_leaving_and_being_removed_change_the_keys() {
    let (relay, start) = (relay(), Instant::now());
    let mut a = Peer::join(&relay, "r", "a", start).await;
    settle(&mut [&mut a]).await;
    let mut b = Peer::join(&relay, "r", "b", start).await;
    settle(&mut [&mut a, &mut b]).await;
    let mut c = Peer::join(&relay, "r", "c", start).await;
    settle(&mut [&mut a, &mut b, &mut c]).await;
    let key = a.member.sframe_base_key().unwrap();
    assert_eq!(relay.metric("sealcast_groups"), 1.0);

    b.socket.ok("leave", json!({})).await;
    settle(&mut [&mut a, &mut c]).await;
    assert_ne!(a.member.sframe_base_key().unwrap(), key);
    assert_eq!(
        b.member.sframe_base_key().unwrap(),
        key,
        "b kept what it had"
    );

    let removed = c.socket.id();
    a.socket.ok("remove", json!({"participant": removed})).await;
    settle(&mut [&mut a]).await;
    a.socket.ok("leave", json!({})).await;
    assert_eq!(relay.metric("sealcast_groups"), 0.0, "gone with its room");
    let commits = "sealcast_group_events_total{event=\"commit\"}";
    assert_eq!(relay.metric(commits), 4.0, "two joins, a leave, a removal");
    assert!(a.refused.is_empty() && b.refused.is_empty() && c.refused.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_resumed_socket_gets_what_it_missed_and_keeps_its_leaf() {
    let (relay, start) = (relay(), Instant::now());
    let mut a = Peer::join(&relay, "r", "a", start).await;
    let mut b = Peer::join(&relay, "r", "b", start).await;
    settle(&mut [&mut a, &mut b]).await;
    let (leaf, epoch) = (b.member.leaf(), b.member.epoch());

    let token = b.socket.joined["resume_token"].clone();
    let mut lost = std::mem::replace(&mut b.socket, relay.socket().await);
    lost.socket.close(None).await.unwrap();
    lost.closed().await;
    a.member.request_rotation();
    for _ in 0..20 {
        a.step().await;
    }
    assert!(a.member.epoch() > epoch, "the others move on");

    let fields = json!({"protocol": 1, "resume_token": token});
    b.socket.ok("resume", fields).await;
    b.member.handle_connected(b.now()).unwrap();
    settle(&mut [&mut a, &mut b]).await;
    assert_eq!(b.member.leaf(), leaf);
    assert_eq!(
        relay.metric("sealcast_group_events_total{event=\"added_again\"}"),
        0.0
    );
}

#[tokio::test(start_paused = true)]
async fn who_stays_away_for_the_grace_period_loses_its_leaf() {
    let (relay, start) = (relay(), Instant::now());
    let mut a = Peer::join(&relay, "r", "a", start).await;
    let mut b = Peer::join(&relay, "r", "b", start).await;
    settle(&mut [&mut a, &mut b]).await;
    b.socket.socket.close(None).await.unwrap();
    b.socket.closed().await;
    for _ in 0..20 {
        a.step().await;
    }
    assert_eq!(
        a.member.members().len(),
        2,
        "within the grace period it stays"
    );
    sleep(Duration::from_secs(31)).await;
    settle(&mut [&mut a]).await;
}

#[tokio::test(start_paused = true)]
async fn another_socket_takes_the_group_over_while_the_first_still_stands() {
    let (relay, start) = (relay(), Instant::now());
    let mut a = Peer::join(&relay, "r", "a", start).await;
    let mut b = Peer::join(&relay, "r", "b", start).await;
    settle(&mut [&mut a, &mut b]).await;
    let token = b.socket.joined["resume_token"].clone();
    let mut former = std::mem::replace(&mut b.socket, relay.socket().await);
    let fields = json!({"protocol": 1, "resume_token": token});
    b.socket.ok("resume", fields).await;
    assert_eq!(former.closed().await, Some(4409));
    // Until it says Hello, the new socket gets nothing of the group.
    a.member.request_rotation();
    for _ in 0..20 {
        a.step().await;
    }
    assert!(timeout(STEP, b.socket.next()).await.is_err());
    b.member.handle_connected(b.now()).unwrap();
    settle(&mut [&mut a, &mut b]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_group_message_is_refused_by_its_reason() {
    let (relay, start) = (relay(), Instant::now());
    let mut a = Peer::join(&relay, "r", "a", start).await;
    settle(&mut [&mut a]).await;
    for (data, reason) in [
        (&[][..], "wire"),
        (&[1, 99], "wire"),
        (&[1, 3, 1, 0], "mls-format"),
    ] {
        let series = format!("sealcast_group_messages_total{{result=\"{reason}\"}}");
        let before = relay.metric(&series);
        let refused = a.group(data).await;
        assert_eq!(refused["code"], "bad_group", "{refused}");
        assert_eq!(relay.metric(&series), before + 1.0, "{refused}");
    }
    let code = a.socket.refused("group", json!({"data": "%"})).await;
    assert_eq!(code, "bad_message");
    let mut limited = 0;
    for _ in 0..40 {
        limited += u32::from(a.group(&[1, 99]).await["code"] == "rate_limited");
    }
    assert!(limited >= 8, "{limited}");
    let link = Relay::start(Setup::default());
    let mut socket = link.client("r").await;
    assert_eq!(socket.joined["keys"], "link");
    assert_eq!(
        socket.refused("group", json!({"data": ""})).await,
        "forbidden"
    );
}

#[tokio::test(start_paused = true)]
async fn sealed_messages_go_to_the_others_or_to_one() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let mut b = relay.client("r").await;
    let mut c = relay.client("r").await;
    let mut stranger = relay.client("other").await;
    a.ok("sealed", json!({"data": "AAEC"})).await;
    for socket in [&mut b, &mut c] {
        let event = socket.event("sealed").await;
        assert_eq!(event["participant"], a.joined["participant"]);
        assert_eq!(event["data"], "AAEC");
        assert!(event["seq"].is_null());
    }
    a.ok("sealed", json!({"data": "AAED", "to": b.id()})).await;
    assert_eq!(b.event("sealed").await["data"], "AAED");
    for socket in [&mut a, &mut c, &mut stranger] {
        let ping = socket
            .refused("unpublish", json!({"track": "TR_00000000000000aa"}))
            .await;
        assert_eq!(ping, "no_track");
        assert!(
            !socket.events.iter().any(|e| e["type"] == "sealed"),
            "{:?}",
            socket.events
        );
    }
    let long = STANDARD.encode(vec![0; 16 * 1024 + 1]);
    assert_eq!(a.refused("sealed", json!({"data": long})).await, "limit");
    assert_eq!(
        a.refused("sealed", json!({"data": "?"})).await,
        "bad_message"
    );
    let mut limited = 0;
    for _ in 0..70 {
        limited +=
            u32::from(a.request("sealed", json!({"data": "AA=="})).await["code"] == "rate_limited");
    }
    assert!(limited >= 8, "{limited}");
}

#[tokio::test(start_paused = true)]
async fn sealed_messages_on_the_data_channel_reach_those_who_have_one_there_and_others_by_signalling()
 {
    let relay = relay();
    let mut a = relay.client("r").await;
    let mut b = relay.client("r").await;
    let mut c = relay.client("r").await;
    let mut stranger = relay.client("other").await;
    let mut sessions = Vec::new();
    for socket in [&mut a, &mut b, &mut c, &mut stranger] {
        socket.offer(&[("0", "application", "sendrecv")]).await;
        sessions.push(relay.shard().last_session());
    }
    // C's channel is not open.
    for session in [sessions[0], sessions[1], sessions[3]] {
        relay.emit(Event::DataOpen { session });
    }
    relay.shard().take();
    let say = |binary, data: &[u8]| {
        relay.emit(Event::Data {
            session: sessions[0],
            binary,
            data: data.to_vec(),
        });
        relay.shard().take()
    };
    match &say(true, &[0, 1, 2])[..] {
        [
            Command::SendData {
                sessions: to,
                binary: true,
                data,
            },
        ] => assert_eq!((to, &data[..]), (&vec![sessions[1]], &[0, 1, 2][..])),
        other => panic!("{other:?}"),
    }
    let event = c.event("sealed").await;
    assert_eq!(event["participant"], a.joined["participant"]);
    assert_eq!(event["data"], "AAEC");
    let lane = "sealcast_sealed_messages_total{lane=\"data_channel\"}";
    assert_eq!(relay.metric(lane), 1.0);

    // Text has no meaning there, and an empty message neither; who sends it is told.
    for (binary, data) in [(false, &b"{\"type\":\"sealed\"}"[..]), (true, b"")] {
        match &say(binary, data)[..] {
            [
                Command::SendData {
                    sessions: to,
                    binary: false,
                    data,
                },
            ] => {
                assert_eq!(to, &vec![sessions[0]]);
                let told: serde_json::Value = serde_json::from_slice(data).unwrap();
                assert_eq!(
                    (&told["type"], &told["code"]),
                    (&json!("error"), &json!("bad_message"))
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let refused = "sealcast_signal_requests_total{result=\"bad_message\",type=\"data\"}";
    assert_eq!(relay.metric(refused), 2.0);
    assert_eq!(relay.metric(lane), 1.0);
    // A session that has ended says nothing more.
    relay.emit(Event::SessionClosed {
        session: sessions[0],
        reason: CloseReason::PeerClosed,
    });
    assert!(say(true, b"late").is_empty());
    for socket in [&mut a, &mut b, &mut stranger] {
        let ping = socket
            .refused("unpublish", json!({"track": "TR_00000000000000aa"}))
            .await;
        assert_eq!(ping, "no_track");
        assert!(!socket.events.iter().any(|e| e["type"] == "sealed"));
    }
}

#[tokio::test(start_paused = true)]
async fn reports_become_sums_by_reason() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let report = json!({"receiving": [
        {"track": "TR_0000000000000001", "opened": 250, "unknown_key": 2, "altered": 1,
         "misattributed": 3, "malformed": 4},
        {"track": "TR_0000000000000002", "unknown_key": 4_000_000_000_u32},
    ]});
    let frames = |result| {
        relay.metric(&format!(
            "sealcast_client_frames_total{{result=\"{result}\"}}"
        ))
    };
    assert_eq!(frames("misattributed"), 0.0, "there before the first");
    a.ok("report", report).await;
    let counted = ["opened", "altered", "misattributed", "malformed"].map(frames);
    assert_eq!(counted, [250.0, 1.0, 3.0, 4.0]);
    assert_eq!(
        frames("unknown_key"),
        432_002.0,
        "one client's word has a limit"
    );
    let many: Vec<_> = (0..129)
        .map(|_| json!({"track": "TR_0000000000000001"}))
        .collect();
    assert_eq!(
        a.refused("report", json!({"receiving": many})).await,
        "limit"
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_told_who_cannot_open_its_track_and_when_they_can_again() {
    let relay = relay();
    let mut a = relay.client("r").await;
    let mut b = relay.client("r").await;
    a.offer(&[("0", "audio", "sendonly")]).await;
    let track = a.publish("0", "audio").await;
    let say = |failing: bool| {
        json!({"receiving": [
            {"track": track, "opened": 7, "unknown_key": 7, "failing": failing},
            {"track": "TR_00000000000000aa", "unknown_key": 5, "failing": true},
        ]})
    };
    // Repetitions of what the owner knows say nothing new.
    for failing in [false, true, true, false, false] {
        b.ok("report", say(failing)).await;
    }
    let by_b = b.joined["participant"].clone();
    for failing in [true, false] {
        let event = a.event("track_unopened").await;
        assert_eq!(event["participant"], by_b);
        assert_eq!(event["track"], json!(track));
        assert_eq!(event["failing"], json!(failing));
        assert!(event["seq"].is_null(), "for the owner alone");
    }
    a.ok("unpublish", json!({"track": track})).await;
    b.ok("report", say(true)).await;
    for socket in [&mut a, &mut b] {
        socket.ok("sealed", json!({"data": "AA=="})).await;
        let told = socket.events.iter();
        assert_eq!(told.filter(|e| e["type"] == "track_unopened").count(), 0);
    }
}
