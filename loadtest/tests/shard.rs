//! Native clients through a real shard: SDP by the relay's own negotiation, packets over a
//! simulated network, all under a virtual clock.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;

use common::{RelaySide, policy, publish};
use sealcast_load::model::{Codec, OpusParams, VideoParams};
use sealcast_load::peer::{
    Answer, Outbox, Peer, PeerConfig, PeerContext, PeerEvent, Proto, Received, RejectReason, Route,
    SealConfig, SealKeys, SenderParams,
};
use sealcast_model::{
    AssignSlot, Command, Counter, Event, Mid, NtpClock, Publish, RequestId, RoomId, SealRule,
    SessionId, ShardStats, SlotId, Source, Time, TrackId,
};
use sealcast_netsim::{Link, LinkConfig, Loss};
use sealcast_sframe::CipherSuite;
use sealcast_shard::{
    EgressBatch, Outbox as ShardOutbox, Path, SendReport, SessionContext, Shard, ShardConfig,
    Transport,
};
use sealcast_srtp::Backend;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Resolution of the virtual clock.
const STEP: Duration = Duration::from_micros(100);

const RELAY: &str = "203.0.113.1:7000";

fn relay() -> SocketAddr {
    RELAY.parse().unwrap()
}

/// A client, its two directions of network, and what it told.
struct Node {
    peer: Peer,
    addr: SocketAddr,
    up: Link<Vec<u8>>,
    down: Link<Vec<u8>>,
    received: Vec<Received>,
    rejected: Vec<RejectReason>,
    events: Vec<PeerEvent>,
    /// Tracks by sender.
    tracks: Vec<TrackId>,
    session: SessionId,
}

struct World {
    now: Time,
    shard: Shard,
    stats: Arc<ShardStats>,
    side: RelaySide,
    ctx: PeerContext,
    nodes: Vec<Node>,
    next_id: u64,
    shard_events: Vec<Event>,
}

/// Puts the batch's datagrams on the links of their clients.
struct Down<'a> {
    now: Time,
    nodes: &'a mut [Node],
}

impl ShardOutbox for Down<'_> {
    fn send(&mut self, batch: &EgressBatch, report: &mut SendReport) {
        for run in batch.runs() {
            let node = self.nodes.iter_mut().find(|n| n.addr == run.path.remote);
            let node = node.expect("a known client");
            for datagram in batch.datagrams(run) {
                node.down.push(self.now, datagram.to_vec(), datagram.len());
            }
        }
        report.all_taken(self.now);
    }
}

#[derive(Clone)]
struct NodeConfig {
    send: Vec<SenderParams>,
    slots: (usize, usize),
    key: Option<Vec<u8>>,
    link: LinkConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            send: vec![
                SenderParams::Audio(OpusParams::default()),
                SenderParams::Video(VideoParams::default()),
            ],
            slots: (3, 3),
            key: Some(vec![7; 32]),
            link: LinkConfig {
                delay: Duration::from_millis(10),
                ..LinkConfig::default()
            },
        }
    }
}

impl World {
    fn new(repair: bool) -> World {
        #[expect(
            clippy::disallowed_methods,
            reason = "the clock is virtual from here on"
        )]
        let epoch = Instant::now();
        let context = SessionContext::generate(epoch, Backend::AwsLcRs).unwrap();
        let stats = Arc::new(ShardStats::default());
        let fingerprint = context.fingerprint_sha256();
        let clock = NtpClock::from_unix(Duration::from_secs(1_000_000));
        World {
            now: Time::from_millis(1_000),
            shard: Shard::new(ShardConfig::default(), context, clock, Arc::clone(&stats)),
            stats,
            side: RelaySide {
                fingerprint,
                udp: vec![relay()],
                tcp: vec![],
                policy: policy(repair),
            },
            ctx: PeerContext::new(epoch, Backend::AwsLcRs).unwrap(),
            nodes: vec![],
            next_id: 100,
            shard_events: vec![],
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
    }

    fn request(&mut self) -> RequestId {
        RequestId(self.id())
    }

    /// A client joins room 1: offer, answer, session, tracks.
    fn join(&mut self, config: &NodeConfig) -> usize {
        let index = self.nodes.len();
        let addr: SocketAddr = format!("198.51.100.{}:5000", index + 1).parse().unwrap();
        let seal = config.key.clone().map(|base_key| SealConfig {
            suite: CipherSuite::Aes256GcmSha512,
            keys: SealKeys::Link(base_key),
        });
        let peer_config = PeerConfig {
            send: config.send.clone(),
            audio_slots: config.slots.0,
            video_slots: config.slots.1,
            data: true,
            seal,
            locals: vec![(Proto::Udp, addr)],
            seed: 1_000 + index as u64,
        };
        let mut peer = Peer::new(self.now, &self.ctx, &peer_config).unwrap();
        let session = SessionId(self.id());
        let answer = self.open_session(session, &peer.offer());
        let mut out = Outbox::new();
        peer.accept(self.now, &answer, &mut out).unwrap();
        let link = |direction| Link::new(config.link, 10 * index as u64 + direction);
        self.nodes.push(Node {
            peer,
            addr,
            up: link(0),
            down: link(1),
            received: vec![],
            rejected: vec![],
            events: vec![],
            tracks: vec![],
            session,
        });
        self.carry_up(index, &out);
        for sender in 0..config.send.len() {
            self.publish(index, sender, &config.send[sender]);
        }
        index
    }

    fn open_session(&mut self, session: SessionId, offer: &str) -> Answer {
        let (command, answer) = self.side.open(session, RoomId(1), offer);
        self.command(command);
        answer
    }

    fn publish(&mut self, node: usize, sender: usize, params: &SenderParams) {
        let track = TrackId(self.id());
        let contexts = self.nodes[node].peer.seal_contexts(sender);
        let session = self.nodes[node].session;
        let command = publish(track, session, sender, params, contexts);
        self.command(command);
        self.nodes[node].tracks.push(track);
    }

    /// Shows `from`'s tracks in `to`'s slots: its audio in audio slot `n`, its video in video
    /// slot `n` of `video` many.
    fn show(&mut self, to: usize, from: usize, n: usize, audio_slots: usize) {
        let [audio, video] = self.nodes[from].tracks[..] else {
            panic!()
        };
        let assign = vec![
            AssignSlot {
                slot: SlotId(n as u16),
                track: Some(audio),
            },
            AssignSlot {
                slot: SlotId((audio_slots + n) as u16),
                track: Some(video),
            },
        ];
        let session = self.nodes[to].session;
        let request = self.request();
        self.command(Command::AssignSlots {
            request,
            session,
            assign,
        });
    }

    fn carry_up(&mut self, node: usize, out: &Outbox) {
        for datagram in out.iter() {
            assert_eq!(datagram.route.remote, relay());
            let up = &mut self.nodes[node].up;
            up.push(self.now, datagram.bytes.to_vec(), datagram.bytes.len());
        }
    }

    /// Advances the clock by `d`, event by event.
    fn run(&mut self, d: Duration) {
        let end = self.now + d;
        while self.now < end {
            self.step();
            let mut next = self.shard.poll_timeout();
            for node in &self.nodes {
                next = next
                    .min(node.peer.poll_timeout())
                    .min(node.up.poll_timeout())
                    .min(node.down.poll_timeout());
            }
            self.now = next.max(self.now + STEP).min(end);
        }
        self.step();
    }

    fn step(&mut self) {
        let now = self.now;
        for index in 0..self.nodes.len() {
            let path = Path {
                transport: Transport::Udp,
                local: relay(),
                remote: self.nodes[index].addr,
            };
            while let Some(datagram) = self.nodes[index].up.pop(now) {
                self.shard.handle_datagram(now, now, &path, &datagram);
            }
        }
        self.shard.handle_timeout(now);
        self.shard.flush(
            now,
            &mut Down {
                now,
                nodes: &mut self.nodes,
            },
        );
        while let Some(event) = self.shard.poll_event() {
            self.shard_events.push(event);
        }
        for index in 0..self.nodes.len() {
            let mut out = Outbox::new();
            let node = &mut self.nodes[index];
            let route = Route {
                proto: Proto::Udp,
                local: node.addr,
                remote: relay(),
            };
            while let Some(mut datagram) = node.down.pop(now) {
                node.peer.handle_packet(now, route, &mut datagram, &mut out);
            }
            node.peer.handle_timeout(now, &mut out);
            while let Some(event) = node.peer.poll_event() {
                match event {
                    PeerEvent::Received(frame) => node.received.push(frame),
                    PeerEvent::Rejected { reason, .. } => node.rejected.push(reason),
                    event => node.events.push(event),
                }
            }
            self.carry_up(index, &out);
        }
    }

    fn start(&mut self, node: usize) {
        for sender in 0..self.nodes[node].tracks.len() {
            // Out of step, as people are.
            let first = self.now + Duration::from_millis(7 * node as u64 + 3 * sender as u64);
            self.nodes[node].peer.start(sender, first);
        }
    }

    /// Three clients that see and hear each other.
    fn consult(repair: bool, config: &NodeConfig) -> World {
        let mut world = World::new(repair);
        for _ in 0..3 {
            world.join(config);
        }
        // SCTP sends a lost INIT again after 3 s.
        let open = |n: &Node| n.events.contains(&PeerEvent::DataOpen);
        let deadline = world.now + Duration::from_secs(30);
        while !world.nodes.iter().all(open) {
            world.run(Duration::from_millis(100));
            assert!(world.now < deadline, "not connected");
        }
        for to in 0..3 {
            for (n, from) in (0..3).filter(|from| *from != to).enumerate() {
                world.show(to, from, n, 3);
            }
        }
        for event in &world.shard_events {
            assert!(
                !matches!(event, Event::Reply { result: Err(_), .. }),
                "{event:?}"
            );
        }
        world
    }

    fn assert_no_faults(&self) {
        for node in &self.nodes {
            assert_eq!(node.peer.faults(), Default::default());
        }
    }
}

/// Frames of one codec in one slot.
fn frames(node: &Node, slot: usize) -> Vec<&Received> {
    node.received.iter().filter(|r| r.slot == slot).collect()
}

#[test]
fn every_frame_of_a_consult_arrives_and_is_right() {
    let mut world = World::consult(false, &NodeConfig::default());
    (0..3).for_each(|n| world.start(n));
    world.run(Duration::from_secs(10));
    for n in 0..3 {
        world.nodes[n].peer.stop(0);
        world.nodes[n].peer.stop(1);
    }
    world.run(Duration::from_secs(1));
    world.assert_no_faults();
    for node in &world.nodes {
        assert_eq!(node.rejected, []);
        let sent = (0..2)
            .map(|s| node.peer.send_stats(s).unwrap())
            .collect::<Vec<_>>();
        assert!(sent[0].frames >= 500 && sent[1].frames >= 300, "{sent:?}");
        assert!(sent[0].worst_lag <= STEP, "{sent:?}");
    }
    for (to, node) in world.nodes.iter().enumerate() {
        for (n, from) in (0..3).filter(|from| *from != to).enumerate() {
            for (slot, sender) in [(n, 0), (3 + n, 1)] {
                let got = frames(node, slot);
                let sent = world.nodes[from].peer.send_stats(sender).unwrap();
                let want: Vec<u64> = (0..sent.frames).collect();
                let numbers: Vec<u64> = got.iter().map(|r| r.info.number).collect();
                assert_eq!(numbers, want, "slot {slot} of {to}");
                assert!(got.iter().all(|r| r.decodable));
                assert!(got.iter().all(|r| r.info.stream == got[0].info.stream));
                // Two links of 10 ms, and a step of the simulation at each end.
                let slowest = got.iter().map(|r| r.complete - r.info.due).max().unwrap();
                assert!(slowest <= Duration::from_millis(21), "{slowest:?}");
            }
        }
        assert!(
            frames(node, 2).is_empty() && frames(node, 5).is_empty(),
            "unassigned slots"
        );
    }
}

#[test]
fn every_codec_crosses_sealed_and_a_slot_shows_one_after_the_other() {
    let mut world = World::new(true);
    let sender = |codec| NodeConfig {
        send: vec![
            SenderParams::Audio(OpusParams::default()),
            SenderParams::Video(VideoParams {
                codec,
                ..VideoParams::default()
            }),
        ],
        slots: (0, 0),
        ..NodeConfig::default()
    };
    let senders = Codec::VIDEO.map(|codec| world.join(&sender(codec)));
    let viewer = world.join(&NodeConfig {
        send: vec![],
        slots: (1, 1),
        ..NodeConfig::default()
    });
    world.run(Duration::from_secs(4));
    senders.iter().for_each(|n| world.start(*n));
    for (n, codec) in senders.into_iter().zip(Codec::VIDEO) {
        world.nodes[viewer].received.clear();
        world.show(viewer, n, 0, 1);
        world.run(Duration::from_secs(3));
        let video = frames(&world.nodes[viewer], 1);
        let shown: Vec<_> = video.iter().filter(|r| r.codec == codec).collect();
        // Key frames are asked for where the slot changes; then every picture comes and can be
        // shown.
        assert!(shown.len() > 80, "{codec:?}: {} of 90", shown.len());
        assert!(shown.iter().all(|r| r.decodable), "{codec:?}");
        assert_eq!(world.nodes[viewer].rejected, [], "{codec:?}");
    }
    world.assert_no_faults();
}

#[test]
fn without_the_key_nothing_opens() {
    let mut world = World::consult(false, &NodeConfig::default());
    let spy = NodeConfig {
        key: Some(vec![8; 32]),
        send: vec![],
        ..NodeConfig::default()
    };
    let spy = world.join(&spy);
    world.run(Duration::from_secs(2));
    world.show(spy, 0, 0, 3);
    world.start(0);
    world.run(Duration::from_secs(3));
    let spy = &world.nodes[spy];
    assert_eq!(spy.received, []);
    assert!(spy.rejected.len() > 200);
    assert!(
        spy.rejected
            .iter()
            .all(|r| matches!(r, RejectReason::Seal(_)))
    );
    assert!(
        world.nodes[1].received.len() > 200,
        "others open what the spy cannot"
    );
}

#[test]
fn bare_media_is_blocked_where_sealed_media_was_announced() {
    let mut world = World::new(false);
    let bare = world.join(&NodeConfig {
        key: None,
        ..NodeConfig::default()
    });
    world.run(Duration::from_secs(2));
    // Announced as sealed under some context; the client does not seal.
    let mid = Mid::new(b"0").unwrap();
    let (session, track) = (world.nodes[bare].session, world.nodes[bare].tracks[0]);
    world.command(Command::Unpublish { track });
    let request = world.request();
    let publish = Publish {
        track: TrackId(9),
        session,
        mid,
        source: Source::Audio,
        seal: SealRule::Contexts(vec![5]),
    };
    world.command(Command::Publish {
        request,
        publish: Box::new(publish),
    });
    world.nodes[bare].peer.start(0, world.now);
    world.run(Duration::from_secs(2));
    assert!(world.stats.get(Counter::DropUnsealed) > 0);
    let blocked = Event::TrackBlocked { track: TrackId(9) };
    let same = |e: &Event| format!("{e:?}") == format!("{blocked:?}");
    assert!(world.shard_events.iter().any(same));
}

#[test]
fn a_lossy_network_costs_frames_and_nothing_else() {
    let lossy = NodeConfig {
        link: LinkConfig {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            loss: Loss::Uniform { probability: 0.01 },
            ..LinkConfig::default()
        },
        ..NodeConfig::default()
    };
    let mut world = World::consult(false, &lossy);
    (0..3).for_each(|n| world.start(n));
    world.run(Duration::from_secs(20));
    for node in &world.nodes {
        // Whatever arrives whole is right; a replay or a forgery would show here.
        assert_eq!(node.rejected, []);
        assert_eq!(node.peer.faults(), Default::default());
        for slot in [0, 1] {
            let stats = node.peer.receive_stats(slot).unwrap();
            // Two hops of 1 %: 98 % of 1,000 frames.
            assert!((950..=995).contains(&stats.frames), "{stats:?}");
        }
        for slot in [3, 4] {
            let stats = node.peer.receive_stats(slot).unwrap();
            assert!(stats.depacketizer.lost > 0 && stats.plis > 0, "{stats:?}");
            let shown = stats.frames - stats.undecodable;
            // Two hops of 1 % lose 3.4 % of the frames of 1.7 packets. Without repair the picture is
            // gone from there to the next key frame; with two viewers who ask, there is one every
            // 500 ms, as often as the relay asks. Of 15 frames from a key frame on, which comes
            // whole at 0.98^12, 0.785 · (1 + 0.966 + … + 0.966^14) = 9.4 are shown, with a standard
            // deviation of 6.5: of 40 such periods 374 ± 41. Bounds are five of these away.
            assert!((168..=580).contains(&shown), "{shown} of 600: {stats:?}");
        }
        let stats = node.peer.send_stats(1).unwrap();
        assert!(stats.key_requests > 0 && stats.key_frames > 1, "{stats:?}");
    }
}
