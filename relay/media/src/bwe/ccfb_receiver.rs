//! Feedback of RFC 8888 for a publisher: when each packet of each of its streams arrived.
//!
//! Invariant: every sequence number of a stream from the first on is reported, in order, at least
//! once, as long as its packets come; one that arrives after it was reported lost is reported
//! again, with those that followed.

use sealcast_model::Time;
use sealcast_model::limits::SSRCS_PER_SESSION;
use sealcast_rtp::SeqExtender;
use sealcast_rtp::rtcp::RtcpWriter;
use std::time::Duration;

/// How often feedback is sent while packets arrive: as often as transport-wide feedback.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);

/// Arrivals remembered of each stream, in packets: a hundred milliseconds of 25 Mbit/s. A power of
/// two. Numbers further back are not reported any more.
const WINDOW: usize = 256;

/// Ticks of an arrival's offset in a second.
const TICKS: u128 = 1_024;

/// Records the arrivals of one publisher's packets and writes feedback on them.
///
/// Contract: as of [`TwccReceiver`](super::TwccReceiver).
#[derive(Debug, Default)]
pub struct CcfbReceiver {
    streams: Vec<Stream>,
    /// The stream to write next.
    turn: usize,
    /// When feedback is due; [`Time::NEVER`] with nothing to report.
    due: Option<Time>,
}

/// One stream's arrivals.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    extender: SeqExtender,
    /// At place `number % WINDOW`, for `newest - WINDOW + 1..=newest`; `Time::NEVER` if missing.
    arrivals: Box<[Time]>,
    newest: u64,
    /// The first number to report next.
    begin: u64,
}

impl CcfbReceiver {
    /// The packet with this sequence number reached the relay at `arrival`.
    pub fn on_packet(&mut self, arrival: Time, ssrc: u32, sequence_number: u16) {
        let stream = match self.streams.iter().position(|s| s.ssrc == ssrc) {
            Some(at) => &mut self.streams[at],
            None => {
                if self.streams.len() >= SSRCS_PER_SESSION {
                    // Whose newest packet is the oldest; there are no more that are bound.
                    let newest = |s: &Stream| s.arrivals[place(s.newest)];
                    let stalest =
                        (0..self.streams.len()).min_by_key(|at| newest(&self.streams[*at]));
                    stalest.map(|at| self.streams.swap_remove(at));
                }
                self.streams.push(Stream::new(ssrc));
                let last = self.streams.len() - 1;
                &mut self.streams[last]
            }
        };
        if stream.on_packet(arrival, sequence_number) {
            self.due.get_or_insert(arrival + FEEDBACK_INTERVAL);
        }
    }

    /// When feedback is due; [`Time::NEVER`] if there is nothing to report.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.due.unwrap_or(Time::NEVER)
    }

    /// Writes feedback on one stream if it is due, and tells whether there is more. What does not
    /// fit `writer` stays due. `ntp` is the relay's NTP time at `now`, its middle 32 bits.
    pub fn write_feedback(
        &mut self,
        now: Time,
        ntp: u32,
        sender_ssrc: u32,
        writer: &mut RtcpWriter<'_>,
    ) -> bool {
        if self.poll_timeout() > now {
            return false;
        }
        while let Some(stream) = self.streams.get_mut(self.turn) {
            if stream.begin > stream.newest {
                self.turn += 1;
                continue;
            }
            if !stream.write(now, ntp, sender_ssrc, writer) {
                return false;
            }
            self.turn += 1;
            if self
                .streams
                .iter()
                .skip(self.turn)
                .any(|s| s.begin <= s.newest)
            {
                return true;
            }
        }
        (self.turn, self.due) = (0, None);
        false
    }
}

impl Stream {
    fn new(ssrc: u32) -> Self {
        Stream {
            ssrc,
            extender: SeqExtender::new(),
            arrivals: vec![Time::NEVER; WINDOW].into_boxed_slice(),
            newest: 0,
            begin: 0,
        }
    }

    /// Whether it is news.
    fn on_packet(&mut self, arrival: Time, sequence_number: u16) -> bool {
        let first = self.extender.newest().is_none();
        let number = self.extender.extend(sequence_number);
        if first {
            (self.newest, self.begin) = (number, number);
        } else if number > self.newest {
            let passed = number - self.newest;
            for passed in
                (self.newest + 1..=number).skip(passed.saturating_sub(WINDOW as u64) as usize)
            {
                self.arrivals[place(passed)] = Time::NEVER;
            }
            self.newest = number;
            self.begin = self.begin.max((number + 1).saturating_sub(WINDOW as u64));
        } else if self.newest - number >= WINDOW as u64 {
            return false;
        }
        let noted = &mut self.arrivals[place(number)];
        if *noted != Time::NEVER {
            // A duplicate. The first arrival is the one that tells about the path.
            return false;
        }
        *noted = arrival;
        self.begin = self.begin.min(number);
        true
    }

    /// False if it did not fit.
    fn write(
        &mut self,
        now: Time,
        ntp: u32,
        sender_ssrc: u32,
        writer: &mut RtcpWriter<'_>,
    ) -> bool {
        let mut offsets = [None; WINDOW];
        let count = (self.newest + 1 - self.begin).min(WINDOW as u64) as usize;
        for (offset, number) in offsets.iter_mut().zip(self.begin..).take(count) {
            let arrival = self.arrivals[place(number)];
            *offset = (arrival != Time::NEVER).then(|| {
                let ticks = now.saturating_since(arrival).as_nanos() * TICKS / 1_000_000_000;
                u16::try_from(ticks).unwrap_or(u16::MAX)
            });
        }
        let begin = self.begin as u16;
        let offsets = offsets.get(..count).unwrap_or_default();
        let written = writer.congestion_feedback(sender_ssrc, ntp, self.ssrc, begin, offsets);
        if written.is_ok() {
            self.begin = self.newest + 1;
        }
        written.is_ok()
    }
}

fn place(number: u64) -> usize {
    number as usize % WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_rtp::rtcp::{Compound, Packet};
    use std::collections::BTreeMap;

    const NTP: u32 = 0x1234_0000;

    /// All reports that are due, with arrivals in milliseconds before `now`.
    fn feedback(receiver: &mut CcfbReceiver, now: Time) -> Vec<(u32, u16, Option<u64>)> {
        let mut found = Vec::new();
        loop {
            let mut out = [0; 1_100];
            let mut writer = RtcpWriter::new(&mut out);
            let more = receiver.write_feedback(now, NTP, 9, &mut writer);
            let len = writer.finish();
            if len > 0 {
                let packet = Compound::parse(&out[..len]).expect("framing").iter().next();
                let Some(Ok(Packet::CongestionFeedback(feedback))) = packet else {
                    panic!("feedback")
                };
                assert_eq!((feedback.sender_ssrc, feedback.report_timestamp), (9, NTP));
                found.extend(feedback.reports().map(|report| {
                    let offset = report
                        .arrival_offset
                        .map(|ticks| u64::from(ticks) * 1_000 / 1_024);
                    assert_eq!(report.received.is_some(), offset.is_some());
                    (report.ssrc, report.sequence_number, offset)
                }));
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
    fn each_stream_is_reported_from_where_it_was_left() {
        let mut receiver = CcfbReceiver::default();
        assert_eq!(receiver.poll_timeout(), Time::NEVER);
        receiver.on_packet(ms(1_000), 7, 65_535);
        receiver.on_packet(ms(1_010), 8, 100);
        receiver.on_packet(ms(1_020), 7, 1);
        assert_eq!(receiver.poll_timeout(), ms(1_050));
        assert_eq!(feedback(&mut receiver, ms(1_049)), []);
        // An offset is 1/1,024 s, rounded down.
        assert_eq!(
            feedback(&mut receiver, ms(1_050)),
            [
                (7, 65_535, Some(49)),
                (7, 0, None),
                (7, 1, Some(29)),
                (8, 100, Some(39)),
            ]
        );
        assert_eq!(receiver.poll_timeout(), Time::NEVER);
        receiver.on_packet(ms(1_060), 7, 0);
        assert_eq!(
            feedback(&mut receiver, ms(1_110)),
            [(7, 0, Some(49)), (7, 1, Some(89))],
            "what was reported lost came"
        );
        receiver.on_packet(ms(1_120), 7, 0);
        assert_eq!(receiver.poll_timeout(), Time::NEVER, "a duplicate");
    }

    proptest! {
        /// Against a map of all arrivals: nothing is told that did not happen, and everything that
        /// happened within the window is told.
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0u32..3, prop_oneof![8 => 1i32..4, 2 => -30i32..1, 1 => 200i32..700], 0u64..30), 1..400)) {
            let mut receiver = CcfbReceiver::default();
            let mut arrived: BTreeMap<(u32, u16), Time> = BTreeMap::new();
            let mut told: BTreeMap<(u32, u16), u64> = BTreeMap::new();
            let mut newest = [40_000i32; 3];
            let mut now = ms(5_000);
            let mut jumped = [false; 3];
            for (ssrc, step, wait) in steps {
                now += Duration::from_millis(wait);
                let number = (newest[ssrc as usize] + step).max(40_000);
                jumped[ssrc as usize] |= step >= 200;
                newest[ssrc as usize] = newest[ssrc as usize].max(number);
                receiver.on_packet(now, ssrc, number as u16);
                arrived.entry((ssrc, number as u16)).or_insert(now);
                if receiver.poll_timeout() <= now {
                    for (ssrc, number, offset) in feedback(&mut receiver, now) {
                        let Some(offset) = offset else { continue };
                        let at = arrived.get(&(ssrc, number)).copied();
                        let at = at.map(|at| now.saturating_since(at).as_millis() as u64);
                        prop_assert!(at.is_some_and(|at| at.abs_diff(offset) <= 1), "{} {}: {:?} {}", ssrc, number, at, offset);
                        told.insert((ssrc, number), offset);
                    }
                }
            }
            let end = now + FEEDBACK_INTERVAL;
            for (ssrc, number, offset) in feedback(&mut receiver, end) {
                if let Some(offset) = offset {
                    told.insert((ssrc, number), offset);
                }
            }
            for (ssrc, number) in arrived.keys() {
                prop_assert!(jumped[*ssrc as usize] || told.contains_key(&(*ssrc, *number)), "{} {}", ssrc, number);
            }
        }
    }
}
