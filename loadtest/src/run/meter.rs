//! What a media thread measures: events of its peers as they come, statistics of its peers when a
//! window ends.

use super::account::Account;
use super::registry::{Registry, Stream};
use super::slot::{CHANGE_GRACE, Slot};
use crate::driver::{MediaLoop, PeerId, SocketStats};
use crate::model::Codec;
use crate::peer::{PeerEvent, PeerFaults, Received, RejectReason, SendStats};
use crate::result::{Counter, Hist};
use sealcast_model::Time;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What a client's task is told of its media session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Connected,
    /// A sealed message of another participant, on the data channel.
    Message(Vec<u8>),
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
    /// Somebody of its room sends what it receives.
    awaits_media: bool,
    senders: Vec<(Arc<Stream>, SendStats)>,
    slots: Vec<Slot>,
    faults: PeerFaults,
    impaired: u64,
    ended: bool,
    notices: UnboundedSender<Notice>,
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
            awaits_media: true,
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

    /// A session to whom nobody sends has joined once it is connected.
    pub(super) fn awaits_no_media(&mut self, key: u64) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.awaits_media = false;
        }
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
                    RejectReason::UnknownKey => Counter::KeysUnknown,
                    RejectReason::Content(_) => Counter::ContentFailures,
                    RejectReason::Repeated => Counter::FramesRepeated,
                },
                1,
            ),
            PeerEvent::Data { binary: true, data } => {
                // A task that has ended needs no message.
                let _ = session.notices.send(Notice::Message(data));
            }
            PeerEvent::Data { data, .. } => session.on_notice(now, account, &data),
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
        if !self.awaits_media {
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

    /// The relay tells on the data channel what a slot shows (PROTOCOL.md §8).
    fn on_notice(&mut self, now: Time, account: &mut Account, data: &[u8]) {
        #[derive(Deserialize)]
        struct Notice {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            mid: String,
            #[serde(default)]
            paused: bool,
        }
        // The peer counts what does not parse.
        let Ok(notice) = serde_json::from_slice::<Notice>(data) else {
            return;
        };
        // MIDs count m-lines, senders first.
        let index = notice.mid.parse::<usize>().ok();
        let index = index.and_then(|n| n.checked_sub(self.senders.len()));
        let slot = index.and_then(|n| self.slots.get_mut(n));
        if let (Some(slot), "slot") = (slot, notice.kind.as_str()) {
            slot.set_paused(now, account, notice.paused);
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
        let video = stream.codec.is_video();
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
            stream.sent.store(stats.pictures, Relaxed);
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
                (Counter::EncodingSwitches, stats.switches - then.switches),
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
            slot.count_pause(now, account);
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

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
