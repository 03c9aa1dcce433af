//! Subscribers that are slow to seal for do not hold up the others, and lose nothing by coming last.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use sealcast_media::PeerKey;
use sealcast_model::Source;
use sealcast_rtp::RtpHeader;
use std::collections::HashMap;
use support::*;

const V0: u16 = VIDEO_SLOTS;
/// These publish, and are shown to everybody else.
const PUBLISHERS: [u32; 3] = [1, 2, 3];

fn show_all(relay: &mut Relay, key: u32) {
    for (n, publisher) in (0u16..).zip(PUBLISHERS) {
        let shown = [(n, AUDIO_MID), (V0 + n, VIDEO_MID)];
        for (slot, mid) in shown {
            relay
                .assign(key, slot, Some(track(publisher, mid)))
                .unwrap();
        }
    }
}

/// Publishers, and nobody who listens.
fn stage() -> Relay {
    let mut relay = Relay::new();
    for key in PUBLISHERS {
        relay.join(key);
        relay.publish(key, AUDIO_MID, Source::Audio);
        relay.publish(key, VIDEO_MID, Source::Camera);
    }
    relay
}

/// A frame of two packets and one of audio, of each publisher.
struct Play {
    voices: [Voice; 3],
    cameras: [Camera; 3],
}

impl Play {
    fn new() -> Self {
        Play {
            voices: PUBLISHERS.map(Voice::new),
            cameras: PUBLISHERS.map(Camera::new),
        }
    }

    fn round(&mut self, relay: &mut Relay, key_frame: bool) -> Vec<SentRtp> {
        for camera in &mut self.cameras {
            let packets = camera.frame(key_frame, 2);
            packets.iter().for_each(|p| relay.receive(camera.key, p));
        }
        for voice in &mut self.voices {
            let packet = voice.next();
            relay.receive(voice.key, &packet);
        }
        relay.flush()
    }
}

/// However many slow ones joined before, the quick ones get everything first, of all streams, and
/// it leaves before the first packet of a slow one is sealed.
#[test]
fn quick_legs_wait_for_no_slow_one() {
    let is_slow = |key: u32| key != 57 && key != 99;
    let mut relay = stage();
    let receivers: Vec<u32> = (10..110).collect();
    for key in &receivers {
        relay.join(*key);
        show_all(&mut relay, *key);
        // Their ciphers are known after their tracks, as when DTLS takes its time.
        if is_slow(*key) {
            relay.engine.peer_seals_slowly(PeerKey(*key));
        }
    }
    let mut play = Play::new();
    play.round(&mut relay, true);
    let released = relay.out.released.len();
    let sent = play.round(&mut relay, false);
    assert_eq!(
        sent.len(),
        receivers.len() * 9,
        "two packets and audio of three publishers"
    );
    let first_slow = sent.iter().position(|p| is_slow(p.to)).unwrap();
    assert_eq!(first_slow, 2 * 9, "all that is quick, of all streams");
    assert!(sent[first_slow..].iter().all(|p| is_slow(p.to)));
    let before = relay.out.rtp.len() - sent.len();
    assert_eq!(relay.out.released[released..], [before + first_slow]);
}

/// A room in which nobody is slow, or hardly anybody, costs no system call more.
#[test]
fn nothing_is_released_for_a_few() {
    for slow in [0, 1] {
        let mut relay = stage();
        for key in 10..30 {
            relay.join(key);
            if key < 10 + slow {
                relay.engine.peer_seals_slowly(PeerKey(key));
            }
            show_all(&mut relay, key);
        }
        let mut play = Play::new();
        play.round(&mut relay, true);
        relay.out.released.clear();
        play.round(&mut relay, false);
        assert_eq!(relay.out.released, [0; 0], "{slow} slow");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Join {
        key: u32,
        slow: bool,
        connects: bool,
    },
    Connect(u32),
    /// What it was negotiated comes late.
    Slow(u32),
    Show(u32),
    Hide(u32),
    Leave(u32),
    Round {
        key_frame: bool,
    },
    Missed(u32),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 10u32..16;
    prop_oneof![
        2 => (key.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(key, slow, connects)| Op::Join { key, slow, connects }),
        1 => key.clone().prop_map(Op::Connect),
        1 => key.clone().prop_map(Op::Slow),
        2 => key.clone().prop_map(Op::Show),
        1 => key.clone().prop_map(Op::Hide),
        1 => key.clone().prop_map(Op::Leave),
        6 => any::<bool>().prop_map(|key_frame| Op::Round { key_frame }),
        1 => key.prop_map(Op::Missed),
        2 => (1u64..60).prop_map(Op::Wait),
    ]
}

/// Stream, number, time and payload of a packet.
type Received = (u32, Option<u16>, u32, Vec<u8>);

/// A relay that is told who is slow, or one that is not.
struct Told {
    relay: Relay,
    play: Play,
    told: bool,
    here: [bool; 6],
}

impl Told {
    fn new(told: bool) -> Self {
        Told {
            relay: stage(),
            play: Play::new(),
            told,
            here: [false; 6],
        }
    }

    fn apply(&mut self, op: &Op) {
        let relay = &mut self.relay;
        match *op {
            Op::Join {
                key,
                slow,
                connects,
            } => {
                if std::mem::replace(&mut self.here[key as usize - 10], true) {
                    return;
                }
                relay.join_room(key, 1, &controlled(media(key)));
                if slow && self.told {
                    relay.engine.peer_seals_slowly(PeerKey(key));
                }
                if connects {
                    relay.engine.peer_connected(relay.now, PeerKey(key));
                }
            }
            Op::Connect(key) => relay.engine.peer_connected(relay.now, PeerKey(key)),
            Op::Slow(key) if self.told => relay.engine.peer_seals_slowly(PeerKey(key)),
            Op::Slow(_) => {}
            Op::Show(key) if self.here[key as usize - 10] => show_all(relay, key),
            Op::Show(_) => {}
            Op::Hide(key) => _ = relay.assign(key, V0, None),
            Op::Leave(key) => {
                self.here[key as usize - 10] = false;
                let (engine, pool) = (&mut relay.engine, &mut relay.pool);
                engine.remove_peer(relay.now, pool, PeerKey(key));
            }
            Op::Round { key_frame } => {
                self.play.round(relay, key_frame);
            }
            Op::Missed(key) => {
                let ssrc = slot_ssrc(key, V0);
                let last = relay.out.rtp.iter().rfind(|p| p.header.ssrc == ssrc);
                let Some(number) = last.map(|p| p.header.sequence_number) else {
                    return;
                };
                let missed = [number.wrapping_sub(1), number];
                relay.receive_rtcp(key, |w| w.nack(1, ssrc, missed).unwrap());
                relay.flush();
            }
            Op::Wait(millis) => relay.advance_ms(millis),
        }
    }

    /// What each receiver got, in its order. The numbers of retransmissions begin anywhere, so those
    /// are without.
    fn received(&self) -> HashMap<u32, Vec<Received>> {
        let mut received: HashMap<_, Vec<_>> = HashMap::new();
        for packet in &self.relay.out.rtp {
            let RtpHeader {
                ssrc,
                sequence_number,
                timestamp,
                ..
            } = packet.header;
            let again = (0..2 * V0).all(|slot| slot_ssrc(packet.to, slot) != ssrc);
            let number = (!again).then_some(sequence_number);
            let of = (ssrc, number, timestamp, packet.payload.clone());
            received.entry(packet.to).or_default().push(of);
        }
        received
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Whoever is slow and whenever that turns out: each receiver gets what it would have got, in
    /// the same order.
    #[test]
    fn each_receiver_gets_the_same_in_the_same_order(ops in proptest::collection::vec(op(), 1..60)) {
        let (mut told, mut plain) = (Told::new(true), Told::new(false));
        for op in &ops {
            told.apply(op);
            plain.apply(op);
        }
        prop_assert_eq!(told.received(), plain.received());
        prop_assert!(told.relay.pool_is_whole());
        prop_assert_eq!(plain.relay.out.released.len(), 0);
    }
}
