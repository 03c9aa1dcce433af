//! Sealing and opening allocate nothing, neither in Rust nor inside the C libraries.

use sealcast_heap::allocations;
use sealcast_srtp::{Backend, Inbound, KeyError, MasterKey, Outbound, Profile};

fn contexts(profile: Profile, backend: Backend) -> Result<(Outbound, Inbound), KeyError> {
    let (key, salt) = ([1; 32], [2; 14]);
    let key = MasterKey::new(
        profile,
        &key[..profile.key_len()],
        &salt[..profile.salt_len()],
    )?;
    Ok((Outbound::new(backend, &key)?, Inbound::new(backend, &key)?))
}

#[test]
fn the_counter_sees_rust_and_c() {
    assert!(
        allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0,
        "Rust"
    );
    for backend in Backend::ALL {
        let key = MasterKey::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap();
        let made = allocations(|| drop(std::hint::black_box(Inbound::new(backend, &key))));
        // Two boxes are ours; more are the library's (AWS-LC keeps its key inside the box).
        let at_least = if backend == Backend::OpenSsl { 4 } else { 2 };
        assert!(made >= at_least, "{backend}: {made}");
    }
}

#[test]
fn no_allocation_per_packet() {
    for profile in Profile::ALL {
        for backend in Backend::ALL {
            let (mut outbound, mut inbound) = contexts(profile, backend).unwrap();
            let mut stream = outbound.stream(7).unwrap();
            let mut wire = vec![0; 1_500];
            let mut plain = vec![0; 1_500];
            let payload = vec![3; 1_100];
            let mut round_trip = |seq: u16| {
                let [s0, s1] = seq.to_be_bytes();
                let header = [0x80, 96, s0, s1, 0, 0, 0, 0, 0, 0, 0, 7];
                let sealed = outbound.seal_rtp(&mut stream, &header, &payload, &mut wire);
                let sealed = &mut wire[..sealed.unwrap()];
                if seq.is_multiple_of(2) {
                    inbound.open_rtp(sealed).unwrap();
                } else {
                    inbound.open_rtp_to(sealed, &mut plain).unwrap();
                }
                // Refusals are free as well, so that a flood of replays costs no memory.
                inbound.open_rtp(sealed).unwrap_err();
                let sealed = outbound.seal_rtcp(&[0x80; 64], &mut wire).unwrap();
                inbound.open_rtcp(&mut wire[..sealed]).unwrap();
            };
            // The first packets make the SSRC's state and the library's lazy tables.
            round_trip(0);
            round_trip(1);
            let made = allocations(|| (2..200).for_each(round_trip));
            assert_eq!(made, 0, "{profile} with {backend}, in 198 round trips");
        }
    }
}
