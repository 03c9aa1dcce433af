//! One native client: sans-IO, driven by `now` and bytes.
//!
//! [`Peer`] is the whole client of a media session. It offers ([`Peer::offer`]), takes the answer
//! ([`Peer::accept`]), connects, sends what its model encoders yield on an open-loop schedule,
//! and checks what arrives in its slots. Signalling and sockets are somebody else's.
//!
//! Contract: call `handle_packet` and `handle_timeout` with an [`Outbox`], send what is in it,
//! drain [`Peer::poll_event`], arm one timer for [`Peer::poll_timeout`].

mod arrivals;
mod client;
mod feedback;
mod keys;
mod outbox;
mod receive;
mod rtp;
mod sdp;
mod send;
mod transport;

pub use client::{Peer, PeerConfig, PeerError, PeerEvent, PeerFaults, SlotState};
pub use keys::{EpochKeys, SealConfig, SealKeys};
pub use outbox::{Datagram, Outbox, Run};
pub use receive::{ReceiveStats, Received, RejectReason};
pub use sdp::{Answer, AnswerError, AnswerMedia};
pub use send::{SendStats, SenderParams};
pub use transport::{ContextError, PeerContext, Proto, Route};
