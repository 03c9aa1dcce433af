//! A codec and a frame of it: taken as sealed, it opens or not, and never twice; taken as clear, it
//! comes back from seal and opening as it was, if it can be sealed at all.

use sealcast_sframe::layout::{self, Codec};
use sealcast_sframe::{BaseKeyScope, CipherSuite, KeyStore, Kid, OpenError, Sealer};

const SUITE: CipherSuite = CipherSuite::Aes256GcmSha512;
/// The corpus holds frames that were sealed with it.
const KEY: [u8; 32] = [7; 32];
const EPOCH: u64 = 3;
const LEAVES: u32 = 4;

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((&codec, frame)) = bytes.split_first() else {
        return;
    };
    let codecs = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
    let codec = codecs[usize::from(codec) % codecs.len()];
    let mut keys = KeyStore::new(SUITE);
    let scope = BaseKeyScope::Epoch {
        epoch: EPOCH as u8,
        leaves: LEAVES,
    };
    keys.insert_base_key(scope, &KEY).expect("room for one");
    open(codec, &mut keys, frame);
    seal(codec, &mut keys, frame);
}

fn open(codec: Codec, keys: &mut KeyStore, frame: &[u8]) {
    let _ = (
        layout::peek(codec, frame),
        layout::peek_obu(frame),
        layout::peek_nal(frame),
    );
    let mut buffer = frame.to_vec();
    match layout::open(codec, keys, &mut buffer) {
        Ok(Some(opened)) => {
            assert!(opened.frame.end <= buffer.len());
            let again = layout::open(codec, keys, &mut frame.to_vec());
            assert!(matches!(again, Err(OpenError::Replayed { .. })));
        }
        Ok(None) => assert!(frame.is_empty()),
        Err(_) => {}
    }
}

fn seal(codec: Codec, keys: &mut KeyStore, frame: &[u8]) {
    let kid = Kid::from_parts(0xffff, 3, EPOCH);
    let mut sealer = Sealer::new(SUITE, kid, &KEY).expect("a key of the right length");
    let mut sealed = Vec::new();
    if layout::seal(codec, &mut sealer, frame, &mut sealed).is_err() {
        assert!(sealed.is_empty(), "nothing leaves half sealed");
        return;
    }
    let opened = layout::open(codec, keys, &mut sealed).expect("what was sealed opens");
    match opened {
        Some(opened) => assert_eq!(&sealed[opened.frame], frame),
        None => assert!(frame.is_empty()),
    }
}
