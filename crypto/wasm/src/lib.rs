//! What the browser needs of Sealcast's cryptography, as one WebAssembly module.
//!
//! * [`frames`]: sealing and opening of media frames, for the worker behind
//!   `RTCRtpScriptTransform`, with a key from the join link.
//! * [`group`]: membership in a room's MLS group, and sealing with its keys.
//!
//! Errors cross to JavaScript as `Error` objects whose message starts with a stable word and a
//! colon. Build it with `cargo run -p xtask -- wasm --out client/wasm`.

#![forbid(unsafe_code)]

#[cfg(feature = "delivery")]
pub mod delivery;
pub mod frames;
pub mod group;
#[cfg(feature = "vectors")]
pub mod vectors;
