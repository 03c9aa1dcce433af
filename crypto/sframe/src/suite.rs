//! The cipher suites of IANA's registry "SFrame Cipher Suites": 1 to 5 of RFC 9605 (§8.1), 6 to 8 of
//! draft-barnes-sframe-iana-256.

use crate::KeyError;

/// Length of the nonce of every registered suite, in bytes (RFC 9605 §4.5, `AEAD.Nn`).
pub(crate) const NONCE_LEN: usize = 12;

/// Longest authentication tag of any registered suite, in bytes (`AEAD.Nt`).
pub(crate) const MAX_TAG_LEN: usize = 16;

/// An SFrame cipher suite by its registered number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(
    non_camel_case_types,
    reason = "the registry's names, minus their prefix"
)]
pub enum CipherSuite {
    /// `AES_128_CTR_HMAC_SHA256_80`: 10-byte tag.
    Aes128CtrHmacSha256_80 = 1,
    /// `AES_128_CTR_HMAC_SHA256_64`: 8-byte tag.
    Aes128CtrHmacSha256_64 = 2,
    /// `AES_128_CTR_HMAC_SHA256_32`: 4-byte tag.
    Aes128CtrHmacSha256_32 = 3,
    /// `AES_128_GCM_SHA256_128`: 16-byte tag.
    Aes128GcmSha256 = 4,
    /// `AES_256_GCM_SHA512_128`: 16-byte tag. Sealcast's default.
    Aes256GcmSha512 = 5,
    /// `AES_256_CTR_HMAC_SHA512_80`: 10-byte tag.
    Aes256CtrHmacSha512_80 = 6,
    /// `AES_256_CTR_HMAC_SHA512_64`: 8-byte tag.
    Aes256CtrHmacSha512_64 = 7,
    /// `AES_256_CTR_HMAC_SHA512_32`: 4-byte tag.
    Aes256CtrHmacSha512_32 = 8,
}

impl CipherSuite {
    /// Every suite, in the order of the registry.
    pub const ALL: [Self; 8] = [
        Self::Aes128CtrHmacSha256_80,
        Self::Aes128CtrHmacSha256_64,
        Self::Aes128CtrHmacSha256_32,
        Self::Aes128GcmSha256,
        Self::Aes256GcmSha512,
        Self::Aes256CtrHmacSha512_80,
        Self::Aes256CtrHmacSha512_64,
        Self::Aes256CtrHmacSha512_32,
    ];

    /// The registered number, 1 to 8.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Length of the derived key in bytes (`AEAD.Nk`). For the CTR suites this is encryption key
    /// and authentication key together (§4.5.1).
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128CtrHmacSha256_80
            | Self::Aes128CtrHmacSha256_64
            | Self::Aes128CtrHmacSha256_32 => 16 + 32,
            Self::Aes128GcmSha256 => 16,
            Self::Aes256GcmSha512 => 32,
            Self::Aes256CtrHmacSha512_80
            | Self::Aes256CtrHmacSha512_64
            | Self::Aes256CtrHmacSha512_32 => 32 + 64,
        }
    }

    /// Length of the authentication tag in bytes (`AEAD.Nt`), 4 to 16.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Aes128CtrHmacSha256_80 | Self::Aes256CtrHmacSha512_80 => 10,
            Self::Aes128CtrHmacSha256_64 | Self::Aes256CtrHmacSha512_64 => 8,
            Self::Aes128CtrHmacSha256_32 | Self::Aes256CtrHmacSha512_32 => 4,
            Self::Aes128GcmSha256 | Self::Aes256GcmSha512 => MAX_TAG_LEN,
        }
    }

    /// Whether the suite's hash is SHA-512 (else SHA-256).
    pub(crate) const fn uses_sha512(self) -> bool {
        (self as u16) >= 5
    }
}

impl TryFrom<u16> for CipherSuite {
    type Error = KeyError;

    /// # Errors
    /// [`KeyError::UnknownSuite`] if `number` is not in the registry.
    fn try_from(number: u16) -> Result<Self, KeyError> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.number() == number)
            .ok_or(KeyError::UnknownSuite(number))
    }
}
