//! Where clients get tokens from: a development relay, a command, or the application's own key.

use crate::driver::unix_now;
use crate::http::{self, Http, HttpError};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Lifetime of tokens that are signed here, seconds. One is used within seconds.
const TTL: u64 = 600;

/// What a token is for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The room.
    pub room: String,
    /// The application's pseudonym for the client.
    pub subject: String,
    /// The sources it publishes.
    pub publish: Vec<String>,
    /// It receives.
    pub subscribe: bool,
    /// It publishes media that is not sealed.
    pub unsealed: bool,
}

/// Where tokens come from. Cheap to clone.
#[derive(Clone)]
pub enum TokenSource {
    /// `POST /dev/token` of a relay that runs on its development keys.
    Development {
        /// The relay.
        base: String,
    },
    /// A command, run by the shell with `ROOM`, `SUBJECT` and `PUBLISH` in its environment;
    /// `PUBLISH` is a list of sources, or `none`. It prints the token.
    Command(String),
    /// The application's key.
    Key(Arc<Key>),
    /// No token: servers that want none.
    None,
}

/// A signing key.
pub struct Key {
    key: EncodingKey,
    header: Header,
    issuer: String,
    audience: String,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The relay gave none.
    #[error(
        "the relay gives no development token ({0}); use --token-command or --key for one that is not in development"
    )]
    Development(#[from] HttpError),
    /// The relay's answer is no token.
    #[error("the relay's development token does not read: {0}")]
    Answer(#[from] serde_json::Error),
    /// The command failed.
    #[error("token command: {0}")]
    Command(String),
    /// The key does not load or sign.
    #[error("--key: {0}")]
    Key(String),
}

#[derive(Serialize)]
struct Grants<'a> {
    publish: &'a [String],
    subscribe: bool,
    unsealed: bool,
    moderate: bool,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    exp: u64,
    sub: &'a str,
    room: &'a str,
    grants: Grants<'a>,
}

impl Wanted {
    fn grants(&self) -> Grants<'_> {
        Grants {
            publish: &self.publish,
            subscribe: self.subscribe,
            unsealed: self.unsealed,
            moderate: false,
        }
    }
}

impl Key {
    /// Loads a key: a PEM private key for `ES256` and `EdDSA`, a secret for `HS256`.
    ///
    /// # Errors
    /// [`TokenError::Key`].
    pub fn load(
        path: &Path,
        algorithm: &str,
        kid: Option<String>,
        issuer: String,
        audience: String,
    ) -> Result<Key, TokenError> {
        let error = |e: &dyn std::fmt::Display| TokenError::Key(e.to_string());
        let bytes = std::fs::read(path).map_err(|e| error(&e))?;
        let (algorithm, key) = match algorithm {
            "ES256" => (Algorithm::ES256, EncodingKey::from_ec_pem(&bytes)),
            "EdDSA" => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&bytes)),
            // Editors end files with a line break, which is no part of the secret.
            "HS256" => (
                Algorithm::HS256,
                Ok(EncodingKey::from_secret(
                    bytes.strip_suffix(b"\n").unwrap_or(&bytes),
                )),
            ),
            other => return Err(error(&format!("{other}: must be ES256, EdDSA or HS256"))),
        };
        let mut header = Header::new(algorithm);
        header.kid = kid;
        Ok(Key {
            key: key.map_err(|e| error(&e))?,
            header,
            issuer,
            audience,
        })
    }

    fn sign(&self, wanted: &Wanted) -> Result<String, TokenError> {
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            exp: unix_now().as_secs() + TTL,
            sub: &wanted.subject,
            room: &wanted.room,
            grants: wanted.grants(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
            .map_err(|e| TokenError::Key(e.to_string()))
    }
}

impl TokenSource {
    /// Development tokens are those of the relay that is loaded.
    pub fn point_at(&mut self, target: &str) {
        if let TokenSource::Development { base } = self {
            target.clone_into(base);
        }
    }

    /// A token; empty if none is wanted.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn token(&self, http: &Http, wanted: &Wanted) -> Result<String, TokenError> {
        match self {
            TokenSource::Development { base } => development(http, base, wanted).await,
            TokenSource::Command(command) => run(command, wanted).await,
            TokenSource::Key(key) => key.sign(wanted),
            TokenSource::None => Ok(String::new()),
        }
    }
}

async fn development(http: &Http, base: &str, wanted: &Wanted) -> Result<String, TokenError> {
    #[derive(Serialize)]
    struct Request<'a> {
        room: &'a str,
        grants: Grants<'a>,
    }
    #[derive(Deserialize)]
    struct Answer {
        token: String,
    }
    let request = Request {
        room: &wanted.room,
        grants: wanted.grants(),
    };
    let body = serde_json::to_vec(&request)?;
    let uri = http::join(base, "/dev/token")?;
    let json = [("content-type", "application/json")];
    let response = http.request(hyper::Method::POST, &uri, &json, body).await?;
    Ok(serde_json::from_slice::<Answer>(&response.body)?.token)
}

async fn run(command: &str, wanted: &Wanted) -> Result<String, TokenError> {
    // As `sealcast token --publish` has it.
    let publish = match wanted.publish.join(",") {
        none if none.is_empty() => "none".to_owned(),
        some => some,
    };
    let output = tokio::process::Command::new("/bin/sh")
        .args(["-c", command])
        .env("ROOM", &wanted.room)
        .env("SUBJECT", &wanted.subject)
        .env("PUBLISH", publish)
        .output()
        .await
        .map_err(|e| TokenError::Command(e.to_string()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = errors.lines().next().unwrap_or("").to_owned();
        return Err(TokenError::Command(format!("{}: {line}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
