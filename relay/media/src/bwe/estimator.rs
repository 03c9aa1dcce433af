//! The send-side estimator of one subscriber's path.

use super::acked::AckedBitrate;
use super::aimd::{Aimd, FAIR_SHARE, Observation};
use super::delay::{DelayDetector, Usage};
use super::loss::LossBound;
use super::losses::{Losses, LostPacket};
use super::path::{BusyRate, QueueDelay, SentRate};
use super::probe::{ProbeCluster, ProbeResults};
use super::prober::{DEMAND_FACTOR, PROBE_GAIN, PROBE_SUCCESS, Prober};
use super::remb::RembBound;
use super::send_log::{PacketResult, SendLog, SentPacket};
use crate::limits::ESTIMATE_MAX;
use sealcast_model::Time;
use sealcast_rtp::rtcp::{CongestionFeedback, TransportFeedback};
use std::mem::offset_of;
use std::time::Duration;

/// Round trip assumed before feedback tells.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Weight of a new round trip.
const RTT_WEIGHT: u32 = 8;

/// Feedback missing for this long and two round trips, with packets in flight, is a broken path.
const FEEDBACK_PATIENCE: Duration = Duration::from_millis(500);
/// What is left of the rate each time that patience ends.
const SILENCE_FACTOR: f64 = 0.7;

/// Results of a cluster are awaited for this long beyond the round trip.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// A queue this short is the pacing of frames, not congestion.
const SHORT_QUEUE_MICROS: i64 = 20_000;
/// So is one of this length while the bottleneck has not been busy for long: a key frame, which
/// every change of encoding brings, passes and leaves the queue as it was.
const BURST_QUEUE_MICROS: i64 = 50_000;

/// Up to this length a queue is one that a few bursts make: giving up a little is enough.
const LASTING_QUEUE_MICROS: i64 = 100_000;

/// After an overuse, for this long, sending makes room for the queue to drain as far as it is longer
/// than this: what is less drains by what the overuse took from the estimate ...
const DRAIN_TIME: Duration = Duration::from_secs(3);
const DRAIN_FROM_MICROS: i64 = 60_000;
/// ... within that time, and not below that share.
const DRAIN_OVER_MICROS: f64 = 400_000.0;
const DRAIN_LEAST: f64 = 0.1;

/// Where more packets than this are lost, the rate does not grow faster for what is missing: a queue
/// that is too short for delay to tell of it overflows.
const HASTY_LOSS: f64 = 0.02;

/// Bounds of an [`Estimator`], bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EstimatorConfig {
    /// Never below this.
    pub min: u64,
    /// Where to start.
    pub start: u64,
    /// Never above this.
    pub max: u64,
}

impl Default for EstimatorConfig {
    /// 30 kbit/s carries one Opus stream; 600 kbit/s one small picture.
    fn default() -> Self {
        EstimatorConfig {
            min: 30_000,
            start: 600_000,
            max: ESTIMATE_MAX,
        }
    }
}

/// What an estimate is made of, for who wants to see how it came about. Rates are in bits per
/// second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EstimateParts {
    /// What delay allows.
    pub delay_based: u64,
    /// What loss allows; `None` if it does not bind.
    pub loss_bound: Option<u64>,
    /// What the receiver has confirmed lately.
    pub acknowledged: Option<u64>,
    /// What could be put to use.
    pub demand: u64,
    /// How long the path's queue is believed to be.
    pub queue: Duration,
    /// What delay says of the path.
    pub usage: Usage,
}

/// Estimates what the path to one subscriber carries.
///
/// Contract: [`on_sent`](Self::on_sent) for every packet that leaves, its number goes into the
/// transport-wide extension; the `on_*_feedback` of what the subscriber negotiated;
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout). After each,
/// [`poll_probe`](Self::poll_probe) may give a cluster for the pacer.
#[derive(Debug)]
#[repr(C)]
pub struct Estimator {
    log: SendLog,
    sent: SentRate,
    /// When missing feedback next lowers the rate.
    silence_at: Time,
    config: EstimatorConfig,
    delay: DelayDetector,
    acked: AckedBitrate,
    aimd: Aimd,
    loss: LossBound,
    losses: Losses,
    probes: ProbeResults,
    prober: Prober,
    queue: QueueDelay,
    busy: BusyRate,
    demand: u64,
    remb: RembBound,
    rtt: Option<Duration>,
    last_feedback: Option<Time>,
    last_overuse: Option<Time>,
}

impl Estimator {
    /// An estimator that knows nothing of its path.
    #[must_use]
    pub fn new(config: EstimatorConfig) -> Self {
        Estimator {
            log: SendLog::new(),
            sent: SentRate::default(),
            silence_at: Time::NEVER,
            config,
            delay: DelayDetector::new(),
            acked: AckedBitrate::default(),
            aimd: Aimd::new(config.start),
            loss: LossBound::default(),
            losses: Losses::default(),
            probes: ProbeResults::default(),
            prober: Prober::new(config.start),
            queue: QueueDelay::default(),
            busy: BusyRate::default(),
            demand: 0,
            remb: RembBound::default(),
            rtt: None,
            last_feedback: None,
            last_overuse: None,
        }
    }

    /// What the path is believed to carry, bits per second.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        let rate = if self.is_remb_only() {
            self.remb.bound().unwrap_or(u64::MAX)
        } else {
            self.aimd.rate().min(self.loss.bound().unwrap_or(u64::MAX))
        };
        rate.clamp(self.config.min, self.config.max)
    }

    /// What to send now, bits per second: the estimate, less while a queue has to drain.
    #[must_use]
    pub fn sending_rate(&self, now: Time) -> u64 {
        let excess = self.queue.delay - DRAIN_FROM_MICROS;
        if !self.is_draining(now) || excess <= 0 {
            return self.estimate();
        }
        let share = (1.0 - excess as f64 / DRAIN_OVER_MICROS).max(DRAIN_LEAST);
        ((self.estimate() as f64 * share) as u64).max(self.config.min)
    }

    /// Whether all that is known of the path is what its receiver estimates.
    #[must_use]
    pub fn is_remb_only(&self) -> bool {
        self.last_feedback.is_none() && self.remb.is_heard()
    }

    /// Smoothed round trip; `None` before feedback told.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of packets lost lately, 0..=1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss.loss()
    }

    /// What delay says of the path.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.delay.usage()
    }

    /// How long the path's queue is believed to be.
    #[must_use]
    pub fn queue_delay(&self) -> Duration {
        Duration::from_micros(self.queue.delay.max(0) as u64)
    }

    /// What the estimate is made of.
    #[must_use]
    pub fn parts(&self) -> EstimateParts {
        EstimateParts {
            delay_based: self.aimd.rate(),
            loss_bound: self.loss.bound(),
            acknowledged: self.acked.bitrate(),
            demand: self.demand,
            queue: self.queue_delay(),
            usage: self.usage(),
        }
    }

    /// How many bits per second could be put to use. Probes ask for no more.
    pub fn set_demand(&mut self, demand: u64) {
        self.demand = demand;
    }

    /// The transport-wide sequence number that the next packet will have.
    #[inline]
    #[must_use]
    pub fn next_sequence(&self) -> u16 {
        self.log.next_sequence()
    }

    /// Bytes from its beginning that [`on_sent`](Self::on_sent) reads and writes.
    pub(crate) const HOT_BYTES: usize = offset_of!(Estimator, config);

    /// Where the next packet will be logged. Reads of what
    /// [`HOT_BYTES`](Self::HOT_BYTES) spans.
    #[inline]
    pub(crate) fn hot_log(&self) -> *const u8 {
        self.log.hot()
    }

    /// A packet leaves; its transport-wide sequence number.
    #[inline]
    pub fn on_sent(&mut self, packet: SentPacket) -> u16 {
        self.sent.add(packet.sent, packet.bytes);
        if self.silence_at == Time::NEVER {
            self.silence_at = packet.sent + self.patience();
        }
        self.log.on_sent(packet)
    }

    /// Transport-wide feedback arrived.
    pub fn on_transport_feedback(&mut self, now: Time, feedback: &TransportFeedback<'_>) {
        self.on_feedback(now, |log, on_result| {
            log.on_transport_feedback(feedback, on_result);
        });
    }

    /// Congestion control feedback of RFC 8888 arrived.
    pub fn on_congestion_feedback(&mut self, now: Time, feedback: &CongestionFeedback<'_>) {
        self.on_feedback(now, |log, on_result| {
            log.on_congestion_feedback(feedback, on_result);
        });
    }

    fn on_feedback(
        &mut self,
        now: Time,
        resolve: impl FnOnce(&mut SendLog, &mut dyn FnMut(PacketResult)),
    ) {
        let mut digest = Digest::new(self.sent.is_idle(now, self.estimate()));
        let Estimator {
            log,
            delay,
            acked,
            loss,
            losses,
            probes,
            queue,
            busy,
            ..
        } = self;
        resolve(log, &mut |result| {
            loss.on_packet(result.sent, result.arrival.is_none());
            losses.on_packet(&result);
            let Some(arrival) = result.arrival else {
                return;
            };
            digest.last_sent = digest.last_sent.max(Some(result.sent));
            delay.on_packet(result.sent, arrival);
            queue.on_packet(result.sent, arrival);
            busy.on_packet(arrival, queue.delay, result.bytes);
            acked.on_packet(arrival, result.bytes, digest.idle);
            if let Some(id) = result.probe {
                digest.probe = probes.on_packet(id, &result).or(digest.probe);
            }
        });
        self.conclude(now, digest);
    }

    /// The next packet that feedback says is lost. Each is given once, whatever becomes of it.
    pub fn poll_lost(&mut self) -> Option<LostPacket> {
        self.losses.poll(&self.log)
    }

    /// A REMB arrived: the receiver's own estimate, in bits per second. It counts while no other
    /// feedback was ever seen.
    pub fn on_remb(&mut self, now: Time, bitrate: u64) {
        let sent = self.sent.bitrate(now);
        self.remb.on_remb(now, bitrate, sent);
    }

    /// A receiver report arrived, from a subscriber without other feedback.
    pub fn on_receiver_report(
        &mut self,
        now: Time,
        fraction_lost: u8,
        packets: u32,
        rtt: Option<Duration>,
    ) {
        if let Some(rtt) = rtt {
            self.note_rtt(rtt);
        }
        if self.last_feedback.is_some() {
            return;
        }
        let lost = packets * u32::from(fraction_lost) / 256;
        for i in 0..packets.min(1_000) {
            self.loss.on_packet(now, i < lost);
        }
        self.loss
            .update(now, self.estimate(), self.rtt.unwrap_or(INITIAL_RTT));
    }

    fn note_rtt(&mut self, sample: Duration) {
        self.rtt = Some(match self.rtt {
            None => sample,
            Some(rtt) => (rtt * (RTT_WEIGHT - 1) + sample) / RTT_WEIGHT,
        });
    }

    fn patience(&self) -> Duration {
        FEEDBACK_PATIENCE + 2 * self.rtt.unwrap_or(INITIAL_RTT)
    }

    fn conclude(&mut self, now: Time, digest: Digest) {
        self.last_feedback = Some(now);
        self.silence_at = if self.log.in_flight_bytes() > 0 {
            now + self.patience()
        } else {
            Time::NEVER
        };
        let Some(last_sent) = digest.last_sent else {
            return;
        };
        self.note_rtt(now - last_sent);
        let rtt = self.rtt.unwrap_or(INITIAL_RTT);
        let usage = self.judge();
        if usage == Usage::Over {
            self.last_overuse = Some(now);
            self.prober.on_overuse(now);
        }
        let before = self.estimate();
        let seen = Observation {
            usage,
            acked: self.acked.bitrate(),
            busy: self.busy.bitrate(),
            sustained: self.busy.standing(self.queue.delay),
            rtt,
            is_short: self.queue.delay < LASTING_QUEUE_MICROS,
            share: self.share(before),
            idle: digest.idle,
        };
        self.aimd.update(now, seen);
        if self.aimd.rate() < before / 2 {
            // What the old rate lost in a path that got narrow is not held against the new one.
            self.loss.start_over(now);
        }
        if let Some((shown, asked)) = digest.probe {
            self.on_probe_result(now, shown, asked, before);
        }
        self.aimd.clamp(self.config.min, self.config.max);
        self.loss.update(now, before, rtt);
    }

    /// What `rate` is of all that could be put to use, as far as that speaks for haste or patience:
    /// where packets are lost, nothing speaks for haste.
    fn share(&self, rate: u64) -> f64 {
        let share = (rate as f64 / self.demand.max(1) as f64).min(1.0);
        match self.loss.loss() > HASTY_LOSS {
            true => share.max(FAIR_SHARE),
            false => share,
        }
    }

    /// How long a queue may be without being congestion, microseconds.
    fn tolerated(&self) -> i64 {
        match self.busy.sustained() {
            Some(_) => SHORT_QUEUE_MICROS,
            None => BURST_QUEUE_MICROS,
        }
    }

    /// What delay says, with what is known of the queue's length.
    fn judge(&mut self) -> Usage {
        if self.queue.has_jumped() {
            return Usage::Over;
        }
        let short = self.queue.delay <= self.tolerated();
        match self.delay.usage() {
            // The queue was drained; the regression still sees the slope of that.
            Usage::Under if short => Usage::Normal,
            Usage::Over if short => Usage::Normal,
            usage => usage,
        }
    }

    fn is_draining(&self, now: Time) -> bool {
        self.last_overuse.is_some_and(|at| now - at < DRAIN_TIME)
    }

    fn on_probe_result(&mut self, now: Time, shown: u64, asked: u64, before: u64) {
        let whole =
            shown as f64 >= asked as f64 * PROBE_SUCCESS && self.queue.delay <= SHORT_QUEUE_MICROS;
        let found = shown as f64 > before as f64 * PROBE_GAIN;
        if found && self.delay.usage() != Usage::Over {
            let rate = if whole {
                shown
            } else {
                before + (shown - before) / self.prober.part_of_full()
            };
            self.aimd.set(rate);
            self.acked.reset_to(rate);
            self.loss.lift_to(rate);
        }
        self.prober.on_result(now, found, whole);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        if self.delay.usage() == Usage::Over || self.is_remb_only() {
            // No probe before feedback says otherwise, and none that nothing tells the result of.
            return self.silence_at;
        }
        self.silence_at
            .min(self.prober.due(self.demand, self.estimate(), &self.aimd))
    }

    /// Time has passed: missing feedback lowers the rate.
    pub fn handle_timeout(&mut self, now: Time) {
        self.remb.handle_timeout(now);
        if now < self.silence_at {
            return;
        }
        if self.is_remb_only() {
            // The receiver speaks when it has something to say: silence means nothing.
            self.log.expire(now);
            self.silence_at = Time::NEVER;
            return;
        }
        self.log.expire(now.saturating_sub(self.patience()));
        self.loss.start_over(now);
        let lower = (self.estimate() as f64 * SILENCE_FACTOR) as u64;
        self.aimd.set(lower.max(self.config.min));
        self.last_overuse = Some(now);
        self.silence_at = if self.log.in_flight_bytes() > 0 {
            now + FEEDBACK_PATIENCE
        } else {
            Time::NEVER
        };
    }

    /// A cluster to send, if it is time for one.
    pub fn poll_probe(&mut self, now: Time) -> Option<ProbeCluster> {
        let estimate = self.estimate();
        if now < self.prober.due(self.demand, estimate, &self.aimd)
            || self.delay.usage() == Usage::Over
            || self.is_remb_only()
        {
            return None;
        }
        let wait = self.rtt.unwrap_or(INITIAL_RTT) + PROBE_PATIENCE;
        let most = ((self.demand as f64 * DEMAND_FACTOR) as u64).min(self.config.max);
        let cluster = self.prober.start(now, estimate, most, wait)?;
        self.probes.expect(cluster);
        Some(cluster)
    }
}

/// What one feedback packet adds up to.
struct Digest {
    idle: bool,
    last_sent: Option<Time>,
    /// Best probe result: rate shown, and rate of its cluster.
    probe: Option<(u64, u64)>,
}

impl Digest {
    fn new(idle: bool) -> Self {
        Digest {
            idle,
            last_sent: None,
            probe: None,
        }
    }
}
