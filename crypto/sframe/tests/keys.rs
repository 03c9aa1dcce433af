//! Sealer and key store as their callers use them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use sealcast_sframe::{
    BaseKeyScope, CipherSuite, KeyError, KeyStore, Kid, MAX_BASE_KEYS, MAX_EXPLICIT_KEYS, MAX_KEYS,
    OpenError, SealError, Sealer,
};

const SUITE: CipherSuite = CipherSuite::Aes128GcmSha256;
const KEY: [u8; 32] = [9; 32];

fn seal(kid: Kid, key: &[u8], frames: usize) -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new(SUITE, kid, key).unwrap();
    (0..frames)
        .map(|_| {
            let mut out = Vec::new();
            sealer.seal_to_vec(&[], b"frame", &mut out).unwrap();
            out
        })
        .collect()
}

#[test]
fn a_sealer_stops_at_its_limit_and_leaves_the_output_alone() {
    let mut sealer = Sealer::new(SUITE, Kid(1), &KEY).unwrap().with_limit(2);
    let mut out = vec![0xee];
    sealer.seal_to_vec(&[], b"a", &mut out).unwrap();
    sealer.seal_to_vec(&[], b"b", &mut out).unwrap();
    assert_eq!(sealer.remaining(), 0);
    let len = out.len();
    let refused = sealer.seal_to_vec(&[], b"c", &mut out);
    assert_eq!(refused, Err(SealError::Exhausted(2)));
    assert_eq!(out.len(), len);
}

#[test]
fn a_slice_must_fit_and_a_misfit_spends_no_counter() {
    let mut sealer = Sealer::new(SUITE, Kid(1), &KEY).unwrap();
    let need = sealer.sealed_len(5);
    let mut out = vec![0; need + 1];
    let refused = sealer.seal_to_slice(&[], b"frame", &mut out);
    assert_eq!(
        refused,
        Err(SealError::OutputLength {
            need,
            have: need + 1
        })
    );
    sealer
        .seal_to_slice(&[], b"frame", &mut out[..need])
        .unwrap();
    assert_eq!(sealer.counter(), 1);
    assert_eq!(out[..need], seal(Kid(1), &KEY, 1)[0]);
}

#[test]
fn base_keys_outside_16_to_96_bytes_are_refused() {
    for len in [0, 15, 97] {
        let refused = Sealer::new(SUITE, Kid(1), &vec![1; len]).err();
        assert_eq!(refused, Some(KeyError::BaseKeyLength(len)));
    }
}

#[test]
fn a_forged_frame_does_not_move_the_window_or_keep_a_key() {
    let mut keys = KeyStore::new(SUITE);
    keys.insert_base_key(BaseKeyScope::Any, &KEY).unwrap();
    let frames = seal(Kid(77), &KEY, 3);
    let mut forged = frames[2].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(keys.open(&[], &mut forged), Err(OpenError::Auth(Kid(77))));
    assert_eq!(keys.kids().count(), 0);
    for frame in [2, 0, 1] {
        keys.open(&[], &mut frames[frame].clone()).unwrap();
    }
    assert_eq!(keys.kids().collect::<Vec<_>>(), [Kid(77)]);
    assert_eq!(
        keys.open(&[], &mut frames[0].clone()),
        Err(OpenError::Replayed {
            kid: Kid(77),
            counter: 0
        })
    );
}

#[test]
fn an_epoch_key_serves_its_own_leaves_only() {
    let scope = BaseKeyScope::Epoch {
        epoch: 5,
        leaves: 3,
    };
    let mut keys = KeyStore::new(SUITE);
    keys.insert_base_key(scope, &KEY).unwrap();
    let mut open = |kid: Kid| {
        keys.open(&[], &mut seal(kid, &KEY, 1)[0].clone())
            .map(|_| ())
    };
    assert_eq!(open(Kid::from_parts(1, 2, 0x105)), Ok(()));
    for stranger in [
        Kid::from_parts(1, 3, 5),
        Kid::from_parts(1, 2, 6),
        Kid(Kid::from_parts(1, 2, 5).0 | 1 << 40),
    ] {
        assert_eq!(open(stranger), Err(OpenError::UnknownKid(stranger)));
    }
    let known = Kid::from_parts(1, 2, 5);
    assert!(keys.remove_base_key(scope));
    assert_eq!(
        keys.open(&[], &mut seal(known, &KEY, 1)[0].clone()),
        Err(OpenError::UnknownKid(known))
    );
}

#[test]
fn a_full_store_gives_up_derived_keys_and_never_explicit_ones() {
    let mut keys = KeyStore::new(SUITE);
    keys.insert_base_key(BaseKeyScope::Any, &KEY).unwrap();
    let explicit = MAX_EXPLICIT_KEYS as u64;
    for kid in 0..explicit {
        keys.insert(Kid(kid), &KEY).unwrap();
    }
    assert_eq!(keys.insert(Kid(explicit), &KEY), Err(KeyError::StoreFull));
    assert_eq!(keys.insert(Kid(0), &KEY), Err(KeyError::Duplicate(Kid(0))));
    for kid in explicit..=MAX_KEYS as u64 {
        keys.open(&[], &mut seal(Kid(kid), &KEY, 1)[0].clone())
            .unwrap();
    }
    let kids: Vec<_> = keys.kids().collect();
    assert_eq!(kids.len(), MAX_KEYS);
    assert_eq!(kids[..MAX_EXPLICIT_KEYS].last(), Some(&Kid(explicit - 1)));
    assert!(
        !kids.contains(&Kid(explicit)),
        "the derived key longest out of use goes"
    );
}

#[test]
fn base_keys_are_bounded_and_replaced_by_scope() {
    let mut keys = KeyStore::new(SUITE);
    for epoch in 0..MAX_BASE_KEYS as u8 {
        keys.insert_base_key(BaseKeyScope::Epoch { epoch, leaves: 1 }, &KEY)
            .unwrap();
    }
    assert_eq!(
        keys.insert_base_key(BaseKeyScope::Any, &KEY),
        Err(KeyError::StoreFull)
    );
    keys.insert_base_key(
        BaseKeyScope::Epoch {
            epoch: 0,
            leaves: 1,
        },
        &[1; 16],
    )
    .unwrap();
    let kid = Kid::from_parts(1, 0, 0);
    assert_eq!(
        keys.open(&[], &mut seal(kid, &KEY, 1)[0].clone()),
        Err(OpenError::Auth(kid))
    );
    keys.open(&[], &mut seal(kid, &[1; 16], 1)[0].clone())
        .unwrap();
}
