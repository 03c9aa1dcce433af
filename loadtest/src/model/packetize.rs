//! Cutting frames into RTP payloads.

use super::Codec;
use super::heads::write_leb128;
use sealcast_rtp::payload::av1::AggregationHeader;
use sealcast_rtp::payload::h264::nal;

/// What an encoder says of a frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Decodable without any earlier frame.
    pub key: bool,
    /// Speech, and level in -dBov, of an audio frame.
    pub audio_level: Option<(bool, u8)>,
}

/// VP8: mandatory byte, flags, 15-bit picture id.
const VP8_DESCRIPTOR_LEN: usize = 4;
/// VP9: mandatory byte, 15-bit picture id; on a key frame's first packet the structure.
const VP9_DESCRIPTOR_LEN: usize = 3;
const VP9_STRUCTURE_LEN: usize = 5;
/// `obu_extension_flag` and `obu_has_size_field` in the first byte of an OBU.
const OBU_EXTENSION: u8 = 0b100;
const OBU_HAS_SIZE: u8 = 0b10;
/// FU indicator and FU header (RFC 6184 §5.8).
const FU_LEN: usize = 2;

/// Cuts the frames of one stream.
#[derive(Clone, Debug)]
pub struct Packetizer {
    codec: Codec,
    /// Bytes of a packet's payload, descriptor included.
    max_payload: usize,
    picture_id: u16,
    /// Pixels, for those that tell.
    size: (u16, u16),
}

impl Packetizer {
    /// A packetizer for payloads of at most `max_payload` bytes, descriptor included. Pictures have
    /// `size` pixels.
    #[must_use]
    pub fn new(codec: Codec, max_payload: usize, picture_id: u16, size: (u16, u16)) -> Self {
        Packetizer {
            codec,
            max_payload,
            picture_id,
            size,
        }
    }

    /// Calls `send(payload, last)` for each packet of `frame`, whose payloads are put together in
    /// `scratch`. Where the codec allows it, the packets of one frame are of equal size but for the
    /// last, as segmentation offload wants them.
    pub fn packetize(
        &mut self,
        frame: &[u8],
        key: bool,
        scratch: &mut Vec<u8>,
        mut send: impl FnMut(&[u8], bool),
    ) {
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        match self.codec {
            // RFC 7587 §4.2: "An RTP payload MUST contain exactly one Opus packet".
            Codec::Opus => send(frame, true),
            Codec::Vp8 => {
                let mut rest = Some(frame);
                let mut start = true;
                while let Some(now) = rest {
                    scratch.clear();
                    scratch.extend_from_slice(&self.vp8_descriptor(start));
                    rest = self.fill(now, scratch);
                    send(scratch, rest.is_none());
                    start = false;
                }
            }
            Codec::Vp9 => {
                let mut rest = Some(frame);
                let mut start = true;
                while let Some(now) = rest {
                    scratch.clear();
                    self.vp9_descriptor(key, start, scratch);
                    rest = self.fill(now, scratch);
                    if let (None, Some(first)) = (rest, scratch.first_mut()) {
                        *first |= 0x04; // E: end of the frame.
                    }
                    send(scratch, rest.is_none());
                    start = false;
                }
            }
            Codec::Av1 => self.av1(frame, key, scratch, &mut send),
            Codec::H264 => self.h264(frame, scratch, &mut send),
        }
    }

    /// Appends as much of `data` as there is room for; the rest, if there is one.
    fn fill<'a>(&self, data: &'a [u8], packet: &mut Vec<u8>) -> Option<&'a [u8]> {
        let room = self.max_payload.saturating_sub(packet.len()).max(1);
        let (now, rest) = data.split_at(room.min(data.len()));
        packet.extend_from_slice(now);
        (!rest.is_empty()).then_some(rest)
    }

    /// RFC 7741 §4.2: X, S and partition 0; I; a 15-bit picture id.
    fn vp8_descriptor(&self, start: bool) -> [u8; VP8_DESCRIPTOR_LEN] {
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        [0x80 | u8::from(start) << 4, 0x80, high, low]
    }

    /// RFC 9628 §4.2: I, P but for key frames, B at the start, and V with one spatial layer's size
    /// at the start of a key frame.
    fn vp9_descriptor(&self, key: bool, start: bool, packet: &mut Vec<u8>) {
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let structure = key && start;
        let first = 0x80 | u8::from(!key) << 6 | u8::from(start) << 3 | u8::from(structure) << 1;
        packet.extend_from_slice(&[first, high, low]);
        debug_assert_eq!(packet.len(), VP9_DESCRIPTOR_LEN);
        if structure {
            // N_S 0, Y 1, G 0.
            packet.push(0x10);
            packet.extend_from_slice(&self.size.0.to_be_bytes());
            packet.extend_from_slice(&self.size.1.to_be_bytes());
            debug_assert_eq!(packet.len(), VP9_DESCRIPTOR_LEN + VP9_STRUCTURE_LEN);
        }
    }

    /// AV1 RTP §4: each packet holds one OBU element, whole or a part, but the first, which holds
    /// the sequence header too where there is one. Elements have no size field of their own.
    fn av1(
        &self,
        frame: &[u8],
        key: bool,
        packet: &mut Vec<u8>,
        send: &mut impl FnMut(&[u8], bool),
    ) {
        let elements: Vec<Vec<u8>> = obus(frame).collect();
        let Some((last, before)) = elements.split_last() else {
            return;
        };
        let mut rest = Some(&last[..]);
        let mut start = true;
        while let Some(now) = rest {
            packet.clear();
            packet.push(0);
            let aggregated: usize = before.iter().map(|e| e.len() + 2).sum();
            // At most two before the last, as W has two bits.
            let with = start && before.len() <= 2 && aggregated + 2 < self.max_payload;
            if with {
                for element in before {
                    write_leb128(element.len(), packet);
                    packet.extend_from_slice(element);
                }
            }
            rest = self.fill(now, packet);
            let header = AggregationHeader {
                continues: !start,
                will_continue: rest.is_some(),
                element_count: if with { before.len() as u8 + 1 } else { 1 },
                new_sequence: key && start,
            };
            if let Some(first) = packet.first_mut() {
                *first = header.to_byte();
            }
            send(packet, rest.is_none());
            start = false;
        }
    }

    /// RFC 6184, packetization mode 1: parameter sets in a STAP-A, the slice alone or in FU-As.
    fn h264(&self, frame: &[u8], packet: &mut Vec<u8>, send: &mut impl FnMut(&[u8], bool)) {
        let units: Vec<&[u8]> = nal_units(frame).filter(|u| !u.is_empty()).collect();
        let Some((slice, sets)) = units.split_last() else {
            return;
        };
        if !sets.is_empty() {
            packet.clear();
            packet.push(nal::STAP_A | 0x60);
            for unit in sets {
                let len = u16::try_from(unit.len()).unwrap_or(u16::MAX);
                packet.extend_from_slice(&len.to_be_bytes());
                packet.extend_from_slice(unit);
            }
            send(packet, false);
        }
        if slice.len() <= self.max_payload {
            return send(slice, true);
        }
        let Some((header, body)) = slice.split_first() else {
            return;
        };
        let mut rest = Some(body);
        let mut start = true;
        while let Some(now) = rest {
            packet.clear();
            packet.extend_from_slice(&[header & 0xe0 | nal::FU_A, header & 0x1f]);
            debug_assert_eq!(packet.len(), FU_LEN);
            rest = self.fill(now, packet);
            if let Some(fu) = packet.get_mut(1) {
                *fu |= u8::from(start) << 7 | u8::from(rest.is_none()) << 6;
            }
            send(packet, rest.is_none());
            start = false;
        }
    }
}

/// The OBUs of a frame that have a size field, without it.
fn obus(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut rest = frame;
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        let (extension, after) = after.split_at_checked(usize::from(first & OBU_EXTENSION != 0))?;
        let (size, taken) = sealcast_rtp::payload::av1::leb128(after)?;
        let (payload, next) = after
            .get(taken..)?
            .split_at_checked(usize::try_from(size).ok()?)?;
        rest = next;
        let mut element = vec![first & !OBU_HAS_SIZE];
        element.extend_from_slice(extension);
        element.extend_from_slice(payload);
        Some(element)
    })
}

/// The NAL units of an Annex B byte stream.
fn nal_units(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<usize> = frame
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [0, 0, 1])
        .map(|(at, _)| at)
        .collect();
    let ends: Vec<usize> = starts
        .iter()
        .skip(1)
        .copied()
        .chain([frame.len()])
        .collect();
    starts.into_iter().zip(ends).map(|(start, end)| {
        let unit = frame.get(start + 3..end).unwrap_or_default();
        // The zero before the next start code is no part of the unit.
        match unit.split_last() {
            Some((0, shorter)) if end < frame.len() => shorter,
            _ => unit,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::heads;
    use super::super::unpack::Unpacked;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_hold_the_frame(
            codec in prop::sample::select(vec![Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264]),
            key in any::<bool>(), len in 1usize..20_000, max in 60usize..1_300,
        ) {
            let (mut frame, total) = heads::write(codec, key, (640, 360), len, 1);
            // H.264 excludes start codes within a unit; nothing here looks like one.
            frame.extend((frame.len()..total).map(|b| b as u8 | 1));
            let mut packetizer = Packetizer::new(codec, max, 0x7fff, (640, 360));
            let mut packets = vec![];
            packetizer.packetize(&frame, key, &mut vec![], |p, last| packets.push((p.to_vec(), last)));
            let mut whole = Unpacked::default();
            let count = packets.len();
            for (n, (packet, last)) in packets.iter().enumerate() {
                prop_assert!(packet.len() <= max);
                prop_assert_eq!(*last, n + 1 == count);
                if codec != Codec::H264 {
                    prop_assert!(*last || packet.len() == max);
                }
                prop_assert_eq!(Unpacked::starts(codec, packet, n > 0).unwrap(), n == 0);
                whole.append(codec, packet).unwrap();
            }
            prop_assert_eq!(whole.data, frame);
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264] {
                let mut packetizer = Packetizer::new(codec, 60, 0, (640, 360));
                packetizer.packetize(&bytes, true, &mut vec![], |_, _| {});
                let mut whole = Unpacked::default();
                let _ = Unpacked::starts(codec, &bytes, false);
                let _ = whole.append(codec, &bytes);
            }
        }
    }
}
