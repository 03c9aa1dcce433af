//! The two cryptographic libraries behind one pair of traits.
//!
//! A [`Sealer`] or [`Opener`] is one session key in one direction, set up once; per packet it is
//! given only the IV. Which library is behind it is decided at start.

mod aws_lc;
mod openssl;

use crate::KeyError;
use crate::iv::Iv;
use crate::key::SessionKeys;
use crate::packet::RTCP_CLEAR_HEADER;
use crate::profile::RTCP_INDEX_LEN;
use std::fmt;
use std::str::FromStr;

/// Which library does the cryptography.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// AWS-LC, compiled in: the faster of the two.
    #[default]
    AwsLcRs,
    /// The system's OpenSSL (3.0 or newer), for sites that must use its FIPS provider.
    OpenSsl,
}

impl Backend {
    /// Both back ends, the default first.
    pub const ALL: [Backend; 2] = [Backend::AwsLcRs, Backend::OpenSsl];

    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::AwsLcRs => "aws-lc-rs",
            Backend::OpenSsl => "openssl",
        }
    }

    pub(crate) fn sealer(self, keys: &SessionKeys) -> Result<Box<dyn Sealer>, KeyError> {
        let sealer = match (self, keys.profile().is_aead()) {
            (Backend::AwsLcRs, true) => aws_lc::Gcm::new(keys).map(|c| Box::new(c) as _),
            (Backend::AwsLcRs, false) => aws_lc::CmSha1::new(keys).map(|c| Box::new(c) as _),
            (Backend::OpenSsl, true) => openssl::GcmSealer::new(keys).map(|c| Box::new(c) as _),
            (Backend::OpenSsl, false) => openssl::CmSha1::new(keys).map(|c| Box::new(c) as _),
        };
        sealer.map_err(|Fault| KeyError::Backend(keys.profile()))
    }

    pub(crate) fn opener(self, keys: &SessionKeys) -> Result<Box<dyn Opener>, KeyError> {
        let opener = match (self, keys.profile().is_aead()) {
            (Backend::AwsLcRs, true) => aws_lc::Gcm::new(keys).map(|c| Box::new(c) as _),
            (Backend::AwsLcRs, false) => aws_lc::CmSha1::new(keys).map(|c| Box::new(c) as _),
            (Backend::OpenSsl, true) => openssl::GcmOpener::new(keys).map(|c| Box::new(c) as _),
            (Backend::OpenSsl, false) => openssl::CmSha1::new(keys).map(|c| Box::new(c) as _),
        };
        opener.map_err(|Fault| KeyError::Backend(keys.profile()))
    }

    /// Encrypts `data` in counter mode under a 16- or 32-byte key: the PRF of key derivation.
    pub(crate) fn aes_cm_in_place(self, key: &[u8], iv: &Iv, data: &mut [u8]) -> Result<(), Fault> {
        match self {
            Backend::AwsLcRs => aws_lc::aes_cm_in_place(key, iv, data),
            Backend::OpenSsl => openssl::aes_cm_in_place(key, iv, data),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Backend::ALL
            .into_iter()
            .find(|b| b.name() == s)
            .ok_or(UnknownBackend)
    }
}

/// A back-end name that is neither of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be \"aws-lc-rs\" or \"openssl\"")]
pub struct UnknownBackend;

/// The library failed for a reason that is not the data's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

/// Why opening failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    /// The tag does not match.
    Tag,
    /// The library failed.
    Fault,
}

/// What is authenticated beside the ciphertext.
///
/// AES-CM authenticates `header`, ciphertext, `trailer` (RFC 3711 §4.2: the RTP trailer is the
/// ROC; §3.4: the RTCP trailer is E flag and index). AES-GCM authenticates `header`, `trailer` as
/// associated data (RFC 7714 §8.2: RTP has no trailer, the ROC being in the IV; §9.2: the ESRTCP
/// word follows the RTCP header). A trailer with AES-GCM needs an 8-byte header.
#[derive(Clone, Copy)]
pub(crate) struct Associated<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) trailer: &'a [u8],
}

/// Seals under one session key.
pub(crate) trait Sealer: Send {
    /// Encrypts `plaintext` into `ciphertext`, of equal length, and writes the tag, of the
    /// profile's length. IVs must never repeat with other data.
    fn seal(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Fault>;
}

/// Opens under one session key. On error the contents of the output are unspecified.
pub(crate) trait Opener: Send {
    /// Verifies `tag` and decrypts `data` in place.
    fn open_in_place(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Reject>;

    /// Verifies `tag` and decrypts `ciphertext` into `plaintext`, of equal length.
    fn open_to(
        &mut self,
        iv: &Iv,
        associated: Associated<'_>,
        ciphertext: &[u8],
        tag: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Reject>;
}

/// A session key in one direction that is not set up before its first packet: a library's context
/// takes 600 bytes, and many a session only sends or only receives.
pub(crate) struct Deferred<C: ?Sized> {
    backend: Backend,
    /// Given up when the context is made.
    keys: Option<Box<SessionKeys>>,
    context: Option<Box<C>>,
}

impl<C: ?Sized> Deferred<C> {
    pub(crate) fn new(backend: Backend, keys: SessionKeys) -> Self {
        Deferred {
            backend,
            keys: Some(Box::new(keys)),
            context: None,
        }
    }

    #[cold]
    fn make(
        &mut self,
        make: fn(Backend, &SessionKeys) -> Result<Box<C>, KeyError>,
    ) -> Result<(), Fault> {
        let keys = self.keys.as_ref().ok_or(Fault)?;
        self.context = Some(make(self.backend, keys).map_err(|_| Fault)?);
        self.keys = None;
        Ok(())
    }
}

impl Deferred<dyn Sealer> {
    #[inline]
    pub(crate) fn get(&mut self) -> Result<&mut dyn Sealer, Fault> {
        if self.context.is_none() {
            self.make(Backend::sealer)?;
        }
        self.context.as_deref_mut().ok_or(Fault).map(|c| c as _)
    }
}

impl Deferred<dyn Opener> {
    #[inline]
    pub(crate) fn get(&mut self) -> Result<&mut dyn Opener, Fault> {
        if self.context.is_none() {
            self.make(Backend::opener)?;
        }
        self.context.as_deref_mut().ok_or(Fault).map(|c| c as _)
    }
}

impl From<Fault> for Reject {
    fn from(Fault: Fault) -> Self {
        Reject::Fault
    }
}

/// The associated data of an AES-GCM packet with a trailer, joined on the stack.
struct JoinedAad([u8; RTCP_CLEAR_HEADER + RTCP_INDEX_LEN]);

impl JoinedAad {
    /// `None` if the parts are not an RTCP header and an ESRTCP word.
    fn new(associated: Associated<'_>) -> Option<Self> {
        let header: &[u8; RTCP_CLEAR_HEADER] = associated.header.try_into().ok()?;
        let trailer: &[u8; RTCP_INDEX_LEN] = associated.trailer.try_into().ok()?;
        let mut joined = [0; RTCP_CLEAR_HEADER + RTCP_INDEX_LEN];
        joined[..RTCP_CLEAR_HEADER].copy_from_slice(header);
        joined[RTCP_CLEAR_HEADER..].copy_from_slice(trailer);
        Some(JoinedAad(joined))
    }
}

/// Calls `f` with the associated data in one piece.
#[inline]
fn with_aad<T>(associated: Associated<'_>, f: impl FnOnce(&[u8]) -> T) -> Result<T, Fault> {
    if associated.trailer.is_empty() {
        Ok(f(associated.header))
    } else {
        let joined = JoinedAad::new(associated).ok_or(Fault)?;
        Ok(f(&joined.0))
    }
}
