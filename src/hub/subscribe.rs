//! Clients come to a channel and leave it; shards attach to a channel's home and detach.

use std::cmp::Reverse;
use std::time::Duration;

use super::clients::Subscription;
use super::history::History;
use super::letter::{Delivery, Letter, Refusal, Request};
use super::recall::Recall;
use super::topic::{Attached, Home, State, Waiting, Wish};
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
        for subscription in subscriptions {
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
                self.topics.expiries.push(Reverse((expiry, topic)));
            }
        }
    }

    fn check_room(&self, client: ClientId) -> Result<(), Refusal> {
        let client = self.clients.get(client).expect("only open clients ask");
        if client.channels() >= self.settings.channels_per_client_max {
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

    /// Ends the life of a channel.
    fn forget_topic(&mut self, topic: TopicId) {
        let name = self.topics.remove(topic);
        self.patterns.forget(topic, &name);
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
