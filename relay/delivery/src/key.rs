//! The delivery service's signature key.

use crate::DeliveryError;
use openmls::prelude::{BasicCredential, Ciphersuite, ExternalSender};
use openmls_basic_credential::SignatureKeyPair;
use sealcast_group_wire::DELIVERY_SERVICE_IDENTITY;

/// MLS cipher suites that a group may use: X25519 with Ed25519, and P-256.
pub const SUITES: [Ciphersuite; 2] = [
    Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
    Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
];

/// Signs Add and Remove proposals. The same seed gives the same key, so that a relay that restarts
/// (or another one of its fleet) may go on with groups that were made before; with another seed,
/// such groups start over.
pub struct DeliveryKey {
    suite: Ciphersuite,
    pair: SignatureKeyPair,
}

impl DeliveryKey {
    /// The key of `seed` for groups of `suite`, one of [`SUITES`].
    ///
    /// # Errors
    /// [`DeliveryError::Library`] for another suite, or if the seed is no P-256 scalar (chance:
    /// 2^-32).
    pub fn from_seed(suite: Ciphersuite, seed: &[u8; 32]) -> Result<Self, DeliveryError> {
        let public = match suite {
            Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(seed);
                key.verifying_key().to_bytes().to_vec()
            }
            Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256 => {
                let key =
                    p256::ecdsa::SigningKey::from_slice(seed).map_err(DeliveryError::library)?;
                key.verifying_key()
                    .to_encoded_point(false)
                    .as_bytes()
                    .to_vec()
            }
            other => return Err(DeliveryError::library(other)),
        };
        let scheme = suite.signature_algorithm();
        let pair = SignatureKeyPair::from_raw(scheme, seed.to_vec(), public);
        Ok(Self { suite, pair })
    }

    /// The suite the key is for.
    pub fn suite(&self) -> Ciphersuite {
        self.suite
    }

    /// The suite's number in the MLS registry.
    pub fn suite_number(&self) -> u16 {
        u16::from(self.suite)
    }

    pub(crate) fn pair(&self) -> &SignatureKeyPair {
        &self.pair
    }

    pub(crate) fn external_sender(&self) -> ExternalSender {
        let credential = BasicCredential::new(DELIVERY_SERVICE_IDENTITY.to_vec());
        ExternalSender::new(self.pair.public().into(), credential.into())
    }
}
