//! A shard's thread and sockets: everything of the packet path that touches the system.
//!
//! [`ShardThread::spawn`] binds UDP sockets and ICE-TCP listeners and runs a
//! [`Shard`](sealcast_shard::Shard) on a thread of its own. One turn of its loop waits with epoll,
//! receives with `recvmmsg` (UDP_GRO, kernel timestamps), lets the engine work, and sends with
//! `sendmmsg` (UDP_SEGMENT). It never waits for anything else, except for a full socket buffer for
//! [`limits::SEND_WAIT`].
//!
//! The clock is read twice per turn, once per receive call, and before and after each send call.
//! Nothing is allocated per packet. Unsafe code is confined to the `sys` module.

mod clock;
mod config;
pub mod limits;
mod sampler;
mod sys;
mod tcp;
mod thread;
mod udp;

pub use clock::Clock;
pub use config::{Bind, ShardIoConfig};
pub use sealcast_shard::{MediaConfig, Mesh, SessionContext, ShardConfig};
pub use sys::{interface_addresses, run_realtime, usable_cores};
pub use thread::{EventSink, ShardIo, ShardPort, ShardThread, StartError};
