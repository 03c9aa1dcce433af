//! The rewriter against a shadow that remembers every outgoing number.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const LIFE: StreamLife = StreamLife {
    stream: 1,
    epoch: 0,
};

fn attachment(stream: u32, sequence: u64, timestamp: u32, captured_ms: u64) -> Attachment {
    Attachment {
        source: StreamLife { stream, epoch: 0 },
        sequence,
        timestamp,
        captured: ntp(captured_ms),
        aligned: None,
    }
}

fn ntp(millis: u64) -> u64 {
    (3_900_000_000 << 32) + (millis << 32) / 1_000
}

fn rewriter() -> Rewriter {
    Rewriter::new(90_000, 1_000, 5_000)
}

#[test]
fn network_gaps_stay_and_relay_gaps_close() {
    let mut r = rewriter();
    r.attach(attachment(1, 70_000, 0, 0));
    assert_eq!(r.map(70_000), Some(1_000));
    assert_eq!(r.map(70_003), Some(1_003), "two lost on the way");
    r.skip(70_004);
    r.skip(70_005);
    assert_eq!(r.map(70_006), Some(1_004), "two left out by the relay");
    assert_eq!(r.map(70_002), Some(1_002), "late");
    assert_eq!(r.map(70_004), None, "left out for good");
    assert_eq!(r.map(69_999), None, "before the start");
}

#[test]
fn a_skipped_number_after_a_gap_keeps_the_gap() {
    let mut r = rewriter();
    r.attach(attachment(1, 100, 0, 0));
    assert_eq!(r.map(100), Some(1_000));
    r.skip(103);
    assert_eq!(r.map(104), Some(1_003));
    assert_eq!(
        (r.map(101), r.map(102), r.map(103)),
        (Some(1_001), Some(1_002), None)
    );
}

#[test]
fn a_new_source_continues_without_a_gap() {
    let mut r = rewriter();
    r.attach(attachment(1, 100, 1_000_000, 0));
    assert_eq!((r.map(100), r.timestamp(1_000_000)), (Some(1_000), 5_000));
    r.map(107);
    r.attach(attachment(2, 65_600, 77, 500));
    assert_eq!(
        r.map(108),
        None,
        "the old source's numbers mean nothing now"
    );
    assert_eq!(
        (r.map(65_600), r.timestamp(77)),
        (Some(1_008), 5_000 + 45_000)
    );
    r.detach();
    assert_eq!(r.map(65_601), None);
    r.attach(attachment(2, 65_700, 77, 400));
    assert_eq!(r.map(65_700), Some(1_009));
    assert_eq!(
        r.timestamp(77),
        5_000 + 45_001,
        "time does not run backwards"
    );
}

#[test]
fn an_exact_alignment_wins_over_arrival_times() {
    let mut r = rewriter();
    r.attach(attachment(1, 1, 0, 0));
    r.timestamp(9_000);
    r.attach(Attachment {
        aligned: Some(20_000),
        ..attachment(2, 1, 3, 100)
    });
    assert_eq!(r.timestamp(3), 20_000);
}

#[test]
fn what_was_sent_leads_back_to_its_origin() {
    let mut r = rewriter();
    r.attach(attachment(1, 100, 0, 0));
    (100..110).for_each(|s| _ = r.map(s));
    r.skip(110);
    r.map(111);
    let before = r
        .segments
        .origin(1_010)
        .map(|o| (o.source.stream, o.sequence));
    assert_eq!(before, Some((1, 111)), "behind the one that was left out");
    r.attach(attachment(2, 500, 0, 0));
    r.map(500);
    let origin = |out| {
        r.segments
            .origin(out)
            .map(|o| (o.source.stream, o.sequence, o.index))
    };
    assert_eq!(origin(1_009), None, "another source");
    assert_eq!(origin(1_011), Some((2, 500, 1_011)));
    assert_eq!(origin(999), None, "before the start");
    assert_eq!(origin(1_012), None, "not sent yet");
}

#[test]
fn the_first_index_has_no_roll_over() {
    let mut r = Rewriter::new(90_000, 0xffff, 0);
    r.attach(attachment(1, 1, 0, 0));
    assert_eq!(r.map(1), Some(0x7fff));
    assert_eq!(
        r.map(0x9000),
        Some(0x7fff + 0x8fff),
        "and counts on past 16 bits"
    );
}

/// Remembers each place of the outgoing line: which packet it belongs to.
#[derive(Default)]
struct Shadow {
    line: Vec<(u32, u64)>,
    attachment: u32,
    next: u64,
    /// Segment starts, to know what the bounded rewriter may have forgotten.
    starts: usize,
}

impl Shadow {
    fn advance(&mut self, sequence: u64) {
        for s in self.next..sequence {
            self.line.push((self.attachment, s));
        }
        self.next = sequence + 1;
    }

    fn map(&mut self, sequence: u64) -> Option<u64> {
        if sequence >= self.next {
            self.advance(sequence);
            self.line.push((self.attachment, sequence));
        }
        self.line
            .iter()
            .position(|p| *p == (self.attachment, sequence))
            .map(|p| p as u64)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Map(i64),
    Skip(i64),
    Attach(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        10 => (-8i64..5).prop_map(Op::Map),
        3 => (-3i64..4).prop_map(Op::Skip),
        1 => (1u64..1_000_000).prop_map(Op::Attach),
    ];
    prop::collection::vec(op, 1..120)
}

proptest! {
    #[test]
    fn the_line_is_the_shadows_line(ops in ops(), first in 0u16..0x8000) {
        let mut r = Rewriter::new(90_000, first, 0);
        let mut shadow = Shadow { next: 500, ..Shadow::default() };
        r.attach(attachment(0, 500, 0, 0));
        let mut given: HashMap<u64, (u32, u64)> = HashMap::new();
        for op in ops {
            match op {
                Op::Attach(sequence) => {
                    shadow.attachment += 1;
                    shadow.next = sequence;
                    shadow.starts = 0;
                    r.attach(attachment(shadow.attachment, sequence, 0, 0));
                }
                Op::Skip(step) => {
                    let sequence = shadow.next.saturating_add_signed(step);
                    r.skip(sequence);
                    if sequence >= shadow.next {
                        shadow.advance(sequence);
                        shadow.starts += 1;
                    }
                }
                Op::Map(step) => {
                    let sequence = shadow.next.saturating_add_signed(step);
                    let got = r.map(sequence);
                    let want = shadow.map(sequence).map(|p| p + u64::from(first));
                    if got.is_none() && shadow.starts >= crate::limits::REWRITER_SEGMENTS {
                        continue;
                    }
                    prop_assert_eq!(got, want);
                    if let Some(out) = got {
                        let owner = (shadow.attachment, sequence);
                        prop_assert_eq!(*given.entry(out).or_insert(owner), owner, "an index used twice");
                        let origin = r.segments.origin(out as u16);
                        prop_assert_eq!(origin.map(|o| (o.source.stream, o.sequence)), Some(owner));
                    }
                }
            }
        }
    }

    #[test]
    fn timestamps_move_on_with_the_clock(
        sources in prop::collection::vec((any::<u32>(), 1u64..20_000, prop::collection::vec(1u32..9_000, 1..20)), 1..8),
    ) {
        let mut r = rewriter();
        let (mut now_ms, mut last) = (0u64, None::<u32>);
        for (i, (start, pause, steps)) in sources.into_iter().enumerate() {
            now_ms += pause;
            r.attach(attachment(i as u32, 1, start, now_ms));
            let mut timestamp = start;
            let first = r.timestamp(timestamp);
            if let Some(last) = last {
                prop_assert!(newer32(first, last));
            }
            // Never later than the clock says, unless the source before ran ahead of it.
            let on_clock = 5_000 + ((now_ms) * 90) as u32;
            prop_assert!(!newer32(first, on_clock.wrapping_add(20 * 9_000 * (i as u32 + 1))));
            for step in steps {
                timestamp = timestamp.wrapping_add(step);
                prop_assert_eq!(r.timestamp(timestamp), first.wrapping_add(timestamp.wrapping_sub(start)));
            }
            last = Some(r.timestamp(timestamp));
            now_ms += u64::from(timestamp.wrapping_sub(start)) / 90;
        }
    }
}

#[test]
fn life_is_part_of_the_origin() {
    let mut r = rewriter();
    r.attach(Attachment {
        source: StreamLife { epoch: 3, ..LIFE },
        ..attachment(1, 9, 0, 0)
    });
    r.map(9);
    assert_eq!(
        r.source(),
        Some(StreamLife {
            stream: 1,
            epoch: 3
        })
    );
    assert_eq!(r.segments.origin(1_000).map(|o| o.source.epoch), Some(3));
}
