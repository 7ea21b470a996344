//! Bare TCP, for what a well-behaved client would not do: HTTP by hand, frames by hand.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::patience;

const PATIENCE: Duration = Duration::from_secs(15);

/// The key of RFC 6455 1.3, and what it must be answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A good upgrade request, with these lines instead of or after the usual ones.
pub fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// GETs `path`; `None` when nobody answers.
pub async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

/// Sends `request` and reads the answer up to the end of the connection.
pub async fn ask(address: SocketAddr, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    answer(&mut stream).await
}

/// Reads an answer and the end of the connection.
pub async fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let read =
        timeout(patience(PATIENCE), stream.read_to_end(&mut bytes)).await.expect("it ends in time");
    if bytes.is_empty() {
        return None;
    }
    // A reset may follow an answer to something that was not read to its end.
    let _ = read;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let is_chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if is_chunked { dechunk(body)? } else { body.to_owned() };
    Some(Answer { status, head: head.to_owned(), body })
}

/// The data of a chunked body, which must be there to its end.
fn dechunk(mut body: &str) -> Option<String> {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let bytes = usize::from_str_radix(size, 16).ok()?;
        if bytes == 0 {
            return (rest == "\r\n").then_some(data);
        }
        data.push_str(rest.get(..bytes)?);
        body = rest.get(bytes..)?.strip_prefix("\r\n")?;
    }
}

/// A WebSocket by hand.
pub struct Raw {
    pub stream: TcpStream,
    received: Vec<u8>,
    /// Whether the server may send compressed messages.
    may_compress: bool,
}

/// One frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    /// Whether it is a compressed message.
    pub compressed: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("UTF-8")
    }

    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, 8, "{self:?}");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}

impl Raw {
    /// Opens a WebSocket at `path`.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(upgrade_request(path).as_bytes()).await.expect("sent");
        Self::upgraded(stream).await
    }

    /// Opens a WebSocket at `path` that offers these extensions; also what was agreed on.
    pub async fn open_offering(
        address: SocketAddr,
        path: &str,
        offer: &str,
    ) -> (Self, Option<String>) {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        let line = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
        let request = upgrade_request(path).replace("\r\n\r\n", &line);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let (mut raw, head) = Self::switched(stream).await;
        let answer = head
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "))
            .map(str::to_owned);
        raw.may_compress = answer.is_some();
        (raw, answer)
    }

    /// Reads the server's half of the handshake.
    pub async fn upgraded(stream: TcpStream) -> Self {
        Self::switched(stream).await.0
    }

    async fn switched(stream: TcpStream) -> (Self, String) {
        let mut raw = Self { stream, received: Vec::new(), may_compress: false };
        let end = loop {
            if let Some(at) = raw.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(raw.more().await, "it ended within the handshake");
        };
        let head: Vec<u8> = raw.received.drain(..end).collect();
        let head = String::from_utf8(head).expect("ASCII");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let accept = format!("sec-websocket-accept: {ACCEPT}").to_lowercase();
        assert!(head.to_lowercase().contains(&accept), "{head}");
        (raw, head)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let sending = self.stream.write_all(bytes);
        timeout(patience(PATIENCE), sending).await.expect("sent in time").expect("open");
    }

    /// Sends a whole text frame.
    pub async fn say(&mut self, text: &str) {
        self.send(&frame(0x81, text.as_bytes())).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, bytes)) = parse_frame(&self.received) {
                self.received.drain(..bytes);
                assert!(self.may_compress || !frame.compressed, "nobody offered compression");
                return Some(frame);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next frame that is not a ping.
    pub async fn next_but_pings(&mut self) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(Frame { opcode: 9, .. }) => {}
                other => return other,
            }
        }
    }

    /// Reads on to the close frame and returns its code.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            let frame = self.next().await.expect("a close frame before the end");
            if frame.opcode == 8 {
                return frame.close_code();
            }
        }
    }

    async fn more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.received);
        matches!(
            timeout(patience(PATIENCE), reading).await.expect("something comes in time"),
            Ok(1..)
        )
    }
}

/// A masked frame as a client sends it; `first` is its first byte (FIN, RSV, opcode).
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, payload.len() as u64);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// The key of RFC 6455 5.7.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The header of a masked frame, in the shortest form.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(MASK);
    out
}

/// A frame from the server and its length.
fn parse_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "RFC 6455 5.1: a server does not mask");
    assert_eq!(first & 0xb0, 0x80, "ringcast sends whole frames, and compression at most");
    let (start, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        length => (2, u64::from(length)),
    };
    let end = start + usize::try_from(length).expect("a sane length");
    let payload = bytes.get(start..end)?.to_vec();
    Some((Frame { opcode: first & 0x0f, compressed: first & 0x40 != 0, payload }, end))
}
