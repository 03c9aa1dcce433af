//! Repair: asking publishers for what was lost, and answering subscribers that ask.
//!
//! One [`NackGenerator`] and one [`PacketHistory`] for each incoming stream; one [`RtxSender`] for
//! each outgoing one. A subscriber's NACK names outgoing numbers: the subscription's rewriter tells
//! the incoming packet, the history gives its buffer, and the sender decides whether it is sent
//! again and under which number.

mod history;
mod nack;
mod rtx;

pub use history::{HistoryLimits, PacketHistory};
pub use nack::{NackGenerator, NackStats};
pub use rtx::{RtxCause, RtxRefusal, RtxSender};
