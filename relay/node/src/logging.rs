//! The log: to standard output, since whoever runs the relay collects it there. Calls go on when it
//! takes nothing more.

use crate::config::schema::{LogFormat, LogLevel};
use std::io::IsTerminal;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

/// Starts logging. What libraries log below `warn` is left out at every level: it may quote what
/// the relay itself never logs.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let filter =
        tracing_subscriber::EnvFilter::default().add_directive(level.min(LevelFilter::WARN).into());
    let ours = OURS
        .iter()
        .filter_map(|name| format!("{name}={level}").parse().ok());
    let filter = ours.fold(filter, |filter, directive| filter.add_directive(directive));
    let builder = fmt()
        .with_env_filter(filter)
        // A line that cannot be written is lost. To say so on standard error would panic where that
        // goes to the same full disk.
        .log_internal_errors(false)
        .with_ansi(std::io::stdout().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Crates whose messages are held to the relay's rules.
const OURS: [&str; 6] = [
    "sealcast",
    "sealcast_control",
    "sealcast_io",
    "sealcast_media",
    "sealcast_session",
    "sealcast_shard",
];
