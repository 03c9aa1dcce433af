//! Keys that tokens are signed and verified with, from PEM or raw secrets.

use crate::limits;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use openssl::bn::{BigNum, BigNumContext};
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private};
use serde_json::{Value, json};
use std::fmt;

/// The one algorithm that a relay takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256.
    Hs256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];

    /// Its name in a JWT's header and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Hs256 => "HS256",
        }
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

/// Why a key was refused. The operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// None, or more than [`limits::TOKEN_KEYS`].
    #[error("1 to 16 keys are needed")]
    Count,
    /// The key is not one of this algorithm.
    #[error("not a key for {}", .0.as_str())]
    Algorithm(Algorithm),
    /// Neither a public nor an unencrypted private key in PEM.
    #[error("not a public key or an unencrypted private key in PEM")]
    Pem,
    /// Too short for HS256.
    #[error("an HS256 secret must have at least 32 bytes")]
    ShortSecret,
    /// PEM where a secret is expected: a public key used so would be a secret that everyone knows.
    #[error("an HS256 secret must not be a PEM file")]
    PemAsSecret,
    /// Tokens cannot be made with a public key.
    #[error("making tokens needs the private key")]
    NoPrivateKey,
}

/// A verification key, and the signing key where the file holds it.
pub struct TokenKey {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    encoding: Option<EncodingKey>,
    /// The public key, of ES256 and EdDSA.
    jwk: Option<Value>,
}

impl fmt::Debug for TokenKey {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Reads a key: PEM for ES256 and EdDSA (public, or private to make tokens too), raw bytes
    /// for HS256 (one trailing newline is not part of the secret).
    ///
    /// # Errors
    /// [`KeyError`] if it does not fit `algorithm`.
    pub fn load(
        algorithm: Algorithm,
        kid: Option<String>,
        content: &[u8],
    ) -> Result<Self, KeyError> {
        let mut jwk = None;
        let (decoding, encoding) = match algorithm {
            Algorithm::Hs256 => {
                let secret = content.strip_suffix(b"\n").unwrap_or(content);
                if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
                    return Err(KeyError::PemAsSecret);
                }
                if secret.len() < limits::HS256_SECRET_BYTES {
                    return Err(KeyError::ShortSecret);
                }
                let encoding = EncodingKey::from_secret(secret);
                (DecodingKey::from_secret(secret), Some(encoding))
            }
            Algorithm::Es256 | Algorithm::EdDsa => {
                if let Ok(private) = PKey::private_key_from_pem_callback(content, |_| Ok(0)) {
                    let encoding = encoding_key(algorithm, &private)?;
                    jwk = Some(public_jwk(algorithm, kid.as_deref(), &private)?);
                    (decoding_key(algorithm, &private)?, Some(encoding))
                } else {
                    let public = PKey::public_key_from_pem(content).map_err(|_| KeyError::Pem)?;
                    (decoding_key(algorithm, &public)?, None)
                }
            }
        };
        Ok(TokenKey {
            kid,
            algorithm,
            decoding,
            encoding,
            jwk,
        })
    }

    /// The key's id, where it has one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The algorithm it is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// The signing key and, where there is one, its public half as a JWK.
    pub(super) fn into_encoding(self) -> Option<(EncodingKey, Option<Value>)> {
        Some((self.encoding?, self.jwk))
    }
}

fn check<T: HasPublic>(algorithm: Algorithm, key: &PKeyRef<T>) -> Result<(), KeyError> {
    let fits = match algorithm {
        Algorithm::Es256 => key
            .ec_key()
            .is_ok_and(|ec| ec.group().curve_name() == Some(Nid::X9_62_PRIME256V1)),
        Algorithm::EdDsa => key.id() == Id::ED25519,
        Algorithm::Hs256 => false,
    };
    fits.then_some(()).ok_or(KeyError::Algorithm(algorithm))
}

fn decoding_key<T: HasPublic>(
    algorithm: Algorithm,
    key: &PKeyRef<T>,
) -> Result<DecodingKey, KeyError> {
    check(algorithm, key)?;
    let pem = key.public_key_to_pem().map_err(|_| KeyError::Pem)?;
    match algorithm {
        Algorithm::Es256 => DecodingKey::from_ec_pem(&pem),
        _ => DecodingKey::from_ed_pem(&pem),
    }
    .map_err(|_| KeyError::Pem)
}

/// The public half of a key (RFC 7517, RFC 7518 §6.2.1, RFC 8037 §2).
fn public_jwk(
    algorithm: Algorithm,
    kid: Option<&str>,
    key: &PKeyRef<Private>,
) -> Result<Value, KeyError> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match algorithm {
        Algorithm::Es256 => {
            let coordinates = || {
                let (ec, mut context) = (key.ec_key()?, BigNumContext::new()?);
                let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
                let point = ec.public_key();
                point.affine_coordinates(ec.group(), &mut x, &mut y, &mut context)?;
                // Coordinates of P-256 have 32 bytes, leading zeros included.
                Ok::<_, openssl::error::ErrorStack>((x.to_vec_padded(32)?, y.to_vec_padded(32)?))
            };
            let (x, y) = coordinates().map_err(|_| KeyError::Pem)?;
            json!({"kty": "EC", "crv": "P-256", "x": encode(&x), "y": encode(&y)})
        }
        _ => {
            let x = key.raw_public_key().map_err(|_| KeyError::Pem)?;
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&x)})
        }
    };
    if let Some(kid) = kid {
        jwk["kid"] = kid.into();
    }
    Ok(jwk)
}

fn encoding_key(algorithm: Algorithm, key: &PKeyRef<Private>) -> Result<EncodingKey, KeyError> {
    check(algorithm, key)?;
    let pem = key.private_key_to_pem_pkcs8().map_err(|_| KeyError::Pem)?;
    match algorithm {
        Algorithm::Es256 => EncodingKey::from_ec_pem(&pem),
        _ => EncodingKey::from_ed_pem(&pem),
    }
    .map_err(|_| KeyError::Pem)
}
