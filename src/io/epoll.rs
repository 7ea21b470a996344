//! The driver for machines without io_uring: readiness from epoll, then one system call for
//! each receive and each send.
//!
//! Receiving is level-triggered: what one tick leaves in a socket the next one finds. A socket
//! that nothing is wanted from (paused, or at its end) is kept edge-triggered with no event
//! asked for, because the kernel reports hang-ups and errors whether asked or not, and
//! level-triggered they would turn the loop into a spin.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{self as sys, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;

use super::sockets::Sockets;
use super::{
    Buffer, Completion, Description, Driver, SLICES_PER_SEND_MAX, Send, Sent, Settings, SocketId,
    Waker,
};
use crate::limits::COMPLETIONS_PER_TICK_MAX;

/// Events taken in one tick. Each makes three completions at most (bytes, more bytes or the
/// end, room to write).
const EVENTS_PER_TICK_MAX: usize = COMPLETIONS_PER_TICK_MAX / 4;

/// Sockets accepted in one tick, so that a burst of connects does not starve those who are in.
const ACCEPTS_PER_TICK_MAX: usize = COMPLETIONS_PER_TICK_MAX / 4;

/// Receives from one socket in one tick.
const RECEIVES_PER_SOCKET_MAX: usize = 2;

/// Messages of two clients share no line of the cache.
const BUFFER_ALIGNMENT: usize = 64;

const TAG_SOCKET: u8 = 0;
const TAG_LISTENER: u8 = 1;
const TAG_BELL: u8 = 2;

/// See the [module](self).
#[derive(Debug)]
pub struct Epoll {
    epoll: sys::Epoll,
    events: Vec<EpollEvent>,
    waker: Waker,
    listener: Option<OwnedFd>,
    accepting: Accepting,
    sockets: Sockets<Socket>,
    sockets_max: usize,
    /// What one send hands over the kernel keeps apart.
    sends_apart: bool,
    arena: Vec<u8>,
    buffer_bytes: usize,
    /// The buffers of this tick. One begins where the one before ends, so that a tick of small
    /// messages touches little memory.
    lent: Vec<Lent>,
    buffers_max: usize,
}

/// A part of the arena that has been received into.
#[derive(Debug, Clone, Copy)]
struct Lent {
    offset: usize,
    bytes: u32,
}

impl Lent {
    /// Where the next buffer may begin.
    const fn end(self) -> usize {
        self.offset + (self.bytes as usize).next_multiple_of(BUFFER_ALIGNMENT)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    No,
    Yes,
    /// The kernel had no room; nothing is tried until `resume_accepting`.
    Paused,
    /// `stop_listening` was called: take what waits, then close.
    Stopping,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    paused: bool,
    /// The end of the stream was told.
    ended: bool,
    /// The failure was told: nothing more will be.
    failed: bool,
    awaits_writable: bool,
}

impl Socket {
    const fn receives(&self) -> bool {
        !self.paused && !self.ended && !self.failed
    }

    fn interest(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        if self.receives() {
            flags |= EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        } else {
            flags |= EpollFlags::EPOLLET;
        }
        if self.awaits_writable {
            flags |= EpollFlags::EPOLLOUT;
        }
        flags
    }
}

/// How one visit to a readable socket ended.
enum Visit {
    /// It goes on; what is left is found by the next tick.
    Open,
    Ended,
    Failed(io::Error),
}

impl Epoll {
    /// A driver with no socket.
    ///
    /// # Errors
    /// When the process has no descriptor left for it.
    pub fn new(settings: &Settings) -> io::Result<Self> {
        let epoll = sys::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|error| explained(error, "an epoll instance"))?;
        let waker = Waker::new()?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(waker.bell(), EpollEvent::new(flags, SocketId::new(0, 0).pack(TAG_BELL)))?;
        let buffers_max = usize::from(settings.receive_buffers.max(1));
        let buffer_bytes = settings.receive_buffer_bytes as usize;
        Ok(Self {
            epoll,
            events: vec![EpollEvent::empty(); EVENTS_PER_TICK_MAX],
            waker,
            listener: None,
            accepting: Accepting::No,
            sockets: Sockets::new(),
            sockets_max: settings.sockets_max,
            sends_apart: settings.sends_apart,
            arena: vec![0; buffers_max * buffer_bytes.next_multiple_of(BUFFER_ALIGNMENT)],
            buffer_bytes,
            lent: Vec::with_capacity(buffers_max),
            buffers_max,
        })
    }

    /// Tells the kernel what is wanted of `socket` now.
    fn watch(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            let mut event = EpollEvent::new(state.interest(), socket.pack(TAG_SOCKET));
            // Fails only for want of memory, and then for a socket that is watched already: the
            // watch it has stays, which at worst reports what is ignored.
            let _ = self.epoll.modify(&state.fd, &mut event);
        }
    }

    fn insert(&mut self, fd: OwnedFd) -> io::Result<SocketId> {
        let state =
            Socket { fd, paused: false, ended: false, failed: false, awaits_writable: false };
        let socket = self.sockets.insert(state);
        let state = self.sockets.get(socket).expect("it was just inserted");
        let event = EpollEvent::new(state.interest(), socket.pack(TAG_SOCKET));
        if let Err(error) = self.epoll.add(&state.fd, event) {
            self.close(socket);
            return Err(explained(error, "a socket's watch"));
        }
        Ok(socket)
    }

    /// Takes what waits in the listener's queue.
    fn accept(&mut self, completions: &mut Vec<Completion>) {
        for _ in 0..ACCEPTS_PER_TICK_MAX {
            let Some(listener) = &self.listener else { return };
            if self.sockets.open() >= self.sockets_max {
                let error =
                    io::Error::other(format!("all {} sockets are in use", self.sockets_max));
                return self.accept_failed(error, completions);
            }
            let accepted = SockRef::from(listener)
                .accept()
                .and_then(|(fd, peer)| Ok((self.insert(fd.into())?, peer)));
            match accepted {
                Ok((socket, peer)) => {
                    completions.push(Completion::Accepted { socket, peer: super::peer(&peer) });
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        if self.accepting == Accepting::Stopping {
                            self.listener = None;
                            self.accepting = Accepting::No;
                            completions.push(Completion::ListenerClosed);
                        }
                        return;
                    }
                    // That connection is gone before it was accepted; the next may be fine.
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM) => {}
                    _ => return self.accept_failed(error, completions),
                },
            }
        }
    }

    fn accept_failed(&mut self, error: io::Error, completions: &mut Vec<Completion>) {
        let listener = self.listener.as_ref().expect("it was just accepted from");
        if self.accepting == Accepting::Stopping {
            self.listener = None;
            self.accepting = Accepting::No;
            completions.push(Completion::ListenerClosed);
            return;
        }
        // It would be reported readable for as long as the want lasts. Its watch is kept, because
        // a new one could be refused for the very want, and then nobody would try again.
        watch_listener(&self.epoll, listener, EpollFlags::EPOLLET);
        self.accepting = Accepting::Paused;
        completions.push(Completion::AcceptFailed { error });
    }

    fn handle(&mut self, event: EpollEvent, completions: &mut Vec<Completion>) {
        let (tag, socket) = SocketId::unpack(event.data());
        match tag {
            TAG_SOCKET => self.handle_socket(socket, event.events(), completions),
            TAG_LISTENER if self.accepting == Accepting::Yes => self.accept(completions),
            _ => {}
        }
    }

    fn handle_socket(
        &mut self,
        socket: SocketId,
        flags: EpollFlags,
        completions: &mut Vec<Completion>,
    ) {
        let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        let Some(state) = self.sockets.get(socket) else { return };
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | broken)
            && state.receives()
        {
            match self.receive(socket, completions) {
                Visit::Open => {}
                Visit::Ended => {
                    self.state(socket).ended = true;
                    self.watch(socket);
                    completions.push(Completion::EndOfStream { socket });
                }
                Visit::Failed(error) => self.fail(socket, error, completions),
            }
        } else if flags.contains(EpollFlags::EPOLLERR)
            && state.ended
            && !state.failed
            && !state.paused
        {
            // After the end of the stream a reset shows in no receive any more.
            let error = SockRef::from(&state.fd).take_error().ok().flatten();
            let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
            self.fail(socket, error, completions);
        }
        let state = self.state(socket);
        if state.awaits_writable && flags.intersects(EpollFlags::EPOLLOUT | broken) {
            state.awaits_writable = false;
            self.watch(socket);
            completions.push(Completion::Writable { socket });
        }
    }

    fn fail(&mut self, socket: SocketId, error: io::Error, completions: &mut Vec<Completion>) {
        self.state(socket).failed = true;
        self.watch(socket);
        completions.push(Completion::Failed { socket, error });
    }

    /// Reads a readable socket into what buffers are left.
    fn receive(&mut self, socket: SocketId, completions: &mut Vec<Completion>) -> Visit {
        let fd = self.state(socket).fd.as_raw_fd();
        for _ in 0..RECEIVES_PER_SOCKET_MAX {
            let index = self.lent.len();
            if index == self.buffers_max {
                return Visit::Open;
            }
            let offset = self.lent.last().map_or(0, |last| last.end());
            let buffer = &mut self.arena[offset..][..self.buffer_bytes];
            match recv(fd, buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Visit::Ended,
                Ok(count) => {
                    let buffer = Buffer {
                        index: u32::try_from(index).expect("buffers are counted in 16 bits"),
                        bytes: u32::try_from(count).expect("a buffer's length fits 32 bits"),
                    };
                    self.lent.push(Lent { offset, bytes: buffer.bytes });
                    completions.push(Completion::Received { socket, buffer });
                    if count < self.buffer_bytes {
                        return Visit::Open;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Visit::Open,
                Err(error) => return Visit::Failed(error.into()),
            }
        }
        Visit::Open
    }

    fn state(&mut self, socket: SocketId) -> &mut Socket {
        self.sockets.get(socket).expect("the caller has just looked it up")
    }

    fn send_one(&mut self, send: &Send<'_>) -> Sent {
        assert!(
            (1..=SLICES_PER_SEND_MAX).contains(&send.slices.len()),
            "a send has 1 to {SLICES_PER_SEND_MAX} slices"
        );
        let Some(state) = self.sockets.get(send.socket) else {
            return Sent::Failed(io::ErrorKind::NotConnected.into());
        };
        let wanted: usize = send.slices.iter().map(|slice| slice.len()).sum();
        let apart = if self.sends_apart { libc::MSG_EOR } else { 0 };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | apart;
        let socket = SockRef::from(&state.fd);
        loop {
            let result = match send.slices {
                [slice] => socket.send_with_flags(slice, flags),
                slices => socket.send_vectored_with_flags(slices, flags),
            };
            return match result {
                Ok(count) if count == wanted => Sent::Whole,
                Ok(count) => Sent::Partial(count),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Sent::Partial(0),
                    io::ErrorKind::Interrupted => continue,
                    _ => Sent::Failed(error),
                },
            };
        }
    }
}

impl Driver for Epoll {
    fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        assert!(self.listener.is_none(), "a driver has at most one listener");
        SockRef::from(&listener).set_nonblocking(true)?;
        let key = SocketId::new(0, 0).pack(TAG_LISTENER);
        self.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        self.listener = Some(listener);
        self.accepting = Accepting::Yes;
        Ok(())
    }

    fn stop_listening(&mut self) {
        if let Some(listener) = &self.listener
            && self.accepting != Accepting::Stopping
        {
            let _ = self.epoll.delete(listener);
            self.accepting = Accepting::Stopping;
        }
    }

    fn resume_accepting(&mut self) {
        if self.accepting == Accepting::Paused
            && let Some(listener) = &self.listener
        {
            watch_listener(&self.epoll, listener, EpollFlags::EPOLLIN);
            self.accepting = Accepting::Yes;
        }
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        if self.sockets.open() >= self.sockets_max {
            return Err(io::Error::other(format!("all {} sockets are in use", self.sockets_max)));
        }
        self.insert(socket)
    }

    fn release(&mut self, socket: SocketId) -> Option<OwnedFd> {
        let state = self.sockets.remove(socket)?;
        self.sockets.free(socket);
        // Not left to closing: the other driver keeps the file open, and its events would go
        // on arriving here.
        let _ = self.epoll.delete(&state.fd);
        Some(state.fd)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn harvest(
        &mut self,
        rest: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.lent.clear();
        let before = completions.len();
        if self.accepting == Accepting::Stopping {
            self.accept(completions);
        }
        let stopping = self.accepting == Accepting::Stopping;
        let idle = completions.len() == before && !stopping && rest != Some(Duration::ZERO);
        let timeout = match rest {
            _ if !idle || !self.waker.may_rest() => EpollTimeout::ZERO,
            None => EpollTimeout::NONE,
            // Rounded up: a deadline that is not there yet would be looked at in vain.
            Some(rest) => {
                let ms = rest.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX))
                    .expect("the count is not negative")
            }
        };
        let waited = self.epoll.wait(&mut self.events, timeout);
        if self.waker.take_call() {
            completions.push(Completion::Woken);
        }
        let count = match waited {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(explained(error, "waiting for events")),
        };
        for index in 0..count {
            let event = self.events[index];
            self.handle(event, completions);
        }
        Ok(())
    }

    fn received(&mut self, buffer: Buffer) -> &mut [u8] {
        let lent = self.lent.get(buffer.index as usize).filter(|lent| lent.bytes == buffer.bytes);
        let lent = lent.expect("a buffer of an earlier tick");
        &mut self.arena[lent.offset..][..buffer.bytes()]
    }

    fn send(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        for send in sends {
            let outcome = self.send_one(send);
            outcomes.push(outcome);
        }
    }

    fn await_writable(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            state.awaits_writable = true;
            self.watch(socket);
        }
    }

    fn pause(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            state.paused = true;
            self.watch(socket);
        }
    }

    fn resume(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            state.paused = false;
            self.watch(socket);
        }
    }

    /// A quiet socket costs the same as a busy one here.
    fn quiet(&mut self, _socket: SocketId) {}

    fn shutdown(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            // Fails when the connection is broken already, which is told elsewhere.
            let _ = SockRef::from(&state.fd).shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, socket: SocketId) {
        // Closing the only descriptor of a file ends its watch.
        if self.sockets.remove(socket).is_some() {
            self.sockets.free(socket);
        }
    }

    fn describe(&self) -> Description {
        Description {
            name: "epoll",
            descriptors: "regular",
            notes: vec!["one system call for each receive and each send".to_owned()],
        }
    }
}

/// Tells the kernel what is wanted of a listener that is watched already, which takes no memory.
fn watch_listener(epoll: &sys::Epoll, listener: &OwnedFd, flags: EpollFlags) {
    let mut event = EpollEvent::new(flags, SocketId::new(0, 0).pack(TAG_LISTENER));
    epoll.modify(listener, &mut event).expect("the listener is watched until it stops");
}

fn explained(error: Errno, what: &str) -> io::Error {
    let cure = match error {
        Errno::EMFILE => ": raise RLIMIT_NOFILE (LimitNOFILE=)",
        Errno::ENOSPC => ": raise fs.epoll.max_user_watches",
        _ => return error.into(),
    };
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}{cure}"))
}
