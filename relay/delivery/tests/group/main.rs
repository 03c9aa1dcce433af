//! Members and delivery service together, on a virtual clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod ghosts;
mod keys;
mod limits;
mod room;

use room::Room;
use sealcast_mls::{Event, GroupSuite};

#[test]
fn two_members_share_a_group_in_either_suite() {
    for suite in [GroupSuite::X25519, GroupSuite::P256] {
        let mut room = Room::new(suite);
        room.join(1);
        room.run_until(1000, |room| room.converged([1]));
        room.join(2);
        let took = room.run_until(1000, |room| room.converged([1, 2]));
        assert!(took <= 400, "{took} ms");
        let keys = [1, 2].map(|id| room.member(id).sframe_base_key().unwrap());
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[0].len(), 32);
        assert!(room.errors.is_empty(), "{}", room.describe());
        assert!(
            room.clients
                .values()
                .all(|client| client.refused.is_empty())
        );
    }
}

#[test]
fn everybody_who_comes_at_once_gets_in() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=8 {
        room.join(id);
    }
    room.run_until(3000, |room| room.converged(1..=8));
    // One round for the creator, one for all the others.
    assert_eq!(room.epoch(1), Some(1));
}

#[test]
fn fifty_members_in_five_seconds() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=50 {
        room.join(id);
        room.run(100);
    }
    room.run_until(3000, |room| room.converged(1..=50));
    let (sent, received) = room.bytes[&50];
    assert!(
        sent < 4_000 && received < 64 * 1024,
        "sent {sent}, received {received}"
    );
    let epochs = room.epoch(1).unwrap();
    assert!(epochs <= 27, "{epochs} epochs for 49 joins at 10 a second");
}

#[test]
fn two_commits_at_once_make_one_epoch() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.join(3);
    room.run_until(3000, |room| room.converged(1..=3));
    for _ in 0..100 {
        let before = room.epoch(1).unwrap();
        room.run(500);
        room.member(1).request_rotation();
        room.member(2).request_rotation();
        room.run_until(2000, |room| {
            room.epoch(1) == Some(before + 1) && room.converged(1..=3)
        });
    }
    let counters = room.service.counters();
    assert_eq!(counters.stale_commits, 100, "{}", room.describe());
    assert_eq!(counters.invalid_commits, 0);
    assert!(
        room.clients
            .values()
            .all(|client| client.refused.is_empty())
    );
}

#[test]
fn keys_rotate_every_ten_minutes() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(1000, |room| room.converged([1, 2]));
    let before = room.epoch(1).unwrap();
    room.run(590_000);
    assert_eq!(room.epoch(1), Some(before));
    room.run(20_000);
    assert_eq!(room.epoch(1), Some(before + 1));
    assert!(room.converged([1, 2]));
}

#[test]
fn the_next_leaf_commits_when_the_lowest_does_not() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=3 {
        room.join(id);
        room.run(500);
    }
    assert!(room.converged(1..=3));
    room.clients.get_mut(&1).unwrap().frozen = true;
    room.join(4);
    let took = room.run_until(3000, |room| room.epoch(4).is_some());
    assert!((1000..1300).contains(&took), "{took} ms");
    // The frozen one is late, not lost.
    room.clients.get_mut(&1).unwrap().frozen = false;
    room.run_until(3000, |room| room.converged(1..=4));
    assert_eq!(room.service.counters().added_again, 0);
}

#[test]
fn who_leaves_is_removed_and_told_nothing_more() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=3 {
        room.join(id);
    }
    room.run_until(3000, |room| room.converged(1..=3));
    let before = room.epoch(2).unwrap();
    // The lowest leaf leaves: the next one commits, without waiting for it.
    room.leave(1);
    let took = room.run_until(3000, |room| room.epoch(2) == Some(before + 1));
    assert!(took < 400, "{took} ms");
    room.run_until(3000, |room| room.converged([2, 3]));
    assert!(
        room.events(2)
            .iter()
            .any(|event| matches!(event, Event::Epoch { left, .. } if left == &[0]))
    );
}

#[test]
fn the_last_to_leave_ends_the_group_and_the_next_begins_another() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.run_until(1000, |room| room.converged([1]));
    let first = room.member(1).sframe_base_key().unwrap();
    room.leave(1);
    room.join(2);
    room.run_until(1000, |room| room.converged([2]));
    assert_ne!(first, room.member(2).sframe_base_key().unwrap());
}
