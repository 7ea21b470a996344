use std::time::Duration;

use super::*;
use crate::limits::{LINGER_BYTES_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::proto::ws;
use crate::proto::ws::Decoder;
use crate::proto::ws::deflate::{Codec, Inflater};
use crate::proto::ws::frame::{Role, write_masked};

const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

pub(super) fn settings() -> Settings {
    Settings {
        message_bytes_max: 1_000,
        handshake_timeout: Duration::from_secs(5),
        body_bytes_max: 10_000,
        channels_per_client_max: 8,
        request_timeout: Duration::from_secs(8),
        cors: http::Cors::Off,
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        idle_timeout: None,
        close_timeout: Duration::from_secs(3),
        compression: true,
        compression_window_bytes_max: 4_096,
        echo: true,
        pages: vec![Page { path: "/", content_type: "text/html; charset=utf-8", body: b"<p>hi" }],
    }
}

fn at(seconds: u64) -> Time {
    Time::START + Duration::from_secs(seconds)
}

fn upgrade(path: &str) -> String {
    upgrade_with(path, "")
}

/// With `lines` more, each with its end.
fn upgrade_with(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(&mut out, opcode, payload, KEY);
    out
}

fn close_frame(code: u16) -> Vec<u8> {
    let mut out = Vec::new();
    close::write_close_masked(&mut out, code, "", KEY);
    out
}

mod compression;
mod dialects;
mod listen;
mod publish;

/// An event that owns what it says.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Seen {
    Opened { hub: bool, compression: Option<Reach> },
    Text(Vec<u8>),
    Msgpack(Vec<u8>),
    Payload { channel: String, is_text: bool, bytes: Vec<u8> },
    Publishing,
    Listening(Listens, Vec<Wanted>),
    Object(Vec<u8>),
    ObjectTooLong,
    Handled,
    Refused(Refusal),
    Ending(EndReason),
}

/// A connection under test and what it has said.
struct Peer {
    conn: Conn,
    settings: Settings,
    codec: Codec,
    replies: Vec<u8>,
    now: Time,
}

impl Peer {
    fn new(settings: Settings) -> Self {
        let conn = Conn::accepted(Time::START, &mut fastrand::Rng::with_seed(1));
        let codec = Codec::new(6);
        Self { conn, settings, codec, replies: Vec::new(), now: Time::START }
    }

    /// With the handshake behind it.
    fn open(path: &str) -> Self {
        let mut peer = Self::new(settings());
        let seen = peer.feed(upgrade(path).as_bytes());
        assert_eq!(seen, [Seen::Opened { hub: path == "/ws", compression: None }]);
        peer.replies.clear();
        peer
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let mut bytes = bytes.to_vec();
        let mut input = bytes.as_mut_slice();
        let mut seen = Vec::new();
        let Self { conn, settings, codec, replies, now } = self;
        while let Some(event) = conn.receive(*now, &mut input, replies, codec, settings) {
            seen.push(match event {
                Event::Opened { hub, compression, .. } => Seen::Opened { hub, compression },
                Event::Text(text) => Seen::Text(text.to_vec()),
                Event::Msgpack(message) => Seen::Msgpack(message.to_vec()),
                Event::Payload(channel, payload) => {
                    let (is_text, bytes) = match payload {
                        Payload::Text(text) => (true, text.to_vec()),
                        Payload::Binary(bytes) => (false, bytes.to_vec()),
                    };
                    Seen::Payload { channel: channel.to_owned(), is_text, bytes }
                }
                Event::Publishing => Seen::Publishing,
                Event::Listening(listens, wanted, _) => Seen::Listening(listens, wanted),
                Event::Object(object) => Seen::Object(object.to_vec()),
                Event::ObjectTooLong => Seen::ObjectTooLong,
                Event::Handled => Seen::Handled,
                Event::Refused(refusal) => Seen::Refused(refusal),
                Event::Ending(reason) => Seen::Ending(reason),
            });
        }
        assert!(input.is_empty(), "all input is used up");
        seen
    }

    fn expire(&mut self, now: Time) -> Expired {
        self.conn.expire(now, &mut self.replies, &self.settings)
    }

    fn close(&mut self) -> bool {
        let Self { conn, settings, replies, now, .. } = self;
        conn.close(*now, close::GOING_AWAY, "bye", replies, settings)
    }

    /// The frames it has said since the last call.
    fn said(&mut self) -> Vec<(Opcode, Vec<u8>)> {
        let mut bytes = std::mem::take(&mut self.replies);
        let mut input = bytes.as_mut_slice();
        let mut decoder = Decoder::with_compression(Role::Client);
        let mut said = Vec::new();
        while let Some(event) = decoder.next(&mut input, usize::MAX).expect("frames are sound") {
            said.push(match event {
                ws::Event::Compressed(opcode, payload) => {
                    let mut inflater = Inflater::default();
                    let message = inflater.inflate(b"", payload, usize::MAX >> 1);
                    (opcode, message.expect("what we compress is sound").to_vec())
                }
                ws::Event::Text(text) => (Opcode::Text, text.to_vec()),
                ws::Event::Binary(binary) => (Opcode::Binary, binary.to_vec()),
                ws::Event::Ping(payload) => (Opcode::Ping, payload.to_vec()),
                ws::Event::Pong(payload) => (Opcode::Pong, payload.to_vec()),
                ws::Event::Close(said) => {
                    let (code, reason) = said.expect("we always say why");
                    (Opcode::Close, [&code.to_be_bytes(), reason.as_bytes()].concat())
                }
            });
        }
        said
    }

    /// The code of the close frame that is all it has said.
    fn close_code(&mut self) -> u16 {
        let said = self.said();
        let [(Opcode::Close, payload)] = &said[..] else { panic!("{said:?}") };
        u16::from_be_bytes([payload[0], payload[1]])
    }

    fn status(&mut self) -> u16 {
        let said = String::from_utf8(std::mem::take(&mut self.replies)).expect("HTTP is text");
        said["HTTP/1.1 ".len()..][..3].parse().expect("a status")
    }
}

/// Whole, byte by byte, and cut at the places of some seeds.
fn every_cut(stream: &[u8]) -> impl Iterator<Item = Vec<Vec<u8>>> {
    (0..40).map(move |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pieces = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let most = match seed {
                0 => rest.len(),
                1 => 1,
                _ => {
                    let most = 1 << random.u8(..9);
                    random.usize(1..=most).min(rest.len())
                }
            };
            pieces.push(rest[..most].to_vec());
            rest = &rest[most..];
        }
        pieces
    })
}

#[test]
fn a_handshake_and_the_frames_behind_it_are_the_same_however_they_are_cut() {
    let mut stream = upgrade("/ws").into_bytes();
    stream.extend(frame(Opcode::Text, b"one"));
    stream.extend(frame(Opcode::Ping, b"are you there"));
    stream.extend(frame(Opcode::Text, &[b'x'; 900]));
    stream.extend(close_frame(1000));
    stream.extend(b"and nothing of this is looked at");
    let seen = [
        Seen::Opened { hub: true, compression: None },
        Seen::Text(b"one".to_vec()),
        Seen::Handled,
        Seen::Text(vec![b'x'; 900]),
        Seen::Ending(EndReason::PeerClosed),
    ];
    let mut first = None;
    for (index, pieces) in every_cut(&stream).enumerate() {
        let mut peer = Peer::new(settings());
        let events: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
        assert_eq!(events, seen, "cut {index}");
        assert_eq!(peer.replies, *first.get_or_insert(peer.replies.clone()), "cut {index}");
        assert_eq!(peer.conn.flushed(), Afterwards::Close, "both have said good-bye");
    }
    let said = String::from_utf8_lossy(&first.expect("some cut")).into_owned();
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    assert!(said.contains("are you there"));
}

#[test]
fn a_refusal_is_the_same_however_the_request_is_cut() {
    for path in ["/nowhere", "/", "/ws"] {
        let stream = format!("POST {path} HTTP/1.1\r\nHost: a\r\n\r\nand a tail that is no head");
        let mut first = None;
        for (index, pieces) in every_cut(stream.as_bytes()).enumerate() {
            let mut peer = Peer::new(settings());
            let events: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
            assert!(matches!(events[..], [Seen::Refused(_)]), "{events:?}");
            assert_eq!(peer.replies, *first.get_or_insert(peer.replies.clone()), "cut {index}");
        }
    }
}

#[test]
fn every_path_and_method_gets_its_status() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let with = |line: &str| upgrade("/ws").replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
    for (request, status) in [
        (upgrade("/ws"), 101),
        (upgrade("/ws?token=1"), 101),
        (upgrade("/echo"), 101),
        (get("/"), 200),
        (get("/?a=b"), 200),
        (get("/").replace("GET", "HEAD"), 200),
        (get("/").replace("GET", "DELETE"), 405),
        (get("/nowhere"), 404),
        (upgrade("/nowhere"), 404),
        (get("/ws"), 426),
        (upgrade("/ws").replace("Version: 13", "Version: 8"), 426),
        (upgrade("/ws").replace("GET", "POST"), 405),
        (upgrade("/ws").replace("Host: example.org\r\n", ""), 400),
        (upgrade("/ws").replace("HTTP/1.1", "HTTP/3.7"), 505),
        (with("Content-Length: 5"), 413),
        (with(&"a: b\r\n".repeat(70)).replace("\r\n\r\n\r\n", "\r\n\r\n"), 431),
        (with(&format!("Cookie: {}", "x".repeat(REQUEST_HEAD_BYTES_MAX))), 431),
        ("\x16\x03\x01\x02\r\n\r\n".into(), 400),
    ] {
        let mut peer = Peer::new(settings());
        peer.feed(request.as_bytes());
        assert_eq!(peer.status(), status, "{request}");
        assert_eq!(peer.conn.is_open(), status == 101);
        assert_eq!(peer.conn.is_closing(), status != 101);
    }
}

#[test]
fn without_leave_there_is_no_echo() {
    let mut peer = Peer::new(Settings { echo: false, ..settings() });
    assert_eq!(peer.feed(upgrade("/echo").as_bytes()), [Seen::Refused(Refusal::NotFound)]);
}

#[test]
fn a_page_is_served_and_its_connection_waits_for_the_peer_to_end() {
    let mut peer = Peer::new(settings());
    let seen = peer.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(seen, [Seen::Ending(EndReason::PageServed)]);
    assert!(peer.replies.ends_with(b"\r\n\r\n<p>hi"));
    assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
    assert_eq!(peer.conn.flushed(), Afterwards::Wait, "one FIN is enough");
    assert_eq!(peer.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), [], "there is no second request");
    assert_eq!(peer.conn.end_of_stream(peer.now, &peer.settings), None);
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
}

#[test]
fn a_head_without_end_is_refused_at_the_bound_and_nothing_of_it_is_kept() {
    for piece_bytes in [1, 100, 3_000, 20_000] {
        let mut peer = Peer::new(settings());
        let mut sent = 0;
        let mut seen = Vec::new();
        while seen.is_empty() {
            assert!(sent < REQUEST_HEAD_BYTES_MAX, "refused at the bound");
            let piece = [b"GET / HTTP/1.1\r\nCookie: ".as_slice(), &[b'x'; 20_000]].concat();
            let end = (sent + piece_bytes).min(piece.len());
            seen = peer.feed(&piece[sent..end]);
            sent = end;
            assert!(peer.conn.held_bytes() <= 2 * REQUEST_HEAD_BYTES_MAX);
        }
        assert_eq!(seen, [Seen::Refused(Refusal::HeadTooLarge)]);
        assert_eq!(peer.conn.held_bytes(), 0);
    }
}

#[test]
fn what_cannot_become_a_request_is_refused_with_its_first_byte() {
    // A TLS greeting has no empty line that would end a request head.
    for (before, greeting) in [("", "\x16\x03\x01\x02"), ("\r\n", "\x16\x03"), ("", "\0")] {
        let mut peer = Peer::new(settings());
        assert_eq!(peer.feed(before.as_bytes()), [], "an empty line may come first");
        let seen = peer.feed(greeting.as_bytes());
        assert!(matches!(seen[..], [Seen::Refused(Refusal::BadRequest(_))]), "{seen:?}");
        assert_eq!(peer.status(), 400);
        assert_eq!(peer.conn.held_bytes(), 0);
    }
}

#[test]
fn a_slow_head_is_answered_with_408_when_its_time_is_up() {
    let mut peer = Peer::new(settings());
    assert_eq!(peer.conn.deadline(at(0), &peer.settings), at(5));
    peer.now = at(4);
    peer.feed(b"GET /ws HTTP/1.1\r\n");
    assert_eq!(peer.expire(at(4)), Expired::Later(at(5)), "a byte buys no time");
    assert_eq!(peer.expire(at(5)), Expired::Ending(EndReason::HandshakeTimeout));
    assert_eq!(peer.status(), 408);
    assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
    assert_eq!(peer.expire(at(7)), Expired::Later(at(8)));
    assert_eq!(peer.expire(at(8)), Expired::Close(None));
}

#[test]
fn who_is_turned_away_is_told_before_it_has_said_anything() {
    let mut peer = Peer::new(settings());
    let refusal = Refusal::Unavailable { retry_after_s: 5 };
    peer.conn.turn_away(peer.now, refusal, &mut peer.replies, &peer.settings);
    assert_eq!(peer.status(), 503);
    assert_eq!(peer.feed(upgrade("/ws").as_bytes()), []);
    assert!(peer.replies.is_empty());
    assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
}

#[test]
fn a_close_is_answered_with_its_code_and_the_socket_closed() {
    for (said, answered) in [(close_frame(1001), 1001), (close_frame(4321), 4321)] {
        let mut peer = Peer::open("/ws");
        assert_eq!(peer.feed(&said), [Seen::Ending(EndReason::PeerClosed)]);
        assert_eq!(peer.close_code(), answered);
        assert_eq!(peer.conn.flushed(), Afterwards::Close);
    }
    let mut peer = Peer::open("/ws");
    peer.feed(&frame(Opcode::Close, b""));
    assert_eq!(peer.close_code(), 1000);
}

#[test]
fn after_our_close_only_the_peers_is_waited_for() {
    let mut peer = Peer::open("/ws");
    assert!(peer.close());
    assert!(!peer.close(), "a life ends once");
    assert_eq!(peer.close_code(), 1001);
    assert_eq!(peer.conn.flushed(), Afterwards::Wait);
    assert_eq!(peer.conn.deadline(at(0), &peer.settings), at(3));
    let busy = [frame(Opcode::Text, b"still"), frame(Opcode::Ping, b"talking")].concat();
    assert_eq!(peer.feed(&busy), []);
    assert!(peer.replies.is_empty(), "nothing is said after a close frame");
    assert_eq!(peer.conn.flushed(), Afterwards::Wait);
    let answer = close_frame(1001);
    assert_eq!(peer.feed(&answer[..3]), []);
    assert_eq!(peer.conn.flushed(), Afterwards::Wait);
    assert_eq!(peer.feed(&answer[3..]), []);
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
    assert_eq!(peer.expire(at(3)), Expired::Close(None));
}

#[test]
fn after_our_close_a_peer_that_breaks_the_rules_is_not_waited_for() {
    let mut peer = Peer::open("/ws");
    peer.close();
    assert_eq!(peer.feed(&[0xff; 10]), []);
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
}

#[test]
fn a_handshake_that_is_closed_ends_without_a_word() {
    let mut peer = Peer::new(settings());
    peer.feed(b"GET /ws");
    assert!(peer.close());
    assert!(peer.replies.is_empty());
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
    assert_eq!(peer.feed(&upgrade("/ws").as_bytes()[7..]), []);
}

#[test]
fn a_broken_rule_closes_with_its_code_and_lingers() {
    let long = frame(Opcode::Text, &[b'x'; 1_001]);
    for (bytes, code, reason) in [
        (b"\x81\x02hi".to_vec(), 1002, EndReason::Violation),
        (frame(Opcode::Continuation, b"of nothing"), 1002, EndReason::Violation),
        (vec![0xc1, 0x80, 0, 0, 0, 0], 1002, EndReason::Violation),
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002, EndReason::Violation),
        (frame(Opcode::Ping, &[0; 126]), 1002, EndReason::Violation),
        (frame(Opcode::Close, b"\x03"), 1002, EndReason::Violation),
        (frame(Opcode::Close, &1005_u16.to_be_bytes()), 1002, EndReason::Violation),
        (frame(Opcode::Text, b"\xc0\xaf"), 1007, EndReason::Violation),
        (long, 1009, EndReason::UnacceptableMessage),
    ] {
        for (index, pieces) in every_cut(&bytes).enumerate() {
            let mut peer = Peer::open("/ws");
            let seen: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
            assert_eq!(seen, [Seen::Ending(reason)], "{bytes:x?} cut {index}");
            assert_eq!(peer.close_code(), code, "{bytes:x?} cut {index}");
            assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
            assert_eq!(peer.feed(&bytes), []);
            assert_eq!(peer.conn.flushed(), Afterwards::Wait);
            assert!(peer.replies.is_empty() && !peer.conn.is_open());
        }
    }
}

#[test]
fn lingering_ends_with_the_peer_or_with_time_or_when_it_says_too_much() {
    let failed = || {
        let mut peer = Peer::open("/ws");
        peer.feed(b"\x81\x02hi");
        assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
        peer
    };
    let mut peer = failed();
    assert_eq!(peer.conn.end_of_stream(at(1), &peer.settings), None);
    assert_eq!(peer.conn.flushed(), Afterwards::Close);

    let mut peer = failed();
    assert_eq!(peer.expire(at(2)), Expired::Later(at(3)));
    assert_eq!(peer.expire(at(3)), Expired::Close(None));

    let mut peer = failed();
    peer.feed(&vec![0; LINGER_BYTES_MAX - 100]);
    assert_eq!(peer.conn.flushed(), Afterwards::Wait);
    peer.feed(&[0; 101]);
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
}

#[test]
fn a_ping_is_answered_with_its_payload_and_a_pong_with_nothing() {
    let mut peer = Peer::open("/ws");
    let stream = [frame(Opcode::Ping, b""), frame(Opcode::Pong, b"x"), frame(Opcode::Ping, b"abc")];
    assert_eq!(peer.feed(&stream.concat()), [Seen::Handled, Seen::Handled, Seen::Handled]);
    assert_eq!(peer.said(), [(Opcode::Pong, vec![]), (Opcode::Pong, b"abc".to_vec())]);
}

#[test]
fn a_binary_message_for_the_hub_closes_with_1003() {
    let mut peer = Peer::open("/ws");
    let stream = [frame(Opcode::Binary, b"x"), frame(Opcode::Text, b"after it")].concat();
    assert_eq!(peer.feed(&stream), [Seen::Ending(EndReason::UnacceptableMessage)]);
    assert_eq!(peer.close_code(), 1003);
    assert_eq!(peer.conn.flushed(), Afterwards::Wait);
    peer.feed(&close_frame(1003));
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
}

#[test]
fn an_echo_gives_back_what_it_got_in_one_piece() {
    let mut first = frame(Opcode::Binary, b"in two ");
    first[0] &= 0x7f;
    let stream =
        [frame(Opcode::Text, b"text"), first, frame(Opcode::Continuation, b"pieces")].concat();
    for pieces in every_cut(&stream) {
        let mut peer = Peer::open("/echo");
        for piece in pieces {
            peer.feed(&piece);
        }
        let expected =
            [(Opcode::Text, b"text".to_vec()), (Opcode::Binary, b"in two pieces".to_vec())];
        assert_eq!(peer.said(), expected);
    }
}

#[test]
fn a_peer_that_vanishes_ends_its_life_once_whatever_it_was_doing() {
    let half_a_message = frame(Opcode::Text, b"half")[..8].to_vec();
    for said in [b"".to_vec(), b"GET /ws HT".to_vec(), upgrade("/ws").into_bytes()]
        .into_iter()
        .chain([[upgrade("/ws").into_bytes(), half_a_message].concat()])
    {
        let mut peer = Peer::new(settings());
        peer.feed(&said);
        let end = peer.conn.end_of_stream(peer.now, &peer.settings);
        assert_eq!(end, Some(EndReason::PeerVanished));
        assert_eq!(peer.conn.end_of_stream(peer.now, &peer.settings), None);
        assert_eq!(peer.conn.flushed(), Afterwards::Close);
    }
    let mut peer = Peer::open("/ws");
    peer.close();
    assert_eq!(peer.conn.end_of_stream(peer.now, &peer.settings), None, "it has ended before");
    assert_eq!(peer.conn.flushed(), Afterwards::Close);
}

#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let mut peer = Peer::open("/ws");
    let deadline = peer.conn.deadline(at(0), &peer.settings);
    assert!(deadline >= at(22) && deadline <= at(28));
    let Expired::Later(time) = peer.expire(at(20)) else { panic!("nothing is due") };
    assert_eq!(time, deadline);
    assert_eq!(peer.expire(deadline), Expired::Pinged(deadline + Duration::from_secs(10)));
    assert_eq!(peer.said(), [(Opcode::Ping, vec![])]);
    let given_up = deadline + Duration::from_secs(10);
    assert_eq!(peer.expire(given_up), Expired::Close(Some(EndReason::PongTimeout)));

    // Any byte is life, half a header too.
    let mut peer = Peer::open("/ws");
    peer.expire(deadline);
    peer.now = deadline + Duration::from_secs(9);
    peer.feed(&[0x81]);
    assert!(matches!(peer.expire(given_up), Expired::Later(_)));
}

#[test]
fn a_client_without_messages_is_closed_after_the_idle_timeout() {
    let mut peer = Peer::open("/ws");
    peer.settings.idle_timeout = Some(Duration::from_secs(60));
    peer.now = at(59);
    peer.feed(&frame(Opcode::Ping, b""));
    peer.replies.clear();
    assert_eq!(peer.expire(at(60)), Expired::Ending(EndReason::IdleTimeout));
    assert_eq!(peer.close_code(), 1000);
    assert_eq!(peer.expire(at(63)), Expired::Close(None));
}

/// Fuzzing saw an idle client that was closed late, by as much as `pong_timeout`: after a ping the
/// connection asked to be looked at when the pong would be overdue, though `idle_timeout` came
/// first. It now asks for whichever comes first.
#[test]
fn a_ping_does_not_put_off_the_idle_timeout() {
    let mut peer = Peer::open("/ws");
    peer.settings.idle_timeout = Some(Duration::from_secs(30));
    let pinged = peer.conn.deadline(at(0), &peer.settings);
    assert_eq!(peer.expire(pinged), Expired::Pinged(at(30)));
    assert_eq!(peer.conn.deadline(pinged, &peer.settings), at(30));
    peer.replies.clear();
    assert_eq!(peer.expire(at(30)), Expired::Ending(EndReason::IdleTimeout));
    assert_eq!(peer.close_code(), 1000);
}

#[test]
fn an_abandoned_message_is_freed_at_once_and_the_peer_may_still_read_why() {
    let mut peer = Peer::open("/ws");
    peer.feed(&frame(Opcode::Text, &[b'x'; 900])[..500]);
    assert!(peer.conn.held_bytes() >= 450);
    peer.close();
    peer.conn.abandon(peer.now, &peer.settings);
    assert_eq!(peer.conn.held_bytes(), 0);
    assert_eq!(peer.close_code(), 1001);
    assert_eq!(peer.feed(&[b'x'; 500]), []);
    assert_eq!(peer.conn.held_bytes(), 0);
    assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
}

#[test]
fn what_is_kept_of_a_message_is_freed_when_it_is_whole() {
    let mut peer = Peer::open("/ws");
    let long = frame(Opcode::Text, &[b'x'; 900]);
    peer.feed(&long[..800]);
    assert!(peer.conn.held_bytes() >= 750);
    assert_eq!(peer.feed(&long[800..]), [Seen::Text(vec![b'x'; 900])]);
    assert_eq!(peer.conn.held_bytes(), 0);
}
