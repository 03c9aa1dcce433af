//! The least that each library needs to seal an SRTP packet whose key and index are known.

use crate::Result;
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{aead, hmac, iv::FixedLength};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use openssl::sha::Sha1;
use sealcast_srtp::Profile;

/// A session key; any bytes will do.
pub(super) struct Key {
    cipher: Vec<u8>,
    auth: [u8; 20],
    salt: u128,
}

impl Key {
    /// A key that no other client has.
    pub(super) fn of_client(profile: Profile, client: usize) -> Key {
        let mut cipher = vec![0x42; profile.key_len()];
        cipher[..8].copy_from_slice(&(client as u64).to_be_bytes());
        Key {
            cipher,
            auth: [client as u8; 20],
            salt: 0x0102_0304_0506_0708_090a_0b0c << 32,
        }
    }
}

/// Seals packets under one key.
pub(super) trait SealPacket: Sized + 'static {
    /// Bytes of the tag.
    const TAG: usize;

    /// Sets the key up.
    fn new(key: &Key) -> Result<Self>;

    /// Encrypts `payload` into `body`, with the tag after it. `body` has room for exactly both.
    fn seal(
        &mut self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &[u8],
        body: &mut [u8],
    ) -> Result<()>;
}

#[inline]
fn gcm_nonce(salt: u128, ssrc: u32, index: u64) -> [u8; 12] {
    let iv = salt ^ (u128::from(ssrc) << 80) ^ (u128::from(index) << 32);
    let [nonce @ .., _, _, _, _] = iv.to_be_bytes();
    nonce
}

#[inline]
fn cm_iv(salt: u128, ssrc: u32, index: u64) -> [u8; 16] {
    (salt ^ (u128::from(ssrc) << 64) ^ (u128::from(index) << 16)).to_be_bytes()
}

pub(super) struct AwsGcm(aead::LessSafeKey, u128);

impl SealPacket for AwsGcm {
    const TAG: usize = 16;

    fn new(key: &Key) -> Result<Self> {
        let algorithm = if key.cipher.len() == 16 {
            &aead::AES_128_GCM
        } else {
            &aead::AES_256_GCM
        };
        Ok(AwsGcm(
            aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, &key.cipher)?),
            key.salt,
        ))
    }

    #[inline]
    fn seal(
        &mut self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &[u8],
        body: &mut [u8],
    ) -> Result<()> {
        let (ciphertext, tag) = body.split_at_mut(payload.len());
        let nonce = aead::Nonce::assume_unique_for_key(gcm_nonce(self.1, ssrc, index));
        let aad = aead::Aad::from(header);
        self.0
            .seal_out_of_place_scatter(nonce, aad, payload, ciphertext, &[], tag)?;
        Ok(())
    }
}

pub(super) struct AwsCm {
    cipher: EncryptingKey,
    mac: hmac::Key,
    salt: u128,
}

impl SealPacket for AwsCm {
    const TAG: usize = 10;

    fn new(key: &Key) -> Result<Self> {
        Ok(AwsCm {
            cipher: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &key.cipher)?)?,
            mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key.auth),
            salt: key.salt,
        })
    }

    #[inline]
    fn seal(
        &mut self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &[u8],
        body: &mut [u8],
    ) -> Result<()> {
        let (ciphertext, tag) = body.split_at_mut(payload.len());
        ciphertext.copy_from_slice(payload);
        let iv = FixedLength::from(cm_iv(self.salt, ssrc, index));
        self.cipher
            .less_safe_encrypt(ciphertext, EncryptionContext::Iv128(iv))?;
        let mut mac = hmac::Context::with_key(&self.mac);
        mac.update(header);
        mac.update(ciphertext);
        mac.update(&((index >> 16) as u32).to_be_bytes());
        tag.copy_from_slice(&mac.sign().as_ref()[..Self::TAG]);
        Ok(())
    }
}

pub(super) struct OpenSslGcm(CipherCtx, u128);

impl SealPacket for OpenSslGcm {
    const TAG: usize = 16;

    fn new(key: &Key) -> Result<Self> {
        let cipher = if key.cipher.len() == 16 {
            Cipher::aes_128_gcm()
        } else {
            Cipher::aes_256_gcm()
        };
        let mut ctx = CipherCtx::new()?;
        ctx.encrypt_init(Some(cipher), Some(&key.cipher), None)?;
        Ok(OpenSslGcm(ctx, key.salt))
    }

    #[inline]
    fn seal(
        &mut self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &[u8],
        body: &mut [u8],
    ) -> Result<()> {
        let (ciphertext, tag) = body.split_at_mut(payload.len());
        self.0
            .encrypt_init(None, None, Some(&gcm_nonce(self.1, ssrc, index)))?;
        self.0.cipher_update(header, None)?;
        self.0.cipher_update(payload, Some(ciphertext))?;
        self.0.cipher_final(&mut [])?;
        self.0.tag(tag)?;
        Ok(())
    }
}

/// HMAC here is two copied states of the low-level SHA-1, the least OpenSSL can do.
pub(super) struct OpenSslCm {
    cipher: CipherCtx,
    inner: Sha1,
    outer: Sha1,
    salt: u128,
}

impl SealPacket for OpenSslCm {
    const TAG: usize = 10;

    fn new(key: &Key) -> Result<Self> {
        let mut cipher = CipherCtx::new()?;
        cipher.encrypt_init(Some(Cipher::aes_128_ctr()), Some(&key.cipher), None)?;
        let keyed = |pad: u8| {
            let mut block = [pad; 64];
            block.iter_mut().zip(key.auth).for_each(|(b, k)| *b ^= k);
            let mut state = Sha1::new();
            state.update(&block);
            state
        };
        Ok(OpenSslCm {
            cipher,
            inner: keyed(0x36),
            outer: keyed(0x5c),
            salt: key.salt,
        })
    }

    #[inline]
    fn seal(
        &mut self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        payload: &[u8],
        body: &mut [u8],
    ) -> Result<()> {
        let (ciphertext, tag) = body.split_at_mut(payload.len());
        self.cipher
            .encrypt_init(None, None, Some(&cm_iv(self.salt, ssrc, index)))?;
        self.cipher.cipher_update(payload, Some(ciphertext))?;
        let mut inner = self.inner.clone();
        inner.update(header);
        inner.update(ciphertext);
        inner.update(&((index >> 16) as u32).to_be_bytes());
        let mut outer = self.outer.clone();
        outer.update(&inner.finish());
        tag.copy_from_slice(&outer.finish()[..Self::TAG]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed<S: SealPacket>(profile: Profile) -> Vec<u8> {
        let mut body = vec![0; 200 + S::TAG];
        let mut seal = S::new(&Key::of_client(profile, 3)).unwrap();
        seal.seal(7, 0x1_0002, &[0x80; 20], &[9; 200], &mut body)
            .unwrap();
        body
    }

    #[test]
    fn both_libraries_do_the_same_work() {
        for profile in [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm] {
            assert_eq!(sealed::<AwsGcm>(profile), sealed::<OpenSslGcm>(profile));
        }
        let profile = Profile::Aes128CmSha1_80;
        assert_eq!(sealed::<AwsCm>(profile), sealed::<OpenSslCm>(profile));
    }
}
