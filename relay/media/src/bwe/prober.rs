//! When to probe, and at which rate.

use super::aimd::Aimd;
use super::probe::{ProbeCluster, ProbeId};
use sealcast_model::Time;
use std::time::Duration;

/// First probes, as multiples of the start rate; each is sent only if there is demand for it.
const INITIAL_PROBES: [u64; 2] = [3, 6];
/// Later probes ask for this much of the estimate, over ...
const PROBE_FACTOR: f64 = 2.0;
/// ... and no more than this much of the demand: knowing more would serve nobody.
pub(super) const DEMAND_FACTOR: f64 = 1.2;
/// A probe that showed this share of its rate is worth a further one at once.
pub(super) const PROBE_SUCCESS: f64 = 0.7;
/// Pause between probes while they find something. After those that do not it is doubled, up to
/// this with nothing of what is wanted ...
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// ... and so much longer with all of it: the less is missing, the less a probe can find, and whoever
/// shares the path and has less of it gets to ask more often.
const PROBE_PAUSE_SATISFIED: Duration = Duration::from_secs(6);
/// No probe this soon after the rate had to be lowered: the queue has to drain first.
const PROBE_AFTER_DECREASE: Duration = Duration::from_millis(1_500);
/// A probe must show this much more than the estimate to count as a find.
pub(super) const PROBE_GAIN: f64 = 1.05;
/// A probe that filled the path raises the estimate by this part of the difference. It pushed
/// others aside for its short time; taking all that it showed would keep it from them. The part
/// is small where probes have misled before.
const FULL_PROBE_PART: u64 = 2;
const FULL_PROBE_PART_MISLED: u64 = 8;
/// A find that leads to overuse within this was none.
const FIND_ON_TRIAL: Duration = Duration::from_secs(2);

/// Decides when to probe.
#[derive(Debug)]
pub(super) struct Prober {
    /// Rates of the first probes that are left.
    initial: [Option<u64>; INITIAL_PROBES.len()],
    next_id: u16,
    next_at: Time,
    pause: Duration,
    /// When a probe last raised the estimate.
    last_find: Option<Time>,
    /// What the estimate was of all that would be asked for when the last probe was sent, 0..=1.
    share: f64,
}

impl Prober {
    pub(super) fn new(start: u64) -> Self {
        Prober {
            initial: INITIAL_PROBES.map(|factor| Some(start * factor)),
            next_id: 0,
            next_at: Time::ZERO,
            pause: PROBE_PAUSE,
            last_find: None,
            share: 0.0,
        }
    }

    /// When the next probe is due; [`Time::NEVER`] without demand for more than there is.
    pub(super) fn due(&self, demand: u64, estimate: u64, aimd: &Aimd) -> Time {
        if demand <= estimate {
            return Time::NEVER;
        }
        let drained = aimd
            .last_decrease()
            .map_or(Time::ZERO, |at| at + PROBE_AFTER_DECREASE);
        self.next_at.max(drained)
    }

    pub(super) fn start(
        &mut self,
        now: Time,
        estimate: u64,
        most: u64,
        wait: Duration,
    ) -> Option<ProbeCluster> {
        self.share = (estimate as f64 / most.max(1) as f64).min(1.0);
        let planned = self.initial.iter_mut().find_map(Option::take);
        let rate = planned
            .unwrap_or((estimate as f64 * PROBE_FACTOR) as u64)
            .min(most);
        if rate as f64 <= estimate as f64 * PROBE_GAIN {
            self.next_at = now + self.pause;
            return None;
        }
        // The first probes follow each other at once; later ones await the result.
        let more = self.initial.iter().any(Option::is_some);
        self.next_at = if more {
            now
        } else {
            now + wait.max(self.pause)
        };
        let id = ProbeId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        Some(ProbeCluster::new(id, rate))
    }

    pub(super) fn on_result(&mut self, now: Time, found: bool, whole: bool) {
        if found {
            self.last_find = Some(now);
            if whole {
                self.pause = PROBE_PAUSE;
            }
            self.next_at = if whole {
                now
            } else {
                self.next_at.max(now + self.pause)
            };
        } else {
            self.back_off(now);
        }
    }

    /// The queue grows. If a probe raised the estimate just before, it had found what belonged to
    /// others, as it will again.
    pub(super) fn on_overuse(&mut self, now: Time) {
        match self.last_find.take() {
            Some(at) if now - at < FIND_ON_TRIAL => self.back_off(now),
            Some(_) => self.pause = PROBE_PAUSE,
            None => {}
        }
    }

    pub(super) fn part_of_full(&self) -> u64 {
        if self.pause > PROBE_PAUSE {
            FULL_PROBE_PART_MISLED
        } else {
            FULL_PROBE_PART
        }
    }

    fn back_off(&mut self, now: Time) {
        let most = PROBE_PAUSE + PROBE_PAUSE_SATISFIED.mul_f64(self.share);
        self.pause = (self.pause * 2).min(most);
        self.next_at = self.next_at.max(now + self.pause);
    }
}
