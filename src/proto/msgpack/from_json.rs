//! JSON text to MessagePack.
//!
//! The head of an array or a map says how much is in it, and that is known only at its end. So a
//! head is one byte at first, enough for 15 values; those that need more are listed, and make room
//! for their heads in one move from the back when everything else is written.

use super::binary::{BIN_DEPTH, Binary, EXT_DEPTH, Kind};
use super::{DEPTH_MAX, EXT_JSON, token};
use crate::proto::json::{self, Fault, JsonError};

/// Bytes of a text: far beyond every message, and whatever comes of it is counted in 32 bits.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// Values a head of one byte can tell of.
const SHORT_COUNT_MAX: u32 = 15;

/// Appends what `text`, one JSON value and nothing but whitespace around it, is in MessagePack.
///
/// # Errors
/// When the text is not JSON, or is nested deeper than [`DEPTH_MAX`]. Nothing is appended then.
///
/// # Panics
/// When the text has a gigabyte or more.
pub fn from_json(text: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    assert!(text.len() < TEXT_BYTES_MAX, "a message is far below 1 GiB");
    let begin = out.len();
    let mut writer = Writer {
        text,
        at: json::skip_whitespace(text, 0),
        begin,
        out,
        levels: [Level::default(); DEPTH_MAX],
        depth: 0,
        large: Vec::new(),
    };
    let written = writer.document();
    if written.is_err() {
        out.truncate(begin);
    }
    written
}

struct Writer<'a> {
    text: &'a [u8],
    at: usize,
    /// Where our part of `out` begins.
    begin: usize,
    out: &'a mut Vec<u8>,
    /// The containers we are in.
    levels: [Level; DEPTH_MAX],
    depth: usize,
    /// Containers whose heads need more than one byte.
    large: Vec<Level>,
}

#[derive(Clone, Copy, Default)]
struct Level {
    /// Where its head is, counted from `Writer::begin`.
    head: u32,
    /// Values or pairs in it, the one that is being written included.
    count: u32,
    is_map: bool,
}

impl Writer<'_> {
    fn document(&mut self) -> Result<(), JsonError> {
        loop {
            if self.value()? && self.close()? {
                break;
            }
        }
        self.at = json::skip_whitespace(self.text, self.at);
        if self.at < self.text.len() {
            return Err(JsonError { at: self.at, fault: Fault::TrailingBytes });
        }
        self.widen_heads();
        Ok(())
    }

    /// Writes the value at hand, or opens it; says whether it has ended.
    fn value(&mut self) -> Result<bool, JsonError> {
        let (text, at) = (self.text, self.at);
        match text.get(at) {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => {
                self.at = json::number(text, at)?;
                write_number(self.out, &text[at..self.at]);
            }
            Some(b't') => {
                self.at = json::literal(text, at, b"true")?;
                token::write_bool(self.out, true);
            }
            Some(b'f') => {
                self.at = json::literal(text, at, b"false")?;
                token::write_bool(self.out, false);
            }
            Some(b'n') => {
                self.at = json::literal(text, at, b"null")?;
                token::write_nil(self.out);
            }
            Some(b'{') => return Ok(self.binary() || self.open(true)?),
            Some(b'[') => return self.open(false),
            _ => return Err(json::unexpected(text, at)),
        }
        Ok(true)
    }

    /// Opens the container at hand; says whether it has ended, because it is empty.
    fn open(&mut self, is_map: bool) -> Result<bool, JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(JsonError { at: self.at, fault: Fault::TooDeep });
        }
        let head = (self.out.len() - self.begin) as u32;
        let empty = token::container_head(is_map, 0).0[0];
        self.out.push(empty);
        self.at = json::skip_whitespace(self.text, self.at + 1);
        if self.text.get(self.at) == Some(if is_map { &b'}' } else { &b']' }) {
            self.at += 1;
            return Ok(true);
        }
        self.levels[self.depth] = Level { head, count: 1, is_map };
        self.depth += 1;
        if is_map {
            self.name()?;
        }
        Ok(false)
    }

    /// Closes what ends with the value that has ended, up to the next value; says whether that was
    /// all.
    fn close(&mut self) -> Result<bool, JsonError> {
        while self.depth > 0 {
            self.at = json::skip_whitespace(self.text, self.at);
            let level = &mut self.levels[self.depth - 1];
            match (self.text.get(self.at), level.is_map) {
                (Some(b','), is_map) => {
                    level.count += 1;
                    self.at = json::skip_whitespace(self.text, self.at + 1);
                    if is_map {
                        self.name()?;
                    }
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.depth -= 1;
                    let level = *level;
                    if level.count > SHORT_COUNT_MAX {
                        self.large.push(level);
                    } else {
                        let head = token::container_head(level.is_map, level.count).0[0];
                        self.out[self.begin + level.head as usize] = head;
                    }
                }
                _ => return Err(json::unexpected(self.text, self.at)),
            }
        }
        Ok(true)
    }

    /// Writes a member's name, and stands at its value then.
    fn name(&mut self) -> Result<(), JsonError> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(json::unexpected(self.text, self.at));
        }
        self.string()?;
        let colon = json::skip_whitespace(self.text, self.at);
        if self.text.get(colon) != Some(&b':') {
            return Err(json::unexpected(self.text, colon));
        }
        self.at = json::skip_whitespace(self.text, colon + 1);
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonError> {
        let end = json::string(self.text, self.at)?;
        let written = &self.text[self.at..end];
        let inner = &written[1..written.len() - 1];
        self.at = end;
        match json::unescaped_bytes(inner) {
            Some(bytes) => {
                token::write_str_head(self.out, bytes as u32);
                json::unescape(inner, self.out);
            }
            None => write_as_json(self.out, written),
        }
        Ok(())
    }

    /// Writes the object at hand if it is a binary value; says whether it is.
    fn binary(&mut self) -> bool {
        let Some(found) = Binary::find(self.text, self.at) else { return false };
        let begin = self.out.len();
        let bytes = found.bytes() as u32;
        let depth = match found.kind {
            Kind::Bin => {
                token::write_bin_head(self.out, bytes);
                BIN_DEPTH
            }
            Kind::Ext(kind) => {
                token::write_ext_head(self.out, kind, bytes);
                EXT_DEPTH
            }
        };
        // As deep as it is in JSON, so that the way back is open.
        if self.depth + depth > DEPTH_MAX || !found.decode(self.out) {
            self.out.truncate(begin);
            return false;
        }
        self.at = found.end;
        true
    }

    /// Puts the heads of the large containers into their places. Each byte behind the first of them
    /// moves once.
    fn widen_heads(&mut self) {
        if self.large.is_empty() {
            return;
        }
        // They are listed in the order of their ends.
        self.large.sort_unstable_by_key(|level| level.head);
        let extra = |level: &Level| token::container_head(level.is_map, level.count).1 - 1;
        let mut shift: usize = self.large.iter().map(extra).sum();
        let mut end = self.out.len();
        self.out.resize(end + shift, 0);
        for level in self.large.iter().rev() {
            let (head, head_bytes) = token::container_head(level.is_map, level.count);
            let at = self.begin + level.head as usize;
            self.out.copy_within(at + 1..end, at + 1 + shift);
            shift -= head_bytes - 1;
            self.out[at + shift..at + shift + head_bytes].copy_from_slice(&head[..head_bytes]);
            end = at;
        }
        debug_assert_eq!(shift, 0);
    }
}

/// Writes a number that the grammar has let pass.
fn write_number(out: &mut Vec<u8>, written: &[u8]) {
    let text = std::str::from_utf8(written).expect("numbers are ASCII");
    let is_integer = !text.contains(['.', 'e', 'E']);
    // -0 is told from 0 by most who read JSON; the only integer that a float alone can be.
    if is_integer && text != "-0" {
        if let Ok(value) = text.parse() {
            token::write_unsigned(out, value);
        } else if let Ok(value) = text.parse() {
            token::write_negative(out, value);
        } else {
            write_as_json(out, written);
        }
        return;
    }
    let value: f64 = text.parse().expect("JSON's numbers are floats to Rust");
    let digits = written.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    let is_zero = !digits.iter().any(|byte| matches!(byte, b'1'..=b'9'));
    if value.is_infinite() || (value == 0.0 && !is_zero) {
        write_as_json(out, written);
    } else {
        token::write_float(out, value);
    }
}

/// Writes what MessagePack has no word for.
fn write_as_json(out: &mut Vec<u8>, written: &[u8]) {
    token::write_ext_head(out, EXT_JSON, written.len() as u32);
    out.extend_from_slice(written);
}
