//! Key and salt of one KID (RFC 9605 §4.4.2), and the sealing of one frame with them (§4.4.3).

use crate::aead::{Aead, Refused};
use crate::suite::NONCE_LEN;
use crate::{CipherSuite, KeyError, Kid};
use hkdf::Hkdf;
use sha2::{Sha256, Sha512};
use zeroize::{Zeroize, Zeroizing};

/// Shortest base key, in bytes: anything below 128 bits can be guessed.
pub const MIN_BASE_KEY_LEN: usize = 16;

/// Longest base key, in bytes: the longest `AEAD.Nk`, which is what an MLS group exports (§5.2).
pub const MAX_BASE_KEY_LEN: usize = 96;

const KEY_LABEL: &[u8] = b"SFrame 1.0 Secret key ";
const SALT_LABEL: &[u8] = b"SFrame 1.0 Secret salt ";

/// Longest derived key of any suite, in bytes.
const MAX_KEY_LEN: usize = 96;

/// The cipher of one KID, ready to use. Cleared from memory when dropped.
pub struct FrameKey {
    suite: CipherSuite,
    aead: Aead,
    salt: Zeroizing<[u8; NONCE_LEN]>,
}

impl FrameKey {
    /// Derives key and salt of `kid` from `base_key`.
    ///
    /// # Errors
    /// [`KeyError::BaseKeyLength`] unless `base_key` has [`MIN_BASE_KEY_LEN`] to
    /// [`MAX_BASE_KEY_LEN`] bytes.
    pub fn derive(suite: CipherSuite, kid: Kid, base_key: &[u8]) -> Result<Self, KeyError> {
        check_base_key(base_key)?;
        let mut key = Zeroizing::new([0; MAX_KEY_LEN]);
        let key = &mut key[..suite.key_len()];
        let mut salt = Zeroizing::new([0; NONCE_LEN]);
        if suite.uses_sha512() {
            let (mut secret, hkdf) = Hkdf::<Sha512>::extract(None, base_key);
            secret.zeroize();
            expand(suite, kid, key, &mut *salt, |info, out| {
                hkdf.expand_multi_info(info, out)
            });
        } else {
            let (mut secret, hkdf) = Hkdf::<Sha256>::extract(None, base_key);
            secret.zeroize();
            expand(suite, kid, key, &mut *salt, |info, out| {
                hkdf.expand_multi_info(info, out)
            });
        }
        let aead = Aead::new(suite, key).ok_or(KeyError::BaseKeyLength(base_key.len()))?;
        Ok(Self { suite, aead, salt })
    }

    /// The suite the key was derived for.
    pub fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// Encrypts `data` in place and writes the tag.
    pub(crate) fn seal(
        &self,
        counter: u64,
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Refused> {
        self.aead.seal(&self.nonce(counter), aad, data, tag)
    }

    /// Decrypts `data` in place if `tag` matches.
    pub(crate) fn open(
        &self,
        counter: u64,
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        self.aead.open(&self.nonce(counter), aad, data, tag)
    }

    /// `nonce = xor(sframe_salt, ctr)` (§4.4.3), the counter being big-endian in `AEAD.Nn` bytes.
    fn nonce(&self, counter: u64) -> [u8; NONCE_LEN] {
        let mut nonce = *self.salt;
        for (byte, count) in nonce[NONCE_LEN - 8..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= count;
        }
        nonce
    }
}

/// # Errors
/// [`KeyError::BaseKeyLength`] if the length is out of range.
pub(crate) fn check_base_key(base_key: &[u8]) -> Result<(), KeyError> {
    if (MIN_BASE_KEY_LEN..=MAX_BASE_KEY_LEN).contains(&base_key.len()) {
        Ok(())
    } else {
        Err(KeyError::BaseKeyLength(base_key.len()))
    }
}

/// Fills `key` and `salt`: each is HKDF-Expand over label ‖ KID (8 bytes) ‖ suite (2 bytes).
fn expand(
    suite: CipherSuite,
    kid: Kid,
    key: &mut [u8],
    salt: &mut [u8],
    hkdf_expand: impl Fn(&[&[u8]], &mut [u8]) -> Result<(), hkdf::InvalidLength>,
) {
    let (kid, suite) = (kid.0.to_be_bytes(), suite.number().to_be_bytes());
    for (label, out) in [(KEY_LABEL, key), (SALT_LABEL, salt)] {
        hkdf_expand(&[label, &kid, &suite], out)
            .expect("at most 96 bytes of the 255 hash lengths that HKDF may give");
    }
}

impl std::fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}
