//! The MLS working group's test vectors, for tests of this module.

use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

/// Runs one case, in JSON, of the file of vectors called `name`.
///
/// # Errors
/// What differs from the vector.
#[wasm_bindgen(js_name = runVector)]
pub fn run_vector(name: &str, case: &str) -> Result<(), JsError> {
    sealcast_vectors::run(name, case).map_err(|error| JsError::new(&error))
}
