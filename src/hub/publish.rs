//! A message gets its number and joins its channel's messages of this tick.

use std::sync::Arc;

use bytes::Bytes;

use super::letter::{Delivery, Letter, Publisher, Refusal, Request};
use super::topic::State;
use super::{ClientId, Hub, RequestId, ShardIndex};
use crate::limits::SEGMENT_BYTES_MAX;
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
}

impl Hub {
    /// `client` publishes `payload`, raw JSON, to `channel`.
    ///
    /// With an `id` the ack follows once every subscriber has the message in its outbox, or was
    /// told of a gap, or its shard has been told.
    ///
    /// # Errors
    /// When the message is not taken.
    pub fn publish(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        channel: &str,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        if self.is_overloaded() {
            return Err(Refusal::Overloaded);
        }
        let shard = self.settings.shard;
        let publisher = Publisher { shard, client, id: id.map(Into::into) };
        let home = self.topics.home(channel);
        if home == shard {
            self.sequence(channel, payload, publisher)?;
        } else {
            let payload = Bytes::copy_from_slice(payload);
            let request = Request::Publish { channel: channel.into(), payload, publisher };
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
            Letter::Request(Request::Publish { channel, payload, publisher }) => {
                let Publisher { shard, client, .. } = publisher;
                let id = publisher.id.clone();
                let taken = if self.is_overloaded() {
                    Err(Refusal::Overloaded)
                } else {
                    self.sequence(&channel, &payload, publisher)
                };
                if let Err(refusal) = taken {
                    let refused = Delivery::PublishRefused { client, id, refusal };
                    self.letters.push((shard, Letter::Delivery(refused)));
                }
            }
            Letter::Request(Request::Attach { channel, shard, topic }) => {
                self.attach(&channel, shard, topic);
            }
            Letter::Request(Request::Detach { channel, shard, topic }) => {
                self.detach(&channel, shard, topic, now);
            }
            Letter::Delivery(Delivery::Attached { topic, epoch, seq }) => {
                self.attached(topic, epoch, seq, now);
            }
            Letter::Delivery(Delivery::Refused { topic }) => self.refused(topic),
            Letter::Delivery(Delivery::Messages { topic, frames }) => self.receive(topic, frames),
            Letter::Delivery(Delivery::Published { client, id, channel, seq }) => {
                self.acknowledge(client, &id, &channel, seq);
            }
            Letter::Delivery(Delivery::PublishRefused { client, id, refusal }) => {
                let mut replies = Vec::new();
                if id.is_some() {
                    self.clients.answered(client);
                }
                let id = id.as_deref();
                envelope::error(&mut replies, id, refusal.code(), refusal.reason());
                self.reply(client, &mut replies);
            }
        }
    }

    /// Gives `payload` the channel's next `seq`.
    fn sequence(
        &mut self,
        channel: &str,
        payload: &[u8],
        publisher: Publisher,
    ) -> Result<(), Refusal> {
        let id = self.home(channel)?;
        let topic = self.topics.get_mut(id).expect("just found or made");
        let home = topic.home.as_mut().expect("this shard is its home");
        let State::Attached { seq, .. } = &mut topic.state else {
            unreachable!("a home is attached to itself")
        };
        *seq += 1;
        self.counts.publishes += 1;
        // Nobody to send it to: the number is all that is kept.
        let is_wanted = !(topic.subscribers.is_empty()
            && topic.newcomers.is_empty()
            && home.attached.is_empty());
        if is_wanted {
            home.builder.push(&topic.prefix, *seq, payload);
        } else {
            topic.settled_seq = *seq;
        }
        if let Some(request) = publisher.id {
            let Publisher { shard, client, .. } = publisher;
            let channel = Arc::clone(&topic.name);
            self.acks.push(Ack { shard, client, id: request, channel, seq: *seq });
        }
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
            self.freeze(id);
        }
        Ok(())
    }

    /// Answers the publishes whose messages have been offered to all by
    /// [`settle`](Self::settle). Call it when the letters up to then are in their mailboxes.
    pub fn acknowledge_settled(&mut self) {
        let settled = std::mem::take(&mut self.acks_settled);
        let mut acks = std::mem::take(&mut self.acks);
        for Ack { shard, client, id, channel, seq } in acks.drain(..settled) {
            if shard == self.settings.shard {
                self.acknowledge(client, &id, &channel, seq);
            } else {
                let published = Delivery::Published { client, id, channel, seq };
                self.letters.push((shard, Letter::Delivery(published)));
            }
        }
        self.acks = acks;
    }

    fn acknowledge(&mut self, client: ClientId, id: &[u8], channel: &str, seq: u64) {
        self.clients.answered(client);
        self.clients.reply_with(client, |outbox| {
            outbox.write_reply(|replies| envelope::ack(replies, Some(id), channel, Some(seq)));
        });
    }
}
