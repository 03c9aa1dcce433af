//! The MLS cipher suites in use, and a member's signature key.

use crate::error::HandleError;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openmls::prelude::{Ciphersuite, SignatureScheme};
use openmls_basic_credential::SignatureKeyPair;

/// An MLS cipher suite that a group may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupSuite {
    /// `MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519`.
    #[default]
    X25519,
    /// `MLS_128_DHKEMP256_AES128GCM_SHA256_P256`, for sites bound to NIST curves.
    P256,
}

impl GroupSuite {
    /// The number in the MLS registry.
    pub fn number(self) -> u16 {
        u16::from(self.mls())
    }

    /// The suite of that number, if it is in use.
    pub fn from_number(number: u16) -> Option<Self> {
        [Self::X25519, Self::P256]
            .into_iter()
            .find(|suite| suite.number() == number)
    }

    pub(crate) fn mls(self) -> Ciphersuite {
        match self {
            Self::X25519 => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
            Self::P256 => Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
        }
    }

    fn signature_scheme(self) -> SignatureScheme {
        self.mls().signature_algorithm()
    }
}

/// A member's signature key. Made before the member, as the application's issuer binds its
/// identity assertion to it; it never leaves the client.
pub struct MemberKey {
    suite: GroupSuite,
    pair: SignatureKeyPair,
}

impl MemberKey {
    /// A new key for groups of `suite`.
    ///
    /// # Errors
    /// [`HandleError::Library`] if there is no randomness.
    pub fn generate(suite: GroupSuite) -> Result<Self, HandleError> {
        let pair = SignatureKeyPair::new(suite.signature_scheme()).map_err(HandleError::library)?;
        Ok(Self { suite, pair })
    }

    /// The suite the key is for.
    pub fn suite(&self) -> GroupSuite {
        self.suite
    }

    /// The public key as it stands in a leaf: 32 bytes of Ed25519, or an uncompressed P-256 point.
    pub fn public(&self) -> &[u8] {
        self.pair.public()
    }

    /// The public key as a JWK (RFC 7517, RFC 8037), for the issuer to bind an assertion to.
    pub fn public_jwk(&self) -> serde_json::Value {
        public_jwk(self.suite, self.public())
    }

    pub(crate) fn pair(&self) -> &SignatureKeyPair {
        &self.pair
    }
}

/// The JWK of a leaf's signature key.
pub(crate) fn public_jwk(suite: GroupSuite, public: &[u8]) -> serde_json::Value {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    match (suite, public) {
        // An uncompressed point is the byte 4 and two coordinates of 32 bytes (SEC 1 §2.3.3).
        (GroupSuite::P256, [4, point @ ..]) if point.len() == 64 => serde_json::json!({
            "kty": "EC", "crv": "P-256", "x": encode(&point[..32]), "y": encode(&point[32..]),
        }),
        _ => serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(public) }),
    }
}
