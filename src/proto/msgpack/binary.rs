//! Binary values in JSON: `{"$bin":"base64"}` and `{"$ext":[type,"base64"]}`.
//!
//! Whatever the spelling (spaces, `\/` as PHP writes it), what it says counts: one member of that
//! name, and base64 to the letter of RFC 4648 with padding. What is almost of that shape is an object
//! like any other.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::EXT_JSON;
use crate::proto::json::{self, skip_whitespace, write_number};

/// Depth of nesting that a bin has in JSON.
pub(super) const BIN_DEPTH: usize = 1;
/// Depth of nesting that an ext has in JSON.
pub(super) const EXT_DEPTH: usize = 2;

/// What kind of binary value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bin,
    Ext(i8),
}

/// A binary value in a JSON text.
#[derive(Debug)]
pub(super) struct Binary<'a> {
    pub(super) kind: Kind,
    /// Base64, perhaps broken. Owned only where it is written with escapes.
    base64: Cow<'a, [u8]>,
    /// Where the value ends in the text.
    pub(super) end: usize,
}

impl<'a> Binary<'a> {
    /// What stands at `at`, if it has the shape of a binary value. Whether the base64 is sound, only
    /// decoding tells.
    pub(super) fn find(text: &'a [u8], at: usize) -> Option<Self> {
        let mut shape = Shape { text, at };
        shape.byte(b'{')?;
        let name = shape.string()?;
        shape.byte(b':')?;
        let (kind, base64) = match &*name {
            b"$bin" => (Kind::Bin, shape.string()?),
            b"$ext" => {
                shape.byte(b'[')?;
                let kind = shape.ext_type()?;
                shape.byte(b',')?;
                let base64 = shape.string()?;
                shape.byte(b']')?;
                (Kind::Ext(kind), base64)
            }
            _ => return None,
        };
        shape.byte(b'}')?;
        Some(Self { kind, base64, end: shape.at })
    }

    /// How many bytes it has, if its base64 is sound.
    pub(super) fn bytes(&self) -> usize {
        let padding = self.base64.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
        (self.base64.len() / 4 * 3).saturating_sub(padding)
    }

    /// Appends its bytes. False, and nothing is appended, when the base64 is not sound.
    pub(super) fn decode(&self, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        let bytes = self.bytes();
        out.resize(begin + bytes, 0);
        let is_sound = STANDARD.decode_slice(&*self.base64, &mut out[begin..]) == Ok(bytes);
        if !is_sound {
            out.truncate(begin);
        }
        is_sound
    }
}

/// Appends the bytes of the JSON text `value` if it is a bin and nothing else; says whether it is.
pub fn read_bin(value: &[u8], out: &mut Vec<u8>) -> bool {
    let found = Binary::find(value, skip_whitespace(value, 0));
    found.is_some_and(|binary| {
        binary.kind == Kind::Bin
            && skip_whitespace(value, binary.end) == value.len()
            && binary.decode(out)
    })
}

/// Appends `bytes` as JSON.
pub fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"{\"$bin\":\"");
    write_base64(out, bytes);
    out.extend_from_slice(b"\"}");
}

/// Bytes that [`write_bin`] appends for a binary value of `bytes`.
#[must_use]
pub const fn bin_bytes(bytes: usize) -> usize {
    b"{\"$bin\":\"\"}".len() + bytes.div_ceil(3) * 4
}

/// Appends an ext as JSON. Its type is not [`EXT_JSON`], which is JSON already.
pub(super) fn write_ext(out: &mut Vec<u8>, kind: i8, bytes: &[u8]) {
    debug_assert_ne!(kind, EXT_JSON);
    out.extend_from_slice(b"{\"$ext\":[");
    if kind < 0 {
        out.push(b'-');
    }
    write_number(out, kind.unsigned_abs().into());
    out.extend_from_slice(b",\"");
    write_base64(out, bytes);
    out.extend_from_slice(b"\"]}");
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let begin = out.len();
    out.resize(begin + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[begin..]).expect("four letters hold three bytes");
}

/// What is expected of a text, piece by piece.
struct Shape<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Shape<'a> {
    /// A structural byte, whitespace around it.
    fn byte(&mut self, expected: u8) -> Option<()> {
        let at = skip_whitespace(self.text, self.at);
        (self.text.get(at) == Some(&expected)).then(|| self.at = at + 1)
    }

    /// A string: what it says.
    fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        let start = skip_whitespace(self.text, self.at);
        (self.text.get(start) == Some(&b'"')).then_some(())?;
        let end = json::string(self.text, start).ok()?;
        self.at = end;
        let inner = &self.text[start + 1..end - 1];
        if memchr::memchr(b'\\', inner).is_none() {
            return Some(Cow::Borrowed(inner));
        }
        let mut said = Vec::with_capacity(json::unescaped_bytes(inner)?);
        json::unescape(inner, &mut said);
        Some(Cow::Owned(said))
    }

    /// The type of an ext, as an integer is written.
    fn ext_type(&mut self) -> Option<i8> {
        let start = skip_whitespace(self.text, self.at);
        let rest = &self.text[start..];
        let length = rest.iter().take_while(|byte| matches!(byte, b'-' | b'0'..=b'9')).count();
        let written = std::str::from_utf8(&rest[..length]).ok()?;
        // As JSON writes it, so that each type has one spelling: no 007, no -0.
        let digits = written.trim_start_matches('-');
        let is_canonical = written == "0" || !digits.starts_with('0');
        let kind = written.parse().ok().filter(|kind| is_canonical && *kind != EXT_JSON)?;
        self.at = start + length;
        Some(kind)
    }
}
