//! Compressed messages (RFC 7692, permessage-deflate): what is agreed on is [`super::extension`]'s
//! business, how they become messages and back is this one's.
//!
//! What inflates and deflates is a [`Codec`], one for all connections of a shard; a connection
//! itself keeps nothing, or, if it was agreed that a message may refer back to the ones before it,
//! the end of what was said: a [`Window`].
//!
//! Ours never refer back to other messages (`server_no_context_takeover`), so one compressed frame
//! serves every subscriber that allows its [`Reach`].

mod deflater;
mod inflater;

pub use deflater::Deflater;
pub use inflater::Inflater;

/// How far back a message of ours refers within itself, which is all that a client's
/// `server_max_window_bits` limits when no message refers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// 4 KiB. Of JSON it leaves hardly more than 32 KiB do (5 % at 45 KiB, nothing below 1 KiB),
    /// and small clients ask for no more.
    Wide,
    /// 250 bytes, for clients that allow less than that.
    Narrow,
}

impl Reach {
    /// All there are, by index.
    pub const ALL: [Self; 2] = [Self::Wide, Self::Narrow];

    /// For a client that allows windows of this many bits.
    #[must_use]
    pub const fn within(window_bits: u8) -> Self {
        if window_bits >= Self::Wide.window_bits() { Self::Wide } else { Self::Narrow }
    }

    /// The window of the compressor. zlib has none of 8 bits; its one of 9 bits refers back 250
    /// bytes at most, which are within a window of 8, too: it needs the rest to look ahead.
    const fn window_bits(self) -> u8 {
        match self {
            Self::Wide => 12,
            Self::Narrow => 9,
        }
    }

    /// What to promise a client that allows windows of this many bits.
    #[must_use]
    pub fn promised_bits(window_bits: u8) -> u8 {
        Self::within(window_bits).window_bits().min(window_bits)
    }
}

/// What inflates and deflates for the connections of a shard, one message at a time.
#[derive(Debug)]
pub struct Codec {
    /// What comes in.
    pub inflater: Inflater,
    /// What goes out.
    pub deflater: Deflater,
}

impl Codec {
    /// One that compresses at `level`, from 1 to 9. Its memory is taken when it is needed.
    #[must_use]
    pub fn new(level: u32) -> Self {
        Self { inflater: Inflater::default(), deflater: Deflater::new(level) }
    }
}

/// The end of what a client has said, which its next compressed message may refer back to.
#[derive(Debug)]
pub struct Window {
    said: Vec<u8>,
    bytes_max: usize,
}

impl Window {
    /// An empty one that keeps `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { said: Vec::new(), bytes_max }
    }

    /// What is kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.said
    }

    /// Keeps the end of what was said, `message` now being a part of it.
    pub fn push(&mut self, message: &[u8]) {
        let message = &message[message.len().saturating_sub(self.bytes_max)..];
        let needed = self.said.len() + message.len();
        self.said.drain(..needed.saturating_sub(self.bytes_max));
        let needed = self.said.len() + message.len();
        if needed > self.said.capacity() {
            let room = (self.said.capacity() * 2).min(self.bytes_max).max(needed);
            self.said.reserve_exact(room - self.said.len());
        }
        self.said.extend_from_slice(message);
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.said.capacity()
    }
}

/// RFC 7692 7.2.1: what every flush ends with, taken off before a message is sent.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// Bytes of a buffer that is kept for the next message.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
mod reference;
#[cfg(test)]
mod tests;
