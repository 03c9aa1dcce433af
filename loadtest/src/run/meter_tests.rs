//! Frames by hand: what counts as delivered, misrouted and silent.

use super::*;
use crate::model::FrameInfo;
use tokio::sync::mpsc::unbounded_channel;

const ROOM: u64 = 4;
const KEY: u64 = 1;

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// A session with one video slot, and three streams: `1` and `2` of its room, `3` of another.
fn meter() -> Meter {
    let registry = Arc::new(Registry::default());
    for (name, room) in [(1, ROOM), (2, ROOM), (3, ROOM + 1)] {
        let stream = registry.add(&[name, name + 100], room, Codec::Vp8);
        registry.publish(&stream, &format!("TR_{name}"));
        stream.started.store(0, Relaxed);
    }
    let mut meter = Meter::new(registry);
    let (notices, _) = unbounded_channel();
    meter.open(KEY, ROOM, at(0), notices);
    meter.accept(at(5), KEY, PeerId(0), vec![], 1);
    meter
}

fn frame(meter: &mut Meter, stream: u64, number: u64, now: u64) {
    let received = Received {
        slot: 0,
        codec: Codec::Vp8,
        info: FrameInfo {
            stream,
            number,
            due: at(now - 20),
            key: number == 0,
        },
        first_packet: at(now - 5),
        complete: at(now),
        len: 1_000,
        decodable: true,
    };
    meter.on_event(at(now), KEY, PeerEvent::Received(received));
}

fn sent(meter: &Meter, stream: u64, frames: u64) {
    meter
        .registry
        .stream(stream)
        .unwrap()
        .sent
        .store(frames, Relaxed);
}

fn look(meter: &mut Meter, now: u64, last: bool) {
    let Meter {
        sessions,
        registry,
        account,
        ..
    } = meter;
    let session = sessions.get_mut(&KEY).unwrap();
    session.slots[0].count_expected(registry, account, at(now), last);
}

fn counts<const N: usize>(meter: &mut Meter, counters: [Counter; N]) -> [u64; N] {
    let (_, counted) = meter.account.take();
    counters.map(|c| counted.get(&c).copied().unwrap_or(0))
}

fn assign(meter: &mut Meter, now: u64, track: &str) {
    meter.assign(at(now), KEY, 0, Some(track.to_owned()));
}

#[test]
fn another_encoding_of_the_track_is_a_layer_change_and_no_gap() {
    let mut meter = meter();
    assign(&mut meter, 10, "TR_1");
    for (stream, number) in [(1, 0), (1, 1), (101, 1), (101, 2), (101, 3), (1, 4)] {
        frame(&mut meter, stream, number, 50 + 33 * number);
    }
    sent(&meter, 1, 5);
    look(&mut meter, 300, true);
    let [changes, received, expected, misrouted] = counts(
        &mut meter,
        [
            Counter::LayerChanges,
            Counter::VideoReceived,
            Counter::VideoExpected,
            Counter::Misrouted,
        ],
    );
    assert_eq!((changes, received, expected, misrouted), (2, 5, 5, 0));
}

#[test]
fn what_is_sent_while_a_slot_is_paused_is_not_expected() {
    let mut meter = meter();
    assign(&mut meter, 10, "TR_1");
    for number in 0..10 {
        frame(&mut meter, 1, number, 50 + 33 * number);
    }
    let notice = |paused: bool| {
        let text = format!(r#"{{"type":"slot","mid":"0","track":"TR_1","paused":{paused}}}"#);
        let data = text.into_bytes();
        PeerEvent::Data {
            binary: false,
            data,
        }
    };
    meter.on_event(at(400), KEY, notice(true));
    sent(&meter, 1, 200);
    look(&mut meter, 6_000, false);
    meter.on_event(at(6_000), KEY, notice(false));
    look(&mut meter, 6_100, false);
    for number in 200..210 {
        frame(&mut meter, 1, number, 6_200 + 33 * (number - 200));
    }
    sent(&meter, 1, 210);
    look(&mut meter, 7_000, true);
    let [pauses, paused, received, expected, silent] = counts(
        &mut meter,
        [
            Counter::Pauses,
            Counter::PausedMillis,
            Counter::VideoReceived,
            Counter::VideoExpected,
            Counter::SilentSlots,
        ],
    );
    assert_eq!((pauses, received, expected, silent), (1, 20, 20, 0));
    assert_eq!(paused, 5_600);
}

#[test]
fn frames_of_another_room_or_track_are_misrouted() {
    let mut meter = meter();
    assign(&mut meter, 10, "TR_1");
    frame(&mut meter, 1, 0, 50);
    frame(&mut meter, 2, 0, 60); // Same room, not what the slot shows.
    frame(&mut meter, 3, 0, 70); // Another room.
    frame(&mut meter, 99, 0, 80); // Nobody's.
    let counted = counts(&mut meter, [Counter::VideoReceived, Counter::Misrouted]);
    assert_eq!(counted, [1, 3]);
}

#[test]
fn the_track_before_is_no_fault_for_a_moment() {
    let mut meter = meter();
    assign(&mut meter, 10, "TR_1");
    frame(&mut meter, 1, 0, 50);
    assign(&mut meter, 100, "TR_2");
    frame(&mut meter, 1, 1, 150);
    frame(&mut meter, 2, 7, 200);
    frame(&mut meter, 1, 2, 2_200);
    let of = [
        Counter::VideoReceived,
        Counter::Misrouted,
        Counter::SlotChanges,
    ];
    assert_eq!(counts(&mut meter, of), [2, 1, 1]);
}

#[test]
fn delivery_compares_with_what_was_sent_from_the_first_frame_on() {
    let mut meter = meter();
    sent(&meter, 1, 100);
    assign(&mut meter, 10, "TR_1");
    for number in (100..200).filter(|n| n % 10 != 9) {
        frame(&mut meter, 1, number, 1_000 + number * 10);
    }
    sent(&meter, 1, 200);
    look(&mut meter, 3_000, false);
    // What was sent since the last look may be on its way.
    let of = [Counter::VideoExpected, Counter::VideoReceived];
    assert_eq!(counts(&mut meter, of), [0, 90]);
    look(&mut meter, 4_000, false);
    assert_eq!(counts(&mut meter, of), [100, 0]);
    sent(&meter, 1, 210);
    look(&mut meter, 5_000, true);
    assert_eq!(counts(&mut meter, of), [10, 0]);
}

#[test]
fn a_track_of_which_nothing_comes_is_silent_once() {
    let mut meter = meter();
    assign(&mut meter, 10, "TR_1");
    let of = [Counter::SilentSlots, Counter::VideoExpected];
    look(&mut meter, 4_000, false);
    assert_eq!(counts(&mut meter, of), [0, 0], "nothing was sent");
    sent(&meter, 1, 100);
    look(&mut meter, 5_000, false);
    look(&mut meter, 6_000, false);
    look(&mut meter, 7_000, true);
    assert_eq!(counts(&mut meter, of), [1, 100]);
}

#[test]
fn a_player_follows_whatever_its_room_sends() {
    let mut meter = meter();
    meter.follow(at(5), KEY, &[Codec::Vp8]);
    let of = [Counter::SilentSlots];
    await_frames(&mut meter, 4_000);
    assert_eq!(counts(&mut meter, of), [0], "nothing was sent");
    sent(&meter, 1, 100);
    await_frames(&mut meter, 4_000);
    await_frames(&mut meter, 5_000);
    assert_eq!(counts(&mut meter, of), [1]);
    frame(&mut meter, 1, 5, 50);
    frame(&mut meter, 2, 0, 100);
    frame(&mut meter, 3, 0, 150);
    let counted = counts(&mut meter, [Counter::VideoReceived, Counter::Misrouted]);
    assert_eq!(counted, [2, 1]);
}

fn await_frames(meter: &mut Meter, now: u64) {
    let Meter {
        sessions,
        registry,
        account,
        ..
    } = meter;
    let session = sessions.get_mut(&KEY).unwrap();
    session.slots[0].count_awaited(registry, account, at(now), ROOM);
}

#[test]
fn stages_of_a_join_leave_waiting_out() {
    let mut meter = meter();
    meter.on_event(at(20), KEY, PeerEvent::IceConnected);
    let (dtls, srtp_profile) = ("1.3", "SRTP_AEAD_AES_256_GCM");
    meter.on_event(at(50), KEY, PeerEvent::Connected { dtls, srtp_profile });
    // Somebody publishes ten seconds later.
    meter
        .registry
        .stream(1)
        .unwrap()
        .started
        .store(at(10_000).as_nanos(), Relaxed);
    assign(&mut meter, 9_990, "TR_1");
    frame(&mut meter, 1, 0, 10_030);
    let (hists, _) = meter.account.take();
    let ms = |h: Hist| hists[&h].max().unwrap().as_millis();
    assert_eq!(
        (ms(Hist::JoinHttp), ms(Hist::JoinIce), ms(Hist::JoinDtls)),
        (5, 15, 30)
    );
    assert_eq!(
        (ms(Hist::JoinFirstPacket), ms(Hist::JoinFirstFrame)),
        (25, 5)
    );
    assert_eq!(ms(Hist::JoinTotal), 80);
}
