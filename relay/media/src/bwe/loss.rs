//! The loss-based bound: is loss caused by our rate?
//!
//! gcc-02, section 6 lowers the rate whenever more than 10 % of packets are lost, which starves a
//! path that loses packets at any rate (radio, a bad cable). Here a cut is an experiment. If loss
//! falls as it must when the cut was of a rate above capacity, more cuts follow. If it stays, it is
//! inherent to the path: the bound is lifted, and only loss beyond the inherent is held against
//! the rate.

use sealcast_model::Time;
use std::time::Duration;

/// gcc-02, section 6: more than 10 % lost lowers the rate, less than 2 % lets it grow.
const HIGH: f64 = 0.10;
const LOW: f64 = 0.02;

/// An observation is closed when it has both this age and this many packets: a share of 10 % is
/// then known to within about 3 %.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOW_PACKETS: u64 = 100;
/// ... or at this age with a fifth of the packets.
const WINDOW_MAX: Duration = Duration::from_secs(3);

/// An experiment is read early if its outcome is this many standard deviations clear of the
/// middle between the two answers.
const CLEAR: f64 = 2.0;

/// Loss is believed to be inherent for this long, then tried again: paths change, and one
/// experiment in thirty is misread.
const BELIEF: Duration = Duration::from_secs(20);

/// Growth of the bound in a second while loss is low.
const GROWTH: f64 = 0.10;

/// A bound this far over the rate no longer binds, and is forgotten.
const RELEASE: f64 = 1.5;

/// Weight of a new observation when the inherent loss is believed to have fallen.
const INHERENT_DECAY: f64 = 0.3;

/// Counts packets and keeps the bound.
#[derive(Debug, Default)]
pub(super) struct LossBound {
    bound: Option<f64>,
    window_start: Option<Time>,
    packets: u64,
    lost: u64,
    /// Loss share of the last closed observation.
    loss: f64,
    inherent: f64,
    believed_until: Time,
    experiment: Option<Experiment>,
    /// Packets sent before this do not count.
    counts_from: Time,
}

/// A cut whose effect is awaited.
#[derive(Clone, Copy, Debug)]
struct Experiment {
    loss_before: f64,
    /// Packets sent before this were sent at the old rate.
    settled_at: Time,
}

impl LossBound {
    /// Bits per second that loss allows; `None` if it does not bind.
    pub(super) fn bound(&self) -> Option<u64> {
        self.bound.map(|bound| bound as u64)
    }

    /// Share of packets lost in the last observation, 0..=1.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// Feedback told of a packet sent at `sent`.
    pub(super) fn on_packet(&mut self, sent: Time, lost: bool) {
        if sent < self.counts_from || self.experiment.is_some_and(|e| sent < e.settled_at) {
            return;
        }
        self.packets += 1;
        self.lost += u64::from(lost);
    }

    /// The path has carried `rate` without loss to speak of.
    pub(super) fn lift_to(&mut self, rate: u64) {
        self.bound = self.bound.map(|bound| bound.max(rate as f64));
    }

    /// The path was broken until `now`, or was another one: what was lost then tells nothing of the
    /// rate.
    pub(super) fn start_over(&mut self, now: Time) {
        self.counts_from = now;
        self.experiment = None;
        (self.window_start, self.packets, self.lost) = (None, 0, 0);
    }

    /// Closes the observation if it is ripe. `rate` is the rate packets were sent at.
    pub(super) fn update(&mut self, now: Time, rate: u64, rtt: Duration) {
        let start = *self.window_start.get_or_insert(now);
        let age = now - start;
        let ripe = age >= WINDOW && self.packets >= WINDOW_PACKETS;
        let old = age >= WINDOW_MAX && self.packets >= WINDOW_PACKETS / 5;
        if !ripe && !old {
            return;
        }
        let loss = self.lost as f64 / self.packets as f64;
        if let Some(experiment) = self.experiment
            && !old
            && !experiment.is_clear(loss, self.packets)
        {
            return;
        }
        self.loss = loss;
        (self.window_start, self.packets, self.lost) = (Some(now), 0, 0);
        self.judge(now, rate as f64, rtt, age);
    }

    fn judge(&mut self, now: Time, rate: f64, rtt: Duration, age: Duration) {
        if let Some(experiment) = self.experiment.take()
            && !experiment.loss_fell_to(self.loss)
        {
            self.inherent = self.inherent.max(self.loss);
            self.believed_until = now + BELIEF;
            self.bound = None;
            return;
        }
        if now >= self.believed_until {
            self.inherent = 0.0;
        } else if self.loss < self.inherent {
            self.inherent += INHERENT_DECAY * (self.loss - self.inherent);
        }
        let excess = self.loss - self.inherent;
        if excess > HIGH {
            // gcc-02, section 6: "As_hat(i) = As_hat(i-1)(1-0.5p)".
            let current = self.bound.unwrap_or(rate).min(rate);
            self.bound = Some(current * (1.0 - 0.5 * excess));
            self.experiment = Some(Experiment {
                loss_before: self.loss,
                settled_at: now + rtt,
            });
        } else if excess < LOW
            && let Some(bound) = &mut self.bound
        {
            *bound *= 1.0 + GROWTH * age.as_secs_f64();
            if *bound > rate * RELEASE {
                self.bound = None;
            }
        }
    }
}

impl Experiment {
    /// Half way between the loss of a path above capacity and inherent loss. If loss `p` came
    /// from sending above capacity, a rate of `1 - p/2` times the old one loses
    /// `(p/2) / (1 - p/2)`; inherent loss stays `p`.
    fn middle(&self) -> f64 {
        let half = self.loss_before / 2.0;
        f64::midpoint(half / (1.0 - half), self.loss_before)
    }

    fn loss_fell_to(&self, loss: f64) -> bool {
        loss < self.middle()
    }

    fn is_clear(&self, loss: f64, packets: u64) -> bool {
        let deviation = (loss * (1.0 - loss) / packets as f64).sqrt();
        (loss - self.middle()).abs() > CLEAR * deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_netsim::Rng;

    const RTT: Duration = Duration::from_millis(50);

    /// Sends 100 packets a second for `seconds`, each lost with a probability that may depend on
    /// the bound, and returns the bounds after each second.
    fn run(rate: u64, seconds: u64, loss: impl Fn(f64) -> f64) -> Vec<Option<u64>> {
        let mut bound = LossBound::default();
        let mut rng = Rng::new(7);
        let mut bounds = Vec::new();
        for second in 0..seconds {
            for i in 0..100 {
                let now = Time::from_millis(second * 1_000 + i * 10);
                let sent_rate = bound.bound().unwrap_or(rate).min(rate);
                bound.on_packet(now, rng.chance(loss(sent_rate as f64)));
                bound.update(now, sent_rate, RTT);
            }
            bounds.push(bound.bound());
        }
        bounds
    }

    #[test]
    fn no_loss_no_bound() {
        assert!(run(1_000_000, 20, |_| 0.0).iter().all(Option::is_none));
        assert!(run(1_000_000, 60, |_| 0.03).iter().all(Option::is_none));
    }

    #[test]
    fn a_policer_is_approached() {
        let capacity = 600_000.0;
        let bounds = run(1_000_000, 40, |rate| (1.0 - capacity / rate).max(0.0));
        let last = bounds.last().copied().flatten().expect("bound");
        assert!((500_000..760_000).contains(&last), "{bounds:?}");
    }

    #[test]
    fn random_loss_does_not_starve() {
        for share in [0.12, 0.2, 0.3] {
            let bounds = run(1_000_000, 120, |_| share);
            let mean = bounds
                .iter()
                .map(|b| b.unwrap_or(1_000_000).min(1_000_000))
                .sum::<u64>()
                / 120;
            assert!(mean > 800_000, "{share}: mean {mean} of {bounds:?}");
        }
    }
}
