//! Any RED payload: its blocks cover it exactly, and written again it is the same.

use sealcast_rtp::payload::opus;
use sealcast_rtp::payload::red::{self, RedPayload, RedundantBlock};

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
}
