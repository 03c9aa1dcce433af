//! A session with a real client: handshake, data channel, media, close.

mod common;

use common::{Setup, World, rtp_header};
use sealcast_model::limits::{CONNECT_DEADLINE, DATA_MESSAGE_MAX};
use sealcast_model::{CloseReason, Time};
use sealcast_session::{Refusal, SealError, SessionOutput};
use sealcast_srtp::Backend;
use std::time::Duration;
use str0m::Event;
use str0m::channel::ChannelConfig;
use str0m::config::DtlsVersion;

#[test]
fn connects_over_both_dtls_versions_with_both_back_ends() {
    for backend in Backend::ALL {
        for (version, name) in [
            (DtlsVersion::Dtls12, "1.2"),
            (DtlsVersion::Dtls13, "1.3"),
            (DtlsVersion::Auto, "1.3"),
        ] {
            let world = World::connected(Setup {
                version,
                backend,
                ..Setup::default()
            });
            // str0m's client offers the strongest profile first.
            assert_eq!(world.connected_as(), Some((name, "AEAD_AES_256_GCM")));
            assert!(world.client.is_connected());
            assert_eq!(world.refusals, []);
        }
    }
}

#[test]
fn media_flows_both_ways_under_str0ms_own_srtp() {
    for backend in Backend::ALL {
        let mut world = World::connected(Setup {
            backend,
            ..Setup::default()
        });
        let payload: Vec<u8> = (0..1_100u32).map(|b| b as u8).collect();
        for seq in 1..=50u64 {
            world.client_sends_rtp(seq, &payload);
            world.relay_sends_rtp(seq as u16, &payload);
        }
        assert_eq!(world.opened.len(), 50);
        assert!(world.opened.iter().all(|p| p.ends_with(&payload)));
        let received = world.client_rtp();
        assert_eq!(received.len(), 50);
        assert!(received.iter().all(|p| p.payload[..] == payload[..]));
        assert_eq!(world.refusals, []);
    }
}

#[test]
fn rtcp_opens_and_seals() {
    let mut world = World::connected(Setup::default());
    world.client_sends_rtp(1, b"so that there is something to report");
    world.run(Duration::from_secs(10));
    assert!(world.opened_rtcp > 0, "the client sends sender reports");
    // RFC 4585 §6.3.1: picture loss indication.
    let pli = [
        0x81, 206, 0, 2, 0, 0, 0, 1, //
        0x0a, 0x0a, 0x0a, 0x0a,
    ];
    let mut out = [0; 64];
    let len = world.session.seal_rtcp(&pli, &mut out).unwrap();
    assert_eq!(len, pli.len() + world.session.rtcp_overhead());
    world.client_receives(&out[..len]);
    world.run(Duration::from_millis(10));
    assert!(
        world
            .client_events
            .iter()
            .any(|e| matches!(e, Event::KeyframeRequest(_)))
    );
}

#[test]
fn a_packet_is_opened_once_and_sealed_once() {
    let mut world = World::connected(Setup::default());
    let mut out = [0; 1_500];
    world
        .session
        .seal_rtp(&rtp_header(9), b"one", &mut out)
        .unwrap();
    let again = world.session.seal_rtp(&rtp_header(9), b"two", &mut out);
    assert_eq!(again, Err(SealError::IndexReused));

    world.client_sends_rtp(1, b"payload");
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = seen.clone();
    world.tamper = Box::new(move |_, _, p| {
        log.borrow_mut().push(p.to_vec());
        true
    });
    world.client_sends_rtp(2, b"payload");
    let packet = seen.borrow().iter().find(|p| p[0] >= 128).unwrap().clone();
    world.session_receives(&packet);
    assert_eq!(world.refusals, [Refusal::SrtpReplay]);
    let mut forged = packet;
    *forged.last_mut().unwrap() ^= 1;
    forged[3] ^= 0x10; // another sequence number
    world.session_receives(&forged);
    assert_eq!(world.refusals[1..], [Refusal::SrtpAuth]);
    assert_eq!(world.opened.len(), 2);
}

#[test]
fn nothing_is_sealed_before_connected() {
    let mut world = World::new(Setup::default());
    let mut out = [0; 100];
    assert_eq!(
        world.session.seal_rtp(&rtp_header(1), b"x", &mut out),
        Err(SealError::NoKeys)
    );
    assert_eq!(world.session.rtp_overhead(), 0);
    let from = world.client_path();
    let opened = world
        .session
        .open_rtp(world.now, &from, &mut [0x80, 96, 0, 1]);
    assert_eq!(opened, Err(Refusal::SrtpNoKeys));
}

#[test]
fn data_crosses_both_ways_up_to_the_limit() {
    let mut world = World::connected(Setup::default());
    let id = world.channel.unwrap();
    let large = vec![7; DATA_MESSAGE_MAX];
    assert!(
        world
            .client
            .channel(id)
            .unwrap()
            .write(false, b"text")
            .unwrap()
    );
    assert!(
        world
            .client
            .channel(id)
            .unwrap()
            .write(true, &large)
            .unwrap()
    );
    world.run(Duration::from_secs(1));
    let got: Vec<_> = world
        .outputs
        .iter()
        .filter_map(|o| match o {
            SessionOutput::Data { binary, data } => Some((*binary, data.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(got, [(false, b"text".to_vec()), (true, large.clone())]);

    world.session.send_data(world.now, true, &large).unwrap();
    world
        .session
        .send_data(world.now, false, b"answer")
        .unwrap();
    world.run(Duration::from_secs(1));
    let got: Vec<_> = world
        .client_events
        .iter()
        .filter_map(|e| match e {
            Event::ChannelData(d) => Some((d.binary, d.data.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(got, [(true, large.clone()), (false, b"answer".to_vec())]);

    let too_long = vec![0; DATA_MESSAGE_MAX + 1];
    let refused = world.session.send_data(world.now, true, &too_long);
    assert_eq!(refused, Err(SealError::MessageTooLong));
}

#[test]
fn the_data_buffer_is_bounded() {
    let mut world = World::connected(Setup::default());
    world.client_silent = true; // nothing is acknowledged
    let message = vec![7; DATA_MESSAGE_MAX];
    let sent = (0..1_000)
        .take_while(|_| world.session.send_data(world.now, true, &message).is_ok())
        .count();
    assert!((4..64).contains(&sent), "{sent} messages queued");
}

#[test]
fn other_channels_are_few_and_not_listened_to() {
    let mut world = World::connected(Setup::default());
    for n in 0..10 {
        let label = if n == 0 {
            "sealcast".into()
        } else {
            format!("other-{n}")
        };
        world
            .client
            .direct_api()
            .create_data_channel(ChannelConfig {
                label,
                ..Default::default()
            });
    }
    world.run(Duration::from_secs(3));
    let opened: Vec<_> = world
        .client_events
        .iter()
        .filter_map(|e| {
            if let Event::ChannelOpen(id, _) = e {
                Some(*id)
            } else {
                None
            }
        })
        .collect();
    let closed = world
        .client_events
        .iter()
        .filter(|e| matches!(e, Event::ChannelClose(_)))
        .count();
    assert_eq!(
        opened.len() - closed,
        1 + sealcast_session::limits::OTHER_CHANNELS
    );
    assert_eq!(
        world
            .outputs
            .iter()
            .filter(|o| matches!(o, SessionOutput::DataOpen))
            .count(),
        1
    );
    for id in opened {
        if let Some(mut channel) = world.client.channel(id) {
            let _ = channel.write(false, b"hello");
        }
    }
    world.run(Duration::from_secs(1));
    let count = |want: fn(&SessionOutput) -> bool| world.outputs.iter().filter(|o| want(o)).count();
    assert_eq!(count(|o| matches!(o, SessionOutput::Data { .. })), 1);
    assert_eq!(
        count(|o| matches!(o, SessionOutput::DataRefused)),
        sealcast_session::limits::OTHER_CHANNELS
    );
}

#[test]
fn a_client_without_data_channel_connects() {
    let mut world = World::new(Setup {
        sctp: false,
        ..Setup::default()
    });
    world.run(Duration::from_secs(3));
    assert!(world.session.is_connected());
    assert!(!world.data_open());
    let refused = world.session.send_data(world.now, false, b"x");
    assert_eq!(refused, Err(SealError::ChannelBusy));
}

#[test]
fn another_certificate_than_announced_fails() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let setup = Setup {
            version,
            wrong_fingerprint: true,
            ..Setup::default()
        };
        let mut world = World::new(setup);
        world.run(Duration::from_secs(5));
        assert_eq!(world.closed(), Some(CloseReason::DtlsFailed));
        assert_eq!(world.connected_as(), None);
        assert_eq!(world.session.rtp_overhead(), 0, "no keys");
        assert_eq!(world.session.path(), None);
    }
}

#[test]
fn the_deadline_ends_what_never_connects() {
    let mut world = World::new(Setup::default());
    world.client_silent = true;
    let deadline = world.now + CONNECT_DEADLINE;
    world.run(CONNECT_DEADLINE - Duration::from_millis(1));
    assert_eq!(world.closed(), None);
    assert!(world.session.poll_timeout() <= deadline);
    world.run(Duration::from_millis(1));
    assert_eq!(world.closed(), Some(CloseReason::ConnectTimeout));
    assert_eq!(world.session.poll_timeout(), Time::NEVER);
}

#[test]
fn closing_tells_the_peer() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut world = World::connected(Setup {
            version,
            ..Setup::default()
        });
        world.session.close(world.now, CloseReason::Requested);
        world.run(Duration::from_secs(1));
        assert!(
            world
                .client_events
                .iter()
                .any(|e| matches!(e, Event::Closed))
        );
        assert_eq!(world.closed(), Some(CloseReason::Requested));
        let last = world.outputs.last();
        assert!(
            matches!(last, Some(SessionOutput::Closed(_))),
            "Closed comes last: {last:?}"
        );
        let from = world.client_path();
        assert_eq!(
            world.session.handle_packet(world.now, from, &[22; 40]),
            Err(Refusal::Closed)
        );
        assert_eq!(
            world.session.open_rtp(world.now, &from, &mut [0x80; 40]),
            Err(Refusal::SrtpNoKeys)
        );
        world.session.close(world.now, CloseReason::Internal);
        assert!(world.session.poll_output().is_none(), "closed once");
    }
}

#[test]
fn a_peer_that_closes_ends_the_session() {
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut world = World::connected(Setup {
            version,
            ..Setup::default()
        });
        world.client.close().unwrap();
        world.exchange();
        world.run(Duration::from_secs(2));
        assert_eq!(world.closed(), Some(CloseReason::PeerClosed));
        let unrouted = world
            .outputs
            .iter()
            .filter(|o| matches!(o, SessionOutput::PathRemoved(_)))
            .count();
        assert_eq!(unrouted, 1);
    }
}
