//! MessagePack to JSON text.

use std::io::Write as _;

use super::binary::{self, BIN_DEPTH, EXT_DEPTH};
use super::token::{self, NoToken, Token};
use super::{DEPTH_MAX, EXT_JSON};
use crate::proto::json;

/// What is wrong with a message, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsgpackError {
    /// Index of the first byte of the value that cannot be; the end for [`Fault::TooShort`].
    pub at: usize,
    /// Why it cannot.
    pub fault: Fault,
}

/// Why a message is not MessagePack, or nothing that JSON can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message ends inside a value.
    TooShort,
    /// Something goes on behind the value.
    TrailingBytes,
    /// The byte 0xc1, which nothing begins with.
    NeverUsed,
    /// A str that is not UTF-8.
    NotUtf8,
    /// The name of a member is not a str.
    NameNotStr,
    /// NaN or an infinity, which JSON has not.
    NotFinite,
    /// An ext of type [`EXT_JSON`] with something else than the JSON text of a number or a string.
    NotJsonText,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// Longer, as JSON, than the caller takes.
    TooLong,
}

impl Fault {
    /// What a close frame says.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort => "message is not MessagePack: it ends inside a value",
            Self::TrailingBytes => "message is not one MessagePack value: something follows it",
            Self::NeverUsed => "message is not MessagePack: nothing begins with 0xc1",
            Self::NotUtf8 => "a str is not UTF-8; bin is for bytes",
            Self::NameNotStr => "a key of a map is not a str",
            Self::NotFinite => "NaN and infinities cannot be said in JSON",
            Self::NotJsonText => "an ext of type 74 is not the JSON text of a number or a string",
            Self::TooDeep => "message is nested too deep",
            Self::TooLong => "message is longer, as JSON, than message_bytes_max",
        }
    }
}

/// Appends what `bytes`, one MessagePack value and nothing else, is as JSON text: at most
/// `text_bytes_max` of it.
///
/// # Errors
/// When that cannot be. Nothing is appended then.
pub fn to_json(bytes: &[u8], out: &mut Vec<u8>, text_bytes_max: usize) -> Result<(), MsgpackError> {
    let begin = out.len();
    let mut writer = Writer { bytes, at: 0, out, levels: [Level::default(); DEPTH_MAX], depth: 0 };
    let written = writer.document(begin.saturating_add(text_bytes_max));
    let at = writer.at;
    if written.is_err() {
        out.truncate(begin);
    }
    written.map_err(|fault| {
        let at = if fault == Fault::TooShort { bytes.len() } else { at };
        MsgpackError { at, fault }
    })
}

struct Writer<'a> {
    bytes: &'a [u8],
    /// Where the value at hand begins.
    at: usize,
    out: &'a mut Vec<u8>,
    /// The containers we are in.
    levels: [Level; DEPTH_MAX],
    depth: usize,
}

#[derive(Clone, Copy, Default)]
struct Level {
    /// Values or pairs that have not ended.
    rest: u32,
    is_map: bool,
}

impl From<NoToken> for Fault {
    fn from(no_token: NoToken) -> Self {
        match no_token {
            NoToken::TooShort => Self::TooShort,
            NoToken::NeverUsed => Self::NeverUsed,
        }
    }
}

impl<'a> Writer<'a> {
    fn document(&mut self, end_max: usize) -> Result<(), Fault> {
        loop {
            let is_all = self.value()? && self.close()?;
            // Looked at after each value: one value alone is at most six times its bytes.
            if self.out.len() > end_max {
                return Err(Fault::TooLong);
            }
            if is_all {
                break;
            }
        }
        if self.at < self.bytes.len() { Err(Fault::TrailingBytes) } else { Ok(()) }
    }

    /// Writes the value at hand, or opens it; says whether it has ended.
    fn value(&mut self) -> Result<bool, Fault> {
        let (token, after) = token::read(self.bytes, self.at)?;
        match token {
            Token::Nil => self.out.extend_from_slice(b"null"),
            Token::Bool(false) => self.out.extend_from_slice(b"false"),
            Token::Bool(true) => self.out.extend_from_slice(b"true"),
            Token::Unsigned(value) => json::write_number(self.out, value),
            Token::Negative(value) => {
                self.out.push(b'-');
                json::write_number(self.out, value.unsigned_abs());
            }
            Token::Float(value) if value.is_finite() => {
                // The shortest digits that name it, always with a point or an exponent.
                write!(self.out, "{value:?}").expect("a vector takes everything");
            }
            Token::Float(_) => return Err(Fault::NotFinite),
            Token::Str(length) => return self.str(after, length),
            Token::Bin(length) => {
                self.check_depth(BIN_DEPTH)?;
                let (bytes, end) = self.slice(after, length)?;
                binary::write_bin(self.out, bytes);
                self.at = end;
                return Ok(true);
            }
            Token::Ext(kind, length) => return self.ext(kind, after, length),
            Token::Array(count) => return self.open(after, count, false),
            Token::Map(count) => return self.open(after, count, true),
        }
        self.at = after;
        Ok(true)
    }

    /// Opens a container; says whether it has ended, because it is empty.
    fn open(&mut self, after: usize, count: u32, is_map: bool) -> Result<bool, Fault> {
        self.check_depth(1)?;
        self.at = after;
        self.out.push(if is_map { b'{' } else { b'[' });
        if count == 0 {
            self.out.push(if is_map { b'}' } else { b']' });
            return Ok(true);
        }
        self.levels[self.depth] = Level { rest: count, is_map };
        self.depth += 1;
        if is_map {
            self.name()?;
        }
        Ok(false)
    }

    /// Closes what ends with the value that has ended, up to the next value; says whether that was
    /// all.
    fn close(&mut self) -> Result<bool, Fault> {
        while self.depth > 0 {
            let level = &mut self.levels[self.depth - 1];
            level.rest -= 1;
            let Level { rest, is_map } = *level;
            if rest > 0 {
                self.out.push(b',');
                if is_map {
                    self.name()?;
                }
                return Ok(false);
            }
            self.out.push(if is_map { b'}' } else { b']' });
            self.depth -= 1;
        }
        Ok(true)
    }

    /// Writes a member's name and the colon behind it.
    fn name(&mut self) -> Result<(), Fault> {
        let (token, after) = token::read(self.bytes, self.at)?;
        match token {
            Token::Str(length) => self.str(after, length)?,
            Token::Ext(EXT_JSON, length) => {
                // A string that MessagePack has no word for.
                if self.slice(after, length)?.0.first() != Some(&b'"') {
                    return Err(Fault::NameNotStr);
                }
                self.ext(EXT_JSON, after, length)?
            }
            _ => return Err(Fault::NameNotStr),
        };
        self.out.push(b':');
        Ok(())
    }

    fn str(&mut self, after: usize, length: u32) -> Result<bool, Fault> {
        let (bytes, end) = self.slice(after, length)?;
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?;
        json::write_string(self.out, text);
        self.at = end;
        Ok(true)
    }

    fn ext(&mut self, kind: i8, after: usize, length: u32) -> Result<bool, Fault> {
        let (bytes, end) = self.slice(after, length)?;
        if kind == EXT_JSON {
            if !is_json_text(bytes) {
                return Err(Fault::NotJsonText);
            }
            self.out.extend_from_slice(bytes);
        } else {
            self.check_depth(EXT_DEPTH)?;
            binary::write_ext(self.out, kind, bytes);
        }
        self.at = end;
        Ok(true)
    }

    /// The `length` bytes at `start`, and where they end.
    fn slice(&self, start: usize, length: u32) -> Result<(&'a [u8], usize), Fault> {
        let end = start.checked_add(length as usize).ok_or(Fault::TooShort)?;
        Ok((self.bytes.get(start..end).ok_or(Fault::TooShort)?, end))
    }

    /// Whether something of this depth may stand here.
    fn check_depth(&self, more: usize) -> Result<(), Fault> {
        if self.depth + more > DEPTH_MAX { Err(Fault::TooDeep) } else { Ok(()) }
    }
}

/// Whether this is a number or a string, as JSON writes it, to the last byte.
fn is_json_text(bytes: &[u8]) -> bool {
    let end = match bytes.first() {
        Some(b'"') if simdutf8::basic::from_utf8(bytes).is_ok() => json::string(bytes, 0),
        Some(b'-' | b'0'..=b'9') => json::number(bytes, 0),
        _ => return false,
    };
    end == Ok(bytes.len())
}
