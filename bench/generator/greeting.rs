//! Opening a connection: connect, upgrade, and for ringcast the welcome and a subscription.
//!
//! It is done in batches of blocking calls: all of a batch connect, all ask, all are answered,
//! so a server sees a burst of clients and the generator stays simple.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::frames::{Frames, TEXT, write_masked};
use crate::servers::Dialect;

/// Connections opened together: below every listen backlog.
pub(super) const BATCH: usize = 64;

/// How long a server may take for one step of a greeting.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// The example of RFC 6455 1.3: a fixed key makes a ready-made answer a right one, so that the
/// floor needs no SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How connections are opened.
#[derive(Clone)]
pub(crate) struct Greeting {
    pub(crate) address: SocketAddr,
    /// The local address to connect from, when one has too few ports.
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) path: &'static str,
    /// Whether compression is offered.
    pub(crate) deflate: bool,
    pub(crate) dialect: Dialect,
    /// The channel to subscribe to, where the dialect has channels.
    pub(crate) channel: Option<&'static str>,
}

impl Greeting {
    /// How one connects to `/ws` and asks for nothing.
    pub(crate) fn new(address: SocketAddr, dialect: Dialect) -> Self {
        Self { address, source: None, path: "/ws", deflate: false, dialect, channel: None }
    }

    /// Opens connections; with each comes what arrived behind its greeting.
    pub(super) fn open_batch(&self, count: usize) -> io::Result<Vec<(TcpStream, Vec<u8>)>> {
        let mut opened = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = self.connect()?;
            self.ask(&mut stream)?;
            opened.push((stream, Vec::new()));
        }
        for (stream, carry) in &mut opened {
            read_switching(stream, carry)?;
            if self.dialect == Dialect::Ringcast && self.path == "/ws" {
                read_until(stream, carry, b"welcome")?;
                self.subscribe(stream)?;
            }
        }
        if self.dialect == Dialect::Ringcast && self.channel.is_some() {
            for (stream, carry) in &mut opened {
                read_until(stream, carry, b"subscribed")?;
            }
        }
        Ok(opened)
    }

    /// Opens one connection that belongs to no fleet.
    pub(crate) fn open_one(&self) -> io::Result<TcpStream> {
        let (stream, carry) = self.open_batch(1)?.pop().expect("one was asked for");
        match carry.is_empty() {
            true => Ok(stream),
            false => Err(io::Error::other("the server said more than its greeting")),
        }
    }

    /// Only connects.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.connect(&self.address.into())?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        reset_on_close(&stream)?;
        Ok(stream)
    }

    /// Sends the upgrade request.
    pub(crate) fn ask(&self, stream: &mut TcpStream) -> io::Result<()> {
        let offer = match self.deflate {
            true => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            false => "",
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n",
            self.path, self.address
        );
        stream.write_all(request.as_bytes())
    }

    /// Reads the answer to the upgrade request.
    pub(crate) fn answered(&self, stream: &mut TcpStream) -> io::Result<()> {
        read_switching(stream, &mut Vec::new())
    }

    fn subscribe(&self, stream: &mut TcpStream) -> io::Result<()> {
        let Some(channel) = self.channel else { return Ok(()) };
        let text = format!(r#"{{"type":"subscribe","id":1,"channel":"{channel}"}}"#);
        let mut frame = Vec::new();
        write_masked(&mut frame, TEXT, text.as_bytes());
        stream.write_all(&frame)
    }
}

/// Makes closing send a reset, so that no end keeps a TIME_WAIT socket that costs a port and
/// kernel memory in the next run.
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Reads the response head; what follows it goes to `carry`.
fn read_switching(stream: &mut TcpStream, carry: &mut Vec<u8>) -> io::Result<()> {
    loop {
        read_more(stream, carry)?;
        if let Some(end) = memchr::memmem::find(carry, b"\r\n\r\n") {
            let head = &carry[..end];
            let right =
                head.starts_with(b"HTTP/1.1 101 ") && memchr::memmem::find(head, ACCEPT).is_some();
            if !right {
                let text = String::from_utf8_lossy(head).into_owned();
                return Err(io::Error::other(format!("the upgrade was answered with: {text}")));
            }
            carry.drain(..end + 4);
            return Ok(());
        }
    }
}

/// Reads frames up to and including the one whose envelope has this type.
fn read_until(stream: &mut TcpStream, carry: &mut Vec<u8>, name: &[u8]) -> io::Result<()> {
    loop {
        let mut frames = Frames::new(carry);
        while let Some(frame) = frames.next() {
            if frame.is_type(b"error") {
                return Err(io::Error::other(format!("the server says {}", frame.text())));
            }
            if frame.is_type(name) {
                let rest = frames.rest().to_vec();
                *carry = rest;
                return Ok(());
            }
        }
        read_more(stream, carry)?;
    }
}

fn read_more(stream: &mut TcpStream, carry: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).map_err(|error| {
        io::Error::new(error.kind(), format!("waiting for the server's greeting: {error}"))
    })?;
    if count == 0 {
        return Err(io::Error::other("the server closed during the greeting"));
    }
    carry.extend_from_slice(&bytes[..count]);
    Ok(())
}
