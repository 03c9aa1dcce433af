//! Any bytes as an SFrame header: there is one encoding of each, which is what was read.

use sealcast_sframe::{Header, MAX_HEADER_LEN};

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok((header, len)) = Header::parse(bytes) else {
        return;
    };
    assert_eq!(len, header.encoded_len());
    let mut out = [0; MAX_HEADER_LEN];
    assert_eq!(header.encode(&mut out), Some(len));
    assert_eq!(out[..len], bytes[..len]);
    for cut in 0..len {
        assert!(Header::parse(&bytes[..cut]).is_err());
    }
}
