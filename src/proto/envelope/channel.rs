//! What may be the name of a channel.

use crate::limits::CHANNEL_NAME_BYTES_MAX;

/// Whether `name` may name a channel: 1 to [`CHANNEL_NAME_BYTES_MAX`] bytes, and no control
/// characters, which would only ever be there to confuse a log or a terminal.
#[must_use]
pub fn is_channel(name: &str) -> bool {
    (1..=CHANNEL_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

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
    fn a_name_has_no_control_characters_but_any_other() {
        for name in ["a\0", "a\nb", "\u{7f}", "\u{85}", "\t"] {
            assert!(!is_channel(name), "{name:?}");
        }
        for name in ["md.EURUSD", "caf\u{e9}", "\u{1f980}", "a b", "\"quoted\\\"", "*", "/"] {
            assert!(is_channel(name), "{name:?}");
        }
    }
}
