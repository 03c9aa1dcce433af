//! The published test vectors: RFC 9605 Appendix C, and those of suites 6 to 8.

use crate::aead::Aead;
use crate::suite::NONCE_LEN;
use crate::{CipherSuite, FrameKey, Header, KeyStore, Kid, MAX_HEADER_LEN, OpenError};
use serde_json::Value;

const RFC: &str = include_str!("../vectors/sframe-test-vectors.json");
const AES256_CTR: &str = include_str!("../vectors/sframe-test-vectors-aes256.json");

fn cases(file: &str, section: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    file[section].as_array().unwrap().clone()
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    let hex = case[field].as_str().unwrap();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().unwrap()
}

fn suite(case: &Value) -> CipherSuite {
    CipherSuite::try_from(number(case, "cipher_suite") as u16).unwrap()
}

#[test]
fn headers() {
    let cases = cases(RFC, "header");
    assert!(cases.len() >= 200);
    for case in cases {
        let header = Header {
            kid: Kid(number(&case, "kid")),
            counter: number(&case, "ctr"),
        };
        let encoded = bytes(&case, "encoded");
        let mut out = [0; MAX_HEADER_LEN];
        let len = header.encode(&mut out).unwrap();
        assert_eq!(out[..len], encoded);
        assert_eq!(Header::parse(&encoded), Ok((header, encoded.len())));
    }
}

#[test]
fn aes_ctr_hmac() {
    for section in ["aes_ctr_hmac", "aes_256_ctr_hmac"] {
        let cases = cases(RFC, section);
        assert_eq!(cases.len(), 3);
        for case in cases {
            let suite = suite(&case);
            let aead = Aead::new(suite, &bytes(&case, "key")).unwrap();
            let nonce: [u8; NONCE_LEN] = bytes(&case, "nonce").try_into().unwrap();
            let (aad, pt, ct) = (bytes(&case, "aad"), bytes(&case, "pt"), bytes(&case, "ct"));
            let (mut data, mut tag) = (pt.clone(), vec![0; suite.tag_len()]);
            aead.seal(&nonce, &aad, &mut data, &mut tag).unwrap();
            assert_eq!([&data[..], &tag].concat(), ct);
            aead.open(&nonce, &aad, &mut data, &tag).unwrap();
            assert_eq!(data, pt);
        }
    }
}

#[test]
fn sframe_for_every_registered_suite() {
    let mut cases_seen = Vec::new();
    let all = [
        cases(RFC, "sframe"),
        cases(AES256_CTR, "sframe_aes_256_ctr_hmac"),
    ]
    .concat();
    for case in all {
        let suite = suite(&case);
        cases_seen.push(suite);
        let (kid, counter) = (Kid(number(&case, "kid")), number(&case, "ctr"));
        let (metadata, pt, ct) = (
            bytes(&case, "metadata"),
            bytes(&case, "pt"),
            bytes(&case, "ct"),
        );
        let base_key = bytes(&case, "base_key");

        let key = FrameKey::derive(suite, kid, &base_key).unwrap();
        let mut sealed = vec![0; MAX_HEADER_LEN];
        let header_len = Header { kid, counter }.encode(&mut sealed).unwrap();
        sealed.truncate(header_len);
        let aad = [&sealed[..], &metadata].concat();
        assert_eq!(aad, bytes(&case, "aad"));
        let (mut data, mut tag) = (pt.clone(), vec![0; suite.tag_len()]);
        key.seal(counter, &aad, &mut data, &mut tag).unwrap();
        assert_eq!([sealed, data, tag].concat(), ct, "{suite:?}");

        let mut keys = KeyStore::new(suite);
        keys.insert(kid, &base_key).unwrap();
        let mut buffer = ct.clone();
        let opened = keys.open(&metadata, &mut buffer).unwrap();
        assert_eq!(buffer[opened.plaintext], pt);
        let mut again = ct.clone();
        let replayed = Err(OpenError::Replayed { kid, counter });
        assert_eq!(keys.open(&metadata, &mut again), replayed);
    }
    assert_eq!(cases_seen, CipherSuite::ALL);
}
