//! Whatever arrives in whatever order: no panic, no leak, no packet index used twice, nothing
//! across rooms.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use sealcast_media::{MediaConfig, PeerKey};
use sealcast_model::{SealRule, Source, Time};
use std::collections::HashMap;
use support::*;

#[derive(Clone, Debug)]
enum Op {
    Join(u32, u64),
    Leave(u32),
    Update(u32, u8),
    Publish(u32, bool),
    Unpublish(u32, bool),
    Mute(u32, bool, bool),
    Assign(u32, u16, Option<(u32, bool)>),
    Voice(u32, i16),
    Video(u32, bool, u8, i16),
    Bytes(u32, Vec<u8>),
    Mangled(u32, usize, u8),
    Rtcp(u32, Vec<u8>),
    Pli(u32, u16),
    /// Asks for the packet this far before the last that was sent to a slot.
    Nack(u32, u16, u16),
    /// Sends the packet this far back again, as RTX.
    Repair(u32, u16),
    Flush,
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u32..5;
    prop_oneof![
        3 => (key.clone(), 1u64..3).prop_map(|(k, r)| Op::Join(k, r)),
        1 => key.clone().prop_map(Op::Leave),
        1 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Op::Update(k, v)),
        3 => (key.clone(), any::<bool>()).prop_map(|(k, v)| Op::Publish(k, v)),
        1 => (key.clone(), any::<bool>()).prop_map(|(k, v)| Op::Unpublish(k, v)),
        1 => (key.clone(), any::<bool>(), any::<bool>()).prop_map(|(k, v, m)| Op::Mute(k, v, m)),
        4 => (key.clone(), 0u16..3, prop::option::of((0u32..5, any::<bool>()))).prop_map(|(k, s, t)| Op::Assign(k, s, t)),
        8 => (key.clone(), -3i16..4).prop_map(|(k, s)| Op::Voice(k, s)),
        8 => (key.clone(), any::<bool>(), 1u8..4, -3i16..4).prop_map(|(k, f, n, s)| Op::Video(k, f, n, s)),
        2 => (key.clone(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(k, b)| Op::Bytes(k, b)),
        2 => (key.clone(), 0usize..60, any::<u8>()).prop_map(|(k, at, b)| Op::Mangled(k, at, b)),
        2 => (key.clone(), prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(k, b)| Op::Rtcp(k, b)),
        2 => (key.clone(), 0u16..20).prop_map(|(k, s)| Op::Pli(k, s)),
        4 => (key.clone(), 0u16..3, 0u16..12).prop_map(|(k, s, n)| Op::Nack(k, VIDEO_SLOTS + s, n)),
        3 => (key.clone(), 0u16..6).prop_map(|(k, n)| Op::Repair(k, n)),
        6 => Just(Op::Flush),
        2 => (0u16..2_000).prop_map(Op::Wait),
    ]
}

struct World {
    relay: Relay,
    room: [Option<u64>; 5],
    voices: Vec<Voice>,
    cameras: Vec<Camera>,
    /// Distinguishes the lives of a peer key: each has keys of its own.
    life: [u32; 5],
    /// What was sent under each index of each SSRC.
    indices: HashMap<(u32, u32, u32, u64), Vec<u8>>,
    checked: usize,
}

fn mid(video: bool) -> &'static str {
    if video { VIDEO_MID } else { AUDIO_MID }
}

impl World {
    fn new() -> Self {
        World {
            relay: Relay::with(
                MediaConfig {
                    peers: 5,
                    rooms: 2,
                    tracks: 10,
                    subscriptions: 12,
                    ..MediaConfig::default()
                },
                7,
            ),
            room: [None; 5],
            voices: (0..5).map(Voice::new).collect(),
            cameras: (0..5).map(Camera::new).collect(),
            life: [0; 5],
            indices: HashMap::new(),
            checked: 0,
        }
    }

    /// A consult in full swing.
    fn populated() -> Self {
        let mut world = World::new();
        for key in 0..5 {
            world.apply(Op::Join(key, if key < 4 { 1 } else { 2 }));
            world.apply(Op::Publish(key, false));
            world.apply(Op::Publish(key, true));
        }
        for key in 0..4 {
            for (slot, video) in [(0, false), (0, true), (1, true)] {
                let shown = ((key + 1 + u32::from(slot)) % 4, video);
                world.apply(Op::Assign(key, slot, Some(shown)));
            }
        }
        for key in 0..5 {
            world.apply(Op::Voice(key, 0));
            world.apply(Op::Video(key, true, 2, 0));
        }
        world.apply(Op::Flush);
        world
    }

    fn apply(&mut self, op: Op) {
        let relay = &mut self.relay;
        match op {
            Op::Join(key, room) => {
                if self.room[key as usize].is_none() {
                    relay.join_room(key, room, &media(key));
                    if key % 2 == 1 {
                        relay.engine.peer_seals_slowly(PeerKey(key));
                    }
                    relay.engine.peer_connected(relay.now, PeerKey(key));
                    self.room[key as usize] = Some(room);
                    self.life[key as usize] += 1;
                }
            }
            Op::Leave(key) => {
                relay
                    .engine
                    .remove_peer(relay.now, &mut relay.pool, PeerKey(key));
                self.room[key as usize] = None;
            }
            Op::Update(key, variant) => {
                let mut media = media(key);
                if variant & 1 == 1 {
                    media.receive.remove(usize::from(variant >> 1 & 1));
                }
                if variant & 4 == 4 {
                    media.slots.truncate(usize::from(variant >> 3));
                }
                _ = relay.engine.update_peer(relay.now, PeerKey(key), &media);
            }
            Op::Publish(key, video) => {
                let source = if video { Source::Camera } else { Source::Audio };
                let seal = if key == 4 {
                    SealRule::Any
                } else {
                    seal(key, mid(video))
                };
                _ = relay.try_publish(key, mid(video), source, track(key, mid(video)), seal);
            }
            Op::Unpublish(key, video) => {
                relay
                    .engine
                    .unpublish(relay.now, &mut relay.pool, track(key, mid(video)))
            }
            Op::Mute(key, video, muted) => {
                relay
                    .engine
                    .set_muted(relay.now, track(key, mid(video)), muted)
            }
            Op::Assign(key, slot, shown) => {
                let slot = slot
                    + if shown.is_some_and(|(_, video)| video) {
                        VIDEO_SLOTS
                    } else {
                        0
                    };
                _ = relay.assign(key, slot, shown.map(|(of, video)| track(of, mid(video))));
            }
            Op::Voice(key, step) => {
                let voice = &mut self.voices[key as usize];
                voice.sequence = voice.sequence.wrapping_add_signed(step);
                let packet = voice.next();
                relay.receive(key, &packet);
            }
            Op::Video(key, key_frame, packets, step) => {
                let camera = &mut self.cameras[key as usize];
                camera.sequence = camera.sequence.wrapping_add_signed(step);
                camera
                    .frame(key_frame, packets.into())
                    .iter()
                    .for_each(|p| relay.receive(key, p));
            }
            Op::Bytes(key, bytes) => relay.receive(key, &bytes),
            Op::Mangled(key, at, byte) => {
                let mut packet = self.cameras[key as usize].frame(true, 1).remove(0);
                if let Some(place) = packet.get_mut(at) {
                    *place = byte;
                }
                relay.receive(key, &packet);
            }
            Op::Rtcp(key, bytes) => relay.engine.handle_rtcp(relay.now, PeerKey(key), &bytes),
            Op::Pli(key, slot) => relay.receive_rtcp(key, |writer| {
                let pli = sealcast_rtp::rtcp::Pli {
                    sender_ssrc: 1,
                    media_ssrc: slot_ssrc(key, slot),
                };
                writer.pli(pli).unwrap();
            }),
            Op::Nack(key, slot, back) => {
                let ssrc = slot_ssrc(key, slot);
                let last = relay
                    .out
                    .rtp
                    .iter()
                    .rfind(|p| p.to == key && p.header.ssrc == ssrc);
                let number = last
                    .map_or(0, |p| p.header.sequence_number)
                    .wrapping_sub(back);
                relay.receive_rtcp(key, |writer| writer.nack(1, ssrc, [number]).unwrap());
            }
            Op::Repair(key, back) => {
                let camera = &mut self.cameras[key as usize];
                let osn = camera.sequence.wrapping_sub(back);
                let frame = camera.clone().frame(false, 1).remove(0);
                let lost = sealcast_rtp::RtpHeader::parse(&frame).unwrap();
                let fields = sealcast_rtp::HeaderFields {
                    payload_type: VP8_RTX_IN,
                    sequence_number: back,
                    timestamp: lost.timestamp,
                    ssrc: camera.ssrc + 500,
                    ..Default::default()
                };
                let payload = [&osn.to_be_bytes()[..], lost.payload(&frame)].concat();
                relay.receive(key, &rtp(fields, &[], &payload));
            }
            Op::Flush => drop(relay.flush()),
            Op::Wait(millis) => relay.advance_ms(millis.into()),
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for sent in &self.relay.out.rtp[self.checked..] {
            prop_assert!(self.room[sent.to as usize].is_some(), "sent to nobody");
            let id = (
                sent.to,
                self.life[sent.to as usize],
                sent.header.ssrc,
                sent.index,
            );
            let before = self.indices.insert(id, sent.bytes.clone());
            prop_assert!(before.is_none(), "a packet index used twice: {:?}", id);
        }
        self.checked = self.relay.out.rtp.len();
        prop_assert!(self.relay.engine.poll_timeout() > Time::ZERO);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn anything_in_any_order(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::populated();
        world.check()?;
        for op in ops {
            world.apply(op);
            world.check()?;
        }
        // The world was alive: whoever was there before the chaos had sent something.
        prop_assert!(world.checked > 0);
        let relay = &mut world.relay;
        for key in 0..5 {
            relay.engine.remove_peer(relay.now, &mut relay.pool, PeerKey(key));
        }
        // What was unbound by a renegotiation waits for the flush.
        relay.flush();
        prop_assert!(relay.pool_is_whole());
        relay.advance_ms(10_000);
        prop_assert_eq!(relay.engine.poll_timeout(), Time::NEVER);
    }
}
