//! When to ask a publisher for a key frame: as often as somebody needs one, and not oftener than
//! the publisher can bear.

use crate::limits::KEYFRAME_SILENT_RETRIES;
use sealcast_model::Time;
use sealcast_model::limits::KEYFRAME_REQUEST_INTERVAL;

/// Gathers the wishes of all receivers of one encoding into at most one request in each
/// [`KEYFRAME_REQUEST_INTERVAL`], repeated until a key frame arrives.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyframeRequester {
    wanted: bool,
    last_sent: Option<Time>,
    /// Requests since the stream last sent anything.
    silent: u8,
    /// Command sequence number of the next FIR.
    fir_sequence: u8,
}

impl KeyframeRequester {
    /// A receiver needs a key frame.
    pub(crate) fn request(&mut self) {
        self.wanted = true;
        self.silent = 0;
    }

    /// The stream sent something that is not a key frame.
    pub(crate) fn on_packet(&mut self) {
        self.silent = 0;
    }

    /// The first packet of a key frame arrived.
    pub(crate) fn on_keyframe(&mut self) {
        self.wanted = false;
    }

    /// When the next request may leave; [`Time::NEVER`] if none is wanted.
    pub(crate) fn due(&self) -> Time {
        if !self.wanted || self.silent >= KEYFRAME_SILENT_RETRIES {
            return Time::NEVER;
        }
        self.last_sent
            .map_or(Time::ZERO, |sent| sent + KEYFRAME_REQUEST_INTERVAL)
    }

    /// Whether to send a request now. If so, it counts as sent.
    pub(crate) fn poll(&mut self, now: Time) -> bool {
        if self.due() > now {
            return false;
        }
        self.last_sent = Some(now);
        self.silent = self.silent.saturating_add(1);
        true
    }

    /// The number of the next FIR, which RFC 5104 §4.3.1.1 increments "for each new command".
    /// Each request is a new one: if the publisher had served the last, none would be sent.
    pub(crate) fn next_fir(&mut self) -> u8 {
        let number = self.fir_sequence;
        self.fir_sequence = number.wrapping_add(1);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn wishes_gather_and_repeat_until_served() {
        let mut requester = KeyframeRequester::default();
        let mut now = Time::from_millis(1_000);
        assert!(!requester.poll(now), "nobody asked");
        requester.request();
        assert!(requester.poll(now));
        let mut sent = 1;
        // Receivers that ask every 10 ms for two seconds.
        for _ in 0..200 {
            now += Duration::from_millis(10);
            requester.request();
            sent += u32::from(requester.poll(now));
        }
        assert_eq!(sent, 5);
        requester.on_keyframe();
        assert_eq!(requester.due(), Time::NEVER);
        requester.request();
        assert_eq!(
            requester.due(),
            Time::from_millis(3_500),
            "the interval spans key frames"
        );
    }

    #[test]
    fn a_silent_stream_is_left_alone_until_it_sends() {
        let mut requester = KeyframeRequester::default();
        requester.request();
        let sent = (0..100)
            .filter(|i| requester.poll(Time::from_millis(i * 500)))
            .count();
        assert_eq!(sent, usize::from(KEYFRAME_SILENT_RETRIES));
        requester.on_packet();
        assert!(requester.poll(Time::from_millis(50_000)));
    }
}
