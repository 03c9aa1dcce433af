//! The life of a client that speaks WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): a session to
//! publish, another to play. Any SFU that speaks them can be loaded; media is not sealed.
//!
//! What these protocols lack cannot be measured with them: a player says neither which tracks it
//! wants nor what it shows, so every stream of its room is right.

use super::meter::Notice;
use super::session::{self, ClientError, JOIN_TIMEOUT, Joining, MediaSession, failed, stopped};
use super::worker::Worker;
use super::{Setup, Whip};
use crate::http::{self, HttpError};
use crate::peer::{PeerConfig, SenderParams};
use crate::result::Counter;
use crate::schedule::ClientPlan;
use crate::tokens::Wanted;
use hyper::{Method, Uri};
use sealcast_model::Time;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// A session that is up.
struct Session {
    media: MediaSession,
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
        if !session::begin(&setup, intended, &mut stop).await {
            return;
        }
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
            let client = Client {
                media: MediaSession {
                    setup: Arc::clone(&setup),
                    worker: Arc::clone(&worker),
                    room: plan.room,
                    key: plan.id * 1_000_000 + (nth as u64) * 2 + n as u64,
                },
                whip: &whip,
                plan: &plan,
            };
            let _under_way = Joining::begin(&client.media, intended);
            let joining = tokio::time::timeout(JOIN_TIMEOUT, client.join(intended, publish));
            match joining.await.unwrap_or(Err(ClientError::Timeout)) {
                Ok((resource, token, inbox)) => sessions.push(Session {
                    media: client.media,
                    resource,
                    token,
                    inbox,
                }),
                Err(e) => {
                    failed(&setup, Counter::JoinFailed, &e);
                    client.media.close();
                }
            }
        }
        let until = stay.until.map_or(Time::NEVER, |until| setup.begin + until);
        tokio::select! {
            () = setup.sleep_until(until) => {}
            () = stopped(&mut stop) => {}
            why = ended(&mut sessions) => failed(&setup, Counter::SessionLost, &why),
        }
        for session in sessions {
            session.media.close();
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
                    Some(Notice::Connected | Notice::Message(_)) => {}
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
    media: MediaSession,
    whip: &'a Whip,
    plan: &'a ClientPlan,
}

/// What a session is ended by, its token, and what its media tells.
type Joined = (Option<Uri>, String, UnboundedReceiver<Notice>);

impl Client<'_> {
    async fn join(&self, intended: Time, publish: bool) -> Result<Joined, ClientError> {
        let setup = &self.media.setup;
        let mut inbox = self.media.open(intended);
        let token = self.token(publish).await?;
        let template = if publish {
            &self.whip.publish
        } else {
            &self.whip.play
        };
        let url = template.replace("{room}", &setup.room_name(self.plan.room));
        let uri: Uri = url.parse().map_err(|_| HttpError::Address(url.clone()))?;
        // Where the route to the server begins is where media must come from.
        let (_, local) = setup.http.connect(&uri).await?;
        let offered = self.media.offer(local, self.peer_config(publish)).await?;
        let offer = match offered.local {
            Some(at) => with_candidate(&offered.sdp, at),
            None => offered.sdp.clone(),
        };
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
        for (n, stream) in offered.streams.iter().enumerate() {
            let track = format!("{}-{n}", self.media.key);
            setup.registry.publish(stream, &track);
        }
        let answer = String::from_utf8_lossy(&response.body);
        self.media.accept(&offered, &answer, true).await?;
        session::connected(&mut inbox).await?;
        self.media.start()?;
        Ok((resource, token, inbox))
    }

    async fn token(&self, publish: bool) -> Result<String, ClientError> {
        let setup = &self.media.setup;
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

    fn peer_config(&self, publish: bool) -> PeerConfig {
        let role = self.media.setup.role(self.plan);
        let mut send = vec![];
        if publish {
            send.extend(role.audio.as_ref().map(|a| SenderParams::Audio(a.params())));
            // RFC 9725 knows no simulcast that every server takes.
            send.extend(role.video.as_ref().map(|v| SenderParams::Video(v.params())));
        }
        // A player of WHEP gets one of each kind.
        let slots = |n: u32| usize::from(!publish && n > 0);
        PeerConfig {
            send,
            audio_slots: slots(role.audio_slots),
            video_slots: slots(role.video_slots),
            data: false,
            seal: None,
            locals: vec![],
            seed: 0,
        }
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
