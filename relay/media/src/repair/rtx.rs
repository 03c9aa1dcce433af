//! Sending packets again to one subscriber (RFC 4588): how often, how many, under which number.

use sealcast_model::Time;
use std::time::Duration;

/// Retransmissions may take this share of what the stream itself sends, in percent. A receiver
/// that loses more needs a lower layer, not more packets on a path that is full.
const BUDGET_PERCENT: u64 = 20;

/// Unused budget is kept up to this many bytes, which is also what a new stream starts with: a
/// lost key frame of 40 kB may be sent again whole.
const BUDGET_MAX: u64 = 40_000 * 100;

/// Outgoing packets whose last retransmission is remembered. A power of two; a second of 5 Mbit/s.
const REMEMBERED: usize = 512;

/// Shortest time between two retransmissions of one packet, whatever the round trip is said to be.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// Retransmissions whose original is remembered, so that their loss can be made good. A power of
/// two; a second of 10 % lost of 5 Mbit/s, and then some.
const CARRIED: usize = 256;

/// Why a packet is to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtxCause {
    /// The subscriber asked for it (a NACK).
    Asked,
    /// Transport-wide feedback says that the packet was lost ...
    Lost,
    /// ... or that the retransmission of it under this sequence number was.
    LostAgain(u16),
    /// It has just been sent again, and for safety goes twice.
    Copy,
}

/// Why a packet is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtxRefusal {
    /// It was, less than a round trip ago: that one may still be under way.
    TooSoon,
    /// The stream's share for retransmissions is used up.
    OverBudget,
}

/// The retransmissions of one outgoing stream.
#[derive(Debug)]
pub struct RtxSender {
    /// Next packet index of the retransmission stream: `ROC << 16 | sequence number`.
    next_index: u64,
    /// Bytes that may be sent, times 100.
    budget: u64,
    /// Outgoing index, time and number of the last retransmission, at place `index % REMEMBERED`.
    sent: Box<[(u64, Time, u16)]>,
    /// Sequence numbers of a retransmission and of what it carried, at place `number % CARRIED`.
    carried: Box<[Option<(u16, u16)>]>,
}

impl RtxSender {
    /// A sender whose stream starts at `first_sequence`. Of that only the lower 15 bits count, so
    /// that the loss of the first packets cannot hide a wrap (RFC 3711, section 3.3.1).
    #[must_use]
    pub fn new(first_sequence: u16) -> Self {
        RtxSender {
            next_index: u64::from(first_sequence & 0x7fff),
            budget: BUDGET_MAX,
            sent: vec![(u64::MAX, Time::ZERO, 0); REMEMBERED].into_boxed_slice(),
            carried: vec![None; CARRIED].into_boxed_slice(),
        }
    }

    /// The stream itself sent `bytes`: that earns budget.
    #[inline]
    pub fn on_media(&mut self, bytes: u16) {
        self.budget = (self.budget + u64::from(bytes) * BUDGET_PERCENT).min(BUDGET_MAX);
    }

    /// The outgoing packet `index`, of `bytes`, is to be sent again over a path with this round
    /// trip. Gives the packet index to send it under; that index is then used up.
    ///
    /// # Errors
    /// Says why it is not to be sent.
    pub fn request(
        &mut self,
        now: Time,
        index: u64,
        bytes: u16,
        rtt: Duration,
        cause: RtxCause,
    ) -> Result<u64, RtxRefusal> {
        let place = &mut self.sent[index as usize % REMEMBERED];
        let before = Some(*place).filter(|(sent, ..)| *sent == index);
        let under_way = before.is_some_and(|(_, at, number)| match cause {
            RtxCause::Asked => now - at < rtt.max(MIN_INTERVAL),
            // It was missed earlier by other means.
            RtxCause::Lost => true,
            RtxCause::LostAgain(lost) => number != lost,
            RtxCause::Copy => false,
        });
        if under_way {
            return Err(RtxRefusal::TooSoon);
        }
        let cost = u64::from(bytes) * 100;
        if cost > self.budget {
            return Err(RtxRefusal::OverBudget);
        }
        self.budget -= cost;
        let number = self.next_index as u16;
        *place = (index, now, number);
        self.carried[usize::from(number) % CARRIED] = Some((number, index as u16));
        Ok(self.take_index())
    }

    /// Whether the outgoing packet `index` was sent again before, as far as is remembered.
    #[must_use]
    pub fn has_sent(&self, index: u64) -> bool {
        self.sent[index as usize % REMEMBERED].0 == index
    }

    /// The sequence number of the packet that the retransmission `number` carried, if that is
    /// remembered.
    #[must_use]
    pub fn carried_by(&self, number: u16) -> Option<u16> {
        let (rtx, original) = self.carried[usize::from(number) % CARRIED]?;
        (rtx == number).then_some(original)
    }

    /// An index for a packet that repairs nothing: padding of a probe.
    pub fn take_index(&mut self) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const RTT: Duration = Duration::from_millis(50);

    #[test]
    fn once_in_a_round_trip() {
        let mut rtx = RtxSender::new(0xffff);
        let ms = Time::from_millis;
        assert_eq!(
            rtx.request(ms(0), 9, 1_000, RTT, RtxCause::Asked),
            Ok(0x7fff)
        );
        assert_eq!(
            rtx.request(ms(49), 9, 1_000, RTT, RtxCause::Asked),
            Err(RtxRefusal::TooSoon)
        );
        assert_eq!(
            rtx.request(ms(49), 10, 1_000, RTT, RtxCause::Asked),
            Ok(0x8000)
        );
        assert_eq!(
            rtx.request(ms(50), 9, 1_000, RTT, RtxCause::Asked),
            Ok(0x8001)
        );
        assert_eq!(
            rtx.request(ms(51), 9, 1_000, Duration::ZERO, RtxCause::Asked),
            Err(RtxRefusal::TooSoon)
        );
        assert_eq!(rtx.take_index(), 0x8002);
    }

    #[test]
    fn feedback_repairs_what_no_request_has() {
        let mut rtx = RtxSender::new(100);
        let ms = Time::from_millis;
        assert_eq!(rtx.request(ms(0), 9, 1_000, RTT, RtxCause::Lost), Ok(100));
        assert_eq!(rtx.carried_by(100), Some(9));
        assert_eq!(rtx.carried_by(101), None);
        // The loss of the original is told again, or asked for too late to have known.
        for cause in [RtxCause::Lost, RtxCause::Asked] {
            let again = rtx.request(ms(30), 9, 1_000, RTT, cause);
            assert_eq!(again, Err(RtxRefusal::TooSoon));
        }
        // The retransmission was lost as well: that is known sooner than a request would tell.
        let lost = RtxCause::LostAgain(100);
        assert_eq!(rtx.request(ms(40), 9, 1_000, RTT, lost), Ok(101));
        assert_eq!(
            rtx.request(ms(41), 9, 1_000, RTT, lost),
            Err(RtxRefusal::TooSoon)
        );
    }

    proptest! {
        #[test]
        fn budget_and_interval_hold(
            ops in prop::collection::vec((0u64..2_000, 0u64..60, 100u16..1_300, any::<bool>()), 1..600),
        ) {
            let mut rtx = RtxSender::new(1);
            let (mut now, mut index) = (Time::ZERO, 0u64);
            let (mut media, mut again) = (0u64, 0u64);
            let mut last: BTreeMap<u64, Time> = BTreeMap::new();
            let mut next = 1;
            for (wait, back, bytes, ask) in ops {
                now += Duration::from_micros(wait * 10);
                if !ask {
                    index += 1;
                    media += u64::from(bytes);
                    rtx.on_media(bytes);
                    continue;
                }
                let wanted = index.saturating_sub(back);
                let recent = last.get(&wanted).is_some_and(|t| now - *t < RTT);
                match rtx.request(now, wanted, bytes, RTT, RtxCause::Asked) {
                    Ok(number) => {
                        prop_assert!(!recent);
                        prop_assert_eq!(number, next);
                        next += 1;
                        again += u64::from(bytes);
                        last.insert(wanted, now);
                    }
                    Err(RtxRefusal::TooSoon) => prop_assert!(recent),
                    Err(RtxRefusal::OverBudget) => prop_assert!(again + 1_300 > media / 5),
                }
                prop_assert!(again <= media / 5 + 40_000);
            }
        }
    }
}
