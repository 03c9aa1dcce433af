//! DTLS record protection that keeps keys and no key schedules.
//!
//! AWS-LC's AEAD context takes 600 bytes, and dimpl keeps four of them for as long as a session
//! lives: both directions of the handshake and of the data channel. A client says a few things a
//! second on the data channel, if anything, so here a context is made for each record, out of a key
//! of 16 or 32 bytes.

use dimpl::CryptoError;
use dimpl::crypto::{
    Aad, Buf, Cipher, CryptoProvider, Dtls12CipherSuite, Dtls13CipherSuite, HashAlgorithm, Nonce,
    SupportedDtls12CipherSuite, SupportedDtls13CipherSuite, TmpBuf,
};
use std::fmt;
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// str0m's provider for dimpl, with record protection by [`KeyedCipher`].
pub(crate) fn crypto_provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: &SUITES_12,
        dtls13_cipher_suites: &SUITES_13,
        ..str0m_aws_lc_rs::dimpl_crypto_provider()
    }
}

// dimpl wants its suites to live for ever. There is one list of each for the process.
static SUITES_12: LazyLock<Vec<&'static dyn SupportedDtls12CipherSuite>> = LazyLock::new(|| {
    let suites = str0m_aws_lc_rs::dimpl_crypto_provider().cipher_suites;
    let keyed = |suite: &&'static _| Box::leak(Box::new(Keyed12(*suite))) as _;
    suites.iter().map(keyed).collect()
});

static SUITES_13: LazyLock<Vec<&'static dyn SupportedDtls13CipherSuite>> = LazyLock::new(|| {
    let suites = str0m_aws_lc_rs::dimpl_crypto_provider().dtls13_cipher_suites;
    let keyed = |suite: &&'static _| Box::leak(Box::new(Keyed13(*suite))) as _;
    suites.iter().map(keyed).collect()
});

#[derive(Clone, Copy, Debug)]
struct Keyed12(&'static dyn SupportedDtls12CipherSuite);

#[derive(Clone, Copy, Debug)]
struct Keyed13(&'static dyn SupportedDtls13CipherSuite);

impl SupportedDtls12CipherSuite for Keyed12 {
    fn suite(&self) -> Dtls12CipherSuite {
        self.0.suite()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.0.hash_algorithm()
    }

    fn key_lengths(&self) -> (usize, usize, usize) {
        self.0.key_lengths()
    }

    fn explicit_nonce_len(&self) -> usize {
        self.0.explicit_nonce_len()
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn min_protected_fragment_len(&self) -> usize {
        self.0.min_protected_fragment_len()
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        KeyedCipher::boxed(Suite::Dtls12(self.0), key)
    }
}

impl SupportedDtls13CipherSuite for Keyed13 {
    fn suite(&self) -> Dtls13CipherSuite {
        self.0.suite()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.0.hash_algorithm()
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn iv_len(&self) -> usize {
        self.0.iv_len()
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn min_protected_fragment_len(&self) -> usize {
        self.0.min_protected_fragment_len()
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        KeyedCipher::boxed(Suite::Dtls13(self.0), key)
    }

    fn encrypt_sn(&self, sn_key: &[u8], sample: &[u8; 16]) -> [u8; 16] {
        self.0.encrypt_sn(sn_key, sample)
    }
}

/// The suite that a record's cipher is made by.
#[derive(Clone, Copy)]
enum Suite {
    Dtls12(&'static dyn SupportedDtls12CipherSuite),
    Dtls13(&'static dyn SupportedDtls13CipherSuite),
}

/// A key, wiped when dropped.
struct KeyedCipher {
    suite: Suite,
    key: Zeroizing<Vec<u8>>,
}

impl KeyedCipher {
    fn boxed(suite: Suite, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        let key = Zeroizing::new(key.to_vec());
        let cipher = KeyedCipher { suite, key };
        // A key of the wrong length is found out now.
        cipher.for_record()?;
        Ok(Box::new(cipher))
    }

    fn for_record(&self) -> Result<Box<dyn Cipher>, CryptoError> {
        match self.suite {
            Suite::Dtls12(suite) => suite.create_cipher(&self.key),
            Suite::Dtls13(suite) => suite.create_cipher(&self.key),
        }
    }
}

impl Cipher for KeyedCipher {
    fn encrypt(&mut self, plaintext: &mut Buf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        self.for_record()?.encrypt(plaintext, aad, nonce)
    }

    fn decrypt(
        &mut self,
        ciphertext: &mut TmpBuf,
        aad: Aad,
        nonce: Nonce,
    ) -> Result<(), CryptoError> {
        self.for_record()?.decrypt(ciphertext, aad, nonce)
    }
}

impl fmt::Debug for KeyedCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedCipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_those_of_the_library_and_refuse_what_they_refuse() {
        let (ours, theirs) = (crypto_provider(), str0m_aws_lc_rs::dimpl_crypto_provider());
        assert_eq!(ours.cipher_suites.len(), theirs.cipher_suites.len());
        for (ours, theirs) in ours.cipher_suites.iter().zip(theirs.cipher_suites) {
            assert_eq!(ours.suite(), theirs.suite());
            assert!(ours.create_cipher(&vec![1; ours.key_lengths().1]).is_ok());
            assert!(ours.create_cipher(&[1; 7]).is_err());
        }
        assert!(!ours.dtls13_cipher_suites.is_empty());
        for (ours, theirs) in ours
            .dtls13_cipher_suites
            .iter()
            .zip(theirs.dtls13_cipher_suites)
        {
            assert_eq!(ours.suite(), theirs.suite());
            assert!(ours.create_cipher(&vec![1; ours.key_len()]).is_ok());
            assert!(ours.create_cipher(&[1; 7]).is_err());
        }
    }
}
