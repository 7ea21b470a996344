//! One TCP connection: two pipes with a beginning, a length and an end.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::SocketId;

/// Names a connection of a [`Network`](super::Network); not given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) u32);

/// How a connection carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Microseconds from one end to the other.
    pub latency_us: u64,
    /// Bytes a second, each way.
    pub bytes_per_s: u64,
    /// Bytes from the peer that may be on their way or unread.
    pub up_bytes_max: usize,
    /// Bytes to the peer that may be on their way or unread: beyond it the server's socket is
    /// full.
    pub down_bytes_max: usize,
}

/// A way through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From the peer to the server.
    Up,
    /// From the server to the peer.
    Down,
}

/// What travels through a pipe.
#[derive(Debug)]
pub(super) enum Packet {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Sent and not arrived.
    pub(super) flying: VecDeque<Packet>,
    /// Arrived and not read.
    pub(super) arrived: VecDeque<u8>,
    /// Bytes flying and arrived.
    pub(super) outstanding: usize,
    pub(super) bytes_max: usize,
    /// When the last packet arrives: nothing overtakes.
    pub(super) busy_until: u64,
    /// A FIN has arrived.
    pub(super) fin: bool,
    /// A reset has arrived.
    pub(super) reset: bool,
    /// The sender has sent a FIN.
    pub(super) finished: bool,
    /// Bytes that were ever sent.
    pub(super) sent: u64,
}

impl Pipe {
    fn new(bytes_max: usize) -> Self {
        Self {
            flying: VecDeque::new(),
            arrived: VecDeque::new(),
            outstanding: 0,
            bytes_max,
            busy_until: 0,
            fin: false,
            reset: false,
            finished: false,
            sent: 0,
        }
    }

    pub(super) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.outstanding)
    }

    /// Reads up to `bytes_max` of what has arrived.
    pub(super) fn read(&mut self, bytes_max: usize) -> Vec<u8> {
        let count = self.arrived.len().min(bytes_max);
        self.outstanding -= count;
        self.arrived.drain(..count).collect()
    }

    /// Forgets what nobody will read.
    pub(super) fn clear(&mut self) {
        self.outstanding -= self.arrived.len();
        self.arrived.clear();
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    pub(super) line: Line,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) server: Server,
    /// The peer has closed its end: what comes for it is answered with a reset.
    pub(super) peer_gone: bool,
    /// No packet passes any more, and nobody is told.
    pub(super) cut: bool,
    /// Where in the stream to the peer a send ended before its end.
    pub(super) partial_sends: Vec<u64>,
    /// Where in that stream each send ended, and when it was made.
    pub(super) sends: Vec<(u64, u64)>,
}

/// The server's end.
#[derive(Debug)]
pub(super) enum Server {
    /// On its way into the listener's queue, or in it.
    Waiting,
    /// Released by one driver and not adopted by another.
    Released,
    /// A driver's socket.
    Open(Held),
    /// Closed.
    Gone,
}

/// What a driver has been asked of a socket.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) socket: SocketId,
    /// Something was received from it or sent to it.
    pub(super) touched: bool,
    pub(super) paused: bool,
    pub(super) awaiting: bool,
    /// Before that it is not told that the socket takes bytes again.
    pub(super) writable_at: u64,
    pub(super) told_end: bool,
    pub(super) told_failed: bool,
}

impl Link {
    pub(super) fn new(peer: SocketAddr, line: Line) -> Self {
        Self {
            peer,
            line,
            up: Pipe::new(line.up_bytes_max),
            down: Pipe::new(line.down_bytes_max),
            server: Server::Waiting,
            peer_gone: false,
            cut: false,
            partial_sends: Vec::new(),
            sends: Vec::new(),
        }
    }

    /// What the driver that holds the socket keeps of it.
    pub(super) fn held(&mut self) -> Option<&mut Held> {
        match &mut self.server {
            Server::Open(held) => Some(held),
            _ => None,
        }
    }

    /// Whether the driver has something to tell of this socket at `now`.
    pub(super) fn has_news(&self, now: u64) -> bool {
        let Server::Open(held) = &self.server else { return false };
        self.is_writable(held, now) || (!held.paused && self.has_received(held))
    }

    /// Whether it is to be told that the socket takes bytes again. The kernel waits until a third
    /// of the buffer is free.
    pub(super) fn is_writable(&self, held: &Held, now: u64) -> bool {
        let has_room = self.down.room() * 3 >= self.down.bytes_max || self.up.reset;
        held.awaiting && held.writable_at <= now && has_room
    }

    fn has_received(&self, held: &Held) -> bool {
        !self.up.arrived.is_empty()
            || (self.up.reset && !held.told_failed)
            || (self.up.fin && !self.up.reset && !held.told_end)
    }
}
