//! Who gets which part of a subscriber's bandwidth.
//!
//! Classes go before each other, and within the whole every track gets its lowest layer before any
//! gets a higher one, so that scarce bandwidth shows many faces small rather than one large and the
//! rest frozen. Switching down happens at once; switching up waits until there is clearly room.
//!
//! A diagnostic track is never silently degraded: it is sent at the layer it requires or better,
//! or it is paused and said to be.

use sealcast_model::Time;
use std::time::Duration;

/// Layers of a track: four spatial times three temporal ones, and some to spare.
pub const MAX_LAYERS: usize = 16;

/// Tracks of one subscriber; the slots that a session may have.
const MAX_SUBSCRIPTIONS: usize = sealcast_model::limits::SLOTS_PER_SESSION;

/// A higher layer than the present one must fit with this much to spare, in percent: rates vary by
/// some tenths from second to second.
const UPGRADE_MARGIN: u64 = 15;

/// After a track had to be lowered or paused it is not raised again for this long ...
const UPGRADE_PAUSE: Duration = Duration::from_secs(3);
/// ... unless what it needs, margin included, would fit this many times, and for this long even then:
/// a layer that comes and goes between two frames is left out without its receiver's having been told.
const AMPLE: u64 = 2;
const AMPLE_PAUSE: Duration = Duration::from_millis(200);

/// A layer that only adds frames of the same size costs no key frame, neither up nor down, so a
/// mistake is soon mended: it needs less to spare, and waits less.
const FRAME_RATE_MARGIN: u64 = 5;
const FRAME_RATE_PAUSE: Duration = Duration::from_secs(1);

/// What is sent above the lowest layers stays while no more than this of what there is is missing for
/// it, in percent: rates vary by as much, and what is lowered for it would soon be raised again, with
/// a key frame. What does overfill the path lowers the estimate further. Diagnostic tracks are not
/// borne with.
const KEEP_MARGIN: u64 = 5;

/// A track is not paused while its lowest layer misses this much at most, in percent of what there
/// is, and for no longer than this. Key frames make a stream look larger than it is, and estimates
/// dip for a moment; a pause costs a key frame, and two looks at a frozen picture. Diagnostic
/// tracks are not borne with: they are whole or paused.
const PAUSE_MARGIN: u64 = 30;
const PAUSE_PATIENCE: Duration = Duration::from_secs(1);

/// What is sent needs no margin, so a track that was just raised leaves the others a different
/// choice, and dividing again may raise one more. It is done until nothing changes, and no more
/// often than this.
const MAX_ROUNDS: usize = 4;

/// Names a subscription within its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// Classes of tracks, first served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Always sent.
    Audio,
    /// Diagnostic imaging: whole or not at all.
    Diagnostic,
    /// Who speaks, what is pinned, what is shared.
    ActiveSpeaker,
    /// All others.
    Other,
}

/// What one layer of a track costs and shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerRate {
    /// Bits per second of the layer with all that it depends on, headers included. 0 while the
    /// publisher does not send it: it cannot be chosen then.
    pub bitrate: u64,
    /// Height of its pictures in pixels, 0 if unknown.
    pub height: u16,
    /// Spatial layer, or encoding of a simulcast by size: layers with the same one differ in their
    /// frame rate.
    pub spatial: u8,
}

/// A track that the subscriber wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its name.
    pub id: RequestId,
    /// Its class.
    pub priority: Priority,
    /// Its layers, lowest first; the first `layer_count` count. Audio has one.
    pub layers: [LayerRate; MAX_LAYERS],
    /// How many layers there are, 1..=16.
    pub layer_count: u8,
    /// Height of the picture's place on the subscriber's screen, in pixels: no layer is chosen
    /// beyond the first that fills it. 0 hides the track.
    pub wanted_height: u16,
    /// The least layer a diagnostic track may be shown at. Others have 0.
    pub required_layer: u8,
}

impl Subscription {
    fn layers(&self) -> &[LayerRate] {
        self.layers
            .get(..usize::from(self.layer_count))
            .unwrap_or(&self.layers)
    }

    /// The highest layer worth sending: the first that fills the wanted height, or the highest
    /// that is there.
    #[must_use]
    pub fn highest_useful(&self) -> Option<usize> {
        if self.wanted_height == 0 && self.priority != Priority::Audio {
            return None;
        }
        let sent = |i: &usize| self.layers().get(*i).is_some_and(|l| l.bitrate > 0);
        let layers = (0..self.layers().len()).filter(sent);
        let fills = |i: &usize| {
            self.layers()
                .get(*i)
                .is_some_and(|l| l.height >= self.wanted_height && l.height > 0)
        };
        let last = layers.clone().next_back()?;
        let first_height = layers
            .clone()
            .find(fills)
            .and_then(|i| self.layers().get(i))
            .map(|l| l.height);
        // Temporal layers of the same size all count: the best of that size.
        let best = |height| {
            layers
                .clone()
                .rfind(|i| self.layers().get(*i).is_some_and(|l| l.height <= height))
        };
        Some(first_height.and_then(best).unwrap_or(last))
    }

    /// Whether two layers differ in their frame rate alone.
    fn is_same_size(&self, one: usize, other: usize) -> bool {
        let spatial = |layer: usize| self.layers().get(layer).map(|l| l.spatial);
        spatial(one) == spatial(other)
    }

    fn cost(&self, layer: usize) -> u64 {
        self.layers().get(layer).map_or(0, |l| l.bitrate)
    }

    /// The lowest layer that may be shown.
    fn lowest(&self) -> Option<usize> {
        let least = if self.priority == Priority::Diagnostic {
            usize::from(self.required_layer)
        } else {
            0
        };
        (least..self.layers().len()).find(|i| self.cost(*i) > 0)
    }
}

/// What is decided for a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this layer and what it depends on.
    Send {
        /// Index of the layer.
        layer: u8,
    },
    /// Nobody looks at it, or the publisher sends nothing.
    Unwanted,
    /// Its lowest layer does not fit.
    Paused,
    /// A diagnostic track whose required layer does not fit, or is not sent. To be told to the
    /// subscriber and counted.
    DiagnosticPaused,
}

/// A decision with its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The track.
    pub id: RequestId,
    /// What is decided for it.
    pub decision: Decision,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    subscription: Subscription,
    decision: Decision,
    /// Not raised before this ...
    raise_from: Time,
    /// ... or, where there is ample room, before this.
    ample_from: Time,
    /// Since when its lowest layer does not quite fit.
    short_since: Option<Time>,
}

/// Divides one subscriber's bandwidth.
///
/// Contract: keep the subscriptions up to date with [`set`](Self::set) and
/// [`remove`](Self::remove); call [`allocate`](Self::allocate) when they or the estimate change,
/// and a few times a second, and act on what it reports.
#[derive(Debug, Default)]
pub struct Allocator {
    /// By class, then in the order of subscription.
    entries: Vec<Entry>,
}

impl Allocator {
    /// An allocator without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        // An entry takes 300 bytes, and most sessions have a few.
        Allocator::default()
    }

    /// Adds a subscription, or updates the one with its id. `false` if there are too many.
    pub fn set(&mut self, subscription: Subscription) -> bool {
        let known = self
            .entries
            .iter()
            .position(|e| e.subscription.id == subscription.id);
        match known {
            Some(index) if self.entries[index].subscription.priority == subscription.priority => {
                self.entries[index].subscription = subscription;
            }
            Some(index) => {
                let entry = self.entries.remove(index);
                self.insert(Entry {
                    subscription,
                    ..entry
                });
            }
            None if self.entries.len() >= MAX_SUBSCRIPTIONS => return false,
            None => {
                self.insert(Entry {
                    subscription,
                    decision: Decision::Unwanted,
                    raise_from: Time::ZERO,
                    ample_from: Time::ZERO,
                    short_since: None,
                });
            }
        }
        true
    }

    fn insert(&mut self, entry: Entry) {
        let class = entry.subscription.priority;
        let at = self
            .entries
            .partition_point(|e| e.subscription.priority <= class);
        self.entries.insert(at, entry);
    }

    /// Ends a subscription.
    pub fn remove(&mut self, id: RequestId) {
        self.entries.retain(|e| e.subscription.id != id);
    }

    /// Bits per second that all tracks at their highest useful layers would take.
    #[must_use]
    pub fn demand(&self) -> u64 {
        let best = |e: &Entry| {
            e.subscription
                .highest_useful()
                .map_or(0, |layer| e.subscription.cost(layer))
        };
        self.entries.iter().map(best).sum()
    }

    /// Bits per second of the layers that are sent.
    #[must_use]
    pub fn granted(&self) -> u64 {
        let cost = |e: &Entry| e.present().map_or(0, |layer| e.subscription.cost(layer));
        self.entries.iter().map(cost).sum()
    }

    /// A track's subscription, and what is decided for it at present.
    #[must_use]
    pub fn get(&self, id: RequestId) -> Option<(&Subscription, Decision)> {
        let entry = self.entries.iter().find(|e| e.subscription.id == id)?;
        Some((&entry.subscription, entry.decision))
    }

    /// What is decided for a track at present.
    #[must_use]
    pub fn decision(&self, id: RequestId) -> Option<Decision> {
        self.entries
            .iter()
            .find(|e| e.subscription.id == id)
            .map(|e| e.decision)
    }

    /// Divides `available` bits per second anew; each decision that changed goes to `changed`.
    pub fn allocate(&mut self, now: Time, available: u64, mut changed: impl FnMut(Allocation)) {
        let mut before = [Decision::Unwanted; MAX_SUBSCRIPTIONS];
        for (entry, before) in self.entries.iter().zip(&mut before) {
            *before = entry.decision;
        }
        for _ in 0..MAX_ROUNDS {
            if !self.divide(now, available) {
                break;
            }
        }
        for (entry, before) in self.entries.iter_mut().zip(before) {
            if entry.decision == before {
                continue;
            }
            if entry.is_lowered_from(before) {
                entry.raise_from = now + entry.pause_after(before);
                entry.ample_from = now + AMPLE_PAUSE;
            }
            changed(Allocation {
                id: entry.subscription.id,
                decision: entry.decision,
            });
        }
    }

    /// One round of [`allocate`](Self::allocate): whether it decided anything else than the last.
    fn divide(&mut self, now: Time, available: u64) -> bool {
        let mut chosen = [None; MAX_SUBSCRIPTIONS];
        let mut left = self.base_layers(now, available, &mut chosen);
        let slack = available / 100 * KEEP_MARGIN;
        self.upgrades(now, &mut left, slack, &mut chosen);
        let mut differs = false;
        for (entry, layer) in self.entries.iter_mut().zip(chosen) {
            let decision = entry.decide(layer);
            differs |= decision != entry.decision;
            entry.decision = decision;
        }
        differs
    }

    /// Gives each track, class by class, its lowest layer; a diagnostic one its required layer.
    fn base_layers(&mut self, now: Time, available: u64, chosen: &mut [Option<usize>]) -> u64 {
        let mut left = available;
        for (entry, chosen) in self.entries.iter_mut().zip(chosen) {
            let subscription = &entry.subscription;
            if subscription.highest_useful().is_none() {
                continue;
            }
            let Some(layer) = subscription.lowest() else {
                continue;
            };
            let cost = subscription.cost(layer);
            // Audio is sent whatever the estimate says: a consult without it is none.
            if subscription.priority == Priority::Audio || entry.may_stay(now, layer, cost, left) {
                *chosen = Some(layer);
                left = left.saturating_sub(cost);
            }
        }
        left
    }

    /// Raises tracks, in turn within a class, until nothing fits: first from one size to the next,
    /// each at its full frame rate, for a large picture that stutters is worse than a small one
    /// that does not; then by what still fits of the frames of a further size. What is sent already
    /// may take `slack` bits per second more than is `left`.
    fn upgrades(&self, now: Time, left: &mut u64, mut slack: u64, chosen: &mut [Option<usize>]) {
        for (class, whole) in [
            (Priority::Diagnostic, true),
            (Priority::Diagnostic, false),
            (Priority::ActiveSpeaker, true),
            (Priority::ActiveSpeaker, false),
            (Priority::Other, true),
            (Priority::Other, false),
        ] {
            let mut raised = true;
            while raised {
                raised = false;
                for (entry, chosen) in self.entries.iter().zip(chosen.iter_mut()) {
                    if entry.subscription.priority != class {
                        continue;
                    }
                    if let Some(next) = entry.next_layer(*chosen, whole)
                        && let Some(present) = *chosen
                    {
                        let (more, total) = (
                            entry.subscription.cost(next),
                            entry.subscription.cost(present),
                        );
                        let step = more.saturating_sub(total);
                        let margin = match entry.subscription.is_same_size(present, next) {
                            true => FRAME_RATE_MARGIN,
                            false => UPGRADE_MARGIN,
                        };
                        let borne = match class {
                            Priority::Diagnostic => 0,
                            _ if entry.rises_to(next) => 0,
                            _ => slack,
                        };
                        if entry.fits(now, next, step, margin, left.saturating_add(borne)) {
                            slack -= step.saturating_sub(*left).min(slack);
                            *left = left.saturating_sub(step);
                            *chosen = Some(next);
                            raised = true;
                        }
                    }
                }
            }
        }
    }
}

impl Entry {
    /// The layer sent at present.
    fn present(&self) -> Option<usize> {
        match self.decision {
            Decision::Send { layer } => Some(usize::from(layer)),
            _ => None,
        }
    }

    fn is_paused(&self) -> bool {
        matches!(self.decision, Decision::Paused | Decision::DiagnosticPaused)
    }

    /// The next layer that is sent above `layer`, up to the highest useful one; with `whole`, the
    /// next that has the full frame rate of its size.
    fn next_layer(&self, layer: Option<usize>, whole: bool) -> Option<usize> {
        let subscription = &self.subscription;
        let highest = subscription.highest_useful()?;
        let sent = |i: &usize| subscription.cost(*i) > 0;
        let faster = |i: usize| {
            let mut above = (i + 1..=highest).filter(sent);
            above.any(|j| subscription.is_same_size(i, j))
        };
        let mut above = (layer? + 1..=highest).filter(sent);
        above.find(|i| !whole || !faster(*i))
    }

    /// Whether `layer` is above what is sent at present.
    fn rises_to(&self, layer: usize) -> bool {
        match self.present() {
            Some(present) => layer > present,
            None => self.is_paused(),
        }
    }

    /// Whether `layer`, for `cost` more, fits into `left`. What is above the present layer must
    /// fit with a margin of so many percent, and wait after a lowering, unless there is ample room.
    fn fits(&self, now: Time, layer: usize, cost: u64, margin: u64, left: u64) -> bool {
        if !self.rises_to(layer) {
            return cost <= left;
        }
        // The margin is on the whole layer: that is what will vary.
        let spare = self.subscription.cost(layer) * margin / 100;
        let needed = cost.saturating_add(spare);
        let ample = now >= self.ample_from && needed.saturating_mul(AMPLE) <= left;
        let rested = ample || now >= self.raise_from;
        rested && needed <= left
    }

    /// As [`fits`](Self::fits), for the lowest layer: one that is sent is borne with for a moment.
    fn may_stay(&mut self, now: Time, layer: usize, cost: u64, left: u64) -> bool {
        if self.fits(now, layer, cost, UPGRADE_MARGIN, left) {
            self.short_since = None;
            return true;
        }
        let diagnostic = self.subscription.priority == Priority::Diagnostic;
        if diagnostic || self.is_paused() || cost > left.saturating_add(left / 100 * PAUSE_MARGIN) {
            return false;
        }
        now - *self.short_since.get_or_insert(now) < PAUSE_PATIENCE
    }

    fn decide(&self, layer: Option<usize>) -> Decision {
        let diagnostic = self.subscription.priority == Priority::Diagnostic;
        match layer {
            Some(layer) => Decision::Send { layer: layer as u8 },
            None if self.subscription.highest_useful().is_none() => match diagnostic {
                // The subscriber looks at a diagnostic track of which nothing is sent.
                true if self.subscription.wanted_height > 0 => Decision::DiagnosticPaused,
                _ => Decision::Unwanted,
            },
            None if diagnostic => Decision::DiagnosticPaused,
            None => Decision::Paused,
        }
    }

    /// How long it is not raised again after it was lowered from this.
    fn pause_after(&self, before: Decision) -> Duration {
        match (before, self.decision) {
            (Decision::Send { layer: before }, Decision::Send { layer })
                if self.subscription.is_same_size(before.into(), layer.into()) =>
            {
                FRAME_RATE_PAUSE
            }
            _ => UPGRADE_PAUSE,
        }
    }

    fn is_lowered_from(&self, before: Decision) -> bool {
        match (before, self.decision) {
            (Decision::Send { layer: before }, Decision::Send { layer }) => layer < before,
            // One that was never sent has not shown that it does not fit.
            (Decision::Unwanted, _) => false,
            (_, Decision::Paused | Decision::DiagnosticPaused) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
