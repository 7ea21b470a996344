//! Clients subscribe to patterns and leave them.
//!
//! A client's subscription to a channel ends when nothing holds it any more: neither a subscription
//! to the channel itself nor a pattern that matches. Where something ends and a pattern holds the
//! channel still, the client is told so, and behind which message it goes on: for the client it ends
//! and begins, and need not be worked out.

use std::sync::Arc;

use super::clients::Subscription;
use super::letter::{Letter, Refusal, Request};
use super::patterns::Search;
use super::{ClientId, Hub, PatternId, RequestId, TopicId};
use crate::limits::{
    MATCH_PLACE_BYTES, MATCHED_CHANNELS_PER_CLIENT_MAX, PATTERNS_MEMORY_PART,
    PATTERNS_PER_CLIENT_MAX, REPLIES_BYTES_MAX,
};
use crate::proto::envelope::{self, pattern};
use crate::time::Time;

impl Hub {
    /// `client` wants the messages of every channel that `pattern` matches, from now on and of
    /// those to come. It is told where each channel begins ahead of its first message. The answer
    /// follows when all shards have looked for channels that match.
    ///
    /// # Errors
    /// When it cannot be; what it was told of channels by then has ended with it.
    pub fn subscribe_pattern(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        pattern: &str,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        self.make_way(client, replies)?;
        let known = self.patterns.find(pattern);
        let asking = self.clients.get(client).expect("only open clients ask");
        if known.is_some_and(|known| asking.patterns().contains(&known)) {
            return Err(Refusal::AlreadySubscribed);
        }
        if !asking.takes_part() {
            return Ok(());
        }
        if asking.patterns().len() >= PATTERNS_PER_CLIENT_MAX {
            return Err(Refusal::TooManyPatterns);
        }
        if !self.has_room_for_patterns() {
            return Err(Refusal::Overloaded);
        }
        let known = known.unwrap_or_else(|| self.begin_pattern(pattern));
        let asking = self.clients.get_mut(client).expect("looked at just now");
        asking.extra_mut().followed.get_or_insert_default().patterns.push(known);
        let began = self.patterns.get_mut(known).expect("found or made just now");
        began.clients.insert(client);
        let topics: Vec<TopicId> = began.topics.iter().copied().collect();
        for topic in topics {
            if let Err(refusal) = self.follow(client, topic, known, now) {
                self.end_pattern(client, known, now);
                return Err(refusal);
            }
        }
        let began = self.patterns.get_mut(known).expect("the client has it");
        began.waiting.push((client, id.map(Into::into)));
        self.answer_if_found(known);
        Ok(())
    }

    /// `client` wants no more messages of what only `pattern` has brought it. After the answer
    /// nothing of that follows.
    ///
    /// # Errors
    /// When it is not subscribed to the pattern.
    pub fn unsubscribe_pattern(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        pattern: &str,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        self.make_way(client, replies)?;
        let known = self.patterns.find(pattern).ok_or(Refusal::NotSubscribed)?;
        let asking = self.clients.get(client).expect("only open clients ask");
        if !asking.patterns().contains(&known) {
            return Err(Refusal::NotSubscribed);
        }
        if let Some(asked) = self.take_waiting(client, known) {
            self.answer_pattern(client, asked, known);
        }
        if id.is_some() {
            self.clients.write_reply(client, |replies| {
                envelope::unsubscribed_pattern(replies, id, pattern);
            });
        }
        self.end_pattern(client, known, now);
        Ok(())
    }

    /// `client` hears of no channel to come. What it is subscribed to it stays subscribed to.
    pub(super) fn leave_patterns(&mut self, client: ClientId) {
        let leaving = self.clients.followed_mut(client);
        let patterns = leaving.map(|followed| std::mem::take(&mut followed.patterns));
        for known in patterns.into_iter().flatten() {
            self.leave_pattern(client, known);
        }
    }

    /// Brings `client`, which is subscribed to the pattern `id`, among the subscribers of `topic`
    /// unless it is there, and tells it where the channel begins.
    pub(super) fn follow(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: PatternId,
        now: Time,
    ) -> Result<(), Refusal> {
        let has_room = self.has_room_for_patterns();
        let following = self.clients.get_mut(client).expect("who has a pattern is open");
        if let Some(subscription) = following.subscription_mut(topic) {
            subscription.by_pattern = true;
            return Ok(());
        }
        if usize::from(following.matched()) >= MATCHED_CHANNELS_PER_CLIENT_MAX {
            return Err(Refusal::TooManyMatches);
        }
        if !has_room {
            return Err(Refusal::Overloaded);
        }
        self.freeze(topic, now);
        let (epoch, seq) = self.numbering(topic);
        let position = self.take_place(client, topic, seq, None)?;
        let following = self.clients.get_mut(client).expect("looked at just now");
        let subscription = Subscription { topic, position, is_direct: false, by_pattern: true };
        following.subscriptions.push(subscription);
        self.begin_matched(client);
        self.counts.subscriptions += 1;
        let pattern = &self.patterns.get(id).expect("the client has it").name;
        let known = self.topics.get(topic).expect("its numbering was just read");
        let (channel, conflate) = (&known.name, known.interval(None));
        self.clients.write_reply(client, |replies| {
            envelope::matched(replies, pattern, channel, epoch.as_str(), seq, conflate);
        });
        Ok(())
    }

    /// `client` cannot have a channel that its pattern `id` matches: it is told that the pattern has
    /// ended, in the answer if that is still to come.
    pub(super) fn expel(&mut self, client: ClientId, id: PatternId, refusal: Refusal, now: Time) {
        let Some(pattern) = self.patterns.get(id) else { return };
        if !pattern.clients.contains(&client) {
            return;
        }
        let name = Arc::clone(&pattern.name);
        match self.take_waiting(client, id).flatten() {
            Some(asked) => self.refuse(client, Some(&asked), refusal),
            None => self.clients.write_reply(client, |replies| {
                envelope::pattern_ended(replies, &name, refusal.code(), refusal.reason());
            }),
        }
        self.end_pattern(client, id, now);
    }

    /// One of the shards has found all its channels that match the pattern `id`.
    pub(super) fn searched(&mut self, id: PatternId) {
        let Some(pattern) = self.patterns.get_mut(id) else { return };
        pattern.searching -= 1;
        self.answer_if_found(id);
    }

    /// The first client of this shard subscribes to `pattern`: all shards look for channels.
    fn begin_pattern(&mut self, pattern: &str) -> PatternId {
        let (own, shards) = (self.settings.shard, self.settings.shards);
        let id = self.patterns.insert(pattern, shards);
        self.patterns.searches.push_back(Search {
            pattern: pattern.into(),
            shard: own,
            id,
            place: 0,
        });
        for shard in (0..shards).filter(|shard| *shard != own) {
            let request = Request::Watch { pattern: pattern.into(), shard: own, id };
            self.letters.push((shard, Letter::Request(request)));
        }
        id
    }

    /// Answers those who wait for the channels of the pattern `id`, if all have been found.
    fn answer_if_found(&mut self, id: PatternId) {
        let pattern = self.patterns.get_mut(id).expect("it was looked at just now");
        if pattern.searching > 0 {
            return;
        }
        for (client, asked) in std::mem::take(&mut pattern.waiting) {
            self.answer_pattern(client, asked, id);
        }
    }

    fn answer_pattern(&mut self, client: ClientId, asked: Option<RequestId>, id: PatternId) {
        let pattern = self.patterns.get(id).expect("it was looked at just now");
        if asked.is_some() {
            self.clients.write_reply(client, |replies| {
                let channels = pattern.topics.len();
                envelope::subscribed_pattern(replies, asked.as_deref(), &pattern.name, channels);
            });
        }
    }

    /// Whether `client` waits for the answer to its subscription, and as which request.
    #[expect(clippy::option_option, reason = "a request need not have an id")]
    fn take_waiting(&mut self, client: ClientId, id: PatternId) -> Option<Option<RequestId>> {
        let waiting = &mut self.patterns.get_mut(id)?.waiting;
        let at = waiting.iter().position(|(waiting, _)| *waiting == client)?;
        Some(waiting.remove(at).1)
    }

    /// Ends the subscription of `client` to the pattern `id`, and to each channel that nothing else
    /// holds.
    fn end_pattern(&mut self, client: ClientId, id: PatternId, now: Time) {
        let name = Arc::clone(&self.patterns.get(id).expect("the client has it").name);
        let followed = self.clients.followed_mut(client).expect("who has a pattern is open");
        followed.patterns.retain(|known| *known != id);
        followed.has_let_go = true;
        // The homes are told in this order: who watches no more is not attached again.
        self.leave_pattern(client, id);
        let mut replies = Vec::new();
        for topic in self.followed_by(client, &name) {
            if self.pattern_of(client, topic).is_some() {
                self.tell_matched(client, topic, &mut replies);
            } else {
                self.let_go(client, topic, now);
            }
        }
        self.reply(client, &mut replies);
        // What was forgotten may have been all that waited.
        self.clients.look_whether_caught_up(client);
    }

    fn leave_pattern(&mut self, client: ClientId, id: PatternId) {
        let pattern = self.patterns.get_mut(id).expect("the client has it");
        pattern.clients.remove(&client);
        pattern.waiting.retain(|(waiting, _)| *waiting != client);
        if !pattern.clients.is_empty() {
            return;
        }
        let own = self.settings.shard;
        let name = self.patterns.remove(id, own);
        for shard in (0..self.settings.shards).filter(|shard| *shard != own) {
            let request = Request::Unwatch { pattern: name.as_ref().into(), shard: own };
            self.letters.push((shard, Letter::Request(request)));
        }
    }

    /// The channels that `client` has by patterns and that `ended` matches.
    fn followed_by(&self, client: ClientId, ended: &str) -> Vec<TopicId> {
        let client = self.clients.get(client).expect("who had a pattern is open");
        let by_pattern = client.subscriptions.iter().filter(|it| it.by_pattern);
        let is_matched = |topic: &TopicId| {
            let known = self.topics.get(*topic).expect("a topic outlives its subscribers");
            pattern::matches(ended, &known.name)
        };
        by_pattern.map(|subscription| subscription.topic).filter(is_matched).collect()
    }

    /// A pattern of `client` that matches `topic`.
    pub(super) fn pattern_of(&self, client: ClientId, topic: TopicId) -> Option<&str> {
        let channel = &self.topics.get(topic)?.name;
        let patterns = self.clients.get(client)?.patterns().iter();
        let mut names = patterns.filter_map(|id| self.patterns.get(*id)).map(|it| &*it.name);
        names.find(|name| pattern::matches(name, channel))
    }

    /// Appends to `replies` that `topic`, which something has let go of, goes on for `client` by a
    /// pattern; nothing where the client has asked for it.
    pub(super) fn tell_matched(&self, client: ClientId, topic: TopicId, replies: &mut Vec<u8>) {
        let held = self.clients.get(client).map(|client| client.subscriptions.iter());
        if held.into_iter().flatten().any(|held| held.topic == topic && held.is_direct) {
            return;
        }
        let Some(pattern) = self.pattern_of(client, topic) else { return };
        let (epoch, _) = self.numbering(topic);
        let channel = &self.topics.get(topic).expect("its numbering was just read").name;
        let (seq, conflate) = (self.position(client, topic), self.interval(client, topic));
        envelope::matched(replies, pattern, channel, epoch.as_str(), seq, conflate);
    }

    /// No pattern of `client` matches `topic` any more.
    fn let_go(&mut self, client: ClientId, topic: TopicId, now: Time) {
        let leaving = self.clients.get_mut(client).expect("who had a pattern is open");
        let at = leaving.subscriptions.iter().position(|it| it.topic == topic);
        let at = at.expect("it is subscribed");
        leaving.subscriptions[at].by_pattern = false;
        if leaving.subscriptions[at].is_direct {
            return;
        }
        let subscription = leaving.subscriptions.swap_remove(at);
        self.end_matched(client);
        self.counts.subscriptions -= 1;
        if let Some(outbox) = self.clients.outbox_mut(client) {
            outbox.forget(topic);
        }
        self.leave(client, subscription);
        self.tidy(topic, now);
    }

    /// A subscription of `client` is held by patterns only.
    pub(super) fn begin_matched(&mut self, client: ClientId) {
        if let Some(followed) = self.clients.followed_mut(client) {
            followed.matched += 1;
        }
        self.patterns.bytes += MATCH_PLACE_BYTES;
    }

    /// A subscription of `client` that only patterns held has ended, or is held by itself now.
    pub(super) fn end_matched(&mut self, client: ClientId) {
        if let Some(followed) = self.clients.followed_mut(client) {
            followed.matched -= 1;
        }
        self.patterns.bytes -= MATCH_PLACE_BYTES;
    }

    /// What is told of channels does not overtake the answers before it. One request may bring as
    /// much of that as a client may have channels: who lets go of patterns and asks for others faster
    /// than they are sent is not served.
    fn make_way(&mut self, client: ClientId, replies: &mut Vec<u8>) -> Result<(), Refusal> {
        self.reply(client, replies);
        let waiting = self.replies_waiting(client);
        let Some(followed) = self.clients.followed_mut(client) else { return Ok(()) };
        followed.has_let_go &= waiting > REPLIES_BYTES_MAX;
        if followed.has_let_go { Err(Refusal::TooManyWishes) } else { Ok(()) }
    }

    /// Also what a client is told of its channels counts, until it has left.
    fn has_room_for_patterns(&self) -> bool {
        let bytes_max = self.settings.memory_bytes_max / PATTERNS_MEMORY_PART;
        self.patterns.bytes <= bytes_max && !self.is_overloaded()
    }
}
