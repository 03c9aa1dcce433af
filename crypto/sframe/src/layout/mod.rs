//! Which bytes of an encoded frame stay outside the seal, codec by codec.
//!
//! | Codec | Sealed frame |
//! |-------|--------------|
//! | Opus, VP9 | SFrame(frame) |
//! | VP8 | clear prefix ‖ SFrame(rest): 10 bytes of a key frame (frame tag, start code, size; RFC 6386 §9.1), 3 of any other (frame tag) |
//! | AV1 | copies of sequence headers ‖ an OBU around SFrame(frame), see [`peek_obu`] |
//! | H264 | copies of parameter sets and slice header ‖ a NAL unit around SFrame(frame), see [`peek_nal`] |
//!
//! What stays readable is what a packetizer, a jitter buffer and the relay look at when they have
//! no dependency descriptor. VP8's prefix is authenticated as the SFrame metadata. The copies of
//! AV1 and H.264 may change on the way and are dropped by the receiver: its decoder gets nothing
//! that was not sealed.
//!
//! A frame of length zero stays one: some encoders emit them as place holders, and they seal
//! nothing.

mod av1;
mod h264;

pub use av1::peek_obu;
pub use h264::peek_nal;

use crate::{Header, KeyStore, Kid, MAX_HEADER_LEN, OpenError, SealError, Sealer};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Bytes of a VP8 key frame before its first partition's data: frame tag (3), start code (3),
/// width and height (4).
const VP8_KEY_PREFIX: usize = 10;

/// Bytes of any other VP8 frame before its first partition's data: the frame tag.
const VP8_DELTA_PREFIX: usize = 3;

/// Bytes from the start of an Opus, VP8 or VP9 frame among which [`peek`] finds the SFrame header.
pub const PEEK_LEN: usize = VP8_KEY_PREFIX + MAX_HEADER_LEN;

/// A codec whose frames can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus (RFC 7587).
    Opus,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// AV1.
    Av1,
    /// H.264, as an Annex B byte stream (RFC 6184).
    H264,
}

impl Codec {
    /// The codec's lower-case name, as [`FromStr`] reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::H264 => "h264",
        }
    }

    /// Length of the clear prefix of a frame that starts with `first_byte`. The frame is at least
    /// as long, or is no frame of this codec. Codecs other than VP8 have none; those of AV1 and
    /// H.264 are wrapped instead.
    pub const fn clear_prefix_len(self, first_byte: u8) -> usize {
        match self {
            Self::Opus | Self::Vp9 | Self::Av1 | Self::H264 => 0,
            // "A 1-bit frame type (0 for key frames, 1 for interframes)" (RFC 6386 §9.1), the
            // lowest bit of the first byte.
            Self::Vp8 if first_byte & 1 == 0 => VP8_KEY_PREFIX,
            Self::Vp8 => VP8_DELTA_PREFIX,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No codec of that name can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown codec")]
pub struct UnknownCodec;

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        [Self::Opus, Self::Vp8, Self::Vp9, Self::Av1, Self::H264]
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or(UnknownCodec)
    }
}

/// A media frame that was opened in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedFrame {
    /// Key id of the frame.
    pub kid: Kid,
    /// Counter of the frame.
    pub counter: u64,
    /// Where the whole frame, clear prefix included, lies within the buffer.
    pub frame: Range<usize>,
}

/// Seals `frame` into `out`, which is cleared first. A frame of length zero stays one.
///
/// # Errors
/// [`SealError::NotThisCodec`] if the frame is shorter than its own clear prefix, does not start
/// with an OBU or has no slice, which no decoder would take either; as [`Sealer::seal_to_vec`].
/// `out` is empty then.
pub fn seal(
    codec: Codec,
    sealer: &mut Sealer,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    out.clear();
    let Some(&first) = frame.first() else {
        return Ok(());
    };
    if matches!(codec, Codec::Av1 | Codec::H264) {
        let sealed = seal_wrapped(codec, sealer, frame, out);
        if sealed.is_err() {
            out.clear();
        }
        return sealed;
    }
    let (prefix, media) = frame
        .split_at_checked(codec.clear_prefix_len(first))
        .ok_or(SealError::NotThisCodec {
            codec,
            len: frame.len(),
        })?;
    out.reserve(prefix.len() + sealer.sealed_len(media.len()));
    out.extend_from_slice(prefix);
    let sealed = sealer.seal_to_vec(prefix, media, out);
    if sealed.is_err() {
        out.clear();
    }
    sealed
}

/// Seals all of `frame` into an OBU or NAL unit behind the codec's clear part.
fn seal_wrapped(
    codec: Codec,
    sealer: &mut Sealer,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    let no_frame = SealError::NotThisCodec {
        codec,
        len: frame.len(),
    };
    if codec == Codec::Av1 {
        av1::write_clear_part(frame, out).ok_or(no_frame)?;
        av1::write_container(sealer.sealed_len(frame.len()), out);
        return sealer.seal_to_vec(&[], frame, out);
    }
    h264::write_clear_part(frame, out).ok_or(no_frame)?;
    let mut sframe = Vec::new();
    sealer.seal_to_vec(&[], frame, &mut sframe)?;
    h264::write_escaped(&sframe, out);
    Ok(())
}

/// Opens a sealed frame in place. `None` for a frame of length zero: it is to be ignored.
///
/// # Errors
/// As [`KeyStore::open`].
pub fn open(
    codec: Codec,
    keys: &mut KeyStore,
    sealed: &mut [u8],
) -> Result<Option<OpenedFrame>, OpenError> {
    let Some(&first) = sealed.first() else {
        return Ok(None);
    };
    if matches!(codec, Codec::Av1 | Codec::H264) {
        let range = match codec {
            Codec::Av1 => av1::find_sealed(sealed, false)?,
            _ => h264::unescape(sealed)?,
        };
        let opened = keys.open(&[], &mut sealed[range.clone()])?;
        let (start, end) = (opened.plaintext.start, opened.plaintext.end);
        return Ok(Some(OpenedFrame {
            kid: opened.kid,
            counter: opened.counter,
            frame: range.start + start..range.start + end,
        }));
    }
    let prefix_len = codec.clear_prefix_len(first);
    let (prefix, sframe) = sealed
        .split_at_mut_checked(prefix_len)
        .ok_or(OpenError::Short)?;
    let opened = keys.open(prefix, sframe)?;
    // The prefix moves up to the plaintext: it is the shorter of the two.
    let header_len = opened.plaintext.start;
    sealed.copy_within(..prefix_len, header_len);
    Ok(Some(OpenedFrame {
        kid: opened.kid,
        counter: opened.counter,
        frame: header_len..prefix_len + opened.plaintext.end,
    }))
}

/// Reads the SFrame header of a sealed frame from its first bytes without any key: of Opus, VP8 and
/// VP9 [`PEEK_LEN`] bytes suffice. This is the structural check that a relay can do; for AV1 and
/// H.264, whose packets hold no frames as such, it has [`peek_obu`] and [`peek_nal`].
///
/// # Errors
/// [`OpenError::Short`] or [`OpenError::Malformed`] if there is no SFrame header in its place.
pub fn peek(codec: Codec, start: &[u8]) -> Result<Header, OpenError> {
    let &first = start.first().ok_or(OpenError::Short)?;
    let prefix_len = match codec {
        Codec::Opus | Codec::Vp8 | Codec::Vp9 => codec.clear_prefix_len(first),
        Codec::Av1 => av1::find_sealed(start, true)?.start,
        Codec::H264 => return h264::peek(start),
    };
    let sframe = start.get(prefix_len..).ok_or(OpenError::Short)?;
    Ok(Header::parse(sframe)?.0)
}

#[cfg(test)]
mod tests;
