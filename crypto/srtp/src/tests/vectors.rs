//! Published vectors: RFC 3711 appendix B, RFC 6188 §7, RFC 7714 §16 and §17, and the packets with
//! which libsrtp's own test driver pins its key derivation for 96-bit salts.

use super::{combinations, hex};
use crate::key::{Protocol, SessionKeys};
use crate::{Backend, Inbound, MasterKey, OpenError, Outbound, Profile};

#[test]
fn rfc_3711_b2_keystream() {
    let key = hex("2B7E151628AED2A6ABF7158809CF4F3C");
    let mut iv: [u8; 16] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
    for backend in Backend::ALL {
        iv[14..].copy_from_slice(&[0, 0]);
        let mut stream = [0; 48];
        backend.aes_cm_in_place(&key, &iv, &mut stream).unwrap();
        let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
                        41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(stream[..], hex(expected), "{backend}");

        iv[14..].copy_from_slice(&[0xfe, 0xff]);
        let mut stream = [0; 48];
        backend.aes_cm_in_place(&key, &iv, &mut stream).unwrap();
        let expected = "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
                        6A2CC3787889374FBEB4C81B17BA6C44";
        assert_eq!(stream[..], hex(expected), "{backend}");
    }
}

#[test]
fn rfc_3711_b3_key_derivation() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let master = MasterKey::new(Profile::Aes128CmSha1_80, &key, &salt).unwrap();
    for backend in Backend::ALL {
        let keys = master.derive(backend, Protocol::Rtp).unwrap();
        assert_eq!(keys.cipher_key(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(keys.salt()[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            keys.auth_key()[..],
            hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
        );
    }
}

#[test]
fn rfc_6188_aes_256_key_stream() {
    // RFC 6188 §7.2 derives with a 112-bit salt, which no profile of ours has beside a 256-bit
    // key; the keystream that makes it up is the same.
    let key = hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
    let salt = hex("3b04803de51ee7c96423ab5b78d2");
    for backend in Backend::ALL {
        for (label, expected) in [
            (
                0,
                "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4",
            ),
            (1, "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"),
            (2, "fa31791685ca444a9e07c6c64e93"),
        ] {
            let mut iv = [0; 16];
            iv[..14].copy_from_slice(&salt);
            iv[7] ^= label;
            let mut out = vec![0; hex(expected).len()];
            backend.aes_cm_in_place(&key, &iv, &mut out).unwrap();
            assert_eq!(out, hex(expected), "{backend}, label {label}");
        }
    }
}

/// Both directions of one packet under master keys.
struct MasterVector {
    profile: Profile,
    key: &'static str,
    salt: &'static str,
    rtp: &'static str,
    srtp: &'static str,
    rtcp: &'static str,
    /// With SRTCP index 1.
    srtcp: &'static str,
}

const LIBSRTP: [MasterVector; 2] = [
    MasterVector {
        profile: Profile::Aes128CmSha1_80,
        key: "e1f97a0d3e018be0d64fa32c06de4139",
        salt: "0ec675ad498afeebb6960b3aabe6",
        rtp: "800f1234decafbadcafebabe abababababababababababababababab",
        srtp: "800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb",
        rtcp: "81c8000bcafebabe abababababababababababababababab",
        srtcp: "81c8000bcafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798",
    },
    MasterVector {
        profile: Profile::AeadAes128Gcm,
        key: "000102030405060708090a0b0c0d0e0f",
        salt: "a0a1a2a3a4a5a6a7a8a9aaab",
        rtp: "800f1234decafbadcafebabe abababababababababababababababab",
        srtp: "800f1234decafbadcafebabe c5002ede04cfdd2eb91159e0880aa06e
               d2976826f796b201df3131a127e8a392",
        rtcp: "81c8000bcafebabe abababababababababababababababab",
        srtcp: "81c8000bcafebabe c98b8b5df0392a55852b6c21ac8e7025
                c52c6fbea2b3b446ea31123ba88ce61e 80000001",
    },
];

#[test]
fn libsrtp_packets_from_master_keys() {
    for vector in &LIBSRTP {
        let master = MasterKey::new(vector.profile, &hex(vector.key), &hex(vector.salt)).unwrap();
        for backend in Backend::ALL {
            let mut outbound = Outbound::new(backend, &master).unwrap();
            let mut inbound = Inbound::new(backend, &master).unwrap();
            check_rtp(
                &mut outbound,
                &mut inbound,
                &hex(vector.rtp),
                &hex(vector.srtp),
            );
            seal_rtcp_until(&mut outbound, 1, &hex(vector.rtcp), &hex(vector.srtcp));
            check_open_rtcp(&mut inbound, &hex(vector.rtcp), &hex(vector.srtcp));
        }
    }
}

const RFC_7714_RTP: &str = "8040f17b8041f8d35501a0b2 47616c6c696120657374206f6d6e697320646976697361
                            20696e207061727465732074726573";
const RFC_7714_RTCP: &str = "81c8000d4d617273 4e5450314e545032525450200000042a0000e930
                             4c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

/// Session keys, SRTP (§16) and SRTCP (§17, index 0x5d4).
const RFC_7714: [(Profile, &str, &str, &str); 2] = [
    (
        Profile::AeadAes128Gcm,
        "000102030405060708090a0b0c0d0e0f",
        "8040f17b8041f8d35501a0b2 f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b
         36de3adf8833 899d7f27beb16a9152cf765ee4390cce",
        "81c8000d4d617273 63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda
         4ce09b4686303ded0bb9275b c84aa45896cf4d2fc5abf87245d9eade 800005d4",
    ),
    (
        Profile::AeadAes256Gcm,
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "8040f17b8041f8d35501a0b2 32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f
         1ba63799b87b 7aa3db36dfffd6b0f9bb7878d7a76c13",
        "81c8000d4d617273 d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be
         8415f658c61de0476f1b6fad 1d1eb30c4446839f57ff6f6cb26ac3be 800005d4",
    ),
];

fn rfc_7714_contexts(backend: Backend, profile: Profile, key: &str) -> (Outbound, Inbound) {
    let keys = SessionKeys::from_parts(profile, &hex(key), b"Quid pro quo");
    (
        Outbound::from_session_keys(backend, keys.clone(), &keys, 1).unwrap(),
        Inbound::from_session_keys(backend, keys.clone(), &keys, 1).unwrap(),
    )
}

#[test]
fn rfc_7714_packets() {
    for (profile, key, srtp, srtcp) in RFC_7714 {
        for backend in Backend::ALL {
            let (mut outbound, mut inbound) = rfc_7714_contexts(backend, profile, key);
            check_rtp(&mut outbound, &mut inbound, &hex(RFC_7714_RTP), &hex(srtp));
            seal_rtcp_until(&mut outbound, 0x5d4, &hex(RFC_7714_RTCP), &hex(srtcp));
            check_open_rtcp(&mut inbound, &hex(RFC_7714_RTCP), &hex(srtcp));
        }
    }
}

#[test]
fn rfc_7714_tagged_but_clear_srtcp_is_refused() {
    // §17.3: E flag clear. Encryption was negotiated, so the packet is a downgrade.
    let tagged = hex(RFC_7714_RTCP);
    let tagged = [tagged, hex("841dd9683dd78ec92ae58790125f62b3 000005d4")].concat();
    for backend in Backend::ALL {
        let (profile, key, _, _) = RFC_7714[0];
        let (_, mut inbound) = rfc_7714_contexts(backend, profile, key);
        assert_eq!(
            inbound.open_rtcp(&mut tagged.clone()),
            Err(OpenError::Unencrypted)
        );
    }
}

fn check_rtp(outbound: &mut Outbound, inbound: &mut Inbound, rtp: &[u8], srtp: &[u8]) {
    let ssrc = u32::from_be_bytes(rtp[8..12].try_into().unwrap());
    let mut stream = outbound.stream(ssrc).unwrap();
    let mut out = vec![0; srtp.len()];
    let len = outbound
        .seal_rtp(&mut stream, &rtp[..12], &rtp[12..], &mut out)
        .unwrap();
    assert_eq!(out[..len], *srtp);

    let mut opened = vec![0; rtp.len()];
    // The copy goes first: a context opens a packet once.
    let mut twin = srtp.to_vec();
    assert_eq!(
        inbound.open_rtp_to(srtp, &mut opened).unwrap().len,
        rtp.len()
    );
    assert_eq!(opened, rtp);
    assert_eq!(inbound.open_rtp(&mut twin), Err(OpenError::Replayed));
}

fn check_open_rtcp(inbound: &mut Inbound, rtcp: &[u8], srtcp: &[u8]) {
    let mut packet = srtcp.to_vec();
    let len = inbound.open_rtcp(&mut packet).unwrap();
    assert_eq!(packet[..len], *rtcp);
}

/// Seals `rtcp` again and again; with SRTCP index `index` the result must be `srtcp`.
fn seal_rtcp_until(outbound: &mut Outbound, index: u32, rtcp: &[u8], srtcp: &[u8]) {
    let mut out = vec![0; srtcp.len()];
    for _ in 0..=index {
        assert_eq!(outbound.seal_rtcp(rtcp, &mut out), Ok(srtcp.len()));
    }
    assert_eq!(out, srtcp);
}

#[test]
fn dtls_material_is_split_in_the_order_of_rfc_5764() {
    for (profile, backend) in combinations() {
        let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
        let parts = [
            vec![1; key_len],
            vec![2; key_len],
            vec![3; salt_len],
            vec![4; salt_len],
        ];
        let material = parts.concat();
        let (client, server) = MasterKey::pair_from_dtls(profile, &material).unwrap();
        for (pair, key, salt) in [
            (client, &parts[0], &parts[2]),
            (server, &parts[1], &parts[3]),
        ] {
            let direct = MasterKey::new(profile, key, salt).unwrap();
            let a = pair.derive(backend, Protocol::Rtp).unwrap();
            let b = direct.derive(backend, Protocol::Rtp).unwrap();
            assert_eq!((a.cipher_key(), a.salt()), (b.cipher_key(), b.salt()));
        }
        assert!(MasterKey::pair_from_dtls(profile, &material[1..]).is_err());
    }
}
