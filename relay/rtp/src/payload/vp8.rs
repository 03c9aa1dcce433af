//! VP8 payload descriptor (RFC 7741, section 4.2).

use super::PictureId;
use crate::ParseError;
use crate::bytes::overwrite;

/// Longest descriptor: one mandatory byte, one of flags, two of picture id, TL0PICIDX, and TID/KEYIDX.
pub const MAX_DESCRIPTOR_LEN: usize = 6;

/// A VP8 payload descriptor. Offsets into the payload are kept, so that it can be rewritten in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// N: the frame is no reference for later frames and can be dropped.
    pub non_reference: bool,
    /// S: the payload starts a VP8 partition.
    pub partition_start: bool,
    /// PID: index of the partition, 0–7.
    pub partition_index: u8,
    /// Picture id, if present.
    pub picture_id: Option<PictureId>,
    /// Running number of temporal base layer frames, if present.
    pub tl0_picture_index: Option<u8>,
    /// Temporal layer, if present.
    pub temporal: Option<Temporal>,
    /// Running number of key frames, 0–31, if present.
    pub key_index: Option<u8>,
    len: u8,
}

/// Temporal layer of a VP8 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Temporal {
    /// TID: temporal layer, 0–3.
    pub id: u8,
    /// Y: the frame depends on the base layer only, so that a receiver may switch up to this layer here.
    pub layer_sync: bool,
}

/// Values to put in place of those of a descriptor; `None` keeps what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vp8Rewrite {
    /// New picture id, reduced to the width on the wire.
    pub picture_id: Option<u16>,
    /// New running number of temporal base layer frames.
    pub tl0_picture_index: Option<u8>,
    /// New running number of key frames, of which the low five bits count.
    pub key_index: Option<u8>,
}

impl Vp8Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        Self::read(payload).ok_or(ParseError::Truncated)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut descriptor = Self {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition_index: first & 0x07,
            picture_id: None,
            tl0_picture_index: None,
            temporal: None,
            key_index: None,
            len: 1,
        };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let flags = *payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let (picture_id, taken) = PictureId::read(payload, at)?;
            descriptor.picture_id = Some(picture_id);
            at += taken;
        }
        if flags & 0x40 != 0 {
            descriptor.tl0_picture_index = Some(*payload.get(at)?);
            at += 1;
        }
        if flags & 0x30 != 0 {
            let byte = *payload.get(at)?;
            // RFC 7741, section 4.2: a field whose flag is not set "MUST be ignored by the receiver".
            descriptor.temporal = (flags & 0x20 != 0).then_some(Temporal {
                id: byte >> 6,
                layer_sync: byte & 0x20 != 0,
            });
            descriptor.key_index = (flags & 0x10 != 0).then_some(byte & 0x1f);
            at += 1;
        }
        descriptor.len = at as u8;
        Some(descriptor)
    }

    /// Bytes of the descriptor, 1..=6.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Always `false`; a descriptor has at least one byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether the payload holds the first bytes of a frame.
    #[inline]
    #[must_use]
    pub const fn is_frame_start(&self) -> bool {
        self.partition_start && self.partition_index == 0
    }

    /// Whether this payload starts a key frame, told from the first byte of the VP8 payload header, whose P bit is
    /// "set to 0 for key frames" (RFC 7741, section 4.3).
    ///
    /// Meaningful only if the sender leaves that byte outside the seal; with sealed frames use the dependency
    /// descriptor.
    #[inline]
    #[must_use]
    pub fn starts_clear_key_frame(&self, payload: &[u8]) -> bool {
        self.is_frame_start() && payload.get(self.len()).is_some_and(|byte| byte & 1 == 0)
    }

    /// Rewrites fields of the descriptor that `bytes` starts with, keeping its length. Fields that are not there stay
    /// absent. Returns `false` if `bytes` is shorter than the descriptor; some fields may then be rewritten.
    #[inline]
    #[must_use]
    pub fn rewrite(&self, bytes: &mut [u8], new: &Vp8Rewrite) -> bool {
        let mut at = 2;
        let mut done = bytes.len() >= self.len();
        if let Some(id) = self.picture_id {
            if let Some(value) = new.picture_id {
                done &= id.write(bytes, at, value);
            }
            at += if id.wide { 2 } else { 1 };
        }
        if self.tl0_picture_index.is_some() {
            if let Some(value) = new.tl0_picture_index {
                done &= overwrite(bytes, at, &[value]);
            }
            at += 1;
        }
        if let (Some(_), Some(value)) = (self.key_index, new.key_index)
            && let Some(byte) = bytes.get_mut(at)
        {
            *byte = (*byte & 0xe0) | (value & 0x1f);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(
        first: u8,
        picture_id: Option<PictureId>,
        tl0: Option<u8>,
        tid: Option<u8>,
        key: Option<u8>,
    ) -> Vec<u8> {
        let flag = |set: bool, bit: u8| u8::from(set) << bit;
        let flags = flag(picture_id.is_some(), 7)
            | flag(tl0.is_some(), 6)
            | flag(tid.is_some(), 5)
            | flag(key.is_some(), 4);
        if flags == 0 {
            return vec![first & 0x37];
        }
        let mut out = vec![0x80 | first & 0x37, flags];
        if let Some(id) = picture_id {
            if id.wide {
                out.extend((id.value | 0x8000).to_be_bytes())
            } else {
                out.push(id.value as u8)
            }
        }
        out.extend(tl0);
        if tid.is_some() || key.is_some() {
            out.push(tid.unwrap_or(0) << 5 | key.unwrap_or(0));
        }
        out
    }

    fn picture_id() -> impl Strategy<Value = Option<PictureId>> {
        prop::option::of((any::<u16>(), any::<bool>()).prop_map(|(value, wide)| {
            let id = PictureId { value, wide };
            PictureId {
                value: value & id.max(),
                wide,
            }
        }))
    }

    #[test]
    fn a_bare_descriptor_and_its_key_frame_bit() {
        let key = Vp8Descriptor::parse(&[0x10, 0x00]).expect("one byte");
        assert_eq!((key.len(), key.is_frame_start()), (1, true));
        assert!(key.starts_clear_key_frame(&[0x10, 0x00]));
        assert!(!key.starts_clear_key_frame(&[0x10, 0x01]));
        assert!(!key.starts_clear_key_frame(&[0x10]));
        assert!(
            !Vp8Descriptor::parse(&[0x11, 0])
                .expect("partition 1")
                .is_frame_start()
        );
    }

    proptest! {
        #[test]
        fn what_is_built_parses_and_rewrites(
            first: u8, id in picture_id(), tl0: Option<u8>, tid in prop::option::of(0u8..8), key in prop::option::of(0u8..32),
            new_id: Option<u16>, new_tl0: Option<u8>, new_key in prop::option::of(0u8..32), tail in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut payload = build(first, id, tl0, tid, key);
            let len = payload.len();
            payload.extend(&tail);
            let descriptor = Vp8Descriptor::parse(&payload).expect("whole");
            prop_assert_eq!(descriptor.len(), len);
            prop_assert!(len <= MAX_DESCRIPTOR_LEN);
            prop_assert_eq!(descriptor.picture_id, id);
            prop_assert_eq!(descriptor.tl0_picture_index, tl0);
            prop_assert_eq!(descriptor.temporal, tid.map(|t| Temporal { id: t >> 1, layer_sync: t & 1 == 1 }));
            prop_assert_eq!(descriptor.key_index, key);
            for short in 0..len {
                prop_assert_eq!(Vp8Descriptor::parse(&payload[..short]), Err(ParseError::Truncated));
                prop_assert!(!descriptor.rewrite(&mut payload.clone()[..short], &Vp8Rewrite::default()));
            }

            let new = Vp8Rewrite { picture_id: new_id, tl0_picture_index: new_tl0, key_index: new_key };
            prop_assert!(descriptor.rewrite(&mut payload, &new));
            let id = id.map(|id| PictureId { value: new_id.unwrap_or(id.value) & id.max(), ..id });
            let mut want = build(first, id, tl0.map(|t| new_tl0.unwrap_or(t)), tid, key.map(|k| new_key.unwrap_or(k)));
            want.extend(&tail);
            prop_assert_eq!(payload, want);
        }
    }
}
