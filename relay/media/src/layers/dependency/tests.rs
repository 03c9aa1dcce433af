use super::*;
use proptest::prelude::*;

/// A frame of a test pattern: layer, indications as in the specification's tables (one letter
/// for each decode target), and how many frames back its references lie.
type Pattern = (u8, u8, &'static str, &'static [u16]);

const L1T3: (&[(u8, u8)], &[Pattern]) = (
    &[(0, 0), (0, 1), (0, 2)],
    &[
        (0, 0, "SSS", &[4]),
        (0, 2, "--D", &[1]),
        (0, 1, "-DS", &[2]),
        (0, 2, "--D", &[1]),
    ],
);
/// Two spatial layers that build on each other in every picture.
const L2T1: (&[(u8, u8)], &[Pattern]) = (
    &[(0, 0), (1, 0)],
    &[(0, 0, "SR", &[2]), (1, 0, "-S", &[2, 1])],
);
/// Two that do so on key frames alone.
const L2T1_KEY: (&[(u8, u8)], &[Pattern]) =
    (&[(0, 0), (1, 0)], &[(0, 0, "S-", &[2]), (1, 0, "-S", &[2])]);

fn dtis(letters: &str) -> sealcast_rtp::dd::Dtis {
    letters
        .chars()
        .map(|c| match c {
            '-' => Dti::NotPresent,
            'D' => Dti::Discardable,
            'S' => Dti::Switch,
            _ => Dti::Required,
        })
        .collect()
}

fn targets(of: &[(u8, u8)]) -> DecodeTargets {
    let mut layers = [Layers {
        spatial: 0,
        temporal: 0,
    }; MAX_DECODE_TARGETS];
    for (place, (spatial, temporal)) in layers.iter_mut().zip(of) {
        *place = Layers {
            spatial: *spatial,
            temporal: *temporal,
        };
    }
    DecodeTargets {
        layers,
        within: [u32::MAX; MAX_DECODE_TARGETS],
        count: of.len() as u8,
        active: u32::MAX,
        structure: 0,
        version: 1,
    }
}

/// Frame `number` of a pattern; each `key_every`th period starts with a key frame.
fn frame((_, pattern): (&[(u8, u8)], &[Pattern]), number: u64, key_every: u64) -> DescribedFrame {
    let period = pattern.len() as u64;
    let (spatial_id, temporal_id, letters, diffs) = pattern[(number % period) as usize];
    let key_period = (number / period).is_multiple_of(key_every);
    let has_structure = key_period && number.is_multiple_of(period);
    let mut frame = FrameDependencies {
        spatial_id,
        temporal_id,
        dtis: dtis(letters),
        ..Default::default()
    };
    // On key pictures nothing before the key frame is referred to.
    for diff in diffs
        .iter()
        .filter(|d| !key_period || u64::from(**d) <= number % period)
    {
        assert!(frame.frame_diffs.push(*diff));
    }
    if key_period && spatial_id > 0 && frame.frame_diffs.as_slice().is_empty() {
        frame.frame_diffs.push(1);
    }
    if has_structure {
        // Key frames are part of everything.
        frame.dtis = dtis(&"S".repeat(letters.len()));
    }
    DescribedFrame {
        number,
        frame,
        structure: 0,
        active: None,
        has_structure,
        ends_frame: true,
    }
}

fn limit(spatial: u8, temporal: u8) -> Layers {
    Layers { spatial, temporal }
}

#[test]
fn temporal_layers_rise_at_switch_frames_and_fall_at_once() {
    let t = targets(L1T3.0);
    let mut s = DependencySelector::new();
    let mut play = |range: std::ops::Range<u64>, most| {
        range
            .filter(|n| {
                s.select(&frame(L1T3, *n, 1_000), *n as u32, &t, limit(0, most))
                    .0
                    != Selection::Drop
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(play(0..4, 2), [0, 1, 2, 3]);
    assert_eq!(play(4..8, 1), [4, 6]);
    assert_eq!(play(8..12, 0), [8]);
    assert_eq!(play(12..16, 2), [12, 13, 14, 15]);
}

#[test]
fn a_spatial_layer_above_needs_a_key_frame_or_switch() {
    let t = targets(L2T1.0);
    let mut s = DependencySelector::new();
    let mut pass = |n, most| s.select(&frame(L2T1, n, 4), n as u32 / 2, &t, limit(most, 0));
    assert_eq!(
        pass(0, 1).0,
        Selection::Forward {
            ends_picture: false
        }
    );
    assert_eq!(pass(1, 1).0, Selection::Forward { ends_picture: true });
    assert_eq!(
        pass(2, 0).0,
        Selection::Forward { ends_picture: true },
        "the picture ends earlier now"
    );
    assert_eq!(pass(3, 0).0, Selection::Drop);
    assert_eq!(
        pass(4, 1),
        (Selection::Forward { ends_picture: true }, true),
        "asks for a key frame"
    );
    assert_eq!(pass(5, 1).0, Selection::Drop, "its reference was left out");
    assert_eq!(
        pass(8, 1).0,
        Selection::Forward {
            ends_picture: false
        },
        "the key frame"
    );
    assert_eq!(pass(9, 1).0, Selection::Forward { ends_picture: true });
}

#[test]
fn layers_that_part_after_the_key_frame_change_at_key_frames() {
    let t = targets(L2T1_KEY.0);
    let mut s = DependencySelector::new();
    let mut pass = |n, most| {
        let (selection, wish) = s.select(&frame(L2T1_KEY, n, 4), n as u32 / 2, &t, limit(most, 0));
        (selection != Selection::Drop, wish)
    };
    assert_eq!(
        [pass(0, 1), pass(1, 1), pass(2, 1), pass(3, 1)].map(|p| p.0),
        [true, true, false, true]
    );
    let down = [pass(4, 0), pass(5, 0)];
    assert_eq!(
        down.map(|p| p.0),
        [false, true],
        "still the upper layer, whose references are there"
    );
    assert!(down.iter().any(|p| p.1), "and a wish for a key frame");
    assert_eq!(
        [pass(8, 0), pass(9, 0), pass(10, 0)].map(|p| p.0),
        [true, false, true]
    );
}

#[test]
fn an_inactive_target_gives_way_to_the_next() {
    let mut t = targets(L1T3.0);
    t.active = 0b011;
    assert_eq!(t.choose(Layers::ALL), 1);
    t.active = 0b100;
    assert_eq!(t.choose(limit(0, 0)), 2, "the lowest there is");
    t.active = 0;
    assert_eq!(t.choose(Layers::ALL), 0);
}

proptest! {
    #[test]
    fn nothing_is_forwarded_without_what_it_depends_on(
        mode in 0usize..3, key_every in 2u64..20,
        limits in prop::collection::vec((0u8..3, 1usize..12), 1..20),
        lost in prop::collection::vec(prop::bool::weighted(0.1), 240),
    ) {
        let mode = [L1T3, L2T1, L2T1_KEY][mode];
        let t = targets(mode.0);
        let mut s = DependencySelector::new();
        // `None`: lost on the way, so that it may still come.
        let mut fates: Vec<Option<bool>> = vec![];
        for most in limits.iter().flat_map(|(most, n)| std::iter::repeat_n(*most, *n)) {
            let n = fates.len() as u64;
            if n > 0 && lost[n as usize] {
                fates.push(None);
                continue;
            }
            let described = frame(mode, n, key_every);
            let picture = (n / mode.0.last().map_or(1, |(spatial, _)| u64::from(*spatial) + 1)) as u32;
            let pass = s.select(&described, picture, &t, limit(most, most)).0 != Selection::Drop;
            for diff in described.frame.frame_diffs.as_slice() {
                let reference = (n as usize).checked_sub(usize::from(*diff)).and_then(|d| fates[d]);
                prop_assert!(!pass || reference != Some(false), "frame {} lacks {}", n, diff);
            }
            prop_assert!(pass || !described.has_structure, "a key frame is left out");
            // All packets of the frame, whatever the limit says meanwhile.
            let again = s.select(&described, picture, &t, limit(2 - most, 0)).0 != Selection::Drop;
            prop_assert_eq!(pass, again);
            fates.push(Some(pass));
        }
    }
}
