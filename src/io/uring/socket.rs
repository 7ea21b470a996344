//! What the driver knows of one socket.

/// One socket. With its slot's generation it takes 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Socket {
    /// The descriptor, or the slot of the direct one.
    pub(super) number: i32,
    flags: u16,
    /// Receives since it was last said to be quiet.
    pub(super) receives: u8,
}

const _: () = assert!(size_of::<Option<Socket>>() + size_of::<u32>() <= 16);

impl Socket {
    /// A multishot poll is in the queue or the kernel, and its last outcome has not been seen.
    pub(super) const POLL_ARMED: u16 = 1;
    /// ... and it was cancelled.
    pub(super) const POLL_CANCELLED: u16 = 1 << 1;
    /// A single receive is in the queue, or its outcome has not been seen.
    pub(super) const RECEIVE_ARMED: u16 = 1 << 2;
    /// A multishot receive is in the queue or the kernel, its last outcome not seen.
    pub(super) const MANY_ARMED: u16 = 1 << 3;
    /// ... and it was cancelled.
    pub(super) const MANY_CANCELLED: u16 = 1 << 4;
    /// The poll (or a receive) says that there is something to receive.
    pub(super) const READABLE: u16 = 1 << 5;
    /// The poll spoke of an end or an error: receive until it shows.
    pub(super) const HUNG: u16 = 1 << 6;
    /// It talks much: a multishot receive is kept armed.
    pub(super) const CHATTY: u16 = 1 << 7;
    pub(super) const PAUSED: u16 = 1 << 8;
    /// It waits in `starved`.
    pub(super) const STARVED: u16 = 1 << 9;
    /// Nothing more is received: the end or the failure was met.
    pub(super) const ENDED: u16 = 1 << 10;
    pub(super) const FAILED: u16 = 1 << 11;
    /// A poll for room to write is armed.
    pub(super) const WRITABLE_ARMED: u16 = 1 << 12;
    /// A shutdown was asked for (direct descriptors).
    pub(super) const SHUT: u16 = 1 << 13;
    /// ... and is through.
    pub(super) const SHUT_DONE: u16 = 1 << 14;

    /// One that has just come: it is about to speak.
    pub(super) const fn new(number: i32) -> Self {
        Self { number, flags: Self::CHATTY, receives: 0 }
    }

    pub(super) const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    pub(super) const fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    pub(super) const fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }
}
