//! A client's life: token, signalling, media, slots, and leaving when its time has come.

use super::group::{Group, MEDIA_SUITE};
use super::meter::Notice;
use super::session::{self, ClientError, JOIN_TIMEOUT, Joining, MediaSession, failed, stopped};
use super::{Setup, Worker};
use crate::driver::{PeerId, Signal, SignalError, SignalEvent, SlotRequest, TrackInfo};
use crate::http;
use crate::model::Codec;
use crate::peer::{PeerConfig, SealConfig, SealKeys, SenderParams};
use crate::result::Counter;
use crate::scenario::{KeySource, Pointer};
use crate::schedule::{ClientPlan, Stay};
use crate::tokens::Wanted;
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// A client during one stay.
pub(super) struct Client {
    setup: Arc<Setup>,
    session: MediaSession,
    plan: Arc<ClientPlan>,
    slots: Vec<SlotUse>,
    /// Tracks of the room that are not ours, in the order of their publication.
    tracks: Vec<TrackInfo>,
    /// Where the room has one, and the scenario uses it.
    group: Option<Group>,
    rng: Rng,
}

/// A slot, by the same index as the peer's.
struct SlotUse {
    mid: String,
    audio: bool,
    /// The relay accepted it.
    active: bool,
    track: Option<String>,
    /// Pixels it is shown at.
    size: Option<(u16, u16)>,
}

impl Client {
    /// Lives through all stays of a plan. `stop` tells the run's end.
    pub(super) async fn live(
        setup: Arc<Setup>,
        worker: Arc<Worker>,
        plan: ClientPlan,
        mut stop: watch::Receiver<bool>,
    ) {
        let plan = Arc::new(plan);
        for (nth, stay) in plan.stays.iter().enumerate() {
            let intended = setup.begin + stay.from;
            if !session::begin(&setup, intended, &mut stop).await {
                return;
            }
            setup.control().add(Counter::JoinStarted, 1);
            let key = plan.id * 1_000 + nth as u64;
            let mut client = Client {
                setup: Arc::clone(&setup),
                session: MediaSession {
                    setup: Arc::clone(&setup),
                    worker: Arc::clone(&worker),
                    room: plan.room,
                    key,
                },
                plan: Arc::clone(&plan),
                slots: vec![],
                tracks: vec![],
                group: None,
                rng: Rng::new(setup.seed ^ key),
            };
            let mut joined = false;
            let ended = client.stay(stay, intended, &mut joined, &mut stop).await;
            client.session.close();
            if let Err(e) = ended {
                let kind = if joined {
                    Counter::SessionLost
                } else {
                    Counter::JoinFailed
                };
                failed(&setup, kind, &e);
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    async fn stay(
        &mut self,
        stay: &Stay,
        intended: Time,
        joined: &mut bool,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let mut inbox = self.session.open(intended);
        let under_way = Joining::begin(&self.session, intended);
        let joining = self.join(&mut inbox);
        let mut signal = tokio::select! {
            signal = tokio::time::timeout(JOIN_TIMEOUT, joining) => {
                signal.map_err(|_| ClientError::Timeout)??
            }
            // The run is over before this client was in.
            () = stopped(stop) => return Ok(()),
        };
        drop(under_way);
        *joined = true;
        self.session.start()?;
        let until = stay.until.map(|until| self.setup.begin + until);
        self.remain(&mut signal, &mut inbox, until, stop).await?;
        // Leaving is not measured; a relay that does not answer has been told.
        let left = tokio::time::timeout(Duration::from_secs(2), signal.leave()).await;
        if let Ok(Err(e)) = left {
            self.setup.error(&format!("leaving: {e}"));
        }
        Ok(())
    }

    /// Everything until media is connected and published, and there are keys to seal it with.
    async fn join(&mut self, inbox: &mut UnboundedReceiver<Notice>) -> Result<Signal, ClientError> {
        let setup = Arc::clone(&self.setup);
        let (mut signal, local) = self.sign_in().await?;
        let offered = self.session.offer(local, self.peer_config()).await?;
        if let Some(group) = &mut self.group {
            group.attach(&self.session, offered.peer)?;
        }
        let sdp = signal.offer(&offered.sdp).await?;
        let states = self.session.accept(&offered, &sdp, false).await?;
        let sizes = &setup.role(&self.plan).sizes;
        let (mut slots, mut videos) = (vec![], 0);
        for state in states {
            let audio = state.codec == Codec::Opus;
            videos += usize::from(!audio);
            // The last size is that of all further slots.
            let size = sizes.get(videos.saturating_sub(1)).or(sizes.last());
            slots.push(SlotUse {
                mid: state.mid,
                audio,
                active: state.active,
                track: None,
                size: size.filter(|_| !audio).copied(),
            });
        }
        self.slots = slots;
        for (mid, stream) in offered.streams.iter().enumerate() {
            let contexts = self.seal_contexts(offered.peer, mid).await?;
            let source = self.source(stream.codec);
            let track = signal.publish(mid, &source, &contexts).await?;
            setup.registry.publish(stream, &track);
        }
        self.fill_slots(&mut signal).await?;
        self.await_connection(&mut signal, inbox).await?;
        Ok(signal)
    }

    /// Takes part in the room until media is connected and there are keys.
    async fn await_connection(
        &mut self,
        signal: &mut Signal,
        inbox: &mut UnboundedReceiver<Notice>,
    ) -> Result<(), ClientError> {
        let mut connected = false;
        while !connected || self.group.as_ref().is_some_and(|g| !g.ready()) {
            let group_due = self.group_due();
            tokio::select! {
                event = signal.next_event() => self.on_event(signal, event?).await?,
                done = session::connected(inbox) => {
                    done?;
                    connected = true;
                }
                () = self.setup.sleep_until(group_due) => self.on_group_due(signal).await?,
            }
        }
        Ok(())
    }

    async fn point(&mut self, dues: &[Time]) -> Result<(), ClientError> {
        match &mut self.group {
            Some(group) if !self.setup.stopped.load(Relaxed) => {
                group.point(&self.session, dues).await
            }
            _ => Ok(()),
        }
    }

    fn group_due(&self) -> Time {
        let now = self.setup.clock.now();
        let group = self.group.as_ref();
        group.map_or(Time::NEVER, |g| g.poll_timeout(now))
    }

    async fn on_group_due(&mut self, signal: &mut Signal) -> Result<(), ClientError> {
        if let Some(group) = &mut self.group {
            group.handle_timeout(&self.session);
            group.drive(&self.session, signal).await?;
        }
        Ok(())
    }

    /// Token, socket, join. Also our address towards the relay.
    async fn sign_in(&mut self) -> Result<(Signal, SocketAddr), ClientError> {
        let setup = Arc::clone(&self.setup);
        let role = setup.role(&self.plan);
        let mut publish: Vec<String> = vec![];
        publish.extend(role.audio.as_ref().map(|_| "audio".to_owned()));
        publish.extend(role.video.as_ref().map(|v| v.source.clone()));
        let wanted = Wanted {
            room: setup.room_name(self.plan.room),
            subject: subject(&self.plan),
            publish,
            subscribe: role.audio_slots + role.video_slots > 0,
            unsealed: false,
        };
        let token = setup.tokens.token(&setup.http, &wanted).await?;
        let uri = http::join(&setup.target, "/v1/signal")?;
        let (stream, local) = setup.http.connect(&uri).await?;
        let mut parts = uri.into_parts();
        // The stream is there; the scheme only has to be one of a WebSocket's.
        parts.scheme = "ws".parse().ok();
        let uri = hyper::Uri::from_parts(parts).map_err(|e| SignalError::Url(e.to_string()))?;
        let mut signal = Signal::over(stream, uri).await?;
        let joined = signal.join(&token).await?;
        self.tracks = joined.tracks;
        let wanted = setup.scenario.keys != KeySource::Link;
        if let Some(suite) = joined.group_suite.filter(|_| wanted) {
            let now = setup.clock.now();
            let mut group = Group::new(now, suite, &subject(&self.plan), &joined.participant)?;
            group.drive(&self.session, &mut signal).await?;
            self.group = Some(group);
        } else if setup.scenario.keys == KeySource::Group {
            return Err(ClientError::Ended("the room has no group".to_owned()));
        }
        Ok((signal, local))
    }

    /// Reacts to the room until the stay is over.
    async fn remain(
        &mut self,
        signal: &mut Signal,
        inbox: &mut UnboundedReceiver<Notice>,
        until: Option<Time>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let setup = Arc::clone(&self.setup);
        let plan = Arc::clone(&self.plan);
        let now = setup.clock.now();
        let due = |d: &&Duration| setup.begin + **d > now;
        let mut changes = plan.slot_changes.iter().filter(due).copied().peekable();
        let mut pointing = setup.role(&plan).pointer.map(|p| Pointing::new(p, now));
        loop {
            let change = changes.peek().map_or(Time::NEVER, |d| setup.begin + *d);
            let group_due = self.group_due();
            let point = pointing.as_ref().map_or(Time::NEVER, Pointing::due);
            tokio::select! {
                event = signal.next_event() => self.on_event(signal, event?).await?,
                () = setup.sleep_until(point) => {
                    let dues = pointing.as_mut().map(Pointing::next).unwrap_or_default();
                    self.point(&dues).await?;
                }
                () = setup.sleep_until(change) => {
                    changes.next();
                    self.change_slot(signal).await?;
                }
                () = setup.sleep_until(group_due) => self.on_group_due(signal).await?,
                notice = inbox.recv() => match notice {
                    Some(Notice::Ended(why)) => return Err(ClientError::Ended(why)),
                    Some(Notice::Connected) => {}
                    Some(Notice::Message(message)) => {
                        let event = SignalEvent::Sealed(message);
                        self.on_event(signal, event).await?;
                    }
                    None => return Err(ClientError::ThreadGone),
                },
                () = setup.sleep_until(until.unwrap_or(Time::NEVER)) => return Ok(()),
                () = stopped(stop) => return Ok(()),
            }
        }
    }

    async fn on_event(
        &mut self,
        signal: &mut Signal,
        event: SignalEvent,
    ) -> Result<(), ClientError> {
        match event {
            SignalEvent::TrackPublished(track) => {
                self.tracks.push(track);
                self.fill_slots(signal).await?;
            }
            SignalEvent::TrackUnpublished { track, .. } => {
                self.tracks.retain(|t| t.track != track);
                self.drop_track(&track);
                self.fill_slots(signal).await?;
            }
            SignalEvent::ParticipantLeft { participant, .. } => {
                let gone: Vec<String> = self
                    .tracks
                    .extract_if(.., |t| t.participant == participant)
                    .map(|t| t.track)
                    .collect();
                gone.iter().for_each(|track| self.drop_track(track));
                self.fill_slots(signal).await?;
            }
            SignalEvent::Group(message) => {
                if let Some(group) = &mut self.group {
                    group.on_group(&self.session, &message);
                    group.drive(&self.session, signal).await?;
                }
            }
            SignalEvent::Sealed(message) => {
                if let Some(group) = &mut self.group {
                    group.on_sealed(&self.session, &message);
                    group.drive(&self.session, signal).await?;
                }
            }
            SignalEvent::MediaClosed(reason) => {
                return Err(ClientError::Ended(format!("media_closed: {reason}")));
            }
            SignalEvent::Other(message) if message["type"] == "track_blocked" => {
                self.setup
                    .error(&format!("track_blocked: {}", message["reason"]));
            }
            _ => {}
        }
        Ok(())
    }

    /// The relay has cleared the slots that showed a track that is gone.
    fn drop_track(&mut self, track: &str) {
        let shown = |s: &SlotUse| s.track.as_deref() == Some(track);
        let cleared: Vec<usize> = (0..self.slots.len())
            .filter(|n| self.slots.get(*n).is_some_and(shown))
            .collect();
        let now = self.setup.clock.now();
        for n in cleared {
            if let Some(slot) = self.slots.get_mut(n) {
                slot.track = None;
            }
            self.meter_assign(now, n, None);
        }
    }

    /// Shows tracks that are not shown in slots that are free.
    async fn fill_slots(&mut self, signal: &mut Signal) -> Result<(), ClientError> {
        let mut assign = BTreeMap::new();
        for track in &self.tracks {
            if self
                .slots
                .iter()
                .any(|s| s.track.as_deref() == Some(&track.track))
            {
                continue;
            }
            let audio = track.source == "audio";
            let free = |s: &SlotUse| s.active && s.audio == audio && s.track.is_none();
            if let Some(n) = self.slots.iter().position(free)
                && let Some(slot) = self.slots.get_mut(n)
            {
                slot.track = Some(track.track.clone());
                assign.insert(n, track.track.clone());
            }
        }
        self.assign(signal, &assign).await
    }

    /// Shows another track in one slot, if there is one that is not shown.
    async fn change_slot(&mut self, signal: &mut Signal) -> Result<(), ClientError> {
        let shown = |t: &TrackInfo| {
            self.slots
                .iter()
                .any(|s| s.track.as_deref() == Some(&t.track))
        };
        let hidden: Vec<&TrackInfo> = self.tracks.iter().filter(|t| !shown(t)).collect();
        let pick = self.rng.below(hidden.len() as u64) as usize;
        let Some(track) = hidden.get(pick) else {
            return Ok(());
        };
        let audio = track.source == "audio";
        let used: Vec<usize> = (0..self.slots.len())
            .filter(|n| {
                self.slots
                    .get(*n)
                    .is_some_and(|s| s.audio == audio && s.track.is_some())
            })
            .collect();
        let pick = self.rng.below(used.len() as u64) as usize;
        let Some(n) = used.get(pick).copied() else {
            return Ok(());
        };
        let assign = BTreeMap::from([(n, track.track.clone())]);
        if let Some(slot) = self.slots.get_mut(n) {
            slot.track = assign.get(&n).cloned();
        }
        self.assign(signal, &assign).await
    }

    async fn assign(
        &mut self,
        signal: &mut Signal,
        assign: &BTreeMap<usize, String>,
    ) -> Result<(), ClientError> {
        if assign.is_empty() {
            return Ok(());
        }
        let now = self.setup.clock.now();
        let mut request = vec![];
        for (n, track) in assign {
            let shows = Some(track.clone());
            self.meter_assign(now, *n, shows);
            if let Some(slot) = self.slots.get(*n) {
                request.push(SlotRequest {
                    mid: slot.mid.clone(),
                    track: Some(track.clone()),
                    size: slot.size,
                });
            }
        }
        match signal.assign(&request).await {
            // The track's publisher left while the request was under way. Its event follows.
            Err(SignalError::Refused { code, .. }) if code == "no_track" => {
                let now = self.setup.clock.now();
                for n in assign.keys() {
                    self.meter_assign(now, *n, None);
                    if let Some(slot) = self.slots.get_mut(*n) {
                        slot.track = None;
                    }
                }
                self.tracks
                    .retain(|t| !assign.values().any(|a| *a == t.track));
                Ok(())
            }
            Err(e) => {
                self.setup.control().add(Counter::RequestFailed, 1);
                Err(e.into())
            }
            Ok(()) => Ok(()),
        }
    }

    fn meter_assign(&self, now: Time, slot: usize, track: Option<String>) {
        let key = self.session.key;
        let worker = &self.session.worker;
        worker.with_meter(|m| m.assign(now, key, slot, track));
    }

    fn peer_config(&self) -> PeerConfig {
        let role = self.setup.role(&self.plan);
        let mut send: Vec<SenderParams> = vec![];
        send.extend(role.audio.as_ref().map(|a| SenderParams::Audio(a.params())));
        send.extend(role.video.as_ref().map(|v| v.sender()));
        let keys = if self.group.is_some() {
            SealKeys::Group
        } else {
            SealKeys::Link(self.setup.room_key(self.plan.room))
        };
        PeerConfig {
            send,
            audio_slots: role.audio_slots as usize,
            video_slots: role.video_slots as usize,
            data: true,
            seal: Some(SealConfig {
                suite: MEDIA_SUITE,
                keys,
            }),
            locals: vec![],
            seed: 0,
        }
    }

    async fn seal_contexts(&self, peer: PeerId, sender: usize) -> Result<Vec<u64>, ClientError> {
        let contexts = self
            .session
            .call(move |media, _, _| media.with(peer, |_, p, _| p.seal_contexts(sender)));
        Ok(contexts.await?.unwrap_or_default())
    }

    fn source(&self, codec: Codec) -> String {
        let video = self.setup.role(&self.plan).video.as_ref();
        match (codec.is_video(), video) {
            (true, Some(video)) => video.source.clone(),
            _ => "audio".to_owned(),
        }
    }
}

/// The schedule of a pointer: open-loop, like everything that is sent.
struct Pointing {
    interval: Duration,
    batch: u32,
    /// Of the first position of the next message.
    first: Time,
}

impl Pointing {
    fn new(pointer: Pointer, now: Time) -> Pointing {
        Pointing {
            interval: Duration::from_secs_f64(1.0 / pointer.rate),
            batch: pointer.batch,
            first: now,
        }
    }

    /// When the last position of the next message is due.
    fn due(&self) -> Time {
        self.first + self.interval * self.batch.saturating_sub(1)
    }

    /// The due times of the positions in the message that is due.
    fn next(&mut self) -> Vec<Time> {
        let first = self.first;
        self.first = first + self.interval * self.batch;
        (0..self.batch).map(|n| first + self.interval * n).collect()
    }
}

/// The application's pseudonym for a client.
fn subject(plan: &ClientPlan) -> String {
    format!("load-{}", plan.id)
}
