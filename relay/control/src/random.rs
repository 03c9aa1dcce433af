//! Random pseudonyms, tokens and credentials, from the operating system's generator.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sealcast_model::ShardId;

/// `N` random bytes.
///
/// # Panics
/// If the operating system has no randomness, in which case nothing may go on.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    #[expect(clippy::expect_used, reason = "without randomness nothing may go on")]
    rand::fill(&mut out).expect("the system's random generator works");
    out
}

/// A random 64-bit number.
pub(crate) fn u64() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// A random 32-bit number.
pub(crate) fn u32() -> u32 {
    u32::from_ne_bytes(bytes())
}

/// An ICE user fragment: two hexadecimal digits that name the session's shard, by which requests
/// find it where shards share a port, and 12 ice-chars (72 bits), which make it unique in the relay
/// without a table of those in use.
pub(crate) fn ice_ufrag(shard: ShardId) -> String {
    format!("{:02x}{}", shard.0, STANDARD_NO_PAD.encode(bytes::<9>()))
}

/// An ICE password of 24 ice-chars.
///
/// RFC 8445 §5.3: "the password MUST be ... at least 128 bits of randomness"; this has 144.
pub(crate) fn ice_pwd() -> String {
    STANDARD_NO_PAD.encode(bytes::<18>())
}

/// 32 hexadecimal digits: a location that only its owner knows.
pub(crate) fn location() -> String {
    format!("{:016x}{:016x}", u64(), u64())
}

/// A resume token: 256 bits in base64url.
pub(crate) fn resume_token() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<32>())
}
