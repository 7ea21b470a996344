//! Accepting.
//!
//! A multishot accept cannot tell who the peer is, and a direct descriptor cannot be asked
//! afterwards. So a number of single accepts are kept armed, each with room of its own for the
//! peer's address.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};
use socket2::{SockAddr, SockAddrStorage, SockRef};

use super::region::Region;
use super::{TAG_ACCEPT, Uring};
use crate::io::{Completion, SocketId, peer};

/// Accepts kept armed: a burst of this many needs no second submission.
const ACCEPTS_ARMED_MAX: usize = 32;

/// Where the kernel writes who was accepted.
#[repr(C)]
struct PeerSlot {
    address: libc::sockaddr_storage,
    bytes: libc::socklen_t,
}

pub(super) struct Accepts {
    listener: Option<OwnedFd>,
    state: State,
    /// One bit for each armed accept; its slot belongs to the kernel.
    armed: u32,
    peers: Region,
    /// Whether this kernel can be told to wait first (6.10). Without it each arming tries at once,
    /// which makes a socket and throws it away when nobody is there.
    waits_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    On,
    /// The kernel had no room; nothing is tried until `resume_accepting`.
    Paused,
    /// `stop_listening` was called: late accepts are awaited, then the queue is emptied.
    Stopping,
}

impl Accepts {
    pub(super) fn new(release: (u32, u32)) -> io::Result<Self> {
        const { assert!(ACCEPTS_ARMED_MAX <= u32::BITS as usize) };
        let peers = Region::new(ACCEPTS_ARMED_MAX * size_of::<PeerSlot>())?;
        let waits_first = release >= (6, 10);
        Ok(Self { listener: None, state: State::Off, armed: 0, peers, waits_first })
    }

    pub(super) const fn armed(&self) -> usize {
        self.armed.count_ones() as usize
    }
}

impl Uring {
    pub(super) fn start_accepting(&mut self, listener: OwnedFd) -> io::Result<()> {
        assert!(self.accepts.listener.is_none(), "a driver has at most one listener");
        // Armed accepts wait in the kernel; a listener that never waits would end them at once.
        SockRef::from(&listener).set_nonblocking(false)?;
        self.accepts.listener = Some(listener);
        self.accepts.state = State::On;
        self.arm_accepts();
        Ok(())
    }

    pub(super) fn stop_accepting(&mut self) {
        let accepts = &mut self.accepts;
        if matches!(accepts.state, State::On | State::Paused) {
            accepts.state = State::Stopping;
            if let Some(listener) = &accepts.listener
                && accepts.armed != 0
            {
                self.ring.cancel_all_on(listener.as_raw_fd());
            }
        }
    }

    pub(super) fn unpause_accepting(&mut self) {
        if self.accepts.state == State::Paused {
            self.accepts.state = State::On;
            self.arm_accepts();
        }
    }

    /// Arms as many accepts as there is room for: with direct descriptors a connection that
    /// finds no slot would be accepted and dropped.
    fn arm_accepts(&mut self) {
        let Some(listener) = self.accepts.listener.as_ref().map(AsRawFd::as_raw_fd) else { return };
        for index in 0..ACCEPTS_ARMED_MAX {
            if self.accepts.armed & 1 << index != 0 {
                continue;
            }
            if self.room() == 0 {
                return;
            }
            let slot = self.accepts.peers.element::<PeerSlot>(index);
            // SAFETY: the slot lies in the region and, as its bit is not set, no request
            // refers to it.
            let (address, bytes) = unsafe {
                (&raw mut (*slot).bytes).write(size_of::<libc::sockaddr_storage>() as u32);
                (&raw mut (*slot).address, &raw mut (*slot).bytes)
            };
            let accept = opcode::Accept::new(Fd(listener), address.cast(), bytes);
            let accept = if self.direct {
                accept.file_index(Some(DestinationSlot::auto_target()))
            } else {
                accept.flags(libc::SOCK_CLOEXEC)
            };
            let index_bits = u32::try_from(index).expect("it is below 32");
            let name = SocketId::new(index_bits, 0).pack(TAG_ACCEPT);
            let mut entry = accept.build().user_data(name);
            if self.accepts.waits_first {
                wait_first(&mut entry);
            }
            // SAFETY: the slot stays the kernel's until this request's outcome clears its bit,
            // and the region outlives the ring.
            unsafe { self.ring.push(entry) };
            self.accepts.armed |= 1 << index;
        }
    }

    pub(super) fn handle_accept(
        &mut self,
        index: usize,
        result: i32,
        completions: &mut Vec<Completion>,
    ) {
        self.accepts.armed &= !(1 << index);
        if result >= 0 {
            let peer = self.peer_of(index);
            let socket = self.insert(result);
            completions.push(Completion::Accepted { socket, peer });
        } else {
            match -result {
                // Cancelled; or that connection is gone, and the next may be fine.
                libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => {}
                libc::EPROTO | libc::EPERM => {}
                code => {
                    if self.accepts.state == State::On {
                        self.accepts.state = State::Paused;
                        let error = io::Error::from_raw_os_error(code);
                        completions.push(Completion::AcceptFailed { error });
                    }
                }
            }
        }
        if self.accepts.state == State::On {
            self.arm_accepts();
        }
    }

    fn peer_of(&self, index: usize) -> std::net::SocketAddr {
        let slot = self.accepts.peers.element::<PeerSlot>(index);
        // SAFETY: the outcome has been seen, so the kernel is done with the slot, and it wrote
        // an address of that length into it. Zeroed storage is a valid address of no family.
        let address = unsafe {
            let mut storage = SockAddrStorage::zeroed();
            *storage.view_as::<libc::sockaddr_storage>() = (&raw const (*slot).address).read();
            SockAddr::new(storage, (&raw const (*slot).bytes).read())
        };
        peer(&address)
    }

    /// Does what the state of accepting asks for, outside of any outcome.
    pub(super) fn settle_accepting(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        if self.accepts.armed != 0 {
            return;
        }
        match self.accepts.state {
            State::On => {
                self.arm_accepts();
                if self.accepts.armed == 0 {
                    self.accepts.state = State::Paused;
                    let error =
                        io::Error::other(format!("all {} sockets are in use", self.sockets_max));
                    completions.push(Completion::AcceptFailed { error });
                }
            }
            State::Stopping => self.empty_queue(completions, limit),
            State::Off | State::Paused => {}
        }
    }

    /// Takes the connections that were complete before the listener closes, instead of
    /// resetting them.
    fn empty_queue(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        let Some(listener) = self.accepts.listener.take() else { return };
        let socket = SockRef::from(&listener);
        let mut waits = socket.set_nonblocking(true).is_ok();
        while waits && completions.len() + 1 < limit {
            waits = match socket.accept() {
                Ok((accepted, address)) => {
                    if let Ok(socket) = crate::io::Driver::adopt(self, accepted.into()) {
                        completions.push(Completion::Accepted { socket, peer: peer(&address) });
                    }
                    true
                }
                Err(error) => matches!(
                    error.raw_os_error(),
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO)
                ),
            };
        }
        if waits {
            self.accepts.listener = Some(listener);
        } else {
            self.accepts.state = State::Off;
            completions.push(Completion::ListenerClosed);
        }
    }
}

/// Sets IORING_ACCEPT_POLL_FIRST, for which the `io-uring` crate has no name.
fn wait_first(entry: &mut squeue::Entry) {
    const ACCEPT_POLL_FIRST: u16 = 1 << 2;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is the kernel's `struct io_uring_sqe` and nothing else (the size says so):
    // one byte of opcode, one of flags, then two of `ioprio`, where accept has its flags.
    unsafe { (&raw mut *entry).cast::<u16>().add(1).write(ACCEPT_POLL_FIRST) };
}
