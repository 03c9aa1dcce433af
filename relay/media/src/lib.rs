//! The media plane of one shard: who receives which packet, and how it looks there.
//!
//! [`Engine`] is sans-IO. It is driven by values and hands packets to an [`Egress`]; it owns no
//! socket, no clock and no key, and sees no SDP. Payloads stay sealed: the engine reads RTP
//! headers, header extensions, payload descriptors, and the clear header in front of the
//! ciphertext (RFC 9605 §4.3) to check that there is one.
//!
//! A packet that is forwarded costs no allocation, no hash and no system call here.

#![forbid(unsafe_code)]

mod api;
pub mod audio;
pub mod bwe;
mod cache;
mod config;
mod downlink;
mod engine;
mod frame;
mod header;
mod inbox;
mod keyframe;
mod layers;
pub mod limits;
mod meter;
pub mod mirror;
pub mod pacing;
mod peer;
mod prng;
mod reception;
pub mod repair;
mod rewriter;
mod seal;
mod slab;
#[cfg(feature = "steps")]
pub mod steps;
mod stream;
mod subscription;
mod sync;
mod timers;
mod track;
mod window;

pub use api::{Egress, LayerLimit, MediaEvent, PacketMeta, PathState, PeerKey};
pub use config::MediaConfig;
pub use engine::Engine;
pub use mirror::{Mirror, MirrorPlace};
