//! Any RTP payload as each video codec's: reading stays inside, and rewriting the numbers of VP8 and
//! VP9 keeps everything else.

use sealcast_rtp::payload::PictureId;
use sealcast_rtp::payload::av1::AggregationHeader;
use sealcast_rtp::payload::h264::{H264Payload, nal, whole_unit};
use sealcast_rtp::payload::vp8::{MAX_DESCRIPTOR_LEN, Vp8Descriptor, Vp8Rewrite};
use sealcast_rtp::payload::vp9::Vp9Descriptor;

/// The target.
pub fn run(payload: &[u8]) {
    rewrite(payload, &VP8);
    rewrite(payload, &VP9);
    if let Ok(descriptor) = Vp8Descriptor::parse(payload) {
        assert!(descriptor.len() <= MAX_DESCRIPTOR_LEN);
        let _ = descriptor.starts_clear_key_frame(payload);
    }
    if let Ok(header) = AggregationHeader::parse(payload) {
        let total: usize = header.elements(payload).flatten().map(<[u8]>::len).sum();
        assert!(total < payload.len());
    }
    if let Ok(parsed) = H264Payload::parse(payload) {
        let types = [nal::IDR, nal::SPS, nal::PPS];
        let _ = types.map(|nal_type| parsed.starts(nal_type));
        if let Some(unit) = whole_unit(payload, nal::SPS) {
            assert!(parsed.starts(nal::SPS) && payload.len() >= unit.len());
        }
    }
}

/// What of a descriptor is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    len: usize,
    picture_id: Option<PictureId>,
    tl0_picture_index: Option<u8>,
    key_index: Option<u8>,
}

/// A codec's descriptor.
struct Format {
    read: fn(&[u8]) -> Option<Numbers>,
    /// Overwrites the numbers that the descriptor has.
    write: fn(&mut [u8], &Vp8Rewrite) -> bool,
}

const VP8: Format = Format {
    read: |payload| {
        let descriptor = Vp8Descriptor::parse(payload).ok()?;
        Some(Numbers {
            len: descriptor.len(),
            picture_id: descriptor.picture_id,
            tl0_picture_index: descriptor.tl0_picture_index,
            key_index: descriptor.key_index,
        })
    },
    write: |payload, new| Vp8Descriptor::parse(payload).is_ok_and(|d| d.rewrite(payload, new)),
};

const VP9: Format = Format {
    read: |payload| {
        let descriptor = Vp9Descriptor::parse(payload).ok()?;
        Some(Numbers {
            len: descriptor.len(),
            picture_id: descriptor.picture_id,
            tl0_picture_index: descriptor.tl0_picture_index,
            key_index: None,
        })
    },
    write: |payload, new| {
        let (id, tl0) = (new.picture_id, new.tl0_picture_index);
        Vp9Descriptor::parse(payload).is_ok_and(|d| d.rewrite(payload, id, tl0))
    },
};

fn rewrite(payload: &[u8], format: &Format) {
    let Some(old) = (format.read)(payload) else {
        return;
    };
    assert!(old.len <= payload.len());
    let mut out = payload.to_vec();
    let new = Vp8Rewrite {
        picture_id: Some(0x1234),
        tl0_picture_index: Some(7),
        key_index: Some(9),
    };
    assert!((format.write)(&mut out, &new));
    assert_eq!(out[old.len..], payload[old.len..]);
    let again = (format.read)(&out).expect("still a descriptor");
    let expected = Numbers {
        len: old.len,
        picture_id: old.picture_id.map(|id| PictureId {
            value: 0x1234 & id.max(),
            ..id
        }),
        tl0_picture_index: old.tl0_picture_index.map(|_| 7),
        key_index: old.key_index.map(|_| 9),
    };
    assert_eq!(again, expected);
    let back = Vp8Rewrite {
        picture_id: old.picture_id.map(|id| id.value),
        tl0_picture_index: old.tl0_picture_index,
        key_index: old.key_index,
    };
    assert!((format.write)(&mut out, &back));
    assert_eq!(out, payload, "everything else is as it was");
}
