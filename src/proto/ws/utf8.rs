//! UTF-8 checked as it arrives: the first byte that cannot be part of any valid text is
//! noticed in the chunk that brings it, however the text was cut.

/// Bytes of a character that came in without its end: at most three.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    pending: [u8; 4],
    pending_bytes: u8,
}

/// The text is not UTF-8, and no further byte can make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8 {
    /// Takes the next chunk of the text.
    ///
    /// # Errors
    /// When the text so far is not the beginning of any UTF-8 text.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), NotUtf8> {
        let mut rest = chunk;
        while self.pending_bytes > 0 {
            let Some((&byte, after)) = rest.split_first() else { return Ok(()) };
            rest = after;
            self.feed_pending(byte)?;
        }
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            // No error length means the end came too soon: what is there is a valid beginning.
            Err(error) if error.error_len().is_none() => {
                let tail = &rest[error.valid_up_to()..];
                self.pending[..tail.len()].copy_from_slice(tail);
                self.pending_bytes = tail.len() as u8;
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// Whether the text may end here: no character is cut.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pending_bytes == 0
    }

    fn feed_pending(&mut self, byte: u8) -> Result<(), NotUtf8> {
        let bytes = usize::from(self.pending_bytes) + 1;
        self.pending[bytes - 1] = byte;
        self.pending_bytes = match std::str::from_utf8(&self.pending[..bytes]) {
            Ok(_) => 0,
            Err(error) if error.error_len().is_none() => bytes as u8,
            Err(_) => return Err(NotUtf8),
        };
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes of `text` are taken before the first refusal, fed in `cut`-byte chunks.
    fn accepted(text: &[u8], cut: usize) -> Option<usize> {
        let mut utf8 = Utf8::default();
        for (index, chunk) in text.chunks(cut).enumerate() {
            if utf8.feed(chunk).is_err() {
                return Some(index * cut);
            }
        }
        None
    }

    #[test]
    fn the_first_bad_byte_is_noticed_when_it_comes() {
        // The character at offset 3 would be above U+10FFFF: F4 may begin one, 90 cannot follow.
        assert_eq!(accepted(b"abc\xf4\x90\x80\x80", 1), Some(4));
        // A surrogate: ED may begin a character, A0 cannot follow.
        assert_eq!(accepted(b"\xed\xa0\x80", 1), Some(1));
        // Overlong forms.
        assert_eq!(accepted(b"\xc0\xaf", 1), Some(0));
        assert_eq!(accepted(b"\xe0\x80\xaf", 1), Some(1));
        assert_eq!(accepted(b"\xf0\x80\x80\xaf", 1), Some(1));
        // A continuation that nobody began.
        assert_eq!(accepted(b"a\x80", 1), Some(1));
    }

    #[test]
    fn every_cut_of_a_valid_text_is_valid() {
        let text = "k\u{f6}nig \u{20ac}5 \u{1f980} \u{10ffff} end".repeat(9);
        for cut in 1..=text.len() {
            assert_eq!(accepted(text.as_bytes(), cut), None, "cut {cut}");
        }
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_incomplete() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.feed(b"a\xf0\x9f"), Ok(()));
        assert!(!utf8.is_complete());
        assert_eq!(utf8.feed(b"\xa6"), Ok(()));
        assert_eq!(utf8.feed(b""), Ok(()));
        assert!(!utf8.is_complete());
        assert_eq!(utf8.feed(b"\x80!"), Ok(()));
        assert!(utf8.is_complete());
    }

    #[test]
    fn every_two_byte_text_is_judged_like_the_standard_library_does() {
        for pair in 0..=u16::MAX {
            let text = pair.to_be_bytes();
            for cut in [1, 2] {
                let mut utf8 = Utf8::default();
                let taken = text.chunks(cut).all(|chunk| utf8.feed(chunk).is_ok());
                let valid = std::str::from_utf8(&text);
                assert_eq!(taken && utf8.is_complete(), valid.is_ok(), "{text:x?}");
                let may_continue = valid.map_or_else(|error| error.error_len().is_none(), |_| true);
                assert_eq!(taken, may_continue, "{text:x?}");
            }
        }
    }
}
