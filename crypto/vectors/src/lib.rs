//! The MLS working group's test vectors, driven through what the MLS library shows of itself, with
//! the crypto provider that ships. Native tests and the WebAssembly module's run the same code.
//!
//! * [`passive_client`]: a client that is added to a group of another implementation and follows it
//!   through proposals and commits, by reference and by value, in the clear and encrypted; epoch by
//!   epoch it has to come to the same authenticator. Welcome, key schedule, secret tree, framing,
//!   ratchet tree and TreeKEM all have to be right for that.
//! * [`messages`]: what other implementations wrote is read, and written again to the same bytes.
//! * [`crypto_basics`], [`key_schedule`]: hashing, key derivation, signatures and HPKE of the
//!   provider.
//!
//! The other files of that collection (tree-math, tree-operations, tree-validation, treekem,
//! secret-tree, message-protection, transcript-hashes, welcome, psk_secret) give inner state: node
//! secrets, a secret tree, a membership key, a tree without a group. The library takes none of that
//! from outside; the passive clients go through the code that those files test.

#![forbid(unsafe_code)]

mod basics;
mod passive;

pub use basics::{crypto_basics, key_schedule};
pub use passive::passive_client;

use openmls::prelude::{
    Ciphersuite, MlsMessageIn, ProposalIn, RatchetTreeIn,
    tls_codec::{Deserialize, Serialize},
};
use serde_json::Value;
use std::fmt::Debug;

/// What a case failed at.
pub type Outcome = Result<(), String>;

/// Runs one case, in JSON, of the file called `name` (without its extension).
///
/// # Errors
/// What differs from the vector.
pub fn run(name: &str, case: &str) -> Outcome {
    let case: Value = serde_json::from_str(case).map_err(failed("JSON"))?;
    match name {
        "crypto-basics" => crypto_basics(&case),
        "key-schedule" => key_schedule(&case),
        "messages" => messages(&case),
        "passive-client-welcome" | "passive-client-handling-commit" | "passive-client-random" => {
            passive_client(&case)
        }
        _ => Err(format!("no vectors are called {name}")),
    }
}

/// Reads each structure and writes it again.
///
/// # Errors
/// Which of them differs.
pub fn messages(case: &Value) -> Outcome {
    for name in [
        "mls_welcome",
        "mls_group_info",
        "mls_key_package",
        "public_message_proposal",
        "public_message_commit",
        "private_message",
    ] {
        again::<MlsMessageIn>(name, &bytes(case, name)?)?;
    }
    // "Applications MUST NOT send application data in PublicMessages" (RFC 9420 §6): read it may
    // be, for a receiver to refuse it.
    again::<MlsMessageIn>(
        "public_message_application",
        &bytes(case, "public_message_application")?,
    )?;
    again::<RatchetTreeIn>("ratchet_tree", &bytes(case, "ratchet_tree")?)?;
    // A Proposal is its type, then what the vector holds (§12.1).
    for (name, proposal_type) in [
        ("add_proposal", 1u16),
        ("update_proposal", 2),
        ("remove_proposal", 3),
        ("pre_shared_key_proposal", 4),
        ("external_init_proposal", 6),
        ("group_context_extensions_proposal", 7),
    ] {
        let body = bytes(case, name)?;
        let proposal = [&proposal_type.to_be_bytes()[..], &body].concat();
        again::<ProposalIn>(name, &proposal)?;
    }
    // This one carries a ratchet_tree extension, which goes into a GroupInfo and not into a group's
    // context (§12.4.3.3): the library will not read it.
    let re_init = [&5u16.to_be_bytes()[..], &bytes(case, "re_init_proposal")?].concat();
    match ProposalIn::tls_deserialize_exact(&re_init) {
        Err(error) if format!("{error:?}").contains("RatchetTree") => {}
        other => return Err(format!("re_init_proposal: {other:?}")),
    }
    Ok(())
}

fn again<T: Serialize + Deserialize>(name: &str, encoded: &[u8]) -> Outcome {
    let value = T::tls_deserialize_exact(encoded).map_err(failed(name))?;
    let written = value.tls_serialize_detached().map_err(failed(name))?;
    equal(name, &written, encoded)
}

fn suite(case: &Value) -> Result<Ciphersuite, String> {
    let number = case["cipher_suite"].as_u64().unwrap_or_default();
    let number = u16::try_from(number).map_err(failed("cipher_suite"))?;
    Ciphersuite::try_from(number).map_err(failed("cipher_suite"))
}

fn bytes(case: &Value, field: &str) -> Result<Vec<u8>, String> {
    hex(&case[field]).ok_or_else(|| format!("{field} is not in hex"))
}

fn hex(value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    let digits = |at: usize| text.get(at..at + 2);
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits(at)?, 16).ok())
        .collect()
}

fn equal(what: &str, have: &[u8], want: &[u8]) -> Outcome {
    if have == want {
        return Ok(());
    }
    Err(format!("{what}: {have:02x?} is not {want:02x?}"))
}

/// Says where an error came up.
fn failed<E: Debug>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error:?}")
}
