//! Clients come to a channel and leave it; shards attach to a channel's home and detach.

use std::cmp::Reverse;
use std::time::Duration;

use super::clients::{Client, Subscription};
use super::history::History;
use super::letter::{Delivery, Letter, Refusal, Request};
use super::recall::Recall;
use super::topic::{Home, State, Waiting, Wish};
use super::{ClientId, Epoch, Hub, RequestId, ShardIndex, TopicId};
use crate::limits::{CHANNEL_IDLE, CHANNELS_EXPIRED_PER_TICK_MAX};
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
            if asking.subscriptions.len() + usize::from(asking.waiting)
                >= self.settings.channels_per_client_max
            {
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
        let begun = self.begin(client, topic, id, terms, replies, now);
        // Who was refused, or takes no part any more, may have been the first to name the channel.
        self.tidy(topic, now);
        begun
    }

    /// `client` joins an attached channel, or first catches up with it.
    fn begin(
        &mut self,
        client: ClientId,
        topic: TopicId,
        id: Option<&[u8]>,
        terms: Terms,
        replies: &mut Vec<u8>,
        now: Time,
    ) -> Result<(), Refusal> {
        if self.check_may_join(client, topic, terms)?.is_none() {
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
        let Some(leaving) = self.clients.get_mut(client) else { return };
        let subscriptions = std::mem::take(&mut leaving.subscriptions);
        for subscription in subscriptions {
            self.counts.subscriptions -= 1;
            self.leave(client, subscription);
            self.tidy(subscription.topic, now);
        }
        // What it still waits for finds nobody when the answer comes.
    }

    /// Another shard's request, heard at the channel's home.
    pub(super) fn attach(&mut self, channel: &str, shard: ShardIndex, topic: TopicId, now: Time) {
        let answer = match self.home(channel) {
            Err(_) => Delivery::Refused { topic },
            Ok(id) => {
                // What was published before the attachment is not owed to it.
                self.freeze(id, now);
                let (epoch, seq) = self.numbering(id);
                let home = self.topics.get_mut(id).and_then(|known| known.home.as_mut());
                home.expect("this is the home").attached.push((shard, topic));
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
            home.attached.retain(|attached| *attached != (shard, topic));
        }
        self.tidy(id, now);
    }

    /// The home has answered: what waited is done now, in order.
    pub(super) fn attached(&mut self, topic: TopicId, epoch: Epoch, seq: u64, now: Time) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        let before = std::mem::replace(&mut known.state, State::Attached { epoch, seq });
        known.settled_seq = seq;
        let State::Attaching(waiting) = before else { unreachable!("the home answers once") };
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
        self.tidy(topic, now);
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
                self.begin(client, topic, id.as_deref(), terms, &mut replies, now)
            }
            Wish::Unsubscribe => self.part(client, topic, id.as_deref(), &mut replies),
        };
        self.reply(client, &mut replies);
        if let Err(refusal) = result {
            self.refuse(client, id.as_deref(), refusal);
        }
    }

    /// The home has no room for the channel.
    pub(super) fn refused(&mut self, topic: TopicId) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        let State::Attaching(waiting) = &mut known.state else {
            unreachable!("the home answers once")
        };
        let waiting = std::mem::take(waiting);
        self.topics.remove(topic);
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

    /// The channel called `name`, whose home this shard is; begins its life if need be.
    pub(super) fn home(&mut self, name: &str) -> Result<TopicId, Refusal> {
        if let Some(id) = self.topics.find(name) {
            return Ok(id);
        }
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
            attached: Vec::new(),
            idle_listed: false,
            idle_since: Time::START,
        };
        Ok(self.topics.insert(name, rule, state, Some(home)))
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
            self.topics.remove(topic);
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
                self.topics.expiries.push(Reverse((expiry, topic)));
            }
        }
    }

    fn check_room(&self, client: ClientId) -> Result<(), Refusal> {
        let client = self.clients.get(client).expect("only open clients ask");
        let taken = client.subscriptions.len() + usize::from(client.waiting);
        if taken >= self.settings.channels_per_client_max {
            return Err(Refusal::TooManyChannels);
        }
        Ok(())
    }

    fn end_waiting(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(client) {
            client.waiting -= 1;
        }
    }

    /// Begins the life of a channel not known here: at home, or by asking the home.
    fn reach(&mut self, channel: &str) -> Result<TopicId, Refusal> {
        let home = self.topics.home(channel);
        if home == self.settings.shard {
            return self.home(channel);
        }
        let rule = self.settings.rules.of(channel);
        let topic = self.topics.insert(channel, rule, State::Attaching(Vec::new()), None);
        let shard = self.settings.shard;
        let request = Request::Attach { channel: channel.into(), shard, topic };
        self.letters.push((home, Letter::Request(request)));
        Ok(topic)
    }

    fn numbering(&self, topic: TopicId) -> (Epoch, u64) {
        match self.topics.get(topic).map(|known| &known.state) {
            Some(State::Attached { epoch, seq }) => (*epoch, *seq),
            _ => unreachable!("only attached channels are asked for their numbering"),
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
        let (epoch, seq) = self.numbering(topic);
        // Messages up to `seq` may still be unsettled, even unfrozen: they are not owed.
        self.freeze(topic, now);
        let position = self.take_place(client, topic, seq, conflate)?;
        let joining = self.clients.get_mut(client).expect("looked at just now");
        joining.subscriptions.push(Subscription { topic, position });
        self.counts.subscriptions += 1;
        let is_listening = self.clients.is_listening(client);
        if id.is_some() || is_listening {
            let known = self.topics.get(topic).expect("its numbering was just read");
            let (channel, conflate) = (&*known.name, known.interval(conflate));
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

    /// The client, if it may join `topic`; `None` when it has gone while it waited for the home, or
    /// takes no part any more.
    fn check_may_join(
        &mut self,
        client: ClientId,
        topic: TopicId,
        terms: Terms,
    ) -> Result<Option<&mut Client>, Refusal> {
        let known = self.topics.get(topic).expect("who joins has just looked at it");
        if terms.conflate.is_some() && known.conflation.is_none() {
            return Err(Refusal::NotConflated);
        }
        let Some(joining) = self.clients.get_mut(client) else { return Ok(None) };
        if !joining.takes_part() {
            return Ok(None);
        }
        if joining.subscriptions.iter().any(|subscription| subscription.topic == topic) {
            return Err(Refusal::AlreadySubscribed);
        }
        if joining.subscriptions.len() >= self.settings.channels_per_client_max {
            return Err(Refusal::TooManyChannels);
        }
        Ok(Some(joining))
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

    /// `client` leaves an attached channel.
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
        let at = parting.subscriptions.iter().position(|subscription| subscription.topic == topic);
        let subscription = parting.subscriptions.swap_remove(at.ok_or(Refusal::NotSubscribed)?);
        self.counts.subscriptions -= 1;
        let forgotten = self.clients.outbox_mut(client).and_then(|outbox| outbox.forget(topic));
        let known = self.topics.get(topic).expect("a topic outlives its subscribers");
        let offered = match self.clients.recovery_mut(client, topic) {
            Some(recovery) => recovery.position(),
            None => known.offered(client, subscription.position),
        };
        let last = forgotten.map_or(offered, |first| first - 1);
        if id.is_some() {
            envelope::ack(replies, id, &known.name, last, false);
        }
        if self.clients.get(client).is_some_and(|client| !client.takes_part()) {
            // If this was all that it still caught up with, it takes nothing more.
            self.clients.reply(client, replies);
        }
        self.leave(client, subscription);
        // What was forgotten may have been all that waited.
        self.clients.look_whether_caught_up(client);
        Ok(())
    }

    /// Takes `client` off the topic's list.
    fn leave(&mut self, client: ClientId, subscription: Subscription) {
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
        let home = self.topics.home(&channel);
        self.topics.remove(topic);
        let shard = self.settings.shard;
        let request = Request::Detach { channel, shard, topic };
        self.letters.push((home, Letter::Request(request)));
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
}
