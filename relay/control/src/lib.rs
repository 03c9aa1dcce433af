//! The relay's control plane: signalling, SDP, tokens, rooms, WHIP and WHEP, metrics.
//!
//! Everything here runs on tokio and decides; nothing here touches a media packet. Shards are
//! reached through [`sealcast_model`] values alone: a [`sealcast_model::CommandSender`] towards
//! them, and their events handed in by whoever owns their threads.

#![forbid(unsafe_code)]

pub mod clock;
pub mod flight;
pub mod http;
pub mod limits;
pub mod metrics;
mod random;
mod refusal;
pub mod rooms;
pub mod sdp;
mod signal;
pub mod token;

pub use refusal::{Code, Refusal};
