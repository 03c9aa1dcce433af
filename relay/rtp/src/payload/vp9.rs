//! VP9 payload descriptor (RFC 9628, section 4.2).

use super::PictureId;
use crate::ParseError;
use crate::bytes::{be16, overwrite};

/// Most reference indices of a flexible-mode frame (RFC 9628, section 4.2: "up to 3 times").
pub const MAX_REFERENCES: usize = 3;
/// Most spatial layers: N_S has three bits and means one more.
pub const MAX_SPATIAL_LAYERS: usize = 8;

/// A VP9 payload descriptor. Offsets into the payload are kept, so that it can be rewritten in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// Picture id, if present.
    pub picture_id: Option<PictureId>,
    /// P: the frame uses earlier pictures; a layer frame without it can be decoded after a key frame of its picture.
    pub inter_picture_predicted: bool,
    /// F: references are listed in each frame instead of the scalability structure.
    pub flexible: bool,
    /// B: the payload starts a layer frame.
    pub frame_start: bool,
    /// E: the payload ends a layer frame.
    pub frame_end: bool,
    /// Z: the frame is no reference for a higher spatial layer.
    pub not_upper_reference: bool,
    /// Layer indices, if present.
    pub layer: Option<Layer>,
    /// Running number of temporal base layer pictures; only in non-flexible mode.
    pub tl0_picture_index: Option<u8>,
    /// Flexible mode: how many pictures back each reference lies, 1–127; unused places are 0.
    pub references: [u8; MAX_REFERENCES],
    /// Scalability structure, if present.
    pub structure: Option<ScalabilityStructure>,
    len: u16,
}

/// Layer indices of a VP9 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layer {
    /// TID: temporal layer, 0–7.
    pub temporal_id: u8,
    /// U: a receiver may switch up to this temporal layer here.
    pub switching_up: bool,
    /// SID: spatial layer, 0–7.
    pub spatial_id: u8,
    /// D: the frame uses the next lower spatial layer of its picture.
    pub inter_layer_predicted: bool,
}

/// What the scalability structure says about spatial layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalabilityStructure {
    /// Number of spatial layers, 1–8.
    pub spatial_layers: u8,
    /// Width and height in pixels by spatial layer, if given.
    pub resolutions: Option<[(u16, u16); MAX_SPATIAL_LAYERS]>,
    /// Number of pictures in the picture group, 0 if not given.
    pub group_len: u8,
}

impl Vp9Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], or [`ParseError::Value`] for more than three references.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let first = *payload.first().ok_or(ParseError::Truncated)?;
        let bit = |n: u8| first >> n & 1 == 1;
        let mut descriptor = Self {
            picture_id: None,
            inter_picture_predicted: bit(6),
            flexible: bit(4),
            frame_start: bit(3),
            frame_end: bit(2),
            not_upper_reference: bit(0),
            layer: None,
            tl0_picture_index: None,
            references: [0; MAX_REFERENCES],
            structure: None,
            len: 1,
        };
        let mut at = 1;
        if bit(7) {
            let (picture_id, taken) = PictureId::read(payload, at).ok_or(ParseError::Truncated)?;
            descriptor.picture_id = Some(picture_id);
            at += taken;
        }
        if bit(5) {
            descriptor
                .read_layer(payload, &mut at)
                .ok_or(ParseError::Truncated)?;
        }
        if bit(6) && bit(4) {
            descriptor.read_references(payload, &mut at)?;
        }
        if bit(1) {
            descriptor.structure =
                Some(ScalabilityStructure::read(payload, &mut at).ok_or(ParseError::Truncated)?);
        }
        descriptor.len = u16::try_from(at).map_err(|_| ParseError::Length)?;
        Ok(descriptor)
    }

    fn read_layer(&mut self, payload: &[u8], at: &mut usize) -> Option<()> {
        let byte = *payload.get(*at)?;
        *at += 1;
        self.layer = Some(Layer {
            temporal_id: byte >> 5,
            switching_up: byte & 0x10 != 0,
            spatial_id: byte >> 1 & 7,
            inter_layer_predicted: byte & 1 != 0,
        });
        // RFC 9628, section 4.2: TL0PICIDX is present "only in non-flexible mode".
        if !self.flexible {
            self.tl0_picture_index = Some(*payload.get(*at)?);
            *at += 1;
        }
        Some(())
    }

    fn read_references(&mut self, payload: &[u8], at: &mut usize) -> Result<(), ParseError> {
        for place in &mut self.references {
            let byte = *payload.get(*at).ok_or(ParseError::Truncated)?;
            *at += 1;
            *place = byte >> 1;
            if byte & 1 == 0 {
                return Ok(());
            }
        }
        Err(ParseError::Value("VP9 reference count"))
    }

    /// Bytes of the descriptor.
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

    /// Whether the payload starts a key picture: the first packet of a base layer frame that uses no other.
    #[inline]
    #[must_use]
    pub fn starts_key_picture(&self) -> bool {
        let base = self
            .layer
            .is_none_or(|layer| layer.spatial_id == 0 && !layer.inter_layer_predicted);
        self.frame_start && !self.inter_picture_predicted && base
    }

    /// Rewrites the picture id (reduced to its width) and TL0PICIDX of the descriptor that `bytes` starts with,
    /// keeping its length. Fields that are not there stay absent. Returns `false` if `bytes` is too short.
    #[inline]
    #[must_use]
    pub fn rewrite(
        &self,
        bytes: &mut [u8],
        picture_id: Option<u16>,
        tl0_picture_index: Option<u8>,
    ) -> bool {
        let mut at = 1;
        let mut done = bytes.len() >= self.len();
        if let Some(id) = self.picture_id {
            if let Some(value) = picture_id {
                done &= id.write(bytes, at, value);
            }
            at += if id.wide { 2 } else { 1 };
        }
        if let (Some(_), Some(value)) = (self.tl0_picture_index, tl0_picture_index) {
            done &= overwrite(bytes, at + 1, &[value]);
        }
        done
    }
}

impl ScalabilityStructure {
    /// Reads the structure (RFC 9628, section 4.2.1) and leaves `at` behind it.
    fn read(payload: &[u8], at: &mut usize) -> Option<Self> {
        let head = *payload.get(*at)?;
        *at += 1;
        let mut structure = Self {
            spatial_layers: (head >> 5) + 1,
            resolutions: None,
            group_len: 0,
        };
        if head & 0x10 != 0 {
            let mut resolutions = [(0, 0); MAX_SPATIAL_LAYERS];
            for place in resolutions
                .iter_mut()
                .take(usize::from(structure.spatial_layers))
            {
                *place = (be16(payload, *at)?, be16(payload, *at + 2)?);
                *at += 4;
            }
            structure.resolutions = Some(resolutions);
        }
        if head & 0x08 != 0 {
            structure.group_len = *payload.get(*at)?;
            *at += 1;
            for _ in 0..structure.group_len {
                let references = usize::from(*payload.get(*at)? >> 2 & 3);
                *at += 1 + references;
                payload.get(..*at)?;
            }
        }
        Some(structure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fields of a descriptor to build, as drawn by proptest.
    #[derive(Debug, Clone)]
    struct Draft {
        flags: u8,
        id: PictureId,
        layer: u8,
        tl0: u8,
        references: Vec<u8>,
        sizes: Option<Vec<(u16, u16)>>,
        spatial: u8,
        group: Option<Vec<Vec<u8>>>,
    }

    fn draft() -> impl Strategy<Value = Draft> {
        let group = prop::option::of(prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..4),
            0..9,
        ));
        (
            any::<(u8, u16, bool, u8, u8)>(),
            prop::collection::vec(1u8..128, 1..4),
            any::<bool>(),
            prop::collection::vec(any::<(u16, u16)>(), 1..9),
            group,
        )
            .prop_map(
                |((flags, value, wide, layer, tl0), references, with_sizes, sizes, group)| {
                    let id = PictureId {
                        value: value & PictureId { value, wide }.max(),
                        wide,
                    };
                    let spatial = sizes.len() as u8;
                    Draft {
                        flags,
                        id,
                        layer,
                        tl0,
                        references,
                        sizes: with_sizes.then_some(sizes),
                        spatial,
                        group,
                    }
                },
            )
    }

    impl Draft {
        fn has(&self, bit: u8) -> bool {
            self.flags >> bit & 1 == 1
        }

        fn build(&self) -> Vec<u8> {
            let mut out = vec![self.flags];
            if self.has(7) {
                if self.id.wide {
                    out.extend((self.id.value | 0x8000).to_be_bytes())
                } else {
                    out.push(self.id.value as u8)
                }
            }
            if self.has(5) {
                out.push(self.layer);
                if !self.has(4) {
                    out.push(self.tl0);
                }
            }
            if self.has(6) && self.has(4) {
                for (i, back) in self.references.iter().enumerate() {
                    out.push(back << 1 | u8::from(i + 1 < self.references.len()));
                }
            }
            if self.has(1) {
                let bit = |set: bool, at: u8| u8::from(set) << at;
                out.push(
                    (self.spatial - 1) << 5
                        | bit(self.sizes.is_some(), 4)
                        | bit(self.group.is_some(), 3),
                );
                for (w, h) in self.sizes.iter().flatten() {
                    out.extend(w.to_be_bytes());
                    out.extend(h.to_be_bytes());
                }
                if let Some(group) = &self.group {
                    out.push(group.len() as u8);
                    for references in group {
                        out.push((references.len() as u8) << 2);
                        out.extend(references);
                    }
                }
            }
            out
        }
    }

    #[test]
    fn four_references_are_refused() {
        assert_eq!(
            Vp9Descriptor::parse(&[0x50, 3, 3, 3, 2]),
            Err(ParseError::Value("VP9 reference count"))
        );
        assert!(Vp9Descriptor::parse(&[0x50, 3, 3, 2]).is_ok());
    }

    #[test]
    fn key_pictures() {
        assert!(
            Vp9Descriptor::parse(&[0x08])
                .expect("B only")
                .starts_key_picture()
        );
        assert!(
            !Vp9Descriptor::parse(&[0x48])
                .expect("P and B")
                .starts_key_picture()
        );
        assert!(
            !Vp9Descriptor::parse(&[0x28, 0x03, 0])
                .expect("upper layer")
                .starts_key_picture()
        );
        assert!(
            Vp9Descriptor::parse(&[0x28, 0x00, 0])
                .expect("base layer")
                .starts_key_picture()
        );
    }

    proptest! {
        #[test]
        fn what_is_built_parses_and_rewrites(draft in draft(), new_id: u16, new_tl0: u8, tail in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut payload = draft.build();
            let len = payload.len();
            payload.extend(&tail);
            let parsed = Vp9Descriptor::parse(&payload).expect("whole");
            prop_assert_eq!(parsed.len(), len);
            prop_assert_eq!(parsed.picture_id, draft.has(7).then_some(draft.id));
            let flags = [parsed.inter_picture_predicted, parsed.flexible, parsed.frame_start, parsed.frame_end, parsed.not_upper_reference];
            prop_assert_eq!(flags, [6, 4, 3, 2, 0].map(|bit| draft.has(bit)));
            prop_assert_eq!(parsed.layer.is_some(), draft.has(5));
            if let Some(layer) = parsed.layer {
                let byte = layer.temporal_id << 5 | u8::from(layer.switching_up) << 4 | layer.spatial_id << 1 | u8::from(layer.inter_layer_predicted);
                prop_assert_eq!(byte, draft.layer);
            }
            prop_assert_eq!(parsed.tl0_picture_index, (draft.has(5) && !draft.has(4)).then_some(draft.tl0));
            if draft.has(6) && draft.has(4) {
                let used = parsed.references.iter().copied().filter(|back| *back > 0).collect::<Vec<_>>();
                prop_assert_eq!(used, draft.references.clone());
            }
            if let Some(structure) = parsed.structure {
                prop_assert_eq!(structure.spatial_layers, draft.spatial);
                let sizes = structure.resolutions.map(|r| r[..usize::from(draft.spatial)].to_vec());
                prop_assert_eq!(&sizes, &draft.sizes);
                prop_assert_eq!(usize::from(structure.group_len), draft.group.as_ref().map_or(0, Vec::len));
            }
            for short in 0..len {
                prop_assert_eq!(Vp9Descriptor::parse(&payload[..short]), Err(ParseError::Truncated));
                prop_assert!(!parsed.rewrite(&mut payload.clone()[..short], None, None));
            }

            prop_assert!(parsed.rewrite(&mut payload, Some(new_id), Some(new_tl0)));
            let id = PictureId { value: new_id & draft.id.max(), ..draft.id };
            let mut want = Draft { id, tl0: new_tl0, ..draft }.build();
            want.extend(&tail);
            prop_assert_eq!(payload, want);
        }

        #[test]
        fn no_bytes_panic(mut payload in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(descriptor) = Vp9Descriptor::parse(&payload) {
                prop_assert!(descriptor.len() <= payload.len());
                prop_assert!(descriptor.rewrite(&mut payload, Some(1), Some(2)));
            }
        }
    }
}
