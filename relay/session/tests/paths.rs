//! Which addresses a session trusts, and where its egress goes.

mod common;

use common::{Setup, World, addr, udp};
use sealcast_model::CloseReason;
use sealcast_model::limits::CONSENT_TIMEOUT;
use sealcast_session::{Path, SessionOutput, Transport};
use std::time::Duration;
use str0m::Event;
use str0m::config::DtlsVersion;

const REBOUND: &str = "198.51.100.1:9999";

#[test]
fn paths_are_announced_before_anything_goes_over_them() {
    let world = World::connected(Setup::default());
    assert!(matches!(&world.outputs[0], SessionOutput::PathAdded(p) if *p == world.client_path()));
    assert_eq!(world.session.path(), Some(&world.client_path()));
    assert_eq!(
        world.session.paths().collect::<Vec<_>>(),
        [&world.client_path()]
    );
}

#[test]
fn a_rebound_nat_is_followed_with_the_first_stun_request() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut world = World::connected(Setup {
            version,
            ..Setup::default()
        });
        world.outputs.clear();
        world.client_addr = addr(REBOUND);
        // The client does not know; it sends its next request in a second or two.
        while world.session.path() != Some(&udp(addr(REBOUND))) {
            world.run(Duration::from_millis(10));
            assert!(world.now.as_millis() < 10_000, "never moved");
        }
        assert!(
            world
                .outputs
                .iter()
                .any(|o| matches!(o, SessionOutput::PathMoved))
        );
        // Data from the relay reaches the new address at once.
        world
            .session
            .send_data(world.now, false, b"after the move")
            .unwrap();
        world.run(Duration::from_millis(50));
        let got = |e: &Event| matches!(e, Event::ChannelData(d) if d.data == b"after the move");
        assert!(world.client_events.iter().any(got));
    }
}

#[test]
fn a_rebound_nat_is_followed_with_the_first_srtp_packet() {
    let mut world = World::connected(Setup::default());
    world.client_addr = addr(REBOUND);
    world.client_sends_rtp(1, b"from the new address");
    assert_eq!(world.opened.len(), 1);
    assert_eq!(world.session.path(), Some(&udp(addr(REBOUND))));
}

#[test]
fn media_that_does_not_authenticate_moves_nothing() {
    let mut world = World::connected(Setup::default());
    let old = world.client_path();
    world.client_addr = addr(REBOUND);
    world.tamper = Box::new(|session, now, packet| {
        if packet[0] >= 128 {
            let mut forged = packet.to_vec();
            forged[20] ^= 1;
            let from = udp(addr("198.51.100.66:6"));
            session.open_rtp(now, &from, &mut forged).unwrap_err();
        }
        false
    });
    world.client_sends_rtp(1, b"forged on its way");
    assert_eq!(world.session.path(), Some(&old));
}

#[test]
fn a_client_moves_from_tcp_to_udp_and_back_when_tcp_is_all_there_is() {
    let mut world = World::new(Setup::default());
    world.transport = Transport::Tcp(3);
    world.run(Duration::from_secs(3));
    assert!(world.session.is_connected());
    assert_eq!(
        world.session.path().map(|p| p.transport),
        Some(Transport::Tcp(3))
    );

    world.transport = Transport::Udp;
    world.run(Duration::from_secs(5));
    assert_eq!(
        world.session.path().map(|p| p.transport),
        Some(Transport::Udp)
    );

    let udp: Path = world.client_path();
    world.session.path_closed(world.now, &udp);
    world.carry_outputs();
    assert_eq!(
        world.session.path().map(|p| p.transport),
        Some(Transport::Tcp(3))
    );
    let tcp = Path {
        transport: Transport::Tcp(3),
        ..udp
    };
    world.session.path_closed(world.now, &tcp);
    world.carry_outputs();
    assert_eq!(world.session.path(), None);
    assert_eq!(world.closed(), None, "the client may come back");
    world.run(Duration::from_secs(5));
    assert_eq!(world.session.path(), Some(&udp), "it did");
}

#[test]
fn egress_stops_when_consent_lapses() {
    let mut world = World::connected(Setup::default());
    // Runs until the client has just asked.
    let before = world.outputs.len();
    while world.outputs.len() == before {
        world.run(Duration::from_millis(10));
    }
    world.client_silent = true;
    world.run(CONSENT_TIMEOUT - Duration::from_millis(100));
    assert!(world.session.path().is_some());
    assert_eq!(world.closed(), None);
    world.run(Duration::from_millis(100));
    assert_eq!(world.session.path(), None);
    assert_eq!(world.closed(), Some(CloseReason::ConsentLost));
    let after = world.outputs.len();
    world.run(Duration::from_secs(60));
    assert_eq!(world.outputs.len(), after, "not a word after Closed");
}

#[test]
fn srtp_alone_does_not_keep_consent() {
    let mut world = World::connected(Setup::default());
    world.tamper = Box::new(|_, _, packet| packet[0] >= 128);
    for seq in 1..=400 {
        world.client_sends_rtp(seq, b"still talking");
        world.run(Duration::from_millis(100));
    }
    assert!(!world.opened.is_empty());
    assert_eq!(world.closed(), Some(CloseReason::ConsentLost));
}

#[test]
fn an_idle_session_lives_and_sleeps() {
    let mut world = World::connected(Setup::default());
    let mut wakeups = 0;
    let end = world.now + Duration::from_secs(600);
    while world.now < end {
        let due = world.session.poll_timeout();
        world.run(Duration::from_millis(100));
        wakeups += u32::from(due <= world.now);
    }
    assert_eq!(world.closed(), None);
    assert!(world.session.path().is_some());
    println!("{wakeups} timer wake-ups in 600 s");
    assert!(wakeups <= 400, "{wakeups} wake-ups in 600 s");
}

#[test]
fn an_address_that_fell_silent_is_forgotten() {
    let mut world = World::connected(Setup::default());
    let old = world.client_path();
    world.client_addr = addr(REBOUND);
    world.run(CONSENT_TIMEOUT - Duration::from_secs(4));
    assert_eq!(world.session.paths().count(), 2);
    world.run(Duration::from_secs(8));
    assert_eq!(
        world.session.paths().collect::<Vec<_>>(),
        [&udp(addr(REBOUND))]
    );
    let removed = |o: &SessionOutput| matches!(o, SessionOutput::PathRemoved(p) if *p == old);
    assert!(world.outputs.iter().any(removed));
}
