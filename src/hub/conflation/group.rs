//! Everybody who gets the newest messages of one channel at the same interval.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use foldhash::quality::SeedableRandomState;

use super::newest::{Newest, Value};
use crate::hub::audience::Audience;
use crate::hub::clients::{Clients, Subscription};
use crate::hub::format::Encoder;
use crate::hub::outbox::Gap;
use crate::hub::segment::{Covered, Frames, Meter, Run, Segment};
use crate::hub::{Audit, ClientId, GapReason, Patience, TopicId};
use crate::limits::CONFLATION_KEYS_MAX;
use crate::proto::dialect::payload_of;
use crate::proto::envelope;
use crate::proto::ws::frame::{FrameHeader, Role};
use crate::time::Time;

/// Clients, and what waits for all of them.
///
/// `covered_seq <= taken_seq`, and what is between them waits in `newest` or was superseded there.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) interval: Duration,
    pub(super) audience: Audience,
    /// Those who catch up and will join.
    pub(super) expected: u32,
    /// Listed in `Topics::flushes`.
    pub(super) is_listed: bool,
    newest: Newest,
    /// The last message that was taken in.
    taken_seq: u64,
    /// The last one that what was flushed covers.
    covered_seq: u64,
    /// Before that nothing is flushed.
    next_flush: Time,
    /// What was flushed and has not been offered to everybody.
    unsettled: VecDeque<Flushed>,
}

/// What became of what waited.
#[derive(Debug)]
enum Flushed {
    /// Messages for everybody.
    Messages(Rc<Segment>),
    /// Nobody gets these: they have become too old.
    Stale { from: u64, to: u64 },
}

/// What is the same for all that is printed in one channel and tick.
pub(super) struct Printer<'a> {
    pub(super) topic: TopicId,
    pub(super) prefix: &'a [u8],
    pub(super) patience: Patience,
    pub(super) meter: &'a Meter,
    /// Of one segment.
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
    /// Messages printed so far.
    pub(super) printed: usize,
    pub(super) now: Time,
}

impl Group {
    pub(super) fn new(interval: Duration, hasher: SeedableRandomState, meter: Meter) -> Self {
        Self {
            interval,
            audience: Audience::default(),
            expected: 0,
            is_listed: false,
            newest: Newest::new(hasher, meter),
            taken_seq: 0,
            covered_seq: 0,
            next_flush: Time::START,
            unsettled: VecDeque::new(),
        }
    }

    /// Whether nobody is here or expected, and nobody will look at it.
    pub(super) fn is_idle(&self) -> bool {
        self.audience.is_empty() && self.expected == 0 && !self.is_listed
    }

    pub(super) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Whether somebody waits for message `seq`.
    pub(super) fn wants(&self, seq: u64) -> bool {
        !self.audience.is_empty() && seq > self.taken_seq
    }

    /// Takes in `client`, which is owed everything after `seq`, the newest message; returns its place.
    pub(super) fn take_in(&mut self, client: ClientId, seq: u64) -> u32 {
        debug_assert!(self.unsettled.is_empty(), "nobody comes while something is offered");
        if self.audience.is_empty() {
            (self.taken_seq, self.covered_seq) = (seq, seq);
        }
        match self.covered_seq == seq {
            true => self.audience.subscribe(client),
            false => self.audience.welcome(client, seq),
        }
    }

    pub(super) fn leave(
        &mut self,
        client: ClientId,
        subscription: Subscription,
        cursor: &mut usize,
        clients: &mut Clients,
    ) {
        self.audience.leave(client, subscription, cursor, clients);
        if self.audience.is_empty() {
            self.newest.clear();
            self.unsettled.clear();
        }
    }

    /// The last message that `client` has been offered or is not owed.
    pub(super) fn offered(&self, client: ClientId) -> u64 {
        self.audience.newcomer(client).unwrap_or(self.covered_seq)
    }

    /// Takes in a message, which supersedes what waits under its key. Where more would wait than may,
    /// all of it is flushed before its time.
    pub(super) fn take(
        &mut self,
        key: &[u8],
        value: Value<&[u8]>,
        printer: &mut Printer<'_>,
        bytes_max: usize,
    ) {
        self.newest.put(key, value);
        self.taken_seq = value.seq;
        if self.newest.keys() > CONFLATION_KEYS_MAX || self.newest.bytes_of_all() > bytes_max {
            self.flush(printer);
            self.newest.clear();
        }
    }

    pub(super) const fn is_waiting(&self) -> bool {
        self.newest.is_waiting()
    }

    /// Until when what waits has to.
    pub(super) const fn next_flush(&self) -> Time {
        self.next_flush
    }

    /// What waits becomes messages, in the order of their numbers.
    pub(super) fn flush(&mut self, printer: &mut Printer<'_>) {
        let mut from = self.covered_seq + 1;
        let mut segment = Segmented::new(from);
        let max_age = printer.patience.max_age;
        self.newest.take(|Value { seq, published, payload }| {
            // The clock of the home goes forward, so those that are too old come first.
            if max_age.is_some_and(|max_age| published + max_age < printer.now) {
                self.unsettled.push_back(Flushed::Stale { from, to: seq });
                from = seq + 1;
                segment = Segmented::new(from);
                return;
            }
            envelope::covering_message(&mut segment.bytes, printer.prefix, seq, from, payload);
            segment.push(Covered { seq, published });
            from = seq + 1;
            printer.printed += 1;
            if segment.covers.len() >= printer.messages_max
                || segment.bytes.len() >= printer.bytes_max
            {
                let full = std::mem::replace(&mut segment, Segmented::new(from));
                self.unsettled.push_back(Flushed::Messages(full.freeze(printer)));
            }
        });
        if !segment.covers.is_empty() {
            self.unsettled.push_back(Flushed::Messages(segment.freeze(printer)));
        }
        debug_assert_eq!(from, self.taken_seq + 1, "the newest message supersedes, and is not");
        self.covered_seq = self.taken_seq;
        self.next_flush = printer.now + self.interval;
    }

    /// When it is to be looked at, if something waits and nobody will look.
    pub(super) fn list(&mut self) -> Option<Time> {
        if self.is_listed || !self.newest.is_waiting() {
            return None;
        }
        self.is_listed = true;
        Some(self.next_flush)
    }

    /// Offers what was flushed to everybody. False when a client has to be sent to first.
    pub(super) fn offer(
        &mut self,
        topic: TopicId,
        cursor: &mut usize,
        clients: &mut Clients,
        encoder: &mut Encoder,
        printer: &Printer<'_>,
    ) -> bool {
        let Audience { subscribers, newcomers } = &mut self.audience;
        while let Some(flushed) = self.unsettled.front() {
            let segment = match flushed {
                Flushed::Messages(segment) => segment,
                Flushed::Stale { from, to } => {
                    let stale = Gap { topic, from: *from, to: *to, reason: GapReason::Stale };
                    tell_stale(stale, subscribers, newcomers, clients);
                    self.unsettled.pop_front();
                    continue;
                }
            };
            while *cursor < subscribers.len() + newcomers.len() {
                let is_offered = match subscribers.get(*cursor) {
                    Some(client) => clients.offer(*client, segment, encoder),
                    None => {
                        let newcomer = &mut newcomers[*cursor - subscribers.len()];
                        offer_rest(newcomer, segment, clients, encoder, printer)
                    }
                };
                if !is_offered {
                    return false;
                }
                *cursor += 1;
            }
            *cursor = 0;
            segment.settled();
            self.unsettled.pop_front();
        }
        let covered = self.covered_seq;
        self.audience.admit(topic, clients, |seq| seq == covered);
        true
    }

    /// Checks what holds between ticks; returns how many bytes wait.
    pub(super) fn audit(&self, audit: &mut Audit) -> usize {
        assert!(self.covered_seq <= self.taken_seq, "nothing is covered that was not taken in");
        let is_behind = self.covered_seq < self.taken_seq;
        let is_wanted = !self.audience.is_empty();
        assert_eq!(is_behind && is_wanted, self.newest.is_waiting(), "what was taken in waits");
        assert!(self.is_listed || !self.newest.is_waiting(), "what waits is looked at");
        assert!(self.unsettled.is_empty(), "what was flushed has been offered");
        audit.conflated_waiting += self.newest.waiting() as u64;
        audit.conflated_newcomers += self.audience.newcomers.len() as u64;
        self.newest.bytes()
    }
}

/// Tells everybody that these messages are lost, as far as they are owed them.
#[cold]
fn tell_stale(
    stale: Gap,
    subscribers: &[ClientId],
    newcomers: &mut [(ClientId, u64)],
    clients: &mut Clients,
) {
    for client in subscribers {
        clients.lose(*client, stale);
    }
    for (client, seq) in newcomers {
        if *seq < stale.to {
            clients.lose(*client, Gap { from: stale.from.max(*seq + 1), ..stale });
            *seq = stale.to;
        }
    }
}

/// Offers a newcomer what it is owed of `segment`. It begins behind a number that may be within what
/// a message covers: that one is printed for it alone.
fn offer_rest(
    newcomer: &mut (ClientId, u64),
    segment: &Rc<Segment>,
    clients: &mut Clients,
    encoder: &mut Encoder,
    printer: &Printer<'_>,
) -> bool {
    let (client, seq) = newcomer;
    loop {
        let (first, end) = (segment.first_after(*seq), segment.messages());
        if first == end {
            return true;
        }
        let run = match segment.from(first) == *seq + 1 {
            true => Run { segment: Rc::clone(segment), first, end },
            false => Run::whole(&covering_from(*seq + 1, segment, first, printer)),
        };
        let last = run.segment.seq(run.end - 1);
        if !clients.offer_run(*client, run, encoder) {
            return false;
        }
        *seq = last;
    }
}

/// The message at `index` of `segment`, covering only what is from `from` on.
fn covering_from(from: u64, segment: &Segment, index: u32, printer: &Printer<'_>) -> Rc<Segment> {
    let frame = segment.bytes(segment.start(index), segment.start(index + 1));
    let header = FrameHeader::parse(frame, Role::Client).ok().flatten();
    let (_, header_bytes) = header.expect("segments hold our frames");
    let (seq, published) = (segment.seq(index), segment.published(index));
    let mut one = Segmented::new(from);
    let payload = payload_of(&frame[header_bytes..]);
    envelope::covering_message(&mut one.bytes, printer.prefix, seq, from, payload);
    one.push(Covered { seq, published });
    one.freeze(printer)
}

/// Messages being put one behind the other, with what each covers.
struct Segmented {
    first_seq: u64,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    covers: Vec<Covered>,
}

impl Segmented {
    const fn new(first_seq: u64) -> Self {
        Self { first_seq, bytes: Vec::new(), ends: Vec::new(), covers: Vec::new() }
    }

    /// A message has been written that covers this.
    fn push(&mut self, covered: Covered) {
        let end = u32::try_from(self.bytes.len()).expect("a segment is far below 4 GiB");
        self.ends.push(end);
        self.covers.push(covered);
    }

    fn freeze(self, printer: &Printer<'_>) -> Rc<Segment> {
        let Self { first_seq, bytes, ends, covers } = self;
        let published = covers[0].published;
        let frames = Frames { first_seq, bytes: bytes.into(), ends: ends.into(), published };
        Segment::covering(printer.topic, printer.patience, frames, covers.into(), printer.meter)
    }
}
