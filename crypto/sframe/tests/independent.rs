//! Against crate `sframe`, an independent implementation of RFC 9605: what one seals, the other
//! opens, byte for byte. It knows suites 1 to 5; the published vectors cover the other three.

use proptest::prelude::*;
use sealcast_sframe::{CipherSuite, KeyStore, Kid, OpenError, Sealer};
use sframe::frame::{EncryptedFrameView, MediaFrameView, MonotonicCounter};
use sframe::key::{DecryptionKey, EncryptionKey};

const SUITES: [(CipherSuite, sframe::CipherSuite); 5] = [
    (
        CipherSuite::Aes128CtrHmacSha256_80,
        sframe::CipherSuite::AesCtr128HmacSha256_80,
    ),
    (
        CipherSuite::Aes128CtrHmacSha256_64,
        sframe::CipherSuite::AesCtr128HmacSha256_64,
    ),
    (
        CipherSuite::Aes128CtrHmacSha256_32,
        sframe::CipherSuite::AesCtr128HmacSha256_32,
    ),
    (
        CipherSuite::Aes128GcmSha256,
        sframe::CipherSuite::AesGcm128Sha256,
    ),
    (
        CipherSuite::Aes256GcmSha512,
        sframe::CipherSuite::AesGcm256Sha512,
    ),
];

#[derive(Clone, Debug)]
struct Case {
    suites: (CipherSuite, sframe::CipherSuite),
    kid: u64,
    base_key: Vec<u8>,
    metadata: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

fn case() -> impl Strategy<Value = Case> {
    (
        prop::sample::select(SUITES.to_vec()),
        (any::<u64>(), 0..64u32),
        prop::collection::vec(any::<u8>(), 16..=64),
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..12),
    )
        .prop_map(|(suites, (kid, shift), base_key, metadata, frames)| Case {
            suites,
            kid: kid >> shift,
            base_key,
            metadata,
            frames,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn seals_the_same_bytes_and_opens_them(case in case()) {
        let (ours, theirs) = case.suites;
        let mut sealer = Sealer::new(ours, Kid(case.kid), &case.base_key).unwrap();
        let their_key = EncryptionKey::derive_from(theirs, case.kid, &case.base_key).unwrap();
        let their_opener = DecryptionKey::derive_from(theirs, case.kid, &case.base_key).unwrap();
        let mut their_counter = MonotonicCounter::default();
        let mut keys = KeyStore::new(ours);
        keys.insert(Kid(case.kid), &case.base_key).unwrap();

        for frame in &case.frames {
            let mut sealed = Vec::new();
            sealer.seal_to_vec(&case.metadata, frame, &mut sealed).unwrap();

            let media =
                MediaFrameView::try_with_meta_data(&mut their_counter, frame, &case.metadata)
                    .unwrap();
            let theirs = media.encrypt(&their_key).unwrap();
            prop_assert_eq!(theirs.sframe_cipher_text(), &sealed[..]);

            let view = EncryptedFrameView::try_with_meta_data(&sealed, &case.metadata).unwrap();
            let opened = view.decrypt(&their_opener).unwrap();
            prop_assert_eq!(opened.payload(), &frame[..]);

            let opened = keys.open(&case.metadata, &mut sealed).unwrap();
            prop_assert_eq!(&sealed[opened.plaintext], &frame[..]);
        }
    }

    /// A sealed frame with any one bit changed is refused, and leaves the genuine one openable.
    #[test]
    fn refuses_any_flipped_bit(case in case(), bit: prop::sample::Index) {
        let (suite, _) = case.suites;
        let mut sealer = Sealer::new(suite, Kid(case.kid), &case.base_key).unwrap();
        let mut keys = KeyStore::new(suite);
        keys.insert(Kid(case.kid), &case.base_key).unwrap();
        let mut sealed = Vec::new();
        sealer.seal_to_vec(&case.metadata, &case.frames[0], &mut sealed).unwrap();

        let bit = bit.index(sealed.len() * 8);
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        // With a 4-byte tag one forgery in 2^32 passes; not within these cases.
        prop_assert!(keys.open(&case.metadata, &mut forged).is_err());
        for cut in 0..sealed.len() {
            let mut short = sealed[..cut].to_vec();
            prop_assert!(keys.open(&case.metadata, &mut short).is_err());
        }
        let opened = keys.open(&case.metadata, &mut sealed).unwrap();
        prop_assert_eq!(&sealed[opened.plaintext], &case.frames[0][..]);
        let mut other = Vec::new();
        sealer.seal_to_vec(b"other metadata", &case.frames[0], &mut other).unwrap();
        prop_assert_eq!(keys.open(&case.metadata, &mut other).unwrap_err(), OpenError::Auth(Kid(case.kid)));
    }
}
