//! The floor on io_uring: multishot accept, multishot recv into a buffer ring, sends that post a
//! completion only when they fail.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{Peer, RECEIVE_BYTES, Ready, SWITCHING, must_be_whole};

const ENTRIES: u32 = 1024;
const BUFFERS: u16 = 64;
const GROUP: u16 = 0;

/// Sends given to the kernel in one submission, so that receives interleave.
const SENDS_PER_SUBMISSION: usize = 128;

// The kind of an operation, above the descriptor and the length in its user data.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

pub(super) fn serve(listener: &TcpListener, ready: &Ready) -> io::Result<()> {
    let mut floor = Floor::new(ready)?;
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build();
    floor.push(accept.user_data(ACCEPT << 60))?;
    let mut completions: Vec<cqueue::Entry> = Vec::new();
    loop {
        floor.ring.submit_and_wait(1)?;
        completions.clear();
        completions.extend(floor.ring.completion());
        let mut messages = 0;
        for completion in &completions {
            messages += floor.complete(completion)?;
        }
        if messages > 0 && ready.deliver_bytes > 0 {
            floor.deliver(ready.messages(messages))?;
        }
    }
}

struct Floor<'a> {
    ring: IoUring,
    buffers: Buffers,
    peers: Vec<Option<Peer>>,
    ready: &'a Ready,
}

impl<'a> Floor<'a> {
    fn new(ready: &'a Ready) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(16 * 1024)
            .build(ENTRIES)?;
        let buffers = Buffers::register(&ring)?;
        Ok(Self { ring, buffers, peers: Vec::new(), ready })
    }

    /// Handles one completion; returns how many messages it makes.
    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<usize> {
        let data = completion.user_data();
        let result = completion.result();
        match data >> 60 {
            ACCEPT => {
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result));
                }
                if !cqueue::more(completion.flags()) {
                    return Err(io::Error::other("the multishot accept ended"));
                }
                let index = result as usize;
                if self.peers.len() <= index {
                    self.peers.resize(index + 1, None);
                }
                self.peers[index] = Some(Peer::default());
                self.receive_from(result)?;
                Ok(0)
            }
            SEND => {
                // Only failures come here.
                must_be_whole(i64::from(result), (data & 0xffff_ffff) as usize);
                Ok(0)
            }
            _ => self.received(data as u32 as i32, completion),
        }
    }

    fn received(&mut self, fd: i32, completion: &cqueue::Entry) -> io::Result<usize> {
        let more = cqueue::more(completion.flags());
        let bytes = completion.result();
        if bytes == -libc::ENOBUFS {
            self.receive_from(fd)?;
            return Ok(0);
        }
        if bytes <= 0 {
            self.peers[fd as usize] = None;
            // The descriptor is ours alone, and the multishot recv on it has just ended.
            let _ = nix::unistd::close(fd);
            return Ok(0);
        }
        let buffer = cqueue::buffer_select(completion.flags()).expect("a recv picked a buffer");
        let peer = self.peers[fd as usize].as_mut().expect("only open sockets receive");
        let mut requests = 0;
        let answer: &[u8] = if peer.switched {
            requests = peer.requests(bytes as usize, self.ready.request_bytes);
            self.ready.answers(requests)
        } else {
            peer.switch(self.buffers.bytes(buffer, bytes as usize));
            SWITCHING
        };
        self.buffers.give_back(buffer);
        if !answer.is_empty() {
            self.send(fd, answer)?;
        }
        if !more {
            self.receive_from(fd)?;
        }
        Ok(requests)
    }

    /// Sends the same bytes to every subscriber.
    fn deliver(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut pushed = 0;
        for index in 0..self.peers.len() {
            if self.peers[index].is_some_and(|peer| peer.subscriber) {
                self.send(index as i32, bytes)?;
                pushed += 1;
                if pushed % SENDS_PER_SUBMISSION == 0 {
                    self.ring.submit()?;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, fd: i32, bytes: &[u8]) -> io::Result<()> {
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(SEND << 60 | bytes.len() as u64);
        self.push(entry)
    }

    fn receive_from(&mut self, fd: i32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(fd), GROUP).build();
        self.push(entry.user_data(RECEIVE << 60 | fd as u64))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: an entry points to the buffer ring, which lives as long as the ring, or to
        // ready bytes, which live as long as the program.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }
}

/// The ring of buffers that recv picks from.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Self> {
        let bytes = size_of::<BufRingEntry>() * BUFFERS as usize;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing.
        let entries = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if entries == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let entries = entries.cast::<BufRingEntry>();
        // SAFETY: the mapping holds BUFFERS entries, and is never unmapped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)?
        };
        let memory = vec![0; RECEIVE_BYTES * BUFFERS as usize];
        let mut buffers = Self { entries, memory, tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, count: usize) -> &[u8] {
        let start = buffer as usize * RECEIVE_BYTES;
        &self.memory[start..start + count]
    }

    fn give_back(&mut self, buffer: u16) {
        let slot = (self.tail & (BUFFERS - 1)) as usize;
        let start = buffer as usize * RECEIVE_BYTES;
        let address = self.memory[start..].as_mut_ptr() as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: slot is below BUFFERS, so the entry lies inside the mapping; the kernel reads
        // an entry only after the tail has passed it, and the release store below is that.
        unsafe {
            let entry = &mut *self.entries.add(slot);
            entry.set_addr(address);
            entry.set_len(RECEIVE_BYTES as u32);
            entry.set_bid(buffer);
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
