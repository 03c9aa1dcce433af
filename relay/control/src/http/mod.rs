//! The relay over HTTP: the signalling socket, WHIP and WHEP, the consult page, and what
//! operators ask.

mod assets;
mod body;
mod development;
pub mod server;
pub mod tls;
mod whip;

use crate::flight::FlightReader;
use crate::metrics::Metrics;
use crate::rooms::Rooms;
use crate::signal;
use crate::token::{IDENTITY_AUDIENCE, Minter, Verifier};
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get, options, post};
use axum::{Json, Router};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What an operator sets about HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Headers of a request must arrive within this time.
    pub header_timeout: Duration,
    /// A body must arrive within this time.
    pub body_timeout: Duration,
    /// Connections of the relay, signalling sockets included.
    pub max_connections: usize,
    /// Connections of one address; 0: no limit (behind a proxy all come from one).
    pub max_connections_per_ip: usize,
    /// Origins that may show the consult page in a frame, as CSP sources.
    pub frame_ancestors: Vec<String>,
}

/// Everything that requests need.
pub struct App {
    /// The directory of rooms.
    pub rooms: Arc<Rooms>,
    /// Checks tokens.
    pub verifier: Verifier,
    /// Makes tokens for anybody: only on the built-in development keys.
    pub development: Option<Minter>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The slowest packets.
    pub flight: FlightReader,
    /// Settings.
    pub config: HttpConfig,
    /// The relay's version.
    pub version: &'static str,
}

/// Routes for clients.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/signal", any(upgrade))
        .route("/v1/config", get(config))
        .route("/dev/token", post(development::token))
        .route("/dev/assertion", post(development::assertion))
        .route("/whip/{room}", options(whip::preflight).post(whip::publish))
        .route("/whep/{room}", options(whip::preflight).post(whip::play))
        .route(
            "/whip/{room}/{session}",
            whip::session_routes(whip::Endpoint::Whip),
        )
        .route(
            "/whep/{room}/{session}",
            whip::session_routes(whip::Endpoint::Whep),
        )
        .route("/", get(assets::page))
        .route("/r/{room}", get(assets::page))
        .route("/assets/{*path}", get(assets::asset))
        .with_state(app)
}

/// Routes for operators.
pub fn operator_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(app)
}

/// Routes for operators that say more of what happens in rooms, if only by pseudonyms: never to be
/// served where clients are.
pub fn inspection_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/debug/flight", get(flight))
        .with_state(app)
}

async fn upgrade(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([signal::SUBPROTOCOL]),
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none() {
        let text = "the subprotocol must be sealcast.v1";
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    if app.rooms.is_stopping() {
        return unavailable("the relay is stopping");
    }
    upgrade
        // Fragments count towards the same limit, and what lies beyond it is never buffered.
        .max_message_size(crate::limits::MESSAGE_BYTES)
        .max_frame_size(crate::limits::MESSAGE_BYTES)
        .max_write_buffer_size(4 * crate::limits::MESSAGE_BYTES)
        .on_upgrade(move |socket| signal::serve(socket, app))
}

/// 503 with `Retry-After`.
fn unavailable(text: &'static str) -> Response {
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    let seconds = HeaderValue::from(crate::limits::RETRY_AFTER_SECONDS);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// What the consult page must know (PROTOCOL.md §10).
async fn config(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    struct Config<'a> {
        version: &'static str,
        protocol: u64,
        development: bool,
        sealed: &'static str,
        keys: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        issuer: Option<Issuer<'a>>,
        codecs: Codecs,
        simulcast: bool,
        grace_seconds: u64,
    }
    #[derive(Serialize)]
    struct Issuer<'a> {
        issuer: &'a str,
        audience: &'static str,
        keys: [&'a serde_json::Value; 1],
    }
    #[derive(Serialize)]
    struct Codecs {
        audio: Vec<&'static str>,
        video: Vec<&'static str>,
    }
    let policy = app.rooms.policy();
    let names = |codecs: &[sealcast_model::Codec]| codecs.iter().map(|c| c.name()).collect();
    let development = app.development.as_ref();
    let issuer = development.and_then(|minter| {
        Some(Issuer {
            issuer: minter.issuer(),
            audience: IDENTITY_AUDIENCE,
            keys: [minter.public_jwk()?],
        })
    });
    let config = Config {
        version: app.version,
        protocol: 1,
        development: app.development.is_some(),
        sealed: signal::sealed_name(app.rooms.config().sealed_required),
        keys: signal::keys_name(app.rooms.group_suite().is_some()),
        issuer,
        codecs: Codecs {
            audio: names(&policy.audio),
            video: names(&policy.video),
        },
        simulcast: policy.simulcast,
        grace_seconds: app.rooms.config().grace.as_secs(),
    };
    no_store(Json(config).into_response())
}

fn no_store(mut response: Response) -> Response {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    (kind, app.metrics.text()).into_response()
}

/// The slowest packets of the last minute: a page for browsers, JSON for everybody else.
async fn flight(State(app): State<Arc<App>>, request: HeaderMap) -> Response {
    let report = app.flight.report(&app.rooms);
    let accepts = request.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        let headers = [(header::CONTENT_SECURITY_POLICY, policy)];
        return no_store((headers, Html(report.page())).into_response());
    }
    no_store(Json(report).into_response())
}

/// The process runs and its runtime schedules.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The relay takes sessions.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.rooms.is_stopping() {
        return unavailable("stopping\n");
    }
    if !app.rooms.has_shards() {
        return unavailable("a shard has ended\n");
    }
    "ready\n".into_response()
}
