//! The load generator: many clients in one loop on one thread.
//!
//! `frames` reads and writes just enough of RFC 6455 to be fast; `greeting` opens connections.
//! A `Fleet` owns the clients and hears them. By default it polls the kernel without sleeping,
//! so that no server is charged for waking its clients.

mod frames;
mod greeting;

use std::io::{self, Read, Write};
use std::net::TcpStream;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use frames::PONG;
pub(crate) use frames::{Frame, Frames, TEXT, write_masked};
pub(crate) use greeting::Greeting;

/// Bytes taken by one recv: more than a server can have outstanding for one client here.
const RECEIVE_BYTES: usize = 256 * 1024;

/// Clients heard in one turn.
const EVENTS: usize = 512;

/// How long a sleeping generator sleeps at most.
const SLEEP_MS: u16 = 2;

/// One connection of the generator.
struct Client {
    stream: TcpStream,
    /// The start of a frame whose rest has not arrived.
    carry: Vec<u8>,
    /// What the kernel would not take yet.
    unsent: Vec<u8>,
    open: bool,
}

/// Many clients, heard together.
pub(crate) struct Fleet {
    epoll: Epoll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    events: Vec<EpollEvent>,
    /// Clients that have unsent bytes.
    waiting: Vec<usize>,
    timeout: EpollTimeout,
    closed: usize,
}

impl Fleet {
    /// A fleet without clients; `sleep` lets it wait in the kernel for events.
    pub(crate) fn new(sleep: bool) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            clients: Vec::new(),
            buffer: vec![0; RECEIVE_BYTES],
            events: vec![EpollEvent::empty(); EVENTS],
            waiting: Vec::new(),
            timeout: if sleep { EpollTimeout::from(SLEEP_MS) } else { EpollTimeout::ZERO },
            closed: 0,
        })
    }

    /// Opens `count` connections as `greeting` says; returns the index of the first.
    pub(crate) fn open(&mut self, greeting: &Greeting, count: usize) -> io::Result<usize> {
        let first = self.clients.len();
        let mut left = count;
        while left > 0 {
            let batch = left.min(greeting::BATCH);
            for (stream, carry) in greeting.open_batch(batch)? {
                self.join(stream, carry)?;
            }
            left -= batch;
        }
        Ok(first)
    }

    fn join(&mut self, stream: TcpStream, carry: Vec<u8>) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let index = self.clients.len() as u64;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&stream, EpollEvent::new(flags, index))?;
        self.clients.push(Client { stream, carry, unsent: Vec::new(), open: true });
        Ok(())
    }

    /// Connections that ended although nobody here ended them.
    pub(crate) fn closed(&self) -> usize {
        self.closed
    }

    /// Hears every client that has something, once. `receive` gets the client's index, the whole
    /// frames that are there, and the bytes this recv brought.
    pub(crate) fn hear(
        &mut self,
        mut receive: impl FnMut(usize, &mut Frames<'_>, usize),
    ) -> io::Result<()> {
        self.send_unsent()?;
        let count = match self.epoll.wait(&mut self.events, self.timeout) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &self.events[..count] {
            let index = event.data() as usize;
            let client = &mut self.clients[index];
            // Edge-triggered: read until a recv does not fill the buffer.
            loop {
                let carried = client.carry.len();
                if self.buffer.len() < carried + RECEIVE_BYTES {
                    self.buffer.resize(carried + RECEIVE_BYTES, 0);
                }
                self.buffer[..carried].copy_from_slice(&client.carry);
                let bytes = match client.stream.read(&mut self.buffer[carried..]) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => 0,
                };
                if bytes == 0 {
                    if client.open {
                        client.open = false;
                        self.closed += 1;
                    }
                    break;
                }
                let mut frames = Frames::new(&self.buffer[..carried + bytes]);
                receive(index, &mut frames, bytes);
                while frames.next().is_some() {}
                client.carry.clear();
                client.carry.extend_from_slice(frames.rest());
                if carried + bytes < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sends bytes that are already frames. What the kernel does not take waits here.
    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let client = &mut self.clients[index];
        if !client.unsent.is_empty() {
            client.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = send_some(&mut client.stream, bytes)?;
        if sent < bytes.len() {
            client.unsent.extend_from_slice(&bytes[sent..]);
            self.waiting.push(index);
        }
        Ok(())
    }

    /// Answers the pings that clients have got, and forgets them.
    pub(crate) fn answer(&mut self, pings: &mut Vec<(usize, Vec<u8>)>) -> io::Result<()> {
        for (client, payload) in pings.drain(..) {
            let mut pong = Vec::new();
            write_masked(&mut pong, PONG, &payload);
            self.send(client, &pong)?;
        }
        Ok(())
    }

    fn send_unsent(&mut self) -> io::Result<()> {
        for position in (0..self.waiting.len()).rev() {
            let client = &mut self.clients[self.waiting[position]];
            let sent = send_some(&mut client.stream, &client.unsent)?;
            client.unsent.drain(..sent);
            if client.unsent.is_empty() {
                self.waiting.swap_remove(position);
            }
        }
        Ok(())
    }
}

fn send_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(io::Error::other(format!("the server does not take a request: {error}"))),
        sent => sent,
    }
}
