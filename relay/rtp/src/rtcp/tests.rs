use super::*;
use crate::{NtpTime, WriteError};
use proptest::prelude::*;

fn written(write: impl FnOnce(&mut RtcpWriter<'_>)) -> Vec<u8> {
    let mut out = vec![0xee; 4000];
    let mut writer = RtcpWriter::new(&mut out);
    write(&mut writer);
    let len = writer.finish();
    out.truncate(len);
    out
}

fn only(bytes: &[u8]) -> Packet<'_> {
    let mut packets = Compound::parse(bytes).expect("framing").iter();
    let packet = packets.next().expect("one packet").expect("sound body");
    assert_eq!(packets.next(), None);
    packet
}

fn block() -> impl Strategy<Value = ReportBlock> {
    (any::<[u32; 5]>(), any::<u8>(), -0x80_0000i32..0x80_0000).prop_map(
        |(w, fraction_lost, cumulative_lost)| ReportBlock {
            ssrc: w[0],
            fraction_lost,
            cumulative_lost,
            highest_sequence: w[1],
            jitter: w[2],
            last_sr: w[3],
            delay_since_last_sr: w[4],
        },
    )
}

fn naive16(bytes: &[u8], at: usize) -> usize {
    bytes[at] as usize * 256 + bytes[at + 1] as usize
}

/// Shadow TWCC reader: expands all symbols into a list, then deals out the deltas. `None` if anything is short.
fn naive_twcc(packet: &[u8]) -> Option<Vec<(u16, Option<i32>)>> {
    if packet.len() < 20 {
        return None;
    }
    let count = naive16(packet, 14);
    let (mut symbols, mut at) = (Vec::new(), 20);
    while symbols.len() < count {
        if at + 2 > packet.len() {
            return None;
        }
        let chunk: Vec<u8> = (0..16)
            .map(|bit| (naive16(packet, at) >> (15 - bit) & 1) as u8)
            .collect();
        at += 2;
        if chunk[0] == 0 {
            let len = chunk[3..].iter().fold(0, |n, bit| n * 2 + *bit as usize);
            symbols.extend(std::iter::repeat_n(chunk[1] * 2 + chunk[2], len));
        } else if chunk[1] == 0 {
            symbols.extend(&chunk[2..]);
        } else {
            symbols.extend(chunk[2..].chunks(2).map(|pair| pair[0] * 2 + pair[1]));
        }
    }
    symbols.truncate(count);
    let mut found = Vec::new();
    for (seq, symbol) in (naive16(packet, 12)..).zip(symbols) {
        let delta = match symbol {
            0 => None,
            1 => {
                at += 1;
                Some(*packet.get(at - 1)? as i32 * 250)
            }
            2 => {
                at += 2;
                packet.get(at - 1)?;
                Some(naive16(packet, at - 2) as u16 as i16 as i32 * 250)
            }
            _ => return None,
        };
        found.push((seq as u16, delta));
    }
    if count == 0 { None } else { Some(found) }
}

#[test]
fn framing_faults_are_told_apart() {
    assert_eq!(Compound::parse(&[]), Err(ParseError::Truncated));
    assert_eq!(Compound::parse(&[0x80, 201, 0]), Err(ParseError::Truncated));
    assert_eq!(
        Compound::parse(&[0x80, 201, 0, 1]),
        Err(ParseError::Truncated)
    );
    assert_eq!(
        Compound::parse(&[0x40, 201, 0, 0]),
        Err(ParseError::Version)
    );
    assert_eq!(
        Compound::parse(&[0x80, 96, 0, 0]),
        Err(ParseError::Value("RTCP packet type"))
    );
}

#[test]
fn padding_is_taken_off_and_impossible_padding_costs_one_packet() {
    let app = |count| [0xa0, 204, 0, 2, 0, 0, 0, 0, 0, 0, 0, count];
    let other = Ok(Packet::Other {
        packet_type: packet_type::APP,
        format: 0,
    });
    for (count, want) in [
        (0, Err(ParseError::Padding)),
        (1, other),
        (4, other),
        (8, other),
        (9, Err(ParseError::Padding)),
        (12, Err(ParseError::Padding)),
    ] {
        let bytes = [app(count), app(4)].concat();
        let packets: Vec<_> = Compound::parse(&bytes).expect("framing").iter().collect();
        assert_eq!(packets, [want, other], "{count}");
    }
    // Nothing to hold the count.
    let bare = Compound::parse(&[0xa0, 204, 0, 0]).expect("framing");
    assert_eq!(bare.iter().next(), Some(Err(ParseError::Padding)));
}

/// Feedback as Chromium 156 sends it: under the padding bit, with one to three octets of padding.
#[test]
fn transport_feedback_of_libwebrtc_is_read() {
    let cases: [(&str, u16, &[i32]); 3] = [
        ("afcd0005711ef65eb6608174000000010301610020014501", 0, &[69]),
        (
            "afcd0006711ef65eb6608174000a0004030164042004624e524f0002",
            10,
            &[98, 78, 82, 79],
        ),
        (
            "afcd0006711ef65eb660817400010003030161012003994b4c000003",
            1,
            &[153, 75, 76],
        ),
    ];
    for (hex, base, ticks) in cases {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"))
            .collect();
        let Packet::TransportFeedback(feedback) = only(&bytes) else {
            panic!("feedback")
        };
        let found: Vec<_> = feedback.statuses().collect();
        let want: Vec<_> = (base..)
            .zip(ticks)
            .map(|(n, ticks)| (n, Some(ticks * DELTA_TICK_MICROS as i32)))
            .collect();
        assert_eq!(found, want);
        // In the middle of a compound too.
        let bytes = [&bytes[..], &bytes[..]].concat();
        assert_eq!(
            Compound::parse(&bytes)
                .expect("framing")
                .iter()
                .flatten()
                .count(),
            2
        );
    }
}

#[test]
fn one_bad_packet_costs_no_other() {
    let mut bytes = written(|w| w.receiver_report(7, &[]).expect("room"));
    bytes.extend([0x81, packet_type::RR, 0, 1, 0, 0, 0, 9]); // announces a block that is not there
    bytes.extend([0x80, packet_type::XR, 0, 0]);
    bytes.extend([0x8f, packet_type::PSFB, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]); // AFB that is not REMB
    let pli = Pli {
        sender_ssrc: 1,
        media_ssrc: 2,
    };
    bytes.extend(written(|w| w.pli(pli).expect("room")));
    let compound = Compound::parse(&bytes).expect("framing");
    assert!(!compound.is_reduced_size());
    let packets: Vec<_> = compound.iter().collect();
    assert!(matches!(
        packets[0],
        Ok(Packet::ReceiverReport(ReceiverReport { ssrc: 7, .. }))
    ));
    assert_eq!(packets[1], Err(ParseError::Length));
    assert_eq!(
        packets[2],
        Ok(Packet::Other {
            packet_type: packet_type::XR,
            format: 0
        })
    );
    assert_eq!(
        packets[3],
        Ok(Packet::Other {
            packet_type: packet_type::PSFB,
            format: 15
        })
    );
    assert_eq!(packets[4], Ok(Packet::Pli(pli)));
    assert_eq!(packets.len(), 5);
    assert!(Compound::parse(&bytes[8..]).is_ok_and(|c| !c.is_reduced_size()));
    assert!(Compound::parse(&bytes[16..]).is_ok_and(|c| c.is_reduced_size()));
}

#[test]
fn a_packet_that_does_not_fit_leaves_the_others() {
    let mut out = [0; 20];
    let mut writer = RtcpWriter::new(&mut out);
    writer.receiver_report(1, &[]).expect("room");
    assert_eq!(writer.nack(1, 2, [5]), Err(WriteError::NoRoom));
    assert_eq!(
        writer.bye(&[0; 32], b""),
        Err(WriteError::Unrepresentable("sources"))
    );
    assert_eq!(writer.len(), 8);
    writer
        .pli(Pli {
            sender_ssrc: 1,
            media_ssrc: 2,
        })
        .expect("twelve bytes are left");
    assert_eq!(writer.room(), 0);
    assert_eq!(writer.finish(), 20);
    assert_eq!(
        Compound::parse(&out)
            .expect("framing")
            .iter()
            .filter(Result::is_ok)
            .count(),
        2
    );
}

#[test]
fn remb_as_the_draft_lays_it_out() {
    let bytes = written(|w| w.remb(1, 1_000_000, &[2]).expect("room"));
    // 1,000,000 = 250,000 << 2: exponent 2, mantissa 0x3d090.
    assert_eq!(
        bytes[12..20],
        [b'R', b'E', b'M', b'B', 1, 2 << 2 | 3, 0xd0, 0x90]
    );
    let saturating = [
        &[0x8f, 206, 0, 4],
        &[0u8; 8][..],
        b"REMB",
        &[0, 0xff, 0xff, 0xff],
    ]
    .concat();
    let Packet::Remb(remb) = only(&saturating) else {
        panic!("REMB")
    };
    assert_eq!(remb.bitrate, u64::MAX);
}

#[test]
fn feedback_beyond_the_format_is_split() {
    // 9 s between two arrivals does not fit a 16-bit delta of 250 µs.
    let arrivals = [Some(0), None, Some(9_000_000), Some(9_000_250)];
    let mut out = [0; 100];
    let mut writer = RtcpWriter::new(&mut out);
    let fields = TransportFeedbackFields {
        base_sequence_number: 65_534,
        ..Default::default()
    };
    assert_eq!(
        writer.transport_feedback(&fields, &arrivals),
        Ok(BuiltFeedback { consumed: 2 })
    );
    let fields = TransportFeedbackFields {
        base_sequence_number: 0,
        ..fields
    };
    assert_eq!(
        writer.transport_feedback(&fields, &arrivals[2..]),
        Ok(BuiltFeedback { consumed: 2 })
    );
    assert_eq!(
        writer.transport_feedback(&fields, &[]),
        Err(WriteError::NoRoom)
    );
    let len = writer.finish();
    let packets: Vec<_> = Compound::parse(&out[..len])
        .expect("framing")
        .iter()
        .collect();
    let Ok(Packet::TransportFeedback(second)) = packets[1] else {
        panic!("feedback")
    };
    assert_eq!(second.reference_time, 140);
    assert_eq!(
        second.statuses().collect::<Vec<_>>(),
        [(0, Some(40_000)), (1, Some(250))]
    );
}

#[test]
fn empty_runs_are_skipped_without_recursion() {
    let mut body = vec![0; 16];
    body[11] = 1;
    body.extend([0u8; 60_000]);
    body.extend([0x20, 1, 4, 0]);
    let feedback = TransportFeedback::parse(&body).expect("one status after 30,000 empty runs");
    assert_eq!(feedback.statuses().collect::<Vec<_>>(), [(0, Some(1000))]);
}

#[test]
fn congestion_feedback_of_rfc_8888() {
    let mut bytes = vec![0x8b, 205, 0, 8, 0, 0, 0, 1];
    bytes.extend([0, 0, 0, 2, 0xff, 0xff, 0, 3]); // SSRC 2, from 65,535, three reports
    bytes.extend([0x80, 5, 0, 0, 0xff, 0xff, 0, 0]); // arrived 5/1024 s ago, lost, CE without time, padding
    bytes.extend([0, 0, 0, 3, 0, 9, 0, 0]); // SSRC 3, no reports
    bytes.extend([1, 2, 3, 4]);
    let Packet::CongestionFeedback(feedback) = only(&bytes) else {
        panic!("CCFB")
    };
    assert_eq!(
        (feedback.sender_ssrc, feedback.report_timestamp),
        (1, 0x0102_0304)
    );
    let report = |sequence_number, received, arrival_offset| CongestionReport {
        ssrc: 2,
        sequence_number,
        received,
        arrival_offset,
    };
    let want = [
        report(65_535, Some(Ecn::NotEct), Some(5)),
        report(0, None, None),
        report(1, Some(Ecn::Ce), None),
    ];
    assert_eq!(feedback.reports().collect::<Vec<_>>(), want);
    bytes[15] = 9; // more reports than there are
    assert_eq!(
        Compound::parse(&bytes).expect("framing").iter().next(),
        Some(Err(ParseError::Length))
    );
}

proptest! {
    #[test]
    fn reports_come_back(
        words in any::<[u32; 4]>(), ntp: u64, blocks in prop::collection::vec(block(), 0..=31),
        cname in prop::collection::vec(any::<u8>(), 0..=255),
    ) {
        let info = SenderInfo {
            ssrc: words[0], ntp: NtpTime(ntp), rtp_timestamp: words[1], packet_count: words[2], octet_count: words[3],
        };
        let bytes = written(|w| {
            w.sender_report(&info, &blocks).expect("room");
            w.receiver_report(words[3], &blocks).expect("room");
            w.sdes_cname(words[0], &cname).expect("room");
            w.bye(&words, &cname).expect("room");
        });
        let packets: Vec<_> = Compound::parse(&bytes).expect("framing").iter().map(|p| p.expect("sound")).collect();
        let [Packet::SenderReport(sr), Packet::ReceiverReport(rr), Packet::Sdes(sdes), Packet::Bye(bye)] = packets[..]
        else { panic!("{packets:?}") };
        prop_assert_eq!(sr.info, info);
        prop_assert_eq!(sr.blocks().collect::<Vec<_>>(), blocks.clone());
        prop_assert_eq!(rr.ssrc, words[3]);
        prop_assert_eq!(rr.blocks().collect::<Vec<_>>(), blocks);
        prop_assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(words[0], &cname[..])]);
        prop_assert_eq!(bye.ssrcs().collect::<Vec<_>>(), words);
        prop_assert_eq!(bye.reason, &cname[..]);
    }

    #[test]
    fn nacks_come_back(start: u16, gaps in prop::collection::vec(1u16..40, 0..100)) {
        let numbers: Vec<u16> = gaps.iter().scan(start, |at, gap| { *at = at.wrapping_add(*gap); Some(*at) }).collect();
        let bytes = written(|w| w.nack(1, 2, numbers.iter().copied()).expect("room"));
        prop_assert_eq!(bytes.is_empty(), numbers.is_empty());
        if !numbers.is_empty() {
            let Packet::Nack(nack) = only(&bytes) else { panic!("NACK") };
            prop_assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
            prop_assert_eq!(nack.sequence_numbers().collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn requests_come_back(entries in prop::collection::vec((any::<u32>(), any::<u8>()), 1..20), rate: u64) {
        let entries: Vec<_> = entries.iter().map(|(ssrc, n)| FirEntry { ssrc: *ssrc, sequence_number: *n }).collect();
        let ssrcs: Vec<u32> = entries.iter().map(|e| e.ssrc).collect();
        let bytes = written(|w| w.fir(9, &entries).expect("room"));
        let Packet::Fir(fir) = only(&bytes) else { panic!("FIR") };
        prop_assert_eq!(fir.entries().collect::<Vec<_>>(), entries);
        let bytes = written(|w| w.remb(9, rate, &ssrcs).expect("room"));
        let Packet::Remb(remb) = only(&bytes) else { panic!("REMB") };
        prop_assert_eq!(remb.ssrcs().collect::<Vec<_>>(), ssrcs);
        prop_assert!(remb.bitrate <= rate && rate - remb.bitrate <= rate >> 17);
    }

    #[test]
    fn feedback_comes_back(
        base: u16, count: u8, start in 0i64..1_000_000_000_000, room in 30usize..1500,
        steps in prop::collection::vec(
            (prop_oneof![
                6 => 0i64..60_000, 1 => -500_000i64..9_000_000, 1 => Just(70_000i64)], 1usize..40, any::<bool>()), 1..60),
    ) {
        let mut now = start;
        let mut arrivals = Vec::new();
        for (step, repeat, lost) in steps {
            for _ in 0..repeat {
                now = (now + step).max(0);
                arrivals.push((!lost).then_some(now));
            }
        }
        let fields = TransportFeedbackFields { sender_ssrc: 1, media_ssrc: 2, base_sequence_number: base, feedback_count: count };
        let (mut done, mut expect) = (0, fields);
        while done < arrivals.len() {
            let mut out = vec![0xee; room];
            let mut writer = RtcpWriter::new(&mut out);
            let built = writer.transport_feedback(&expect, &arrivals[done..]).expect("room for one");
            let len = writer.finish();
            prop_assert!(built.consumed > 0);
            let Packet::TransportFeedback(feedback) = only(&out[..len]) else { panic!("feedback") };
            prop_assert_eq!(feedback.fields, expect);
            let statuses: Vec<_> = feedback.statuses().collect();
            prop_assert_eq!(Some(statuses.clone()), naive_twcc(&out[..len]));
            prop_assert_eq!(statuses.len(), built.consumed);
            let mut at = i64::from(feedback.reference_time) * REFERENCE_TICK_MICROS;
            for (i, (seq, delta)) in statuses.iter().enumerate() {
                prop_assert_eq!(*seq, expect.base_sequence_number.wrapping_add(i as u16));
                at += i64::from(delta.unwrap_or(0));
                let arrival = arrivals[done + i];
                prop_assert_eq!(delta.is_some(), arrival.is_some());
                if let Some(arrival) = arrival {
                    // The reference time has 24 bits of 64 ms; compare on that circle.
                    let circle = REFERENCE_TICK_MICROS << 24;
                    prop_assert!((arrival - at).rem_euclid(circle) < DELTA_TICK_MICROS);
                }
            }
            done += built.consumed;
            expect.base_sequence_number = expect.base_sequence_number.wrapping_add(built.consumed as u16);
        }
    }

    #[test]
    fn any_feedback_reads_as_the_shadow_reads_it(
        count in 0u16..60, tail in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x20), 0xc0u8..=0xff], 0..80),
    ) {
        let mut packet = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xf0];
        packet.extend(count.to_be_bytes());
        packet.extend([0, 0, 1, 7]);
        packet.extend(tail);
        let ours = TransportFeedback::parse(&packet[4..]).ok().map(|f| f.statuses().collect::<Vec<_>>());
        prop_assert_eq!(ours, naive_twcc(&packet));
    }

    #[test]
    fn no_bytes_panic(
        heads in prop::collection::vec((0x80u8..0xc0, 200u8..=207, prop::collection::vec(any::<u8>(), 0..60)), 0..5),
        noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = Vec::new();
        for (first, kind, mut body) in heads {
            body.truncate(body.len() / 4 * 4);
            bytes.extend([first, kind, 0, (body.len() / 4) as u8]);
            bytes.extend(body);
        }
        for bytes in [&bytes[..], &[&bytes[..], &noise[..]].concat(), &noise] {
            visit(bytes);
        }
    }
}

/// Walks everything a datagram offers.
fn visit(bytes: &[u8]) {
    let Ok(compound) = Compound::parse(bytes) else {
        return;
    };
    for packet in compound.into_iter().flatten() {
        let _ = match packet {
            Packet::SenderReport(p) => p.blocks().count(),
            Packet::ReceiverReport(p) => p.blocks().count(),
            Packet::Sdes(p) => p.items().count(),
            Packet::Bye(p) => p.ssrcs().count(),
            Packet::Nack(p) => p.sequence_numbers().count(),
            Packet::TransportFeedback(p) => p.statuses().count(),
            Packet::CongestionFeedback(p) => p.reports().count(),
            Packet::Fir(p) => p.entries().count(),
            Packet::Remb(p) => p.ssrcs().count(),
            Packet::Pli(_) | Packet::Other { .. } => 0,
        };
    }
}
