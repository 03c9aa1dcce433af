//! Sealed metadata: names, chat, annotations, pointer positions. ChaCha20-Poly1305 under a secret
//! of its own, exported from the group.
//!
//! ```text
//! version (1) ‖ leaf (2) ‖ epoch (8) ‖ counter (8) ‖ ciphertext ‖ tag (16)
//! ```
//!
//! All of the header and the group id are authenticated. The key belongs to one sender in one
//! epoch, so the counter alone is the nonce. The plaintext is padded (ISO/IEC 7816-4) to a multiple
//! of [`PAD_TO`], so that its length tells less about names.
//!
//! As with SFrame, whoever is in the group holds every sender's key: the seal keeps outsiders out,
//! it does not tell members apart against each other's will.

use crate::error::MetadataError;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hkdf::Hkdf;
use sealcast_sframe::ReplayWindow;
use sha2::Sha256;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// MLS exporter label of the metadata secret.
pub(crate) const EXPORTER_LABEL: &str = "Sealcast 1.0 Metadata";

/// Length of the metadata secret in bytes.
pub(crate) const SECRET_LEN: usize = 32;

/// Longest plaintext in bytes: what fits a data-channel message of 16 KiB with room for the seal.
pub const MAX_METADATA_LEN: usize = 15 * 1024;

/// Plaintexts are padded to a multiple of this many bytes.
const PAD_TO: usize = 32;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 2 + 8 + 8;
const TAG_LEN: usize = 16;
const KEY_LABEL: &[u8] = b"Sealcast 1.0 metadata key";

/// Metadata that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedMetadata {
    /// Leaf of the sender.
    pub leaf: u16,
    /// Epoch it was sealed in.
    pub epoch: u64,
    /// The content.
    pub content: Vec<u8>,
}

/// The metadata keys of one epoch.
pub(crate) struct MetadataKeys {
    secret: Zeroizing<[u8; SECRET_LEN]>,
    group_id: Vec<u8>,
    epoch: u64,
    leaves: u32,
    own_leaf: u16,
    /// Counter of the next message that this member seals.
    counter: u64,
    /// Senders of whom a message was opened; at most one per leaf of the tree.
    senders: BTreeMap<u16, Sender>,
}

struct Sender {
    cipher: ChaCha20Poly1305,
    window: ReplayWindow,
}

impl MetadataKeys {
    pub(crate) fn new(
        secret: Zeroizing<[u8; SECRET_LEN]>,
        group_id: &[u8],
        epoch: u64,
        leaves: u32,
        own_leaf: u16,
    ) -> Self {
        Self {
            secret,
            group_id: group_id.to_vec(),
            epoch,
            leaves,
            own_leaf,
            counter: 0,
            senders: BTreeMap::new(),
        }
    }

    /// Seals `content`, which is at most [`MAX_METADATA_LEN`] bytes long.
    pub(crate) fn seal(&mut self, content: &[u8]) -> Vec<u8> {
        let counter = self.counter;
        self.counter += 1;
        let padded_len = (content.len() + 1).next_multiple_of(PAD_TO);
        let mut out = Vec::with_capacity(HEADER_LEN + padded_len + TAG_LEN);
        out.push(VERSION);
        out.extend_from_slice(&self.own_leaf.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        out.extend_from_slice(content);
        out.push(0x80);
        out.resize(HEADER_LEN + padded_len, 0);
        let aad = [&out[..HEADER_LEN], &self.group_id].concat();
        let cipher = self.cipher(self.own_leaf);
        let tag = cipher
            .encrypt_inout_detached(&nonce(counter), &aad, (&mut out[HEADER_LEN..]).into())
            .expect("16 KiB are within the cipher's 256 GiB");
        out.extend_from_slice(&tag);
        out
    }

    /// Opens a message whose header was read by [`parse_header`].
    pub(crate) fn open(&mut self, message: &[u8]) -> Result<OpenedMetadata, MetadataError> {
        let Header {
            leaf,
            epoch,
            counter,
        } = parse_header(message)?;
        if epoch != self.epoch || u32::from(leaf) >= self.leaves {
            return Err(MetadataError::UnknownKey { epoch, leaf });
        }
        let (header, rest) = message.split_at(HEADER_LEN);
        let (data, tag) = rest.split_at(rest.len() - TAG_LEN);
        let tag = tag.try_into().map_err(|_| MetadataError::Short)?;
        let known = self.senders.remove(&leaf);
        let mut sender = known.unwrap_or_else(|| Sender {
            cipher: self.cipher(leaf),
            window: ReplayWindow::default(),
        });
        let mut content = data.to_vec();
        let opened = if sender.window.is_fresh(counter) {
            let aad = [header, &self.group_id].concat();
            sender
                .cipher
                .decrypt_inout_detached(&nonce(counter), &aad, (&mut content[..]).into(), tag)
                .map_err(|_| MetadataError::Auth)
        } else {
            Err(MetadataError::Replayed)
        };
        if opened.is_ok() {
            sender.window.record(counter);
        }
        self.senders.insert(leaf, sender);
        opened?;
        unpad(&mut content)?;
        Ok(OpenedMetadata {
            leaf,
            epoch,
            content,
        })
    }

    fn cipher(&self, leaf: u16) -> ChaCha20Poly1305 {
        let hkdf = Hkdf::<Sha256>::from_prk(&*self.secret).expect("as long as the hash");
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand_multi_info(&[KEY_LABEL, &leaf.to_be_bytes()], &mut *key)
            .expect("one hash length");
        ChaCha20Poly1305::new((&*key).into())
    }
}

/// The header of a message, not authenticated.
pub(crate) struct Header {
    pub(crate) leaf: u16,
    pub(crate) epoch: u64,
    counter: u64,
}

/// Reads a message's header and checks its length.
pub(crate) fn parse_header(message: &[u8]) -> Result<Header, MetadataError> {
    if message.len() < HEADER_LEN + TAG_LEN {
        return Err(MetadataError::Short);
    }
    if message.len() > HEADER_LEN + MAX_METADATA_LEN + PAD_TO + TAG_LEN || message[0] != VERSION {
        return Err(MetadataError::Malformed);
    }
    let number = |at: usize| {
        let bytes: [u8; 8] = message[at..at + 8].try_into().expect("8 bytes");
        u64::from_be_bytes(bytes)
    };
    Ok(Header {
        leaf: u16::from_be_bytes([message[1], message[2]]),
        epoch: number(3),
        counter: number(11),
    })
}

fn nonce(counter: u64) -> chacha20poly1305::Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

fn unpad(content: &mut Vec<u8>) -> Result<(), MetadataError> {
    let end = content
        .iter()
        .rposition(|&byte| byte != 0)
        .filter(|&end| content[end] == 0x80)
        .ok_or(MetadataError::Malformed)?;
    content.truncate(end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(own_leaf: u16) -> MetadataKeys {
        MetadataKeys::new(Zeroizing::new([5; 32]), b"group", 9, 3, own_leaf)
    }

    #[test]
    fn senders_do_not_share_a_key_stream() {
        let (a, b) = (keys(0).seal(&[0; 64]), keys(1).seal(&[0; 64]));
        assert_ne!(a[HEADER_LEN..], b[HEADER_LEN..]);
    }

    #[test]
    fn refusals() {
        let (mut alice, mut bob) = (keys(0), keys(1));
        let message = alice.seal(b"hello");
        assert!(!message.windows(5).any(|bytes| bytes == b"hello"));
        for at in 0..message.len() {
            let mut forged = message.clone();
            forged[at] ^= 1;
            assert!(bob.open(&forged).is_err(), "byte {at}");
            assert!(bob.open(&message[..at]).is_err());
        }
        assert_eq!(bob.open(&message).unwrap().content, b"hello");
        assert_eq!(bob.open(&message), Err(MetadataError::Replayed));
        let mut elsewhere = MetadataKeys::new(Zeroizing::new([5; 32]), b"other", 9, 3, 1);
        assert_eq!(elsewhere.open(&message), Err(MetadataError::Auth));
        let beyond = keys(3).seal(b"");
        let unknown = MetadataError::UnknownKey { epoch: 9, leaf: 3 };
        assert_eq!(bob.open(&beyond), Err(unknown));
    }

    proptest! {
        #[test]
        fn round_trips(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8)) {
            let (mut alice, mut bob) = (keys(2), keys(0));
            for content in contents {
                let message = alice.seal(&content);
                prop_assert_eq!((message.len() - HEADER_LEN - TAG_LEN) % PAD_TO, 0);
                let opened = bob.open(&message).unwrap();
                prop_assert_eq!((opened.leaf, opened.content), (2, content));
            }
        }

        #[test]
        fn any_bytes_are_refused(mut message: Vec<u8>, versioned: bool) {
            if let (Some(first), true) = (message.first_mut(), versioned) {
                *first = VERSION;
            }
            prop_assert!(keys(0).open(&message).is_err());
        }
    }
}
