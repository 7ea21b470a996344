//! What a server says, read member by member. Numbers and payloads are kept as they are written:
//! a payload may hold integers that no machine word does, and is printed as it was published.

use crate::proto::json::{Member, members};

/// One message of the server: a JSON object.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Answer<'a> {
    /// Reads a message; `None` when it is not an object.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let members = members(text)?.collect::<Result<_, _>>().ok()?;
        Some(Self { members })
    }

    /// The value of a member as it is written.
    pub(super) fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.members.iter().find(|member| member.is_named(name)).map(|member| member.value)
    }

    /// The value of a member that is a string, without quotes and escapes.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let mut raw = self.raw(name)?.to_vec();
        match simd_json::to_borrowed_value(&mut raw).ok()? {
            simd_json::BorrowedValue::String(text) => Some(text.into_owned()),
            _ => None,
        }
    }

    /// The value of a member that is a whole number without a sign.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(self.raw(name)?).ok()?.parse().ok()
    }

    /// Whether its type is `name`.
    pub(super) fn is(&self, name: &str) -> bool {
        // Types are plain words, which no server has a reason to escape.
        self.raw("type").and_then(|raw| raw.strip_prefix(b"\"")?.strip_suffix(b"\""))
            == Some(name.as_bytes())
    }

    /// How long to stay away, if it is a `goaway`.
    pub(super) fn goaway_ms(&self) -> Option<u64> {
        self.is("goaway").then(|| self.number("reconnect_after_ms")).flatten()
    }
}

/// JSON on one line: line breaks in it can only be whitespace between tokens.
pub(super) fn one_line(json: &[u8]) -> Vec<u8> {
    json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_and_payloads_kept() {
        let text = br#"{"type":"message","channel":"a\u0062","seq":18446744073709551615,"payload":{"n":1e400, "m":
            123456789012345678901234567890}}"#;
        let answer = Answer::parse(text).expect("an object");
        assert!(answer.is("message"));
        assert_eq!(answer.text("channel").as_deref(), Some("ab"));
        assert_eq!(answer.number("seq"), Some(u64::MAX));
        assert_eq!(answer.text("seq"), None);
        assert_eq!(answer.number("channel"), None);
        assert_eq!(answer.raw("missing"), None);
        let payload = one_line(answer.raw("payload").expect("a payload"));
        assert!(!payload.contains(&b'\n'));
        assert!(payload.ends_with(b" 123456789012345678901234567890}"));
    }

    #[test]
    fn what_is_no_object_is_no_answer() {
        for text in [&b"[]"[..], b"", b"{", b"{}x", b"nonsense", b"{\"type\":}"] {
            assert!(Answer::parse(text).is_none());
        }
        assert!(!Answer::parse(b"{}").expect("an object").is("message"));
    }
}
