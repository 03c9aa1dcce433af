//! Any VP8 payload: rewriting keeps the length and everything that was not asked to change.

use sealcast_rtp::payload::vp8::{MAX_DESCRIPTOR_LEN, Vp8Descriptor, Vp8Rewrite};

/// The target.
pub fn run(payload: &[u8]) {
    let Ok(descriptor) = Vp8Descriptor::parse(payload) else {
        return;
    };
    assert!(descriptor.len() <= payload.len().min(MAX_DESCRIPTOR_LEN));
    let _ = descriptor.starts_clear_key_frame(payload);
    let mut out = payload.to_vec();
    let new = Vp8Rewrite {
        picture_id: Some(0x1234),
        tl0_picture_index: Some(7),
        key_index: Some(9),
    };
    assert!(descriptor.rewrite(&mut out, &new));
    assert_eq!(out[descriptor.len()..], payload[descriptor.len()..]);
    let again = Vp8Descriptor::parse(&out).expect("still a descriptor");
    assert_eq!(again.len(), descriptor.len());
    assert_eq!(
        again.picture_id.map(|id| id.value),
        descriptor.picture_id.map(|id| 0x1234 & id.max())
    );
    assert_eq!(
        again.tl0_picture_index,
        descriptor.tl0_picture_index.map(|_| 7)
    );
    assert_eq!(again.key_index, descriptor.key_index.map(|_| 9));
    assert_eq!(again.temporal, descriptor.temporal);
    let old = Vp8Rewrite {
        picture_id: descriptor.picture_id.map(|id| id.value),
        tl0_picture_index: descriptor.tl0_picture_index,
        key_index: descriptor.key_index,
    };
    assert!(again.rewrite(&mut out, &old));
    assert_eq!(out, payload);
}
