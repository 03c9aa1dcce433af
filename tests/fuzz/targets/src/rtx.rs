//! A retransmission: an RTP packet whose payload is an original sequence number and an original payload.

use sealcast_rtp::RtpHeader;
use sealcast_rtp::payload::rtx;

/// The target.
pub fn run(packet: &[u8]) {
    let Ok(header) = RtpHeader::parse(packet) else {
        return;
    };
    let payload = header.payload(packet);
    let Ok((osn, original)) = rtx::parse(payload) else {
        assert!(payload.len() < rtx::OSN_LEN);
        return;
    };
    assert_eq!(original.len() + rtx::OSN_LEN, payload.len());
    let mut again = payload.to_vec();
    assert!(rtx::write_osn(&mut again, !osn));
    assert_eq!(rtx::parse(&again), Ok((!osn, original)));
}
