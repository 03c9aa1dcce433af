//! Redundant audio (RFC 2198): as it is to who takes it, taken apart for who does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_model::{Codec, CodecParams, Counter, SessionMedia, Source, Time};
use sealcast_rtp::payload::red::{self, RedPayload, RedundantBlock};
use sealcast_rtp::rtcp::TransportFeedbackFields;
use sealcast_rtp::{Extension, HeaderFields};
use std::collections::BTreeMap;
use std::time::Duration;
use support::*;

const RED_IN: u8 = 63;
const RED_OUT: u8 = 65;

/// As [`media`], with RED beside Opus on the m-line to send on.
fn sends_red(key: u32) -> SessionMedia {
    let mut media = media(key);
    media.receive[0].codecs.insert(0, codec(RED_IN, Codec::Red));
    media
}

/// As [`media`], with RED beside Opus in its slots.
fn takes_red(key: u32) -> SessionMedia {
    let mut media = media(key);
    let audio = media.slots.iter_mut().take(usize::from(VIDEO_SLOTS));
    audio.for_each(|slot| slot.codecs.push(codec(RED_OUT, Codec::Red)));
    media
}

fn join(relay: &mut Relay, key: u32, media: &SessionMedia) {
    relay.join_room(key, 1, media);
    relay
        .engine
        .peer_connected(relay.now, sealcast_media::PeerKey(key));
}

/// A publisher whose packets repeat the frame before.
struct RedVoice {
    voice: Voice,
    last: Option<Vec<u8>>,
    /// Payload type of the blocks.
    block: u8,
}

impl RedVoice {
    fn new(key: u32) -> Self {
        RedVoice {
            voice: Voice::new(key),
            last: None,
            block: OPUS_IN,
        }
    }

    /// The next packet, and the sealed frame that is new in it.
    fn next(&mut self, redundant: bool) -> (Vec<u8>, Vec<u8>) {
        let plain = self.voice.next();
        let header = sealcast_rtp::RtpHeader::parse(&plain).unwrap();
        let frame = header.payload(&plain).to_vec();
        let before = self.last.replace(frame.clone());
        if !redundant {
            return (plain, frame);
        }
        let block = before.as_deref().map(|data| RedundantBlock {
            payload_type: self.block,
            timestamp_offset: 960,
            data,
        });
        let mut payload = vec![0; 1_000];
        let blocks: Vec<_> = block.into_iter().collect();
        let len = red::write(&mut payload, &blocks, self.block, &frame).unwrap();
        let fields = HeaderFields {
            payload_type: RED_IN,
            sequence_number: header.sequence_number,
            timestamp: header.timestamp,
            ssrc: header.ssrc,
            ..HeaderFields::default()
        };
        let level = Extension {
            id: EXT_LEVEL,
            data: &[0x80 | 30],
        };
        (rtp(fields, &[level], &payload[..len]), frame)
    }
}

#[test]
fn red_goes_as_it_is_to_who_takes_it_and_as_opus_to_others() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &sends_red(1));
    join(&mut relay, 2, &takes_red(2));
    join(&mut relay, 3, &media(3));
    let track = relay.publish(1, AUDIO_MID, Source::Audio);
    relay.assign(2, 0, Some(track)).unwrap();
    relay.assign(3, 0, Some(track)).unwrap();
    let mut voice = RedVoice::new(1);
    let (mut red_seen, mut plain_seen) = (Vec::new(), Vec::new());
    let mut frames = Vec::new();
    for n in 0..60 {
        relay.advance_ms(20);
        // A browser goes over to plain Opus and back as it likes.
        let (packet, frame) = voice.next(n / 10 % 3 != 1);
        relay.receive(1, &packet);
        frames.push(frame);
        for sent in relay.flush() {
            if sent.to == 2 {
                red_seen.push(sent);
            } else {
                plain_seen.push(sent);
            }
        }
    }
    assert_eq!((red_seen.len(), plain_seen.len()), (60, 60));
    for (n, (red, plain)) in red_seen.iter().zip(&plain_seen).enumerate() {
        assert_eq!(plain.header.payload_type, OPUS_OUT);
        assert_eq!(plain.payload, frames[n], "packet {n}");
        if n / 10 % 3 == 1 {
            assert_eq!(red.header.payload_type, OPUS_OUT);
            assert_eq!(red.payload, frames[n]);
            continue;
        }
        assert_eq!(red.header.payload_type, RED_OUT);
        let read = RedPayload::parse(&red.payload).unwrap();
        assert_eq!(
            (read.primary_payload_type, read.primary),
            (OPUS_OUT, &frames[n][..])
        );
        let blocks: Vec<_> = read.redundant().collect();
        if n > 0 {
            assert_eq!(
                blocks,
                [RedundantBlock {
                    payload_type: OPUS_OUT,
                    timestamp_offset: 960,
                    data: &frames[n - 1],
                }]
            );
        }
    }
    for seen in [&red_seen, &plain_seen] {
        for pair in seen.windows(2) {
            assert_eq!(pair[1].index, pair[0].index + 1, "no gap of our making");
            let step = pair[1]
                .header
                .timestamp
                .wrapping_sub(pair[0].header.timestamp);
            assert_eq!(step, 960);
        }
    }
    assert!(relay.pool_is_whole());
}

#[test]
fn blocks_of_an_unknown_type_and_cleartext_in_a_block_are_left_out() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &sends_red(1));
    join(&mut relay, 2, &takes_red(2));
    let track = relay.publish(1, AUDIO_MID, Source::Audio);
    relay.assign(2, 0, Some(track)).unwrap();
    let mut voice = RedVoice::new(1);
    let mut passed = 0;
    let mut send = |relay: &mut Relay, voice: &mut RedVoice| {
        relay.advance_ms(20);
        let (packet, _) = voice.next(true);
        relay.receive(1, &packet);
        passed += relay.flush().len();
        passed
    };
    assert_eq!(send(&mut relay, &mut voice), 1);
    for block in [13, RED_IN, OPUS_IN + 1] {
        voice.block = block;
        assert_eq!(send(&mut relay, &mut voice), 1);
    }
    assert_eq!(relay.count(Counter::DropUnknownPayload), 3);
    voice.block = OPUS_IN;
    assert_eq!(send(&mut relay, &mut voice), 2);
    // What is repeated was never sealed.
    voice.last = Some(vec![0x7b; 60]);
    assert_eq!(send(&mut relay, &mut voice), 2);
    assert_eq!(relay.count(Counter::DropUnsealed), 1);
    assert_eq!(send(&mut relay, &mut voice), 3);
}

/// Who tells how its packets arrive over a path of `capacity` bits per second.
fn red_share(capacity: u64) -> (usize, usize) {
    let mut relay = Relay::new();
    let listener = controlled(takes_red(9));
    join(&mut relay, 9, &listener);
    let mut voices: Vec<RedVoice> = (1..=4)
        .map(|key| {
            join(&mut relay, key, &sends_red(key));
            let track = relay.publish(key, AUDIO_MID, Source::Audio);
            relay.assign(9, key as u16 - 1, Some(track)).unwrap();
            RedVoice::new(key)
        })
        .collect();
    let mut queue = Queue::new(capacity);
    let mut late: BTreeMap<bool, usize> = BTreeMap::new();
    for n in 0..1_000u64 {
        relay.advance_ms(20);
        for voice in &mut voices {
            let (packet, _) = voice.next(true);
            relay.receive(voice.voice.key, &packet);
        }
        for sent in relay.flush() {
            queue.push(&relay, &sent);
            if n > 600 {
                *late.entry(sent.header.payload_type == RED_OUT).or_default() += 1;
            }
        }
        queue.report(&mut relay);
    }
    (
        late.get(&true).copied().unwrap_or(0),
        late.get(&false).copied().unwrap_or(0),
    )
}

/// A bottleneck, and the receiver behind it.
struct Queue {
    capacity: u64,
    free_at: Time,
    arrivals: BTreeMap<u16, Time>,
    next: Option<u16>,
    count: u8,
}

impl Queue {
    fn new(capacity: u64) -> Self {
        Queue {
            capacity,
            free_at: Time::ZERO,
            arrivals: BTreeMap::new(),
            next: None,
            count: 0,
        }
    }

    fn push(&mut self, relay: &Relay, sent: &SentRtp) {
        let number = sent.extension(EXT_TWCC).expect("numbered");
        let number = u16::from_be_bytes([number[0], number[1]]);
        self.next.get_or_insert(number);
        let bits = (sent.bytes.len() as u64 + 44) * 8;
        let took = Duration::from_nanos(bits * 1_000_000_000 / self.capacity);
        self.free_at = self.free_at.max(relay.now) + took;
        self.arrivals.insert(number, self.free_at);
    }

    /// Tells of what has arrived by now.
    fn report(&mut self, relay: &mut Relay) {
        let Some(first) = self.next else { return };
        let mut arrivals = Vec::new();
        while let Some(at) = self
            .arrivals
            .get(&first.wrapping_add(arrivals.len() as u16))
            .filter(|at| **at <= relay.now)
        {
            arrivals.push(Some(at.as_micros() as i64));
        }
        if arrivals.is_empty() {
            return;
        }
        self.next = Some(first.wrapping_add(arrivals.len() as u16));
        let fields = TransportFeedbackFields {
            base_sequence_number: first,
            feedback_count: self.count,
            ..TransportFeedbackFields::default()
        };
        self.count = self.count.wrapping_add(1);
        relay.receive_rtcp(9, |writer| {
            writer.transport_feedback(&fields, &arrivals).unwrap();
        });
    }
}

#[test]
fn a_narrow_path_gets_no_redundancy_and_a_wide_one_does() {
    let (redundant, plain) = red_share(5_000_000);
    assert!(redundant > 1_500 && plain == 0, "{redundant} {plain}");
    // With redundancy the four take 408 kbit/s, without 254.
    let (redundant, plain) = red_share(300_000);
    assert!(plain > 9 * redundant, "{redundant} {plain}");
}

#[test]
fn a_codec_is_not_lost_when_slots_change_what_they_take() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &sends_red(1));
    join(&mut relay, 2, &media(2));
    let track = relay.publish(1, AUDIO_MID, Source::Audio);
    relay.assign(2, 0, Some(track)).unwrap();
    let mut voice = RedVoice::new(1);
    let mut types = Vec::new();
    for n in 0..4 {
        if n == 2 {
            let key = sealcast_media::PeerKey(2);
            relay
                .engine
                .update_peer(relay.now, key, &takes_red(2))
                .unwrap();
        }
        let (packet, _) = voice.next(true);
        relay.receive(1, &packet);
        types.extend(relay.flush().iter().map(|sent| sent.header.payload_type));
    }
    assert_eq!(types, [OPUS_OUT, OPUS_OUT, RED_OUT, RED_OUT]);
}

#[test]
fn red_alone_is_no_codec_of_a_slot() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &sends_red(1));
    let mut odd = media(2);
    let only: Vec<CodecParams> = vec![codec(RED_OUT, Codec::Red)];
    odd.slots
        .iter_mut()
        .for_each(|slot| slot.codecs.clone_from(&only));
    join(&mut relay, 2, &odd);
    let track = relay.publish(1, AUDIO_MID, Source::Audio);
    assert!(relay.assign(2, 0, Some(track)).is_err());
}
