use super::*;
use proptest::prelude::*;

fn video(id: u32, priority: Priority, rates: &[(u64, u16)], wanted_height: u16) -> Subscription {
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
    // What is sent is borne with while 5 % of what there is are missing.
    assert_eq!(allocate(&mut allocator, 30, 1_620), []);
    assert_eq!(allocate(&mut allocator, 40, 1_619), [(1, send(1))]);
    assert_eq!(allocate(&mut allocator, 3_039, 2_500), []);
    assert_eq!(allocate(&mut allocator, 3_040, 2_500), [(1, send(2))]);
    // Where it would fit twice there is nothing to wait for.
    assert_eq!(allocate(&mut allocator, 3_050, 1_600), [(1, send(1))]);
    assert_eq!(allocate(&mut allocator, 3_249, 3_411), []);
    assert_eq!(allocate(&mut allocator, 3_250, 3_400), []);
    assert_eq!(allocate(&mut allocator, 3_260, 3_411), [(1, send(2))]);
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
