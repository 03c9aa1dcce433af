//! Loss on either side of the relay is repaired on that side.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_media::PeerKey;
use sealcast_model::{Counter, Source, Time};
use sealcast_rtp::rtcp::Packet;
use sealcast_rtp::{HeaderFields, RtpHeader};
use std::collections::BTreeSet;
use std::time::Duration;
use support::*;

const V0: u16 = VIDEO_SLOTS;

/// Peer 1 shows its camera to peers 2 and 3.
fn broadcast() -> (Relay, Camera) {
    let mut relay = Relay::new();
    relay.join(1);
    relay.publish(1, VIDEO_MID, Source::Camera);
    for key in [2, 3] {
        relay.join(key);
        relay.assign(key, V0, Some(track(1, VIDEO_MID))).unwrap();
    }
    relay.drain_events();
    (relay, Camera::new(1))
}

/// What the relay asked peer 1 for, and when.
fn asked(relay: &Relay) -> Vec<(Time, u16)> {
    let mut all = Vec::new();
    for ((to, bytes), at) in relay.out.rtcp.iter().zip(&relay.out.rtcp_at) {
        for packet in sealcast_rtp::rtcp::Compound::parse(bytes).unwrap().iter() {
            if let (1, Packet::Nack(nack)) = (*to, packet.unwrap()) {
                assert_eq!(nack.media_ssrc, video_ssrc(1));
                all.extend(nack.sequence_numbers().map(|n| (*at, n)));
            }
        }
    }
    all
}

/// `packet` as its publisher sends it again.
fn again(packet: &[u8], number: u16) -> Vec<u8> {
    let lost = RtpHeader::parse(packet).unwrap();
    let payload = [
        &lost.sequence_number.to_be_bytes()[..],
        lost.payload(packet),
    ]
    .concat();
    let fields = HeaderFields {
        marker: lost.marker,
        payload_type: VP8_RTX_IN,
        sequence_number: number,
        timestamp: lost.timestamp,
        ssrc: video_ssrc(1) + 500,
        has_padding: false,
    };
    rtp(fields, &[], &payload)
}

fn nack(relay: &mut Relay, key: u32, numbers: &[u16]) {
    relay.receive_rtcp(key, |writer| {
        writer
            .nack(1, slot_ssrc(key, V0), numbers.iter().copied())
            .unwrap()
    });
}

#[test]
fn a_publisher_is_asked_once_a_round_trip_until_the_packet_comes() {
    let (mut relay, mut camera) = broadcast();
    let packets: Vec<_> = (0..20).flat_map(|n| camera.frame(n == 0, 2)).collect();
    let number = |n: usize| RtpHeader::parse(&packets[n]).unwrap().sequence_number;
    // 5 and 6 are lost; 9 and 10 change places.
    for n in [0, 1, 2, 3, 4, 7, 8, 10, 9, 11, 12, 13] {
        relay.receive(1, &packets[n]);
        relay.flush();
        relay.advance_ms(2);
    }
    relay.advance_ms(250);
    let first = asked(&relay);
    let numbers: BTreeSet<_> = first.iter().map(|(_, n)| *n).collect();
    assert_eq!(
        numbers,
        BTreeSet::from([number(5), number(6)]),
        "reordering is not loss"
    );
    let times: Vec<_> = first
        .iter()
        .filter(|(_, n)| *n == number(5))
        .map(|(at, _)| *at)
        .collect();
    assert!(
        (2..=3).contains(&times.len()),
        "a round trip is taken for 100 ms: {times:?}"
    );
    assert!(
        times
            .windows(2)
            .all(|w| w[1] - w[0] >= Duration::from_millis(100))
    );

    relay.receive(1, &again(&packets[5], 1));
    relay.receive(1, &again(&packets[6], 2));
    let sent = relay.flush();
    assert_eq!(
        sent.len(),
        4,
        "both go on to both receivers, under their own numbers"
    );
    let base = relay.out.rtp.iter().find(|p| p.to == 2).unwrap().index;
    let late: Vec<_> = sent
        .iter()
        .filter(|p| p.to == 2)
        .map(|p| p.index - base)
        .collect();
    assert_eq!(late, [5, 6]);
    relay.advance_ms(1_000);
    assert_eq!(
        asked(&relay).len(),
        first.len(),
        "nothing is missing any more"
    );
    assert_eq!(relay.count(Counter::RepairsReceived), 2);
}

#[test]
fn nobody_is_asked_for_what_nobody_gets() {
    let (mut relay, mut camera) = broadcast();
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    relay.engine.set_muted(relay.now, track(1, VIDEO_MID), true);
    for _ in 0..20 {
        camera.sequence += 1;
        camera
            .frame(false, 1)
            .iter()
            .for_each(|p| relay.receive(1, p));
        relay.flush();
        relay.advance_ms(33);
    }
    assert!(asked(&relay).is_empty());
}

#[test]
fn an_outage_ends_with_a_key_frame_and_not_with_a_flood_of_nacks() {
    let (mut relay, mut camera) = broadcast();
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    relay.advance_ms(1_000);
    let plis = relay.plis_to(1, camera.ssrc);
    camera.sequence += 1_000;
    camera
        .frame(false, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    relay.advance_ms(200);
    assert!(asked(&relay).is_empty());
    assert_eq!(relay.plis_to(1, camera.ssrc), plis + 1);
}

#[test]
fn subscribers_are_answered_from_one_history_in_their_own_numbers() {
    let (mut relay, mut camera) = broadcast();
    // Peer 3 has seen another camera before, so that all its numbers differ.
    relay.join(4);
    let other = relay.publish(4, VIDEO_MID, Source::Camera);
    relay.assign(3, V0, Some(other)).unwrap();
    Camera::new(4)
        .frame(true, 3)
        .iter()
        .for_each(|p| relay.receive(4, p));
    relay.flush();
    relay.assign(3, V0, Some(track(1, VIDEO_MID))).unwrap();
    let packets: Vec<_> = (0..5).flat_map(|n| camera.frame(n == 0, 2)).collect();
    for packet in &packets {
        relay.receive(1, packet);
        relay.flush();
        relay.advance_ms(10);
    }
    assert_eq!(relay.engine.held_packets(), packets.len() + 3);
    for key in [2, 3] {
        let sent: Vec<_> = relay
            .out
            .rtp
            .iter()
            .filter(|p| p.to == key && p.header.timestamp != 0)
            .cloned()
            .collect();
        let of_camera = &sent[sent.len() - packets.len()..];
        let missed = [&of_camera[2], &of_camera[5]];
        nack(&mut relay, key, &missed.map(|p| p.header.sequence_number));
        let answers = relay.flush();
        assert_eq!(answers.len(), 2);
        for (n, (answer, original)) in answers.iter().zip(missed).enumerate() {
            assert_eq!(
                (answer.to, answer.header.ssrc),
                (key, slot_ssrc(key, V0) + 500)
            );
            assert_eq!(answer.header.payload_type, VP8_OUT + 1);
            assert_eq!(
                answer.payload[..2],
                original.header.sequence_number.to_be_bytes(),
                "the original number"
            );
            assert_eq!(
                answer.payload[2..],
                original.payload,
                "as it was sent the first time"
            );
            assert_eq!(answer.header.timestamp, original.header.timestamp);
            assert_eq!(answer.header.marker, original.header.marker);
            assert_eq!(answer.extension(EXT_MID), original.extension(EXT_MID));
            assert_eq!(
                answer.index,
                answers[0].index + n as u64,
                "numbers of their own"
            );
        }
    }
    // The slots of the pool are as they were: both got the same bytes of sealed payload.
    assert_eq!(relay.count(Counter::RetransmitSent), 4);
}

#[test]
fn a_packet_is_not_sent_again_within_a_round_trip() {
    let (mut relay, mut camera) = broadcast();
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    let number = relay.flush()[0].header.sequence_number;
    let mut answers = Vec::new();
    for _ in 0..30 {
        nack(&mut relay, 2, &[number, number]);
        if !relay.flush().is_empty() {
            answers.push(relay.now);
        }
        relay.advance_ms(10);
    }
    assert!(
        answers
            .windows(2)
            .all(|w| w[1] - w[0] >= Duration::from_millis(100)),
        "{answers:?}"
    );
    assert_eq!(answers.len(), 3);
    assert_eq!(relay.count(Counter::RetransmitTooSoon), 27);
}

#[test]
fn retransmissions_stay_within_their_share() {
    let (mut relay, mut camera) = broadcast();
    let (mut media, mut repeated) = (0usize, 0usize);
    for n in 0..300 {
        camera
            .frame(n == 0, 4)
            .iter()
            .for_each(|p| relay.receive(1, p));
        let sent = relay.flush();
        let of_two: Vec<_> = sent.iter().filter(|p| p.to == 2).collect();
        media += of_two.iter().map(|p| p.bytes.len()).sum::<usize>();
        // A receiver that claims to have lost everything.
        let numbers: Vec<_> = of_two.iter().map(|p| p.header.sequence_number).collect();
        nack(&mut relay, 2, &numbers);
        repeated += relay.flush().iter().map(|p| p.bytes.len()).sum::<usize>();
        relay.advance_ms(33);
    }
    // A fifth, and the 40 kB that a stream starts with.
    assert!(repeated <= media / 5 + 41_000, "{repeated} of {media}");
    assert!(repeated >= media / 6, "{repeated} of {media}");
    assert!(relay.count(Counter::RetransmitOverBudget) > 500);
}

#[test]
fn what_cannot_be_sent_again_is_counted() {
    let (mut relay, mut camera) = broadcast();
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    let number = relay.flush()[0].header.sequence_number;
    // Never sent, of another slot, of nobody.
    nack(&mut relay, 2, &[number.wrapping_add(9)]);
    assert!(relay.flush().is_empty());
    relay.receive_rtcp(2, |writer| {
        writer.nack(1, slot_ssrc(3, V0), [number]).unwrap()
    });
    relay.receive_rtcp(99, |writer| {
        writer.nack(1, slot_ssrc(2, V0), [number]).unwrap()
    });
    assert!(relay.flush().is_empty());
    // After its time.
    relay.advance_ms(3_000);
    assert_eq!(
        relay.engine.held_packets(),
        0,
        "an idle stream's history is swept"
    );
    nack(&mut relay, 2, &[number]);
    assert!(relay.flush().is_empty());
    assert_eq!(relay.count(Counter::RetransmitGone), 2);
    // A slot that shows something else by now.
    camera
        .frame(false, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    let number = relay.flush()[0].header.sequence_number;
    relay.assign(2, V0, None).unwrap();
    nack(&mut relay, 2, &[number]);
    assert!(relay.flush().is_empty());
    assert_eq!(relay.count(Counter::RetransmitGone), 3);
}

#[test]
fn a_receiver_without_rtx_is_sent_nothing_twice() {
    let mut relay = Relay::new();
    relay.join(1);
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    let mut plain = media(2);
    for slot in &mut plain.slots {
        slot.rtx_ssrc = None;
        slot.codecs.iter_mut().for_each(|c| c.rtx_pt = None);
    }
    relay.join_room(2, 1, &plain);
    relay.engine.peer_connected(relay.now, PeerKey(2));
    relay.assign(2, V0, Some(shown)).unwrap();
    Camera::new(1)
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    let number = relay.flush()[0].header.sequence_number;
    nack(&mut relay, 2, &[number]);
    assert!(relay.flush().is_empty());
    assert_eq!(relay.count(Counter::RetransmitGone), 1);
}

#[test]
fn histories_end_with_what_they_belong_to() {
    let (mut relay, mut camera) = broadcast();
    let fill = |relay: &mut Relay, camera: &mut Camera| {
        (0..10).for_each(|n| {
            camera
                .frame(n == 0, 2)
                .iter()
                .for_each(|p| relay.receive(1, p))
        });
        relay.flush();
    };
    fill(&mut relay, &mut camera);
    assert_eq!(relay.engine.held_packets(), 20);
    relay
        .engine
        .unpublish(relay.now, &mut relay.pool, track(1, VIDEO_MID));
    assert_eq!(relay.pool.available(), relay.pool.capacity());
    relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, V0, Some(track(1, VIDEO_MID))).unwrap();
    fill(&mut relay, &mut camera);
    // The m-line goes with a renegotiation.
    let mut less = media(1);
    less.receive.truncate(1);
    relay
        .engine
        .update_peer(relay.now, PeerKey(1), &less)
        .unwrap();
    relay.flush();
    assert_eq!(relay.pool.available(), relay.pool.capacity());
    // It comes back, and the peer goes.
    relay
        .engine
        .update_peer(relay.now, PeerKey(1), &media(1))
        .unwrap();
    relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, V0, Some(track(1, VIDEO_MID))).unwrap();
    fill(&mut relay, &mut camera);
    assert!(relay.engine.held_packets() > 0);
    relay
        .engine
        .remove_peer(relay.now, &mut relay.pool, PeerKey(1));
    assert_eq!(relay.pool.available(), relay.pool.capacity());
}

#[test]
fn histories_leave_room_for_what_arrives() {
    let (mut relay, mut camera) = broadcast();
    for n in 0..200 {
        camera
            .frame(n == 0, 8)
            .iter()
            .for_each(|p| relay.receive(1, p));
        relay.flush();
        assert!(
            relay.pool.available() >= relay.pool.capacity() / 5,
            "{}",
            relay.pool.available()
        );
        relay.advance_ms(2);
    }
    assert!(relay.engine.held_packets() > 0);
}
