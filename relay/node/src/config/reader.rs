//! Reads a TOML document key by key and collects every fault instead of stopping at the first.
//!
//! Each key is read by exactly one [`Reader::take`], which names its default and what is allowed.
//! What nobody read is an unknown key. So the code is the schema: there is no second list.

use std::collections::BTreeMap;
use std::fmt;
use toml::Value;

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key.
    pub key: String,
    /// The offending value as TOML, shortened; empty if the key is missing.
    pub value: String,
    /// What would be right.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: missing; allowed: {}", self.key, self.allowed)
        } else {
            write!(f, "{} = {}; allowed: {}", self.key, self.value, self.allowed)
        }
    }
}

/// Longest value quoted in a problem, characters.
const QUOTE_MAX: usize = 60;

/// A document being read.
pub struct Reader {
    /// Leaf keys not read yet.
    unread: BTreeMap<String, Value>,
    /// Keys read, with the default each has, as TOML.
    known: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Parses a document.
    ///
    /// # Errors
    /// The one problem of a text that is not TOML.
    pub fn parse(text: &str) -> Result<Reader, Problem> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Problem {
            key: "(file)".into(),
            value: shorten(e.message()),
            allowed: "TOML 1.0".into(),
        })?;
        let mut unread = BTreeMap::new();
        flatten("", Value::Table(table), &mut unread);
        Ok(Reader { unread, known: BTreeMap::new(), problems: Vec::new() })
    }

    /// The key's value as `parse` sees it, or the default. A value that `parse` refuses is a
    /// problem, and the default stands in so that reading goes on.
    pub fn take<T>(
        &mut self,
        key: &'static str,
        default: Value,
        allowed: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key, default.to_string());
        let given = self.unread.remove(key);
        let value = given.as_ref().unwrap_or(&default);
        let parsed = parse(value);
        if parsed.is_none() {
            self.problem(key, &shorten(&value.to_string()), allowed);
            return parse(&default);
        }
        parsed
    }

    /// A key that has no default.
    pub fn require<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key, String::new());
        let Some(value) = self.unread.remove(key) else {
            self.problem(key, "", allowed);
            return None;
        };
        let parsed = parse(&value);
        if parsed.is_none() {
            self.problem(key, &shorten(&value.to_string()), allowed);
        }
        parsed
    }

    /// A key that may be absent.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key, String::new());
        let value = self.unread.remove(key)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.problem(key, &shorten(&value.to_string()), allowed);
        }
        parsed
    }

    /// Records a problem that is not of one value alone.
    pub fn problem(&mut self, key: &str, value: &str, allowed: &str) {
        self.problems.push(Problem { key: key.into(), value: value.into(), allowed: allowed.into() });
    }

    /// Every problem, unknown keys included, in the order of their keys; and every key with its
    /// default.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Problem>, BTreeMap<&'static str, String>) {
        for (key, value) in std::mem::take(&mut self.unread) {
            let section = key.rsplit_once('.').map_or("", |(section, _)| section);
            let siblings: Vec<_> = self
                .known
                .keys()
                .filter(|k| k.rsplit_once('.').map_or("", |(s, _)| s) == section)
                .copied()
                .collect();
            let allowed = if siblings.is_empty() {
                "no such section".to_owned()
            } else {
                format!("no such key; this section has {}", siblings.join(", "))
            };
            self.problem(&key, &shorten(&value.to_string()), &allowed);
        }
        self.problems.sort_by(|a, b| a.key.cmp(&b.key));
        (self.problems, self.known)
    }
}

/// Tables become dotted keys; arrays and scalars are leaves.
fn flatten(prefix: &str, value: Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&path, value, out);
            }
        }
        leaf => {
            out.insert(prefix.to_owned(), leaf);
        }
    }
}

fn shorten(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(QUOTE_MAX) {
        Some((cut, _)) => format!("{}…", &one_line[..cut]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(v: &Value) -> Option<i64> {
        v.as_integer().filter(|n| (1..=10).contains(n))
    }

    #[test]
    fn all_faults_at_once() {
        let mut r = Reader::parse("a.x = 11\na.y = 3\nb = 1\n[c]\nd = \"z\"").unwrap();
        assert_eq!(r.take("a.x", 5.into(), "1 to 10", number), Some(5));
        assert_eq!(r.take("a.y", 5.into(), "1 to 10", number), Some(3));
        assert_eq!(r.require("a.z", "1 to 10", number), None);
        let (problems, known) = r.finish();
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "a.x = 11; allowed: 1 to 10",
                "a.z: missing; allowed: 1 to 10",
                "b = 1; allowed: no such section",
                "c.d = \"z\"; allowed: no such section",
            ]
        );
        assert_eq!(known["a.x"], "5");
    }

    #[test]
    fn not_toml_is_one_problem() {
        let Err(p) = Reader::parse("a = = b") else { panic!("parsed") };
        assert_eq!((p.key.as_str(), p.allowed.as_str()), ("(file)", "TOML 1.0"));
    }
}
