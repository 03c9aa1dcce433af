//! Feedback about paths other than by transport-wide numbers: RFC 8888 and REMB, each way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_media::PeerKey;
use sealcast_model::{Counter, HeaderExtension, SessionMedia, Source, Time};
use sealcast_rtp::HeaderFields;
use sealcast_rtp::ext::AbsSendTime;
use sealcast_rtp::rtcp::Packet;
use std::collections::BTreeMap;
use std::time::Duration;
use support::*;

/// As [`media`], without transport-wide numbers, and with other feedback on every codec.
fn without_numbers(key: u32, ccfb: bool) -> SessionMedia {
    let mut media = media(key);
    media
        .extensions
        .retain(|(_, kind)| *kind != HeaderExtension::TransportCc);
    let sending = media.receive.iter_mut().flat_map(|m| &mut m.codecs);
    let receiving = media.slots.iter_mut().flat_map(|m| &mut m.codecs);
    for codec in sending.chain(receiving) {
        (codec.ccfb, codec.remb) = (ccfb, !ccfb);
    }
    media
}

fn join(relay: &mut Relay, key: u32, media: &SessionMedia) {
    relay.join_room(key, 1, media);
    relay.engine.peer_connected(relay.now, PeerKey(key));
}

#[test]
fn a_publisher_with_rfc_8888_is_told_when_each_packet_came() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &without_numbers(1, true));
    relay.publish(1, AUDIO_MID, Source::Audio);
    relay.publish(1, VIDEO_MID, Source::Camera);
    let (mut voice, mut camera) = (Voice::new(1), Camera::new(1));
    let mut sent: BTreeMap<(u32, u16), Option<Time>> = BTreeMap::new();
    for n in 0..60u64 {
        relay.advance_ms(20);
        let mut packets = vec![voice.next()];
        packets.extend(camera.frame(n == 0, 3));
        for (at, packet) in packets.iter().enumerate() {
            let header = sealcast_rtp::RtpHeader::parse(packet).unwrap();
            let lost = (n as usize * 4 + at) % 11 == 5;
            let key = (header.ssrc, header.sequence_number);
            sent.insert(key, (!lost).then_some(relay.now));
            if !lost {
                relay.receive(1, packet);
            }
        }
        relay.flush();
    }
    relay.advance_ms(100);
    let mut told: BTreeMap<(u32, u16), bool> = BTreeMap::new();
    let ntp = |at: Time| sealcast_rtp::NtpTime(relay.clock.at(at)).middle();
    let reports = relay.rtcp_to(1, |packet| match packet {
        Packet::CongestionFeedback(feedback) => Some((
            feedback.report_timestamp,
            feedback.reports().collect::<Vec<_>>(),
        )),
        _ => None,
    });
    assert!(reports.len() > 20, "{}", reports.len());
    for (reported, reports) in reports {
        for report in reports {
            let key = (report.ssrc, report.sequence_number);
            let at = sent[&key];
            assert_eq!(report.received.is_some(), at.is_some(), "{key:?}");
            if let (Some(at), Some(offset)) = (at, report.arrival_offset) {
                // In 1/65,536 s, and to 1/1,024 s.
                let apart = reported.wrapping_sub(ntp(at)) / 64;
                assert!(apart.abs_diff(offset.into()) <= 1, "{apart} {offset}");
            }
            told.insert(key, true);
        }
    }
    let missing: Vec<_> = sent.keys().filter(|key| !told.contains_key(key)).collect();
    // Nothing later tells that the last of a stream is missing.
    assert!(missing.len() <= 2, "{missing:?}");
    assert!(relay.count(Counter::RtcpOutCcfb) > 20);
    assert_eq!(relay.count(Counter::RtcpOutTwcc), 0);
}

#[test]
fn a_subscribers_rfc_8888_feeds_estimator_and_repair() {
    let mut relay = Relay::new();
    relay.join(1);
    join(&mut relay, 2, &without_numbers(2, true));
    let track = relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, VIDEO_SLOTS, Some(track)).unwrap();
    let mut camera = Camera::new(1);
    let ssrc = slot_ssrc(2, VIDEO_SLOTS);
    let mut lost = 0;
    for n in 0..300u64 {
        relay.advance_ms(33);
        for packet in camera.frame(n == 0, 6) {
            relay.receive(1, &packet);
        }
        let sent: Vec<_> = relay
            .flush()
            .into_iter()
            .filter(|p| p.to == 2 && p.header.ssrc == ssrc)
            .collect();
        let Some(first) = sent.first() else { continue };
        relay.advance_ms(20);
        let begin = first.header.sequence_number;
        let offsets: Vec<_> = (0..sent.len())
            .map(|at| (n < 100 || !(n as usize + at).is_multiple_of(50)).then_some(10))
            .collect();
        lost += offsets.iter().filter(|o| o.is_none()).count() as u64;
        let ntp = sealcast_rtp::NtpTime(relay.clock.at(relay.now)).middle();
        relay.receive_rtcp(2, |writer| {
            writer
                .congestion_feedback(1, ntp, ssrc, begin, &offsets)
                .unwrap();
        });
        relay.flush();
    }
    assert!(lost > 20);
    assert_eq!(relay.count(Counter::RtcpInCcfb), 300);
    let resent = relay.count(Counter::RetransmitSent);
    assert!(resent >= lost * 9 / 10, "{resent} of {lost} sent again");
    let estimated = relay.events.iter().any(|event| {
        matches!(event, sealcast_media::MediaEvent::PathEstimated { peer: PeerKey(2), bitrate } if *bitrate > 300_000)
    });
    assert!(estimated, "the client hears what the path carries");
}

/// A publisher's packet with its send time.
fn timed(packet: &[u8], sent: Time) -> Vec<u8> {
    let header = sealcast_rtp::RtpHeader::parse(packet).unwrap();
    let fields = HeaderFields {
        marker: header.marker,
        payload_type: header.payload_type,
        sequence_number: header.sequence_number,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
        ..HeaderFields::default()
    };
    let time = AbsSendTime::from_micros(sent.as_micros()).to_bytes();
    let element = sealcast_rtp::Extension {
        id: EXT_SEND_TIME,
        data: &time,
    };
    rtp(fields, &[element], header.payload(packet))
}

#[test]
fn a_publisher_that_knows_only_remb_is_told_what_its_path_carries() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &without_numbers(1, false));
    relay.publish(1, VIDEO_MID, Source::Camera);
    let mut camera = Camera::new(1);
    // Six packets of 230 bytes in 20 ms, with what the wire adds, are 660 kbit/s.
    let (mut free_at, mut queue) = (Time::ZERO, std::collections::VecDeque::new());
    let mut told: Vec<(u64, u64)> = Vec::new();
    for n in 0..1_500u64 {
        relay.advance_ms(20);
        let capacity: u64 = if n < 750 { 5_000_000 } else { 300_000 };
        // Who is told that less fits sends less.
        let limit = told.last().map_or(u64::MAX, |(_, rate)| *rate);
        let packets = (limit / 110_000).clamp(1, 6) as usize;
        for packet in camera.frame(n == 0, packets) {
            let bits = (packet.len() as u64 + 44) * 8;
            free_at =
                free_at.max(relay.now) + Duration::from_nanos(bits * 1_000_000_000 / capacity);
            queue.push_back((free_at, timed(&packet, relay.now)));
        }
        while let Some((_, packet)) = queue.pop_front_if(|(at, _)| *at <= relay.now) {
            relay.receive(1, &packet);
        }
        relay.flush();
        let heard = relay.rtcp_to(1, |packet| match packet {
            Packet::Remb(remb) => Some((remb.bitrate, remb.ssrcs().collect::<Vec<_>>())),
            _ => None,
        });
        if let Some((rate, ssrcs)) = heard.last().filter(|_| heard.len() > told.len()) {
            assert_eq!(ssrcs, &[audio_ssrc(1), video_ssrc(1)]);
            told.push((n, *rate));
        }
    }
    let before = told.iter().rfind(|(n, _)| *n < 750).expect("told");
    assert!(before.1 > 600_000, "{before:?}");
    let first = told.iter().find(|(n, rate)| *n >= 750 && *rate < 350_000);
    let (n, _) = first.expect("told that less fits");
    assert!(n - 750 < 100, "within two seconds");
    assert_eq!(relay.count(Counter::RtcpOutRemb), told.len() as u64);
}

#[test]
fn a_subscribers_remb_binds_without_transport_wide_numbers() {
    let mut relay = Relay::new();
    join(&mut relay, 1, &simulcast_media(1));
    join(&mut relay, 2, &without_numbers(2, false));
    let track = relay.publish(1, VIDEO_MID, Source::Camera);
    relay.assign(2, VIDEO_SLOTS, Some(track)).unwrap();
    let mut cameras: Vec<_> = (0..3).map(|n| Camera::simulcast(1, n)).collect();
    let mut bytes = [0u64; 2];
    for n in 0..600u64 {
        relay.advance_ms(33);
        for (at, camera) in cameras.iter_mut().enumerate() {
            for packet in camera.frame(n % 60 == 0, [1, 4, 12][at]) {
                relay.receive(1, &packet);
            }
        }
        for sent in relay.flush().iter().filter(|sent| sent.to == 2) {
            if n >= 150 {
                bytes[usize::from(n >= 300)] += sent.bytes.len() as u64;
            }
        }
        if n % 30 == 29 {
            let rate = if n < 300 { 2_000_000 } else { 150_000 };
            relay.receive_rtcp(2, |writer| writer.remb(1, rate, &[]).unwrap());
        }
    }
    let rate = |bytes: u64, frames: u64| bytes * 8 * 1_000 / (frames * 33);
    let (wide, narrow) = (rate(bytes[0], 150), rate(bytes[1], 300));
    assert!(wide > 600_000, "everything: {wide}");
    // It is tried once in a while whether the receiver still means it.
    assert!(
        narrow < wide / 2,
        "what the receiver takes: {narrow} of {wide}"
    );
}
