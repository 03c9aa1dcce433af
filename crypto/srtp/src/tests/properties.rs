//! Properties that hold for every profile and back end, and between the back ends.

use super::{combinations, header, inbound, outbound};
use crate::{Backend, Inbound, OpenError, OpenedRtp, Outbound, OutboundStream, Profile, SealError};
use proptest::prelude::*;

const SSRC: u32 = 0x0a0b_0c0d;

/// An RTP packet with up to 15 CSRCs and an optional extension, and its header length.
#[derive(Clone, Debug)]
struct RtpPacket {
    header: Vec<u8>,
    payload: Vec<u8>,
}

fn rtp_packet(seq: u16) -> impl Strategy<Value = RtpPacket> {
    let extension = prop::option::of((any::<u16>(), prop::collection::vec(any::<u32>(), 0..20)));
    let csrcs = prop::collection::vec(any::<u32>(), 0..16);
    let payload = prop::collection::vec(any::<u8>(), 0..1_300);
    (any::<u8>(), csrcs, extension, payload).prop_map(move |(pt, csrcs, extension, payload)| {
        let mut bytes = header(seq, SSRC).to_vec();
        bytes[0] |= csrcs.len() as u8;
        bytes[1] = pt;
        bytes.extend(csrcs.iter().flat_map(|c| c.to_be_bytes()));
        if let Some((profile, words)) = extension {
            bytes[0] |= 0x10;
            bytes.extend(profile.to_be_bytes());
            bytes.extend((words.len() as u16).to_be_bytes());
            bytes.extend(words.iter().flat_map(|w| w.to_be_bytes()));
        }
        RtpPacket {
            header: bytes,
            payload,
        }
    })
}

fn seal(outbound: &mut Outbound, stream: &mut OutboundStream, packet: &RtpPacket) -> Vec<u8> {
    let mut out = vec![0; 2_048];
    let len = outbound
        .seal_rtp(stream, &packet.header, &packet.payload, &mut out)
        .unwrap();
    out.truncate(len);
    out
}

/// Seals an empty packet with this sequence number.
fn seal_seq(
    outbound: &mut Outbound,
    stream: &mut OutboundStream,
    seq: u16,
) -> Result<Vec<u8>, SealError> {
    let mut out = vec![0; 64];
    let len = outbound.seal_rtp(stream, &header(seq, stream.ssrc()), b"x", &mut out)?;
    out.truncate(len);
    Ok(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_one_back_end_seals_the_other_opens(packet in rtp_packet(77)) {
        let plain = [packet.header.clone(), packet.payload.clone()].concat();
        for profile in Profile::ALL {
            let mut sealed = Vec::new();
            for backend in Backend::ALL {
                let mut outbound = outbound(profile, backend);
                let mut stream = outbound.stream(SSRC).unwrap();
                sealed.push(seal(&mut outbound, &mut stream, &packet));
            }
            prop_assert_eq!(&sealed[0], &sealed[1], "{}", profile);
            prop_assert_eq!(sealed[0].len(), plain.len() + profile.rtp_overhead());
            for backend in Backend::ALL {
                let mut in_place = sealed[0].clone();
                let opened = inbound(profile, backend).open_rtp(&mut in_place).unwrap();
                let expected = OpenedRtp {
                    len: plain.len(), header_len: packet.header.len(), ssrc: SSRC, index: 77,
                };
                prop_assert_eq!(opened, expected);
                prop_assert_eq!(&in_place[..opened.len], &plain);

                let mut out = vec![0xee; plain.len()];
                let gathered = inbound(profile, backend).open_rtp_to(&sealed[0], &mut out);
                prop_assert_eq!(gathered, Ok(expected));
                prop_assert_eq!(&out, &plain);
            }
        }
    }

    #[test]
    fn rtcp_crosses_back_ends(body in prop::collection::vec(any::<u8>(), 0..1_200)) {
        let mut packet = vec![0x81, 200, 0, 6, 1, 2, 3, 4];
        packet.extend(body);
        for profile in Profile::ALL {
            let mut sealed = Vec::new();
            for backend in Backend::ALL {
                let mut out = vec![0; 2_048];
                let len = outbound(profile, backend).seal_rtcp(&packet, &mut out).unwrap();
                out.truncate(len);
                sealed.push(out);
            }
            prop_assert_eq!(&sealed[0], &sealed[1]);
            prop_assert_eq!(sealed[0].len(), packet.len() + profile.rtcp_overhead());
            for backend in Backend::ALL {
                let mut inbound = inbound(profile, backend);
                let mut wire = sealed[0].clone();
                let len = inbound.open_rtcp(&mut wire).unwrap();
                prop_assert_eq!(&wire[..len], &packet);
                let again = inbound.open_rtcp(&mut sealed[0].clone());
                prop_assert_eq!(again, Err(OpenError::Replayed));
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_refused(packet in rtp_packet(9), at: prop::sample::Index, bit in 0..8u8) {
        for (profile, backend) in combinations() {
            let mut outbound = outbound(profile, backend);
            let mut stream = outbound.stream(SSRC).unwrap();
            let mut sealed = seal(&mut outbound, &mut stream, &packet);
            let genuine = sealed.clone();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            let mut inbound = inbound(profile, backend);
            prop_assert!(inbound.open_rtp_to(&sealed, &mut [0; 2_048]).is_err());
            prop_assert!(inbound.open_rtp(&mut sealed).is_err());
            // The forgery left no trace: the genuine packet still opens.
            prop_assert!(inbound.open_rtp(&mut genuine.clone()).is_ok());
        }
    }

    #[test]
    fn any_flipped_rtcp_bit_is_refused(at: prop::sample::Index, bit in 0..8u8) {
        let packet = [0x80, 201, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        for (profile, backend) in combinations() {
            let mut sealed = vec![0; packet.len() + profile.rtcp_overhead()];
            outbound(profile, backend).seal_rtcp(&packet, &mut sealed).unwrap();
            let genuine = sealed.clone();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            let mut inbound = inbound(profile, backend);
            prop_assert!(inbound.open_rtcp(&mut sealed).is_err());
            prop_assert!(inbound.open_rtcp(&mut genuine.clone()).is_ok());
        }
    }

    /// Sequence numbers as a stream brings them, with loss, reordering, duplicates and several
    /// cycles: sender and receiver agree on every index, and each is opened once.
    #[test]
    fn indices_agree_over_many_cycles(
        first in 0..32_768u64, steps in prop::collection::vec((1..9_000u64, 0..1_500u64), 1..60),
    ) {
        let (profile, backend) = (Profile::AeadAes128Gcm, Backend::AwsLcRs);
        let mut outbound = outbound(profile, backend);
        let mut inbound = inbound(profile, backend);
        let mut stream = outbound.stream(SSRC).unwrap();
        let mut sent = std::collections::BTreeSet::new();
        let mut newest = first;
        for (ahead, back) in steps {
            for index in [newest, newest.saturating_sub(back)] {
                let known = stream.highest_index();
                let late = known.is_some_and(|h| index + 1_024 <= h);
                match seal_seq(&mut outbound, &mut stream, index as u16) {
                    Ok(mut wire) => {
                        prop_assert!(!late && sent.insert(index), "index {} sealed twice", index);
                        let mut twin = wire.clone();
                        prop_assert_eq!(inbound.open_rtp(&mut wire).unwrap().index, index);
                        prop_assert_eq!(inbound.open_rtp(&mut twin), Err(OpenError::Replayed));
                    }
                    Err(SealError::IndexReused) => prop_assert!(sent.contains(&index)),
                    Err(SealError::TooOld) => prop_assert!(late),
                    Err(other) => prop_assert!(false, "{}", other),
                }
            }
            newest += ahead;
        }
    }
}

#[test]
fn late_packets_open_until_the_window_has_passed() {
    for (profile, backend) in combinations() {
        let mut outbound = outbound(profile, backend);
        let mut stream = outbound.stream(SSRC).unwrap();
        // Across the roll-over, so that the late packets belong to the cycle before.
        let early = seal_seq(&mut outbound, &mut stream, 65_000).unwrap();
        let late = seal_seq(&mut outbound, &mut stream, 65_001).unwrap();
        let newest = seal_seq(&mut outbound, &mut stream, 65_001u16.wrapping_add(1_023)).unwrap();
        let mut inbound = inbound(profile, backend);
        assert_eq!(
            inbound.open_rtp(&mut newest.clone()),
            Err(OpenError::AuthFailed),
            "no ROC yet"
        );
        let start = seal_first(profile, backend, 64_990);
        assert!(inbound.open_rtp(&mut start.clone()).is_ok());
        assert_eq!(
            inbound.open_rtp(&mut newest.clone()).map(|o| o.index),
            Ok(66_024)
        );
        assert_eq!(inbound.open_rtp(&mut early.clone()), Err(OpenError::TooOld));
        assert_eq!(
            inbound.open_rtp(&mut late.clone()).map(|o| o.index),
            Ok(65_001)
        );
        assert_eq!(
            inbound.open_rtp(&mut late.clone()),
            Err(OpenError::Replayed)
        );
    }
}

/// The first packet of a fresh context with the same key.
fn seal_first(profile: Profile, backend: Backend, seq: u16) -> Vec<u8> {
    let mut outbound = outbound(profile, backend);
    let mut stream = outbound.stream(SSRC).unwrap();
    seal_seq(&mut outbound, &mut stream, seq).unwrap()
}

#[test]
fn an_index_is_sealed_once_and_repeated_only_on_request() {
    for (profile, backend) in combinations() {
        let mut outbound = outbound(profile, backend);
        let mut stream = outbound.stream(SSRC).unwrap();
        let first = seal_seq(&mut outbound, &mut stream, 65_535).unwrap();
        seal_seq(&mut outbound, &mut stream, 0).unwrap();
        let again = seal_seq(&mut outbound, &mut stream, 65_535);
        assert_eq!(again, Err(SealError::IndexReused));

        let mut out = [0; 64];
        let repeat = |outbound: &mut Outbound, seq, out: &mut [u8]| {
            outbound.reseal_rtp(&stream, &header(seq, SSRC), b"x", out)
        };
        // The old cycle's ROC, hence the very same bytes.
        let len = repeat(&mut outbound, 65_535, &mut out).unwrap();
        assert_eq!(out[..len], first);
        assert_eq!(
            repeat(&mut outbound, 1, &mut out),
            Err(SealError::NeverSealed)
        );
        assert_eq!(
            repeat(&mut outbound, 0u16.wrapping_sub(1_024), &mut out),
            Err(SealError::TooOld)
        );
    }
}

#[test]
fn a_ssrc_has_one_handle_and_there_is_room_for_so_many() {
    let key = super::master_key(Profile::AeadAes128Gcm, 1);
    let mut outbound = Outbound::with_max_ssrcs(Backend::AwsLcRs, &key, 2).unwrap();
    outbound.stream(1).unwrap();
    assert_eq!(outbound.stream(1).unwrap_err(), SealError::SsrcInUse);
    outbound.stream(2).unwrap();
    assert_eq!(outbound.stream(3).unwrap_err(), SealError::TooManySsrcs);
}

#[test]
fn sealing_checks_its_caller() {
    for (profile, backend) in combinations() {
        let mut outbound = outbound(profile, backend);
        let mut stream = outbound.stream(SSRC).unwrap();
        let mut out = [0; 100];
        let mut seal = |header: &[u8], payload: &[u8], out: &mut [u8]| {
            outbound.seal_rtp(&mut stream, header, payload, out)
        };
        let good = header(1, SSRC);
        assert_eq!(
            seal(&header(1, SSRC + 1), b"p", &mut out),
            Err(SealError::WrongSsrc)
        );
        assert_eq!(seal(&good[..11], b"p", &mut out), Err(SealError::Malformed));
        let long = [&good[..], &[0]].concat();
        assert_eq!(seal(&long, b"p", &mut out), Err(SealError::Malformed));
        let exact = 12 + 1 + profile.rtp_overhead();
        assert_eq!(
            seal(&good, b"p", &mut out[..exact - 1]),
            Err(SealError::OutputTooSmall)
        );
        assert_eq!(
            seal(&good, b"p", &mut out[..11]),
            Err(SealError::OutputTooSmall)
        );
        assert_eq!(
            seal(&good, &[0; 65_536], &mut vec![0; 70_000]),
            Err(SealError::TooLong)
        );
        // None of the refusals used up the index.
        assert_eq!(seal(&good, b"p", &mut out[..exact]), Ok(exact));
    }
}

#[test]
fn the_other_direction_and_other_keys_do_not_open() {
    for (profile, backend) in combinations() {
        let mut wire = seal_first(profile, backend, 1);
        let other = super::master_key(profile, 2);
        let mut inbound = Inbound::new(backend, &other).unwrap();
        assert_eq!(inbound.open_rtp(&mut wire), Err(OpenError::AuthFailed));
    }
}
