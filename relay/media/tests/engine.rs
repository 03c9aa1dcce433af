//! The engine as a shard drives it: rooms, tracks and slots, packets in and out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_media::{LayerLimit, MediaEvent, PeerKey};
use sealcast_model::{AssignSlot, CommandError, Counter, Gauge, SealRule, SlotId, Source, TrackId};
use sealcast_rtp::{Extension, HeaderFields};
use std::collections::BTreeSet;
use std::time::Duration;
use support::*;

const V0: u16 = VIDEO_SLOTS;

/// Three peers that each show both others in their first slots.
fn consult() -> (Relay, Vec<Voice>, Vec<Camera>) {
    let mut relay = Relay::new();
    let peers = [1, 2, 3];
    for key in peers {
        relay.join(key);
        relay.publish(key, AUDIO_MID, Source::Audio);
        relay.publish(key, VIDEO_MID, Source::Camera);
    }
    for key in peers {
        for (n, other) in (0u16..).zip(peers.into_iter().filter(|other| *other != key)) {
            relay.assign(key, n, Some(track(other, AUDIO_MID))).unwrap();
            relay
                .assign(key, V0 + n, Some(track(other, VIDEO_MID)))
                .unwrap();
        }
    }
    relay.drain_events();
    relay.events.clear();
    (
        relay,
        peers.map(Voice::new).into(),
        peers.map(Camera::new).into(),
    )
}

#[test]
fn three_peers_hear_and_see_each_other() {
    let (mut relay, mut voices, mut cameras) = consult();
    // Somebody in another room, who must get nothing.
    relay.join_room(9, 2, &media(9));
    relay.engine.peer_connected(relay.now, PeerKey(9));
    for round in 0..50 {
        for voice in &mut voices {
            let packet = voice.next();
            relay.receive(voice.key, &packet);
        }
        for camera in &mut cameras {
            for packet in camera.frame(round == 0, 3) {
                relay.receive(camera.key, &packet);
            }
        }
        relay.flush();
        assert!(relay.pool_is_whole(), "every buffer is free after a flush");
        relay.advance_ms(33);
    }
    // Each of three gets from two others 50 audio packets and 150 of video.
    assert_eq!(relay.out.rtp.len(), 3 * 2 * (50 + 150));
    for key in [1, 2, 3] {
        for slot in [0, 1, V0, V0 + 1] {
            let got: Vec<_> = relay
                .out
                .rtp
                .iter()
                .filter(|p| p.to == key && p.header.ssrc == slot_ssrc(key, slot))
                .collect();
            assert_eq!(got.len(), if slot < V0 { 50 } else { 150 });
            assert!(got[0].index < 0x8000, "the first index has no roll-over");
            assert!(
                got.windows(2).all(|w| w[1].index == w[0].index + 1),
                "no gap"
            );
            for packet in got {
                assert_eq!(
                    packet.header.payload_type,
                    if slot < V0 { OPUS_OUT } else { VP8_OUT }
                );
                assert_eq!(
                    packet.extension(EXT_MID),
                    Some(format!("s{slot}").as_bytes())
                );
                assert_eq!(packet.extension(EXT_RID), None);
                assert_eq!(packet.extension(EXT_LEVEL).is_some(), slot < V0);
            }
        }
        // All packets to one peer are numbered in one row for its congestion control.
        let numbers: Vec<u16> = relay
            .out
            .rtp
            .iter()
            .filter(|p| p.to == key)
            .map(|p| u16::from_be_bytes(p.extension(EXT_TWCC).unwrap().try_into().unwrap()))
            .collect();
        assert!(numbers.iter().copied().eq(0..400));
    }
    assert!(relay.out.rtp.iter().all(|p| p.to != 9));
    let started = relay
        .events
        .iter()
        .filter(|e| matches!(e, MediaEvent::TrackStarted { .. }))
        .count();
    assert_eq!(started, 6);
    assert_eq!(relay.stats.gauge(Gauge::Subscriptions), 12);
}

#[test]
fn payloads_leave_as_they_came_and_slots_are_restored() {
    let mut relay = Relay::new();
    for key in [1, 2, 3, 4] {
        relay.join(key);
    }
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    let other = relay.publish(2, VIDEO_MID, Source::Camera);
    let (mut first, mut second) = (Camera::new(1), Camera::new(2));
    // Peer 3 has seen another source before, so its picture ids differ; peer 4 has not.
    relay.assign(3, V0, Some(other)).unwrap();
    second
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(2, p));
    relay.flush();
    relay.assign(3, V0, Some(shown)).unwrap();
    relay.assign(4, V0, Some(shown)).unwrap();
    let packets = first.frame(true, 4);
    packets.iter().for_each(|p| relay.receive(1, p));
    let sent = relay.flush();
    for (to, rewritten) in [(3, true), (4, false)] {
        let got: Vec<_> = sent.iter().filter(|p| p.to == to).collect();
        assert_eq!(got.len(), 4);
        for (packet, original) in got.iter().zip(&packets) {
            let original = &original[original.len() - packet.payload.len()..];
            assert_eq!(packet.payload[..2], original[..2]);
            assert_eq!(
                packet.payload[5..],
                original[5..],
                "only the numbers change"
            );
            assert_eq!(
                packet.payload[2..5] != original[2..5],
                rewritten,
                "peer {to}"
            );
        }
    }
    // One destination's packets come in one run.
    let order: Vec<u32> = sent.iter().map(|p| p.to).collect();
    assert_eq!(order, [3, 3, 3, 3, 4, 4, 4, 4]);
}

#[test]
fn a_slot_changes_its_source_at_a_key_frame_and_counts_on() {
    let (mut relay, _, mut cameras) = consult();
    // One frame of each camera; what slot 0 of peer 3 gets of it.
    let mut play = |relay: &mut Relay, key_frames: [bool; 2]| {
        for (camera, key_frame) in cameras.iter_mut().zip(key_frames) {
            let frame = camera.frame(key_frame, 2);
            frame.iter().for_each(|p| relay.receive(camera.key, p));
        }
        let sent = relay.flush();
        relay.now += Duration::from_nanos(33_333_333);
        relay.advance_ms(0);
        let seen = |p: &SentRtp| p.to == 3 && p.header.ssrc == slot_ssrc(3, V0);
        sent.into_iter().filter(seen).collect::<Vec<_>>()
    };
    for n in 0..20 {
        play(&mut relay, [n == 0; 2]);
    }
    let before = play(&mut relay, [false; 2]).pop().unwrap();
    // The slot shows peer 1; now it is to show peer 2, who is in the middle of a GOP.
    relay.events.clear();
    let asked = relay.plis_to(2, video_ssrc(2));
    relay.assign(3, V0, Some(track(2, VIDEO_MID))).unwrap();
    relay.flush();
    assert_eq!(
        relay.plis_to(2, video_ssrc(2)),
        asked + 1,
        "a key frame is asked for at once"
    );
    assert!(matches!(
        relay.events[..],
        [MediaEvent::SlotChanged { peer: PeerKey(3), slot: SlotId(V0), track: Some(t), revision: 5, .. }]
            if t == track(2, VIDEO_MID)
    ));
    assert!(
        play(&mut relay, [true, false]).is_empty(),
        "nobody can decode from here, and the old source is gone"
    );
    let after = play(&mut relay, [false, true]);
    assert_eq!(after.len(), 2);
    assert_eq!(after[0].index, before.index + 1, "no gap");
    let (old, new) = (picture(&before), picture(&after[0]));
    assert_eq!(
        (new.0, new.1),
        (old.0 + 1, old.1.wrapping_add(1)),
        "picture id and TL0PICIDX count on"
    );
    // Two frame times passed.
    let passed = after[0]
        .header
        .timestamp
        .wrapping_sub(before.header.timestamp);
    assert!(passed.abs_diff(6_000) <= 1, "{passed}");
}

#[test]
fn a_muted_track_is_silent_and_comes_back_without_a_gap() {
    let (mut relay, mut voices, mut cameras) = consult();
    let mut round = |relay: &mut Relay, key_frame| {
        relay.receive(1, &voices[0].next());
        cameras[0]
            .frame(key_frame, 2)
            .iter()
            .for_each(|p| relay.receive(1, p));
        let sent = relay.flush();
        relay.advance_ms(20);
        sent
    };
    let before = round(&mut relay, true);
    assert_eq!(before.len(), 6);
    for mid in [AUDIO_MID, VIDEO_MID] {
        relay.engine.set_muted(relay.now, track(1, mid), true);
    }
    assert!((0..5).all(|_| round(&mut relay, false).is_empty()));
    assert_eq!(relay.count(Counter::DropMuted), 15);
    let asked = relay.plis_to(1, video_ssrc(1));
    for mid in [AUDIO_MID, VIDEO_MID] {
        relay.engine.set_muted(relay.now, track(1, mid), false);
    }
    let audio_only = round(&mut relay, false);
    assert_eq!(audio_only.len(), 2, "video waits for a key frame");
    assert_eq!(relay.plis_to(1, video_ssrc(1)), asked + 1);
    let after = round(&mut relay, true);
    for (ssrc, packets) in [(slot_ssrc(2, 0), 1), (slot_ssrc(2, V0), 2)] {
        let index = |sent: &[SentRtp]| {
            sent.iter()
                .filter(|p| p.header.ssrc == ssrc)
                .map(|p| p.index)
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = [&before[..], &audio_only[..], &after[..]]
            .iter()
            .flat_map(|s| index(s))
            .collect();
        assert!(all.windows(2).all(|w| w[1] == w[0] + 1), "{all:?}");
        assert!(all.len() >= 2 * packets);
    }
}

#[test]
fn packets_that_wait_when_a_track_is_muted_are_not_sent() {
    let (mut relay, mut voices, _) = consult();
    relay.receive(1, &voices[0].next());
    relay.engine.set_muted(relay.now, track(1, AUDIO_MID), true);
    assert!(relay.flush().is_empty());
    assert!(relay.pool_is_whole());
}

#[test]
fn leaving_empties_slots_and_frees_everything() {
    let (mut relay, mut voices, mut cameras) = consult();
    for n in 0..3 {
        relay.receive(n + 1, &voices[n as usize].next());
        cameras[n as usize]
            .frame(true, 3)
            .iter()
            .for_each(|p| relay.receive(n + 1, p));
    }
    // Peer 2 leaves with packets still in the inbox.
    relay
        .engine
        .remove_peer(relay.now, &mut relay.pool, PeerKey(2));
    relay.drain_events();
    let emptied: BTreeSet<_> = relay
        .events
        .iter()
        .filter_map(|e| match e {
            MediaEvent::SlotChanged {
                peer,
                slot,
                track: None,
                ..
            } => Some((peer.0, slot.0)),
            _ => None,
        })
        .collect();
    assert_eq!(
        emptied,
        BTreeSet::from([(1, 0), (1, V0), (3, 1), (3, V0 + 1)])
    );
    let sent = relay.flush();
    assert!(sent.iter().all(|p| p.to != 2));
    assert_eq!(
        sent.len(),
        8,
        "1 and 3 still get each other: an audio packet and three of video"
    );
    for key in [1, 3] {
        relay.receive(key, &voices[key as usize - 1].next());
        relay
            .engine
            .remove_peer(relay.now, &mut relay.pool, PeerKey(key));
    }
    assert!(relay.pool_is_whole());
    for gauge in [Gauge::Rooms, Gauge::Tracks, Gauge::Subscriptions] {
        assert_eq!(relay.stats.gauge(gauge), 0, "{gauge:?}");
    }
    relay.advance_ms(5_000);
    assert_eq!(
        relay.engine.poll_timeout(),
        sealcast_model::Time::NEVER,
        "no timer is left behind"
    );
    // The key may be used again.
    relay.join(2);
    relay.publish(2, AUDIO_MID, Source::Audio);
}

#[test]
fn nothing_is_sent_before_the_receiver_is_connected() {
    let mut relay = Relay::new();
    relay.join(1);
    relay.join_room(2, 1, &media(2));
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, V0, Some(shown)).unwrap();
    let mut camera = Camera::new(1);
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    assert!(relay.flush().is_empty());
    assert_eq!(relay.plis_to(1, video_ssrc(1)), 0);
    relay.engine.peer_connected(relay.now, PeerKey(2));
    relay.flush();
    assert_eq!(relay.plis_to(1, video_ssrc(1)), 1);
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    assert_eq!(relay.flush().len(), 1);
}

#[test]
fn padding_and_empty_frames_leave_no_gap() {
    let (mut relay, mut voices, mut cameras) = consult();
    let mut sent = Vec::new();
    for n in 0..20 {
        cameras[0]
            .frame(n == 0, 1)
            .iter()
            .for_each(|p| relay.receive(1, p));
        let padding = HeaderFields {
            payload_type: VP8_IN,
            sequence_number: cameras[0].sequence,
            ssrc: video_ssrc(1),
            has_padding: true,
            ..HeaderFields::default()
        };
        cameras[0].sequence += 1;
        relay.receive(1, &rtp(padding, &[], &[0, 0, 0, 4]));
        let empty = HeaderFields {
            payload_type: OPUS_IN,
            sequence_number: voices[0].sequence,
            ssrc: audio_ssrc(1),
            ..HeaderFields::default()
        };
        voices[0].sequence = voices[0].sequence.wrapping_add(1);
        relay.receive(1, &rtp(empty, &[], &[]));
        relay.receive(1, &voices[0].next());
        sent.extend(relay.flush());
    }
    for slot in [0, V0] {
        let indices: Vec<_> = sent
            .iter()
            .filter(|p| p.header.ssrc == slot_ssrc(2, slot))
            .map(|p| p.index)
            .collect();
        assert_eq!(indices.len(), 20);
        assert!(indices.windows(2).all(|w| w[1] == w[0] + 1));
    }
}

#[test]
fn an_unsealed_publisher_is_blocked_and_disturbs_nobody() {
    let (mut relay, mut voices, mut cameras) = consult();
    (voices[0].sealed, cameras[0].sealed) = (false, false);
    let mut leaked = 0;
    for round in 0..30 {
        for n in 0..3u32 {
            relay.receive(n + 1, &voices[n as usize].next());
            cameras[n as usize]
                .frame(round % 10 == 0, 2)
                .iter()
                .for_each(|p| relay.receive(n + 1, p));
        }
        let sent = relay.flush();
        leaked += sent
            .iter()
            .filter(|p| {
                [
                    slot_ssrc(2, 0),
                    slot_ssrc(2, V0),
                    slot_ssrc(3, 0),
                    slot_ssrc(3, V0),
                ]
                .contains(&p.header.ssrc)
            })
            .count();
        assert_eq!(sent.len(), 2 * 2 * 3, "peers 2 and 3 reach both others");
        relay.advance_ms(33);
    }
    assert_eq!(leaked, 0, "not one unsealed packet is forwarded");
    let blocked: Vec<_> = relay
        .events
        .iter()
        .filter(|e| matches!(e, MediaEvent::TrackBlocked { .. }))
        .collect();
    assert_eq!(blocked.len(), 2);
    assert_eq!(relay.count(Counter::TracksBlocked), 2);
    assert_eq!(relay.count(Counter::DropUnsealed), 30 * 3);

    // Sealing alone does not lift it; publishing anew does.
    voices[0].sealed = true;
    relay.receive(1, &voices[0].next());
    assert!(relay.flush().is_empty());
    relay
        .engine
        .unpublish(relay.now, &mut relay.pool, track(1, AUDIO_MID));
    let again = TrackId(77);
    relay
        .try_publish(1, AUDIO_MID, Source::Audio, again, seal(1, AUDIO_MID))
        .unwrap();
    relay.assign(2, 0, Some(again)).unwrap();
    relay.receive(1, &voices[0].next());
    assert_eq!(relay.flush().len(), 1);
}

#[test]
fn unsealed_media_passes_where_the_grant_allows_it() {
    let mut relay = Relay::new();
    relay.join(1);
    relay.join(2);
    relay
        .try_publish(1, AUDIO_MID, Source::Audio, TrackId(5), SealRule::Any)
        .unwrap();
    relay.assign(2, 0, Some(TrackId(5))).unwrap();
    let mut voice = Voice {
        sealed: false,
        ..Voice::new(1)
    };
    relay.receive(1, &voice.next());
    assert_eq!(relay.flush().len(), 1);
}

#[test]
fn commands_are_refused_whole() {
    let (mut relay, ..) = consult();
    let before = relay.stats.gauge(Gauge::Subscriptions);
    let assign = |relay: &mut Relay, changes: &[(u16, Option<TrackId>)]| {
        let changes: Vec<_> = changes
            .iter()
            .map(|(s, t)| AssignSlot {
                slot: SlotId(*s),
                track: *t,
            })
            .collect();
        relay.engine.assign_slots(relay.now, PeerKey(1), &changes)
    };
    let audio = Some(track(2, AUDIO_MID));
    assert_eq!(
        assign(&mut relay, &[(5, audio), (0, None), (6, Some(TrackId(1)))]),
        Err(CommandError::NoTrack)
    );
    assert_eq!(
        assign(&mut relay, &[(5, audio), (400, audio)]),
        Err(CommandError::NoSlot)
    );
    assert_eq!(
        assign(&mut relay, &[(5, audio), (V0, audio)]),
        Err(CommandError::NoSlot),
        "audio to video"
    );
    assert_eq!(
        assign(&mut relay, &[(5, audio), (5, None)]),
        Err(CommandError::Invalid)
    );
    relay.drain_events();
    assert!(relay.events.is_empty(), "nothing has changed");
    assert_eq!(relay.stats.gauge(Gauge::Subscriptions), before);
    assert_eq!(relay.assign(99, 0, None), Err(CommandError::NoSession));
    // What a slot shows already is no change.
    assert_eq!(assign(&mut relay, &[(0, audio)]), Ok(()));
    relay.drain_events();
    assert!(relay.events.is_empty());

    let publish = |relay: &mut Relay, mid, source, track| {
        relay.try_publish(1, mid, source, TrackId(track), SealRule::Any)
    };
    assert_eq!(
        publish(&mut relay, AUDIO_MID, Source::Audio, 500),
        Err(CommandError::MidInUse)
    );
    assert_eq!(
        publish(&mut relay, "7", Source::Audio, 500),
        Err(CommandError::NoSlot)
    );
    relay
        .engine
        .unpublish(relay.now, &mut relay.pool, track(1, AUDIO_MID));
    assert_eq!(
        publish(&mut relay, AUDIO_MID, Source::Camera, 500),
        Err(CommandError::NoSlot)
    );
    assert_eq!(
        publish(&mut relay, AUDIO_MID, Source::Audio, track(2, AUDIO_MID).0),
        Err(CommandError::Invalid)
    );
}

#[test]
fn a_track_of_another_room_cannot_be_shown() {
    let (mut relay, ..) = consult();
    relay.join_room(9, 2, &media(9));
    assert_eq!(
        relay.assign(9, 0, Some(track(1, AUDIO_MID))),
        Err(CommandError::NoTrack)
    );
}

#[test]
fn a_codec_that_the_receiver_lacks_is_refused() {
    let (mut relay, ..) = consult();
    let mut other = media(8);
    other
        .slots
        .iter_mut()
        .for_each(|slot| slot.codecs.iter_mut().for_each(|c| c.profile = 1));
    relay.join_room(8, 1, &other);
    assert_eq!(
        relay.assign(8, 0, Some(track(1, AUDIO_MID))),
        Err(CommandError::CodecUnsupported)
    );
}

#[test]
fn simulcast_sends_the_best_active_encoding() {
    let mut relay = Relay::new();
    relay.join_room(1, 1, &simulcast_media(1));
    relay.engine.peer_connected(relay.now, PeerKey(1));
    relay.join(2);
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, V0, Some(shown)).unwrap();
    let mut layers: Vec<_> = (0..3).map(|n| Camera::simulcast(1, n)).collect();
    let mut all = Vec::new();
    let mut round = |relay: &mut Relay, active: usize, key_frame: bool| {
        for layer in &mut layers[..active] {
            // Encodings have clocks of their own; reports tie them together.
            if key_frame {
                let ntp = relay.clock.at(relay.now);
                relay.sender_report(1, layer.ssrc, ntp, layer.timestamp.wrapping_add(3_000));
            }
            layer
                .frame(key_frame, 1)
                .iter()
                .for_each(|p| relay.receive(1, p));
        }
        let sent = relay.flush();
        relay.now += Duration::from_micros(33_333);
        relay.advance_ms(0);
        all.extend(sent.clone());
        let sizes: BTreeSet<u16> = sent
            .iter()
            .filter(|p| p.payload[6] & 1 == 0)
            .map(|p| u16::from_le_bytes([p.payload[12], p.payload[13]]))
            .collect();
        (sent.len(), sizes)
    };
    // The first flush knows all three already.
    assert_eq!(round(&mut relay, 3, true), (1, BTreeSet::from([640])));
    for _ in 0..5 {
        assert_eq!(round(&mut relay, 3, false).0, 1);
    }
    // The best one stops: after a while the next takes over, at its key frame.
    let plis = relay.plis_to(1, 70_011);
    for _ in 0..40 {
        assert_eq!(round(&mut relay, 2, false).0, 0);
    }
    assert!(relay.plis_to(1, 70_011) > plis);
    assert_eq!(round(&mut relay, 2, true), (1, BTreeSet::from([320])));
    // It comes back.
    round(&mut relay, 3, false);
    assert!(round(&mut relay, 3, true).1.contains(&640));
    assert_eq!(round(&mut relay, 3, true), (1, BTreeSet::from([640])));
    assert!(all.windows(2).all(|w| w[1].index == w[0].index + 1));
    // The encodings share a clock, so time runs exactly across the switches.
    for pair in all.windows(2) {
        let (a, b) = (pair[0].meta.received, pair[1].meta.received);
        let real = (b - a).as_micros() as i64 * 9 / 100;
        let step = i64::from(
            pair[1]
                .header
                .timestamp
                .wrapping_sub(pair[0].header.timestamp),
        );
        assert!((step - real).abs() <= 3, "{step} against {real}");
    }
}

#[test]
fn a_stream_that_starts_again_with_other_numbers_goes_on() {
    let (mut relay, _, mut cameras) = consult();
    let mut sent = Vec::new();
    let mut play = |relay: &mut Relay, camera: &mut Camera, key_frame| {
        camera
            .frame(key_frame, 2)
            .iter()
            .for_each(|p| relay.receive(1, p));
        sent.extend(relay.flush().into_iter().filter(|p| p.to == 2));
        relay.advance_ms(33);
    };
    play(&mut relay, &mut cameras[0], true);
    // The same SSRC, far ahead.
    cameras[0].sequence += 20_000;
    play(&mut relay, &mut cameras[0], true);
    // Another SSRC, found by its payload type.
    let mut again = Camera {
        ssrc: 4_444,
        sequence: 3,
        picture_id: 9,
        timestamp: 5,
        ..cameras[0].clone()
    };
    play(&mut relay, &mut again, true);
    assert_eq!(sent.len(), 6);
    assert!(sent.windows(2).all(|w| w[1].index == w[0].index + 1));
    let ids: Vec<_> = sent.iter().map(|p| picture(p).0).collect();
    assert_eq!(
        ids,
        [
            ids[0],
            ids[0],
            ids[0] + 1,
            ids[0] + 1,
            ids[0] + 2,
            ids[0] + 2
        ]
    );
}

#[test]
fn two_lives_of_a_stream_in_one_flush_do_not_mix() {
    let (mut relay, _, mut cameras) = consult();
    cameras[0]
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    let mut again = Camera {
        ssrc: 4_444,
        ..cameras[0].clone()
    };
    // Both lives use the same numbers.
    cameras[0]
        .frame(false, 2)
        .iter()
        .for_each(|p| relay.receive(1, p));
    again
        .frame(true, 2)
        .iter()
        .for_each(|p| relay.receive(1, p));
    let sent: Vec<_> = relay.flush().into_iter().filter(|p| p.to == 2).collect();
    let indices: BTreeSet<_> = sent.iter().map(|p| p.index).collect();
    assert_eq!((sent.len(), indices.len()), (2, 2), "the later life alone");
    assert!(relay.pool_is_whole());
}

#[test]
fn network_loss_stays_visible_and_late_packets_take_their_place() {
    let (mut relay, mut voices, _) = consult();
    let packets: Vec<_> = (0..10).map(|_| voices[0].next()).collect();
    for n in [0, 1, 4, 3, 7, 8, 6] {
        relay.receive(1, &packets[n]);
    }
    relay.receive(1, &packets[4]);
    let sent = relay.flush();
    let offsets: Vec<_> = sent
        .iter()
        .filter(|p| p.to == 2)
        .map(|p| p.index - sent[0].index)
        .collect();
    assert_eq!(offsets, [0, 1, 4, 3, 7, 8, 6]);
    assert_eq!(relay.count(Counter::DropDuplicate), 1);
}

#[test]
fn a_retransmission_takes_the_place_of_what_was_lost() {
    let (mut relay, _, mut cameras) = consult();
    let packets: Vec<_> = (0..4).flat_map(|n| cameras[0].frame(n == 0, 2)).collect();
    packets
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != 3)
        .for_each(|(_, p)| relay.receive(1, p));
    let sent = relay.flush();
    let first = sent[0].index;
    let of_two = |sent: &[SentRtp]| {
        sent.iter()
            .filter(|p| p.to == 2)
            .map(|p| p.index - first)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_two(&sent), [0, 1, 2, 4, 5, 6, 7]);
    // RFC 4588 §4: its own SSRC, payload type and number; the original number first.
    let lost = sealcast_rtp::RtpHeader::parse(&packets[3]).unwrap();
    let payload = [
        &lost.sequence_number.to_be_bytes()[..],
        lost.payload(&packets[3]),
    ]
    .concat();
    let fields = HeaderFields {
        marker: lost.marker,
        payload_type: VP8_RTX_IN,
        sequence_number: 4_321,
        timestamp: lost.timestamp,
        ssrc: video_ssrc(1) + 500,
        has_padding: false,
    };
    relay.receive(1, &rtp(fields, &[], &payload));
    let repaired = relay.flush();
    assert_eq!(of_two(&repaired), [3]);
    let (again, whole) = (&repaired[0], lost.payload(&packets[3]));
    assert_eq!(again.payload, whole);
    assert_eq!(
        (again.header.payload_type, again.header.marker),
        (VP8_OUT, true)
    );
    // Once more, and one that arrived in the first place, and a probe of padding.
    let repeat = HeaderFields {
        sequence_number: 4_322,
        ..fields
    };
    relay.receive(1, &rtp(repeat, &[], &payload));
    assert_eq!(relay.count(Counter::DropDuplicate), 1);
    let probe = HeaderFields {
        has_padding: true,
        sequence_number: 4_323,
        ..fields
    };
    relay.receive(1, &rtp(probe, &[], &[0, 0, 0, 4]));
    assert!(relay.flush().is_empty());
    assert!(relay.pool_is_whole());
}

#[test]
fn what_cannot_be_placed_is_counted_by_reason() {
    let (mut relay, mut voices, _) = consult();
    relay.receive(1, &[0; 5]);
    assert_eq!(relay.count(Counter::DropRtpMalformed), 1);
    relay.receive(50, &voices[0].next());
    assert_eq!(relay.count(Counter::DropUnknownSource), 1);
    let fields = HeaderFields {
        payload_type: 5,
        ssrc: audio_ssrc(1),
        ..HeaderFields::default()
    };
    relay.receive(1, &rtp(fields, &[], &[1]));
    assert_eq!(relay.count(Counter::DropUnknownPayload), 1);
    let fields = HeaderFields {
        payload_type: 5,
        ssrc: 123_456,
        ..HeaderFields::default()
    };
    relay.receive(1, &rtp(fields, &[], &[1]));
    relay.receive(
        1,
        &rtp(
            fields,
            &[Extension {
                id: EXT_MID,
                data: b"none",
            }],
            &[1],
        ),
    );
    assert_eq!(relay.count(Counter::DropUnknownSsrc), 2);
    relay
        .engine
        .unpublish(relay.now, &mut relay.pool, track(1, AUDIO_MID));
    relay.receive(1, &voices[0].next());
    assert_eq!(relay.count(Counter::DropNotPublished), 1);
    assert!(relay.pool_is_whole());
}

#[test]
fn a_flood_of_ssrcs_binds_only_as_many_as_there_are_streams() {
    let (mut relay, ..) = consult();
    for ssrc in 0..5_000 {
        let fields = HeaderFields {
            payload_type: OPUS_IN,
            ssrc: 1_000_000 + ssrc,
            ..HeaderFields::default()
        };
        relay.receive(
            1,
            &rtp(
                fields,
                &[],
                &sframe(context(1, AUDIO_MID), u64::from(ssrc) + 9),
            ),
        );
        relay.flush();
    }
    // Each was a new life of the one audio stream; peers 2 and 3 were sent one packet for each.
    let got: Vec<_> = relay
        .out
        .rtp
        .iter()
        .filter(|p| p.to == 2)
        .map(|p| p.index)
        .collect();
    assert_eq!(got.len(), 5_000);
    assert!(got.windows(2).all(|w| w[1] == w[0] + 1));
}

#[test]
fn renegotiation_keeps_what_was_there() {
    let (mut relay, mut voices, mut cameras) = consult();
    let mut round = |relay: &mut Relay, key_frame| {
        relay.receive(1, &voices[0].next());
        cameras[0]
            .frame(key_frame, 1)
            .iter()
            .for_each(|p| relay.receive(1, p));
        let sent: Vec<_> = relay.flush().into_iter().filter(|p| p.to == 2).collect();
        relay.advance_ms(33);
        sent
    };
    let before = round(&mut relay, true);
    // Peer 1 adds a screen in front, peer 2 moves its extension ids and payload types.
    let mut first = media(1);
    let mut screen = first.receive[1].clone();
    screen.mid = token("2");
    screen.ssrcs.clear();
    first.receive.insert(0, screen);
    relay
        .engine
        .update_peer(relay.now, PeerKey(1), &first)
        .unwrap();
    let mut second = media(2);
    second.extensions = vec![(7, sealcast_model::HeaderExtension::Mid)];
    second
        .slots
        .iter_mut()
        .for_each(|slot| slot.codecs[0].pt = 100);
    relay
        .engine
        .update_peer(relay.now, PeerKey(2), &second)
        .unwrap();
    let after = round(&mut relay, false);
    assert_eq!((before.len(), after.len()), (2, 2));
    for (a, b) in before.iter().zip(&after) {
        assert_eq!((a.header.ssrc, a.index + 1), (b.header.ssrc, b.index));
        assert_eq!(b.header.payload_type, 100);
        assert_eq!(b.extension(7), a.extension(EXT_MID));
        assert_eq!(b.header.extensions(&b.bytes).count(), 1);
    }
    // An m-line that goes takes its track along.
    first.receive.retain(|m| m.mid != token(VIDEO_MID));
    relay.events.clear();
    relay
        .engine
        .update_peer(relay.now, PeerKey(1), &first)
        .unwrap();
    relay.drain_events();
    assert_eq!(relay.events.len(), 2, "two slots fall empty");
    assert_eq!(round(&mut relay, false).len(), 1, "audio goes on");
    // Its payload type now belongs to the screen alone, which nobody has published.
    assert_eq!(relay.count(Counter::DropNotPublished), 1);
    // Slots that go, go.
    second.slots.truncate(0);
    relay
        .engine
        .update_peer(relay.now, PeerKey(2), &second)
        .unwrap();
    assert!(round(&mut relay, false).is_empty());
    // A slot may not change what its receiver relies on.
    let mut third = media(3);
    third.slots[0].ssrc += 1_000_000;
    assert_eq!(
        relay.engine.update_peer(relay.now, PeerKey(3), &third),
        Err(CommandError::Invalid)
    );
}

#[test]
fn a_temporal_limit_thins_vp8_without_leaving_gaps() {
    let mut relay = Relay::new();
    for key in [1, 2, 3] {
        relay.join(key);
    }
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, V0, Some(shown)).unwrap();
    relay.assign(3, V0, Some(shown)).unwrap();
    let mut camera = Camera::new(1);
    let mut play = |relay: &mut Relay, frames: std::ops::Range<u32>| {
        for n in frames {
            // Two temporal layers; every other frame is of the upper one, and may be joined at.
            let upper = n % 2 == 1;
            camera.temporal = if upper { 0x60 } else { 0 };
            camera
                .frame(n == 0, 2)
                .iter()
                .for_each(|p| relay.receive(1, p));
            relay.flush();
        }
    };
    play(&mut relay, 0..10);
    let limit = LayerLimit {
        spatial: 0,
        temporal: 0,
    };
    relay
        .engine
        .limit_slot(relay.now, PeerKey(2), SlotId(V0), limit)
        .unwrap();
    play(&mut relay, 10..30);
    relay
        .engine
        .limit_slot(relay.now, PeerKey(2), SlotId(V0), LayerLimit::ALL)
        .unwrap();
    play(&mut relay, 30..40);
    let got = |key| relay.out.rtp.iter().filter(move |p| p.to == key);
    assert_eq!(
        (got(2).count(), got(3).count()),
        (2 * (10 + 10 + 10), 2 * 40)
    );
    for key in [2, 3] {
        let all: Vec<_> = got(key).collect();
        assert!(all.windows(2).all(|w| w[1].index == w[0].index + 1));
        let ids: Vec<_> = all.iter().map(|p| picture(p).0).collect();
        assert!(
            ids.chunks(2).all(|c| c[0] == c[1])
                && ids
                    .chunks(2)
                    .zip(ids.chunks(2).skip(1))
                    .all(|(a, b)| b[0] == a[0] + 1)
        );
    }
    // Timestamps tell the truth: the thinned part is 6,000 ticks apart.
    let steps: BTreeSet<_> = got(2)
        .step_by(2)
        .collect::<Vec<_>>()
        .windows(2)
        .map(|w| w[1].header.timestamp - w[0].header.timestamp)
        .collect();
    assert_eq!(steps, BTreeSet::from([3_000, 6_000]));
    assert_eq!(
        relay.plis_to(1, video_ssrc(1)),
        0,
        "no key frame is needed for it"
    );
    let unknown = relay
        .engine
        .limit_slot(relay.now, PeerKey(2), SlotId(999), LayerLimit::ALL);
    assert_eq!(unknown, Err(CommandError::NoSlot));
}

#[test]
fn an_encoding_limit_holds_per_receiver() {
    let mut relay = Relay::new();
    relay.join_room(1, 1, &simulcast_media(1));
    relay.engine.peer_connected(relay.now, PeerKey(1));
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    for (key, spatial) in [(2, 0), (3, 1), (4, 9)] {
        relay.join(key);
        relay.assign(key, V0, Some(shown)).unwrap();
        let limit = LayerLimit {
            spatial,
            temporal: 9,
        };
        relay
            .engine
            .limit_slot(relay.now, PeerKey(key), SlotId(V0), limit)
            .unwrap();
    }
    let mut layers: Vec<_> = (0..3).map(|n| Camera::simulcast(1, n)).collect();
    let widths = |sent: &[SentRtp]| {
        let key_frames = sent.iter().filter(|p| p.payload[6] & 1 == 0);
        key_frames
            .map(|p| (p.to, u16::from_le_bytes([p.payload[12], p.payload[13]])))
            .collect::<BTreeSet<_>>()
    };
    let mut round = |relay: &mut Relay, key_frame| {
        for layer in &mut layers {
            layer
                .frame(key_frame, 1)
                .iter()
                .for_each(|p| relay.receive(1, p));
        }
        let sent = relay.flush();
        relay.advance_ms(33);
        sent
    };
    assert_eq!(
        widths(&round(&mut relay, true)),
        BTreeSet::from([(2, 160), (3, 320), (4, 640)])
    );
    // Less is wanted: the old encoding goes on until the new one can be joined.
    let limit = LayerLimit {
        spatial: 0,
        temporal: 9,
    };
    relay
        .engine
        .limit_slot(relay.now, PeerKey(4), SlotId(V0), limit)
        .unwrap();
    let asked = relay.plis_to(1, 70_010);
    assert_eq!(
        round(&mut relay, false)
            .iter()
            .filter(|p| p.to == 4)
            .count(),
        1
    );
    assert_eq!(
        relay.plis_to(1, 70_010),
        asked + 1,
        "of the encoding that is wanted"
    );
    assert!(widths(&round(&mut relay, true)).contains(&(4, 160)));
    assert_eq!(
        round(&mut relay, false)
            .iter()
            .filter(|p| p.to == 4)
            .count(),
        1
    );
}
