//! Model payloads: what of each codec lies outside the seal, an SFrame header, filler, a tag.

use crate::layered::{LayerFrame, Mode};
use crate::packet::{Tag, context};
use sealcast_model::Codec;

/// Bytes of a slice that stay clear (docs/E2EE.md).
const H264_CLEAR: [u8; 6] = [0x9a, 0x24, 0x6c, 0x41, 0x9f, 0x5b];
const H264_SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40];
const H264_PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const AV1_SEQUENCE: &[u8] = &[0x08, 0x00, 0x00, 0x00, 0x42, 0xa7];

/// How a camera is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format {
    /// The codec.
    pub codec: Codec,
    /// Its layers.
    pub mode: Mode,
    /// Its packets carry dependency descriptors.
    pub described: bool,
    /// VP9: references stand in each frame and not in the scalability structure.
    pub flexible: bool,
}

impl Format {
    const fn new(codec: Codec, mode: Mode, described: bool) -> Self {
        Format {
            codec,
            mode,
            described,
            flexible: false,
        }
    }

    const fn flexible(mode: Mode, described: bool) -> Self {
        Format {
            codec: Codec::Vp9,
            mode,
            described,
            flexible: true,
        }
    }

    /// VP8 without layers.
    pub const VP8: Format = Format::new(Codec::Vp8, Mode::L1T1, false);
    /// VP8 with two temporal layers.
    pub const VP8_L1T2: Format = Format::new(Codec::Vp8, Mode::L1T2, false);

    /// Those whose encodings a simulcast may have.
    pub const SIMULCAST: [Format; 6] = [
        Format::VP8,
        Format::VP8_L1T2,
        Format::new(Codec::Vp8, Mode::L1T3, false),
        Format::new(Codec::Vp8, Mode::L1T3, true),
        Format::new(Codec::H264, Mode::L1T1, false),
        Format::new(Codec::H264, Mode::L1T2, true),
    ];

    /// Those that are sent as one stream.
    pub const LAYERED: [Format; 12] = [
        Format::new(Codec::Vp9, Mode::L1T2, false),
        Format::new(Codec::Vp9, Mode::L2T3_KEY, false),
        Format::new(Codec::Vp9, Mode::L3T3, false),
        Format::flexible(Mode::L3T3, false),
        Format::flexible(Mode::L3T3_KEY, false),
        Format::flexible(Mode::L1T2, true),
        Format::flexible(Mode::L2T3_KEY, true),
        Format::flexible(Mode::L3T3, true),
        Format::new(Codec::Av1, Mode::L1T3, true),
        Format::new(Codec::Av1, Mode::L2T3_KEY, true),
        Format::new(Codec::Av1, Mode::L3T3, true),
        Format::new(Codec::Av1, Mode::L3T3_KEY, true),
    ];
}

/// An SFrame header (RFC 9605 §4.3) with KID and counter in fields of their own, each as short as
/// it can be.
fn sframe(context: u64, counter: u64) -> Vec<u8> {
    let shortest = |value: &[u8; 8]| {
        let zeros = value.iter().take(7).take_while(|byte| **byte == 0).count();
        value[zeros..].to_vec()
    };
    let kid = shortest(&(context << 24 | 1).to_be_bytes());
    // Counters below 8 would go into the first byte.
    let counter = shortest(&(counter + 8).to_be_bytes());
    let first = 0x88 | (kid.len() as u8 - 1) << 4 | (counter.len() as u8 - 1);
    [vec![first], kid, counter].concat()
}

/// An Opus payload.
#[must_use]
pub fn opus(tag: &Tag, counter: u64) -> Vec<u8> {
    let payload = sframe(context(tag.publisher, true), counter);
    fill(payload, tag, 100)
}

/// A payload of a video frame of about `len` bytes. `counter` is that of its seal.
#[must_use]
pub fn video(format: Format, of: &LayerFrame, tag: &Tag, counter: u64, len: usize) -> Vec<u8> {
    let header = sframe(context(tag.publisher, false), counter);
    match format.codec {
        Codec::Vp9 => vp9(format, of, tag, &header, len),
        Codec::Av1 => av1(of, tag, &header, len),
        Codec::H264 => h264(of, tag, &header, len),
        _ => vp8(of, tag, &header, len),
    }
}

/// Packets of a frame besides those that its content needs: parameter sets have one of their own.
#[must_use]
pub fn further_packets(format: Format, of: &LayerFrame) -> usize {
    usize::from(format.codec == Codec::H264 && of.key)
}

fn vp8(of: &LayerFrame, tag: &Tag, header: &[u8], len: usize) -> Vec<u8> {
    let [id0, id1] = (of.picture as u16 & 0x7fff | 0x8000).to_be_bytes();
    let first = tag.packet == 0;
    let layer = of.temporal << 6 | u8::from(of.on_base) << 5;
    let start = if first { 0x90 } else { 0x80 };
    let mut payload = vec![start, 0xe0, id0, id1, of.base_pictures as u8, layer];
    if first {
        if of.key {
            let width = 320u16 << tag.encoding;
            let [w0, w1] = width.to_le_bytes();
            let [h0, h1] = (width / 16 * 9).to_le_bytes();
            payload.extend([0x50, 1, 0, 0x9d, 1, 0x2a, w0, w1, h0, h1]);
        } else {
            payload.extend([0x51, 1, 0]);
        }
        payload.extend(header);
    }
    fill(payload, tag, len)
}

/// RFC 9628, section 4.2.
fn vp9(format: Format, of: &LayerFrame, tag: &Tag, header: &[u8], len: usize) -> Vec<u8> {
    let (start, end) = (tag.packet == 0, tag.packet + 1 == tag.packets);
    let structure = start && of.key && of.spatial == 0;
    let predicted = of.back.is_some();
    let first = 0xa0
        | u8::from(predicted) << 6
        | u8::from(format.flexible) << 4
        | u8::from(start) << 3
        | u8::from(end) << 2
        | u8::from(structure) << 1;
    let [id0, id1] = (of.picture as u16 & 0x7fff | 0x8000).to_be_bytes();
    // Nothing later depends on an earlier frame of a higher layer: each may be switched up from.
    let layer = of.temporal << 5 | 0x10 | of.spatial << 1 | u8::from(of.on_lower);
    let mut payload = vec![first, id0, id1, layer];
    match (format.flexible, of.back) {
        (false, _) => payload.push(of.base_pictures as u8),
        (true, Some(back)) => payload.push((back as u8) << 1),
        (true, None) => {}
    }
    if structure {
        payload.push((format.mode.spatial - 1) << 5 | 0x10);
        for spatial in 0..format.mode.spatial {
            for side in [320u16 << spatial, 180u16 << spatial] {
                payload.extend(side.to_be_bytes());
            }
        }
    }
    if start {
        payload.extend(header);
    }
    fill(payload, tag, len)
}

/// RTP payload format for AV1, section 4: a sequence header of its own, then one frame.
fn av1(of: &LayerFrame, tag: &Tag, header: &[u8], len: usize) -> Vec<u8> {
    let start = tag.packet == 0;
    let goes_on = u8::from(tag.packet + 1 < tag.packets) << 6;
    let sequence = start && of.key && of.spatial == 0;
    let mut payload = match (start, sequence) {
        (true, true) => vec![0x28 | goes_on, AV1_SEQUENCE.len() as u8],
        (true, false) => vec![0x10 | goes_on],
        (false, _) => vec![0x90 | goes_on],
    };
    if sequence {
        payload.extend(AV1_SEQUENCE);
    }
    if start {
        // A frame with the extension flag and without a size.
        payload.extend([0x34, of.temporal << 5 | of.spatial << 3]);
        payload.extend(header);
    }
    fill(payload, tag, len)
}

/// RFC 6184: parameter sets in one packet, then the slice, in fragments unless it fits one packet.
fn h264(of: &LayerFrame, tag: &Tag, header: &[u8], len: usize) -> Vec<u8> {
    let before = u32::from(of.key);
    let nal_type = if of.key { 5 } else { 1 };
    if tag.packet < before {
        return parameter_sets(tag);
    }
    let (start, end) = (tag.packet == before, tag.packet + 1 == tag.packets);
    let mut payload = match (start, end) {
        (true, true) => vec![0x60 | nal_type],
        _ => vec![0x7c, u8::from(start) << 7 | u8::from(end) << 6 | nal_type],
    };
    if start {
        let slice = [&H264_CLEAR[..], header].concat();
        payload.extend(escape(&slice));
    }
    fill(payload, tag, len)
}

fn parameter_sets(tag: &Tag) -> Vec<u8> {
    let mut pps = H264_PPS.to_vec();
    tag.append(&mut pps);
    let mut payload = vec![0x78];
    for unit in [H264_SPS, &pps] {
        payload.extend((unit.len() as u16).to_be_bytes());
        payload.extend(unit);
    }
    payload
}

/// ITU-T H.264 §7.4.1: no start code within a unit.
fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut zeros = 0;
    for byte in bytes {
        if zeros == 2 && *byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    out
}

fn fill(mut payload: Vec<u8>, tag: &Tag, len: usize) -> Vec<u8> {
    let end = len.saturating_sub(Tag::LEN).max(payload.len());
    payload.resize(end, tag.number as u8);
    tag.append(&mut payload);
    payload
}
