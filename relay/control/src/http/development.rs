//! `POST /dev/token` and `POST /dev/assertion`: tokens and identity assertions for anybody, while
//! the relay runs on its built-in keys. In production, the application makes both.

use super::{App, body, no_store};
use crate::clock;
use crate::limits;
use crate::random;
use crate::token::{AssertionRequest, Grants, KeyError, TokenRequest, is_room_name};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealcast_model::Source;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// How long such a token is good for.
const TTL_SECONDS: u64 = 3_600;

/// Longest display name, bytes (PROTOCOL.md §11.5).
const NAME_BYTES: usize = 256;

#[derive(Deserialize)]
struct Wanted {
    room: String,
    #[serde(default = "usual_grants")]
    grants: Grants,
}

#[derive(Serialize)]
struct Made {
    token: String,
    expires: u64,
}

fn usual_grants() -> Grants {
    Grants {
        publish: Source::ALL.to_vec(),
        subscribe: true,
        unsealed: false,
        moderate: false,
    }
}

pub(super) async fn token(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let Some(minter) = &app.development else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let wanted: Wanted = match read(&app, &headers, body).await {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    if !is_room_name(&wanted.room) {
        return not_a_room();
    }
    let expires = clock::unix_now() + TTL_SECONDS;
    let request = TokenRequest {
        subject: format!("dev-{}", random::location()),
        room: wanted.room,
        grants: wanted.grants,
        expires,
    };
    answer(minter.mint(&request).map(|token| Made { token, expires }))
}

#[derive(Deserialize)]
struct Person {
    room: String,
    #[serde(default)]
    name: Option<String>,
    jwk: Value,
}

#[derive(Serialize)]
struct Asserted {
    /// For the credential.
    assertion: String,
    /// With the name, for the other members alone.
    named: Option<String>,
    expires: u64,
}

pub(super) async fn assertion(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(minter) = &app.development else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let person: Person = match read(&app, &headers, body).await {
        Ok(person) => person,
        Err(response) => return response,
    };
    if !is_room_name(&person.room) {
        return not_a_room();
    }
    if person.name.as_ref().is_some_and(|n| n.len() > NAME_BYTES) {
        return (StatusCode::BAD_REQUEST, "name is over 256 bytes").into_response();
    }
    let expires = clock::unix_now() + TTL_SECONDS;
    let request = AssertionRequest {
        subject: format!("dev-{:016x}", random::u64()),
        room: person.room,
        name: None,
        jwk: person.jwk,
        expires,
    };
    let made = minter.assert(&request).and_then(|assertion| {
        let named = person.name.map(|name| {
            minter.assert(&AssertionRequest {
                name: Some(name),
                ..request
            })
        });
        Ok(Asserted {
            assertion,
            named: named.transpose()?,
            expires,
        })
    });
    answer(made)
}

/// Another site's page can post a form here, but not JSON without asking first.
async fn read<T: DeserializeOwned>(
    app: &Arc<App>,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Response> {
    let json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    if !json {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response());
    }
    let text = body::text(app, body, limits::SMALL_BODY).await?;
    serde_json::from_str(&text)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()).into_response())
}

fn not_a_room() -> Response {
    let text = "room must be 1 to 128 of A-Z a-z 0-9 . _ -";
    (StatusCode::BAD_REQUEST, text).into_response()
}

fn answer<T: Serialize>(made: Result<T, KeyError>) -> Response {
    match made {
        Ok(made) => no_store(Json(made).into_response()),
        Err(error) => {
            tracing::error!(%error, "the development key does not sign");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
