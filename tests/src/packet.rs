//! Model media: sealed-looking packets that say what they are.
//!
//! Every payload ends in a [`Tag`], so that whoever gets it can tell which packet of whom it is,
//! and what its frame depends on. In front there is what the relay looks at, which
//! [`payload`](crate::payload) writes.

use sealcast_model::{Codec, Mid, Time};
use sealcast_rtp::{Extension, HeaderFields, write_header};

/// Payload types of clients, the same both ways.
pub const OPUS: u8 = 111;
/// The video codecs, with the payload types of media and of retransmissions.
pub const VIDEO: [(Codec, u8, u8); 4] = [
    (Codec::Vp8, 96, 97),
    (Codec::Vp9, 98, 99),
    (Codec::Av1, 100, 101),
    (Codec::H264, 102, 103),
];

/// Whether packets of this payload type are retransmissions.
#[must_use]
pub fn is_repair(payload_type: u8) -> bool {
    VIDEO.iter().any(|(_, _, rtx)| *rtx == payload_type)
}

/// The codec of a payload type, of media or of retransmissions.
#[must_use]
pub fn codec_of(payload_type: u8) -> Codec {
    let mut found = VIDEO.iter();
    let found = found.find(|(_, media, rtx)| [*media, *rtx].contains(&payload_type));
    found.map_or(Codec::Opus, |(codec, _, _)| *codec)
}

/// The payload types of a video codec: of media and of retransmissions.
#[must_use]
pub fn payload_types(codec: Codec) -> (u8, u8) {
    let found = VIDEO.iter().find(|(of, _, _)| *of == codec);
    found.map_or((OPUS, OPUS), |(_, media, rtx)| (*media, *rtx))
}

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
/// Dependency descriptor.
pub const EXT_DEPENDENCY: u8 = 12;

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
    /// The frames it depends on, or [`NO_FRAME`].
    pub depends_on: [u32; 2],
    /// Its number in its stream, from 0.
    pub number: u32,
    /// When its frame was captured, microseconds.
    pub captured: u32,
    /// Number of its picture, which it may share with frames of other spatial layers.
    pub picture: u32,
    /// Base layer pictures before.
    pub base_pictures: u32,
    /// Bit mask of the decode targets that its frame is part of.
    pub targets: u32,
    /// Decode targets that its stream has.
    pub target_count: u32,
}

impl Tag {
    /// The encoding of audio.
    pub const AUDIO: u32 = 99;
    /// Bytes of a tag.
    pub const LEN: usize = 14 * 4;

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
            depends_on: [next(), next()],
            number: next(),
            captured: next(),
            picture: next(),
            base_pictures: next(),
            targets: next(),
            target_count: next(),
        })
    }

    /// Puts the tag at the end of a payload.
    pub fn append(&self, payload: &mut Vec<u8>) {
        for word in [
            self.room,
            self.publisher,
            self.encoding,
            self.frame,
            self.packet,
            self.packets,
            self.depends_on[0],
            self.depends_on[1],
            self.number,
            self.captured,
            self.picture,
            self.base_pictures,
            self.targets,
            self.target_count,
        ] {
            payload.extend(word.to_be_bytes());
        }
    }

    /// The frames that its frame depends on.
    pub fn references(&self) -> impl Iterator<Item = u32> {
        self.depends_on.into_iter().filter(|on| *on != NO_FRAME)
    }

    /// Whether its frame depends on none.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.references().next().is_none()
    }

    /// Whether its packet holds the start of what is sealed of its frame: of H264 key frames the one
    /// after the parameter sets.
    #[must_use]
    pub fn starts_seal(&self, codec: Codec) -> bool {
        self.packet == u32::from(codec == Codec::H264 && self.is_key())
    }

    /// Whether it is of audio.
    #[must_use]
    pub fn is_audio(&self) -> bool {
        self.encoding == Tag::AUDIO
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

/// A whole RTP packet.
#[must_use]
pub fn rtp(fields: &HeaderFields, extensions: &[Extension<'_>], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 320];
    // 320 bytes hold every header that model clients write.
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
