//! The key tap.
