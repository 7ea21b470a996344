//! A message gets its number and joins its channel's messages of this tick.

use std::sync::Arc;

use bytes::Bytes;

use super::clients::Door;
use super::letter::{Delivery, Letter, Publisher, Refusal, Request};
use super::topic::State;
use super::{ClientId, Hub, RequestId, ShardIndex, TopicId};
use crate::limits::{KEYS_MEMORY_PART, PRESENCE_PREFIX, SEGMENT_BYTES_MAX};
use crate::proto::envelope;
use crate::time::Time;

/// An answer that waits until what it promises is in every outbox or on its way there.
#[derive(Debug)]
pub(super) struct Ack {
    shard: ShardIndex,
    client: ClientId,
    id: RequestId,
    channel: Arc<str>,
    seq: u64,
    is_repeated: bool,
}

/// What a client publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// Raw JSON.
    pub payload: &'a [u8],
    /// What the answer echoes, raw JSON; without it there is no ack.
    pub id: Option<&'a [u8]>,
    /// A second message with the same key is not published, but told the number of the first.
    pub key: Option<&'a [u8]>,
}

/// What became of a publish of a client whose answers somebody else writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who published.
    pub client: ClientId,
    /// As which request.
    pub id: RequestId,
    /// The message's place, or why it was not taken.
    pub outcome: Result<Acked, Refusal>,
}

/// Where a message is that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// On which channel.
    pub channel: Arc<str>,
    /// Its number.
    pub seq: u64,
    /// It was there before, under the same key.
    pub is_repeated: bool,
}

impl Hub {
    /// From now on, what becomes of the publishes of `client` is told by
    /// [`take_answers`](Self::take_answers).
    pub fn collect_answers(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(client) {
            client.door = Door::Answers;
        }
    }

    /// Whether something became of publishes of clients whose answers are collected.
    #[must_use]
    pub const fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// What became of publishes since the last call, of clients whose answers are collected.
    pub fn take_answers(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.answers);
    }

    /// `client` publishes a message.
    ///
    /// With an `id` the ack follows once every subscriber has the message in its outbox, or was
    /// told of a gap, or its shard has been told.
    ///
    /// # Errors
    /// When the message is not taken.
    pub fn publish(
        &mut self,
        client: ClientId,
        publish: Publish<'_>,
        now: Time,
    ) -> Result<(), Refusal> {
        let Publish { channel, payload, id, key } = publish;
        if channel.starts_with(PRESENCE_PREFIX) {
            return Err(Refusal::Reserved);
        }
        let shard = self.settings.shard;
        let publisher = Publisher { shard, client, id: id.map(Into::into) };
        let home = self.topics.home_of_plain(channel);
        if home == shard {
            self.sequence(channel, payload, key, publisher, now)?;
        } else if self.is_overloaded() {
            return Err(Refusal::Overloaded);
        } else {
            let payload = Bytes::copy_from_slice(payload);
            let (channel, key) = (channel.into(), key.map(Into::into));
            let request = Request::Publish { channel, payload, key, publisher };
            self.letters.push((home, Letter::Request(request)));
        }
        if id.is_some() {
            self.clients.await_answer(client);
        }
        Ok(())
    }

    /// A letter from another shard.
    pub fn hear(&mut self, letter: Letter, now: Time) {
        match letter {
            Letter::Request(Request::Publish { channel, payload, key, publisher }) => {
                let Publisher { shard, client, .. } = publisher;
                let id = publisher.id.clone();
                let taken = self.sequence(&channel, &payload, key.as_deref(), publisher, now);
                if let Err(refusal) = taken {
                    let refused = Delivery::PublishRefused { client, id, refusal };
                    self.letters.push((shard, Letter::Delivery(refused)));
                }
            }
            Letter::Request(Request::Attach { channel, shard, topic }) => {
                self.attach(&channel, shard, topic, now);
            }
            Letter::Request(Request::Recall { channel, asker, recall, page }) => {
                self.answer_recall(&channel, asker, recall, page, now);
            }
            Letter::Request(Request::Browse { channel, shard, client, id, browse }) => {
                self.answer_browse(channel, (shard, client), id, browse, now);
            }
            Letter::Request(Request::Present { channel, changes }) => {
                self.hear_present(&channel, changes, now);
            }
            Letter::Request(Request::CallRoll { channel, shard, client, id, ask }) => {
                self.answer_roll(channel, (shard, client), id, ask, now);
            }
            Letter::Request(Request::Detach { channel, shard, topic }) => {
                self.detach(&channel, shard, topic, now);
            }
            Letter::Request(Request::Watch { pattern, shard, id }) => {
                self.patterns.watch(pattern, shard, id);
            }
            Letter::Request(Request::Unwatch { pattern, shard }) => {
                self.patterns.unwatch(&pattern, shard);
            }
            Letter::Request(Request::Named { channel, shard, topic }) => {
                self.hear_named(&channel, shard, topic);
            }
            Letter::Delivery(Delivery::Attached { topic, epoch, seq }) => {
                self.attached(topic, epoch, seq, now);
            }
            Letter::Delivery(Delivery::Refused { topic }) => self.refused(topic),
            Letter::Delivery(Delivery::Messages { topic, frames }) => {
                self.receive(topic, frames);
            }
            Letter::Delivery(Delivery::MessagesOf { channel, frames }) => {
                if let Some(topic) = self.topics.find(&channel) {
                    self.receive(topic, frames);
                }
            }
            Letter::Delivery(Delivery::Begun { channel, epoch, seq }) => {
                self.hear_begun(channel, epoch, seq, now);
            }
            Letter::Delivery(Delivery::Searched { id }) => self.searched(id),
            Letter::Delivery(Delivery::Recalled { topic, client, ticket, recalled, parts }) => {
                self.recalled((client, topic, ticket), recalled, parts, now);
            }
            Letter::Delivery(Delivery::Kept { client, id, channel, answer }) => match answer {
                Ok(kept) => self.tell_kept(client, id, &channel, kept),
                Err(refusal) => self.refuse(client, id.as_deref(), refusal),
            },
            Letter::Delivery(Delivery::Roll { client, id, channel, answer }) => match answer {
                Ok(roll) => self.tell_roll(client, id, &channel, &roll),
                Err(refusal) => self.refuse(client, id.as_deref(), refusal),
            },
            Letter::Delivery(Delivery::Published { client, id, channel, seq, is_repeated }) => {
                self.acknowledge(client, id, Acked { channel, seq, is_repeated });
            }
            Letter::Delivery(Delivery::PublishRefused { client, id, refusal }) => {
                self.refuse_publish(client, id, refusal);
            }
        }
    }

    /// Gives `payload` the channel's next `seq`, unless a message with its `key` has one.
    fn sequence(
        &mut self,
        channel: &str,
        payload: &[u8],
        key: Option<&[u8]>,
        publisher: Publisher,
        now: Time,
    ) -> Result<(), Refusal> {
        // Also at the memory ceiling: it costs nothing, and its publisher asks no more.
        if let Some(key) = key
            && let Some(id) = self.topics.find(channel)
            && let Some(seq) = self.number_of_key(id, key, now)
        {
            self.promise_ack(id, publisher, seq, true);
            return Ok(());
        }
        if self.is_overloaded() {
            return Err(Refusal::Overloaded);
        }
        let id = self.home(channel, now)?;
        let seq = self.append(id, payload, now);
        self.promise_ack(id, publisher, seq, false);
        if let Some(key) = key {
            self.remember_key(id, key, seq, now);
        }
        Ok(())
    }

    /// Gives `payload` the next `seq` of the home `id`. A part of `sequence`, where a call would be seen.
    #[inline(always)]
    pub(super) fn append(&mut self, id: TopicId, payload: &[u8], now: Time) -> u64 {
        let topic = self.topics.get_mut(id).expect("just found or made");
        let is_heard = topic.has_audience();
        let home = topic.home.as_mut().expect("this shard is its home");
        let State::Attached { seq, .. } = &mut topic.state else {
            unreachable!("a home is attached to itself")
        };
        *seq += 1;
        self.counts.publishes += 1;
        // Nobody to send it to: the number is all that is kept.
        let is_wanted = is_heard || !home.attached.is_empty() || home.history.is_some();
        if is_wanted {
            home.builder.push(&topic.prefix, *seq, payload);
        } else {
            topic.settled_seq = *seq;
        }
        let seq = *seq;
        let bytes_max = SEGMENT_BYTES_MAX.min(self.settings.outbox.bytes as usize);
        let is_full = home.builder.bytes() >= bytes_max
            || home.builder.messages() >= self.settings.outbox.messages as usize;
        // Also when nobody wants it: until its ack is written the channel must not be forgotten, and
        // settling finds it deserted and lists it as idle.
        if !topic.listed {
            topic.listed = true;
            self.unsettled.push(id);
        }
        if is_full {
            self.freeze(id, now);
        }
        seq
    }

    /// The number of the message that was published to the home `topic` with `key`.
    fn number_of_key(&mut self, topic: TopicId, key: &[u8], now: Time) -> Option<u64> {
        let known = self.topics.get_mut(topic)?;
        known.home.as_mut()?.keys.as_mut()?.find(key, known.rule.keys, now)
    }

    fn remember_key(&mut self, topic: TopicId, key: &[u8], seq: u64, now: Time) {
        let bytes_max = self.settings.memory_bytes_max / KEYS_MEMORY_PART;
        let none = self.topics.keys(&self.keys);
        let known = self.topics.get_mut(topic).expect("it has just been published to");
        let home = known.home.as_mut().expect("this shard is its home");
        let keys = home.keys.get_or_insert(none);
        keys.remember(key, seq, known.rule.keys, bytes_max, now);
    }

    fn promise_ack(&mut self, topic: TopicId, publisher: Publisher, seq: u64, is_repeated: bool) {
        let Publisher { shard, client, id: Some(id) } = publisher else { return };
        let known = self.topics.get(topic).expect("it has just been published to");
        let channel = Arc::clone(&known.name);
        self.acks.push(Ack { shard, client, id, channel, seq, is_repeated });
    }

    /// Answers the publishes whose messages have been offered to all by
    /// [`settle`](Self::settle). Call it when the letters up to then are in their mailboxes.
    pub fn acknowledge_settled(&mut self) {
        let settled = std::mem::take(&mut self.acks_settled);
        let mut acks = std::mem::take(&mut self.acks);
        for Ack { shard, client, id, channel, seq, is_repeated } in acks.drain(..settled) {
            if shard == self.settings.shard {
                self.acknowledge(client, id, Acked { channel, seq, is_repeated });
            } else {
                let published = Delivery::Published { client, id, channel, seq, is_repeated };
                self.letters.push((shard, Letter::Delivery(published)));
            }
        }
        self.acks = acks;
    }

    fn acknowledge(&mut self, client: ClientId, id: RequestId, acked: Acked) {
        match self.clients.answered(client) {
            // It has gone; and who listens publishes nothing.
            None | Some(Door::Stream | Door::Poll) => {}
            Some(Door::Frames) => self.clients.write_reply(client, |replies| {
                let Acked { channel, seq, is_repeated } = acked;
                envelope::ack(replies, Some(&id), &channel, seq, is_repeated);
            }),
            Some(Door::Answers) => self.answers.push(Answer { client, id, outcome: Ok(acked) }),
        }
    }

    /// A home has not taken a publish of `client`.
    fn refuse_publish(&mut self, client: ClientId, id: Option<RequestId>, refusal: Refusal) {
        let Some(id) = id else { return self.refuse(client, None, refusal) };
        match self.clients.answered(client) {
            // It has gone; and who listens publishes nothing.
            None | Some(Door::Stream | Door::Poll) => {}
            Some(Door::Frames) => self.refuse(client, Some(&id), refusal),
            Some(Door::Answers) => {
                self.answers.push(Answer { client, id, outcome: Err(refusal) });
            }
        }
    }
}
