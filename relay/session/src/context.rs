//! What all sessions of a process share: certificate, DTLS configuration, SRTP back end.

use crate::tap::TAP;
use crate::{limits, record_keys};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder};
use sealcast_model::Time;
use sealcast_model::limits::CONNECT_DEADLINE;
use sealcast_srtp::Backend;
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::crypto::CryptoProvider;
use str0m::crypto::dtls::DtlsCert;

/// Shared by every session of a shard or process; cheap to clone.
#[derive(Clone)]
pub struct SessionContext(Arc<Inner>);

struct Inner {
    epoch: Instant,
    srtp: Backend,
    certificate: DtlsCert,
    fingerprint: [u8; 32],
    crypto: Arc<CryptoProvider>,
    dtls: Arc<dimpl::Config>,
}

/// Why a context could not be built. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The certificate or key does not parse.
    #[error("DTLS certificate: {0}")]
    Certificate(#[from] ErrorStack),
    /// The key does not belong to the certificate.
    #[error("DTLS certificate: the key is another certificate's")]
    KeyMismatch,
    /// DTLS here signs with ECDSA over P-256 or P-384 alone, as every browser accepts.
    #[error("DTLS certificate: the key must be ECDSA P-256 or P-384")]
    KeyType,
    /// The DTLS engine refused its configuration.
    #[error("DTLS configuration: {0}")]
    Dtls(String),
}

impl SessionContext {
    /// A context with a fresh self-signed ECDSA P-256 certificate. `epoch` is the `Instant` of
    /// [`Time::ZERO`]; `srtp` names the back end.
    ///
    /// # Errors
    /// [`ContextError`] if OpenSSL or the DTLS engine fails.
    pub fn generate(epoch: Instant, srtp: Backend) -> Result<SessionContext, ContextError> {
        let (certificate, key) = self_signed()?;
        SessionContext::new(epoch, srtp, &certificate, &key)
    }

    /// A context with the operator's certificate: the first certificate of `certificate_pem` and
    /// its unencrypted `key_pem` (ECDSA P-256 or P-384).
    ///
    /// # Errors
    /// [`ContextError`] if they do not parse or do not belong together.
    pub fn from_pem(
        epoch: Instant,
        srtp: Backend,
        certificate_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<SessionContext, ContextError> {
        let certificate = X509::from_pem(certificate_pem)?;
        let key = PKey::private_key_from_pem(key_pem)?;
        SessionContext::new(epoch, srtp, &certificate, &key)
    }

    fn new(
        epoch: Instant,
        srtp: Backend,
        certificate: &X509,
        key: &PKey<Private>,
    ) -> Result<SessionContext, ContextError> {
        let curve = key.ec_key().ok().and_then(|k| k.group().curve_name());
        if !matches!(curve, Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1)) {
            return Err(ContextError::KeyType);
        }
        if !certificate.public_key()?.public_eq(key) {
            return Err(ContextError::KeyMismatch);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&certificate.digest(MessageDigest::sha256())?);

        let dtls = dimpl::Config::builder()
            .with_crypto_provider(record_keys::crypto_provider())
            // DTLS is taken from validated addresses only, which is what the cookie is for.
            .use_server_cookie(false)
            .require_client_certificate(true)
            .mtu(limits::DTLS_MTU)
            .flight_start_rto(limits::DTLS_FIRST_RETRY)
            .flight_retries(limits::DTLS_RETRIES)
            .handshake_timeout(CONNECT_DEADLINE)
            .build()
            .map_err(|e| ContextError::Dtls(e.to_string()))?;
        let mut crypto = str0m::crypto::from_feature_flags();
        crypto.dtls_provider = &TAP;

        Ok(SessionContext(Arc::new(Inner {
            epoch,
            srtp,
            certificate: DtlsCert {
                certificate: certificate.to_der()?,
                private_key: key.private_key_to_pkcs8()?,
            },
            fingerprint,
            crypto: Arc::new(crypto),
            dtls: Arc::new(dtls),
        })))
    }

    /// SHA-256 of the certificate, for the answer's `a=fingerprint` (RFC 8122 §5).
    #[must_use]
    pub fn fingerprint_sha256(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    pub(crate) fn srtp(&self) -> Backend {
        self.0.srtp
    }

    pub(crate) fn certificate(&self) -> &DtlsCert {
        &self.0.certificate
    }

    pub(crate) fn crypto(&self) -> &Arc<CryptoProvider> {
        &self.0.crypto
    }

    pub(crate) fn dtls(&self) -> &Arc<dimpl::Config> {
        &self.0.dtls
    }

    /// str0m's view of a time.
    pub(crate) fn instant(&self, t: Time) -> Instant {
        self.0.epoch + Duration::from_nanos(t.as_nanos())
    }

    /// Our view of str0m's. Its "never" is a century away, which is as good.
    pub(crate) fn time(&self, t: Instant) -> Time {
        Time::ZERO + t.saturating_duration_since(self.0.epoch)
    }
}

/// A certificate that says nothing: peers compare its fingerprint and look at nothing else.
fn self_signed() -> Result<(X509, PKey<Private>), ErrorStack> {
    /// Days. Outlives any process that made it.
    const VALIDITY: u32 = 3_650;

    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "WebRTC")?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;

    let mut certificate = X509::builder()?;
    certificate.set_version(2)?; // X.509 v3
    certificate.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_not_before(Asn1Time::from_unix(0)?.as_ref())?;
    certificate.set_not_after(Asn1Time::days_from_now(VALIDITY)?.as_ref())?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((certificate.build(), key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::rsa::Rsa;

    fn epoch() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        Instant::now()
    }

    fn pem(pair: &(X509, PKey<Private>)) -> (Vec<u8>, Vec<u8>) {
        (
            pair.0.to_pem().unwrap(),
            pair.1.private_key_to_pem_pkcs8().unwrap(),
        )
    }

    #[test]
    fn fingerprints_differ_and_survive_pem() {
        let pair = self_signed().unwrap();
        let (cert, key) = pem(&pair);
        let a = SessionContext::from_pem(epoch(), Backend::AwsLcRs, &cert, &key).unwrap();
        let b = SessionContext::from_pem(epoch(), Backend::OpenSsl, &cert, &key).unwrap();
        assert_eq!(a.fingerprint_sha256(), b.fingerprint_sha256());
        let c = SessionContext::generate(epoch(), Backend::AwsLcRs).unwrap();
        assert_ne!(a.fingerprint_sha256(), c.fingerprint_sha256());
    }

    #[test]
    fn unusable_certificates_are_refused() {
        let load = |cert: &[u8], key: &[u8]| {
            SessionContext::from_pem(epoch(), Backend::AwsLcRs, cert, key).err()
        };
        let (cert, key) = pem(&self_signed().unwrap());
        let (_, other) = pem(&self_signed().unwrap());
        let rsa = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
        let rsa = rsa.private_key_to_pem_pkcs8().unwrap();
        assert!(matches!(
            load(&cert, &other),
            Some(ContextError::KeyMismatch)
        ));
        assert!(matches!(load(&cert, &rsa), Some(ContextError::KeyType)));
        assert!(matches!(
            load(b"nonsense", &key),
            Some(ContextError::Certificate(_))
        ));
        assert!(matches!(
            load(&cert, b"nonsense"),
            Some(ContextError::Certificate(_))
        ));
    }

    #[test]
    fn times_map_both_ways() {
        let ctx = SessionContext::generate(epoch(), Backend::AwsLcRs).unwrap();
        let t = Time::from_nanos(123_456_789);
        assert_eq!(ctx.time(ctx.instant(t)), t);
    }
}
