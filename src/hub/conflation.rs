//! Those who want the newest value of each key, and no oftener than they can use it.
//!
//! ```text
//! published    41 42 43 44 45 46 47 48       keys  a b a a b c a b
//! flushed      |           44 45 46 |        44 covers 41..=44, the others themselves
//! waiting                           47 48
//! ```
//!
//! All subscribers of a channel with the same interval are one *group*: what it keeps is the newest
//! message of each key, and a flush makes one shared segment for all of them. Each message covers
//! the numbers behind the one before it: whatever is among them is that message, or was superseded
//! by a value of its key that has been, or will be, delivered. So what is received, covered and told
//! as lost is again everything that was published.
//!
//! The first message after a quiet interval leaves at once, so who wants an interval of a second does
//! not wait a second for what comes every minute.

mod group;
mod newest;

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::SeedableRandomState;
use smallvec::SmallVec;

use super::clients::{Clients, Subscription};
use super::format::Encoder;
use super::segment::{Meter, Segment};
use super::{Audit, ClientId, Hub, Refusal, TopicId};
use crate::limits::{
    CONFLATION_GROUPS_DUE_PER_TICK_MAX, CONFLATION_INTERVALS_MAX, CONFLATION_MEMORY_PART,
    SEGMENT_BYTES_MAX,
};
use crate::proto::{envelope, json};
use crate::time::Time;
use group::{Group, Printer};
use newest::Value;

/// The groups of one channel.
#[derive(Debug)]
pub(super) struct Conflation {
    /// The member of a payload whose value is the key.
    key: Option<Arc<str>>,
    /// The shortest that there is, and the longest.
    intervals: RangeInclusive<Duration>,
    groups: Vec<Group>,
    hasher: SeedableRandomState,
    /// Bytes of what waits in groups on this shard.
    meter: Meter,
}

impl Conflation {
    /// Nobody's yet; what will wait is counted in `meter`.
    pub(super) const fn new(
        key: Option<Arc<str>>,
        intervals: RangeInclusive<Duration>,
        hasher: SeedableRandomState,
        meter: Meter,
    ) -> Self {
        Self { key, intervals, groups: Vec::new(), hasher, meter }
    }

    /// How often somebody is sent something that has asked for `asked`, or for nothing special.
    pub(super) fn interval(&self, asked: Option<Duration>) -> Duration {
        let (shortest, longest) = (*self.intervals.start(), *self.intervals.end());
        asked.map_or(shortest, |asked| asked.clamp(shortest, longest))
    }

    /// Whether nobody is in any group, nothing is to come of one, and nobody is expected.
    pub(super) const fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether somebody is to be offered messages.
    pub(super) fn has_audience(&self) -> bool {
        self.groups.iter().any(|group| !group.audience.is_empty())
    }

    /// Somebody that catches up will join with this interval.
    pub(super) fn expect(&mut self, asked: Option<Duration>) -> Result<(), Refusal> {
        self.group(self.interval(asked))?.expected += 1;
        Ok(())
    }

    /// Somebody that was expected joins now, or does not come.
    pub(super) fn expect_no_more(&mut self, asked: Option<Duration>) {
        let group = self.group(self.interval(asked)).expect("it is there while it is expected");
        group.expected -= 1;
        self.forget_idle();
    }

    /// Takes in `client`, which is owed everything after `seq`, the newest message; returns its place.
    pub(super) fn take_in(
        &mut self,
        client: ClientId,
        seq: u64,
        asked: Option<Duration>,
    ) -> Result<u32, Refusal> {
        Ok(self.group(self.interval(asked))?.take_in(client, seq))
    }

    /// Lets `client` go. In the group that is just being offered something, everybody before `cursor`
    /// has been.
    pub(super) fn leave(
        &mut self,
        client: ClientId,
        subscription: Subscription,
        cursor: &mut usize,
        clients: &mut Clients,
    ) {
        let is_its = |group: &Group| group.audience.has(client, subscription.position);
        let at = self.groups.iter().position(is_its).expect("a subscriber is in a group");
        let is_offered = self.groups.iter().position(Group::is_unsettled) == Some(at);
        let cursor = if is_offered { cursor } else { &mut 0 };
        self.groups[at].leave(client, subscription, cursor, clients);
        self.forget_idle();
    }

    /// The last message that `client` has been offered or is not owed.
    pub(super) fn offered(&self, client: ClientId, position: u32) -> u64 {
        self.group_of(client, position).offered(client)
    }

    /// How often `client` is sent something.
    pub(super) fn interval_of(&self, client: ClientId, position: u32) -> Duration {
        self.group_of(client, position).interval
    }

    fn group_of(&self, client: ClientId, position: u32) -> &Group {
        let group = self.groups.iter().find(|group| group.audience.has(client, position));
        group.expect("a subscriber is in a group")
    }

    /// The group with this interval; begins its life if need be.
    fn group(&mut self, interval: Duration) -> Result<&mut Group, Refusal> {
        let known = self.groups.iter().position(|group| group.interval == interval);
        let at = match known {
            Some(at) => at,
            None if !self.has_room_for(interval) => return Err(Refusal::TooManyIntervals),
            None => {
                self.groups.push(Group::new(interval, self.hasher.clone(), self.meter.clone()));
                self.groups.len() - 1
            }
        };
        Ok(&mut self.groups[at])
    }

    /// Whether a group with this interval can begin. A place is kept for the shortest one: whoever asks
    /// for none gets it, and can ask for no other.
    fn has_room_for(&self, interval: Duration) -> bool {
        let shortest = *self.intervals.start();
        let is_there = self.groups.iter().any(|group| group.interval == shortest);
        let kept = usize::from(interval != shortest && !is_there);
        self.groups.len() + kept < CONFLATION_INTERVALS_MAX
    }

    fn forget_idle(&mut self) {
        self.groups.retain(|group| !group.is_idle());
    }

    /// Takes in what was published: in each group it supersedes what waits under its key.
    fn take(&mut self, segment: &Segment, printer: &mut Printer<'_>, bytes_max: usize) {
        let Self { key: name, groups, .. } = self;
        for index in 0..segment.messages() {
            let seq = segment.seq(index);
            if !groups.iter().any(|group| group.wants(seq)) {
                continue;
            }
            let frame = segment.bytes(segment.start(index), segment.start(index + 1));
            let payload = envelope::message_payload(frame, printer.prefix, seq);
            let key = name.as_deref().and_then(|name| value_of(payload, name));
            let value = Value { seq, published: segment.published(index), payload };
            for group in groups.iter_mut().filter(|group| group.wants(seq)) {
                group.take(key.unwrap_or_default(), value, printer, bytes_max);
            }
        }
    }

    /// Offers what was flushed to everybody in its group. False when a client has to be sent to first.
    fn offer(
        &mut self,
        topic: TopicId,
        cursor: &mut usize,
        clients: &mut Clients,
        encoder: &mut Encoder,
        printer: &Printer<'_>,
    ) -> bool {
        self.groups.iter_mut().all(|group| group.offer(topic, cursor, clients, encoder, printer))
    }

    /// Checks the groups; returns the bytes that wait.
    pub(super) fn audit(&self, audit: &mut Audit) -> usize {
        let groups = self.groups.iter().map(|group| {
            assert!(!group.is_idle(), "a group that nobody wants is forgotten");
            group.audit(audit)
        });
        groups.sum()
    }

    /// The groups, each by who is in it.
    pub(super) fn audiences(&self) -> impl Iterator<Item = &super::audience::Audience> {
        self.groups.iter().map(|group| &group.audience)
    }

    /// How many groups are listed to be looked at.
    pub(super) fn listed(&self) -> usize {
        self.groups.iter().filter(|group| group.is_listed).count()
    }
}

/// The value of the member called `name` of the object that `payload` is, as it is written.
fn value_of<'a>(payload: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut members = json::members(payload)?.map_while(Result::ok);
    members.find(|member| member.is_named(name)).map(|member| member.value)
}

impl Hub {
    /// From now on nothing waits for the end of an interval: the server leaves.
    pub fn stop_conflating(&mut self) {
        self.conflates = false;
    }

    /// When something is due that waits in a group.
    #[must_use]
    pub fn next_flush(&self) -> Option<Time> {
        self.topics.flushes.peek().map(|Reverse((due, ..))| *due)
    }

    /// Lists the channels in which something is due, up to a bound; all of them when the server leaves.
    pub(super) fn list_due_groups(&mut self, now: Time) {
        let most = if self.conflates { CONFLATION_GROUPS_DUE_PER_TICK_MAX } else { usize::MAX };
        for _ in 0..most {
            let Some(Reverse((due, topic, interval))) = self.topics.flushes.peek().copied() else {
                break;
            };
            if due > now && self.conflates {
                break;
            }
            self.topics.flushes.pop();
            let known = self.topics.get_mut(topic).expect("a topic outlives what is due in it");
            let conflation = known.conflation.as_mut().expect("it is due in a group");
            let mut groups = conflation.groups.iter_mut();
            let group = groups.find(|group| group.interval == interval);
            group.expect("a group that is listed lives").is_listed = false;
            if !known.listed {
                known.listed = true;
                self.unsettled.push(topic);
            }
        }
    }

    /// What was published is taken in by the groups of `topic`, and what is due is offered. False
    /// when a client has to be sent to first.
    pub(super) fn settle_conflated(&mut self, topic: TopicId, now: Time) -> bool {
        let capacity = self.settings.outbox;
        let known = self.topics.get_mut(topic).expect("listed topics live");
        let conflation = known.conflation.as_mut().expect("its rule says so");
        let mut printer = Printer {
            topic,
            prefix: &known.prefix,
            patience: known.rule.patience(),
            meter: &self.segments,
            messages_max: capacity.messages as usize,
            bytes_max: SEGMENT_BYTES_MAX.min(capacity.bytes as usize),
            printed: 0,
            now,
        };
        let bytes_max = self.settings.memory_bytes_max / CONFLATION_MEMORY_PART;
        while let Some(segment) = known.unsettled.pop_front() {
            known.settled_seq = segment.seq(segment.messages() - 1);
            conflation.take(&segment, &mut printer, bytes_max);
        }
        for group in &mut conflation.groups {
            if group.is_waiting() && (group.next_flush() <= now || !self.conflates) {
                group.flush(&mut printer);
            }
        }
        self.encoder.count_json(std::mem::take(&mut printer.printed));
        let (clients, encoder) = (&mut self.clients, &mut self.encoder);
        if !conflation.offer(topic, &mut self.cursor.client, clients, encoder, &printer) {
            return false;
        }
        let groups = conflation.groups.iter_mut();
        let due = groups.filter_map(|group| Some((group.list()?, topic, group.interval)));
        let due: SmallVec<[_; 2]> = due.map(Reverse).collect();
        conflation.forget_idle();
        known.listed = false;
        self.topics.flushes.extend(due);
        true
    }
}
