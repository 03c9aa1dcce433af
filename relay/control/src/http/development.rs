//! `POST /dev/token`: tokens for anybody, while the relay runs on its built-in keys.

use super::{App, body, no_store};
use crate::clock;
use crate::limits;
use crate::random;
use crate::token::{Grants, TokenRequest, is_room_name};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealcast_model::Source;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long such a token is good for.
const TTL_SECONDS: u64 = 3_600;

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
    // Another site's page can post a form here, but not JSON without asking first.
    let json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    if !json {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let text = match body::text(&app, body, limits::SMALL_BODY).await {
        Ok(text) => text,
        Err(response) => return response,
    };
    let wanted: Wanted = match serde_json::from_str(&text) {
        Ok(wanted) => wanted,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    if !is_room_name(&wanted.room) {
        let text = "room must be 1 to 128 of A-Z a-z 0-9 . _ -";
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let expires = clock::unix_now() + TTL_SECONDS;
    let request = TokenRequest {
        subject: format!("dev-{}", random::location()),
        room: wanted.room,
        grants: wanted.grants,
        expires,
    };
    match minter.mint(&request) {
        Ok(token) => no_store(Json(Made { token, expires }).into_response()),
        Err(error) => {
            tracing::error!(%error, "the development key does not sign");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
