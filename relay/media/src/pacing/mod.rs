//! When packets leave for one subscriber.
//!
//! A frame that fits the path leaves at once. What is larger than that, as a key frame is, is
//! spread at a multiple of the estimate, so that it does not fill the bottleneck's queue and lose
//! its own tail. Audio never waits. Nothing but a probe makes padding.

use crate::bwe::{ProbeCluster, ProbeId};
use sealcast_model::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets leave at this multiple of the estimate while a queue is being emptied (libwebrtc's
/// default: fast enough not to delay a key frame, slow enough for a path's own queue).
const PACING_FACTOR: f64 = 2.5;

/// This much of the estimate may leave at once: a frame of 25 per second that uses all of it.
const BURST: Duration = Duration::from_millis(40);

/// A burst is never smaller than this: a few packets, whatever the estimate.
const MIN_BURST_BYTES: u64 = 6_000;

/// No packet waits longer: the rate is raised until the queue empties in this time. A stream that
/// does not fit is the allocator's to stop, not the pacer's to delay.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Packets that wait at most, over all classes: a second of 20 Mbit/s. More is refused.
const MAX_QUEUED: usize = 2_048;

/// Packets queued without a lock on memory: the queues are made this large at start.
const INITIAL_CAPACITY: usize = 64;

/// Payload of a padding packet. RTP padding counts to 255 (RFC 3550, section 5.1).
pub const PADDING_BYTES: u16 = 255;

/// What a packet is, in the order in which classes leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Audio: never waits.
    Audio,
    /// A packet sent again: its frame is late already.
    Retransmission,
    /// Video.
    Video,
}

/// Something to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure<P> {
    /// A queued packet.
    Packet {
        /// What was queued.
        packet: P,
        /// The cluster it is part of, for the send log.
        probe: Option<ProbeId>,
    },
    /// A padding packet of [`PADDING_BYTES`], to fill a probe.
    Padding {
        /// The cluster it is part of.
        probe: ProbeId,
    },
}

/// The pacer refused a packet: 2,048 are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull<P>(
    /// The packet, to be given back to its pool.
    pub P,
);

#[derive(Debug)]
struct Waiting<P> {
    packet: P,
    bytes: u16,
    since: Time,
}

#[derive(Debug)]
struct ActiveProbe {
    cluster: ProbeCluster,
    started: Time,
    sent_bytes: u64,
    sent_packets: u32,
}

/// The pacer of one subscriber.
///
/// Contract: [`set_rate`](Self::set_rate) when the estimate changes, [`enqueue`](Self::enqueue)
/// what is to leave, then [`poll`](Self::poll) until it gives nothing, and again at
/// [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Pacer<P> {
    queues: [VecDeque<Waiting<P>>; 3],
    queued_bytes: u64,
    /// Estimate, bits per second.
    rate: u64,
    /// Bytes sent ahead of the pace; they drain at the pacing rate.
    debt: f64,
    drained_at: Time,
    probe: Option<ActiveProbe>,
    /// The last packet of media that left or was queued. Padding needs a stream to pad.
    has_media: bool,
}

impl<P> Pacer<P> {
    /// A pacer for an estimate of `rate` bits per second.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Pacer {
            queues: [const { VecDeque::new() }; 3]
                .map(|_: VecDeque<()>| VecDeque::with_capacity(INITIAL_CAPACITY)),
            queued_bytes: 0,
            rate: rate.max(1),
            debt: 0.0,
            drained_at: Time::ZERO,
            probe: None,
            has_media: false,
        }
    }

    /// The estimate is now `rate` bits per second.
    pub fn set_rate(&mut self, now: Time, rate: u64) {
        self.drain(now);
        self.rate = rate.max(1);
    }

    /// Sends a cluster from now on. One that is under way is given up for it.
    pub fn start_probe(&mut self, now: Time, cluster: ProbeCluster) {
        self.probe = Some(ActiveProbe {
            cluster,
            started: now,
            sent_bytes: 0,
            sent_packets: 0,
        });
    }

    /// Queues a packet of `bytes` on the wire.
    ///
    /// # Errors
    /// [`QueueFull`] gives the packet back.
    pub fn enqueue(
        &mut self,
        now: Time,
        class: Class,
        bytes: u16,
        packet: P,
    ) -> Result<(), QueueFull<P>> {
        if self.len() >= MAX_QUEUED {
            return Err(QueueFull(packet));
        }
        self.queues[class as usize].push_back(Waiting {
            packet,
            bytes,
            since: now,
        });
        self.queued_bytes += u64::from(bytes);
        self.has_media = true;
        Ok(())
    }

    /// Packets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Takes out every waiting packet for which `keep` says no, as when a subscription ends. Each
    /// goes to `dropped`, to be given back to its pool.
    pub fn retain(&mut self, mut keep: impl FnMut(&P) -> bool, mut dropped: impl FnMut(P)) {
        for queue in &mut self.queues {
            for _ in 0..queue.len() {
                let Some(waiting) = queue.pop_front() else {
                    break;
                };
                if keep(&waiting.packet) {
                    queue.push_back(waiting);
                } else {
                    self.queued_bytes -= u64::from(waiting.bytes);
                    dropped(waiting.packet);
                }
            }
        }
    }

    /// What leaves now; `None` if nothing does before [`poll_timeout`](Self::poll_timeout).
    pub fn poll(&mut self, now: Time) -> Option<Departure<P>> {
        self.drain(now);
        let due = self.due();
        let class = self.queues.iter().position(|q| !q.is_empty());
        if due > now {
            return None;
        }
        let probe = self.probe.as_ref().map(|p| p.cluster.id);
        match (class, probe) {
            (None, None) => None,
            (None, Some(probe)) => {
                self.account(now, PADDING_BYTES);
                Some(Departure::Padding { probe })
            }
            (Some(class), probe) => {
                let waiting = self.queues[class].pop_front()?;
                self.queued_bytes -= u64::from(waiting.bytes);
                self.account(now, waiting.bytes);
                Some(Departure::Packet {
                    packet: waiting.packet,
                    probe,
                })
            }
        }
    }

    /// When something leaves next; [`Time::NEVER`] if nothing waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.due()
    }

    fn due(&self) -> Time {
        if !self.queues[Class::Audio as usize].is_empty() {
            return Time::ZERO;
        }
        if let Some(probe) = self.probe.as_ref().filter(|_| self.has_media) {
            return probe.started + time_for(probe.sent_bytes, probe.cluster.rate as f64);
        }
        if self.is_empty() {
            return Time::NEVER;
        }
        let excess = self.debt - self.burst_bytes();
        if excess <= 0.0 {
            return Time::ZERO;
        }
        let bytes = excess.ceil() as u64;
        self.drained_at + time_for(bytes, self.pace())
    }

    fn burst_bytes(&self) -> f64 {
        (self.rate as f64 / 8.0 * BURST.as_secs_f64()).max(MIN_BURST_BYTES as f64)
    }

    /// Bits per second at which debt drains.
    fn pace(&self) -> f64 {
        let oldest = self
            .queues
            .iter()
            .filter_map(|q| q.front().map(|w| w.since))
            .min();
        let waited = oldest.map_or(Duration::ZERO, |since| self.drained_at - since);
        let left = MAX_WAIT
            .saturating_sub(waited)
            .max(Duration::from_millis(1));
        let emptying = self.queued_bytes as f64 * 8.0 / left.as_secs_f64();
        (self.rate as f64 * PACING_FACTOR).max(emptying)
    }

    fn drain(&mut self, now: Time) {
        let elapsed = now - self.drained_at;
        if elapsed > Duration::ZERO {
            self.debt = (self.debt - self.pace() / 8.0 * elapsed.as_secs_f64()).max(0.0);
            self.drained_at = now;
        }
    }

    fn account(&mut self, now: Time, bytes: u16) {
        self.debt += f64::from(bytes);
        self.drained_at = self.drained_at.max(now);
        if let Some(probe) = &mut self.probe {
            probe.sent_bytes += u64::from(bytes);
            probe.sent_packets += 1;
            if probe.sent_bytes >= probe.cluster.min_bytes
                && probe.sent_packets >= probe.cluster.min_packets
            {
                self.probe = None;
            }
        }
    }
}

/// How long `bytes` take at `rate` bits per second.
fn time_for(bytes: u64, rate: f64) -> Duration {
    Duration::from_nanos((bytes as f64 * 8.0e9 / rate.max(1.0)) as u64)
}

#[cfg(test)]
mod tests;
