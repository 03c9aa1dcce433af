//! Is the path's queue growing? One-way delay, by groups of packets, against time
//! (draft-ietf-rmcat-gcc-02, sections 5.2 to 5.4, with a trendline for the Kalman filter).

use sealcast_model::Time;
use std::collections::VecDeque;

/// Packets sent within this are one group: they left together, so their spacing at the receiver
/// tells of the bottleneck's rate and not of its queue (gcc-02, section 5.2: "burst_time").
const BURST_MICROS: i64 = 5_000;

/// A group that spans more than this at the receiver is closed, burst or not.
const BURST_SPAN_MICROS: i64 = 100_000;

/// Group deltas in the regression. At 30 to 100 groups a second, a quarter to two thirds of a
/// second.
const WINDOW: usize = 20;

/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;

/// Turns a slope (dimensionless) into the unit of the threshold (milliseconds): the slope times
/// the deltas it is over, at most this many, times `GAIN`.
const MAX_DELTAS: usize = 60;
const GAIN: f64 = 4.0;

/// Bounds and start of the adaptive threshold, milliseconds (gcc-02, section 5.4: del_var_th).
const THRESHOLD_START: f64 = 12.5;
const THRESHOLD_MIN: f64 = 6.0;
const THRESHOLD_MAX: f64 = 600.0;
/// How fast the threshold follows, per millisecond: slower up than down would let a rival that
/// fills queues starve us (gcc-02, section 5.4: K_u and K_d).
const K_UP: f64 = 0.0087;
const K_DOWN: f64 = 0.039;
/// An estimate this far over the threshold is an outlier that does not move it.
const MAX_ADAPT_OFFSET: f64 = 15.0;

/// Overuse must last this long before it is believed (gcc-02, section 5.4:
/// "overuse_time_th").
const OVERUSE_MILLIS: f64 = 10.0;

/// A gap in arrivals this long ends what is known of the queue.
const GAP_MICROS: i64 = 3_000_000;

/// What the delay says of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// The queue neither grows nor shrinks.
    #[default]
    Normal,
    /// It grows: more is sent than leaves.
    Over,
    /// It drains.
    Under,
}

/// Estimates from (sent, arrived) pairs whether the queue grows.
#[derive(Debug)]
pub(super) struct DelayDetector {
    grouping: Grouping,
    trend: Trend,
    threshold: f64,
    last_update: Option<i64>,
    overusing_millis: f64,
    overuse_count: u32,
    previous_trend: f64,
    usage: Usage,
}

impl DelayDetector {
    pub(super) fn new() -> Self {
        DelayDetector {
            grouping: Grouping::default(),
            trend: Trend::default(),
            threshold: THRESHOLD_START,
            last_update: None,
            overusing_millis: 0.0,
            overuse_count: 0,
            previous_trend: 0.0,
            usage: Usage::Normal,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// A packet sent at `sent` arrived at `arrival` microseconds of the receiver's clock.
    pub(super) fn on_packet(&mut self, sent: Time, arrival: i64) {
        let sent = i64::try_from(sent.as_micros()).unwrap_or(i64::MAX);
        if self
            .last_update
            .is_some_and(|last| arrival - last > GAP_MICROS)
        {
            *self = DelayDetector {
                threshold: self.threshold,
                ..DelayDetector::new()
            };
        }
        let Some(delta) = self.grouping.on_packet(sent, arrival) else {
            return;
        };
        let elapsed = self.last_update.map_or(0, |last| arrival - last);
        self.last_update = Some(arrival);
        self.trend.push(delta, arrival);
        self.detect(delta.sent as f64 / 1_000.0, elapsed as f64 / 1_000.0);
    }

    fn detect(&mut self, sent_millis: f64, elapsed_millis: f64) {
        let Some(trend) = self.trend.slope() else {
            return;
        };
        let offset = self.trend.deltas.min(MAX_DELTAS) as f64 * trend * GAIN;
        if offset > self.threshold {
            self.overusing_millis += if self.overuse_count == 0 {
                sent_millis / 2.0
            } else {
                sent_millis
            };
            self.overuse_count += 1;
            if self.overusing_millis > OVERUSE_MILLIS
                && self.overuse_count > 1
                && trend >= self.previous_trend
            {
                self.overusing_millis = 0.0;
                self.overuse_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.overusing_millis = 0.0;
            self.overuse_count = 0;
            self.usage = if offset < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.previous_trend = trend;
        self.adapt_threshold(offset, elapsed_millis);
    }

    /// gcc-02, section 5.4: "del_var_th(i) = del_var_th(i-1) + (t(i)-t(i-1)) * K(i) *
    /// (|m(i)|-del_var_th(i-1))".
    fn adapt_threshold(&mut self, offset: f64, elapsed_millis: f64) {
        let size = offset.abs();
        if size > self.threshold + MAX_ADAPT_OFFSET {
            return;
        }
        let k = if size < self.threshold { K_DOWN } else { K_UP };
        self.threshold += k * (size - self.threshold) * elapsed_millis.clamp(0.0, 100.0);
        self.threshold = self.threshold.clamp(THRESHOLD_MIN, THRESHOLD_MAX);
    }
}

/// Distance between two groups, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Delta {
    sent: i64,
    arrived: i64,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrival: i64,
    last_arrival: i64,
}

/// Gathers packets into groups.
#[derive(Debug, Default)]
struct Grouping {
    current: Option<Group>,
    previous: Option<Group>,
}

impl Grouping {
    /// The distance between the last two groups, when this packet starts a third.
    fn on_packet(&mut self, sent: i64, arrival: i64) -> Option<Delta> {
        let Some(group) = &mut self.current else {
            self.current = Some(Group::of(sent, arrival));
            return None;
        };
        if sent < group.first_sent {
            // Reordered behind its own group: it tells of the reordering, not of the queue.
            return None;
        }
        if group.takes(sent, arrival) {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return None;
        }
        let done = *group;
        self.current = Some(Group::of(sent, arrival));
        let previous = self.previous.replace(done)?;
        let delta = Delta {
            sent: done.last_sent - previous.last_sent,
            arrived: done.last_arrival - previous.last_arrival,
        };
        // Groups that arrive in the wrong order say nothing of the queue either.
        (delta.arrived >= 0).then_some(delta)
    }
}

impl Group {
    fn of(sent: i64, arrival: i64) -> Self {
        Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        }
    }

    /// gcc-02, section 5.2: packets of one burst, and "a packet which has an inter-arrival time
    /// less than burst_time and an inter-group delay variation d(i) less than 0".
    fn takes(&self, sent: i64, arrival: i64) -> bool {
        if sent - self.first_sent <= BURST_MICROS {
            return true;
        }
        let arrived = arrival - self.last_arrival;
        let variation = arrived - (sent - self.last_sent);
        variation < 0 && arrived <= BURST_MICROS && arrival - self.first_arrival < BURST_SPAN_MICROS
    }
}

/// The slope of smoothed one-way delay over arrival time.
#[derive(Debug, Default)]
struct Trend {
    /// (arrival, smoothed delay) in milliseconds, arrival counted from the first one.
    points: VecDeque<(f64, f64)>,
    first_arrival: Option<i64>,
    accumulated: f64,
    smoothed: f64,
    deltas: usize,
}

impl Trend {
    fn push(&mut self, delta: Delta, arrival: i64) {
        let first = *self.first_arrival.get_or_insert(arrival);
        self.deltas = (self.deltas + 1).min(1_000);
        self.accumulated += (delta.arrived - delta.sent) as f64 / 1_000.0;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        if self.points.len() == WINDOW {
            self.points.pop_front();
        }
        self.points
            .push_back(((arrival - first) as f64 / 1_000.0, self.smoothed));
    }

    /// Least squares over a full window; `None` until there is one.
    fn slope(&self) -> Option<f64> {
        if self.points.len() < WINDOW {
            return None;
        }
        let n = self.points.len() as f64;
        let (sum_x, sum_y) = self
            .points
            .iter()
            .fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (mut numerator, mut denominator) = (0.0, 0.0);
        for (x, y) in &self.points {
            numerator += (x - mean_x) * (y - mean_y);
            denominator += (x - mean_x) * (x - mean_x);
        }
        (denominator > 0.0).then(|| numerator / denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a packet every `interval` ms whose delay is given by `delay` (ms), and returns each
    /// change of usage with the packet's number.
    fn run(interval: u64, packets: u64, delay: impl Fn(u64) -> f64) -> Vec<(u64, Usage)> {
        let mut detector = DelayDetector::new();
        let mut changes = Vec::new();
        for i in 0..packets {
            let before = detector.usage();
            let sent = Time::from_millis(i * interval);
            // The receiver's clock has its own epoch.
            let arrival =
                (i * interval) as i64 * 1_000 + (delay(i) * 1_000.0) as i64 + 77_000_000_000;
            detector.on_packet(sent, arrival);
            if detector.usage() != before {
                changes.push((i, detector.usage()));
            }
        }
        changes
    }

    #[test]
    fn steady_delay_is_normal_whatever_it_is() {
        assert_eq!(run(10, 500, |_| 20.0), []);
        assert_eq!(run(10, 500, |_| 900.0), []);
    }

    #[test]
    fn small_jitter_is_normal() {
        assert_eq!(run(10, 2_000, |i| ((i * 7_919) % 5) as f64), []);
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_underuse() {
        // Ten packets a 100 ms; from packet 100 on each waits 3 ms longer, until 150; then it drains.
        let changes = run(10, 400, |i| match i {
            0..100 => 20.0,
            100..150 => 20.0 + 3.0 * (i - 100) as f64,
            150..200 => 170.0 - 3.0 * (i - 150) as f64,
            _ => 20.0,
        });
        let (first, usage) = changes[0];
        assert_eq!(usage, Usage::Over);
        assert!((101..115).contains(&first), "{changes:?}");
        let under = changes
            .iter()
            .find(|(_, usage)| *usage == Usage::Under)
            .expect("drains");
        assert!((150..190).contains(&under.0), "{changes:?}");
        assert_eq!(changes.last().map(|(_, usage)| *usage), Some(Usage::Normal));
    }

    #[test]
    fn a_burst_is_one_group() {
        let mut grouping = Grouping::default();
        // A frame of five packets every 33 ms, spread by the bottleneck at the receiver.
        let mut deltas = Vec::new();
        for frame in 0..10i64 {
            for part in 0..5i64 {
                deltas.extend(grouping.on_packet(
                    frame * 33_000 + part * 100,
                    frame * 33_000 + 20_000 + part * 2_000,
                ));
            }
        }
        assert_eq!(deltas.len(), 8);
        assert!(
            deltas.iter().all(|d| *d
                == Delta {
                    sent: 33_000,
                    arrived: 33_000
                }),
            "{deltas:?}"
        );
    }

    #[test]
    fn reordered_packets_and_a_long_gap_are_not_a_queue() {
        let mut detector = DelayDetector::new();
        for i in 0..300i64 {
            let sent = if i % 10 == 9 { (i - 6) * 10 } else { i * 10 };
            detector.on_packet(Time::from_millis(sent as u64), i * 10_000 + 500_000);
            assert_eq!(detector.usage(), Usage::Normal, "packet {i}");
        }
        // The sender is silent for a minute and the path is 400 ms slower afterwards.
        for i in 0..100i64 {
            detector.on_packet(
                Time::from_millis(63_000 + i as u64 * 10),
                63_900_000 + i * 10_000,
            );
            assert_eq!(detector.usage(), Usage::Normal, "packet {i} after the gap");
        }
    }
}
