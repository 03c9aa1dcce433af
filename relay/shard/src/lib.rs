//! One core's engine: sessions and media, driven by time, bytes and commands.
//!
//! [`Shard`] is where the two planes meet. It finds the session of a datagram, has it opened, gives
//! the packet to the media engine, seals what the engine forwards into an [`EgressBatch`], and
//! hands the batch to an [`Outbox`]. It owns no socket and no clock; the I/O crate drives it.
//!
//! No datagram makes it panic, wait or grow without bound, and no forwarded packet costs an
//! allocation, a lock or a clock read.

#![forbid(unsafe_code)]

mod command;
mod config;
mod demux;
mod egress;
mod events;
mod journal;
pub mod limits;
mod mesh;
mod notices;
mod sealer;
mod sessions;
mod settle;
mod shard;
mod wheel;

pub use config::ShardConfig;
pub use egress::{EgressBatch, Outbox, Run};
pub use journal::SendReport;
pub use mesh::Mesh;
pub use sealcast_media::{MediaConfig, PacketMeta};
pub use sealcast_session::{Path, SessionContext, Transport};
pub use shard::Shard;
pub use wheel::TimerWheel;
