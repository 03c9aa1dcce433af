//! What a media thread measures: events of its peers as they come, statistics of its peers when a
//! window ends.

use super::account::Account;
use super::playout::Playout;
use super::registry::{Registry, Stream};
use crate::driver::{MediaLoop, PeerId, SocketStats};
use crate::model::Codec;
use crate::peer::{PeerEvent, PeerFaults, ReceiveStats, Received, RejectReason, SendStats};
use crate::result::{Counter, Hist};
use sealcast_model::Time;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Frames of the track that a slot showed before are no fault for this long after a change.
const CHANGE_GRACE: Duration = Duration::from_secs(2);
/// A track of which nothing came for this long, though it was sent, is silent.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// And if at least this many frames of it were sent.
const SILENT_FRAMES: u64 = 25;

/// What a client's task is told of its media session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Connected,
    Ended(String),
}

/// One thread's measurements.
pub(super) struct Meter {
    registry: Arc<Registry>,
    sessions: HashMap<u64, Session>,
    pub(super) account: Account,
    sockets: SocketStats,
    cpu: Duration,
}

/// One media session.
struct Session {
    peer: Option<PeerId>,
    room: u64,
    intended: Time,
    answered: Time,
    ice: Option<Time>,
    connected: Option<Time>,
    first_frame: bool,
    senders: Vec<(Arc<Stream>, SendStats)>,
    slots: Vec<Slot>,
    faults: PeerFaults,
    impaired: u64,
    ended: bool,
    notices: UnboundedSender<Notice>,
}

/// One slot.
#[derive(Default)]
struct Slot {
    shows: Option<Shown>,
    /// The track before, and until when its frames are no fault.
    before: Option<(String, Time)>,
    playout: Playout,
    received: ReceiveStats,
    /// It shows whatever comes, as a player of WHEP does. Until something has, this is what and
    /// since when.
    follows: bool,
    awaits: Option<(Codec, Time)>,
    /// The stream that the latest frame was of.
    stream: Option<(u64, Arc<Stream>)>,
}

/// A track in a slot.
struct Shown {
    track: String,
    since: Time,
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
}

impl Meter {
    pub(super) fn new(registry: Arc<Registry>) -> Meter {
        Meter {
            registry,
            sessions: HashMap::new(),
            account: Account::default(),
            sockets: SocketStats::default(),
            cpu: Duration::ZERO,
        }
    }

    /// A session that was offered.
    pub(super) fn open(
        &mut self,
        key: u64,
        room: u64,
        intended: Time,
        notices: UnboundedSender<Notice>,
    ) {
        let session = Session {
            peer: None,
            room,
            intended,
            answered: intended,
            ice: None,
            connected: None,
            first_frame: false,
            senders: vec![],
            slots: vec![],
            faults: PeerFaults::default(),
            impaired: 0,
            ended: false,
            notices,
        };
        self.sessions.insert(key, session);
    }

    /// A session that was answered at `now`.
    pub(super) fn accept(
        &mut self,
        now: Time,
        key: u64,
        peer: PeerId,
        senders: Vec<Arc<Stream>>,
        slots: usize,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        session.peer = Some(peer);
        session.answered = now;
        session.senders = senders
            .into_iter()
            .map(|s| (s, SendStats::default()))
            .collect();
        session.slots.resize_with(slots, Slot::default);
        let http = now.saturating_since(session.intended);
        self.account.record(Hist::JoinHttp, http);
    }

    /// Every slot of a session shows whatever comes, of these codecs.
    pub(super) fn follow(&mut self, now: Time, key: u64, codecs: &[Codec]) {
        if let Some(session) = self.sessions.get_mut(&key) {
            for (slot, codec) in session.slots.iter_mut().zip(codecs) {
                slot.follows = true;
                slot.awaits = Some((*codec, now));
            }
        }
    }

    /// A slot is asked to show another track from now on.
    pub(super) fn assign(&mut self, now: Time, key: u64, slot: usize, track: Option<String>) {
        let Meter {
            registry,
            sessions,
            account,
            ..
        } = self;
        let slot = sessions.get_mut(&key).and_then(|s| s.slots.get_mut(slot));
        let Some(slot) = slot else { return };
        let before = slot.shows.take();
        if let Some(before) = before {
            before.settle(account, slot.stream.as_ref().map(|(_, s)| s.codec));
            slot.before = Some((before.track, now + CHANGE_GRACE));
            if track.is_some() {
                account.add(Counter::SlotChanges, 1);
            }
        }
        slot.show(registry, now, track);
    }

    /// The peer of a session tells something.
    pub(super) fn on_event(&mut self, now: Time, key: u64, event: PeerEvent) {
        let Meter {
            registry,
            sessions,
            account,
            ..
        } = self;
        let Some(session) = sessions.get_mut(&key) else {
            return;
        };
        match event {
            PeerEvent::IceConnected if session.ice.is_none() => {
                session.ice = Some(now);
                account.record(Hist::JoinIce, now.saturating_since(session.answered));
            }
            PeerEvent::Connected { .. } => session.on_connected(now, account),
            PeerEvent::Received(frame) => session.on_frame(registry, account, &frame),
            PeerEvent::Rejected { reason, .. } => account.add(
                match reason {
                    RejectReason::Seal(_) => Counter::SealFailures,
                    RejectReason::Content(_) => Counter::ContentFailures,
                    RejectReason::Repeated => Counter::FramesRepeated,
                },
                1,
            ),
            PeerEvent::Closed => session.end("the relay closed the media session".to_owned()),
            PeerEvent::Failed(e) => session.end(format!("media session: {e}")),
            _ => {}
        }
    }

    /// Tells receivers how much was sent: before [`Meter::harvest`], on every thread.
    pub(super) fn publish_sent(&mut self, media: &mut MediaLoop) {
        for session in self.sessions.values_mut() {
            session.harvest_senders(media, &mut self.account);
        }
    }

    /// Counts what the statistics of peers, sockets and thread say since the last time. `last`:
    /// nothing is in flight any more.
    pub(super) fn harvest(&mut self, now: Time, media: &mut MediaLoop, last: bool) {
        for session in self.sessions.values_mut() {
            session.harvest(now, &self.registry, media, &mut self.account, last);
        }
        let lag = media.take_lag();
        self.account.merge(Hist::SendLag, lag.timers);
        self.account.merge(Hist::ReceiveLag, lag.receive);
        let (then, sockets) = (self.sockets, media.socket_stats());
        self.sockets = sockets;
        for (counter, n) in [
            (Counter::DatagramsSent, sockets.sent - then.sent),
            (Counter::DatagramsReceived, sockets.received - then.received),
            (Counter::SendCalls, sockets.send_calls - then.send_calls),
            (
                Counter::ReceiveCalls,
                sockets.receive_calls - then.receive_calls,
            ),
            (Counter::SocketDrops, sockets.overflowed - then.overflowed),
            (
                Counter::SendErrors,
                sockets.congested + sockets.failed - then.congested - then.failed,
            ),
        ] {
            self.account.add(counter, n);
        }
        let cpu = super::usage::thread_cpu();
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        self.account.add(Counter::CpuMicros, micros(used));
    }

    /// Sessions whose media is connected.
    pub(super) fn connected(&self) -> u64 {
        let connected = |s: &&Session| s.connected.is_some() && !s.ended;
        self.sessions.values().filter(connected).count() as u64
    }

    /// Starts a session's senders, a little apart from each other.
    pub(super) fn start(&mut self, now: Time, key: u64, media: &mut MediaLoop) {
        let Some((session, peer)) = self.sessions.get(&key).and_then(|s| Some((s, s.peer?))) else {
            return;
        };
        for (n, (stream, _)) in session.senders.iter().enumerate() {
            // Audio and video of one client are not in step, nor are two clients.
            let first = now + Duration::from_micros((key * 1_117 + n as u64 * 5_003) % 20_000);
            stream.started.store(first.as_nanos(), Relaxed);
            media.with(peer, |_, peer, _| peer.start(n, first));
        }
    }

    /// Stops every sender of the thread.
    pub(super) fn stop_all(&mut self, media: &mut MediaLoop) {
        for session in self.sessions.values() {
            if let Some(peer) = session.peer {
                let senders = session.senders.len();
                media.with(peer, |_, peer, _| (0..senders).for_each(|n| peer.stop(n)));
            }
        }
    }

    /// Ends a session that is to end.
    pub(super) fn close(&mut self, now: Time, key: u64, media: &mut MediaLoop) {
        let Some(mut session) = self.sessions.remove(&key) else {
            return;
        };
        session.harvest_senders(media, &mut self.account);
        session.harvest(now, &self.registry, media, &mut self.account, false);
        for slot in &mut session.slots {
            let codec = slot.stream.as_ref().map(|(_, s)| s.codec);
            if let Some(shown) = slot.shows.take() {
                shown.settle(&mut self.account, codec);
            }
        }
        if let Some(peer) = session.peer {
            media.remove(peer);
        }
    }
}

impl Session {
    fn on_connected(&mut self, now: Time, account: &mut Account) {
        self.connected = Some(now);
        let since = self.ice.unwrap_or(self.answered);
        account.record(Hist::JoinDtls, now.saturating_since(since));
        account.add(Counter::JoinDone, 1);
        if self.slots.is_empty() {
            // Nothing to wait for.
            account.record(Hist::JoinTotal, now.saturating_since(self.intended));
        }
        // A task that has ended needs no notice.
        let _ = self.notices.send(Notice::Connected);
    }

    fn end(&mut self, why: String) {
        if !self.ended {
            self.ended = true;
            let _ = self.notices.send(Notice::Ended(why));
        }
    }

    fn on_frame(&mut self, registry: &Registry, account: &mut Account, frame: &Received) {
        let room = self.room;
        let Some(slot) = self.slots.get_mut(frame.slot) else {
            return;
        };
        let Some(stream) = slot.stream_of(registry, account, frame) else {
            return account.add(Counter::Misrouted, 1);
        };
        if stream.room == room {
            slot.follow(registry, account, &stream, frame.complete);
        }
        if stream.room != room || !slot.expects(&stream, frame.complete) {
            return account.add(Counter::Misrouted, 1);
        }
        let video = stream.codec == Codec::Vp8;
        let (packet, whole, received) = if video {
            (Hist::VideoPacket, Hist::VideoFrame, Counter::VideoReceived)
        } else {
            (Hist::AudioPacket, Hist::AudioFrame, Counter::AudioReceived)
        };
        let due = frame.info.due;
        account.record(packet, frame.first_packet.saturating_since(due));
        account.record(whole, frame.complete.saturating_since(due));
        if !slot.on_received(account, &stream, frame, received) {
            return;
        }
        if !frame.decodable {
            return account.add(Counter::VideoUndecodable, 1);
        }
        slot.play(account, frame, video);
        if !self.first_frame {
            self.first_frame = true;
            self.on_first_frame(account, &stream, frame);
        }
    }

    /// Stages from DTLS on. Waiting for somebody to publish at all is no part of them.
    fn on_first_frame(&self, account: &mut Account, stream: &Stream, frame: &Received) {
        let (Some(connected), Some(started)) = (self.connected, stream.started()) else {
            return;
        };
        let assigned = self.slots.get(frame.slot).and_then(|s| s.shows.as_ref());
        let assigned = assigned.map_or(connected, |s| s.since);
        let ready = connected.max(started).max(assigned);
        let first_packet = frame.first_packet.max(ready);
        account.record(Hist::JoinFirstPacket, first_packet.saturating_since(ready));
        let first_frame = frame.complete.saturating_since(first_packet);
        account.record(Hist::JoinFirstFrame, first_frame);
        let connecting = connected.saturating_since(self.intended);
        let total = connecting + frame.complete.saturating_since(ready);
        account.record(Hist::JoinTotal, total);
    }

    fn harvest_senders(&mut self, media: &mut MediaLoop, account: &mut Account) {
        let Some(peer) = self.peer else { return };
        for (n, (stream, then)) in self.senders.iter_mut().enumerate() {
            let Some(stats) = media.with(peer, |_, p, _| p.send_stats(n)).flatten() else {
                continue;
            };
            stream.sent.store(stats.frames, Relaxed);
            for (counter, n) in [
                (Counter::FramesSent, stats.frames - then.frames),
                (Counter::KeyFramesSent, stats.key_frames - then.key_frames),
                (Counter::PacketsSent, stats.packets - then.packets),
                (Counter::OctetsSent, stats.octets - then.octets),
                (
                    Counter::Retransmitted,
                    stats.retransmitted - then.retransmitted,
                ),
                (Counter::KeyRequests, stats.key_requests - then.key_requests),
            ] {
                account.add(counter, n);
            }
            *then = stats;
        }
    }

    fn harvest(
        &mut self,
        now: Time,
        registry: &Registry,
        media: &mut MediaLoop,
        account: &mut Account,
        last: bool,
    ) {
        let Some(peer) = self.peer else { return };
        for (n, slot) in self.slots.iter_mut().enumerate() {
            let stats = media.with(peer, |_, p, _| p.receive_stats(n)).flatten();
            if let Some(stats) = stats {
                slot.count(account, stats);
            }
            slot.count_expected(registry, account, now, last);
            slot.count_awaited(registry, account, now, self.room);
            if last
                && let Some(freeze) = slot.playout.frozen(now)
                && slot.is_video()
            {
                // Senders have stopped by then; a freeze that began before counts to its end.
                let freeze = freeze.saturating_sub(crate::schedule::DRAIN);
                if freeze > Duration::from_millis(500) {
                    account.record(Hist::Freeze, freeze);
                }
            }
        }
        if let Some(faults) = media.with(peer, |_, p, _| p.faults()) {
            let then = std::mem::replace(&mut self.faults, faults);
            let unparsable =
                |f: &PeerFaults| f.srtp_other + f.unknown_ssrc + f.malformed + f.unknown_protocol;
            account.add(Counter::SrtpFailures, faults.srtp_auth - then.srtp_auth);
            account.add(
                Counter::SrtpReplayed,
                faults.srtp_replayed - then.srtp_replayed,
            );
            account.add(Counter::Unparsable, unparsable(&faults) - unparsable(&then));
        }
        let lost = media.impair_stats(peer).lost;
        account.add(
            Counter::ImpairLost,
            lost - std::mem::replace(&mut self.impaired, lost),
        );
    }
}

impl Slot {
    fn show(&mut self, registry: &Registry, now: Time, track: Option<String>) {
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
            }
        });
    }

    /// A player's slot shows another stream from this frame on.
    fn follow(&mut self, registry: &Registry, account: &mut Account, stream: &Stream, now: Time) {
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
    fn stream_of(
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
                let same_track = before.as_ref().is_some_and(|(_, b)| {
                    b.track.get().is_some() && b.track.get() == stream.track.get()
                });
                if same_track {
                    account.add(Counter::LayerChanges, 1);
                }
                self.stream = Some((name, Arc::clone(&stream)));
                Some(stream)
            }
        }
    }

    /// The slot shows this stream's track, or did until a moment ago.
    fn expects(&self, stream: &Stream, now: Time) -> bool {
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
    fn on_received(
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
        // What was sent before the first frame that arrived was not meant for this slot.
        if shown.next.is_none() {
            (shown.first, shown.next) = (number, Some(number));
        }
        if number >= shown.first {
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

    fn play(&mut self, account: &mut Account, frame: &Received, video: bool) {
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

    fn is_video(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|(_, s)| s.codec == Codec::Vp8)
    }

    fn count(&mut self, account: &mut Account, stats: ReceiveStats) {
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

    fn count_expected(
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
    fn count_awaited(&mut self, registry: &Registry, account: &mut Account, now: Time, room: u64) {
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
    fn settle(&self, account: &mut Account, codec: Option<Codec>) {
        if let (Some(next), Some(codec)) = (self.next, codec) {
            let seen = (self.highest + 1).saturating_sub(next);
            account.add(expected(codec), seen);
        }
    }
}

fn expected(codec: Codec) -> Counter {
    match codec {
        Codec::Opus => Counter::AudioExpected,
        Codec::Vp8 => Counter::VideoExpected,
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
