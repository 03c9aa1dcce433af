//! Every committed input through its target, and through all the others: what was found once stays
//! found, without a fuzzer.

use sealcast_fuzz_targets::TARGETS;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    files
}

fn names(folder: &str) -> BTreeSet<String> {
    files(&fuzz_folder().join(folder))
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets, names("fuzz_targets"));
    assert_eq!(targets, names("corpus"));
}

#[test]
fn corpora() {
    for (name, run) in TARGETS {
        let inputs = files(&fuzz_folder().join("corpus").join(name));
        assert!(inputs.len() >= 3, "{name}: {} inputs", inputs.len());
        for path in inputs {
            println!("{}", path.display());
            run(&fs::read(path).expect("readable"));
        }
    }
}

#[test]
fn corpora_of_the_others() {
    let all: Vec<_> = TARGETS
        .iter()
        .flat_map(|(name, _)| files(&fuzz_folder().join("corpus").join(name)))
        .collect();
    for (name, run) in TARGETS {
        for path in &all {
            println!("{name}: {}", path.display());
            run(&fs::read(path).expect("readable"));
        }
    }
}
