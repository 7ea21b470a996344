//! Responses: a head, written field by field, and what follows it. The connection closes after
//! each, and the head says so.

use std::io::Write as _;

/// A response head that is being written; [`end`](Self::end) closes it.
#[derive(Debug)]
#[must_use]
pub struct Head<'a>(&'a mut Vec<u8>);

impl<'a> Head<'a> {
    /// Begins a response, after which the connection closes.
    pub fn new(out: &'a mut Vec<u8>, status: u16) -> Self {
        Self::with_connection(out, status, "close")
    }

    /// Begins a response with a `Connection` field of its own.
    pub(super) fn with_connection(out: &'a mut Vec<u8>, status: u16, connection: &str) -> Self {
        let phrase = reason_phrase(status);
        let _ = write!(out, "HTTP/1.1 {status} {phrase}\r\nConnection: {connection}\r\n");
        Self(out)
    }

    /// Appends a field. Neither name nor value may hold a line end.
    pub fn field(self, name: &str, value: &str) -> Self {
        debug_assert!(!value.contains(['\r', '\n']), "{name}: {value:?}");
        for part in [name, ": ", value, "\r\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
        self
    }

    /// Appends a field with a number.
    pub fn number(self, name: &str, value: u64) -> Self {
        let _ = write!(self.0, "{name}: {value}\r\n");
        self
    }

    /// Appends what pages of another origin need to read the answer: `allowed` is what
    /// [`Cors::judge`](super::Cors::judge) has found.
    pub fn allow(self, allowed: Option<&str>) -> Self {
        let Some(allowed) = allowed else { return self };
        let head = self
            .field("Access-Control-Allow-Origin", allowed)
            .field("Access-Control-Expose-Headers", "Ringcast-Cursor, Retry-After");
        // A cache must not give one origin what was said to another.
        if allowed == "*" { head } else { head.field("Vary", "Origin") }
    }

    /// Appends the fields of an answer that no cache is to keep and no browser to interpret.
    pub fn fresh(self, content_type: &str) -> Self {
        self.field("Content-Type", content_type)
            .field("X-Content-Type-Options", "nosniff")
            .field("Cache-Control", "no-store")
    }

    /// Ends the head.
    pub fn end(self) {
        self.0.extend_from_slice(b"\r\n");
    }

    /// Ends the head of a response whose body is `body`.
    pub fn body(self, body: &[u8]) {
        let head = self.number("Content-Length", body.len() as u64);
        head.0.extend_from_slice(b"\r\n");
        head.0.extend_from_slice(body);
    }
}

/// Appends a whole response. With `head_only` (the answer to HEAD) the body is announced but
/// not sent.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    body: &[u8],
    head_only: bool,
) {
    Head::new(out, status)
        .field("Content-Type", content_type)
        .number("Content-Length", body.len() as u64)
        .field("X-Content-Type-Options", "nosniff")
        .field("Cache-Control", "no-cache")
        .end();
    if !head_only {
        out.extend_from_slice(body);
    }
}

/// RFC 9110 10.1.1: appends the leave to go on that a client with `Expect: 100-continue` waits
/// for.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// RFC 9112 7.1: appends one chunk of a chunked body. Of nothing, no chunk is written: it would
/// be the last one.
pub fn write_chunk(out: &mut Vec<u8>, data: &[&[u8]]) {
    let bytes: usize = data.iter().map(|part| part.len()).sum();
    if bytes == 0 {
        return;
    }
    let _ = write!(out, "{bytes:x}\r\n");
    for part in data {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9112 7.1: appends the chunk that ends a chunked body.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// The phrases of RFC 9110 and RFC 6585 for the statuses that are sent.
pub(super) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{Body, Framing, Piece, Refusal};

    #[test]
    fn a_head_request_gets_the_length_but_not_the_body() {
        let mut whole = Vec::new();
        write_response(&mut whole, 200, "text/html; charset=utf-8", b"<p>hi</p>", false);
        let mut head = Vec::new();
        write_response(&mut head, 200, "text/html; charset=utf-8", b"<p>hi</p>", true);
        assert_eq!(whole, [head.as_slice(), b"<p>hi</p>"].concat());
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(head.contains("\r\nContent-Length: 9\r\n"));
        assert!(head.contains("\r\nConnection: close\r\n"));
        assert!(head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn chunks_are_read_back_as_they_were_written() {
        let mut out = Vec::new();
        write_chunk(&mut out, &[b"{\"a\":1}", b"\n"]);
        write_chunk(&mut out, &[]);
        write_chunk(&mut out, &[&[b'x'; 300]]);
        write_last_chunk(&mut out);
        let mut body = Body::new(Framing::Chunked, 1_000, Refusal::BODY_TOO_LARGE);
        let mut input = out.as_mut_slice();
        let mut read = Vec::new();
        while let Some(Piece::Data(data)) = body.next(&mut input, None).unwrap() {
            read.extend_from_slice(data);
        }
        assert!(body.is_at_end() && input.is_empty());
        assert_eq!(read, [b"{\"a\":1}\n".as_slice(), &[b'x'; 300]].concat());
    }

    #[test]
    fn only_an_answer_to_one_origin_varies_with_it() {
        let written = |allowed| {
            let mut out = Vec::new();
            Head::new(&mut out, 200).allow(allowed).end();
            String::from_utf8(out).unwrap()
        };
        assert!(!written(None).contains("Access-Control"));
        assert!(written(Some("*")).contains("\r\nAccess-Control-Allow-Origin: *\r\n"));
        assert!(!written(Some("*")).contains("Vary"));
        let one = written(Some("https://app.example"));
        assert!(one.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\n"));
        assert!(one.contains("\r\nVary: Origin\r\n"));
    }
}
