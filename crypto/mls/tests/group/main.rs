//! Whole clients and the relay's delivery service together, on a virtual clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod flood;
mod refusals;
mod room;
