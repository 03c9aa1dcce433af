//! The life of a client that speaks WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): a session to
//! publish, another to play. Any SFU that speaks them can be loaded; media is not sealed.
//!
//! What these protocols lack cannot be measured with them: a player says neither which tracks it
//! wants nor what it shows, so every stream of its room is right.

use super::client::{ClientError, stopped};
use super::meter::Notice;
use super::worker::Worker;
use super::{Setup, Whip};
use crate::driver::{Bind, PeerId};
use crate::http::{self, HttpError};
use crate::model::Codec;
use crate::peer::{Answer, PeerConfig, PeerError, Proto, SenderParams};
use crate::result::{Counter, Hist};
use crate::schedule::ClientPlan;
use crate::tokens::Wanted;
use hyper::{Method, Uri};
use sealcast_model::Time;
use sealcast_netsim::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

/// As for clients of our own signalling.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A session that is up.
struct Session {
    key: u64,
    resource: Option<Uri>,
    token: String,
    inbox: UnboundedReceiver<Notice>,
}

/// Lives through all stays of a plan.
pub(super) async fn live(
    setup: Arc<Setup>,
    worker: Arc<Worker>,
    whip: Arc<Whip>,
    plan: ClientPlan,
    mut stop: watch::Receiver<bool>,
) {
    for (nth, stay) in plan.stays.iter().enumerate() {
        let intended = setup.begin + stay.from;
        tokio::select! {
            () = setup.sleep_until(intended) => {}
            () = stopped(&mut stop) => return,
        }
        let late = setup.clock.now().saturating_since(intended);
        setup.control().record(Hist::StartLag, late);
        let role = setup.role(&plan);
        let mut sessions = vec![];
        let parts = [
            (role.audio.is_some() || role.video.is_some(), true),
            (role.audio_slots + role.video_slots > 0, false),
        ];
        for (n, (wanted, publish)) in parts.into_iter().enumerate() {
            if !wanted {
                continue;
            }
            setup.control().add(Counter::JoinStarted, 1);
            let key = plan.id * 1_000_000 + (nth as u64) * 2 + n as u64;
            let client = Client {
                setup: &setup,
                worker: &worker,
                whip: &whip,
                plan: &plan,
                key,
            };
            let joining = tokio::time::timeout(JOIN_TIMEOUT, client.join(intended, publish));
            match joining.await.unwrap_or(Err(ClientError::Timeout)) {
                Ok(session) => sessions.push(session),
                Err(e) => {
                    setup.control().add(Counter::JoinFailed, 1);
                    setup.error(&e.to_string());
                    close(&setup, &worker, key);
                }
            }
        }
        let until = stay.until.map_or(Time::NEVER, |until| setup.begin + until);
        tokio::select! {
            () = setup.sleep_until(until) => {}
            () = stopped(&mut stop) => {}
            why = ended(&mut sessions) => {
                setup.control().add(Counter::SessionLost, 1);
                setup.error(&why);
            }
        }
        for session in sessions {
            close(&setup, &worker, session.key);
            session.delete(&setup).await;
        }
        if *stop.borrow() {
            return;
        }
    }
}

/// Why the first of them ended.
async fn ended(sessions: &mut [Session]) -> String {
    let each = sessions.iter_mut().map(|session| {
        Box::pin(async {
            loop {
                match session.inbox.recv().await {
                    Some(Notice::Ended(why)) => return why,
                    Some(Notice::Connected) => {}
                    // Its meter has closed it.
                    None => std::future::pending::<()>().await,
                }
            }
        })
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(each).await.0
}

fn close(setup: &Setup, worker: &Arc<Worker>, key: u64) {
    // Without its thread there is nothing to close.
    let _ = Worker::post(worker, setup.clock, move |media, meter, now| {
        meter.close(now, key, media)
    });
}

impl Session {
    async fn delete(&self, setup: &Setup) {
        let Some(uri) = &self.resource else { return };
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![];
        if !self.token.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        if let Err(e) = setup
            .http
            .request(Method::DELETE, uri, &headers, Vec::new())
            .await
        {
            setup.error(&format!("DELETE: {e}"));
        }
    }
}

struct Client<'a> {
    setup: &'a Arc<Setup>,
    worker: &'a Arc<Worker>,
    whip: &'a Whip,
    plan: &'a ClientPlan,
    key: u64,
}

impl Client<'_> {
    async fn join(&self, intended: Time, publish: bool) -> Result<Session, ClientError> {
        let (setup, key, room) = (self.setup, self.key, self.plan.room);
        let (notices, mut inbox) = unbounded_channel();
        self.worker
            .with_meter(|m| m.open(key, room, intended, notices));
        let token = self.token(publish).await?;
        let template = if publish {
            &self.whip.publish
        } else {
            &self.whip.play
        };
        let url = template.replace("{room}", &setup.room_name(room));
        let uri: Uri = url.parse().map_err(|_| HttpError::Address(url.clone()))?;
        // Where the route to the server begins is where media must come from.
        let (_, local) = setup.http.connect(&uri).await?;
        let (peer, offer, streams) = self.add_peer(local, publish).await?;
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("content-type", "application/sdp")];
        if !token.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        let response = setup
            .http
            .request(Method::POST, &uri, &headers, offer)
            .await?;
        let resource = response
            .location
            .as_deref()
            .and_then(|l| http::resolve(&uri, l));
        let mut answer = Answer::parse(&String::from_utf8_lossy(&response.body))?;
        if let Some(media) = setup.media_address {
            answer.via(Proto::Udp, media);
        }
        for stream in &streams {
            let kind = if stream.codec == Codec::Opus {
                "audio"
            } else {
                "video"
            };
            setup.registry.publish(stream, &format!("{key}-{kind}"));
        }
        let sending = setup.scenario.sends();
        self.call(move |media, meter, now| {
            let slots = media.with(peer, |_, p, _| p.slots().len()).unwrap_or(0);
            meter.accept(now, key, peer, streams, slots);
            if slots == 0 || !sending {
                meter.awaits_no_media(key);
            }
            let codecs = media.with(peer, |_, p, _| p.slots().iter().map(|s| s.codec).collect());
            meter.follow(now, key, &codecs.unwrap_or_else(Vec::new));
            media.accept(peer, &answer)
        })
        .await??;
        match inbox.recv().await {
            Some(Notice::Connected) => {}
            Some(Notice::Ended(why)) => return Err(ClientError::Ended(why)),
            None => return Err(ClientError::ThreadGone),
        }
        self.call(move |media, meter, now| meter.start(now, key, media))
            .await?;
        Ok(Session {
            key,
            resource,
            token,
            inbox,
        })
    }

    async fn token(&self, publish: bool) -> Result<String, ClientError> {
        let setup = self.setup;
        let sources = if publish {
            vec!["audio".to_owned(), "camera".to_owned()]
        } else {
            vec![]
        };
        let wanted = Wanted {
            room: setup.room_name(self.plan.room),
            subject: format!("load-{}", self.plan.id),
            publish: sources,
            subscribe: !publish,
            unsealed: publish,
        };
        Ok(setup.tokens.token(&setup.http, &wanted).await?)
    }

    async fn add_peer(
        &self,
        local: SocketAddr,
        publish: bool,
    ) -> Result<(PeerId, String, Vec<Arc<super::registry::Stream>>), ClientError> {
        let (setup, key) = (self.setup, self.key);
        let role = setup.role(self.plan);
        let mut send = vec![];
        if publish {
            send.extend(role.audio.as_ref().map(|a| SenderParams::Audio(a.params())));
            send.extend(role.video.as_ref().map(|v| SenderParams::Video(v.params())));
        }
        let codecs: Vec<Codec> = send
            .iter()
            .map(|s| match s {
                SenderParams::Audio(_) => Codec::Opus,
                SenderParams::Video(_) => Codec::Vp8,
            })
            .collect();
        // A player of WHEP gets one of each kind.
        let slots = |n: u32| usize::from(!publish && n > 0);
        let config = PeerConfig {
            send,
            audio_slots: slots(role.audio_slots),
            video_slots: slots(role.video_slots),
            data: false,
            seal: None,
            locals: vec![],
            seed: Rng::new(setup.seed ^ key.wrapping_mul(0x2545_f491_4f6c_dd1d)).next_u64(),
        };
        let bind = Bind {
            proto: Proto::Udp,
            addr: SocketAddr::new(local.ip(), 0),
        };
        let (worker, impairment) = (Arc::clone(self.worker), setup.impairment);
        let added = self.call(move |media, _, _| {
            let sink = Box::new(move |now, event| worker.on_event(now, key, event));
            let (peer, offer) = media.add(bind, config, sink)?;
            if let Some(links) = impairment {
                media.impair(peer, links.up, links.down, key);
            }
            let offer = media
                .local(peer)
                .map_or(offer.clone(), |at| with_candidate(&offer, at));
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

    async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut crate::driver::MediaLoop, &mut super::meter::Meter, Time) -> R
        + Send
        + 'static,
    ) -> Result<R, ClientError> {
        let (reply, result) = tokio::sync::oneshot::channel();
        Worker::post(self.worker, self.setup.clock, move |media, meter, now| {
            // The caller may have timed out.
            let _ = reply.send(job(media, meter, now));
        })
        .map_err(|_| ClientError::ThreadGone)?;
        result.await.map_err(|_| ClientError::ThreadGone)
    }
}

/// Our candidate on every m-line: servers that are not ICE-lite begin only when they have one.
fn with_candidate(offer: &str, at: SocketAddr) -> String {
    // RFC 8839 §5.1; the priority of RFC 8445 §5.1.2.1 for a host candidate of one address.
    let candidate = format!(
        "a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n",
        at.ip(),
        at.port()
    );
    let setup = "a=setup:actpass\r\n";
    offer.replace(setup, &format!("{setup}{candidate}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_m_line_gets_the_candidate() {
        let offer =
            "v=0\r\nm=audio 9 x 1\r\na=setup:actpass\r\nm=video 9 x 2\r\na=setup:actpass\r\n";
        let offer = with_candidate(offer, "192.0.2.1:5000".parse().unwrap());
        assert_eq!(offer.matches("192.0.2.1 5000 typ host\r\n").count(), 2);
    }
}
