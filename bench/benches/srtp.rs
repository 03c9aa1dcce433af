//! SRTP per packet: seal and open, every profile, both back ends, video and audio sizes.
//!
//! `seal` walks 64 output slots and `open` as many sealed packets, so that the working set is a
//! relay's rather than one hot buffer.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealcast_srtp::{Backend, Inbound, KeyError, MasterKey, Outbound, Profile, SealError};
use std::hint::black_box;

/// Payload bytes of a full video packet and of an audio packet.
const PAYLOADS: [usize; 2] = [1_100, 120];
/// Bytes of an RTP header with one transport-wide sequence number.
const HEADER: usize = 20;
const SLOTS: usize = 64;
const SLOT: usize = 1_536;
const SSRC: u32 = 0x5ea1_ca57;

fn key(profile: Profile) -> Result<MasterKey, KeyError> {
    let material = [0x42; 32];
    MasterKey::new(
        profile,
        &material[..profile.key_len()],
        &material[..profile.salt_len()],
    )
}

fn header(seq: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&[0x90, 96]);
    header[2..4].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&SSRC.to_be_bytes());
    header[12..18].copy_from_slice(&[0xbe, 0xde, 0, 1, 0x31, 0]);
    header
}

fn seal(c: &mut Criterion) {
    for payload_len in PAYLOADS {
        let mut group = c.benchmark_group(format!("seal_{payload_len}"));
        group.throughput(Throughput::Elements(1));
        let payload = vec![0x5a; payload_len];
        for profile in Profile::ALL {
            for backend in Backend::ALL {
                let id = BenchmarkId::new(profile.name(), backend);
                group.bench_function(id, |b| {
                    let key = key(profile).expect("lengths match");
                    let mut outbound = Outbound::new(backend, &key).expect("back end works");
                    let mut stream = outbound.stream(SSRC).expect("first stream");
                    let mut out = vec![0; SLOTS * SLOT];
                    let mut seq = 0u16;
                    b.iter(|| {
                        let slot = usize::from(seq) % SLOTS * SLOT;
                        let out = &mut out[slot..slot + SLOT];
                        let len = outbound.seal_rtp(&mut stream, &header(seq), &payload, out);
                        seq = seq.wrapping_add(1);
                        black_box(len).expect("sequence numbers advance")
                    });
                });
            }
        }
        group.finish();
    }
}

/// `SLOTS` sealed packets in a row, and a context that has seen none of them.
fn sealed(
    backend: Backend,
    profile: Profile,
    payload_len: usize,
) -> Result<(Vec<Vec<u8>>, MasterKey), SealError> {
    let key = key(profile).map_err(|_| SealError::Backend)?;
    let mut outbound = Outbound::new(backend, &key).map_err(|_| SealError::Backend)?;
    let mut stream = outbound.stream(SSRC)?;
    let payload = vec![0x5a; payload_len];
    let mut packets = Vec::with_capacity(SLOTS);
    for seq in 0..SLOTS as u16 {
        let mut out = vec![0; SLOT];
        let len = outbound.seal_rtp(&mut stream, &header(seq), &payload, &mut out)?;
        out.truncate(len);
        packets.push(out);
    }
    Ok((packets, key))
}

fn open(c: &mut Criterion) {
    for payload_len in PAYLOADS {
        let mut group = c.benchmark_group(format!("open_{payload_len}"));
        group.throughput(Throughput::Elements(SLOTS as u64));
        for profile in Profile::ALL {
            for backend in Backend::ALL {
                let id = BenchmarkId::new(profile.name(), backend);
                let (packets, key) = sealed(backend, profile, payload_len).expect("back end works");
                group.bench_function(id, |b| {
                    b.iter_batched_ref(
                        || {
                            let inbound = Inbound::new(backend, &key).expect("back end works");
                            (inbound, packets.clone())
                        },
                        |(inbound, packets)| {
                            for packet in packets {
                                black_box(inbound.open_rtp(packet)).expect("authentic");
                            }
                        },
                        BatchSize::SmallInput,
                    );
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
