//! Percent-encoding (RFC 3986 2.1), in paths and in queries.

use std::borrow::Cow;

use super::refusal::Refusal;

/// Why something stands for no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// A percent sign without two hexadecimal digits behind it.
    Broken,
    /// The bytes are not UTF-8.
    NotText,
}

/// What the part `encoded` of a path stands for. A plus sign stands for itself.
///
/// # Errors
/// 400 when a percent sign begins no byte, or the bytes are not UTF-8.
pub fn decode_path(encoded: &str) -> Result<Cow<'_, str>, Refusal> {
    decode(encoded, b'+').map_err(|fault| match fault {
        Undecodable::Broken => Refusal::BadRequest("a percent sign in the path begins no byte"),
        Undecodable::NotText => Refusal::BadRequest("the path is not UTF-8"),
    })
}

/// What `encoded` stands for, in which `+` stands for `plus`.
pub(super) fn decode(encoded: &str, plus: u8) -> Result<Cow<'_, str>, Undecodable> {
    if !encoded.contains(['%', '+']) {
        return Ok(Cow::Borrowed(encoded));
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => plus,
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let high = digit().ok_or(Undecodable::Broken)?;
                let low = digit().ok_or(Undecodable::Broken)?;
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Undecodable::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_everything_else_stands_for_itself() {
        for (encoded, decoded) in [
            ("orders", "orders"),
            ("a%20b+c", "a b+c"),
            ("%2Fa/b%2f", "/a/b/"),
            ("caf%C3%a9 \u{20ac}", "caf\u{e9} \u{20ac}"),
            ("%25%32%35", "%25"),
            ("", ""),
        ] {
            assert_eq!(decode_path(encoded).as_deref(), Ok(decoded), "{encoded}");
        }
    }

    #[test]
    fn what_stands_for_no_text_is_refused() {
        for encoded in ["%", "a%4", "%g0", "%0g", "%+1", "%\u{e9}", "%ff", "%c3", "%ed%a0%80"] {
            let refused = decode_path(encoded);
            assert!(matches!(refused, Err(Refusal::BadRequest(_))), "{encoded}: {refused:?}");
        }
    }
}
