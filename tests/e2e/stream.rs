//! Listening over HTTP, by hand: a stream of events as a browser reads it, and polls.

use std::time::Duration;

use simd_json::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::client::Heard;
use crate::raw::{Answer, ask};
use crate::server::{Server, patience};

const PATIENCE: Duration = Duration::from_secs(15);

/// A stream of events.
pub struct Stream {
    pub stream: TcpStream,
    pub head: String,
    /// The id of the last event.
    pub cursors: String,
    /// Comments that came.
    pub heartbeats: usize,
    received: Vec<u8>,
}

impl Stream {
    /// GETs `/sse` with this query.
    pub async fn open(server: &Server, query: &str) -> Self {
        Self::open_with(server, query, "", None).await
    }

    /// With header fields, and a receive buffer of so many bytes.
    pub async fn open_with(
        server: &Server,
        query: &str,
        fields: &str,
        receive_buffer_bytes: Option<u32>,
    ) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes).expect("a buffer");
        }
        let mut stream = socket.connect(server.address).await.expect("connects");
        let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: edge\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let (head, cursors) = (String::new(), String::new());
        let mut opened = Self { stream, head, cursors, heartbeats: 0, received: Vec::new() };
        opened.head = opened.up_to(b"\r\n\r\n").await.expect("a head");
        assert!(opened.head.starts_with("HTTP/1.1 200 "), "{}", opened.head);
        opened
    }

    /// The next event, or `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Heard> {
        timeout(patience(PATIENCE), self.read()).await.expect("something comes in time")
    }

    /// Like [`Stream::next`], but `None` also when nothing comes for `limit`.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Heard> {
        timeout(limit, self.read()).await.ok().flatten()
    }

    /// The next event, which is of this type.
    pub async fn hear_kind(&mut self, kind: &str) -> Heard {
        let heard = self.next().await.expect("an event");
        assert_eq!(heard.kind(), kind, "{}", heard.text);
        heard
    }

    async fn read(&mut self) -> Option<Heard> {
        loop {
            let block = self.up_to(b"\n\n").await?;
            let (mut data, mut id) = (Vec::new(), None);
            for line in block.trim_end().lines() {
                match line.split_once(": ").unwrap_or((line, "")) {
                    ("data", value) => data.push(value.to_owned()),
                    ("id", value) => id = Some(value.to_owned()),
                    (":", "") => self.heartbeats += 1,
                    ("retry", _) => {}
                    _ => panic!("a line of no kind: {line:?}"),
                }
            }
            if !data.is_empty() {
                self.cursors = id.expect("every event has an id");
                return Some(Heard::new(data.join("\n")));
            }
        }
    }

    /// The text up to `end`; `None` when the connection ends before.
    async fn up_to(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|bytes| bytes == end) {
                let text: Vec<u8> = self.received.drain(..at + end.len()).collect();
                return Some(String::from_utf8(text).expect("UTF-8"));
            }
            if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                return None;
            }
        }
    }
}

/// What a poll was answered.
#[derive(Debug)]
pub struct Polled {
    pub cursors: String,
    pub events: Vec<Heard>,
}

/// GETs `/poll` with this query.
pub async fn poll(server: &Server, query: &str) -> Polled {
    polled(&poll_answer(server, query).await)
}

pub async fn poll_answer(server: &Server, query: &str) -> Answer {
    let request = format!("GET /poll?{query} HTTP/1.1\r\nHost: edge\r\n\r\n");
    ask(server.address, &request).await.expect("an answer")
}

pub fn polled(answer: &Answer) -> Polled {
    let cursors = answer.header("Ringcast-Cursor").unwrap_or_else(|| panic!("{answer:?}"));
    let cursors = cursors.to_owned();
    if answer.status == 204 {
        assert_eq!(answer.body, "");
        return Polled { cursors, events: Vec::new() };
    }
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    let value = simd_json::to_owned_value(&mut answer.body.clone().into_bytes()).expect("JSON");
    assert_eq!(value.get_str("cursor"), Some(&*cursors));
    let events = value.get_array("events").expect("events").iter();
    let events: Vec<_> = events.map(|event| Heard::new(event.encode())).collect();
    assert!(!events.is_empty(), "of nothing there is nothing to say");
    Polled { cursors, events }
}
