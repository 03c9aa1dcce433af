//! What was sent to one subscriber, and what its feedback says became of it.

use sealcast_model::Time;
use sealcast_rtp::rtcp::{CongestionFeedback, REFERENCE_TICK_MICROS, TransportFeedback};

use super::ProbeId;
use std::time::Duration;

/// Packets remembered at most: a second at 20 Mbit/s. A power of two. Feedback on older ones is
/// ignored.
const WINDOW_MAX: usize = 2_048;

/// Packets that there is room for at first. A power of two; most sessions that only listen need no
/// more.
const WINDOW_MIN: usize = 8;

/// A packet is remembered for this long, while there are at most [`WINDOW_MAX`] of them: feedback
/// comes after a round trip and what its sender waits for, a fifth of this.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Entries of the log that one RFC 8888 packet may make us look at. Honest feedback names packets
/// in the order they were sent and needs one look for each.
const CCFB_LOOKS: usize = 4 * WINDOW_MAX;

/// A packet that leaves for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// When it leaves.
    pub sent: Time,
    /// Bytes on the wire, IP and UDP headers included.
    pub bytes: u16,
    /// Its stream.
    pub ssrc: u32,
    /// Its RTP sequence number.
    pub sequence_number: u16,
    /// The probe cluster it is part of.
    pub probe: Option<ProbeId>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketResult {
    /// Its transport-wide number, extended.
    pub number: u64,
    /// Its stream.
    pub ssrc: u32,
    /// Its RTP sequence number.
    pub sequence_number: u16,
    /// When it was sent.
    pub sent: Time,
    /// When it arrived, in microseconds on the receiver's clock; `None` if it is reported lost.
    pub arrival: Option<i64>,
    /// Bytes on the wire.
    pub bytes: u16,
    /// The probe cluster it was part of.
    pub probe: Option<ProbeId>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    packet: SentPacket,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No feedback yet.
    InFlight,
    /// Reported lost; a later report may still say that it arrived.
    Lost,
    /// Reported received. Further reports are repetitions.
    Received,
}

/// The log of one subscriber's transport: numbers packets, and resolves feedback on them.
#[derive(Debug)]
pub struct SendLog {
    /// Entry of number `n` at `n % len`, for the last `len` numbers before `next`. The length is a
    /// power of two; it grows with the rate, so that a path costs what it carries.
    entries: Box<[Option<Entry>]>,
    /// The next transport sequence number.
    next: u64,
    in_flight_bytes: u64,
    /// The oldest number that may still be in flight.
    oldest: u64,
    reference: ReferenceClock,
}

impl Default for SendLog {
    fn default() -> Self {
        Self::new()
    }
}

impl SendLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        let entries = vec![None; WINDOW_MIN].into_boxed_slice();
        // One cycle up, so that numbers before the first exist.
        let next = 0x1_0000;
        SendLog {
            entries,
            next,
            in_flight_bytes: 0,
            oldest: next,
            reference: ReferenceClock::default(),
        }
    }

    /// Notes a packet and returns its transport-wide sequence number.
    #[inline]
    pub fn on_sent(&mut self, packet: SentPacket) -> u16 {
        let number = self.next;
        let place = self.place(number);
        if self.entries.len() < WINDOW_MAX
            && self.entries[place].is_some_and(|e| packet.sent < e.packet.sent + REMEMBERED)
        {
            self.grow();
        }
        self.next += 1;
        if self.next - self.oldest > self.entries.len() as u64 {
            self.settle(self.oldest, State::Lost);
            self.oldest += 1;
        }
        let place = self.place(number);
        self.entries[place] = Some(Entry {
            packet,
            state: State::InFlight,
        });
        self.in_flight_bytes += u64::from(packet.bytes);
        number as u16
    }

    /// Where the next packet will be noted.
    #[inline]
    pub(super) fn hot(&self) -> *const u8 {
        let place = self.entries.get(self.place(self.next));
        place.map_or(std::ptr::null(), |place| std::ptr::from_ref(place).cast())
    }

    /// The number that the next packet will have.
    #[inline]
    #[must_use]
    pub fn next_sequence(&self) -> u16 {
        self.next as u16
    }

    /// Bytes sent of which no feedback has told yet.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Forgets packets in flight that were sent before `horizon`: their feedback was lost.
    pub fn expire(&mut self, horizon: Time) {
        while self.oldest < self.next {
            match self.entries[self.place(self.oldest)] {
                Some(e) if e.packet.sent >= horizon => return,
                _ => self.settle(self.oldest, State::Lost),
            }
            self.oldest += 1;
        }
    }

    /// Changes an entry in flight; bytes in flight follow.
    fn settle(&mut self, number: u64, state: State) {
        let place = self.place(number);
        if let Some(entry) = &mut self.entries[place]
            && entry.state == State::InFlight
        {
            entry.state = state;
            self.in_flight_bytes -= u64::from(entry.packet.bytes);
        }
    }

    /// Whether the packet of this number is reported lost, as far as is known.
    #[must_use]
    pub fn is_lost(&self, number: u64) -> bool {
        self.known().contains(&number)
            && self.entries[self.place(number)].is_some_and(|entry| entry.state == State::Lost)
    }

    /// Resolves transport-wide feedback. New facts go to `on_result`, in the order sent; what was
    /// known before, or is too old, is left out.
    pub fn on_transport_feedback(
        &mut self,
        feedback: &TransportFeedback<'_>,
        mut on_result: impl FnMut(PacketResult),
    ) {
        let mut at = self.reference.unwrap_ticks(feedback.reference_time);
        for (sequence, delta) in feedback.statuses() {
            at += i64::from(delta.unwrap_or(0));
            let Some(number) = self.number_of(sequence) else {
                continue;
            };
            if let Some(result) = self.resolve(number, delta.map(|_| at)) {
                on_result(result);
            }
        }
    }

    /// Resolves RFC 8888 feedback. The receiver's clock is then that of its report timestamps.
    pub fn on_congestion_feedback(
        &mut self,
        feedback: &CongestionFeedback<'_>,
        mut on_result: impl FnMut(PacketResult),
    ) {
        let reported = self.reference.unwrap_short_ntp(feedback.report_timestamp);
        let first = self.known().start;
        let (mut cursor, mut looks) = (first, CCFB_LOOKS);
        for report in feedback.reports() {
            // RFC 8888, section 3.1: the offset counts back from the report timestamp, in 1/1024 s.
            let arrival = report
                .arrival_offset
                .map(|ato| reported - i64::from(ato) * 15_625 / 16);
            if report.received.is_some() && arrival.is_none() {
                continue;
            }
            let found = self
                .find(
                    report.ssrc,
                    report.sequence_number,
                    cursor..self.next,
                    &mut looks,
                )
                .or_else(|| {
                    // Another stream's packets start further back.
                    self.find(
                        report.ssrc,
                        report.sequence_number,
                        first..cursor,
                        &mut looks,
                    )
                });
            let Some(number) = found else { continue };
            cursor = number + 1;
            if let Some(result) = self.resolve(number, arrival) {
                on_result(result);
            }
        }
    }

    /// Numbers that are remembered.
    fn known(&self) -> std::ops::Range<u64> {
        self.next.saturating_sub(self.entries.len() as u64)..self.next
    }

    fn place(&self, number: u64) -> usize {
        number as usize & (self.entries.len() - 1)
    }

    /// Makes room for twice as many packets.
    #[cold]
    fn grow(&mut self) {
        let known = self.known();
        let twice = vec![None; 2 * self.entries.len()].into_boxed_slice();
        let old = std::mem::replace(&mut self.entries, twice);
        for number in known {
            let place = self.place(number);
            self.entries[place] = old[number as usize & (old.len() - 1)];
        }
    }

    fn find(
        &self,
        ssrc: u32,
        sequence: u16,
        range: std::ops::Range<u64>,
        looks: &mut usize,
    ) -> Option<u64> {
        for number in range {
            *looks = looks.checked_sub(1)?;
            let entry = self.entries[self.place(number)];
            if entry.is_some_and(|e| e.packet.ssrc == ssrc && e.packet.sequence_number == sequence)
            {
                return Some(number);
            }
        }
        None
    }

    /// The logged number that ends in `sequence`: at or before the last one sent.
    fn number_of(&self, sequence: u16) -> Option<u64> {
        let last = self.next - 1;
        let back = u64::from((last as u16).wrapping_sub(sequence));
        // A number in the future, or of long ago, is far back on the circle.
        if back < self.entries.len() as u64 {
            last.checked_sub(back)
        } else {
            None
        }
    }

    fn resolve(&mut self, number: u64, arrival: Option<i64>) -> Option<PacketResult> {
        let place = self.place(number);
        let entry = self.entries[place].as_mut()?;
        let (before, packet) = (entry.state, entry.packet);
        match (before, arrival) {
            (State::Received, _) | (State::Lost, None) => return None,
            (State::Lost, Some(_)) => entry.state = State::Received,
            (State::InFlight, Some(_)) => self.settle(number, State::Received),
            (State::InFlight, None) => self.settle(number, State::Lost),
        }
        Some(PacketResult {
            number,
            ssrc: packet.ssrc,
            sequence_number: packet.sequence_number,
            sent: packet.sent,
            arrival,
            bytes: packet.bytes,
            probe: packet.probe,
        })
    }
}

/// The receiver's clock, put back on a line from the few bits that feedback carries.
#[derive(Debug, Default)]
struct ReferenceClock {
    /// Newest time, microseconds.
    newest: Option<i64>,
}

impl ReferenceClock {
    /// A reference time in units of 64 ms, of which 24 bits are on the wire.
    fn unwrap_ticks(&mut self, ticks: i32) -> i64 {
        self.unwrap(
            i64::from(ticks) * REFERENCE_TICK_MICROS,
            REFERENCE_TICK_MICROS << 24,
        )
    }

    /// The middle 32 bits of an NTP time.
    fn unwrap_short_ntp(&mut self, middle: u32) -> i64 {
        const CIRCLE: i64 = 65_536 * 1_000_000;
        self.unwrap((i64::from(middle) * 1_000_000) >> 16, CIRCLE)
    }

    /// The time congruent to `micros` on the circle that lies nearest to the newest one.
    fn unwrap(&mut self, micros: i64, circle: i64) -> i64 {
        let Some(newest) = self.newest else {
            self.newest = Some(micros);
            return micros;
        };
        let ahead = (micros - newest).rem_euclid(circle);
        let step = if ahead < circle / 2 {
            ahead
        } else {
            ahead - circle
        };
        self.newest = Some(newest.max(newest + step));
        newest + step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_rtp::rtcp::{Compound, Packet, RtcpWriter, TransportFeedbackFields};

    fn packet(sent: Time, bytes: u16, ssrc: u32, sequence_number: u16) -> SentPacket {
        SentPacket {
            sent,
            bytes,
            ssrc,
            sequence_number,
            probe: None,
        }
    }

    /// Feeds arrivals from `base` on to the log as a receiver would report them.
    fn report(log: &mut SendLog, base: u16, arrivals: &[Option<i64>]) -> Vec<PacketResult> {
        let mut out = vec![0; 4_000];
        let mut writer = RtcpWriter::new(&mut out);
        let fields = TransportFeedbackFields {
            base_sequence_number: base,
            ..Default::default()
        };
        writer.transport_feedback(&fields, arrivals).expect("room");
        let len = writer.finish();
        let packet = Compound::parse(&out[..len]).expect("framing").iter().next();
        let Some(Ok(Packet::TransportFeedback(feedback))) = packet else {
            panic!("feedback")
        };
        let mut results = Vec::new();
        log.on_transport_feedback(&feedback, |result| results.push(result));
        results
    }

    fn arrivals(results: &[PacketResult]) -> Vec<Option<i64>> {
        results.iter().map(|r| r.arrival).collect()
    }

    #[test]
    fn a_packet_is_told_of_once_and_a_loss_may_be_taken_back() {
        let mut log = SendLog::new();
        let first = log.on_sent(packet(Time::ZERO, 100, 1, 1));
        log.on_sent(packet(Time::from_millis(1), 200, 1, 2));
        assert_eq!(log.in_flight_bytes(), 300);
        assert_eq!(
            arrivals(&report(&mut log, first, &[None, Some(5_000)])),
            [None, Some(5_000)]
        );
        assert_eq!(log.in_flight_bytes(), 0);
        assert_eq!(
            arrivals(&report(&mut log, first, &[Some(6_000), Some(5_000)])),
            [Some(6_000)]
        );
        assert_eq!(report(&mut log, first, &[Some(6_000), None]), []);
        // Numbers that were never sent.
        assert_eq!(
            report(&mut log, first.wrapping_add(2), &[Some(1), Some(2)]),
            []
        );
        assert_eq!(report(&mut log, first.wrapping_sub(9), &[Some(1)]), []);
    }

    #[test]
    fn what_feedback_never_tells_of_expires() {
        let mut log = SendLog::new();
        for i in 0..10 {
            log.on_sent(packet(Time::from_millis(i), 10, 1, i as u16));
        }
        log.expire(Time::from_millis(4));
        assert_eq!(log.in_flight_bytes(), 60);
        for i in 0..2 * WINDOW_MAX as u64 {
            log.on_sent(packet(Time::from_micros(10_000 + 100 * i), 10, 1, i as u16));
        }
        assert_eq!(log.in_flight_bytes(), 10 * WINDOW_MAX as u64);
    }

    /// Whatever the rate, feedback that is most of a second late still counts.
    #[test]
    fn the_log_is_as_long_as_a_second() {
        for (rate, len) in [(5u64, WINDOW_MIN), (300, 512), (1_500, WINDOW_MAX)] {
            let mut log = SendLog::new();
            let mut last = 0;
            for i in 0..10 * rate {
                last = log.on_sent(packet(Time::from_micros(1_000_000 * i / rate), 10, 1, 0));
            }
            assert_eq!(log.entries.len(), len, "{rate} packets a second");
            let early = last.wrapping_sub((rate * 4 / 5) as u16);
            assert_eq!(
                arrivals(&report(&mut log, early, &[Some(1_000)])),
                [Some(1_000)]
            );
        }
    }

    #[test]
    fn the_receivers_clock_wraps() {
        let mut clock = ReferenceClock::default();
        let top = (1 << 23) - 1;
        let before = clock.unwrap_ticks(top);
        // The 24-bit field is signed: one tick after the largest comes the smallest.
        assert_eq!(
            clock.unwrap_ticks(-(1 << 23)),
            before + REFERENCE_TICK_MICROS
        );
        assert_eq!(clock.unwrap_ticks(top), before);
        let mut clock = ReferenceClock::default();
        let before = clock.unwrap_short_ntp(u32::MAX);
        assert!((clock.unwrap_short_ntp(15) - before - 244).abs() <= 1);
    }

    #[test]
    fn rfc_8888_finds_packets_of_interleaved_streams() {
        let mut log = SendLog::new();
        for i in 0..6u16 {
            log.on_sent(packet(
                Time::from_millis(u64::from(i)),
                50,
                u32::from(i % 2),
                65_535u16.wrapping_add(i / 2),
            ));
        }
        // SSRC 1 from 65,535: received 16/1024 s ago, lost, received; then SSRC 0: one received.
        let body = [
            &[0x8b, 205, 0, 8, 0, 0, 0, 9][..],
            &[0, 0, 0, 1, 0xff, 0xff, 0, 3, 0x80, 16, 0, 0, 0x80, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 1, 0x80, 8, 0, 0],
            &[0, 1, 0, 0],
        ]
        .concat();
        let mut body = body;
        body[3] = (body.len() / 4 - 1) as u8;
        let packet = Compound::parse(&body).expect("framing").iter().next();
        let Some(Ok(Packet::CongestionFeedback(feedback))) = packet else {
            panic!("{packet:?}")
        };
        let mut results = Vec::new();
        log.on_congestion_feedback(&feedback, |result| {
            results.push((result.sent.as_millis(), result.arrival))
        });
        let second = 1_000_000;
        assert_eq!(
            results,
            [
                (1, Some(second - 15_625)),
                (3, None),
                (5, Some(second)),
                (2, Some(second - 7_812))
            ]
        );
    }

    proptest! {
        #[test]
        fn a_list_of_all_packets_says_the_same(
            sends in prop::collection::vec((1u16..1500, 0u64..5), 1..200),
            reports in prop::collection::vec((0usize..200, prop::collection::vec(any::<bool>(), 1..60)), 0..40),
        ) {
            let mut log = SendLog::new();
            let mut now = Time::ZERO;
            let mut shadow = Vec::new();
            for (i, (bytes, wait)) in sends.iter().enumerate() {
                now += Duration::from_millis(*wait);
                let number = log.on_sent(packet(now, *bytes, 7, i as u16));
                prop_assert_eq!(number, i as u16);
                shadow.push((now, u64::from(*bytes), None::<bool>));
            }
            for (start, statuses) in reports {
                let times: Vec<_> = statuses.iter().zip(0..).map(|(s, i)| s.then_some(1_000_000 + i * 250)).collect();
                let mut want = Vec::new();
                for (i, time) in times.iter().enumerate() {
                    let Some((sent, _, told)) = shadow.get_mut(start + i) else { continue };
                    if *told == Some(true) || (*told == Some(false) && time.is_none()) {
                        continue;
                    }
                    *told = Some(time.is_some());
                    want.push((*sent, *time));
                }
                let got: Vec<_> = report(&mut log, start as u16, &times).iter().map(|r| (r.sent, r.arrival)).collect();
                prop_assert_eq!(got, want);
                let in_flight: u64 = shadow.iter().filter(|s| s.2.is_none()).map(|s| s.1).sum();
                prop_assert_eq!(log.in_flight_bytes(), in_flight);
            }
        }
    }
}
