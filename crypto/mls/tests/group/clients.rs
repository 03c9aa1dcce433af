//! What a client does around its member: who is who, whose frames a track may hold, recovery.

use crate::room::{Room, participant};
use sealcast_mls::client::{MIN_CONTEXT, Output, TrackError};
use sealcast_mls::{GroupSuite, SWITCH_EPOCH_AFTER};
use sealcast_sframe::OpenError;
use sealcast_sframe::layout::Codec;
use serde_json::json;

fn seal(room: &mut Room, id: u64) -> Vec<u8> {
    let mut sealed = Vec::new();
    room.client(id)
        .seal_frame(MIN_CONTEXT, Codec::Opus, b"a frame", &mut sealed)
        .unwrap();
    sealed
}

fn open(room: &mut Room, id: u64, owner: u64, sealed: &[u8]) -> Result<Vec<u8>, TrackError> {
    let (now, mut buffer) = (room.unix(), sealed.to_vec());
    let owner = participant(owner);
    let opened = room
        .client(id)
        .open_frame(now, &owner, Codec::Opus, &mut buffer)?;
    Ok(buffer[opened.unwrap().opened.frame].to_vec())
}

#[test]
fn clients_meet_and_talk_in_either_suite() {
    for suite in [GroupSuite::X25519, GroupSuite::P256] {
        let mut room = Room::of(suite, 3);
        let sealed = seal(&mut room, 1);
        assert_eq!(open(&mut room, 2, 1, &sealed), Ok(b"a frame".to_vec()));
        let replayed = open(&mut room, 2, 1, &sealed);
        assert!(matches!(
            replayed,
            Err(TrackError::Open(OpenError::Replayed { .. }))
        ));
        // Under the name of another, the same frame is nobody's.
        let stolen = open(&mut room, 3, 2, &sealed);
        let leaf = room.client(1).member().leaf().unwrap();
        assert_eq!(stolen, Err(TrackError::Misattributed(leaf)));

        room.client(2).say(json!({"kind": "chat"})).unwrap();
        room.deliver();
        for id in [1, 3] {
            let heard = Output::App {
                participant: participant(2),
                body: json!({"kind": "chat"}),
            };
            assert_eq!(room.told[&id].last(), Some(&heard));
        }
        let leaf = room.client(1).leaf_of(&participant(3)).unwrap();
        let name = &room.client(1).person(leaf).unwrap().presence.name;
        assert_eq!(name.as_deref(), Some("Client 3"));
    }
}

#[test]
fn who_joins_meets_everybody_and_who_leaves_is_forgotten() {
    let mut room = Room::of(GroupSuite::X25519, 3);
    let left = room.leave(2);
    room.join(4);
    room.run(3000);
    assert!(room.met([1, 3, 4]));
    assert_eq!(room.client(1).leaf_of(&participant(2)), None);
    let sealed = seal(&mut room, 4);
    assert_eq!(open(&mut room, 3, 4, &sealed), Ok(b"a frame".to_vec()));
    // What was sealed after it left does not open with any key it held.
    room.clients.insert(2, left);
    room.cut_off.push(2);
    let late = open(&mut room, 2, 4, &sealed);
    assert_eq!(late, Err(TrackError::Held));
    let mut buffer = sealed.clone();
    let now = room.unix();
    let owner = participant(1);
    let late = room
        .client(2)
        .open_frame(now, &owner, Codec::Opus, &mut buffer);
    assert!(matches!(
        late,
        Err(TrackError::Open(OpenError::UnknownKid(_)))
    ));
}

#[test]
fn a_pseudonym_stays_with_the_leaf_that_claimed_it_first() {
    let mut room = Room::of(GroupSuite::X25519, 3);
    // A client that lies about who it is: what it says is sealed with its own key.
    let before = room.client(2).leaf_of(&participant(1));
    let now = room.unix();
    room.client(3)
        .handle_connected(now, &participant(1))
        .unwrap();
    room.deliver();
    let leaf = room.client(3).member().leaf().unwrap();
    let shown = Output::Impersonation {
        participant: participant(1),
        leaf,
    };
    assert!(room.told[&2].contains(&shown));
    assert_eq!(room.client(2).leaf_of(&participant(1)), before);
}

#[test]
fn frames_wait_until_their_owner_has_said_who_it_is() {
    let mut room = Room::of(GroupSuite::X25519, 2);
    room.cut_off.push(2);
    room.join(3);
    room.run(1000);
    // Nothing that client 3 said has reached client 2, though it can open its frames.
    room.cut_off.clear();
    let messages: Vec<_> = room.sent[&2].clone();
    let now = room.unix();
    let known = room.client(2).member().epoch().unwrap();
    for message in messages {
        let _ = room.client(2).handle_group(now, &message.encode().unwrap());
    }
    assert_eq!(room.client(2).member().epoch(), Some(known + 1));
    let sealed = seal(&mut room, 3);
    assert_eq!(open(&mut room, 2, 3, &sealed), Err(TrackError::Held));
    // It asks, and is told.
    room.run(SWITCH_EPOCH_AFTER.as_millis() as u64 + 2000);
    let sealed = seal(&mut room, 3);
    assert_eq!(open(&mut room, 2, 3, &sealed), Ok(b"a frame".to_vec()));
}

#[test]
fn a_client_that_opens_nothing_any_more_asks_for_the_groups_state() {
    let mut room = Room::of(GroupSuite::X25519, 3);
    room.cut_off.push(3);
    for _ in 0..3 {
        room.client(1).rotate();
        room.run(500);
    }
    room.cut_off.clear();
    let mut opened = 0;
    for _ in 0..40 {
        room.run(200);
        let sealed = seal(&mut room, 1);
        opened += u32::from(open(&mut room, 3, 1, &sealed).is_ok());
    }
    assert!(opened > 10, "recovered by itself: {opened} of 40");
    assert_eq!(
        room.client(1).member().epoch(),
        room.client(3).member().epoch()
    );
}

#[test]
fn a_question_is_answered_at_most_once_a_second() {
    let mut room = Room::of(GroupSuite::X25519, 2);
    room.cut_off.push(1);
    let now = room.unix();
    let mut answers = 0;
    for millis in (0..3000).step_by(100) {
        let now = now + std::time::Duration::from_millis(millis);
        // A reconnection asks, among other things.
        room.client(2)
            .handle_connected(now, &participant(2))
            .unwrap();
        let asked = room.take_sealed(2);
        for message in asked {
            let _ = room.client(1).handle_sealed(now, &message);
        }
        room.client(1).handle_timeout(now).unwrap();
        answers += room.take_sealed(1).len();
    }
    assert!((2..=4).contains(&answers), "{answers}");
}

#[test]
fn keys_are_rotated_before_one_of_them_has_sealed_too_many_frames() {
    let mut room = Room::new(GroupSuite::X25519);
    room.config.rotate_after_frames = 50;
    room.join(1);
    room.join(2);
    room.run(4000);
    let before = room.client(2).member().epoch().unwrap();
    for _ in 0..49 {
        seal(&mut room, 2);
    }
    room.run(3000);
    assert_eq!(room.client(2).member().epoch(), Some(before));
    seal(&mut room, 2);
    room.run(1000);
    // One epoch, not one after another: the new key has sealed nothing yet.
    assert_eq!(room.client(2).member().epoch(), Some(before + 1));
    assert_eq!(room.client(1).member().sending_epoch(), Some(before + 1));
    let sealed = seal(&mut room, 2);
    assert_eq!(open(&mut room, 1, 2, &sealed), Ok(b"a frame".to_vec()));
}
