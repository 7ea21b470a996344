use super::*;
use crate::proto::cuts::{Cut, Seeded};

/// What a body turned out to be: its data, whether it ended, and how much of the stream is left.
type Read = Result<(Vec<u8>, bool, usize), Refusal>;

fn read(framing: Framing, bytes_max: u64, pieces: &[Vec<u8>]) -> Read {
    let mut body = Body::new(framing, bytes_max, Refusal::BODY_TOO_LARGE);
    let (mut data, mut left) = (Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.clone();
        let mut input = piece.as_mut_slice();
        while let Some(next) = body.next(&mut input, None)? {
            match next {
                Piece::Data(bytes) => {
                    assert!(!bytes.is_empty() && !body.is_at_end());
                    data.extend_from_slice(bytes);
                }
                Piece::End => assert!(body.is_at_end()),
            }
        }
        assert!(body.is_at_end() || input.is_empty(), "what is not used is what follows the body");
        left += input.len();
    }
    // An empty body ends without a byte.
    if body.next(&mut [].as_mut_slice(), None)? == Some(Piece::End) {
        assert!(pieces.is_empty());
    }
    Ok((data, body.is_at_end(), left))
}

/// Reads `stream` in every way; all must agree.
fn read_in_every_way(framing: Framing, bytes_max: u64, stream: &[u8]) -> Read {
    let whole = read(framing, bytes_max, &[stream.to_vec()]);
    for cut in Cut::every(20) {
        assert_eq!(read(framing, bytes_max, &cut.pieces(stream)), whole, "{cut:?}");
    }
    whole
}

#[test]
fn a_body_with_a_length_ends_there_and_leaves_what_follows() {
    for (length, stream, read) in [
        (0, "", ("", true, 0)),
        (5, "hello", ("hello", true, 0)),
        (5, "hello, world", ("hello", true, 7)),
        (5, "hel", ("hel", false, 0)),
    ] {
        let (data, is_at_end, left) = read;
        assert_eq!(
            read_in_every_way(Framing::Length(length), 100, stream.as_bytes()),
            Ok((data.into(), is_at_end, left)),
            "{length} of {stream:?}"
        );
    }
}

#[test]
fn a_chunked_body_is_its_data_whatever_stands_around_it() {
    for (stream, expected) in [
        ("0\r\n\r\n", ("", true, 0)),
        ("5\r\nhello\r\n0\r\n\r\n", ("hello", true, 0)),
        ("5\r\nhello\r\n00A\r\n, my world\r\n0\r\n\r\nGET", ("hello, my world", true, 3)),
        ("5;a=b\r\nhello\r\n0;last\r\nDigest: x\r\nB: c\r\n\r\n", ("hello", true, 0)),
        ("5 ; quoted=\"a;b\"\r\nhello\r\n0\r\n\r\n", ("hello", true, 0)),
        ("5\r\nhello\r\n0\r\nA: b\r\n", ("hello", false, 0)),
        ("a\r\nhello", ("hello", false, 0)),
    ] {
        let (data, is_at_end, left) = expected;
        assert_eq!(
            read_in_every_way(Framing::Chunked, 100, stream.as_bytes()),
            Ok((data.into(), is_at_end, left)),
            "{stream:?}"
        );
    }
}

#[test]
fn broken_chunks_are_refused_at_their_byte() {
    let long = |begin: &str, bytes: usize| format!("{begin}{}", "x".repeat(bytes));
    for (stream, refusal) in [
        ("\r".to_owned(), BAD_SIZE),
        ("x".into(), BAD_SIZE),
        ("-".into(), BAD_SIZE),
        ("0x".into(), BAD_SIZE),
        (";".into(), BAD_SIZE),
        ("5\n".into(), BAD_SIZE),
        ("5\rh".into(), BAD_LINE),
        ("5;a\n".into(), BAD_LINE),
        ("5\r\nhello5".into(), BAD_LINE),
        ("5\r\nhello\n".into(), BAD_LINE),
        ("0\r\nA: b\n".into(), BAD_LINE),
        ("0\r\n\rx".into(), BAD_LINE),
        ("0".repeat(17), LONG_LINE),
        (long("5;", CHUNK_LINE_BYTES_MAX), LONG_LINE),
        (long("0\r\n", REQUEST_HEAD_BYTES_MAX + 1), LONG_TRAILER),
    ] {
        assert_eq!(read_in_every_way(Framing::Chunked, 100, stream.as_bytes()), Err(refusal));
        let before = &stream.as_bytes()[..stream.len() - 1];
        assert!(read_in_every_way(Framing::Chunked, 100, before).is_ok(), "{stream:?}");
    }
}

#[test]
fn more_than_may_come_is_refused_when_it_is_announced() {
    let too_large = Err(Refusal::BODY_TOO_LARGE);
    assert_eq!(read(Framing::Length(100), 100, &[vec![1; 100]]), Ok((vec![1; 100], true, 0)));
    assert_eq!(read(Framing::Length(101), 100, &[]), too_large);
    assert_eq!(read(Framing::Length(u64::MAX), 100, &[]), too_large);
    assert_eq!(read_in_every_way(Framing::Chunked, 100, b"65\r\n"), too_large);
    assert_eq!(read_in_every_way(Framing::Chunked, 100, b"ffffffffffffffff\r\n"), too_large);
    let one_by_one = b"1\r\nx\r\n".repeat(101);
    assert_eq!(read_in_every_way(Framing::Chunked, 100, &one_by_one), too_large);
}

#[test]
fn chunks_of_any_size_are_read_at_any_cut() {
    let mut seeded = Seeded::new(1);
    for _ in 0..50 {
        let (mut stream, mut data) = (Vec::new(), Vec::new());
        for _ in 0..seeded.below(6) {
            let count = 1 + seeded.below(300);
            let chunk = seeded.bytes(count);
            stream.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            stream.extend_from_slice(&chunk);
            stream.extend_from_slice(b"\r\n");
            data.extend_from_slice(&chunk);
        }
        stream.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(read_in_every_way(Framing::Chunked, 10_000, &stream), Ok((data, true, 0)));
    }
}

#[test]
fn a_piece_ends_behind_the_byte_that_is_asked_for() {
    for (framing, stream) in [
        (Framing::Length(9), "a\n\nbc\nde\n".to_owned()),
        (Framing::Chunked, "9\r\na\n\nbc\nde\n\r\n0\r\n\r\n".into()),
    ] {
        let mut stream = stream.into_bytes();
        let mut input = stream.as_mut_slice();
        let mut body = Body::new(framing, 100, Refusal::BODY_TOO_LARGE);
        let mut pieces = Vec::new();
        while let Some(Piece::Data(data)) = body.next(&mut input, Some(b'\n')).unwrap() {
            pieces.push(String::from_utf8(data.to_vec()).unwrap());
        }
        assert_eq!(pieces, ["a\n", "\n", "bc\n", "de\n"]);
        assert!(body.is_at_end());
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_anything_came() {
    let body = |framing| Body::new(framing, 100, Refusal::BODY_TOO_LARGE);
    assert_eq!(body(Framing::Length(100)).check_length(), Ok(()));
    assert_eq!(body(Framing::Length(101)).check_length(), Err(Refusal::BODY_TOO_LARGE));
    assert_eq!(body(Framing::Chunked).check_length(), Ok(()));
}
