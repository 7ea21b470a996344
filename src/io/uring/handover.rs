//! How sockets come and go other than by accept: adopted from another driver, handed over to
//! one, shut down, closed.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use io_uring::opcode;
use socket2::SockRef;

use super::socket::Socket;
use super::{TAG_COMMAND, TAG_POLL, TAG_RECEIVE_MANY, TAG_SHUTDOWN, TAG_WRITABLE, Uring};
use crate::io::SocketId;

impl Uring {
    pub(super) fn take_over(&mut self, fd: OwnedFd) -> io::Result<SocketId> {
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

    pub(super) fn hand_over(&mut self, socket: SocketId) -> Option<OwnedFd> {
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

    pub(super) fn say_goodbye(&mut self, socket: SocketId) {
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

    pub(super) fn handle_shutdown(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get(socket) {
            state.set(Socket::SHUT_DONE);
        } else {
            // A socket has one shutdown on its way at most, so this was the last one's.
            self.closing -= 1;
            self.ring.close(number_of(socket));
        }
    }

    pub(super) fn let_go(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.remove(socket) else { return };
        self.cancel_armed(socket, state);
        if self.direct {
            if state.has(Socket::SHUT) && !state.has(Socket::SHUT_DONE) {
                // A kernel thread is about to look up the slot: it must not find another.
                self.closing += 1;
            } else if self.shutdown_before_close {
                self.ring.shutdown(state.number, libc::SHUT_RDWR, socket.pack(TAG_SHUTDOWN));
                self.closing += 1;
            } else {
                self.ring.close(state.number);
            }
        } else {
            // In the queue, not by system call: requests before it carry this number.
            self.ring.close(state.number);
            self.sockets.free(socket);
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

/// The slot of a direct descriptor, which is the index of its key.
fn number_of(socket: SocketId) -> i32 {
    i32::try_from(socket.index()).expect("slots are counted in 31 bits")
}
