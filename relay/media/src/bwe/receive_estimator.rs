//! An estimate of a publisher's path from this end, for publishers that know nothing but REMB
//! (draft-alvestrand-rmcat-remb-03): arrivals against absolute send times.
//!
//! The parts are those of the send-side [`Estimator`](super::Estimator). What it lacks here are
//! probes: the rate follows what comes, at most half as much again.

use super::acked::AckedBitrate;
use super::aimd::{Aimd, FAIR_SHARE, Observation};
use super::delay::{DelayDetector, Usage};
use super::estimator::EstimatorConfig;
use super::path::{BusyRate, QueueDelay};
use sealcast_model::Time;
use sealcast_rtp::ext::AbsSendTime;
use std::time::Duration;

/// The rate is looked at this often while packets come.
const UPDATE_INTERVAL: Duration = Duration::from_millis(200);

/// The estimate is told this often, and at once when it falls below that share of what was told.
const REMB_INTERVAL: Duration = Duration::from_millis(1_000);
const FALLEN: f64 = 0.97;

/// Absolute send time wraps after this many microseconds.
const CIRCLE_MICROS: i64 = 64_000_000;

/// Send times are counted from here, so that ones before the first are representable.
const EPOCH_MICROS: i64 = CIRCLE_MICROS;

/// A queue below this is the pacing of frames, and no congestion.
const SHORT_QUEUE_MICROS: i64 = 20_000;

/// Estimates what the path from one publisher carries.
///
/// Contract: [`on_packet`](Self::on_packet) for each packet with a send time; at
/// [`poll_timeout`](Self::poll_timeout) call [`poll`](Self::poll).
#[derive(Debug)]
pub struct ReceiveEstimator {
    config: EstimatorConfig,
    clock: SendClock,
    delay: DelayDetector,
    queue: QueueDelay,
    busy: BusyRate,
    acked: AckedBitrate,
    aimd: Aimd,
    last_packet: Time,
    told: Option<(u64, Time)>,
    due: Time,
}

impl Default for ReceiveEstimator {
    fn default() -> Self {
        let config = EstimatorConfig::default();
        ReceiveEstimator {
            config,
            clock: SendClock::default(),
            delay: DelayDetector::new(),
            queue: QueueDelay::default(),
            busy: BusyRate::default(),
            acked: AckedBitrate::default(),
            aimd: Aimd::new(config.start),
            last_packet: Time::ZERO,
            told: None,
            due: Time::NEVER,
        }
    }
}

impl ReceiveEstimator {
    /// A packet of `bytes` on the wire that left at `sent` reached the relay at `arrival`.
    pub fn on_packet(&mut self, arrival: Time, sent: AbsSendTime, bytes: u16) {
        let sent = self.clock.unwrap(sent);
        let micros = i64::try_from(arrival.as_micros()).unwrap_or(i64::MAX);
        self.delay.on_packet(sent, micros);
        self.queue.on_packet(sent, micros);
        self.busy.on_packet(micros, self.queue.delay, bytes);
        self.acked.on_packet(micros, bytes, false);
        self.last_packet = arrival;
        if self.due == Time::NEVER {
            self.due = arrival + UPDATE_INTERVAL;
        }
    }

    /// When [`poll`](Self::poll) is due; [`Time::NEVER`] while nothing comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.due
    }

    /// Looks at the path, over which a round trip takes `rtt`; the bits per second to tell the
    /// publisher, if it is time to.
    pub fn poll(&mut self, now: Time, rtt: Duration) -> Option<u64> {
        if now < self.due {
            return None;
        }
        let silent = now.saturating_since(self.last_packet) >= UPDATE_INTERVAL;
        self.due = if silent {
            Time::NEVER
        } else {
            now + UPDATE_INTERVAL
        };
        let seen = Observation {
            usage: self.judge(),
            acked: self.acked.bitrate(),
            busy: self.busy.bitrate(),
            sustained: self.busy.standing(self.queue.delay),
            rtt,
            is_short: false,
            share: FAIR_SHARE,
            idle: false,
        };
        self.aimd.update(now, seen);
        self.aimd.clamp(self.config.min, self.config.max);
        // Nothing is known before the first window of throughput.
        seen.acked?;
        let rate = self.aimd.rate();
        if self.told.is_some_and(|(told, at)| {
            now - at < REMB_INTERVAL && rate as f64 >= told as f64 * FALLEN
        }) {
            return None;
        }
        self.told = Some((rate, now));
        Some(rate)
    }

    fn judge(&mut self) -> Usage {
        if self.queue.has_jumped() {
            return Usage::Over;
        }
        match self.delay.usage() {
            Usage::Over | Usage::Under if self.queue.delay <= SHORT_QUEUE_MICROS => Usage::Normal,
            usage => usage,
        }
    }
}

/// A publisher's clock, put back on a line from the 64 s that send times tell of.
#[derive(Debug, Default)]
struct SendClock {
    newest: Option<i64>,
}

impl SendClock {
    fn unwrap(&mut self, sent: AbsSendTime) -> Time {
        let micros = (i64::from(sent.0) * 1_000_000) >> 18;
        let newest = self.newest.unwrap_or(EPOCH_MICROS + micros);
        let ahead = (micros - newest).rem_euclid(CIRCLE_MICROS);
        let step = if ahead < CIRCLE_MICROS / 2 {
            ahead
        } else {
            ahead - CIRCLE_MICROS
        };
        let at = newest + step;
        self.newest = Some(newest.max(at));
        Time::from_micros(u64::try_from(at).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u16 = 1_200;

    /// A publisher that sends `rate` bits per second, or what it is told to if that is less, over
    /// a bottleneck with a queue of up to 300 ms.
    struct Link {
        estimator: ReceiveEstimator,
        now: u64,
        free_at: u64,
        most: u64,
        limit: u64,
        told: Vec<(u64, u64)>,
        longest_queue: u64,
    }

    impl Link {
        fn new(most: u64) -> Self {
            Link {
                estimator: ReceiveEstimator::default(),
                now: 63_000_000,
                free_at: 0,
                most,
                limit: u64::MAX,
                told: Vec::new(),
                longest_queue: 0,
            }
        }

        fn run(&mut self, seconds: u64, capacity: u64) {
            let end = self.now + seconds * 1_000_000;
            let bits = u64::from(PACKET) * 8;
            self.longest_queue = 0;
            while self.now < end {
                self.now += bits * 1_000_000 / self.most.min(self.limit);
                let queue = self.free_at.saturating_sub(self.now);
                if queue < 300_000 {
                    self.longest_queue = self.longest_queue.max(queue);
                    self.free_at = self.free_at.max(self.now) + bits * 1_000_000 / capacity;
                    let sent = AbsSendTime::from_micros(self.now);
                    let arrival = Time::from_micros(self.free_at + 20_000);
                    self.estimator.on_packet(arrival, sent, PACKET);
                }
                let at = Time::from_micros(self.now);
                if self.estimator.poll_timeout() <= at
                    && let Some(rate) = self.estimator.poll(at, Duration::from_millis(50))
                {
                    self.limit = rate;
                    self.told.push((self.now, rate));
                }
            }
        }
    }

    #[test]
    fn a_path_that_carries_everything_is_not_limited() {
        let mut link = Link::new(1_500_000);
        link.run(60, 10_000_000);
        let (_, last) = *link.told.last().expect("told");
        assert!(last > 1_500_000, "{last}");
        let seconds = link.told.len() as u64;
        assert!(
            (55..=70).contains(&seconds),
            "about one a second: {seconds}"
        );
    }

    #[test]
    fn a_path_that_narrows_is_noticed_within_a_second_and_found_again() {
        let mut link = Link::new(2_000_000);
        link.run(40, 5_000_000);
        let before = link.now;
        link.run(3, 600_000);
        let lower = link
            .told
            .iter()
            .find(|(at, rate)| *at > before && *rate < 700_000);
        let (at, _) = *lower.expect("told of less");
        assert!(
            at - before < 1_000_000,
            "after {} ms",
            (at - before) / 1_000
        );
        link.run(30, 600_000);
        let (_, rate) = *link.told.last().expect("told");
        assert!((350_000..=750_000).contains(&rate), "{rate}");
        link.run(60, 5_000_000);
        let (_, rate) = *link.told.last().expect("told");
        assert!(rate > 1_500_000, "{rate}");
    }

    #[test]
    fn nothing_is_told_of_silence() {
        let mut estimator = ReceiveEstimator::default();
        assert_eq!(estimator.poll_timeout(), Time::NEVER);
        let mut now = Time::from_millis(1_000);
        for n in 0..100u64 {
            now = Time::from_millis(1_000 + 20 * n);
            estimator.on_packet(now, AbsSendTime::from_micros(now.as_micros()), 200);
            estimator.poll(now, Duration::from_millis(50));
        }
        let due = estimator.poll_timeout();
        estimator.poll(due, Duration::from_millis(50));
        let due = estimator.poll_timeout();
        if due != Time::NEVER {
            estimator.poll(due, Duration::from_millis(50));
        }
        assert_eq!(estimator.poll_timeout(), Time::NEVER);
        assert!(now < due);
    }

    #[test]
    fn send_times_go_on_where_they_wrap() {
        let mut clock = SendClock::default();
        let first = clock.unwrap(AbsSendTime::from_micros(63_990_000));
        let second = clock.unwrap(AbsSendTime::from_micros(64_010_000));
        let reordered = clock.unwrap(AbsSendTime::from_micros(63_995_000));
        assert!((second - first).as_micros().abs_diff(20_000) < 8);
        assert!((reordered - first).as_micros().abs_diff(5_000) < 8);
    }
}
