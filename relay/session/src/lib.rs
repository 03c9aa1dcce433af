//! One WebRTC transport session: ICE-lite, DTLS, SCTP and SRTP, without a socket, a clock or a
//! room.
//!
//! str0m runs DTLS and SCTP with no media declared. The SRTP keys are taken out of its DTLS
//! and media is protected by `sealcast-srtp`, so that a forwarded packet never meets str0m. The
//! session answers connectivity checks, decides which addresses it trusts and where egress goes;
//! str0m learns no client's address and sends nothing.
//!
//! Contract: after every call that takes `now`, drain [`Session::poll_output`] until it returns
//! `None`, then arm one timer for [`Session::poll_timeout`].

#![forbid(unsafe_code)]

mod context;
pub mod limits;
mod media_keys;
mod path;
mod record_keys;
mod refusal;
mod session;
mod stun;
pub mod tap;

pub use context::{ContextError, SessionContext};
pub use media_keys::MediaKeys;
pub use path::{Path, Transport};
pub use refusal::{Refusal, SealError, SessionError};
pub use session::{Session, SessionOutput};
pub use stun::stun_username;
