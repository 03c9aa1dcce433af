//! Master keys, and the session keys derived from them (RFC 3711 §4.3, RFC 5764 §4.2).

use crate::profile::{AUTH_KEY_LEN, MAX_KEY_LEN, MAX_SALT_LEN};
use crate::{Backend, KeyError, Profile};
use std::fmt;
use zeroize::Zeroizing;

/// One direction's master key and salt. Wiped from memory when dropped; never printed.
pub struct MasterKey {
    profile: Profile,
    key: Zeroizing<[u8; MAX_KEY_LEN]>,
    salt: Zeroizing<[u8; MAX_SALT_LEN]>,
}

impl MasterKey {
    /// A master key from its parts.
    ///
    /// # Errors
    /// [`KeyError::Length`] if key and salt together are not of the profile's lengths.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<MasterKey, KeyError> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(KeyError::Length {
                profile,
                expected: profile.key_len() + profile.salt_len(),
                actual: key.len() + salt.len(),
            });
        }
        let mut master = MasterKey {
            profile,
            key: Zeroizing::new([0; MAX_KEY_LEN]),
            salt: Zeroizing::new([0; MAX_SALT_LEN]),
        };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        Ok(master)
    }

    /// The DTLS client's and the DTLS server's master keys, from the exporter's output.
    ///
    /// They come in the order of RFC 5764 §4.2: client_write_SRTP_master_key,
    /// server_write_SRTP_master_key, client_write_SRTP_master_salt, server_write_SRTP_master_salt.
    /// Each side seals with the key of its own role and opens with the other's.
    ///
    /// # Errors
    /// [`KeyError::Length`] if `material` is not [`Profile::dtls_material_len`] bytes long.
    pub fn pair_from_dtls(
        profile: Profile,
        material: &[u8],
    ) -> Result<(MasterKey, MasterKey), KeyError> {
        if material.len() != profile.dtls_material_len() {
            return Err(KeyError::Length {
                profile,
                expected: profile.dtls_material_len(),
                actual: material.len(),
            });
        }
        let (keys, salts) = material.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        Ok((
            MasterKey::new(profile, client_key, client_salt)?,
            MasterKey::new(profile, server_key, server_salt)?,
        ))
    }

    /// The profile the key is for.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Derives the session keys of one protocol.
    pub(crate) fn derive(
        &self,
        backend: Backend,
        protocol: Protocol,
    ) -> Result<SessionKeys, KeyError> {
        let mut keys = SessionKeys::zero(self.profile);
        let (cipher, auth, salt) = protocol.labels();
        self.prf(
            backend,
            cipher,
            &mut keys.cipher_key[..self.profile.key_len()],
        )?;
        self.prf(backend, auth, &mut keys.auth_key[..])?;
        self.prf(backend, salt, &mut keys.salt[..self.profile.salt_len()])?;
        Ok(keys)
    }

    /// RFC 3711 §4.3.1 with a key derivation rate of zero: `x = (label * 2^48) XOR master_salt`;
    /// §4.3.3: the output is the AES-CM keystream under the master key from IV `x * 2^16`.
    ///
    /// A 96-bit salt stands in the leftmost bits of the 112, as RFC 7714 §11 is implemented
    /// everywhere. AES-256 keys take the AES-256 keystream (RFC 6188 §2).
    fn prf(&self, backend: Backend, label: u8, out: &mut [u8]) -> Result<(), KeyError> {
        let mut iv = Zeroizing::new([0; 16]);
        iv[..MAX_SALT_LEN].copy_from_slice(&*self.salt);
        iv[7] ^= label;
        out.fill(0);
        backend
            .aes_cm_in_place(&self.key[..self.profile.key_len()], &iv, out)
            .map_err(|_| KeyError::Backend(self.profile))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Which of the two protocols a session key protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Rtp,
    Rtcp,
}

impl Protocol {
    /// The key derivation labels of encryption key, authentication key and salt (RFC 3711 §4.3.1,
    /// and §4.3.2 for SRTCP).
    fn labels(self) -> (u8, u8, u8) {
        match self {
            Protocol::Rtp => (0, 1, 2),
            Protocol::Rtcp => (3, 4, 5),
        }
    }
}

/// The session keys of one protocol in one direction. Wiped when dropped.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct SessionKeys {
    profile: Profile,
    cipher_key: Zeroizing<[u8; MAX_KEY_LEN]>,
    auth_key: Zeroizing<[u8; AUTH_KEY_LEN]>,
    salt: Zeroizing<[u8; MAX_SALT_LEN]>,
}

impl SessionKeys {
    fn zero(profile: Profile) -> Self {
        SessionKeys {
            profile,
            cipher_key: Zeroizing::new([0; MAX_KEY_LEN]),
            auth_key: Zeroizing::new([0; AUTH_KEY_LEN]),
            salt: Zeroizing::new([0; MAX_SALT_LEN]),
        }
    }

    /// Session keys as the AEAD vectors of RFC 7714 give them, without a master key.
    #[cfg(test)]
    pub(crate) fn from_parts(profile: Profile, cipher_key: &[u8], salt: &[u8]) -> Self {
        let mut keys = SessionKeys::zero(profile);
        keys.cipher_key[..profile.key_len()].copy_from_slice(cipher_key);
        keys.salt[..profile.salt_len()].copy_from_slice(salt);
        keys
    }

    pub(crate) fn profile(&self) -> Profile {
        self.profile
    }

    pub(crate) fn cipher_key(&self) -> &[u8] {
        &self.cipher_key[..self.profile.key_len()]
    }

    /// The HMAC-SHA1 key; unused by AEAD profiles.
    pub(crate) fn auth_key(&self) -> &[u8; AUTH_KEY_LEN] {
        &self.auth_key
    }

    /// The salt, zero-padded to the right.
    pub(crate) fn salt(&self) -> &[u8; MAX_SALT_LEN] {
        &self.salt
    }
}
