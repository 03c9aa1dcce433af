//! The blind delivery service of a room's MLS group (RFC 9420, RFC 9750 §5): it orders handshakes
//! and admits nobody the relay did not admit. It holds no secret of the group, never decrypts and
//! never commits.
//!
//! * [`DeliveryKey`]: the signature key with which the relay proposes who is to be added and
//!   removed, as the group's only external sender.
//! * [`DeliveryService`]: a sans-IO state machine per room. Messages of participants, the time and
//!   the relay's admissions go in; messages to participants come out.
//!
//! Each epoch is ended by exactly one commit, the first valid one to arrive. Commits are validated
//! against the group's public state; what only members can check (path secrets, confirmation tag)
//! they do check, and report.

#![forbid(unsafe_code)]

mod error;
mod group;
mod key;
pub mod limits;
mod participant;
mod service;

pub use error::DeliveryError;
pub use key::{DeliveryKey, SUITES};
pub use service::{Counters, DeliveryService, Output};
