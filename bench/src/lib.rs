//! What forwarding costs: the floor, Sealcast, and what one would write without it.
//!
//! `cargo run --release -p bench --bin ratio` measures all of them in one run on one machine, as
//! thread CPU time per forwarded packet, and says by how much the machine drifted meanwhile. The
//! criterion benches under `benches/` measure single steps.

pub mod callgrind;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cpu;
pub mod crowd;
pub mod drift;
pub mod dwell;
pub mod feed;
pub mod floor;
pub mod noise;
pub mod paced;
pub mod poll;
pub mod process;
pub mod ratio;
pub mod relay;
pub mod report;
pub mod sealcast;
pub mod send;
pub mod setting;
pub mod shape;
pub mod sink;
pub mod spread;
pub mod steps;
pub mod stock;
pub mod veth;
pub mod world;

use std::process::ExitCode;

/// An error that ends the run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What a program of this crate ends with; says on standard error what went wrong.
pub fn exit_code(program: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One measurement of one contender.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Media packets sent to receivers.
    pub packets: u64,
    /// Bytes of those packets, without UDP headers.
    pub bytes: u64,
    /// Send system calls made.
    pub calls: u64,
    /// CPU time the forwarding thread spent.
    pub cost: cpu::Cost,
}

impl Sample {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Sample) -> Sample {
        Sample {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            calls: self.calls + other.calls,
            cost: self.cost.plus(&other.cost),
        }
    }
}

/// Something that forwards the packets of a [`shape::Topology`].
pub trait Contender {
    /// Forwards about `packets` packets of `traffic` and says what it cost, by `meter`, which is
    /// the calling thread's, unless it forwards on a thread of its own. Setting up and generating traffic are outside the measurement.
    ///
    /// # Errors
    /// If the system refuses a call, or packets that must arrive do not.
    fn run(
        &mut self,
        traffic: &shape::Traffic,
        packets: u64,
        meter: &mut cpu::Meter,
    ) -> Result<Sample>;

    /// Called between runs: what must happen now and then, and not during a measurement.
    ///
    /// # Errors
    /// If the contender is no longer able to run.
    fn rest(&mut self, _sink: &mut sink::Sink) -> Result<()> {
        Ok(())
    }
}
