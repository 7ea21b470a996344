//! What a scanned string means.

use super::plain_bytes;

/// How many bytes of UTF-8 the string between the quotes, `inner`, stands for; `None` when it is no
/// text, because it has half of a surrogate pair (RFC 8259 8.2). It has been scanned before.
#[must_use]
pub(in crate::proto) fn unescaped_bytes(inner: &[u8]) -> Option<usize> {
    let mut bytes = 0;
    for piece in (Pieces { rest: inner }) {
        bytes += match piece {
            Piece::Plain(plain) => plain.len(),
            Piece::Escaped(character) => character?.len_utf8(),
        };
    }
    Some(bytes)
}

/// Appends the text that `inner` stands for.
///
/// # Panics
/// When it stands for none, see [`unescaped_bytes`].
pub(in crate::proto) fn unescape(inner: &[u8], out: &mut Vec<u8>) {
    for piece in (Pieces { rest: inner }) {
        match piece {
            Piece::Plain(plain) => out.extend_from_slice(plain),
            Piece::Escaped(character) => {
                let character = character.expect("asked before");
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
}

/// What a string is made of, in order.
struct Pieces<'a> {
    rest: &'a [u8],
}

enum Piece<'a> {
    /// Bytes that stand for themselves.
    Plain(&'a [u8]),
    /// One character; `None` for half of a surrogate pair.
    Escaped(Option<char>),
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let plain = plain_bytes(self.rest);
        if plain > 0 {
            let (plain, rest) = self.rest.split_at(plain);
            self.rest = rest;
            return Some(Piece::Plain(plain));
        }
        let [b'\\', letter, rest @ ..] = self.rest else { return None };
        self.rest = rest;
        let byte = match letter {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return Some(Piece::Escaped(self.code())),
            itself => *itself,
        };
        Some(Piece::Escaped(Some(byte.into())))
    }
}

impl Pieces<'_> {
    /// The character whose `\u` has just been passed, with the second half of a pair if it is one.
    fn code(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        let second = self.rest.strip_prefix(b"\\u")?;
        self.rest = second;
        let second = self.unit()?;
        if !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}
