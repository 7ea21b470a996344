//! UTF-8 as it arrives against the standard library, which sees it whole.

use super::Utf8;
use crate::fuzz::{Choices, cuts};

/// Feeds a text in the pieces that the input says.
///
/// # Panics
/// When it is judged otherwise than by the standard library, or at another piece than the one
/// that brings the first byte no text can have there.
pub fn utf8(data: &[u8]) {
    let mut choices = Choices::new(data);
    let lengths = choices.lengths();
    let text = choices.remaining();
    let standard = std::str::from_utf8(text);
    // The bytes from here on cannot be part of any text. The standard library says how many bytes
    // of a broken character still looked right: the one behind them is the culprit.
    let bad_at = standard.err().and_then(|error| {
        let looked_right = error.error_len()?;
        let culprit = error.valid_up_to() + looked_right;
        // A byte that may begin no character is its own culprit.
        let begins = std::str::from_utf8(&text[error.valid_up_to()..=error.valid_up_to()])
            .is_err_and(|error| error.error_len().is_none());
        Some(if begins { culprit } else { error.valid_up_to() })
    });

    let mut utf8 = Utf8::default();
    for piece in cuts(text.len(), lengths) {
        let fed = piece.end;
        let is_bad = utf8.feed(&text[piece]).is_err();
        assert_eq!(is_bad, bad_at.is_some_and(|bad_at| bad_at < fed), "after {fed} bytes");
        if is_bad {
            return;
        }
    }
    assert_eq!(bad_at, None);
    assert_eq!(utf8.is_complete(), standard.is_ok());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_judged_like_the_standard_library_does() {
        crate::fuzz::replay("utf8", super::utf8);
    }
}
