//! A seeded model of one direction of a network path: loss, delay, jitter, reordering,
//! duplication, and a rate cap with a drop-tail queue.
//!
//! Sans-IO: [`Link::push`] takes a packet at a time, [`Link::pop`] gives it back when it arrives.
//! The same seed, configuration and input give the same output, on every machine and release,
//! which is why the generator is written here. Simulations run it on a virtual clock, the
//! namespace forwarder and the load tester on the real one.

#![forbid(unsafe_code)]

mod config;
mod rng;

pub use config::{ConfigError, LinkConfig, Loss, Rate};
pub use rng::Rng;

use sealcast_model::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Packets one link holds at most, whatever its configuration: memory stays bounded when a sender
/// outruns the delay line. Further packets are dropped and counted as overflow.
pub const IN_FLIGHT_MAX: usize = 65_536;

/// What became of a link's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets pushed.
    pub offered: u64,
    /// Packets that were, or will be, delivered; duplicates included.
    pub accepted: u64,
    /// Lost by the loss model.
    pub lost: u64,
    /// Dropped because the rate cap's queue was full.
    pub overflowed: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Packets that skipped the delay and overtook others.
    pub reordered: u64,
}

/// One direction of a path, carrying packets of type `T`.
pub struct Link<T> {
    config: LinkConfig,
    rng: Rng,
    /// Gilbert–Elliott state: in the bad state.
    burst: bool,
    /// When the rate cap's transmitter is free again.
    free_at: Time,
    /// Latest arrival promised to an in-order packet.
    last_arrival: Time,
    order: u64,
    in_flight: BinaryHeap<Reverse<InFlight<T>>>,
    stats: LinkStats,
}

struct InFlight<T> {
    arrival: Time,
    order: u64,
    packet: T,
}

impl<T> PartialEq for InFlight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl<T> Eq for InFlight<T> {}
impl<T> PartialOrd for InFlight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for InFlight<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrival, self.order).cmp(&(other.arrival, other.order))
    }
}

impl<T: Clone> Link<T> {
    /// A link with nothing in flight.
    #[must_use]
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Link {
            config,
            rng: Rng::new(seed),
            burst: false,
            free_at: Time::ZERO,
            last_arrival: Time::ZERO,
            order: 0,
            in_flight: BinaryHeap::new(),
            stats: LinkStats::default(),
        }
    }

    /// The path as it is now.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the path from now on; what is in flight arrives as promised.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// Takes a packet of `bytes` bytes on the wire.
    pub fn push(&mut self, now: Time, packet: T, bytes: usize) {
        self.stats.offered += 1;
        if self.is_lost() {
            self.stats.lost += 1;
            return;
        }
        let Some(sent) = self.transmit(now, bytes) else {
            self.stats.overflowed += 1;
            return;
        };
        if self.rng.chance(self.config.duplicate) {
            self.stats.duplicated += 1;
            let arrival = self.arrival(sent);
            self.enqueue(arrival, packet.clone());
        }
        let arrival = self.arrival(sent);
        self.enqueue(arrival, packet);
    }

    /// The next packet that has arrived by `now`.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        if self.poll_timeout() > now {
            return None;
        }
        self.in_flight.pop().map(|Reverse(p)| p.packet)
    }

    /// When the next packet arrives; [`Time::NEVER`] if none is in flight.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.in_flight
            .peek()
            .map_or(Time::NEVER, |Reverse(p)| p.arrival)
    }

    /// How long a packet that is pushed now waits for those before it: the rate cap's queue.
    #[must_use]
    pub fn queue_delay(&self, now: Time) -> Duration {
        self.free_at - now
    }

    /// Packets in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    fn is_lost(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Uniform { probability } => self.rng.chance(probability),
            Loss::Burst {
                enter,
                leave,
                inside,
                outside,
            } => {
                let turn = if self.burst { leave } else { enter };
                if self.rng.chance(turn) {
                    self.burst = !self.burst;
                }
                self.rng.chance(if self.burst { inside } else { outside })
            }
        }
    }

    /// When the last bit leaves the rate cap, or `None` if its queue has no room.
    fn transmit(&mut self, now: Time, bytes: usize) -> Option<Time> {
        let Some(rate) = self.config.rate else {
            return Some(now);
        };
        let start = self.free_at.max(now);
        let queued = rate.bytes_in(start - now);
        if queued.saturating_add(bytes as u64) > rate.queue_bytes.max(bytes as u64) {
            return None;
        }
        self.free_at = start + rate.time_for(bytes as u64);
        Some(self.free_at)
    }

    /// When a packet that left at `sent` arrives. Jitter alone never reorders.
    fn arrival(&mut self, sent: Time) -> Time {
        if self.rng.chance(self.config.reorder) {
            self.stats.reordered += 1;
            return sent;
        }
        let jitter = self.config.jitter.mul_f64(self.rng.unit());
        self.last_arrival = self.last_arrival.max(sent + self.config.delay + jitter);
        self.last_arrival
    }

    fn enqueue(&mut self, arrival: Time, packet: T) {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.stats.overflowed += 1;
            return;
        }
        self.order += 1;
        self.stats.accepted += 1;
        self.in_flight.push(Reverse(InFlight {
            arrival,
            order: self.order,
            packet,
        }));
    }
}

impl Rate {
    /// Bytes sent in `d`.
    fn bytes_in(&self, d: Duration) -> u64 {
        (d.as_nanos() * u128::from(self.bits_per_second) / 8_000_000_000) as u64
    }

    /// How long `bytes` take.
    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
