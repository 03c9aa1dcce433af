//! Does a socket's requests, one after the other.

use super::message::{Envelope, Request};
use super::response::Response;
use crate::clock::{self, Stopwatch};
use crate::http::App;
use crate::refusal::{Code, Refusal};
use crate::rooms::{Client, Seat, message};
use crate::sdp::Role;
use crate::token::TokenError;
use sealcast_model::TokenBucket;
use sealcast_model::limits::{SEALED_BURST, SEALED_PER_SECOND};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::mpsc;

pub(super) struct Worker {
    app: Arc<App>,
    client: Client,
    /// Tells the reader that the deadline for joining no longer applies.
    joined: Arc<AtomicBool>,
    seat: Option<Seat>,
    /// Sealed messages: each goes out to everybody.
    sealed: TokenBucket,
    clock: Stopwatch,
}

/// Whether the socket goes on.
enum Next {
    Stay,
    Close,
}

impl Worker {
    pub(super) fn new(app: Arc<App>, client: Client, joined: Arc<AtomicBool>) -> Self {
        let clock = Stopwatch::start();
        Worker {
            app,
            client,
            joined,
            seat: None,
            sealed: TokenBucket::new(SEALED_PER_SECOND, SEALED_BURST, clock.now()),
            clock,
        }
    }

    /// Ends when the reader has gone or a request closed the socket.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Envelope>) {
        while let Some(envelope) = requests.recv().await {
            // With the socket gone nobody learns of results; what was queued is not begun.
            if self.client.is_gone() {
                break;
            }
            if let Next::Close = self.handle(envelope).await {
                break;
            }
        }
        if let Some(seat) = &self.seat {
            self.app.rooms.detach(seat, &self.client);
        }
    }

    async fn handle(&mut self, envelope: Envelope) -> Next {
        let Envelope { id, name, request } = envelope;
        let result = self.execute(id, request).await;
        self.app.metrics.request(name, &result);
        match result {
            Ok(next) => next,
            Err(refusal) => {
                self.client.send(refusal.message(Some(id)));
                match refusal.code.close() {
                    Some(code) => {
                        self.client.close(code, refusal.code.as_str());
                        Next::Close
                    }
                    None => Next::Stay,
                }
            }
        }
    }

    async fn execute(&mut self, id: u64, request: Request) -> Result<Next, Refusal> {
        let app = Arc::clone(&self.app);
        let rooms = &app.rooms;
        match request {
            Request::Join { token, room } => return self.join(id, &token, room.as_deref()),
            Request::Resume { resume_token } => return self.resume(id, &resume_token).await,
            _ => {}
        }
        let seat = self.seat.clone().ok_or(Refusal::new(
            Code::NotJoined,
            "the first request must be join or resume",
        ))?;
        if rooms.is_stopping() {
            return Err(Refusal::GOING_AWAY);
        }
        match request {
            Request::Offer { sdp, restart } => {
                let sdp = rooms.offer(&seat, &sdp, restart).await?;
                self.respond(&Response::Answer { id, sdp: &sdp });
                return Ok(Next::Stay);
            }
            Request::Publish(publish) => {
                let track = rooms.publish(&seat, publish).await?.to_string();
                self.respond(&Response::Published { id, track });
                return Ok(Next::Stay);
            }
            Request::Leave => {
                self.seat = None;
                rooms.leave(&seat, "left");
                self.respond(&Response::Left { id });
                self.client.close(1000, "left");
                return Ok(Next::Close);
            }
            Request::Unpublish { track } => rooms.unpublish(&seat, track).await?,
            Request::Mute { track, muted } => rooms.mute(&seat, track, muted).await?,
            Request::Slots(assign) => rooms.assign(&seat, &assign).await?,
            Request::Remove { participant } => rooms.remove(&seat, participant).await?,
            Request::Group { data } => rooms.group_message(&seat, &self.client, &data)?,
            Request::Sealed { to, data } => {
                if !self.sealed.take(self.clock.now()) {
                    return Err(Refusal {
                        code: Code::RateLimited,
                        message: format!(
                            "{SEALED_PER_SECOND} sealed messages a second, {SEALED_BURST} at once"
                        )
                        .into(),
                    });
                }
                rooms.relay_sealed(&seat, &self.client, to, &data)?;
            }
            Request::Report(reports) => rooms.report(&seat, &reports),
            Request::Join { .. } | Request::Resume { .. } => {}
        }
        self.respond(&Response::Ok { id });
        Ok(Next::Stay)
    }

    fn join(&mut self, id: u64, token: &str, room: Option<&str>) -> Result<Next, Refusal> {
        self.not_yet_joined()?;
        let verified = self.app.verifier.verify(token, clock::unix_now());
        let verified = verified.and_then(|identity| match room {
            Some(room) if room != identity.room => Err(TokenError::WrongRoom),
            _ => Ok(identity),
        });
        self.app.metrics.token(&verified);
        let identity = verified?;
        let rooms = &self.app.rooms;
        let (room, grants) = (identity.room.clone(), identity.grants.clone());
        let respond = |joined: &_| {
            let response = Response::joined(
                id,
                &room,
                &grants,
                rooms.config().grace.as_secs(),
                rooms.config().sealed_required,
                rooms.group_suite(),
                joined,
            );
            self.client.send(message(&response));
        };
        let seat = rooms.join(
            identity,
            Role::Interactive,
            Some(self.client.clone()),
            respond,
        )?;
        self.seat = Some(seat);
        self.joined.store(true, Relaxed);
        Ok(Next::Stay)
    }

    async fn resume(&mut self, id: u64, token: &str) -> Result<Next, Refusal> {
        self.not_yet_joined()?;
        let rooms = &self.app.rooms;
        let client = self.client.clone();
        let respond = |resumed: &_| client.send(message(&Response::resumed(id, resumed)));
        let seat = rooms.resume(token, self.client.clone(), respond).await?;
        self.seat = Some(seat);
        self.joined.store(true, Relaxed);
        Ok(Next::Stay)
    }

    fn not_yet_joined(&self) -> Result<(), Refusal> {
        match &self.seat {
            Some(_) => Err(Refusal::new(
                Code::AlreadyJoined,
                "this socket has joined already",
            )),
            None => Ok(()),
        }
    }

    fn respond(&self, response: &Response<'_>) {
        self.client.send(message(response));
    }
}
