//! Every SRTP profile, negotiated by OpenSSL's DTLS client, which unlike str0m's can be told
//! which profiles to offer.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper that fails is a failed test"
)]

mod common;

use common::{addr, context, epoch, rtp_header, udp};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    ErrorCode, HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslMethod, SslStream,
    SslVerifyMode,
};
use openssl::x509::X509;
use sealcast_model::{CloseReason, SessionId, Time, WebRtcParams};
use sealcast_session::{Session, SessionOutput};
use sealcast_srtp::{Backend, Inbound, MasterKey, Outbound, Profile};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;
use str0m::ice::{StunMessage, TransId};

/// Datagrams to and from OpenSSL.
#[derive(Default)]
struct Queues {
    to: VecDeque<Vec<u8>>,
    from: VecDeque<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Queues>>);

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let packet = self
            .0
            .borrow_mut()
            .to
            .pop_front()
            .ok_or(io::ErrorKind::WouldBlock)?;
        buf[..packet.len()].copy_from_slice(&packet);
        Ok(packet.len())
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().from.push_back(buf.to_vec());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn certificate() -> (X509, PKey<Private>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut cert = X509::builder().unwrap();
    cert.set_version(2).unwrap();
    cert.set_not_before(&openssl::asn1::Asn1Time::from_unix(0).unwrap())
        .unwrap();
    cert.set_not_after(&openssl::asn1::Asn1Time::days_from_now(9).unwrap())
        .unwrap();
    cert.set_pubkey(&key).unwrap();
    cert.sign(&key, MessageDigest::sha256()).unwrap();
    (cert.build(), key)
}

struct Client {
    wire: Wire,
    session: Session,
    now: Time,
    outputs: Vec<SessionOutput>,
}

impl Client {
    /// Carries datagrams until neither side has any.
    fn exchange(&mut self) {
        loop {
            let out = self.wire.0.borrow_mut().from.pop_front();
            if let Some(packet) = out {
                let from = udp(addr(common::CLIENT));
                self.session.handle_packet(self.now, from, &packet).unwrap();
            }
            let mut progress = false;
            while let Some(output) = self.session.poll_output() {
                if let SessionOutput::Transmit { bytes, .. } = &output {
                    self.wire.0.borrow_mut().to.push_back(bytes.clone());
                    progress = true;
                }
                self.outputs.push(output);
            }
            if !progress && self.wire.0.borrow().from.is_empty() {
                return;
            }
        }
    }
}

/// Nominates the path and runs OpenSSL's handshake, offering `profiles`. The stream, if it
/// succeeded on the client's side.
fn handshake(backend: Backend, profiles: Option<&str>) -> (Client, Option<SslStream<Wire>>) {
    let (cert, key) = certificate();
    let ctx = context(epoch(), backend);
    let params = WebRtcParams {
        local_ufrag: "relay".into(),
        local_pwd: "relay-password-with-22-chars".into(),
        remote_ufrag: "client".into(),
        remote_pwd: "client-password-with-22-chars".into(),
        remote_fingerprint: cert.digest(MessageDigest::sha256()).unwrap()[..]
            .try_into()
            .unwrap(),
        sctp_port: None,
    };
    let now = Time::from_millis(5);
    let session = Session::new(now, &ctx, SessionId(1), &params).unwrap();
    let mut client = Client {
        wire: Wire::default(),
        session,
        now,
        outputs: vec![],
    };

    let crypto = str0m::crypto::from_feature_flags();
    let mut stun = [0; 200];
    let n = StunMessage::binding_request("relay:client", TransId::new(), true, 1, 1, true)
        .to_bytes(Some(params.local_pwd.as_bytes()), &mut stun, |k, p| {
            crypto.sha1_hmac_provider.sha1_hmac(k, p)
        })
        .unwrap();
    client
        .session
        .handle_packet(now, udp(addr(common::CLIENT)), &stun[..n])
        .unwrap();
    client.exchange();
    client.wire.0.borrow_mut().to.clear(); // the STUN reply is not for OpenSSL

    let mut tls = SslContext::builder(SslMethod::dtls()).unwrap();
    tls.set_certificate(&cert).unwrap();
    tls.set_private_key(&key).unwrap();
    tls.set_verify_callback(SslVerifyMode::PEER, move |_, store| {
        let peer = store
            .current_cert()
            .unwrap()
            .digest(MessageDigest::sha256())
            .unwrap();
        peer[..] == ctx.fingerprint_sha256()
    });
    if let Some(profiles) = profiles {
        tls.set_tlsext_use_srtp(profiles).unwrap();
    }
    let ssl = Ssl::new(&tls.build()).unwrap();
    let mut state = ssl.connect(client.wire.clone());
    for _ in 0..20 {
        client.exchange();
        state = match state {
            Ok(stream) => return (client, Some(stream)),
            Err(HandshakeError::WouldBlock(mid)) => MidHandshakeSslStream::handshake(mid),
            Err(_) => return (client, None),
        };
    }
    (client, None)
}

#[test]
fn each_profile_is_negotiated_and_carries_media_both_ways() {
    for (offer, profile) in [
        ("SRTP_AEAD_AES_256_GCM", Profile::AeadAes256Gcm),
        ("SRTP_AEAD_AES_128_GCM", Profile::AeadAes128Gcm),
        ("SRTP_AES128_CM_SHA1_80", Profile::Aes128CmSha1_80),
        // Over DTLS 1.2 the relay picks the strongest, whatever comes first.
        (
            "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM",
            Profile::AeadAes128Gcm,
        ),
    ] {
        for backend in Backend::ALL {
            let (mut client, stream) = handshake(backend, Some(offer));
            let stream = stream.expect("OpenSSL connected");
            assert!(client.outputs.iter().any(|o| matches!(o,
                SessionOutput::Connected { dtls: "1.2", srtp_profile }
                    if *srtp_profile == profile)));

            // RFC 5764 §4.2.
            let mut material = vec![0; profile.dtls_material_len()];
            let ssl = stream.ssl();
            ssl.export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None)
                .unwrap();
            let (ours, relays) = MasterKey::pair_from_dtls(profile, &material).unwrap();
            let mut seal = Outbound::new(Backend::OpenSsl, &ours).unwrap();
            let mut open = Inbound::new(Backend::OpenSsl, &relays).unwrap();
            let mut stream = seal.stream(common::DOWN).unwrap();

            let mut packet = [0; 200];
            let n = seal
                .seal_rtp(&mut stream, &rtp_header(1), b"up", &mut packet)
                .unwrap();
            let from = udp(addr(common::CLIENT));
            let opened = client
                .session
                .open_rtp(client.now, &from, &mut packet[..n])
                .unwrap();
            assert_eq!(&packet[12..opened], b"up");

            let n = client
                .session
                .seal_rtp(&rtp_header(1), b"down", &mut packet)
                .unwrap();
            let opened = open.open_rtp(&mut packet[..n]).unwrap();
            assert_eq!(&packet[12..opened.len], b"down");
        }
    }
}

#[test]
fn a_client_that_offers_no_srtp_is_refused() {
    let (client, _) = handshake(Backend::AwsLcRs, None);
    assert!(!client.session.is_connected());
    let closed = client
        .outputs
        .iter()
        .any(|o| matches!(o, SessionOutput::Closed(CloseReason::DtlsFailed)));
    assert!(closed, "{:?}", client.outputs);
}

#[test]
fn close_notify_reaches_openssl() {
    let (mut client, stream) = handshake(Backend::AwsLcRs, Some("SRTP_AEAD_AES_128_GCM"));
    let mut stream = stream.unwrap();
    client.session.close(
        client.now + Duration::from_millis(1),
        CloseReason::Requested,
    );
    client.exchange();
    let end = stream.ssl_read(&mut [0; 10]).unwrap_err();
    assert_eq!(end.code(), ErrorCode::ZERO_RETURN);
}
