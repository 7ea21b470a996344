//! A request head, read from the receive buffer and borrowed from it.
//!
//! `httparse` knows the grammar; the bounds and the rules about Host and bodies are here.

use super::body::Framing;
use super::refusal::Refusal;
use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};

/// Room for the header fields of one request, on the caller's stack.
#[derive(Debug)]
pub struct HeaderSlots<'b>([httparse::Header<'b>; REQUEST_HEADERS_MAX]);

impl HeaderSlots<'_> {
    /// Empty slots.
    #[must_use]
    pub fn new() -> Self {
        Self([httparse::EMPTY_HEADER; REQUEST_HEADERS_MAX])
    }
}

impl Default for HeaderSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A complete request head.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in the case it was sent.
    pub method: &'a str,
    /// The path, without the query and, for a target in absolute form, without the authority.
    pub path: &'a str,
    /// What stands behind the `?`.
    pub query: Option<&'a str>,
    /// The minor version: HTTP/1.0 or HTTP/1.1.
    pub minor_version: u8,
    /// Bytes of the head with its empty line: where the body or the first frame begins.
    pub head_bytes: usize,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Request<'a> {
    /// The first field of this name, if its value is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// Whether there is a field of this name, text or not.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Every field of this name whose value is text, in order.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.values(name).filter_map(|value| std::str::from_utf8(value).ok().map(str::trim))
    }

    /// Whether a comma-separated list, perhaps spread over several fields, has this token in
    /// any case (RFC 9110 5.6.1).
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers(name)
            .flat_map(|value| value.split(','))
            .any(|element| element.trim().eq_ignore_ascii_case(token))
    }

    /// How the request says where its body ends.
    ///
    /// # Errors
    /// 400 for lengths that make no sense.
    pub fn framing(&self) -> Result<Framing, Refusal> {
        let mut codings = self.values("transfer-encoding");
        if let Some(coding) = codings.next() {
            // RFC 9112 6.1 and 6.3: both at once, or in HTTP/1.0, is how requests are smuggled.
            if self.minor_version == 0 || self.values("content-length").next().is_some() {
                return Err(Refusal::BadRequest("Transfer-Encoding where it must not be"));
            }
            if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::BadRequest("no Transfer-Encoding but chunked is understood"));
            }
            return Ok(Framing::Chunked);
        }
        let mut lengths = self.values("content-length");
        let Some(length) = lengths.next() else { return Ok(Framing::Length(0)) };
        if lengths.next().is_some() || length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::BadRequest("Content-Length is not one number"));
        }
        let digits = std::str::from_utf8(length).expect("digits are ASCII");
        Ok(Framing::Length(digits.parse().unwrap_or(u64::MAX)))
    }

    /// Refuses a request that brings a body, for the paths that take none.
    ///
    /// # Errors
    /// 413 for a body, 400 for lengths that make no sense.
    pub fn refuse_body(&self) -> Result<(), Refusal> {
        match self.framing()? {
            Framing::Length(0) => Ok(()),
            _ => Err(Refusal::NO_BODY_TAKEN),
        }
    }

    fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let headers = self.headers;
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }
}

/// Reads a request head from the front of `bytes`, or `None` while it is incomplete.
///
/// A caller whose peer sends slowly asks [`head_end`] first, which looks at each byte once;
/// this function begins anew each time.
///
/// # Errors
/// 400, 431 or 505; as soon as the bytes at hand show it.
pub fn parse_request<'a, 'b: 'a>(
    bytes: &'b [u8],
    slots: &'a mut HeaderSlots<'b>,
) -> Result<Option<Request<'a>>, Refusal> {
    let head = &bytes[..bytes.len().min(REQUEST_HEAD_BYTES_MAX)];
    let mut parsed = httparse::Request::new(&mut slots.0);
    let head_bytes = match parsed.parse(head) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if head.len() == REQUEST_HEAD_BYTES_MAX => {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal(error)),
    };
    let httparse::Request { method, path, version, headers } = parsed;
    let (Some(method), Some(target), Some(minor_version)) = (method, path, version) else {
        return Err(Refusal::BadRequest("no request line"));
    };
    let (path, query) = split_target(target)?;
    let request = Request { method, path, query, minor_version, head_bytes, headers };
    // RFC 9112 3.2: exactly one Host in HTTP/1.1, never two.
    match request.values("host").count() {
        0 if minor_version >= 1 => Err(Refusal::BadRequest("no Host header")),
        0 | 1 => Ok(Some(request)),
        _ => Err(Refusal::BadRequest("more than one Host header")),
    }
}

/// Where the request head ends, looking only at what came after the first `from` bytes; `None`
/// while its empty line is missing. Past [`REQUEST_HEAD_BYTES_MAX`] without an answer the
/// request is [`Refusal::HeadTooLarge`].
#[must_use]
pub fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    // RFC 9112 2.2: empty lines before the request line are skipped, so they end nothing.
    let first = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    // The line end before the empty line may be the last thing the previous look saw.
    let start = from.saturating_sub(3).max(first).min(bytes.len());
    memchr::memchr_iter(b'\n', &bytes[start..]).map(|at| start + at).find_map(
        |line_end| match bytes[line_end + 1..] {
            [b'\n', ..] => Some(line_end + 2),
            [b'\r', b'\n', ..] => Some(line_end + 3),
            _ => None,
        },
    )
}

/// Whether no request can begin with `bytes`, whatever follows: a method is a token (RFC 9110
/// 9.1). What speaks another protocol to this port, such as TLS, is told so at once instead of
/// when its time is up.
#[must_use]
pub fn is_hopeless(bytes: &[u8]) -> bool {
    // RFC 9112 2.2: empty lines before the request line are skipped.
    let first = bytes.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_some_and(|byte| !byte.is_ascii_graphic())
}

fn refusal(error: httparse::Error) -> Refusal {
    use httparse::Error;
    match error {
        Error::HeaderName => Refusal::BadRequest("a header name has an illegal character"),
        Error::HeaderValue => Refusal::BadRequest("a header value has an illegal character"),
        Error::NewLine => Refusal::BadRequest("a line end is broken"),
        Error::Token | Error::Status => Refusal::BadRequest("not an HTTP request"),
        Error::TooManyHeaders => Refusal::TooManyHeaders,
        Error::Version => Refusal::VersionNotSupported,
    }
}

/// Splits a request target into path and query.
fn split_target(target: &str) -> Result<(&str, Option<&str>), Refusal> {
    // RFC 9112 3.2.2: a server must take the absolute form too.
    let target = match target.split_once("://") {
        Some((scheme, rest)) if is_our_scheme(scheme) => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    // RFC 9112 3.2: no form of target has a fragment.
    if target.contains('#') {
        return Err(Refusal::BadRequest("the request target has a fragment"));
    }
    Ok(match target.split_once('?') {
        Some(("", query)) => ("/", Some(query)),
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    })
}

fn is_our_scheme(scheme: &str) -> bool {
    ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
