//! OpenSSL 3, through its EVP interface, so that the configured provider (FIPS) does the work.
//!
//! Contexts are keyed once. Per packet only the IV is set, which neither fetches an algorithm nor
//! allocates. HMAC-SHA1 calls the provider's digest itself, since EVP would allocate ([`sha1`]).

mod sha1;

use super::{Associated, Fault, Opener, Reject, Sealer, with_aad};
use crate::iv::Iv;
use crate::key::SessionKeys;
use crate::profile::AUTH_KEY_LEN;
use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use sha1::{SHA1_LEN, Sha1};
use zeroize::Zeroizing;

impl From<ErrorStack> for Fault {
    fn from(_: ErrorStack) -> Fault {
        Fault
    }
}

impl From<ErrorStack> for Reject {
    fn from(_: ErrorStack) -> Reject {
        Reject::Fault
    }
}

fn gcm(key: &[u8]) -> &'static CipherRef {
    match key.len() {
        16 => Cipher::aes_128_gcm(),
        _ => Cipher::aes_256_gcm(),
    }
}

/// Bytes of an AES-GCM nonce, which is OpenSSL's default.
const NONCE_LEN: usize = 12;

/// AES-GCM (RFC 7714), sealing.
pub(super) struct GcmSealer(CipherCtx);

impl GcmSealer {
    pub(super) fn new(keys: &SessionKeys) -> Result<Self, Fault> {
        let key = keys.cipher_key();
        let mut ctx = CipherCtx::new()?;
        ctx.encrypt_init(Some(gcm(key)), Some(key), None)?;
        Ok(GcmSealer(ctx))
    }
}

impl Sealer for GcmSealer {
    fn seal(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Fault> {
        let ctx = &mut self.0;
        ctx.encrypt_init(None, None, Some(&iv[..NONCE_LEN]))?;
        with_aad(associated, |aad| ctx.cipher_update(aad, None))??;
        if !plaintext.is_empty() {
            ctx.cipher_update(plaintext, Some(ciphertext))?;
        }
        ctx.cipher_final(&mut [])?;
        ctx.tag(tag)?;
        Ok(())
    }
}

/// AES-GCM (RFC 7714), opening.
pub(super) struct GcmOpener(CipherCtx);

impl GcmOpener {
    pub(super) fn new(keys: &SessionKeys) -> Result<Self, Fault> {
        let key = keys.cipher_key();
        let mut ctx = CipherCtx::new()?;
        ctx.decrypt_init(Some(gcm(key)), Some(key), None)?;
        Ok(GcmOpener(ctx))
    }

    fn begin(&mut self, iv: &Iv, associated: Associated<'_>, tag: &[u8]) -> Result<(), Fault> {
        let ctx = &mut self.0;
        ctx.decrypt_init(None, None, Some(&iv[..NONCE_LEN]))?;
        ctx.set_tag(tag)?;
        with_aad(associated, |aad| ctx.cipher_update(aad, None))??;
        Ok(())
    }

    /// Compares the tag, in constant time.
    fn finish(&mut self) -> Result<(), Reject> {
        self.0
            .cipher_final(&mut [])
            .map(drop)
            .map_err(|_| Reject::Tag)
    }
}

impl Opener for GcmOpener {
    fn open_in_place(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Reject> {
        self.begin(iv, associated, tag)
            .map_err(|Fault| Reject::Fault)?;
        if !data.is_empty() {
            self.0.cipher_update_inplace(data, data.len())?;
        }
        self.finish()
    }

    fn open_to(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        ciphertext: &[u8],
        tag: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Reject> {
        self.begin(iv, associated, tag)
            .map_err(|Fault| Reject::Fault)?;
        if !ciphertext.is_empty() {
            self.0.cipher_update(ciphertext, Some(plaintext))?;
        }
        self.finish()
    }
}

/// AES-CM with HMAC-SHA1 (RFC 3711), either direction.
pub(super) struct CmSha1 {
    cipher: CipherCtx,
    mac: HmacSha1,
}

impl CmSha1 {
    pub(super) fn new(keys: &SessionKeys) -> Result<Self, Fault> {
        let mut cipher = CipherCtx::new()?;
        cipher.encrypt_init(Some(Cipher::aes_128_ctr()), Some(keys.cipher_key()), None)?;
        Ok(CmSha1 {
            cipher,
            mac: HmacSha1::new(keys.auth_key())?,
        })
    }

    /// RFC 3711 §4.2: the tag is the leftmost `n_tag` bits of the MAC.
    fn verify(
        &mut self,
        associated: Associated<'_>,
        ciphertext: &[u8],
        tag: &[u8],
    ) -> Result<(), Reject> {
        let mac = self.mac.mac(associated, ciphertext);
        let full = mac.map_err(|Fault| Reject::Fault)?;
        let expected = full.get(..tag.len()).ok_or(Reject::Tag)?;
        if openssl::memcmp::eq(expected, tag) {
            Ok(())
        } else {
            Err(Reject::Tag)
        }
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
        self.cipher.encrypt_init(None, None, Some(iv))?;
        if !plaintext.is_empty() {
            self.cipher.cipher_update(plaintext, Some(ciphertext))?;
        }
        let full = self.mac.mac(associated, ciphertext)?;
        tag.copy_from_slice(full.get(..tag.len()).ok_or(Fault)?);
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
        self.cipher.encrypt_init(None, None, Some(iv))?;
        if !data.is_empty() {
            self.cipher.cipher_update_inplace(data, data.len())?;
        }
        Ok(())
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
        self.cipher.encrypt_init(None, None, Some(iv))?;
        if !ciphertext.is_empty() {
            self.cipher.cipher_update(ciphertext, Some(plaintext))?;
        }
        Ok(())
    }
}

/// Bytes of a SHA-1 block.
const SHA1_BLOCK: usize = 64;

/// HMAC-SHA1 (RFC 2104) over the provider's SHA-1.
struct HmacSha1 {
    digest: Sha1,
    inner_pad: Zeroizing<[u8; SHA1_BLOCK]>,
    outer_pad: Zeroizing<[u8; SHA1_BLOCK]>,
}

impl HmacSha1 {
    fn new(key: &[u8; AUTH_KEY_LEN]) -> Result<Self, Fault> {
        let mut inner_pad = Zeroizing::new([0x36; SHA1_BLOCK]);
        let mut outer_pad = Zeroizing::new([0x5c; SHA1_BLOCK]);
        for (i, k) in key.iter().enumerate() {
            inner_pad[i] ^= k;
            outer_pad[i] ^= k;
        }
        Ok(HmacSha1 {
            digest: Sha1::new()?,
            inner_pad,
            outer_pad,
        })
    }

    fn mac(
        &mut self,
        associated: Associated<'_>,
        ciphertext: &[u8],
    ) -> Result<[u8; SHA1_LEN], Fault> {
        let Associated {
            header, trailer, ..
        } = associated;
        let inner = [&self.inner_pad[..], header, ciphertext, trailer];
        let inner = self.digest.digest(&inner)?;
        self.digest.digest(&[&self.outer_pad[..], &inner])
    }
}

/// See [`super::Backend::aes_cm_in_place`].
pub(super) fn aes_cm_in_place(key: &[u8], iv: &Iv, data: &mut [u8]) -> Result<(), Fault> {
    let cipher = match key.len() {
        16 => Cipher::aes_128_ctr(),
        _ => Cipher::aes_256_ctr(),
    };
    let mut ctx = CipherCtx::new()?;
    ctx.encrypt_init(Some(cipher), Some(key), Some(iv))?;
    ctx.cipher_update_inplace(data, data.len())?;
    Ok(())
}
