//! SDP (RFC 8866) as WebRTC uses it (RFC 8829): read offers, negotiate, write our answers.
//!
//! [`parse`] turns text into a [`SessionDescription`] of exactly what the relay understands;
//! the rest of the text is skipped. [`negotiate`] turns an offer into an answer (another
//! `SessionDescription`, which `Display` writes) and into the plain values of
//! [`sealcast_model::media`] that a shard acts on. Nothing here keeps state or does I/O.
//!
//! Invariant: whatever `Display` writes, `parse` reads back as the same value.

mod candidate;
mod codec;
mod description;
mod error;
mod negotiate;
mod parse;
mod plan;
mod write;

pub use candidate::{Candidate, CandidateProtocol, host_candidates};
pub use description::{
    Direction, ExtMap, Fingerprint, Fmtp, MediaDescription, Msid, RidLine, RtpMap,
    SessionDescription, Setup, SsrcLine, Transport,
};
pub use error::{SdpError, SdpErrorKind};
pub use negotiate::{LocalTransport, MediaPolicy, Negotiated, RemoteTransport, Role, negotiate};
pub use parse::parse;

/// Bounds on what [`parse`] accepts.
pub mod limits {
    /// A whole SDP, bytes. A browser's offer with 128 slots takes about 100 KiB.
    pub const SDP_BYTES: usize = 128 * 1024;
    /// m-lines: 128 slots, 16 tracks, a data channel, and room for stopped transceivers.
    pub const MEDIA_SECTIONS: usize = 160;
    /// One line, bytes. The longest in use are H264 parameter sets, under 1 KiB.
    pub const LINE_BYTES: usize = 4_096;
    /// Entries of one kind in one section (formats, `rtpmap`, `ssrc`, ...), which bounds every
    /// search through such a list. Browsers offer up to 40 formats.
    pub const ENTRIES: usize = 128;
}

#[cfg(test)]
mod tests;
