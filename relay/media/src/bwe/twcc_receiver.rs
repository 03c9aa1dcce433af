//! Transport-wide feedback for a publisher: when each of its packets arrived.
//!
//! Invariant: every transport sequence number from the first on is reported, in order, at least
//! once; one that arrives after it was reported lost is reported again, with those that followed.

use sealcast_model::Time;
use sealcast_rtp::SeqExtender;
use sealcast_rtp::rtcp::{RtcpWriter, TransportFeedbackFields};
use std::time::Duration;

/// How often feedback is sent while packets arrive. Browsers' receivers use 50 to 250 ms, and 50
/// as soon as feedback stays below 5 % of the stream, which any video stream allows.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);

/// Arrivals remembered, in packets: over a second at 20 Mbit/s. A power of two. Numbers further
/// back are not reported again.
const WINDOW: usize = 2_048;

/// Statuses put into one feedback packet: about 1 KB, so that it fits any MTU with its headers.
const STATUSES_PER_PACKET: usize = 400;

/// Marks a packet that has not arrived.
const MISSING: i64 = i64::MIN;

/// Records the arrivals of one publisher's packets and writes feedback on them.
///
/// Contract: call [`on_packet`](Self::on_packet) for each packet with the extension; at
/// [`poll_timeout`](Self::poll_timeout) call [`write_feedback`](Self::write_feedback) until it
/// returns `false`, each time with room for one datagram.
#[derive(Debug)]
pub struct TwccReceiver {
    extender: SeqExtender,
    /// Arrival in microseconds, at place `number % WINDOW`, for `newest - WINDOW + 1..=newest`. Empty
    /// before the first packet: who never sends holds no room for it.
    arrivals: Box<[i64]>,
    newest: u64,
    /// The first number to report next.
    begin: u64,
    feedback_count: u8,
    /// When feedback is due; [`Time::NEVER`] with nothing to report.
    due: Time,
}

impl Default for TwccReceiver {
    fn default() -> Self {
        Self::new()
    }
}

impl TwccReceiver {
    /// A receiver that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        TwccReceiver {
            extender: SeqExtender::new(),
            arrivals: Box::default(),
            newest: 0,
            begin: 0,
            feedback_count: 0,
            due: Time::NEVER,
        }
    }

    /// The packet with this transport sequence number reached the relay at `arrival`.
    #[inline]
    pub fn on_packet(&mut self, arrival: Time, sequence: u16) {
        let first = self.extender.newest().is_none();
        let number = self.extender.extend(sequence);
        if first {
            self.arrivals = vec![MISSING; WINDOW].into_boxed_slice();
            (self.newest, self.begin) = (number, number);
        } else if number > self.newest {
            self.slide_to(number);
        } else if self.newest - number >= WINDOW as u64 {
            return;
        }
        let place = place(number);
        if self.arrivals[place] != MISSING {
            // A duplicate. The first arrival is the one that tells about the path.
            return;
        }
        self.arrivals[place] = i64::try_from(arrival.as_micros()).unwrap_or(i64::MAX);
        self.begin = self.begin.min(number);
        if self.due == Time::NEVER {
            self.due = arrival + FEEDBACK_INTERVAL;
        }
    }

    fn slide_to(&mut self, number: u64) {
        if number - self.newest >= WINDOW as u64 {
            self.arrivals.fill(MISSING);
        } else {
            for passed in self.newest + 1..=number {
                self.arrivals[place(passed)] = MISSING;
            }
        }
        self.newest = number;
        // What fell out of the window can no longer be reported.
        self.begin = self.begin.max((number + 1).saturating_sub(WINDOW as u64));
    }

    /// When feedback is due; [`Time::NEVER`] if there is nothing to report.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.due
    }

    /// Writes one feedback packet if it is due, and tells whether another is. A packet that does
    /// not fit `writer` stays due.
    pub fn write_feedback(
        &mut self,
        now: Time,
        sender_ssrc: u32,
        media_ssrc: u32,
        writer: &mut RtcpWriter<'_>,
    ) -> bool {
        if self.due > now {
            return false;
        }
        let mut statuses = [None; STATUSES_PER_PACKET];
        // Numbers before the first arrival that is left need no report when the window has moved
        // over them, and those before `begin` had theirs.
        let count = (self.newest + 1 - self.begin).min(STATUSES_PER_PACKET as u64) as usize;
        for (status, number) in statuses.iter_mut().zip(self.begin..).take(count) {
            *status = Some(self.arrivals[place(number)]).filter(|arrival| *arrival != MISSING);
        }
        let fields = TransportFeedbackFields {
            sender_ssrc,
            media_ssrc,
            base_sequence_number: self.begin as u16,
            feedback_count: self.feedback_count,
        };
        let Ok(built) = writer.transport_feedback(&fields, &statuses[..count]) else {
            return false;
        };
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.begin += built.consumed as u64;
        if self.begin > self.newest {
            self.due = Time::NEVER;
            return false;
        }
        true
    }
}

fn place(number: u64) -> usize {
    number as usize % WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_rtp::rtcp::{Compound, DELTA_TICK_MICROS, Packet, REFERENCE_TICK_MICROS};
    use std::collections::BTreeMap;

    /// All statuses of all packets that are due, with absolute arrivals in microseconds.
    fn feedback(receiver: &mut TwccReceiver, now: Time) -> Vec<(u16, Option<i64>)> {
        let mut found = Vec::new();
        loop {
            let mut out = [0; 1_100];
            let mut writer = RtcpWriter::new(&mut out);
            let more = receiver.write_feedback(now, 1, 2, &mut writer);
            let len = writer.finish();
            if len > 0 {
                let packet = Compound::parse(&out[..len]).expect("framing").iter().next();
                let Some(Ok(Packet::TransportFeedback(feedback))) = packet else {
                    panic!("feedback")
                };
                let mut at = i64::from(feedback.reference_time) * REFERENCE_TICK_MICROS;
                for (sequence, delta) in feedback.statuses() {
                    at += i64::from(delta.unwrap_or(0));
                    found.push((sequence, delta.map(|_| at)));
                }
            }
            if !more {
                return found;
            }
        }
    }

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn feedback_comes_on_time_and_only_with_news() {
        let mut receiver = TwccReceiver::new();
        assert_eq!(receiver.poll_timeout(), Time::NEVER);
        receiver.on_packet(ms(1_000), 65_535);
        receiver.on_packet(ms(1_010), 1);
        assert_eq!(receiver.poll_timeout(), ms(1_050));
        assert_eq!(feedback(&mut receiver, ms(1_049)), []);
        let want = [(65_535, Some(1_000_000)), (0, None), (1, Some(1_010_000))];
        assert_eq!(feedback(&mut receiver, ms(1_050)), want);
        assert_eq!(receiver.poll_timeout(), Time::NEVER);
        assert_eq!(feedback(&mut receiver, ms(2_000)), []);
    }

    #[test]
    fn a_late_packet_is_reported_again_with_those_that_followed() {
        let mut receiver = TwccReceiver::new();
        receiver.on_packet(ms(0), 10);
        receiver.on_packet(ms(1), 12);
        feedback(&mut receiver, ms(60));
        receiver.on_packet(ms(61), 11);
        // A duplicate changes nothing and asks for nothing.
        receiver.on_packet(ms(90), 12);
        let want = [(11, Some(61_000)), (12, Some(1_000))];
        assert_eq!(feedback(&mut receiver, ms(120)), want);
    }

    #[test]
    fn a_full_writer_leaves_feedback_due() {
        let mut receiver = TwccReceiver::new();
        receiver.on_packet(ms(0), 10);
        let mut out = [0; 16];
        assert!(!receiver.write_feedback(ms(50), 1, 2, &mut RtcpWriter::new(&mut out)));
        assert_eq!(receiver.poll_timeout(), ms(50));
        assert_eq!(feedback(&mut receiver, ms(51)).len(), 1);
    }

    proptest! {
        #[test]
        fn every_packet_is_reported_once_it_is_known(
            start: u16,
            steps in prop::collection::vec((-60i64..200, 0u64..30_000, prop::bool::weighted(0.1)), 1..300),
        ) {
            let mut receiver = TwccReceiver::new();
            let base = 0x1_0000 + i64::from(start);
            let (mut newest, mut now) = (base, Time::from_millis(5));
            let mut truth = BTreeMap::new();
            let mut told = BTreeMap::new();
            for (step, wait, flush) in steps {
                let number = (newest + step).max(0);
                now += Duration::from_micros(wait);
                newest = newest.max(number);
                receiver.on_packet(now, number as u16);
                truth.entry(number).or_insert(now.as_micros() as i64);
                if flush {
                    now += FEEDBACK_INTERVAL;
                    collect(&mut receiver, now, newest, &mut told);
                    // Nothing within the window is left untold.
                    for (number, arrival) in truth.range(newest - WINDOW as i64 + 1..) {
                        let told: &Option<i64> = told.get(number).expect("reported");
                        let told = told.expect("as received");
                        prop_assert!((arrival - told).unsigned_abs() < DELTA_TICK_MICROS as u64);
                    }
                }
            }
        }
    }

    fn collect(
        receiver: &mut TwccReceiver,
        now: Time,
        newest: i64,
        told: &mut BTreeMap<i64, Option<i64>>,
    ) {
        let mut previous: Option<u16> = None;
        for (sequence, arrival) in feedback(receiver, now) {
            assert!(
                previous.is_none_or(|p| sequence == p.wrapping_add(1)),
                "no number is left out"
            );
            previous = Some(sequence);
            let number = newest - i64::from((newest as u16).wrapping_sub(sequence));
            let known = told.entry(number).or_insert(arrival);
            assert!(
                known.is_none() || *known == arrival || arrival.is_some(),
                "never unsaid"
            );
            *known = arrival;
        }
    }
}
