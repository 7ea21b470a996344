//! `sub` and `pub` against a server that follows a script.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, never};

use super::client::{Client, Event};
use super::publish::{Line, publish_lines};
use super::sub::Printing;
use super::subscriptions::{Begin, Subscriptions};
use super::url::Url;
use super::{Format, Pub};
use crate::proto::ws::frame::write_frame;
use crate::proto::ws::{Decoder, Event as Frame, Opcode, Role, close, handshake};

/// One connection as the server sees it.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    heard: VecDeque<String>,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("GET /ws HTTP/1.1\r\n"), "{head}");
        let key = head.split("Sec-WebSocket-Key: ").nth(1).expect("a key");
        let mut answer = Vec::new();
        handshake::write_accept(&mut answer, &key[..24], Some(handshake::SUBPROTOCOL), None);
        // Its first message comes in the same packet: what follows the head must not get lost.
        let welcome = br#"{"type":"welcome","client":"c","message_bytes_max":150}"#;
        write_frame(&mut answer, Opcode::Text, welcome);
        stream.write_all(&answer).expect("a client");
        Self { stream, decoder: Decoder::new(Role::Server), heard: VecDeque::new() }
    }

    fn say(&mut self, text: &str) {
        self.send(Opcode::Text, text.as_bytes());
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        write_frame(&mut frame, opcode, payload);
        self.stream.write_all(&frame).expect("a client");
    }

    fn goodbye(mut self, reconnect_after_ms: u64) {
        self.say(&format!(r#"{{"type":"goaway","reconnect_after_ms":{reconnect_after_ms}}}"#));
        let mut frame = Vec::new();
        close::write_close(&mut frame, 1001, "");
        self.stream.write_all(&frame).expect("a client");
        assert_eq!(self.hear(), "close 1001");
    }

    fn hear(&mut self) -> String {
        while self.heard.is_empty() {
            let mut buffer = [0; 4096];
            let bytes = self.stream.read(&mut buffer).expect("a client");
            if bytes == 0 {
                return "end".into();
            }
            let mut input = &mut buffer[..bytes];
            while let Some(frame) = self.decoder.next(&mut input, 1 << 20).expect("RFC 6455") {
                self.heard.push_back(match frame {
                    Frame::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    Frame::Pong(payload) => format!("pong {}", payload.escape_ascii()),
                    Frame::Close(Some((code, _))) => format!("close {code}"),
                    other => format!("{other:?}"),
                });
            }
        }
        self.heard.pop_front().expect("just filled")
    }
}

fn served<T: Send + 'static>(
    script: impl FnOnce(TcpListener) -> T + Send + 'static,
) -> (Url, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = Url::parse(&format!("ws://{address}")).expect("an address");
    (url, thread::spawn(move || script(listener)))
}

fn sub_until(url: Url, count: u64) -> (u8, String, String) {
    let client = Client::start(url, 16);
    let mut printing = Printing {
        subscriptions: Subscriptions::new(vec!["a".into()], &Begin::Live),
        format: Format::Line,
        missing: Some(count),
        out: Vec::new(),
        notes: Vec::new(),
    };
    let status = printing.run(&client, &never());
    client.close(Duration::from_secs(5));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status, text(printing.out), text(printing.notes))
}

#[test]
fn sub_comes_back_when_told_to_and_goes_on_where_it_stopped() {
    let subscribe = r#"{"type":"subscribe","id":0,"channel":"a"}"#;
    let resume = r#"{"type":"subscribe","id":0,"channel":"a","since":{"epoch":"k","seq":5}}"#;
    let subscribed = |seq: u64, rest: &str| {
        format!(r#"{{"type":"subscribed","id":0,"channel":"a","epoch":"k","seq":{seq}{rest}}}"#)
    };
    let message = |seq: u64| {
        format!(r#"{{"type":"message","channel":"a","seq":{seq},"payload":{{"n":{seq}}}}}"#)
    };
    let (url, server) = served(move |listener| {
        let mut peer = Peer::accept(&listener);
        assert_eq!(peer.hear(), subscribe);
        peer.say(&subscribed(4, r#","recovered":false"#));
        peer.send(Opcode::Ping, b"there?");
        assert_eq!(peer.hear(), "pong there?");
        peer.say(&message(5));
        peer.goodbye(1);
        let mut peer = Peer::accept(&listener);
        assert_eq!(peer.hear(), resume);
        peer.say(&subscribed(7, r#","recovered":true,"from":6"#));
        peer.say(&message(6));
        peer.say(&message(7));
        peer.say(&message(10));
        assert_eq!(peer.hear(), "close 1000");
    });
    let (status, out, notes) = sub_until(url, 4);
    server.join().expect("the script was followed");
    assert_eq!(status, 0);
    let lines: String = [5, 6, 7, 10].map(|seq| format!("a {seq} {{\"n\":{seq}}}\n")).concat();
    assert_eq!(out, lines);
    let notes: Vec<&str> = notes.lines().collect();
    assert_eq!(
        notes,
        [
            "closed by the server with 1001; connecting again in 0.0 s",
            "a: 6 to 7 are recovered",
            "a: 8 to 9 are missing (nobody said why)"
        ]
    );
}

#[test]
fn what_the_server_will_never_take_ends_it() {
    let (url, server) = served(|listener| {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").expect("a client");
    });
    let (status, out, notes) = sub_until(url, 1);
    server.join().expect("the script was followed");
    assert_eq!((status, out.as_str()), (1, ""));
    assert_eq!(notes, "the server says 404 Not Found\n");
}

#[test]
fn a_server_that_is_not_there_is_tried_again() {
    // The port is free again when the listener is gone.
    let (url, server) = served(drop);
    server.join().expect("it only listens");
    let client = Client::start(url, 4);
    let events = client.events();
    match events.recv_timeout(Duration::from_secs(20)) {
        Ok(Event::Lost(why, delay)) => {
            assert!(why.contains("Connection refused"), "{why}");
            assert!((0.8..=1.2).contains(&delay.as_secs_f64()), "{delay:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn publish_all(url: Url, payloads: &[&str], give_up: u16) -> (u8, String, String) {
    let (sender, lines) = bounded(payloads.len());
    for payload in payloads {
        let line = Line { name: String::new(), payload: Ok(payload.as_bytes().to_vec()) };
        sender.send(line).expect("there is room");
    }
    drop(sender);
    let arguments = Pub {
        url: String::new(),
        channel: "a\"b".into(),
        payload: "-".into(),
        verbose: true,
        window: 2,
        give_up,
    };
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let status = publish_lines(arguments, url, lines, &mut out, &mut notes);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status, text(out), text(notes))
}

#[test]
fn pub_publishes_again_under_the_same_key_what_was_not_acknowledged() {
    let ack = |id: u64, seq: u64| format!(r#"{{"type":"ack","id":{id},"seq":{seq}}}"#);
    let (url, server) = served(move |listener| {
        let mut peer = Peer::accept(&listener);
        // The window is two: the third comes only after an answer.
        let first = peer.hear();
        let key = first.split(r#""key":""#).nth(1).expect("a key").split('-').next();
        let key = key.expect("split yields one").to_owned();
        assert_eq!(key.len(), 32);
        let request = |id: u64| {
            format!(
                r#"{{"type":"publish","id":{id},"channel":"a\"b","key":"{key}-{id}","payload":{id}0}}"#
            )
        };
        assert_eq!(first, request(1));
        assert_eq!(peer.hear(), request(2));
        peer.say(&ack(1, 71));
        assert_eq!(peer.hear(), request(3));
        peer.goodbye(1);
        let mut peer = Peer::accept(&listener);
        assert_eq!(peer.hear(), request(2));
        assert_eq!(peer.hear(), request(3));
        // It had arrived: the number is the first time's.
        peer.say(r#"{"type":"ack","id":2,"seq":72,"duplicate":true}"#);
        peer.say(&ack(3, 73));
        assert_eq!(peer.hear(), "close 1000");
    });
    let (status, out, _) = publish_all(url, &["10", "20", "30"], 30);
    server.join().expect("the script was followed");
    assert_eq!((status, out.as_str()), (0, "71\n72\n73\n"));
}

#[test]
fn pub_fails_when_something_is_refused_too_large_or_unanswered() {
    let (url, server) = served(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.hear();
        peer.say(r#"{"type":"error","id":1,"code":"bad_channel","reason":"no such channel"}"#);
        assert_eq!(peer.hear(), "close 1000");
    });
    let large = format!("\"{}\"", "x".repeat(100));
    let (status, out, notes) = publish_all(url, &["1", &large], 30);
    server.join().expect("the script was followed");
    assert_eq!((status, out.as_str()), (1, ""));
    let mut notes: Vec<&str> = notes.lines().collect();
    notes.sort_unstable();
    assert_eq!(notes, ["198 bytes, and the server takes 150", "no such channel"]);

    let (url, server) = served(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.hear();
        assert_eq!(peer.hear(), "close 1000");
    });
    let (status, _, notes) = publish_all(url, &["1"], 1);
    server.join().expect("the script was followed");
    assert_eq!(status, 1);
    assert_eq!(notes, "no answer for 1 s; 1 message was not acknowledged\n");
}
