//! Forwarding allocates nothing once buffers have their size.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_heap::allocations;
use sealcast_media::{Egress, PacketMeta, PeerKey};
use sealcast_model::Source;
use std::time::Duration;
use support::*;

/// Takes packets without keeping them.
#[derive(Default)]
struct Sink {
    rtp: u64,
    rtcp: u64,
    bytes: usize,
}

impl Egress for Sink {
    fn rtp(&mut self, _: PeerKey, _: u64, header: &[u8], payload: &[u8], _: PacketMeta) {
        self.rtp += 1;
        self.bytes += header.len() + payload.len();
    }

    fn rtcp(&mut self, _: PeerKey, packet: &[u8]) {
        self.rtcp += 1;
        self.bytes += packet.len();
    }
}

/// Plays prepared rounds of packets and timers into the engine, 20 ms apart.
fn play(
    relay: &mut Relay,
    sink: &mut Sink,
    rounds: &[Vec<(u32, Vec<u8>)>],
    reports: &[(u32, Vec<u8>)],
) {
    for round in rounds {
        for (key, packet) in round {
            relay.receive(*key, packet);
        }
        for (key, report) in reports {
            relay.engine.handle_rtcp(relay.now, PeerKey(*key), report);
        }
        relay.engine.handle_timeout(relay.now);
        relay.engine.flush(relay.now, &mut relay.pool, sink);
        while relay.engine.poll_event().is_some() {}
        relay.now += Duration::from_millis(20);
    }
}

#[test]
fn forwarding_allocates_nothing() {
    let mut relay = Relay::new();
    let peers: Vec<u32> = (1..=8).collect();
    for key in &peers {
        relay.join_room(*key, 1, &controlled(media(*key)));
        relay.engine.peer_connected(relay.now, PeerKey(*key));
        relay.publish(*key, AUDIO_MID, Source::Audio);
        relay.publish(*key, VIDEO_MID, Source::Camera);
    }
    for key in &peers {
        for (n, other) in (0u16..).zip(peers.iter().filter(|other| *other != key)) {
            relay
                .assign(*key, n, Some(track(*other, AUDIO_MID)))
                .unwrap();
            relay
                .assign(*key, VIDEO_SLOTS + n, Some(track(*other, VIDEO_MID)))
                .unwrap();
        }
    }
    let mut voices: Vec<_> = peers.iter().map(|key| Voice::new(*key)).collect();
    let mut cameras: Vec<_> = peers.iter().map(|key| Camera::new(*key)).collect();
    // With loss, reordering, frames of several packets and a key frame now and then.
    let mut rounds: Vec<Vec<(u32, Vec<u8>)>> = (0..600)
        .map(|n| {
            let mut round: Vec<_> = voices
                .iter_mut()
                .map(|voice| (voice.key, voice.next()))
                .collect();
            for camera in &mut cameras {
                let frame = camera.frame(n % 100 == 0, 4);
                round.extend(
                    frame
                        .into_iter()
                        .enumerate()
                        .filter(|(i, _)| (n + i) % 37 != 5)
                        .map(|(_, p)| (camera.key, p)),
                );
            }
            let len = round.len();
            round.swap(len - 1, len - 2);
            round
        })
        .collect();
    let measured = rounds.split_off(200);
    let reports: Vec<_> = peers
        .iter()
        .map(|key| {
            let mut bytes = vec![0; 100];
            let mut writer = sealcast_rtp::rtcp::RtcpWriter::new(&mut bytes);
            let info = sealcast_rtp::rtcp::SenderInfo {
                ssrc: video_ssrc(*key),
                ntp: sealcast_rtp::NtpTime(1 << 40),
                ..Default::default()
            };
            writer.sender_report(&info, &[]).unwrap();
            writer
                .pli(sealcast_rtp::rtcp::Pli {
                    sender_ssrc: 1,
                    media_ssrc: slot_ssrc(*key, VIDEO_SLOTS),
                })
                .unwrap();
            writer.remb(1, 100_000_000, &[]).unwrap();
            let len = writer.finish();
            bytes.truncate(len);
            (*key, bytes)
        })
        .collect();

    let mut sink = Sink::default();
    play(&mut relay, &mut sink, &rounds, &reports);
    let warm = sink.rtp;
    let made = allocations(|| play(&mut relay, &mut sink, &measured, &reports));
    let forwarded = sink.rtp - warm;
    assert!(forwarded > 400 * 8 * 7 * 4, "{forwarded}");
    assert!(
        sink.rtcp > 100,
        "reports and requests flow too: {}",
        sink.rtcp
    );
    assert_eq!(made, 0, "in {forwarded} forwarded packets");
}
