//! Each topic's new messages are offered to each of its subscribers, once a tick.

use std::cmp::Reverse;
use std::sync::Arc;

use super::audience::Audience;
use super::clients::Clients;
use super::letter::{Delivery, Letter};
use super::outbox::Gap;
use super::segment::{Frames, Segment};
use super::topic::{Attached, State};
use super::{Hub, TopicId};
use crate::time::Time;

/// How far [`Hub::settle`] has come.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cursor {
    /// In `Hub::unsettled`.
    pub(super) topic: usize,
    /// In the topic's subscribers, then its newcomers. Those before it have been offered the
    /// topic's first unsettled segment.
    pub(super) client: usize,
}

/// Whether [`Hub::settle`] is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Every message has been offered to every subscriber.
    Done,
    /// A client that reads well has a full outbox only because this tick brought so much: send
    /// what the outboxes hold, then call again.
    OutboxFull,
}

impl Hub {
    /// Messages of a channel whose home is another shard.
    pub(super) fn receive(&mut self, topic: TopicId, frames: Frames) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        let State::Attached { seq, .. } = &mut known.state else {
            return; // From before the attachment that is being asked for.
        };
        debug_assert_eq!(frames.first_seq, *seq + 1, "a home tells every message in order");
        *seq += frames.ends.len() as u64;
        let segment = Segment::new(topic, known.rule.patience(), frames, &self.segments);
        known.unsettled.push_back(segment);
        if !known.listed {
            known.listed = true;
            self.unsettled.push(topic);
        }
    }

    /// The messages that `topic`'s home has gathered become a segment, for all who are subscribed
    /// now and for the shards that are attached now.
    pub(super) fn freeze(&mut self, topic: TopicId, now: Time) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        let Some(home) = known.home.as_mut().filter(|home| !home.builder.is_empty()) else {
            return;
        };
        let frames = home.builder.freeze(now);
        self.encoder.count_json(frames.ends.len());
        for Attached { shard, topic } in &home.attached {
            let frames = frames.clone();
            let messages = match topic {
                Some(topic) => Delivery::Messages { topic: *topic, frames },
                None => Delivery::MessagesOf { channel: Arc::clone(&known.name), frames },
            };
            self.letters.push((*shard, Letter::Delivery(messages)));
        }
        let segment = Segment::new(topic, known.rule.patience(), frames, &self.segments);
        let mut expiry = None;
        if let Some(history) = &mut home.history {
            history.keep(&segment, now);
            expiry = if history.is_listed() { None } else { history.next_look() };
        }
        known.unsettled.push_back(segment);
        debug_assert!(known.listed, "whoever publishes lists the topic");
        self.topics.expiries.extend(expiry.map(|expiry| Reverse((expiry, topic))));
    }

    /// Offers what was published since the last call to every subscriber's outbox.
    pub fn settle(&mut self, now: Time) -> Settled {
        self.list_due_groups(now);
        while let Some(topic) = self.unsettled.get(self.cursor.topic).copied() {
            self.freeze(topic, now);
            if !self.settle_topic(topic, now) {
                return Settled::OutboxFull;
            }
            self.tidy(topic, now);
            self.cursor = Cursor { topic: self.cursor.topic + 1, client: 0 };
        }
        self.unsettled.clear();
        self.cursor = Cursor::default();
        self.acks_settled = self.acks.len();
        Settled::Done
    }

    /// False when a client has to be sent to first.
    fn settle_topic(&mut self, topic: TopicId, now: Time) -> bool {
        let known = self.topics.get_mut(topic).expect("listed topics live");
        if known.conflation.is_some() {
            return self.settle_conflated(topic, now);
        }
        let audience = &mut known.audience;
        while let Some(segment) = known.unsettled.front() {
            if segment.first_fresh(now) > 0 {
                // It has been too long on its way from its home. Nobody has been offered any of it:
                // all that happens in a tick happens at the same time.
                let last = tell_stale(segment, audience, &mut self.clients);
                known.settled_seq = known.settled_seq.max(last);
                known.unsettled.pop_front();
                continue;
            }
            while self.cursor.client < audience.len() {
                let index = self.cursor.client;
                let (client, is_owed) = match audience.subscribers.get(index) {
                    Some(client) => (*client, true),
                    None => {
                        let (client, seq) = audience.newcomers[index - audience.subscribers.len()];
                        (client, segment.seq(0) > seq)
                    }
                };
                if is_owed && !self.clients.offer(client, segment, &mut self.encoder) {
                    return false;
                }
                self.cursor.client += 1;
            }
            self.cursor.client = 0;
            known.settled_seq = known.settled_seq.max(segment.seq(segment.messages() - 1));
            segment.settled();
            known.unsettled.pop_front();
        }
        audience.admit(topic, &mut self.clients, |_| true);
        known.listed = false;
        true
    }
}

/// Tells everybody who is owed it that `segment` is lost; returns its last message.
#[cold]
fn tell_stale(segment: &Segment, audience: &Audience, clients: &mut Clients) -> u64 {
    let told = Gap::stale(segment, 0, segment.messages());
    for client in &audience.subscribers {
        clients.lose(*client, told);
    }
    for (client, _) in audience.newcomers.iter().filter(|(_, seq)| told.from > *seq) {
        clients.lose(*client, told);
    }
    told.to
}
