//! The io_uring driver.
//!
//! Reading order: this file (what a socket is, the tick), `receive` (the state machine that
//! decides how each socket is listened to, and why no byte can be lost or overtaken), `send`
//! (sends that leave nothing in flight), `accept`, and below them `ring` (the two queues),
//! `buffers` (what the kernel receives into), `region` (memory shared with the kernel) and
//! `proof` (the self-test at start).

mod accept;
mod buffers;
mod proof;
mod receive;
mod region;
mod ring;
mod send;

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Timespec};
use io_uring::{Probe, cqueue, opcode};
use socket2::SockRef;

use self::accept::Accepts;
use self::buffers::ReceiveBuffers;
use self::receive::Aside;
use self::region::Region;
use self::ring::{Outcome, Ring, Wait};
use super::choice::direct_fits;
use super::sockets::Sockets;
use super::{Buffer, Completion, Description, Driver, Send, Sent, Settings, SocketId, Waker};
use crate::limits::COMPLETIONS_PER_TICK_MAX;

// What a request is, in the top byte of its name. The rest of the name is the socket, so that
// an outcome which arrives after its socket is gone finds nobody.
const TAG_POLL: u8 = 1;
const TAG_RECEIVE: u8 = 2;
const TAG_RECEIVE_MANY: u8 = 3;
const TAG_WRITABLE: u8 = 4;
const TAG_SHUTDOWN: u8 = 5;
const TAG_ACCEPT: u8 = 6;
const TAG_SEND: u8 = 7;
const TAG_BELL: u8 = 8;
const TAG_COMMAND: u8 = 9;
const TAG_IGNORED: u8 = 10;

/// Times within one harvest that receives which became due are given to the kernel and heard
/// again: the second time answers the polls of the first.
const ROUNDS_PER_TICK_MAX: usize = 2;

/// Outcomes looked at in one tick. Not each makes a completion (polls, cancels, what came too
/// late), so this is above [`COMPLETIONS_PER_TICK_MAX`].
const OUTCOMES_PER_TICK_MAX: usize = 4 * COMPLETIONS_PER_TICK_MAX;

/// How long the end of a driver waits for its requests to be cancelled.
const FAREWELL: Duration = Duration::from_millis(200);

/// See the [module](self). It belongs to the thread that made it.
pub struct Uring {
    // Declared first, so dropped first: what the kernel refers to outlives it.
    ring: Ring,
    buffers: ReceiveBuffers,
    accepts: Accepts,
    /// One number for the kernel to read or write during `adopt`.
    command: Region,
    /// One message header for each send of a submission.
    messages: Region,

    direct: bool,
    sockets: Sockets<Socket>,
    sockets_max: usize,
    /// Sockets that found no buffer, first come first served.
    starved: VecDeque<SocketId>,
    /// What arrived for paused sockets.
    aside: Aside,
    /// Direct descriptors that are closed when their shutdown is through.
    closing: Vec<SocketId>,
    waker: Waker,
    /// Whole sends post no outcome.
    sends_skip: bool,
    can_install: bool,
    /// Before 6.13 a direct descriptor's file is let go only when every older request of the
    /// ring has ended, so closing one sends no FIN while others are polled.
    shutdown_before_close: bool,
    notes: Vec<String>,
}

/// One socket. With its slot's generation it takes 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Socket {
    /// The descriptor, or the slot of the direct one.
    number: i32,
    flags: u16,
    /// Receives since it was last said to be quiet.
    receives: u8,
}

const _: () = assert!(size_of::<Option<Socket>>() + size_of::<u32>() <= 16);

impl Socket {
    /// A multishot poll is in the queue or the kernel, and its last outcome has not been seen.
    const POLL_ARMED: u16 = 1;
    /// ... and it was cancelled.
    const POLL_CANCELLED: u16 = 1 << 1;
    /// A single receive is in the queue, or its outcome has not been seen.
    const RECEIVE_ARMED: u16 = 1 << 2;
    /// A multishot receive is in the queue or the kernel, its last outcome not seen.
    const MANY_ARMED: u16 = 1 << 3;
    /// ... and it was cancelled.
    const MANY_CANCELLED: u16 = 1 << 4;
    /// The poll (or a receive) says that there is something to receive.
    const READABLE: u16 = 1 << 5;
    /// The poll spoke of an end or an error: receive until it shows.
    const HUNG: u16 = 1 << 6;
    /// It talks much: a multishot receive is kept armed.
    const CHATTY: u16 = 1 << 7;
    const PAUSED: u16 = 1 << 8;
    /// It waits in `starved`.
    const STARVED: u16 = 1 << 9;
    /// Nothing more is received: the end or the failure was met.
    const ENDED: u16 = 1 << 10;
    const FAILED: u16 = 1 << 11;
    /// A poll for room to write is armed.
    const WRITABLE_ARMED: u16 = 1 << 12;
    /// A shutdown was asked for (direct descriptors).
    const SHUT: u16 = 1 << 13;
    /// ... and is through.
    const SHUT_DONE: u16 = 1 << 14;

    const fn new(number: i32) -> Self {
        Self { number, flags: 0, receives: 0 }
    }

    const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    const fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    const fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }
}

impl Uring {
    /// A driver with no socket, for the calling thread.
    ///
    /// # Errors
    /// The kernel's own error where it cannot do what is needed (see [`choose`](super::choose));
    /// where a limit is in the way, a message that names it.
    pub fn new(settings: &Settings) -> io::Result<Self> {
        let mut ring = Ring::new(settings).map_err(|error| explained(error, "an io_uring"))?;
        let release = kernel_release();
        let mut notes = vec![format!(
            "kernel {}.{}, submission queue {}, completion queue {}",
            release.0,
            release.1,
            ring.raw().params().sq_entries(),
            ring.raw().params().cq_entries()
        )];
        let sends_skip = if settings.sends_skip_success {
            let proof = proof::whole_sends_are_silent(&mut ring);
            notes.push(match &proof {
                Ok(()) => "whole sends post no completion (proved at start)".to_owned(),
                Err(why) => format!("every send posts a completion: {why}"),
            });
            proof.is_ok()
        } else {
            notes.push("every send posts a completion: as configured".to_owned());
            false
        };
        let mut shutdown_before_close = false;
        if settings.direct {
            direct_fits(settings)?;
            let slots = u32::try_from(settings.sockets_max).unwrap_or(u32::MAX);
            let submitter = ring.raw().submitter();
            submitter
                .register_files_sparse(slots)
                .map_err(|error| explained(error, "a table of direct descriptors"))?;
            // Shutting down is work for a kernel thread; one is enough.
            let _ = submitter.register_iowq_max_workers(&mut [1, 1]);
            shutdown_before_close = release < (6, 13);
            notes.push(if shutdown_before_close {
                "direct descriptors; a closed one's memory comes back late before 6.13".to_owned()
            } else {
                "direct descriptors".to_owned()
            });
        }
        let mut known = Probe::new();
        let can_install = ring.raw().submitter().register_probe(&mut known).is_ok()
            && known.is_supported(opcode::FixedFdInstall::CODE);
        if settings.direct && !can_install {
            notes.push(
                "accepted sockets stay with their shard: no FIXED_FD_INSTALL before 6.8".into(),
            );
        }
        let buffers = ReceiveBuffers::new(settings, ring.raw())
            .map_err(|error| explained(error, "the receive buffers"))?;
        let waker = Waker::new()?;
        ring.poll_regular(waker.bell().as_raw_fd(), libc::POLLIN, bell());
        Ok(Self {
            ring,
            buffers,
            accepts: Accepts::new()?,
            command: Region::new(size_of::<i32>())?,
            messages: send::messages()?,
            direct: settings.direct,
            sockets: Sockets::new(),
            sockets_max: settings.sockets_max,
            starved: VecDeque::new(),
            aside: Aside::default(),
            closing: Vec::new(),
            waker,
            sends_skip,
            can_install,
            shutdown_before_close,
            notes,
        })
    }

    /// Slots that neither a socket nor an armed accept has claimed.
    fn room(&self) -> usize {
        let claimed = self.sockets.open() + self.accepts.armed() + self.closing.len();
        self.sockets_max.saturating_sub(claimed)
    }

    fn insert(&mut self, number: i32) -> SocketId {
        let state = Socket::new(number);
        let socket = if self.direct {
            let index = u32::try_from(number).expect("slots are counted from 0");
            self.sockets.insert_at(index, state)
        } else {
            self.sockets.insert(state)
        };
        self.settle(socket);
        socket
    }

    /// Hears outcomes until none is left or the tick is full.
    fn hear(&mut self, outcomes_left: &mut usize, completions: &mut Vec<Completion>, limit: usize) {
        if self.aside.has_resumed() {
            // The tick was too full to report what is older.
            return;
        }
        while completions.len() < limit && *outcomes_left > 0 {
            let Some(outcome) = self.ring.next() else { return };
            *outcomes_left -= 1;
            self.handle(outcome, completions);
        }
    }

    fn handle(&mut self, outcome: Outcome, completions: &mut Vec<Completion>) {
        let (tag, socket) = SocketId::unpack(outcome.user_data);
        match tag {
            TAG_RECEIVE => self.handle_receive(socket, outcome, completions),
            TAG_RECEIVE_MANY => self.handle_receive_many(socket, outcome, completions),
            TAG_POLL => self.handle_poll(socket, outcome, completions),
            TAG_WRITABLE => {
                if let Some(state) = self.sockets.get(socket) {
                    state.clear(Socket::WRITABLE_ARMED);
                    completions.push(Completion::Writable { socket });
                }
            }
            TAG_ACCEPT => self.handle_accept(socket.index(), outcome.result, completions),
            TAG_BELL if !cqueue::more(outcome.flags) => {
                self.ring.poll_regular(self.waker.bell().as_raw_fd(), libc::POLLIN, bell());
            }
            TAG_SHUTDOWN => {
                if let Some(state) = self.sockets.get(socket) {
                    state.set(Socket::SHUT_DONE);
                } else if let Some(at) = self.closing.iter().position(|one| *one == socket) {
                    self.closing.swap_remove(at);
                    self.ring.close(number_of(socket));
                }
            }
            _ => {}
        }
    }

    /// Ends what is armed for a socket that is taken out of the table.
    fn cancel_armed(&mut self, socket: SocketId, state: Socket) {
        let armed = [
            (Socket::POLL_ARMED, Socket::POLL_CANCELLED, TAG_POLL),
            (Socket::MANY_ARMED, Socket::MANY_CANCELLED, TAG_RECEIVE_MANY),
            (Socket::WRITABLE_ARMED, 0, TAG_WRITABLE),
        ];
        for (armed, cancelled, tag) in armed {
            if state.has(armed) && !state.has(cancelled) {
                self.ring.cancel(socket.pack(tag));
            }
        }
        self.aside.forget(socket);
    }

    fn adopt_direct(&mut self, fd: &OwnedFd) -> io::Result<i32> {
        let command = self.command.element::<i32>(0);
        // SAFETY: the region holds one i32 and no request refers to it: each `adopt` sees its
        // outcome before it returns.
        unsafe { command.write(fd.as_raw_fd()) };
        let name = SocketId::new(0, 0).pack(TAG_COMMAND);
        // Offset -1 (IORING_FILE_INDEX_ALLOC): the kernel, which also gives slots to accepted
        // sockets, picks the slot and writes its number over the descriptor's. A slot picked
        // here could hold a socket that was accepted but not heard of yet.
        let entry = opcode::FilesUpdate::new(command, 1).offset(-1).build().user_data(name);
        // SAFETY: `command` lies in a region that outlives the ring, and the outcome is seen
        // below before the region is used again.
        unsafe { self.ring.push(entry) };
        match self.ring.outcome_of(name)? {
            // SAFETY: the request has ended, so the kernel is done with the number.
            1.. => Ok(unsafe { command.read() }),
            0 => Err(io::Error::from_raw_os_error(libc::ENFILE)),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }
}

impl Driver for Uring {
    fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        self.start_accepting(listener)
    }

    fn stop_listening(&mut self) {
        self.stop_accepting();
    }

    fn resume_accepting(&mut self) {
        self.unpause_accepting();
    }

    fn adopt(&mut self, fd: OwnedFd) -> io::Result<SocketId> {
        if self.room() == 0 {
            return Err(io::Error::other(format!("all {} sockets are in use", self.sockets_max)));
        }
        // The kernel takes O_NONBLOCK as a wish never to be kept waiting, polls included.
        let socket = SockRef::from(&fd);
        if socket.nonblocking()? {
            socket.set_nonblocking(false)?;
        }
        let number = if self.direct { self.adopt_direct(&fd)? } else { fd.into_raw_fd() };
        Ok(self.insert(number))
    }

    fn release(&mut self, socket: SocketId) -> Option<OwnedFd> {
        let state = *self.sockets.get(socket)?;
        // Something may be on its way into a buffer of ours.
        let busy = Socket::RECEIVE_ARMED | Socket::MANY_ARMED | Socket::SHUT;
        if state.has(busy) || self.aside.holds(socket) {
            return None;
        }
        let fd = if self.direct {
            if !self.can_install {
                return None;
            }
            let name = socket.pack(TAG_COMMAND);
            self.ring.install(state.number, name);
            // No descriptor left in the process: the socket stays where it needs none.
            let fd = self.ring.outcome_of(name).ok().filter(|fd| *fd >= 0)?;
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        } else {
            // SAFETY: the descriptor was ours since accept or adoption; the table forgets it
            // below. A poll that is still queued for its number is followed by its cancel.
            unsafe { OwnedFd::from_raw_fd(state.number) }
        };
        self.sockets.remove(socket);
        self.cancel_armed(socket, state);
        if self.direct {
            self.ring.close(state.number);
        } else {
            self.sockets.free(socket);
        }
        Some(fd)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn harvest(
        &mut self,
        rest: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let before = completions.len();
        let limit = before + COMPLETIONS_PER_TICK_MAX;
        let mut outcomes_left = OUTCOMES_PER_TICK_MAX;
        self.buffers.take_back();
        self.aside.take_back();
        self.feed_starved();
        // What was held back goes out before anything newer is looked at.
        self.report_resumed(completions, limit);
        self.settle_accepting(completions, limit);

        let idle = completions.len() == before && !self.ring.has_put_aside();
        let rests = idle && rest != Some(Duration::ZERO) && self.waker.may_rest();
        let entered = self.ring.enter(match rest {
            _ if !rests => Wait::No,
            None => Wait::Forever,
            Some(rest) => Wait::UpTo(rest),
        });
        if self.waker.take_call() {
            completions.push(Completion::Woken);
        }
        entered?;
        for round in 1..=ROUNDS_PER_TICK_MAX {
            self.hear(&mut outcomes_left, completions, limit);
            let more = self.ring.receives_queued() > 0 && completions.len() < limit;
            if !more || round == ROUNDS_PER_TICK_MAX {
                break;
            }
            self.ring.enter(Wait::No)?;
        }
        self.settle_accepting(completions, limit);
        Ok(())
    }

    fn received(&mut self, buffer: Buffer) -> &mut [u8] {
        match buffer.index.checked_sub(u32::from(self.buffers.count())) {
            None => self.buffers.lent_bytes(buffer),
            Some(index) => self.aside.lent_bytes(index as usize, buffer.bytes()),
        }
    }

    fn send(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        self.send_all(sends, outcomes);
    }

    fn await_writable(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket)
            && !state.has(Socket::WRITABLE_ARMED)
        {
            state.set(Socket::WRITABLE_ARMED);
            let number = state.number;
            self.ring.poll(number, libc::POLLOUT, false, socket.pack(TAG_WRITABLE));
        }
    }

    fn pause(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            state.set(Socket::PAUSED);
            self.settle(socket);
        }
    }

    fn resume(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket)
            && state.has(Socket::PAUSED)
        {
            state.clear(Socket::PAUSED);
            self.aside.resume(socket);
            self.settle(socket);
        }
    }

    fn quiet(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            state.receives = 0;
            if state.has(Socket::CHATTY) {
                state.clear(Socket::CHATTY);
                self.settle(socket);
            }
        }
    }

    fn shutdown(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get(socket) else { return };
        if state.has(Socket::SHUT) {
            return;
        }
        let number = state.number;
        if self.direct {
            state.set(Socket::SHUT);
            self.ring.shutdown(number, libc::SHUT_WR, socket.pack(TAG_SHUTDOWN));
        } else {
            // SAFETY: the descriptor is ours and open until `close` or `release` takes the
            // socket out of the table.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            // Fails when the connection is broken already, which is told elsewhere.
            let _ = SockRef::from(&fd).shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.remove(socket) else { return };
        self.cancel_armed(socket, state);
        if self.direct {
            if state.has(Socket::SHUT) && !state.has(Socket::SHUT_DONE) {
                // A kernel thread is about to look up the slot: it must not find another.
                self.closing.push(socket);
            } else if self.shutdown_before_close {
                self.ring.shutdown_and_close(state.number);
            } else {
                self.ring.close(state.number);
            }
        } else {
            // In the queue, not by system call: requests before it carry this number.
            self.ring.close(state.number);
            self.sockets.free(socket);
        }
    }

    fn describe(&self) -> Description {
        Description {
            name: "uring",
            descriptors: if self.direct { "direct" } else { "regular" },
            notes: self.notes.clone(),
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // What was closed must not stay open, and armed requests hold files open until the
        // kernel has cancelled them, which it does late for a ring that just goes away.
        let _ = self.ring.submit();
        let patience = Some(Timespec::from(FAREWELL));
        let _ = self.ring.raw().submitter().register_sync_cancel(patience, CancelBuilder::any());
        if !self.direct {
            for state in self.sockets.drain() {
                // SAFETY: the table held the only claim to this descriptor and gave it up.
                drop(unsafe { OwnedFd::from_raw_fd(state.number) });
            }
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("sockets", &self.sockets.open()).finish_non_exhaustive()
    }
}

/// The name of the poll on the waker's bell.
const fn bell() -> u64 {
    SocketId::new(0, 0).pack(TAG_BELL)
}

/// The slot of a direct descriptor, which is the index of its key.
fn number_of(socket: SocketId) -> i32 {
    i32::try_from(socket.index()).expect("slots are counted in 31 bits")
}

/// The running kernel's version, (0, 0) when it does not tell.
fn kernel_release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Errors that a limit explains, with the limit. The others pass unchanged: `choose` reads them.
fn explained(error: io::Error, what: &str) -> io::Error {
    let cure = match error.raw_os_error() {
        Some(libc::ENOMEM) => "raise RLIMIT_MEMLOCK (LimitMEMLOCK=), or use smaller queues",
        Some(libc::EMFILE) => "raise RLIMIT_NOFILE (LimitNOFILE=)",
        Some(libc::ENFILE) => "raise fs.file-max",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("no room for {what} ({error}): {cure}"))
}
