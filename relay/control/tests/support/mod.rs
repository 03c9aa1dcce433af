//! A control plane with a shard that only says yes, and clients for it. Connections run over
//! memory, so that a paused clock decides what is late, and no test waits.
#![allow(dead_code, reason = "each test file uses a part of this")]

use axum::Router;
use futures_util::{SinkExt, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use sealcast_control::clock;
use sealcast_control::flight::FlightReader;
use sealcast_control::http::{self, App, HttpConfig};
use sealcast_control::metrics::Metrics;
use sealcast_control::rooms::{Rooms, RoomsConfig, ShardPort, Spread};
use sealcast_control::sdp::MediaPolicy;
use sealcast_control::token::{Algorithm, Grants, Minter, TokenKey, TokenRequest, Verifier};
use sealcast_delivery::{DeliveryKey, SUITES};
use sealcast_model::{
    Codec, Command, CommandError, CommandSender, Event, RequestId, SessionId, ShardId, ShardStats,
    Source, Time, Wake,
};
use serde_json::{Value, json};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;

pub(crate) const ISSUER: &str = "test-app";
pub(crate) const AUDIENCE: &str = "sealcast";

/// A shard that obeys at once: `wake` carries out what was queued, in the sender's call.
pub(crate) struct FakeShard {
    queue: Mutex<Receiver<Command>>,
    rooms: OnceLock<Weak<Rooms>>,
    pub(crate) seen: Mutex<Vec<Command>>,
    /// What the next requests get instead of a yes.
    pub(crate) refuse: Mutex<Vec<CommandError>>,
    /// Answer nothing at all.
    pub(crate) silent: Mutex<bool>,
}

impl Wake for FakeShard {
    fn wake(&self) {
        while let Ok(command) = self.queue.lock().unwrap().try_recv() {
            let request = request_of(&command);
            self.seen.lock().unwrap().push(command);
            let Some(request) = request.filter(|_| !*self.silent.lock().unwrap()) else {
                continue;
            };
            let result = self.refuse.lock().unwrap().pop().map_or(Ok(()), Err);
            if let Some(rooms) = self.rooms.get().and_then(Weak::upgrade) {
                rooms.handle_event(Event::Reply { request, result });
            }
        }
    }
}

impl FakeShard {
    pub(crate) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Sessions opened and not closed since, by what was seen.
    pub(crate) fn last_session(&self) -> SessionId {
        let seen = self.seen.lock().unwrap();
        let mut sessions = seen.iter().rev();
        sessions
            .find_map(|c| match c {
                Command::OpenSession { session, .. } => Some(*session),
                _ => None,
            })
            .expect("a session was opened")
    }
}

fn request_of(command: &Command) -> Option<RequestId> {
    match command {
        Command::OpenSession { request, .. }
        | Command::UpdateMedia { request, .. }
        | Command::Publish { request, .. }
        | Command::AssignSlots { request, .. } => Some(*request),
        _ => None,
    }
}

/// A control plane under test.
pub(crate) struct Relay {
    pub(crate) app: Arc<App>,
    pub(crate) shards: Vec<Arc<FakeShard>>,
    pub(crate) minter: Minter,
    pub(crate) private_key: Vec<u8>,
    /// What the shards count.
    pub(crate) stats: Vec<Arc<ShardStats>>,
}

pub(crate) struct Setup {
    pub(crate) sealed_required: bool,
    pub(crate) development: bool,
    pub(crate) max_participants: usize,
    pub(crate) max_participants_per_room: usize,
    pub(crate) spread: Spread,
    pub(crate) shards: usize,
    pub(crate) group_keys: bool,
    pub(crate) policy: MediaPolicy,
    pub(crate) http: HttpConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            sealed_required: false,
            development: false,
            max_participants: 100,
            max_participants_per_room: 50,
            spread: Spread::NEVER,
            shards: 1,
            group_keys: false,
            policy: MediaPolicy {
                audio: vec![Codec::Opus],
                video: vec![Codec::Vp8, Codec::H264],
                repair: false,
                transport_cc: false,
                simulcast: false,
            },
            http: HttpConfig {
                header_timeout: Duration::from_millis(300),
                body_timeout: Duration::from_millis(300),
                max_connections: 50,
                max_connections_per_ip: 40,
                frame_ancestors: vec![],
            },
        }
    }
}

pub(crate) fn ec_key() -> Vec<u8> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    key.private_key_to_pem_pkcs8().unwrap()
}

pub(crate) fn minter_with(key: &[u8]) -> Minter {
    let key = TokenKey::load(Algorithm::Es256, Some("k1".into()), key).unwrap();
    Minter::new(ISSUER, AUDIENCE, key).unwrap()
}

impl Relay {
    pub(crate) fn start(setup: Setup) -> Relay {
        let private_key = ec_key();
        let key = TokenKey::load(Algorithm::Es256, Some("k1".into()), &private_key).unwrap();
        let hour = Duration::from_secs(3_600);
        let verifier = Verifier::new(Algorithm::Es256, ISSUER, AUDIENCE, hour, vec![key]).unwrap();
        let metrics = Metrics::new("0.0.0").unwrap();
        let mut ports = Vec::new();
        let mut shards = Vec::new();
        for id in 0..setup.shards {
            let (sender, queue) = sync_channel(64);
            let shard = Arc::new(FakeShard {
                queue: Mutex::new(queue),
                rooms: OnceLock::new(),
                seen: Mutex::default(),
                refuse: Mutex::default(),
                silent: Mutex::default(),
            });
            ports.push(ShardPort {
                id: ShardId(id as u16),
                commands: CommandSender::new(sender, Arc::clone(&shard) as Arc<dyn Wake>),
                udp: vec![format!("192.0.2.1:{}", 7_000 + id).parse().unwrap()],
                tcp: vec![format!("192.0.2.1:{}", 8_000 + id).parse().unwrap()],
                stats: Arc::new(ShardStats::default()),
            });
            shards.push(shard);
        }
        let stats: Vec<_> = ports.iter().map(|p| (p.id, Arc::clone(&p.stats))).collect();
        metrics.export_shards(stats.clone()).unwrap();
        let flight = FlightReader::new(stats.clone(), || Time::from_millis(90_000));
        let delivery = setup
            .group_keys
            .then(|| Arc::new(DeliveryKey::from_seed(SUITES[0], &[7; 32]).unwrap()));
        let rooms = Rooms::with_group_keys(
            RoomsConfig {
                grace: Duration::from_secs(30),
                sealed_required: setup.sealed_required,
                spread: setup.spread,
                max_participants_per_room: setup.max_participants_per_room,
                max_participants: setup.max_participants,
            },
            setup.policy,
            [7; 32],
            ports,
            Arc::clone(&metrics),
            tokio::runtime::Handle::current(),
            delivery,
        );
        for shard in &shards {
            shard.rooms.set(Arc::downgrade(&rooms)).unwrap();
        }
        let app = Arc::new(App {
            rooms,
            verifier,
            development: setup.development.then(|| minter_with(&private_key)),
            metrics,
            flight,
            config: setup.http,
            version: "0.0.0",
        });
        Relay {
            app,
            shards,
            minter: minter_with(&private_key),
            private_key,
            stats: stats.into_iter().map(|(_, stats)| stats).collect(),
        }
    }

    pub(crate) fn shard(&self) -> &FakeShard {
        &self.shards[0]
    }

    pub(crate) fn emit(&self, event: Event) {
        self.app.rooms.handle_event(event);
    }

    pub(crate) fn router(&self) -> Router {
        http::router(Arc::clone(&self.app))
            .merge(http::operator_router(Arc::clone(&self.app)))
            .merge(http::inspection_router(Arc::clone(&self.app)))
    }

    pub(crate) fn token(&self, room: &str) -> String {
        self.token_with(room, all_grants())
    }

    pub(crate) fn token_with(&self, room: &str, grants: Grants) -> String {
        self.minter
            .mint(&TokenRequest {
                subject: "tester".into(),
                room: room.into(),
                grants,
                expires: clock::unix_now() + 600,
            })
            .unwrap()
    }

    /// A metric's value, as a scraper would read it; 0 where the series does not exist.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(self.app.metrics.text()).unwrap();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |v| v.parse().unwrap())
    }

    /// A connection in memory that the relay serves. `buffer` is what each direction holds.
    pub(crate) fn connect(&self, buffer: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let service = TowerToHyperService::new(self.router());
        tokio::spawn(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(theirs), service)
                .with_upgrades(),
        );
        ours
    }

    pub(crate) async fn socket(&self) -> Socket {
        self.socket_with(1 << 20).await
    }

    pub(crate) async fn socket_with(&self, buffer: usize) -> Socket {
        let mut request = "ws://relay/v1/signal".into_client_request().unwrap();
        let protocol = "sealcast.v1".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let stream = self.connect(buffer);
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        Socket {
            socket,
            next_id: 0,
            events: Vec::new(),
            joined: Value::Null,
        }
    }

    /// A joined client.
    pub(crate) async fn client(&self, room: &str) -> Socket {
        self.client_with(room, all_grants()).await
    }

    pub(crate) async fn client_with(&self, room: &str, grants: Grants) -> Socket {
        let mut socket = self.socket().await;
        let token = self.token_with(room, grants);
        socket.joined = socket
            .ok("join", json!({"protocol": 1, "token": token}))
            .await;
        socket
    }
}

pub(crate) fn all_grants() -> Grants {
    Grants {
        publish: Source::ALL.to_vec(),
        subscribe: true,
        unsealed: true,
        moderate: false,
    }
}

pub(crate) fn moderator() -> Grants {
    Grants {
        moderate: true,
        ..all_grants()
    }
}

/// A signalling client.
pub(crate) struct Socket {
    pub(crate) socket: WebSocketStream<DuplexStream>,
    next_id: u64,
    pub(crate) events: Vec<Value>,
    pub(crate) joined: Value,
}

impl Socket {
    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    /// The next message, or the close frame's code.
    pub(crate) async fn next(&mut self) -> Result<Value, Option<u16>> {
        // Of the paused clock: what never comes is a failure and not a test that never ends.
        let patience = tokio::time::Instant::now() + Duration::from_secs(600);
        loop {
            let next = tokio::time::timeout_at(patience, self.socket.next()).await;
            match next.expect("a message within ten minutes") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => {
                    return Err(Some(code.into()));
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(None),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Sends a request and waits for its response; events on the way are kept.
    pub(crate) async fn request(&mut self, kind: &str, mut fields: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        fields["type"] = json!(kind);
        fields["id"] = json!(id);
        self.send(fields.to_string()).await;
        self.response(id).await
    }

    pub(crate) async fn response(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await.expect("the socket stays open");
            if message["id"] == json!(id) {
                return message;
            }
            self.events.push(message);
        }
    }

    pub(crate) async fn ok(&mut self, kind: &str, fields: Value) -> Value {
        let response = self.request(kind, fields).await;
        assert_ne!(response["type"], "error", "{kind}: {response}");
        response
    }

    pub(crate) async fn refused(&mut self, kind: &str, fields: Value) -> String {
        let response = self.request(kind, fields).await;
        assert_eq!(response["type"], "error", "{kind}: {response}");
        response["code"].as_str().unwrap().to_owned()
    }

    /// The next event of a type, past or to come.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        if let Some(i) = self.events.iter().position(|e| e["type"] == kind) {
            return self.events.remove(i);
        }
        loop {
            let message = self.next().await.expect("the socket stays open");
            if message["type"] == kind {
                return message;
            }
            self.events.push(message);
        }
    }

    /// Lets time pass while reading, which is what answers pings.
    pub(crate) async fn stay(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Ok(message) = tokio::time::timeout_at(until, self.next()).await {
            self.events.push(message.expect("the socket stays open"));
        }
    }

    /// Reads to the end; the close code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Ok(message) => self.events.push(message),
                Err(code) => return code,
            }
        }
    }

    pub(crate) fn id(&self) -> String {
        self.joined["participant"].as_str().unwrap().to_owned()
    }

    /// Negotiates media with these m-lines.
    pub(crate) async fn offer(&mut self, media: &[(&str, &str, &str)]) -> Value {
        self.ok("offer", json!({"sdp": sdp(media)})).await
    }

    pub(crate) async fn publish(&mut self, mid: &str, source: &str) -> String {
        let fields = json!({"mid": mid, "source": source, "seal": {"contexts": [1]}});
        let response = self.ok("publish", fields).await;
        response["track"].as_str().unwrap().to_owned()
    }
}

/// An offer: `media` are (mid, kind, direction).
pub(crate) fn sdp(media: &[(&str, &str, &str)]) -> String {
    sdp_of("abcd", media)
}

pub(crate) fn sdp_of(ufrag: &str, media: &[(&str, &str, &str)]) -> String {
    let mids: Vec<&str> = media.iter().map(|m| m.0).collect();
    let mut out = format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
        mids.join(" ")
    );
    for (mid, kind, direction) in media {
        let codecs = match *kind {
            "audio" => "UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2",
            "video" => "UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli",
            "h264" => {
                "UDP/TLS/RTP/SAVPF 97\r\na=rtpmap:97 H264/90000\r\na=fmtp:97 packetization-mode=1;profile-level-id=42e01f"
            }
            _ => "UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000",
        };
        let media = if *kind == "h264" { "video" } else { kind };
        let fingerprint = ["AB"; 32].join(":");
        out.push_str(&format!(
            "m={media} 9 {codecs}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\n\
             a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n"
        ));
    }
    out
}
