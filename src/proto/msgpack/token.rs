//! What MessagePack is made of: a first byte that says the kind, a length or a value behind it.
//!
//! ```text
//! 00..7f  integer 0..127     c0 nil          c4 c5 c6  bin, length 8 16 32
//! 80..8f  map, 0..15         c1 never used   c7 c8 c9  ext, length 8 16 32, then the type
//! 90..9f  array, 0..15       c2 false        ca cb     float 32 64
//! a0..bf  str, 0..31         c3 true         cc .. cf  integer from 0 up, 8 16 32 64
//! e0..ff  integer -32..-1                    d0 .. d3  integer, 8 16 32 64
//!                                            d4 .. d8  ext of 1 2 4 8 16 bytes
//!                                            d9 da db  str, length 8 16 32
//!                                            dc dd     array, count 16 32
//!                                            de df     map, count 16 32
//! ```

/// What stands at one place; of what has a length, its bytes or values follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Str(u32),
    Bin(u32),
    Ext(i8, u32),
    Array(u32),
    Map(u32),
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoToken {
    /// The bytes end before it does.
    TooShort,
    /// Its first byte is the one that is never used.
    NeverUsed,
}

/// Reads the token at `at`; also says where it ends.
pub(super) fn read(bytes: &[u8], at: usize) -> Result<(Token, usize), NoToken> {
    let first = *bytes.get(at).ok_or(NoToken::TooShort)?;
    let mut reader = Reader { rest: &bytes[at + 1..] };
    let token = match first {
        0x00..=0x7f => Token::Unsigned(first.into()),
        0x80..=0x8f => Token::Map((first & 0x0f).into()),
        0x90..=0x9f => Token::Array((first & 0x0f).into()),
        0xa0..=0xbf => Token::Str((first & 0x1f).into()),
        0xc0 => Token::Nil,
        0xc1 => return Err(NoToken::NeverUsed),
        0xc2 => Token::Bool(false),
        0xc3 => Token::Bool(true),
        0xc4 => Token::Bin(reader.byte()?.into()),
        0xc5 => Token::Bin(reader.half()?.into()),
        0xc6 => Token::Bin(reader.word()?),
        0xc7 => reader.ext(|it| it.byte().map(u32::from))?,
        0xc8 => reader.ext(|it| it.half().map(u32::from))?,
        0xc9 => reader.ext(Reader::word)?,
        0xca => Token::Float(f32::from_bits(reader.word()?).into()),
        0xcb => Token::Float(f64::from_bits(reader.long()?)),
        0xcc => Token::Unsigned(reader.byte()?.into()),
        0xcd => Token::Unsigned(reader.half()?.into()),
        0xce => Token::Unsigned(reader.word()?.into()),
        0xcf => Token::Unsigned(reader.long()?),
        0xd0 => signed((reader.byte()? as i8).into()),
        0xd1 => signed((reader.half()? as i16).into()),
        0xd2 => signed((reader.word()? as i32).into()),
        0xd3 => signed(reader.long()? as i64),
        0xd4..=0xd8 => reader.ext(|_| Ok(1 << (first - 0xd4)))?,
        0xd9 => Token::Str(reader.byte()?.into()),
        0xda => Token::Str(reader.half()?.into()),
        0xdb => Token::Str(reader.word()?),
        0xdc => Token::Array(reader.half()?.into()),
        0xdd => Token::Array(reader.word()?),
        0xde => Token::Map(reader.half()?.into()),
        0xdf => Token::Map(reader.word()?),
        0xe0..=0xff => Token::Negative((first as i8).into()),
    };
    Ok((token, bytes.len() - reader.rest.len()))
}

/// A writer may choose a signed form also for what is not negative.
fn signed(value: i64) -> Token {
    u64::try_from(value).map_or(Token::Negative(value), Token::Unsigned)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], NoToken> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(NoToken::TooShort)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, NoToken> {
        self.take().map(u8::from_be_bytes)
    }

    fn half(&mut self) -> Result<u16, NoToken> {
        self.take().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Result<u32, NoToken> {
        self.take().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, NoToken> {
        self.take().map(u64::from_be_bytes)
    }

    /// The length comes before the type.
    fn ext(
        &mut self,
        length: impl FnOnce(&mut Self) -> Result<u32, NoToken>,
    ) -> Result<Token, NoToken> {
        let length = length(self)?;
        Ok(Token::Ext(self.byte()? as i8, length))
    }
}

pub(super) fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub(super) fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// The shortest integer that holds `value`.
pub(super) fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => put(out, 0xcd, (value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => put(out, 0xce, (value as u32).to_be_bytes()),
        _ => put(out, 0xcf, value.to_be_bytes()),
    }
}

/// The shortest integer that holds `value`, which is negative.
pub(super) fn write_negative(out: &mut Vec<u8>, value: i64) {
    debug_assert!(value < 0);
    match value {
        -0x20.. => out.push(value as u8),
        -0x80.. => out.extend_from_slice(&[0xd0, value as u8]),
        -0x8000.. => put(out, 0xd1, (value as i16).to_be_bytes()),
        -0x8000_0000.. => put(out, 0xd2, (value as i32).to_be_bytes()),
        _ => put(out, 0xd3, value.to_be_bytes()),
    }
}

pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    put(out, 0xcb, value.to_bits().to_be_bytes());
}

/// What stands before a str of `length` bytes.
pub(super) fn write_str_head(out: &mut Vec<u8>, length: u32) {
    match length {
        0..=0x1f => out.push(0xa0 | length as u8),
        _ => put_length(out, [0xd9, 0xda, 0xdb], length),
    }
}

/// What stands before a bin of `length` bytes.
pub(super) fn write_bin_head(out: &mut Vec<u8>, length: u32) {
    put_length(out, [0xc4, 0xc5, 0xc6], length);
}

/// What stands before an ext of `length` bytes.
pub(super) fn write_ext_head(out: &mut Vec<u8>, kind: i8, length: u32) {
    match length {
        1 | 2 | 4 | 8 | 16 => out.push(0xd4 + length.trailing_zeros() as u8),
        _ => put_length(out, [0xc7, 0xc8, 0xc9], length),
    }
    out.push(kind as u8);
}

/// The head of an array or a map of `count` values or pairs: its bytes, and how many they are.
pub(super) fn container_head(is_map: bool, count: u32) -> ([u8; 5], usize) {
    let [a, b, c, d] = count.to_be_bytes();
    let (short, long) = if is_map { (0x80, 0xde) } else { (0x90, 0xdc) };
    match count {
        0..=0x0f => ([short | d, 0, 0, 0, 0], 1),
        0x10..=0xffff => ([long, c, d, 0, 0], 3),
        _ => ([long + 1, a, b, c, d], 5),
    }
}

fn put<const BYTES: usize>(out: &mut Vec<u8>, first: u8, value: [u8; BYTES]) {
    out.push(first);
    out.extend_from_slice(&value);
}

fn put_length(out: &mut Vec<u8>, firsts: [u8; 3], length: u32) {
    match length {
        0..=0xff => out.extend_from_slice(&[firsts[0], length as u8]),
        0x100..=0xffff => put(out, firsts[1], (length as u16).to_be_bytes()),
        _ => put(out, firsts[2], length.to_be_bytes()),
    }
}
