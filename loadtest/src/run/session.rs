//! A media session on its media thread, whatever signalling it was set up by.

use super::meter::{Meter, Notice};
use super::registry::Stream;
use super::worker::lock;
use super::{Setup, Worker};
use crate::driver::{Bind, MediaLoop, PeerId, SignalError};
use crate::http::HttpError;
use crate::model::Codec;
use crate::peer::{Answer, AnswerError, Peer, PeerConfig, PeerError, Proto, SlotState};
use crate::result::{Counter, Hist};
use crate::tokens::TokenError;
use sealcast_mls::HandleError;
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};

/// A client that is not connected after this long has failed to join.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

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
    #[error("group: {0}")]
    Group(#[from] HandleError),
    #[error("media was not connected within {} s", JOIN_TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Ended(String),
    #[error("the media thread has ended")]
    ThreadGone,
}

/// A join that takes longer than this has failed, also where the run ends before [`JOIN_TIMEOUT`].
pub(super) const JOIN_OVERDUE: Duration = Duration::from_secs(5);

/// A join under way, until this is dropped.
pub(super) struct Joining {
    setup: Arc<Setup>,
    key: u64,
}

impl Joining {
    pub(super) fn begin(session: &MediaSession, intended: Time) -> Joining {
        let setup = Arc::clone(&session.setup);
        lock(&setup.joining).insert(session.key, intended);
        let key = session.key;
        Joining { setup, key }
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        lock(&self.setup.joining).remove(&self.key);
    }
}

/// A media session. What it does happens on the media thread.
pub(super) struct MediaSession {
    pub(super) setup: Arc<Setup>,
    pub(super) worker: Arc<Worker>,
    pub(super) room: u64,
    /// Names it to the meter: differs from stay to stay.
    pub(super) key: u64,
}

/// A peer that has offered.
pub(super) struct Offered {
    pub(super) peer: PeerId,
    pub(super) sdp: String,
    /// By m-line.
    pub(super) streams: Vec<Arc<Stream>>,
    /// The address of its socket.
    pub(super) local: Option<SocketAddr>,
}

impl MediaSession {
    /// Begins to measure a session that was to begin at `intended`.
    pub(super) fn open(&self, intended: Time) -> UnboundedReceiver<Notice> {
        let (notices, inbox) = unbounded_channel();
        let (key, room) = (self.key, self.room);
        self.worker
            .with_meter(|m| m.open(key, room, intended, notices));
        inbox
    }

    /// Makes its peer, on the interface with the address `local`, behind the scenario's network.
    pub(super) async fn offer(
        &self,
        local: SocketAddr,
        mut config: PeerConfig,
    ) -> Result<Offered, ClientError> {
        let (key, room) = (self.key, self.room);
        config.seed =
            Rng::new(self.setup.seed ^ key.wrapping_mul(0x2545_f491_4f6c_dd1d)).next_u64();
        let codecs: Vec<Codec> = config.send.iter().map(|s| s.codec()).collect();
        let bind = Bind {
            proto: Proto::Udp,
            addr: SocketAddr::new(local.ip(), 0),
        };
        let (worker, impairment) = (Arc::clone(&self.worker), self.setup.impairment);
        let added = self.call(move |media, _, _| {
            let sink = Box::new(move |now, event| worker.on_event(now, key, event));
            let (peer, sdp) = media.add(bind, config, sink)?;
            if let Some(links) = impairment {
                media.impair(peer, links.up, links.down, key);
            }
            let names = |_, p: &mut Peer, _: &mut _| {
                (0..codecs.len())
                    .map(|n| p.streams(n))
                    .zip(codecs)
                    .collect::<Vec<_>>()
            };
            let names = media.with(peer, names).unwrap_or_default();
            Ok::<_, PeerError>((peer, sdp, names, media.local(peer)))
        });
        let (peer, sdp, names, local) = added.await??;
        let add = |(names, codec): (Vec<u64>, Codec)| self.setup.registry.add(&names, room, codec);
        Ok(Offered {
            peer,
            sdp,
            streams: names.into_iter().map(add).collect(),
            local,
        })
    }

    /// Takes the answer and connects; the slots as they were negotiated. With `follow`, they show
    /// whatever comes.
    pub(super) async fn accept(
        &self,
        offered: &Offered,
        sdp: &str,
        follow: bool,
    ) -> Result<Vec<SlotState>, ClientError> {
        let mut answer = Answer::parse(sdp)?;
        if let Some(media) = self.setup.media_address {
            answer.via(Proto::Udp, media);
        }
        let (key, peer, streams) = (self.key, offered.peer, offered.streams.clone());
        let sending = self.setup.scenario.sends();
        let accepted = self.call(move |media, meter, now| {
            let slots = |p: &mut Peer| p.slots().to_vec();
            let offered = media.with(peer, |_, p, _| slots(p)).unwrap_or_default();
            meter.accept(now, key, peer, streams, offered.len());
            if offered.is_empty() || !sending {
                meter.awaits_no_media(key);
            }
            if follow {
                let codecs: Vec<Codec> = offered.iter().map(|s| s.codec).collect();
                meter.follow(now, key, &codecs);
            }
            media.accept(peer, &answer)?;
            let accepted = media.with(peer, |_, p, _| slots(p));
            Ok::<_, PeerError>(accepted.unwrap_or_default())
        });
        Ok(accepted.await??)
    }

    /// Starts its senders.
    pub(super) fn start(&self) -> Result<(), ClientError> {
        let key = self.key;
        self.post(move |media, meter, now| meter.start(now, key, media))
    }

    /// Ends it.
    pub(super) fn close(&self) {
        let key = self.key;
        // Without its thread there is nothing to close.
        let _ = self.post(move |media, meter, now| meter.close(now, key, media));
    }

    /// Does something with its peer, soon.
    pub(super) fn with_peer(
        &self,
        peer: PeerId,
        job: impl FnOnce(Time, &mut Peer) -> Result<(), PeerError> + Send + 'static,
    ) -> Result<(), ClientError> {
        let setup = Arc::clone(&self.setup);
        self.post(move |media, _, _| {
            let done = media.with(peer, |now, p, _| job(now, p));
            if let Some(Err(e)) = done {
                setup.error(&e.to_string());
            }
        })
    }

    pub(super) fn post(
        &self,
        job: impl FnOnce(&mut MediaLoop, &mut Meter, Time) + Send + 'static,
    ) -> Result<(), ClientError> {
        Worker::post(&self.worker, self.setup.clock, job).map_err(|_| ClientError::ThreadGone)
    }

    pub(super) async fn call<R: Send + 'static>(
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

/// Waits until media is connected. Messages that come before are for nobody yet.
pub(super) async fn connected(inbox: &mut UnboundedReceiver<Notice>) -> Result<(), ClientError> {
    loop {
        match inbox.recv().await {
            Some(Notice::Connected) => return Ok(()),
            Some(Notice::Message(_)) => {}
            Some(Notice::Ended(why)) => return Err(ClientError::Ended(why)),
            None => return Err(ClientError::ThreadGone),
        }
    }
}

/// Waits for a stay that is to begin at `intended`, and notes how late it begins. False if the run
/// ended before.
pub(super) async fn begin(setup: &Setup, intended: Time, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = setup.sleep_until(intended) => {}
        () = stopped(stop) => return false,
    }
    let late = setup.clock.now().saturating_since(intended);
    setup.control().record(Hist::StartLag, late);
    true
}

/// A join or stay ended by an error.
pub(super) fn failed(setup: &Setup, kind: Counter, error: &dyn std::fmt::Display) {
    setup.control().add(kind, 1);
    setup.error(&error.to_string());
}

/// The run ends, or nobody is left to end it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The borrowed value must not be held while others wait.
    let _ = stop.wait_for(|s| *s).await;
}
