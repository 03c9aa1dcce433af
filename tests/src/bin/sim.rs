//! `sim seed N`: one seed. `sim soak FROM COUNT`: many. `sim quality`: the figures of
//! docs/QUALITY.md; `sim bandwidth`: those of them that are about bandwidth. `sim trace CASE SEED`:
//! what happened on a path in such a case (steps, shared, shared-late; with -plain, without temporal
//! layers), as comma-separated values.

use sealcast_tests::{bandwidth, figures, scenario, trace};
use std::process::ExitCode;

const USAGE: &str = "usage: sim seed N | sim soak FROM COUNT | sim quality | sim bandwidth | \
                     sim trace CASE SEED";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["seed", seed] => number(seed).and_then(|seed| soak(seed, 1)),
        ["soak", from, count] => number(from).and_then(|from| soak(from, number(count)?)),
        ["quality"] => figures::print(),
        ["bandwidth"] => figures::bandwidth(),
        ["trace", case, seed] => trace(case, seed),
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

/// Prints what happened on the path of a case of docs/QUALITY.md.
fn trace(case: &str, seed: &str) -> Result<(), String> {
    let seed = number(seed)?;
    let (case, picture) = match case.strip_suffix("-plain") {
        Some(case) => (case, bandwidth::PLAIN),
        None => (case, bandwidth::TEMPORAL),
    };
    let samples = match case {
        "steps" => bandwidth::steps(seed, picture)?.samples,
        "shared" => {
            let [samples, _] = bandwidth::shared(seed, picture)?.samples;
            samples
        }
        "shared-late" => {
            let [_, samples] = bandwidth::shared(seed, picture)?.samples;
            samples
        }
        _ => return Err(USAGE.to_owned()),
    };
    print!("{}", trace::csv(&samples));
    Ok(())
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
