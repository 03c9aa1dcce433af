//! `sealcast-load`: loads a relay with clients that check what they receive, and judges the run.

#![forbid(unsafe_code)]

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    let filter = if arguments.verbose { "debug" } else { "warn" };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
    match cli::execute(arguments) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(e) => {
            eprintln!("sealcast-load: {e}");
            ExitCode::from(sealcast_load::result::Outcome::CouldNotRun.code())
        }
    }
}
