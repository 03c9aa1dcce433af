//! What a configuration value may be: a type for each kind, which reads it and can say what it
//! would have taken.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

/// A kind of value.
pub(crate) trait Setting: Sized + Debug {
    /// Reads it, or `None` if the value is not one of this kind.
    fn read(value: &Value) -> Option<Self>;
    /// What is allowed, to follow "must be".
    fn allowed() -> String;
}

impl Setting for bool {
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn allowed() -> String {
        "true or false".into()
    }
}

/// Any text.
impl Setting for String {
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn allowed() -> String {
        "a text".into()
    }
}

/// A file's path; empty for none.
impl Setting for Option<PathBuf> {
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn allowed() -> String {
        "a path, or \"\" for none".into()
    }
}

/// An address with a port; empty for none.
impl Setting for Option<SocketAddr> {
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }

    fn allowed() -> String {
        "an address and port like \"127.0.0.1:9090\" or \"[::1]:9090\", or \"\" for none".into()
    }
}

impl Setting for SocketAddr {
    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn allowed() -> String {
        "an address and port like \"0.0.0.0:7880\" or \"[::]:7880\"".into()
    }
}

impl Setting for IpAddr {
    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn allowed() -> String {
        "an IP address".into()
    }
}

/// A list, each element once.
impl<T: Setting + PartialEq> Setting for Vec<T> {
    fn read(value: &Value) -> Option<Self> {
        let mut out = Vec::new();
        for element in value.as_array()? {
            let element = T::read(element)?;
            if out.contains(&element) {
                return None;
            }
            out.push(element);
        }
        Some(out)
    }

    fn allowed() -> String {
        format!(
            "a list, without repetition, of which each is {}",
            T::allowed()
        )
    }
}

/// A whole number of `MIN..=MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// The number.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The number as a size in memory.
    pub(crate) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Setting for Number<MIN, MAX> {
    fn read(value: &Value) -> Option<Self> {
        let number = u64::try_from(value.as_integer()?).ok()?;
        (MIN..=MAX).contains(&number).then_some(Number(number))
    }

    fn allowed() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
}

/// A time of `MIN..=MAX` milliseconds, written as `"250ms"`, `"10s"`, `"5m"` or `"24h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Time<MIN, MAX> {
    /// The time.
    pub(crate) const fn get(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Units of time, milliseconds each, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl<const MIN: u64, const MAX: u64> Setting for Time<MIN, MAX> {
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let total = number.parse::<u64>().ok()?.checked_mul(*millis)?;
        (MIN..=MAX).contains(&total).then_some(Time(total))
    }

    fn allowed() -> String {
        format!(
            "a time from \"{}\" to \"{}\" in ms, s, m or h",
            in_words(MIN),
            in_words(MAX)
        )
    }
}

fn in_words(millis: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| millis >= *unit && millis.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// One of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$vdoc])* $variant,)* }

        impl $crate::config::value::Setting for $name {
            fn read(value: &toml::Value) -> Option<Self> {
                match value.as_str()? {
                    $($word => Some($name::$variant),)*
                    _ => None,
                }
            }

            fn allowed() -> String {
                [$(concat!("\"", $word, "\"")),*].join(", ").to_string()
            }
        }
    };
}
pub(crate) use words;

/// A token key: `{ kid = "...", file = "..." }`, `kid` being optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFile {
    pub(crate) kid: Option<String>,
    pub(crate) file: PathBuf,
}

impl Setting for KeyFile {
    fn read(value: &Value) -> Option<Self> {
        let table = value.as_table()?;
        let known = table.keys().all(|k| k == "kid" || k == "file");
        let kid = match table.get("kid") {
            Some(kid) => Some(kid.as_str()?.to_owned()),
            None => None,
        };
        let file = PathBuf::from(table.get("file")?.as_str()?);
        known.then_some(KeyFile { kid, file })
    }

    fn allowed() -> String {
        "{ kid = \"name\", file = \"path\" }, where kid may be left out".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Option<T> {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        T::read(&table["x"])
    }

    #[test]
    fn times_have_units_and_bounds() {
        type T = Time<100, 3_600_000>;
        assert_eq!(
            read::<T>("\"250ms\"").map(T::get),
            Some(Duration::from_millis(250))
        );
        assert_eq!(
            read::<T>("\"1h\"").map(T::get),
            Some(Duration::from_secs(3_600))
        );
        for bad in [
            "10",
            "\"10\"",
            "\"s\"",
            "\"99ms\"",
            "\"2h\"",
            "\"-1s\"",
            "\"1 s\"",
            "\"99999999999999999999s\"",
        ] {
            assert_eq!(read::<T>(bad), None, "{bad}");
        }
        assert_eq!(
            T::allowed(),
            "a time from \"100ms\" to \"1h\" in ms, s, m or h"
        );
    }

    #[test]
    fn numbers_have_bounds() {
        type N = Number<1, 9>;
        assert_eq!(read::<N>("9").map(N::get), Some(9));
        for bad in ["0", "10", "-1", "1.0", "\"1\"", "true"] {
            assert_eq!(read::<N>(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_have_no_repetition() {
        assert_eq!(read::<Vec<IpAddr>>("[\"::1\"]").map(|l| l.len()), Some(1));
        assert_eq!(read::<Vec<IpAddr>>("[\"::1\", \"::1\"]"), None);
        assert_eq!(read::<Vec<IpAddr>>("[\"::1\", \"x\"]"), None);
    }
}
