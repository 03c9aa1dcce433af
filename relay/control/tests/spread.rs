//! A room on two shards: what each of them is told.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

use sealcast_control::rooms::Spread;
use sealcast_model::{Command, Event, ShardId};
use serde_json::json;
use support::{Relay, Setup, Socket};

const MEDIA: &[(&str, &str, &str)] = &[
    ("0", "audio", "sendonly"),
    ("1", "video", "sendonly"),
    ("2", "audio", "recvonly"),
    ("3", "video", "recvonly"),
];

/// A relay with two shards, on each of which a room may have `participants`.
fn relay(participants: usize) -> Relay {
    Relay::start(Setup {
        shards: 2,
        spread: Spread {
            participants,
            ..Spread::NEVER
        },
        ..Setup::default()
    })
}

async fn join(relay: &Relay) -> Socket {
    let mut client = relay.client("r").await;
    client.offer(MEDIA).await;
    client
}

/// What a shard was told since the last time, in short.
fn told(relay: &Relay, shard: usize) -> Vec<String> {
    let commands = relay.shards[shard].take();
    let text = |command: &Command| match command {
        Command::OpenSession { session, .. } => format!("open {session}"),
        Command::CloseSession { session, .. } => format!("close {session}"),
        Command::UpdateMedia { session, .. } => format!("update {session}"),
        Command::Publish { publish, .. } => format!("publish {}", publish.track),
        Command::Unpublish { track } => format!("unpublish {track}"),
        Command::Mirror(m) => format!("mirror {} of {}", m.session, m.home.0),
        Command::MirrorTrack(p) => format!("mirror {} on {}", p.track, p.session),
        Command::SetMuted { track, muted } => format!("muted {track} {muted}"),
        Command::AssignSlots { assign, .. } => {
            let track = assign[0].track.map(|track| track.to_string());
            format!("assign {}", track.unwrap_or_default())
        }
        other => format!("{other:?}"),
    };
    commands.iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_room_that_outgrows_a_shard_is_mirrored_on_the_next() {
    let relay = relay(1);
    let mut a = join(&relay).await;
    let sa = relay.shards[0].last_session();
    assert_eq!(told(&relay, 0), [format!("open {sa}")]);
    let camera = a.publish("1", "camera").await;
    assert_eq!(told(&relay, 0), [format!("publish {camera}")]);
    assert!(told(&relay, 1).is_empty(), "nobody is there");

    // Who comes to the other shard finds a mirror there before anything is shown.
    let mut b = join(&relay).await;
    let sb = relay.shards[1].last_session();
    assert_eq!(
        told(&relay, 1),
        [
            format!("open {sb}"),
            format!("mirror {sa} of 0"),
            format!("mirror {camera} on {sa}"),
        ]
    );
    b.ok("slots", json!({"assign": [{"mid": "3", "track": camera}]}))
        .await;
    assert_eq!(told(&relay, 1), [format!("assign {camera}")]);
    assert!(told(&relay, 0).is_empty());

    // Tracks are mirrored the other way alike, and end and are muted on both sides.
    let voice = b.publish("0", "audio").await;
    assert_eq!(
        told(&relay, 0),
        [
            format!("mirror {sb} of 1"),
            format!("mirror {voice} on {sb}")
        ]
    );
    a.ok("mute", json!({"track": camera, "muted": true})).await;
    assert_eq!(told(&relay, 0), [format!("muted {camera} true")]);
    assert_eq!(
        told(&relay, 1),
        [format!("publish {voice}"), format!("muted {camera} true")]
    );
    a.offer(MEDIA).await;
    assert_eq!(told(&relay, 0), [format!("update {sa}")]);
    assert_eq!(
        told(&relay, 1),
        [format!("mirror {sa} of 0")],
        "renegotiated"
    );
    a.ok("unpublish", json!({"track": camera})).await;
    assert_eq!(told(&relay, 0), [format!("unpublish {camera}")]);
    let ended = told(&relay, 1);
    assert_eq!(
        ended,
        [format!("close {sa}")],
        "nothing of it is left to mirror"
    );

    b.ok("leave", json!({})).await;
    assert_eq!(told(&relay, 0), [format!("close {sb}")]);
    assert_eq!(told(&relay, 1), [format!("close {sb}")]);
}

#[tokio::test(start_paused = true)]
async fn a_muted_track_is_muted_for_who_comes_later() {
    let relay = relay(1);
    let mut a = join(&relay).await;
    let camera = a.publish("1", "camera").await;
    let voice = a.publish("0", "audio").await;
    a.ok("mute", json!({"track": camera, "muted": true})).await;
    let _b = join(&relay).await;
    let told = told(&relay, 1);
    assert!(told.contains(&format!("muted {camera} true")), "{told:?}");
    assert!(
        told.iter()
            .any(|t| t.starts_with(&format!("mirror {voice}")))
    );
    assert!(!told.contains(&format!("muted {voice} true")));
}

#[tokio::test(start_paused = true)]
async fn mirrors_follow_sessions_that_end_and_come_back() {
    let relay = relay(1);
    let mut a = join(&relay).await;
    let old = relay.shards[0].last_session();
    let camera = a.publish("1", "camera").await;
    let mut b = join(&relay).await;
    b.ok("slots", json!({"assign": [{"mid": "3", "track": camera}]}))
        .await;
    told(&relay, 0);
    told(&relay, 1);
    relay.emit(Event::SessionClosed {
        session: old,
        reason: sealcast_model::CloseReason::ConsentLost,
    });
    assert_eq!(told(&relay, 1), [format!("close {old}")]);
    a.offer(MEDIA).await;
    let new = relay.shards[0].last_session();
    assert_eq!(
        told(&relay, 1),
        [
            format!("mirror {new} of 0"),
            format!("mirror {camera} on {new}"),
            format!("assign {camera}"),
        ],
        "and B's slot shows it again"
    );
    // The last subscriber of a shard takes the mirrors along.
    b.ok("leave", json!({})).await;
    let told = told(&relay, 1);
    assert!(told.contains(&format!("close {new}")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn homes_are_named_by_the_shards_own_ids() {
    let relay = relay(2);
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut client = join(&relay).await;
        client.publish("1", "camera").await;
        all.push(client);
    }
    for shard in [0, 1] {
        let homes: Vec<ShardId> = relay.shards[shard]
            .take()
            .iter()
            .filter_map(|c| match c {
                Command::Mirror(m) => Some(m.home),
                _ => None,
            })
            .collect();
        assert_eq!(homes, [ShardId(1 - shard as u16); 2]);
    }
}
