//! What the measuring programs have in common on their command lines: where they run, where their
//! results go, and the children that they start of themselves.

use crate::{Result, crowd, exit_code, sink};
use clap::{Args, Subcommand};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where a program runs and where its results go.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The CPU to measure on.
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
    /// The CPU for clients: publishers and receivers.
    #[arg(long, default_value_t = 1)]
    pub other_cpu: usize,
    /// The directory that results go to: a table, JSON, and a page with plots.
    #[arg(long, default_value = "bench/out")]
    pub out: PathBuf,
}

/// What a program is when another has started it.
#[derive(Subcommand, Clone, Debug)]
pub enum Child {
    /// The clients' process ([`crowd`]).
    #[command(hide = true)]
    Crowd {
        /// The CPU to run on.
        #[arg(long)]
        cpu: usize,
    },
    /// The process that drains receivers' sockets ([`sink`]).
    #[command(hide = true)]
    Sink {
        /// The CPU to run on.
        #[arg(long)]
        cpu: usize,
        /// The sockets, inherited.
        #[arg(long, value_delimiter = ',')]
        descriptors: Vec<RawFd>,
    },
}

/// What a program does and ends with: it serves if another has started it, else it measures.
pub fn main(
    program: &str,
    child: Option<&Child>,
    measure: impl FnOnce() -> Result<()>,
) -> ExitCode {
    exit_code(program, child.map_or_else(measure, Child::serve))
}

impl Child {
    /// Serves until the program that started it is gone.
    ///
    /// # Errors
    /// As [`crowd::serve`] and [`sink::drain`].
    fn serve(&self) -> Result<()> {
        match self {
            Child::Crowd { cpu } => crowd::serve(*cpu),
            Child::Sink { cpu, descriptors } => sink::drain(descriptors, *cpu),
        }
    }
}
