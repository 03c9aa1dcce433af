//! Tests of whole contexts: published vectors, properties over both back ends, hostile input.

mod hostile;
mod properties;
mod vectors;

use crate::{Backend, Inbound, MasterKey, Outbound, Profile};

/// Every profile with every back end.
fn combinations() -> impl Iterator<Item = (Profile, Backend)> {
    Profile::ALL
        .into_iter()
        .flat_map(|p| Backend::ALL.into_iter().map(move |b| (p, b)))
}

/// A master key of `profile`, different for each `seed`.
fn master_key(profile: Profile, seed: u8) -> MasterKey {
    let key: Vec<u8> = (0..profile.key_len() as u8)
        .map(|i| i.wrapping_mul(7) ^ seed)
        .collect();
    let salt: Vec<u8> = (0..profile.salt_len() as u8)
        .map(|i| i.wrapping_mul(13) ^ seed)
        .collect();
    MasterKey::new(profile, &key, &salt).unwrap()
}

fn outbound(profile: Profile, backend: Backend) -> Outbound {
    Outbound::new(backend, &master_key(profile, 1)).unwrap()
}

fn inbound(profile: Profile, backend: Backend) -> Inbound {
    Inbound::new(backend, &master_key(profile, 1)).unwrap()
}

/// A minimal RTP header.
fn header(seq: u16, ssrc: u32) -> [u8; 12] {
    let [s0, s1] = seq.to_be_bytes();
    let [c0, c1, c2, c3] = ssrc.to_be_bytes();
    [0x80, 96, s0, s1, 0, 0, 0, 0, c0, c1, c2, c3]
}

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u32> = s.chars().filter_map(|c| c.to_digit(16)).collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits");
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}
