use super::*;
use proptest::prelude::*;

const CONTEXTS: [u64; 2] = [7, 0x1234_5678];

fn sealed(kid: u64, counter: u64) -> Vec<u8> {
    let nibble = |v: u64, out: &mut Vec<u8>| -> u8 {
        if v <= 7 {
            return v as u8;
        }
        let bytes = v.to_be_bytes();
        let skip = v.leading_zeros() as usize / 8;
        out.extend(&bytes[skip..]);
        (8 - skip - 1) as u8 | 8
    };
    let mut fields = Vec::new();
    let kid = nibble(kid, &mut fields);
    let counter = nibble(counter, &mut fields);
    [vec![kid << 4 | counter], fields, vec![0xaa; 30]].concat()
}

fn kid(context: u64, low: u64) -> u64 {
    context << 24 | low
}

/// Judges a packet that starts with a frame, or one from the middle of a frame.
fn judge(check: &mut SealCheck, codec: Codec, timestamp: u32, frame: Option<&[u8]>) -> Verdict {
    match frame {
        Some(frame) => check.check(&CONTEXTS, codec, timestamp, frame, Some(0)),
        None => check.check(&CONTEXTS, codec, timestamp, &[0x55; 9], None),
    }
}

#[test]
fn headers_of_rfc_9605_figure_3() {
    assert_eq!(
        SframeHeader::parse(&[0x00]),
        Some(SframeHeader { kid: 0, counter: 0 })
    );
    assert_eq!(
        SframeHeader::parse(&[0x9f, 0x01, 0x23, 0xff]),
        None,
        "counter cut short"
    );
    assert_eq!(
        SframeHeader::parse(&[0x99, 0x01, 0x23, 0x45, 0x67]),
        Some(SframeHeader {
            kid: 0x0123,
            counter: 0x4567
        })
    );
    assert_eq!(
        SframeHeader::parse(&[0x80, 0x07]),
        None,
        "longer than needed"
    );
    assert_eq!(
        SframeHeader::parse(&[0x90, 0x00, 0x10]),
        None,
        "longer than needed"
    );
}

#[test]
fn each_codec_is_read_behind_its_prefix() {
    let header = sealed(kid(7, 1), 9);
    let cases = [
        (Codec::Opus, vec![]),
        (Codec::Vp9, vec![]),
        (Codec::Vp8, vec![0xf1, 0, 0]),
        (Codec::Vp8, vec![0xf0, 0, 0, 0x9d, 1, 0x2a, 0, 5, 0xd0, 2]),
    ];
    for (codec, prefix) in cases {
        let frame = [prefix, header.clone()].concat();
        assert_eq!(
            SealCheck::default().check(&CONTEXTS, codec, 0, &frame, Some(0)),
            Verdict::Pass
        );
    }
}

#[test]
fn every_block_of_red_is_sealed() {
    let block = |counter| sealed(kid(7, 1), counter);
    let red = |redundant: &[&[u8]], primary: &[u8]| {
        let headers = redundant
            .iter()
            .flat_map(|data| [0x80 | 111, 0x0f, 0x00, data.len() as u8]);
        let headers: Vec<u8> = headers.chain([111]).collect();
        [&headers, &redundant.concat()[..], primary].concat()
    };
    let mut check = SealCheck::default();
    let mut verdict = |payload: &[u8]| check.check(&CONTEXTS, Codec::Red, 0, payload, Some(0));
    assert_eq!(verdict(&red(&[], &block(1))), Verdict::Pass);
    assert_eq!(verdict(&red(&[&block(1)], &block(2))), Verdict::Pass);
    assert_eq!(
        verdict(&red(&[&block(1), &block(2)], &block(3))),
        Verdict::Pass
    );
    assert_eq!(verdict(&red(&[&[], &block(3)], &block(4))), Verdict::Pass);
    let clear = [0x7b; 40];
    for payload in [
        red(&[], &clear),
        red(&[&block(4)], &clear),
        red(&[&clear], &block(5)),
        // Sealed as a whole, which no relay can take apart.
        block(6),
    ] {
        assert_eq!(verdict(&payload), Verdict::Drop);
        assert_eq!(verdict(&red(&[], &block(7))), Verdict::Pass);
    }
}

#[test]
fn av1_frames_are_sealed_in_one_obu_behind_clear_sequence_headers() {
    let verdict =
        |payload: &[u8]| SealCheck::default().check(&CONTEXTS, Codec::Av1, 0, payload, None);
    let header = sealed(kid(7, 1), 9);
    // W = 2: a sequence header with its length, then the rest: a frame OBU, without and with size.
    let copy = [&[0x20, 3, 0x08, 1, 2][..]].concat();
    assert_eq!(
        verdict(&[&copy[..], &[0x30], &header].concat()),
        Verdict::Pass
    );
    assert_eq!(
        verdict(&[&copy[..], &[0x32, 0x80, 0x08], &header].concat()),
        Verdict::Pass
    );
    assert_eq!(
        verdict(&[&[0x10, 0x34, 0][..], &header].concat()),
        Verdict::Pass,
        "with OBU extension"
    );
    assert_eq!(
        verdict(&[&copy[..], &[0x30], &[0x55; 20]].concat()),
        Verdict::Drop,
        "cleartext"
    );
    assert_eq!(
        verdict(&[&copy[..], &[0x18], &header].concat()),
        Verdict::Drop,
        "a frame header OBU"
    );
    assert_eq!(
        verdict(&[0x10, 0x08, 1, 2]),
        Verdict::Pass,
        "a sequence header alone"
    );
    assert_eq!(
        verdict(&[&[0x10, 0x08][..], &[1; 300]].concat()),
        Verdict::Drop,
        "that is not one"
    );
    assert_eq!(
        verdict(&[&[0x90][..], &header].concat()),
        Verdict::Drop,
        "goes on with what never started"
    );
}

#[test]
fn h264_frames_are_sealed_in_one_slice_behind_clear_parameter_sets() {
    let verdict =
        |payload: &[u8]| SealCheck::default().check(&CONTEXTS, Codec::H264, 0, payload, None);
    // A key id with zeros in it, to be escaped: 07 00 00 01 becomes 07 00 00 03 01.
    let plain = sealed(kid(7, 1), 9);
    assert_eq!(plain[1..5], [7, 0, 0, 1]);
    let header = [&plain[..4], &[3], &plain[4..]].concat();
    let slice = [&[0x65, 1, 2, 3, 4, 5, 6][..], &header].concat();
    assert_eq!(verdict(&slice), Verdict::Pass);
    assert_eq!(
        verdict(&[&[0x65, 1, 2, 3, 4, 5, 6][..], &plain].concat()),
        Verdict::Pass,
        "unescaped reads too"
    );
    assert_eq!(verdict(&[0x67, 1, 2, 3]), Verdict::Pass, "a parameter set");
    assert_eq!(verdict(&[0x65; 40]), Verdict::Drop, "cleartext");
    assert_eq!(
        verdict(&[&[0x06][..], &slice[1..]].concat()),
        Verdict::Drop,
        "another unit"
    );
    let stap = [&[0x78, 0, 2, 0x67, 1, 0, slice.len() as u8][..], &slice].concat();
    assert_eq!(verdict(&stap), Verdict::Pass);
    let fragment = |start: u8| [&[0x7c, start | 5][..], &slice[1..]].concat();
    assert_eq!(verdict(&fragment(0x80)), Verdict::Pass);
    assert_eq!(
        verdict(&fragment(0)),
        Verdict::Drop,
        "goes on with what never started"
    );
    assert_eq!(
        verdict(&[0x65, 1, 2]),
        Verdict::Drop,
        "too short to be sealed"
    );
}

#[test]
fn an_unsealed_frame_never_passes_and_a_row_blocks() {
    let mut check = SealCheck::default();
    for n in 1..SEAL_VIOLATIONS {
        assert_eq!(
            judge(&mut check, Codec::Vp9, 0, None),
            Verdict::Drop,
            "nothing checked yet"
        );
        assert_eq!(
            judge(&mut check, Codec::Vp9, u32::from(n), Some(b"cleartext")),
            Verdict::Drop
        );
    }
    assert_eq!(
        judge(&mut check, Codec::Vp9, 99, Some(b"cleartext")),
        Verdict::Block
    );
}

#[test]
fn one_good_frame_ends_the_row() {
    let mut check = SealCheck::default();
    for round in 0..20 {
        let bad = judge(&mut check, Codec::Opus, 2 * round, Some(&[]));
        assert_eq!(bad, Verdict::Drop);
        let good = sealed(kid(0x1234_5678, 0xabcdef), u64::from(round));
        assert_eq!(
            judge(&mut check, Codec::Opus, 2 * round + 1, Some(&good)),
            Verdict::Pass
        );
    }
}

#[test]
fn the_rest_of_a_frame_follows_its_start() {
    let mut check = SealCheck::default();
    let good = sealed(kid(7, 0), 1);
    assert_eq!(judge(&mut check, Codec::Vp9, 1, Some(&good)), Verdict::Pass);
    assert_eq!(judge(&mut check, Codec::Vp9, 1, None), Verdict::Pass);
    assert_eq!(
        judge(&mut check, Codec::Vp9, 2, None),
        Verdict::Pass,
        "overtook its start"
    );
    assert_eq!(
        judge(&mut check, Codec::Vp9, 2, Some(b"clear")),
        Verdict::Drop
    );
    assert_eq!(judge(&mut check, Codec::Vp9, 2, None), Verdict::Drop);
    assert_eq!(judge(&mut check, Codec::Vp9, 3, Some(&good)), Verdict::Pass);
    assert_eq!(
        judge(&mut check, Codec::Vp9, 2, None),
        Verdict::Drop,
        "late, and known bad"
    );
}

#[test]
fn starts_cannot_be_left_out_for_ever() {
    let mut check = SealCheck::default();
    judge(&mut check, Codec::Vp9, 0, Some(&sealed(kid(7, 0), 1)));
    let verdicts: Vec<_> = (0..SEAL_UNCHECKED + u16::from(SEAL_VIOLATIONS))
        .map(|n| judge(&mut check, Codec::Vp9, u32::from(n) + 1, None))
        .collect();
    let (before, after) = verdicts.split_at(usize::from(SEAL_UNCHECKED));
    assert!(before.iter().all(|v| *v == Verdict::Pass));
    assert!(after.iter().all(|v| *v != Verdict::Pass));
    assert_eq!(after.last(), Some(&Verdict::Block));
}

#[test]
fn counters_grow_per_key_and_keys_may_change() {
    let mut check = SealCheck::default();
    let mut pass = |kid, counter| {
        judge(&mut check, Codec::Opus, 0, Some(&sealed(kid, counter))) == Verdict::Pass
    };
    assert!(pass(kid(7, 1), 10_000));
    assert!(pass(kid(7, 1), 10_001 - SEAL_COUNTER_WINDOW), "reordered");
    assert!(
        !pass(kid(7, 1), 10_000 - SEAL_COUNTER_WINDOW),
        "started again"
    );
    assert!(pass(kid(7, 2), 0), "a new epoch starts at zero");
    assert!(
        pass(kid(7, 1), 10_001),
        "the previous one is still under way"
    );
    assert!(!pass(kid(8, 0), 0), "a context that was not announced");
    assert!(pass(kid(7, 3), u64::MAX));
    assert!(
        !pass(kid(7, 3), 5),
        "the greatest counter does not overflow"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_judged(
        packets in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..24), prop::option::of(0usize..30), 0usize..6), 0..40),
    ) {
        let codecs = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
        let mut check = SealCheck::default();
        for (timestamp, payload, start, codec) in packets {
            let verdict = check.check(&[0x00ff_ffff_ffff], codecs[codec], timestamp, &payload, start);
            // No random frame carries this context. AV1 and H264 have parts in the clear.
            prop_assert!(verdict != Verdict::Pass || codec >= 4);
        }
    }

    #[test]
    fn what_was_written_is_read(kid: u64, counter: u64, shift_kid in 0..64u32, shift_counter in 0..64u32) {
        let want = SframeHeader { kid: kid >> shift_kid, counter: counter >> shift_counter };
        prop_assert_eq!(SframeHeader::parse(&sealed(want.kid, want.counter)), Some(want));
    }
}
