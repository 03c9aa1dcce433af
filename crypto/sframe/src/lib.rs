//! Secure Frame (SFrame, RFC 9605): sealing of whole media frames, end to end, under keys that the
//! relay never holds.
//!
//! * [`CipherSuite`]: every suite of the RFC's registry (1 to 8).
//! * [`Header`]: the variable-length SFrame header; [`Kid`]: how Sealcast lays out a key id.
//! * [`FrameKey`]: key and salt of one KID, derived from a base key (§4.4.2).
//! * [`Sealer`]: one sender's key with a counter that never repeats.
//! * [`KeyStore`]: a receiver's keys with a replay window each.
//! * [`layout`]: which bytes of an Opus, VP8, VP9, AV1 or H.264 frame stay outside the seal.
//!
//! The crate reads no clock, draws no random numbers and does no I/O. It builds for `wasm32`; with
//! feature `aws-lc-rs` the AES-GCM suites run on AWS-LC, which native programs want for its speed.
//!
//! Invariant: no (key, nonce) pair seals two frames. [`Sealer`] upholds it within its lifetime: its
//! counter is private, rises by one per frame and stops at a limit. The caller must not build two
//! sealers from the same base key and KID.

#![forbid(unsafe_code)]

mod aead;
mod error;
mod header;
mod key;
mod kid;
pub mod layout;
mod opener;
mod replay;
mod sealer;
mod suite;
#[cfg(test)]
mod vectors;

pub use error::{KeyError, OpenError, SealError};
pub use header::{Header, MAX_HEADER_LEN};
pub use key::{FrameKey, MAX_BASE_KEY_LEN, MIN_BASE_KEY_LEN};
pub use kid::Kid;
pub use opener::{BaseKeyScope, KeyStore, MAX_BASE_KEYS, MAX_EXPLICIT_KEYS, MAX_KEYS, Opened};
pub use replay::{REPLAY_WINDOW, ReplayWindow};
pub use sealer::{DEFAULT_FRAME_LIMIT, Sealer};
pub use suite::CipherSuite;
