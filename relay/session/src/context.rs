//! What all sessions of a process share: certificate, DTLS configuration, SRTP back end.

use std::time::Instant;

/// Shared by every session of a shard or process; cheap to clone.
#[derive(Clone)]
pub struct SessionContext {}

/// Why a context could not be built. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The certificate or key cannot be read, or they do not belong together.
    #[error("DTLS certificate: {0}")]
    Certificate(String),
    /// The DTLS engine refused its configuration.
    #[error("DTLS configuration: {0}")]
    Dtls(String),
}

impl SessionContext {
    /// A context with a fresh self-signed ECDSA P-256 certificate. `epoch` is the `Instant` of
    /// `Time::ZERO`; `srtp` names the back end.
    ///
    /// # Errors
    /// [`ContextError`] if OpenSSL or the DTLS engine fails.
    pub fn generate(
        _epoch: Instant,
        _srtp: sealcast_srtp::Backend,
    ) -> Result<SessionContext, ContextError> {
        unimplemented!()
    }

    /// A context with the operator's certificate: the first certificate of `certificate_pem` and
    /// its unencrypted `key_pem` (ECDSA P-256 or P-384).
    ///
    /// # Errors
    /// [`ContextError`] if they do not parse or do not belong together.
    pub fn from_pem(
        _epoch: Instant,
        _srtp: sealcast_srtp::Backend,
        _certificate_pem: &[u8],
        _key_pem: &[u8],
    ) -> Result<SessionContext, ContextError> {
        unimplemented!()
    }

    /// SHA-256 of the certificate, for the answer's `a=fingerprint` (RFC 8122 §5).
    #[must_use]
    pub fn fingerprint_sha256(&self) -> [u8; 32] {
        unimplemented!()
    }
}
