//! Native clients of the relay for tests and load: hundreds of sessions on one core, each with
//! full ICE, DTLS, SRTP, data channel, sealed model media, and a check of every byte received.
//!
//! * [`model`]: encoders, packetizers, depacketizers.
//! * [`peer`]: one client, driven by `now` and bytes.
//! * [`driver`]: sockets, signalling and a clock around clients.
//!
//! The binary is built on these: [`scenario`] and [`schedule`] say what is to happen, [`run`] makes
//! it happen, [`result`] is what came of it, [`slo`] judges it, [`report`] and [`compare`] tell.

#![forbid(unsafe_code)]

pub mod agents;
pub mod compare;
pub mod driver;
pub mod http;
pub mod model;
pub mod mos;
pub mod peer;
pub mod report;
pub mod result;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod slo;
pub mod tokens;
