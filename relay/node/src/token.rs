//! `sealcast token`: a token for a room, with a key of a configuration or the development key.

use crate::config;
use crate::config::check::algorithm;
use crate::development;
use clap::ValueEnum;
use sealcast_control::clock;
use sealcast_control::token::{Grants, Minter, TokenKey, TokenRequest, is_room_name};
use sealcast_model::Source;
use std::path::PathBuf;

/// What the token is to say.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The room: 1 to 128 of A-Z a-z 0-9 . _ -
    #[arg(long)]
    room: String,
    /// The configuration whose first key signs; it must be a private key or a secret. Without
    /// one, the development key signs.
    #[arg(long)]
    config: Option<PathBuf>,
    /// What its bearer may publish, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [What::Audio, What::Camera, What::Screen])]
    publish: Vec<What>,
    /// Its bearer may not receive.
    #[arg(long)]
    no_subscribe: bool,
    /// Its bearer may publish media that is not sealed, as WHIP devices do.
    #[arg(long)]
    unsealed: bool,
    /// Its bearer may mute others and remove them.
    #[arg(long)]
    moderate: bool,
    /// The application's pseudonym for its bearer.
    #[arg(long, default_value = "sealcast-token")]
    subject: String,
    /// Seconds until it expires.
    #[arg(long, default_value_t = 3_600)]
    ttl: u64,
}

/// Sources, and none.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Microphone.
    Audio,
    /// Camera.
    Camera,
    /// Screen.
    Screen,
    /// Diagnostic imaging.
    Imaging,
    /// Nothing.
    None,
}

/// Why no token was made. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("--room must be 1 to 128 of A-Z a-z 0-9 . _ -")]
    Room,
    #[error("--subject must be 1 to 128 bytes")]
    Subject,
    #[error("--ttl must be 1 to {0}, which is auth.max_token_ttl")]
    Ttl(u64),
    #[error("{0}")]
    Config(String),
    #[error("auth.keys: {0}")]
    Key(#[from] sealcast_control::token::KeyError),
    #[error(transparent)]
    Development(#[from] development::DevelopmentError),
}

/// Makes the token.
pub(crate) fn make(args: &Args) -> Result<String, TokenError> {
    if !is_room_name(&args.room) {
        return Err(TokenError::Room);
    }
    if !(1..=128).contains(&args.subject.len()) {
        return Err(TokenError::Subject);
    }
    let (minter, max_ttl) = minter(args)?;
    if !(1..=max_ttl).contains(&args.ttl) {
        return Err(TokenError::Ttl(max_ttl));
    }
    let publish = args.publish.iter().filter_map(|what| match what {
        What::Audio => Some(Source::Audio),
        What::Camera => Some(Source::Camera),
        What::Screen => Some(Source::Screen),
        What::Imaging => Some(Source::Imaging),
        What::None => None,
    });
    let request = TokenRequest {
        subject: args.subject.clone(),
        room: args.room.clone(),
        grants: Grants {
            publish: publish.collect(),
            subscribe: !args.no_subscribe,
            unsealed: args.unsealed,
            moderate: args.moderate,
        },
        expires: clock::unix_now() + args.ttl,
    };
    Ok(minter.mint(&request)?)
}

/// A minter, and how long its tokens may last, seconds.
fn minter(args: &Args) -> Result<(Minter, u64), TokenError> {
    let Some(path) = &args.config else {
        let settings = development::configuration()?.settings;
        return Ok((
            development::minter()?,
            settings.auth_max_token_ttl.get().as_secs(),
        ));
    };
    let told = |faults: Vec<config::Fault>| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        TokenError::Config(lines.join("\n"))
    };
    let settings = config::load(path).map_err(told)?.settings;
    let key = settings.auth_keys.first();
    let key = key.ok_or(sealcast_control::token::KeyError::Count)?;
    let base = path.parent().unwrap_or(std::path::Path::new("."));
    let content = std::fs::read(base.join(&key.file))
        .map_err(|e| TokenError::Config(format!("auth.keys: cannot be read: {e}")))?;
    let key = TokenKey::load(
        algorithm(settings.auth_algorithm),
        key.kid.clone(),
        &content,
    )?;
    let minter = Minter::new(&settings.auth_issuer, &settings.auth_audience, key)?;
    Ok((minter, settings.auth_max_token_ttl.get().as_secs()))
}
