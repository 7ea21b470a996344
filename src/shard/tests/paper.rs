//! A driver made of paper: what a peer sends is handed in, what the shard does with the socket is
//! written down.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;

use super::*;
use crate::io::{Description, Send, Waker};

#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) sent: Vec<u8>,
    /// Bytes it takes before it is full.
    pub(super) room: usize,
    pub(super) paused: bool,
    pub(super) shut: bool,
    pub(super) closed: bool,
    /// The next send finds the connection broken.
    pub(super) broken: bool,
}

#[derive(Debug)]
pub(super) struct Paper {
    pub(super) sockets: BTreeMap<SocketId, Socket>,
    pub(super) completions: VecDeque<Completion>,
    pub(super) received: Vec<Vec<u8>>,
    /// To whom something was sent, one after the other.
    pub(super) sent_to: Vec<SocketId>,
    pub(super) waker: Waker,
}

impl Driver for Paper {
    fn listen(&mut self, _: OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn stop_listening(&mut self) {
        self.completions.push_back(Completion::ListenerClosed);
    }

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
        completions.extend(self.completions.drain(..));
        Ok(())
    }

    fn received(&mut self, buffer: Buffer) -> &mut [u8] {
        &mut self.received[buffer.index as usize]
    }

    fn send(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        for Send { socket, slices } in sends {
            self.sent_to.push(*socket);
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let socket = self.sockets.get_mut(socket).expect("a socket that is open");
            assert!(!socket.closed && !socket.shut);
            if socket.broken {
                outcomes.push(Sent::Failed(io::ErrorKind::ConnectionReset.into()));
                continue;
            }
            let taken = bytes.len().min(socket.room);
            socket.room -= taken;
            socket.sent.extend_from_slice(&bytes[..taken]);
            outcomes.push(if taken == bytes.len() { Sent::Whole } else { Sent::Partial(taken) });
        }
    }

    fn await_writable(&mut self, _: SocketId) {}

    fn pause(&mut self, socket: SocketId) {
        self.sockets.get_mut(&socket).expect("a socket that is open").paused = true;
    }

    fn resume(&mut self, socket: SocketId) {
        self.sockets.get_mut(&socket).expect("a socket that is open").paused = false;
    }

    fn quiet(&mut self, _: SocketId) {}

    fn shutdown(&mut self, socket: SocketId) {
        self.sockets.get_mut(&socket).expect("a socket that is open").shut = true;
    }

    fn close(&mut self, socket: SocketId) {
        self.sockets.get_mut(&socket).expect("a socket that is open").closed = true;
    }

    fn describe(&self) -> Description {
        Description { name: "paper", descriptors: "none", notes: Vec::new() }
    }
}
