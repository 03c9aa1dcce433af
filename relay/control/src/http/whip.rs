//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): one HTTP exchange each way for clients that
//! do not signal (PROTOCOL.md §9).

use super::{App, body};
use crate::clock;
use crate::limits;
use crate::random;
use crate::refusal::{Code, Refusal};
use crate::rooms::Seat;
use crate::sdp::{self, Role};
use crate::token::{Identity, TokenError, source_from_str};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use sealcast_model::{MediaKind, Source};
use serde::Deserialize;
use std::sync::Arc;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Publishing.
    Whip,
    /// Playing.
    Whep,
}

impl Endpoint {
    const fn name(self) -> &'static str {
        match self {
            Endpoint::Whip => "whip",
            Endpoint::Whep => "whep",
        }
    }

    const fn role(self) -> Role {
        match self {
            Endpoint::Whip => Role::Publisher,
            Endpoint::Whep => Role::Player,
        }
    }
}

/// Settings in the URL's query.
#[derive(Deserialize)]
pub(super) struct Settings {
    /// What the video shows; `camera` by default.
    video: Option<String>,
}

pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    Query(settings): Query<Settings>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    create(
        &app,
        Endpoint::Whip,
        &room,
        settings.video.as_deref(),
        &headers,
        body,
    )
    .await
}

pub(super) async fn play(
    State(app): State<Arc<App>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    create(&app, Endpoint::Whep, &room, None, &headers, body).await
}

/// Routes of a session's location.
pub(super) fn session_routes(endpoint: Endpoint) -> MethodRouter<Arc<App>> {
    MethodRouter::new()
        .options(preflight)
        .delete(move |app, path| delete(app, path, endpoint))
        .patch(move |app, path, headers, body| patch(app, path, headers, body, endpoint))
}

/// RFC 9725 §4.2 and CORS (Fetch §3.2): a page of any origin may use these; the token, which no
/// browser sends by itself, is what decides.
pub(super) async fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "POST, PATCH, DELETE, OPTIONS",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, If-Match",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (HeaderName::from_static("accept-post"), "application/sdp"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    cors(response)
}

fn cors(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, ETag, Link, Retry-After"),
    );
    response
}

/// Counts a response and lets pages of other origins read it.
fn finish(app: &App, endpoint: Endpoint, method: &Method, response: Response) -> Response {
    let method = match *method {
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        _ => "DELETE",
    };
    app.metrics
        .whip(endpoint.name(), method, response.status().as_u16());
    cors(response)
}

/// A refusal as a response.
fn refuse(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.code.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, refusal.message.to_string()).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(limits::RETRY_AFTER_SECONDS),
        );
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

async fn create(
    app: &Arc<App>,
    endpoint: Endpoint,
    room: &str,
    video: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let response = match try_create(app, endpoint, room, video, headers, body).await {
        Ok(response) | Err(response) => response,
    };
    finish(app, endpoint, &Method::POST, response)
}

async fn try_create(
    app: &Arc<App>,
    endpoint: Endpoint,
    room: &str,
    video: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    if app.rooms.is_stopping() {
        return Err(refuse(&Refusal::GOING_AWAY));
    }
    // Whoever has no token is told so before anything of the body is read.
    let identity = authorize(app, room, headers).map_err(|e| refuse(&e))?;
    if !has_type(headers, "application/sdp") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response());
    }
    let video = match video {
        None => Source::Camera,
        Some(name) => source_from_str(name)
            .filter(|s| s.kind() == MediaKind::Video)
            .ok_or_else(|| bad_request("video must be camera, screen or imaging"))?,
    };
    allowed(app, endpoint, &identity).map_err(|e| refuse(&e))?;
    let offer = body::text(app, body, sdp::limits::SDP_BYTES).await?;
    let seat = app
        .rooms
        .join(identity, endpoint.role(), None, |_| {})
        .map_err(|e| refuse(&e))?;
    // Until the session stands, whatever goes wrong (this request being dropped included) takes
    // the participant out again.
    let mut guard = LeaveUnlessKept(Some((app, &seat)));
    let answer = open(app, endpoint, &seat, &offer, video).await;
    let answer = answer.map_err(|e| refuse(&e))?;
    let location = random::location();
    if !app.rooms.locate(&seat, &location) {
        return Err(refuse(&Refusal::NO_SESSION));
    }
    guard.0 = None;
    if endpoint == Endpoint::Whep {
        app.rooms.play(&seat);
    }
    Ok(created(endpoint, room, &location, answer))
}

/// Takes a half-made participant out of its room.
struct LeaveUnlessKept<'a>(Option<(&'a App, &'a Seat)>);

impl Drop for LeaveUnlessKept<'_> {
    fn drop(&mut self) {
        if let Some((app, seat)) = self.0.take() {
            app.rooms.leave(seat, "left");
        }
    }
}

/// The bearer's identity, if the token opens this room.
fn authorize(app: &App, room: &str, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let token = bearer(headers).unwrap_or_default();
    let verified = app.verifier.verify(token, clock::unix_now());
    let verified = verified.and_then(|identity| {
        if identity.room == room {
            Ok(identity)
        } else {
            Err(TokenError::WrongRoom)
        }
    });
    app.metrics.token(&verified);
    Ok(verified?)
}

/// RFC 6750 §2.1; the scheme's name is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

fn allowed(app: &App, endpoint: Endpoint, identity: &Identity) -> Result<(), Refusal> {
    let grants = &identity.grants;
    match endpoint {
        Endpoint::Whep if !grants.subscribe => Err(Refusal::new(
            Code::Forbidden,
            "the token does not allow receiving",
        )),
        Endpoint::Whip if app.rooms.config().sealed_required => Err(Refusal::new(
            Code::Unsealed,
            "this relay takes sealed media only",
        )),
        Endpoint::Whip if !grants.unsealed => Err(Refusal::new(
            Code::Unsealed,
            "the token does not allow unsealed media",
        )),
        Endpoint::Whip | Endpoint::Whep => Ok(()),
    }
}

async fn open(
    app: &App,
    endpoint: Endpoint,
    seat: &Seat,
    offer: &str,
    video: Source,
) -> Result<String, Refusal> {
    let answer = app.rooms.offer(seat, offer, false).await?;
    if endpoint == Endpoint::Whip {
        app.rooms.publish_all(seat, video).await?;
    }
    Ok(answer)
}

fn created(endpoint: Endpoint, room: &str, location: &str, answer: String) -> Response {
    let mut response = (StatusCode::CREATED, answer).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/sdp"),
    );
    // The room passed the token's check, so it is made of URL-safe characters.
    let url = format!("/{}/{room}/{location}", endpoint.name());
    if let Ok(url) = HeaderValue::from_str(&url) {
        headers.insert(header::LOCATION, url);
    }
    // RFC 9725 §4.3.1: the entity-tag names the ICE session; it never changes here, since a
    // restart needs a new session.
    headers.insert(header::ETAG, HeaderValue::from_static("\"1\""));
    response
}

fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let kind = value.and_then(|v| v.split(';').next());
    kind.is_some_and(|k| k.trim().eq_ignore_ascii_case(expected))
}

fn bad_request(text: &'static str) -> Response {
    (StatusCode::BAD_REQUEST, text).into_response()
}

async fn delete(
    State(app): State<Arc<App>>,
    Path((room, session)): Path<(String, String)>,
    endpoint: Endpoint,
) -> Response {
    let response = match app.rooms.at_location(&room, endpoint.role(), &session) {
        Some(seat) if app.rooms.leave(&seat, "left") => StatusCode::OK.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    finish(&app, endpoint, &Method::DELETE, response)
}

/// Trickled candidates are welcome and not needed: the relay is ICE-lite and sends no checks.
async fn patch(
    State(app): State<Arc<App>>,
    Path((room, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
    endpoint: Endpoint,
) -> Response {
    let response = match try_patch(&app, endpoint, &room, &session, &headers, body).await {
        Ok(status) => status.into_response(),
        Err(response) => response,
    };
    finish(&app, endpoint, &Method::PATCH, response)
}

async fn try_patch(
    app: &App,
    endpoint: Endpoint,
    room: &str,
    session: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<StatusCode, Response> {
    let seat = app.rooms.at_location(room, endpoint.role(), session);
    let seat = seat.ok_or_else(|| StatusCode::NOT_FOUND.into_response())?;
    if !has_type(headers, "application/trickle-ice-sdpfrag") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response());
    }
    let fragment = body::text(app, body, sdp::limits::SDP_BYTES).await?;
    // RFC 9725 §4.3.2: new credentials mean an ICE restart, which a server may refuse with 422.
    let ufrag = app.rooms.remote_ufrag(&seat);
    let mut named = fragment
        .lines()
        .filter_map(|l| l.strip_prefix("a=ice-ufrag:"));
    if named.any(|u| Some(u.trim()) != ufrag.as_deref()) {
        return Err(StatusCode::UNPROCESSABLE_ENTITY.into_response());
    }
    Ok(StatusCode::NO_CONTENT)
}
