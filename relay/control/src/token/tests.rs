//! Attacks on tokens, and the claims one by one.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

fn ec_pem() -> Vec<u8> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    key.private_key_to_pem_pkcs8().unwrap()
}

fn ed_pem() -> Vec<u8> {
    PKey::generate_ed25519()
        .unwrap()
        .private_key_to_pem_pkcs8()
        .unwrap()
}

fn public_of(pem: &[u8]) -> Vec<u8> {
    PKey::private_key_from_pem(pem)
        .unwrap()
        .public_key_to_pem()
        .unwrap()
}

fn verifier(algorithm: Algorithm, keys: &[(Option<&str>, &[u8])]) -> Verifier {
    let keys = keys
        .iter()
        .map(|(kid, pem)| TokenKey::load(algorithm, kid.map(str::to_owned), pem).unwrap())
        .collect();
    Verifier::new(algorithm, "app", "sealcast", HOUR, keys).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "app", "aud": "sealcast", "exp": NOW + 600, "sub": "user-1", "room": "consult-1",
        "grants": {"publish": ["audio", "camera"], "subscribe": true}
    })
}

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &[u8], claims: &Value) -> String {
    let (key, _) = TokenKey::load(algorithm, None, key)
        .unwrap()
        .into_encoding()
        .unwrap();
    let mut header = jsonwebtoken::Header::new(algorithm.into());
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

#[test]
fn each_algorithm_verifies_what_it_minted() {
    let secret = b"0123456789abcdef0123456789abcdef".to_vec();
    for (algorithm, key) in [
        (Algorithm::Es256, ec_pem()),
        (Algorithm::EdDsa, ed_pem()),
        (Algorithm::Hs256, secret),
    ] {
        let minter = Minter::new(
            "app",
            "sealcast",
            TokenKey::load(algorithm, Some("k1".into()), &key).unwrap(),
        )
        .unwrap();
        let grants = Grants {
            publish: vec![Source::Imaging],
            moderate: true,
            ..Grants::default()
        };
        let token = minter
            .mint(&TokenRequest {
                subject: "u".into(),
                room: "r".into(),
                grants: grants.clone(),
                expires: NOW + 60,
            })
            .unwrap();
        let public = if algorithm == Algorithm::Hs256 {
            key.clone()
        } else {
            public_of(&key)
        };
        let verifier = verifier(algorithm, &[(Some("k1"), &public)]);
        let identity = verifier.verify(&token, NOW).unwrap();
        assert_eq!(
            identity,
            Identity {
                room: "r".into(),
                grants
            }
        );
        assert_eq!(verifier.verify(&token, NOW + 60), Err(TokenError::Expired));
    }
}

#[test]
fn claims_are_checked_one_by_one() {
    let pem = ec_pem();
    let verifier = verifier(Algorithm::Es256, &[(None, &pem)]);
    let verify = |claims: &Value| {
        verifier
            .verify(&sign(Algorithm::Es256, None, &pem, claims), NOW)
            .map(|i| i.room)
    };
    assert_eq!(verify(&claims()).as_deref(), Ok("consult-1"));
    let with = |key: &str, value: Value| {
        let mut c = claims();
        c[key] = value;
        verify(&c)
    };
    assert_eq!(with("iss", json!("other")), Err(TokenError::Issuer));
    assert_eq!(with("aud", json!("other")), Err(TokenError::Audience));
    assert!(with("aud", json!(["other", "sealcast"])).is_ok());
    assert_eq!(with("aud", json!([])), Err(TokenError::Audience));
    assert_eq!(with("exp", json!(NOW)), Err(TokenError::Expired));
    assert_eq!(with("exp", json!(0)), Err(TokenError::Expired));
    assert_eq!(with("exp", json!(-5)), Err(TokenError::Malformed));
    assert_eq!(with("exp", json!("soon")), Err(TokenError::Malformed));
    assert_eq!(with("exp", json!(NOW + 3_700)), Err(TokenError::Lifetime));
    assert_eq!(with("exp", json!(u64::MAX)), Err(TokenError::Lifetime));
    assert_eq!(with("nbf", json!(NOW + 31)), Err(TokenError::NotYetValid));
    assert!(with("nbf", json!(NOW + 30)).is_ok());
    assert_eq!(with("sub", json!("")), Err(TokenError::Subject));
    assert_eq!(
        with("sub", json!("s".repeat(129))),
        Err(TokenError::Subject)
    );
    for room in ["", "a b", "ü", "../x", &"r".repeat(129)] {
        assert_eq!(with("room", json!(room)), Err(TokenError::Room), "{room}");
    }
    assert_eq!(
        with("grants", json!({"publish": ["drone"]})),
        Err(TokenError::Malformed)
    );
    for absent in ["iss", "aud", "exp", "sub", "room"] {
        let mut c = claims();
        c.as_object_mut().unwrap().remove(absent);
        assert_eq!(verify(&c), Err(TokenError::Malformed), "{absent}");
    }
    let mut c = claims();
    c.as_object_mut().unwrap().remove("grants");
    let identity = verifier
        .verify(&sign(Algorithm::Es256, None, &pem, &c), NOW)
        .unwrap();
    assert_eq!(
        identity.grants,
        Grants::default(),
        "what is absent is denied"
    );
}

#[test]
fn unsigned_and_foreign_tokens_are_refused() {
    let (ours, theirs) = (ec_pem(), ec_pem());
    let verifier = verifier(Algorithm::Es256, &[(Some("k1"), &public_of(&ours))]);
    let good = sign(Algorithm::Es256, Some("k1"), &ours, &claims());
    assert!(verifier.verify(&good, NOW).is_ok());
    let foreign = sign(Algorithm::Es256, Some("k1"), &theirs, &claims());
    assert_eq!(verifier.verify(&foreign, NOW), Err(TokenError::Signature));
    let unknown = sign(Algorithm::Es256, Some("k2"), &ours, &claims());
    assert_eq!(verifier.verify(&unknown, NOW), Err(TokenError::UnknownKey));
    // alg: none, with and without a signature.
    let payload = B64.encode(claims().to_string());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = B64.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
        for signature in ["", "AAAA"] {
            let error = verifier.verify(&format!("{header}.{payload}.{signature}"), NOW);
            assert_eq!(error, Err(TokenError::Algorithm), "{alg}");
        }
    }
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.crit = Some(vec!["b64".into()]);
    let key = jsonwebtoken::EncodingKey::from_ec_pem(&ours).unwrap();
    let critical = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
    assert_eq!(verifier.verify(&critical, NOW), Err(TokenError::Malformed));
    // A changed payload under a good signature.
    let parts: Vec<&str> = good.split('.').collect();
    let mut admin = claims();
    admin["grants"]["moderate"] = json!(true);
    let forged = format!(
        "{}.{}.{}",
        parts[0],
        B64.encode(admin.to_string()),
        parts[2]
    );
    assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::Signature));
    for junk in [
        "a",
        "a.b",
        "a.b.c",
        "....",
        &"x".repeat(5_000),
        "é.é.é",
        "\0",
    ] {
        assert_eq!(
            verifier.verify(junk, NOW),
            Err(TokenError::Malformed),
            "{junk:.10}"
        );
    }
    assert_eq!(verifier.verify("", NOW), Err(TokenError::Missing));
}

/// The classic: an HMAC keyed with the public key, which everyone has.
#[test]
fn a_public_key_is_no_secret() {
    let pem = ec_pem();
    let public = public_of(&pem);
    let verifier = verifier(Algorithm::Es256, &[(None, &public)]);
    let key = jsonwebtoken::EncodingKey::from_secret(&public);
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let confused = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
    assert_eq!(verifier.verify(&confused, NOW), Err(TokenError::Algorithm));
    // Nor can an operator configure it by mistake.
    let load = |algorithm, content: &[u8]| TokenKey::load(algorithm, None, content).err();
    assert_eq!(load(Algorithm::Hs256, &public), Some(KeyError::PemAsSecret));
    assert_eq!(
        load(Algorithm::Hs256, b"short"),
        Some(KeyError::ShortSecret)
    );
    assert_eq!(
        load(Algorithm::EdDsa, &public),
        Some(KeyError::Algorithm(Algorithm::EdDsa))
    );
    assert_eq!(
        load(Algorithm::Es256, &public_of(&ed_pem())),
        Some(KeyError::Algorithm(Algorithm::Es256))
    );
    assert_eq!(load(Algorithm::Es256, b"junk"), Some(KeyError::Pem));
    let p384 = {
        let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap())
            .unwrap()
            .public_key_to_pem()
            .unwrap()
    };
    assert_eq!(
        load(Algorithm::Es256, &p384),
        Some(KeyError::Algorithm(Algorithm::Es256))
    );
    let public_only = TokenKey::load(Algorithm::Es256, None, &public).unwrap();
    assert_eq!(
        Minter::new("a", "b", public_only).err(),
        Some(KeyError::NoPrivateKey)
    );
}

#[test]
fn keys_rotate() {
    let (old, new) = (ec_pem(), ec_pem());
    let verifier = verifier(
        Algorithm::Es256,
        &[(Some("old"), &old), (Some("new"), &new)],
    );
    for (kid, pem) in [
        (Some("old"), &old),
        (Some("new"), &new),
        (None, &new),
        (None, &old),
    ] {
        assert!(
            verifier
                .verify(&sign(Algorithm::Es256, kid, pem, &claims()), NOW)
                .is_ok()
        );
    }
    let crossed = sign(Algorithm::Es256, Some("old"), &new, &claims());
    assert_eq!(verifier.verify(&crossed, NOW), Err(TokenError::Signature));
}

#[test]
fn reasons_are_distinct() {
    let mut reasons: Vec<_> = TokenError::ALL.iter().map(|e| e.reason()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), TokenError::ALL.len());
}
