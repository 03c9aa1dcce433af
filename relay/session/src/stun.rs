//! The little of STUN (RFC 8489) that an ICE-lite relay needs.

/// The local user fragment that a STUN binding request is for: the part of USERNAME before the
/// colon (RFC 8445 §7.2.2). Routes a first packet to its session; authenticates nothing.
#[must_use]
pub fn stun_username(_packet: &[u8]) -> Option<&str> {
    unimplemented!()
}
