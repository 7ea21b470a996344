//! The two queues: what we ask for goes into one, what came of it out of the other.
//!
//! Requests that refer to no memory of ours are safe methods here; the others go through
//! [`Ring::push`], whose callers argue why the memory outlives the request.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use super::{Settings, TAG_IGNORED};
use crate::io::SocketId;

/// Failures of one submission for want of kernel memory before the ring counts as broken. Each
/// flushes completions, which is what frees requests.
const SUBMIT_TRIES_MAX: usize = 256;

/// The buffer group that every receive takes from.
pub(super) const BUFFER_GROUP: u16 = 0;

/// What came of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// How long an enter may take.
pub(super) enum Wait {
    No,
    UpTo(Duration),
    Forever,
}

pub(super) struct Ring {
    ring: IoUring,
    direct: bool,
    /// FIXED_FILE when sockets are direct descriptors.
    socket_flags: Flags,
    /// Outcomes that `send` met while it looked for its own, in their order.
    put_aside: VecDeque<Outcome>,
    /// Receives given to the queue since the last enter: their outcome is there right after.
    receives_queued: usize,
    /// The error that ended this ring. Nothing is submitted after it.
    broken: Option<i32>,
}

impl Ring {
    pub(super) fn new(settings: &Settings) -> io::Result<Self> {
        let ring = IoUring::builder()
            // One thread submits; completions are worked out when it asks, not by interrupting
            // it; and a flag in shared memory tells whether asking is worth the call.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // One bad request must not hold up those behind it.
            .setup_submit_all()
            // Fewer completions than submissions, or too many of either, would be refused.
            .setup_cqsize(settings.completions.max(settings.submissions))
            .setup_clamp()
            .build(settings.submissions)?;
        let features = ring.params();
        if !(features.is_feature_ext_arg()
            && features.is_feature_nodrop()
            && features.is_feature_skip_cqe_on_success())
        {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Ok(Self {
            put_aside: VecDeque::with_capacity(features.cq_entries() as usize),
            ring,
            direct: settings.direct,
            socket_flags: if settings.direct { Flags::FIXED_FILE } else { Flags::empty() },
            receives_queued: 0,
            broken: None,
        })
    }

    pub(super) const fn raw(&self) -> &IoUring {
        &self.ring
    }

    pub(super) const fn socket_flags(&self) -> Flags {
        self.socket_flags
    }

    pub(super) const fn receives_queued(&self) -> usize {
        self.receives_queued
    }

    /// Whether the kernel has events that an enter would turn into outcomes.
    pub(super) fn has_more(&mut self) -> bool {
        self.ring.submission().taskrun()
    }

    pub(super) fn has_put_aside(&self) -> bool {
        !self.put_aside.is_empty()
    }

    // ---- asking ----

    /// Polls a socket: again and again (an edge each), or once.
    pub(super) fn poll(&mut self, number: i32, events: i16, again: bool, user_data: u64) {
        let entry = opcode::PollAdd::new(Fd(number), events as u32).multi(again).build();
        self.push_plain(entry.flags(self.socket_flags).user_data(user_data));
    }

    /// Polls a regular descriptor again and again.
    pub(super) fn poll_regular(&mut self, fd: RawFd, events: i16, user_data: u64) {
        let entry = opcode::PollAdd::new(Fd(fd), events as u32).multi(true).build();
        self.push_plain(entry.user_data(user_data));
    }

    /// Receives what is there into one buffer. MSG_DONTWAIT ends it inside the enter that
    /// submits it, whatever the socket holds.
    pub(super) fn receive(&mut self, number: i32, user_data: u64) {
        let entry = opcode::Recv::new(Fd(number), std::ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(self.socket_flags | Flags::BUFFER_SELECT);
        self.push_plain(entry.user_data(user_data));
        self.receives_queued += 1;
    }

    /// Receives whatever comes into a buffer each, until it is cancelled or buffers run out.
    pub(super) fn receive_many(&mut self, number: i32, user_data: u64) {
        let entry = opcode::RecvMulti::new(Fd(number), BUFFER_GROUP).build();
        self.push_plain(entry.flags(self.socket_flags).user_data(user_data));
        self.receives_queued += 1;
    }

    /// Cancels the request of that name. Whether it was found shows in the request's own
    /// outcome, which comes in any case.
    pub(super) fn cancel(&mut self, user_data: u64) {
        let entry = opcode::AsyncCancel::new(user_data).build();
        self.push_plain(entry.flags(Flags::SKIP_SUCCESS).user_data(ignored()));
    }

    /// Cancels every request on a regular descriptor.
    pub(super) fn cancel_all_on(&mut self, fd: RawFd) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build();
        self.push_plain(entry.flags(Flags::SKIP_SUCCESS).user_data(ignored()));
    }

    /// Shuts down one direction or both. A worker of the kernel does it, some time after the
    /// enter; the outcome tells when.
    pub(super) fn shutdown(&mut self, number: i32, how: i32, user_data: u64) {
        let entry = opcode::Shutdown::new(Fd(number), how).build();
        self.push_plain(entry.flags(self.socket_flags).user_data(user_data));
    }

    /// Closes a socket, after everything that was asked before.
    pub(super) fn close(&mut self, number: i32) {
        let entry = if self.direct {
            opcode::Close::new(Fixed(number as u32)).build()
        } else {
            opcode::Close::new(Fd(number)).build()
        };
        self.push_plain(entry.flags(Flags::SKIP_SUCCESS).user_data(ignored()));
    }

    /// Gives a direct descriptor a regular twin; the outcome is its number.
    pub(super) fn install(&mut self, number: i32, user_data: u64) {
        // Without flags the new descriptor is closed on exec.
        let entry = opcode::FixedFdInstall::new(Fixed(number as u32), 0).build();
        self.push_plain(entry.user_data(user_data));
    }

    fn push_plain(&mut self, entry: squeue::Entry) {
        // SAFETY: the callers above build entries without any address in them (receives take
        // from the registered buffer ring), so no memory of ours can be gone too early.
        unsafe { self.push(entry) }
    }

    /// Queues one request, submitting what is queued when there is no room.
    ///
    /// # Safety
    /// Memory that `entry` refers to must stay valid until its outcome has been seen; for what
    /// the kernel only reads while submitting (messages, slices), until the submit that follows.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        while self.broken.is_none() {
            // SAFETY: as the caller promises.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            let _ = self.submit();
        }
    }

    // ---- entering ----

    /// Submits what is queued, lets the kernel work out what has happened, and waits for a
    /// first outcome if told to.
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.check()?;
        self.receives_queued = 0;
        let (queued, worth) = {
            let queue = self.ring.submission();
            (queue.len(), !queue.is_empty() || queue.taskrun() || queue.cq_overflow())
        };
        if matches!(wait, Wait::No) && !worth {
            return Ok(());
        }
        let timespec;
        let (want, args) = match wait {
            Wait::No => (0, SubmitArgs::new()),
            Wait::Forever => (1, SubmitArgs::new()),
            Wait::UpTo(rest) => {
                timespec = Timespec::from(rest);
                (1, SubmitArgs::new().timespec(&timespec))
            }
        };
        let queued = u32::try_from(queued).expect("a queue is counted in 32 bits");
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: EXT_ARG announces exactly this argument, and both it and the time it points
        // to live until the call returns. What the queued entries refer to is the business of
        // `push`.
        let entered =
            unsafe { self.ring.submitter().enter(queued, want, flags.bits(), Some(&args)) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; or no memory for requests just now, which stay queued.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(self.broke(&error)),
            },
        }
    }

    /// Submits all that is queued, now.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.check()?;
        let mut tries = 0;
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(count) if count > 0 => {}
                Ok(_) => tries += 1,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => tries += 1,
                    _ => return Err(self.broke(&error)),
                },
            }
            if tries > SUBMIT_TRIES_MAX {
                return Err(self.broke(&io::Error::from_raw_os_error(libc::EAGAIN)));
            }
            if tries > 0 {
                while let Some(outcome) = self.posted() {
                    self.put_aside.push_back(outcome);
                }
                std::thread::yield_now();
            }
        }
        self.receives_queued = 0;
        Ok(())
    }

    fn broke(&mut self, error: &io::Error) -> io::Error {
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        self.broken = Some(code);
        self.check().expect_err("it was just broken")
    }

    fn check(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    // ---- hearing ----

    /// The next outcome in the order the kernel posted them, also across what was put aside.
    pub(super) fn next(&mut self) -> Option<Outcome> {
        self.put_aside.pop_front().or_else(|| self.ring_next())
    }

    /// The next outcome that is not put aside. When the queue had overflowed, the kernel is
    /// asked for the rest: `None` means that nothing posted so far is missing.
    pub(super) fn posted(&mut self) -> Option<Outcome> {
        loop {
            let next = self.ring_next();
            if next.is_some() || !self.ring.submission().cq_overflow() {
                return next;
            }
            let flags = EnterFlags::GETEVENTS;
            // SAFETY: submits nothing and passes no argument; it only moves what overflowed
            // into the queue that `ring_next` has just emptied.
            let flushed = unsafe { self.ring.submitter().enter::<()>(0, 0, flags.bits(), None) };
            if let Err(error) = flushed
                && error.raw_os_error() != Some(libc::EINTR)
            {
                self.broke(&error);
                return None;
            }
        }
    }

    /// Keeps an outcome for the next harvest.
    pub(super) fn put_aside(&mut self, outcome: Outcome) {
        self.put_aside.push_back(outcome);
    }

    /// Submits, and finds the outcome of the one request with this name.
    pub(super) fn outcome_of(&mut self, user_data: u64) -> io::Result<i32> {
        self.submit()?;
        loop {
            while let Some(outcome) = self.posted() {
                if outcome.user_data == user_data {
                    return Ok(outcome.result);
                }
                self.put_aside.push_back(outcome);
            }
            self.enter(Wait::Forever)?;
        }
    }

    fn ring_next(&mut self) -> Option<Outcome> {
        let entry = self.ring.completion().next()?;
        Some(Outcome { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() })
    }
}

/// The name of requests whose failure is of no interest either.
fn ignored() -> u64 {
    SocketId::new(0, 0).pack(TAG_IGNORED)
}
