//! Model media: sealed-looking VP8 and Opus packets that say what they are.
//!
//! Every payload ends in a [`Tag`], so that whoever gets it can tell which packet of whom it is.
//! In front there is what the relay looks at: payload descriptor, clear prefix, SFrame header.

use sealcast_model::{Mid, Time};
use sealcast_rtp::{Extension, HeaderFields, write_header};

/// Payload types of clients, the same both ways.
pub const OPUS: u8 = 111;
/// VP8.
pub const VP8: u8 = 96;
/// Retransmissions of VP8.
pub const VP8_RTX: u8 = 97;

/// Extension ids.
pub const EXT_LEVEL: u8 = 1;
/// Absolute send time.
pub const EXT_SEND_TIME: u8 = 2;
/// Transport-wide number.
pub const EXT_TWCC: u8 = 3;
/// MID.
pub const EXT_MID: u8 = 4;
/// RID.
pub const EXT_RID: u8 = 10;
/// RID of what is repaired.
pub const EXT_REPAIRED_RID: u8 = 11;

/// RIDs of encodings, smallest first.
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// A frame that depends on none.
pub const NO_FRAME: u32 = u32::MAX;

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Room of its publisher.
    pub room: u32,
    /// Its publisher.
    pub publisher: u32,
    /// Encoding, or [`Tag::AUDIO`].
    pub encoding: u32,
    /// Its frame.
    pub frame: u32,
    /// Which packet of the frame.
    pub packet: u32,
    /// Packets of the frame.
    pub packets: u32,
    /// The frame it depends on, or [`NO_FRAME`].
    pub depends_on: u32,
    /// Its number in its stream, from 0.
    pub number: u32,
    /// When its frame was captured, microseconds.
    pub captured: u32,
}

impl Tag {
    /// The encoding of audio.
    pub const AUDIO: u32 = 99;
    /// Bytes of a tag.
    pub const LEN: usize = 9 * 4;

    /// The tag at the end of a payload.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Tag> {
        let bytes = payload.last_chunk::<{ Tag::LEN }>()?;
        let mut words = bytes
            .chunks_exact(4)
            .map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        let mut next = || words.next().unwrap_or_default();
        Some(Tag {
            room: next(),
            publisher: next(),
            encoding: next(),
            frame: next(),
            packet: next(),
            packets: next(),
            depends_on: next(),
            number: next(),
            captured: next(),
        })
    }

    fn append(&self, payload: &mut Vec<u8>) {
        for word in [
            self.room,
            self.publisher,
            self.encoding,
            self.frame,
            self.packet,
            self.packets,
            self.depends_on,
            self.number,
            self.captured,
        ] {
            payload.extend(word.to_be_bytes());
        }
    }

    /// When its frame was captured.
    #[must_use]
    pub fn captured_at(&self) -> Time {
        Time::from_micros(self.captured.into())
    }
}

/// The KID context of a publisher's stream.
#[must_use]
pub fn context(publisher: u32, audio: bool) -> u64 {
    0x10_0000 + u64::from(publisher) * 2 + u64::from(audio)
}

/// An SFrame header (RFC 9605 §4.3) with KID and counter in fields of their own, each as short as
/// it can be.
fn sframe(payload: &mut Vec<u8>, context: u64, counter: u64) {
    let shortest = |value: &[u8; 8]| {
        let zeros = value.iter().take(7).take_while(|byte| **byte == 0).count();
        value[zeros..].to_vec()
    };
    let kid = shortest(&(context << 24 | 1).to_be_bytes());
    // Counters below 8 would go into the first byte.
    let counter = shortest(&(counter + 8).to_be_bytes());
    payload.push(0x88 | (kid.len() as u8 - 1) << 4 | (counter.len() as u8 - 1));
    payload.extend(kid);
    payload.extend(counter);
}

/// A VP8 payload: descriptor, clear prefix and SFrame header on the first packet, filler, tag.
#[must_use]
pub fn vp8(tag: &Tag, temporal: u8, counter: u64, width: u16, len: usize) -> Vec<u8> {
    let [id0, id1] = (tag.frame as u16 & 0x7fff | 0x8000).to_be_bytes();
    let first = tag.packet == 0;
    let layer = temporal << 6 | 0x20;
    let tl0 = (tag.frame / 2) as u8;
    let mut payload = vec![if first { 0x90 } else { 0x80 }, 0xe0, id0, id1, tl0, layer];
    if first {
        if tag.depends_on == NO_FRAME {
            let [w0, w1] = width.to_le_bytes();
            let [h0, h1] = (width / 16 * 9).to_le_bytes();
            payload.extend([0x50, 1, 0, 0x9d, 1, 0x2a, w0, w1, h0, h1]);
        } else {
            payload.extend([0x51, 1, 0]);
        }
        sframe(&mut payload, context(tag.publisher, false), counter);
    }
    fill(&mut payload, tag, len);
    payload
}

/// An Opus payload.
#[must_use]
pub fn opus(tag: &Tag, counter: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    sframe(&mut payload, context(tag.publisher, true), counter);
    fill(&mut payload, tag, 100);
    payload
}

fn fill(payload: &mut Vec<u8>, tag: &Tag, len: usize) {
    let end = len.saturating_sub(Tag::LEN).max(payload.len());
    payload.resize(end, tag.number as u8);
    tag.append(payload);
}

/// A whole RTP packet.
#[must_use]
pub fn rtp(fields: &HeaderFields, extensions: &[Extension<'_>], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    // 128 bytes hold every header that model clients write.
    let len = write_header(&mut bytes, fields, extensions).unwrap_or_default();
    bytes.truncate(len);
    bytes.extend(payload);
    bytes
}

/// A MID or RID of the model.
#[must_use]
pub fn token(text: &str) -> Mid {
    let fallback = Mid::new(b"x");
    match Mid::new(text.as_bytes()).or(fallback) {
        Some(token) => token,
        None => unreachable!("\"x\" is a token"),
    }
}
