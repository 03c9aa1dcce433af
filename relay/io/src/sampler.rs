//! Transmit timestamps by sample: which messages are asked for one, and what to make of it.
//!
//! A stamp comes back through the socket's error queue and costs a system call, so only one message
//! in many is asked for one, at random distances, so that no receiver's turn is favoured. One
//! sample at a time is under way on a socket. The kernel numbers the stamps of a socket; a number
//! below the expected one belongs to a sample that was given up.

use crate::limits::STAMP_PATIENCE;
use sealcast_model::{Counter, ShardStats, Stage, Time};
use sealcast_shard::PacketMeta;

/// Samples one socket's messages.
pub(crate) struct TxSampler {
    /// Mean distance of two samples in messages; 0: none are taken.
    interval: u32,
    /// Messages to let pass before the next sample.
    pass: u32,
    random: u64,
    awaited: Option<Sample>,
    /// The least number that the awaited stamp can have.
    next_id: u32,
}

/// A message whose stamp is awaited.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Its first packet, which stands for all of them: it has waited longest.
    packet: PacketMeta,
    /// How many it has. Messages grow when packets wait, so that samples that count one each would
    /// tell too little of those that waited.
    packets: u64,
    /// The send call began.
    started: Time,
}

impl TxSampler {
    /// One message in `interval` is sampled, on average; none if that is 0.
    pub(crate) fn new(interval: u32) -> Self {
        let mut sampler = TxSampler {
            interval,
            pass: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            awaited: None,
            next_id: 0,
        };
        sampler.pass = sampler.draw();
        sampler
    }

    /// Chooses one of the next `count` messages, or none. `packet` tells the first packet of a
    /// message, if it carries media.
    pub(crate) fn pick(
        &mut self,
        now: Time,
        count: usize,
        packet: impl Fn(usize) -> Option<PacketMeta>,
        stats: &ShardStats,
    ) -> Option<(usize, PacketMeta)> {
        if self.interval == 0 || count <= self.pass as usize {
            return None;
        }
        if let Some(sample) = self.awaited {
            if now - sample.started < STAMP_PATIENCE {
                return None;
            }
            // The device or its queue has dropped it.
            stats.add(Counter::StampLost, 1);
            self.awaited = None;
            self.next_id = self.next_id.wrapping_add(1);
        }
        (self.pass as usize..count).find_map(|i| Some((i, packet(i)?)))
    }

    /// Of the messages, the first `sent` went by a call that began at `started`; true if the picked
    /// one, of `packets` packets, is among them, so that its stamp is under way.
    pub(crate) fn sent(
        &mut self,
        picked: Option<(usize, PacketMeta)>,
        sent: usize,
        packets: usize,
        started: Time,
    ) -> bool {
        match picked {
            Some((index, packet)) if index < sent => {
                self.awaited = Some(Sample {
                    packet,
                    packets: packets as u64,
                    started,
                });
                self.pass = self.draw();
                true
            }
            _ => {
                self.pass = self.pass.saturating_sub(sent as u32);
                false
            }
        }
    }

    /// A stamp has come back: the `id`-th message that asked for one left at `at`.
    pub(crate) fn stamped(&mut self, id: u32, at: Time, stats: &ShardStats) {
        let early = id.wrapping_sub(self.next_id) > u32::MAX / 2;
        if early {
            return;
        }
        let Some(sample) = self.awaited.take() else {
            return;
        };
        let Sample {
            packet,
            packets,
            started,
        } = sample;
        self.next_id = id.wrapping_add(1);
        stats.add(Counter::StampedOut, 1);
        let media = stats.media(packet.source);
        media.stage(Stage::Wire).record(at - started, packets);
        if packet.received < packet.read {
            let total = media.stage(Stage::Total);
            total.record(at - packet.received, packets);
        }
    }

    /// Whether a stamp is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// Evenly from 0 to twice the interval, by xorshift64 (Marsaglia 2003).
    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let range = u64::from(self.interval.saturating_mul(2).saturating_sub(1).max(1));
        (self.random % range) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_model::{Source, TrackId};
    use std::time::Duration;

    fn packet(_: usize) -> Option<PacketMeta> {
        Some(PacketMeta {
            source: Source::Screen,
            track: Some(TrackId(1)),
            received: Time::from_micros(100),
            read: Time::from_micros(150),
        })
    }

    #[test]
    fn one_in_so_many_whatever_the_calls_hold() {
        let stats = ShardStats::default();
        for interval in [1, 16, 100] {
            for call in [1usize, 7, 64] {
                let mut sampler = TxSampler::new(interval);
                let (mut messages, mut samples) = (0u32, 0u32);
                while messages < 100_000 {
                    let picked = sampler.pick(Time::ZERO, call, packet, &stats);
                    messages += call as u32;
                    if sampler.sent(picked, call, 1, Time::ZERO) {
                        sampler.stamped(samples, Time::ZERO, &stats);
                        samples += 1;
                    }
                }
                // A call has one at most, and its rest does not count towards the next.
                let most = (100_000 / interval).min(100_000 / call as u32);
                assert!(samples <= most + most / 10 + 1, "{samples} of {most}");
                assert!(samples >= most / 3, "{samples} of {most}");
            }
        }
        let mut off = TxSampler::new(0);
        assert!(off.pick(Time::ZERO, 1_000, packet, &stats).is_none());
    }

    #[test]
    fn messages_without_media_and_refused_ones_are_not_sampled() {
        let stats = ShardStats::default();
        let mut sampler = TxSampler::new(1);
        assert!(sampler.pick(Time::ZERO, 8, |_| None, &stats).is_none());
        let picked = sampler.pick(Time::ZERO, 8, |i| packet(i).filter(|_| i == 5), &stats);
        assert_eq!(picked.unwrap().0, 5);
        assert!(!sampler.sent(picked, 5, 1, Time::ZERO), "refused");
        let picked = sampler.pick(Time::ZERO, 8, packet, &stats);
        assert!(sampler.sent(picked, 8, 1, Time::ZERO));
        assert!(
            sampler.pick(Time::ZERO, 8, packet, &stats).is_none(),
            "one at a time"
        );
    }

    #[test]
    fn a_lost_stamp_is_given_up_and_a_late_one_is_nobodys() {
        let stats = ShardStats::default();
        let mut sampler = TxSampler::new(1);
        let send = |sampler: &mut TxSampler, at: Time| {
            let picked = sampler.pick(at, 1, packet, &stats);
            sampler.sent(picked, 1, 3, at)
        };
        assert!(send(&mut sampler, Time::ZERO));
        let later = Time::ZERO + STAMP_PATIENCE;
        assert!(send(&mut sampler, later));
        assert_eq!(stats.get(Counter::StampLost), 1);
        // The kernel numbered the lost one 0.
        sampler.stamped(0, later, &stats);
        assert_eq!(stats.get(Counter::StampedOut), 0);
        sampler.stamped(1, later + Duration::from_micros(20), &stats);
        assert_eq!(stats.get(Counter::StampedOut), 1);
        let wire = stats.media(Source::Screen).stage(Stage::Wire).snapshot();
        assert_eq!((wire.count(), wire.sum_nanos()), (3, 60_000));
        let total = stats.media(Source::Screen).stage(Stage::Total).snapshot();
        assert_eq!(total.count(), 3);
        // The numbers wrap; a refused message may have used one up.
        sampler.next_id = u32::MAX;
        assert!(send(&mut sampler, later));
        sampler.stamped(1, later, &stats);
        assert_eq!((stats.get(Counter::StampedOut), sampler.next_id), (2, 2));
    }
}
