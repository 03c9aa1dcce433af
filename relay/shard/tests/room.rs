//! Three clients with real ICE, DTLS-SRTP and SCTP in a room of one shard, in memory and under a
//! virtual clock.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use common::{assert_replies_ok, instant, vp8_payload};
use proptest::prelude::*;
use sealcast_model::{
    CloseReason, Command, CommandError, Counter, Gauge, MediaKind, RequestId, SessionId, Source,
    Time,
};
use sealcast_rtp::demux::{Protocol, classify};
use std::time::Duration;
use world::{World, path};

#[test]
fn three_clients_see_and_hear_each_other() {
    let mut world = World::room(3);
    for from in 0..3 {
        world.send_frames(from, 10, 4);
    }
    for client in &world.clients {
        let video = client.received_of(MediaKind::Video);
        let audio = client.received_of(MediaKind::Audio);
        assert_eq!(
            (video.len(), audio.len()),
            (80, 20),
            "client {}",
            client.index
        );
        assert!(video.iter().all(|p| p.payload.len() == 1_000));
    }
    assert!(world.outbox.longest_run >= 4, "a frame leaves as one run");
    let camera = world.stats.media(Source::Camera);
    assert_eq!(camera.dwell.snapshot().count(), 3 * 10 * 4 * 2);
    assert_eq!(world.stats.get(Counter::SessionsConnected), 3);
    assert_eq!(world.stats.gauge(Gauge::Sessions), 3);
}

#[test]
fn packets_go_back_to_the_pool() {
    let mut world = World::room(3);
    world.send_frames(0, 50, 4);
    let capacity = world.stats.gauge(Gauge::PoolCapacity);
    for i in 0..3 {
        world.command(Command::CloseSession {
            session: SessionId(i + 1),
            reason: CloseReason::Requested,
        });
    }
    assert_eq!(world.stats.gauge(Gauge::PoolFree), capacity);
    assert_eq!(world.stats.gauge(Gauge::Sessions), 0);
}

#[test]
fn slots_are_told_on_the_data_channel() {
    let mut world = World::room(3);
    let track = world.clients[1].track(MediaKind::Video);
    world.command(Command::Unpublish { track });
    for i in [0, 2] {
        let client = &world.clients[i];
        assert!(client.channel.is_some());
        // The others' audio and video, and then the track that ended.
        assert_eq!(client.notices.len(), 5, "{:?}", client.notices);
        let shown = format!(r#""track":"{track}""#);
        assert!(client.notices[..4].iter().any(|n| n.contains(&shown)));
        assert!(client.notices[4].contains(r#""track":null,"revision":"#));
    }
}

#[test]
fn a_late_channel_is_told_what_is_shown() {
    let mut world = World::new();
    world.add_client(1);
    world.add_client(1);
    // Assigned before anybody is connected.
    let commands = [
        world.clients[0].publish(MediaKind::Audio),
        world.clients[1].watch(
            MediaKind::Audio,
            &[world.clients[0].track(MediaKind::Audio)],
        ),
    ];
    for command in commands {
        world.shard.handle_command(world.now, command);
    }
    world.run(Duration::from_secs(3));
    assert_replies_ok(&world.events);
    assert_eq!(world.clients[1].notices.len(), 1);
    assert!(world.clients[0].notices.is_empty());
}

#[test]
fn commands_that_do_not_fit_are_refused() {
    let mut world = World::room(2);
    world.events.clear();
    let again = world.clients[0].open(1);
    world.command(again);
    assert_eq!(world.reply(1_000), Some(Err(CommandError::Invalid)));
    world.command(Command::AssignSlots {
        request: RequestId(1),
        session: SessionId(99),
        assign: Vec::new(),
    });
    assert_eq!(world.reply(1), Some(Err(CommandError::NoSession)));
    world.send_frames(0, 1, 1);
    assert_eq!(world.clients[1].received_of(MediaKind::Video).len(), 1);
}

#[test]
fn stopping_tells_every_client() {
    let mut world = World::room(3);
    world.shard.handle_command(world.now, Command::Stop);
    world.shard.flush(world.now, &mut world.outbox);
    for client in &world.clients {
        let told = |what| {
            let mut to = world
                .outbox
                .datagrams
                .iter()
                .filter(|(p, _)| p.remote == client.local);
            to.any(|(_, datagram)| classify(datagram) == what)
        };
        assert!(told(Protocol::Rtcp), "BYE");
        assert!(told(Protocol::Dtls), "close_notify");
    }
    world.run(Duration::from_millis(50));
    assert!(world.shard.is_stopping() && world.shard.session_count() == 0);
    let closed = world.closed();
    assert_eq!(closed.len(), 3);
    assert!(
        closed
            .iter()
            .all(|(_, reason)| *reason == CloseReason::Stopping)
    );
    let refused = world.clients[0].open(1);
    world.events.clear();
    world.command(refused);
    assert_eq!(world.reply(1_000), Some(Err(CommandError::Busy)));
    // close_notify reached the clients: str0m reports it by failing.
    world.run(Duration::from_secs(1));
    assert!(world.clients.iter().all(|c| c.dead || !c.rtc.is_alive()));
}

#[test]
fn silent_clients_are_closed_and_the_rest_goes_on() {
    let mut world = World::room(3);
    world.clients[0].dead = true;
    world.run(Duration::from_secs(40));
    assert_eq!(world.closed(), [(SessionId(1), CloseReason::ConsentLost)]);
    world.send_frames(1, 3, 2);
    assert_eq!(world.clients[2].received_of(MediaKind::Video).len(), 6);
}

#[test]
fn a_client_that_never_comes_is_closed() {
    let mut world = World::new();
    world.add_client(1);
    world.clients[0].dead = true;
    world.run(Duration::from_secs(30));
    assert_eq!(
        world.closed(),
        [(SessionId(1), CloseReason::ConnectTimeout)]
    );
    assert_eq!(
        world.shard.poll_timeout(),
        Time::NEVER,
        "nothing to wake for"
    );
}

#[test]
fn idle_sessions_wake_the_shard_rarely() {
    let mut world = World::room(3);
    world.run(Duration::from_secs(10));
    let mut wakes = 0;
    let end = world.now + Duration::from_secs(60);
    // Without clients: only the shard's own timers.
    while world.shard.poll_timeout() < end && world.shard.session_count() == 3 {
        let next = world.shard.poll_timeout();
        assert!(next > world.now, "a timer that does not move");
        world.now = next;
        world.shard.handle_timeout(world.now);
        world.shard.flush(world.now, &mut world.outbox);
        wakes += 1;
    }
    assert!(wakes < 400, "{wakes} wake-ups until consent lapsed");
}

#[test]
fn the_wrong_source_is_dropped_unanswered() {
    let mut world = World::room(2);
    let stranger = path("192.0.2.66:666".parse().unwrap());
    let cases: [(&[u8], Counter); 6] = [
        (&[], Counter::DropUnknownProtocol),
        (&[100; 50], Counter::DropUnknownProtocol),
        (&[128; 50], Counter::DropUnknownSource),
        (&[22, 254, 253, 0, 0], Counter::DropDtlsUnvalidated),
        (&[0, 1, 0, 0], Counter::DropStunMalformed),
        (&[128; 1_501], Counter::DropOversize),
    ];
    for (datagram, counter) in cases {
        let before = world.stats.get(counter);
        let now = world.now;
        world.shard.handle_datagram(now, now, &stranger, datagram);
        assert_eq!(world.stats.get(counter), before + 1, "{counter:?}");
    }
    world.shard.flush(world.now, &mut world.outbox);
    assert!(world.outbox.datagrams.is_empty());
}

/// What a hostile sender tries: noise, and real packets bent.
fn hostile() -> impl Strategy<Value = (bool, Vec<u8>, usize, u8)> {
    let first = prop_oneof![0u8..4, 20u8..64, 128u8..192, any::<u8>()];
    let noise = (first, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(f, mut v)| {
        v.insert(0, f);
        v
    });
    (any::<bool>(), noise, 0usize..1_500, any::<u8>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Noise from strangers and from the address of a client, among its packets: nobody is closed
    /// and everything is forwarded.
    #[test]
    fn hostile_datagrams_disturb_nobody(attacks in proptest::collection::vec(hostile(), 1..60)) {
        let mut world = World::room(2);
        let before = world.clients[1].received.len();
        for (i, (from_client, noise, at, bit)) in attacks.iter().enumerate() {
            let now = instant(world.epoch, world.now);
            world.clients[0].send(now, MediaKind::Video, true, vp8_payload(true, 500, i as u8));
            let mut out = Vec::new();
            world.clients[0].poll(now, &mut out);
            let from = path(if *from_client {
                world.clients[0].local
            } else {
                "192.0.2.66:666".parse().unwrap()
            });
            let mut bent = out[0].clone();
            let len = bent.len();
            bent[at % len] ^= bit | 1;
            for datagram in [noise, &bent] {
                world.shard.handle_datagram(world.now, world.now, &from, datagram);
            }
            for datagram in &out {
                let from = path(world.clients[0].local);
                world.shard.handle_datagram(world.now, world.now, &from, datagram);
            }
            world.run(Duration::from_millis(5));
        }
        prop_assert!(world.closed().is_empty());
        prop_assert_eq!(world.clients[1].received.len() - before, attacks.len());
        prop_assert_eq!(world.stats.get(Counter::SessionPanics), 0);
    }
}
