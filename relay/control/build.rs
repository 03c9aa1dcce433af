//! The consult page is embedded from `client/dist`, which the client's build makes. Without it
//! the folder must still exist, or the crate would not compile; the relay then says how to build
//! the page.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client/dist");
    println!("cargo:rerun-if-changed={}", dist.display());
    if let Err(error) = std::fs::create_dir_all(&dist) {
        panic!("{} cannot be made: {error}", dist.display());
    }
}
