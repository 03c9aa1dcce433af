//! AES-GCM by AWS-LC, for native programs that seal at line rate.

use super::Refused;
use crate::suite::NONCE_LEN;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// AES-128-GCM or AES-256-GCM, by the length of its key. AWS-LC clears its key schedule on free.
pub(crate) struct Gcm(LessSafeKey);

impl Gcm {
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        Some(Self(LessSafeKey::new(
            UnboundKey::new(algorithm, key).ok()?,
        )))
    }

    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .seal_in_place_scatter(nonce, Aad::from(aad), data, &[], tag)
            .map_err(|_| Refused)
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .0
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, data);
        if opened.is_err() {
            // AWS-LC may have decrypted before it compared.
            data.fill(0);
            return Err(Refused);
        }
        Ok(())
    }
}
