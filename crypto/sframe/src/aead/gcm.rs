//! AES-GCM by RustCrypto's `aes-gcm`: runs everywhere, wasm included.

use super::Refused;
use crate::suite::NONCE_LEN;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit};

/// AES-128-GCM or AES-256-GCM, by the length of its key.
pub(crate) enum Gcm {
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
}

impl Gcm {
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Some(Self::Aes128(Box::new(Aes128Gcm::new_from_slice(key).ok()?))),
            32 => Some(Self::Aes256(Box::new(Aes256Gcm::new_from_slice(key).ok()?))),
            _ => None,
        }
    }

    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Refused> {
        let sealed = match self {
            Self::Aes128(aes) => aes.encrypt_inout_detached(nonce.into(), aad, data.into()),
            Self::Aes256(aes) => aes.encrypt_inout_detached(nonce.into(), aad, data.into()),
        };
        tag.copy_from_slice(&sealed.map_err(|_| Refused)?);
        Ok(())
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        let tag = tag.try_into().map_err(|_| Refused)?;
        match self {
            Self::Aes128(aes) => aes.decrypt_inout_detached(nonce.into(), aad, data.into(), tag),
            Self::Aes256(aes) => aes.decrypt_inout_detached(nonce.into(), aad, data.into(), tag),
        }
        .map_err(|_| Refused)
    }
}
