//! Bandwidth control: feedback to publishers, and what subscribers get of what there is.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use sealcast_media::{MediaEvent, PeerKey};
use sealcast_model::{Counter, SlotId, Source};
use sealcast_rtp::rtcp::{Packet, TransportFeedbackFields};
use sealcast_rtp::{Extension, HeaderFields};
use std::collections::BTreeSet;
use support::*;

/// A publisher of three encodings, and subscriber 2 with congestion control.
struct Call {
    relay: Relay,
    cameras: Vec<Camera>,
    frames: u64,
    /// Packets that the subscriber has told of.
    acknowledged: usize,
}

impl Call {
    fn new(source: Source) -> Self {
        let mut relay = Relay::new();
        relay.join_room(1, 1, &simulcast_media(1));
        relay.join_room(2, 1, &controlled(media(2)));
        relay.engine.peer_connected(relay.now, PeerKey(1));
        relay.engine.peer_connected(relay.now, PeerKey(2));
        let track = relay.publish(1, VIDEO_MID, source);
        relay.assign(2, VIDEO_SLOTS, Some(track)).unwrap();
        Call {
            relay,
            cameras: (0..3).map(|n| Camera::simulcast(1, n)).collect(),
            frames: 0,
            acknowledged: 0,
        }
    }

    /// Plays frames at 30 a second, a key frame whenever one is asked for, and tells the
    /// subscriber's estimate, if any, now and then. Gives the widths of the key frames that reached it and
    /// how many packets did.
    fn play(&mut self, frames: u64, bitrate: u64) -> (BTreeSet<u16>, usize) {
        let before = self.relay.out.rtp.len();
        for _ in 0..frames {
            if bitrate > 0 && self.frames.is_multiple_of(10) {
                self.relay
                    .receive_rtcp(2, |writer| writer.remb(9, bitrate, &[]).unwrap());
            }
            for (n, camera) in self.cameras.iter_mut().enumerate() {
                let key = self.frames.is_multiple_of(15);
                for packet in camera.frame(key, [1, 4, 12][n]) {
                    self.relay.receive(1, &packet);
                }
            }
            self.frames += 1;
            self.relay.flush();
            self.relay.advance_ms(33);
        }
        let video = self.relay.out.rtp[before..]
            .iter()
            .filter(|sent| sent.header.ssrc == slot_ssrc(2, VIDEO_SLOTS));
        let mut widths = BTreeSet::new();
        let mut packets = 0;
        for sent in video {
            packets += 1;
            let p = &sent.payload;
            if p[0] == 0x90 && p[6] & 1 == 0 {
                widths.insert(u16::from_le_bytes([p[12], p[13]]));
            }
        }
        (widths, packets)
    }

    /// Tells the relay that all packets since the last call have arrived as they were sent.
    fn acknowledge(&mut self) {
        let sent = &self.relay.out.rtp[self.acknowledged..];
        self.acknowledged = self.relay.out.rtp.len();
        let numbers: Vec<u16> = sent
            .iter()
            .filter(|sent| sent.to == 2)
            .map(|sent| u16::from_be_bytes(sent.extension(EXT_TWCC).unwrap().try_into().unwrap()))
            .collect();
        let Some(base_sequence_number) = numbers.first().copied() else {
            return;
        };
        let arrivals = vec![Some(self.relay.now.as_micros() as i64); numbers.len()];
        let fields = TransportFeedbackFields {
            base_sequence_number,
            ..TransportFeedbackFields::default()
        };
        self.relay.receive_rtcp(2, |writer| {
            writer.transport_feedback(&fields, &arrivals).unwrap();
        });
    }

    fn pauses(&self) -> Vec<bool> {
        let told = self.relay.events.iter().filter_map(|event| match event {
            MediaEvent::SlotChanged {
                peer: PeerKey(2),
                paused,
                ..
            } => Some(*paused),
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn a_client_is_told_what_its_path_carries_now_and_then() {
    let mut call = Call::new(Source::Camera);
    let told = |call: &Call| -> Vec<u64> {
        let events = call.relay.events.iter();
        events
            .filter_map(|event| match event {
                MediaEvent::PathEstimated { peer, bitrate } => {
                    assert_eq!(*peer, PeerKey(2), "the publisher gives no feedback");
                    Some(*bitrate)
                }
                _ => None,
            })
            .collect()
    };
    call.play(90, 0);
    assert_eq!(told(&call), [], "nothing is known yet");
    call.play(90, 10_000_000);
    call.play(60, 500_000);
    assert_eq!(told(&call).last(), Some(&500_000));
    // A change every 330 ms for ten seconds: at most one a second is told.
    let before = told(&call).len();
    for n in 0..30 {
        call.play(10, [500_000, 300_000][n % 2]);
    }
    let more = told(&call).len() - before;
    assert!((1..=10).contains(&more), "{more} in ten seconds");
    // What does not move is not told again.
    call.play(600, 500_000);
    let settled = told(&call).len();
    call.play(300, 500_000);
    assert_eq!(told(&call).len(), settled);
}

/// The slot's packet indices, media only, have no gap and no repetition.
fn assert_continuous(relay: &Relay) {
    let indices: Vec<u64> = relay
        .out
        .rtp
        .iter()
        .filter(|sent| sent.header.ssrc == slot_ssrc(2, VIDEO_SLOTS))
        .map(|sent| sent.index)
        .collect();
    assert!(indices.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn a_subscriber_gets_the_encodings_that_fit_its_path() {
    let mut call = Call::new(Source::Camera);
    call.play(90, 10_000_000);
    // 13, 53 and 60 kB a second with headers: 100, 350 and 1,000 kbit/s in round numbers.
    assert_eq!(call.play(60, 10_000_000).0, BTreeSet::from([640]));
    call.play(10, 500_000);
    assert_eq!(call.play(60, 500_000).0, BTreeSet::from([320]));
    call.play(10, 200_000);
    assert_eq!(call.play(60, 200_000).0, BTreeSet::from([160]));
    // Nothing fits: it is paused, and said to be.
    assert!(!call.pauses().contains(&true));
    call.play(10, 40_000);
    assert_eq!(call.play(60, 40_000), (BTreeSet::new(), 0));
    assert_eq!(call.pauses().last(), Some(&true));
    // Up again, after a while.
    call.play(120, 10_000_000);
    assert_eq!(call.play(60, 10_000_000).0, BTreeSet::from([640]));
    assert_eq!(call.pauses().last(), Some(&false));
    assert_eq!(call.relay.count(Counter::DiagnosticPaused), 0);
    assert_continuous(&call.relay);
}

#[test]
fn a_diagnostic_track_is_whole_or_paused_and_never_anything_between() {
    let mut call = Call::new(Source::Imaging);
    call.play(60, 10_000_000);
    assert_eq!(call.play(60, 10_000_000).0, BTreeSet::from([640]));
    // The smaller encodings would fit.
    call.play(10, 500_000);
    assert_eq!(call.play(60, 500_000), (BTreeSet::new(), 0));
    assert_eq!(call.pauses(), [false, true]);
    assert_eq!(call.relay.count(Counter::DiagnosticPaused), 1);
    call.play(120, 10_000_000);
    assert_eq!(call.play(60, 10_000_000).0, BTreeSet::from([640]));
    assert_eq!(call.pauses(), [false, true, false]);
    // A place on the screen that the middle one fills.
    let side = |relay: &mut Relay, w, h| {
        relay
            .engine
            .size_slot(relay.now, PeerKey(2), SlotId(VIDEO_SLOTS), w, h)
            .unwrap();
    };
    side(&mut call.relay, 320, 300);
    call.play(20, 10_000_000);
    assert_eq!(call.play(60, 10_000_000).0, BTreeSet::from([320]));
    side(&mut call.relay, 0, 0);
    call.play(5, 10_000_000);
    assert_eq!(call.play(60, 10_000_000), (BTreeSet::new(), 0));
    assert_eq!(call.pauses().last(), Some(&false), "hidden is not paused");
    assert_continuous(&call.relay);
}

#[test]
fn without_any_feedback_a_client_gets_everything() {
    let mut call = Call::new(Source::Camera);
    assert_eq!(call.play(15, 0).0, BTreeSet::from([160]));
    call.play(120, 0);
    assert_eq!(call.play(60, 0).0, BTreeSet::from([640]));
    assert_eq!(call.pauses(), [false]);
}

#[test]
fn probes_pad_the_retransmission_stream_and_nothing_else() {
    let mut call = Call::new(Source::Camera);
    // Twice what the first estimate is can be put to use, and the path says nothing against it.
    for _ in 0..60 {
        call.play(1, 0);
        call.acknowledge();
    }
    let padding: Vec<_> = call
        .relay
        .out
        .rtp
        .iter()
        .filter(|sent| sent.header.ssrc == slot_ssrc(2, VIDEO_SLOTS) + 500)
        .collect();
    assert!(padding.len() >= 5, "{}", padding.len());
    assert_eq!(padding.len() as u64, call.relay.count(Counter::PaddingSent));
    for sent in &padding {
        assert_eq!(sent.bytes[0] & 0x20, 0x20, "the padding bit");
        assert_eq!(sent.bytes.last(), Some(&255));
        assert_eq!(sent.header.payload_type, VP8_OUT + 1);
    }
    // One numbering for everything on the transport.
    let numbers: Vec<u16> = call
        .relay
        .out
        .rtp
        .iter()
        .filter(|sent| sent.to == 2)
        .map(|sent| u16::from_be_bytes(sent.extension(EXT_TWCC).unwrap().try_into().unwrap()))
        .collect();
    assert!(numbers.windows(2).all(|p| p[1] == p[0].wrapping_add(1)));
    assert_continuous(&call.relay);
}

#[test]
fn a_publisher_is_told_when_its_packets_arrived() {
    let mut relay = Relay::new();
    relay.join_room(1, 1, &controlled(media(1)));
    relay.engine.peer_connected(relay.now, PeerKey(1));
    relay.publish(1, AUDIO_MID, Source::Audio);
    let start = relay.now;
    for n in 0..100u16 {
        // Every tenth is lost on the way.
        if n % 10 != 7 {
            let fields = HeaderFields {
                payload_type: OPUS_IN,
                sequence_number: n,
                timestamp: u32::from(n) * 960,
                ssrc: audio_ssrc(1),
                ..HeaderFields::default()
            };
            let number = (65_500u16.wrapping_add(n)).to_be_bytes();
            let extension = Extension {
                id: EXT_TWCC,
                data: &number,
            };
            let mut payload = sframe(context(1, AUDIO_MID), u64::from(n) + 1);
            payload.extend([7; 60]);
            relay.receive(1, &rtp(fields, &[extension], &payload));
            relay.flush();
        }
        relay.advance_ms(20);
    }
    relay.advance_ms(100);
    let feedback = |packet: &Packet<'_>| match packet {
        Packet::TransportFeedback(feedback) => {
            let mut at = i64::from(feedback.reference_time) * 64_000;
            let statuses = feedback.statuses().map(|(number, delta)| {
                at += i64::from(delta.unwrap_or(0));
                (number, delta.map(|_| at))
            });
            Some(statuses.collect::<Vec<_>>())
        }
        _ => None,
    };
    let packets = relay.rtcp_to(1, feedback);
    let told: Vec<_> = packets.iter().flatten().collect();
    assert!((20..=45).contains(&packets.len()), "{}", packets.len());
    assert_eq!(relay.count(Counter::RtcpOutTwcc), packets.len() as u64);
    let expected: Vec<_> = (0..100u16)
        .map(|n| {
            let at = start.as_micros() as i64 + i64::from(n) * 20_000;
            (65_500u16.wrapping_add(n), (n % 10 != 7).then_some(at))
        })
        .collect();
    assert_eq!(told.len(), expected.len());
    for ((number, at), (want, arrived)) in told.iter().zip(expected) {
        assert_eq!(*number, want);
        assert_eq!(at.is_some(), arrived.is_some(), "{number}");
        if let (Some(at), Some(arrived)) = (at, arrived) {
            assert!((at - arrived).abs() <= 250, "{number}: {at} {arrived}");
        }
    }
}
