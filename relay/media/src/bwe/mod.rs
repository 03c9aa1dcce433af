//! Bandwidth: how much one subscriber's path carries, and who gets which part of it.
//!
//! Upstream, [`TwccReceiver`] notes when a publisher's packets arrive and writes the feedback that
//! the publisher's own estimator lives on, [`CcfbReceiver`] does for those who want it in the form of
//! RFC 8888, and [`ReceiveEstimator`] estimates for those who cannot. Downstream, [`SendLog`] pairs feedback with what was
//! sent, and [`Estimator`] turns the pairs into a bitrate. The [`Allocator`] divides that bitrate.
//!
//! The estimator follows draft-ietf-rmcat-gcc-02 and what the field has learned since: a
//! trendline on one-way delay instead of a Kalman filter, an estimate of acknowledged throughput
//! to fall back on, and probe clusters to find more.
//!
//! Everything is sans-IO and deterministic: time comes in as an argument, nothing is drawn at
//! random, and floating point is used only with operations that IEEE 754 rounds exactly.

mod acked;
mod aimd;
mod allocator;
mod ccfb_receiver;
mod delay;
mod estimator;
mod loss;
mod losses;
mod path;
mod probe;
mod prober;
mod receive_estimator;
mod remb;
mod send_log;
mod twcc_receiver;

pub use allocator::{
    Allocation, Allocator, Decision, LayerRate, MAX_LAYERS, Priority, RequestId, Subscription,
};
pub use ccfb_receiver::CcfbReceiver;
pub use delay::Usage;
pub use estimator::{EstimateParts, Estimator, EstimatorConfig};
pub use losses::LostPacket;
pub use probe::{ProbeCluster, ProbeId};
pub use receive_estimator::ReceiveEstimator;
pub use send_log::{PacketResult, SendLog, SentPacket};
pub use twcc_receiver::TwccReceiver;

#[cfg(test)]
mod simulation;
