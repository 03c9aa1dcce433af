//! Making tokens: for `sealcast token`, and for the page of a relay in development.
//! In production the application makes them.

use super::{Algorithm, Audience, Claims, Grants, KeyError, TokenKey};
use jsonwebtoken::{EncodingKey, Header};

/// Signs tokens.
pub struct Minter {
    algorithm: Algorithm,
    issuer: String,
    audience: String,
    kid: Option<String>,
    key: EncodingKey,
}

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

impl Minter {
    /// A minter with the private part of `key`.
    ///
    /// # Errors
    /// [`KeyError::NoPrivateKey`] if `key` is a public key.
    pub fn new(issuer: &str, audience: &str, key: TokenKey) -> Result<Self, KeyError> {
        Ok(Minter {
            algorithm: key.algorithm(),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            kid: key.kid().map(str::to_owned),
            key: key.into_encoding().ok_or(KeyError::NoPrivateKey)?,
        })
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
