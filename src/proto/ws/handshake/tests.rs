use super::*;
use crate::proto::http::{HeaderSlots, parse_request};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const GOOD: &str = "GET /ws HTTP/1.1\r\n\
    Host: example.org\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

type Verdict = Result<(String, Option<&'static str>), Refusal>;

fn checked(head: &str) -> Verdict {
    let mut slots = HeaderSlots::new();
    let request = parse_request(head.as_bytes(), &mut slots)?.expect("the head is complete");
    let upgrade = check(&request)?;
    let chosen = choose_protocol(&upgrade, &[Dialect::Msgpack, Dialect::Json]);
    Ok((upgrade.key.to_owned(), chosen.map(Dialect::name)))
}

/// The good request with one line put in place of another.
fn with(line: &str, other: &str) -> Verdict {
    assert!(GOOD.contains(line), "{line}");
    checked(&GOOD.replace(line, other))
}

fn status(verdict: Verdict) -> u16 {
    verdict.expect_err("refused").status()
}

#[test]
fn a_good_request_may_upgrade() {
    assert_eq!(checked(GOOD), Ok((KEY.to_owned(), None)));
}

#[test]
fn tokens_are_found_in_any_case_in_lists_and_in_repeated_headers() {
    for (line, other) in [
        ("Upgrade: websocket", "upgrade: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "CONNECTION: keep-alive\r\nConnection:upgrade"),
        ("Connection: Upgrade", "Connection: ,, UPGRADE ,"),
        ("Sec-WebSocket-Version: 13", "SEC-WEBSOCKET-VERSION:   13  "),
    ] {
        assert!(with(line, other).is_ok(), "{other}");
    }
}

#[test]
fn only_a_get_may_upgrade() {
    assert_eq!(with("GET", "POST"), Err(Refusal::MethodNotAllowed("GET")));
    assert_eq!(with("GET", "get"), Err(Refusal::MethodNotAllowed("GET")));
    assert_eq!(with("GET", "HEAD"), Err(Refusal::UpgradeRequired));
}

#[test]
fn a_plain_get_is_told_to_upgrade() {
    assert_eq!(checked("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Refusal::UpgradeRequired));
    assert_eq!(with("Upgrade: websocket", "Upgrade: websockets"), Err(Refusal::UpgradeRequired));
    assert_eq!(with("Upgrade: websocket", "Upgrade: h2c"), Err(Refusal::UpgradeRequired));
}

#[test]
fn http_1_0_cannot_upgrade() {
    assert_eq!(status(with("HTTP/1.1", "HTTP/1.0")), 400);
}

#[test]
fn a_host_is_needed_once_and_not_empty() {
    assert_eq!(status(with("Host: example.org\r\n", "")), 400);
    assert_eq!(status(with("Host: example.org", "Host: a\r\nHost: b")), 400);
    assert_eq!(status(with("Host: example.org", "Host:")), 400);
}

#[test]
fn connection_must_name_upgrade() {
    assert_eq!(status(with("Connection: Upgrade\r\n", "")), 400);
    assert_eq!(status(with("Connection: Upgrade", "Connection: keep-alive")), 400);
    assert_eq!(status(with("Connection: Upgrade", "Connection: Upgraded")), 400);
}

#[test]
fn another_version_is_told_ours() {
    for version in ["8", "0", "14", "013", "13, 8", ""] {
        assert_eq!(
            with("Sec-WebSocket-Version: 13", &format!("Sec-WebSocket-Version: {version}")),
            Err(Refusal::WrongWebSocketVersion),
            "{version}"
        );
    }
    assert_eq!(with("Sec-WebSocket-Version: 13\r\n", ""), Err(Refusal::WrongWebSocketVersion));
    let twice = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13";
    assert_eq!(status(with("Sec-WebSocket-Version: 13", twice)), 400);
}

#[test]
fn a_key_is_16_bytes_once() {
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZR===",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWVl",
        "dGhlIHNhbXBsZSBub25jZWU=",
        "dGhlIHNhbXBsZSBub25j!Q==",
        "dGhlIHNhbXBsZSBub25jZQ== x",
    ] {
        let verdict = with(&format!("Key: {KEY}"), &format!("Key: {key}"));
        assert_eq!(status(verdict), 400, "{key}");
    }
    assert_eq!(status(with(&format!("Sec-WebSocket-Key: {KEY}\r\n"), "")), 400);
    let twice = format!("Key: {KEY}\r\nSec-WebSocket-Key: {KEY}");
    assert_eq!(status(with(&format!("Key: {KEY}"), &twice)), 400);
}

#[test]
fn a_key_with_stray_bits_still_decodes_to_16_bytes() {
    assert!(with(KEY, "dGhlIHNhbXBsZSBub25jZR==").is_ok());
}

#[test]
fn an_upgrade_brings_no_body() {
    assert_eq!(
        with("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 5"),
        Err(Refusal::NO_BODY_TAKEN)
    );
    assert!(with("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 0").is_ok());
}

#[test]
fn the_first_offer_that_is_spoken_is_chosen_and_none_otherwise() {
    for (offer, chosen) in [
        ("ringcast.json.v1, ringcast.msgpack.v1", Some(SUBPROTOCOL)),
        ("ringcast.raw.v1,ringcast.msgpack.v1,ringcast.json.v1", Some("ringcast.msgpack.v1")),
        ("ringcast.raw.v1", None),
        ("ringcast.json.v1", Some(SUBPROTOCOL)),
        ("mqtt, ringcast.json.v1", Some(SUBPROTOCOL)),
        ("mqtt\r\nSec-WebSocket-Protocol: ringcast.json.v1", Some(SUBPROTOCOL)),
        ("mqtt", None),
        ("RINGCAST.JSON.V1", None),
        ("", None),
    ] {
        let line = format!("Upgrade: websocket\r\nSec-WebSocket-Protocol: {offer}");
        let (_, protocol) = with("Upgrade: websocket", &line).unwrap();
        assert_eq!(protocol, chosen, "{offer}");
    }
}

#[test]
fn the_key_of_the_rfc_is_accepted_as_the_rfc_does() {
    // RFC 6455 1.3.
    let mut out = Vec::new();
    write_accept(&mut out, KEY, None, None);
    let answer = String::from_utf8(out).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(!answer.contains("Protocol:"));
    assert!(answer.ends_with("\r\n\r\n"));
}

#[test]
fn both_ends_understand_each_other() {
    for protocol in [None, Some(SUBPROTOCOL)] {
        let key = key_of([7; 16]);
        let mut request = Vec::new();
        write_request(&mut request, "127.0.0.1:8080", "/ws", &key, protocol);
        let (heard, chosen) = checked(std::str::from_utf8(&request).unwrap()).unwrap();
        assert_eq!((heard.as_str(), chosen), (key.as_str(), protocol));

        let mut answer = Vec::new();
        write_accept(&mut answer, &heard, chosen, None);
        let head_bytes = answer.len();
        for end in 0..head_bytes {
            assert_eq!(check_response(&answer[..end], &key), Ok(None), "{end}");
        }
        answer.extend_from_slice(b"\x81\x02hi");
        assert_eq!(check_response(&answer, &key), Ok(Some(head_bytes)));
    }
}

#[test]
fn a_client_declines_what_does_not_answer_its_request() {
    let mut out = Vec::new();
    write_accept(&mut out, KEY, None, None);
    let good = String::from_utf8(out).unwrap();
    for (part, other) in [
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: close"),
        ("s3pP", "S3pP"),
        ("Connection: Upgrade", "Connection: Upgrade\r\nSec-WebSocket-Extensions: x"),
        ("Connection: Upgrade", "Connection: Upgrade\r\nSec-WebSocket-Protocol: mqtt"),
    ] {
        let answer = good.replace(part, other);
        let verdict = check_response(answer.as_bytes(), KEY);
        assert!(matches!(verdict, Err(Declined::Broken(_))), "{other}: {verdict:?}");
    }
    let busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n";
    assert_eq!(
        check_response(busy, KEY),
        Err(Declined::Status(503, "Service Unavailable".to_owned()))
    );
    assert_eq!(check_response(b"SSH-2.0-OpenSSH\r\n", KEY), Err(Declined::NotHttp));
    let endless = [b"HTTP/1.1 200 ".as_slice(), &[b'a'; REQUEST_HEAD_BYTES_MAX]].concat();
    assert_eq!(check_response(&endless, KEY), Err(Declined::HeadTooLarge));
}
