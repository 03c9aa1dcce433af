//! What a packet says about its frame outside the seal: where frames and key frames start, and the
//! numbers in the payload descriptor that must count on when a slot changes its source.

use crate::layers::LayerBits;
use sealcast_model::Codec;
use sealcast_rtp::payload::av1::AggregationHeader;
use sealcast_rtp::payload::h264::{H264Payload, nal, whole_unit};
use sealcast_rtp::payload::red::{RedLayout, RedPayload};
use sealcast_rtp::payload::sps;
use sealcast_rtp::payload::vp8::{Vp8Descriptor, Vp8Rewrite};
use sealcast_rtp::payload::vp9::Vp9Descriptor;

/// A payload descriptor with something to rewrite for each receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Descriptor {
    /// No descriptor, or none with numbers.
    Plain,
    Vp8(Vp8Descriptor),
    Vp9(Vp9Descriptor),
    Red(RedLayout),
}

/// What a descriptor says, where a receiver may need something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// Of VP8 and VP9.
    Numbers(PictureNumbers),
    /// The payload type of RED's blocks.
    Blocks(u8),
}

/// The numbers of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PictureNumbers {
    pub(crate) picture_id: Option<u16>,
    pub(crate) tl0_pic_idx: Option<u8>,
}

impl Descriptor {
    /// The numbers as they are on the wire; `None` if there are none to rewrite.
    pub(crate) fn numbers(&self) -> Option<PictureNumbers> {
        let numbers = match self {
            Descriptor::Plain | Descriptor::Red(_) => return None,
            Descriptor::Vp8(d) => PictureNumbers {
                picture_id: d.picture_id.map(|id| id.value),
                tl0_pic_idx: d.tl0_picture_index,
            },
            Descriptor::Vp9(d) => PictureNumbers {
                picture_id: d.picture_id.map(|id| id.value),
                tl0_pic_idx: d.tl0_picture_index,
            },
        };
        (numbers.picture_id.is_some() || numbers.tl0_pic_idx.is_some()).then_some(numbers)
    }

    /// Puts something else into the descriptor at the start of `payload`, which it was read from.
    pub(crate) fn rewrite(&self, payload: &mut [u8], new: Rewritten) {
        let done = match (self, new) {
            (Descriptor::Vp8(d), Rewritten::Numbers(new)) => d.rewrite(
                payload,
                &Vp8Rewrite {
                    picture_id: new.picture_id,
                    tl0_picture_index: new.tl0_pic_idx,
                    key_index: None,
                },
            ),
            (Descriptor::Vp9(d), Rewritten::Numbers(new)) => {
                d.rewrite(payload, new.picture_id, new.tl0_pic_idx)
            }
            (Descriptor::Red(layout), Rewritten::Blocks(new)) => layout.rewrite(payload, new),
            _ => false,
        };
        debug_assert!(done, "the descriptor was read from this payload");
    }
}

/// A packet's place in its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameInfo {
    /// Where the frame's first byte lies in the payload, if this packet holds it.
    pub(crate) start: Option<usize>,
    /// The packet is the first of a key frame.
    pub(crate) key: bool,
    /// It starts an H264 key picture without parameter sets: it is the first of a key frame if it is
    /// the first of a frame. If not, the parameter sets in front of it are needed to start with.
    pub(crate) bare_key: bool,
    /// Pixels of the key frame, where its codec leaves the size clear.
    pub(crate) pixels: Option<u32>,
    pub(crate) descriptor: Descriptor,
    /// Layer indices of the payload descriptor, where it has any.
    pub(crate) layers: Option<LayerBits>,
}

impl FrameInfo {
    /// Reads what is clear of a payload; `None` if it is no payload of this codec.
    /// `dependency_descriptor` is the header extension's data.
    pub(crate) fn read(
        codec: Codec,
        payload: &[u8],
        dependency_descriptor: Option<&[u8]>,
    ) -> Option<Self> {
        let mut frame = match codec {
            Codec::Opus => Self::new(Some(0), false, Descriptor::Plain),
            Codec::Red => Self::red(payload)?,
            Codec::Vp8 => Self::vp8(payload)?,
            Codec::Vp9 => Self::vp9(payload)?,
            Codec::Av1 => {
                let header = AggregationHeader::parse(payload).ok()?;
                Self::new(
                    (!header.continues).then_some(1),
                    header.new_sequence,
                    Descriptor::Plain,
                )
            }
            Codec::H264 => {
                let units = H264Payload::parse(payload).ok()?;
                let middle = matches!(units, H264Payload::Fragment { start: false, .. });
                let key = units.starts(nal::SPS);
                let mut frame = Self::new((!middle).then_some(0), key, Descriptor::Plain);
                frame.bare_key = !key && units.starts(nal::IDR);
                if key && let Some(set) = whole_unit(payload, nal::SPS) {
                    let size = sps::picture_size(set).ok();
                    frame.pixels = size.map(|(w, h)| u32::from(w) * u32::from(h));
                }
                frame
            }
        };
        frame.key |= dependency_descriptor.is_some_and(attaches_structure);
        Some(frame)
    }

    fn new(start: Option<usize>, key: bool, descriptor: Descriptor) -> Self {
        FrameInfo {
            start,
            key,
            bare_key: false,
            pixels: None,
            descriptor,
            layers: None,
        }
    }

    /// RED whose blocks are of one type. Without anything new in it, it is none.
    fn red(payload: &[u8]) -> Option<Self> {
        let red = RedPayload::parse(payload).ok()?;
        let layout = RedLayout::of(&red).filter(|_| !red.primary.is_empty())?;
        Some(Self::new(
            Some(layout.primary()),
            false,
            Descriptor::Red(layout),
        ))
    }

    fn vp9(payload: &[u8]) -> Option<Self> {
        let descriptor = Vp9Descriptor::parse(payload).ok()?;
        let start = descriptor.frame_start.then_some(descriptor.len());
        let mut frame = Self::new(
            start,
            descriptor.starts_key_picture(),
            Descriptor::Vp9(descriptor),
        );
        frame.layers = descriptor.layer.map(|layer| LayerBits {
            spatial: layer.spatial_id,
            temporal: layer.temporal_id,
            syncs_here: false,
            syncs_above: layer.switching_up,
            intra: !descriptor.inter_picture_predicted,
            ends_frame: descriptor.frame_end,
        });
        Some(frame)
    }

    fn vp8(payload: &[u8]) -> Option<Self> {
        let descriptor = Vp8Descriptor::parse(payload).ok()?;
        let start = descriptor.is_frame_start().then_some(descriptor.len());
        let key = descriptor.starts_clear_key_frame(payload);
        let mut frame = Self::new(start, key, Descriptor::Vp8(descriptor));
        frame.layers = descriptor.temporal.map(|temporal| LayerBits {
            spatial: 0,
            temporal: temporal.id,
            syncs_here: temporal.layer_sync,
            syncs_above: false,
            intra: key,
            ends_frame: false,
        });
        // RFC 6386 §9.1: width and height of a key frame, 14 bits each, follow tag and start code.
        if key
            && let Some([w0, w1, h0, h1]) = payload
                .get(descriptor.len() + 6..)
                .and_then(|b| b.first_chunk())
        {
            let side = |low: &u8, high: &u8| u32::from(u16::from_le_bytes([*low, *high]) & 0x3fff);
            frame.pixels = Some(side(w0, w1) * side(h0, h1));
        }
        Some(frame)
    }
}

/// Whether a dependency descriptor opens a frame with a template structure, which only key frames
/// carry (AV1 RTP specification, appendix A.4: `template_dependency_structure_present_flag` is the
/// first bit after the three mandatory bytes).
pub(crate) fn attaches_structure(descriptor: &[u8]) -> bool {
    let starts_frame = descriptor.first().is_some_and(|byte| byte & 0x80 != 0);
    starts_frame && descriptor.get(3).is_some_and(|byte| byte & 0x80 != 0)
}

/// The frame number of a dependency descriptor: its second and third byte.
pub(crate) fn frame_number(descriptor: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*descriptor.get(1..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// X, S, PID 0; I with a 15-bit id, L, T and K.
    const VP8: [u8; 6] = [0x90, 0xf0, 0x81, 0x02, 0x07, 0x20];

    #[test]
    fn h264_key_frames_show_their_size() {
        // 640 × 360, alone and with the picture parameter set behind it.
        let set = [
            0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84,
            0x6a,
        ];
        let both = [&[0x78, 0, 15][..], &set, &[0, 2, 0x68, 0xce]].concat();
        for payload in [&set[..], &both] {
            let frame = FrameInfo::read(Codec::H264, payload, None).unwrap();
            assert_eq!((frame.key, frame.pixels), (true, Some(640 * 360)));
        }
        let cut = FrameInfo::read(Codec::H264, &set[..7], None).unwrap();
        assert_eq!((cut.key, cut.pixels), (true, None));
    }

    #[test]
    fn vp8_key_frames_show_their_size() {
        let payload = [
            &VP8[..],
            &[0x50, 1, 0, 0x9d, 1, 0x2a, 0x00, 0x45, 0xd0, 0x02, 0xaa],
        ]
        .concat();
        let frame = FrameInfo::read(Codec::Vp8, &payload, None).unwrap();
        assert_eq!(
            (frame.start, frame.key, frame.pixels),
            (Some(6), true, Some(1280 * 720))
        );
        let numbers = frame.descriptor.numbers().unwrap();
        assert_eq!(
            numbers,
            PictureNumbers {
                picture_id: Some(0x0102),
                tl0_pic_idx: Some(7)
            }
        );
        let mut copy = payload.clone();
        frame.descriptor.rewrite(
            &mut copy,
            Rewritten::Numbers(PictureNumbers {
                picture_id: Some(0x7fff),
                tl0_pic_idx: Some(0),
            }),
        );
        assert_eq!(copy[..6], [0x90, 0xf0, 0xff, 0xff, 0, 0x20]);
        frame
            .descriptor
            .rewrite(&mut copy, Rewritten::Numbers(numbers));
        assert_eq!(copy, payload, "restored");
        // Cut off within the frame header.
        assert_eq!(
            FrameInfo::read(Codec::Vp8, &payload[..10], None)
                .unwrap()
                .pixels,
            None
        );
        assert!(FrameInfo::read(Codec::Vp8, &payload[..3], None).is_none());
    }

    #[test]
    fn key_frames_of_each_codec() {
        let key =
            |codec, payload: &[u8]| FrameInfo::read(codec, payload, None).map(|f| (f.start, f.key));
        assert_eq!(
            key(Codec::Vp8, &[0x10, 0x01]),
            Some((Some(1), false)),
            "P bit set"
        );
        assert_eq!(
            key(Codec::Vp8, &[0x00, 0x00]),
            Some((None, false)),
            "a later packet"
        );
        assert_eq!(
            key(Codec::Vp8, &[0x11, 0x00]),
            Some((None, false)),
            "a later partition"
        );
        assert_eq!(key(Codec::Vp9, &[0x08, 1]), Some((Some(1), true)));
        assert_eq!(
            key(Codec::Vp9, &[0x48, 1]),
            Some((Some(1), false)),
            "inter-picture predicted"
        );
        assert_eq!(key(Codec::Av1, &[0x18, 1]), Some((Some(1), true)));
        assert_eq!(key(Codec::Av1, &[0x90, 1]), Some((None, false)));
        assert_eq!(key(Codec::H264, &[0x67, 1]), Some((Some(0), true)));
        assert_eq!(
            key(Codec::H264, &[0x7c, 0x85, 1]),
            Some((Some(0), false)),
            "FU-A that starts an IDR, perhaps after parameter sets"
        );
        let bare = FrameInfo::read(Codec::H264, &[0x7c, 0x85, 1], None);
        assert!(bare.is_some_and(|frame| frame.bare_key));
        assert_eq!(key(Codec::H264, &[0x7c, 0x05, 1]), Some((None, false)));
        assert_eq!(key(Codec::Opus, &[1]), Some((Some(0), false)));
    }

    #[test]
    fn a_template_structure_means_a_key_frame() {
        let key = |dd: &[u8]| FrameInfo::read(Codec::Av1, &[0x10], Some(dd)).unwrap().key;
        assert!(key(&[0x80, 0, 1, 0x80, 0]));
        assert!(!key(&[0x80, 0, 1, 0x40, 0]));
        assert!(!key(&[0x80, 0, 1]));
        assert_eq!(frame_number(&[0x80, 0x12, 0x34]), Some(0x1234));
        assert_eq!(frame_number(&[0x80, 0x12]), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_and_any_rewrite_is_undone(
            codec in 0usize..6, mut payload in prop::collection::vec(any::<u8>(), 0..40),
            dd in prop::collection::vec(any::<u8>(), 0..6), picture_id in 0u16..0x8000, tl0: u8,
        ) {
            let codec = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264][codec];
            let Some(frame) = FrameInfo::read(codec, &payload, Some(&dd)) else { return Ok(()) };
            prop_assert!(frame.start.is_none_or(|at| at <= payload.len()));
            if let Some(numbers) = frame.descriptor.numbers() {
                let before = payload.clone();
                let new = PictureNumbers { picture_id: Some(picture_id), tl0_pic_idx: Some(tl0) };
                frame.descriptor.rewrite(&mut payload, Rewritten::Numbers(new));
                frame.descriptor.rewrite(&mut payload, Rewritten::Numbers(numbers));
                prop_assert_eq!(payload, before);
            } else if let Descriptor::Red(layout) = frame.descriptor {
                let before = payload.clone();
                frame.descriptor.rewrite(&mut payload, Rewritten::Blocks(tl0 & 0x7f));
                frame.descriptor.rewrite(&mut payload, Rewritten::Blocks(layout.payload_type));
                prop_assert_eq!(payload, before);
            }
        }
    }
}
