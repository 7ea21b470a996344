//! A request head, cut anywhere, and what is answered to it.

use super::{HeaderSlots, Refusal, Request, head_end, is_hopeless, parse_request};
use crate::fuzz::Choices;
use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};
use crate::proto::dialect::Dialect;
use crate::proto::http::{Manner, write_refusal};
use crate::proto::ws::handshake;

/// Reads a request head, whole and cut, and the same bytes as a server's answer.
///
/// # Panics
/// When an early verdict is taken back, when a request is let through that breaks the rules of
/// this module in plain sight, or when the answer to it is not one.
pub fn request(data: &[u8]) {
    let mut choices = Choices::new(data);
    let cuts = [choices.word(), choices.word()];
    let bytes = choices.remaining();

    let verdict = judge(bytes);
    for cut in cuts {
        let early = judge(&bytes[..usize::from(cut) % (bytes.len() + 1)]);
        assert!(early == Ok(None) || early == verdict, "{early:?} became {verdict:?}");
    }
    match verdict {
        Ok(Some(head_bytes)) => {
            assert!(head_bytes <= REQUEST_HEAD_BYTES_MAX);
            assert_eq!(judge(&bytes[..head_bytes]), verdict, "what follows does not matter");
            assert_eq!(judge(&bytes[..head_bytes - 1]), Ok(None), "no byte of it is missing");
            assert_eq!(head_end(bytes, 0), Some(head_bytes));
            assert_eq!(head_end(bytes, head_bytes - 1), Some(head_bytes));
        }
        Ok(None) => {
            assert!(bytes.len() < REQUEST_HEAD_BYTES_MAX, "nothing is waited for for ever");
            assert!(!is_hopeless(bytes));
        }
        Err(refusal) => check_refusal(&refusal),
    }
    check_as_answer(bytes, cuts);
}

/// Reads a head and looks at all that can be asked about it.
fn judge(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut slots = HeaderSlots::new();
    let Some(request) = parse_request(bytes, &mut slots)? else { return Ok(None) };
    assert!(!is_hopeless(bytes));
    assert!(request.headers.len() <= REQUEST_HEADERS_MAX);
    assert!(request.method.bytes().all(|byte| byte.is_ascii_graphic()), "{}", request.method);
    assert!(!request.path.is_empty() && !request.path.contains(['?', '#', ' ', '\r', '\n']));
    assert!(request.query.is_none_or(|query| !query.contains(['#', ' ', '\r', '\n'])));

    let fields = Fields::of(&bytes[..request.head_bytes]);
    let hosts = fields.named("host:").count();
    assert!(hosts == 1 || (hosts == 0 && request.minor_version == 0), "{hosts} hosts");
    assert_eq!(request.header("HOST"), request.header("host"));
    if request.refuse_body().is_ok() {
        assert_eq!(fields.named("transfer-encoding:").count(), 0);
        let has_length = |line: &[u8]| line.iter().any(|byte| (b'1'..=b'9').contains(byte));
        assert!(!fields.named("content-length:").any(has_length));
    }
    match handshake::check(&request) {
        Ok(upgrade) => check_upgrade(&request, &upgrade),
        Err(refusal) => check_refusal(&refusal),
    }
    Ok(Some(request.head_bytes))
}

/// The header fields, found in the simplest way there is.
struct Fields<'a>(Vec<&'a [u8]>);

impl<'a> Fields<'a> {
    fn of(head: &'a [u8]) -> Self {
        let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        Self(lines.filter(|line| !line.is_empty()).skip(1).collect())
    }

    /// What stands behind `name`, which ends with its colon.
    fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(move |line| {
            let (start, value) = line.split_at_checked(name.len())?;
            start.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        })
    }
}

/// An upgrade is answered with a handshake that our own client takes and tungstenite would write.
fn check_upgrade(request: &Request<'_>, upgrade: &handshake::Upgrade<'_>) {
    assert_eq!((request.method, request.minor_version), ("GET", 1));
    let protocol = handshake::choose_protocol(upgrade, &[Dialect::Json]).map(Dialect::name);
    let mut answer = Vec::new();
    handshake::write_accept(&mut answer, upgrade.key, protocol, None);
    assert_eq!(handshake::check_response(&answer, upgrade.key), Ok(Some(answer.len())));
    let accept = tungstenite::handshake::derive_accept_key(upgrade.key.as_bytes());
    let line = format!("\r\nSec-WebSocket-Accept: {accept}\r\n");
    assert!(answer.windows(line.len()).any(|window| window == line.as_bytes()), "{line}");
}

/// A refusal is one whole response.
fn check_refusal(refusal: &Refusal) {
    let mut written = Vec::new();
    write_refusal(&mut written, refusal, Manner::default());
    let mut slots = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut slots);
    let parsed = response.parse(&written).expect("a response");
    let httparse::Status::Complete(head_bytes) = parsed else { panic!("a whole response") };
    assert_eq!(response.code, Some(refusal.status()));
    let length = response.headers.iter().find(|header| header.name == "Content-Length");
    let length = std::str::from_utf8(length.expect("a length").value).expect("digits");
    assert_eq!(length.parse(), Ok(written.len() - head_bytes));
}

/// The same bytes as what a server says to our client: a verdict is not taken back.
fn check_as_answer(bytes: &[u8], cuts: [u16; 2]) {
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    let verdict = handshake::check_response(bytes, KEY);
    for cut in cuts {
        let early = handshake::check_response(&bytes[..usize::from(cut) % (bytes.len() + 1)], KEY);
        assert!(early == Ok(None) || early == verdict, "{early:?} became {verdict:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_judged_once_and_answered_whole() {
        crate::fuzz::replay("request", super::request);
    }
}
