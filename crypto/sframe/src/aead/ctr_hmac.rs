//! AES in counter mode with a truncated HMAC (RFC 9605 §4.5.1).

use super::Refused;
use crate::CipherSuite;
use crate::suite::{MAX_TAG_LEN, NONCE_LEN};
use aes::{Aes128, Aes256};
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher};
use ctr::{Ctr32BE, CtrCore};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Length of the AES block, and so of the initial counter block.
const BLOCK_LEN: usize = 16;

/// Encryption and authentication key of one KID.
pub(crate) struct CtrHmac {
    keys: Keys,
    tag_len: usize,
}

/// The HMAC contexts are keyed once and cloned per frame, which saves two hash blocks each time.
enum Keys {
    Sha256(Box<(Aes128, Hmac<Sha256>)>),
    Sha512(Box<(Aes256, Hmac<Sha512>)>),
}

impl CtrHmac {
    pub(super) fn new(suite: CipherSuite, key: &[u8]) -> Option<Self> {
        // derive_subkeys (§4.5.1): the first AEAD.Nka bytes encrypt, the others authenticate.
        let keys = if suite.uses_sha512() {
            let (enc, auth) = key.split_at_checked(32)?;
            let hmac = <Hmac<Sha512> as KeyInit>::new_from_slice(auth).ok()?;
            Keys::Sha512(Box::new((Aes256::new_from_slice(enc).ok()?, hmac)))
        } else {
            let (enc, auth) = key.split_at_checked(16)?;
            let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(auth).ok()?;
            Keys::Sha256(Box::new((Aes128::new_from_slice(enc).ok()?, hmac)))
        };
        Some(Self {
            keys,
            tag_len: suite.tag_len(),
        })
    }

    /// `tag` has the suite's tag length.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) {
        self.apply_keystream(nonce, data);
        let mut full = self.compute_tag(nonce, aad, data);
        tag.copy_from_slice(&full[..tag.len()]);
        full.zeroize();
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        let expected = self.compute_tag(nonce, aad, data);
        if tag.len() != self.tag_len || !bool::from(expected[..self.tag_len].ct_eq(tag)) {
            return Err(Refused);
        }
        self.apply_keystream(nonce, data);
        Ok(())
    }

    /// `initial_counter = nonce + 0x00000000` (§4.5.1): the nonce, then four zero bytes.
    fn apply_keystream(&self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) {
        let mut block = [0; BLOCK_LEN];
        block[..NONCE_LEN].copy_from_slice(nonce);
        match &self.keys {
            Keys::Sha256(keys) => {
                let core = CtrCore::inner_iv_init(&keys.0, &block.into());
                Ctr32BE::from_core(core).apply_keystream(data);
            }
            Keys::Sha512(keys) => {
                let core = CtrCore::inner_iv_init(&keys.0, &block.into());
                Ctr32BE::from_core(core).apply_keystream(data);
            }
        }
    }

    /// The HMAC over lengths, nonce, AAD and ciphertext; its first `tag_len` bytes are the tag.
    fn compute_tag(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], ct: &[u8]) -> [u8; MAX_TAG_LEN] {
        let mut lengths = [0; 24];
        lengths[..8].copy_from_slice(&(aad.len() as u64).to_be_bytes());
        lengths[8..16].copy_from_slice(&(ct.len() as u64).to_be_bytes());
        lengths[16..].copy_from_slice(&(self.tag_len as u64).to_be_bytes());
        match &self.keys {
            Keys::Sha256(keys) => authenticate(&keys.1, [&lengths, nonce, aad, ct]),
            Keys::Sha512(keys) => authenticate(&keys.1, [&lengths, nonce, aad, ct]),
        }
    }
}

fn authenticate<M: Mac + Clone>(keyed: &M, parts: [&[u8]; 4]) -> [u8; MAX_TAG_LEN] {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    let full = mac.finalize().into_bytes();
    let mut tag = [0; MAX_TAG_LEN];
    tag.copy_from_slice(&full[..MAX_TAG_LEN]);
    tag
}
