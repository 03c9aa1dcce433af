//! Who a member is: an assertion by the application's issuer, verified by the other members, not by
//! the relay.
//!
//! A member's credential (RFC 9420 §5.3, type `basic`) holds UTF-8: `id:` and a pseudonymous id, or
//! `jwt:` and an assertion. The assertion is a JWT (RFC 7519) signed with ES256 or EdDSA:
//!
//! | Claim | Content |
//! |-------|---------|
//! | `iss`, `aud`, `room` | exactly what the verifier is set up with (`aud` may be a list) |
//! | `sub` | pseudonymous id, up to 128 bytes: the relay sees it |
//! | `exp`, `nbf` | seconds since the Unix epoch; `exp` is required. They limit admission, not membership: who was admitted in time stays |
//! | `cnf` | `{"jwk": …}`, the member's MLS signature key (RFC 7800 §3.2) |
//! | `name` | display name; absent from credentials, as the relay must not see it, present in the assertion that members exchange as sealed metadata |

use crate::GroupSuite;
use crate::suite::public_jwk;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::Verifier as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// Longest assertion in bytes. One with all claims of usual length takes 600.
pub const MAX_ASSERTION_LEN: usize = 1024;

/// Longest `sub`, and longest `id:`, in bytes.
pub const MAX_SUBJECT_LEN: usize = 128;

/// Longest `name` in bytes.
pub const MAX_NAME_LEN: usize = 256;

/// By how much clocks may differ when `exp` and `nbf` are checked.
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(60);

/// An identity that was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Not a credential of this format.
    #[error("credential of another format")]
    Credential,
    /// The credential holds an id, not an assertion.
    #[error("no assertion")]
    NoAssertion,
    /// Not a JWT, or too long, or with claims missing or malformed.
    #[error("malformed assertion: {0}")]
    Malformed(&'static str),
    /// Signed with an algorithm other than that of any issuer key.
    #[error("algorithm not allowed")]
    Algorithm,
    /// No issuer key verifies the signature.
    #[error("signature")]
    Signature,
    /// Made by or for somebody else.
    #[error("wrong {0}")]
    Mismatch(&'static str),
    /// Outside `nbf` to `exp`.
    #[error("not valid at this time")]
    Time,
    /// The issuer's key itself cannot be read.
    #[error("issuer key")]
    IssuerKey,
}

/// What a credential claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A pseudonymous id, by its owner's word alone.
    Id(String),
    /// An assertion by an issuer (JWT).
    Assertion(String),
}

impl Claim {
    /// The credential's identity.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Id(id) => format!("id:{id}"),
            Self::Assertion(token) => format!("jwt:{token}"),
        }
        .into_bytes()
    }

    /// Reads a credential's identity.
    ///
    /// # Errors
    /// [`IdentityError::Credential`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(bytes).map_err(|_| IdentityError::Credential)?;
        if let Some(id) = text.strip_prefix("id:") {
            if id.is_empty() || id.len() > MAX_SUBJECT_LEN {
                return Err(IdentityError::Credential);
            }
            return Ok(Self::Id(id.to_owned()));
        }
        match text.strip_prefix("jwt:") {
            Some(token) if token.len() <= MAX_ASSERTION_LEN => {
                Ok(Self::Assertion(token.to_owned()))
            }
            _ => Err(IdentityError::Credential),
        }
    }
}

/// An assertion that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assertion {
    /// Pseudonymous id.
    pub subject: String,
    /// Display name, if the assertion has one.
    pub name: Option<String>,
    /// `exp`, in seconds since the Unix epoch.
    pub expires: u64,
}

/// A member's identity as this member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Identity {
    /// The issuer vouches for it.
    Verified(Assertion),
    /// Nobody does.
    Unverified {
        /// What the credential claims to be, if anything.
        subject: String,
        /// Why it is not believed.
        reason: String,
    },
}

/// One public key of the issuer, with the algorithm that goes with it.
#[derive(Clone, Debug)]
pub struct IssuerKey {
    id: Option<String>,
    key: VerifyingKey,
}

#[derive(Clone, Debug)]
enum VerifyingKey {
    Es256(Box<p256::ecdsa::VerifyingKey>),
    EdDsa(Box<ed25519_dalek::VerifyingKey>),
}

/// The parts of a JWK that matter here (RFC 7517, RFC 7518 §6.2, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: Option<String>,
    kid: Option<String>,
}

impl IssuerKey {
    /// Reads a JWK: P-256 for ES256, Ed25519 for EdDSA.
    ///
    /// # Errors
    /// [`IdentityError::IssuerKey`].
    pub fn from_jwk(jwk: &str) -> Result<Self, IdentityError> {
        let jwk: Jwk = serde_json::from_str(jwk).map_err(|_| IdentityError::IssuerKey)?;
        let coordinate = |text: &str| -> Result<[u8; 32], IdentityError> {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text);
            bytes
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(IdentityError::IssuerKey)
        };
        let x = coordinate(&jwk.x)?;
        let key = match (jwk.kty.as_str(), jwk.crv.as_str(), jwk.y) {
            ("EC", "P-256", Some(y)) => {
                let point = p256::EncodedPoint::from_affine_coordinates(
                    &x.into(),
                    &coordinate(&y)?.into(),
                    false,
                );
                let key = p256::ecdsa::VerifyingKey::from_encoded_point(&point);
                VerifyingKey::Es256(Box::new(key.map_err(|_| IdentityError::IssuerKey)?))
            }
            ("OKP", "Ed25519", None) => {
                let key = ed25519_dalek::VerifyingKey::from_bytes(&x);
                VerifyingKey::EdDsa(Box::new(key.map_err(|_| IdentityError::IssuerKey)?))
            }
            _ => return Err(IdentityError::IssuerKey),
        };
        Ok(Self { id: jwk.kid, key })
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            VerifyingKey::Es256(_) => "ES256",
            VerifyingKey::EdDsa(_) => "EdDSA",
        }
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            // JWS signatures are r ‖ s (RFC 7518 §3.4), not DER.
            VerifyingKey::Es256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            VerifyingKey::EdDsa(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }
}

/// The application's issuer of identity assertions, as a client knows it.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `iss` of its assertions.
    pub issuer: String,
    /// `aud` of its assertions.
    pub audience: String,
    /// The room that an assertion must name.
    pub room: String,
    /// Its public keys.
    pub keys: Vec<IssuerKey>,
}

#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    kid: Option<String>,
    /// "If any of the listed extension Header Parameters are not understood and supported by the
    /// recipient, then the JWS is invalid" (RFC 7515 §4.1.11), and none is supported.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: OneOrMany,
    room: String,
    sub: String,
    exp: u64,
    nbf: Option<u64>,
    cnf: Confirmation,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Confirmation {
    jwk: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

impl Issuer {
    /// Verifies an assertion about the owner of `signature_key`. Without `now`, its times are not
    /// checked.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn verify(
        &self,
        token: &str,
        suite: GroupSuite,
        signature_key: &[u8],
        now: Option<Duration>,
    ) -> Result<Assertion, IdentityError> {
        if token.len() > MAX_ASSERTION_LEN {
            return Err(IdentityError::Malformed("too long"));
        }
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or(IdentityError::Malformed("not a JWS"))?;
        let (header, claims) = signed
            .split_once('.')
            .ok_or(IdentityError::Malformed("not a JWS"))?;
        self.check_signature(header, signed, signature)?;
        let claims: Claims = decode_json(claims).ok_or(IdentityError::Malformed("claims"))?;
        self.check_claims(claims, suite, signature_key, now)
    }

    fn check_signature(
        &self,
        header: &str,
        signed: &str,
        signature: &str,
    ) -> Result<(), IdentityError> {
        let header: JoseHeader = decode_json(header).ok_or(IdentityError::Malformed("header"))?;
        if header.crit.is_some() {
            return Err(IdentityError::Malformed("critical extension"));
        }
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| IdentityError::Malformed("signature"))?;
        // The algorithm follows from the key, never from the token.
        let mut candidates = self
            .keys
            .iter()
            .filter(|key| key.algorithm() == header.alg)
            .peekable();
        if candidates.peek().is_none() {
            return Err(IdentityError::Algorithm);
        }
        candidates
            .filter(|key| header.kid.is_none() || key.id.is_none() || key.id == header.kid)
            .any(|key| key.verifies(signed.as_bytes(), &signature))
            .then_some(())
            .ok_or(IdentityError::Signature)
    }

    fn check_claims(
        &self,
        claims: Claims,
        suite: GroupSuite,
        signature_key: &[u8],
        now: Option<Duration>,
    ) -> Result<Assertion, IdentityError> {
        if claims.iss != self.issuer {
            return Err(IdentityError::Mismatch("issuer"));
        }
        if !claims.aud.contains(&self.audience) {
            return Err(IdentityError::Mismatch("audience"));
        }
        if claims.room != self.room {
            return Err(IdentityError::Mismatch("room"));
        }
        let bound_to = public_jwk(suite, signature_key);
        let same = |field: &str| bound_to.get(field) == claims.cnf.jwk.get(field);
        if !["kty", "crv", "x", "y"].into_iter().all(same) {
            return Err(IdentityError::Mismatch("signature key"));
        }
        if claims.sub.is_empty() || claims.sub.len() > MAX_SUBJECT_LEN {
            return Err(IdentityError::Malformed("sub"));
        }
        if claims
            .name
            .as_ref()
            .is_some_and(|name| name.len() > MAX_NAME_LEN)
        {
            return Err(IdentityError::Malformed("name"));
        }
        if let Some(now) = now {
            let expired = now > Duration::from_secs(claims.exp).saturating_add(CLOCK_LEEWAY);
            let not_before = Duration::from_secs(claims.nbf.unwrap_or(0));
            if expired || now.saturating_add(CLOCK_LEEWAY) < not_before {
                return Err(IdentityError::Time);
            }
        }
        Ok(Assertion {
            subject: claims.sub,
            name: claims.name,
            expires: claims.exp,
        })
    }
}

/// Judges a credential. Without an issuer nobody is verified.
pub(crate) fn judge(
    issuer: Option<&Issuer>,
    credential: &[u8],
    suite: GroupSuite,
    signature_key: &[u8],
    now: Option<Duration>,
) -> Identity {
    let unverified = |subject: &str, error: IdentityError| Identity::Unverified {
        subject: subject.to_owned(),
        reason: error.to_string(),
    };
    match (Claim::from_bytes(credential), issuer) {
        (Err(error), _) => unverified("", error),
        (Ok(Claim::Id(id)), _) => unverified(&id, IdentityError::NoAssertion),
        (Ok(Claim::Assertion(token)), Some(issuer)) => {
            match issuer.verify(&token, suite, signature_key, now) {
                Ok(assertion) => Identity::Verified(assertion),
                Err(error) => unverified(&claimed_subject(&token), error),
            }
        }
        (Ok(Claim::Assertion(token)), None) => {
            unverified(&claimed_subject(&token), IdentityError::IssuerKey)
        }
    }
}

/// The `sub` of an assertion that was not verified, for display as such.
fn claimed_subject(token: &str) -> String {
    let claims = token.split('.').nth(1).and_then(decode_json::<Value>);
    let subject = claims
        .as_ref()
        .and_then(|claims| claims.get("sub")?.as_str());
    let subject = subject.unwrap_or_default();
    subject.chars().take(MAX_SUBJECT_LEN).collect()
}

fn decode_json<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests;
