//! Who is heard, who speaks, and which encodings are asked for.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use sealcast_media::limits::LOUDEST;
use sealcast_media::{LayerLimit, MediaEvent, PeerKey};
use sealcast_model::{SlotId, Source};
use sealcast_rtp::{Extension, HeaderFields};
use support::*;

/// A packet of `key`'s audio, number `n`, at this level.
fn voice(key: u32, n: u16, minus_dbov: u8) -> Vec<u8> {
    let fields = HeaderFields {
        payload_type: OPUS_IN,
        sequence_number: n,
        timestamp: u32::from(n) * 960,
        ssrc: audio_ssrc(key),
        ..HeaderFields::default()
    };
    let level = Extension {
        id: EXT_LEVEL,
        data: &[0x80 | minus_dbov],
    };
    let mut payload = sframe(context(key, AUDIO_MID), u64::from(n) + 1);
    payload.extend([key as u8; 60]);
    rtp(fields, &[level], &payload)
}

#[test]
fn the_loudest_are_heard_and_the_speaker_is_told() {
    let mut relay = Relay::new();
    let speakers = LOUDEST as u32 + 4;
    for key in 1..=speakers {
        relay.join(key);
        relay.publish(key, AUDIO_MID, Source::Audio);
    }
    // Peer 100 listens to everybody; it has a slot for each.
    relay.join(100);
    for key in 1..=speakers {
        let slot = key as u16 - 1;
        relay
            .assign(100, slot, Some(track(key, AUDIO_MID)))
            .unwrap();
    }
    // Everybody talks over everybody, the first ones loudest; then the last one alone.
    let mut heard = Vec::new();
    for n in 0..300u16 {
        let before = relay.out.rtp.len();
        for key in 1..=speakers {
            let level = match (n < 200, key) {
                (true, key) => 20 + 3 * key as u8,
                (false, key) if key == speakers => 20,
                (false, _) => 110,
            };
            relay.receive(key, &voice(key, n, level));
        }
        relay.flush();
        let mut from: Vec<u32> = relay.out.rtp[before..]
            .iter()
            .filter(|sent| sent.to == 100)
            .map(|sent| u32::from(*sent.payload.last().unwrap()))
            .collect();
        from.sort_unstable();
        heard.push(from);
        relay.advance_ms(20);
    }
    assert_eq!(heard[199], (1..=LOUDEST as u32).collect::<Vec<_>>());
    assert!(heard[299].contains(&speakers), "{:?}", heard[299]);
    for slot in 0..speakers as u16 {
        let indices: Vec<u64> = relay
            .out
            .rtp
            .iter()
            .filter(|sent| sent.header.ssrc == slot_ssrc(100, slot))
            .map(|sent| sent.index)
            .collect();
        assert!(indices.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
    let told: Vec<_> = relay
        .events
        .iter()
        .filter_map(|event| match event {
            MediaEvent::SpeakerChanged {
                peer: PeerKey(100),
                track,
            } => Some(*track),
            _ => None,
        })
        .collect();
    let want = [Some(track(1, AUDIO_MID)), Some(track(speakers, AUDIO_MID))];
    assert_eq!(told, want);
}

/// What publisher 1 was told of its encodings, as bits.
fn told(relay: &Relay) -> Vec<u8> {
    let told = relay.events.iter().filter_map(|event| match event {
        MediaEvent::EncodingsWanted {
            peer: PeerKey(1),
            active,
            count: 3,
            ..
        } => Some(*active),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_publisher_is_told_which_encodings_nobody_gets_and_asked_for_them_again() {
    let mut relay = Relay::new();
    relay.join_room(1, 1, &simulcast_media(1));
    relay.join_room(2, 1, &controlled(media(2)));
    relay.engine.peer_connected(relay.now, PeerKey(1));
    relay.engine.peer_connected(relay.now, PeerKey(2));
    let track = relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, VIDEO_SLOTS, Some(track)).unwrap();
    let mut cameras: Vec<_> = (0..3).map(|n| Camera::simulcast(1, n)).collect();
    let mut frame = 0u32;
    let mut widths = Vec::new();
    // The publisher sends what it was last told to.
    let mut play = |relay: &mut Relay, seconds: u32| {
        let before = relay.out.rtp.len();
        for _ in 0..30 * seconds {
            let active = told(relay).last().copied().unwrap_or(0b111);
            relay.receive_rtcp(2, |writer| writer.remb(9, 20_000_000, &[]).unwrap());
            for (n, camera) in cameras.iter_mut().enumerate() {
                if active >> n & 1 == 1 {
                    for packet in camera.frame(frame.is_multiple_of(15), [1, 4, 12][n]) {
                        relay.receive(1, &packet);
                    }
                }
            }
            frame += 1;
            relay.flush();
            relay.advance_ms(33);
        }
        let last_key = relay.out.rtp[before..]
            .iter()
            .rev()
            .map(|sent| &sent.payload)
            .find(|p| p[0] == 0x90 && p[6] & 1 == 0);
        widths.push(last_key.map(|p| u16::from_le_bytes([p[12], p[13]])));
    };
    let limit = |relay: &mut Relay, spatial| {
        let limit = LayerLimit {
            spatial,
            temporal: u8::MAX,
        };
        let (now, slot) = (relay.now, SlotId(VIDEO_SLOTS));
        relay
            .engine
            .limit_slot(now, PeerKey(2), slot, limit)
            .unwrap();
    };
    play(&mut relay, 8);
    assert_eq!(
        told(&relay),
        [0b101],
        "the largest is wanted, the smallest always"
    );
    limit(&mut relay, 0);
    play(&mut relay, 8);
    assert_eq!(told(&relay).last(), Some(&0b001));
    limit(&mut relay, 2);
    play(&mut relay, 4);
    assert_eq!(told(&relay).last().unwrap() & 0b100, 0b100);
    play(&mut relay, 4);
    assert_eq!(widths, [Some(640), Some(160), Some(640), Some(640)]);
}
