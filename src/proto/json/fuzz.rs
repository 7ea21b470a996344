//! The scanner against serde_json: what is JSON, what its members are, what a string means.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Fault, document, members, value, write_number, write_string};
use crate::fuzz::Choices;
use crate::limits::JSON_DEPTH_MAX;

/// Scans a text.
///
/// # Panics
/// When serde_json disagrees about it, or the place of a fault is not where the text broke.
pub fn json(data: &[u8]) {
    // The decoder lets nothing else through.
    let text = String::from_utf8_lossy(data);
    check_document(&text);
    check_written(&text, data);
}

fn check_document(text: &str) {
    let bytes = text.as_bytes();
    let ours = document(bytes);
    // Reads without recursion, numbers of any size, and half surrogates: what the grammar says.
    let theirs = serde_json::from_str::<IgnoredAny>(text);
    match ours {
        Ok(()) => {
            assert!(theirs.is_ok(), "{theirs:?}");
            check_members(text);
        }
        // The one bound that serde_json does not have here.
        Err(error) if error.fault == Fault::TooDeep => {
            let opened = bytes[..=error.at].iter().filter(|byte| matches!(byte, b'[' | b'{'));
            assert!(opened.count() > JSON_DEPTH_MAX);
        }
        Err(error) => {
            assert!(theirs.is_err(), "{error:?}");
            assert_eq!(error.fault == Fault::TooShort, error.at == bytes.len(), "{error:?}");
            check_fault(&bytes[..error.at], error.fault);
        }
    }
}

/// What stands before a fault is JSON or its beginning: the fault is the first.
fn check_fault(before: &[u8], fault: Fault) {
    match document(before) {
        Ok(()) => assert_eq!(fault, Fault::TrailingBytes),
        Err(error) => assert_eq!((error.fault, error.at), (Fault::TooShort, before.len())),
    }
}

/// The members of an object are what serde_json finds, byte for byte.
pub(crate) fn check_members(text: &str) {
    let Some(ours) = members(text.as_bytes()) else {
        assert!(!text.trim_start().starts_with('{'));
        return;
    };
    let ours: Vec<_> = ours.map(|member| member.expect("it is JSON")).collect();
    for member in &ours {
        assert_eq!(value(member.value, 0), Ok(member.value.len()));
    }
    // A key with half of a surrogate pair is no text, so serde_json cannot name it.
    let Some(theirs) = read_members(text) else { return };
    assert_eq!(ours.len(), theirs.len());
    for (ours, (key, value)) in ours.iter().zip(&theirs) {
        assert_eq!(ours.value, value.get().as_bytes());
        if key.is_ascii() {
            assert!(ours.is_named(key), "{key:?}");
        }
        for name in ["type", "id", "channel", "t"] {
            assert_eq!(ours.is_named(name), key == name, "{key:?}");
        }
    }
}

/// The members of an object in order, duplicates included, as serde_json reads them.
pub(crate) fn read_members(text: &str) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(text).ok().map(|members| members.0)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Members<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// What is written here is read there.
fn check_written(text: &str, data: &[u8]) {
    let mut written = Vec::new();
    write_string(&mut written, text);
    assert_eq!(document(&written), Ok(()));
    let read: String = serde_json::from_slice(&written).expect("a string");
    assert_eq!(read, text);

    let mut choices = Choices::new(data);
    let number = (0..4).fold(0, |sum, _| sum << 16 | u64::from(choices.word()));
    let number = number >> (choices.byte() % 64);
    let mut written = Vec::new();
    write_number(&mut written, number);
    assert_eq!(written, number.to_string().into_bytes());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_what_serde_json_says() {
        crate::fuzz::replay("json", super::json);
    }
}
