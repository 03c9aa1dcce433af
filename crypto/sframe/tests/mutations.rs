//! Frames that were changed on their way, codec by codec: bits flipped, ends cut off, order changed,
//! sent twice. Each is refused, and the genuine frame opens afterwards, once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use sealcast_sframe::layout::{Codec, open, seal};
use sealcast_sframe::{BaseKeyScope, CipherSuite, KeyStore, Kid, OpenError, REPLAY_WINDOW, Sealer};
use std::collections::BTreeMap;

const SUITE: CipherSuite = CipherSuite::Aes256GcmSha512;
const KEY: [u8; 32] = [7; 32];
const EPOCH: u64 = 3;

/// A frame of each codec, and whether parts of it may change on the way without harm: the copies
/// that stay outside of the seal of AV1 and H.264 are dropped by the receiver.
fn frames() -> [(Codec, Vec<u8>, bool); 6] {
    let filled = |head: &[u8]| [head, &[0x55; 40]].concat();
    [
        (Codec::Opus, filled(&[0x78]), false),
        (
            Codec::Vp8,
            filled(&[0x10, 2, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0]),
            false,
        ),
        (Codec::Vp8, filled(&[0x11, 2, 0]), false),
        (Codec::Vp9, filled(&[0x82]), false),
        (
            Codec::Av1,
            vec![
                0x12, 0, 0x0a, 3, 0xaa, 0xbb, 0xcc, 0x32, 5, 0x55, 0x55, 0x55, 0x55, 0x55,
            ],
            true,
        ),
        (
            Codec::H264,
            filled(&[
                0, 0, 0, 1, 0x67, 0x42, 0x42, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 1, 0x65, 0x88,
            ]),
            true,
        ),
    ]
}

fn pair() -> (Sealer, KeyStore) {
    let sealer = Sealer::new(SUITE, Kid::from_parts(0x100, 1, EPOCH), &KEY).unwrap();
    let mut keys = KeyStore::new(SUITE);
    let scope = BaseKeyScope::Epoch {
        epoch: EPOCH as u8,
        leaves: 2,
    };
    keys.insert_base_key(scope, &KEY).unwrap();
    (sealer, keys)
}

fn sealed(codec: Codec, sealer: &mut Sealer, frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal(codec, sealer, frame, &mut out).unwrap();
    out
}

/// The frame within, `None` for an empty one.
fn opened(codec: Codec, keys: &mut KeyStore, frame: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
    let mut buffer = frame.to_vec();
    let opened = open(codec, keys, &mut buffer)?;
    Ok(opened.map(|opened| buffer[opened.frame].to_vec()))
}

#[test]
fn any_flipped_bit_is_refused_and_counted_under_its_reason() {
    for (codec, frame, lenient) in frames() {
        let (mut sealer, mut keys) = pair();
        let genuine = sealed(codec, &mut sealer, &frame);
        let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
        for bit in 0..genuine.len() * 8 {
            let mut flipped = genuine.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Each time with a store of its own: a copy that opens uses up the counter.
            let (_, mut fresh) = pair();
            match opened(codec, &mut fresh, &flipped) {
                Err(error) => *reasons.entry(error.code()).or_default() += 1,
                Ok(content) => assert!(
                    lenient && content.as_ref() == Some(&frame),
                    "{codec}: bit {bit} of {}",
                    genuine.len()
                ),
            }
            if !lenient {
                opened(codec, &mut keys, &flipped).unwrap_err();
            }
        }
        assert!(reasons["auth"] > 200, "{codec}: {reasons:?}");
        assert!(reasons["unknown-kid"] >= 8, "{codec}: {reasons:?}");
        assert_eq!(opened(codec, &mut keys, &genuine), Ok(Some(frame)));
    }
}

#[test]
fn a_frame_that_was_cut_short_or_grew_is_refused() {
    for (codec, frame, _) in frames() {
        let (mut sealer, mut keys) = pair();
        let genuine = sealed(codec, &mut sealer, &frame);
        for len in 1..genuine.len() {
            opened(codec, &mut keys, &genuine[..len]).unwrap_err();
            let tail = &genuine[len..];
            match opened(codec, &mut keys, tail) {
                // AV1's and H.264's leading copies are not needed.
                Ok(content) => {
                    assert_eq!(content.as_ref(), Some(&frame), "{codec} from {len}");
                    (_, keys) = pair();
                }
                Err(error) => assert_ne!(error.code(), "replayed"),
            }
        }
        let longer = [&genuine[..], &[1]].concat();
        opened(codec, &mut keys, &longer).unwrap_err();
        assert_eq!(opened(codec, &mut keys, &[]), Ok(None));
        assert_eq!(opened(codec, &mut keys, &genuine), Ok(Some(frame)));
    }
}

#[test]
fn frames_open_in_any_order_within_the_window_and_once() {
    let (mut sealer, mut keys) = pair();
    let count = REPLAY_WINDOW + 100;
    let frames: Vec<_> = (0..count)
        .map(|number| sealed(Codec::Opus, &mut sealer, &number.to_be_bytes()))
        .collect();
    // The newest first, then all the others from the oldest on.
    let newest = count as usize - 1;
    opened(Codec::Opus, &mut keys, &frames[newest]).unwrap();
    let late = frames
        .iter()
        .filter(|frame| opened(Codec::Opus, &mut keys, frame).is_err());
    let refused = late.count() as u64;
    // Those behind the window, and the newest, which was opened.
    assert_eq!(refused, count - REPLAY_WINDOW + 1);
    for frame in &frames {
        let error = opened(Codec::Opus, &mut keys, frame).unwrap_err();
        assert_eq!(error.code(), "replayed");
    }
}

proptest! {
    #[test]
    fn whatever_opens_is_what_was_sealed(
        which in 0..6usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (codec, frame, _) = frames()[which].clone();
        let (mut sealer, mut keys) = pair();
        let mut changed = sealed(codec, &mut sealer, &frame);
        for (at, value) in edits {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(changed.len()));
        }
        if let Ok(Some(content)) = opened(codec, &mut keys, &changed) {
            prop_assert_eq!(content, frame);
        }
    }

    #[test]
    fn any_bytes_are_refused(which in 0..6usize, mut bytes: Vec<u8>) {
        let (codec, _, _) = frames()[which].clone();
        bytes.push(1);
        let (_, mut keys) = pair();
        prop_assert!(opened(codec, &mut keys, &bytes).is_err());
    }
}
