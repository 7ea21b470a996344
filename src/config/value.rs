//! What somebody wrote for one key, and every reading of it: counts, sizes, durations,
//! addresses, choices. A reading that fails says what was found and what to write instead.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use crate::time::Span;
use crate::time::parse_duration;

/// What stands after one key, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// From the environment or a flag, which know no types.
    Word(String),
    /// A string in the file.
    Text(String),
    /// A whole number in the file.
    Integer(i128),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// A list of strings in the file.
    List(Vec<String>),
    /// Anything that no key takes: its name with an article, for the complaint.
    Other(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(out, "{word:?}"),
            Self::Text(text) => write!(out, "the string {text:?}"),
            Self::Integer(number) => write!(out, "the number {number}"),
            Self::Boolean(value) => write!(out, "{value}"),
            Self::List(list) => write!(out, "the list {list:?}"),
            Self::Other(name) => out.write_str(name),
        }
    }
}

impl Value {
    /// The characters of a word or a string.
    fn characters(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// Whether it is the word `word` (`off`, `auto`).
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.characters() == Some(word)
    }

    fn wrong(&self, expected: &str) -> String {
        format!("expected {expected}, found {self}")
    }

    /// A whole number within `allowed`.
    ///
    /// # Errors
    /// When it is something else, or outside.
    pub fn count(&self, allowed: RangeInclusive<u64>) -> Result<u64, String> {
        let number = match self {
            Self::Integer(number) => Some(*number),
            Self::Word(word) => word.trim().parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.wrong("a whole number"))?;
        within(number, number.to_string(), &allowed, u64::to_string)
    }

    /// A number of bytes within `allowed`: `65536`, `"64KiB"`, `"1 MiB"`, `"5MB"`.
    ///
    /// # Errors
    /// When it is something else, or outside.
    pub fn size(&self, allowed: RangeInclusive<u64>) -> Result<u64, String> {
        let (bytes, written) = match self {
            Self::Integer(number) => (Some(*number), number.to_string()),
            Self::Word(text) | Self::Text(text) => (parse_size(text.trim()), text.trim().into()),
            _ => (None, String::new()),
        };
        let bytes = bytes.ok_or_else(|| self.wrong("a size like 65536, \"64KiB\" or \"1MiB\""))?;
        within(bytes, written, &allowed, |bytes| Size(*bytes).to_string())
    }

    /// A duration within `allowed`: `"500ms"`, `"25s"`, `"2m"`, `"1h"`. A bare number is
    /// refused: nobody could tell its unit.
    ///
    /// # Errors
    /// When it is something else, or outside.
    pub fn duration(&self, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
        let text = self.characters().unwrap_or_default();
        let duration = parse_duration(text)
            .ok_or_else(|| self.wrong("a duration like \"500ms\", \"25s\" or \"2m\""))?;
        if duration < *allowed.start() {
            let least = Span(*allowed.start());
            return Err(format!("{text} is below the smallest allowed, {least}"));
        }
        if duration > *allowed.end() {
            let most = Span(*allowed.end());
            return Err(format!("{text} is above the largest allowed, {most}"));
        }
        Ok(duration)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn boolean(&self) -> Result<bool, String> {
        match self {
            Self::Boolean(value) => Ok(*value),
            Self::Word(word) if word == "true" => Ok(true),
            Self::Word(word) if word == "false" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// Some words: a list of strings, one string, or, where there are no lists, words with commas
    /// between them.
    ///
    /// # Errors
    /// When it is something else than what is `expected`.
    pub fn list(&self, expected: &str) -> Result<Vec<String>, String> {
        match self {
            Self::List(list) => Ok(list.clone()),
            Self::Text(text) => Ok(vec![text.trim().into()]),
            Self::Word(words) => Ok(words.split(',').map(|word| word.trim().into()).collect()),
            _ => Err(self.wrong(expected)),
        }
    }

    /// An address to listen on.
    ///
    /// # Errors
    /// When it is something else. Names are not looked up: what is bound must not depend on DNS.
    pub fn address(&self) -> Result<SocketAddr, String> {
        self.characters().and_then(|text| text.parse().ok()).ok_or_else(|| {
            self.wrong("an IP address and a port, like \"0.0.0.0:8080\" or \"[::]:8080\"")
        })
    }

    /// One of a few words.
    ///
    /// # Errors
    /// When it is none of them; names them all.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let text = self.characters();
        let found = choices.iter().find(|(word, _)| Some(*word) == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong(&format!("one of {}", words.join(", ")))
        })
    }

    /// A string from the file.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self) -> Result<&str, String> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            _ => Err(self.wrong("a string")),
        }
    }
}

fn within(
    number: i128,
    written: String,
    allowed: &RangeInclusive<u64>,
    show: impl Fn(&u64) -> String,
) -> Result<u64, String> {
    if number < i128::from(*allowed.start()) {
        return Err(format!("{written} is below the smallest allowed, {}", show(allowed.start())));
    }
    match u64::try_from(number) {
        Ok(number) if number <= *allowed.end() => Ok(number),
        _ => Err(format!("{written} is above the largest allowed, {}", show(allowed.end()))),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

fn parse_size(text: &str) -> Option<i128> {
    if let Ok(bytes) = text.parse() {
        return Some(bytes);
    }
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let number: u32 = number.trim_end().parse().ok()?;
    Some(i128::from(number) * i128::from(*unit))
}

/// Bytes, shown in the largest binary unit that leaves no fraction: what can be written in the file.
#[derive(Debug, Clone, Copy)]
pub struct Size(
    /// How many bytes.
    pub u64,
);

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            UNITS[..4].iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match exact {
            Some((name, unit)) => write!(out, "{}{name}", self.0 / unit),
            None => write!(out, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn sizes_are_numbers_or_numbers_with_a_unit() {
        for (value, expected) in [
            (Value::Integer(65536), Some(65536)),
            (text("64KiB"), Some(65536)),
            (text("64 KiB"), Some(65536)),
            (text("1MiB"), Some(1 << 20)),
            (text("5MB"), Some(5_000_000)),
            (text("12"), Some(12)),
            (text("12B"), Some(12)),
            (text("0"), Some(0)),
            (text("4294967295GiB"), None),
            (text("99999999999999999999"), None),
            (text("1.5MiB"), None),
            (text("-1"), None),
            (text("64K"), None),
            (text(""), None),
            (text("KiB"), None),
            (Value::Boolean(true), None),
        ] {
            assert_eq!(value.size(0..=1 << 40).ok(), expected, "{value}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        let ms = Duration::from_millis;
        for (value, expected) in [
            (text("500ms"), Some(ms(500))),
            (text("25s"), Some(ms(25_000))),
            (text("2m"), Some(ms(120_000))),
            (text("1 h"), Some(ms(3_600_000))),
            (text("25"), None),
            (Value::Integer(25), None),
            (text("s"), None),
            (text("1.5s"), None),
            (text("-1s"), None),
            (text("99999999999s"), None),
            (text("2d"), None),
        ] {
            let allowed = Duration::ZERO..=Duration::from_secs(86_400);
            assert_eq!(value.duration(allowed).ok(), expected, "{value}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named_as_it_was_written() {
        let complaint = text("64 MB").size(128..=16 << 20).unwrap_err();
        assert_eq!(complaint, "64 MB is above the largest allowed, 16MiB");
        let complaint = Value::Word("0".into()).count(1..=256).unwrap_err();
        assert_eq!(complaint, "0 is below the smallest allowed, 1");
        let complaint = Value::Integer(-3).count(1..=256).unwrap_err();
        assert_eq!(complaint, "-3 is below the smallest allowed, 1");
        let complaint = text("2h").duration(Duration::ZERO..=Duration::from_secs(3600));
        assert_eq!(complaint.unwrap_err(), "2h is above the largest allowed, 1h");
    }

    #[test]
    fn only_words_turn_into_numbers_and_booleans() {
        assert_eq!(Value::Word("7".into()).count(1..=9), Ok(7));
        assert!(text("7").count(1..=9).is_err());
        assert_eq!(Value::Word("true".into()).boolean(), Ok(true));
        assert_eq!(
            text("true").boolean().unwrap_err(),
            "expected true or false, found the string \"true\""
        );
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for bytes in [0, 1, 1000, 1024, 65536, 1536, 1 << 30, 5_000_000] {
            assert_eq!(text(&Size(bytes).to_string()).size(0..=u64::MAX), Ok(bytes));
        }
        for ms in [0, 1, 500, 1000, 25_000, 120_000, 7_200_000] {
            let duration = Duration::from_millis(ms);
            let allowed = Duration::ZERO..=Duration::from_secs(86_400);
            assert_eq!(text(&Span(duration).to_string()).duration(allowed), Ok(duration));
        }
    }
}
