//! Any VP9 payload, and with it AV1's and H264's framing: reading stays inside, rewriting keeps the rest.

use sealcast_rtp::payload::av1::AggregationHeader;
use sealcast_rtp::payload::h264::{H264Payload, nal};
use sealcast_rtp::payload::vp9::Vp9Descriptor;

/// The target.
pub fn run(payload: &[u8]) {
    if let Ok(header) = AggregationHeader::parse(payload) {
        let total: usize = header.elements(payload).flatten().map(<[u8]>::len).sum();
        assert!(total < payload.len());
    }
    if let Ok(parsed) = H264Payload::parse(payload) {
        let _ = parsed.starts(nal::SPS) || parsed.starts(nal::IDR);
    }
    let Ok(descriptor) = Vp9Descriptor::parse(payload) else {
        return;
    };
    assert!(descriptor.len() <= payload.len());
    let mut out = payload.to_vec();
    assert!(descriptor.rewrite(&mut out, Some(0x1234), Some(7)));
    let again = Vp9Descriptor::parse(&out).expect("still a descriptor");
    assert_eq!(again.len(), descriptor.len());
    assert_eq!(
        again.picture_id.map(|id| id.value),
        descriptor.picture_id.map(|id| 0x1234 & id.max())
    );
    assert_eq!(
        again.tl0_picture_index,
        descriptor.tl0_picture_index.map(|_| 7)
    );
    assert!(again.rewrite(
        &mut out,
        descriptor.picture_id.map(|id| id.value),
        descriptor.tl0_picture_index
    ));
    assert_eq!(out, payload);
}
