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
/// ... unless what it needs, margin included, would fit this many times.
const AMPLE: u64 = 2;

/// A layer that only adds frames of the same size costs no key frame, neither up nor down, so a
/// mistake is soon mended: it needs less to spare, and waits less.
const FRAME_RATE_MARGIN: u64 = 5;
const FRAME_RATE_PAUSE: Duration = Duration::from_secs(1);

/// A track is not paused while its lowest layer misses this much at most, in percent of what there
/// is, and for no longer than this. Key frames make a stream look larger than it is, and estimates
/// dip for a moment; a pause costs a key frame, and two looks at a frozen picture. Diagnostic
/// tracks are not borne with: they are whole or paused.
const PAUSE_MARGIN: u64 = 30;
const PAUSE_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Not raised before this.
    raise_from: Time,
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
        let mut chosen = [None; MAX_SUBSCRIPTIONS];
        let mut left = self.base_layers(now, available, &mut chosen);
        self.upgrades(now, &mut left, &mut chosen);
        for (entry, layer) in self.entries.iter_mut().zip(chosen) {
            let decision = entry.decide(layer);
            if decision == entry.decision {
                continue;
            }
            if entry.is_lowered_by(decision) {
                entry.raise_from = now + entry.pause_after(decision);
            }
            entry.decision = decision;
            changed(Allocation {
                id: entry.subscription.id,
                decision,
            });
        }
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
    /// that does not; then by what still fits of the frames of a further size.
    fn upgrades(&self, now: Time, left: &mut u64, chosen: &mut [Option<usize>]) {
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
                        if entry.fits(now, next, step, margin, *left) {
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

    /// Whether `layer`, for `cost` more, fits into `left`. What is above the present layer must
    /// fit with a margin of so many percent, and wait after a lowering, unless there is ample room.
    fn fits(&self, now: Time, layer: usize, cost: u64, margin: u64, left: u64) -> bool {
        let above = match self.present() {
            Some(present) => layer > present,
            None => self.is_paused(),
        };
        if !above {
            return cost <= left;
        }
        // The margin is on the whole layer: that is what will vary.
        let spare = self.subscription.cost(layer) * margin / 100;
        let needed = cost.saturating_add(spare);
        let rested = now >= self.raise_from || needed.saturating_mul(AMPLE) <= left;
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

    /// How long it is not raised again after it was lowered to this.
    fn pause_after(&self, decision: Decision) -> Duration {
        match (self.decision, decision) {
            (Decision::Send { layer: before }, Decision::Send { layer })
                if self.subscription.is_same_size(before.into(), layer.into()) =>
            {
                FRAME_RATE_PAUSE
            }
            _ => UPGRADE_PAUSE,
        }
    }

    fn is_lowered_by(&self, decision: Decision) -> bool {
        match (self.decision, decision) {
            (Decision::Send { layer: before }, Decision::Send { layer }) => layer < before,
            // One that was never sent has not shown that it does not fit.
            (Decision::Unwanted, _) => false,
            (_, Decision::Paused | Decision::DiagnosticPaused) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn video(
        id: u32,
        priority: Priority,
        rates: &[(u64, u16)],
        wanted_height: u16,
    ) -> Subscription {
        let mut layers = [LayerRate::default(); MAX_LAYERS];
        let mut spatial = 0;
        for (at, (kbits, height)) in rates.iter().enumerate() {
            spatial += u8::from(at > 0 && rates[at - 1].1 != *height);
            layers[at] = LayerRate {
                bitrate: kbits * 1_000,
                height: *height,
                spatial,
            };
        }
        Subscription {
            id: RequestId(id),
            priority,
            layers,
            layer_count: rates.len() as u8,
            wanted_height,
            required_layer: 0,
        }
    }

    const SIMULCAST: [(u64, u16); 3] = [(150, 180), (500, 360), (1_700, 720)];

    fn allocate(allocator: &mut Allocator, millis: u64, kbits: u64) -> Vec<(u32, Decision)> {
        let mut changes = Vec::new();
        allocator.allocate(Time::from_millis(millis), kbits * 1_000, |a| {
            changes.push((a.id.0, a.decision))
        });
        changes
    }

    fn send(layer: u8) -> Decision {
        Decision::Send { layer }
    }

    #[test]
    fn what_nearly_fits_is_paused_only_if_that_lasts() {
        let mut allocator = Allocator::new();
        allocator.set(video(1, Priority::Other, &[(1_000, 720)], 720));
        allocate(&mut allocator, 0, 1_000);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(0)));
        allocate(&mut allocator, 1_000, 800);
        allocate(&mut allocator, 1_900, 800);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(0)));
        // It fitted for a moment: the patience starts over.
        allocate(&mut allocator, 1_950, 1_000);
        allocate(&mut allocator, 2_500, 800);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(0)));
        allocate(&mut allocator, 3_500, 800);
        assert_eq!(allocator.decision(RequestId(1)), Some(Decision::Paused));
        // What does not fit by far is paused at once.
        allocate(&mut allocator, 9_000, 2_000);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(0)));
        allocate(&mut allocator, 9_001, 700);
        assert_eq!(allocator.decision(RequestId(1)), Some(Decision::Paused));
    }

    #[test]
    fn everybody_is_seen_before_anybody_is_seen_large() {
        let mut allocator = Allocator::new();
        allocator.set(video(1, Priority::Other, &SIMULCAST, 720));
        allocator.set(video(2, Priority::Other, &SIMULCAST, 720));
        allocator.set(video(3, Priority::ActiveSpeaker, &SIMULCAST, 720));
        allocator.set(video(4, Priority::Audio, &[(40, 0)], 0));
        assert_eq!(allocator.demand(), 3 * 1_700_000 + 40_000);
        // 40 + 3 × 150 = 490; the speaker's next layer costs 350 more.
        let want = [(4, send(0)), (3, send(1)), (1, send(0)), (2, send(0))];
        assert_eq!(allocate(&mut allocator, 0, 1_000), want);
        assert_eq!(allocate(&mut allocator, 10, 1_000), []);
        // At 300 only audio, the speaker and nobody else ... at once, and the speaker lower.
        let want = [(3, send(0)), (1, Decision::Paused), (2, Decision::Paused)];
        assert_eq!(allocate(&mut allocator, 20, 300), want);
        // At nothing there is still audio.
        assert_eq!(allocate(&mut allocator, 30, 0), [(3, Decision::Paused)]);
    }

    #[test]
    fn no_layer_beyond_the_wanted_size() {
        let mut allocator = Allocator::new();
        allocator.set(video(1, Priority::Other, &SIMULCAST, 200));
        allocator.set(video(2, Priority::Other, &SIMULCAST, 0));
        // Three temporal layers of two sizes.
        let svc = [
            (100, 180),
            (200, 180),
            (300, 360),
            (600, 360),
            (900, 720),
            (1_500, 720),
        ];
        allocator.set(video(3, Priority::Other, &svc, 360));
        assert_eq!(
            allocate(&mut allocator, 0, 50_000),
            [(1, send(1)), (3, send(3))]
        );
        assert_eq!(allocator.demand(), 500_000 + 600_000);
        assert_eq!(allocator.decision(RequestId(2)), Some(Decision::Unwanted));
    }

    #[test]
    fn going_up_needs_room_to_spare_and_patience() {
        let mut allocator = Allocator::new();
        allocator.set(video(1, Priority::Other, &SIMULCAST, 720));
        allocate(&mut allocator, 0, 600);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(1)));
        // 1,700 fits, but not with 15 % of it to spare.
        assert_eq!(allocate(&mut allocator, 10, 1_900), []);
        assert_eq!(allocate(&mut allocator, 20, 2_000), [(1, send(2))]);
        assert_eq!(allocate(&mut allocator, 30, 1_700), []);
        assert_eq!(allocate(&mut allocator, 40, 1_699), [(1, send(1))]);
        assert_eq!(allocate(&mut allocator, 3_039, 2_500), []);
        assert_eq!(allocate(&mut allocator, 3_040, 2_500), [(1, send(2))]);
        // Where it would fit twice there is nothing to wait for.
        assert_eq!(allocate(&mut allocator, 3_050, 1_600), [(1, send(1))]);
        assert_eq!(allocate(&mut allocator, 3_060, 3_400), []);
        assert_eq!(allocate(&mut allocator, 3_070, 3_411), [(1, send(2))]);
    }

    #[test]
    fn full_frame_rate_comes_before_size_and_the_rest_is_filled() {
        // Two temporal layers of each of three sizes.
        let rates = [
            (40, 180),
            (80, 180),
            (130, 360),
            (270, 360),
            (480, 720),
            (970, 720),
        ];
        let mut allocator = Allocator::new();
        for id in 1..=3 {
            allocator.set(video(id, Priority::Other, &rates, 720));
        }
        // 3 × 270 = 810; with 480 of the largest in place of 270 that is 1,020.
        let want = [(1, send(4)), (2, send(3)), (3, send(3))];
        assert_eq!(allocate(&mut allocator, 0, 1_100), want);
        // Frames go first, at once, and come back after a second.
        allocate(&mut allocator, 10, 2_000);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(5)));
        allocate(&mut allocator, 20, 1_300);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(4)));
        allocate(&mut allocator, 1_019, 1_900);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(4)));
        allocate(&mut allocator, 1_020, 1_900);
        assert_eq!(allocator.decision(RequestId(1)), Some(send(5)));
    }

    #[test]
    fn a_diagnostic_track_is_whole_or_says_that_it_is_not() {
        let mut allocator = Allocator::new();
        let imaging = Subscription {
            required_layer: 2,
            ..video(1, Priority::Diagnostic, &SIMULCAST, 100)
        };
        allocator.set(imaging);
        allocator.set(video(2, Priority::ActiveSpeaker, &SIMULCAST, 720));
        // However small its place on the screen.
        assert_eq!(
            allocate(&mut allocator, 0, 2_000),
            [(1, send(2)), (2, send(0))]
        );
        assert_eq!(
            allocate(&mut allocator, 10, 1_600),
            [(1, Decision::DiagnosticPaused), (2, send(1))]
        );
        assert_eq!(allocate(&mut allocator, 4_000, 1_900), []);
        assert_eq!(
            allocate(&mut allocator, 4_010, 2_000),
            [(1, send(2)), (2, send(0))]
        );
        // The publisher stops the required layer.
        let mut stopped = imaging;
        stopped.layers[2].bitrate = 0;
        allocator.set(stopped);
        assert_eq!(
            allocate(&mut allocator, 8_000, 9_000)[0],
            (1, Decision::DiagnosticPaused)
        );
        stopped.layers = [LayerRate::default(); MAX_LAYERS];
        allocator.set(stopped);
        assert_eq!(
            allocator.decision(RequestId(1)),
            Some(Decision::DiagnosticPaused)
        );
        allocate(&mut allocator, 8_010, 9_000);
        assert_eq!(
            allocator.decision(RequestId(1)),
            Some(Decision::DiagnosticPaused)
        );
    }

    fn any_subscription() -> impl Strategy<Value = Subscription> {
        let priority = prop_oneof![
            Just(Priority::Audio),
            Just(Priority::Diagnostic),
            Just(Priority::ActiveSpeaker),
            Just(Priority::Other)
        ];
        let layers = prop::collection::vec((0u64..800, 0u16..4), 1..7);
        (0u32..12, priority, layers, 0u16..800, 0u8..6).prop_map(
            |(id, priority, steps, wanted, required)| {
                let mut at = (0, 90);
                let rates: Vec<_> = steps
                    .iter()
                    .map(|(kbits, taller)| {
                        at = (at.0 + kbits, at.1 + taller * 90);
                        if *kbits < 40 { (0, at.1) } else { at }
                    })
                    .collect();
                let required = required.min(rates.len() as u8 - 1);
                let required_layer = if priority == Priority::Diagnostic {
                    required
                } else {
                    0
                };
                Subscription {
                    required_layer,
                    ..video(id, priority, &rates, wanted)
                }
            },
        )
    }

    proptest! {
        #[test]
        fn no_estimate_breaks_the_rules(
            steps in prop::collection::vec((any_subscription(), any::<bool>(), 0u64..6_000, 0u64..2_000), 1..60),
        ) {
            let mut allocator = Allocator::new();
            let mut now = 0;
            for (subscription, set, kbits, wait) in steps {
                now += wait;
                if set { allocator.set(subscription); } else { allocator.remove(subscription.id); }
                let before: Vec<_> = allocator.entries.iter().map(|e| (e.subscription.id, e.decision)).collect();
                let changes = allocate(&mut allocator, now, kbits);
                let mut total = 0;
                prop_assert!(allocator.entries.is_sorted_by_key(|e| e.subscription.priority));
                for (entry, (id, before)) in allocator.entries.iter().zip(before) {
                    let told = changes.iter().filter(|c| c.0 == id.0).count();
                    prop_assert_eq!(told, usize::from(entry.decision != before));
                    let subscription = &entry.subscription;
                    let Decision::Send { layer } = entry.decision else {
                        // A diagnostic track that is looked at is never just unwanted.
                        if subscription.priority == Priority::Diagnostic && subscription.wanted_height > 0 {
                            prop_assert_eq!(entry.decision, Decision::DiagnosticPaused);
                        }
                        continue;
                    };
                    let cost = subscription.cost(usize::from(layer));
                    prop_assert!(cost > 0);
                    if subscription.priority != Priority::Audio { total += cost }
                    if subscription.priority == Priority::Diagnostic {
                        prop_assert!(layer >= subscription.required_layer);
                    }
                }
                // The last one may be borne with.
                let most = kbits * (1_000 + 10 * PAUSE_MARGIN);
                prop_assert!(total <= most, "{} of {}", total, most);
                // With the same input nothing changes.
                prop_assert_eq!(allocate(&mut allocator, now, kbits), []);
            }
        }
    }
}
