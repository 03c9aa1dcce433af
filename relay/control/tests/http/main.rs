//! HTTP on real sockets: WHIP and WHEP, limits of size and time, what operators ask.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "../support/mod.rs"]
mod support;
mod whip;

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
