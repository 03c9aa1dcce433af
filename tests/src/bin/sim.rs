//! `sim seed N`: one seed. `sim soak FROM COUNT`: many. `sim quality`: the figures of
//! docs/QUALITY.md.

use sealcast_tests::{figures, scenario};
use std::process::ExitCode;

const USAGE: &str = "usage: sim seed N | sim soak FROM COUNT | sim quality";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["seed", seed] => number(seed).and_then(|seed| soak(seed, 1)),
        ["soak", from, count] => number(from).and_then(|from| soak(from, number(count)?)),
        ["quality"] => figures::print(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| USAGE.to_owned())
}

fn soak(from: u64, count: u64) -> Result<(), String> {
    for seed in from..from.saturating_add(count) {
        let outcome = scenario::run(seed)?;
        println!(
            "seed {seed}: {:016x}, {} packets, {} frames shown",
            outcome.hash, outcome.packets, outcome.shown
        );
    }
    Ok(())
}
