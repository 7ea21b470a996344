//! The receive buffers: a ring of them that the kernel takes from, shared by all sockets.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::region::Region;
use super::ring::BUFFER_GROUP;
use crate::io::{Buffer, Settings};

/// Every buffer is in one of three hands: the kernel's (in its ring), the shard's (lent until
/// the next harvest), or on its way back to the kernel.
pub(super) struct ReceiveBuffers {
    ring: Region,
    memory: Region,
    count: u16,
    buffer_bytes: u32,
    ring_mask: u16,
    /// Where the next buffer goes; the kernel has seen it up to the last `take_back`.
    tail: u16,
    /// How many bytes of each buffer the shard may look at; 0 when it is not lent.
    lent: Box<[u32]>,
    returning: Vec<u16>,
}

impl ReceiveBuffers {
    pub(super) fn new(settings: &Settings, ring: &IoUring) -> io::Result<Self> {
        let count = settings.receive_buffers.clamp(1, 1 << 15);
        let slots = count.next_power_of_two();
        let buffer_bytes = settings.receive_buffer_bytes;
        let entries = Region::new(usize::from(slots) * size_of::<BufRingEntry>())?;
        let memory = Region::new(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: the region holds `slots` entries, starts at a page, and is kept in a field
        // that the driver declares after its ring: it outlives it.
        unsafe {
            let address = entries.element::<BufRingEntry>(0) as u64;
            ring.submitter().register_buf_ring_with_flags(address, slots, BUFFER_GROUP, 0)?;
        }
        let mut buffers = Self {
            ring: entries,
            memory,
            count,
            buffer_bytes,
            ring_mask: slots - 1,
            tail: 0,
            lent: vec![0; usize::from(count)].into(),
            returning: (0..count).collect(),
        };
        buffers.take_back();
        Ok(buffers)
    }

    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    pub(super) const fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Lends the first `bytes` of a buffer that the kernel has filled, until `take_back`.
    pub(super) fn lend(&mut self, index: u16, bytes: u32) -> Buffer {
        assert!(bytes > 0 && bytes <= self.buffer_bytes, "the kernel filled more than there is");
        self.lent[usize::from(index)] = bytes;
        self.give_back(index);
        Buffer { index: u32::from(index), bytes }
    }

    /// Returns a buffer that nobody wants to see, with the next `take_back`.
    pub(super) fn give_back(&mut self, index: u16) {
        self.returning.push(index);
    }

    /// Ends the loans of the last tick and gives every returning buffer to the kernel.
    pub(super) fn take_back(&mut self) {
        if self.returning.is_empty() {
            return;
        }
        for index in self.returning.drain(..) {
            self.lent[usize::from(index)] = 0;
            let address =
                self.memory.element::<u8>(usize::from(index) * self.buffer_bytes as usize);
            let entry = self.ring.element::<BufRingEntry>(usize::from(self.tail & self.ring_mask));
            // SAFETY: the slot at the tail is not the kernel's: there are at most as many
            // buffers as slots, and this one is in our hands. The kernel only reads the ring,
            // and the setters leave alone the bytes of slot 0 that hold the tail.
            let entry = unsafe { &mut *entry };
            entry.set_addr(address as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(index);
            self.tail = self.tail.wrapping_add(1);
        }
        let start = self.ring.element::<BufRingEntry>(0);
        // SAFETY: the address is that of the first entry, which is initialised (zeroed by the
        // mapping); the tail is 16 bits wide, aligned, and read by the kernel alone, so an
        // atomic view of it conflicts with nothing. Release: the entries come first.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(start).cast_mut()) }
            .store(self.tail, Ordering::Release);
    }

    /// The bytes of a buffer that is lent, or of one that is about to be given back unseen.
    pub(super) fn bytes(&mut self, index: u16, bytes: u32) -> &mut [u8] {
        assert!(bytes <= self.buffer_bytes, "the kernel filled more than there is");
        let start = self.memory.element::<u8>(usize::from(index) * self.buffer_bytes as usize);
        // SAFETY: buffers do not overlap and lie inside the region. The callers name buffers
        // that are in our hands (`lent_bytes` checks it, the others come from an outcome just
        // taken), so the kernel writes to it again only after `take_back`, which needs `self`
        // and so the end of this borrow.
        unsafe { std::slice::from_raw_parts_mut(start, bytes as usize) }
    }

    /// The bytes of a buffer that is lent.
    ///
    /// # Panics
    /// When it is not.
    pub(super) fn lent_bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        let index = u16::try_from(buffer.index).expect("checked by the driver");
        let lent = self.lent[usize::from(index)];
        assert!(lent != 0 && buffer.bytes <= lent, "a buffer of an earlier tick");
        self.bytes(index, buffer.bytes)
    }
}
