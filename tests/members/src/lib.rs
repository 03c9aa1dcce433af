//! Native members of a room's group over a relay that runs as a process of its own: signalling over
//! WebSocket (PROTOCOL.md §3, §4, §11), groups and frames by the crates that browsers run as wasm.
//!
//! For tests: what goes wrong with the machine or the relay panics and says what it was.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails to start a process or to reach it has failed; real processes need the real clock"
)]

mod member;
mod memory;
mod relay;

pub use member::{Frame, GroupState, Join, Peer, Traffic, Watched};
pub use memory::{Needle, scan};
pub use relay::Relay;
