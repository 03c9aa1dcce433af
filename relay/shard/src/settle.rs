//! What a shard does with the outputs of sessions and of the media plane.

use crate::mesh::Letter;
use crate::notices::Notice;
use crate::sessions::{DataVerdict, Panicked};
use crate::shard::Shard;
use sealcast_media::{MediaEvent, PeerKey};
use sealcast_model::{CloseReason, Counter, Event, Gauge, Time};
use sealcast_session::{Session, SessionOutput};
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Shard {
    /// Runs one step of a session and everything that follows from it. `None` if there is no such
    /// session or the step panicked.
    pub(crate) fn drive<R>(
        &mut self,
        now: Time,
        key: u32,
        f: impl FnOnce(&mut Session) -> R,
    ) -> Option<R> {
        let step = self.sessions.step(key, f);
        self.settle(now, key, step)
    }

    /// Does what a session wants done after a step, and arms its timer.
    #[inline]
    pub(crate) fn settle<R>(
        &mut self,
        now: Time,
        key: u32,
        step: Option<Result<(R, Option<SessionOutput>), Panicked>>,
    ) -> Option<R> {
        let (result, output) = match step? {
            Ok(step) => step,
            Err(Panicked) => {
                self.contain(now, key);
                return None;
            }
        };
        if output.is_some() {
            self.drain(now, key, output);
        }
        let entry = self.sessions.get(key)?;
        let deadline = entry.session.poll_timeout();
        let pending = entry.notices.pending();
        // A timer that fires too early costs less than one that is moved with each packet.
        if !self.wheel.covers(key, deadline) {
            self.wheel.set(key, deadline);
        }
        if pending {
            self.send_notices(now, key);
        }
        Some(result)
    }

    /// Handles `output` and all that follow it.
    fn drain(&mut self, now: Time, key: u32, output: Option<SessionOutput>) {
        let mut next = output;
        while let Some(output) = next {
            self.on_output(now, key, output);
            next = match self.sessions.step(key, |_| ()) {
                Some(Ok(((), output))) => output,
                Some(Err(Panicked)) => return self.contain(now, key),
                None => return,
            };
        }
    }

    fn on_output(&mut self, now: Time, key: u32, output: SessionOutput) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let session = entry.id;
        match output {
            SessionOutput::Transmit { path, bytes } => {
                if !self.batch.append(&path, &bytes) {
                    self.count(Counter::DropEgressFull);
                }
            }
            SessionOutput::PathAdded(path) => {
                self.demux.add_path(path, key, &mut entry.paths);
                self.announce(Letter::Route, path);
            }
            SessionOutput::PathRemoved(path) => {
                self.demux.remove_path(&path, key, &mut entry.paths);
                self.announce(Letter::Unroute, path);
            }
            SessionOutput::PathMoved => {
                if entry.session.path().is_some() && std::mem::replace(&mut entry.had_path, true) {
                    self.count(Counter::PathChanges);
                }
            }
            SessionOutput::Connected { dtls, srtp_profile } => {
                let transport = Shard::transport(entry.session.path());
                if !srtp_profile.is_aead() {
                    self.media.peer_seals_slowly(PeerKey(key));
                }
                self.media.peer_connected(now, PeerKey(key));
                self.count(Counter::SessionsConnected);
                self.events.push(Event::SessionConnected {
                    session,
                    transport,
                    dtls,
                    srtp_profile: srtp_profile.name(),
                });
            }
            SessionOutput::DataOpen => {
                entry.notices.channel_opened();
                self.events.push(Event::DataOpen { session });
            }
            SessionOutput::Data { binary, data } => match entry.data_in.judge(now) {
                DataVerdict::Pass => {
                    let event = Event::Data {
                        session,
                        binary,
                        data,
                    };
                    if !self.events.push_data(event) {
                        self.count(Counter::EventsDropped);
                    }
                }
                verdict => {
                    if verdict == DataVerdict::Refuse {
                        entry.notices.tell(Notice::DataRate);
                    }
                    self.count(Counter::DropDataRate);
                }
            },
            SessionOutput::DataRefused => self.count(Counter::DropDataMessage),
            SessionOutput::Closed(reason) => {
                let reason = entry.closing.unwrap_or(reason);
                self.remove_session(now, key, reason);
            }
        }
    }

    /// Sends slot notices until they are sent or the channel takes no more.
    fn send_notices(&mut self, now: Time, key: u32) {
        let Some(entry) = self.sessions.get_mut(key) else {
            return;
        };
        let mut notices = std::mem::take(&mut entry.notices);
        let mut step = self.sessions.step(key, |session| {
            notices.flush(|text| session.send_data(now, false, text).is_ok());
        });
        if let Some(Ok((_, output))) = &mut step {
            let output = output.take();
            self.drain(now, key, output);
        }
        if let Some(Err(Panicked)) = step {
            return self.contain(now, key);
        }
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.notices = notices;
            let deadline = entry.session.poll_timeout();
            if !self.wheel.covers(key, deadline) {
                self.wheel.set(key, deadline);
            }
        }
    }

    /// Passes on what the media plane has to tell.
    pub(crate) fn take_media_events(&mut self, now: Time) {
        while let Some(event) = self.media.poll_event() {
            match event {
                MediaEvent::SlotChanged {
                    peer,
                    slot,
                    mid,
                    track,
                    paused,
                    revision,
                } => {
                    if let Some(entry) = self.sessions.get_mut(peer.0) {
                        entry.notices.set(crate::notices::SlotState {
                            slot,
                            mid,
                            track,
                            paused,
                            revision,
                        });
                        if entry.notices.pending() {
                            self.send_notices(now, peer.0);
                        }
                    }
                }
                MediaEvent::SpeakerChanged { peer, track } => {
                    self.tell(now, peer.0, Notice::Speaker(track));
                }
                MediaEvent::PathEstimated { peer, bitrate } => {
                    self.tell(now, peer.0, Notice::Estimate(bitrate));
                }
                MediaEvent::EncodingsWanted {
                    peer,
                    mid,
                    active,
                    count,
                } => self.tell(now, peer.0, Notice::Encodings { mid, active, count }),
                MediaEvent::TrackBlocked { track } => {
                    self.events.push(Event::TrackBlocked { track });
                }
                MediaEvent::TrackStarted { track } => {
                    self.events.push(Event::TrackStarted { track });
                }
            }
        }
    }

    /// Tells a client something beside its slots.
    fn tell(&mut self, now: Time, key: u32, notice: Notice) {
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.notices.tell(notice);
            if entry.notices.pending() {
                self.send_notices(now, key);
            }
        }
    }

    /// Forgets a session that has ended, whatever state it is in.
    pub(crate) fn remove_session(&mut self, now: Time, key: u32, reason: CloseReason) {
        let Some(mut entry) = self.sessions.remove(key) else {
            return;
        };
        self.wheel.cancel(key);
        for path in &entry.paths {
            self.announce(Letter::Unroute, *path);
        }
        self.demux.remove_paths(key, &mut entry.paths);
        self.demux.remove_ufrag(&entry.ufrag);
        self.by_id.remove(&entry.id);
        let (media, pool) = (&mut self.media, &mut self.pool);
        let removal = AssertUnwindSafe(|| media.remove_peer(now, pool, PeerKey(key)));
        if catch_unwind(removal).is_err() {
            self.count(Counter::SessionPanics);
        }
        self.stats.closed(reason);
        self.events.push(Event::SessionClosed {
            session: entry.id,
            reason,
        });
        self.stats.set(Gauge::Sessions, self.sessions.len() as u64);
        // What a session left half done when it panicked may not survive being dropped either.
        if catch_unwind(AssertUnwindSafe(|| drop(entry))).is_err() {
            self.count(Counter::SessionPanics);
        }
        self.take_media_events(now);
    }
}
