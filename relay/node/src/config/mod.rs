//! The configuration: read from TOML, checked as a whole, all faults told at once.

pub(crate) mod check;
pub(crate) mod schema;
pub(crate) mod value;

pub(crate) use check::Checked;
pub(crate) use schema::Settings;

use schema::KEYS;
use std::fmt;
use std::path::Path;
use toml::{Table, Value};

/// Something wrong with a configuration. The operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    key: String,
    value: String,
    rule: String,
}

impl Fault {
    /// `key = value` breaks `rule`.
    pub(crate) fn new(key: &str, value: &str, rule: &str) -> Self {
        Fault {
            key: key.to_owned(),
            value: value.to_owned(),
            rule: rule.to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.key, self.value, self.rule)
    }
}

/// Reads a file, and everything that it names.
///
/// # Errors
/// Every fault.
pub(crate) fn load(path: &Path) -> Result<Checked, Vec<Fault>> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        vec![Fault::new(
            "--config",
            &shown,
            &format!("cannot be read: {e}"),
        )]
    })?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut faults = Vec::new();
    let settings = parse(&text, &mut faults);
    let checked = settings.and_then(|s| check::check(s, base, &mut faults));
    match checked {
        Some(checked) if faults.is_empty() => Ok(checked),
        _ => Err(faults),
    }
}

/// Reads a configuration's text. Appends every unknown key and every value that is not allowed to
/// `faults`; a text that is not TOML is one fault, and yields nothing.
pub(crate) fn parse(text: &str, faults: &mut Vec<Fault>) -> Option<Settings> {
    let table: Table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map(|s| s.start.min(text.len()));
            let line = start.map(|at| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count());
            let line = line.map_or_else(|| "?".to_owned(), |l| l.to_string());
            faults.push(Fault::new("line", &line, error.message()));
            return None;
        }
    };
    faults.extend(unknown(&table));
    schema::read(&table, faults)
}

/// Keys that the table does not have.
fn unknown(table: &Table) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (section, content) in table {
        let prefix = format!("{section}.");
        let known: Vec<&str> = KEYS
            .iter()
            .filter_map(|k| k.name.strip_prefix(&prefix))
            .collect();
        let Some(content) = content.as_table().filter(|_| !known.is_empty()) else {
            let rule = format!("unknown; sections are {}", sections().join(", "));
            faults.push(Fault::new(section, &show(content), &rule));
            continue;
        };
        for (key, value) in content {
            if !known.contains(&key.as_str()) {
                let rule = format!("unknown; keys of [{section}] are {}", known.join(", "));
                faults.push(Fault::new(&format!("{section}.{key}"), &show(value), &rule));
            }
        }
    }
    faults
}

fn sections() -> Vec<&'static str> {
    let mut out: Vec<&str> = KEYS
        .iter()
        .filter_map(|k| k.name.split('.').next())
        .collect();
    out.dedup();
    out
}

/// A value for an error message: short, on one line.
fn show(value: &Value) -> String {
    let text = match value {
        Value::Table(_) => "{ … }".to_owned(),
        value => value.to_string(),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The default configuration with every key explained: what `config/sealcast.toml` is.
pub(crate) fn explained() -> String {
    let mut out = String::from(
        "# Sealcast's configuration. Every key is here with its default; what is left out of a file\n\
         # has it. `sealcast check --config FILE` says everything that is wrong with one.\n\
         # Times are written like \"250ms\", \"10s\", \"5m\" or \"24h\".\n",
    );
    let mut section = "";
    for key in KEYS {
        let Some((of, name)) = key.name.split_once('.') else {
            continue;
        };
        if of != section {
            section = of;
            out.push_str(&format!("\n[{section}]\n"));
        }
        out.push('\n');
        for line in key.help {
            out.push_str(&format!("# {line}\n"));
        }
        out.push_str(&format!("# Allowed: {}.\n", (key.allowed)()));
        out.push_str(&format!("{name} = {}\n", key.default));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../../../config/sealcast.toml");

    /// `sealcast config > config/sealcast.toml` brings the file up to date.
    #[test]
    fn the_file_is_the_table() {
        assert_eq!(FILE, explained());
    }

    fn faults(text: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        parse(text, &mut faults);
        faults
    }

    #[test]
    fn every_default_is_allowed_and_the_file_has_no_other() {
        let mut faults = Vec::new();
        let defaults = parse("", &mut faults).unwrap();
        let from_file = parse(FILE, &mut faults).unwrap();
        assert_eq!(faults, []);
        assert_eq!(format!("{defaults:?}"), format!("{from_file:?}"));
    }

    #[test]
    fn faults_come_all_at_once() {
        let faults = faults(
            "[http]\nlisten = \"here\"\nmax_connections = 0\nspeed = 9\n[media]\ngrace = \"1s\"\n\
             tcp = \"yes\"\n[rooms]\nsealed = \"mostly\"\n[rom]\nx = 1\n",
        );
        let mut keys: Vec<&str> = faults.iter().map(|f| f.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "http.listen",
                "http.max_connections",
                "http.speed",
                "media.grace",
                "media.tcp",
                "rom",
                "rooms.sealed"
            ]
        );
        let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let expected = "rooms.sealed = \"mostly\": must be \"required\", \"optional\"";
        assert!(text.iter().any(|t| t == expected), "{text:?}");
    }

    #[test]
    fn a_text_that_is_not_toml_is_one_fault_with_its_line() {
        let faults = faults("[http]\nlisten = [\n[media]\n");
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].to_string().starts_with("line = "),
            "{}",
            faults[0]
        );
    }
}
