//! Asking a publisher for lost packets (RFC 4585, section 6.2.1).
//!
//! A gap is first given time to be reordering. Then its packets are asked for once a round trip,
//! until they come, are too old for anybody to wait for, or a key frame makes them needless. Where
//! many packets are lost each request is echoed, because requests are lost as well; a sender
//! answers no packet twice in a round trip, so an echo costs no media.

use sealcast_model::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// A gap is loss when this many later packets have come, or when it has this age.
const REORDER_PACKETS: u64 = 3;
const REORDER_TIME: Duration = Duration::from_millis(8);

/// A packet is given up at this age: its frame could no longer be shown in time.
const GIVE_UP_AGE: Duration = Duration::from_millis(1_000);
/// ... or after this many requests, echoes not counted.
const MAX_REQUESTS: u8 = 10;

/// The next request follows after this share of the round trip, in percent, and this much: a
/// request in time is worth more than one that is certain to be needed.
const RETRY_PERCENT: u32 = 105;
const RETRY_SLACK: Duration = Duration::from_millis(3);
/// Bounds of the time between requests.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(400);

/// An echo follows after this share of the round trip, in percent.
const ECHO_PERCENT: u32 = 35;
/// Requests are echoed while more than this share of packets is lost, in percent.
const ECHO_LOSS_PERCENT: u32 = 4;

/// Missing packets that are kept track of. More at once is an outage, which a key frame ends
/// sooner than retransmissions do.
const MAX_MISSING: usize = 256;

/// Sequence numbers in one request: keeps the packet under 300 bytes at worst.
const MAX_PER_REQUEST: usize = 64;

/// Packets over which loss is judged.
const LOSS_WINDOW: u32 = 128;

/// What a generator has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NackStats {
    /// Sequence numbers asked for, echoes not counted.
    pub requested: u64,
    /// Missing packets that came, by whatever way.
    pub recovered: u64,
    /// Missing packets that were given up.
    pub given_up: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing {
    sequence: u64,
    noticed: Time,
    /// When it is asked for next; moves on with each request.
    due: Time,
    requests: u8,
    /// When it was first asked for.
    asked: Time,
    /// The request that was made last still has its echo to come.
    echo: bool,
}

/// The missing packets of one incoming stream.
///
/// Contract: [`on_packet`](Self::on_packet) for every packet, retransmissions under their original
/// number; at [`poll_timeout`](Self::poll_timeout) call [`poll`](Self::poll) until it yields
/// nothing, sending each batch as one NACK. If [`take_key_frame_request`](Self::take_key_frame_request)
/// says so, ask for a key frame (video) or do nothing (audio).
#[derive(Debug, Default)]
pub struct NackGenerator {
    /// By ascending sequence number.
    missing: VecDeque<Missing>,
    newest: Option<u64>,
    key_frame_wanted: bool,
    stats: NackStats,
    window_packets: u32,
    window_lost: u32,
    echoing: bool,
    /// How long the packet that came last had been asked for.
    answered: Option<Duration>,
}

impl NackGenerator {
    /// A generator that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        NackGenerator {
            missing: VecDeque::with_capacity(MAX_MISSING),
            ..NackGenerator::default()
        }
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> NackStats {
        self.stats
    }

    /// Missing packets that are waited for.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// The packet with this extended sequence number arrived.
    pub fn on_packet(&mut self, now: Time, sequence: u64) {
        let Some(newest) = self.newest else {
            self.newest = Some(sequence);
            return;
        };
        if sequence <= newest {
            if let Ok(index) = self.missing.binary_search_by_key(&sequence, |m| m.sequence)
                && let Some(missing) = self.missing.remove(index)
            {
                self.stats.recovered += 1;
                // Of several requests nobody knows which was answered; an echo is soon enough
                // after its request not to matter.
                self.answered = (missing.requests == 1).then(|| now - missing.asked);
            }
            return;
        }
        self.newest = Some(sequence);
        self.judge_loss(sequence - newest);
        if sequence - newest - 1 > (MAX_MISSING - self.missing.len()) as u64 {
            self.give_up_all();
            return;
        }
        for sequence in newest + 1..sequence {
            let due = now + REORDER_TIME;
            self.missing.push_back(Missing {
                sequence,
                noticed: now,
                due,
                requests: 0,
                asked: Time::NEVER,
                echo: false,
            });
        }
        self.hasten(now, sequence);
    }

    /// Gaps that enough later packets have passed are not reordering.
    fn hasten(&mut self, now: Time, newest: u64) {
        for missing in self.missing.iter_mut().rev() {
            if missing.requests > 0 {
                return;
            }
            if newest - missing.sequence >= REORDER_PACKETS {
                missing.due = missing.due.min(now);
            }
        }
    }

    fn judge_loss(&mut self, step: u64) {
        let step = u32::try_from(step).unwrap_or(LOSS_WINDOW).min(LOSS_WINDOW);
        self.window_packets += step;
        self.window_lost += step - 1;
        if self.window_packets >= LOSS_WINDOW {
            self.echoing = self.window_lost * 100 > self.window_packets * ECHO_LOSS_PERCENT;
            (self.window_packets, self.window_lost) = (0, 0);
        }
    }

    fn give_up_all(&mut self) {
        self.stats.given_up += self.missing.len() as u64;
        self.missing.clear();
        self.key_frame_wanted = true;
    }

    /// A key frame starts at `sequence`: nothing before it is needed any more.
    pub fn on_key_frame(&mut self, sequence: u64) {
        let needless = self
            .missing
            .iter()
            .take_while(|m| m.sequence < sequence)
            .count();
        self.missing.drain(..needless);
        self.key_frame_wanted = false;
    }

    /// Whether so much was given up that only a key frame helps. Says so once.
    pub fn take_key_frame_request(&mut self) -> bool {
        std::mem::take(&mut self.key_frame_wanted)
    }

    /// How long the packet that came last took to come after it was asked for: the round trip, if
    /// it is a retransmission. Says so once.
    pub fn take_round_trip(&mut self) -> Option<Duration> {
        self.answered.take()
    }

    /// When [`poll`](Self::poll) has something to do; [`Time::NEVER`] if nothing is missing.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.missing
            .iter()
            .map(|m| m.due)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// The sequence numbers to ask for now, at most 64 and in ascending order, over a path with
    /// this round trip. Empty when all that was due has been asked for.
    pub fn poll(&mut self, now: Time, rtt: Duration) -> impl Iterator<Item = u16> + use<> {
        self.give_up_old(now);
        let retry = (rtt * RETRY_PERCENT / 100 + RETRY_SLACK).clamp(RETRY_MIN, RETRY_MAX);
        let echo_after = (rtt * ECHO_PERCENT / 100).clamp(RETRY_MIN / 2, RETRY_MAX / 2);
        let mut numbers = [0u16; MAX_PER_REQUEST];
        let mut count = 0;
        for missing in self.missing.iter_mut().filter(|m| m.due <= now) {
            let Some(place) = numbers.get_mut(count) else {
                break;
            };
            *place = missing.sequence as u16;
            count += 1;
            if missing.echo {
                missing.echo = false;
                missing.due = now + retry.saturating_sub(echo_after);
            } else {
                if missing.requests == 0 {
                    missing.asked = now;
                }
                missing.requests += 1;
                self.stats.requested += 1;
                missing.echo = self.echoing;
                missing.due = now + if self.echoing { echo_after } else { retry };
            }
        }
        numbers.into_iter().take(count)
    }

    fn give_up_old(&mut self, now: Time) {
        let before = self.missing.len();
        self.missing.retain(|m| {
            let spent = m.requests >= MAX_REQUESTS && m.due <= now;
            !spent && now - m.noticed < GIVE_UP_AGE
        });
        let gone = before - self.missing.len();
        self.stats.given_up += gone as u64;
        self.key_frame_wanted |= gone > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealcast_netsim::Rng;
    use std::collections::BTreeSet;

    const RTT: Duration = Duration::from_millis(50);

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn ask(nack: &mut NackGenerator, now: Time) -> Vec<u16> {
        nack.poll(now, RTT).collect()
    }

    #[test]
    fn reordering_is_not_loss() {
        let mut nack = NackGenerator::new();
        for sequence in [100, 102, 101, 103, 105, 106, 104] {
            nack.on_packet(ms(0), sequence);
        }
        assert_eq!(nack.poll_timeout(), Time::NEVER);
        assert_eq!(ask(&mut nack, ms(100)), []);
    }

    #[test]
    fn an_answer_tells_the_round_trip() {
        let mut nack = NackGenerator::new();
        for sequence in [1, 5] {
            nack.on_packet(ms(0), sequence);
        }
        assert_eq!(ask(&mut nack, ms(8)), [2, 3, 4]);
        nack.on_packet(ms(60), 3);
        assert_eq!(nack.take_round_trip(), Some(Duration::from_millis(52)));
        assert_eq!(nack.take_round_trip(), None);
        // Asked for twice: it may be the answer to either.
        assert_eq!(ask(&mut nack, ms(70)), [2, 4]);
        nack.on_packet(ms(90), 4);
        assert_eq!(nack.take_round_trip(), None);
    }

    #[test]
    fn a_gap_is_asked_for_once_a_round_trip_until_it_comes() {
        let mut nack = NackGenerator::new();
        nack.on_packet(ms(0), 65_534);
        nack.on_packet(ms(0), 65_537);
        assert_eq!(nack.poll_timeout(), ms(8));
        assert_eq!(ask(&mut nack, ms(7)), []);
        assert_eq!(ask(&mut nack, ms(8)), [65_535, 0]);
        assert_eq!(ask(&mut nack, ms(8)), []);
        nack.on_packet(ms(40), 65_536);
        assert_eq!(nack.poll_timeout(), Time::from_micros(8_000 + 55_500));
        assert_eq!(ask(&mut nack, ms(64)), [65_535]);
        nack.on_packet(ms(100), 65_535);
        assert_eq!((nack.missing(), nack.poll_timeout()), (0, Time::NEVER));
        assert_eq!(
            nack.stats(),
            NackStats {
                requested: 3,
                recovered: 2,
                given_up: 0
            }
        );
    }

    #[test]
    fn three_later_packets_make_a_gap_loss_at_once() {
        let mut nack = NackGenerator::new();
        for sequence in [1, 3, 4, 5] {
            nack.on_packet(ms(1), sequence);
        }
        assert_eq!(ask(&mut nack, ms(1)), [2]);
    }

    #[test]
    fn what_never_comes_is_given_up_for_a_key_frame() {
        let mut nack = NackGenerator::new();
        nack.on_packet(ms(0), 1);
        nack.on_packet(ms(0), 3);
        let mut asked = 0;
        let mut now = ms(0);
        while nack.poll_timeout() != Time::NEVER {
            now = now.max(nack.poll_timeout());
            asked += ask(&mut nack, now).len();
        }
        assert_eq!(asked, usize::from(MAX_REQUESTS));
        assert!(now < ms(1_000));
        assert!(nack.take_key_frame_request() && !nack.take_key_frame_request());
        assert_eq!(nack.stats().given_up, 1);
    }

    #[test]
    fn an_outage_asks_for_a_key_frame_and_for_nothing_else() {
        let mut nack = NackGenerator::new();
        nack.on_packet(ms(0), 1);
        nack.on_packet(ms(0), 1_000);
        assert!(nack.take_key_frame_request());
        assert_eq!((nack.missing(), nack.poll_timeout()), (0, Time::NEVER));
    }

    #[test]
    fn a_key_frame_makes_what_was_before_it_needless() {
        let mut nack = NackGenerator::new();
        nack.on_packet(ms(0), 1);
        nack.on_packet(ms(0), 5);
        nack.on_packet(ms(0), 8);
        nack.on_key_frame(5);
        assert_eq!(ask(&mut nack, ms(10)), [6, 7]);
        assert!(!nack.take_key_frame_request());
    }

    /// A stream of 300 packets a second over a path that loses `loss` of everything both ways.
    /// Returns the share of packets that never came within 200 ms, and retransmissions by packet
    /// lost.
    fn run(loss: f64, seed: u64) -> (f64, f64) {
        let (mut nack, mut rng) = (NackGenerator::new(), Rng::new(seed));
        let total = 60_000u64;
        let mut events = std::collections::BTreeMap::new();
        for i in 0..total {
            events.insert((i * 3_333, 0, i), false);
        }
        let mut late = 0;
        let (mut sent_again, mut lost) = (0u64, 0u64);
        let mut last_answer = std::collections::HashMap::new();
        let mut arrived = vec![false; total as usize];
        while let Some(((micros, _, sequence), retransmission)) = events.pop_first() {
            let now = Time::from_micros(micros);
            if rng.chance(loss) {
                lost += u64::from(!retransmission);
            } else {
                let origin = sequence * 3_333;
                late += u64::from(!arrived[sequence as usize] && micros - origin > 200_000);
                arrived[sequence as usize] = true;
                nack.on_packet(now, sequence);
            }
            let next = events.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
            while nack.poll_timeout() < Time::from_micros(next) {
                let at = nack.poll_timeout().max(now);
                let newest = nack.newest.expect("packets came");
                for number in nack.poll(at, RTT).collect::<Vec<_>>() {
                    let sequence = newest - u64::from((newest as u16).wrapping_sub(number));
                    // The sender hears it half a round trip later, and answers once a round trip.
                    let heard = at + RTT / 2;
                    let answered = last_answer
                        .get(&sequence)
                        .is_some_and(|t: &Time| heard - *t < RTT);
                    if !rng.chance(loss) && !answered {
                        last_answer.insert(sequence, heard);
                        sent_again += 1;
                        events.insert(((heard + RTT / 2).as_micros(), 1, sequence), true);
                    }
                }
            }
        }
        let never = arrived.iter().filter(|a| !**a).count() as u64;
        (
            (late + never) as f64 / total as f64,
            sent_again as f64 / lost as f64,
        )
    }

    #[test]
    fn a_lossy_path_is_repaired_at_little_cost() {
        for seed in 0..3 {
            let (missed, cost) = run(0.02, seed);
            assert!(missed < 0.000_05, "2 % loss: {missed} missed");
            assert!(cost < 1.3, "2 % loss: {cost} retransmissions for each loss");
            let (missed, cost) = run(0.10, seed);
            assert!(missed < 0.000_3, "10 % loss: {missed} missed");
            assert!(
                cost < 1.3,
                "10 % loss: {cost} retransmissions for each loss"
            );
        }
    }

    proptest! {
        #[test]
        fn exactly_the_missing_are_asked_for(
            packets in prop::collection::vec((prop_oneof![6 => 1i64..4, 2 => -20i64..1, 1 => 1i64..90], 0u64..20), 1..300),
        ) {
            let mut nack = NackGenerator::new();
            let (mut now, mut newest) = (ms(0), 70_000i64);
            nack.on_packet(now, newest as u64);
            let mut got = BTreeSet::from([newest]);
            let first = newest;
            for (step, wait) in packets {
                now += Duration::from_millis(wait);
                let sequence = (newest + step).max(first);
                newest = newest.max(sequence);
                got.insert(sequence);
                nack.on_packet(now, sequence as u64);
                let asked: Vec<_> = nack.poll(now, RTT).collect();
                prop_assert!(asked.len() <= MAX_PER_REQUEST);
                let asked: Vec<i64> = asked.iter().map(|n| newest - i64::from((newest as u16).wrapping_sub(*n))).collect();
                prop_assert!(asked.is_sorted());
                for number in asked {
                    prop_assert!(!got.contains(&number) && number > first && number < newest);
                }
                prop_assert!(nack.missing() <= MAX_MISSING);
                let gaps = (first..newest).filter(|n| !got.contains(n)).count();
                prop_assert!(nack.missing() <= gaps);
                prop_assert_eq!(nack.missing() == 0, nack.poll_timeout() == Time::NEVER);
            }
        }
    }
}
