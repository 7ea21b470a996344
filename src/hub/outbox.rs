//! What waits for one client: the bounded ring behind every socket.
//!
//! Three things leave in this order, gathered into one send:
//!
//! ```text
//! cut      the rest of a message that the kernel took only a part of
//! replies  answers and control frames; data cannot push them out
//! queue    messages and gap notices, oldest first
//! ```

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

use super::segment::{Run, Segment};
use super::{GapReason, Overflow, TopicId};
use crate::limits::GATHERED_FRESH_BYTES_MAX;
use crate::time::Time;

/// What waits for one client.
///
/// `released <= submitted <= queued <= released + capacity`: what the kernel has taken a part of
/// (`cut`) belongs to the kernel and can no longer be dropped; what is in `queue` can. `queue`
/// holds at most the capacity, or one segment when that alone is larger.
#[derive(Debug, Default)]
pub struct Outbox {
    cut: Option<Cut>,
    replies: Vec<u8>,
    /// How much of `replies` the kernel has.
    replies_released: usize,
    queue: VecDeque<Entry>,
    /// Messages in `queue`.
    messages: u32,
    /// Bytes of the messages in `queue`.
    bytes: u32,
    /// Messages in `replies`, staged there.
    staged: u32,
}

/// How much an outbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: u32,
    /// Bytes of messages.
    pub bytes: u32,
}

/// The rest of a message that the kernel took only a part of.
#[derive(Debug)]
struct Cut {
    segment: Rc<Segment>,
    start: u32,
    end: u32,
}

#[derive(Debug)]
enum Entry {
    Run(Run),
    Gap(Gap),
}

/// Messages of one channel that a client will not get: `from..=to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The channel.
    pub topic: TopicId,
    /// The first message lost.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
}

/// What leaves the front of a queue to be written for one client alone.
#[derive(Debug, Clone, Copy)]
pub enum Staged<'a> {
    /// A message.
    Message {
        /// Its channel.
        topic: TopicId,
        /// Its number.
        seq: u64,
        /// As it is in JSON.
        frame: &'a [u8],
    },
    /// Lost messages.
    Gap(Gap),
}

impl Gap {
    /// The messages `first..end` of `segment`, by index, which are too old.
    pub fn stale(segment: &Segment, first: u32, end: u32) -> Self {
        let (from, to) = (segment.from(first), segment.seq(end - 1));
        Self { topic: segment.topic, from, to, reason: GapReason::Stale }
    }

    /// The same, as large as what is returned in a register: nobody covers billions.
    fn numbers_about(&self) -> u32 {
        u32::try_from(self.numbers()).unwrap_or(u32::MAX)
    }

    /// How many numbers are lost.
    pub const fn numbers(&self) -> u64 {
        self.to - self.from + 1
    }
}

/// What became of the messages offered to an outbox. A lost message counts with all the numbers that
/// it covers: so many are told as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offered {
    /// Messages lost under `drop_oldest`: queued ones, and of the offered ones the oldest.
    pub dropped_oldest: u32,
    /// Offered messages lost under `drop_newest`.
    pub dropped_newest: u32,
    /// The rule says that this client is to be closed.
    pub close: bool,
}

/// What a send released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// Messages that the kernel now has to the last byte.
    pub messages: u32,
}

impl Outbox {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cut.is_none() && self.replies.is_empty() && self.queue.is_empty()
    }

    /// Whether no message and no gap notice waits.
    #[must_use]
    pub fn is_data_empty(&self) -> bool {
        self.cut.is_none() && self.queue.is_empty()
    }

    /// Messages that wait whole.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        self.messages
    }

    /// Bytes of messages that wait whole.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Bytes that no rule can take back: replies, and this client's share of the segment that a
    /// message already begun keeps alive.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let cut = self.cut.as_ref().map_or(0, |Cut { segment, .. }| {
            segment.start(segment.messages()) as usize / Rc::strong_count(segment)
        });
        cut + self.replies_bytes()
    }

    /// Bytes of replies that wait.
    #[must_use]
    pub fn replies_bytes(&self) -> usize {
        self.replies.len() - self.replies_released
    }

    /// Takes `replies`, whole frames, behind those that wait, and leaves the buffer empty.
    pub fn reply(&mut self, replies: &mut Vec<u8>) {
        if self.replies.is_empty() {
            std::mem::swap(&mut self.replies, replies);
        } else {
            self.replies.append(replies);
        }
    }

    /// Lets `write` append whole frames behind the replies that wait.
    pub fn write_reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.replies);
    }

    /// Whether `run` fits beside what is queued.
    #[must_use]
    pub fn fits(&self, run: &Run, capacity: Capacity) -> bool {
        self.messages == 0
            || (self.messages + run.messages() <= capacity.messages
                && self.bytes.saturating_add(run.bytes()) <= capacity.bytes)
    }

    /// Queues `run`, or as much of it as its channel's rule and the capacity allow. What is lost
    /// is replaced by a gap notice that precedes the next message of its channel.
    pub fn offer(&mut self, mut run: Run, capacity: Capacity) -> Offered {
        let mut offered = Offered::default();
        match run.segment.overflow {
            Overflow::DropOldest => {
                while !self.fits(&run, capacity)
                    && let Some(lost) = self.drop_oldest()
                {
                    offered.dropped_oldest = offered.dropped_oldest.saturating_add(lost);
                }
                // What is left belongs to rules that keep their oldest: this run gives way.
                while run.messages() > 0 && !self.fits(&run, capacity) {
                    let lost = self.lose_front(&mut run);
                    offered.dropped_oldest = offered.dropped_oldest.saturating_add(lost);
                }
                self.queue_run(run);
            }
            Overflow::DropNewest => {
                let end = run.end;
                while run.messages() > 0 && !self.fits(&run, capacity) {
                    run.end -= 1;
                }
                let mut lost = Run { segment: Rc::clone(&run.segment), first: run.end, end };
                self.queue_run(run);
                while lost.messages() > 0 {
                    let numbers = self.lose_front(&mut lost);
                    offered.dropped_newest = offered.dropped_newest.saturating_add(numbers);
                }
            }
            Overflow::Close if self.fits(&run, capacity) => self.queue_run(run),
            Overflow::Close => offered.close = true,
        }
        self.check();
        offered
    }

    /// Queues a notice of messages that this client will not get and was never offered.
    pub fn tell_gap(&mut self, gap: Gap) {
        self.note(self.queue.len(), gap);
    }

    /// Turns every queued message into gap notices, whatever its rule; returns how many numbers are
    /// lost with them.
    pub fn shed(&mut self, reason: GapReason) -> u64 {
        let mut shed = 0;
        for entry in std::mem::take(&mut self.queue) {
            let is_new = matches!(entry, Entry::Run(_));
            let gap = match entry {
                Entry::Gap(gap) => gap,
                Entry::Run(run) => Gap {
                    topic: run.segment.topic,
                    from: run.segment.from(run.first),
                    to: run.segment.seq(run.end - 1),
                    reason,
                },
            };
            shed += if is_new { gap.numbers() } else { 0 };
            self.note(self.queue.len(), gap);
        }
        (self.messages, self.bytes) = (0, 0);
        self.check();
        shed
    }

    /// Turns the queued messages that are too old by `now` into gap notices; returns how many numbers
    /// are lost with them.
    pub fn drop_stale(&mut self, now: Time) -> u64 {
        let is_stale = |run: &Run| run.segment.first_fresh(now) > run.first;
        if !self.queue.iter().any(|entry| matches!(entry, Entry::Run(run) if is_stale(run))) {
            return 0;
        }
        let mut lost = 0;
        for entry in std::mem::take(&mut self.queue) {
            let mut run = match entry {
                Entry::Gap(gap) => {
                    self.note(self.queue.len(), gap);
                    continue;
                }
                Entry::Run(run) => run,
            };
            if is_stale(&run) {
                let (first, bytes) = (run.first, run.bytes());
                run.first = run.segment.first_fresh(now).min(run.end);
                self.messages -= run.first - first;
                self.bytes -= bytes - run.bytes();
                let gap = Gap::stale(&run.segment, first, run.first);
                lost += gap.numbers();
                self.note(self.queue.len(), gap);
            }
            if run.messages() > 0 {
                self.queue.push_back(Entry::Run(run));
            }
        }
        self.check();
        lost
    }

    /// Forgets what is queued of `topic`; returns the `seq` of the first thing forgotten.
    pub fn forget(&mut self, topic: TopicId) -> Option<u64> {
        let mut first = None;
        let mut forget = |seq| {
            first.get_or_insert(seq);
            false
        };
        let (mut messages, mut bytes) = (0, 0);
        self.queue.retain(|entry| match entry {
            Entry::Run(run) if run.segment.topic == topic => {
                messages += run.messages();
                bytes += run.bytes();
                forget(run.segment.from(run.first))
            }
            Entry::Gap(gap) if gap.topic == topic => forget(gap.from),
            _ => true,
        });
        self.messages -= messages;
        self.bytes -= bytes;
        self.check();
        first
    }

    /// The `seq` of the first thing queued of `topic`.
    #[must_use]
    pub fn first_queued(&self, topic: TopicId) -> Option<u64> {
        self.queue.iter().find_map(|entry| match entry {
            Entry::Run(run) if run.segment.topic == topic => Some(run.segment.from(run.first)),
            Entry::Gap(gap) if gap.topic == topic => Some(gap.from),
            _ => None,
        })
    }

    /// Forgets everything but the replies and the rest of a message already begun.
    pub fn forget_data(&mut self) {
        self.queue.clear();
        (self.messages, self.bytes) = (0, 0);
    }

    /// The gap notice at the front of the queue, if one is there.
    #[must_use]
    pub fn front_gap(&self) -> Option<Gap> {
        match self.queue.front()? {
            Entry::Gap(gap) => Some(*gap),
            Entry::Run(_) => None,
        }
    }

    /// Writes the gap notices at the front of the queue, which nothing precedes any more but what
    /// the kernel has, behind the replies; returns how many.
    pub fn announce_gaps(&mut self, mut write: impl FnMut(&mut Vec<u8>, Gap)) -> u64 {
        let mut announced = 0;
        while let Some(Entry::Gap(gap)) = self.queue.front() {
            write(&mut self.replies, *gap);
            self.queue.pop_front();
            announced += 1;
        }
        announced
    }

    /// Takes messages and gap notices from the front of the queue, as long as fewer than `bytes_max`
    /// bytes of replies wait, and lets `write` append each behind those. Returns how many notices.
    pub fn stage(
        &mut self,
        bytes_max: usize,
        mut write: impl FnMut(&mut Vec<u8>, Staged<'_>),
    ) -> u64 {
        let mut gaps = 0;
        while self.replies_bytes() < bytes_max {
            match self.queue.front_mut() {
                None => break,
                Some(Entry::Gap(gap)) => {
                    write(&mut self.replies, Staged::Gap(*gap));
                    gaps += 1;
                }
                Some(Entry::Run(run)) => {
                    let (topic, seq) = (run.segment.topic, run.segment.seq(run.first));
                    let (start, end) =
                        (run.segment.start(run.first), run.segment.start(run.first + 1));
                    let frame = run.segment.bytes(start, end);
                    write(&mut self.replies, Staged::Message { topic, seq, frame });
                    run.first += 1;
                    self.messages -= 1;
                    self.bytes -= end - start;
                    self.staged += 1;
                    if run.messages() > 0 {
                        continue;
                    }
                }
            }
            self.queue.pop_front();
        }
        self.check();
        gaps
    }

    /// Moves the replies that wait to `out`.
    pub fn take_replies(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.replies[self.replies_released..]);
        self.replies.clear();
        self.replies_released = 0;
    }

    /// Appends to `slices` what may leave now, at most `slices_max` slices and about `bytes_max`
    /// bytes, and fewer of messages that may become too old. It stops before a gap notice that has not
    /// been announced.
    pub fn gather<'a>(
        &'a self,
        slices: &mut Vec<IoSlice<'a>>,
        slices_max: usize,
        mut bytes_max: usize,
    ) {
        let end = slices.len() + slices_max;
        let mut bytes = 0;
        if let Some(cut) = &self.cut {
            slices.push(IoSlice::new(cut.segment.bytes(cut.start, cut.end)));
        }
        if self.replies_bytes() > 0 {
            slices.push(IoSlice::new(&self.replies[self.replies_released..]));
        }
        for entry in &self.queue {
            let Entry::Run(run) = entry else { break };
            let ages = run.segment.ages();
            if ages {
                bytes_max = bytes_max.min(GATHERED_FRESH_BYTES_MAX);
            }
            if slices.len() == end || bytes >= bytes_max {
                break;
            }
            let room = bytes_max - bytes;
            let gathered = if ages { run.first_bytes(room) } else { run.as_bytes() };
            if ages && gathered.len() > room && bytes > 0 {
                break; // It leaves alone, with the next send.
            }
            bytes += gathered.len();
            slices.push(IoSlice::new(gathered));
            if gathered.len() < run.bytes() as usize {
                break;
            }
        }
    }

    /// The kernel has taken `bytes` of what [`gather`](Self::gather) offered.
    ///
    /// # Panics
    /// When that is more than was offered.
    pub fn release(&mut self, mut bytes: usize) -> Released {
        let mut released = Released::default();
        if let Some(cut) = &mut self.cut {
            let taken = bytes.min((cut.end - cut.start) as usize);
            cut.start += taken as u32;
            bytes -= taken;
            if cut.start < cut.end {
                return released;
            }
            self.cut = None;
            released.messages += 1;
        }
        let replies = bytes.min(self.replies_bytes());
        self.replies_released += replies;
        bytes -= replies;
        // A peer that reads, but never everything, keeps the lane from being empty: what has left
        // is given back when it is half of the buffer, so that each byte moves once at most.
        if self.replies_released >= self.replies.len() / 2 {
            self.replies.drain(..self.replies_released);
            self.replies_released = 0;
        }
        if self.replies.is_empty() {
            released.messages += std::mem::take(&mut self.staged);
        }
        while bytes > 0 {
            let Some(Entry::Run(run)) = self.queue.front_mut() else {
                panic!("the kernel took {bytes} bytes more than it was given");
            };
            let run_bytes = run.bytes() as usize;
            if bytes >= run_bytes {
                bytes -= run_bytes;
                released.messages += run.messages();
                self.messages -= run.messages();
                self.bytes -= run_bytes as u32;
                self.queue.pop_front();
                continue;
            }
            let (messages, cut) = split(run, bytes);
            released.messages += messages;
            self.messages -= messages + u32::from(cut.is_some());
            self.bytes -= run_bytes as u32 - run.bytes();
            if run.messages() == 0 {
                self.queue.pop_front();
            }
            self.cut = cut;
            break;
        }
        self.check();
        released
    }

    /// Whether the outbox is worth keeping for the next client: empty, and no large buffer.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        const BUFFER_BYTES_MAX: usize = 4096;
        const QUEUE_ENTRIES_MAX: usize = 64;
        self.is_empty()
            && self.replies.capacity() <= BUFFER_BYTES_MAX
            && self.queue.capacity() <= QUEUE_ENTRIES_MAX
    }

    /// Drops the oldest message whose rule is `drop_oldest`, if there is one; returns how many numbers
    /// are lost with it.
    fn drop_oldest(&mut self) -> Option<u32> {
        let oldest = self.queue.iter().position(|entry| {
            matches!(entry, Entry::Run(run) if run.segment.overflow == Overflow::DropOldest)
        });
        let at = oldest?;
        let Entry::Run(run) = &mut self.queue[at] else { unreachable!("position found a run") };
        let gap = lost(run, GapReason::SlowConsumer);
        let bytes = run.segment.start(run.first + 1) - run.segment.start(run.first);
        run.first += 1;
        self.messages -= 1;
        self.bytes -= bytes;
        if run.messages() == 0 {
            self.queue.remove(at);
        }
        self.note(at, gap);
        Some(gap.numbers_about())
    }

    /// Replaces the first message of `run`, which is not queued, by a gap at the end of the queue;
    /// returns how many numbers are lost.
    fn lose_front(&mut self, run: &mut Run) -> u32 {
        let gap = lost(run, GapReason::SlowConsumer);
        run.first += 1;
        self.note(self.queue.len(), gap);
        gap.numbers_about()
    }

    /// Puts `gap` before the entry at `at`, merged with a gap notice of its channel that ends
    /// where it begins, unless only one of them is counted as lost for this client. Between the two
    /// stands no message of that channel, because what is covered is without holes; so merging moves
    /// the notice forward, never past a message of its channel.
    fn note(&mut self, at: usize, gap: Gap) {
        for entry in self.queue.iter_mut().take(at).rev() {
            match entry {
                Entry::Gap(before) if before.topic == gap.topic && before.to + 1 == gap.from => {
                    if before.reason.is_loss_of_client() != gap.reason.is_loss_of_client() {
                        break;
                    }
                    before.to = gap.to;
                    return;
                }
                Entry::Run(run) if run.segment.topic == gap.topic => break,
                _ => {}
            }
        }
        self.queue.insert(at, Entry::Gap(gap));
    }

    fn queue_run(&mut self, run: Run) {
        if run.messages() == 0 {
            return;
        }
        self.messages += run.messages();
        self.bytes += run.bytes();
        self.queue.push_back(Entry::Run(run));
    }

    /// The invariant, at the doors.
    fn check(&self) {
        debug_assert!(self.replies_released <= self.replies.len());
        debug_assert!(self.cut.as_ref().is_none_or(|cut| cut.start < cut.end));
        debug_assert_eq!(
            (self.messages, self.bytes),
            self.queue.iter().fold((0, 0), |(messages, bytes), entry| match entry {
                Entry::Run(run) => (messages + run.messages(), bytes + run.bytes()),
                Entry::Gap(_) => (messages, bytes),
            })
        );
    }
}

/// The first message of `run` as a gap.
fn lost(run: &Run, reason: GapReason) -> Gap {
    let Run { segment, first, .. } = run;
    Gap { topic: segment.topic, from: segment.from(*first), to: segment.seq(*first), reason }
}

/// Takes from the front of `run` the messages that end within `bytes`, and the one that is cut
/// there, if one is.
fn split(run: &mut Run, bytes: usize) -> (u32, Option<Cut>) {
    let segment = &run.segment;
    let sent = segment.start(run.first) + bytes as u32;
    let whole = (run.first..run.end).take_while(|index| segment.start(index + 1) <= sent).count();
    let next = run.first + whole as u32;
    let cut = (segment.start(next) < sent).then(|| Cut {
        segment: Rc::clone(segment),
        start: sent,
        end: segment.start(next + 1),
    });
    run.first = next + u32::from(cut.is_some());
    (whole as u32, cut)
}

mod audit;

#[cfg(test)]
mod tests;
