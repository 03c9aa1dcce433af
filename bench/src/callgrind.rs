//! Reads what callgrind counted (its file format, version 1, positions by instruction), as far as
//! that is needed: how many instructions each function executed by itself, and how many of them lock
//! a cache line.

use crate::Result;
use std::collections::{HashMap, HashSet};
use std::process::Command;

/// Instructions, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Of the relay, its dependencies and the C library.
    pub own: u64,
    /// Of the cryptographic library.
    pub crypto: u64,
    /// Of all of them those that lock: what mutexes, shared counts and atomic exchanges are made of.
    pub locked: u64,
}

/// Names of functions of the cryptographic library, which are C and assembly. Its Rust binding
/// counts as the relay's own: how it is called is the relay's choice.
const CRYPTO: [&str; 9] = [
    "aws_lc_", "aes", "_aes", "gcm_", "ghash", "aead_", "CRYPTO_", "OPENSSL_", "skip_iv",
];

/// Addresses of the instructions of a program or library that lock, as `objdump` lists them: those
/// with the prefix, and exchanges with memory, which lock without it.
///
/// # Errors
/// If there is no `objdump` (of binutils), or it does not read the file.
pub fn locking(object: &str) -> Result<HashSet<u64>> {
    // Code that belongs to no file: the kernel's, mapped into every process.
    if object == "???" {
        return Ok(HashSet::new());
    }
    let output = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn", object])
        .output()
        .map_err(|e| format!("objdump: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("objdump {object}: {said}").into());
    }
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// The addresses of locking instructions in a listing of x86-64.
fn listed(listing: &str) -> HashSet<u64> {
    let lines = listing.lines().filter_map(|line| line.split_once(":\t"));
    let locking = lines.filter(|(_, instruction)| {
        let exchange = instruction.starts_with("xchg") && instruction.contains('(');
        instruction.starts_with("lock ") || exchange
    });
    locking
        .filter_map(|(address, _)| u64::from_str_radix(address.trim(), 16).ok())
        .collect()
}

/// A table of names: one is given once, as `(7) name`, and then by its number alone.
#[derive(Default)]
struct Names<'a>(HashMap<&'a str, &'a str>);

impl<'a> Names<'a> {
    fn resolve(&mut self, text: &'a str) -> &'a str {
        let (number, name) = text.split_once(' ').unwrap_or((text, ""));
        if !name.is_empty() {
            self.0.insert(number, name);
        }
        self.0.get(number).copied().unwrap_or(number)
    }
}

/// Adds up a file's costs. `locking` lists the locking instructions of a program or library.
///
/// # Errors
/// If it has another form, or counts nothing; what `locking` says.
pub fn count(file: &str, mut locking: impl FnMut(&str) -> Result<HashSet<u64>>) -> Result<Profile> {
    let (mut functions, mut objects) = (Names::default(), Names::default());
    let mut locks: HashMap<&str, HashSet<u64>> = HashMap::new();
    let mut profile = Profile::default();
    let (mut crypto, mut object, mut address) = (false, "", 0u64);
    // The line after `calls=` is what the callee cost, which its own lines tell.
    let mut skip = false;
    for line in file.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            let name = functions.resolve(function);
            crypto = CRYPTO.iter().any(|prefix| name.starts_with(prefix));
        } else if let Some(function) = line.strip_prefix("cfn=") {
            functions.resolve(function);
        } else if let Some(name) = line.strip_prefix("ob=") {
            object = objects.resolve(name);
            if !locks.contains_key(object) {
                locks.insert(object, locking(object)?);
            }
        } else if let Some(name) = line.strip_prefix("cob=") {
            objects.resolve(name);
        } else if line.starts_with("calls=") {
            skip = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            // Address, source line, cost; no cost is zero. An address may be given by its distance.
            let mut words = line.split_ascii_whitespace();
            address = moved(address, words.next().unwrap_or_default())?;
            if std::mem::take(&mut skip) {
                continue;
            }
            let cost: u64 = words.nth(1).unwrap_or("0").parse()?;
            let sum = if crypto {
                &mut profile.crypto
            } else {
                &mut profile.own
            };
            *sum += cost;
            if locks.get(object).is_some_and(|of| of.contains(&address)) {
                profile.locked += cost;
            }
        }
    }
    if profile.own == 0 {
        return Err("callgrind counted nothing: the function to count in was not found".into());
    }
    Ok(profile)
}

/// The address that `position` tells after `before`.
fn moved(before: u64, position: &str) -> Result<u64> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
    Ok(match position.split_at_checked(1) {
        Some(("*", _)) => before,
        Some(("+", by)) => before + by.parse::<u64>()?,
        Some(("-", by)) => before - by.parse::<u64>()?,
        _ => number(position)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_added_up_by_owner_without_those_of_callees() {
        let file = "# callgrind format\nversion: 1\npositions: instr line\nevents: Ir\n\n\
            ob=(1) relay\nfl=(1) a.rs\nfn=(1) World::forward\n0x1f 10 100\n+2 +2 5\n\
            cob=(2) libc\ncfi=(2) b.c\n\
            cfn=(2) aes_gcm_encrypt\ncalls=3 0x30 20\n+1 12 900\n* * 7\n\n\
            ob=(2)\nfl=(2)\nfn=(2)\n0x22 20 900\n\nob=(1)\nfn=(1)\n-2 30 1\n";
        let locking = |object: &str| {
            // The other object has one at an address that only the first executes something at.
            let at = if object == "relay" { 0x22 } else { 0x21 };
            Ok(HashSet::from([at]))
        };
        let expected = Profile {
            own: 113,
            crypto: 900,
            locked: 7,
        };
        assert_eq!(count(file, locking).unwrap(), expected);
        assert!(count("fn=(1) aes_\n0x1 1 5\n", locking).is_err());
    }

    #[test]
    fn what_locks_is_told_from_a_listing() {
        let listing = "\n0000 <f>:\n  18d700:\tlock decq 0x8(%rdi)\n  18d704:\tmov %rax,%rbx\n  \
            18d708:\txchg   %eax,0x2c72bf(%rip)\n  18d70a:\txchg   %ax,%ax\n";
        assert_eq!(listed(listing), HashSet::from([0x18_d700, 0x18_d708]));
    }
}
