//! Sends that leave nothing in flight.
//!
//! A send that succeeds whole posts no outcome (CQE_SKIP_SUCCESS). MSG_DONTWAIT keeps it from
//! being finished later, and MSG_WAITALL makes a short one count as unsuccessful, so that it
//! posts how far it came. When the enter that submits returns, every send has ended and every
//! outcome there is has been posted: silence means success. `proof` checks this at start;
//! where it does not hold, every send posts an outcome and each is waited for.

use std::io;

use io_uring::squeue::Flags;
use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::region::Region;
use super::ring::Wait;
use super::{TAG_SEND, Uring};
use crate::io::{SLICES_PER_SEND_MAX, Send, Sent, SocketId};
use crate::limits::SENDS_PER_SUBMISSION_MAX;

/// Message headers for one submission.
pub(super) fn messages() -> io::Result<Region> {
    Region::new(SENDS_PER_SUBMISSION_MAX * size_of::<libc::msghdr>())
}

/// How sends are asked for, with silence for success and without.
pub(super) const fn send_flags(skip: bool) -> (i32, Flags) {
    if skip {
        (libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL, Flags::SKIP_SUCCESS)
    } else {
        (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL, Flags::empty())
    }
}

/// The request for one send. `message` is used when there are several slices.
///
/// # Safety
/// `message` must be valid for writes. It and the slices must stay as they are until the entry
/// has been submitted and its outcome, if it posts one, has been seen.
pub(super) unsafe fn send_entry(
    number: i32,
    slices: &[io::IoSlice<'_>],
    message: *mut libc::msghdr,
    flags: i32,
) -> squeue::Entry {
    if let [slice] = slices {
        let bytes = u32::try_from(slice.len()).expect("a slice is far below 4 GiB");
        return opcode::Send::new(Fd(number), slice.as_ptr(), bytes).flags(flags).build();
    }
    // SAFETY: `message` is valid for writes, and a zeroed header is one without address and
    // control data. IoSlice has the layout of iovec, and the kernel only reads both.
    unsafe {
        message.write_bytes(0, 1);
        (*message).msg_iov = slices.as_ptr().cast_mut().cast();
        (*message).msg_iovlen = slices.len() as _;
    }
    opcode::SendMsg::new(Fd(number), message).flags(flags as u32).build()
}

impl Uring {
    pub(super) fn send_all(&mut self, sends: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        for piece in sends.chunks(SENDS_PER_SUBMISSION_MAX) {
            self.send_piece(piece, outcomes);
        }
    }

    fn send_piece(&mut self, piece: &[Send<'_>], outcomes: &mut Vec<Sent>) {
        let first = outcomes.len();
        let (mut send_flags, entry_flags) = send_flags(self.sends_skip);
        if self.sends_apart {
            send_flags |= libc::MSG_EOR;
        }
        let entry_flags = entry_flags | self.ring.socket_flags();
        let mut asked = 0;
        for (position, send) in piece.iter().enumerate() {
            assert!(
                (1..=SLICES_PER_SEND_MAX).contains(&send.slices.len()),
                "a send has 1 to {SLICES_PER_SEND_MAX} slices"
            );
            let Some(state) = self.sockets.get(send.socket) else {
                outcomes.push(Sent::Failed(io::ErrorKind::NotConnected.into()));
                continue;
            };
            outcomes.push(Sent::Whole);
            asked += 1;
            let message = self.messages.element::<libc::msghdr>(position);
            let position = u32::try_from(position).expect("a piece is small");
            let name = SocketId::new(position, 0).pack(TAG_SEND);
            // SAFETY: the header is this piece's own, in a region that outlives the ring. The
            // slices are borrowed until `send` returns, and below the piece is submitted and
            // its outcomes are heard before; should submitting fail, the ring counts as broken
            // and never submits again.
            unsafe {
                let entry = send_entry(state.number, send.slices, message, send_flags);
                self.ring.push(entry.flags(entry_flags).user_data(name));
            }
        }
        let heard =
            self.ring.submit().and_then(|()| self.hear_sends(piece, asked, first, outcomes));
        if let Err(error) = heard {
            for outcome in &mut outcomes[first..] {
                *outcome = Sent::Failed(io::Error::new(error.kind(), error.to_string()));
            }
        }
    }

    /// Corrects the outcomes of those sends that were not whole, and keeps everything else
    /// that has happened for the next harvest.
    fn hear_sends(
        &mut self,
        piece: &[Send<'_>],
        asked: usize,
        first: usize,
        outcomes: &mut [Sent],
    ) -> io::Result<()> {
        let mut heard = 0;
        loop {
            while let Some(outcome) = self.ring.posted() {
                let (tag, name) = SocketId::unpack(outcome.user_data);
                if tag != TAG_SEND {
                    self.ring.put_aside(outcome);
                    continue;
                }
                heard += 1;
                let position = name.index();
                outcomes[first + position] = match outcome.result {
                    bytes if bytes >= 0 => {
                        let bytes = bytes.unsigned_abs() as usize;
                        let slices = piece[position].slices;
                        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
                        if bytes == wanted { Sent::Whole } else { Sent::Partial(bytes) }
                    }
                    code if code == -libc::EAGAIN || code == -libc::EINTR => Sent::Partial(0),
                    code => Sent::Failed(io::Error::from_raw_os_error(-code)),
                };
            }
            // `posted` says nothing while the ring is broken, so this cannot go on for ever.
            if self.sends_skip || heard >= asked {
                return Ok(());
            }
            self.ring.enter(Wait::Forever)?;
        }
    }
}
