//! `sealcast`: a relay for sealed media.

#![forbid(unsafe_code)]

mod addresses;
mod config;
mod delivery;
mod development;
mod logging;
mod serve;
mod token;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A relay for group calls whose media the parties seal end to end.
#[derive(Parser)]
#[command(name = "sealcast", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the relay until SIGTERM or SIGINT.
    Serve {
        #[command(flatten)]
        source: Source,
    },
    /// Check a configuration and say everything that is wrong with it.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Print the default configuration with every key explained.
    Config,
    /// Make a token for a room.
    Token(token::Args),
}

/// Where the configuration comes from.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// For development: built-in keys, this machine only, tokens for anybody.
    #[arg(long)]
    dev: bool,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve { source } => serve(source),
        Command::Check { config } => match config::load(&config) {
            Ok(_) => {
                println!("{}: ok", config.display());
                ExitCode::SUCCESS
            }
            Err(faults) => tell(&faults),
        },
        Command::Config => {
            print!("{}", config::explained());
            ExitCode::SUCCESS
        }
        Command::Token(args) => match token::make(&args) {
            Ok(token) => {
                println!("{token}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        },
    }
}

fn serve(source: Source) -> ExitCode {
    let loaded = match source.config {
        Some(path) => config::load(&path).map(|checked| (checked, None)),
        None => match development::configuration().and_then(|c| Ok((c, development::minter()?))) {
            Ok((checked, minter)) => Ok((checked, Some(minter))),
            Err(error) => return fail(&error),
        },
    };
    let (checked, minter) = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => return tell(&faults),
    };
    logging::start(checked.settings.log_format, checked.settings.log_level);
    match serve::run(checked, minter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the relay cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Prints each fault on a line.
fn tell(faults: &[config::Fault]) -> ExitCode {
    for fault in faults {
        eprintln!("error: {fault}");
    }
    ExitCode::FAILURE
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
