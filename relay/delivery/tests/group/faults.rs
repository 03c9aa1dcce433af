//! Restarts, lost connections, damaged messages, hostile participants.

use crate::room::Room;
use proptest::prelude::*;
use sealcast_delivery::{DeliveryKey, DeliveryService, SUITES};
use sealcast_group_wire::{ToMember, ToService};
use sealcast_mls::{Event, GroupSuite};
use sealcast_model::{ParticipantId, Time};
use std::sync::Arc;

fn room_of(count: u64) -> Room {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=count {
        room.join(id);
    }
    room.run_until(5000, |room| room.converged(1..=count));
    room
}

#[test]
fn the_group_outlives_the_relay() {
    let mut room = room_of(4);
    let (epoch, key) = (room.epoch(1), room.member(1).sframe_base_key());
    room.restart([7; 32]);
    room.run(2500);
    assert_eq!(room.epoch(1), epoch, "{}", room.describe());
    assert_eq!(room.member(4).sframe_base_key(), key);
    assert_eq!(room.service.group(), Some((epoch.unwrap(), 4)));
    assert_eq!(room.service.counters().rebuilt, 1);
    // And goes on: somebody joins, somebody leaves.
    room.join(5);
    room.run_until(3000, |room| room.converged(1..=5));
    room.leave(1);
    room.run_until(3000, |room| room.converged(2..=5));
}

#[test]
fn who_does_not_come_back_after_a_restart_is_removed() {
    let mut room = room_of(3);
    room.clients.remove(&3).unwrap();
    room.restart([7; 32]);
    room.run(5000);
    assert_eq!(room.service.group().unwrap().1, 3, "still expected");
    room.run_until(20_000, |room| room.converged([1, 2]));
}

#[test]
fn a_relay_with_another_key_starts_over() {
    let mut room = room_of(3);
    let key = room.member(1).sframe_base_key();
    room.restart([8; 32]);
    room.run_until(15_000, |room| {
        room.converged(1..=3) && room.service.group().is_some()
    });
    assert_ne!(room.member(1).sframe_base_key(), key);
    room.join(4);
    room.run_until(3000, |room| room.converged(1..=4));
}

#[test]
fn who_reconnects_catches_up() {
    let mut room = room_of(3);
    room.disconnect(3);
    room.join(4);
    room.run(1000);
    room.leave(4);
    room.run(1000);
    let ahead = room.epoch(1).unwrap();
    assert!(room.epoch(3).unwrap() + 2 <= ahead);
    room.reconnect(3);
    room.run_until(1000, |room| room.converged(1..=3));
    assert_eq!(
        room.epoch(3),
        Some(ahead),
        "by the log, without a new epoch"
    );
    assert_eq!(room.service.counters().added_again, 0);
}

#[test]
fn who_was_away_too_long_is_added_again() {
    let mut room = room_of(3);
    room.disconnect(3);
    for _ in 0..20 {
        room.run(400);
        room.member(1).request_rotation();
    }
    room.run(1000);
    room.reconnect(3);
    room.run_until(5000, |room| room.converged(1..=3));
    assert!(room.events(3).contains(&Event::Reset));
    assert_eq!(room.service.counters().added_again, 1);
}

#[test]
fn a_commit_that_was_on_the_way_when_the_connection_broke_is_settled() {
    for cut_after in (0..60).step_by(10) {
        let mut room = room_of(3);
        let before = room.epoch(1).unwrap();
        room.run(500);
        room.member(1).request_rotation();
        room.run(cut_after);
        room.disconnect(1);
        room.run(100);
        room.reconnect(1);
        room.run_until(5000, |room| {
            room.converged(1..=3) && room.epoch(2) == Some(before + 1)
        });
        assert_eq!(
            room.service.counters().added_again,
            0,
            "cut after {cut_after} ms"
        );
    }
}

#[test]
fn one_who_cannot_process_a_commit_is_added_again() {
    let mut room = room_of(4);
    let mut done = false;
    room.tamper = Some(Box::new(move |id, mut message| {
        if id == 4 && !done && matches!(ToMember::decode(&message), Ok(ToMember::Commit { .. })) {
            done = true;
            let last = message.len() - 1;
            message[last] ^= 1;
        }
        Some(message)
    }));
    room.run(500);
    room.member(1).request_rotation();
    room.run(500);
    assert!(matches!(
        room.events(4).last(),
        Some(Event::CommitRefused { .. })
    ));
    room.run_until(6000, |room| {
        room.events(4).contains(&Event::Reset) && room.converged(1..=4)
    });
    let counters = room.service.counters();
    assert_eq!((counters.undone, counters.added_again), (0, 1));
}

#[test]
fn a_commit_that_nobody_can_process_is_undone_and_its_author_added_again() {
    let mut room = room_of(4);
    let before = room.epoch(1).unwrap();
    room.tamper = Some(Box::new(move |id, mut message| {
        // As if member 1 had encrypted nonsense to all others: they refuse, only it goes on.
        if id != 1
            && let Ok(ToMember::Commit { message: commit }) = ToMember::decode(&message)
            && epoch_of(commit.as_slice()) == before
            && !message.is_empty()
        {
            let last = message.len() - 1;
            message[last] ^= 1;
        }
        Some(message)
    }));
    room.run(500);
    room.member(1).request_rotation();
    room.run_until(2000, |room| room.service.counters().undone == 1);
    room.tamper = None;
    room.run_until(8000, |room| room.converged(1..=4));
    assert!(room.events(1).contains(&Event::Reset));
    assert!((2..=4).all(|id| !room.events(id).contains(&Event::Reset)));
}

/// The epoch in an MLSMessage with a PublicMessage: version, wire format, group id, epoch.
fn epoch_of(message: &[u8]) -> u64 {
    let at = 2 + 2 + 1 + usize::from(message[4]);
    u64::from_be_bytes(message[at..at + 8].try_into().unwrap())
}

#[test]
fn messages_of_outsiders_and_floods_are_refused() {
    let mut room = room_of(2);
    let time = room.time();
    let ready = ToService::Refused { epoch: u64::MAX }.encode().unwrap();
    let refused = |room: &mut Room, id, message: &[u8]| {
        room.service
            .handle_message(time, ParticipantId(id), message)
            .unwrap_err()
            .code()
    };
    assert_eq!(refused(&mut room, 99, &ready), "unknown-participant");
    assert_eq!(refused(&mut room, 1, &[]), "wire");
    let nonsense = ToService::Commit {
        commit: vec![1, 2, 3].into(),
        welcome: None,
    };
    assert_eq!(
        refused(&mut room, 1, &nonsense.encode().unwrap()),
        "mls-format"
    );
    let unasked = ToService::GroupInfo {
        message: vec![].into(),
    };
    assert_eq!(
        refused(&mut room, 1, &unasked.encode().unwrap()),
        "group-info"
    );
    let taken = (0..100).filter(|_| {
        room.service
            .handle_message(time, ParticipantId(2), &ready)
            .is_ok()
    });
    assert!(taken.count() <= 30);
    room.collect();
    room.run(1000);
    assert!(room.converged([1, 2]));
}

#[test]
fn another_participants_signature_key_cannot_be_taken() {
    let mut room = room_of(2);
    room.join(3);
    let stolen = room.member(3).poll_outgoing();
    assert_eq!(stolen, None, "collected by the room");
    room.run_until(3000, |room| room.converged(1..=3));
    // Participant 4 says what participant 3 says.
    let mut hello = None;
    room.disconnect(3);
    let unix = room.unix();
    room.member(3).handle_connected(unix).unwrap();
    while let Some(message) = room.member(3).poll_outgoing() {
        hello.get_or_insert(message);
    }
    let time = room.time();
    room.service.handle_join(time, ParticipantId(4));
    let refused = room
        .service
        .handle_message(time, ParticipantId(4), &hello.unwrap());
    assert_eq!(refused.unwrap_err().code(), "key-package");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_leave_the_service_standing(messages in prop::collection::vec(any::<Vec<u8>>(), 1..20)) {
        let key = Arc::new(DeliveryKey::from_seed(SUITES[0], &[1; 32]).unwrap());
        let mut service = DeliveryService::new(key);
        service.handle_join(Time::ZERO, ParticipantId(1));
        for (at, mut message) in messages.into_iter().enumerate() {
            if let Some(first) = message.first_mut() {
                *first = 1;
            }
            let _ = service.handle_message(Time::from_millis(at as u64 * 100), ParticipantId(1), &message);
        }
        prop_assert_eq!(service.group(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any bit of anything that the relay sends may flip, for a while; then all is well again.
    #[test]
    fn flipped_bits_on_the_way_do_no_lasting_harm(seed: u64, flips in 1..6u32) {
        let mut room = room_of(3);
        let mut state = seed | 1;
        let mut left = flips;
        room.tamper = Some(Box::new(move |_, mut message| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if left > 0 && state.is_multiple_of(3) && message.len() > 2 {
                left -= 1;
                let at = 2 + (state >> 8) as usize % (message.len() - 2);
                message[at] ^= 1 << (state & 7);
            }
            Some(message)
        }));
        room.join(4);
        room.run(1500);
        room.member(2).request_rotation();
        room.run(1500);
        room.tamper = None;
        room.run_until(60_000, |room| room.converged(1..=4));
    }
}
