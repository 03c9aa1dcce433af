use super::*;
use crate::{BaseKeyScope, CipherSuite};
use proptest::prelude::*;

const BASE_KEY: [u8; 16] = [7; 16];
const SUITE: CipherSuite = CipherSuite::Aes256GcmSha512;
const KID: Kid = Kid(0x12_3456_789a_bcde);

pub(super) fn pair() -> (Sealer, KeyStore) {
    let sealer = Sealer::new(SUITE, KID, &BASE_KEY).unwrap();
    let mut keys = KeyStore::new(SUITE);
    keys.insert_base_key(BaseKeyScope::Any, &BASE_KEY).unwrap();
    (sealer, keys)
}

#[test]
fn vp8_keeps_frame_tag_and_size_clear() {
    let (mut sealer, _) = pair();
    let mut sealed = Vec::new();
    for (first, clear) in [(0x10, 10), (0x11, 3)] {
        let mut frame = vec![0xaa; 200];
        frame[0] = first;
        seal(Codec::Vp8, &mut sealer, &frame, &mut sealed).unwrap();
        assert_eq!(sealed[..clear], frame[..clear]);
        assert_eq!(peek(Codec::Vp8, &sealed[..PEEK_LEN]).unwrap().kid, KID);
        assert!(!sealed[clear..].windows(8).any(|bytes| bytes == [0xaa; 8]));
    }
}

#[test]
fn the_clear_prefix_is_authenticated() {
    let (mut sealer, mut keys) = pair();
    let mut sealed = Vec::new();
    seal(Codec::Vp8, &mut sealer, &[0x10; 64], &mut sealed).unwrap();
    for at in 1..10 {
        let mut forged = sealed.clone();
        forged[at] ^= 1;
        assert_eq!(
            open(Codec::Vp8, &mut keys, &mut forged),
            Err(OpenError::Auth(KID))
        );
    }
    assert!(open(Codec::Vp8, &mut keys, &mut sealed).is_ok());
}

#[test]
fn empty_frames_pass_and_seal_nothing() {
    let (mut sealer, mut keys) = pair();
    let mut sealed = vec![1];
    seal(Codec::Opus, &mut sealer, &[], &mut sealed).unwrap();
    assert!(sealed.is_empty());
    assert_eq!(sealer.counter(), 0);
    assert_eq!(open(Codec::Opus, &mut keys, &mut sealed), Ok(None));
}

#[test]
fn refuses_a_vp8_frame_without_its_tag() {
    let (mut sealer, _) = pair();
    let mut sealed = Vec::new();
    let refused = seal(Codec::Vp8, &mut sealer, &[0x10; 9], &mut sealed);
    assert!(matches!(refused, Err(SealError::NotThisCodec { .. })));
    assert_eq!(sealer.counter(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn round_trips(codec in codecs(), mut frame in prop::collection::vec(any::<u8>(), 10..3000)) {
        match codec {
            // An OBU without size: the whole frame.
            Codec::Av1 => frame[0] = 0x30,
            Codec::H264 => frame[..5].copy_from_slice(&[0, 0, 0, 1, 0x65]),
            _ => {}
        }
        let (mut sealer, mut keys) = pair();
        let mut sealed = Vec::new();
        seal(codec, &mut sealer, &frame, &mut sealed).unwrap();
        prop_assert_eq!(peek(codec, &sealed), Ok(Header { kid: KID, counter: 0 }));
        let opened = open(codec, &mut keys, &mut sealed).unwrap().unwrap();
        prop_assert_eq!(&sealed[opened.frame], &frame[..]);
    }

    #[test]
    fn any_bytes_are_refused_without_panic(codec in codecs(), mut bytes in hostile()) {
        let (mut sealer, mut keys) = pair();
        let _ = seal(codec, &mut sealer, &bytes, &mut Vec::new());
        let _ = (peek_obu(&bytes), peek_nal(&bytes));
        let empty = bytes.is_empty();
        let _ = peek(codec, &bytes);
        match open(codec, &mut keys, &mut bytes) {
            Ok(opened) => prop_assert!(empty && opened.is_none()),
            Err(_) => prop_assert!(!empty),
        }
        prop_assert_eq!(keys.kids().count(), 0);
    }
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![
        Codec::Opus,
        Codec::Vp8,
        Codec::Vp9,
        Codec::Av1,
        Codec::H264,
    ])
}

/// Any bytes, and bytes that look like start codes, NAL units and OBUs.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let telling = vec![
        0, 1, 2, 3, 0x0a, 0x0e, 0x12, 0x30, 0x32, 0x34, 0x36, 0x61, 0x65, 0x67, 0x80, 0xff,
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(prop::sample::select(telling), 0..24),
    ]
}
