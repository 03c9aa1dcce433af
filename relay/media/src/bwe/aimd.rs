//! The delay-based rate: additive increase near what the link is known to carry, multiplicative
//! increase while that is unknown, multiplicative decrease when its queue grows
//! (draft-ietf-rmcat-gcc-02, section 5.5).

use super::delay::Usage;
use sealcast_model::Time;
use std::time::Duration;

/// gcc-02, section 5.5: "beta is typically chosen to be in the interval [0.8, 0.95], 0.85 is the
/// RECOMMENDED value". Ours is higher because the queue is drained by sending less for a moment
/// (see `Estimator::sending_rate`) and not by believing in less capacity than there is.
const BETA: f64 = 0.9;
/// As `BETA`, while the queue is short, or was made by a burst that kept the bottleneck busy for long
/// enough to measure it, and not for longer: there is little to make room for.
const BETA_SHORT: f64 = 0.95;

/// Growth in a second while the link's capacity is unknown (gcc-02, section 5.5: "1.08").
const GROWTH: f64 = 0.08;

/// Least growth near the known capacity, bits per second in a second.
const LEAST_ADDITIVE: f64 = 4_000.0;

/// Time until an increase shows in feedback, beyond the round trip (gcc-02, section 5.5:
/// "response_time_ms = 100 + rtt_ms").
const REACTION: Duration = Duration::from_millis(100);

/// Packets that the additive increase adds for each response time. gcc-02, section 5.5 has half a
/// one, libwebrtc one; with our smaller decrease two keep the cycle short, so that flows on a
/// shared link even out.
const PACKETS_PER_RESPONSE: f64 = 2.0;

/// Frames a second and bits of a packet assumed for that.
const FRAME_RATE: f64 = 30.0;
const PACKET_BITS: f64 = 1_200.0 * 8.0;

/// While no more than this was acknowledged, nothing proves that the path would carry more: the
/// rate stays under `ACKED_FACTOR` times the acknowledged throughput (gcc-02, section 5.5).
const ACKED_FACTOR: f64 = 1.5;
const ACKED_SLACK: f64 = 10_000.0;

/// Throughput below this share of the rate is a collapse: the path has changed.
const COLLAPSE: f64 = 0.5;

/// Bounds of the pause between two decreases: the first one needs a round trip to show.
const DECREASE_PAUSE_MIN: Duration = Duration::from_millis(10);
const DECREASE_PAUSE_MAX: Duration = Duration::from_millis(200);

/// What was learned of the capacity from a decrease holds at least this long. Without that, the
/// flow that has more of a shared link would forget sooner, grow faster and have still more.
const CAPACITY_MEMORY: Duration = Duration::from_secs(10);

/// Within that time the rate grows no further than to that capacity, or to so many times what is
/// acknowledged: a sender of layers that do not fill the path shows nothing by sending them, and
/// would go on into overuse.
const GROWTH_OVER_ACKED: f64 = 1.05;

/// Of several senders behind one bottleneck the one that has least of what it wants is to gain: below
/// this share of it the rate grows beyond those bounds by as much as is missing ...
pub(super) const FAIR_SHARE: f64 = 0.5;
/// ... and faster, by the ratio to the power of 3/2, within these bounds. Above, it grows slower. The
/// decrease is in proportion to the rate, so that both together even rates out, as they must where
/// layers come in steps and the one that happens to take a step keeps it.
const FAIR_GROWTH_MIN: f64 = 0.5;
const FAIR_GROWTH_MAX: f64 = 3.0;

/// Weight of a new observation of the link's capacity.
const CAPACITY_WEIGHT: f64 = 0.05;

/// The delay-based rate of one path, bits per second.
#[derive(Debug)]
pub(super) struct Aimd {
    rate: f64,
    state: State,
    last_update: Option<Time>,
    last_decrease: Option<Time>,
    capacity: Capacity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
}

/// What is known of the path when the rate is updated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) usage: Usage,
    /// Acknowledged bits per second, smoothed.
    pub(super) acked: Option<u64>,
    /// Bits per second that left the bottleneck while it was busy, if that was seen lately.
    pub(super) busy: Option<u64>,
    /// As `busy`, if it has been so for long.
    pub(super) sustained: Option<u64>,
    pub(super) rtt: Duration,
    /// The queue is no longer than a few bursts make it.
    pub(super) is_short: bool,
    /// What the rate is of all that could be put to use, 0..=1.
    pub(super) share: f64,
    /// The sender sends less than it may.
    pub(super) idle: bool,
}

impl Aimd {
    pub(super) fn new(rate: u64) -> Self {
        Aimd {
            rate: rate as f64,
            state: State::Increase,
            last_update: None,
            last_decrease: None,
            capacity: Capacity::default(),
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate as u64
    }

    /// When the rate was last decreased.
    pub(super) fn last_decrease(&self) -> Option<Time> {
        self.last_decrease
    }

    /// A measurement that does not depend on steps, as of a probe.
    pub(super) fn set(&mut self, rate: u64) {
        self.rate = rate as f64;
        self.capacity = Capacity::default();
    }

    pub(super) fn clamp(&mut self, min: u64, max: u64) {
        self.rate = self.rate.clamp(min as f64, max as f64);
    }

    pub(super) fn update(&mut self, now: Time, seen: Observation) {
        let elapsed = self
            .last_update
            .map_or(Duration::ZERO, |last| now - last)
            .min(Duration::from_secs(1));
        self.last_update = Some(now);
        match seen.usage {
            Usage::Over => self.decrease(now, seen),
            // gcc-02, section 5.5: in underuse the queue drains; the rate is held until it has.
            Usage::Under => self.state = State::Hold,
            Usage::Normal if self.state == State::Hold => self.state = State::Increase,
            Usage::Normal => self.increase(now, elapsed, seen),
        }
    }

    fn decrease(&mut self, now: Time, seen: Observation) {
        self.state = State::Hold;
        let pause = seen.rtt.clamp(DECREASE_PAUSE_MIN, DECREASE_PAUSE_MAX);
        // What arrives is what the path carries only while the bottleneck is busy: a sender whose
        // layers do not fill the path would otherwise be cut down to what it happens to send. A
        // short dip may be a rival's burst, and giving way to it would let him keep what he took.
        let carried = seen.sustained.or(seen.busy.max(seen.acked));
        let carried = carried.map(|carried| carried as f64);
        let far_off = carried.is_some_and(|carried| carried < self.rate * COLLAPSE);
        if self.last_decrease.is_some_and(|last| now - last < pause) && !far_off {
            return;
        }
        let beta = match (seen.busy, seen.sustained) {
            (Some(_), None) => BETA_SHORT,
            _ if seen.is_short => BETA_SHORT,
            _ => BETA,
        };
        let mut lower = beta * carried.unwrap_or(self.rate);
        if lower > self.rate
            && let Some(capacity) = self.capacity.mean
        {
            lower = beta * capacity;
        }
        if let Some(carried) = carried {
            self.capacity.observe(carried);
        }
        self.rate = self.rate.min(lower);
        self.last_decrease = Some(now);
    }

    fn increase(&mut self, now: Time, elapsed: Duration, seen: Observation) {
        let Some(acked) = seen.acked.map(|acked| acked as f64) else {
            return;
        };
        let quiet = self
            .last_decrease
            .is_none_or(|last| now - last > CAPACITY_MEMORY);
        if quiet && self.capacity.is_exceeded_by(acked) {
            self.capacity = Capacity::default();
        }
        let mut limit = ACKED_FACTOR * acked + ACKED_SLACK;
        if let Some(capacity) = self.capacity.mean.filter(|_| !quiet) {
            let lack = (FAIR_SHARE - seen.share).max(0.0);
            let known = (1.0 + lack) * capacity;
            limit = limit.min(known.max((GROWTH_OVER_ACKED + lack) * acked));
        }
        if self.rate >= limit || (seen.idle && self.rate >= acked) {
            return;
        }
        let step = match self.capacity.mean {
            Some(_) => {
                let packets = PACKETS_PER_RESPONSE * fair_growth(seen.share);
                packets * self.additive_step(seen.rtt) * elapsed.as_secs_f64()
            }
            None => {
                (self.rate * GROWTH * elapsed.as_secs_f64()).max(1_000.0 * elapsed.as_secs_f64())
            }
        };
        self.rate = (self.rate + step).min(limit);
    }

    /// Bits per second to add in a second for one packet each response time.
    fn additive_step(&self, rtt: Duration) -> f64 {
        let frame_bits = self.rate / FRAME_RATE;
        let packets = (frame_bits / PACKET_BITS).ceil().max(1.0);
        let response = (rtt + REACTION).as_secs_f64();
        (frame_bits / packets / response).max(LEAST_ADDITIVE)
    }
}

/// How fast to grow with this share of what is wanted, as a multiple of the usual.
fn fair_growth(share: f64) -> f64 {
    let lack = FAIR_SHARE / share.max(f64::EPSILON);
    (lack * lack.sqrt()).clamp(FAIR_GROWTH_MIN, FAIR_GROWTH_MAX)
}

/// The throughput at which the queue was last seen to grow, with its spread.
#[derive(Clone, Copy, Debug, Default)]
struct Capacity {
    mean: Option<f64>,
    /// Variance divided by the mean, kbit/s.
    spread: f64,
}

impl Capacity {
    fn observe(&mut self, acked: f64) {
        let Some(mean) = self.mean else {
            (self.mean, self.spread) = (Some(acked), 0.4);
            return;
        };
        if self.is_exceeded_by(acked) || self.is_missed_by(acked) {
            (self.mean, self.spread) = (Some(acked), 0.4);
            return;
        }
        let updated = mean + CAPACITY_WEIGHT * (acked - mean);
        let error = (updated - acked) / 1_000.0;
        let spread = self.spread
            + CAPACITY_WEIGHT * (error * error / (updated / 1_000.0).max(1.0) - self.spread);
        (self.mean, self.spread) = (Some(updated), spread.clamp(0.4, 2.5));
    }

    /// Three standard deviations.
    fn margin(&self, mean: f64) -> f64 {
        3.0 * (self.spread * mean / 1_000.0).sqrt() * 1_000.0
    }

    fn is_exceeded_by(&self, acked: f64) -> bool {
        self.mean
            .is_some_and(|mean| acked > mean + self.margin(mean))
    }

    fn is_missed_by(&self, acked: f64) -> bool {
        self.mean
            .is_some_and(|mean| acked < mean - self.margin(mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(usage: Usage, acked: u64) -> Observation {
        Observation {
            usage,
            acked: Some(acked),
            busy: None,
            sustained: None,
            rtt: Duration::from_millis(50),
            is_short: false,
            share: FAIR_SHARE,
            idle: false,
        }
    }

    #[test]
    fn decrease_is_to_90_percent_of_what_arrives_and_once_a_round_trip() {
        let mut aimd = Aimd::new(3_000_000);
        aimd.update(
            Time::from_millis(1_000),
            observation(Usage::Over, 2_000_000),
        );
        assert_eq!(aimd.rate(), 1_800_000);
        aimd.update(
            Time::from_millis(1_030),
            observation(Usage::Over, 1_900_000),
        );
        assert_eq!(aimd.rate(), 1_800_000);
        aimd.update(
            Time::from_millis(1_060),
            observation(Usage::Over, 1_900_000),
        );
        assert_eq!(aimd.rate(), 1_710_000);
        // A collapse does not wait.
        aimd.update(Time::from_millis(1_070), observation(Usage::Over, 500_000));
        assert_eq!(aimd.rate(), 450_000);
    }

    #[test]
    fn a_decrease_is_to_what_the_path_carries_and_not_to_what_was_sent() {
        let mut aimd = Aimd::new(3_000_000);
        let burst = Observation {
            busy: Some(2_800_000),
            ..observation(Usage::Over, 700_000)
        };
        aimd.update(Time::from_millis(1_000), burst);
        assert_eq!(aimd.rate(), 2_660_000);
        // A rival's burst: for a moment little of the path is left.
        let rival = Observation {
            busy: Some(300_000),
            ..observation(Usage::Over, 2_600_000)
        };
        aimd.update(Time::from_millis(2_000), rival);
        assert_eq!(aimd.rate(), 2_470_000);
        // Little of it is left for long.
        let narrow = Observation {
            sustained: Some(500_000),
            ..rival
        };
        aimd.update(Time::from_millis(2_010), narrow);
        assert_eq!(aimd.rate(), 450_000);
    }

    #[test]
    fn little_is_given_up_for_a_short_queue() {
        let mut aimd = Aimd::new(3_400_000);
        let short = Observation {
            sustained: Some(3_000_000),
            is_short: true,
            ..observation(Usage::Over, 2_900_000)
        };
        aimd.update(Time::from_millis(1_000), short);
        assert_eq!(aimd.rate(), 2_850_000);
    }

    /// The rate a good while after a path of 1.1 Mbit/s was full, of which `acked` is used; and how
    /// much of that growth came in the first second.
    fn growth(share: f64, acked: u64) -> (u64, u64) {
        let mut aimd = Aimd::new(1_100_000);
        aimd.update(
            Time::from_millis(1_000),
            observation(Usage::Over, 1_100_000),
        );
        let before = aimd.rate();
        let mut after_a_second = 0;
        for i in 0..180 {
            let seen = Observation {
                share,
                ..observation(Usage::Normal, acked)
            };
            aimd.update(Time::from_millis(1_050 + i * 50), seen);
            if i == 20 {
                after_a_second = aimd.rate() - before;
            }
        }
        (aimd.rate(), after_a_second)
    }

    #[test]
    fn a_full_path_is_not_outgrown_by_layers_that_do_not_fill_it() {
        assert_eq!(growth(0.6, 900_000).0, 1_100_000);
        // What is acknowledged shows more.
        assert_eq!(growth(0.6, 1_100_000).0, 1_155_000);
    }

    #[test]
    fn who_lacks_most_grows_fastest_and_furthest() {
        let (rich, poor) = (growth(0.45, 1_000_000), growth(0.2, 1_000_000));
        assert!(poor.1 > 2 * rich.1, "{rich:?} {poor:?}");
        assert_eq!((rich.0, poor.0), (1_155_000, 1_430_000));
        assert_eq!(fair_growth(0.5), 1.0);
        assert_eq!(fair_growth(1.0), FAIR_GROWTH_MIN);
        assert_eq!(fair_growth(0.0), FAIR_GROWTH_MAX);
    }

    #[test]
    fn growth_is_bounded_by_what_is_acknowledged() {
        let mut aimd = Aimd::new(1_000_000);
        for i in 0..2_000 {
            aimd.update(
                Time::from_millis(i * 50),
                observation(Usage::Normal, 800_000),
            );
        }
        assert_eq!(aimd.rate(), 1_210_000);
    }

    #[test]
    fn growth_is_eight_percent_a_second_then_two_packets_a_response_time() {
        let mut aimd = Aimd::new(1_000_000);
        for i in 0..=20 {
            aimd.update(
                Time::from_millis(i * 50),
                observation(Usage::Normal, aimd.rate()),
            );
        }
        assert!(
            (1_075_000..1_090_000).contains(&aimd.rate()),
            "{}",
            aimd.rate()
        );
        aimd.update(
            Time::from_millis(1_100),
            observation(Usage::Over, 1_000_000),
        );
        let before = aimd.rate();
        for i in 0..=20 {
            aimd.update(
                Time::from_millis(1_150 + i * 50),
                observation(Usage::Normal, 850_000),
            );
        }
        let step = aimd.rate() - before;
        assert!((80_000..140_000).contains(&step), "{step}");
    }
}
