//! One slot of a session, as the meter sees it: what it is to show, what came, what was due.

use super::account::Account;
use super::playout::Playout;
use super::registry::{Registry, Stream};
use crate::model::Codec;
use crate::peer::{ReceiveStats, Received};
use crate::result::{Counter, Hist};
use sealcast_model::Time;
use std::sync::Arc;
use std::time::Duration;

/// Frames of the track that a slot showed before are no fault for this long after a change.
pub(super) const CHANGE_GRACE: Duration = Duration::from_secs(2);
/// A track of which nothing came for this long, though it was sent, is silent.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// And if at least this many frames of it were sent.
const SILENT_FRAMES: u64 = 25;

/// One slot.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) shows: Option<Shown>,
    /// The track before, and until when its frames are no fault.
    pub(super) before: Option<(String, Time)>,
    pub(super) playout: Playout,
    pub(super) received: ReceiveStats,
    /// It shows whatever comes, as a player of WHEP does. Until something has, this is what and
    /// since when.
    pub(super) follows: bool,
    pub(super) awaits: Option<(Codec, Time)>,
    /// The stream that the latest frame was of.
    pub(super) stream: Option<(u64, Arc<Stream>)>,
}

/// A track in a slot.
pub(super) struct Shown {
    pub(super) track: String,
    pub(super) since: Time,
    /// A change of tracks whose first frame has not come.
    changing: bool,
    /// Frames sent when it was assigned.
    sent_then: u64,
    /// The first frame to expect, and the next: `None` before the first arrived.
    first: u64,
    next: Option<u64>,
    /// The highest frame received.
    highest: u64,
    /// Frames sent as of the window before: what was sent since may still be on its way.
    sent_before: u64,
    silent: bool,
    /// Since when the relay says that nothing of it comes, as far as that was counted.
    paused: Option<Time>,
}

impl Slot {
    pub(super) fn show(&mut self, registry: &Registry, now: Time, track: Option<String>) {
        let changing = self.before.is_some();
        self.playout = Playout::default();
        self.shows = track.map(|track| {
            let sent = registry.of_track(&track).map_or(0, |s| s.sent());
            Shown {
                track,
                since: now,
                changing,
                sent_then: sent,
                first: 0,
                next: None,
                highest: 0,
                sent_before: sent,
                silent: false,
                paused: None,
            }
        });
    }

    /// A player's slot shows another stream from this frame on.
    pub(super) fn follow(
        &mut self,
        registry: &Registry,
        account: &mut Account,
        stream: &Stream,
        now: Time,
    ) {
        let Some(track) = stream.track.get() else {
            return;
        };
        self.awaits = None;
        if !self.follows || self.shows.as_ref().is_some_and(|s| s.track == *track) {
            return;
        }
        if let Some(before) = self.shows.take() {
            before.settle(account, Some(stream.codec));
        }
        self.show(registry, now, Some(track.clone()));
    }

    /// The stream of a frame; `None` if it is nobody's of this run.
    pub(super) fn stream_of(
        &mut self,
        registry: &Registry,
        account: &mut Account,
        frame: &Received,
    ) -> Option<Arc<Stream>> {
        let name = frame.info.stream;
        match &self.stream {
            Some((known, stream)) if *known == name => Some(Arc::clone(stream)),
            before => {
                let stream = registry.stream(name)?;
                let same = before
                    .as_ref()
                    .is_some_and(|(_, b)| Arc::ptr_eq(b, &stream));
                if same {
                    account.add(Counter::LayerChanges, 1);
                }
                self.stream = Some((name, Arc::clone(&stream)));
                Some(stream)
            }
        }
    }

    /// The slot shows this stream's track, or did until a moment ago.
    pub(super) fn expects(&self, stream: &Stream, now: Time) -> bool {
        let Some(track) = stream.track.get() else {
            return true; // Its publisher has not been told its id yet.
        };
        self.shows.as_ref().is_some_and(|s| s.track == *track)
            || self
                .before
                .as_ref()
                .is_some_and(|(before, until)| before == track && now <= *until)
    }

    /// Counts a frame of the track that the slot shows. False for one of the track before.
    pub(super) fn on_received(
        &mut self,
        account: &mut Account,
        stream: &Stream,
        frame: &Received,
        received: Counter,
    ) -> bool {
        let Some(shown) = &mut self.shows else {
            return false;
        };
        if stream.track.get().is_some_and(|t| *t != shown.track) {
            return false;
        }
        let number = frame.info.number;
        // Where encodings change, the relay may show a picture in both.
        let again = frame.codec.is_video() && shown.next.is_some() && number <= shown.highest;
        // What was sent before the first frame that arrived was not meant for this slot.
        if shown.next.is_none() {
            (shown.first, shown.next) = (number, Some(number));
        }
        if number >= shown.first && !again {
            account.add(received, 1);
        }
        shown.highest = shown.highest.max(number);
        if shown.changing && frame.decodable {
            shown.changing = false;
            let waited = frame.complete.saturating_since(shown.since);
            account.record(Hist::SlotChange, waited);
        }
        true
    }

    pub(super) fn play(&mut self, account: &mut Account, frame: &Received, video: bool) {
        let played = self.playout.on_frame(frame.info.due, frame.complete);
        let buffer = if video {
            Hist::VideoBuffer
        } else {
            Hist::AudioBuffer
        };
        account.record(buffer, played.buffered);
        if video {
            account.add(Counter::VideoShownMillis, millis(played.gap));
            if played.freeze {
                account.record(Hist::Freeze, played.gap);
            }
        } else if played.late {
            account.add(Counter::AudioLate, 1);
        }
    }

    /// The relay says whether anything of the track comes (PROTOCOL.md §8). What is sent during a
    /// pause is not expected.
    pub(super) fn set_paused(&mut self, now: Time, account: &mut Account, paused: bool) {
        self.count_pause(now, account);
        let codec = self.stream.as_ref().map(|(_, s)| s.codec);
        let Some(shown) = &mut self.shows else { return };
        match (shown.paused, paused) {
            (None, true) => {
                account.add(Counter::Pauses, 1);
                shown.settle(account, codec);
                shown.next = None;
                shown.paused = Some(now);
            }
            (Some(_), false) => {
                // Silent is who is silent from now on.
                (shown.since, shown.sent_then) = (now, shown.sent_before);
                shown.paused = None;
            }
            _ => {}
        }
    }

    /// Counts how long the slot has been paused since this was last called.
    pub(super) fn count_pause(&mut self, now: Time, account: &mut Account) {
        if let Some(since) = self.shows.as_mut().and_then(|s| s.paused.as_mut()) {
            account.add(Counter::PausedMillis, millis(now.saturating_since(*since)));
            *since = now;
        }
    }

    pub(super) fn is_video(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|(_, s)| s.codec.is_video())
    }

    pub(super) fn count(&mut self, account: &mut Account, stats: ReceiveStats) {
        let then = std::mem::replace(&mut self.received, stats);
        let (d, t) = (stats.depacketizer, then.depacketizer);
        for (counter, n) in [
            (Counter::PacketsReceived, stats.packets - then.packets),
            (Counter::OctetsReceived, stats.octets - then.octets),
            (Counter::Repaired, stats.repaired - then.repaired),
            (Counter::Nacks, stats.nacks - then.nacks),
            (Counter::Plis, stats.plis - then.plis),
            (Counter::PacketsLost, d.lost - t.lost),
            (Counter::PacketsLate, d.late - t.late),
            (Counter::FramesBroken, d.broken - t.broken),
        ] {
            account.add(counter, n);
        }
    }

    pub(super) fn count_expected(
        &mut self,
        registry: &Registry,
        account: &mut Account,
        now: Time,
        last: bool,
    ) {
        let Some(shown) = &mut self.shows else { return };
        let Some(stream) = registry.of_track(&shown.track) else {
            return;
        };
        let sent = stream.sent();
        let certain = if last { sent } else { shown.sent_before };
        shown.sent_before = sent;
        if let Some(next) = &mut shown.next {
            account.add(expected(stream.codec), certain.saturating_sub(*next));
            *next = certain.max(*next);
        } else if !shown.silent
            && shown.paused.is_none()
            && now.saturating_since(shown.since) >= SILENT_AFTER
            && sent.saturating_sub(shown.sent_then) >= SILENT_FRAMES
        {
            shown.silent = true;
            // From here on every frame of it is expected.
            (shown.first, shown.next) = (shown.sent_then, Some(shown.sent_then));
            account.add(Counter::SilentSlots, 1);
        }
    }
}

impl Slot {
    /// A player that gets nothing of a kind that its room sends.
    pub(super) fn count_awaited(
        &mut self,
        registry: &Registry,
        account: &mut Account,
        now: Time,
        room: u64,
    ) {
        let Some((codec, since)) = self.awaits else {
            return;
        };
        let long = now.saturating_since(since) >= SILENT_AFTER;
        // Sent for longer than the player has been there: twice what may not have been for it.
        if long && registry.sending(room, codec, SILENT_FRAMES * 4) {
            self.awaits = None;
            account.add(Counter::SilentSlots, 1);
        }
    }
}

impl Shown {
    /// The slot shows it no longer: what came was expected, what may be in flight was not.
    pub(super) fn settle(&self, account: &mut Account, codec: Option<Codec>) {
        if let (Some(next), Some(codec)) = (self.next, codec) {
            let seen = (self.highest + 1).saturating_sub(next);
            account.add(expected(codec), seen);
        }
    }
}

fn expected(codec: Codec) -> Counter {
    if codec.is_video() {
        Counter::VideoExpected
    } else {
        Counter::AudioExpected
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
