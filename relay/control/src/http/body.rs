//! Request bodies: bounded in size and in time.

use super::App;
use crate::metrics::ConnectionEnd;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

/// Reads a body of at most `limit` bytes as UTF-8.
///
/// # Errors
/// The response to give: 408, 413 or 400.
pub(super) async fn text(app: &App, body: Body, limit: usize) -> Result<String, Response> {
    let refuse = |end: Option<ConnectionEnd>, status: StatusCode, text: &'static str| {
        if let Some(end) = end {
            app.metrics.connection_ended(end);
        }
        (status, text).into_response()
    };
    let read = axum::body::to_bytes(body, limit);
    let bytes = match timeout(app.config.body_timeout, read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_length_limit(&error) => {
            let end = Some(ConnectionEnd::BodyTooLarge);
            return Err(refuse(
                end,
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large",
            ));
        }
        Ok(Err(_)) => {
            return Err(refuse(None, StatusCode::BAD_REQUEST, "the body broke off"));
        }
        Err(_) => {
            let end = Some(ConnectionEnd::BodyTimeout);
            return Err(refuse(
                end,
                StatusCode::REQUEST_TIMEOUT,
                "the body took too long",
            ));
        }
    };
    String::from_utf8(bytes.into())
        .map_err(|_| refuse(None, StatusCode::BAD_REQUEST, "the body is not UTF-8"))
}

fn is_length_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|s| s.is::<http_body_util::LengthLimitError>())
}
