//! The life of a channel: it begins when somebody wants it, at its home or where that is asked for;
//! other shards attach to the home and detach; and it ends when nobody has wanted it for a while.

use std::cmp::Reverse;

use super::history::History;
use super::letter::{Delivery, Letter, Refusal, Request};
use super::topic::{Attached, Home, State, Waiting, Wish};
use super::{Epoch, Hub, ShardIndex, TopicId};
use crate::limits::{CHANNEL_IDLE, CHANNELS_EXPIRED_PER_TICK_MAX};
use crate::time::Time;

impl Hub {
    /// The channel called `name`, whose home this shard is; begins its life if need be, and then
    /// those are there who have patterns that match it.
    pub(super) fn home(&mut self, name: &str, now: Time) -> Result<TopicId, Refusal> {
        if let Some(id) = self.topics.find(name) {
            return Ok(id);
        }
        let id = self.give_life(name)?;
        self.begun(id, now);
        Ok(id)
    }

    /// Begins the life of the channel called `name`, whose home this shard is.
    fn give_life(&mut self, name: &str) -> Result<TopicId, Refusal> {
        if self.counts.channels_home >= self.settings.channels_max as u64 {
            return Err(Refusal::ChannelsExhausted);
        }
        self.counts.channels_home += 1;
        let state = State::Attached { epoch: Epoch::new(&mut self.random), seq: 0 };
        let rule = self.settings.rules.of(name);
        let home = Home {
            builder: Default::default(),
            history: (rule.history.messages > 0).then(|| History::new(rule.history)),
            keys: None,
            members: None,
            attached: Vec::new(),
            idle_listed: false,
            idle_since: Time::START,
        };
        Ok(self.topics.insert(name, rule, state, Some(home)))
    }

    /// Begins the life of a channel not known here: at home, or by asking the home.
    pub(super) fn reach(&mut self, channel: &str) -> Result<TopicId, Refusal> {
        let home = self.topics.home(channel);
        if home == self.settings.shard {
            return self.give_life(channel);
        }
        let rule = self.settings.rules.of(channel);
        let topic = self.topics.insert(channel, rule, State::Attaching(Vec::new()), None);
        let shard = self.settings.shard;
        let request = Request::Attach { channel: channel.into(), shard, topic };
        self.letters.push((home, Letter::Request(request)));
        Ok(topic)
    }

    pub(super) fn numbering(&self, topic: TopicId) -> (Epoch, u64) {
        match self.topics.get(topic).map(|known| &known.state) {
            Some(State::Attached { epoch, seq }) => (*epoch, *seq),
            _ => unreachable!("only attached channels are asked for their numbering"),
        }
    }

    /// Another shard's request, heard at the channel's home.
    pub(super) fn attach(&mut self, channel: &str, shard: ShardIndex, topic: TopicId, now: Time) {
        let answer = match self.home(channel, now) {
            Err(_) => Delivery::Refused { topic },
            Ok(id) => {
                // What was published before the attachment is not owed to it.
                self.freeze(id, now);
                let (epoch, seq) = self.numbering(id);
                let home = self.topics.get_mut(id).and_then(|known| known.home.as_mut());
                let attached = &mut home.expect("this is the home").attached;
                // It may be there for the sake of a pattern.
                match attached.iter_mut().find(|known| known.shard == shard) {
                    Some(known) => known.topic = Some(topic),
                    None => attached.push(Attached { shard, topic: Some(topic) }),
                }
                Delivery::Attached { topic, epoch, seq }
            }
        };
        self.letters.push((shard, Letter::Delivery(answer)));
    }

    /// Another shard has no subscribers left.
    pub(super) fn detach(&mut self, channel: &str, shard: ShardIndex, topic: TopicId, now: Time) {
        let Some(id) = self.topics.find(channel) else { return };
        let known = self.topics.get_mut(id).expect("names and table agree");
        if let Some(home) = &mut known.home {
            home.attached.retain(|it| it.shard != shard || it.topic != Some(topic));
        }
        self.attach_again(id, shard, now);
        self.tidy(id, now);
    }

    /// The home has answered: what waited is done now, in order.
    pub(super) fn attached(&mut self, topic: TopicId, epoch: Epoch, seq: u64, now: Time) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        let before = std::mem::replace(&mut known.state, State::Attached { epoch, seq });
        let waiting = match before {
            State::Attaching(waiting) => waiting,
            // It has attached this shard for the sake of a pattern before it was asked.
            State::Attached { epoch: known, seq: heard } => {
                assert_eq!((known, heard), (epoch, seq), "a home tells every message in order");
                return;
            }
        };
        known.settled_seq = seq;
        for Waiting { client, id, wish } in waiting {
            if matches!(wish, Wish::Subscribe(_)) {
                self.end_waiting(client);
            }
            match self.postpone(client, topic, id.as_deref(), wish) {
                Ok(true) => {}
                Ok(false) => self.grant(client, topic, id, wish, now),
                Err(refusal) => self.refuse(client, id.as_deref(), refusal),
            }
        }
        self.begun(topic, now);
        self.tidy_if_known(topic, now);
    }

    /// The home has no room for the channel.
    pub(super) fn refused(&mut self, topic: TopicId) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        let State::Attaching(waiting) = &mut known.state else {
            unreachable!("the home answers once")
        };
        let waiting = std::mem::take(waiting);
        self.forget_topic(topic);
        for Waiting { client, id, wish } in waiting {
            let refusal = match wish {
                Wish::Subscribe(_) => {
                    self.end_waiting(client);
                    Refusal::ChannelsExhausted
                }
                Wish::Unsubscribe => Refusal::NotSubscribed,
            };
            self.refuse(client, id.as_deref(), refusal);
        }
    }

    /// Lets go of a channel that nobody wants any more: at home after a while, elsewhere now.
    pub(super) fn tidy(&mut self, topic: TopicId, now: Time) {
        let known = self.topics.get_mut(topic).expect("who tidies has just looked at it");
        if !known.is_deserted() {
            return;
        }
        if known.home.is_some() {
            self.list_idle(topic, now);
            return;
        }
        if matches!(known.state, State::Attaching(_)) {
            return; // The answer is on its way and tidies again.
        }
        let channel: Box<str> = known.name.as_ref().into();
        self.tell_presence_in(topic, now);
        let home = self.topics.home(&channel);
        self.forget_topic(topic);
        let shard = self.settings.shard;
        let request = Request::Detach { channel, shard, topic };
        self.letters.push((home, Letter::Request(request)));
    }

    /// The same, of a channel that may be gone.
    pub(super) fn tidy_if_known(&mut self, topic: TopicId, now: Time) {
        if self.topics.get(topic).is_some() {
            self.tidy(topic, now);
        }
    }

    /// Remembers that nobody has wanted the home `topic` since `since`.
    fn list_idle(&mut self, topic: TopicId, since: Time) {
        let home = self.topics.get_mut(topic).and_then(|known| known.home.as_mut());
        let home = home.expect("only homes are listed as idle");
        home.idle_since = since;
        if !home.idle_listed {
            home.idle_listed = true;
            self.topics.idle.push_back((since, topic));
        }
    }

    /// Ends the life of a channel.
    fn forget_topic(&mut self, topic: TopicId) {
        let name = self.topics.remove(topic);
        self.patterns.forget(topic, &name);
    }

    /// Ends the lives of homes that nobody has wanted for [`CHANNEL_IDLE`], up to a bound.
    pub fn expire_channels(&mut self, now: Time) {
        self.expire_histories(now);
        for _ in 0..CHANNELS_EXPIRED_PER_TICK_MAX {
            let Some((since, topic)) = self.topics.idle.front().copied() else { break };
            if since + CHANNEL_IDLE > now {
                break;
            }
            self.topics.idle.pop_front();
            let Some(known) = self.topics.get_mut(topic) else { continue };
            let home = known.home.as_mut().expect("only homes are listed as idle");
            home.idle_listed = false;
            let idle_since = home.idle_since;
            let is_kept = home.has_something_kept(known.rule.keys, now);
            if !known.is_deserted() {
                continue;
            }
            if is_kept {
                self.list_idle(topic, now);
                continue;
            }
            if idle_since + CHANNEL_IDLE > now {
                // Wanted in between: its time begins when that ended.
                self.list_idle(topic, idle_since);
                continue;
            }
            self.forget_topic(topic);
            self.counts.channels_home -= 1;
        }
    }

    /// When [`expire_channels`](Self::expire_channels) has something to do.
    #[must_use]
    pub fn next_channel_expiry(&self) -> Option<Time> {
        let idle = self.topics.idle.front().map(|(since, _)| *since + CHANNEL_IDLE);
        let history = self.topics.expiries.peek().map(|Reverse((expiry, _))| *expiry);
        idle.into_iter().chain(history).min()
    }

    /// Gives up what is too old of channels on which nothing is published, up to a bound.
    fn expire_histories(&mut self, now: Time) {
        for _ in 0..CHANNELS_EXPIRED_PER_TICK_MAX {
            let Some(Reverse((expiry, topic))) = self.topics.expiries.peek().copied() else {
                break;
            };
            if expiry > now {
                break;
            }
            self.topics.expiries.pop();
            let home = self.topics.get_mut(topic).and_then(|known| known.home.as_mut());
            let Some(history) = home.and_then(|home| home.history.as_mut()) else { continue };
            history.trim(now);
            if let Some(expiry) = history.next_look() {
                debug_assert!(expiry > now, "what is kept has not become too old");
                self.topics.expiries.push(Reverse((expiry, topic)));
            }
        }
    }
}
