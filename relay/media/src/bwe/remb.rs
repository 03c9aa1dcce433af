//! The receiver's own estimate (REMB), for paths without other feedback.
//!
//! A receiver that estimates by itself knows no more than what it gets: it starts with that and
//! claims at most half as much again (draft-alvestrand-rmcat-congestion-03, section 3.1). So its
//! word says something of the path only when it falls: then a queue grew. Taken for the capacity
//! it would stop a stream that flows well, and a stream that is stopped gives the receiver nothing
//! to raise its estimate by. So a bound is also given up after a while, to see.

use sealcast_model::Time;
use std::time::Duration;

/// An estimate below this share of the one before has fallen; what is less is rounding.
const FALLEN: f64 = 0.97;

/// It tells of congestion if it also is less than this share of what is sent. Receivers count
/// payloads, we count packets with their headers.
const OF_SENT: f64 = 1.2;

/// A first estimate, or one that did not fall, tells of congestion only below this share.
const FAR_BELOW_SENT: f64 = 0.5;

/// A bound holds at least this long, and longer each time that it comes back ...
const HOLD: Duration = Duration::from_secs(8);
const HOLD_MAX: Duration = Duration::from_secs(60);
/// ... unless it stayed away for this long.
const FORGET: Duration = Duration::from_secs(60);

/// What REMBs say of one path.
#[derive(Debug)]
pub(super) struct RembBound {
    last: Option<u64>,
    bound: Option<u64>,
    /// When the bound is given up.
    until: Time,
    hold: Duration,
}

impl Default for RembBound {
    fn default() -> Self {
        RembBound {
            last: None,
            bound: None,
            until: Time::NEVER,
            hold: HOLD,
        }
    }
}

impl RembBound {
    /// Whether there was one at all.
    pub(super) fn is_heard(&self) -> bool {
        self.last.is_some()
    }

    /// Bits per second that the path is held to carry; `None` if nothing speaks against any rate.
    pub(super) fn bound(&self) -> Option<u64> {
        self.bound
    }

    /// The receiver estimates `bitrate` while `sent` bits per second are sent to it.
    pub(super) fn on_remb(&mut self, now: Time, bitrate: u64, sent: u64) {
        let fell = self
            .last
            .is_some_and(|last| (bitrate as f64) < last as f64 * FALLEN);
        self.last = Some(bitrate);
        let share = if fell { OF_SENT } else { FAR_BELOW_SENT };
        if (bitrate as f64) < sent as f64 * share {
            if self.bound.is_none() {
                self.hold = match self.until {
                    Time::NEVER => HOLD,
                    given_up if now - given_up > FORGET => HOLD,
                    _ => (self.hold * 2).min(HOLD_MAX),
                };
            }
            self.bound = Some(bitrate);
            self.until = now + self.hold;
        } else if let Some(bound) = &mut self.bound {
            *bound = (*bound).max(bitrate);
        }
    }

    /// Time has passed: the bound may be over.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if self.bound.is_some() && now >= self.until {
            self.bound = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    #[test]
    fn an_estimate_that_is_no_more_than_what_is_sent_binds_nothing() {
        // A receiver that starts with the payload it counted, and grows by 8 % a second up to half
        // as much again.
        let mut remb = RembBound::default();
        assert!(!remb.is_heard());
        let mut claim = 850_000;
        for n in 0..60 {
            remb.on_remb(s(n), claim, 1_000_000);
            claim = (claim + claim / 12).min(1_285_000);
            assert_eq!(remb.bound(), None);
        }
        assert!(remb.is_heard());
    }

    #[test]
    fn one_that_falls_binds_until_it_rises_or_has_stood_long_enough() {
        let mut remb = RembBound::default();
        remb.on_remb(s(0), 1_500_000, 1_000_000);
        remb.on_remb(s(1), 600_000, 1_000_000);
        assert_eq!(remb.bound(), Some(600_000));
        remb.on_remb(s(2), 630_000, 500_000);
        assert_eq!(remb.bound(), Some(630_000));
        remb.handle_timeout(s(8));
        assert_eq!(remb.bound(), Some(630_000));
        // Nothing is sent any more, and nothing said: it is tried again.
        remb.handle_timeout(s(9));
        assert_eq!(remb.bound(), None);
        // It was right. The next trial is later.
        remb.on_remb(s(10), 400_000, 1_000_000);
        remb.handle_timeout(s(25));
        assert_eq!(remb.bound(), Some(400_000));
        remb.handle_timeout(s(26));
        assert_eq!(remb.bound(), None);
        // It was away for long: the holding starts over.
        remb.on_remb(s(100), 300_000, 1_000_000);
        remb.handle_timeout(s(108));
        assert_eq!(remb.bound(), None);
    }
}
