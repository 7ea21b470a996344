//! A channel begins: clients and shards with patterns that match it are there before its first
//! message.
//!
//! ```text
//! home: publish --> home() --> begun: clients here follow; watching shards are attached --Begun--> shard
//! shard: Begun --> topic --> begun: clients here follow        --Named--> home
//! ```
//!
//! The home attaches a shard that watches on its own account, so it does not know what that shard
//! will call the channel: until it is told, it sends the channel's name along. All of this, and the
//! answer to a search, travels on the lines that carry messages, in order with them.
//!
//! New patterns look for channels that have begun before, a part of the table each tick.

use std::sync::Arc;

use super::letter::{Delivery, Letter, Request};
use super::patterns::Search;
use super::topic::{Attached, State};
use super::{Epoch, Hub, PatternId, ShardIndex, TopicId};
use crate::limits::{TOPICS_FOUND_PER_TICK_MAX, TOPICS_LOOKED_AT_PER_TICK_MAX};
use crate::proto::envelope::pattern;
use crate::time::Time;

impl Hub {
    /// The messages of `topic` can be heard here from now on.
    pub(super) fn begun(&mut self, topic: TopicId, now: Time) {
        if self.patterns.is_empty() {
            return;
        }
        let known = self.topics.get(topic).expect("it has just begun");
        let (name, is_home) = (Arc::clone(&known.name), known.home.is_some());
        for id in self.patterns.matching(&name) {
            self.found(topic, id, now);
        }
        if is_home {
            for shard in self.patterns.watching(&name) {
                self.attach_watcher(topic, shard, now);
            }
        }
    }

    /// `topic` matches the pattern `id` of clients here: they follow it.
    fn found(&mut self, topic: TopicId, id: PatternId, now: Time) {
        // Who could not follow another channel may have been the last one.
        let Some(pattern) = self.patterns.get_mut(id) else { return };
        if !pattern.topics.insert(topic) {
            return;
        }
        let clients: Vec<_> = pattern.clients.iter().copied().collect();
        for client in clients {
            if let Err(refusal) = self.follow(client, topic, id, now) {
                self.expel(client, id, refusal, now);
            }
        }
    }

    /// Attaches `shard`, unless it is, to the home `topic` for the sake of a pattern.
    fn attach_watcher(&mut self, topic: TopicId, shard: ShardIndex, now: Time) -> bool {
        let home = self.topics.get(topic).and_then(|known| known.home.as_ref());
        if home.expect("this is the home").attached.iter().any(|it| it.shard == shard) {
            return false;
        }
        // What was published before the attachment is not owed to it.
        self.freeze(topic, now);
        let (epoch, seq) = self.numbering(topic);
        let known = self.topics.get_mut(topic).expect("looked at just now");
        let home = known.home.as_mut().expect("this is the home");
        home.attached.push(Attached { shard, topic: None });
        let begun = Delivery::Begun { channel: Arc::clone(&known.name), epoch, seq };
        self.letters.push((shard, Letter::Delivery(begun)));
        true
    }

    /// A shard that has let go of `topic` still watches a pattern that matches it, or one that it
    /// did not know to match when it let go.
    pub(super) fn attach_again(&mut self, topic: TopicId, shard: ShardIndex, now: Time) {
        if self.patterns.is_empty() {
            return;
        }
        let known = self.topics.get(topic).expect("it was looked at just now");
        if known.home.is_some() && self.patterns.watching(&known.name).contains(&shard) {
            self.attach_watcher(topic, shard, now);
        }
    }

    /// The home of `channel` has attached this shard, which watches a pattern that matches.
    pub(super) fn hear_begun(&mut self, channel: Arc<str>, epoch: Epoch, seq: u64, now: Time) {
        let home = self.topics.home(&channel);
        let known = self.topics.find(&channel);
        let topic = known.unwrap_or_else(|| {
            let rule = self.settings.rules.of(&channel);
            let topic = self.topics.insert(&channel, rule, State::Attached { epoch, seq }, None);
            self.topics.get_mut(topic).expect("just made").settled_seq = seq;
            topic
        });
        let (channel, shard) = (channel.as_ref().into(), self.settings.shard);
        let named = Request::Named { channel, shard, topic };
        self.letters.push((home, Letter::Request(named)));
        if known.is_some() {
            // It has asked for that itself, and the answer will say nothing new.
            return self.attached(topic, epoch, seq, now);
        }
        self.begun(topic, now);
        // Its pattern may have ended.
        self.tidy_if_known(topic, now);
    }

    /// `shard` tells what it calls a channel that it was attached to.
    pub(super) fn hear_named(&mut self, channel: &str, shard: ShardIndex, topic: TopicId) {
        let known = self.topics.find(channel).and_then(|id| self.topics.get_mut(id));
        let Some(home) = known.and_then(|known| known.home.as_mut()) else { return };
        let attached = home.attached.iter_mut().find(|it| it.shard == shard);
        if let Some(attached) = attached.filter(|it| it.topic.is_none()) {
            attached.topic = Some(topic);
        }
    }

    /// Whether topics are to be looked through for new patterns.
    #[must_use]
    pub fn has_searches(&self) -> bool {
        !self.patterns.searches.is_empty()
    }

    /// Looks for channels that new patterns match, up to a bound.
    pub fn search(&mut self, now: Time) {
        let (mut looks, mut finds) = (TOPICS_LOOKED_AT_PER_TICK_MAX, TOPICS_FOUND_PER_TICK_MAX);
        while let Some(search) = self.patterns.searches.front_mut()
            && looks > 0
            && finds > 0
        {
            let Search { shard, id, place, .. } = *search;
            if place >= self.topics.places() {
                self.end_search(shard, id);
                continue;
            }
            search.place += 1;
            looks -= 1;
            let name = &search.pattern;
            let Some((topic, known)) = self.topics.at(place) else { continue };
            let is_heard = matches!(known.state, State::Attached { .. });
            if !is_heard || !pattern::matches(name, &known.name) {
                continue;
            }
            if shard == self.settings.shard {
                self.found(topic, id, now);
                finds -= 1;
            } else if known.home.is_some() {
                finds -= usize::from(self.attach_watcher(topic, shard, now));
            }
        }
    }

    fn end_search(&mut self, shard: ShardIndex, id: PatternId) {
        self.patterns.searches.pop_front();
        if shard == self.settings.shard {
            return self.searched(id);
        }
        self.letters.push((shard, Letter::Delivery(Delivery::Searched { id })));
    }
}
