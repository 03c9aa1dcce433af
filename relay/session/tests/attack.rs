//! What strangers and broken clients can do to a session: nothing.

mod common;

use common::{Setup, World, addr, udp};
use proptest::prelude::*;
use sealcast_session::{Refusal, SessionOutput, limits};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use str0m::config::DtlsVersion;

/// An unauthenticated fatal alert, which kills a handshake that believes it (RFC 9147 §4.5.2).
const FATAL_ALERT: [u8; 15] = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];

/// A ClientHello record that announces far more than it carries.
fn forged_hello() -> Vec<u8> {
    let mut packet = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60];
    packet.extend([1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 48]);
    packet.extend([0xab; 48]);
    packet
}

#[test]
fn dtls_from_a_stranger_is_refused_and_the_handshake_completes() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut world = World::new(Setup {
            version,
            ..Setup::default()
        });
        let refused = Rc::new(Cell::new(0));
        let count = refused.clone();
        world.tamper = Box::new(move |session, now, packet| {
            if (20..=63).contains(&packet[0]) {
                let stranger = udp(addr("198.51.100.66:666"));
                // Also the client's own packet, sooner than itself.
                for forged in [&FATAL_ALERT[..], &forged_hello(), packet] {
                    let result = session.handle_packet(now, stranger, forged);
                    assert_eq!(result, Err(Refusal::DtlsUnvalidated));
                    count.set(count.get() + 1);
                }
            }
            true
        });
        world.run(Duration::from_secs(3));
        assert!(world.session.is_connected() && world.data_open());
        assert!(refused.get() > 6);
    }
}

#[test]
fn forged_dtls_from_the_clients_own_address_drops_itself_alone() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut world = World::new(Setup {
            version,
            ..Setup::default()
        });
        world.tamper = Box::new(|session, now, packet| {
            if (20..=63).contains(&packet[0]) {
                let client = udp(addr(common::CLIENT));
                let _ = session.handle_packet(now, client, &FATAL_ALERT);
                let _ = session.handle_packet(now, client, &[22; 13]);
                let _ = session.handle_packet(now, client, &[20, 254, 253, 0, 0]);
            }
            true
        });
        world.run(Duration::from_secs(10));
        assert!(
            world.session.is_connected(),
            "{version:?}: {:?}",
            world.closed()
        );
    }
}

#[test]
fn stun_of_a_stranger_opens_no_path() {
    let mut world = World::new(Setup::default());
    world.tamper = Box::new(|session, now, packet| {
        if packet[0] < 4 {
            let stranger = udp(addr("198.51.100.66:666"));
            let mut forged = packet.to_vec();
            let last = forged.len() - 20; // inside MESSAGE-INTEGRITY
            forged[last] ^= 1;
            let refused = session.handle_packet(now, stranger, &forged);
            assert_eq!(refused, Err(Refusal::StunUnauthenticated));
        }
        true
    });
    world.run(Duration::from_secs(3));
    assert!(world.session.is_connected());
    assert_eq!(world.session.paths().count(), 1);
}

#[test]
fn addresses_are_bounded_however_many_a_client_uses() {
    let mut world = World::connected(Setup::default());
    world.tamper = Box::new(|session, now, packet| {
        if packet[0] < 4 {
            for port in 1..2_000 {
                let mut from = udp(addr(common::CLIENT));
                from.remote.set_port(port);
                session.handle_packet(now, from, packet).unwrap();
            }
        }
        true
    });
    world.run(Duration::from_secs(5));
    assert_eq!(world.session.paths().count(), limits::PATHS);
    let count = |want: fn(&SessionOutput) -> bool| world.outputs.iter().filter(|o| want(o)).count();
    let added = count(|o| matches!(o, SessionOutput::PathAdded(_)));
    let removed = count(|o| matches!(o, SessionOutput::PathRemoved(_)));
    assert!(added > 2_000);
    assert_eq!(
        added - removed,
        limits::PATHS,
        "the shard's routes are bounded too"
    );
    assert!(world.session.is_connected());
}

#[test]
fn lost_handshake_packets_are_sent_again() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut world = World::new(Setup {
            version,
            ..Setup::default()
        });
        let mut n = 0;
        world.tamper = Box::new(move |_, _, packet| {
            let dtls = (20..=63).contains(&packet[0]);
            n += u32::from(dtls);
            !(dtls && n % 2 == 1)
        });
        world.run(Duration::from_secs(15));
        assert!(world.session.is_connected() && world.data_open());
    }
}

/// Bytes of any kind, with the first byte where it gets furthest.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![0u8..4, 20u8..64, 128u8..192, any::<u8>()];
    let real = prop_oneof![
        Just(forged_hello()),
        Just(FATAL_ALERT.to_vec()),
        // A DTLS 1.3 ciphertext record, a 1.2 application record, SRTP.
        Just([&[0x2f, 0, 0, 0, 16][..], &[7; 16]].concat()),
        Just([&[23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 32][..], &[7; 32]].concat()),
        Just(
            [
                &[0x80, 96, 0, 9, 0, 0, 0, 9, 0x0a, 0x0a, 0x0a, 0x0a][..],
                &[7; 40]
            ]
            .concat()
        ),
    ];
    let random = (first, prop::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(first, rest)| [&[first][..], &rest].concat());
    let damaged = (real, prop::collection::vec((0usize..64, any::<u8>()), 0..5)).prop_map(
        |(mut packet, damage)| {
            for (at, value) in damage {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            packet
        },
    );
    prop_oneof![random, damaged]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Before, during and after the handshake, from the client's address and from a stranger's.
    #[test]
    fn noise_is_harmless(
        packets in prop::collection::vec((noise(), any::<bool>()), 1..60),
        dtls12 in any::<bool>(),
    ) {
        let version = if dtls12 { DtlsVersion::Dtls12 } else { DtlsVersion::Dtls13 };
        let mut world = World::new(Setup { version, ..Setup::default() });
        let mut queue = packets.into_iter().cycle().take(300);
        world.tamper = Box::new(move |session, now, _| {
            for (mut packet, stranger) in queue.by_ref().take(10) {
                // A stranger before the handshake is done: nobody but the client itself can
                // forge a whole first flight from its address.
                let stranger = stranger || !session.is_connected();
                let from = udp(addr(if stranger { "198.51.100.66:6" } else { common::CLIENT }));
                let _ = session.handle_packet(now, from, &packet);
                let _ = session.open_rtp(now, &from, &mut packet);
                let _ = session.open_rtcp(now, &from, &mut packet);
            }
            true
        });
        world.run(Duration::from_secs(8));
        prop_assert!(world.session.is_connected(), "{:?}", world.closed());
        prop_assert_eq!(world.session.paths().count(), 1);
        world.tamper = Box::new(|_, _, _| true);
        world.client_sends_rtp(1, b"still there");
        prop_assert_eq!(world.opened.len(), 1);
    }

    /// A client that sends noise harms itself at most: no panic, no spinning timer.
    #[test]
    fn a_client_that_sends_noise_harms_itself_alone(
        packets in prop::collection::vec(noise(), 1..40),
    ) {
        let mut world = World::new(Setup::default());
        let mut queue = packets.into_iter();
        world.tamper = Box::new(move |session, now, _| {
            if let Some(packet) = queue.next() {
                let _ = session.handle_packet(now, udp(addr(common::CLIENT)), &packet);
            }
            true
        });
        world.run(Duration::from_secs(30));
        prop_assert!(world.session.is_connected() || world.closed().is_some());
        prop_assert!(world.session.poll_timeout() > world.now);
    }
}
