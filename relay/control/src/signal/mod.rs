//! The signalling socket (PROTOCOL.md §3): reads requests, has them done one after the other,
//! writes responses and events.
//!
//! Three loops serve a socket. The reader enforces size, rate and liveness, and never waits for a
//! request to be done. The worker does requests, outlives the socket where one is under way, and
//! so leaves no participant half-changed. The writer alone touches the sending half; what queues
//! up behind a slow client is bounded, and nobody else waits for it.

mod message;
mod response;
mod worker;

pub(crate) use response::{keys_name, sealed_name};

use crate::clock::Stopwatch;
use crate::http::App;
use crate::limits;
use crate::metrics::SocketEnd;
use crate::refusal::{Code, Refusal};
use crate::rooms::{Client, ClientQueue, Outgoing};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use message::Envelope;
use sealcast_model::TokenBucket;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tungstenite::error::{CapacityError, Error as WsError};

/// The subprotocol that a client must ask for.
pub(crate) const SUBPROTOCOL: &str = "sealcast.v1";

/// How long the relay listens for the client's half of a closing handshake. Closing the TCP
/// connection at once could reset it before the client has read why.
const CLOSING: Duration = Duration::from_secs(1);

/// Serves one socket to its end.
pub(crate) async fn serve(socket: WebSocket, app: Arc<App>) {
    app.metrics.socket_opened();
    let (mut sink, mut stream) = socket.split();
    let (client, queue) = Client::new(limits::OUT_QUEUE, limits::OUT_QUEUE_BYTES);
    let (requests, inbox) = mpsc::channel(limits::OUTSTANDING);
    let joined = Arc::new(AtomicBool::new(false));
    let worker = worker::Worker::new(Arc::clone(&app), client.clone(), Arc::clone(&joined));
    tokio::spawn(worker.run(inbox));
    let clock = Stopwatch::start();
    let reader = Reader {
        app: &app,
        client,
        requests,
        joined,
        bucket: TokenBucket::new(
            limits::REQUESTS_PER_SECOND,
            limits::REQUEST_BURST,
            clock.now(),
        ),
        clock,
        bad_messages: 0,
        rate_violations: 0,
    };
    let end = {
        let mut writer = pin!(write(&mut sink, queue));
        tokio::select! {
            end = &mut writer => end,
            read = reader.run(&mut stream) => match read {
                // What the reader queued as its last words still has to go out.
                ReadEnd::Closing(end) => {
                    let _ = timeout(limits::WRITE_TIMEOUT, &mut writer).await;
                    end
                }
                ReadEnd::Gone => SocketEnd::Client,
            },
        }
    };
    if end != SocketEnd::Client && end != SocketEnd::TooSlow {
        let drain = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = timeout(CLOSING, drain).await;
    }
    app.metrics.socket_closed(end);
}

/// Writes until a close message, an error, or the client falls behind.
async fn write(sink: &mut SplitSink<WebSocket, Message>, mut queue: ClientQueue) -> SocketEnd {
    let mut ping = tokio::time::interval(limits::PING_INTERVAL);
    ping.reset();
    let cut = Arc::clone(&queue.cut);
    loop {
        let message = tokio::select! {
            // A client that fell behind has missed messages: nothing more may be sent to it.
            biased;
            () = cut.notified() => {
                let frame = close_frame(4408, "too slow");
                let _ = timeout(CLOSING, sink.send(frame)).await;
                return SocketEnd::TooSlow;
            }
            next = queue.recv() => match next {
                Some(Outgoing::Text(text)) => Message::Text(text),
                Some(Outgoing::Close(code, reason)) => {
                    let frame = close_frame(code, reason);
                    let _ = timeout(limits::WRITE_TIMEOUT, sink.send(frame)).await;
                    return SocketEnd::Relay;
                }
                None => return SocketEnd::Relay,
            },
            _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
        };
        match timeout(limits::WRITE_TIMEOUT, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return SocketEnd::Client,
            Err(_) => return SocketEnd::TooSlow,
        }
    }
}

fn close_frame(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    }))
}

/// How reading ended.
enum ReadEnd {
    /// The client closed the socket or it broke.
    Gone,
    /// A close message is queued.
    Closing(SocketEnd),
}

struct Reader<'a> {
    app: &'a App,
    client: Client,
    requests: mpsc::Sender<Envelope>,
    joined: Arc<AtomicBool>,
    bucket: TokenBucket,
    clock: Stopwatch,
    bad_messages: u32,
    rate_violations: u32,
}

impl Reader<'_> {
    async fn run(mut self, stream: &mut SplitStream<WebSocket>) -> ReadEnd {
        let join_by = Instant::now() + limits::JOIN_DEADLINE;
        loop {
            let idle_at = Instant::now() + limits::IDLE_TIMEOUT;
            let joined = self.joined.load(Relaxed);
            let deadline = if joined { idle_at } else { join_by };
            let frame = match timeout_at(deadline, stream.next()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return self.broken(error),
                Ok(None) => return ReadEnd::Gone,
                // It may have joined while this waited.
                Err(_) if !joined && self.joined.load(Relaxed) => continue,
                Err(_) if joined => {
                    self.client.close(4408, "silent for too long");
                    return ReadEnd::Closing(SocketEnd::Idle);
                }
                Err(_) => {
                    self.client.close(4408, "no join in time");
                    return ReadEnd::Closing(SocketEnd::JoinTimeout);
                }
            };
            let proceed = match frame {
                Message::Text(text) => self.text(&text),
                Message::Binary(_) => {
                    let refusal = Refusal::new(Code::BadMessage, "binary frames have no meaning");
                    self.bad(None, "unknown", &refusal)
                }
                // The library answers pings and completes the closing handshake.
                Message::Ping(_) | Message::Pong(_) => true,
                Message::Close(_) => return ReadEnd::Gone,
            };
            if !proceed {
                return ReadEnd::Closing(SocketEnd::Relay);
            }
        }
    }

    fn broken(&self, error: axum::Error) -> ReadEnd {
        let inner = error.into_inner();
        let too_large = matches!(
            inner.downcast_ref::<WsError>(),
            Some(WsError::Capacity(CapacityError::MessageTooLong { .. }))
        );
        if too_large {
            let refusal = Refusal::new(Code::TooLarge, "a message is over 256 KiB");
            self.count("unknown", &refusal);
            self.last_words(None, &refusal);
            return ReadEnd::Closing(SocketEnd::Relay);
        }
        ReadEnd::Gone
    }

    /// False if the socket is to close.
    fn text(&mut self, text: &str) -> bool {
        if !self.bucket.take(self.clock.now()) {
            return self.too_fast(message::id_of(text));
        }
        match message::decode(text) {
            Ok(envelope) => self.pass_on(envelope),
            Err(e) if e.refusal.code == Code::BadMessage => self.bad(e.id, e.name, &e.refusal),
            Err(e) => self.refuse(e.id, e.name, &e.refusal),
        }
    }

    fn pass_on(&mut self, envelope: Envelope) -> bool {
        match self.requests.try_send(envelope) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(envelope)) => self.too_fast(Some(envelope.id)),
            // The worker has ended the socket and queued why.
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    fn bad(&mut self, id: Option<u64>, name: &'static str, refusal: &Refusal) -> bool {
        self.bad_messages += 1;
        if self.bad_messages >= limits::BAD_MESSAGES {
            self.count(name, refusal);
            self.client.send(refusal.message(id));
            self.client.close(4400, "too many bad messages");
            return false;
        }
        self.refuse(id, name, refusal)
    }

    fn too_fast(&mut self, id: Option<u64>) -> bool {
        const REFUSAL: Refusal = Refusal::new(
            Code::RateLimited,
            "50 requests a second, 32 at once; wait for responses",
        );
        self.rate_violations += 1;
        if self.rate_violations >= limits::RATE_VIOLATIONS {
            self.count("unknown", &REFUSAL);
            self.client.close(4429, "too many requests");
            return false;
        }
        self.refuse(id, "unknown", &REFUSAL)
    }

    fn refuse(&self, id: Option<u64>, name: &'static str, refusal: &Refusal) -> bool {
        self.count(name, refusal);
        if refusal.code.close().is_some() {
            self.last_words(id, refusal);
            return false;
        }
        self.client.send(refusal.message(id));
        true
    }

    fn last_words(&self, id: Option<u64>, refusal: &Refusal) {
        self.client.send(refusal.message(id));
        if let Some(code) = refusal.code.close() {
            self.client.close(code, refusal.code.as_str());
        }
    }

    fn count(&self, name: &'static str, refusal: &Refusal) {
        self.app.metrics.request::<()>(name, &Err(refusal.clone()));
    }
}
