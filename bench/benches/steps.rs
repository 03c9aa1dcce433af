//! The steps of a packet's way, one by one: parse, layer numbers, rewrite, history, feedback, and
//! a whole shard's fan-out without the kernel. Opening and sealing are in the `srtp` bench.

use bench::client::Features;
use bench::shape::{Topology, Traffic};
use bench::world::World;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealcast_media::repair::{HistoryLimits, PacketHistory};
use sealcast_model::Time;
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

/// A packet as Chromium sends it: absolute send time, transport-wide number, MID.
fn packet() -> Vec<u8> {
    let elements = [
        Extension {
            id: 2,
            data: &[1, 2, 3],
        },
        Extension {
            id: 3,
            data: &[0, 7],
        },
        Extension { id: 4, data: b"1" },
    ];
    let mut packet = vec![0x5a; 1_200];
    let len =
        write_header(&mut packet, &HeaderFields::default(), &elements).expect("there is room");
    packet.truncate(len + 1_100);
    packet
}

fn parse(c: &mut Criterion) {
    let packet = packet();
    c.bench_function("parse/header and one extension", |b| {
        b.iter(|| {
            let header = RtpHeader::parse(black_box(&packet)).expect("well formed");
            black_box(header.extension(&packet, 3).map(<[u8]>::len))
        });
    });
    // RFC 9628 §4.2: picture id of 15 bits, layer indices, TL0PICIDX.
    let descriptor = [0xac, 0x81, 0x23, 0x15, 0x44, 0x5a, 0x5a, 0x5a];
    c.bench_function("layer selection/VP9 descriptor", |b| {
        b.iter(|| black_box(Vp9Descriptor::parse(black_box(&descriptor)).is_ok()));
    });
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
    let mut group = c.benchmark_group("fan-out, all but the kernel");
    group
        .measurement_time(Duration::from_secs(3))
        .sample_size(10);
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

criterion_group!(benches, parse, history, rtcp, fan_out);
criterion_main!(benches);
