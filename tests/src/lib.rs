//! A seeded simulation of the relay's media plane: the engine and model clients on a virtual
//! clock, over links that lose, delay, reorder, duplicate and cap.
//!
//! Nothing here reads a clock or draws from the system: a run follows from its seed, and its trace
//! hash is the same on every machine. [`check`] judges every packet that leaves the engine,
//! [`scenario`] makes a run of a seed, [`figures`] measures the cases that
//! docs/QUALITY.md states, [`bandwidth`] those of them in which a path is too narrow.

#![forbid(unsafe_code)]

pub mod bandwidth;
pub mod check;
pub mod figures;
mod judge;
pub mod layered;
pub mod packet;
pub mod payload;
pub mod publisher;
pub mod scenario;
mod sent;
pub mod session;
pub mod subscriber;
pub mod trace;
pub mod world;
