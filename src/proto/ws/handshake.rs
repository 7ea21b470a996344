//! The opening handshake of RFC 6455 section 4, as a server and as a client.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

use super::extension::{self, Agreement};
use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};
use crate::proto::dialect::Dialect;
use crate::proto::http::{Refusal, Request};

/// The subprotocol of our own client.
pub const SUBPROTOCOL: &str = Dialect::Json.name();

/// RFC 6455 1.3: what is appended to the key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key is 16 bytes of random as base64.
const KEY_BYTES: usize = 16;

/// A SHA-1 sum as base64.
const ACCEPT_BYTES: usize = 28;

/// Some clients draw all 24 characters at random, so the unused bits of the last one are not
/// held against them: the key still decodes to 16 bytes, which is all that is asked.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// A request that may become a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// The client's nonce, as it was sent.
    pub key: &'a str,
    request: &'a Request<'a>,
}

impl<'a> Upgrade<'a> {
    /// The subprotocols the client offers, the one it prefers first.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> {
        self.request
            .headers("sec-websocket-protocol")
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|protocol| !protocol.is_empty())
    }

    /// What we agree on about compression, if the client offers it. See
    /// [`extension::negotiate`].
    ///
    /// # Errors
    /// The refusal of a header that is not one.
    pub fn compression(&self, window_bytes_max: usize) -> Result<Option<Agreement>, Refusal> {
        extension::negotiate(self.request.headers("sec-websocket-extensions"), window_bytes_max)
            .map_err(|_| Refusal::BadRequest("Sec-WebSocket-Extensions is malformed"))
    }
}

/// Checks everything RFC 6455 4.2.1 asks of a client.
///
/// # Errors
/// The refusal that tells the client what is missing.
pub fn check<'a>(request: &'a Request<'a>) -> Result<Upgrade<'a>, Refusal> {
    // RFC 6455 4.2.1 /1/: a GET, of HTTP/1.1 or higher.
    match request.method {
        "GET" => {}
        "HEAD" => return Err(Refusal::UpgradeRequired),
        _ => return Err(Refusal::MethodNotAllowed("GET")),
    }
    request.refuse_body()?;
    // RFC 6455 4.2.1 /3/: Upgrade has the token websocket, in any case.
    if !request.has_token("upgrade", "websocket") {
        return Err(Refusal::UpgradeRequired);
    }
    if request.minor_version < 1 {
        return Err(Refusal::BadRequest(
            "a WebSocket needs HTTP/1.1 (behind nginx: proxy_http_version 1.1)",
        ));
    }
    // RFC 6455 4.2.1 /2/: a Host with the server's authority. That it is there once, the
    // request's own rules have seen to.
    if request.header("host").is_none_or(str::is_empty) {
        return Err(Refusal::BadRequest("the Host header is empty"));
    }
    // RFC 6455 4.2.1 /4/: Connection has the token upgrade, in any case.
    if !request.has_token("connection", "upgrade") {
        return Err(Refusal::BadRequest("the Connection header lacks the token Upgrade"));
    }
    // RFC 6455 4.2.1 /6/ and 4.4: version 13, said once.
    let mut versions = request.headers("sec-websocket-version");
    match (versions.next(), versions.next()) {
        (Some("13"), None) => {}
        (Some(_), Some(_)) => {
            return Err(Refusal::BadRequest("more than one Sec-WebSocket-Version header"));
        }
        _ => return Err(Refusal::WrongWebSocketVersion),
    }
    // RFC 6455 4.2.1 /5/ and 11.3.1: one key, 16 bytes when decoded.
    let mut keys = request.headers("sec-websocket-key");
    let Some(key) = keys.next() else {
        return Err(Refusal::BadRequest("no Sec-WebSocket-Key header"));
    };
    if keys.next().is_some() {
        return Err(Refusal::BadRequest("more than one Sec-WebSocket-Key header"));
    }
    if !is_key(key) {
        return Err(Refusal::BadRequest("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    Ok(Upgrade { key, request })
}

/// The first that the client offers of those that are `spoken`. RFC 6455 4.2.2 /5/: otherwise the
/// connection opens without a subprotocol, and a client that insists on its own will close it.
#[must_use]
pub fn choose_protocol(upgrade: &Upgrade<'_>, spoken: &[Dialect]) -> Option<Dialect> {
    upgrade
        .protocols()
        .find_map(|offered| spoken.iter().copied().find(|dialect| dialect.name() == offered))
}

/// Appends the answer that turns the connection into a WebSocket (RFC 6455 4.2.2).
pub fn write_accept(
    out: &mut Vec<u8>,
    key: &str,
    protocol: Option<&str>,
    compression: Option<&Agreement>,
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_of(key));
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    if let Some(agreement) = compression {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        agreement.write(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a client's request. `key` is 16 random bytes in base64, see [`key_of`].
pub fn write_request(out: &mut Vec<u8>, host: &str, path: &str, key: &str, protocol: Option<&str>) {
    for part in [
        "GET ",
        path,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: ",
        key,
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// The key a client sends, made of 16 random bytes.
#[must_use]
pub fn key_of(random: [u8; KEY_BYTES]) -> String {
    BASE64.encode(random)
}

/// Why a server's answer does not open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declined {
    /// The answer is not HTTP/1.1.
    NotHttp,
    /// The answer's head is longer than anyone's.
    HeadTooLarge,
    /// Some other status than 101, with its phrase.
    Status(u16, String),
    /// A 101 that breaks RFC 6455 4.1; says how.
    Broken(&'static str),
}

impl fmt::Display for Declined {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => formatter.write_str("the server does not answer in HTTP/1.1"),
            Self::HeadTooLarge => formatter.write_str("the server's answer is too long"),
            Self::Status(status, phrase) => write!(formatter, "the server says {status} {phrase}"),
            Self::Broken(what) => write!(formatter, "the server's handshake is broken: {what}"),
        }
    }
}

impl std::error::Error for Declined {}

/// Checks a server's answer to [`write_request`]: the bytes of its head, or `None` while it is
/// incomplete. No extension is ever offered, and no subprotocol but ours.
///
/// # Errors
/// When the answer is not a handshake for this key (RFC 6455 4.1).
pub fn check_response(bytes: &[u8], key: &str) -> Result<Option<usize>, Declined> {
    let head = &bytes[..bytes.len().min(REQUEST_HEAD_BYTES_MAX)];
    let mut slots = [httparse::EMPTY_HEADER; REQUEST_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut slots);
    let head_bytes = match response.parse(head) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if head.len() == REQUEST_HEAD_BYTES_MAX => {
            return Err(Declined::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Declined::HeadTooLarge),
        Err(_) => return Err(Declined::NotHttp),
    };
    match response.code {
        Some(101) => {}
        code => {
            let phrase = response.reason.unwrap_or_default().to_owned();
            return Err(Declined::Status(code.unwrap_or_default(), phrase));
        }
    }
    let values = |name: &'static str| {
        response
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    };
    let has_token = |name, token: &[u8]| {
        values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
    };
    if !has_token("upgrade", b"websocket") {
        return Err(Declined::Broken("no Upgrade to websocket"));
    }
    if !has_token("connection", b"upgrade") {
        return Err(Declined::Broken("the Connection header lacks the token Upgrade"));
    }
    if values("sec-websocket-accept").ne([accept_of(key).as_slice()]) {
        return Err(Declined::Broken("Sec-WebSocket-Accept does not answer the key"));
    }
    if values("sec-websocket-extensions").any(|value| !value.is_empty()) {
        return Err(Declined::Broken("an extension nobody offered"));
    }
    if values("sec-websocket-protocol").any(|value| value != SUBPROTOCOL.as_bytes()) {
        return Err(Declined::Broken("a subprotocol nobody offered"));
    }
    Ok(Some(head_bytes))
}

fn is_key(key: &str) -> bool {
    let mut decoded = [0; KEY_BYTES + 2];
    key.len() == 24 && BASE64.decode_slice(key, &mut decoded) == Ok(KEY_BYTES)
}

fn accept_of(key: &str) -> [u8; ACCEPT_BYTES] {
    let sum = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let bytes = BASE64.encode_slice(sum, &mut accept).expect("28 characters hold 20 bytes");
    assert_eq!(bytes, ACCEPT_BYTES);
    accept
}

#[cfg(test)]
mod tests;
