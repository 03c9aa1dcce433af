//! The consult page, embedded from the client's build.

use super::App;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use std::sync::Arc;

#[derive(RustEmbed)]
#[folder = "../../client/dist"]
struct Dist;

/// Shown where the page was not built.
const UNBUILT: &str = "<!doctype html><meta charset=utf-8><title>Sealcast</title>\
<p>This relay was built without the consult page. Build it with <code>make client</code> and \
then the relay again, or start with <code>make run</code>.";

/// `index.html`, for every path that the page itself interprets.
pub(super) async fn page(State(app): State<Arc<App>>, request: HeaderMap) -> Response {
    let mut response = match Dist::get("index.html") {
        Some(file) => serve(&file, &request, "no-cache"),
        None => (StatusCode::NOT_FOUND, Html(UNBUILT)).into_response(),
    };
    protect(response.headers_mut(), &app.config.frame_ancestors);
    response
}

/// A file of the page. Names contain a hash of the content, so it may be kept forever.
pub(super) async fn asset(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    request: HeaderMap,
) -> Response {
    let mut response = match Dist::get(&format!("assets/{path}")) {
        Some(file) => serve(&file, &request, "public, max-age=31536000, immutable"),
        None => StatusCode::NOT_FOUND.into_response(),
    };
    // A worker is governed by the policy that comes with its own script.
    protect(response.headers_mut(), &app.config.frame_ancestors);
    response
}

fn serve(file: &EmbeddedFile, request: &HeaderMap, cache: &'static str) -> Response {
    let hash = file.metadata.sha256_hash();
    let digits: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let etag = format!("\"{digits}\"");
    let known = request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let headers = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::CONTENT_TYPE, content_type(file)),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.data.to_vec()).into_response()
}

fn content_type(file: &EmbeddedFile) -> String {
    let kind = file.metadata.mimetype();
    if kind.starts_with("text/") {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_owned()
    }
}

/// Keeps the page to itself: nothing is loaded from elsewhere, nothing else may run in it.
fn protect(headers: &mut HeaderMap, frame_ancestors: &[String]) {
    let ancestors = match frame_ancestors {
        [] => "'none'".to_owned(),
        origins => origins.join(" "),
    };
    let csp = format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
         style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; \
         connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors {ancestors}"
    );
    if let Ok(csp) = HeaderValue::from_str(&csp) {
        headers.insert(header::CONTENT_SECURITY_POLICY, csp);
    }
    for (name, value) in [
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin-allow-popups",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(self), microphone=(self), display-capture=(self), geolocation=(), usb=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
