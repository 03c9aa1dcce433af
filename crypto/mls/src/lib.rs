//! Group keys: an MLS group (RFC 9420) that feeds SFrame (RFC 9605 §5.2), native and in wasm.
//!
//! [`Member`] is a sans-IO state machine, one per participant and room. Bytes from the relay's
//! delivery service and the time go in; bytes, events and a deadline come out. It seals and opens
//! media frames and metadata with the keys of the epochs it holds.
//!
//! [`client::GroupClient`] is a member with all that a client of the consult protocol does around it,
//! for native programs.
//!
//! What the group guarantees its members:
//!
//! * Nobody is in it whom the delivery service did not propose and, where the application has an
//!   issuer, whom the issuer does not vouch for ([`identity`]). Commits that break this are refused
//!   by every member, and so are external commits.
//! * Whoever joins cannot read what came before, whoever leaves cannot read what comes after: each
//!   join and each leave is a commit with an update path, and so is a rotation every ten minutes.
//! * Everybody can see who is in, and compare the epoch's [`code`] by voice.
//!
//! Time is an argument: a [`Duration`](std::time::Duration) since the Unix epoch that never runs
//! backwards. The MLS library itself draws random numbers, and reads the wall clock to check the
//! lifetime of KeyPackages.

#![forbid(unsafe_code)]

pub mod client;
pub mod code;
mod commit;
mod epochs;
mod error;
mod event;
mod fault;
pub mod identity;
mod member;
mod metadata;
mod stats;
mod suite;

pub use epochs::{
    KEEP_OLD_EPOCH, MAX_CONTEXTS, OpenedMedia, ROTATE_AFTER_FRAMES, SWITCH_EPOCH_AFTER,
};
pub use error::{HandleError, MetadataError, Refusal, SendError};
pub use event::{Event, MAX_EVENTS};
pub use member::{
    COMMIT_INTERVAL, DEFAULT_ROTATION, Member, MemberConfig, MemberInfo, TAKEOVER_AFTER,
};
pub use metadata::{MAX_METADATA_LEN, OpenedMetadata};
pub use stats::{HandshakeStats, MetadataStats, SenderStats};
pub use suite::{GroupSuite, MemberKey};
