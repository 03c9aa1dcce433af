//! What joins, leaves and rotations do to keys: frames and metadata on the way.

use crate::room::Room;
use sealcast_mls::{GroupSuite, MetadataError};
use sealcast_sframe::OpenError;
use sealcast_sframe::layout::Codec;

fn seal(room: &mut Room, id: u64) -> Vec<u8> {
    let mut sealed = Vec::new();
    let frame = [0x78; 60];
    room.member(id)
        .seal_frame(1, Codec::Opus, &frame, &mut sealed)
        .unwrap();
    sealed
}

#[test]
fn frames_and_metadata_pass_between_all() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=4 {
        room.join(id);
    }
    room.run_until(3000, |room| room.converged(1..=4));
    for from in 1..=4 {
        let (frame, message) = (
            seal(&mut room, from),
            room.member(from).seal_metadata(b"Dr. Ada").unwrap(),
        );
        let leaf = room.member(from).leaf().unwrap();
        for to in (1..=4).filter(|to| *to != from) {
            let mut buffer = frame.clone();
            let opened = room
                .member(to)
                .open_frame(Codec::Opus, &mut buffer)
                .unwrap()
                .unwrap();
            assert_eq!((opened.leaf, opened.context), (leaf, 1));
            assert_eq!(buffer[opened.opened.frame], [0x78; 60]);
            let opened = room.member(to).open_metadata(&message).unwrap();
            assert_eq!((opened.leaf, &opened.content[..]), (leaf, &b"Dr. Ada"[..]));
        }
    }
}

#[test]
fn who_joins_cannot_open_what_came_before() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(3000, |room| room.converged([1, 2]));
    let (frame, message) = (
        seal(&mut room, 1),
        room.member(1).seal_metadata(b"before").unwrap(),
    );
    room.join(3);
    room.run_until(3000, |room| room.converged(1..=3));
    let refused = room.member(3).open_frame(Codec::Opus, &mut frame.clone());
    assert!(matches!(refused, Err(OpenError::UnknownKid(_))));
    let refused = room.member(3).open_metadata(&message);
    assert!(matches!(refused, Err(MetadataError::UnknownKey { .. })));
    let mut frame = seal(&mut room, 1);
    assert!(room.member(3).open_frame(Codec::Opus, &mut frame).is_ok());
}

#[test]
fn who_leaves_cannot_open_what_comes_after() {
    let mut room = Room::new(GroupSuite::X25519);
    for id in 1..=3 {
        room.join(id);
    }
    room.run_until(3000, |room| room.converged(1..=3));
    let mut left = room.leave(3);
    let last_key = left.member.sframe_base_key().unwrap();
    room.run_until(3000, |room| room.converged([1, 2]));
    // All that the leaver held, its member with every key of its epochs, is tried.
    for _ in 0..20 {
        let frame = seal(&mut room, 1);
        let message = room.member(1).seal_metadata(b"after").unwrap();
        assert!(
            left.member
                .open_frame(Codec::Opus, &mut frame.clone())
                .is_err()
        );
        assert!(left.member.open_metadata(&message).is_err());
        let mut forced =
            sealcast_sframe::KeyStore::new(sealcast_sframe::CipherSuite::Aes256GcmSha512);
        let kid = room.member(1).kid(1).unwrap();
        forced.insert(kid, &last_key).unwrap();
        assert_eq!(
            forced.open(&[], &mut frame.clone()),
            Err(OpenError::Auth(kid))
        );
        assert!(
            room.member(2)
                .open_frame(Codec::Opus, &mut frame.clone())
                .is_ok()
        );
    }
}

#[test]
fn no_frame_is_lost_while_members_come_and_go() {
    let mut room = Room::new(GroupSuite::X25519);
    room.join(1);
    room.join(2);
    room.run_until(3000, |room| room.converged([1, 2]));
    let (mut sent, mut lost) = (0, 0);
    let mut joined = 2;
    for tick in 0..500u64 {
        if tick % 50 == 25 {
            joined += 1;
            room.join(joined);
        }
        if tick % 100 == 99 {
            room.leave(joined);
        }
        // A frame each way every 20 ms, delivered 20 ms later.
        let frames = [(1, 2), (2, 1)].map(|(from, to)| (to, seal(&mut room, from)));
        room.run(20);
        for (to, mut frame) in frames {
            sent += 1;
            let opened = room.member(to).open_frame(Codec::Opus, &mut frame);
            lost += u32::from(opened.is_err());
        }
    }
    assert_eq!((sent, lost), (1000, 0), "{}", room.describe());
}
