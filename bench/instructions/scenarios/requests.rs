//! What clients say, read; and what is said to them, written.

use std::hint::black_box;
use std::time::Duration;

use ringcast::conn::{self, Conn, Event};
use ringcast::proto::envelope::{self, Parser, Request};
use ringcast::proto::ws::deflate::{Codec, Reach};
use ringcast::time::Time;

use super::Scenarios;
use crate::meter::Meter;

pub(super) const ALL: Scenarios = &[
    ("envelope: parse a publish of 128 B", "message", |meter| parse(meter, &publish(128))),
    ("envelope: parse a publish of 4 KiB", "message", |meter| parse(meter, &publish(4096))),
    ("envelope: parse a subscribe", "message", |meter| parse(meter, &subscribe())),
    ("envelope: encode a message of 128 B", "message", |meter| encode(meter, 128)),
    ("envelope: encode a message of 4 KiB", "message", |meter| encode(meter, 4096)),
    ("envelope: encode an ack", "reply", ack),
    ("conn: a browser's handshake", "handshake", handshake),
];

/// A request to publish a payload of so many bytes: readings of a sensor, as JSON.
pub(super) fn publish(payload_bytes: usize) -> String {
    let payload = payload(payload_bytes);
    format!(r#"{{"type":"publish","id":17,"channel":"plant.line-3.pressure","payload":{payload}}}"#)
}

pub(super) fn subscribe() -> String {
    r#"{"type":"subscribe","id":1,"channel":"plant.line-3.pressure"}"#.to_owned()
}

/// An object with numbers and strings, `bytes` long.
pub(super) fn payload(bytes: usize) -> String {
    const READING: &str = r#"{"at":1685440800,"bar":3.25,"ok":true},"#;
    let (begin, end) = (r#"{"sensor":"p-17","readings":["#, r#"],"pad":""}"#);
    let readings = (bytes - begin.len() - end.len() + 1) / READING.len();
    let list = READING.repeat(readings);
    let mut payload = format!("{begin}{}{end}", list.trim_end_matches(','));
    let missing = bytes - payload.len();
    payload.insert_str(payload.len() - 2, &"x".repeat(missing));
    assert_eq!(payload.len(), bytes);
    payload
}

fn parse(meter: &mut Meter, text: &str) {
    let mut parser = Parser::new();
    let mut parse = || {
        let message = parser.parse(black_box(text.as_bytes())).expect("JSON");
        assert!(matches!(message.request, Ok(Request::Publish { .. } | Request::Subscribe { .. })));
        black_box(&message);
    };
    parse();
    meter.count(100, || (0..100).for_each(|_| parse()));
}

fn encode(meter: &mut Meter, payload_bytes: usize) {
    let prefix = envelope::message_prefix("plant.line-3.pressure");
    let payload = payload(payload_bytes);
    let mut out = Vec::new();
    let mut encode = |seq| {
        out.clear();
        envelope::message(&mut out, &prefix, black_box(seq), payload.as_bytes());
        black_box(&out);
    };
    encode(123_456);
    meter.count(100, || (123_456..123_556).for_each(&mut encode));
}

fn ack(meter: &mut Meter) {
    let mut out = Vec::new();
    let mut encode = |seq| {
        out.clear();
        envelope::ack(&mut out, Some(b"17"), "plant.line-3.pressure", black_box(seq), false);
        black_box(&out);
    };
    encode(123_456);
    meter.count(100, || (123_456..123_556).for_each(&mut encode));
}

/// What Chromium sends for `new WebSocket(...)`, with a cookie.
pub(super) const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\n\
    Host: gateway.example:8080\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: http://gateway.example:8080\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: ringcast.json.v1\r\n\r\n";

pub(super) fn conn_settings() -> conn::Settings {
    conn::Settings {
        message_bytes_max: 64 * 1024,
        handshake_timeout: Duration::from_secs(5),
        body_bytes_max: 10_000,
        channels_per_client_max: 8,
        request_timeout: Duration::from_secs(8),
        cors: ringcast::proto::http::Cors::Off,
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        idle_timeout: None,
        close_timeout: Duration::from_secs(5),
        compression: true,
        compression_window_bytes_max: 4 * 1024,
        echo: false,
        pages: Vec::new(),
    }
}

fn handshake(meter: &mut Meter) {
    const HANDSHAKES: usize = 20;
    let settings = conn_settings();
    let mut random = fastrand::Rng::with_seed(1);
    let mut conns: Vec<Conn> =
        (0..=HANDSHAKES).map(|_| Conn::accepted(Time::START, &mut random)).collect();
    let mut request = UPGRADE.to_vec();
    let mut replies = Vec::with_capacity(1024);
    let mut codec = Codec::new(2);
    let mut open = |conn: &mut Conn| {
        replies.clear();
        let mut input = request.as_mut_slice();
        let event = conn.receive(Time::START, &mut input, &mut replies, &mut codec, &settings);
        let compression = Some(Reach::Wide);
        assert_eq!(event, Some(Event::Opened { hub: true, compression, user: None }));
        assert!(replies.starts_with(b"HTTP/1.1 101 "));
    };
    let (first, rest) = conns.split_first_mut().expect("there are some");
    open(first);
    meter.count(HANDSHAKES as u64, || rest.iter_mut().for_each(&mut open));
}
