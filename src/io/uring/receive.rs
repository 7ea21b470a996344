//! How each socket is listened to.
//!
//! A socket that talks much holds a multishot receive: 864 bytes of kernel memory, and no request
//! for each message. So does one that has just come, because it is about to speak. Once it is said
//! to be quiet it holds one multishot poll (256 bytes) and no buffer; what the poll announces is
//! fetched by single receives, until it talks much again.
//!
//! Why no byte is lost, doubled or overtaken, whatever the order of promotion, demotion, pause,
//! resume and traffic:
//!
//! 1. **One consumer.** Polls consume nothing. A single receive is asked for only while no
//!    multishot receive is armed, and the other way round, where "armed" lasts from the request
//!    until its *last outcome was seen*. So the outcomes that carry bytes of one socket come
//!    from one request at a time, and the kernel posts them in the order in which it took the
//!    bytes. Everything here handles outcomes in the order they were posted.
//! 2. **No lost edge.** Arming a poll or a multishot receive looks at the socket first, so what
//!    is there at that moment is announced or taken; what comes later wakes the request. While
//!    a poll stays armed, each of its outcomes sets READABLE, which only the *asking* for a
//!    receive clears: an edge that comes between asking and outcome makes another receive. A
//!    receive that filled its buffer, or that the kernel marks as not the last (which it also
//!    does when the FIN is next), keeps READABLE; and after a poll that spoke of an end or an
//!    error the socket is received from until that shows.
//! 3. **Cancelling takes nothing.** A cancelled multishot receive ends with an outcome without
//!    bytes; what it took before was posted before, with bytes, and is handled like any other.
//!    While paused, such bytes are copied aside and reported on resume, before newer outcomes
//!    are looked at.
//! 4. **No buffer, no progress.** Without a buffer the kernel takes nothing from the socket and
//!    says so (ENOBUFS); the socket then queues for the next tick's buffers.

use std::collections::{HashMap, VecDeque};
use std::io;

use io_uring::cqueue;

use super::ring::Outcome;
use super::socket::Socket;
use super::{TAG_POLL, TAG_RECEIVE, TAG_RECEIVE_MANY, Uring};
use crate::io::{Buffer, Completion, SocketId};

/// Receives without a word of quiet that make a socket chatty. A multishot receive pays for
/// its arming and its memory after a few messages.
const RECEIVES_UNTIL_CHATTY: u8 = 8;

/// What a poll on an idle socket asks for; errors and hang-ups come unasked.
const POLL_EVENTS: i16 = libc::POLLIN | libc::POLLRDHUP;

/// What a poll says when no more bytes will come after those that are there.
const POLL_HUNG: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

impl Uring {
    /// Arms and cancels whatever brings the socket to where its flags want it. Every change of
    /// flags ends here; what cannot be done before an outcome is seen is done when it is.
    pub(super) fn settle(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get(socket) else { return };
        let number = state.number;
        if state.has(Socket::ENDED) {
            return;
        }
        let wants_many = state.has(Socket::CHATTY) && !state.has(Socket::PAUSED);
        if state.has(Socket::MANY_ARMED) && !wants_many && !state.has(Socket::MANY_CANCELLED) {
            state.set(Socket::MANY_CANCELLED);
            self.ring.cancel(socket.pack(TAG_RECEIVE_MANY));
            return;
        }
        if state.has(Socket::MANY_ARMED | Socket::PAUSED) {
            return;
        }
        if wants_many {
            if state.has(Socket::RECEIVE_ARMED | Socket::STARVED) {
                return;
            }
            let poll = state.has(Socket::POLL_ARMED) && !state.has(Socket::POLL_CANCELLED);
            state.clear(Socket::READABLE | Socket::HUNG);
            state.set(Socket::MANY_ARMED);
            if poll {
                state.set(Socket::POLL_CANCELLED);
                self.ring.cancel(socket.pack(TAG_POLL));
            }
            self.ring.receive_many(number, socket.pack(TAG_RECEIVE_MANY));
            return;
        }
        if !state.has(Socket::POLL_ARMED) {
            state.set(Socket::POLL_ARMED);
            self.ring.poll(number, POLL_EVENTS, true, socket.pack(TAG_POLL));
        }
        let Some(state) = self.sockets.get(socket) else { return };
        if state.has(Socket::READABLE) && !state.has(Socket::RECEIVE_ARMED | Socket::STARVED) {
            state.clear(Socket::READABLE);
            state.set(Socket::RECEIVE_ARMED);
            self.ring.receive(number, socket.pack(TAG_RECEIVE));
        }
    }

    /// Begins to listen to the sockets that came in the last tick, except those that have been
    /// released again.
    pub(super) fn listen_to_fresh(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for socket in fresh.drain(..) {
            self.settle(socket);
        }
        self.fresh = fresh;
    }

    pub(super) fn handle_poll(
        &mut self,
        socket: SocketId,
        outcome: Outcome,
        completions: &mut Vec<Completion>,
    ) {
        let Some(state) = self.sockets.get(socket) else { return };
        if !cqueue::more(outcome.flags) {
            state.clear(Socket::POLL_ARMED | Socket::POLL_CANCELLED);
        }
        match outcome.result {
            code if code < 0 => {
                if code != -libc::ECANCELED && !state.has(Socket::ENDED) {
                    return self.fail(socket, -code, completions);
                }
            }
            events => {
                if state.has(Socket::ENDED) {
                    // After the end of the stream a reset shows in no receive any more.
                    let told = state.has(Socket::FAILED | Socket::PAUSED);
                    if events & i32::from(libc::POLLERR) != 0 && !told {
                        self.fail(socket, libc::ECONNRESET, completions);
                    }
                    return;
                }
                state.set(Socket::READABLE);
                if events & POLL_HUNG != 0 {
                    state.set(Socket::HUNG);
                }
            }
        }
        self.settle(socket);
    }

    pub(super) fn handle_receive(
        &mut self,
        socket: SocketId,
        outcome: Outcome,
        completions: &mut Vec<Completion>,
    ) {
        if let Some(state) = self.sockets.get(socket) {
            state.clear(Socket::RECEIVE_ARMED);
        }
        self.take(socket, outcome, completions);
        let full = self.buffers.buffer_bytes();
        let Some(state) = self.sockets.get(socket) else { return };
        match outcome.result {
            bytes if bytes > 0 => {
                if cqueue::sock_nonempty(outcome.flags)
                    || bytes.unsigned_abs() == full
                    || state.has(Socket::HUNG)
                {
                    state.set(Socket::READABLE);
                }
                state.receives = state.receives.saturating_add(1);
                if state.receives >= RECEIVES_UNTIL_CHATTY {
                    state.set(Socket::CHATTY);
                }
            }
            // The poll said "hung" of something that is gone; its next edge says more.
            code if code == -libc::EAGAIN => state.clear(Socket::HUNG),
            code if code == -libc::EINTR => state.set(Socket::READABLE),
            _ => {}
        }
        self.settle(socket);
    }

    pub(super) fn handle_receive_many(
        &mut self,
        socket: SocketId,
        outcome: Outcome,
        completions: &mut Vec<Completion>,
    ) {
        let last = !cqueue::more(outcome.flags);
        if last && let Some(state) = self.sockets.get(socket) {
            state.clear(Socket::MANY_ARMED | Socket::MANY_CANCELLED);
        }
        self.take(socket, outcome, completions);
        if last {
            self.settle(socket);
        }
    }

    /// What both kinds of receive have in common: bytes, the end, or an error.
    fn take(&mut self, socket: SocketId, outcome: Outcome, completions: &mut Vec<Completion>) {
        let buffer = cqueue::buffer_select(outcome.flags);
        let Some(state) = self.sockets.get(socket) else {
            // Too late for its socket; the buffer goes home all the same.
            if let Some(index) = buffer {
                self.buffers.give_back(index);
            }
            return;
        };
        if let (Some(index), 1..) = (buffer, outcome.result) {
            let bytes = outcome.result.unsigned_abs();
            if state.has(Socket::PAUSED) {
                self.aside.keep(socket, self.buffers.bytes(index, bytes));
                self.buffers.give_back(index);
            } else {
                let buffer = self.buffers.lend(index, bytes);
                completions.push(Completion::Received { socket, buffer });
            }
            return;
        }
        if let Some(index) = buffer {
            self.buffers.give_back(index);
        }
        match outcome.result {
            0 => {
                state.set(Socket::ENDED);
                if state.has(Socket::PAUSED) {
                    self.aside.end(socket, Ending::Stream);
                } else {
                    completions.push(Completion::EndOfStream { socket });
                }
            }
            code => match -code {
                libc::EAGAIN | libc::EINTR | libc::ECANCELED => {}
                libc::ENOBUFS => {
                    state.set(Socket::READABLE);
                    if !state.has(Socket::STARVED) {
                        state.set(Socket::STARVED);
                        self.starved.push_back(socket);
                    }
                }
                code => self.fail(socket, code, completions),
            },
        }
    }

    fn fail(&mut self, socket: SocketId, code: i32, completions: &mut Vec<Completion>) {
        let Some(state) = self.sockets.get(socket) else { return };
        state.set(Socket::ENDED | Socket::FAILED);
        if state.has(Socket::PAUSED) {
            self.aside.end(socket, Ending::Failure(code));
        } else {
            let error = io::Error::from_raw_os_error(code);
            completions.push(Completion::Failed { socket, error });
        }
    }

    /// Lets as many of those who found no buffer try again as there are buffers.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.buffers.count() {
            let Some(socket) = self.starved.pop_front() else { return };
            if let Some(state) = self.sockets.get(socket) {
                state.clear(Socket::STARVED);
                self.settle(socket);
            }
        }
    }

    /// Reports what was kept for sockets that are paused no more.
    pub(super) fn report_resumed(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        // Each makes two completions at most.
        while completions.len() + 2 <= limit {
            let Some(socket) = self.aside.resumed.pop_front() else { return };
            let Some(state) = self.sockets.get(socket) else { continue };
            if state.has(Socket::PAUSED) {
                continue;
            }
            let Some(kept) = self.aside.kept.remove(&socket) else { continue };
            if !kept.bytes.is_empty() {
                let buffer = self.aside.lend(kept.bytes, self.buffers.count());
                completions.push(Completion::Received { socket, buffer });
            }
            match kept.ending {
                None => {}
                Some(Ending::Stream) => completions.push(Completion::EndOfStream { socket }),
                Some(Ending::Failure(code)) => {
                    let error = io::Error::from_raw_os_error(code);
                    completions.push(Completion::Failed { socket, error });
                }
            }
        }
    }
}

/// What arrived for paused sockets: at most what was in flight when they were paused, because
/// nothing is asked for while they are. It is copied so that it does not keep buffers from the
/// others for as long as the pause lasts.
#[derive(Debug, Default)]
pub(super) struct Aside {
    kept: HashMap<SocketId, Kept>,
    /// Sockets that were resumed while something was kept for them.
    resumed: VecDeque<SocketId>,
    /// What the shard is looking at until the next harvest.
    lent: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    ending: Option<Ending>,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Stream,
    Failure(i32),
}

impl Aside {
    fn keep(&mut self, socket: SocketId, bytes: &[u8]) {
        self.kept.entry(socket).or_default().bytes.extend_from_slice(bytes);
    }

    fn end(&mut self, socket: SocketId, ending: Ending) {
        self.kept.entry(socket).or_default().ending = Some(ending);
    }

    pub(super) fn holds(&self, socket: SocketId) -> bool {
        self.kept.contains_key(&socket)
    }

    pub(super) fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    pub(super) fn resume(&mut self, socket: SocketId) {
        if self.holds(socket) {
            self.resumed.push_back(socket);
        }
    }

    pub(super) fn forget(&mut self, socket: SocketId) {
        self.kept.remove(&socket);
    }

    pub(super) fn take_back(&mut self) {
        self.lent.clear();
    }

    fn lend(&mut self, bytes: Vec<u8>, first: u16) -> Buffer {
        let buffer = Buffer {
            index: u32::from(first) + u32::try_from(self.lent.len()).expect("a tick is bounded"),
            bytes: u32::try_from(bytes.len()).expect("at most what all buffers hold"),
        };
        self.lent.push(bytes);
        buffer
    }

    /// # Panics
    /// When it is not lent.
    pub(super) fn lent_bytes(&mut self, index: usize, bytes: usize) -> &mut [u8] {
        let lent = self.lent.get_mut(index).expect("a buffer of an earlier tick");
        assert_eq!(lent.len(), bytes, "a buffer of an earlier tick");
        lent
    }
}
