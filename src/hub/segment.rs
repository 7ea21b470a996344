//! Encoded messages of one channel, shared by everyone who is to receive them.
//!
//! ```text
//! bytes  | frame seq 41 | frame seq 42 | frame seq 43 |
//! ends                  ^              ^              ^      first_seq = 41
//! run            first = 1, end = 3: messages 42 and 43
//! ```
//!
//! Beside it may stand the same messages in other forms, its *variants*: segments like it, with
//! bytes and ends of their own, each made when the first client wants it.
//!
//! What conflation lets through has holes between its numbers. Each such message *covers* them:
//!
//! ```text
//! bytes   | frame seq 44 | frame seq 45 | frame seq 60 |      first_seq = 41
//! covers  | 41..=44      | 45..=45      | 46..=60      |
//! ```

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::format::{Encoder, Format};
use super::{Overflow, Patience, TopicId};
use crate::proto::envelope;
use crate::time::Time;

/// Ends of the messages in a segment: one publish at a time needs no allocation.
type Ends = SmallVec<[u32; 4]>;

/// What is the same of a segment on every shard; it can travel between them.
#[derive(Debug, Clone)]
pub struct Frames {
    /// The first number that the first message covers: its own, where there are no holes.
    pub first_seq: u64,
    /// WebSocket frames, one a message, back to back.
    pub bytes: Bytes,
    /// Where each message ends in `bytes`.
    pub ends: Ends,
    /// When they were published; of messages with holes between their numbers, the first one.
    pub published: Time,
}

/// A run of frames as one shard shares it between its clients.
#[derive(Debug)]
pub struct Segment {
    /// Whose messages these are.
    pub topic: TopicId,
    /// What happens to them where they do not fit.
    pub overflow: Overflow,
    /// How old they may be when they go to a socket.
    max_age: Option<Duration>,
    frames: Frames,
    /// What is to be known of each message where there are holes between their numbers.
    covers: Option<Rc<[Covered]>>,
    meter: Meter,
    /// In which form the messages are.
    format: Format,
    /// What it is a variant of, if that is to be found again.
    base: Option<Rc<Segment>>,
    /// By [`Format::variant`].
    variants: RefCell<[Variant; Format::VARIANTS]>,
}

/// A message that covers the numbers behind the one before it, up to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    /// Its number.
    pub(super) seq: u64,
    /// When it was published.
    pub(super) published: Time,
}

/// What is known of the messages of a segment in another form.
#[derive(Debug, Default)]
enum Variant {
    /// Nobody has wanted them so.
    #[default]
    Unmade,
    /// They are the same bytes.
    Same,
    /// Held until everybody has been offered them.
    Held(Rc<Segment>),
    /// Held by whoever has not been sent them.
    Waiting(Weak<Segment>),
}

impl Segment {
    /// `frames` as messages of `topic`, counted in `meter` for as long as they live.
    #[must_use]
    pub fn new(
        topic: TopicId,
        Patience { overflow, max_age }: Patience,
        frames: Frames,
        meter: &Meter,
    ) -> Rc<Self> {
        Self {
            topic,
            overflow,
            max_age,
            frames,
            covers: None,
            meter: meter.clone(),
            format: Format::Json,
            base: None,
            variants: RefCell::default(),
        }
        .counted()
    }

    /// `frames` as messages of `topic` with holes between their numbers, each with what it covers.
    #[must_use]
    pub(super) fn covering(
        topic: TopicId,
        Patience { overflow, max_age }: Patience,
        frames: Frames,
        covers: Rc<[Covered]>,
        meter: &Meter,
    ) -> Rc<Self> {
        debug_assert_eq!(covers.len(), frames.ends.len(), "each message covers something");
        Self {
            topic,
            overflow,
            max_age,
            frames,
            covers: Some(covers),
            meter: meter.clone(),
            format: Format::Json,
            base: None,
            variants: RefCell::default(),
        }
        .counted()
    }

    #[inline(always)]
    fn counted(self) -> Rc<Self> {
        self.meter.add(self.held_bytes());
        Rc::new(self)
    }

    /// Bytes it holds, as the meter counts them.
    fn held_bytes(&self) -> usize {
        let covers = self.covers.as_ref().map_or(0, |covers| size_of_val(&**covers));
        self.frames.bytes.len() + covers
    }

    /// When the message at `index` was published.
    #[must_use]
    pub fn published(&self, index: u32) -> Time {
        match &self.covers {
            None => self.frames.published,
            Some(covers) => covers[index as usize].published,
        }
    }

    /// Whether its messages may become too old to go to a socket.
    #[inline]
    pub(super) const fn ages(&self) -> bool {
        self.max_age.is_some()
    }

    /// The first message that is not too old to go to a socket; the count of messages if all are.
    pub(super) fn first_fresh(&self, now: Time) -> u32 {
        let Some(max_age) = self.max_age else { return 0 };
        match &self.covers {
            None if self.frames.published + max_age < now => self.messages(),
            None => 0,
            Some(covers) => {
                covers.partition_point(|covered| covered.published + max_age < now) as u32
            }
        }
    }

    /// What of it can travel to another shard.
    #[must_use]
    pub const fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The same messages in another form. They are encoded when they are wanted first, and held here
    /// until [`settled`](Self::settled) says that everybody has been offered them; then they live as
    /// long as they wait somewhere.
    #[must_use]
    pub fn variant(self: &Rc<Self>, format: Format, encoder: &mut Encoder) -> Rc<Self> {
        self.variant_for(format, encoder, None)
    }

    /// The same for somebody who catches up. This segment lives as long as the variant does, so
    /// that it is found by the next one who does.
    #[must_use]
    pub fn recalled(self: &Rc<Self>, format: Format, encoder: &mut Encoder) -> Rc<Self> {
        self.variant_for(format, encoder, Some(self))
    }

    fn variant_for(
        self: &Rc<Self>,
        format: Format,
        encoder: &mut Encoder,
        base: Option<&Rc<Self>>,
    ) -> Rc<Self> {
        let Some(place) = format.variant().filter(|_| format != self.format) else {
            return Rc::clone(self);
        };
        let slot = &mut self.variants.borrow_mut()[place];
        let known = match slot {
            Variant::Unmade => None,
            Variant::Same => return Rc::clone(self),
            Variant::Held(variant) => Some(Rc::clone(variant)),
            Variant::Waiting(variant) => variant.upgrade(),
        };
        if let Some(known) = known {
            return known;
        }
        let Some(frames) = encoder.encode(self, format) else {
            *slot = Variant::Same;
            return Rc::clone(self);
        };
        let variant = Self {
            topic: self.topic,
            overflow: self.overflow,
            max_age: self.max_age,
            frames,
            covers: self.covers.clone(),
            meter: self.meter.clone(),
            format,
            base: base.map(Rc::clone),
            variants: RefCell::default(),
        }
        .counted();
        *slot = match base {
            Some(_) => Variant::Waiting(Rc::downgrade(&variant)),
            None => Variant::Held(Rc::clone(&variant)),
        };
        variant
    }

    /// Everybody who is to receive it has been offered it.
    pub(super) fn settled(&self) {
        for slot in self.variants.borrow_mut().iter_mut() {
            if let Variant::Held(variant) = slot {
                *slot = Variant::Waiting(Rc::downgrade(variant));
            }
        }
    }

    /// What is alive because it is: where, and how large.
    pub(super) fn audit(&self) -> impl Iterator<Item = (usize, usize)> {
        let all = std::iter::once(self).chain(self.base.as_deref());
        all.map(|segment| ((&raw const *segment).addr(), segment.held_bytes()))
    }

    /// How many messages it holds.
    #[must_use]
    pub fn messages(&self) -> u32 {
        self.frames.ends.len() as u32
    }

    /// `seq` of the message at `index`.
    #[must_use]
    pub fn seq(&self, index: u32) -> u64 {
        match &self.covers {
            None => self.frames.first_seq + u64::from(index),
            Some(covers) => covers[index as usize].seq,
        }
    }

    /// The first number that the message at `index` covers: its own, or the one behind the message
    /// before it.
    #[must_use]
    pub fn from(&self, index: u32) -> u64 {
        match (&self.covers, index.checked_sub(1)) {
            (Some(covers), Some(before)) => covers[before as usize].seq + 1,
            _ => self.frames.first_seq + u64::from(index),
        }
    }

    /// The first message with a number above `seq`; the count of messages if there is none.
    pub(super) fn first_after(&self, seq: u64) -> u32 {
        match &self.covers {
            None => {
                (seq + 1).saturating_sub(self.frames.first_seq).min(self.messages().into()) as u32
            }
            Some(covers) => covers.partition_point(|covered| covered.seq <= seq) as u32,
        }
    }

    /// Where the message at `index` begins; for the count of messages, where the last one ends.
    #[must_use]
    pub fn start(&self, index: u32) -> u32 {
        match index {
            0 => 0,
            index => self.frames.ends[index as usize - 1],
        }
    }

    /// The bytes from offset `start` to `end`.
    #[must_use]
    pub fn bytes(&self, start: u32, end: u32) -> &[u8] {
        &self.frames.bytes[start as usize..end as usize]
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.meter.sub(self.held_bytes());
    }
}

/// A part of a segment: the messages `first..end`, by index.
#[derive(Debug, Clone)]
pub struct Run {
    /// Where they are.
    pub segment: Rc<Segment>,
    /// The first message.
    pub first: u32,
    /// The one after the last.
    pub end: u32,
}

impl Run {
    /// All of `segment`.
    #[must_use]
    pub fn whole(segment: &Rc<Segment>) -> Self {
        Self { segment: Rc::clone(segment), first: 0, end: segment.messages() }
    }

    /// How many messages.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        self.end - self.first
    }

    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.segment.start(self.end) - self.segment.start(self.first)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.segment.bytes(self.segment.start(self.first), self.segment.start(self.end))
    }

    /// Those of the first messages: as many as fit into `bytes_max`, and one in any case.
    #[must_use]
    pub fn first_bytes(&self, bytes_max: usize) -> &[u8] {
        let start = self.segment.start(self.first);
        let ends = &self.segment.frames.ends[self.first as usize..self.end as usize];
        let messages = ends.partition_point(|end| (*end - start) as usize <= bytes_max).max(1);
        self.segment.bytes(start, ends[messages - 1])
    }
}

/// Messages of one channel that were published in this tick, being put one behind the other.
#[derive(Debug, Default)]
pub(super) struct SegmentBuilder {
    first_seq: u64,
    bytes: Vec<u8>,
    ends: Ends,
}

impl SegmentBuilder {
    /// Appends the message `seq`, encoded.
    pub(super) fn push(&mut self, prefix: &[u8], seq: u64, payload: &[u8]) {
        if self.ends.is_empty() {
            self.first_seq = seq;
        }
        debug_assert_eq!(seq, self.first_seq + self.ends.len() as u64);
        envelope::message(&mut self.bytes, prefix, seq, payload);
        let end = u32::try_from(self.bytes.len()).expect("a segment is far below 4 GiB");
        self.ends.push(end);
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes were pushed.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many messages were pushed.
    #[must_use]
    pub(super) fn messages(&self) -> usize {
        self.ends.len()
    }

    /// What was pushed, not to be changed any more, as published now.
    #[must_use]
    pub(super) fn freeze(&mut self, published: Time) -> Frames {
        Frames {
            published,
            first_seq: self.first_seq,
            bytes: Bytes::from(std::mem::take(&mut self.bytes)),
            ends: std::mem::take(&mut self.ends),
        }
    }
}

/// Bytes alive somewhere, counted by those who own them.
#[derive(Debug, Clone, Default)]
pub struct Meter(Rc<Cell<usize>>);

impl Meter {
    /// Counts `bytes` more.
    pub fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    /// Counts `bytes` less.
    ///
    /// # Panics
    /// When more is given back than was taken.
    pub fn sub(&self, bytes: usize) {
        let rest = self.0.get().checked_sub(bytes);
        self.0.set(rest.expect("nothing is given back twice"));
    }

    /// How many bytes are alive.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }
}
