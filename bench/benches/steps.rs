//! The steps of a packet's way, one by one: parse, layer selection, rewrite, history, building RTCP,
//! and a whole shard's fan-out without the kernel. Opening and sealing are in the `srtp` bench.

use bench::client::Features;
use bench::shape::{Topology, Traffic};
use bench::world::World;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealcast_media::repair::{HistoryLimits, PacketHistory};
use sealcast_media::steps::{Rewrite, Select};
use sealcast_model::{HeaderExtension, Mid, Time};
use sealcast_rtp::payload::vp9::Vp9Descriptor;
use sealcast_rtp::rtcp::{RtcpWriter, TransportFeedbackFields};
use sealcast_rtp::{Extension, HeaderFields, RtpHeader, write_header};
use sealcast_srtp::{Backend, Profile};
use std::hint::black_box;
use std::time::Duration;

const ALL_ON: Features = Features {
    repair: true,
    transport_cc: true,
};

/// What Chromium and this relay agree on.
const EXTENSIONS: [(u8, HeaderExtension); 4] = [
    (2, HeaderExtension::AbsSendTime),
    (3, HeaderExtension::TransportCc),
    (4, HeaderExtension::Mid),
    (5, HeaderExtension::DependencyDescriptor),
];

/// A packet as Chromium sends it: absolute send time, transport-wide number, MID, and a dependency
/// descriptor if it is AV1's.
fn packet(described: bool) -> Vec<u8> {
    let element = |id, data| Extension { id, data };
    let elements = [
        element(2, &[1, 2, 3]),
        element(3, &[0, 7]),
        element(4, b"1"),
        element(5, &[0x80, 0, 1]),
    ];
    let elements = &elements[..elements.len() - usize::from(!described)];
    let mut packet = vec![0x5a; 1_200];
    let len = write_header(&mut packet, &HeaderFields::default(), elements).expect("there is room");
    packet.truncate(len + 1_100);
    packet
}

fn parse(c: &mut Criterion) {
    let packet = packet(false);
    c.bench_function("parse/header and one extension", |b| {
        b.iter(|| {
            let header = RtpHeader::parse(black_box(&packet)).expect("well formed");
            black_box(header.extension(&packet, 3).map(<[u8]>::len))
        });
    });
    // RFC 9628 §4.2: picture id of 15 bits, layer indices, TL0PICIDX.
    let descriptor = [0xac, 0x81, 0x23, 0x15, 0x44, 0x5a, 0x5a, 0x5a];
    c.bench_function("parse/VP9 descriptor", |b| {
        b.iter(|| black_box(Vp9Descriptor::parse(black_box(&descriptor)).is_ok()));
    });
}

fn rewrite(c: &mut Criterion) {
    for (name, described) in [
        ("rewrite/numbers and header", false),
        ("rewrite/with a dependency descriptor", true),
    ] {
        let packet = packet(described);
        let mid = Mid::new(b"1").expect("a short name");
        let mut rewrite = Rewrite::new(&packet, mid, &EXTENSIONS).expect("well formed");
        c.bench_function(name, |b| {
            b.iter(|| black_box(rewrite.next(black_box(&packet)).is_some()));
        });
        assert!(rewrite.next(&packet).is_some(), "all were forwarded");
    }
}

/// Pictures of three spatial layers and three temporal ones, of which a subscription gets two each.
fn layer_selection(c: &mut Criterion) {
    const PICTURES: u16 = 64;
    let mut payloads = Vec::new();
    for picture in 0..PICTURES {
        let temporal = [0u8, 2, 1, 2][usize::from(picture % 4)];
        for spatial in 0..3u8 {
            let [high, low] = (picture | 0x8000).to_be_bytes();
            // RFC 9628 §4.2: I, P unless it is a key picture, L, B and E.
            let first = 0xac | u8::from(picture > 0) << 6;
            let layers = temporal << 5 | 1 << 4 | spatial << 1 | u8::from(spatial > 0);
            payloads.push((
                picture,
                [first, high, low, layers, (picture / 4) as u8, 0x5a],
            ));
        }
    }
    let mut group = c.benchmark_group("layer selection");
    group.throughput(Throughput::Elements(payloads.len() as u64));
    group.bench_function("VP9, descriptor and choice", |b| {
        let mut select = Select::new(1, 1);
        // Time goes on when the pictures are shown once more.
        let mut shown = 0u32;
        b.iter(|| {
            let forwarded = payloads.iter().filter(|(picture, payload)| {
                let timestamp = shown.wrapping_add(u32::from(*picture)).wrapping_mul(3_000);
                select.forwards(black_box(payload), timestamp)
            });
            // Half of the pictures, two layers of each.
            assert_eq!(forwarded.count(), usize::from(PICTURES));
            shown = shown.wrapping_add(u32::from(PICTURES));
        });
    });
    group.finish();
}

fn history(c: &mut Criterion) {
    let mut history = PacketHistory::new(HistoryLimits::default());
    let mut next = 0u64;
    for _ in 0..1_000 {
        next += 1;
        history.insert(Time::from_millis(next), next, 1_536, next, |_| ());
    }
    c.bench_function("history/look up", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at * 31 + 7) % 200;
            black_box(history.get(next - at).copied())
        });
    });
    c.bench_function("history/insert", |b| {
        b.iter(|| {
            next += 1;
            history.insert(Time::from_millis(next), next, 1_536, next, |_| ());
        });
    });
}

fn rtcp(c: &mut Criterion) {
    let arrivals: Vec<Option<i64>> = (0..100)
        .map(|i| (i % 17 != 0).then_some(i * 2_000))
        .collect();
    let fields = TransportFeedbackFields {
        sender_ssrc: 1,
        media_ssrc: 2,
        base_sequence_number: 9,
        feedback_count: 3,
    };
    c.bench_function("RTCP build/transport-wide feedback on 100 packets", |b| {
        let mut out = [0; 1_200];
        b.iter(|| {
            let mut writer = RtcpWriter::new(&mut out);
            let built = writer.transport_feedback(&fields, black_box(&arrivals));
            black_box(built.map(|built| built.consumed)).expect("there is room");
            black_box(writer.finish())
        });
    });
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out, no kernel");
    group.sample_size(10);
    for topology in [Topology::TO_20, Topology::TO_100] {
        for profile in [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80] {
            for traffic in [&Traffic::ALL[0], &Traffic::ALL[2], &Traffic::ALL[3]] {
                let frames = 1_600 / topology.fan_out() / traffic.frame + 1;
                let packets = frames * traffic.frame * topology.fan_out();
                group.throughput(Throughput::Elements(packets as u64));
                let name = format!("{}, {}", topology.name, traffic.name);
                let id = BenchmarkId::new(name, profile.name());
                let mut world = World::new(topology, ALL_ON, profile, Backend::AwsLcRs)
                    .expect("clients connect");
                group.bench_function(id, |b| {
                    b.iter_custom(|rounds| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..rounds {
                            let load = world.prepare(traffic, frames).expect("packets are sealed");
                            let start = bench::clock::now();
                            let sent = world.forward(&load);
                            spent += start.elapsed();
                            assert_eq!(sent, packets as u64, "all of it is forwarded");
                            world.rest();
                        }
                        spent
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(
    benches,
    parse,
    rewrite,
    layer_selection,
    history,
    rtcp,
    fan_out
);
criterion_main!(benches);
