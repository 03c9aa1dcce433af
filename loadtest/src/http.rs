//! HTTP/1.1 requests, one connection each, over TCP or TLS; and the streams that signalling
//! sockets run on.

use crate::driver::Io;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest body that is read: `/metrics` of a relay with many shards.
const MAX_BODY: usize = 8 << 20;
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an `http:` or `https:` address.
    #[error("{0}: not an http:// or https:// address")]
    Address(String),
    /// The name does not resolve, or nobody listens.
    #[error("{0}: {1}")]
    Connect(String, std::io::Error),
    /// TLS failed, or its roots cannot be read.
    #[error("TLS: {0}")]
    Tls(String),
    /// The exchange broke off.
    #[error("HTTP: {0}")]
    Exchange(String),
    /// No answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The server refused.
    #[error("{0}{1}")]
    Status(StatusCode, String),
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// `Location`, where there is one.
    pub location: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// Makes connections and requests. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    tls: TlsConnector,
}

impl Http {
    /// A client that trusts the system's roots, and those in `ca` where given.
    ///
    /// # Errors
    /// [`HttpError::Tls`] if `ca` cannot be read.
    pub fn new(ca: Option<&Path>) -> Result<Http, HttpError> {
        let mut roots = RootCertStore::empty();
        // What the system has and rustls cannot use is left out, as browsers do.
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = ca {
            let error =
                |e: &dyn std::fmt::Display| HttpError::Tls(format!("{}: {e}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| error(&e))? {
                let certificate = certificate.map_err(|e| error(&e))?;
                roots.add(certificate).map_err(|e| error(&e))?;
            }
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| HttpError::Tls(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Http {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A stream to the server of `uri`, and our address on it.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn connect(&self, uri: &Uri) -> Result<(Box<dyn Io>, SocketAddr), HttpError> {
        let bad = || HttpError::Address(uri.to_string());
        let tls = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(bad()),
        };
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let failed = |e| HttpError::Connect(format!("{host}:{port}"), e);
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        let local = stream.local_addr().map_err(failed)?;
        // Signalling is small messages; waiting to fill segments would show as join latency.
        stream.set_nodelay(true).map_err(failed)?;
        if !tls {
            return Ok((Box::new(stream), local));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(|e| HttpError::Tls(e.to_string()))?;
        Ok((Box::new(stream), local))
    }

    /// Makes a request. Statuses other than 2xx are errors.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn request(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response, HttpError> {
        let exchange = self.exchange(method, uri, headers, body.into());
        let response = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| HttpError::Timeout)??;
        if response.status.is_success() {
            return Ok(response);
        }
        let text = String::from_utf8_lossy(&response.body);
        let line: String = text
            .lines()
            .next()
            .unwrap_or("")
            .chars()
            .take(200)
            .collect();
        let line = if line.is_empty() {
            line
        } else {
            format!(": {line}")
        };
        Err(HttpError::Status(response.status, line))
    }

    async fn exchange(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, HttpError> {
        let error = |e: &dyn std::fmt::Display| HttpError::Exchange(e.to_string());
        let (io, _) = self.connect(uri).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = handshake.map_err(|e| error(&e))?;
        let driver = tokio::spawn(connection);
        let host = uri
            .authority()
            .map_or("", hyper::http::uri::Authority::as_str);
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(
                header::USER_AGENT,
                concat!("sealcast-load/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| error(&e))?;
        let response = sender.send_request(request).await.map_err(|e| error(&e))?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|e| error(&e))?.to_bytes();
        driver.abort();
        Ok(Response {
            status,
            location,
            body,
        })
    }
}

/// `path` at the server of `base`, whose own path is a prefix.
///
/// # Errors
/// [`HttpError::Address`].
pub fn join(base: &str, path: &str) -> Result<Uri, HttpError> {
    let bad = || HttpError::Address(base.to_owned());
    let uri: Uri = format!("{}{path}", base.trim_end_matches('/'))
        .parse()
        .map_err(|_| bad())?;
    if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad());
    }
    Ok(uri)
}

/// Resolves a `Location` against the address that it was the answer to (RFC 3986 §5.2, as far as
/// servers use it: absolute, or an absolute path).
#[must_use]
pub fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let uri: Uri = location.parse().ok()?;
    if uri.host().is_some() {
        return Some(uri);
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = uri.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_and_resolved() {
        let uri = join("http://relay:7880/", "/v1/config").unwrap();
        assert_eq!(uri.to_string(), "http://relay:7880/v1/config");
        assert!(join("relay:7880", "/v1").is_err() && join("ftp://relay", "/").is_err());
        let to = |l| resolve(&uri, l).unwrap().to_string();
        assert_eq!(to("/whip/a/b"), "http://relay:7880/whip/a/b");
        assert_eq!(to("https://other/x"), "https://other/x");
        assert!(resolve(&uri, "\u{0}").is_none());
    }
}
