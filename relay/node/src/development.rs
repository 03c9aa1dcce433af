//! The configuration of `--dev`: no file, built-in keys, the local machine. Whoever reaches such
//! a relay can make tokens for any room; it says so in its log and on its page.

use crate::config::{Checked, Settings, parse};
use sealcast_control::token::{Algorithm, KeyError, Minter, TokenKey, Verifier};
use std::net::UdpSocket;

/// Issuer of development tokens: none that a production configuration would have.
const ISSUER: &str = "sealcast-development";

const KEY: &[u8] = include_bytes!("../keys/development.pem");

/// What is different from the defaults.
const OVERRIDES: &str = r#"
[http]
listen = ["127.0.0.1:7880", "[::1]:7880"]
[rooms]
sealed = "optional"
[media]
bind = ["0.0.0.0", "::"]
udp_port = 0
tcp_port = 0
announce_loopback = true
[auth]
issuer = "sealcast-development"
"#;

/// Why the built-in configuration does not work. A bug.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevelopmentError {
    #[error("the built-in configuration is faulty: {0}")]
    Settings(String),
    #[error("the built-in key is faulty: {0}")]
    Key(#[from] KeyError),
}

/// The configuration.
pub(crate) fn configuration() -> Result<Checked, DevelopmentError> {
    let mut settings = settings()?;
    if !has_ipv6() {
        settings.media_bind.retain(|a| a.is_ipv4());
        settings.http_listen.retain(|a| a.is_ipv4());
    }
    let verifier = Verifier::new(
        Algorithm::Es256,
        &settings.auth_issuer,
        &settings.auth_audience,
        settings.auth_max_token_ttl.get(),
        vec![key()?],
    )?;
    Ok(Checked {
        settings,
        verifier,
        tls: None,
        dtls: None,
    })
}

/// Makes development tokens.
pub(crate) fn minter() -> Result<Minter, DevelopmentError> {
    Ok(Minter::new(ISSUER, &settings()?.auth_audience, key()?)?)
}

fn settings() -> Result<Settings, DevelopmentError> {
    let mut faults = Vec::new();
    let settings = parse(OVERRIDES, &mut faults);
    let told = || faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    settings
        .filter(|_| faults.is_empty())
        .ok_or_else(|| DevelopmentError::Settings(told().join("; ")))
}

fn key() -> Result<TokenKey, KeyError> {
    TokenKey::load(Algorithm::Es256, Some("development".into()), KEY)
}

/// Whether this machine has IPv6 at all; containers often have not.
fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_mints_it_takes() {
        use sealcast_control::token::TokenRequest;
        let token = minter()
            .unwrap()
            .mint(&TokenRequest {
                subject: "x".into(),
                room: "r".into(),
                grants: sealcast_control::token::Grants::default(),
                expires: 1_800_000_060,
            })
            .unwrap();
        let checked = configuration().unwrap();
        assert_eq!(
            checked.verifier.verify(&token, 1_800_000_000).unwrap().room,
            "r"
        );
    }
}
