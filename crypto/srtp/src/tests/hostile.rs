//! Whatever arrives, the answer is an error: no panic, no growth, no state.

use super::{combinations, header, inbound, master_key, outbound};
use crate::{Backend, Inbound, OpenError, Profile};
use proptest::prelude::*;

/// Bytes that get past the first checks more often than chance would.
fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop::collection::vec(any::<u8>(), 0..400)).prop_map(|(flags, mut bytes)| {
        if let Some(first) = bytes.first_mut() {
            *first = 0x80 | (flags & 0x3f);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open(bytes in packet_like()) {
        for (profile, backend) in combinations() {
            let mut inbound = inbound(profile, backend);
            prop_assert!(inbound.open_rtp_to(&bytes, &mut [0; 512]).is_err());
            prop_assert!(inbound.open_rtp_to(&bytes, &mut [0; 5]).is_err());
            prop_assert!(inbound.open_rtp(&mut bytes.clone()).is_err());
            prop_assert!(inbound.open_rtcp(&mut bytes.clone()).is_err());
            let mut outbound = outbound(profile, backend);
            let mut out = [0; 1_024];
            // Sealing arbitrary RTCP may succeed; it must not panic.
            let sealed = outbound.seal_rtcp(&bytes, &mut out);
            prop_assert_eq!(sealed.is_ok(), bytes.len() >= 8);
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for (profile, backend) in combinations() {
        let mut outbound = outbound(profile, backend);
        let mut stream = outbound.stream(7).unwrap();
        let mut wire = [0; 128];
        let len = outbound
            .seal_rtp(&mut stream, &header(1, 7), &[9; 40], &mut wire)
            .unwrap();
        let mut control = [0; 128];
        let control_len = outbound.seal_rtcp(&[0x80; 40], &mut control).unwrap();
        let mut inbound = inbound(profile, backend);
        for cut in 0..len {
            assert!(
                inbound.open_rtp(&mut wire[..cut].to_vec()).is_err(),
                "{cut} of {len} bytes"
            );
        }
        for cut in 0..control_len {
            assert!(
                inbound.open_rtcp(&mut control[..cut].to_vec()).is_err(),
                "{cut} bytes"
            );
        }
        assert!(inbound.open_rtp(&mut wire[..len]).is_ok());
        assert!(inbound.open_rtcp(&mut control[..control_len]).is_ok());
    }
}

#[test]
fn a_header_may_not_reach_into_the_tag() {
    for (profile, backend) in combinations() {
        let mut inbound = inbound(profile, backend);
        let mut packet = header(1, 7).to_vec();
        packet[0] |= 1; // one CSRC, but the packet ends with the fixed header and a tag
        packet.extend(vec![0; profile.tag_len()]);
        assert_eq!(inbound.open_rtp(&mut packet), Err(OpenError::Malformed));
        packet.pop();
        assert_eq!(inbound.open_rtp(&mut packet), Err(OpenError::TooShort));
        assert_eq!(
            inbound.open_rtp(&mut vec![0x80; 65_536]),
            Err(OpenError::TooLong)
        );
        assert_eq!(
            inbound.open_rtcp(&mut vec![0x80; 65_536]),
            Err(OpenError::TooLong)
        );
    }
}

#[test]
fn forged_ssrcs_take_no_room_and_real_ones_are_limited() {
    let (profile, backend) = (Profile::AeadAes256Gcm, Backend::AwsLcRs);
    let mut outbound = outbound(profile, backend);
    let mut inbound = Inbound::with_max_ssrcs(backend, &master_key(profile, 1), 2).unwrap();
    for ssrc in 100..200 {
        let mut forged = [&header(1, ssrc)[..], &[0; 40]].concat();
        assert_eq!(inbound.open_rtp(&mut forged), Err(OpenError::AuthFailed));
    }
    let mut seal = |ssrc, seq| {
        let mut stream = outbound.stream(ssrc).unwrap();
        let mut wire = vec![0; 64];
        let len = outbound
            .seal_rtp(&mut stream, &header(seq, ssrc), b"x", &mut wire)
            .unwrap();
        wire.truncate(len);
        wire
    };
    assert!(inbound.open_rtp(&mut seal(1, 5)).is_ok());
    assert!(inbound.open_rtp(&mut seal(2, 5)).is_ok());
    assert_eq!(
        inbound.open_rtp(&mut seal(3, 5)),
        Err(OpenError::TooManySsrcs)
    );
}

#[test]
fn an_output_too_small_is_our_fault_and_loses_nothing() {
    for (profile, backend) in combinations() {
        let mut outbound = outbound(profile, backend);
        let mut stream = outbound.stream(7).unwrap();
        let mut wire = [0; 64];
        let len = outbound
            .seal_rtp(&mut stream, &header(1, 7), b"payload", &mut wire)
            .unwrap();
        let mut inbound = inbound(profile, backend);
        for room in 0..19 {
            let opened = inbound.open_rtp_to(&wire[..len], &mut [0; 19][..room]);
            assert_eq!(opened, Err(OpenError::OutputTooSmall));
        }
        assert_eq!(
            inbound
                .open_rtp_to(&wire[..len], &mut [0; 19])
                .map(|o| o.len),
            Ok(19)
        );
    }
}

#[test]
fn labels_are_distinct() {
    let labels: std::collections::BTreeSet<_> = OpenError::ALL.iter().map(|e| e.label()).collect();
    assert_eq!(labels.len(), OpenError::ALL.len());
}
