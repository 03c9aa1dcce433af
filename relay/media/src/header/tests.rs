//! Written headers are read back by the parser of the RTP crate.

use super::*;
use proptest::prelude::*;
use sealcast_rtp::{Extension, HeaderFields, write_header};

const SUBSCRIBER: [(u8, HeaderExtension); 8] = [
    (1, HeaderExtension::Mid),
    (2, HeaderExtension::AbsSendTime),
    (3, HeaderExtension::TransportCc),
    (4, HeaderExtension::AudioLevel),
    (5, HeaderExtension::VideoOrientation),
    (6, HeaderExtension::PlayoutDelay),
    (7, HeaderExtension::AbsCaptureTime),
    (8, HeaderExtension::DependencyDescriptor),
];

const FIELDS: PacketFields = PacketFields {
    marker: true,
    payload_type: 96,
    sequence_number: 0xabcd,
    timestamp: 0x0102_0304,
    send_time: [7, 8, 9],
    transport_cc: 0x1122,
    frame_number: None,
    active_targets: None,
    capture_offset: 0,
};

fn mid() -> Mid {
    Mid::new(b"12").unwrap()
}

fn template(map: &[(u8, HeaderExtension)], allow_mixed: bool) -> HeaderTemplate {
    HeaderTemplate::new(0xdead_beef, mid(), &extension_map(map), allow_mixed)
}

/// An incoming packet with these elements, and where they lie under these ids.
fn incoming(ids: &[(u8, HeaderExtension)], elements: &[Extension<'_>]) -> (Vec<u8>, Elements) {
    let mut packet = vec![0; 600];
    let len = write_header(&mut packet, &HeaderFields::default(), elements).unwrap();
    packet.truncate(len + 10);
    let header = RtpHeader::parse(&packet).unwrap();
    let found = Elements::find(&extension_map(ids), &header, &packet);
    (packet, found)
}

fn write(
    template: &HeaderTemplate,
    fields: &PacketFields,
    packet: &[u8],
    elements: &Elements,
) -> (RtpHeader, Vec<u8>) {
    let mut out = [0xff; HEADER_MAX];
    let len = template.write(&mut out, fields, packet, elements);
    let written = out[..len].to_vec();
    let header = RtpHeader::parse(&written).expect("a header that parses");
    assert_eq!(header.header_len(), len);
    (header, written)
}

#[test]
fn ids_are_translated_and_the_rest_is_stripped() {
    let publisher = [
        (9, HeaderExtension::AudioLevel),
        (10, HeaderExtension::Mid),
        (11, HeaderExtension::PlayoutDelay),
    ];
    let (packet, elements) = incoming(
        &publisher,
        &[
            Extension { id: 10, data: b"0" },
            Extension {
                id: 9,
                data: &[0x85],
            },
            Extension { id: 3, data: b"??" },
        ],
    );
    let (header, bytes) = write(&template(&SUBSCRIBER, false), &FIELDS, &packet, &elements);
    assert_eq!(
        (header.ssrc, header.payload_type, header.marker),
        (0xdead_beef, 96, true)
    );
    assert_eq!(
        (header.sequence_number, header.timestamp),
        (0xabcd, 0x0102_0304)
    );
    let all: Vec<_> = header
        .extensions(&bytes)
        .map(|e| (e.id, e.data.to_vec()))
        .collect();
    assert_eq!(
        all,
        [
            (2, vec![7, 8, 9]),
            (3, vec![0x11, 0x22]),
            (1, b"12".to_vec()),
            (4, vec![0x85])
        ]
    );
}

#[test]
fn a_session_without_extensions_gets_a_bare_header() {
    let (packet, elements) = incoming(&SUBSCRIBER, &[Extension { id: 4, data: &[1] }]);
    let (header, bytes) = write(&template(&[], false), &FIELDS, &packet, &elements);
    assert_eq!(
        (bytes.len(), header.extension_profile),
        (FIXED_HEADER_LEN, None)
    );
}

#[test]
fn a_long_descriptor_takes_the_two_byte_form_where_it_may() {
    let long = [
        0x80, 0, 5, 0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
    ];
    let (packet, elements) = incoming(
        &SUBSCRIBER,
        &[
            Extension { id: 8, data: &long },
            Extension { id: 5, data: &[2] },
        ],
    );
    let fields = PacketFields {
        active_targets: None,
        frame_number: Some(0x1234),
        ..FIELDS
    };

    let (header, bytes) = write(&template(&SUBSCRIBER, true), &fields, &packet, &elements);
    assert_eq!(header.extension_profile, Some(0x1000));
    let got = header.extension(&bytes, 8).unwrap();
    assert_eq!(
        (&got[..3], &got[3..]),
        (&[0x80, 0x12, 0x34][..], &long[3..])
    );
    assert_eq!(header.extension(&bytes, 1), Some(&b"12"[..]));

    let (header, bytes) = write(&template(&SUBSCRIBER, false), &fields, &packet, &elements);
    assert_eq!(header.extension_profile, Some(0xbede));
    assert_eq!(
        (header.extension(&bytes, 8), header.extension(&bytes, 5)),
        (None, Some(&[2][..]))
    );
}

#[test]
fn an_id_over_fourteen_needs_the_two_byte_form() {
    let map = [(1, HeaderExtension::Mid), (20, HeaderExtension::AudioLevel)];
    let (packet, elements) = incoming(&SUBSCRIBER, &[Extension { id: 4, data: &[9] }]);
    let (header, bytes) = write(&template(&map, false), &FIELDS, &packet, &elements);
    assert_eq!(header.extension(&bytes, 20), Some(&[9][..]));
}

#[test]
fn the_capture_clock_is_seen_from_the_relay() {
    let mut data = [0u8; 16];
    data[7] = 1;
    data[15] = 9;
    let (packet, elements) = incoming(&SUBSCRIBER, &[Extension { id: 7, data: &data }]);
    let fields = PacketFields {
        capture_offset: 10u64.wrapping_neg(),
        ..FIELDS
    };
    let (header, bytes) = write(&template(&SUBSCRIBER, false), &fields, &packet, &elements);
    let got = header.extension(&bytes, 7).unwrap();
    assert_eq!(got[..8], data[..8]);
    assert_eq!(i64::from_be_bytes(*got.last_chunk().unwrap()), -1);
}

proptest! {
    #[test]
    fn any_elements_come_out_as_they_went_in(
        data in prop::collection::vec((4u8..=8, prop::collection::vec(any::<u8>(), 1..20)), 0..6),
        allow_mixed: bool,
    ) {
        let list: Vec<_> = data.iter().map(|(id, data)| Extension { id: *id, data }).collect();
        let (packet, elements) = incoming(&SUBSCRIBER, &list);
        let (header, bytes) = write(&template(&SUBSCRIBER, allow_mixed), &FIELDS, &packet, &elements);
        for id in 4..=8u8 {
            let first = data.iter().find(|(i, _)| *i == id).map(|(_, d)| d.as_slice());
            // Without the mixed form, what is over 16 bytes is left out.
            let want = first.filter(|d| allow_mixed || d.len() <= 16);
            // Capture times of 16 bytes have their offset changed, here by nothing.
            prop_assert_eq!(header.extension(&bytes, id), want);
        }
    }
}
