//! The outside world behind one contract: sockets in, completions out.
//!
//! Read [`Driver`] first, then [`Completion`]; `uring` and `epoll` are two ways to keep the
//! same promises, and one suite (`tests/contract`) holds both to them. Which of them serves is
//! [`choose`]n once at start. `sim` is a third, with a network made of memory. Nearly all `unsafe` of the project lives below this folder.

pub mod epoll;
pub mod sim;
pub mod uring;

mod choice;
mod listener;
mod sockets;
mod waker;

pub use choice::{Choice, Preference, Settings, choose};
pub use listener::{ListenerSettings, cannot_listen, listener};
pub use waker::Waker;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::mem::Key;

/// Names one socket of one driver, from accept or adoption until [`Driver::close`].
/// The shard keeps everything it knows of a connection under the same key.
pub type SocketId = Key;

/// What the world did. Every value is a fact of the past; nothing in it waits for an answer.
#[derive(Debug)]
pub enum Completion {
    /// A peer connected. The socket is armed for receiving.
    Accepted {
        /// Its name from now on.
        socket: SocketId,
        /// Where the peer is.
        peer: SocketAddr,
    },
    /// Accepting failed for want of something (descriptors, memory). The driver has paused
    /// accepting; [`Driver::resume_accepting`] tries again.
    AcceptFailed {
        /// What was wanting.
        error: io::Error,
    },
    /// Bytes arrived; [`Driver::received`] lends them until the next harvest.
    Received {
        /// From whom.
        socket: SocketId,
        /// Where they are.
        buffer: Buffer,
    },
    /// The peer has said all it will say (FIN). Told once, after every byte; sending may still
    /// succeed. If the connection breaks later, sends tell it and [`Writable`](Self::Writable)
    /// comes to who awaits it; a [`Failed`](Self::Failed) may be told or not, because nothing
    /// need be kept armed for a peer that has said all.
    EndOfStream {
        /// Which peer.
        socket: SocketId,
    },
    /// A socket that was full takes bytes again. Told once for each
    /// [`Driver::await_writable`].
    Writable {
        /// Which socket.
        socket: SocketId,
    },
    /// The connection is broken (reset, timed out, unreachable). Told at most once, after every
    /// byte that could still be received; nothing but [`Driver::close`] makes sense afterwards.
    /// Where a send met the failure first ([`Sent::Failed`]), an
    /// [`EndOfStream`](Self::EndOfStream) may be told instead: the kernel hands an error out once.
    Failed {
        /// Which socket.
        socket: SocketId,
        /// How it broke.
        error: io::Error,
    },
    /// Another thread called [`Waker::wake`]. Any number of calls may share one completion.
    Woken,
    /// After [`Driver::stop_listening`]: no [`Completion::Accepted`] will follow.
    ListenerClosed,
}

/// Bytes that the driver received into memory of its own, valid until the next harvest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Which receive buffer.
    pub(crate) index: u32,
    /// How many bytes of it are filled.
    pub(crate) bytes: u32,
}

impl Buffer {
    /// The first `bytes` of the driver's receive buffer `index`.
    #[must_use]
    pub const fn new(index: u32, bytes: u32) -> Self {
        Self { index, bytes }
    }

    /// How many bytes arrived.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bytes as usize
    }
}

/// One gathered send: the slices leave in order, as one.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    /// To whom.
    pub socket: SocketId,
    /// What, in order. Never empty; at most [`SLICES_PER_SEND_MAX`] slices.
    pub slices: &'a [io::IoSlice<'a>],
}

/// How one [`Send`] ended. It has always ended when [`Driver::send`] returns.
#[derive(Debug)]
pub enum Sent {
    /// The kernel took everything.
    Whole,
    /// The kernel took this many bytes (0 when the socket was full) and no more; send the rest
    /// after [`Driver::await_writable`] has been answered.
    Partial(usize),
    /// The connection is broken.
    Failed(io::Error),
}

/// Slices in one gathered send. The kernel's own limit is 1024 (UIO_MAXIOV); 64 messages in one
/// send already make the call's cost vanish, and the arrays stay on one page.
pub const SLICES_PER_SEND_MAX: usize = 64;

/// What a driver is, for the log and the metrics page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// "uring" or "epoll".
    pub name: &'static str,
    /// "direct" or "regular" descriptors.
    pub descriptors: &'static str,
    /// What was chosen and why, one sentence a line.
    pub notes: Vec<String>,
}

/// The world as a shard sees it: a set of sockets that are accepted, received from, sent to and
/// closed, one tick at a time, by one thread.
///
/// The grammar: `Completion`s say what the world did; plain verbs say what we want. A tick is
/// one [`harvest`](Driver::harvest), then any number of verbs.
pub trait Driver: Sized {
    /// Accepts from `listener` from now on. Options that sockets inherit (TCP_NODELAY,
    /// SO_SNDBUF, TCP_NOTSENT_LOWAT) are already set on it. At most one listener.
    ///
    /// # Errors
    /// When the kernel does not take the listener.
    fn listen(&mut self, listener: OwnedFd) -> io::Result<()>;

    /// Stops accepting the safe way: what the kernel had accepted by then is still reported,
    /// then [`Completion::ListenerClosed`] follows, once.
    fn stop_listening(&mut self);

    /// Tries again after [`Completion::AcceptFailed`].
    fn resume_accepting(&mut self);

    /// Takes over a connected socket that another driver released.
    ///
    /// # Errors
    /// When no room is left for it; the socket is closed then.
    fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId>;

    /// Lets go of a socket that was just accepted and nothing else has happened to, so that
    /// another thread's driver can adopt it. `None` where this kernel cannot: the socket stays.
    fn release(&mut self, socket: SocketId) -> Option<OwnedFd>;

    /// Wakes this driver out of its rest from any thread.
    fn waker(&self) -> Waker;

    /// Ends the tick before: its buffers go back. Then appends what happened since to
    /// `completions`, a bounded number, waiting for the first one up to `rest`
    /// (`None`: for as long as it takes; zero: not at all). It may return early with nothing:
    /// something happened that concerns only the driver.
    ///
    /// # Errors
    /// When the driver itself is broken; the shard cannot go on.
    fn harvest(
        &mut self,
        rest: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()>;

    /// The bytes of a [`Completion::Received`] of this tick, to be unmasked where they are.
    ///
    /// # Panics
    /// When `buffer` is of an earlier tick.
    fn received(&mut self, buffer: Buffer) -> &mut [u8];

    /// Sends each of `sends` and appends how each ended to `outcomes`, in the same order.
    /// At most one send for a socket in one call. When this returns, the kernel holds no
    /// reference to any of the slices. A send to a socket that is closed already fails.
    ///
    /// # Panics
    /// When a send has no slice, or more than [`SLICES_PER_SEND_MAX`].
    fn send(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>);

    /// Asks for one [`Completion::Writable`] when a full socket takes bytes again.
    fn await_writable(&mut self, socket: SocketId);

    /// Receives no more from `socket` until [`resume`](Driver::resume): nothing received, no end
    /// of the stream and no failure to receive is reported from the next harvest on, and nothing
    /// is lost. (A broken connection still shows when it is sent to.)
    fn pause(&mut self, socket: SocketId);

    /// Receives again after [`pause`](Driver::pause).
    fn resume(&mut self, socket: SocketId);

    /// Tells that `socket` has been silent for long, so that it may be kept the cheap way.
    fn quiet(&mut self, socket: SocketId);

    /// Sends a FIN after what was sent; receiving goes on.
    fn shutdown(&mut self, socket: SocketId);

    /// Forgets `socket` and closes it. No completion names it from the next harvest on. The
    /// name is not given out again before its generation has changed.
    fn close(&mut self, socket: SocketId);

    /// What this driver is.
    fn describe(&self) -> Description;
}

/// A peer's address as the log and the limits want it: IPv4 as IPv4, also when it came through
/// a listener that serves both.
fn peer(address: &socket2::SockAddr) -> SocketAddr {
    match address.as_socket() {
        Some(address) => SocketAddr::new(address.ip().to_canonical(), address.port()),
        // Only a listener that is no IP socket could have such peers.
        None => SocketAddr::from(([0, 0, 0, 0], 0)),
    }
}
