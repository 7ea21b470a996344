//! The io_uring driver.
//!
//! Reading order: this file (the tick), `socket`, `receive` (the state machine that decides how
//! each socket is listened to, and why no byte can be lost or overtaken), `send` (sends that
//! leave nothing in flight), `accept`, `handover`, and below them `ring` (the two queues),
//! `buffers` (what the kernel receives into), `region` (memory shared with the kernel) and
//! `proof` (the self-test at start).

mod accept;
mod buffers;
mod handover;
mod proof;
mod receive;
mod region;
mod ring;
mod send;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Timespec};
use io_uring::{Probe, cqueue, opcode};

use self::accept::Accepts;
use self::buffers::ReceiveBuffers;
use self::receive::Aside;
use self::region::Region;
use self::ring::{Outcome, Ring, Wait};
use self::socket::Socket;
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

/// Enters in one harvest. The kernel (6.14 and later) works out no more than 20 deferred events
/// in each, so a full tick needs this many; most need one or two.
const ROUNDS_PER_TICK_MAX: usize = COMPLETIONS_PER_TICK_MAX / 16;

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
    /// Sockets of this tick, not listened to yet: some are released at once.
    fresh: Vec<SocketId>,
    /// Sockets that found no buffer, first come first served.
    starved: VecDeque<SocketId>,
    /// What arrived for paused sockets.
    aside: Aside,
    /// How many direct descriptors are out of the table and closed when their shutdown is
    /// through. Until then their slots are claimed.
    closing: usize,
    waker: Waker,
    /// Whole sends post no outcome.
    sends_skip: bool,
    /// What one of them hands over the kernel keeps apart.
    sends_apart: bool,
    can_install: bool,
    /// Before 6.13 a direct descriptor's file is let go only when every older request of the
    /// ring has ended, so closing one sends no FIN while others are polled.
    shutdown_before_close: bool,
    notes: Vec<String>,
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
            if shutdown_before_close {
                notes
                    .push("a closed direct descriptor's memory comes back late before 6.13".into());
            }
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
            accepts: Accepts::new(release)?,
            command: Region::new(size_of::<i32>())?,
            messages: send::messages()?,
            direct: settings.direct,
            sockets: Sockets::new(),
            sockets_max: settings.sockets_max,
            fresh: Vec::new(),
            starved: VecDeque::new(),
            aside: Aside::default(),
            closing: 0,
            waker,
            sends_skip,
            sends_apart: settings.sends_apart,
            can_install,
            shutdown_before_close,
            notes,
        })
    }

    /// Slots that neither a socket nor an armed accept has claimed.
    fn room(&self) -> usize {
        let claimed = self.sockets.open() + self.accepts.armed() + self.closing;
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
        self.fresh.push(socket);
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
            TAG_SHUTDOWN => self.handle_shutdown(socket),
            _ => {}
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
        self.take_over(fd)
    }

    fn release(&mut self, socket: SocketId) -> Option<OwnedFd> {
        self.hand_over(socket)
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
        self.listen_to_fresh();
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
        for _ in 0..ROUNDS_PER_TICK_MAX {
            self.hear(&mut outcomes_left, completions, limit);
            // Polls were answered by receives, whose outcome is there right after an enter; or
            // the kernel says that it has more than it told.
            let more = self.ring.receives_queued() > 0 || self.ring.has_more();
            if !more || completions.len() >= limit || outcomes_left == 0 {
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
        self.say_goodbye(socket);
    }

    fn close(&mut self, socket: SocketId) {
        self.let_go(socket);
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
            while let Some(outcome) = self.ring.next() {
                let (tag, _) = SocketId::unpack(outcome.user_data);
                if tag == TAG_ACCEPT && outcome.result >= 0 {
                    // SAFETY: accepted for us, and nobody has heard of it.
                    drop(unsafe { OwnedFd::from_raw_fd(outcome.result) });
                }
            }
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

/// The running kernel's version, (0, 0) when it does not tell.
fn kernel_release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Errors that a limit explains, with the limit. The others pass unchanged: `choose` reads them.
fn explained(error: io::Error, what: &str) -> io::Error {
    let cure = match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "raise RLIMIT_MEMLOCK (LimitMEMLOCK=), or use fewer shards, or the epoll driver"
        }
        Some(libc::EMFILE) => "raise RLIMIT_NOFILE (LimitNOFILE=)",
        Some(libc::ENFILE) => "raise fs.file-max",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("no room for {what} ({error}): {cure}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::{Duration, Instant};

    use socket2::SockRef;

    use super::Uring;
    use crate::io::{Completion, Driver, ListenerSettings, Settings, SocketId, listener};

    fn direct() -> (Uring, std::net::SocketAddr) {
        let settings = Settings {
            sockets_max: 64,
            direct: true,
            submissions: 16,
            completions: 64,
            receive_buffers: 8,
            ..Settings::default()
        };
        let mut uring = Uring::new(&settings).expect("io_uring");
        let fd = listener((Ipv4Addr::LOCALHOST, 0).into(), &ListenerSettings::default())
            .expect("a listener");
        let address = SockRef::from(&fd).local_addr().expect("it is bound");
        uring.listen(fd).expect("it listens");
        (uring, address.as_socket().expect("an IP socket"))
    }

    fn accepted(uring: &mut Uring) -> SocketId {
        let mut completions = Vec::new();
        for _ in 0..1000 {
            uring.harvest(Some(Duration::from_millis(10)), &mut completions).expect("it works");
            for completion in completions.drain(..) {
                if let Completion::Accepted { socket, .. } = completion {
                    return socket;
                }
            }
        }
        panic!("nobody was accepted");
    }

    // Kernels before 6.13 keep the file of a closed direct descriptor until every older request
    // of the ring has ended, so the FIN is sent by a shutdown. The newer kernel this runs on
    // does not need it, but must be served right by the same requests.
    #[test]
    fn a_shutdown_before_the_close_sends_the_fin_and_frees_the_slot() {
        let (mut uring, address) = direct();
        uring.shutdown_before_close = true;
        let mut completions = Vec::new();
        for _ in 0..200 {
            let mut client = TcpStream::connect(address).expect("it connects");
            client.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
            let socket = accepted(&mut uring);
            uring.close(socket);
            uring.harvest(Some(Duration::ZERO), &mut completions).expect("it works");
            assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
        }
        assert_eq!(uring.sockets.open(), 0);
    }

    // Seen on kernels 6.1 and 6.12 (ARM64): with every slot taken, some closed, and others
    // waiting to get in, a connection was accepted and dropped at once. The slot of a socket that
    // was still being shut down counted as free, so an accept was armed for it, found no slot, and
    // the kernel has no other way then. Closing was a shutdown linked to a close, neither of
    // them heard of; now the shutdown is, and the slot is claimed until then.
    #[test]
    fn a_slot_that_is_still_being_shut_down_is_promised_to_nobody() {
        let (mut uring, address) = direct();
        uring.shutdown_before_close = true;
        let mut completions = Vec::new();
        let clients: Vec<_> =
            (0..96).map(|_| TcpStream::connect(address).expect("it connects")).collect();
        let (mut accepted, mut closed) = (Vec::new(), 0);
        let deadline = Instant::now() + Duration::from_secs(20);
        while accepted.len() < clients.len() {
            assert!(Instant::now() < deadline, "{} of {} got in", accepted.len(), clients.len());
            uring.harvest(Some(Duration::from_millis(5)), &mut completions).expect("it works");
            for completion in completions.drain(..) {
                match completion {
                    Completion::Accepted { socket, .. } => accepted.push(socket),
                    Completion::AcceptFailed { error } => {
                        assert_eq!(error.raw_os_error(), None, "the kernel found no slot: {error}");
                    }
                    _ => {}
                }
            }
            if accepted.len() >= 64 && closed < clients.len() - 64 {
                uring.close(accepted[closed]);
                closed += 1;
            }
            uring.resume_accepting();
        }
    }

    #[test]
    fn the_description_says_what_was_proved() {
        let (uring, _) = direct();
        let described = uring.describe();
        assert_eq!((described.name, described.descriptors), ("uring", "direct"));
        let notes = described.notes.join("\n");
        assert!(notes.contains("proved at start"), "{notes}");
    }

    #[test]
    #[should_panic(expected = "a buffer of an earlier tick")]
    fn a_buffer_of_an_earlier_tick_is_not_lent_again() {
        let (mut uring, address) = direct();
        let mut client = TcpStream::connect(address).expect("it connects");
        accepted(&mut uring);
        std::io::Write::write_all(&mut client, b"hello").expect("it is open");
        let mut completions = Vec::new();
        let buffer = loop {
            uring.harvest(Some(Duration::from_secs(1)), &mut completions).expect("it works");
            if let Some(Completion::Received { buffer, .. }) = completions.pop() {
                break buffer;
            }
        };
        assert_eq!(uring.received(buffer), b"hello");
        uring.harvest(Some(Duration::ZERO), &mut completions).expect("it works");
        uring.received(buffer);
    }
}
