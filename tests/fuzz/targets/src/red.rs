//! Any RED payload: its blocks cover it exactly, and written again it is the same. Where its blocks
//! are of one type, they can be given another, and back.

use sealcast_rtp::payload::opus;
use sealcast_rtp::payload::red::{self, RedLayout, RedPayload, RedundantBlock};

/// The target.
pub fn run(payload: &[u8]) {
    let _ = (opus::duration_samples(payload), opus::is_dtx(payload));
    let Ok(parsed) = RedPayload::parse(payload) else {
        return;
    };
    let blocks: Vec<RedundantBlock<'_>> = parsed.redundant().collect();
    let mut out = vec![0; payload.len()];
    let len = red::write(
        &mut out,
        &blocks,
        parsed.primary_payload_type,
        parsed.primary,
    )
    .expect("it fitted before");
    assert_eq!(&out[..len], payload);
    let Some(layout) = RedLayout::of(&parsed) else {
        return;
    };
    assert_eq!(&payload[layout.primary()..], parsed.primary);
    let other = layout.payload_type ^ 0x55;
    assert!(layout.rewrite(&mut out, other));
    let renamed = RedPayload::parse(&out).expect("only types changed");
    assert!(renamed.redundant().all(|block| block.payload_type == other));
    assert_eq!(renamed.primary_payload_type, other);
    assert!(layout.rewrite(&mut out, layout.payload_type));
    assert_eq!(&out[..], payload);
}
