//! Any feedback body; and arrivals drawn from the same bytes, built into feedback and read again.

use sealcast_rtp::rtcp::{Compound, Packet, RtcpWriter, TransportFeedbackFields};

/// The target.
pub fn run(bytes: &[u8]) {
    read(bytes);
    build(bytes);
}

/// Frames the bytes as one feedback packet, so that the fuzzer need not find the framing.
fn read(body: &[u8]) {
    let body = &body[..body.len() / 4 * 4];
    let Ok(words) = u16::try_from(body.len() / 4) else {
        return;
    };
    let packet = [&[0x8f, 205], &words.to_be_bytes()[..], body].concat();
    for packet in Compound::parse(&packet).expect("framed") {
        if let Ok(Packet::TransportFeedback(feedback)) = packet {
            // Parsing has checked that every status is there, so iteration may not fall short.
            assert_eq!(
                feedback.statuses().count(),
                usize::from(feedback.status_count)
            );
        }
    }
}

fn build(bytes: &[u8]) {
    let mut now = 0i64;
    let arrivals: Vec<Option<i64>> = bytes
        .iter()
        .map(|byte| {
            now += match byte {
                0..=127 => i64::from(*byte) * 100,
                128..=191 => i64::from(*byte) * 2_000,
                192..=250 => -i64::from(*byte),
                _ => 9_000_000,
            };
            (byte % 5 != 0).then_some(now)
        })
        .collect();
    let mut rest = &arrivals[..];
    while !rest.is_empty() {
        let mut out = [0; 200];
        let mut writer = RtcpWriter::new(&mut out);
        let built = writer
            .transport_feedback(&TransportFeedbackFields::default(), rest)
            .expect("room for some");
        let len = writer.finish();
        let (done, left) = rest.split_at(built.consumed);
        rest = left;
        let Some(Ok(Packet::TransportFeedback(feedback))) =
            Compound::parse(&out[..len]).expect("own").iter().next()
        else {
            panic!("own feedback does not parse");
        };
        assert!(
            feedback
                .statuses()
                .map(|(_, delta)| delta.is_some())
                .eq(done.iter().map(Option::is_some))
        );
    }
}
