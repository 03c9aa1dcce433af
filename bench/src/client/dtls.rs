//! DTLS 1.2 as a client, by OpenSSL, which can be told which SRTP profile to offer.

use super::{GLANCE, Link, PATIENCE};
use crate::{Result, clock};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use sealcast_srtp::Profile;
use std::io::{self, Read, Write};

/// A certificate, with which any number of clients may connect.
pub struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// If OpenSSL refuses.
    pub fn generate() -> Result<Identity> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut certificate = X509::builder()?;
        let (from, until) = (Asn1Time::from_unix(0)?, Asn1Time::days_from_now(1)?);
        certificate.set_not_before(&from)?;
        certificate.set_not_after(&until)?;
        certificate.set_pubkey(&key)?;
        certificate.sign(&key, MessageDigest::sha256())?;
        Ok(Identity {
            certificate: certificate.build(),
            key,
        })
    }

    /// SHA-256 of the certificate.
    ///
    /// # Errors
    /// If OpenSSL refuses.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        Ok(self.certificate.digest(MessageDigest::sha256())?[..].try_into()?)
    }
}

/// OpenSSL's name of a profile, for its `use_srtp` list.
fn offer(profile: Profile) -> &'static str {
    match profile {
        Profile::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
        Profile::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
        Profile::Aes128CmSha1_80 => "SRTP_AES128_CM_SHA1_80",
    }
}

/// Shakes hands with the relay and returns the keying material (RFC 5764 §4.2).
pub(super) fn handshake(
    link: impl Link,
    identity: &Identity,
    relay_fingerprint: [u8; 32],
    profile: Profile,
) -> Result<Vec<u8>> {
    let mut tls = SslContext::builder(SslMethod::dtls())?;
    tls.set_certificate(&identity.certificate)?;
    tls.set_private_key(&identity.key)?;
    tls.set_verify_callback(SslVerifyMode::PEER, move |_, store| {
        let digest = store
            .current_cert()
            .and_then(|cert| cert.digest(MessageDigest::sha256()).ok());
        digest.is_some_and(|digest| digest[..] == relay_fingerprint)
    });
    tls.set_tlsext_use_srtp(offer(profile))?;
    let start = clock::now();
    let mut state = Ssl::new(&tls.build())?.connect(Wire(link));
    let stream = loop {
        state = match state {
            Ok(stream) => break stream,
            Err(HandshakeError::WouldBlock(waiting)) if start.elapsed() < PATIENCE => {
                clock::sleep(GLANCE);
                waiting.handshake()
            }
            Err(HandshakeError::WouldBlock(_)) => return Err("DTLS: no answer".into()),
            Err(HandshakeError::SetupFailure(e)) => return Err(e.into()),
            Err(HandshakeError::Failure(failed)) => return Err(failed.into_error().into()),
        };
    };
    let mut material = vec![0; profile.dtls_material_len()];
    let ssl = stream.ssl();
    ssl.export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None)?;
    Ok(material)
}

/// The DTLS part of what goes over the socket (RFC 7983: first byte 20 to 63).
struct Wire<L>(L);

impl<L: Link> Read for Wire<L> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.0.recv(buf)?;
            if matches!(buf.first(), Some(20..=63)) {
                return Ok(len);
            }
        }
    }
}

impl<L: Link> Write for Wire<L> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
