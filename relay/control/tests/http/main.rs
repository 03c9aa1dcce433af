//! HTTP on real sockets: WHIP and WHEP, limits of size and time, what operators ask.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

use sealcast_control::http::server::Server;
use sealcast_control::http::tls;
use sealcast_control::token::Grants;
use sealcast_model::{CloseReason, Command, Event, Source};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{Relay, Setup, all_grants, sdp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes, unless it never happens.
const PATIENCE: Duration = Duration::from_secs(20);

struct Http {
    relay: Relay,
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

async fn start(setup: Setup) -> Http {
    let relay = Relay::start(setup);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = relay.app.config.clone();
    let metrics = Arc::clone(&relay.app.metrics);
    let server = Server::new(listener, None, relay.router(), config, metrics);
    let addr = server.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let server = tokio::spawn(server.run(stopping));
    Http {
        relay,
        addr,
        stop,
        server,
    }
}

/// A response, taken apart no further than the tests need.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|l| l.strip_prefix(prefix.as_str()))
    }
}

async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> Option<Response> {
    let mut raw = Vec::new();
    // A reset after the response is no reason to forget it.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut raw))
        .await
        .expect("in time");
    let text = String::from_utf8_lossy(&raw).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).await.unwrap();
    // The relay may answer and close before it has read all of it.
    let _ = stream.write_all(body.as_bytes()).await;
    read_response(&mut stream).await.expect("a response")
}

impl Http {
    async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        exchange(stream, method, path, headers, body).await
    }

    async fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "").await
    }

    async fn offer(&self, path: &str, token: &str, sdp: &str) -> Response {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/sdp"),
        ];
        self.request("POST", path, &headers, sdp).await
    }

    fn counted(&self, endpoint: &str, method: &str, status: u16) -> f64 {
        self.relay.metric(&format!(
            "sealcast_whip_requests_total{{endpoint=\"{endpoint}\",method=\"{method}\",status=\"{status}\"}}"
        ))
    }

    /// Waits until a counter has this value.
    async fn until(&self, series: &str, value: f64) {
        let reached = async {
            while (self.relay.metric(series) - value).abs() > f64::EPSILON {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{series} is {}", self.relay.metric(series));
    }
}

const SEND: &[(&str, &str, &str)] = &[("0", "audio", "sendrecv"), ("1", "video", "sendonly")];
const RECEIVE: &[(&str, &str, &str)] = &[("0", "audio", "recvonly"), ("1", "video", "recvonly")];

#[tokio::test]
async fn a_whip_session_from_post_to_delete() {
    let http = start(Setup::default()).await;
    let mut viewer = http.relay.client("r").await;
    let token = http.relay.token("r");
    let created = http
        .offer("/whip/r?video=imaging", &token, &sdp(SEND))
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("content-type"), Some("application/sdp"));
    assert!(created.header("etag").is_some());
    assert!(created.body.contains("a=ice-lite") && created.body.contains("a=recvonly"));
    let location = created.header("location").unwrap().to_owned();
    assert!(location.starts_with("/whip/r/") && location.len() == "/whip/r/".len() + 32);
    let sources = [
        viewer.event("track_published").await["source"].clone(),
        viewer.event("track_published").await["source"].clone(),
    ];
    assert_eq!(sources, [json!("audio"), json!("imaging")]);

    let fragment = [("content-type", "application/trickle-ice-sdpfrag")];
    let patch = |body: &'static str| http.request("PATCH", &location, &fragment, body);
    assert_eq!(
        patch("a=ice-ufrag:abcd\r\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n")
            .await
            .status,
        204
    );
    assert_eq!(
        patch("a=ice-ufrag:new1\r\n").await.status,
        422,
        "an ICE restart"
    );
    assert_eq!(http.request("PATCH", &location, &[], "").await.status, 415);
    let elsewhere = location.replace("/whip/r/", "/whip/other/");
    let player = location.replace("/whip/", "/whep/");
    for wrong in [elsewhere.as_str(), player.as_str(), "/whip/r/00"] {
        assert_eq!(
            http.request("DELETE", wrong, &[], "").await.status,
            404,
            "{wrong}"
        );
    }
    assert_eq!(http.request("DELETE", &location, &[], "").await.status, 200);
    assert_eq!(viewer.event("participant_left").await["reason"], "left");
    assert_eq!(http.request("DELETE", &location, &[], "").await.status, 404);
    assert_eq!(http.counted("whip", "POST", 201), 1.0);
    assert_eq!(http.counted("whip", "DELETE", 404), 3.0);
    let closed = http.relay.shard().take();
    assert!(
        closed
            .iter()
            .any(|c| matches!(c, Command::CloseSession { .. }))
    );
}

#[tokio::test]
async fn a_whip_publisher_that_vanishes_leaves() {
    let http = start(Setup::default()).await;
    let mut viewer = http.relay.client("r").await;
    let created = http
        .offer("/whip/r", &http.relay.token("r"), &sdp(SEND))
        .await;
    assert_eq!(created.status, 201);
    let session = http.relay.shard().last_session();
    http.relay.emit(Event::SessionClosed {
        session,
        reason: CloseReason::ConsentLost,
    });
    assert_eq!(
        viewer.event("participant_left").await["reason"],
        "consent_lost"
    );
    let gone = http
        .request("DELETE", created.header("location").unwrap(), &[], "")
        .await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn a_whep_player_gets_tracks_as_they_come_and_go() {
    let http = start(Setup::default()).await;
    let mut a = http.relay.client("r").await;
    a.offer(&[
        ("0", "video", "sendonly"),
        ("1", "video", "sendonly"),
        ("2", "audio", "sendonly"),
    ])
    .await;
    let first = a.publish("0", "camera").await;
    let created = http
        .offer("/whep/r", &http.relay.token("r"), &sdp(RECEIVE))
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(created.body.contains("a=sendonly"));
    assert_eq!(
        a.event("participant_joined").await["type"],
        "participant_joined"
    );
    let shows = |track: &str| {
        let track = track.to_owned();
        let shard = Arc::clone(&http.relay.shards[0]);
        async move {
            let assigned = async {
                loop {
                    let seen = shard.seen.lock().unwrap().iter().any(|c| match c {
                        Command::AssignSlots { assign, .. } => assign
                            .iter()
                            .any(|s| s.track.is_some_and(|t| t.to_string() == track)),
                        _ => false,
                    });
                    if seen {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, assigned)
                .await
                .expect("the track is assigned");
        }
    };
    shows(&first).await;
    let second = a.publish("1", "screen").await;
    let sound = a.publish("2", "audio").await;
    shows(&sound).await;
    let count = |track: &str| {
        let seen = http.relay.shard().seen.lock().unwrap();
        let assigned = seen.iter().filter(|c| {
            format!("{c:?}").contains(track) && matches!(c, Command::AssignSlots { .. })
        });
        assigned.count()
    };
    assert_eq!(count(&second), 0, "the only video slot is taken");
    a.ok("unpublish", json!({"track": first})).await;
    shows(&second).await;
}

#[tokio::test]
async fn whip_and_whep_refuse_with_the_right_status() {
    let http = start(Setup::default()).await;
    let offer = sdp(SEND);
    let good = http.relay.token("r");
    let with = |grants: Grants| http.relay.token_with("r", grants);
    let sealed = with(Grants {
        unsealed: false,
        ..all_grants()
    });
    let silent = with(Grants {
        publish: vec![Source::Camera],
        ..all_grants()
    });
    let deaf = with(Grants {
        subscribe: false,
        ..all_grants()
    });
    let big = format!("v=0\r\n{}", "a=x\r\n".repeat(2 << 20));
    let useless = offer.replace("opus", "speex").replace("VP8", "Theora");
    let m_lines = format!("v=0\n{}", "m=a 9 R 0\n".repeat(10_000));
    for (path, token, body, status) in [
        ("/whip/r", "", offer.as_str(), 401),
        ("/whip/r", "junk", &offer, 401),
        ("/whip/other", &good, &offer, 403),
        ("/whip/r", &sealed, &offer, 403),
        ("/whip/r", &silent, &offer, 403),
        ("/whep/r", &deaf, &sdp(RECEIVE), 403),
        ("/whip/r", &good, "", 400),
        ("/whip/r", &good, "v=0\r\nm=audio\r\n", 400),
        ("/whip/r", &good, &m_lines, 413),
        ("/whip/r", &good, &useless, 406),
        ("/whip/r", &good, &sdp(RECEIVE), 406),
        ("/whep/r", &good, &sdp(&[("0", "video", "sendonly")]), 406),
        ("/whip/r?video=audio", &good, &offer, 400),
        ("/whip/r", &good, &big, 413),
    ] {
        let got = http.offer(path, token, body).await;
        assert_eq!(got.status, status, "{path} {got:?}");
        assert_eq!(
            got.header("access-control-allow-origin"),
            Some("*"),
            "{path}"
        );
        assert_eq!(got.header("www-authenticate").is_some(), status == 401);
    }
    let bearer = format!("Bearer {good}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "text/plain"),
    ];
    assert_eq!(
        http.request("POST", "/whip/r", &headers, &offer)
            .await
            .status,
        415
    );
    assert_eq!(http.counted("whip", "POST", 403), 3.0);
    assert_eq!(http.counted("whip", "POST", 413), 2.0);
    assert_eq!(
        http.relay.app.rooms.participants(),
        0,
        "nobody is left behind"
    );
    assert_eq!(
        http.relay
            .metric("sealcast_http_errors_total{cause=\"body_too_large\"}"),
        1.0
    );
    assert_eq!(
        http.relay
            .metric("sealcast_tokens_refused_total{reason=\"wrong_room\"}"),
        1.0
    );
    let preflight = http.request("OPTIONS", "/whip/r", &[], "").await;
    assert_eq!(
        (preflight.status, preflight.header("accept-post")),
        (204, Some("application/sdp"))
    );

    let strict = start(Setup {
        sealed_required: true,
        ..Setup::default()
    })
    .await;
    let got = strict
        .offer("/whip/r", &strict.relay.token("r"), &offer)
        .await;
    assert_eq!(got.status, 403, "whatever the token says");
}

#[tokio::test]
async fn a_full_or_stopping_relay_refuses() {
    let http = start(Setup {
        max_participants: 1,
        ..Setup::default()
    })
    .await;
    let token = http.relay.token("r");
    assert_eq!(http.offer("/whip/r", &token, &sdp(SEND)).await.status, 201);
    assert_eq!(
        http.offer("/whep/r", &token, &sdp(RECEIVE)).await.status,
        429
    );
    assert_eq!(http.get("/readyz").await.status, 200);
    http.relay.app.rooms.stop(Duration::ZERO).await;
    let got = http.offer("/whep/r", &token, &sdp(RECEIVE)).await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("5")));
    assert_eq!(http.get("/readyz").await.status, 503);
    assert_eq!(
        http.get("/healthz").await.status,
        200,
        "the process is fine"
    );
    http.stop.send_replace(true);
    timeout(PATIENCE, http.server)
        .await
        .expect("the server ends")
        .unwrap();
    assert!(
        TcpStream::connect(http.addr).await.is_err(),
        "and with it the listener"
    );
}

#[tokio::test]
async fn a_lost_shard_makes_the_relay_unready() {
    let http = start(Setup::default()).await;
    http.relay.app.rooms.shard_ended();
    assert_eq!(http.get("/readyz").await.status, 503);
}

/// Sends `text`, then nothing, and waits for the relay to close.
async fn dribble(http: &Http, text: &str) -> Option<Response> {
    let mut stream = TcpStream::connect(http.addr).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    read_response(&mut stream).await
}

#[tokio::test]
async fn slow_requests_are_cut_off() {
    let http = start(Setup::default()).await;
    assert!(
        dribble(&http, "GET / HTTP/1.1\r\nhost: relay\r\nx-slow: ")
            .await
            .is_none()
    );
    http.until("sealcast_http_errors_total{cause=\"header_timeout\"}", 1.0)
        .await;
    let token = http.relay.token("r");
    let head = format!(
        "POST /whip/r HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {token}\r\n\
         content-type: application/sdp\r\ncontent-length: 1000\r\nconnection: close\r\n\r\nv=0\r\n"
    );
    assert_eq!(dribble(&http, &head).await.unwrap().status, 408);
    assert_eq!(
        http.relay
            .metric("sealcast_http_errors_total{cause=\"body_timeout\"}"),
        1.0
    );
    http.until("sealcast_http_connections", 0.0).await;
}

#[tokio::test]
async fn malformed_and_oversized_http_is_refused() {
    let http = start(Setup::default()).await;
    let long = "x".repeat(20_000);
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    for (text, status) in [
        ("GET\r\n\r\n".to_owned(), 400),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
    ] {
        let got = dribble(&http, &text).await.unwrap();
        assert_eq!(got.status, status, "{text:.40}");
    }
    http.until("sealcast_http_errors_total{cause=\"protocol\"}", 4.0)
        .await;
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let got = http.request("GET", "/v1/signal", &upgrade, "").await;
    assert_eq!(got.status, 400, "a WebSocket without the subprotocol");
    assert_eq!(
        http.get("/v1/signal").await.status,
        400,
        "no WebSocket at all"
    );
    assert_eq!(http.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn connections_are_limited_upgraded_ones_included() {
    let mut setup = Setup::default();
    setup.http.max_connections_per_ip = 2;
    // The held connections idle for as long as the test lasts.
    setup.http.header_timeout = PATIENCE;
    let http = start(setup).await;
    let socket = |addr: SocketAddr| async move {
        let mut request =
            tungstenite::client::IntoClientRequest::into_client_request("ws://relay/v1/signal")
                .unwrap();
        let protocol = "sealcast.v1".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let stream = TcpStream::connect(addr).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    let first = socket(http.addr).await.unwrap();
    let second = socket(http.addr).await.unwrap();
    assert!(socket(http.addr).await.is_err(), "a third of one address");
    assert_eq!(
        http.relay
            .metric("sealcast_http_connections_refused_total{limit=\"limit_per_ip\"}"),
        1.0
    );
    drop((first, second));
    http.until("sealcast_http_connections", 0.0).await;
    assert_eq!(http.get("/healthz").await.status, 200);

    let mut setup = Setup::default();
    setup.http.max_connections = 1;
    setup.http.header_timeout = PATIENCE;
    let http = start(setup).await;
    let held = socket(http.addr).await.unwrap();
    assert!(
        dribble(&http, "GET /healthz HTTP/1.1\r\n\r\n")
            .await
            .is_none()
    );
    assert_eq!(
        http.relay
            .metric("sealcast_http_connections_refused_total{limit=\"limit\"}"),
        1.0
    );
    drop(held);
}

#[tokio::test]
async fn development_tokens_exist_in_development_alone() {
    let json = [("content-type", "application/json")];
    let http = start(Setup::default()).await;
    let got = http
        .request("POST", "/dev/token", &json, r#"{"room":"r"}"#)
        .await;
    assert_eq!(got.status, 404);
    assert!(
        http.get("/v1/config")
            .await
            .body
            .contains("\"development\":false")
    );

    let http = start(Setup {
        development: true,
        ..Setup::default()
    })
    .await;
    let post = |body: &'static str| http.request("POST", "/dev/token", &json, body);
    assert_eq!(post("{").await.status, 400);
    assert_eq!(post(r#"{"room":"a b"}"#).await.status, 400);
    assert_eq!(
        post(r#"{"room":"r","grants":{"publish":["x"]}}"#)
            .await
            .status,
        400
    );
    let form = [("content-type", "text/plain")];
    assert_eq!(
        http.request("POST", "/dev/token", &form, r#"{"room":"r"}"#)
            .await
            .status,
        415
    );
    let made = post(r#"{"room":"r"}"#).await;
    assert_eq!(
        (made.status, made.header("cache-control")),
        (200, Some("no-store"))
    );
    let made: serde_json::Value = serde_json::from_str(&made.body).unwrap();
    let mut socket = http.relay.socket().await;
    let joined = socket
        .ok("join", json!({"protocol": 1, "token": made["token"]}))
        .await;
    assert_eq!(joined["grants"]["unsealed"], false);
    assert!(
        http.get("/v1/config")
            .await
            .body
            .contains("\"development\":true")
    );
}

#[tokio::test]
async fn the_page_is_kept_to_itself() {
    let mut setup = Setup::default();
    setup.http.frame_ancestors = vec!["https://clinic.example".into()];
    let http = start(setup).await;
    for path in ["/", "/r/consult-1"] {
        let page = http.get(path).await;
        let csp = page.header("content-security-policy").unwrap();
        assert!(csp.contains("default-src 'none'") && csp.contains("'wasm-unsafe-eval'"));
        assert!(csp.ends_with("frame-ancestors https://clinic.example"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert!(
            page.status == 200 || page.body.contains("make client"),
            "{page:?}"
        );
    }
    assert_eq!(http.get("/assets/../Cargo.toml").await.status, 404);
}

#[tokio::test]
async fn metrics_have_no_names_in_them() {
    let http = start(Setup::default()).await;
    let mut a = http.relay.client("room-canary").await;
    a.offer(&[("0", "audio", "sendonly")]).await;
    let track = a.publish("0", "audio").await;
    let metrics = http.get("/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    for secret in [
        "room-canary",
        "tester",
        "192.0.2",
        &track,
        &a.id(),
        "127.0.0.1",
    ] {
        assert!(!metrics.body.contains(secret), "{secret}");
    }
    assert!(
        metrics
            .body
            .contains("sealcast_participants{role=\"interactive\"} 1")
    );
    assert!(
        metrics
            .body
            .contains("sealcast_signal_requests_total{result=\"ok\",type=\"publish\"} 1")
    );
}

#[tokio::test]
async fn https_serves_and_gives_up_on_those_who_do_not_speak_tls() {
    let relay = Relay::start(Setup::default());
    let (chain, key) = tls::self_signed(&[]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::new(
        listener,
        Some(tls::server_config(&chain, &key).unwrap()),
        relay.router(),
        relay.app.config.clone(),
        Arc::clone(&relay.app.metrics),
    );
    let addr = server.local_addr().unwrap();
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(server.run(stopping));

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&chain).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(addr).await.unwrap();
    let stream = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    assert_eq!(
        exchange(stream, "GET", "/healthz", &[], "").await.body,
        "ok\n"
    );

    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(read_response(&mut plain).await.is_none());
    assert_eq!(
        relay.metric("sealcast_http_errors_total{cause=\"tls\"}"),
        1.0
    );
}
