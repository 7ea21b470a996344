//! Letters between shards: bounded mailboxes, and a shelf for what did not fit.
//!
//! A shard never waits for another one's mailbox to empty. A letter that does not fit stays on the
//! sender's shelf, in order, and the sender stops reading from the clients whose requests need
//! that shard until the shelf is empty. Requests and deliveries travel apart, because a shard that
//! cannot get rid of its deliveries must go on hearing those of others.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::hub::{Delivery, Letter, Request, ShardIndex};
use crate::io::Waker;
use crate::limits::{MAILBOX_BYTES_MAX, MAILBOX_LETTERS_MAX, MAILBOX_PLACE_BYTES_MAX};

/// What a place costs beyond the letter: the channel's own bookkeeping.
const STAMP_BYTES: usize = 8;

const _: () = assert!(
    size_of::<Request>() + size_of::<Delivery>() + size_of::<Note>() + 3 * STAMP_BYTES
        <= MAILBOX_PLACE_BYTES_MAX
);

/// What the house, or another shard's listener, tells a shard.
#[derive(Debug)]
pub enum Note {
    /// A peer that connected to a more loaded shard.
    Adopt {
        /// Its socket.
        socket: OwnedFd,
        /// Where it is.
        peer: SocketAddr,
    },
    /// Say good-bye to everybody within the drain window, then end.
    Drain,
}

/// The writing ends of one shard's mailboxes.
#[derive(Debug, Clone)]
pub struct Address {
    requests: Slit<Request>,
    deliveries: Slit<Delivery>,
    notes: Sender<Note>,
}

/// The reading ends of one shard's mailboxes.
#[derive(Debug)]
pub struct Mailbox {
    requests: Letters<Request>,
    deliveries: Letters<Delivery>,
    notes: Receiver<Note>,
}

/// How much each of a shard's mailboxes holds. The server uses the default; whoever wants to see
/// full mailboxes makes them small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxRoom {
    /// Letters.
    pub letters: usize,
    /// Bytes that they may point to.
    pub bytes: usize,
}

impl Default for MailboxRoom {
    fn default() -> Self {
        Self { letters: MAILBOX_LETTERS_MAX, bytes: MAILBOX_BYTES_MAX }
    }
}

/// A mailbox and its address.
#[must_use]
pub fn mailbox(room: MailboxRoom) -> (Address, Mailbox) {
    let (requests_in, requests) = letters(room, Request::pointed_bytes);
    let (deliveries_in, deliveries) = letters(room, Delivery::pointed_bytes);
    // Notes are few, and the house waits for room when it has one.
    let (notes_in, notes) = bounded(MAILBOX_LETTERS_MAX);
    (
        Address { requests: requests_in, deliveries: deliveries_in, notes: notes_in },
        Mailbox { requests, deliveries, notes },
    )
}

/// A mailbox for one kind of letter, bounded by their count and by the bytes they point to.
fn letters<T>(room: MailboxRoom, measure: fn(&T) -> usize) -> (Slit<T>, Letters<T>) {
    let (sender, receiver) = bounded(room.letters);
    let bytes = Arc::new(AtomicUsize::new(0));
    let slit = Slit { sender, bytes: Arc::clone(&bytes), bytes_max: room.bytes, measure };
    (slit, Letters { receiver, bytes, measure })
}

/// Where letters of one kind are put in.
#[derive(Debug)]
struct Slit<T> {
    sender: Sender<T>,
    /// What the letters inside point to.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    measure: fn(&T) -> usize,
}

impl<T> Clone for Slit<T> {
    fn clone(&self) -> Self {
        let Self { sender, bytes, bytes_max, measure } = self;
        let (sender, bytes) = (sender.clone(), Arc::clone(bytes));
        Self { sender, bytes, bytes_max: *bytes_max, measure: *measure }
    }
}

impl<T> Slit<T> {
    fn try_send(&self, letter: T) -> Result<(), TrySendError<T>> {
        let bytes = (self.measure)(&letter);
        let before = self.bytes.fetch_add(bytes, Relaxed);
        // A letter that is larger than the bound goes in when nothing else is there.
        let fits = before == 0 || before + bytes <= self.bytes_max || bytes == 0;
        let sent =
            if fits { self.sender.try_send(letter) } else { Err(TrySendError::Full(letter)) };
        if sent.is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
        }
        sent
    }
}

/// Where letters of one kind are taken out.
#[derive(Debug)]
struct Letters<T> {
    receiver: Receiver<T>,
    bytes: Arc<AtomicUsize>,
    measure: fn(&T) -> usize,
}

impl<T> Letters<T> {
    fn next(&self) -> Option<T> {
        let letter = self.receiver.try_recv().ok()?;
        self.bytes.fetch_sub((self.measure)(&letter), Relaxed);
        Some(letter)
    }
}

/// Everything one shard needs to write to the others and to hear them.
#[derive(Debug)]
pub struct Post {
    mailbox: Mailbox,
    others: Vec<Other>,
    counts: PostCounts,
}

/// What the post has carried so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PostCounts {
    /// Letters put into other shards' mailboxes.
    pub sent: u64,
    /// Letters heard.
    pub heard: u64,
    /// Letters that had to wait on a shelf.
    pub shelved: u64,
}

#[derive(Debug)]
struct Other {
    requests: Line<Request>,
    deliveries: Line<Delivery>,
    notes: Sender<Note>,
    waker: Waker,
}

/// One way into a mailbox, and the shelf before it.
#[derive(Debug)]
struct Line<T> {
    slit: Slit<T>,
    shelf: VecDeque<T>,
}

impl<T> Line<T> {
    const fn new(slit: Slit<T>) -> Self {
        Self { slit, shelf: VecDeque::new() }
    }

    /// False when `letter` had to be put on the shelf.
    fn send(&mut self, letter: T) -> bool {
        self.shelf.push_back(letter);
        self.empty_shelf();
        self.shelf.is_empty()
    }

    /// Sends what fits; true when something did.
    fn empty_shelf(&mut self) -> bool {
        let before = self.shelf.len();
        while let Some(letter) = self.shelf.pop_front() {
            match self.slit.try_send(letter) {
                Ok(()) => {}
                Err(TrySendError::Full(letter)) => {
                    self.shelf.push_front(letter);
                    break;
                }
                // That shard has ended: the process is going down, and nobody will read this.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        self.shelf.len() < before
    }
}

impl Post {
    /// The post of the shard that owns `mailbox`; `others` are all shards in order, itself
    /// included.
    #[must_use]
    pub fn new(mailbox: Mailbox, others: impl IntoIterator<Item = (Address, Waker)>) -> Self {
        let others = others
            .into_iter()
            .map(|(address, waker)| Other {
                requests: Line::new(address.requests),
                deliveries: Line::new(address.deliveries),
                notes: address.notes,
                waker,
            })
            .collect();
        Self { mailbox, others, counts: PostCounts::default() }
    }

    /// Sends `letter` to `shard`, behind those that wait for it.
    pub fn send(&mut self, shard: ShardIndex, letter: Letter) {
        let other = &mut self.others[usize::from(shard)];
        let sent = match letter {
            Letter::Request(request) => other.requests.send(request),
            Letter::Delivery(delivery) => other.deliveries.send(delivery),
        };
        self.counts.sent += 1;
        self.counts.shelved += u64::from(!sent);
        // Also when the mailbox was full: its owner has to hear it.
        other.waker.wake();
    }

    /// Gives a socket to `shard`; gives it back when the mailbox is full.
    ///
    /// # Errors
    /// The socket and its peer, when they have to stay.
    pub fn hand_over(
        &self,
        shard: ShardIndex,
        socket: OwnedFd,
        peer: SocketAddr,
    ) -> Result<(), (OwnedFd, SocketAddr)> {
        let other = &self.others[usize::from(shard)];
        match other.notes.try_send(Note::Adopt { socket, peer }) {
            Ok(()) => {
                other.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(note) | TrySendError::Disconnected(note)) => match note {
                Note::Adopt { socket, peer } => Err((socket, peer)),
                Note::Drain => unreachable!("it was a socket a line ago"),
            },
        }
    }

    /// Tries again what waits on shelves.
    pub fn empty_shelves(&mut self) {
        for other in &mut self.others {
            if other.requests.empty_shelf() | other.deliveries.empty_shelf() {
                other.waker.wake();
            }
        }
    }

    /// Whether letters wait on shelves: clients that cause more are not to be read from.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.others
            .iter()
            .any(|other| !other.requests.shelf.is_empty() || !other.deliveries.shelf.is_empty())
    }

    /// The next letter: deliveries first; requests only while no delivery waits on a shelf.
    pub fn next_letter(&mut self) -> Option<Letter> {
        let letter = match self.mailbox.deliveries.next() {
            Some(delivery) => Letter::Delivery(delivery),
            None if self.holds_deliveries() => return None,
            None => Letter::Request(self.mailbox.requests.next()?),
        };
        self.counts.heard += 1;
        Some(letter)
    }

    /// The next note.
    pub fn next_note(&mut self) -> Option<Note> {
        self.mailbox.notes.try_recv().ok()
    }

    /// How many letters wait to be heard.
    #[must_use]
    pub fn letters_waiting(&self) -> usize {
        self.mailbox.requests.receiver.len() + self.mailbox.deliveries.receiver.len()
    }

    /// Whether something waits that may be heard now.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        let Mailbox { requests, deliveries, notes } = &self.mailbox;
        let has_requests = !requests.receiver.is_empty() && !self.holds_deliveries();
        has_requests || !deliveries.receiver.is_empty() || !notes.is_empty()
    }

    /// Whether deliveries wait on a shelf: no request is heard, it would cause more of them, and
    /// no publish is acknowledged.
    #[must_use]
    pub fn holds_deliveries(&self) -> bool {
        self.others.iter().any(|other| !other.deliveries.shelf.is_empty())
    }

    /// Deliveries that wait on shelves, and for which shard.
    pub fn deliveries_held(&self) -> impl Iterator<Item = (ShardIndex, &Delivery)> {
        let others = (0..).zip(&self.others);
        others.flat_map(|(shard, other)| other.deliveries.shelf.iter().map(move |it| (shard, it)))
    }

    /// What the post has carried so far.
    #[must_use]
    pub const fn counts(&self) -> PostCounts {
        self.counts
    }
}

impl Address {
    /// Tells the shard to drain. The caller wakes it.
    pub fn drain(&self) {
        // A full mailbox of notes empties within a tick; a shard that has ended needs no telling.
        let _ = self.notes.send(Note::Drain);
    }
}

#[cfg(test)]
mod tests;
