//! What is refused has a label, and what could grow has an end.

use super::room::Room;
use sealcast_delivery::{DeliveryError, DeliveryService};
use sealcast_group_wire::{MAX_MEMBERS, ToMember, ToService, Why};
use sealcast_mls::identity::Claim;
use sealcast_mls::{GroupSuite, MemberKey};
use sealcast_model::{ParticipantId, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// A commit that a member would send in a second from now.
fn commit_of(room: &mut Room, id: u64) -> Vec<u8> {
    let later = room.unix() + Duration::from_secs(1);
    let member = room.member(id);
    member.request_rotation();
    member.handle_timeout(later).unwrap();
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
    let commit = commit_of(&mut room, 1);
    let now = room.time();
    room.service
        .handle_message(now, ParticipantId(1), &commit)
        .unwrap();
    room.collect();
    room.run_until(140, |room| room.epoch(2) == Some(2));
    // The other one does not keep to the members' rule of 200 ms.
    let commit = commit_of(&mut room, 2);
    let (now, before) = (room.time(), room.service.group());
    room.service
        .handle_message(now, ParticipantId(2), &commit)
        .unwrap();
    let stale = std::iter::from_fn(|| room.service.poll_output())
        .filter_map(|output| ToMember::decode(&output.message).ok())
        .find_map(|message| match message {
            ToMember::Stale { why, .. } => Some(why),
            _ => None,
        });
    assert_eq!(stale, Some(Why::TooSoon));
    assert_eq!(room.service.group(), before);
    assert_eq!(room.service.counters().stale_commits, 1);
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

#[test]
fn a_creator_that_does_not_answer_is_passed_over() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    // Its Hello has come, and it is asked to create the group.
    room.run(25);
    room.clients.get_mut(&1).unwrap().frozen = true;
    room.join(2);
    let took = room.run_until(4_000, |room| room.converged([2]));
    assert!((2_900..3_300).contains(&took), "{took} ms");
    // The late one's group is not taken; it is added to the one that there is.
    room.clients.get_mut(&1).unwrap().frozen = false;
    room.run_until(4_000, |room| room.converged(1..=2));
}

#[test]
fn a_group_in_which_nobody_commits_starts_over() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(3_000, |room| room.converged(1..=2));
    let is_proposal =
        |message: &[u8]| matches!(ToMember::decode(message), Ok(ToMember::Proposal { .. }));
    room.tamper = Some(Box::new(move |_, message| {
        (!is_proposal(&message)).then_some(message)
    }));
    room.join(3);
    room.run(14_900);
    assert_eq!(room.service.counters().stalled, 0);
    room.run(200);
    assert_eq!(room.service.counters().stalled, 1);
    room.tamper = None;
    room.run_until(8_000, |room| room.converged(1..=3));
}

#[test]
fn who_declined_whom_is_forgotten_once_it_is_settled() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=3 {
        room.join(id);
    }
    room.run_until(3_000, |room| room.converged(1..=3));
    // One member of three declines everybody who comes; the others add them all the same.
    for id in 4..8 {
        let key = MemberKey::generate(GroupSuite::X25519).unwrap();
        let public = key.public().to_vec();
        room.join_as(id, key, &Claim::Id(format!("p-{id}")));
        room.run(30);
        let declined = ToService::Declined {
            signature_key: public.into(),
        };
        let now = room.time();
        room.service
            .handle_message(now, ParticipantId(3), &declined.encode().unwrap())
            .unwrap();
        assert_eq!(room.service.declined(), 1);
        room.run_until(3_000, |room| room.converged(1..=id));
        assert_eq!(room.service.declined(), 0);
    }
}
