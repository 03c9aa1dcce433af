//! Build steps that cargo alone does not do. `cargo run -p xtask -- wasm --out client/wasm` builds
//! the browser's cryptography.

use clap::{Parser, Subcommand};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use wasm_bindgen_cli_support::Bindgen;

/// The crate that becomes the browser's module, and the name of the files made from it.
const WASM_PACKAGE: &str = "sealcast-wasm";
const WASM_NAME: &str = "sealcast_wasm";

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds sealcast-wasm and its JavaScript bindings.
    Wasm {
        /// Directory for the `.wasm`, `.js` and `.d.ts` files.
        #[arg(long)]
        out: PathBuf,
        /// Features of sealcast-wasm; `delivery` adds the relay's end, for tests.
        #[arg(long, default_value = "")]
        features: String,
    },
}

fn main() -> ExitCode {
    let Task::Wasm { out, features } = Args::parse().task;
    match build_wasm(&out, &features) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build_wasm(out: &Path, features: &str) -> Result<(), Box<dyn Error>> {
    let module = compile(features)?;
    Bindgen::new()
        .web(true)?
        .typescript(true)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .input_path(&module)
        .out_name(WASM_NAME)
        .generate(out)
        .map_err(|error| format!("wasm-bindgen: {error:#}"))?;
    let mut files: Vec<_> = fs::read_dir(out)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let name = file.file_name();
        println!("{:>9} {}", file.metadata()?.len(), name.display());
    }
    Ok(())
}

/// Compiles the module and returns the path that cargo reports for it.
fn compile(features: &str) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", WASM_PACKAGE, "--profile", "wasm"])
        .args(["--lib", "--target", "wasm32-unknown-unknown"])
        .args(["--features", features])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo build: {}", output.status).into());
    }
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if message["target"]["name"] == WASM_NAME {
            let files = message["filenames"].as_array().into_iter().flatten();
            let mut paths = files.filter_map(|file| file.as_str().map(PathBuf::from));
            if let Some(module) =
                paths.find(|path| path.extension().is_some_and(|ext| ext == "wasm"))
            {
                return Ok(module);
            }
        }
    }
    Err("cargo reported no .wasm file".into())
}
