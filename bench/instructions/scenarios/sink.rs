//! A driver whose sockets take whatever they are sent, at no cost: what is counted with it is the
//! shard's own.

use std::cell::RefCell;
use std::hint::black_box;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use ringcast::io::epoll::Epoll;
use ringcast::io::{Buffer, Completion, Description, Driver, Send, Sent, SocketId, Waker};

/// See the [module](self).
pub(super) struct Sink {
    waker: Waker,
    received: Vec<u8>,
    peers: Peers,
}

/// The other ends of a sink's sockets.
#[derive(Clone, Default)]
pub(super) struct Peers(Rc<RefCell<Doings>>);

/// What the peers have done since the last harvest, and what became of them.
#[derive(Default)]
struct Doings {
    completions: Vec<Completion>,
    received: Vec<u8>,
    quieted: usize,
}

impl Sink {
    pub(super) fn new(peers: Peers) -> Self {
        // Only a driver of the product makes a waker.
        let epoll = Epoll::new(&ringcast::io::Settings::default()).expect("an epoll");
        Self { waker: epoll.waker(), received: Vec::new(), peers }
    }
}

impl Peers {
    /// A peer connects.
    pub(super) fn connect(&self, socket: SocketId) {
        let peer = ([10, 0, 0, 1], 40_000).into();
        self.0.borrow_mut().completions.push(Completion::Accepted { socket, peer });
    }

    /// A peer sends `bytes`; one of them a tick.
    pub(super) fn send(&self, socket: SocketId, bytes: &[u8]) {
        let mut doings = self.0.borrow_mut();
        doings.received.clear();
        doings.received.extend_from_slice(bytes);
        let buffer = Buffer::new(0, bytes.len() as u32);
        doings.completions.push(Completion::Received { socket, buffer });
    }

    /// How often a socket was called quiet.
    pub(super) fn quieted(&self) -> usize {
        self.0.borrow().quieted
    }
}

impl Driver for Sink {
    fn listen(&mut self, _: OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn stop_listening(&mut self) {}

    fn resume_accepting(&mut self) {}

    fn adopt(&mut self, _: OwnedFd) -> io::Result<SocketId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&mut self, _: SocketId) -> Option<OwnedFd> {
        None
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn harvest(
        &mut self,
        _: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let mut doings = self.peers.0.borrow_mut();
        completions.append(&mut doings.completions);
        std::mem::swap(&mut self.received, &mut doings.received);
        Ok(())
    }

    fn received(&mut self, _: Buffer) -> &mut [u8] {
        &mut self.received
    }

    fn send(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        black_box(sends);
        outcomes.extend(sends.iter().map(|_| Sent::Whole));
    }

    fn await_writable(&mut self, _: SocketId) {}

    fn pause(&mut self, _: SocketId) {}

    fn resume(&mut self, _: SocketId) {}

    fn quiet(&mut self, _: SocketId) {
        self.peers.0.borrow_mut().quieted += 1;
    }

    fn shutdown(&mut self, _: SocketId) {}

    fn close(&mut self, _: SocketId) {}

    fn describe(&self) -> Description {
        Description { name: "sink", descriptors: "none", notes: Vec::new() }
    }
}
