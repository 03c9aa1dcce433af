//! The path to one subscriber: numbers of its packets, its estimate, and who gets which part.

use crate::api::PathState;
use crate::bwe::{Allocator, Estimator, EstimatorConfig, SentPacket, Usage};
use crate::cache;
use crate::inbox::Incoming;
use crate::limits::{DRAINING_LEAST, ESTIMATE_NOTICE, ESTIMATE_STEP, FEEDBACK_WANTED, STARTING};
use crate::meter::WIRE_OVERHEAD;
use crate::pacing::Pacer;
use crate::rewriter::StreamLife;
use sealcast_model::{SessionMedia, Time};
use std::mem::offset_of;
use std::time::Duration;

/// One peer's path.
#[derive(Debug, Default)]
pub(crate) struct Downlink {
    /// Transport-wide number of the next packet.
    next: u16,
    /// What the subscriber tells of its path.
    feedback: Feedback,
    /// Where it tells anything, from the first track that it is shown on.
    pub(crate) control: Option<Box<Control>>,
}

/// What was negotiated that tells of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Feedback {
    #[default]
    None,
    /// The client tells what it estimates itself (REMB).
    Estimates,
    /// It tells when packets arrive, by their transport-wide numbers.
    Arrivals,
    /// It tells when packets arrive, by their streams' numbers (RFC 8888).
    Reports,
}

/// Congestion control of one path. What a packet reads and writes comes first.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Control {
    /// Audio goes without redundancy.
    pub(crate) lean: bool,
    /// Feedback has come at least once.
    pub(crate) heard: bool,
    /// It is listed to be divided anew with the next flush.
    pub(crate) listed: bool,
    /// What there is to divide it among has changed.
    pub(crate) stale: bool,
    /// What the client tells; never [`Feedback::None`].
    feedback: Feedback,
    /// The first packet left.
    pub(crate) first_sent: Option<Time>,
    pub(crate) pacer: Pacer<Paced>,
    pub(crate) estimator: Estimator,
    pub(crate) allocator: Allocator,
    /// Deadline of the pacer's timer that is set.
    pub(crate) pace_timer: Time,
    /// When bandwidth was last divided, and how much.
    pub(crate) allocated_at: Time,
    pub(crate) allocated: u64,
    /// The estimate that the client was told last, and when.
    told: Option<(u64, Time)>,
}

/// A packet that waits in the pacer. It is not numbered before it leaves, so that what is dropped
/// leaves no gap and a change of layers concerns what waits as well. Its bytes are in the history of
/// its stream.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) subscription: u32,
    /// Of the subscription's rewriter, when the packet came.
    pub(crate) turns: u32,
    pub(crate) life: StreamLife,
    pub(crate) sequence: u64,
    /// `None` for a packet that is not forwarded and leaves no gap.
    pub(crate) packet: Option<Incoming>,
}

impl Downlink {
    /// The path of a session with these m-lines: controlled if the client gives feedback.
    pub(crate) fn new(media: &SessionMedia) -> Self {
        let mut downlink = Downlink::default();
        downlink.update(media);
        downlink
    }

    /// The session renegotiated.
    pub(crate) fn update(&mut self, media: &SessionMedia) {
        let codecs = || media.slots.iter().flat_map(|slot| &slot.codecs);
        self.feedback = if codecs().any(|codec| codec.transport_cc) {
            Feedback::Arrivals
        } else if codecs().any(|codec| codec.ccfb) {
            Feedback::Reports
        } else if codecs().any(|codec| codec.remb) {
            Feedback::Estimates
        } else {
            Feedback::None
        };
        if self.feedback == Feedback::None {
            self.control = None;
        }
        if let Some(control) = &mut self.control {
            control.feedback = self.feedback;
        }
    }

    /// There is something to send: control begins, unless it has or the client tells nothing. True
    /// if it has begun.
    pub(crate) fn begin_control(&mut self) -> bool {
        if self.feedback == Feedback::None || self.control.is_some() {
            return false;
        }
        self.control = Some(Box::new(Control::new(self.feedback)));
        true
    }

    /// Where that lies which a packet that leaves reads and writes.
    #[inline]
    pub(crate) fn hot(&self) -> impl Iterator<Item = *const u8> {
        const BYTES: usize = offset_of!(Control, estimator) + Estimator::HOT_BYTES;
        let control = self.control.as_deref().map(std::ptr::from_ref);
        let lines = control.map(|control| cache::lines(control.cast(), BYTES));
        lines.into_iter().flatten()
    }

    /// Where the next packet will be logged. Reads what [`hot`](Downlink::hot) names.
    #[inline]
    pub(crate) fn hot_log(&self) -> Option<*const u8> {
        Some(self.control.as_deref()?.estimator.hot_log())
    }

    /// The number of the next packet.
    #[inline]
    pub(crate) fn next(&self) -> u16 {
        match &self.control {
            Some(control) => control.estimator.next_sequence(),
            None => self.next,
        }
    }

    /// Whether audio goes without redundancy, because the path is too narrow for it.
    #[inline]
    pub(crate) fn is_lean(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.lean)
    }

    /// Whether a packet is to be noted when it leaves; `numbered` if it carries a transport-wide
    /// number.
    #[inline]
    pub(crate) fn notes(&self, numbered: bool) -> bool {
        numbered || matches!(self.feedback, Feedback::Estimates | Feedback::Reports)
    }

    /// Whether a packet of video may leave at once.
    #[inline]
    pub(crate) fn may_pass(&mut self, now: Time) -> bool {
        self.control
            .as_deref_mut()
            .is_none_or(|control| control.pacer.may_pass(now))
    }

    /// A packet of `len` bytes left under [`next`](Downlink::next).
    #[inline]
    pub(crate) fn on_sent(&mut self, now: Time, ssrc: u32, sequence_number: u16, len: usize) {
        match &mut self.control {
            Some(control) => control.on_sent(now, ssrc, sequence_number, len),
            None => self.next = self.next.wrapping_add(1),
        }
    }
}

impl Control {
    fn new(feedback: Feedback) -> Self {
        Control {
            lean: false,
            heard: false,
            listed: false,
            stale: false,
            feedback,
            first_sent: None,
            pacer: Pacer::new(),
            estimator: Estimator::new(EstimatorConfig::default()),
            allocator: Allocator::new(),
            pace_timer: Time::NEVER,
            allocated_at: Time::ZERO,
            allocated: 0,
            told: None,
        }
    }

    fn on_sent(&mut self, now: Time, ssrc: u32, sequence_number: u16, len: usize) {
        let bytes = (len + WIRE_OVERHEAD) as u16;
        self.first_sent.get_or_insert(now);
        self.estimator.on_sent(SentPacket {
            sent: now,
            bytes,
            ssrc,
            sequence_number,
            probe: self.pacer.on_sent(now, bytes),
        });
    }

    /// Starts a cluster if it is time for one.
    pub(crate) fn poll_probe(&mut self, now: Time) {
        if !self.pacer.is_probing()
            && let Some(cluster) = self.estimator.poll_probe(now)
        {
            self.pacer.start_probe(now, cluster);
        }
    }

    /// Tells the pacer what the path carries. It holds nothing back while that is unknown, and
    /// what was granted never waits for an estimate that is lower for a moment.
    pub(crate) fn set_pace(&mut self, now: Time) {
        let known = self.heard && !self.estimator.is_remb_only() && !self.is_starting(now);
        let rate = self.estimator.estimate().max(self.allocator.granted());
        self.pacer.set_rate(now, known.then_some(rate));
    }

    /// Bits per second to divide now.
    pub(crate) fn available(&self, now: Time) -> u64 {
        let waited = self.first_sent.map_or(Duration::ZERO, |first| now - first);
        if !self.heard && (waited > FEEDBACK_WANTED || self.feedback == Feedback::Estimates) {
            return u64::MAX;
        }
        // Less while a queue drains, which a layer less of something does. Not as little as the
        // sending rate would have it: to pause everything would be worse than the queue.
        let estimate = self.estimator.estimate();
        let least = estimate / 100 * DRAINING_LEAST;
        self.estimator.sending_rate(now).max(least)
    }

    /// What is known of the path.
    pub(crate) fn state(&self) -> PathState {
        PathState {
            estimate: self.estimator.estimate(),
            parts: self.estimator.parts(),
            available: self.allocated,
            granted: self.allocator.granted(),
        }
    }

    /// The estimate in bits per second, if it is time to tell the client.
    pub(crate) fn news(&mut self, now: Time) -> Option<u64> {
        let estimate = self.heard.then(|| self.estimator.estimate())?;
        if let Some((told, at)) = self.told
            && (now - at < ESTIMATE_NOTICE || told.abs_diff(estimate) < told / ESTIMATE_STEP)
        {
            return None;
        }
        self.told = Some((estimate, now));
        Some(estimate)
    }

    /// Whether all that the client can tell is what it estimates by itself.
    pub(crate) fn has_only_estimates(&self) -> bool {
        self.feedback == Feedback::Estimates
    }

    /// Whether the path is new, and nothing speaks against what is sent.
    pub(crate) fn is_starting(&self, now: Time) -> bool {
        let new = self.first_sent.is_none_or(|first| now - first < STARTING);
        new && self.estimator.usage() != Usage::Over && !self.estimator.is_remb_only()
    }
}
