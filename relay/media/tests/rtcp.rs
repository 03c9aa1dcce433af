//! RTCP ends at the relay: reports in both directions, clocks, key-frame requests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_model::limits::KEYFRAME_REQUEST_INTERVAL;
use sealcast_model::{Counter, Source};
use sealcast_rtp::NtpTime;
use sealcast_rtp::rtcp::{Compound, FirEntry, Packet, Pli, ReportBlock, SenderInfo};
use std::time::Duration;
use support::*;

const V0: u16 = VIDEO_SLOTS;

/// Peer 1 publishes audio and video; peers from 2 on show them in their first slots.
fn lecture(listeners: u32) -> (Relay, Voice, Camera) {
    let mut relay = Relay::new();
    relay.join(1);
    relay.publish(1, AUDIO_MID, Source::Audio);
    relay.publish(1, VIDEO_MID, Source::Camera);
    for key in 2..2 + listeners {
        relay.join(key);
        relay.assign(key, 0, Some(track(1, AUDIO_MID))).unwrap();
        relay.assign(key, V0, Some(track(1, VIDEO_MID))).unwrap();
    }
    relay.drain_events();
    (relay, Voice::new(1), Camera::new(1))
}

fn sender_infos(relay: &Relay, key: u32, ssrc: u32) -> Vec<SenderInfo> {
    relay.rtcp_to(key, |packet| match packet {
        Packet::SenderReport(report) if report.info.ssrc == ssrc => Some(report.info),
        _ => None,
    })
}

fn blocks(relay: &Relay, key: u32, ssrc: u32) -> Vec<ReportBlock> {
    relay.rtcp_to(key, |packet| match packet {
        Packet::ReceiverReport(report) => report.blocks().find(|block| block.ssrc == ssrc),
        _ => None,
    })
}

/// NTP time `micros` after the test's start on a publisher's clock, which is hours off.
fn publisher_ntp(micros: u64) -> u64 {
    (1_234_567 << 32) + ((micros << 32) / 1_000_000)
}

#[test]
fn sound_and_picture_of_one_moment_get_one_time() {
    let (mut relay, mut voice, mut camera) = lecture(1);
    let start = relay.now;
    // At the publisher, audio timestamp a0 and video timestamp v0 are captured at time 0.
    let (a0, v0) = (voice.timestamp, camera.timestamp.wrapping_add(3_000));
    for round in 0..150u64 {
        let micros = round * 20_000;
        relay.receive(1, &voice.next());
        if round % 5 == 0 {
            // Every 100 ms a frame; its timestamp goes up by 9,000.
            camera.timestamp = v0
                .wrapping_add((micros * 9 / 100) as u32)
                .wrapping_sub(3_000);
            camera
                .frame(round == 0, 2)
                .iter()
                .for_each(|p| relay.receive(1, p));
        }
        if round == 3 || round == 60 {
            let ticks = |rate: u64| (micros * rate / 1_000_000) as u32;
            relay.sender_report(
                1,
                voice.ssrc,
                publisher_ntp(micros),
                a0.wrapping_add(ticks(48_000)),
            );
            // The video report is 7 ms later, and says so.
            let later = micros + 7_000;
            relay.sender_report(
                1,
                camera.ssrc,
                publisher_ntp(later),
                v0.wrapping_add((later * 9 / 100) as u32),
            );
        }
        relay.flush();
        relay.advance_ms(20);
    }
    // What the receiver computes from the relay's reports: when each slot's packets were captured.
    let capture = |slot: u16, rate: u64| {
        let info = *sender_infos(&relay, 2, slot_ssrc(2, slot))
            .last()
            .expect("a sender report for each slot");
        let packets = relay
            .out
            .rtp
            .iter()
            .filter(move |p| p.header.ssrc == slot_ssrc(2, slot));
        packets
            .map(move |p| {
                let ticks = p.header.timestamp.wrapping_sub(info.rtp_timestamp) as i32;
                info.ntp
                    .plus_micros(i64::from(ticks) * 1_000_000 / rate as i64)
            })
            .collect::<Vec<_>>()
    };
    let (audio, video) = (capture(0, 48_000), capture(V0, 90_000));
    assert_eq!((audio.len(), video.len()), (150, 60));
    for (n, picture) in video.iter().step_by(2).enumerate() {
        let apart = picture.micros_since(audio[n * 5]);
        assert!(apart.abs() < 1_000, "frame {n}: {apart} µs");
    }
    // And it is the relay's time, but for what the reports took on the way (nothing here).
    let first = audio[0].micros_since(NtpTime(relay.clock.at(start)));
    assert!(first.abs() < 25_000, "{first}");
}

#[test]
fn sender_reports_carry_the_publishers_pseudonym_and_true_counts() {
    let (mut relay, mut voice, _) = lecture(1);
    for n in 0..200 {
        relay.receive(1, &voice.next());
        relay.flush();
        if n == 0 {
            relay.sender_report(1, voice.ssrc, publisher_ntp(0), 0);
        }
        relay.advance_ms(20);
    }
    let infos = sender_infos(&relay, 2, slot_ssrc(2, 0));
    // Four seconds, a report every 0.5 to 1.5 s and one soon after the start.
    assert!((3..=9).contains(&infos.len()), "{}", infos.len());
    let last = infos.last().unwrap();
    let before: Vec<_> = relay
        .out
        .rtp
        .iter()
        .filter(|p| p.header.ssrc == last.ssrc && relay.clock.at(p.meta.received) < last.ntp.0)
        .collect();
    assert_eq!(last.packet_count as usize, before.len());
    assert_eq!(
        last.octet_count as usize,
        before.iter().map(|p| p.payload.len()).sum::<usize>()
    );
    let names: Vec<_> = relay.rtcp_to(2, |packet| match packet {
        Packet::Sdes(sdes) => sdes
            .cnames()
            .find(|(ssrc, _)| *ssrc == slot_ssrc(2, 0))
            .map(|(_, name)| name.to_vec()),
        _ => None,
    });
    assert_eq!(names.len(), infos.len());
    assert!(names.iter().all(|name| name == b"PA_0000000000000001"));
    assert_eq!(relay.count(Counter::RtcpOutSr), infos.len() as u64);
}

#[test]
fn without_reports_from_the_publisher_arrival_times_must_do() {
    let (mut relay, mut voice, _) = lecture(1);
    let mut play = |relay: &mut Relay, rounds| {
        for _ in 0..rounds {
            relay.receive(1, &voice.next());
            relay.flush();
            relay.advance_ms(20);
        }
        sender_infos(relay, 2, slot_ssrc(2, 0)).len()
    };
    assert_eq!(play(&mut relay, 150), 0, "patient for three seconds");
    assert!(play(&mut relay, 150) > 0);
}

#[test]
fn publishers_hear_what_was_lost_and_when_they_last_reported() {
    let (mut relay, mut voice, _) = lecture(1);
    relay.receive(1, &voice.next());
    relay.sender_report(1, voice.ssrc, 0x1122_3344_5566_7788, 0);
    relay.flush();
    let reported_at = relay.now;
    let mut lost = 0;
    for n in 0..300 {
        let packet = voice.next();
        if n % 4 == 3 {
            lost += 1;
        } else {
            relay.receive(1, &packet);
        }
        relay.flush();
        relay.advance_ms(20);
    }
    let reports = blocks(&relay, 1, voice.ssrc);
    assert!(reports.len() >= 4);
    let last = reports.last().unwrap();
    assert!(
        (54..=74).contains(&last.fraction_lost),
        "a quarter of 256: {}",
        last.fraction_lost
    );
    assert!(last.cumulative_lost <= lost && last.cumulative_lost > lost * 7 / 10);
    assert_eq!(
        last.highest_sequence & 0xffff_0000,
        0x1_0000,
        "the sequence number has wrapped once"
    );
    assert_eq!(last.last_sr, 0x3344_5566);
    let delay = Duration::from_micros(u64::from(last.delay_since_last_sr) * 1_000_000 / 65_536);
    assert!(
        delay > Duration::from_millis(4_000)
            && delay < relay.now - reported_at + Duration::from_millis(1)
    );
    assert!(
        blocks(&relay, 1, video_ssrc(1)).is_empty(),
        "no report on what has not been sent"
    );
}

#[test]
fn a_thousand_wishes_are_one_request_per_half_second() {
    let (mut relay, _, mut camera) = lecture(20);
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    let before = relay.out.rtcp.len();
    for step in 0..300 {
        // All 20 receivers ask every 10 ms, half of them by FIR.
        for key in 2..22 {
            let ssrc = slot_ssrc(key, V0);
            relay.receive_rtcp(key, |writer| {
                if key % 2 == 0 {
                    writer
                        .pli(Pli {
                            sender_ssrc: 1,
                            media_ssrc: ssrc,
                        })
                        .unwrap();
                } else {
                    writer
                        .fir(
                            1,
                            &[FirEntry {
                                ssrc,
                                sequence_number: step as u8,
                            }],
                        )
                        .unwrap();
                }
            });
        }
        if step % 3 == 0 {
            camera
                .frame(false, 1)
                .iter()
                .for_each(|p| relay.receive(1, p));
        }
        relay.flush();
        relay.advance_ms(10);
    }
    let requests = relay.out.rtcp.iter().zip(&relay.out.rtcp_at).skip(before);
    let asked_at: Vec<_> = requests
        .filter(|((to, bytes), _)| {
            *to == 1
                && Compound::parse(bytes)
                    .unwrap()
                    .iter()
                    .any(|p| matches!(p, Ok(Packet::Pli(_))))
        })
        .map(|(_, at)| *at)
        .collect();
    // Three seconds, and nobody was served: one at once, and one after each half second.
    assert_eq!(asked_at.len(), 7);
    assert!(
        asked_at
            .windows(2)
            .all(|w| w[1] - w[0] >= KEYFRAME_REQUEST_INTERVAL),
        "{asked_at:?}"
    );
    // A key frame satisfies them all.
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    let served = relay.plis_to(1, camera.ssrc);
    relay.advance_ms(3_000);
    assert_eq!(relay.plis_to(1, camera.ssrc), served);
    assert_eq!(
        (
            relay.count(Counter::RtcpInPli),
            relay.count(Counter::RtcpInFir)
        ),
        (3_000, 3_000)
    );
}

#[test]
fn a_request_is_repeated_until_the_key_frame_comes() {
    let (mut relay, _, mut camera) = lecture(1);
    relay.flush();
    assert_eq!(relay.plis_to(1, camera.ssrc), 1);
    for _ in 0..60 {
        camera
            .frame(false, 1)
            .iter()
            .for_each(|p| relay.receive(1, p));
        relay.flush();
        relay.advance_ms(33);
    }
    // Two seconds: at 0, 0.5, 1, 1.5 s.
    assert_eq!(relay.plis_to(1, camera.ssrc), 4);
    assert!(relay.out.rtp.is_empty());
}

#[test]
fn a_publisher_without_pli_is_asked_by_fir_in_a_full_compound() {
    let mut relay = Relay::new();
    let mut first = media(1);
    first.rtcp_rsize = false;
    for codec in &mut first.receive[1].codecs {
        (codec.pli, codec.fir) = (false, true);
    }
    relay.join_room(1, 1, &first);
    relay
        .engine
        .peer_connected(relay.now, sealcast_media::PeerKey(1));
    relay.join(2);
    relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, V0, Some(track(1, VIDEO_MID))).unwrap();
    let mut camera = Camera::new(1);
    for _ in 0..20 {
        camera
            .frame(false, 1)
            .iter()
            .for_each(|p| relay.receive(1, p));
        relay.flush();
        relay.advance_ms(33);
    }
    let numbers = relay.rtcp_to(1, |packet| match packet {
        Packet::Fir(fir) => fir
            .entries()
            .find(|e| e.ssrc == camera.ssrc)
            .map(|e| e.sequence_number),
        _ => None,
    });
    assert_eq!(numbers, [0, 1], "each is a new command");
    for (_, bytes) in relay.out.rtcp.iter().filter(|(to, _)| *to == 1) {
        // RFC 3550 §6.1: "The first RTCP packet in the compound packet MUST always be a report
        // packet", and an SDES with the CNAME follows.
        let kinds: Vec<_> = Compound::parse(bytes)
            .unwrap()
            .iter()
            .map(|p| p.unwrap())
            .collect();
        assert!(matches!(kinds[0], Packet::ReceiverReport(_)));
        assert!(matches!(kinds[1], Packet::Sdes(_)));
    }
}

#[test]
fn feedback_on_streams_of_others_is_ignored() {
    let (mut relay, _, mut camera) = lecture(2);
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    relay.advance_ms(2_000);
    let asked = relay.plis_to(1, camera.ssrc);
    for (from, ssrc) in [
        (2, slot_ssrc(3, V0)),
        (2, camera.ssrc),
        (77, slot_ssrc(2, V0)),
        (2, slot_ssrc(2, 0)),
    ] {
        relay.receive_rtcp(from, |writer| {
            writer
                .pli(Pli {
                    sender_ssrc: 9,
                    media_ssrc: ssrc,
                })
                .unwrap()
        });
        relay.flush();
    }
    assert_eq!(relay.plis_to(1, camera.ssrc), asked);
    relay
        .engine
        .handle_rtcp(relay.now, sealcast_media::PeerKey(2), &[0x80, 201, 0, 9]);
    assert_eq!(relay.count(Counter::DropRtcpMalformed), 1);
}

#[test]
fn a_full_set_of_slots_is_reported_in_datagrams_that_fit() {
    let mut relay = Relay::new();
    relay.join(1);
    relay.publish(1, AUDIO_MID, Source::Audio);
    relay.publish(1, VIDEO_MID, Source::Camera);
    relay.join(2);
    for n in 0..VIDEO_SLOTS {
        relay.assign(2, n, Some(track(1, AUDIO_MID))).unwrap();
        relay.assign(2, V0 + n, Some(track(1, VIDEO_MID))).unwrap();
    }
    let (mut voice, mut camera) = (Voice::new(1), Camera::new(1));
    relay.receive(1, &voice.next());
    camera
        .frame(true, 1)
        .iter()
        .for_each(|p| relay.receive(1, p));
    relay.flush();
    relay.sender_report(1, voice.ssrc, publisher_ntp(0), 0);
    relay.sender_report(1, camera.ssrc, publisher_ntp(0), 0);
    relay.advance_ms(2_000);
    let reported = relay.rtcp_to(2, |p| match p {
        Packet::SenderReport(report) => Some(report.info.ssrc),
        _ => None,
    });
    for slot in 0..2 * VIDEO_SLOTS {
        assert!(reported.contains(&slot_ssrc(2, slot)), "slot {slot}");
    }
    assert!(
        relay
            .out
            .rtcp
            .iter()
            .all(|(_, bytes)| bytes.len() <= sealcast_media::limits::RTCP_MAX)
    );
}
