//! When packets leave for one subscriber.
//!
//! A frame that fits the path leaves at once, without being queued. What is larger than that, as a
//! key frame is, is spread at a multiple of the estimate, so that it does not fill the bottleneck's
//! queue and lose its own tail. Audio and what is sent again never wait, but what they take counts.
//! Nothing but a probe makes padding.

use crate::bwe::{ProbeCluster, ProbeId};
use crate::limits::PACED_MAX;
use sealcast_model::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Packets leave at this multiple of the estimate while a queue is being emptied. libwebrtc has 2.5:
/// its encoder keeps to the rate that it is given. Here key frames of several cameras may come
/// together, and what leaves faster than the bottleneck takes it only waits there instead.
const PACING_FACTOR: f64 = 1.5;

/// This much of the estimate may leave at once: a frame of 25 per second that uses all of it.
const BURST: Duration = Duration::from_millis(40);

/// A burst is never smaller than this: a few packets, whatever the estimate.
const MIN_BURST_BYTES: f64 = 6_000.0;

/// No packet waits longer: the rate is raised until the queue empties in this time. A stream that
/// does not fit is the allocator's to stop, not the pacer's to delay.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Payload of a padding packet. RTP padding counts to 255 (RFC 3550, section 5.1).
pub const PADDING_BYTES: u16 = 255;

/// Something to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure<P> {
    /// A packet that waited.
    Packet(P),
    /// A padding packet of [`PADDING_BYTES`], to fill a probe.
    Padding,
}

/// The pacer refused a packet: [`PACED_MAX`] are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull<P>(
    /// The packet.
    pub P,
);

/// How a packet that waits stands to one that is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It leaves before the new one.
    Before,
    /// It leaves after the new one, which came late.
    After,
    /// Either may leave first: it is of another stream.
    Free,
}

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
/// Contract: [`set_rate`](Self::set_rate) when the estimate changes. A packet for which
/// [`may_pass`](Self::may_pass) is sent at once; any other is put to [`hold`](Self::hold), and so
/// are those after it. [`poll`](Self::poll) gives what leaves, until it gives nothing, and again at
/// [`poll_timeout`](Self::poll_timeout). [`on_sent`](Self::on_sent) is called for every packet that
/// leaves, whether it waited or not.
#[derive(Debug)]
#[repr(C)]
pub struct Pacer<P> {
    /// Estimate, bits per second; `None` if nothing is to wait.
    rate: Option<u64>,
    /// Bytes that may be sent ahead of the pace at that rate.
    burst: f64,
    /// Bytes sent ahead of the pace; they drain at the pacing rate.
    debt: f64,
    drained_at: Time,
    queue: VecDeque<Waiting<P>>,
    queued_bytes: u64,
    probe: Option<ActiveProbe>,
}

impl<P> Default for Pacer<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Pacer<P> {
    /// A pacer that lets everything pass until a rate is set.
    #[must_use]
    pub fn new() -> Self {
        Pacer {
            rate: None,
            burst: f64::INFINITY,
            debt: 0.0,
            drained_at: Time::ZERO,
            queue: VecDeque::new(),
            queued_bytes: 0,
            probe: None,
        }
    }

    /// The estimate is now `rate` bits per second; `None`: nothing is known that would make a
    /// packet wait.
    pub fn set_rate(&mut self, now: Time, rate: Option<u64>) {
        self.drain(now);
        self.rate = rate.map(|rate| rate.max(1));
        self.burst = self.rate.map_or(f64::INFINITY, burst_bytes);
        if self.rate.is_none() {
            self.debt = 0.0;
        }
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

    /// Gives the cluster under way up.
    pub fn stop_probe(&mut self) {
        self.probe = None;
    }

    /// Whether a cluster is under way.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Whether a packet may leave at `now` without waiting: nothing waits, and there is room.
    #[inline]
    #[must_use]
    pub fn may_pass(&mut self, now: Time) -> bool {
        if !self.queue.is_empty() {
            return false;
        }
        // Without a rate there is no debt; what has drained since only makes it less.
        if self.debt > self.burst {
            self.drain(now);
        }
        self.debt <= self.burst
    }

    /// Makes a packet of `bytes` on the wire wait. `order` tells how those that wait stand to it;
    /// it goes to the end of the queue, or before the first one that has to leave after it.
    ///
    /// # Errors
    /// [`QueueFull`] gives the packet back.
    pub fn hold(
        &mut self,
        now: Time,
        bytes: u16,
        packet: P,
        order: impl Fn(&P) -> Order,
    ) -> Result<(), QueueFull<P>> {
        if self.queue.len() >= PACED_MAX {
            return Err(QueueFull(packet));
        }
        let mut place = self.queue.len();
        for (at, waiting) in self.queue.iter().enumerate().rev() {
            match order(&waiting.packet) {
                Order::Before => break,
                Order::After => place = at,
                Order::Free => {}
            }
        }
        let waiting = Waiting {
            packet,
            bytes,
            since: now,
        };
        self.queue.insert(place, waiting);
        self.queued_bytes += u64::from(bytes);
        Ok(())
    }

    /// The packets that wait, in the order in which they will leave.
    pub fn waiting(&self) -> impl DoubleEndedIterator<Item = &P> {
        self.queue.iter().map(|waiting| &waiting.packet)
    }

    /// Packets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Takes out every packet for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&P) -> bool) {
        let queued_bytes = &mut self.queued_bytes;
        self.queue.retain(|waiting| {
            let kept = keep(&waiting.packet);
            *queued_bytes -= u64::from(waiting.bytes) * u64::from(!kept);
            kept
        });
    }

    /// What leaves now; `None` if nothing does before [`poll_timeout`](Self::poll_timeout).
    pub fn poll(&mut self, now: Time) -> Option<Departure<P>> {
        self.drain(now);
        if self.poll_timeout() > now {
            return None;
        }
        match self.queue.pop_front() {
            Some(waiting) => {
                self.queued_bytes -= u64::from(waiting.bytes);
                Some(Departure::Packet(waiting.packet))
            }
            None => Some(Departure::Padding),
        }
    }

    /// When something leaves next; [`Time::NEVER`] if nothing waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.media_due().min(self.probe_due())
    }

    fn media_due(&self) -> Time {
        if self.queue.is_empty() {
            return Time::NEVER;
        }
        let excess = self.debt - self.burst;
        if excess <= 0.0 {
            return Time::ZERO;
        }
        self.drained_at + time_for(excess.ceil() as u64, self.pace())
    }

    fn probe_due(&self) -> Time {
        self.probe.as_ref().map_or(Time::NEVER, |probe| {
            probe.started + time_for(probe.sent_bytes, probe.cluster.rate as f64)
        })
    }

    /// A packet of `bytes` on the wire leaves; the cluster that it is part of, for the send log.
    #[inline]
    pub fn on_sent(&mut self, now: Time, bytes: u16) -> Option<ProbeId> {
        if self.rate.is_some() {
            self.drain(now);
            self.debt += f64::from(bytes);
        }
        let probe = self.probe.as_mut()?;
        probe.sent_bytes += u64::from(bytes);
        probe.sent_packets += 1;
        let cluster = probe.cluster;
        if probe.sent_bytes >= cluster.min_bytes && probe.sent_packets >= cluster.min_packets {
            self.probe = None;
        }
        Some(cluster.id)
    }

    /// Bits per second at which debt drains.
    fn pace(&self) -> f64 {
        let pace = self.rate.unwrap_or(1) as f64 * PACING_FACTOR;
        let Some(oldest) = self.queue.front() else {
            return pace;
        };
        let left = MAX_WAIT
            .saturating_sub(self.drained_at - oldest.since)
            .max(Duration::from_millis(1));
        pace.max(self.queued_bytes as f64 * 8.0 / left.as_secs_f64())
    }

    #[inline]
    fn drain(&mut self, now: Time) {
        if now <= self.drained_at {
            return;
        }
        if self.debt > 0.0 {
            let elapsed = (now - self.drained_at).as_secs_f64();
            self.debt = (self.debt - self.pace() / 8.0 * elapsed).max(0.0);
        }
        self.drained_at = now;
    }
}

fn burst_bytes(rate: u64) -> f64 {
    (rate as f64 / 8.0 * BURST.as_secs_f64()).max(MIN_BURST_BYTES)
}

/// How long `bytes` take at `rate` bits per second.
fn time_for(bytes: u64, rate: f64) -> Duration {
    Duration::from_nanos((bytes as f64 * 8.0e9 / rate.max(1.0)) as u64)
}

#[cfg(test)]
mod tests;
