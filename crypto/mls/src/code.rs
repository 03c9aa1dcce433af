//! The short code that parties read to each other.
//!
//! It is made from the epoch authenticator (RFC 9420 §8.7), which is equal for two members exactly
//! if they agree on the group's whole history. Thirty digits hold 99 bits: a relay that splits the
//! group in two and tries commits on either side until the halves' codes agree (a birthday search,
//! 2^50 key schedules) has until the next epoch to do so.

use sha2::{Digest, Sha512};

/// Domain separation from every other hash of the authenticator.
const LABEL: &[u8] = b"Sealcast 1.0 epoch code";

/// Groups of five digits in a code.
const GROUPS: usize = 6;

/// Six groups of five digits, separated by spaces.
pub fn short_code(epoch_authenticator: &[u8]) -> String {
    let digest = Sha512::new()
        .chain_update(LABEL)
        .chain_update(epoch_authenticator)
        .finalize();
    let (chunks, _) = digest.as_chunks::<8>();
    chunks[..GROUPS]
        .iter()
        // 2^64 is no multiple of 10^5; the bias is below 2^-47.
        .map(|chunk| format!("{:05}", u64::from_be_bytes(*chunk) % 100_000))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_30_digits_and_depend_on_every_bit() {
        let code = short_code(&[7; 32]);
        assert_eq!(code.len(), 6 * 5 + 5);
        assert!(code.split(' ').all(|group| group.len() == 5));
        let mut other = [7; 32];
        other[31] ^= 1;
        assert_ne!(short_code(&other), code);
        assert_eq!(short_code(&[7; 32]), code);
    }
}
