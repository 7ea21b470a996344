//! A strict scanner of RFC 8259: says where a value ends and whether it is JSON, and changes
//! nothing.
//!
//! A payload is forwarded byte for byte inside our own messages, so it must be JSON to the
//! letter, and it must stay what it is: integers of any size, `1e400`, `-0.0`, duplicate keys
//! and every way of escaping pass. No recursion, no allocation. Bytes are expected to be UTF-8
//! already: the decoder has seen to it.

mod unescape;

pub(in crate::proto) use unescape::{unescape, unescaped_bytes};

use crate::limits::JSON_DEPTH_MAX;

// The kinds of the containers we are in are kept as one bit each.
const _: () = assert!(JSON_DEPTH_MAX <= u128::BITS as usize);

/// What is wrong with a text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Index of the byte that cannot stand there.
    pub at: usize,
    /// Why it cannot.
    pub fault: Fault,
}

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text ends inside a value.
    TooShort,
    /// Something goes on behind the value.
    TrailingBytes,
    /// A byte that the grammar does not allow here.
    UnexpectedByte,
    /// A control character stands in a string without an escape.
    ControlInString,
    /// A backslash with something behind it that is no escape.
    BadEscape,
    /// Nested deeper than [`JSON_DEPTH_MAX`].
    TooDeep,
}

impl JsonError {
    fn new(fault: Fault, at: usize) -> Self {
        Self { at, fault }
    }
}

/// The byte at `at` is not what the grammar wants, or there is none.
pub(in crate::proto) fn unexpected(bytes: &[u8], at: usize) -> JsonError {
    let fault = if at < bytes.len() { Fault::UnexpectedByte } else { Fault::TooShort };
    JsonError::new(fault, at.min(bytes.len()))
}

/// Where the whitespace that begins at `at` ends.
#[must_use]
#[inline]
pub fn skip_whitespace(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Scans the value whose first byte is at `at`; returns where it ends.
///
/// # Errors
/// When that is not JSON, or is nested deeper than [`JSON_DEPTH_MAX`].
pub fn value(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    const OBJECT: u128 = 1;
    let mut at = at;
    let mut depth = 0;
    // The innermost container is the lowest bit: 1 for an object, 0 for an array.
    let mut kinds: u128 = 0;
    loop {
        match bytes.get(at) {
            Some(b'"') => at = string(bytes, at)?,
            Some(b'-' | b'0'..=b'9') => at = number(bytes, at)?,
            Some(b't') => at = literal(bytes, at, b"true")?,
            Some(b'f') => at = literal(bytes, at, b"false")?,
            Some(b'n') => at = literal(bytes, at, b"null")?,
            Some(open @ (b'{' | b'[')) => {
                if depth == JSON_DEPTH_MAX {
                    return Err(JsonError::new(Fault::TooDeep, at));
                }
                let is_object = *open == b'{';
                at = skip_whitespace(bytes, at + 1);
                if bytes.get(at) == Some(if is_object { &b'}' } else { &b']' }) {
                    at += 1;
                } else {
                    depth += 1;
                    kinds = kinds << 1 | u128::from(is_object);
                    if is_object {
                        at = key(bytes, at)?.1;
                    }
                    continue;
                }
            }
            _ => return Err(unexpected(bytes, at)),
        }
        // A value has ended: close what ends with it, up to the next value or our own end.
        loop {
            if depth == 0 {
                return Ok(at);
            }
            at = skip_whitespace(bytes, at);
            match (bytes.get(at), kinds & OBJECT) {
                (Some(b','), OBJECT) => {
                    at = key(bytes, skip_whitespace(bytes, at + 1))?.1;
                    break;
                }
                (Some(b','), _) => {
                    at = skip_whitespace(bytes, at + 1);
                    break;
                }
                (Some(b'}'), OBJECT) | (Some(b']'), 0) => {
                    at += 1;
                    depth -= 1;
                    kinds >>= 1;
                }
                _ => return Err(unexpected(bytes, at)),
            }
        }
    }
}

/// Scans a whole text: one value and nothing but whitespace around it.
///
/// # Errors
/// When the text is not JSON.
pub fn document(bytes: &[u8]) -> Result<(), JsonError> {
    let end = skip_whitespace(bytes, value(bytes, skip_whitespace(bytes, 0))?);
    if end < bytes.len() { Err(JsonError::new(Fault::TrailingBytes, end)) } else { Ok(()) }
}

/// One member of an object, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name with its quotes, escapes untouched.
    pub key: &'a [u8],
    /// The value without the whitespace around it.
    pub value: &'a [u8],
}

impl Member<'_> {
    /// Whether the name is `name`, however it is escaped. `name` is ASCII.
    #[must_use]
    #[inline]
    pub fn is_named(&self, name: &str) -> bool {
        let inner = &self.key[1..self.key.len() - 1];
        inner == name.as_bytes() || (inner.contains(&b'\\') && is_escaped_name(inner, name))
    }
}

/// The members of an object that is a whole text. The object itself does not count for the depth
/// of its values.
///
/// Yields each member as soon as it is scanned, so the text is JSON only when the end is reached
/// without an error. Nothing comes after an error.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether a member has come, so that a comma must separate it from the next.
    is_begun: bool,
    is_ended: bool,
}

/// The members of the object that `bytes` is, or `None` if its first byte is not a brace.
#[must_use]
pub fn members(bytes: &[u8]) -> Option<Members<'_>> {
    let at = skip_whitespace(bytes, 0);
    (bytes.get(at) == Some(&b'{')).then(|| Members {
        bytes,
        at: at + 1,
        is_begun: false,
        is_ended: false,
    })
}

impl<'a> Members<'a> {
    #[inline]
    fn step(&mut self) -> Result<Option<Member<'a>>, JsonError> {
        let bytes = self.bytes;
        let mut at = skip_whitespace(bytes, self.at);
        if bytes.get(at) == Some(&b'}') {
            let end = skip_whitespace(bytes, at + 1);
            if end < bytes.len() {
                return Err(JsonError::new(Fault::TrailingBytes, end));
            }
            return Ok(None);
        }
        if self.is_begun {
            if bytes.get(at) != Some(&b',') {
                return Err(unexpected(bytes, at));
            }
            at = skip_whitespace(bytes, at + 1);
        }
        let (key_end, start) = key(bytes, at)?;
        let end = value(bytes, start)?;
        self.is_begun = true;
        self.at = end;
        Ok(Some(Member { key: &bytes[at..key_end], value: &bytes[start..end] }))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, JsonError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_ended {
            return None;
        }
        let member = self.step();
        self.is_ended = !matches!(member, Ok(Some(_)));
        member.transpose()
    }
}

/// Scans a member's name and its colon; returns where the name ends and where the value begins.
#[inline]
fn key(bytes: &[u8], at: usize) -> Result<(usize, usize), JsonError> {
    if bytes.get(at) != Some(&b'"') {
        return Err(unexpected(bytes, at));
    }
    let end = string(bytes, at)?;
    let colon = skip_whitespace(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return Err(unexpected(bytes, colon));
    }
    Ok((end, skip_whitespace(bytes, colon + 1)))
}

/// Scans the string whose opening quote is at `at`; returns where it ends.
#[inline]
pub(in crate::proto) fn string(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut at = at + 1;
    loop {
        at += plain_bytes(&bytes[at..]);
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = escape(bytes, at)?,
            Some(_) => return Err(JsonError::new(Fault::ControlInString, at)),
            None => return Err(unexpected(bytes, at)),
        }
    }
}

/// How many bytes come before the first that is special in a string: a quote, a backslash or a
/// control character. Eight at a time, since long strings are where the time goes.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Each term has a byte's top bit set where that byte is below 0x20, is a quote, is a
        // backslash. A borrow can set bits only above a true one, so the lowest is always true.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * b'"' as u64);
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = word ^ (ONES * b'\\' as u64);
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        let special = (control | quote | backslash) & TOPS;
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Scans the escape whose backslash is at `at`; returns where it ends. Half of a surrogate pair
/// is grammatical (RFC 8259 8.2), so it passes.
fn escape(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match bytes.get(at + 2..at + 6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            Some(_) => Err(JsonError::new(Fault::BadEscape, at)),
            None => Err(JsonError::new(Fault::TooShort, bytes.len())),
        },
        Some(_) => Err(JsonError::new(Fault::BadEscape, at)),
        None => Err(JsonError::new(Fault::TooShort, bytes.len())),
    }
}

/// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
#[inline]
pub(in crate::proto) fn number(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut at = at;
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    // A leading zero stands alone.
    at = if bytes.get(at) == Some(&b'0') { at + 1 } else { digits(bytes, at)? };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    Ok(at)
}

/// At least one digit.
#[inline]
fn digits(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut end = at;
    while let Some(b'0'..=b'9') = bytes.get(end) {
        end += 1;
    }
    if end == at { Err(unexpected(bytes, at)) } else { Ok(end) }
}

pub(in crate::proto) fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonError> {
    for (index, byte) in word.iter().enumerate() {
        if bytes.get(at + index) != Some(byte) {
            return Err(unexpected(bytes, at + index));
        }
    }
    Ok(at + word.len())
}

/// Whether a scanned name with escapes in it spells the ASCII `name`.
#[cold]
fn is_escaped_name(inner: &[u8], name: &str) -> bool {
    let mut inner = inner;
    for expected in name.bytes() {
        let (byte, rest) = match inner {
            [b'\\', b'u', a, b, c, d, rest @ ..] => {
                let digits = [*a, *b, *c, *d];
                let code = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok());
                (code, rest)
            }
            [b'\\', short, rest @ ..] => {
                let byte = match short {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    itself => *itself,
                };
                (Some(u32::from(byte)), rest)
            }
            [byte, rest @ ..] => (Some(u32::from(*byte)), rest),
            [] => return false,
        };
        if byte != Some(u32::from(expected)) {
            return false;
        }
        inner = rest;
    }
    inner.is_empty()
}

/// Appends `text` as a JSON string, quotes and all.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.push(b'"');
    loop {
        let plain = plain_bytes(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some((&byte, after)) = rest[plain..].split_first() else { break };
        rest = after;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
    }
    out.push(b'"');
}

/// A number in decimal, without allocation.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: u8,
}

impl Decimal {
    /// Writes the digits of `number`.
    #[must_use]
    #[inline]
    pub fn new(number: u64) -> Self {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        Self { digits, start: start as u8 }
    }

    /// The digits, at least one.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[usize::from(self.start)..]
    }
}

/// Appends `number` in decimal.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(Decimal::new(number).as_bytes());
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
