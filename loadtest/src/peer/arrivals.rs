//! Arrival times for transport-wide congestion control feedback.

use sealcast_model::Time;
use sealcast_rtp::SeqExtender;
use sealcast_rtp::rtcp::{RtcpWriter, TransportFeedbackFields};
use std::collections::VecDeque;

/// Packets remembered between two reports: a burst of 500 for a key frame and 50 ms at 60,000 packets
/// a second. What is beyond is never reported, and looks lost to the relay.
const MAX_ARRIVALS: usize = 4_096;

/// Packets that arrived since the last report.
#[derive(Default)]
pub(super) struct Arrivals {
    seq: SeqExtender,
    /// Number of the first entry.
    base: u64,
    times: VecDeque<Option<i64>>,
    feedback_count: u8,
}

impl Arrivals {
    /// Notes a packet with this transport-wide sequence number.
    pub(super) fn on_packet(&mut self, now: Time, seq: u16) {
        let index = self.seq.extend(seq);
        if self.times.is_empty() {
            self.base = index;
        }
        // One from before the last report is reported as lost and stays so.
        let Some(place) = index.checked_sub(self.base) else {
            return;
        };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if place >= MAX_ARRIVALS {
            // A jump, or nobody took a report: begin anew.
            self.times.clear();
            self.base = index;
            self.times.push_back(Some(micros(now)));
            return;
        }
        if self.times.len() <= place {
            self.times.resize(place + 1, None);
        }
        if let Some(time) = self.times.get_mut(place) {
            time.get_or_insert(micros(now));
        }
    }

    /// Appends a report on what arrived, if anything did.
    pub(super) fn report(&mut self, sender_ssrc: u32, media_ssrc: u32, rtcp: &mut RtcpWriter<'_>) {
        if self.times.is_empty() {
            return;
        }
        let fields = TransportFeedbackFields {
            sender_ssrc,
            media_ssrc,
            base_sequence_number: self.base as u16,
            feedback_count: self.feedback_count,
        };
        let written = rtcp.transport_feedback(&fields, self.times.make_contiguous());
        if let Ok(built) = written {
            self.times.drain(..built.consumed.min(self.times.len()));
            self.base += built.consumed as u64;
            self.feedback_count = self.feedback_count.wrapping_add(1);
        }
    }
}

fn micros(t: Time) -> i64 {
    i64::try_from(t.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealcast_rtp::rtcp::{Compound, Packet};

    #[test]
    fn reports_what_arrived_and_what_did_not() {
        let mut arrivals = Arrivals::default();
        for seq in [65_534u16, 65_535, 1, 2, 0] {
            arrivals.on_packet(Time::from_millis(u64::from(seq.wrapping_add(10))), seq);
        }
        arrivals.on_packet(Time::from_millis(30), 4);
        let mut buf = [0; 200];
        let mut rtcp = RtcpWriter::new(&mut buf);
        arrivals.report(1, 2, &mut rtcp);
        let len = rtcp.finish();
        let compound = Compound::parse(&buf[..len]).unwrap();
        let Some(Ok(Packet::TransportFeedback(feedback))) = compound.iter().next() else {
            panic!()
        };
        assert_eq!(
            (feedback.fields.base_sequence_number, feedback.status_count),
            (65_534, 7)
        );
        assert!(arrivals.times.is_empty());
    }

    #[test]
    fn a_burst_is_reported_whole_if_in_several_reports() {
        let mut arrivals = Arrivals::default();
        for n in 0..1_500u16 {
            arrivals.on_packet(
                Time::ZERO + std::time::Duration::from_micros(20) * n.into(),
                n,
            );
        }
        let mut reported = 0;
        while !arrivals.times.is_empty() {
            let mut buf = [0; 1_100];
            let mut rtcp = RtcpWriter::new(&mut buf);
            arrivals.report(1, 2, &mut rtcp);
            let len = rtcp.finish();
            let compound = Compound::parse(&buf[..len]).unwrap();
            let Some(Ok(Packet::TransportFeedback(feedback))) = compound.iter().next() else {
                panic!()
            };
            assert_eq!(feedback.fields.base_sequence_number, reported);
            reported += feedback.status_count;
        }
        assert_eq!(reported, 1_500);
    }

    #[test]
    fn memory_is_bounded() {
        let mut arrivals = Arrivals::default();
        for n in 0..100_000u32 {
            arrivals.on_packet(Time::ZERO, (n * 7) as u16);
            assert!(arrivals.times.len() <= MAX_ARRIVALS);
        }
    }
}
