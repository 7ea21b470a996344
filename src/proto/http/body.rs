//! A request's body, piece by piece as it comes in: borrowed from the receive buffer, never kept.
//!
//! ```text
//! Content-Length    | data                                            |
//! chunked           | 5 CR LF | data | CR LF | 0 CR LF | CR LF |          RFC 9112 7.1
//! ```
//!
//! What a peer announces moves no memory here; how much may come in all is the caller's bound.

use super::refusal::Refusal;
use crate::limits::{CHUNK_LINE_BYTES_MAX, REQUEST_HEAD_BYTES_MAX};

/// How a request says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0 is no body. A number beyond 64 bits is as good as the largest.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Some of it, never nothing.
    Data(&'a mut [u8]),
    /// Its end; told once.
    End,
}

/// A body that may still be incomplete.
#[derive(Debug)]
pub struct Body {
    state: State,
    /// Bytes of data that may still come.
    room: u64,
    /// What is said when there are more.
    too_large: Refusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left, and then the body ends.
    Length(u64),
    /// In a chunk's size, of which so many digits have come.
    Size {
        value: u64,
        digits: u8,
    },
    /// In what may stand behind the size, so many bytes into it.
    Extension {
        value: u64,
        bytes: u16,
    },
    /// The line end of a chunk's size lacks its LF.
    SizeLf {
        value: u64,
    },
    /// So many bytes of the chunk are left.
    Data(u64),
    /// The line end behind a chunk.
    DataCr,
    DataLf,
    /// In the trailer section, so many bytes into it. `line` is the length of its line so far.
    Trailer {
        bytes: u16,
        line: u16,
    },
    /// A line end of the trailer section lacks its LF.
    TrailerLf {
        bytes: u16,
        line: u16,
    },
    /// The end has been told.
    Ended,
}

const BAD_SIZE: Refusal = Refusal::BadRequest("the size of a chunk is not a hexadecimal number");
const BAD_LINE: Refusal = Refusal::BadRequest("a line of the chunked body does not end with CRLF");
const LONG_LINE: Refusal = Refusal::BadRequest("a line of the chunked body is too long");
const LONG_TRAILER: Refusal = Refusal::BadRequest("the trailer section is too long");

impl Body {
    /// A body of at most `bytes_max` bytes; a larger one is refused with `too_large`.
    #[must_use]
    pub fn new(framing: Framing, bytes_max: u64, too_large: Refusal) -> Self {
        let state = match framing {
            Framing::Length(bytes) => State::Length(bytes),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
        };
        Self { state, room: bytes_max, too_large }
    }

    /// Whether the end has been told.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.state == State::Ended
    }

    /// Refuses what is announced to be too large, before any of it has come.
    ///
    /// # Errors
    /// 413.
    pub fn check_length(&self) -> Result<(), Refusal> {
        if let State::Length(bytes) = self.state { self.check_room(bytes) } else { Ok(()) }
    }

    /// Hands out what is next and moves `input` past it; `None` when more has to come, or nothing
    /// more does. With `until`, a piece ends behind the first such byte.
    ///
    /// # Errors
    /// 413 as soon as it is announced that more comes than may, 400 for broken chunks. Nothing is
    /// to be asked afterwards.
    pub fn next<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        until: Option<u8>,
    ) -> Result<Option<Piece<'i>>, Refusal> {
        loop {
            match self.state {
                State::Ended => return Ok(None),
                State::Length(0) => {
                    self.state = State::Ended;
                    return Ok(Some(Piece::End));
                }
                State::Length(left) => {
                    self.check_room(left)?;
                    let Some(data) = self.take(left, input, until) else { return Ok(None) };
                    self.state = State::Length(left - data.len() as u64);
                    return Ok(Some(Piece::Data(data)));
                }
                State::Data(0) => self.state = State::DataCr,
                State::Data(left) => {
                    let Some(data) = self.take(left, input, until) else { return Ok(None) };
                    self.state = State::Data(left - data.len() as u64);
                    return Ok(Some(Piece::Data(data)));
                }
                _ => {
                    let Some((byte, rest)) = std::mem::take(input).split_first_mut() else {
                        return Ok(None);
                    };
                    *input = rest;
                    self.state = self.step(*byte)?;
                    if self.state == State::Ended {
                        return Ok(Some(Piece::End));
                    }
                }
            }
        }
    }

    /// What a byte between two pieces of data makes of the state.
    fn step(&self, byte: u8) -> Result<State, Refusal> {
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, digit) if digit.is_ascii_hexdigit() => {
                // Sixteen digits are all that 64 bits hold; leading zeros are not worth more.
                if digits == 16 {
                    return Err(LONG_LINE);
                }
                let digit = char::from(digit).to_digit(16).expect("it is one");
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BAD_SIZE),
            // RFC 9112 7.1.1: extensions are ignored. Blanks before them are bad, and usual.
            (State::Size { value, .. }, b';' | b' ' | b'\t') => {
                State::Extension { value, bytes: 1 }
            }
            (State::Size { value, .. } | State::Extension { value, .. }, b'\r') => {
                State::SizeLf { value }
            }
            (State::Size { .. }, _) => return Err(BAD_SIZE),
            (State::Extension { .. }, b'\n') => return Err(BAD_LINE),
            (State::Extension { value, bytes }, _) => {
                if usize::from(bytes) >= CHUNK_LINE_BYTES_MAX {
                    return Err(LONG_LINE);
                }
                State::Extension { value, bytes: bytes + 1 }
            }
            (State::SizeLf { value: 0 }, b'\n') => State::Trailer { bytes: 0, line: 0 },
            (State::SizeLf { value }, b'\n') => {
                self.check_room(value)?;
                State::Data(value)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::Trailer { bytes, line }, b'\r') => State::TrailerLf { bytes, line },
            (State::Trailer { .. }, b'\n') => return Err(BAD_LINE),
            // RFC 9112 7.1.2: a trailer section may be thrown away.
            (State::Trailer { bytes, line }, _) => {
                if usize::from(bytes) >= REQUEST_HEAD_BYTES_MAX {
                    return Err(LONG_TRAILER);
                }
                State::Trailer { bytes: bytes + 1, line: line + 1 }
            }
            (State::TrailerLf { line: 0, .. }, b'\n') => State::Ended,
            (State::TrailerLf { bytes, .. }, b'\n') => State::Trailer { bytes, line: 0 },
            _ => return Err(BAD_LINE),
        })
    }

    fn check_room(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.room { Ok(()) } else { Err(self.too_large) }
    }

    /// Cuts up to `left` bytes of data off the front of `input`; `None` when there are none.
    fn take<'i>(
        &mut self,
        left: u64,
        input: &mut &'i mut [u8],
        until: Option<u8>,
    ) -> Option<&'i mut [u8]> {
        if input.is_empty() {
            return None;
        }
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let end = until.and_then(|byte| memchr::memchr(byte, &input[..bytes]));
        let bytes = end.map_or(bytes, |end| end + 1);
        let (data, rest) = std::mem::take(input).split_at_mut(bytes);
        *input = rest;
        self.room -= bytes as u64;
        Some(data)
    }
}

const _: () = assert!(CHUNK_LINE_BYTES_MAX < u16::MAX as usize);
const _: () = assert!(REQUEST_HEAD_BYTES_MAX < u16::MAX as usize);

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
