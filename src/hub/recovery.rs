//! A client that was away catches up with a channel, a page of its history at a time.
//!
//! ```text
//! subscribe since 120 --> due --> asked --> page 121..150, told "subscribed" --> due --> ... --> live
//!                          ^                          |
//!                          +--- its outbox is empty --+
//! ```
//!
//! It is held by its position, not by a queue: the next page is asked for when the last one has
//! left, so however slowly it reads, it makes the server keep one page. What the history has given
//! up by then is a gap. With the page that reaches the newest message it joins the subscribers.

use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::clients::{Client, Subscription};
use super::history::Page;
use super::letter::{Letter, Refusal, Request};
use super::outbox::Gap;
use super::recall::{Asker, Part, Recall, Recalled};
use super::segment::{Run, Segment};
use super::topic::Wish;
use super::{ClientId, GapReason, Hub, RequestId, TopicId};
use crate::limits::{
    RECALL_PAGE_BYTES_MAX, RECALLED_BYTES_PER_TICK_MAX, RECALLS_AT_ONCE_MAX, RECOVERY_WISHES_MAX,
};
use crate::proto::envelope::{self, Subscribed};
use crate::time::Time;

/// One channel in which a client catches up.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) topic: TopicId,
    /// Tells the home's answers to this one from those to an earlier one.
    ticket: u32,
    /// Where it goes on.
    recall: Recall,
    /// What it asked for where messages are conflated.
    pub(super) conflate: Option<Duration>,
    stage: Stage,
    /// What it is owed with the first page, until that has come.
    promise: Option<Promise>,
}

/// Where a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its last page has not left.
    Reading,
    /// Listed in `Recoveries::due`.
    Due,
    /// The home was asked.
    Asked,
}

/// The answer to a subscribe, and what the client has asked for since.
#[derive(Debug, Default)]
struct Promise {
    id: Option<RequestId>,
    wishes: VecDeque<(Option<RequestId>, Wish)>,
}

/// The recoveries of one shard.
#[derive(Debug, Default)]
pub(super) struct Recoveries {
    /// Whose next page may be asked for, in order.
    due: VecDeque<(ClientId, TopicId)>,
    /// Pages that other shards were asked for.
    asked: usize,
    /// Bytes of the last page that was given out; what another shard is asked for is taken to be as
    /// much.
    page_bytes: u32,
    /// The last ticket.
    ticket: u32,
}

/// What a topic knows of those who catch up with it.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    /// How many they are.
    pub(super) count: u32,
    /// What another shard has sent of its history and somebody has waiting, by where its bytes
    /// lie: what ten thousand clients catch up with is one segment here, too.
    segments: HashMap<usize, Weak<Segment>, FixedState>,
}

impl Recovery {
    /// The last message that the client has, or was told of; before the first page it has none.
    pub(super) const fn position(&self) -> u64 {
        match self.recall {
            Recall::After { seq, .. } => seq,
            Recall::Last(_) => 0,
        }
    }
}

impl Recovering {
    /// `part` as a segment that is shared with whoever has it already.
    fn segment(&mut self, part: Part, make: impl FnOnce(Part) -> Rc<Segment>) -> Rc<Segment> {
        let place = part.frames.bytes.as_ptr().addr();
        if let Some(known) = self.segments.get(&place).and_then(Weak::upgrade) {
            return known;
        }
        if self.segments.len() == self.segments.capacity() {
            self.segments.retain(|_, segment| segment.strong_count() > 0);
        }
        let segment = make(part);
        self.segments.insert(place, Rc::downgrade(&segment));
        segment
    }
}

impl Hub {
    /// `client` wants the messages of the attached `topic` from where it was on.
    pub(super) fn recover(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<RequestId>,
        recall: Recall,
        conflate: Option<Duration>,
    ) -> Result<(), Refusal> {
        let known = self.topics.get_mut(topic).expect("it is attached");
        if let Some(conflation) = &mut known.conflation {
            conflation.expect(conflate)?;
        }
        known.recovering.get_or_insert_default().count += 1;
        let joining = self.clients.get_mut(client).expect("looked at just now");
        let position = Subscription::RECOVERING;
        let subscription = Subscription { topic, position, is_direct: true, by_pattern: false };
        joining.subscriptions.push(subscription);
        self.recoveries.ticket = self.recoveries.ticket.wrapping_add(1);
        joining.extra_mut().recoveries.get_or_insert_default().push(Recovery {
            topic,
            ticket: self.recoveries.ticket,
            recall,
            conflate,
            stage: Stage::Due,
            promise: Some(Promise { id, wishes: VecDeque::new() }),
        });
        self.counts.subscriptions += 1;
        self.enter(client, topic);
        self.recoveries.due.push_back((client, topic));
        Ok(())
    }

    /// Keeps `wish` until the home has answered what `client` asked before. False when it has, or
    /// was not asked.
    pub(super) fn postpone(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        wish: Wish,
    ) -> Result<bool, Refusal> {
        let recovery = self.clients.recovery_mut(client, topic);
        let Some(promise) = recovery.and_then(|recovery| recovery.promise.as_mut()) else {
            return Ok(false);
        };
        let is_leaving = matches!(promise.wishes.back(), Some((_, Wish::Unsubscribe)));
        match wish {
            Wish::Subscribe(_) if !is_leaving => return Err(Refusal::AlreadySubscribed),
            Wish::Unsubscribe if is_leaving => return Err(Refusal::NotSubscribed),
            _ if promise.wishes.len() >= RECOVERY_WISHES_MAX => return Err(Refusal::TooManyWishes),
            _ => {}
        }
        promise.wishes.push_back((id.map(Into::into), wish));
        Ok(true)
    }

    /// Whether somebody's next page can be asked for.
    #[must_use]
    pub fn has_recalls_due(&self) -> bool {
        let is_free = self.recoveries.asked < RECALLS_AT_ONCE_MAX;
        self.clients.has_caught_up() || (is_free && !self.recoveries.due.is_empty())
    }

    /// Asks for the next pages of those whose last one has left, up to a bound.
    pub fn recall_due(&mut self, now: Time) {
        if !self.has_recalls_due() {
            return;
        }
        while let Some((client, topic)) = self.clients.next_caught_up(|recovery| {
            let is_reading = recovery.stage == Stage::Reading;
            recovery.stage = if is_reading { Stage::Due } else { recovery.stage };
            is_reading
        }) {
            self.recoveries.due.push_back((client, topic));
        }
        let mut bytes = 0;
        for _ in self.recoveries.asked..RECALLS_AT_ONCE_MAX {
            if bytes >= RECALLED_BYTES_PER_TICK_MAX {
                break;
            }
            let Some((client, topic)) = self.recoveries.due.pop_front() else { break };
            if self.ask(client, topic, now) {
                bytes += self.recoveries.page_bytes;
            }
        }
    }

    /// False when there is nobody to ask for: it has left, or come back behind another entry.
    fn ask(&mut self, client: ClientId, topic: TopicId, now: Time) -> bool {
        let recovery = self.clients.recovery_mut(client, topic);
        let Some(recovery) = recovery.filter(|recovery| recovery.stage == Stage::Due) else {
            return false;
        };
        recovery.stage = Stage::Asked;
        let Recovery { ticket, recall, .. } = *recovery;
        let capacity = self.settings.outbox;
        let page =
            Page { messages: capacity.messages, bytes: capacity.bytes.min(RECALL_PAGE_BYTES_MAX) };
        let known = self.topics.get(topic).expect("a topic outlives who catches up with it");
        if known.home.is_some() {
            let (recalled, runs) = self.recall(topic, recall, page, now);
            self.catch_up((client, topic, ticket), recalled, runs, now);
            return true;
        }
        self.recoveries.asked += 1;
        let channel: Box<str> = known.name.as_ref().into();
        let home = self.topics.home(&channel);
        let asker = Asker { shard: self.settings.shard, topic, client, ticket };
        let request = Request::Recall { channel, asker, recall, page };
        self.letters.push((home, Letter::Request(request)));
        true
    }

    /// Another shard's answer.
    pub(super) fn recalled(
        &mut self,
        who: (ClientId, TopicId, u32),
        recalled: Recalled,
        parts: Vec<Part>,
        now: Time,
    ) {
        self.recoveries.asked -= 1;
        let Some(known) = self.topics.get_mut(who.1) else { return };
        let (patience, meter) = (known.rule.patience(), &self.segments);
        let Some(recovering) = &mut known.recovering else { return };
        let runs = parts.into_iter().map(|part| {
            let Part { first, end, .. } = part;
            let make = |part: Part| {
                let segment = Segment::new(who.1, patience, part.frames, meter);
                segment.settled();
                segment
            };
            Run { segment: recovering.segment(part, make), first, end }
        });
        let runs = runs.collect();
        self.catch_up(who, recalled, runs, now);
    }

    /// A page has come.
    fn catch_up(
        &mut self,
        (client, topic, ticket): (ClientId, TopicId, u32),
        recalled: Recalled,
        runs: Vec<Run>,
        now: Time,
    ) {
        let is_sealed = self.clients.get(client).is_none_or(Client::is_sealed);
        let recovery = self.clients.recovery_mut(client, topic);
        let Some(recovery) = recovery.filter(|recovery| recovery.ticket == ticket) else { return };
        // Who is let go gets what waits for it, and nothing new.
        if is_sealed {
            recovery.stage = Stage::Reading;
            return;
        }
        let (promise, conflate) = (recovery.promise.take(), recovery.conflate);
        if let Some(Promise { id, .. }) = &promise {
            self.tell_subscribed(client, topic, id.as_deref(), recalled, conflate);
        }
        if !self.queue_new_epoch(client, topic, recalled) {
            return;
        }
        let position = self.queue_page(client, topic, recalled, runs, now);
        if position == recalled.seq {
            self.end_recovery(client, topic);
            let place = self.take_place(client, topic, recalled.seq, conflate);
            let place = place.expect("its group was kept for it");
            self.clients.move_to(client, topic, place);
        } else if let Some(recovery) = self.clients.recovery_mut(client, topic) {
            recovery.recall = Recall::After { epoch: Some(recalled.epoch), seq: position };
            recovery.stage = Stage::Reading;
            self.clients.look_whether_caught_up(client);
        }
        let wishes = promise.map(|promise| promise.wishes).unwrap_or_default();
        self.grant_wishes(client, topic, wishes, now);
    }

    /// A numbering that has begun anew is told in the answer, or else ends `client`, also when
    /// everything in it can be had: what was lost of the old one nobody can count. False when it does.
    fn queue_new_epoch(&mut self, client: ClientId, topic: TopicId, recalled: Recalled) -> bool {
        let Recalled { from, kept, lost, .. } = recalled;
        let Some(reason @ GapReason::EpochChanged) = lost else { return true };
        if self.clients.format(client).has_notices() {
            return true;
        }
        let recovery = self.clients.recovery_mut(client, topic);
        recovery.expect("it was looked at just now").stage = Stage::Reading;
        self.fail_for(client, Gap { topic, from, to: kept - 1, reason });
        false
    }

    /// Queues what a page says, as much as there is room for; returns the last message that the
    /// client now has or was told of.
    fn queue_page(
        &mut self,
        client: ClientId,
        topic: TopicId,
        recalled: Recalled,
        runs: Vec<Run>,
        now: Time,
    ) -> u64 {
        let Recalled { from, kept, lost, .. } = recalled;
        if kept > from {
            let reason = lost.unwrap_or(GapReason::TooOld);
            self.clients.tell_gap(client, Gap { topic, from, to: kept - 1, reason });
        }
        let (mut position, mut bytes) = (kept - 1, 0);
        for mut run in runs {
            let fresh = run.segment.first_fresh(now).clamp(run.first, run.end);
            if fresh > run.first {
                self.clients.lose(client, Gap::stale(&run.segment, run.first, fresh));
                position = run.segment.seq(fresh - 1);
                run.first = fresh;
            }
            if run.messages() == 0 {
                continue;
            }
            let last = run.segment.seq(run.end - 1);
            bytes += run.bytes();
            if !self.clients.offer_kept(client, run, &mut self.encoder) {
                break;
            }
            position = last;
        }
        self.recoveries.page_bytes = bytes;
        position
    }

    fn tell_subscribed(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        told: Recalled,
        conflate: Option<Duration>,
    ) {
        let known = self.topics.get(topic).expect("a topic outlives who catches up with it");
        let subscribed = Subscribed {
            channel: &known.name,
            epoch: told.epoch.as_str(),
            seq: told.seq,
            resumed: Some((told.from, told.lost.map(GapReason::name))),
            conflate: known.interval(conflate),
        };
        if self.clients.is_listening(client) {
            self.clients.place(client, topic, (told.epoch, told.from - 1), &subscribed);
        } else if id.is_some() {
            self.clients.write_reply(client, |replies| {
                envelope::subscribed(replies, id, &subscribed);
            });
        }
    }

    /// Does what `client` asked for while it waited for the home's answer.
    fn grant_wishes(
        &mut self,
        client: ClientId,
        topic: TopicId,
        mut wishes: VecDeque<(Option<RequestId>, Wish)>,
        now: Time,
    ) {
        while let Some((id, wish)) = wishes.pop_front() {
            self.grant(client, topic, id, wish, now);
            // It waits again, and what is left waits with it.
            let recovery = self.clients.recovery_mut(client, topic);
            if let Some(promise) = recovery.and_then(|recovery| recovery.promise.as_mut()) {
                promise.wishes = wishes;
                return;
            }
        }
        self.tidy(topic, now);
    }

    /// `client` catches up with `topic` no more.
    pub(super) fn end_recovery(&mut self, client: ClientId, topic: TopicId) {
        let Some(recovery) = self.clients.end_recovery(client, topic) else { return };
        let known = self.topics.get_mut(topic).expect("a topic outlives who catches up with it");
        if let Some(conflation) = &mut known.conflation {
            conflation.expect_no_more(recovery.conflate);
        }
        let recovering = known.recovering.as_mut().expect("somebody does");
        recovering.count -= 1;
        if recovering.count == 0 {
            known.recovering = None;
        }
    }
}

mod audit;
