//! Clients come to a channel and leave it.

use std::time::Duration;

use super::clients::Subscription;
use super::letter::Refusal;
use super::recall::Recall;
use super::topic::{State, Waiting, Wish};
use super::{ClientId, Hub, RequestId, TopicId};
use crate::proto::envelope::{self, Subscribed};
use crate::time::Time;

/// How a client wants a channel's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// Where to go on; without it with what comes next.
    pub since: Option<Recall>,
    /// The shortest time between two messages of one key, if the channel's own is too short.
    pub conflate: Option<Duration>,
}

impl From<Option<Recall>> for Terms {
    fn from(since: Option<Recall>) -> Self {
        Self { since, conflate: None }
    }
}

impl Hub {
    /// `client` wants the messages of `channel`, on these `terms`. The answer is appended to
    /// `replies`, or follows when the channel's home has answered.
    ///
    /// # Errors
    /// When it cannot be; nothing has changed then.
    pub fn subscribe(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        channel: &str,
        terms: impl Into<Terms>,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        if self.clients.get(client).is_some_and(|client| !client.takes_part()) {
            return Ok(()); // It would not be answered, and no channel is to begin its life for it.
        }
        let topic = self.find_or_reach(client, channel)?;
        self.subscribe_to(client, topic, id, terms.into(), replies, now)
    }

    /// `channel`, whose life begins here if need be, because `client` wants it.
    pub(super) fn find_or_reach(
        &mut self,
        client: ClientId,
        channel: &str,
    ) -> Result<TopicId, Refusal> {
        if let Some(topic) = self.topics.find(channel) {
            return Ok(topic);
        }
        self.check_room(client)?;
        self.check_presence(channel)?;
        self.reach(channel)
    }

    /// The same for a channel that is known here.
    pub(super) fn subscribe_to(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        terms: Terms,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        let known = self.topics.get_mut(topic).expect("found or reached just now");
        if let State::Attaching(waiting) = &mut known.state {
            let asking = self.clients.get_mut(client).expect("only open clients ask");
            if asking.channels() >= self.settings.channels_per_client_max {
                return Err(Refusal::TooManyChannels);
            }
            asking.waiting += 1;
            let wish = Wish::Subscribe(terms);
            waiting.push(Waiting { client, id: id.map(Into::into), wish });
            return Ok(());
        }
        if self.postpone(client, topic, id, Wish::Subscribe(terms))? {
            return Ok(());
        }
        let done = self.let_in(client, topic, id, terms, replies, now);
        if !self.patterns.is_empty() {
            // What is told next does not overtake the answers before it.
            self.reply(client, replies);
        }
        // That is news only if its life began here just now.
        self.begun(topic, now);
        // Who was refused, or takes no part any more, may have been the first to name the channel.
        self.tidy_if_known(topic, now);
        done
    }

    /// `client` joins an attached channel, or first catches up with it.
    fn let_in(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        terms: Terms,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        if !self.check_may_join(client, topic, terms)? {
            return Ok(());
        }
        match terms.since {
            Some(recall) => self.recover(client, topic, id.map(Into::into), recall, terms.conflate),
            None => self.join(client, topic, id, terms.conflate, replies, now),
        }
    }

    /// `client` wants no more messages of `channel`. The answer says the last `seq` that it was
    /// sent or told of; after the answer nothing of the channel follows.
    ///
    /// # Errors
    /// When it is not subscribed.
    pub fn unsubscribe(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        channel: &str,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        let topic = self.topics.find(channel).ok_or(Refusal::NotSubscribed)?;
        let known = self.topics.get_mut(topic).expect("names and table agree");
        if let State::Attaching(waiting) = &mut known.state {
            let last = waiting.iter().rev().find(|waiting| waiting.client == client);
            if last.is_none_or(|last| last.wish == Wish::Unsubscribe) {
                return Err(Refusal::NotSubscribed);
            }
            waiting.push(Waiting { client, id: id.map(Into::into), wish: Wish::Unsubscribe });
            return Ok(());
        }
        if self.postpone(client, topic, id, Wish::Unsubscribe)? {
            return Ok(());
        }
        self.part(client, topic, id, replies)?;
        self.tidy(topic, now);
        Ok(())
    }

    /// Ends every subscription of `client`, quietly.
    pub(super) fn unsubscribe_all(&mut self, client: ClientId, now: Time) {
        self.leave_patterns(client);
        let Some(leaving) = self.clients.get_mut(client) else { return };
        let subscriptions = std::mem::take(&mut leaving.subscriptions);
        for subscription in subscriptions.iter().copied() {
            match subscription.is_direct {
                true => self.exit(client, subscription.topic),
                false => self.end_matched(client),
            }
            self.counts.subscriptions -= 1;
            self.leave(client, subscription);
            self.tidy(subscription.topic, now);
        }
        // What it still waits for finds nobody when the answer comes.
    }

    /// Does what a client asked of a channel that was not attached then, or had not answered.
    pub(super) fn grant(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<RequestId>,
        wish: Wish,
        now: Time,
    ) {
        let mut replies = Vec::new();
        let result = match wish {
            Wish::Subscribe(terms) => {
                self.let_in(client, topic, id.as_deref(), terms, &mut replies, now)
            }
            Wish::Unsubscribe => self.part(client, topic, id.as_deref(), &mut replies),
        };
        self.reply(client, &mut replies);
        if let Err(refusal) = result {
            self.refuse(client, id.as_deref(), refusal);
        }
    }

    fn check_room(&self, client: ClientId) -> Result<(), Refusal> {
        let client = self.clients.get(client).expect("only open clients ask");
        if client.channels() >= self.settings.channels_per_client_max {
            return Err(Refusal::TooManyChannels);
        }
        Ok(())
    }

    pub(super) fn end_waiting(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(client) {
            client.waiting -= 1;
        }
    }

    /// `client` joins an attached channel.
    fn join(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        conflate: Option<Duration>,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        let joining = self.clients.get_mut(client).expect("looked at just now");
        let held = joining.subscription_mut(topic);
        let is_held = held.map(|held| held.is_direct = true).is_some();
        let (epoch, mut seq) = self.numbering(topic);
        if is_held {
            self.end_matched(client);
            seq = self.position(client, topic);
        } else {
            // Messages up to `seq` may still be unsettled, even unfrozen: they are not owed.
            self.freeze(topic, now);
            let position = self.take_place(client, topic, seq, conflate)?;
            let joining = self.clients.get_mut(client).expect("looked at just now");
            let joined = Subscription { topic, position, is_direct: true, by_pattern: false };
            joining.subscriptions.push(joined);
            self.counts.subscriptions += 1;
        }
        self.enter(client, topic);
        let is_listening = self.clients.is_listening(client);
        if id.is_some() || is_listening {
            let channel = &*self.topics.get(topic).expect("its numbering was just read").name;
            let conflate = self.interval(client, topic);
            let told = epoch.as_str();
            let subscribed = Subscribed { channel, epoch: told, seq, resumed: None, conflate };
            if is_listening {
                self.clients.place(client, topic, (epoch, seq), &subscribed);
            } else {
                envelope::subscribed(replies, id, &subscribed);
            }
        }
        Ok(())
    }

    /// Whether `client` may join `topic` on these `terms`; it need not when it has gone while it waited
    /// for the home, or takes no part any more.
    fn check_may_join(
        &self,
        client: ClientId,
        topic: TopicId,
        terms: Terms,
    ) -> Result<bool, Refusal> {
        let known = self.topics.get(topic).expect("who joins has just looked at it");
        if terms.conflate.is_some() && known.conflation.is_none() {
            return Err(Refusal::NotConflated);
        }
        let Some(joining) = self.clients.get(client).filter(|client| client.takes_part()) else {
            return Ok(false);
        };
        if let Some(held) = joining.subscription(topic) {
            // By a pattern: it has what it would be told again, and at an interval of its own.
            let is_other = terms.conflate.is_some()
                && known.interval(terms.conflate) != self.interval(client, topic);
            if held.is_direct || terms.since.is_some() || is_other {
                return Err(Refusal::AlreadySubscribed);
            }
        }
        if joining.channels() - usize::from(joining.waiting)
            >= self.settings.channels_per_client_max
        {
            return Err(Refusal::TooManyChannels);
        }
        Ok(true)
    }

    /// Puts `client` on the list of those whom every message after `seq`, the newest one, is
    /// offered to. Returns its place.
    pub(super) fn take_place(
        &mut self,
        client: ClientId,
        topic: TopicId,
        seq: u64,
        conflate: Option<Duration>,
    ) -> Result<u32, Refusal> {
        debug_assert_eq!(self.numbering(topic).1, seq, "who joins knows of everything before");
        let known = self.topics.get_mut(topic).expect("who joins has just looked at it");
        known.take_in(client, seq, conflate)
    }

    /// The last message of `topic` that `client`, which is subscribed to it, was sent or told of.
    pub(super) fn position(&self, client: ClientId, topic: TopicId) -> u64 {
        let queued = self.clients.outbox(client).and_then(|outbox| outbox.first_queued(topic));
        if let Some(first) = queued {
            return first - 1;
        }
        if let Some(recovery) = self.clients.recovery(client, topic) {
            return recovery.position();
        }
        let known = self.topics.get(topic).expect("a topic outlives its subscribers");
        known.offered(client, self.clients.place_in(client, topic))
    }

    /// How often `client`, which is subscribed to `topic`, gets the newest of each key, if messages
    /// are conflated.
    pub(super) fn interval(&self, client: ClientId, topic: TopicId) -> Option<Duration> {
        let known = self.topics.get(topic).expect("a topic outlives its subscribers");
        let conflation = known.conflation.as_ref()?;
        Some(match self.clients.recovery(client, topic) {
            Some(recovery) => conflation.interval(recovery.conflate),
            None => conflation.interval_of(client, self.clients.place_in(client, topic)),
        })
    }

    /// `client` leaves an attached channel, unless a pattern holds it there.
    fn part(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        replies: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Some(parting) = self.clients.get_mut(client) else { return Ok(()) };
        if parting.is_sealed() {
            // It would not be answered, and what waits for it is waited for.
            return Ok(());
        }
        let mut held = parting.subscriptions.iter();
        let at = held.position(|held| held.topic == topic && held.is_direct);
        let at = at.ok_or(Refusal::NotSubscribed)?;
        if id.is_some() {
            let last = self.position(client, topic);
            let known = self.topics.get(topic).expect("a topic outlives its subscribers");
            envelope::ack(replies, id, &known.name, last, false);
        }
        let is_held = self.pattern_of(client, topic).is_some();
        let parting = self.clients.get_mut(client).expect("looked at just now");
        if is_held && parting.subscriptions[at].by_pattern {
            parting.subscriptions[at].is_direct = false;
            self.exit(client, topic);
            self.begin_matched(client);
            self.tell_matched(client, topic, replies);
            return Ok(());
        }
        let subscription = parting.subscriptions.swap_remove(at);
        let takes_part = parting.takes_part();
        self.exit(client, topic);
        self.counts.subscriptions -= 1;
        if let Some(outbox) = self.clients.outbox_mut(client) {
            outbox.forget(topic);
        }
        if !takes_part {
            // If this was all that it still caught up with, it takes nothing more.
            self.clients.reply(client, replies);
        }
        self.leave(client, subscription);
        // What was forgotten may have been all that waited.
        self.clients.look_whether_caught_up(client);
        Ok(())
    }

    /// Takes `client` off the topic's list.
    pub(super) fn leave(&mut self, client: ClientId, subscription: Subscription) {
        let topic = subscription.topic;
        if subscription.position == Subscription::RECOVERING {
            return self.end_recovery(client, topic);
        }
        let known = self.topics.get_mut(topic).expect("a topic outlives its subscribers");
        let is_settling = self.unsettled.get(self.cursor.topic) == Some(&topic);
        let (cursor, clients) = (&mut self.cursor.client, &mut self.clients);
        // Settling may have stopped half-way through the list.
        let cursor = if is_settling { cursor } else { &mut 0 };
        match &mut known.conflation {
            None => known.audience.leave(client, subscription, cursor, clients),
            Some(conflation) => conflation.leave(client, subscription, cursor, clients),
        }
    }
}
