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
        Some(file) => serve(&file, content_type(&file), &request, "no-cache"),
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
    let name = format!("assets/{path}");
    let mut response = match Dist::get(&name) {
        Some(file) => serve_best(&name, &file, &request),
        None => StatusCode::NOT_FOUND.into_response(),
    };
    // A worker is governed by the policy that comes with its own script.
    protect(response.headers_mut(), &app.config.frame_ancestors);
    response
}

/// The file, compressed by the client's build where the browser takes that.
fn serve_best(name: &str, file: &EmbeddedFile, request: &HeaderMap) -> Response {
    let cache = "public, max-age=31536000, immutable";
    let kind = content_type(file);
    let compressed = takes_brotli(request)
        .then(|| Dist::get(&format!("{name}.br")))
        .flatten();
    let mut response = match compressed {
        Some(compressed) => {
            let mut response = serve(&compressed, kind, request, cache);
            let encoding = HeaderValue::from_static("br");
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, encoding);
            response
        }
        None => serve(file, kind, request, cache),
    };
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().insert(header::VARY, vary);
    response
}

/// Whether `Accept-Encoding` (RFC 9110 §12.5.3) names brotli, and not with a weight of zero.
fn takes_brotli(request: &HeaderMap) -> bool {
    let values = request.get_all(header::ACCEPT_ENCODING).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("br"));
            let refused = parts.any(|weight| {
                weight
                    .strip_prefix("q=")
                    .is_some_and(|weight| weight.parse() == Ok(0.0_f32))
            });
            named && !refused
        })
}

fn serve(file: &EmbeddedFile, kind: String, request: &HeaderMap, cache: &'static str) -> Response {
    let hash = file.metadata.sha256_hash();
    let digits: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let etag = format!("\"{digits}\"");
    let known = request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let headers = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::CONTENT_TYPE, kind),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brotli_goes_to_those_who_take_it() {
        let takes = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            takes_brotli(&headers)
        };
        for taken in ["br", "gzip, deflate, br, zstd", "gzip;q=0.5,BR ; q=0.1"] {
            assert!(takes(&[taken]), "{taken}");
        }
        assert!(takes(&["gzip", "br"]));
        for refused in ["", "gzip", "brx", "br;q=0", "gzip, br; q=0.0", "*"] {
            assert!(!takes(&[refused]), "{refused}");
        }
        assert!(!takes(&[]));
    }

    #[test]
    fn a_compressed_file_says_so_and_keeps_its_type() {
        let Some(name) = Dist::iter().find(|name| name.ends_with(".wasm")) else {
            eprintln!("not tested: the page was not built (make client)");
            return;
        };
        let file = Dist::get(&name).expect("listed");
        let mut request = HeaderMap::new();
        let plain = serve_best(&name, &file, &request);
        assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br"));
        let small = serve_best(&name, &file, &request);
        assert_eq!(small.headers()[header::CONTENT_ENCODING], "br");
        assert_eq!(small.headers()[header::CONTENT_TYPE], "application/wasm");
        assert_eq!(small.headers()[header::VARY], "accept-encoding");
        assert_ne!(small.headers()[header::ETAG], plain.headers()[header::ETAG]);
    }
}
