//! A body, cut anywhere, beside one that is read in the simplest way there is.

use super::{Body, Framing, Piece};
use crate::fuzz::{Choices, cuts};
use crate::limits::{CHUNK_LINE_BYTES_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::proto::http::Refusal;

/// Reads a body whole and in pieces.
///
/// # Panics
/// When pieces make another body than the whole, when more comes out than may, or when a chunked
/// body is read otherwise than by a reader that has all of it before it.
pub fn body(data: &[u8]) {
    let mut choices = Choices::new(data);
    let framing = match choices.byte() % 4 {
        0 => Framing::Length(u64::from(choices.word())),
        _ => Framing::Chunked,
    };
    let bytes_max = u64::from(choices.word() % 2_000);
    let lengths = choices.lengths();
    let until = choices.one_of(&[None, Some(b'\n')]);
    let stream = choices.remaining();

    let whole = read(framing, bytes_max, stream, &[], None);
    assert_eq!(read(framing, bytes_max, stream, lengths, until), whole);
    assert_eq!(read(framing, bytes_max, stream, &[1], None), whole);
    if let Ok((data, ended)) = &whole {
        assert!(data.len() as u64 <= bytes_max);
        let expected = match framing {
            Framing::Length(bytes) => {
                stream.get(..bytes as usize).map(|data| (data.to_vec(), bytes as usize))
            }
            Framing::Chunked => dechunk(stream),
        };
        match ended {
            Some(used) => assert_eq!(expected, Some((data.clone(), *used))),
            None => assert_eq!(expected, None, "it is complete, and yet waited for"),
        }
    }
}

/// The data, and after how many bytes of the stream the body ended, if it did.
type Read = Result<(Vec<u8>, Option<usize>), Refusal>;

fn read(
    framing: Framing,
    bytes_max: u64,
    stream: &[u8],
    lengths: &[u8],
    until: Option<u8>,
) -> Read {
    let mut body = Body::new(framing, bytes_max, Refusal::BODY_TOO_LARGE);
    let mut data = Vec::new();
    let mut bytes = stream.to_vec();
    let pieces = cuts(stream.len(), lengths).chain(std::iter::once(stream.len()..stream.len()));
    for piece in pieces {
        let end = piece.end;
        let mut input = &mut bytes[piece];
        while let Some(next) = body.next(&mut input, until)? {
            match next {
                Piece::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    let end = until.and_then(|byte| memchr::memchr(byte, bytes));
                    assert!(end.is_none_or(|end| end + 1 == bytes.len()));
                    data.extend_from_slice(bytes);
                }
                Piece::End => return Ok((data, Some(end - input.len()))),
            }
        }
        assert!(input.is_empty(), "all of the input is used up");
    }
    Ok((data, None))
}

/// A whole chunked body at the front of `stream`, line by line.
fn dechunk(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut at = 0;
    let line = |at: &mut usize| {
        let rest = stream.get(*at..)?;
        let bytes = rest.windows(2).position(|two| two == b"\r\n")?;
        *at += bytes + 2;
        Some(&rest[..bytes])
    };
    loop {
        let said = line(&mut at)?;
        assert!(said.len() <= 16 + CHUNK_LINE_BYTES_MAX);
        let digits = said.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let digits = std::str::from_utf8(&said[..digits]).expect("digits");
        match usize::from_str_radix(digits, 16).expect("a size") {
            0 => break,
            bytes => data.extend_from_slice(stream.get(at..at + bytes)?),
        }
        at += usize::from_str_radix(digits, 16).expect("a size");
        assert_eq!(stream.get(at..at + 2)?, b"\r\n");
        at += 2;
    }
    let trailer = at;
    while !line(&mut at)?.is_empty() {}
    assert!(at - trailer <= 3 * REQUEST_HEAD_BYTES_MAX);
    Some((data, at))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_the_same_body_however_they_are_cut() {
        crate::fuzz::replay("body", super::body);
    }
}
