//! AWS-LC, through aws-lc-rs.

use super::{Associated, Fault, Opener, Reject, Sealer, with_aad};
use crate::iv::Iv;
use crate::key::SessionKeys;
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{aead, constant_time, hmac, iv::FixedLength};

/// AES-GCM (RFC 7714), either key length, either direction.
pub(super) struct Gcm(aead::LessSafeKey);

impl Gcm {
    pub(super) fn new(keys: &SessionKeys) -> Result<Self, Fault> {
        let algorithm = match keys.cipher_key().len() {
            16 => &aead::AES_128_GCM,
            _ => &aead::AES_256_GCM,
        };
        let key = aead::UnboundKey::new(algorithm, keys.cipher_key()).map_err(|_| Fault)?;
        Ok(Gcm(aead::LessSafeKey::new(key)))
    }
}

/// The first 12 bytes of the IV.
#[inline]
fn nonce(iv: &Iv) -> aead::Nonce {
    let [nonce @ .., _, _, _, _] = *iv;
    aead::Nonce::assume_unique_for_key(nonce)
}

impl Sealer for Gcm {
    fn seal(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Fault> {
        with_aad(associated, |aad| {
            self.0.seal_out_of_place_scatter(
                nonce(iv),
                aead::Aad::from(aad),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
        })?
        .map_err(|_| Fault)
    }
}

impl Opener for Gcm {
    fn open_in_place(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Reject> {
        with_aad(associated, |aad| {
            self.0
                .open_in_place_separate_tag(nonce(iv), aead::Aad::from(aad), tag, data)
                .map(drop)
        })
        .map_err(|Fault| Reject::Fault)?
        .map_err(|_| Reject::Tag)
    }

    fn open_to(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        ciphertext: &[u8],
        tag: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Reject> {
        with_aad(associated, |aad| {
            self.0
                .open_separate_gather(nonce(iv), aead::Aad::from(aad), ciphertext, tag, plaintext)
        })
        .map_err(|Fault| Reject::Fault)?
        .map_err(|_| Reject::Tag)
    }
}

/// AES-CM with HMAC-SHA1 (RFC 3711), either direction.
pub(super) struct CmSha1 {
    cipher: EncryptingKey,
    /// Holds the keyed inner and outer state; a packet's context is a copy of it, not an
    /// allocation.
    mac: hmac::Key,
}

impl CmSha1 {
    pub(super) fn new(keys: &SessionKeys) -> Result<Self, Fault> {
        let key = UnboundCipherKey::new(&AES_128, keys.cipher_key()).map_err(|_| Fault)?;
        Ok(CmSha1 {
            cipher: EncryptingKey::ctr(key).map_err(|_| Fault)?,
            mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, keys.auth_key()),
        })
    }

    /// Adds the keystream. Counter mode is its own inverse.
    #[inline]
    fn apply(&self, iv: &Iv, data: &mut [u8]) -> Result<(), Fault> {
        let context = EncryptionContext::Iv128(FixedLength::from(*iv));
        self.cipher
            .less_safe_encrypt(data, context)
            .map(drop)
            .map_err(|_| Fault)
    }

    #[inline]
    fn tag(&self, associated: Associated<'_>, ciphertext: &[u8]) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&self.mac);
        mac.update(associated.header);
        mac.update(ciphertext);
        mac.update(associated.trailer);
        mac.sign()
    }

    /// RFC 3711 §4.2: the tag is the leftmost `n_tag` bits of the MAC.
    fn verify(
        &self,
        associated: Associated<'_>,
        ciphertext: &[u8],
        tag: &[u8],
    ) -> Result<(), Reject> {
        let full = self.tag(associated, ciphertext);
        let expected = full.as_ref().get(..tag.len()).ok_or(Reject::Tag)?;
        constant_time::verify_slices_are_equal(expected, tag).map_err(|_| Reject::Tag)
    }
}

impl Sealer for CmSha1 {
    fn seal(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Fault> {
        // aws-lc-rs has counter mode in place only; the copy costs 2 % of the encryption.
        ciphertext.copy_from_slice(plaintext);
        self.apply(iv, ciphertext)?;
        let full = self.tag(associated, ciphertext);
        tag.copy_from_slice(full.as_ref().get(..tag.len()).ok_or(Fault)?);
        Ok(())
    }
}

impl Opener for CmSha1 {
    fn open_in_place(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Reject> {
        self.verify(associated, data, tag)?;
        self.apply(iv, data).map_err(|Fault| Reject::Fault)
    }

    fn open_to(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        ciphertext: &[u8],
        tag: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Reject> {
        self.verify(associated, ciphertext, tag)?;
        plaintext.copy_from_slice(ciphertext);
        self.apply(iv, plaintext).map_err(|Fault| Reject::Fault)
    }
}

/// See [`super::Backend::aes_cm_in_place`].
pub(super) fn aes_cm_in_place(key: &[u8], iv: &Iv, data: &mut [u8]) -> Result<(), Fault> {
    let algorithm = match key.len() {
        16 => &AES_128,
        _ => &AES_256,
    };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| Fault)?;
    let key = EncryptingKey::ctr(key).map_err(|_| Fault)?;
    let context = EncryptionContext::Iv128(FixedLength::from(*iv));
    key.less_safe_encrypt(data, context)
        .map(drop)
        .map_err(|_| Fault)
}
