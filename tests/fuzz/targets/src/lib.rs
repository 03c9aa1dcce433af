//! What is fuzzed, as plain functions: libFuzzer calls them with whatever it makes up, and the tests
//! of this crate with the committed corpora, on the stable toolchain.
//!
//! A target panics if a rule is broken. It takes any bytes.

#![forbid(unsafe_code)]

pub mod dd;
pub mod delivery;
pub mod input;
pub mod member;
pub mod metadata;
pub mod payload;
pub mod red;
pub mod rtcp;
pub mod rtp;
pub mod rtx;
pub mod sframe_header;
pub mod sframe_open;
pub mod sps;
pub mod twcc;

/// A target's name, which is that of its corpus and of its program too, and the target.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("dd", dd::run),
    ("delivery", delivery::run),
    ("member", member::run),
    ("metadata", metadata::run),
    ("payload", payload::run),
    ("red", red::run),
    ("rtcp", rtcp::run),
    ("rtp", rtp::run),
    ("rtx", rtx::run),
    ("sframe_header", sframe_header::run),
    ("sframe_open", sframe_open::run),
    ("sps", sps::run),
    ("twcc", twcc::run),
];
