//! What may be the name of a channel.

use super::pattern::has_wildcard;
use crate::limits::CHANNEL_NAME_BYTES_MAX;

/// Whether `name` may name a channel: 1 to [`CHANNEL_NAME_BYTES_MAX`] bytes, no control
/// characters, which would only ever be there to confuse a log or a terminal, and neither `*` nor
/// `>`, which stand for other names in patterns.
#[must_use]
pub fn is_channel(name: &str) -> bool {
    if !(1..=CHANNEL_NAME_BYTES_MAX).contains(&name.len()) {
        return false;
    }
    // Nearly every name is plain, and that is seen in one pass without a branch a byte.
    let is_plain = name.bytes().fold(true, |is_plain, byte| {
        is_plain & ((b' '..=b'~').contains(&byte) & (byte != b'*') & (byte != b'>'))
    });
    is_plain || !(name.chars().any(char::is_control) || has_wildcard(name))
}

/// What is said of a name that cannot be a channel's.
pub const CHANNEL_RULE: &str =
    "a channel's name has 1 to 255 bytes of UTF-8, no control characters and no * or >";

// The sentence says its bound in words.
const _: () = assert!(CHANNEL_NAME_BYTES_MAX == 255);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes() {
        assert!(!is_channel(""));
        assert!(is_channel("a"));
        assert!(is_channel(&"a".repeat(255)));
        assert!(!is_channel(&"a".repeat(256)));
        assert!(!is_channel(&"\u{20ac}".repeat(86)));
    }

    #[test]
    fn a_name_has_no_control_characters_and_no_wildcards_but_any_other() {
        for name in ["a\0", "a\nb", "\u{7f}", "\u{85}", "\t", "*", "a*b", "a.>", "->", "\u{e9}*"] {
            assert!(!is_channel(name), "{name:?}");
        }
        for name in ["md.EURUSD", "caf\u{e9}", "\u{1f980}", "a b", "\"quoted\\\"", "a..b", "/"] {
            assert!(is_channel(name), "{name:?}");
        }
    }
}
