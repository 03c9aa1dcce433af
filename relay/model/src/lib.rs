//! The values the relay's parts exchange: time, identifiers, limits, commands, events, counters.
//!
//! This crate is the bottom of the dependency graph. It holds no behaviour beyond its own
//! invariants, owns no clock and no socket, and every type here is safe to send between the
//! control plane and a shard by value.

#![forbid(unsafe_code)]

pub mod buffer;
pub mod command;
pub mod flight;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod media;
pub mod rate;
pub mod stats;
pub mod time;

pub use buffer::{PacketBuf, PacketPool};
pub use command::{
    AssignSlot, CloseReason, Command, CommandError, CommandSender, Event, MirrorSession, Publish,
    SlotSize, TransportKind, Wake,
};
pub use flight::{FlightRecord, FlightRecorder};
pub use histogram::{Histogram, Snapshot};
pub use ids::{ParticipantId, RequestId, RoomId, SessionId, ShardId, SlotId, TrackId};
pub use media::{
    Codec, CodecParams, Direction, HeaderExtension, MediaKind, Mid, ReceiveMedia, Rid, SealRule,
    SessionMedia, SlotMedia, Source, WebRtcParams,
};
pub use rate::TokenBucket;
pub use stats::{Counter, Gauge, ShardStats, Stage};
pub use time::{NtpClock, Time};
