//! The two AEAD families of the registry behind one face: AES-GCM, and AES-CTR with HMAC.

mod ctr_hmac;
#[cfg(not(all(feature = "aws-lc-rs", not(target_family = "wasm"))))]
mod gcm;
#[cfg(all(feature = "aws-lc-rs", not(target_family = "wasm")))]
#[path = "gcm_aws_lc.rs"]
mod gcm;

use crate::CipherSuite;
use crate::suite::NONCE_LEN;
use ctr_hmac::CtrHmac;
use gcm::Gcm;

/// The cipher refused: a tag that does not match, or more data than it may take.
#[derive(Debug)]
pub(crate) struct Refused;

/// A keyed cipher. Clears its key schedule when dropped.
pub(crate) enum Aead {
    Gcm(Gcm),
    CtrHmac(CtrHmac),
}

impl Aead {
    /// `key` is [`CipherSuite::key_len`] bytes long.
    pub(crate) fn new(suite: CipherSuite, key: &[u8]) -> Option<Self> {
        use CipherSuite::*;
        match suite {
            Aes128GcmSha256 | Aes256GcmSha512 => Gcm::new(key).map(Self::Gcm),
            Aes128CtrHmacSha256_80
            | Aes128CtrHmacSha256_64
            | Aes128CtrHmacSha256_32
            | Aes256CtrHmacSha512_80
            | Aes256CtrHmacSha512_64
            | Aes256CtrHmacSha512_32 => CtrHmac::new(suite, key).map(Self::CtrHmac),
        }
    }

    /// Encrypts `data` in place and writes the tag; `tag` has the suite's tag length.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Refused> {
        match self {
            Self::Gcm(gcm) => gcm.seal(nonce, aad, data, tag),
            Self::CtrHmac(ctr_hmac) => {
                ctr_hmac.seal(nonce, aad, data, tag);
                Ok(())
            }
        }
    }

    /// Decrypts `data` in place if `tag` matches. On refusal `data` holds no plaintext.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        match self {
            Self::Gcm(gcm) => gcm.open(nonce, aad, data, tag),
            Self::CtrHmac(ctr_hmac) => ctr_hmac.open(nonce, aad, data, tag),
        }
    }
}
