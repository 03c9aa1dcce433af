//! Reads what callgrind counted (its file format, version 1), as far as that is needed: how many
//! instructions each function executed by itself.

use crate::Result;
use std::collections::HashMap;

/// Instructions, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Of the relay, its dependencies and the C library.
    pub own: u64,
    /// Of the cryptographic library.
    pub crypto: u64,
}

/// Names of functions of the cryptographic library, which are C and assembly. Its Rust binding
/// counts as the relay's own: how it is called is the relay's choice.
const CRYPTO: [&str; 9] = [
    "aws_lc_", "aes", "_aes", "gcm_", "ghash", "aead_", "CRYPTO_", "OPENSSL_", "skip_iv",
];

/// Adds up a file's costs.
///
/// # Errors
/// If it has another form, or counts nothing.
pub fn count(file: &str) -> Result<Profile> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut profile = Profile::default();
    let mut crypto = false;
    // The line after `calls=` is what the callee cost, which its own lines tell.
    let mut skip = false;
    for line in file.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            // A name is given once, as `(7) name`, and then by its number alone.
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            let name = names.get(number).copied().unwrap_or(number);
            crypto = CRYPTO.iter().any(|prefix| name.starts_with(prefix));
        } else if let Some((number, name)) = line
            .strip_prefix("cfn=")
            .and_then(|function| function.split_once(' '))
        {
            names.insert(number, name);
        } else if line.starts_with("calls=") {
            skip = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            if std::mem::take(&mut skip) {
                continue;
            }
            // A position and the cost; no cost is zero.
            let cost = line.split_ascii_whitespace().nth(1).unwrap_or("0");
            let cost: u64 = cost.parse()?;
            let sum = if crypto {
                &mut profile.crypto
            } else {
                &mut profile.own
            };
            *sum += cost;
        }
    }
    if profile.own == 0 {
        return Err("callgrind counted nothing: the function to count in was not found".into());
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_added_up_by_owner_without_those_of_callees() {
        let file = "# callgrind format\nversion: 1\nevents: Ir\n\n\
            fl=(1) a.rs\nfn=(1) World::forward\n10 100\n+2 5\ncfi=(2) b.c\n\
            cfn=(2) aes_gcm_encrypt\ncalls=3 20\n12 900\n* 7\n\n\
            fl=(2)\nfn=(2)\n20 900\n\nfn=(1)\n30 1\n";
        let expected = Profile {
            own: 113,
            crypto: 900,
        };
        assert_eq!(count(file).unwrap(), expected);
        assert!(count("fn=(1) aes_\n1 5\n").is_err());
    }
}
