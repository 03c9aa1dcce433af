use super::*;
use ed25519_dalek::Signer as _;
use serde_json::json;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const MEMBER_KEY: [u8; 32] = [9; 32];

enum Signer {
    EdDsa(ed25519_dalek::SigningKey),
    Es256(p256::ecdsa::SigningKey),
}

impl Signer {
    fn ed() -> Self {
        Self::EdDsa(ed25519_dalek::SigningKey::from_bytes(&[1; 32]))
    }

    fn es() -> Self {
        Self::Es256(p256::ecdsa::SigningKey::from_slice(&[2; 32]).unwrap())
    }

    fn jwk(&self) -> Value {
        let mut jwk = match self {
            Self::EdDsa(key) => public_jwk(GroupSuite::X25519, key.verifying_key().as_bytes()),
            Self::Es256(key) => {
                let point = key.verifying_key().to_encoded_point(false);
                public_jwk(GroupSuite::P256, point.as_bytes())
            }
        };
        jwk["kid"] = json!("issuer-1");
        jwk
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::EdDsa(key) => key.sign(signed.as_bytes()).to_bytes().to_vec(),
            Self::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(signed.as_bytes());
                signature.to_bytes().to_vec()
            }
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::EdDsa(_) => "EdDSA",
            Self::Es256(_) => "ES256",
        }
    }
}

fn issuer(signer: &Signer) -> Issuer {
    Issuer {
        issuer: "https://clinic.example".into(),
        audience: "sealcast-identity".into(),
        room: "consult-7".into(),
        keys: vec![IssuerKey::from_jwk(&signer.jwk().to_string()).unwrap()],
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://clinic.example",
        "aud": ["other", "sealcast-identity"],
        "room": "consult-7",
        "sub": "p-81",
        "exp": NOW.as_secs() + 60,
        "cnf": { "jwk": public_jwk(GroupSuite::X25519, &MEMBER_KEY) },
    })
}

fn verify(signer: &Signer, header: &Value, claims: &Value) -> Result<Assertion, IdentityError> {
    let token = signer.sign(header, claims);
    issuer(signer).verify(&token, GroupSuite::X25519, &MEMBER_KEY, Some(NOW))
}

#[test]
fn assertions_of_both_algorithms_verify() {
    for signer in [Signer::ed(), Signer::es()] {
        let header = json!({ "alg": signer.alg(), "kid": "issuer-1" });
        let assertion = verify(&signer, &header, &claims()).unwrap();
        assert_eq!(assertion.subject, "p-81");
        assert_eq!(assertion.name, None);
    }
}

#[test]
fn a_p256_member_key_is_bound_by_both_coordinates() {
    let signer = Signer::ed();
    let Signer::Es256(member) = Signer::es() else {
        unreachable!()
    };
    let public = member.verifying_key().to_encoded_point(false);
    let mut claims = claims();
    claims["cnf"]["jwk"] = public_jwk(GroupSuite::P256, public.as_bytes());
    let token = signer.sign(&json!({ "alg": "EdDSA" }), &claims);
    let verify = |key: &[u8]| issuer(&signer).verify(&token, GroupSuite::P256, key, Some(NOW));
    verify(public.as_bytes()).unwrap();
    let mut other = public.as_bytes().to_vec();
    other[64] ^= 1;
    assert_eq!(
        verify(&other),
        Err(IdentityError::Mismatch("signature key"))
    );
}

#[test]
fn every_claim_counts() {
    let signer = Signer::ed();
    let header = json!({ "alg": "EdDSA" });
    let changed = |field: &str, value: Value| {
        let mut claims = claims();
        claims[field] = value;
        verify(&signer, &header, &claims).unwrap_err()
    };
    assert_eq!(
        changed("iss", json!("x")),
        IdentityError::Mismatch("issuer")
    );
    assert_eq!(
        changed("aud", json!("x")),
        IdentityError::Mismatch("audience")
    );
    assert_eq!(changed("room", json!("x")), IdentityError::Mismatch("room"));
    let other_key = json!({ "jwk": public_jwk(GroupSuite::X25519, &[8; 32]) });
    assert_eq!(
        changed("cnf", other_key),
        IdentityError::Mismatch("signature key")
    );
    assert_eq!(changed("sub", json!("")), IdentityError::Malformed("sub"));
    assert_eq!(
        changed("sub", json!("x".repeat(129))),
        IdentityError::Malformed("sub")
    );
    assert_eq!(
        changed("name", json!("x".repeat(257))),
        IdentityError::Malformed("name")
    );
    assert_eq!(
        changed("exp", json!(NOW.as_secs() - 61)),
        IdentityError::Time
    );
    assert_eq!(
        changed("nbf", json!(NOW.as_secs() + 61)),
        IdentityError::Time
    );
    for required in ["iss", "aud", "room", "sub", "exp", "cnf"] {
        assert_eq!(
            changed(required, Value::Null),
            IdentityError::Malformed("claims")
        );
    }
}

#[test]
fn times_limit_admission_only() {
    let signer = Signer::ed();
    let token = signer.sign(&json!({ "alg": "EdDSA" }), &claims());
    let verify = |now| issuer(&signer).verify(&token, GroupSuite::X25519, &MEMBER_KEY, now);
    let late = NOW + Duration::from_secs(3600);
    assert_eq!(verify(Some(late)), Err(IdentityError::Time));
    verify(None).unwrap();
}

#[test]
fn the_token_does_not_choose_its_algorithm() {
    let signer = Signer::ed();
    for alg in ["none", "HS256", "ES256"] {
        let header = json!({ "alg": alg });
        assert_eq!(
            verify(&signer, &header, &claims()),
            Err(IdentityError::Algorithm)
        );
    }
    let critical = json!({ "alg": "EdDSA", "crit": ["b64"] });
    assert!(matches!(
        verify(&signer, &critical, &claims()),
        Err(IdentityError::Malformed(_))
    ));
    let other_key = json!({ "alg": "EdDSA", "kid": "issuer-2" });
    assert_eq!(
        verify(&signer, &other_key, &claims()),
        Err(IdentityError::Signature)
    );
}

#[test]
fn forged_and_foreign_signatures_fail() {
    let (signer, header) = (Signer::ed(), json!({ "alg": "EdDSA" }));
    let stranger = Signer::EdDsa(ed25519_dalek::SigningKey::from_bytes(&[3; 32]));
    let token = stranger.sign(&header, &claims());
    let verify = |token: &str| issuer(&signer).verify(token, GroupSuite::X25519, &MEMBER_KEY, None);
    assert_eq!(verify(&token), Err(IdentityError::Signature));
    for bad in ["", ".", "..", "a.b", "a.b.c", "e30.e30.AAAA"] {
        assert!(verify(bad).is_err());
    }
    assert!(matches!(
        verify(&"x".repeat(MAX_ASSERTION_LEN + 1)),
        Err(IdentityError::Malformed(_))
    ));
}

#[test]
fn credentials_say_what_they_are() {
    let id = Claim::Id("p-81".into());
    assert_eq!(Claim::from_bytes(&id.to_bytes()), Ok(id));
    for bad in ["", "p-81", "id:", "jwt"] {
        assert_eq!(
            Claim::from_bytes(bad.as_bytes()),
            Err(IdentityError::Credential)
        );
    }
    let signer = Signer::ed();
    let token = signer.sign(&json!({ "alg": "EdDSA" }), &claims());
    let credential = Claim::Assertion(token).to_bytes();
    let identity = |issuer: Option<&Issuer>, key| {
        judge(issuer, &credential, GroupSuite::X25519, key, Some(NOW))
    };
    let issuer = issuer(&signer);
    assert!(matches!(
        identity(Some(&issuer), &MEMBER_KEY),
        Identity::Verified(_)
    ));
    for unverified in [
        identity(None, &MEMBER_KEY),
        identity(Some(&issuer), &[0; 32]),
    ] {
        assert!(matches!(unverified, Identity::Unverified { subject, .. } if subject == "p-81"));
    }
}

#[test]
fn issuer_keys_are_checked() {
    for bad in [
        json!({}),
        json!({ "kty": "RSA", "n": "x", "e": "AQAB" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" }),
        json!({ "kty": "EC", "crv": "P-256", "x": BASE64_URL_SAFE_NO_PAD.encode([1; 32]), "y": BASE64_URL_SAFE_NO_PAD.encode([1; 32]) }),
    ] {
        let refused = IssuerKey::from_jwk(&bad.to_string()).unwrap_err();
        assert_eq!(refused, IdentityError::IssuerKey);
    }
}
