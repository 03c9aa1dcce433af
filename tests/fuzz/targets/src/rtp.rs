//! Any datagram: classified, its RTP header and extensions read, and what was read written and read again.

use sealcast_rtp::demux::classify;
use sealcast_rtp::ext::{
    AbsCaptureTime, AbsSendTime, AudioLevel, PlayoutDelay, TransportCc02, VideoOrientation,
    parse_id_token,
};
use sealcast_rtp::{Extension, HeaderFields, RtpHeader, write_header};

/// The target.
pub fn run(packet: &[u8]) {
    let _ = classify(packet);
    let Ok(header) = RtpHeader::parse(packet) else {
        return;
    };
    assert_eq!(
        header.header_len() + header.payload(packet).len() + header.padding_len(),
        packet.len()
    );
    for index in 0..16 {
        assert_eq!(
            header.csrc(packet, index).is_some(),
            index < usize::from(header.csrc_count)
        );
    }
    let extensions: Vec<Extension<'_>> = header.extensions(packet).collect();
    for Extension { id, data } in &extensions {
        let range = header
            .extension_data_range(packet, *id)
            .expect("an element has a place");
        assert_eq!(header.extension(packet, *id), packet.get(range));
        let _ = (
            parse_id_token(data),
            AudioLevel::parse(data),
            AbsSendTime::parse(data),
            TransportCc02::parse(data),
        );
        let _ = (
            VideoOrientation::parse(data),
            PlayoutDelay::parse(data),
            AbsCaptureTime::parse(data),
        );
    }
    let fields = HeaderFields {
        marker: header.marker,
        has_padding: false,
        payload_type: header.payload_type,
        sequence_number: header.sequence_number,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    // A one-byte block may grow by its second header bytes when one of its elements needs the two-byte form.
    let mut out = vec![0; 2 * packet.len() + 16];
    let len = write_header(&mut out, &fields, &extensions).expect("what was read can be written");
    out.truncate(len);
    let again = RtpHeader::parse(&out).expect("what was written can be read");
    assert!(again.extensions(&out).eq(extensions));
}
