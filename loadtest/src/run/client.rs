//! A client's life: token, signalling, media, slots, and leaving when its time has come.

use super::meter::{Meter, Notice};
use super::registry::Stream;
use super::{Setup, Worker};
use crate::driver::{Bind, MediaLoop, PeerId, Signal, SignalError, SignalEvent, TrackInfo};
use crate::http::{self, HttpError};
use crate::model::Codec;
use crate::peer::{Answer, AnswerError, PeerConfig, PeerError, Proto, SealConfig, SenderParams};
use crate::result::{Counter, Hist};
use crate::schedule::{ClientPlan, Stay};
use crate::tokens::{TokenError, Wanted};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use sealcast_sframe::CipherSuite;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};

/// A client that is not connected after this long has failed to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a client could not join or stay.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("signalling: {0}")]
    Connect(#[from] HttpError),
    #[error("signalling: {0}")]
    Signal(#[from] SignalError),
    #[error("{0}")]
    Answer(#[from] AnswerError),
    #[error("{0}")]
    Peer(#[from] PeerError),
    #[error("media was not connected within {} s", JOIN_TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Ended(String),
    #[error("the media thread has ended")]
    ThreadGone,
}

/// A client during one stay.
pub(super) struct Client {
    setup: Arc<Setup>,
    worker: Arc<Worker>,
    plan: Arc<ClientPlan>,
    /// Names its session to the meter: differs from stay to stay.
    key: u64,
    slots: Vec<SlotUse>,
    /// Tracks of the room that are not ours, in the order of their publication.
    tracks: Vec<TrackInfo>,
    rng: Rng,
}

/// A slot, by the same index as the peer's.
struct SlotUse {
    mid: String,
    audio: bool,
    /// The relay accepted it.
    active: bool,
    track: Option<String>,
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
            tokio::select! {
                () = setup.sleep_until(intended) => {}
                () = stopped(&mut stop) => return,
            }
            let late = setup.clock.now().saturating_since(intended);
            setup.control().record(Hist::StartLag, late);
            setup.control().add(Counter::JoinStarted, 1);
            let key = plan.id * 1_000 + nth as u64;
            let mut client = Client {
                setup: Arc::clone(&setup),
                worker: Arc::clone(&worker),
                plan: Arc::clone(&plan),
                key,
                slots: vec![],
                tracks: vec![],
                rng: Rng::new(setup.seed ^ key),
            };
            let mut joined = false;
            let ended = client.stay(stay, intended, &mut joined, &mut stop).await;
            client.close();
            if let Err(e) = ended {
                let failure = if joined {
                    Counter::SessionLost
                } else {
                    Counter::JoinFailed
                };
                setup.control().add(failure, 1);
                setup.error(&e.to_string());
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
        let (notices, mut inbox) = unbounded_channel();
        let (key, room) = (self.key, self.plan.room);
        self.worker
            .with_meter(|m| m.open(key, room, intended, notices));
        let joining = self.join(&mut inbox);
        let mut signal = tokio::select! {
            signal = tokio::time::timeout(JOIN_TIMEOUT, joining) => {
                signal.map_err(|_| ClientError::Timeout)??
            }
            // The run is over before this client was in.
            () = stopped(stop) => return Ok(()),
        };
        *joined = true;
        let key = self.key;
        self.post(move |media, meter, now| meter.start(now, key, media))?;
        let until = stay.until.map(|until| self.setup.begin + until);
        let lived = self.remain(&mut signal, &mut inbox, until, stop).await;
        lived?;
        // Leaving is not measured; a relay that does not answer has been told.
        let left = tokio::time::timeout(Duration::from_secs(2), signal.leave()).await;
        if let Ok(Err(e)) = left {
            self.setup.error(&format!("leaving: {e}"));
        }
        Ok(())
    }

    /// Everything until media is connected and published.
    async fn join(&mut self, inbox: &mut UnboundedReceiver<Notice>) -> Result<Signal, ClientError> {
        let setup = Arc::clone(&self.setup);
        let (mut signal, local) = self.sign_in().await?;
        let (peer, offer, streams) = self.add_peer(local).await?;
        let sdp = signal.offer(&offer).await?;
        let mut answer = Answer::parse(&sdp)?;
        if let Some(media) = setup.media_address {
            answer.via(Proto::Udp, media);
        }
        let states = self.accept(peer, answer, streams.clone()).await?;
        let uses = states.into_iter().map(|(mid, codec, active)| SlotUse {
            mid,
            audio: codec == Codec::Opus,
            active,
            track: None,
        });
        self.slots = uses.collect();
        for (mid, stream) in streams.iter().enumerate() {
            let context = self.seal_context(peer, mid).await?;
            let source = self.source(stream.codec);
            let track = signal.publish(mid, &source, context).await?;
            setup.registry.publish(stream, &track);
        }
        self.fill_slots(&mut signal).await?;
        match inbox.recv().await {
            Some(Notice::Connected) => Ok(signal),
            Some(Notice::Ended(why)) => Err(ClientError::Ended(why)),
            None => Err(ClientError::ThreadGone),
        }
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
            subject: format!("load-{}", self.plan.id),
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
        loop {
            let change = changes.peek().map_or(Time::NEVER, |d| setup.begin + *d);
            tokio::select! {
                event = signal.next_event() => self.on_event(signal, event?).await?,
                () = setup.sleep_until(change) => {
                    changes.next();
                    self.change_slot(signal).await?;
                }
                notice = inbox.recv() => match notice {
                    Some(Notice::Ended(why)) => return Err(ClientError::Ended(why)),
                    Some(Notice::Connected) => {}
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
            self.worker.with_meter(|m| m.assign(now, self.key, n, None));
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
            self.worker
                .with_meter(|m| m.assign(now, self.key, *n, shows));
            if let Some(slot) = self.slots.get(*n) {
                request.push((slot.mid.clone(), Some(track.clone())));
            }
        }
        match signal.assign(&request).await {
            // The track's publisher left while the request was under way. Its event follows.
            Err(SignalError::Refused { code, .. }) if code == "no_track" => {
                let now = self.setup.clock.now();
                for n in assign.keys() {
                    self.worker
                        .with_meter(|m| m.assign(now, self.key, *n, None));
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

    async fn add_peer(
        &self,
        local: SocketAddr,
    ) -> Result<(PeerId, String, Vec<Arc<Stream>>), ClientError> {
        let setup = &self.setup;
        let role = setup.role(&self.plan);
        let mut send: Vec<SenderParams> = vec![];
        send.extend(role.audio.as_ref().map(|a| SenderParams::Audio(a.params())));
        send.extend(role.video.as_ref().map(|v| SenderParams::Video(v.params())));
        let config = PeerConfig {
            send,
            audio_slots: role.audio_slots as usize,
            video_slots: role.video_slots as usize,
            data: true,
            seal: Some(SealConfig {
                suite: CipherSuite::Aes256GcmSha512,
                base_key: setup.room_key(self.plan.room),
            }),
            locals: vec![],
            seed: Rng::new(setup.seed ^ self.key.wrapping_mul(0x2545_f491_4f6c_dd1d)).next_u64(),
        };
        let codecs: Vec<Codec> = config
            .send
            .iter()
            .map(|s| match s {
                SenderParams::Audio(_) => Codec::Opus,
                SenderParams::Video(_) => Codec::Vp8,
            })
            .collect();
        let bind = Bind {
            proto: Proto::Udp,
            addr: SocketAddr::new(local.ip(), 0),
        };
        let (key, worker) = (self.key, Arc::clone(&self.worker));
        let impairment = setup.impairment;
        let added = self.call(move |media, _, _| {
            let sink = Box::new(move |now, event| worker.on_event(now, key, event));
            let (peer, offer) = media.add(bind, config, sink)?;
            if let Some(links) = impairment {
                media.impair(peer, links.up, links.down, key);
            }
            let names = media.with(peer, |_, peer, _| {
                (0..codecs.len())
                    .filter_map(|n| peer.stream(n))
                    .zip(codecs)
                    .collect::<Vec<_>>()
            });
            Ok::<_, PeerError>((peer, offer, names.unwrap_or_default()))
        });
        let (peer, offer, names) = added.await??;
        let room = self.plan.room;
        let streams = names
            .into_iter()
            .map(|(name, codec)| setup.registry.add(name, room, codec));
        Ok((peer, offer, streams.collect()))
    }

    /// MIDs of the slots with their codec, and whether the relay accepted them.
    async fn accept(
        &self,
        peer: PeerId,
        answer: Answer,
        streams: Vec<Arc<Stream>>,
    ) -> Result<Vec<(String, Codec, bool)>, ClientError> {
        let key = self.key;
        let sending = self.setup.scenario.sends();
        let accepted = self.call(move |media, meter, now| {
            let slots = media.with(peer, |_, p, _| p.slots().len()).unwrap_or(0);
            meter.accept(now, key, peer, streams, slots);
            if slots == 0 || !sending {
                meter.awaits_no_media(key);
            }
            media.accept(peer, &answer)?;
            let states = media
                .with(peer, |_, p, _| p.slots().to_vec())
                .unwrap_or_default();
            Ok::<_, PeerError>(states)
        });
        let states = accepted.await??;
        Ok(states
            .into_iter()
            .map(|s| (s.mid, s.codec, s.active))
            .collect())
    }

    async fn seal_context(&self, peer: PeerId, sender: usize) -> Result<Option<u64>, ClientError> {
        let context = self
            .call(move |media, _, _| media.with(peer, |_, p, _| p.seal_context(sender)).flatten());
        context.await
    }

    fn source(&self, codec: Codec) -> String {
        let video = self.setup.role(&self.plan).video.as_ref();
        match (codec, video) {
            (Codec::Vp8, Some(video)) => video.source.clone(),
            _ => "audio".to_owned(),
        }
    }

    /// Ends the media session.
    fn close(&self) {
        let key = self.key;
        // Without its thread there is nothing to close.
        let _ = self.post(move |media, meter, now| meter.close(now, key, media));
    }

    fn post(
        &self,
        job: impl FnOnce(&mut MediaLoop, &mut Meter, Time) + Send + 'static,
    ) -> Result<(), ClientError> {
        Worker::post(&self.worker, self.setup.clock, job).map_err(|_| ClientError::ThreadGone)
    }

    async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut MediaLoop, &mut Meter, Time) -> R + Send + 'static,
    ) -> Result<R, ClientError> {
        let (reply, result) = oneshot::channel();
        self.post(move |media, meter, now| {
            // The caller may have timed out.
            let _ = reply.send(job(media, meter, now));
        })?;
        result.await.map_err(|_| ClientError::ThreadGone)
    }
}

/// The run ends, or nobody is left to end it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The borrowed value must not be held while others wait.
    let _ = stop.wait_for(|s| *s).await;
}
