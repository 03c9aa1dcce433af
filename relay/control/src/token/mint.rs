//! Making tokens: for `sealcast token`, and for the page of a relay in development.
//! In production the application makes them.

use super::{Algorithm, Audience, Claims, Grants, KeyError, TokenKey};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use serde_json::Value;

/// Signs tokens.
pub struct Minter {
    algorithm: Algorithm,
    issuer: String,
    audience: String,
    kid: Option<String>,
    key: EncodingKey,
    jwk: Option<Value>,
}

/// `aud` of identity assertions, which is not that of tokens: neither passes for the other.
pub const IDENTITY_AUDIENCE: &str = "sealcast-identity";

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The subject, 1–128 bytes.
    pub subject: String,
    /// The room.
    pub room: String,
    /// The grants.
    pub grants: Grants,
    /// Expiry, seconds since 1970.
    pub expires: u64,
}

/// What an identity assertion is to say.
#[derive(Clone, Debug)]
pub struct AssertionRequest {
    /// Pseudonymous id, 1–128 bytes.
    pub subject: String,
    /// The room.
    pub room: String,
    /// Display name; for the assertion that goes sealed, never for the one in a credential.
    pub name: Option<String>,
    /// The member's MLS signature key.
    pub jwk: Value,
    /// Expiry, seconds since 1970.
    pub expires: u64,
}

impl Minter {
    /// A minter with the private part of `key`.
    ///
    /// # Errors
    /// [`KeyError::NoPrivateKey`] if `key` is a public key.
    pub fn new(issuer: &str, audience: &str, key: TokenKey) -> Result<Self, KeyError> {
        let (algorithm, kid) = (key.algorithm(), key.kid().map(str::to_owned));
        let (key, jwk) = key.into_encoding().ok_or(KeyError::NoPrivateKey)?;
        Ok(Minter {
            algorithm,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            kid,
            key,
            jwk,
        })
    }

    /// Who signs: `iss` of what it makes.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key that others verify its assertions with; none with HS256.
    #[must_use]
    pub const fn public_jwk(&self) -> Option<&Value> {
        self.jwk.as_ref()
    }

    /// Signs an identity assertion (PROTOCOL.md §11.5).
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] with HS256, whose key verifiers cannot have, or if the library
    /// cannot sign with the key.
    pub fn assert(&self, request: &AssertionRequest) -> Result<String, KeyError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'static str,
            exp: u64,
            sub: &'a str,
            room: &'a str,
            cnf: Confirmation<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Confirmation<'a> {
            jwk: &'a Value,
        }
        if self.jwk.is_none() {
            return Err(KeyError::Algorithm(self.algorithm));
        }
        let mut header = Header::new(self.algorithm.into());
        header.kid.clone_from(&self.kid);
        let claims = Claims {
            iss: &self.issuer,
            aud: IDENTITY_AUDIENCE,
            exp: request.expires,
            sub: &request.subject,
            room: &request.room,
            cnf: Confirmation { jwk: &request.jwk },
            name: request.name.as_deref(),
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| KeyError::Algorithm(self.algorithm))
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] if the library cannot sign with the key.
    pub fn mint(&self, request: &TokenRequest) -> Result<String, KeyError> {
        let mut header = Header::new(self.algorithm.into());
        header.kid.clone_from(&self.kid);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: Audience::One(self.audience.clone()),
            exp: request.expires,
            nbf: None,
            sub: request.subject.clone(),
            room: request.room.clone(),
            grants: request.grants.clone(),
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| KeyError::Algorithm(self.algorithm))
    }
}
