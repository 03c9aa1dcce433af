//! What is refused has a label, and what could grow has an end.

use super::room::Room;
use sealcast_delivery::{DeliveryError, DeliveryService};
use sealcast_group_wire::{MAX_MEMBERS, ToMember, ToService, Why};
use sealcast_mls::GroupSuite;
use sealcast_model::{ParticipantId, Time};
use std::collections::BTreeSet;

/// A commit that a member would send now.
fn commit_of(room: &mut Room, id: u64) -> Vec<u8> {
    let unix = room.unix();
    let member = room.member(id);
    member.request_rotation();
    member.handle_timeout(unix).unwrap();
    let commit = member.poll_outgoing().expect("a commit");
    assert!(matches!(
        ToService::decode(&commit),
        Ok(ToService::Commit { .. })
    ));
    commit
}

#[test]
fn every_kind_of_refusal_has_a_label_and_an_input_that_gets_it() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(3000, |room| room.converged(1..=2));
    room.run(300);
    let outsider = ParticipantId(3);
    let (now, commit) = (room.time(), commit_of(&mut room, 2));
    let service = &mut room.service;
    service.handle_join(now, outsider);
    let encode = |message: ToService| message.encode().unwrap();
    let garbage = || b"garbage".to_vec().into();
    let cases = [
        ("unknown-participant", ParticipantId(99), vec![]),
        ("wire", outsider, vec![9]),
        (
            "mls-format",
            outsider,
            encode(ToService::KeyPackages {
                key_packages: vec![garbage()],
            }),
        ),
        (
            "key-package",
            outsider,
            encode(ToService::KeyPackages {
                key_packages: vec![],
            }),
        ),
        (
            "group-info",
            outsider,
            encode(ToService::GroupInfo { message: garbage() }),
        ),
        ("commit", outsider, commit),
    ];
    let mut seen = BTreeSet::new();
    for (label, from, message) in cases {
        let error = service.handle_message(now, from, &message).unwrap_err();
        assert_eq!(error.code(), label, "{error}");
        assert!(error.to_string().starts_with(label), "{error}");
        seen.insert(label);
    }
    let flood = (0..100).find_map(|_| {
        service
            .handle_message(now, outsider, &[9])
            .err()
            .filter(|e| *e == DeliveryError::Rate)
    });
    seen.insert(flood.expect("a limit").code());

    let mut empty = DeliveryService::new(room.key());
    empty.handle_join(Time::ZERO, ParticipantId(1));
    let refused = encode(ToService::Refused { epoch: 1 });
    let error = empty
        .handle_message(Time::ZERO, ParticipantId(1), &refused)
        .unwrap_err();
    seen.insert(error.code());

    // What remains is the library's own failure, which no input is known to cause.
    let all = BTreeSet::from(DeliveryError::CODES);
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), [&"library"]);
    assert_eq!(room.epoch(1), Some(1), "the group did not notice");
}

#[test]
fn a_commit_too_soon_after_the_last_is_told_so_and_changes_nothing() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(3000, |room| room.converged(1..=2));
    room.run(300);
    for id in [1, 2] {
        let commit = commit_of(&mut room, id);
        let (now, before) = (room.time(), room.service.group());
        room.service
            .handle_message(now, ParticipantId(id), &commit)
            .unwrap();
        if id == 1 {
            // Its own epoch begins, for the other one too.
            room.run_until(1000, |room| room.converged(1..=2));
            continue;
        }
        let stale = std::iter::from_fn(|| room.service.poll_output())
            .filter_map(|output| ToMember::decode(&output.message).ok())
            .find_map(|message| match message {
                ToMember::Stale { why, .. } => Some(why),
                _ => None,
            });
        assert_eq!(stale, Some(Why::TooSoon));
        assert_eq!(room.service.group(), before);
    }
}

#[test]
fn a_room_that_fills_at_once_makes_a_full_group_and_no_fuller() {
    let mut room = Room::new(GroupSuite::X25519);
    let everybody = MAX_MEMBERS as u64 + 2;
    for id in 1..=everybody {
        room.join(id);
    }
    let inside = |room: &Room| {
        room.clients
            .values()
            .filter(|client| client.member.epoch().is_some())
            .count()
    };
    room.run_until(20_000, |room| inside(room) == MAX_MEMBERS);
    let (epochs, members) = room.service.group().unwrap();
    assert_eq!(members, MAX_MEMBERS);
    // 127 joins, 64 proposals at most in an epoch.
    assert_eq!(epochs, 2, "{}", room.describe());
    room.run(2_000);
    assert_eq!(inside(&room), MAX_MEMBERS, "the last two wait");
    assert_eq!(room.service.counters().stalled, 0);
    // One leaves, and one of those who wait takes the place.
    room.leave(5);
    room.run_until(10_000, |room| inside(room) == MAX_MEMBERS);
}
