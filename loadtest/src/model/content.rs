//! What stands in a model frame, and how it is checked.
//!
//! ```text
//! codec's own first bytes ‖ magic ‖ stream ‖ number ‖ due ‖ flags ‖ filling
//! ```
//!
//! The filling follows from stream and number alone, so a receiver checks every byte of a frame
//! without having been told anything, and finds out whose frame it is and how old.

use super::{Codec, heads};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::ops::Range;

const MAGIC: [u8; 4] = *b"SLM1";
/// Offsets within the label.
const STREAM: Range<usize> = 4..12;
const NUMBER: Range<usize> = 12..20;
const DUE: Range<usize> = 20..28;
const FLAGS: usize = 28;
/// Bytes of the label.
pub(super) const LABEL_LEN: usize = 29;

/// The label of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Random name of the encoder: tells streams, rooms and runs apart.
    pub stream: u64,
    /// Counts the encoder's frames from 0.
    pub number: u64,
    /// When the frame was to be sent, on the generator's clock. A sender that ran late put the
    /// time it should have kept here.
    pub due: Time,
    /// Decodable without any earlier frame.
    pub key: bool,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ContentError {
    /// Shorter than its label.
    #[error("the frame is cut off")]
    Short,
    /// No frame of this codec, or not of a model encoder.
    #[error("not a model frame")]
    NotModel,
    /// A byte differs from what stream and number prescribe.
    #[error("byte {at} of the frame is wrong")]
    Corrupt {
        /// Offset of the first wrong byte.
        at: usize,
    },
}

/// Writes a frame of `len` bytes behind `head`. `frame` is cleared first; a `len` too small for
/// the label is raised.
pub(super) fn write(frame: &mut Vec<u8>, head: &[u8], info: &FrameInfo, len: usize) {
    frame.clear();
    frame.extend_from_slice(head);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&info.stream.to_be_bytes());
    frame.extend_from_slice(&info.number.to_be_bytes());
    frame.extend_from_slice(&info.due.as_nanos().to_be_bytes());
    frame.push(u8::from(info.key));
    let start = frame.len();
    frame.resize(len.max(start), 0);
    let mut filling = filling(info);
    for chunk in frame[start..].chunks_mut(8) {
        let word = filling.next_u64().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// Checks every byte of an opened frame.
///
/// # Errors
/// [`ContentError`], which names the first wrong byte.
pub fn check(codec: Codec, frame: &[u8]) -> Result<FrameInfo, ContentError> {
    let head_len = heads::len(codec, frame).ok_or(ContentError::Short)?;
    let (head, body) = frame
        .split_at_checked(head_len)
        .ok_or(ContentError::Short)?;
    let (label, rest) = body
        .split_at_checked(LABEL_LEN)
        .ok_or(ContentError::Short)?;
    if !label.starts_with(&MAGIC) {
        return Err(ContentError::NotModel);
    }
    let word = |at: Range<usize>| {
        label
            .get(at)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_be_bytes)
    };
    let info = FrameInfo {
        stream: word(STREAM),
        number: word(NUMBER),
        due: Time::from_nanos(word(DUE)),
        key: match label.get(FLAGS) {
            Some(0) => false,
            Some(1) => true,
            _ => {
                return Err(ContentError::Corrupt {
                    at: head.len() + FLAGS,
                });
            }
        },
    };
    let head_is_right = heads::check(codec, head, info.key);
    if !head_is_right {
        return Err(ContentError::Corrupt { at: 0 });
    }
    let mut filling = filling(&info);
    for (i, chunk) in rest.chunks(8).enumerate() {
        let word = filling.next_u64().to_le_bytes();
        if let Some(at) = chunk.iter().zip(word).position(|(a, b)| *a != b) {
            return Err(ContentError::Corrupt {
                at: head.len() + LABEL_LEN + 8 * i + at,
            });
        }
    }
    Ok(info)
}

fn filling(info: &FrameInfo) -> Rng {
    Rng::new(info.stream ^ info.number.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(codec: Codec, key: bool, len: usize) -> (Vec<u8>, FrameInfo) {
        let info = FrameInfo {
            stream: 77,
            number: 3,
            due: Time::from_millis(5),
            key,
        };
        let mut out = vec![9; 3];
        let (head, len) = heads::write(codec, key, (640, 360), len, LABEL_LEN);
        write(&mut out, &head, &info, len);
        (out, info)
    }

    proptest! {
        #[test]
        fn every_byte_is_checked(
            codec in prop::sample::select(Codec::ALL.to_vec()),
            key in any::<bool>(), len in 0usize..3_000,
            at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let key = key || codec == Codec::Opus;
            let (good, info) = frame(codec, key, len);
            let head = heads::len(codec, &good).unwrap();
            prop_assert!(good.len() >= LABEL_LEN + head);
            prop_assert_eq!(check(codec, &good), Ok(info));
            // Any flipped bit is found, or changes the label so that all else is wrong: then the
            // frame claims to be another, which its SFrame seal excludes. Width, height and
            // partition length are what a decoder would look at, and no part of the check.
            let mut bad = good.clone();
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            let label = head..head + LABEL_LEN;
            if at >= label.end {
                prop_assert_eq!(check(codec, &bad), Err(ContentError::Corrupt { at }));
            } else if label.contains(&at) {
                prop_assert_ne!(check(codec, &bad), Ok(info));
            }
            for cut in [0, 1, label.end - 1] {
                prop_assert_eq!(check(codec, &good[..cut]), Err(ContentError::Short));
            }
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for codec in Codec::ALL {
                let _ = check(codec, &bytes);
            }
        }
    }
}
