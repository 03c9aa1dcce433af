//! Native clients of the relay for tests and load: hundreds of sessions on one core, each with
//! full ICE, DTLS, SRTP, data channel, sealed model media, and a check of every byte received.
//!
//! * [`model`]: encoders, packetizers, depacketizers.
//! * [`peer`]: one client, driven by `now` and bytes.
//! * [`driver`]: sockets, signalling and a clock around clients.

#![forbid(unsafe_code)]

pub mod driver;
pub mod model;
pub mod peer;
