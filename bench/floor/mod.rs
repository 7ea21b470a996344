//! The floor: what the kernel's part costs alone. Accept, recv, send of bytes made ready before
//! the first client came. It parses nothing and checks nothing, so no server can be cheaper on
//! the same sockets; what a real server costs above it is the server's own share.
//!
//! It counts requests by their length on the wire, which the generator keeps fixed.

mod epoll;
mod uring;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use clap::ValueEnum;
use socket2::{Domain, Socket, Type};

use crate::machine;

/// Answers and messages kept ready back to back, so that many leave in one send.
const COPIES: usize = 1024;

/// Bytes taken by one recv.
const RECEIVE_BYTES: usize = 64 * 1024;

/// The handshake's answer to the one key the generator uses (RFC 6455 1.3, the RFC's example).
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Driver {
    Uring,
    Epoll,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, value_enum)]
    driver: Driver,
    #[arg(long)]
    port: u16,
    /// Bytes of one request on the wire.
    #[arg(long, default_value_t = 136)]
    request_bytes: usize,
    /// Bytes of the answer to each request; 0: none.
    #[arg(long, default_value_t = 132)]
    answer_bytes: usize,
    /// Bytes of the message each request sends to every subscriber; 0: none.
    #[arg(long, default_value_t = 0)]
    deliver_bytes: usize,
    /// Answers handshakes, then holds the sockets with nothing armed.
    #[arg(long)]
    idle: bool,
}

/// Serves until it is killed.
pub(crate) fn serve(arguments: &Arguments) -> io::Result<()> {
    machine::raise_descriptor_limit()?;
    let listener = listen(arguments.port)?;
    if arguments.idle {
        return hold(&listener);
    }
    let bytes = Ready::new(arguments);
    match arguments.driver {
        Driver::Epoll => epoll::serve(&listener, &bytes),
        Driver::Uring => uring::serve(&listener, &bytes),
    }
}

/// Everything that is ever sent.
struct Ready {
    request_bytes: usize,
    answer_bytes: usize,
    deliver_bytes: usize,
    answers: Vec<u8>,
    messages: Vec<u8>,
}

impl Ready {
    fn new(arguments: &Arguments) -> Self {
        Self {
            request_bytes: arguments.request_bytes.max(1),
            answer_bytes: arguments.answer_bytes,
            deliver_bytes: arguments.deliver_bytes,
            answers: ready_frame(arguments.answer_bytes, b"{\"type\":\"ack\",").repeat(COPIES),
            messages: ready_frame(arguments.deliver_bytes, b"{\"type\":\"message\",")
                .repeat(COPIES),
        }
    }

    fn answers(&self, count: usize) -> &[u8] {
        assert!(count <= COPIES, "the generator keeps fewer than {COPIES} requests outstanding");
        &self.answers[..count * self.answer_bytes]
    }

    fn messages(&self, count: usize) -> &[u8] {
        assert!(count <= COPIES, "the generator keeps fewer than {COPIES} requests outstanding");
        &self.messages[..count * self.deliver_bytes]
    }
}

/// What the floor knows of one socket.
#[derive(Clone, Copy, Default)]
struct Peer {
    /// The request line has been answered.
    switched: bool,
    /// Gets the messages.
    subscriber: bool,
    /// Bytes of a request that is not whole yet.
    partial_bytes: usize,
}

impl Peer {
    /// Counts the requests that `bytes` more bytes complete.
    fn requests(&mut self, bytes: usize, request_bytes: usize) -> usize {
        let all = self.partial_bytes + bytes;
        self.partial_bytes = all % request_bytes;
        all / request_bytes
    }

    /// Takes the upgrade request, which the generator sends in one piece.
    fn switch(&mut self, head: &[u8]) {
        self.switched = true;
        self.subscriber = head.starts_with(b"GET /ws ");
    }
}

/// A floor that cannot send everything at once would have to queue, and is then no floor.
fn must_be_whole(sent: i64, wanted: usize) {
    // A peer that has gone is the peer's affair.
    let gone = sent == -i64::from(libc::EPIPE) || sent == -i64::from(libc::ECONNRESET);
    if !gone && sent != wanted as i64 {
        eprintln!("floor: sent {sent} of {wanted}: a socket is full, the load is too deep");
        std::process::exit(3);
    }
}

/// One unmasked text frame of exactly `wire_bytes` bytes that starts with `text`.
fn ready_frame(wire_bytes: usize, text: &[u8]) -> Vec<u8> {
    if wire_bytes == 0 {
        return Vec::new();
    }
    let mut frame = vec![0x81];
    if wire_bytes - 2 < 126 {
        frame.push((wire_bytes - 2) as u8);
    } else {
        frame.push(126);
        frame.extend_from_slice(&((wire_bytes - 4) as u16).to_be_bytes());
    }
    frame.extend_from_slice(&text[..text.len().min(wire_bytes - frame.len())]);
    frame.resize(wire_bytes, b'x');
    frame
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// The bare pair of sockets that idle memory is compared with.
fn hold(listener: &TcpListener) -> io::Result<()> {
    let mut held: Vec<TcpStream> = Vec::new();
    let mut head = [0; 4096];
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        if stream.read(&mut head).is_ok_and(|bytes| bytes > 0)
            && stream.write_all(SWITCHING).is_ok()
        {
            held.push(stream);
        }
    }
}
