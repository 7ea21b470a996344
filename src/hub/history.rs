//! What a channel's home keeps of its messages, for those who were away.
//!
//! Segments, not copies: what is kept is shared with every outbox that has not sent it yet.
//!
//! ```text
//! segments   | 41 42 43 | 44 | 45 46 |        first_seq = 42: of the oldest segment, 41 is given up
//! recall after 42          ^----------        runs of whole segments, a page at a time
//! ```

use std::collections::VecDeque;
use std::rc::Rc;

use super::segment::{Run, Segment};
use super::{Audit, GapReason, Retention};
use crate::time::Time;

/// The newest messages of a channel.
///
/// `messages` and `bytes` are the sums over `segments`; numbers in it are without holes.
#[derive(Debug)]
pub(super) struct History {
    retention: Retention,
    segments: VecDeque<Kept>,
    messages: u32,
    bytes: usize,
    /// The newest message that was given up for want of memory.
    relieved_seq: u64,
    /// Listed in `Topics::expiries`.
    listed: bool,
}

#[derive(Debug)]
struct Kept {
    segment: Rc<Segment>,
    /// The first message of it that is kept.
    first: u32,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.segment.start(self.segment.messages()) as usize
    }
}

/// How much of a history one answer may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Messages.
    pub messages: u32,
    /// Bytes, or one message when that alone is larger.
    pub bytes: u32,
}

impl History {
    pub(super) const fn new(retention: Retention) -> Self {
        let segments = VecDeque::new();
        Self { retention, segments, messages: 0, bytes: 0, relieved_seq: 0, listed: false }
    }

    /// Keeps what was just published, and gives up what the retention does not allow.
    pub(super) fn keep(&mut self, segment: &Rc<Segment>, now: Time) {
        self.messages += segment.messages();
        let kept = Kept { segment: Rc::clone(segment), first: 0 };
        self.bytes += kept.bytes();
        self.segments.push_back(kept);
        self.trim(now);
    }

    /// Gives up what is too old, too much or too many.
    pub(super) fn trim(&mut self, now: Time) {
        let Retention { messages, age, bytes } = self.retention;
        while let Some(oldest) = self.segments.front_mut() {
            if oldest.segment.published(0) + age <= now || self.bytes > bytes {
                self.give_up_oldest();
            } else if self.messages > messages {
                let surplus = self.messages - messages;
                if surplus >= oldest.segment.messages() - oldest.first {
                    self.give_up_oldest();
                } else {
                    oldest.first += surplus;
                    self.messages = messages;
                }
            } else {
                break;
            }
        }
    }

    /// Gives up everything because memory is short.
    pub(super) fn relieve(&mut self) {
        while !self.segments.is_empty() {
            let last = &self.segments[0].segment;
            self.relieved_seq = last.seq(last.messages() - 1);
            self.give_up_oldest();
        }
    }

    /// When the oldest message becomes too old: who calls lists it, to look at it then.
    pub(super) fn next_look(&mut self) -> Option<Time> {
        let oldest = self.segments.front();
        self.listed = oldest.is_some();
        oldest.map(|kept| kept.segment.published(0) + self.retention.age)
    }

    /// Whether it is listed to be looked at.
    pub(super) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Bytes that are kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Checks the sums; returns the segments that are kept, each by where it is, and their bytes.
    pub(super) fn audit(&self, audit: &mut Audit) -> Vec<(usize, usize)> {
        let kept = self.segments.iter();
        let messages: u32 = kept.clone().map(|it| it.segment.messages() - it.first).sum();
        let segments: Vec<_> =
            kept.map(|it| (Rc::as_ptr(&it.segment).addr(), it.bytes())).collect();
        assert_eq!(messages, self.messages, "a history counts its messages");
        assert_eq!(segments.iter().map(|(_, bytes)| bytes).sum::<usize>(), self.bytes);
        assert!(self.messages <= self.retention.messages && self.bytes <= self.retention.bytes);
        audit.kept += u64::from(messages);
        audit.kept_bytes += self.bytes as u64;
        segments
    }

    /// The oldest message that is kept.
    pub(super) fn first_seq(&self) -> Option<u64> {
        self.segments.front().map(|kept| kept.segment.seq(kept.first))
    }

    /// Why message `seq` is not kept any more.
    pub(super) const fn reason(&self, seq: u64) -> GapReason {
        if seq <= self.relieved_seq { GapReason::Limit } else { GapReason::TooOld }
    }

    /// The messages from `from` on, which is kept, as much as `page` allows and at least one.
    pub(super) fn recall(&self, from: u64, page: Page) -> Vec<Run> {
        let last = |kept: &Kept| kept.segment.seq(kept.segment.messages() - 1);
        let at = self.segments.partition_point(|kept| last(kept) < from);
        let (mut runs, mut messages, mut bytes) = (Vec::new(), 0, 0_u32);
        for kept in self.segments.iter().skip(at) {
            let segment = &kept.segment;
            let first = from.saturating_sub(segment.seq(0)).max(u64::from(kept.first)) as u32;
            let mut run = Run { segment: Rc::clone(segment), first, end: first };
            while run.end < segment.messages() {
                let size = segment.start(run.end + 1) - segment.start(run.end);
                let fits = messages < page.messages && bytes.saturating_add(size) <= page.bytes;
                if !fits && messages > 0 {
                    break;
                }
                run.end += 1;
                messages += 1;
                bytes = bytes.saturating_add(size);
            }
            let is_whole = run.end == segment.messages();
            if run.messages() > 0 {
                runs.push(run);
            }
            if !is_whole {
                break;
            }
        }
        runs
    }

    fn give_up_oldest(&mut self) {
        let oldest = self.segments.pop_front().expect("who gives up has just looked at it");
        self.messages -= oldest.segment.messages() - oldest.first;
        self.bytes -= oldest.bytes();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hub::segment::{Meter, SegmentBuilder};
    use crate::hub::{Overflow, Patience};
    use crate::mem::Key;

    fn at(seconds: u64) -> Time {
        Time::START + Duration::from_secs(seconds)
    }

    fn segment(seqs: std::ops::RangeInclusive<u64>, published: Time, meter: &Meter) -> Rc<Segment> {
        let mut builder = SegmentBuilder::default();
        for seq in seqs {
            builder.push(b"{\"seq\":", seq, b"1");
        }
        let frames = builder.freeze(published);
        let patience = Patience { overflow: Overflow::DropOldest, max_age: None };
        Segment::new(Key::new(0, 0), patience, frames, meter)
    }

    fn history(messages: u32, seconds: u64, bytes: usize) -> History {
        History::new(Retention { messages, age: Duration::from_secs(seconds), bytes })
    }

    fn seqs(runs: &[Run]) -> Vec<u64> {
        runs.iter().flat_map(|run| (run.first..run.end).map(|at| run.segment.seq(at))).collect()
    }

    const ALL: Page = Page { messages: u32::MAX, bytes: u32::MAX };

    #[test]
    fn of_too_many_messages_the_oldest_are_given_up_also_within_a_segment() {
        let mut history = history(4, 60, 1 << 20);
        for seqs in [1..=3, 4..=4, 5..=7] {
            history.keep(&segment(seqs, at(0), &Meter::default()), at(0));
        }
        assert_eq!(history.first_seq(), Some(4));
        assert_eq!(seqs(&history.recall(4, ALL)), [4, 5, 6, 7]);
        history.keep(&segment(8..=8, at(0), &Meter::default()), at(0));
        history.keep(&segment(9..=9, at(0), &Meter::default()), at(0));
        assert_eq!(history.first_seq(), Some(6), "two of the three in a segment are kept");
        assert_eq!(seqs(&history.recall(6, ALL)), [6, 7, 8, 9]);
    }

    #[test]
    fn what_is_too_old_is_given_up_and_its_memory_with_it() {
        let (meter, mut history) = (Meter::default(), history(100, 10, 1 << 20));
        history.keep(&segment(1..=2, at(0), &meter), at(0));
        history.keep(&segment(3..=3, at(5), &meter), at(5));
        assert_eq!(history.next_look(), Some(at(10)));
        history.trim(at(9));
        assert_eq!(history.first_seq(), Some(1));
        history.trim(at(10));
        assert_eq!(history.first_seq(), Some(3));
        history.trim(at(15));
        assert!(history.is_empty() && history.bytes() == 0 && meter.bytes() == 0);
        assert_eq!((history.reason(3), history.next_look()), (GapReason::TooOld, None));
    }

    #[test]
    fn more_bytes_than_may_be_kept_are_not() {
        let one = segment(1..=1, at(0), &Meter::default()).start(1) as usize;
        let mut history = history(100, 60, 2 * one);
        for seq in 1..=9 {
            history.keep(&segment(seq..=seq, at(0), &Meter::default()), at(0));
            assert!(history.bytes() <= 2 * one);
        }
        assert_eq!(history.first_seq(), Some(8));
    }

    #[test]
    fn a_page_ends_where_it_is_full_and_the_next_goes_on_there() {
        let mut history = history(100, 60, 1 << 20);
        for seqs in [1..=3, 4..=4, 5..=9] {
            history.keep(&segment(seqs, at(0), &Meter::default()), at(0));
        }
        for messages in 1..10 {
            let (mut from, mut all) = (2, Vec::new());
            while from <= 9 {
                let page = seqs(&history.recall(from, Page { messages, bytes: u32::MAX }));
                assert!(!page.is_empty() && page.len() <= messages as usize);
                from = page.last().expect("not empty") + 1;
                all.extend(page);
            }
            assert_eq!(all, (2..=9).collect::<Vec<u64>>(), "{messages} at a time");
        }
        let page = history.recall(2, Page { messages: 100, bytes: 1 });
        assert_eq!(seqs(&page), [2], "a message that is larger than a page is one");
    }

    #[test]
    fn what_was_given_up_for_want_of_memory_is_told_so() {
        let mut history = history(100, 60, 1 << 20);
        history.keep(&segment(1..=3, at(0), &Meter::default()), at(0));
        history.relieve();
        assert!(history.is_empty());
        history.keep(&segment(4..=4, at(1), &Meter::default()), at(1));
        assert_eq!((history.reason(3), history.reason(4)), (GapReason::Limit, GapReason::TooOld));
    }
}
