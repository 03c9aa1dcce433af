//! The per-packet IV: session salt, SSRC and packet index, XORed together.

use crate::Profile;
use crate::profile::MAX_SALT_LEN;
use zeroize::Zeroize;

/// A packet's IV. AES-CM uses all 16 bytes, AES-GCM the first 12.
pub(crate) type Iv = [u8; 16];

/// Makes the IVs of one session key.
pub(crate) struct IvMaker {
    /// The session salt, left-aligned.
    salt: u128,
    /// By how many bits the index is shifted; the SSRC lies 48 bits above it.
    index_shift: u32,
}

impl IvMaker {
    /// `salt` holds the profile's salt, zero-padded to the right.
    pub(crate) fn new(profile: Profile, salt: &[u8; MAX_SALT_LEN]) -> Self {
        let mut wide = [0; 16];
        wide[..MAX_SALT_LEN].copy_from_slice(salt);
        let maker = IvMaker {
            salt: u128::from_be_bytes(wide),
            // RFC 3711 §4.1.1: IV = (k_s * 2^16) XOR (SSRC * 2^64) XOR (i * 2^16).
            // RFC 7714 §8.1 and §9.1: two (SRTCP index: also two more) octets of zeros, the SSRC,
            // and the index in the last six of twelve octets; here left-aligned in sixteen.
            index_shift: if profile.is_aead() { 32 } else { 16 },
        };
        wide.zeroize();
        maker
    }

    /// The IV of packet `index` (48 bits for RTP, 31 for RTCP) from `ssrc`.
    #[inline]
    pub(crate) fn iv(&self, ssrc: u32, index: u64) -> Iv {
        let id = u128::from(ssrc) << 48 | u128::from(index);
        (self.salt ^ (id << self.index_shift)).to_be_bytes()
    }
}

impl Drop for IvMaker {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gcm_iv_of_rfc_7714() {
        // RFC 7714 §16: salt "Quid pro quo", SSRC 5501a0b2, ROC 0, SEQ f17b.
        let mut salt = [0; MAX_SALT_LEN];
        salt[..12].copy_from_slice(b"Quid pro quo");
        let iv = IvMaker::new(Profile::AeadAes128Gcm, &salt).iv(0x5501_a0b2, 0xf17b);
        assert_eq!(
            iv[..12],
            0x5175_3c65_80c2_726f_2071_8414_u128.to_be_bytes()[4..]
        );
        // RFC 7714 §17: SSRC 4d617273, SRTCP index 5d4.
        let iv = IvMaker::new(Profile::AeadAes128Gcm, &salt).iv(0x4d61_7273, 0x5d4);
        assert_eq!(
            iv[..12],
            0x5175_2405_5203_726f_2071_70bb_u128.to_be_bytes()[4..]
        );
    }

    #[test]
    fn cm_iv_keeps_ssrc_and_index_apart() {
        // RFC 3711 §4.1.1, with a zero salt.
        let iv = IvMaker::new(Profile::Aes128CmSha1_80, &[0; MAX_SALT_LEN])
            .iv(0x0102_0304, 0xa0b0_c0d0_e0f0);
        let expected = [
            0, 0, 0, 0, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0, 0, 0,
        ];
        assert_eq!(iv, expected);
    }
}
