//! Native clients and a shard's thread over real sockets on the loopback.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;

use common::{RelaySide, policy, publish};
use sealcast_io::{Bind as IoBind, Clock as IoClock, SessionContext, ShardIoConfig, ShardThread};
use sealcast_load::driver::{Bind, Clock, MediaThread, PeerId};
use sealcast_load::model::{Codec, OpusParams, VideoParams};
use sealcast_load::peer::{
    PeerConfig, PeerContext, PeerEvent, PeerFaults, Proto, Received, SealConfig, SealKeys,
    SenderParams,
};
use sealcast_model::{
    AssignSlot, Command, RequestId, RoomId, SessionId, ShardId, SlotId, Time, TrackId,
};
use sealcast_sframe::CipherSuite;
use sealcast_srtp::Backend;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far more than any step takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn relay(ip: &str) -> (ShardThread, RelaySide) {
    let clock = IoClock::start();
    let context = SessionContext::generate(clock.epoch(), Backend::AwsLcRs).unwrap();
    let fingerprint = context.fingerprint_sha256();
    let addr: SocketAddr = format!("{ip}:0").parse().unwrap();
    let mut config = ShardIoConfig::new(ShardId(0));
    config.udp = vec![IoBind::new(addr)];
    config.tcp = vec![IoBind::new(addr)];
    let thread = ShardThread::spawn(&config, context, clock, Box::new(|_, _| Ok(()))).unwrap();
    let side = RelaySide {
        fingerprint,
        udp: thread.port.udp.clone(),
        tcp: thread.port.tcp.clone(),
        policy: policy(false),
    };
    (thread, side)
}

fn params() -> [SenderParams; 2] {
    [
        SenderParams::Audio(OpusParams::default()),
        SenderParams::Video(VideoParams::default()),
    ]
}

struct Client {
    id: PeerId,
    session: SessionId,
    tracks: [TrackId; 2],
    events: Receiver<(Time, PeerEvent)>,
}

fn join(
    media: &MediaThread,
    shard: &ShardThread,
    side: &RelaySide,
    proto: Proto,
    ip: &str,
    n: u64,
) -> Client {
    let config = PeerConfig {
        send: params().to_vec(),
        audio_slots: 1,
        video_slots: 1,
        data: true,
        seal: Some(SealConfig {
            suite: CipherSuite::Aes256GcmSha512,
            keys: SealKeys::Link(vec![9; 32]),
        }),
        locals: vec![],
        seed: n,
    };
    let bind = Bind {
        proto,
        addr: format!("{ip}:0").parse().unwrap(),
    };
    let (events, inbox) = channel();
    let sink = Box::new(move |now, event| {
        let _ = events.send((now, event));
    });
    let (id, offer) = media
        .call(move |m| m.add(bind, config, sink))
        .unwrap()
        .unwrap();
    let session = SessionId(n);
    let (command, answer) = side.open(session, RoomId(1), &offer);
    shard.port.commands.send(command).unwrap();
    let contexts = media.call(move |m| m.with(id, |_, p, _| [0, 1].map(|s| p.seal_contexts(s))));
    let contexts = contexts.unwrap().unwrap();
    let tracks = [TrackId(10 * n), TrackId(10 * n + 1)];
    for (sender, params) in params().iter().enumerate() {
        let command = publish(
            tracks[sender],
            session,
            sender,
            params,
            contexts[sender].clone(),
        );
        shard.port.commands.send(command).unwrap();
    }
    media.call(move |m| m.accept(id, &answer)).unwrap().unwrap();
    Client {
        id,
        session,
        tracks,
        events: inbox,
    }
}

impl Client {
    fn wait_for(&self, what: impl Fn(&PeerEvent) -> bool) {
        while !what(
            &self
                .events
                .recv_timeout(PATIENCE)
                .expect("an event in time")
                .1,
        ) {}
    }

    /// Waits for `count` frames of each codec.
    fn wait_for_frames(&self, count: usize) -> Vec<Received> {
        let mut got = vec![];
        let of = |got: &[Received], codec| got.iter().filter(|r| r.codec == codec).count();
        while of(&got, Codec::Opus) < count || of(&got, Codec::Vp8) < count {
            match self
                .events
                .recv_timeout(PATIENCE)
                .expect("a frame in time")
                .1
            {
                PeerEvent::Received(frame) => got.push(frame),
                PeerEvent::Rejected { reason, .. } => panic!("{reason:?}"),
                _ => {}
            }
        }
        got
    }
}

/// Two clients that show each other audio and video.
fn call(proto: Proto, ip: &str) {
    let (shard, side) = relay(ip);
    let clock = Clock::start();
    let ctx = PeerContext::new(clock.epoch(), Backend::AwsLcRs).unwrap();
    let media = MediaThread::spawn("peers", clock, ctx).unwrap();
    let clients = [1, 2].map(|n| join(&media, &shard, &side, proto, ip, n));
    for client in &clients {
        client.wait_for(|e| matches!(e, PeerEvent::Connected { .. }));
        client.wait_for(|e| *e == PeerEvent::DataOpen);
    }
    for (to, from) in [(0, 1), (1, 0)] {
        let assign = (0..2)
            .map(|n| AssignSlot {
                slot: SlotId(n as u16),
                track: Some(clients[from].tracks[n]),
            })
            .collect();
        let session = clients[to].session;
        let request = RequestId(90 + to as u64);
        shard
            .port
            .commands
            .send(Command::AssignSlots {
                request,
                session,
                assign,
            })
            .unwrap();
    }
    for client in &clients {
        // The slot notice says that the assignment is in force.
        client.wait_for(|e| matches!(e, PeerEvent::Data { .. }));
    }
    for client in &clients {
        let id = client.id;
        media
            .call(move |m| {
                m.with(id, |now, peer, _| {
                    peer.start(0, now);
                    peer.start(1, now);
                })
            })
            .unwrap()
            .unwrap();
    }
    for client in &clients {
        let frames = client.wait_for_frames(60);
        for codec in [Codec::Opus, Codec::Vp8] {
            let of: Vec<_> = frames.iter().filter(|f| f.codec == codec).collect();
            assert_eq!(of[0].info.number, 0, "{codec:?} from the first frame on");
            assert!(
                of.windows(2)
                    .all(|w| w[1].info.number == w[0].info.number + 1)
            );
            assert!(of.iter().all(|f| f.decodable && f.complete >= f.info.due));
        }
        let id = client.id;
        let (faults, route) = media
            .call(move |m| m.with(id, |_, p, _| (p.faults(), p.route())))
            .unwrap()
            .unwrap();
        assert_eq!(faults, PeerFaults::default());
        assert_eq!(route.map(|r| r.proto), Some(proto));
    }
    for client in &clients {
        let id = client.id;
        media.call(move |m| m.remove(id)).unwrap();
        client.wait_for(|e| *e == PeerEvent::Closed);
    }
    assert_eq!(media.call(|m| m.len()), Ok(0));
    assert!(shard.stop());
    shard.join().unwrap();
}

#[test]
fn a_call_over_udp() {
    call(Proto::Udp, "127.0.0.1");
}

#[test]
fn a_call_over_ipv6() {
    call(Proto::Udp, "[::1]");
}

#[test]
fn a_call_over_tcp() {
    call(Proto::Tcp, "127.0.0.1");
}
