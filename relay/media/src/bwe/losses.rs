//! Packets that feedback says are lost: what a subscriber misses, known without its asking.
//!
//! Feedback comes many times a second and covers every stream of the transport, so it tells of
//! losses that no request does: of a frame's last packets, of the very first ones of a stream, of
//! retransmissions, and of those whose request was lost.

use super::send_log::{PacketResult, SendLog};
use std::collections::VecDeque;

/// A packet is lost, not reordered, when one that was sent this much later has arrived (RFC 9002,
/// section 6.1.1: "The RECOMMENDED initial value for the packet reordering threshold
/// (kPacketThreshold) is 3").
const REORDERED: u64 = 3;

/// Losses that are waited for at once. More is an outage, which ends with a key frame.
const MAX: usize = 256;

/// A packet that was sent, by stream and RTP sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPacket {
    /// Its stream.
    pub ssrc: u32,
    /// Its RTP sequence number.
    pub sequence_number: u16,
}

/// Gathers losses until they are certain.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// With transport-wide numbers, in the order of reports.
    waiting: VecDeque<(u64, LostPacket)>,
    newest: u64,
}

impl Losses {
    /// Feedback tells of a packet.
    pub(super) fn on_packet(&mut self, result: &PacketResult) {
        if result.arrival.is_some() {
            self.newest = self.newest.max(result.number);
        } else if self.waiting.len() < MAX {
            let lost = LostPacket {
                ssrc: result.ssrc,
                sequence_number: result.sequence_number,
            };
            self.waiting.push_back((result.number, lost));
        }
    }

    /// The next packet that is certainly lost. Each is given once.
    pub(super) fn poll(&mut self, log: &SendLog) -> Option<LostPacket> {
        while let Some((number, lost)) = self.waiting.front().copied() {
            if number + REORDERED > self.newest {
                return None;
            }
            self.waiting.pop_front();
            // It may have arrived after all.
            if log.is_lost(number) {
                return Some(lost);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bwe::SentPacket;
    use sealcast_model::Time;
    use sealcast_rtp::rtcp::{Compound, Packet, RtcpWriter, TransportFeedbackFields};

    #[test]
    fn what_is_lost_is_told_once_and_what_is_late_never() {
        let (mut log, mut losses) = (SendLog::new(), Losses::default());
        for n in 0..20u16 {
            log.on_sent(SentPacket {
                sent: Time::from_millis(u64::from(n)),
                bytes: 100,
                ssrc: 7,
                sequence_number: 1_000 + n,
                probe: None,
            });
        }
        let mut feedback = |base: u16, arrived: &[bool]| {
            let arrivals: Vec<_> = arrived.iter().map(|a| a.then_some(1_000)).collect();
            let mut bytes = [0; 200];
            let mut writer = RtcpWriter::new(&mut bytes);
            let fields = TransportFeedbackFields {
                base_sequence_number: base,
                ..TransportFeedbackFields::default()
            };
            writer.transport_feedback(&fields, &arrivals).expect("room");
            let len = writer.finish();
            let packet = Compound::parse(&bytes[..len]).expect("sound").iter().next();
            let Some(Ok(Packet::TransportFeedback(feedback))) = packet else {
                panic!("feedback")
            };
            log.on_transport_feedback(&feedback, |result| losses.on_packet(&result));
            std::iter::from_fn(|| losses.poll(&log))
                .map(|lost| lost.sequence_number)
                .collect::<Vec<_>>()
        };
        let (yes, no) = (true, false);
        // 2 is passed by three; 5 by one only.
        assert_eq!(feedback(0, &[yes, yes, no, yes, yes, no, yes]), [1_002]);
        // 5 was late, 8 is not passed enough.
        assert_eq!(feedback(5, &[yes, yes, yes, no, yes]), []);
        assert_eq!(feedback(8, &[no, yes, yes, yes]), [1_008]);
        assert_eq!(feedback(8, &[no, yes, yes, yes, yes, yes]), []);
    }
}
