//! Single steps of a packet's way, to be measured by themselves. For benchmarks only: behind the
//! feature `steps`, and no part of what the crate promises.

use crate::frame::FrameInfo;
use crate::header::{Elements, HeaderTemplate, PacketFields, extension_map};
use crate::layers::{FrameLayers, LayerSelector, Layers, Selection};
use crate::limits::HEADER_MAX;
use crate::rewriter::{Attachment, Rewriter, StreamLife};
use sealcast_model::{Codec, HeaderExtension, Mid};
use sealcast_rtp::RtpHeader;

/// Clock of video (RFC 7741 §6.1), Hz.
const CLOCK_RATE: u32 = 90_000;
const SOURCE: StreamLife = StreamLife {
    stream: 0,
    epoch: 0,
};

/// Numbering and writing of one subscription's headers.
pub struct Rewrite {
    rewriter: Rewriter,
    template: HeaderTemplate,
    elements: Elements,
    sequence: u64,
    out: [u8; HEADER_MAX],
}

impl Rewrite {
    /// For packets like `packet`, from and to sessions with these extensions. `None` if it is not
    /// an RTP packet.
    #[must_use]
    pub fn new(packet: &[u8], mid: Mid, extensions: &[(u8, HeaderExtension)]) -> Option<Rewrite> {
        let map = extension_map(extensions);
        let header = RtpHeader::parse(packet).ok()?;
        let sequence = 1_000;
        let mut rewriter = Rewriter::new(CLOCK_RATE, 7, 9);
        rewriter.attach(Attachment {
            source: SOURCE,
            sequence: sequence + 1,
            timestamp: header.timestamp,
            captured: 0,
            aligned: None,
        });
        Some(Rewrite {
            rewriter,
            template: HeaderTemplate::new(1, mid, &map, false),
            elements: Elements::find(&map, &header, packet),
            sequence,
            out: [0; HEADER_MAX],
        })
    }

    /// The header of the next packet, which is `packet` under the next number; `None` if the
    /// packet would not be forwarded.
    #[inline]
    pub fn next(&mut self, packet: &[u8]) -> Option<&[u8]> {
        self.sequence += 1;
        let index = self.rewriter.map(self.sequence)?;
        let fields = PacketFields {
            marker: false,
            payload_type: 96,
            sequence_number: index as u16,
            timestamp: self.rewriter.timestamp(self.sequence as u32),
            send_time: [1, 2, 3],
            transport_cc: index as u16,
            frame_number: Some(index as u16),
            active_targets: None,
            capture_offset: 0,
        };
        let len = self
            .template
            .write(&mut self.out, &fields, packet, &self.elements);
        self.out.get(..len)
    }
}

/// The choice of one subscription among the layers of VP9.
pub struct Select(LayerSelector);

impl Select {
    /// A subscription that gets layers up to these.
    #[must_use]
    pub fn new(spatial: u8, temporal: u8) -> Select {
        let mut selector = LayerSelector::new();
        selector.set_limit(Layers { spatial, temporal });
        Select(selector)
    }

    /// Reads the payload descriptor and says whether the packet is forwarded.
    #[inline]
    pub fn forwards(&mut self, payload: &[u8], timestamp: u32) -> bool {
        let frame = FrameInfo::read(Codec::Vp9, payload, None);
        let bits = frame.and_then(|frame| frame.layers);
        let layers = bits.map_or(FrameLayers::Unknown, FrameLayers::Bits);
        let selection = self.0.select(&layers, timestamp, None);
        matches!(selection, Selection::Forward { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_rtp::{Extension, HeaderFields, write_header};

    #[test]
    fn headers_count_on_and_pass_elements_on() {
        let descriptor = [0x80, 0, 1];
        let elements = [Extension {
            id: 5,
            data: &descriptor,
        }];
        let mut packet = [0; 100];
        write_header(&mut packet, &HeaderFields::default(), &elements).unwrap();
        let mid = Mid::new(b"1").unwrap();
        let extensions = [(5, HeaderExtension::DependencyDescriptor)];
        let mut rewrite = Rewrite::new(&packet, mid, &extensions).unwrap();
        for number in [7u16, 8, 9] {
            let out = rewrite.next(&packet).unwrap();
            let header = RtpHeader::parse(out).unwrap();
            assert_eq!(header.sequence_number, number);
            assert_eq!(header.extension(out, 5).map(<[u8]>::len), Some(3));
        }
    }

    #[test]
    fn layers_up_to_the_limit_are_forwarded() {
        let mut select = Select::new(1, 0);
        // RFC 9628 §4.2: I, L, B and E; 15 bits of picture id, the layer indices, TL0PICIDX.
        let payload = |spatial: u8| [0xac, 0x81, 0x23, spatial << 1, 0x44, 0x5a];
        let forwarded = [0, 1, 2].map(|spatial| select.forwards(&payload(spatial), 3_000));
        assert_eq!(forwarded, [true, true, false]);
    }
}
