//! Cutting frames into RTP payloads.

use super::Codec;

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

/// Longest descriptor written here: mandatory byte, flags, 15-bit picture id.
const VP8_DESCRIPTOR_LEN: usize = 4;

/// Cuts the frames of one stream.
#[derive(Clone, Debug)]
pub struct Packetizer {
    codec: Codec,
    /// Bytes of a packet's payload, descriptor included.
    max_payload: usize,
    picture_id: u16,
}

impl Packetizer {
    /// A packetizer for payloads of at most `max_payload` bytes, descriptor included.
    #[must_use]
    pub fn new(codec: Codec, max_payload: usize, picture_id: u16) -> Self {
        Packetizer {
            codec,
            max_payload,
            picture_id,
        }
    }

    /// Calls `send(payload, last)` for each packet of `frame`, whose payloads are put together in
    /// `scratch`. The packets of one frame are of equal size but for the last, as segmentation
    /// offload wants them.
    pub fn packetize(
        &mut self,
        frame: &[u8],
        scratch: &mut Vec<u8>,
        mut send: impl FnMut(&[u8], bool),
    ) {
        match self.codec {
            // RFC 7587 §4.2: "An RTP payload MUST contain exactly one Opus packet".
            Codec::Opus => send(frame, true),
            Codec::Vp8 => {
                self.picture_id = (self.picture_id + 1) & 0x7fff;
                let room = self.max_payload.saturating_sub(VP8_DESCRIPTOR_LEN).max(1);
                let packets = frame.len().div_ceil(room);
                for (n, chunk) in frame.chunks(room).enumerate() {
                    scratch.clear();
                    scratch.extend_from_slice(&self.vp8_descriptor(n == 0));
                    scratch.extend_from_slice(chunk);
                    send(scratch, n + 1 == packets);
                }
            }
        }
    }

    /// RFC 7741 §4.2: X, S and partition 0; I; a 15-bit picture id.
    fn vp8_descriptor(&self, start: bool) -> [u8; VP8_DESCRIPTOR_LEN] {
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        [0x80 | u8::from(start) << 4, 0x80, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_rtp::payload::vp8::Vp8Descriptor;

    proptest! {
        #[test]
        fn packets_hold_the_frame(len in 1usize..20_000, max in 20usize..1_300) {
            let frame: Vec<u8> = (0..len).map(|b| b as u8).collect();
            let mut packetizer = Packetizer::new(Codec::Vp8, max, 0x7fff);
            let mut packets = vec![];
            packetizer.packetize(&frame, &mut vec![], |p, last| packets.push((p.to_vec(), last)));
            let mut whole = vec![];
            let count = packets.len();
            for (n, (packet, last)) in packets.iter().enumerate() {
                prop_assert!(packet.len() <= max);
                prop_assert_eq!(*last, n + 1 == count);
                prop_assert!(*last || packet.len() == max);
                let d = Vp8Descriptor::parse(packet).unwrap();
                prop_assert_eq!(d.is_frame_start(), n == 0);
                prop_assert_eq!(d.picture_id.unwrap().value, 0);
                whole.extend_from_slice(&packet[d.len()..]);
            }
            prop_assert_eq!(whole, frame);
        }
    }
}
