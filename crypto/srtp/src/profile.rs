//! The protection profiles that DTLS-SRTP negotiates (RFC 5764 §4.1.2, RFC 7714 §14.2).

use std::fmt;

/// An SRTP protection profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AEAD_AES_256_GCM (RFC 7714): 256-bit key, 96-bit salt, 128-bit tag.
    AeadAes256Gcm,
    /// AEAD_AES_128_GCM (RFC 7714): 128-bit key, 96-bit salt, 128-bit tag.
    AeadAes128Gcm,
    /// AES128_CM_SHA1_80 (RFC 3711): 128-bit key, 112-bit salt, 80-bit HMAC-SHA1 tag.
    Aes128CmSha1_80,
}

/// Bytes of the E flag and SRTCP index that every SRTCP packet carries (RFC 3711 §3.4).
pub(crate) const RTCP_INDEX_LEN: usize = 4;

/// Longest master or session encryption key, bytes.
pub(crate) const MAX_KEY_LEN: usize = 32;
/// Longest master or session salt, bytes.
pub(crate) const MAX_SALT_LEN: usize = 14;
/// Bytes of the HMAC-SHA1 session key, `n_a` = 160 bits (RFC 3711 §5.2).
pub(crate) const AUTH_KEY_LEN: usize = 20;

impl Profile {
    /// All profiles, strongest first: the order in which they are offered.
    pub const ALL: [Profile; 3] = [
        Profile::AeadAes256Gcm,
        Profile::AeadAes128Gcm,
        Profile::Aes128CmSha1_80,
    ];

    /// Bytes of the master key and of the session key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Profile::AeadAes256Gcm => 32,
            Profile::AeadAes128Gcm | Profile::Aes128CmSha1_80 => 16,
        }
    }

    /// Bytes of the master salt and of the session salt.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Profile::AeadAes256Gcm | Profile::AeadAes128Gcm => 12,
            Profile::Aes128CmSha1_80 => 14,
        }
    }

    /// Bytes of the authentication tag.
    #[must_use]
    pub const fn tag_len(self) -> usize {
        match self {
            Profile::AeadAes256Gcm | Profile::AeadAes128Gcm => 16,
            Profile::Aes128CmSha1_80 => 10,
        }
    }

    /// Bytes by which an SRTP packet is longer than its RTP packet.
    #[must_use]
    pub const fn rtp_overhead(self) -> usize {
        self.tag_len()
    }

    /// Bytes by which an SRTCP packet is longer than its RTCP packet.
    #[must_use]
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + RTCP_INDEX_LEN
    }

    /// Bytes of DTLS exporter output that hold both directions' keys and salts (RFC 5764 §4.2).
    #[must_use]
    pub const fn dtls_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// The profile's number in the DTLS `use_srtp` extension.
    #[must_use]
    pub const fn dtls_id(self) -> u16 {
        match self {
            Profile::Aes128CmSha1_80 => 0x0001,
            Profile::AeadAes128Gcm => 0x0007,
            Profile::AeadAes256Gcm => 0x0008,
        }
    }

    /// The profile of a DTLS `use_srtp` number, if it is one of ours.
    #[must_use]
    pub fn from_dtls_id(id: u16) -> Option<Profile> {
        Profile::ALL.into_iter().find(|p| p.dtls_id() == id)
    }

    /// The registered name, as metrics and logs show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Profile::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Profile::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Profile::Aes128CmSha1_80 => "AES128_CM_SHA1_80",
        }
    }

    /// True if one AEAD both encrypts and authenticates (RFC 7714). What is not costs several times
    /// as much.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        !matches!(self, Profile::Aes128CmSha1_80)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
