//! Whatever is done to a message on its way, it is refused with a reason that is counted, and the
//! genuine one is taken afterwards.

use crate::room::{Room, participant};
use sealcast_group_wire::ToMember;
use sealcast_mls::client::GroupClient;
use sealcast_mls::{GroupSuite, HandshakeStats, SenderStats};
use std::collections::BTreeSet;

/// Every version of `message` with one bit of one byte flipped (a different bit from byte to byte),
/// every beginning of it, and it with a byte too many.
fn mutations(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flips = (0..message.len()).map(|at| {
        let mut flipped = message.to_vec();
        flipped[at] ^= 1 << (at % 8);
        flipped
    });
    let cuts = (0..message.len()).map(|len| message[..len].to_vec());
    flips.chain(cuts).chain([[message, &[0]].concat()])
}

/// Hands `message` to the client. It is refused, or known already: counted either way, and nothing
/// has changed.
fn refused(room: &mut Room, id: u64, message: &[u8]) {
    let unix = room.unix();
    let client = room.client(id);
    let (before, epoch) = (counts(client), client.member().epoch());
    let result = client.handle_group(unix, message);
    let after = counts(client);
    let counted = match result {
        Ok(()) => (before.0 + 1, before.1),
        Err(_) => (before.0, before.1 + 1),
    };
    assert_eq!(after, counted, "{result:?}");
    assert_eq!(client.member().epoch(), epoch);
}

/// Handshakes that were known already, and refused ones.
fn counts(client: &GroupClient) -> (u64, u64) {
    let stats = client.member().handshake_stats();
    (stats.repeated, stats.refused_total())
}

fn reasons(client: &GroupClient, kind: &str) -> BTreeSet<&'static str> {
    let stats: &HandshakeStats = client.member().handshake_stats();
    let reasons = stats.refused.get(kind).into_iter().flatten();
    reasons.map(|(reason, _)| *reason).collect()
}

/// What the delivery service sent last to `id`, of the kind that `pick` takes.
fn last(room: &Room, id: u64, pick: impl Fn(&ToMember) -> bool) -> Vec<u8> {
    let sent = room.sent[&id].iter().rfind(|message| pick(message));
    sent.unwrap().encode().unwrap()
}

fn is_commit(message: &ToMember) -> bool {
    matches!(message, ToMember::Commit { .. })
}

#[test]
fn commits() {
    for suite in [GroupSuite::X25519, GroupSuite::P256] {
        let mut room = Room::of(suite, 3);
        room.cut_off.push(3);
        room.client(1).rotate();
        room.run(500);
        let genuine = last(&room, 3, is_commit);
        for mutated in mutations(&genuine) {
            refused(&mut room, 3, &mutated);
        }
        let expected = ["epoch", "group-id", "membership-tag", "mls-format"];
        let seen = reasons(room.client(3), "commit");
        assert!(
            expected.iter().all(|reason| seen.contains(reason)),
            "{seen:?}"
        );
        assert!(reasons(room.client(3), "unreadable").contains("wire"));

        let unix = room.unix();
        room.client(3).handle_group(unix, &genuine).unwrap();
        let code = room
            .client(1)
            .member()
            .epoch_authenticator()
            .map(<[u8]>::to_vec);
        let own = room
            .client(3)
            .member()
            .epoch_authenticator()
            .map(<[u8]>::to_vec);
        assert_eq!(own, code);
        // Replayed, it is known.
        let before = counts(room.client(3));
        room.client(3).handle_group(unix, &genuine).unwrap();
        assert_eq!(counts(room.client(3)), (before.0 + 1, before.1));
    }
}

#[test]
fn commits_out_of_order() {
    let mut room = Room::of(GroupSuite::X25519, 3);
    room.cut_off.push(3);
    let mut missed = Vec::new();
    for _ in 0..2 {
        room.client(1).rotate();
        room.run(500);
        missed.push(last(&room, 3, is_commit));
    }
    refused(&mut room, 3, &missed[1]);
    assert!(reasons(room.client(3), "commit").contains("epoch"));
    let unix = room.unix();
    for commit in &missed {
        room.client(3).handle_group(unix, commit).unwrap();
    }
    let epoch = room.client(1).member().epoch();
    assert_eq!(room.client(3).member().epoch(), epoch);
}

#[test]
fn proposals() {
    let mut room = Room::of(GroupSuite::X25519, 3);
    // All members are cut off before they can commit to the new one.
    room.cut_off.extend([1, 2, 3]);
    room.join(4);
    let genuine = last(&room, 3, |message| {
        matches!(message, ToMember::Proposal { .. })
    });
    for mutated in mutations(&genuine) {
        refused(&mut room, 3, &mutated);
    }
    let seen = reasons(room.client(3), "proposal");
    for reason in ["signature", "epoch", "group-id"] {
        assert!(seen.contains(reason), "{seen:?}");
    }
    let unix = room.unix();
    room.client(3).handle_group(unix, &genuine).unwrap();
    let before = counts(room.client(3));
    room.client(3).handle_group(unix, &genuine).unwrap();
    assert_eq!(counts(room.client(3)), (before.0 + 1, before.1));
}

#[test]
fn welcomes() {
    let is_welcome = |message: &ToMember| matches!(message, ToMember::Welcome { .. });
    for suite in [GroupSuite::X25519, GroupSuite::P256] {
        let mut room = Room::of(suite, 2);
        room.join(3);
        room.cut_off.push(3);
        room.run(1000);
        let genuine = last(&room, 3, is_welcome);
        for mutated in mutations(&genuine) {
            refused(&mut room, 3, &mutated);
        }
        let seen = reasons(room.client(3), "welcome");
        for reason in ["key-package", "mls-format"] {
            assert!(seen.contains(reason), "{seen:?}");
        }
        // "A KeyPackage is intended to be used only once" (RFC 9420 §10): the first Welcome that
        // names it uses it up, good or bad, and the member asks to be added with another.
        refused(&mut room, 3, &genuine);
        room.cut_off.clear();
        room.run(8000);
        assert!(room.met(1..=3));
        // Replayed, it leads nowhere.
        let genuine = last(&room, 3, is_welcome);
        refused(&mut room, 3, &genuine);
        assert!(room.met(1..=3));
    }
}

#[test]
fn welcomes_damaged_in_one_place() {
    let mut room = Room::of(GroupSuite::X25519, 1);
    let mut seen = BTreeSet::new();
    for part in 0..12 {
        let id = 10 + part as u64;
        room.cut_off.push(id);
        room.join(id);
        // The member that commits does so once this one's KeyPackages are with the service.
        room.cut_off.retain(|cut| *cut != id);
        room.deliver();
        room.cut_off.push(id);
        room.run(400);
        let mut welcome = last(&room, id, |message| {
            matches!(message, ToMember::Welcome { .. })
        });
        let at = welcome.len() * (2 * part + 1) / 24;
        welcome[at] ^= 0x10;
        refused(&mut room, id, &welcome);
        seen.extend(reasons(room.client(id), "welcome"));
    }
    assert!(seen.contains("decryption"), "{seen:?}");
    room.cut_off.clear();
    room.run(15_000);
    assert!(room.met((10..22).chain([1])));
}

#[test]
fn sealed_messages() {
    let mut room = Room::of(GroupSuite::X25519, 3);
    let unix = room.unix();
    room.client(1).say("first".into()).unwrap();
    room.client(1).say("second".into()).unwrap();
    let messages = room.take_sealed(1);
    let refused_total = |room: &mut Room| room.client(2).member().metadata_stats().refused_total();
    let leaf = room.client(1).member().leaf().unwrap();
    let opened = |room: &mut Room| room.client(2).member().metadata_stats().senders[&leaf].opened;
    let opened_before = opened(&mut room);
    for mutated in mutations(&messages[0]) {
        let before = refused_total(&mut room);
        assert!(room.client(2).handle_sealed(unix, &mutated).is_err());
        assert_eq!(refused_total(&mut room), before + 1);
    }
    let stats = room.client(2).member().metadata_stats().clone();
    assert_eq!(stats.short, 35, "shorter than header and tag");
    assert_eq!(stats.malformed, 1, "another version");
    assert!(stats.unknown_sender >= 1, "leaves beyond the tree");
    assert_eq!(
        stats.senders[&leaf].unknown_kid, 8,
        "each byte of the epoch"
    );
    assert!(stats.senders[&leaf].auth > 50);

    // Out of order both open, and either once.
    for message in messages.iter().rev() {
        room.client(2).handle_sealed(unix, message).unwrap();
        assert!(room.client(2).handle_sealed(unix, message).is_err());
    }
    let sender = room.client(2).member().metadata_stats().senders[&leaf];
    assert_eq!((sender.opened, sender.replayed), (opened_before + 2, 2));
    assert!(room.client(2).poll_output().is_some(), "both were said");
}

#[test]
fn frames_with_other_key_ids() {
    use sealcast_mls::client::MIN_CONTEXT;
    use sealcast_sframe::layout::Codec;
    use sealcast_sframe::{CipherSuite, Kid, Sealer};
    let mut room = Room::of(GroupSuite::X25519, 3);
    let now = room.unix();
    let leaf = room.client(1).member().leaf().unwrap();
    let epoch = room.client(1).member().epoch().unwrap();
    let key = room.client(1).member().sframe_base_key().unwrap();
    let seal = |kid: Kid, key: &[u8]| {
        let mut sealer = Sealer::new(CipherSuite::Aes256GcmSha512, kid, key).unwrap();
        let mut sealed = Vec::new();
        sealcast_sframe::layout::seal(Codec::Opus, &mut sealer, b"frame", &mut sealed).unwrap();
        sealed
    };
    let mut open = |sealed: &[u8]| {
        let mut buffer = sealed.to_vec();
        let opened = room
            .client(2)
            .open_frame(now, &participant(1), Codec::Opus, &mut buffer);
        let stats = room.client(2).member();
        let senders: SenderStats = stats.sender_stats().get(&leaf).copied().unwrap_or_default();
        let word = opened.err().map(|error| error.to_string());
        (word, senders, stats.malformed_frames())
    };
    let genuine = seal(Kid::from_parts(MIN_CONTEXT, leaf, epoch), &key);
    let (word, senders, _) = open(&genuine);
    assert_eq!((word, senders.opened), (None, 1));
    let (word, senders, _) = open(&genuine);
    assert!(word.is_some_and(|word| word.starts_with("replayed")));
    assert_eq!(senders.replayed, 1);
    // An epoch that is not held.
    let (word, senders, _) = open(&seal(Kid::from_parts(MIN_CONTEXT, leaf, epoch + 1), &key));
    assert!(word.is_some_and(|word| word.starts_with("unknown-kid")));
    assert_eq!(senders.unknown_kid, 1);
    // Its key id, another key: and the key of one context under the id of another.
    let (word, senders, _) = open(&seal(Kid::from_parts(MIN_CONTEXT, leaf, epoch), &[1; 32]));
    assert!(word.is_some_and(|word| word.starts_with("replayed")));
    assert_eq!(senders.replayed, 2, "the counter alone says so");
    let (word, senders, _) = open(&seal(
        Kid::from_parts(MIN_CONTEXT + 1, leaf, epoch),
        &[1; 32],
    ));
    assert!(word.is_some_and(|word| word.starts_with("auth")));
    assert_eq!(senders.auth, 1);
    // A leaf beyond the tree, and no key id of a group at all.
    let (word, _, malformed) = open(&seal(Kid::from_parts(MIN_CONTEXT, 77, epoch), &key));
    assert!(word.is_some_and(|word| word.starts_with("unknown-kid")));
    assert_eq!(malformed, 1);
    let (word, _, malformed) = open(&seal(Kid(u64::MAX), &key));
    assert!(word.is_some_and(|word| word.starts_with("unknown-kid")));
    assert_eq!(malformed, 2);
}
