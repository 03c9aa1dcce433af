//! Every secret that a member holds, for tests that look for them where they must not be. Behind
//! the feature `expose-secrets`, which no program turns on.

use super::Member;
use crate::metadata;
use openmls::prelude::OpenMlsProvider;
use serde_json::Value;

/// Shorter byte strings are no keys, and would be found anywhere.
const SHORTEST: usize = 16;

impl Member {
    /// Secrets with what they are: private keys, the secrets of the group's epoch as the MLS
    /// library keeps them, and what was exported from them.
    #[must_use]
    pub fn expose_secrets(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        if let Ok(pair) = serde_json::to_value(self.key.pair()) {
            collect("signature_key", false, &pair, &mut found);
        }
        if let Ok(values) = self.provider.storage().values.read() {
            for value in values.values() {
                // What is not JSON is no value of the library's.
                if let Ok(value) = serde_json::from_slice(value) {
                    collect("", false, &value, &mut found);
                }
            }
        }
        if let Some(group) = &self.group {
            let exports = [
                (
                    super::epochs::EXPORTER_LABEL,
                    self.config.media_suite.key_len(),
                ),
                (metadata::EXPORTER_LABEL, metadata::SECRET_LEN),
            ];
            for (label, len) in exports {
                if let Ok(secret) = super::export(&self.provider, group, label, len) {
                    found.push((label.to_owned(), secret.to_vec()));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Takes byte strings out of a serialized value, from wherever a name on the way says that they are
/// secret.
fn collect(path: &str, is_secret: bool, value: &Value, found: &mut Vec<(String, Vec<u8>)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                // The group context is public: the relay has it too.
                let is_public = name == "serialized_context";
                let is_secret = !is_public && (is_secret || names_a_secret(name));
                collect(&format!("{path}.{name}"), is_secret, value, found);
            }
        }
        Value::Array(items) => {
            let byte = |item: &Value| item.as_u64().and_then(|n| u8::try_from(n).ok());
            match items.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) if is_secret && bytes.len() >= SHORTEST => {
                    found.push((path.to_owned(), bytes));
                }
                Some(_) => {}
                None => {
                    for item in items {
                        collect(path, is_secret, item, found);
                    }
                }
            }
        }
        _ => {}
    }
}

fn names_a_secret(name: &str) -> bool {
    ["private", "secret", "psk"]
        .iter()
        .any(|word| name.contains(word))
        || ["membership_key", "confirmation_key"].contains(&name)
}
