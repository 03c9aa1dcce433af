//! Sockets, clock and signalling around [`crate::peer`]: the part that touches the system.
//!
//! [`MediaThread`] runs hundreds of peers on a thread of its own, a UDP socket or TCP connection
//! for each: the relay tells sessions apart by 5-tuple. [`Signal`] speaks PROTOCOL.md over a
//! WebSocket, on tokio.

mod clock;
mod framing;
mod impair;
mod media;
mod signal;
mod socket;

pub use clock::{Clock, unix_now};
pub use impair::ImpairStats;
pub use media::{Bind, EventSink, LoopLag, MediaLoop, MediaThread, PeerId, StartError, ThreadGone};
pub use signal::{Io, Joined, Signal, SignalError, SignalEvent, SlotRequest, TrackInfo};
pub use socket::SocketStats;
