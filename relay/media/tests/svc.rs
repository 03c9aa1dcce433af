//! Spatial layers of a sealed AV1 stream, chosen per receiver by the dependency descriptor.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use sealcast_media::{LayerLimit, PeerKey};
use sealcast_model::{Codec, SessionMedia, SlotId, Source};
use sealcast_rtp::dd::{
    DependencyDescriptor, DescriptorReader, Dti, FrameDependencies, MandatoryFields,
    TemplateStructure,
};
use sealcast_rtp::{Extension, HeaderFields};
use support::*;

const V0: u16 = VIDEO_SLOTS;

fn template(spatial_id: u8, dtis: [Dti; 2], diffs: &[u16]) -> FrameDependencies {
    let mut frame = FrameDependencies {
        spatial_id,
        dtis: dtis.into_iter().collect(),
        ..Default::default()
    };
    diffs
        .iter()
        .for_each(|diff| assert!(frame.frame_diffs.push(*diff)));
    frame
}

/// Two spatial layers, each picture's upper one on top of its lower one.
struct Svc {
    structure: TemplateStructure,
    sequence: u16,
    timestamp: u32,
    number: u16,
    counter: u64,
}

impl Svc {
    fn new() -> Self {
        let templates = [
            template(0, [Dti::Switch, Dti::Switch], &[]),
            template(0, [Dti::Switch, Dti::Required], &[2]),
            template(1, [Dti::NotPresent, Dti::Switch], &[1]),
            template(1, [Dti::NotPresent, Dti::Switch], &[1, 2]),
        ];
        let sizes = [(320, 180), (640, 360)];
        let structure = TemplateStructure::new(0, 2, 0, &[], &templates, Some(&sizes)).unwrap();
        Svc {
            structure,
            sequence: 60_000,
            timestamp: 7,
            number: 65_000,
            counter: 10,
        }
    }

    /// A picture: two frames of two packets each.
    fn picture(&mut self, key: bool) -> Vec<Vec<u8>> {
        self.timestamp += 3_000;
        let mut packets = Vec::new();
        for spatial in 0..2u8 {
            self.counter += 1;
            let template_id = 2 * spatial + u8::from(!key);
            for part in 0..2 {
                let written = DependencyDescriptor {
                    mandatory: MandatoryFields {
                        start_of_frame: part == 0,
                        end_of_frame: part == 1,
                        template_id,
                        frame_number: self.number,
                    },
                    frame: *self.structure.template(template_id).unwrap(),
                    active_decode_targets: None,
                    has_structure: key && spatial == 0 && part == 0,
                };
                let mut descriptor = [0; 250];
                let len = written.write(&self.structure, &mut descriptor).unwrap();
                packets.push(self.packet(
                    &descriptor[..len],
                    part,
                    key && spatial == 0,
                    spatial == 1 && part == 1,
                ));
            }
            self.number = self.number.wrapping_add(1);
        }
        packets
    }

    fn packet(&mut self, descriptor: &[u8], part: usize, key: bool, marker: bool) -> Vec<u8> {
        let payload = if part == 0 {
            // One OBU of type frame, to be continued, around a sealed frame; N on key frames.
            let head = [0x50 | u8::from(key) << 3, 0x30];
            [
                &head[..],
                &sframe(context(1, VIDEO_MID), self.counter),
                &[0xaa; 100],
            ]
            .concat()
        } else {
            [&[0x90][..], &[0xbb; 100]].concat()
        };
        let fields = HeaderFields {
            marker,
            payload_type: VP8_IN,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: video_ssrc(1),
            has_padding: false,
        };
        self.sequence = self.sequence.wrapping_add(1);
        rtp(
            fields,
            &[Extension {
                id: EXT_DD,
                data: descriptor,
            }],
            &payload,
        )
    }
}

fn av1(key: u32) -> SessionMedia {
    let mut media = media(key);
    let video = media.receive[1].codecs.iter_mut();
    let slots = media
        .slots
        .iter_mut()
        .filter(|s| s.slot.0 >= V0)
        .flat_map(|s| s.codecs.iter_mut());
    video.chain(slots).for_each(|c| c.codec = Codec::Av1);
    media
}

#[test]
fn each_receiver_gets_its_layers_and_never_a_frame_without_its_dependencies() {
    let mut relay = Relay::new();
    for key in [1, 2, 3] {
        relay.join_room(key, 1, &av1(key));
        relay.engine.peer_connected(relay.now, PeerKey(key));
    }
    let shown = relay.publish(1, VIDEO_MID, Source::Camera);
    for key in [2, 3] {
        relay.assign(key, V0, Some(shown)).unwrap();
    }
    let base = LayerLimit {
        spatial: 0,
        temporal: 0,
    };
    let mut svc = Svc::new();
    for n in 0..40 {
        if n == 10 || n == 20 {
            let limit = if n == 10 { base } else { LayerLimit::ALL };
            relay
                .engine
                .limit_slot(relay.now, PeerKey(3), SlotId(V0), limit)
                .unwrap();
        }
        // The key frame that going up asks for comes after a while.
        svc.picture(n == 0 || n == 25)
            .iter()
            .for_each(|p| relay.receive(1, p));
        relay.flush();
        relay.advance_ms(33);
    }
    let frames = |key| {
        let mut reader = DescriptorReader::new();
        let sent: Vec<_> = relay.out.rtp.iter().filter(|p| p.to == key).collect();
        assert!(
            sent.windows(2).all(|w| w[1].index == w[0].index + 1),
            "no gap"
        );
        let read = |p: &&SentRtp| {
            (
                reader.read(p.extension(EXT_DD).unwrap()).unwrap(),
                p.header.marker,
            )
        };
        let packets: Vec<_> = sent.iter().map(read).collect();
        assert!(
            packets
                .chunks(2)
                .all(|c| c[0].0.mandatory.frame_number == c[1].0.mandatory.frame_number)
        );
        packets.into_iter().skip(1).step_by(2).collect::<Vec<_>>()
    };
    assert_eq!(frames(2).len(), 80, "the other receiver is not disturbed");
    let got = frames(3);
    // Down at once: pictures 10 to 24 have one frame.
    assert_eq!(got.len(), 80 - 15);
    let numbers: Vec<_> = got.iter().map(|(d, _)| d.mandatory.frame_number).collect();
    for (at, (descriptor, marker)) in got.iter().enumerate() {
        for diff in descriptor.frame.frame_diffs.as_slice() {
            let needed = descriptor.mandatory.frame_number.wrapping_sub(*diff);
            assert!(numbers[..at].contains(&needed), "frame {at} lacks {needed}");
        }
        let alone = (20..35).contains(&at);
        assert_eq!(
            *marker,
            alone || descriptor.frame.spatial_id == 1,
            "frame {at} ends its picture, or does not"
        );
    }
    assert!(
        relay.plis_to(1, video_ssrc(1)) >= 1,
        "going up asks for a key frame"
    );
}
