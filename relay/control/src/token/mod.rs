//! Who may join: JSON Web Tokens (RFC 7519) by the rules of PROTOCOL.md §2.
//!
//! The configuration pins one algorithm. What a token's header says about algorithms is compared
//! with it and never believed (RFC 8725 §3.1).

mod key;
mod mint;

pub use key::{Algorithm, KeyError, TokenKey};
pub use mint::{AssertionRequest, IDENTITY_AUDIENCE, Minter, TokenRequest};

use crate::limits;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{TokenData, Validation};
use sealcast_model::Source;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Clock skew allowed on `nbf`.
const LEEWAY_SECONDS: u64 = 30;

/// What a token must be.
pub struct Verifier {
    algorithm: Algorithm,
    issuer: String,
    audience: String,
    max_ttl: Duration,
    keys: Vec<TokenKey>,
}

/// What a valid token says. The subject is checked and then forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The only room it opens: 1–128 bytes of `A-Z a-z 0-9 . _ -`.
    pub room: String,
    /// What its bearer may do there.
    pub grants: Grants,
}

/// What a participant may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// Sources it may publish.
    #[serde(with = "sources")]
    pub publish: Vec<Source>,
    /// May show tracks in its slots.
    pub subscribe: bool,
    /// May publish media that is not sealed.
    pub unsealed: bool,
    /// May mute others' tracks and remove participants.
    pub moderate: bool,
}

/// Why a token was refused. The bearer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no token")]
    Missing,
    /// Not a JWT, over its size, or a claim of the wrong type.
    #[error("not a token of the expected form")]
    Malformed,
    /// Its header names another algorithm than the pinned one.
    #[error("signed with another algorithm than this relay takes")]
    Algorithm,
    /// Its `kid` names no configured key.
    #[error("signed with a key that this relay does not know")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// `iss` is another.
    #[error("from another issuer")]
    Issuer,
    /// `aud` does not contain the relay's.
    #[error("for another audience")]
    Audience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp` is further ahead than allowed.
    #[error("the token is valid for longer than this relay allows")]
    Lifetime,
    /// `sub` is absent, empty or too long.
    #[error("the subject must be 1 to 128 bytes")]
    Subject,
    /// `room` is absent or not a room name.
    #[error("the room must be 1 to 128 of A-Z a-z 0-9 . _ -")]
    Room,
    /// The token is for another room than the one asked for.
    #[error("the token is for another room")]
    WrongRoom,
}

impl TokenError {
    /// Every error.
    pub const ALL: [TokenError; 13] = [
        TokenError::Missing,
        TokenError::Malformed,
        TokenError::Algorithm,
        TokenError::UnknownKey,
        TokenError::Signature,
        TokenError::Issuer,
        TokenError::Audience,
        TokenError::Expired,
        TokenError::NotYetValid,
        TokenError::Lifetime,
        TokenError::Subject,
        TokenError::Room,
        TokenError::WrongRoom,
    ];

    /// Its metric label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            TokenError::Missing => "missing",
            TokenError::Malformed => "malformed",
            TokenError::Algorithm => "algorithm",
            TokenError::UnknownKey => "unknown_key",
            TokenError::Signature => "signature",
            TokenError::Issuer => "issuer",
            TokenError::Audience => "audience",
            TokenError::Expired => "expired",
            TokenError::NotYetValid => "not_yet_valid",
            TokenError::Lifetime => "lifetime",
            TokenError::Subject => "subject",
            TokenError::Room => "room",
            TokenError::WrongRoom => "wrong_room",
        }
    }
}

/// The claims of PROTOCOL.md §2. Unknown ones are ignored.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    sub: String,
    room: String,
    #[serde(default)]
    grants: Grants,
}

/// RFC 7519 §4.1.3: one audience or several.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Verifier {
    /// A verifier for tokens of `issuer` to `audience`, signed with `algorithm` by one of `keys`,
    /// valid for at most `max_ttl` from now.
    ///
    /// # Errors
    /// [`KeyError`] if there is no key, too many, or one that does not fit the algorithm.
    pub fn new(
        algorithm: Algorithm,
        issuer: &str,
        audience: &str,
        max_ttl: Duration,
        keys: Vec<TokenKey>,
    ) -> Result<Self, KeyError> {
        if keys.is_empty() || keys.len() > limits::TOKEN_KEYS {
            return Err(KeyError::Count);
        }
        if keys.iter().any(|k| k.algorithm() != algorithm) {
            return Err(KeyError::Algorithm(algorithm));
        }
        Ok(Verifier {
            algorithm,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            max_ttl,
            keys,
        })
    }

    /// Checks `token` at `now`, seconds since 1970.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > limits::TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let claims = self.verify_signature(token)?;
        self.check(claims, now)
    }

    fn verify_signature(&self, token: &str) -> Result<Claims, TokenError> {
        // RFC 8725 §3.1: "each key MUST be used with exactly one algorithm". Compared as text, so
        // that every other word, `none` among them, is told apart from what is no token at all.
        if algorithm_of(token).ok_or(TokenError::Malformed)? != self.algorithm.as_str() {
            return Err(TokenError::Algorithm);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood
        // and supported by the recipient, then the JWS is invalid." None is supported here.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let candidates = self
            .keys
            .iter()
            .filter(|k| header.kid.is_none() || k.kid() == header.kid.as_deref());
        let mut validation = Validation::new(self.algorithm.into());
        // Signature and algorithm are the library's; claims are checked below, against an
        // injected clock and with a reason for each.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let mut error = TokenError::UnknownKey;
        for key in candidates {
            match jsonwebtoken::decode::<Claims>(token, key.decoding(), &validation) {
                Ok(TokenData { claims, .. }) => return Ok(claims),
                Err(e) => error = classify(e.kind()),
            }
        }
        Err(error)
    }

    fn check(&self, claims: Claims, now: u64) -> Result<Identity, TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        let for_us = match &claims.aud {
            Audience::One(aud) => *aud == self.audience,
            Audience::Many(auds) => auds.contains(&self.audience),
        };
        if !for_us {
            return Err(TokenError::Audience);
        }
        // RFC 7519 §4.1.4: "the current date/time MUST be before the expiration date/time".
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims
            .nbf
            .is_some_and(|nbf| nbf > now.saturating_add(LEEWAY_SECONDS))
        {
            return Err(TokenError::NotYetValid);
        }
        if claims.exp - now > self.max_ttl.as_secs().saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Lifetime);
        }
        if !(1..=128).contains(&claims.sub.len()) {
            return Err(TokenError::Subject);
        }
        if !is_room_name(&claims.room) {
            return Err(TokenError::Room);
        }
        Ok(Identity {
            room: claims.room,
            grants: claims.grants,
        })
    }
}

fn classify(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        _ => TokenError::Malformed,
    }
}

/// What a token's header says of its algorithm.
fn algorithm_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
    }
    let header = token.split('.').next()?;
    let header = URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: Header = serde_json::from_slice(&header).ok()?;
    Some(header.alg)
}

/// Whether `name` is 1–128 bytes of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn is_room_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The wire name of a source.
#[must_use]
pub fn source_from_str(name: &str) -> Option<Source> {
    Source::ALL.into_iter().find(|s| s.as_str() == name)
}

/// Sources as an array of their names.
mod sources {
    use super::{Source, source_from_str};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sources: &[Source], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(sources.iter().map(|s| s.as_str()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Source>, D::Error> {
        let mut out = Vec::new();
        for name in Vec::<String>::deserialize(d)? {
            let source =
                source_from_str(&name).ok_or_else(|| D::Error::custom("unknown source"))?;
            if !out.contains(&source) {
                out.push(source);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
