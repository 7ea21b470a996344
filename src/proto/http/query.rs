//! What stands behind the `?` of a request target: names and values, percent-decoded.

use std::borrow::Cow;

use super::percent::{self, Undecodable};
use super::refusal::Refusal;

const BROKEN: Refusal = Refusal::BadRequest("a percent sign in the query begins no byte");
const NOT_TEXT: Refusal = Refusal::BadRequest("the query is not UTF-8");

/// The pairs of `query`, in order and with repetitions. As forms write them: `+` is a blank, and a
/// name without `=` has an empty value.
///
/// # Errors
/// 400 for each that cannot be decoded.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Refusal>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

/// Undoes the percent-encoding, and that of blanks in forms.
fn decode(encoded: &str) -> Result<Cow<'_, str>, Refusal> {
    percent::decode(encoded, b' ').map_err(|fault| match fault {
        Undecodable::Broken => BROKEN,
        Undecodable::NotText => NOT_TEXT,
    })
}

/// Appends `value` so that it stands for itself in a query.
#[cfg(any(test, fuzzing))]
pub fn encode(out: &mut String, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        // RFC 3986 2.3: what never needs encoding.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Vec<(String, String)>, Refusal> {
        pairs(query).map(|pair| pair.map(|(name, value)| (name.into(), value.into()))).collect()
    }

    #[test]
    fn pairs_keep_their_order_and_repetitions() {
        let expected = [("channel", "a"), ("since", ""), ("channel", "b=c"), ("x", "")];
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(read("channel=a&since=&&channel=b=c&x&"), Ok(expected));
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for (encoded, decoded) in [
            ("a%20b+c", "a b c"),
            ("%2B%26%3D%25", "+&=%"),
            ("caf%C3%a9", "caf\u{e9}"),
            ("%F0%9F%A6%80", "\u{1f980}"),
            ("\u{e9}", "\u{e9}"),
            ("%0A", "\n"),
        ] {
            let read = read(&format!("{encoded}={encoded}")).unwrap();
            assert_eq!(read, [(decoded.to_owned(), decoded.to_owned())], "{encoded}");
        }
    }

    #[test]
    fn what_stands_for_no_text_is_refused() {
        for broken in ["%", "%4", "%g0", "%0g", "a=%", "a=%+1", "%\u{e9}"] {
            assert_eq!(read(broken), Err(BROKEN), "{broken}");
        }
        for broken in ["%ff", "a=%C3", "%ED%A0%80"] {
            assert_eq!(read(broken), Err(NOT_TEXT), "{broken}");
        }
    }
}
