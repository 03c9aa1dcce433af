//! Silence is no loss: gaps of discontinuous transmission, empty frames and comfort noise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_media::PeerKey;
use sealcast_model::{Counter, Source};
use sealcast_rtp::HeaderFields;
use sealcast_rtp::rtcp::Packet;
use support::*;

/// Comfort noise (RFC 3389), which nobody negotiated.
const COMFORT_NOISE: u8 = 13;

/// What the publisher sends in one step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Speech,
    /// Opus sends one packet in 400 ms.
    Pause,
    /// A packet without a payload.
    Empty,
    Noise,
}

#[test]
fn silence_is_neither_lost_nor_jitter_nor_asked_for_again() {
    let mut relay = Relay::new();
    let mut publisher = media(1);
    // Whatever it takes: audio is asked for again only where that was negotiated.
    publisher.receive[0].codecs[0].nack = true;
    relay.join_room(1, 1, &publisher);
    relay.engine.peer_connected(relay.now, PeerKey(1));
    relay.join(2);
    let track = relay.publish(1, AUDIO_MID, Source::Audio);
    relay.assign(2, 0, Some(track)).unwrap();
    let mut voice = Voice::new(1);
    let mut received = Vec::new();
    let mut spoken = 0;
    let mut noise = 0;
    let script = [
        (Step::Speech, 40),
        (Step::Pause, 6),
        (Step::Speech, 25),
        (Step::Empty, 5),
        (Step::Speech, 10),
        (Step::Noise, 8),
        (Step::Speech, 10),
        (Step::Noise, 1),
        (Step::Pause, 4),
        (Step::Speech, 60),
    ];
    for (step, count) in script {
        for _ in 0..count {
            let millis = if step == Step::Pause { 400 } else { 20 };
            relay.advance_ms(millis);
            voice.timestamp = voice.timestamp.wrapping_add(((millis - 20) * 48) as u32);
            let packet = match step {
                Step::Speech | Step::Pause => {
                    spoken += 1;
                    voice.next()
                }
                Step::Empty => bare(&mut voice, OPUS_IN, &[]),
                Step::Noise => {
                    noise += 1;
                    bare(&mut voice, COMFORT_NOISE, &[30])
                }
            };
            relay.receive(1, &packet);
            received.extend(relay.flush());
        }
    }
    relay.advance_ms(2_000);

    assert_eq!(
        received.len(),
        spoken,
        "speech is forwarded, and nothing else"
    );
    assert!(
        received.windows(2).all(|p| p[1].index == p[0].index + 1),
        "the subscriber sees no gap"
    );
    for pair in received.windows(2) {
        let step = pair[1]
            .header
            .timestamp
            .wrapping_sub(pair[0].header.timestamp);
        assert!(step >= 960 && step % 960 == 0, "{step}");
    }
    assert_eq!(relay.count(Counter::DropUnknownPayload), noise);
    assert_eq!(relay.count(Counter::RtcpOutNack), 0, "nothing is missing");
    let blocks = relay.rtcp_to(1, |packet| match packet {
        Packet::ReceiverReport(report) => Some(report.blocks().collect::<Vec<_>>()),
        _ => None,
    });
    let blocks: Vec<_> = blocks.into_iter().flatten().collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 0));
        assert_eq!(block.jitter, 0, "packets came as they were spoken");
    }
}

#[test]
fn what_is_lost_beside_silence_is_still_lost() {
    let mut relay = Relay::new();
    relay.join(1);
    relay.publish(1, AUDIO_MID, Source::Audio);
    let mut voice = Voice::new(1);
    for n in 0..200u64 {
        relay.advance_ms(20);
        let packet = if n % 10 == 5 {
            bare(&mut voice, COMFORT_NOISE, &[30])
        } else {
            voice.next()
        };
        if n % 20 != 7 {
            relay.receive(1, &packet);
        }
        relay.flush();
    }
    relay.advance_ms(2_000);
    let blocks = relay.rtcp_to(1, |packet| match packet {
        Packet::ReceiverReport(report) => report.blocks().last(),
        _ => None,
    });
    assert_eq!(blocks.last().map(|block| block.cumulative_lost), Some(10));
}

/// A packet of the voice's stream that is no speech.
fn bare(voice: &mut Voice, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let fields = HeaderFields {
        payload_type,
        sequence_number: voice.sequence,
        timestamp: voice.timestamp,
        ssrc: voice.ssrc,
        ..HeaderFields::default()
    };
    voice.sequence = voice.sequence.wrapping_add(1);
    voice.timestamp = voice.timestamp.wrapping_add(960);
    rtp(fields, &[], payload)
}
