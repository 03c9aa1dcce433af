//! A room on two shards: its subscribers get what they would on one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use sealcast_media::mirror::Mirror;
use sealcast_media::{MediaConfig, MediaEvent, PeerKey};
use sealcast_model::{Counter, Gauge, SealRule, SessionMedia, ShardId, Source, TrackId};
use sealcast_rtp::rtcp::Pli;
use std::collections::BTreeMap;
use support::*;

/// Peers of the room; the even ones sit on shard 0 and the odd ones on shard 1.
const PEERS: u32 = 4;

/// A peer's mirror has this much more in its key.
const MIRROR: u32 = 100;

/// Two shards with one room, and every publisher mirrored on the other one.
struct Pair {
    shards: [Relay; 2],
    /// Messages in each ring at most.
    ring: usize,
}

fn shard(key: u32) -> usize {
    key as usize % 2
}

impl Pair {
    fn new(media: impl Fn(u32) -> SessionMedia) -> Self {
        let relay = |seed| Relay::with(MediaConfig::default(), seed);
        let mut pair = Pair {
            shards: [relay(1), relay(2)],
            ring: 1_000,
        };
        for key in 0..PEERS {
            let media = media(key);
            let home = &mut pair.shards[shard(key)];
            home.join_room(key, 1, &media);
            home.engine.peer_connected(home.now, PeerKey(key));
            pair.mirror(key, &media);
        }
        pair.exchange();
        pair
    }

    fn mirror(&mut self, key: u32, media: &SessionMedia) {
        let satellite = &mut self.shards[1 - shard(key)];
        let added = satellite.engine.add_mirror(
            satellite.now,
            PeerKey(MIRROR + key),
            sealcast_model::SessionId(key.into()),
            sealcast_model::ParticipantId(key.into()),
            sealcast_model::RoomId(1),
            media,
            ShardId(shard(key) as u16),
        );
        assert_eq!(added, Ok(()));
    }

    fn home(&mut self, key: u32) -> &mut Relay {
        &mut self.shards[shard(key)]
    }

    fn satellite(&mut self, key: u32) -> &mut Relay {
        &mut self.shards[1 - shard(key)]
    }

    fn publish(&mut self, key: u32, mid: &str, source: Source) -> Result<(), ()> {
        let published =
            self.home(key)
                .try_publish(key, mid, source, track(key, mid), seal(key, mid));
        published.map_err(|_| ())?;
        let publish = sealcast_model::Publish {
            track: track(key, mid),
            session: sealcast_model::SessionId(key.into()),
            mid: token(mid),
            source,
            seal: SealRule::Contexts(vec![1]),
        };
        let satellite = self.satellite(key);
        let now = satellite.now;
        let mirrored = satellite
            .engine
            .publish(now, PeerKey(MIRROR + key), &publish);
        assert_eq!(mirrored, Ok(()));
        Ok(())
    }

    fn each(&mut self, f: impl FnMut(&mut Relay)) {
        self.shards.iter_mut().for_each(f);
    }

    /// Flushes both and hands over what they say to each other, until they have nothing to say.
    fn exchange(&mut self) {
        loop {
            let mut said = 0;
            for from in [0, 1] {
                self.shards[from].out.mirror_room = self.ring;
                self.shards[from].flush();
                let messages = std::mem::take(&mut self.shards[from].out.mirrored);
                said += messages.len();
                for (to, message, packet) in messages {
                    assert_eq!(usize::from(to.0), 1 - from);
                    let Relay {
                        engine, pool, now, ..
                    } = &mut self.shards[1 - from];
                    engine.handle_mirror(*now, pool, ShardId(from as u16), &message, &packet);
                }
            }
            if said == 0 {
                return;
            }
        }
    }

    fn advance_ms(&mut self, millis: u64) {
        // In steps shorter than any timer's grid, so that messages are as quick as between cores.
        for _ in 0..millis {
            self.each(|shard| shard.advance_ms(1));
            self.exchange();
        }
    }
}

/// A room on one shard and the same on two, driven alike.
struct Both {
    pair: Pair,
    shadow: Relay,
    cameras: Vec<Camera>,
    voices: Vec<Voice>,
}

#[derive(Clone, Debug)]
enum Op {
    Publish(u32, bool),
    Unpublish(u32, bool),
    Mute(u32, bool, bool),
    Assign(u32, u16, Option<(u32, bool)>),
    Voice(u32),
    /// A frame of so many packets; those whose bit is set never reach the relay.
    Video(u32, bool, u8, u8),
    Padding(u32),
    Report(u32),
    Wait(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..PEERS;
    prop_oneof![
        2 => (key.clone(), any::<bool>()).prop_map(|(k, v)| Op::Publish(k, v)),
        1 => (key.clone(), any::<bool>()).prop_map(|(k, v)| Op::Unpublish(k, v)),
        1 => (key.clone(), any::<bool>(), any::<bool>()).prop_map(|(k, v, m)| Op::Mute(k, v, m)),
        4 => (key.clone(), 0u16..2, prop::option::of((0..PEERS, any::<bool>()))).prop_map(|(k, s, t)| Op::Assign(k, s, t)),
        6 => key.clone().prop_map(Op::Voice),
        12 => (key.clone(), any::<bool>(), 1u8..5, prop_oneof![3 => Just(0), 1 => any::<u8>()])
            .prop_map(|(k, f, n, lost)| Op::Video(k, f, n, lost)),
        1 => key.clone().prop_map(Op::Padding),
        1 => key.clone().prop_map(Op::Report),
        2 => (0u8..40).prop_map(Op::Wait),
    ]
}

fn kind(video: bool) -> (&'static str, Source) {
    if video {
        (VIDEO_MID, Source::Camera)
    } else {
        (AUDIO_MID, Source::Audio)
    }
}

impl Both {
    fn new() -> Self {
        let mut shadow = Relay::new();
        for key in 0..PEERS {
            shadow.join(key);
        }
        Both {
            pair: Pair::new(media),
            shadow,
            cameras: (0..PEERS).map(Camera::new).collect(),
            voices: (0..PEERS).map(Voice::new).collect(),
        }
    }

    fn receive(&mut self, key: u32, packet: &[u8]) {
        self.pair.home(key).receive(key, packet);
        self.shadow.receive(key, packet);
    }

    fn settle(&mut self) {
        self.pair.exchange();
        self.shadow.flush();
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Publish(key, video) => {
                let (mid, source) = kind(video);
                let published =
                    self.shadow
                        .try_publish(key, mid, source, track(key, mid), seal(key, mid));
                assert_eq!(
                    self.pair.publish(key, mid, source).is_ok(),
                    published.is_ok()
                );
            }
            Op::Unpublish(key, video) => {
                let id = track(key, kind(video).0);
                let unpublish =
                    |relay: &mut Relay| relay.engine.unpublish(relay.now, &mut relay.pool, id);
                self.pair.each(unpublish);
                unpublish(&mut self.shadow);
            }
            Op::Mute(key, video, muted) => {
                let id = track(key, kind(video).0);
                let mute = |relay: &mut Relay| relay.engine.set_muted(relay.now, id, muted);
                self.pair.each(mute);
                mute(&mut self.shadow);
            }
            Op::Assign(key, slot, shown) => {
                // Slots of a kind take tracks of that kind.
                let video = shown.is_some_and(|(_, video)| video);
                let slot = slot + if video { VIDEO_SLOTS } else { 0 };
                let id = shown.map(|(key, video)| track(key, kind(video).0));
                let assigned = self.shadow.assign(key, slot, id);
                assert_eq!(self.pair.home(key).assign(key, slot, id), assigned);
            }
            Op::Voice(key) => {
                let packet = self.voices[key as usize].next();
                self.receive(key, &packet);
            }
            Op::Video(key, key_frame, packets, lost) => {
                let frame = self.cameras[key as usize].frame(key_frame, packets.into());
                for (n, packet) in frame.iter().enumerate() {
                    if lost >> n & 1 == 0 {
                        self.receive(key, packet);
                    }
                }
            }
            Op::Padding(key) => {
                let camera = &mut self.cameras[key as usize];
                let fields = sealcast_rtp::HeaderFields {
                    payload_type: VP8_IN,
                    sequence_number: camera.sequence,
                    timestamp: camera.timestamp,
                    ssrc: camera.ssrc,
                    ..Default::default()
                };
                camera.sequence = camera.sequence.wrapping_add(1);
                let packet = rtp(fields, &[], &[]);
                self.receive(key, &packet);
            }
            Op::Report(key) => {
                let camera = &self.cameras[key as usize];
                let ntp = self.shadow.clock.at(self.shadow.now) + (u64::from(key) << 34);
                let (ssrc, timestamp) = (camera.ssrc, camera.timestamp);
                self.pair.home(key).sender_report(key, ssrc, ntp, timestamp);
                self.shadow.sender_report(key, ssrc, ntp, timestamp);
            }
            Op::Wait(millis) => {
                self.settle();
                self.pair.advance_ms(millis.into());
                self.shadow.advance_ms(millis.into());
            }
        }
        self.settle();
    }
}

/// What a receiver makes of what it got on one SSRC: the content, and the numbers from the first.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    index: u64,
    timestamp: u32,
    marker: bool,
    payload_type: u8,
    picture: Option<(u16, u8)>,
    content: Vec<u8>,
}

fn heard<'a>(sent: impl Iterator<Item = &'a SentRtp>) -> BTreeMap<(u32, u32), Vec<Heard>> {
    let mut first = BTreeMap::new();
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for packet in sent.filter(|p| p.to < MIRROR) {
        let key = (packet.to, packet.header.ssrc);
        let video = packet.header.payload_type == VP8_OUT;
        let picture = video.then(|| picture(packet));
        let (index, timestamp, start) =
            *first
                .entry(key)
                .or_insert((packet.index, packet.header.timestamp, picture));
        all.entry(key).or_default().push(Heard {
            index: packet.index.wrapping_sub(index),
            timestamp: packet.header.timestamp.wrapping_sub(timestamp),
            marker: packet.header.marker,
            payload_type: packet.header.payload_type,
            picture: picture
                .zip(start)
                .map(|(p, s)| (p.0.wrapping_sub(s.0) & 0x7fff, p.1.wrapping_sub(s.1))),
            content: packet.payload[if video { 6 } else { 0 }..].to_vec(),
        });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Whoever publishes, subscribes, mutes, loses and leaves: each subscriber gets the same
    /// packets with the same numbering as from one shard.
    #[test]
    fn two_shards_give_what_one_gives(ops in prop::collection::vec(op(), 1..120)) {
        let mut both = Both::new();
        for op in ops {
            both.apply(op);
        }
        let on_two = heard(both.pair.shards.iter().flat_map(|shard| &shard.out.rtp));
        prop_assert_eq!(on_two, heard(both.shadow.out.rtp.iter()));
        for shard in &both.pair.shards {
            prop_assert!(shard.pool_is_whole());
        }
    }
}

/// A publisher at home on shard 0 with a subscriber on shard 1.
fn watched() -> (Pair, Camera, TrackId) {
    let mut pair = Pair::new(media);
    pair.publish(0, VIDEO_MID, Source::Camera).unwrap();
    let track = track(0, VIDEO_MID);
    pair.shards[1].assign(1, VIDEO_SLOTS, Some(track)).unwrap();
    pair.exchange();
    (pair, Camera::new(0), track)
}

fn film(pair: &mut Pair, camera: &mut Camera, key_frame: bool, packets: usize) {
    for packet in camera.frame(key_frame, packets) {
        pair.shards[0].receive(0, &packet);
    }
    pair.exchange();
}

#[test]
fn what_a_full_ring_refuses_comes_later() {
    let (mut pair, mut camera, _) = watched();
    film(&mut pair, &mut camera, true, 4);
    assert_eq!(pair.shards[1].out.rtp.len(), 4);
    pair.ring = 3;
    film(&mut pair, &mut camera, false, 8);
    assert_eq!(pair.shards[1].out.rtp.len(), 7, "the ring holds three");
    pair.ring = 1_000;
    film(&mut pair, &mut camera, false, 1);
    pair.advance_ms(200);
    let sent: std::collections::BTreeSet<_> =
        pair.shards[1].out.rtp.iter().map(|p| p.index).collect();
    assert_eq!(sent.len(), 13, "asked for and sent again, each once");
    assert_eq!(pair.shards[1].out.rtp.len(), 13);
    assert_eq!(pair.shards[0].count(Counter::MeshRepaired), 5);
    assert_eq!(
        pair.shards[0]
            .rtcp_to(0, |p| matches!(p, sealcast_rtp::rtcp::Packet::Nack(_))
                .then_some(()))
            .len(),
        0,
        "the publisher is not asked for what reached the relay"
    );
}

#[test]
fn nothing_crosses_that_nobody_wants() {
    let (mut pair, mut camera, track) = watched();
    film(&mut pair, &mut camera, true, 2);
    pair.shards[1].assign(1, VIDEO_SLOTS, None).unwrap();
    pair.exchange();
    for packet in camera.frame(true, 2) {
        pair.shards[0].receive(0, &packet);
    }
    pair.shards[0].out.mirror_room = 100;
    pair.shards[0].flush();
    assert!(pair.shards[0].out.mirrored.is_empty());
    assert_eq!(
        pair.shards[0].engine.held_packets(),
        2,
        "nor is it kept for anybody"
    );
    // Shown again it begins a new life: the gap is nobody's loss.
    pair.shards[1].assign(1, VIDEO_SLOTS, Some(track)).unwrap();
    pair.exchange();
    film(&mut pair, &mut camera, true, 2);
    pair.advance_ms(200);
    assert_eq!(pair.shards[1].out.rtp.len(), 4);
    assert_eq!(pair.shards[0].count(Counter::MeshRepaired), 0);
    assert_eq!(pair.shards[0].count(Counter::MeshUnrepaired), 0);
}

#[test]
fn a_key_frame_is_asked_for_across_shards() {
    let (mut pair, mut camera, _) = watched();
    film(&mut pair, &mut camera, false, 1);
    pair.advance_ms(20);
    assert_eq!(
        pair.shards[0].plis_to(0, video_ssrc(0)),
        1,
        "who has just come needs one"
    );
    film(&mut pair, &mut camera, true, 1);
    pair.advance_ms(600);
    let ssrc = slot_ssrc(1, VIDEO_SLOTS);
    let pli = Pli {
        sender_ssrc: 9,
        media_ssrc: ssrc,
    };
    pair.shards[1].receive_rtcp(1, |writer| writer.pli(pli).unwrap());
    pair.exchange();
    assert_eq!(pair.shards[0].plis_to(0, video_ssrc(0)), 2);
}

#[test]
fn a_lost_wish_is_said_again() {
    let mut pair = Pair::new(media);
    pair.publish(0, VIDEO_MID, Source::Camera).unwrap();
    pair.shards[1]
        .assign(1, VIDEO_SLOTS, Some(track(0, VIDEO_MID)))
        .unwrap();
    // Everything that is said now is lost, as if the home had not known the track yet.
    pair.shards[1].out.mirror_room = 100;
    pair.shards[1].flush();
    assert!(!std::mem::take(&mut pair.shards[1].out.mirrored).is_empty());
    let mut camera = Camera::new(0);
    film(&mut pair, &mut camera, true, 1);
    assert!(pair.shards[1].out.rtp.is_empty());
    pair.advance_ms(510);
    film(&mut pair, &mut camera, true, 1);
    assert_eq!(pair.shards[1].out.rtp.len(), 1);
}

#[test]
fn a_mirror_that_is_gone_says_so_even_if_nobody_heard() {
    let (mut pair, mut camera, _) = watched();
    film(&mut pair, &mut camera, true, 1);
    assert_eq!(pair.shards[1].stats.gauge(Gauge::MirroredTracks), 1);
    assert_eq!(pair.shards[1].stats.gauge(Gauge::Tracks), 0);
    let Relay {
        engine, pool, now, ..
    } = &mut pair.shards[1];
    engine.remove_peer(*now, pool, PeerKey(MIRROR));
    pair.shards[1].out.mirror_room = 100;
    pair.shards[1].flush();
    pair.shards[1].out.mirrored.clear();
    film(&mut pair, &mut camera, true, 1);
    for packet in camera.frame(true, 1) {
        pair.shards[0].receive(0, &packet);
    }
    pair.shards[0].flush();
    assert!(
        pair.shards[0].out.mirrored.is_empty(),
        "told when it came in vain"
    );
    assert_eq!(pair.shards[1].stats.gauge(Gauge::MirroredTracks), 0);
    assert!(pair.shards[1].pool_is_whole());
}

#[test]
fn encodings_that_only_another_shard_wants_are_wanted() {
    let mut pair = Pair::new(simulcast_media);
    pair.publish(0, VIDEO_MID, Source::Camera).unwrap();
    let id = track(0, VIDEO_MID);
    pair.shards[1].assign(1, VIDEO_SLOTS, Some(id)).unwrap();
    pair.exchange();
    let mut cameras: Vec<_> = (0..3).map(|n| Camera::simulcast(0, n)).collect();
    let run = |pair: &mut Pair, cameras: &mut [Camera], frames: usize| {
        for n in 0..frames {
            for camera in &mut *cameras {
                film(pair, camera, n % 10 == 0, 1);
            }
            pair.advance_ms(33);
        }
    };
    run(&mut pair, &mut cameras, 250);
    let told = |pair: &Pair| {
        let mut wanted = pair.shards[0].events.iter().filter_map(|e| match e {
            MediaEvent::EncodingsWanted { active, .. } => Some(*active),
            _ => None,
        });
        wanted.next_back()
    };
    // The subscriber gets the largest; of the others the smallest is kept for whoever comes.
    assert_eq!(told(&pair), Some(0b101));
    let limit = sealcast_media::LayerLimit {
        spatial: 0,
        temporal: u8::MAX,
    };
    let Relay { engine, now, .. } = &mut pair.shards[1];
    engine
        .limit_slot(*now, PeerKey(1), sealcast_model::SlotId(VIDEO_SLOTS), limit)
        .unwrap();
    run(&mut pair, &mut cameras, 250);
    assert_eq!(told(&pair), Some(0b001));
    assert!(
        pair.shards[1]
            .events
            .iter()
            .all(|e| !matches!(e, MediaEvent::EncodingsWanted { .. })),
        "a mirror has nobody to tell"
    );
}

#[test]
fn who_speaks_is_known_on_every_shard() {
    let mut pair = Pair::new(media);
    pair.publish(0, AUDIO_MID, Source::Audio).unwrap();
    pair.exchange();
    let mut voice = Voice::new(0);
    for _ in 0..100 {
        let packet = voice.next();
        pair.shards[0].receive(0, &packet);
        pair.exchange();
        pair.advance_ms(20);
    }
    for (shard, listener) in [(0, 2), (1, 1)] {
        let told = pair.shards[shard].events.iter().any(|e| {
            *e == MediaEvent::SpeakerChanged {
                peer: PeerKey(listener),
                track: Some(track(0, AUDIO_MID)),
            }
        });
        assert!(told, "on shard {shard}");
    }
}

#[test]
fn messages_that_fit_nothing_are_dropped() {
    let (mut pair, mut camera, track) = watched();
    film(&mut pair, &mut camera, true, 1);
    let place = sealcast_media::MirrorPlace {
        track,
        index: 77,
        encoding: 9,
        life: 1,
    };
    let received = pair.shards[1].now;
    for from in [0, 1, 9] {
        for message in [
            Mirror::Packet {
                place,
                sequence: 5,
                repaired: false,
                received,
            },
            Mirror::Packet {
                place: sealcast_media::MirrorPlace { index: 0, ..place },
                sequence: 5,
                repaired: true,
                received,
            },
            Mirror::Skip {
                place,
                sequence: u64::MAX,
            },
            Mirror::Want {
                track,
                index: 3,
                encodings: 0xff,
                needed: 1,
            },
            Mirror::Want {
                track: TrackId(1),
                index: 3,
                encodings: 0xff,
                needed: 0xff,
            },
            Mirror::Keyframe {
                track,
                encoding: 200,
            },
            Mirror::Missing {
                track,
                encoding: 4,
                numbers: [1; 16],
                count: 255,
            },
        ] {
            let Relay {
                engine, pool, now, ..
            } = &mut pair.shards[1];
            engine.handle_mirror(*now, pool, ShardId(from), &message, &[0x80; 11]);
        }
    }
    // Answers go to shards that are not there.
    pair.shards[1].flush();
    pair.shards[1].out.mirrored.clear();
    film(&mut pair, &mut camera, false, 1);
    assert_eq!(pair.shards[1].out.rtp.len(), 2, "and disturb nothing");
    assert!(pair.shards[1].pool_is_whole());
}
