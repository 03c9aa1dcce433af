//! The estimator with pacer and feedback over a model link on a virtual clock: the figures that
//! the field judges an estimator by.

use super::{Estimator, EstimatorConfig, SentPacket, TwccReceiver};
use crate::pacing::{Departure, Order, PADDING_BYTES, Pacer};
use sealcast_model::Time;
use sealcast_netsim::{Link, LinkConfig, Loss, Rate, Rng};
use sealcast_rtp::rtcp::{Compound, Packet, RtcpWriter};
use std::time::Duration;

/// Seeds of the long scenarios: few in a build without optimization.
fn seeds() -> u64 {
    if cfg!(debug_assertions) { 8 } else { 40 }
}

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
const STEP: Duration = Duration::from_millis(1);
/// IP, UDP, SRTP tag and RTP header of a packet.
const OVERHEAD: usize = 70;
/// One way.
const DELAY: Duration = Duration::from_millis(25);

/// One sender with an elastic source: it makes frames of what it may send, up to its demand.
struct Flow {
    estimator: Estimator,
    pacer: Pacer<u16>,
    receiver: TwccReceiver,
    demand: u64,
    next_frame: Time,
    rng: Rng,
    sequence: u16,
    /// (time, delay) of every packet that arrived.
    delays: Vec<(Time, Duration)>,
    /// Bytes of media that arrived, by 100 ms.
    goodput: Vec<u64>,
    /// (time, estimate) every 100 ms.
    estimates: Vec<(Time, u64)>,
}

/// A packet on the forward link: its flow, transport number, send time, media bytes.
#[derive(Clone, Copy)]
struct Forward {
    flow: usize,
    number: u16,
    sent: Time,
    media: usize,
}

impl Flow {
    fn new(demand: u64, seed: u64) -> Self {
        let mut estimator = Estimator::new(EstimatorConfig::default());
        estimator.set_demand(demand);
        Flow {
            pacer: Pacer::new(),
            estimator,
            receiver: TwccReceiver::new(),
            demand,
            next_frame: Time::ZERO,
            rng: Rng::new(seed),
            sequence: 0,
            delays: Vec::new(),
            goodput: Vec::new(),
            estimates: Vec::new(),
        }
    }

    fn send(&mut self, now: Time, index: usize, link: &mut Link<Forward>) {
        self.estimator.handle_timeout(now);
        let rate = self.estimator.sending_rate(now);
        self.pacer.set_rate(now, Some(rate));
        // Without media there is no stream to pad.
        if self.sequence > 0
            && let Some(cluster) = self.estimator.poll_probe(now)
        {
            self.pacer.start_probe(now, cluster);
        }
        if now >= self.next_frame {
            self.next_frame += FRAME;
            self.make_frame(now, rate.min(self.demand));
        }
        while let Some(departure) = self.pacer.poll(now) {
            let (bytes, media) = match departure {
                Departure::Packet(bytes) => (bytes, usize::from(bytes) - OVERHEAD),
                Departure::Padding => (PADDING_BYTES + OVERHEAD as u16, 0),
            };
            let probe = self.pacer.on_sent(now, bytes);
            let sequence_number = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            let number = self.estimator.on_sent(SentPacket {
                sent: now,
                bytes,
                ssrc: 1,
                sequence_number,
                probe,
            });
            link.push(
                now,
                Forward {
                    flow: index,
                    number,
                    sent: now,
                    media,
                },
                usize::from(bytes),
            );
        }
    }

    /// A frame whose size varies by a fifth around its share of the rate.
    fn make_frame(&mut self, now: Time, rate: u64) {
        let share = rate as f64 / 8.0 * FRAME.as_secs_f64() * (0.8 + 0.4 * self.rng.unit());
        let mut left = share as usize;
        while left > 0 {
            let part = left.min(1_130);
            left -= part;
            let bytes = (part + OVERHEAD).min(1_200) as u16;
            self.pacer
                .hold(now, bytes, bytes, |_| Order::Before)
                .expect("the pacer keeps up");
        }
    }

    fn arrive(&mut self, now: Time, packet: Forward) {
        self.receiver.on_packet(now, packet.number);
        self.delays.push((now, now - packet.sent));
        let slot = (now.as_millis() / 100) as usize;
        self.goodput.resize(self.goodput.len().max(slot + 1), 0);
        self.goodput[slot] += packet.media as u64 + OVERHEAD as u64;
    }
}

struct World {
    flows: Vec<Flow>,
    forward: Link<Forward>,
    back: Link<(usize, Vec<u8>)>,
    now: Time,
}

impl World {
    fn new(flows: Vec<Flow>, forward: LinkConfig, seed: u64) -> Self {
        let back = LinkConfig {
            delay: DELAY,
            ..LinkConfig::default()
        };
        World {
            flows,
            forward: Link::new(forward, seed),
            back: Link::new(back, seed + 1),
            now: Time::ZERO,
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
            self.now += STEP;
        }
    }

    fn step(&mut self) {
        let now = self.now;
        for (index, flow) in self.flows.iter_mut().enumerate() {
            flow.send(now, index, &mut self.forward);
        }
        // The link knows arrivals to the nanosecond; packets of one step arrive at their own time.
        loop {
            let at = self.forward.poll_timeout();
            let Some(packet) = self.forward.pop(now) else {
                break;
            };
            self.flows[packet.flow].arrive(at, packet);
        }
        for (index, flow) in self.flows.iter_mut().enumerate() {
            loop {
                let mut out = [0; 1_100];
                let mut writer = RtcpWriter::new(&mut out);
                let more = flow.receiver.write_feedback(now, 1, 2, &mut writer);
                let len = writer.finish();
                if len > 0 {
                    self.back
                        .push(now, (index, out[..len].to_vec()), len + OVERHEAD);
                }
                if !more {
                    break;
                }
            }
        }
        while let Some((index, bytes)) = self.back.pop(now) {
            for packet in Compound::parse(&bytes).expect("own feedback") {
                let Ok(Packet::TransportFeedback(feedback)) = packet else {
                    panic!("feedback")
                };
                self.flows[index]
                    .estimator
                    .on_transport_feedback(now, &feedback);
            }
        }
        if now.as_millis().is_multiple_of(100) {
            for flow in &mut self.flows {
                flow.estimates.push((now, flow.estimator.estimate()));
            }
        }
    }
}

impl Flow {
    /// Bits per second of media that arrived between two times.
    fn rate(&self, from: u64, to: u64) -> f64 {
        let slots = self
            .goodput
            .iter()
            .skip(from as usize * 10)
            .take((to - from) as usize * 10);
        slots.sum::<u64>() as f64 * 8.0 / (to - from) as f64
    }

    /// The 95th percentile of queueing delay (over the path's own) between two times.
    fn queue_p95(&self, from: Time, to: Time) -> Duration {
        let mut delays: Vec<_> = self
            .delays
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, d)| d.saturating_sub(DELAY))
            .collect();
        delays.sort_unstable();
        delays
            .get(delays.len() * 95 / 100)
            .copied()
            .unwrap_or_default()
    }

    /// The mean estimate between two times in seconds.
    fn mean_estimate(&self, from: u64, to: u64) -> f64 {
        let within = (from * 1_000)..(to * 1_000);
        let estimates: Vec<_> = self
            .estimates
            .iter()
            .filter(|(at, _)| within.contains(&at.as_millis()))
            .map(|(_, e)| *e as f64)
            .collect();
        estimates.iter().sum::<f64>() / estimates.len() as f64
    }

    /// When the estimate first comes within 15 % of `capacity` after `from`.
    fn settled(&self, from: u64, capacity: f64) -> Option<Duration> {
        let from = Time::from_millis(from * 1_000);
        self.estimates
            .iter()
            .find(|(at, e)| *at >= from && (*e as f64 - capacity).abs() <= 0.15 * capacity)
            .map(|(at, _)| *at - from)
    }
}

fn capped(bits_per_second: u64, queue_millis: u64) -> LinkConfig {
    let queue_bytes = (bits_per_second / 8 * queue_millis / 1_000).max(20_000);
    LinkConfig {
        delay: DELAY,
        rate: Some(Rate {
            bits_per_second,
            queue_bytes,
        }),
        ..LinkConfig::default()
    }
}

/// Capacity steps 3 → 0.5 → 3 Mbit/s, 20 s each.
#[test]
fn capacity_steps_are_followed_down_and_up() {
    let seconds = Duration::from_secs;
    for seed in 0..seeds() {
        let mut world = World::new(
            vec![Flow::new(8_000_000, seed)],
            capped(3_000_000, 500),
            seed,
        );
        world.run(seconds(20));
        world.forward.set_config(capped(500_000, 1_000));
        world.run(seconds(20));
        world.forward.set_config(capped(3_000_000, 500));
        world.run(seconds(20));
        let flow = &world.flows[0];
        let settled = [(0, 3e6, 10), (20, 5e5, 3), (40, 3e6, 10)];
        for (from, capacity, within) in settled {
            let took = flow.settled(from, capacity);
            assert!(
                took.is_some_and(|took| took <= seconds(within)),
                "seed {seed}, from {from}: {took:?}"
            );
        }
        // ... and there it stays, in the sawtooth of an estimator that looks for more.
        for (from, to, capacity) in [(10, 20, 3e6), (23, 40, 5e5), (50, 60, 3e6)] {
            let mean = flow.mean_estimate(from, to);
            assert!(
                (mean - capacity).abs() < 0.15 * capacity,
                "seed {seed}, from {from}: {mean}"
            );
        }
        let queue = flow.queue_p95(Time::from_millis(21_000), Time::from_millis(40_000));
        assert!(queue < Duration::from_millis(300), "seed {seed}: {queue:?}");
        let share = flow.rate(0, 60) / ((3e6 + 5e5 + 3e6) / 3.0);
        assert!(
            (0.85..=1.0).contains(&share),
            "seed {seed}: {share:.3} of capacity"
        );
    }
}

#[test]
fn two_flows_share_a_link() {
    for seed in 0..seeds() {
        let flows = vec![Flow::new(8_000_000, seed), Flow::new(8_000_000, seed + 100)];
        let mut world = World::new(flows, capped(4_000_000, 300), seed);
        // The second one comes late, to a link that is full.
        world.flows[1].next_frame = Time::from_millis(10_000);
        world.run(Duration::from_secs(150));
        let rates: Vec<f64> = world.flows.iter().map(|flow| flow.rate(30, 150)).collect();
        let (low, high) = (rates[0].min(rates[1]), rates[0].max(rates[1]));
        assert!(low / high > 0.7, "seed {seed}: {rates:?}");
        assert!(low + high > 0.8 * 4e6, "seed {seed}: {rates:?}");
    }
}

#[test]
fn random_loss_does_not_lower_the_estimate_much() {
    for (percent, share) in [(2, 0.85), (10, 0.75)] {
        for seed in 0..5 {
            let loss = Loss::Uniform {
                probability: f64::from(percent) / 100.0,
            };
            let config = LinkConfig {
                loss,
                ..capped(3_000_000, 300)
            };
            let mut world = World::new(vec![Flow::new(8_000_000, seed)], config, seed);
            world.run(Duration::from_secs(60));
            let arrived = world.flows[0].rate(10, 60);
            let most = 3e6 * (1.0 - f64::from(percent) / 100.0);
            assert!(
                arrived > share * most,
                "{percent} %, seed {seed}: {arrived} of {most}"
            );
        }
    }
}

#[test]
fn jitter_is_not_congestion() {
    for seed in 0..5 {
        let config = LinkConfig {
            jitter: Duration::from_millis(20),
            ..capped(3_000_000, 300)
        };
        let mut world = World::new(vec![Flow::new(8_000_000, seed)], config, seed);
        world.run(Duration::from_secs(60));
        let rate = world.flows[0].rate(10, 60);
        assert!(rate > 0.7 * 3e6, "seed {seed}: {rate}");
    }
}

#[test]
fn a_policed_path_is_found_by_its_loss() {
    // No queue to speak of: delay never tells.
    for seed in 0..5 {
        let config = LinkConfig {
            rate: Some(Rate {
                bits_per_second: 2_000_000,
                queue_bytes: 20_000,
            }),
            ..capped(2_000_000, 0)
        };
        let mut world = World::new(vec![Flow::new(8_000_000, seed)], config, seed);
        world.run(Duration::from_secs(60));
        let stats = world.forward.stats();
        let lost = stats.overflowed as f64 / stats.offered as f64;
        assert!(lost < 0.15, "seed {seed}: {lost:.3} lost");
        let rate = world.flows[0].rate(10, 60);
        assert!(rate > 0.7 * 2e6, "seed {seed}: {rate}");
    }
}

#[test]
fn an_idle_sender_keeps_its_estimate_and_does_not_invent_more() {
    let mut world = World::new(vec![Flow::new(400_000, 1)], capped(3_000_000, 300), 1);
    world.run(Duration::from_secs(60));
    let estimate = world.flows[0].estimator.estimate();
    assert!((400_000..1_500_000).contains(&estimate), "{estimate}");
    assert!(world.flows[0].rate(10, 60) > 0.85 * 400_000.0);
    // When it wants more, probes find it.
    world.flows[0].demand = 8_000_000;
    world.flows[0].estimator.set_demand(8_000_000);
    world.run(Duration::from_secs(5));
    let estimate = world.flows[0].estimator.estimate();
    assert!(estimate > 2_000_000, "{estimate}");
}

#[test]
fn a_dead_path_is_left_alone_and_taken_up_again() {
    let mut world = World::new(vec![Flow::new(8_000_000, 1)], capped(3_000_000, 300), 1);
    world.run(Duration::from_secs(10));
    world.forward.set_config(LinkConfig {
        loss: Loss::Uniform { probability: 1.0 },
        ..capped(3_000_000, 300)
    });
    world.run(Duration::from_secs(5));
    let estimate = world.flows[0].estimator.estimate();
    assert!(estimate < 600_000, "{estimate}");
    world.forward.set_config(capped(3_000_000, 300));
    world.run(Duration::from_secs(10));
    let estimate = world.flows[0].estimator.estimate();
    assert!(estimate > 2_250_000, "{estimate}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let config = LinkConfig {
            jitter: Duration::from_millis(5),
            loss: Loss::Uniform { probability: 0.03 },
            ..capped(2_000_000, 300)
        };
        let mut world = World::new(vec![Flow::new(8_000_000, 9)], config, 9);
        world.run(Duration::from_secs(10));
        world.flows.swap_remove(0).estimates
    };
    assert_eq!(run(), run());
}
