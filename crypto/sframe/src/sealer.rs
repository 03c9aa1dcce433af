//! One sender's key and the counter that goes with it.

use crate::{CipherSuite, FrameKey, Header, KeyError, Kid, MAX_HEADER_LEN, SealError};

/// Frames that one key seals before it must be replaced: the bound that TLS 1.3 sets for AES-GCM
/// with full-size records is 2^24.5 (RFC 8446 §5.5). At 60 frames a second 2^24 are 77 hours.
pub const DEFAULT_FRAME_LIMIT: u64 = 1 << 24;

/// Seals the frames of one encoder under one KID, with counters 0, 1, 2, …
///
/// The counter rises even when a frame is then lost or never sent, and is never given back.
#[derive(Debug)]
pub struct Sealer {
    key: FrameKey,
    kid: Kid,
    /// Counter of the next frame; at `limit` the sealer is spent.
    counter: u64,
    limit: u64,
    /// The current frame's AAD. Kept to spare an allocation per frame.
    aad: Vec<u8>,
}

impl Sealer {
    /// A sealer for `kid` that stops after [`DEFAULT_FRAME_LIMIT`] frames.
    ///
    /// # Errors
    /// As [`FrameKey::derive`].
    pub fn new(suite: CipherSuite, kid: Kid, base_key: &[u8]) -> Result<Self, KeyError> {
        Ok(Self {
            key: FrameKey::derive(suite, kid, base_key)?,
            kid,
            counter: 0,
            limit: DEFAULT_FRAME_LIMIT,
            aad: Vec::new(),
        })
    }

    /// The same sealer, which stops after `limit` frames instead.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// The KID in every header this sealer writes.
    pub fn kid(&self) -> Kid {
        self.kid
    }

    /// Frames sealed so far, which is also the next frame's counter.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Frames that may still be sealed.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.counter)
    }

    /// The suite in use.
    pub fn suite(&self) -> CipherSuite {
        self.key.suite()
    }

    /// Length that the next frame will have once sealed, if `plaintext_len` bytes of it are
    /// encrypted.
    pub fn sealed_len(&self, plaintext_len: usize) -> usize {
        self.header().encoded_len() + plaintext_len + self.key.suite().tag_len()
    }

    /// Appends SFrame header, ciphertext and tag of `plaintext` to `out`. `metadata` is
    /// authenticated with the frame, not written.
    ///
    /// # Errors
    /// [`SealError::Exhausted`] at the limit; [`SealError::TooLong`] beyond the cipher's length.
    /// `out` is as before then.
    pub fn seal_to_vec(
        &mut self,
        metadata: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let start = out.len();
        let header_len = self.header().encoded_len();
        out.resize(start + header_len, 0);
        out.extend_from_slice(plaintext);
        out.resize(start + self.sealed_len(plaintext.len()), 0);
        let sealed = self.seal_in_place(metadata, &mut out[start..]);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    /// Writes SFrame header, ciphertext and tag of `plaintext` to `out`, which is exactly
    /// [`sealed_len`](Self::sealed_len) bytes long.
    ///
    /// # Errors
    /// As [`seal_to_vec`](Self::seal_to_vec); [`SealError::OutputLength`] if `out` is longer or
    /// shorter.
    pub fn seal_to_slice(
        &mut self,
        metadata: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<(), SealError> {
        let need = self.sealed_len(plaintext.len());
        let header_len = self.header().encoded_len();
        let have = out.len();
        if have != need {
            return Err(SealError::OutputLength { need, have });
        }
        out[header_len..header_len + plaintext.len()].copy_from_slice(plaintext);
        self.seal_in_place(metadata, out)
    }

    /// Seals what lies in `frame` between room for the header in front and for the tag behind.
    fn seal_in_place(&mut self, metadata: &[u8], frame: &mut [u8]) -> Result<(), SealError> {
        if self.counter >= self.limit {
            return Err(SealError::Exhausted(self.limit));
        }
        let mut header = [0; MAX_HEADER_LEN];
        let header_len = self
            .header()
            .encode(&mut header)
            .expect("room for the longest header");
        let (front, rest) = frame.split_at_mut(header_len);
        front.copy_from_slice(&header[..header_len]);
        let (data, tag) = rest.split_at_mut(rest.len() - self.key.suite().tag_len());

        // `aad = header + metadata` (RFC 9605 §4.4.3).
        self.aad.clear();
        self.aad.extend_from_slice(front);
        self.aad.extend_from_slice(metadata);

        // The counter is spent whether or not the cipher accepts.
        let counter = self.counter;
        self.counter += 1;
        self.key
            .seal(counter, &self.aad, data, tag)
            .map_err(|_| SealError::TooLong)
    }

    fn header(&self) -> Header {
        Header {
            kid: self.kid,
            counter: self.counter,
        }
    }
}
