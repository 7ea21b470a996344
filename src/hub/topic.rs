//! The channels a shard knows: those it is the home of, and those its clients are subscribed to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::audience::Audience;
use super::conflation::Conflation;
use super::history::History;
use super::keys::Keys;
use super::presence::Members;
use super::recovery::Recovering;
use super::segment::{Meter, Segment, SegmentBuilder};
use super::subscribe::Terms;
use super::{ClientId, Epoch, KeyWindow, Refusal, RequestId, Rule, ShardIndex, TopicId};
use crate::limits::PRESENCE_PREFIX;
use crate::mem::{Key, Table};
use crate::proto::envelope;
use crate::time::Time;

/// The channels of one shard, by id and by name.
#[derive(Debug)]
pub(super) struct Topics {
    table: Table<Topic>,
    names: HashMap<Arc<str>, TopicId, SeedableRandomState>,
    /// Ids whose lives have ended.
    free: Vec<TopicId>,
    hasher: SeedableRandomState,
    shards: u16,
    /// Rules that channels follow, each once: there are few rules and many channels.
    rules: Vec<Rc<Rule>>,
    /// Homes that were deserted at the time given, about the oldest first; looked at again when
    /// their time has come.
    pub(super) idle: VecDeque<(Time, TopicId)>,
    /// When the oldest message of each history becomes too old, or did when last looked at.
    pub(super) expiries: BinaryHeap<Reverse<(Time, TopicId)>>,
    /// When what waits in each group of a conflated channel is due, and the group's interval.
    pub(super) flushes: BinaryHeap<Reverse<(Time, TopicId, Duration)>>,
    /// Bytes of what waits there.
    pub(super) conflated: Meter,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// The beginning of each of its messages, encoded once.
    pub(super) prefix: Box<[u8]>,
    pub(super) rule: Rc<Rule>,
    pub(super) state: State,
    /// The numbering, if this shard is the home.
    pub(super) home: Option<Home>,
    /// Clients that every message is offered to; nobody where messages are conflated.
    pub(super) audience: Audience,
    /// Those who get the newest messages only, where the channel's rule says so.
    pub(super) conflation: Option<Box<Conflation>>,
    /// What those need who are not on the list yet because they were away, if there are any.
    pub(super) recovering: Option<Box<Recovering>>,
    /// Messages that no subscriber has been offered yet.
    pub(super) unsettled: VecDeque<Rc<Segment>>,
    /// Listed in `Hub::unsettled`.
    pub(super) listed: bool,
    /// The last message that every subscriber has been offered.
    pub(super) settled_seq: u64,
}

/// A box may have more channels than clients.
const _: () = assert!(size_of::<Topic>() <= 376);

/// Whether this shard knows the channel's numbering.
#[derive(Debug)]
pub(super) enum State {
    /// It has asked the home; what clients want meanwhile waits in order.
    Attaching(Vec<Waiting>),
    /// It hears every message. `seq` is the last one heard.
    Attached { epoch: Epoch, seq: u64 },
}

/// What a client wants of a channel that is not attached yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) client: ClientId,
    pub(super) id: Option<RequestId>,
    pub(super) wish: Wish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Subscribe(Terms),
    Unsubscribe,
}

/// What only a channel's home has.
#[derive(Debug)]
pub(super) struct Home {
    /// Messages of this tick.
    pub(super) builder: SegmentBuilder,
    /// What is kept for those who were away, if the channel's rule says so.
    pub(super) history: Option<History>,
    /// Keys of publishes, once one has come with a key.
    pub(super) keys: Option<Box<Keys>>,
    /// Who is there, if the channel's rule says so and somebody is.
    pub(super) members: Option<Box<Members>>,
    /// Other shards with subscribers, each once.
    pub(super) attached: Vec<Attached>,
    /// Listed in `Topics::idle`.
    pub(super) idle_listed: bool,
    /// Since when nobody has wanted it, if nobody does.
    pub(super) idle_since: Time,
}

/// Another shard that is told of every message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attached {
    pub(super) shard: ShardIndex,
    /// What it calls the channel, unless it has been attached for the sake of a pattern and has not
    /// told yet.
    pub(super) topic: Option<TopicId>,
}

impl Topics {
    pub(super) fn new(home_seed: u64, shards: u16) -> Self {
        let hasher = SeedableRandomState::with_seed(home_seed, SharedSeed::global_fixed());
        Self {
            table: Table::new(),
            names: HashMap::with_hasher(hasher.clone()),
            free: Vec::new(),
            hasher,
            shards,
            rules: Vec::new(),
            idle: VecDeque::new(),
            expiries: BinaryHeap::new(),
            flushes: BinaryHeap::new(),
            conflated: Meter::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Nobody's keys yet, counted in `meter`.
    pub(super) fn keys(&self, meter: &Meter) -> Box<Keys> {
        Box::new(Keys::new(self.hasher.clone(), meter.clone()))
    }

    /// The home shard of the channel called `name`, and of the one that tells who is in it.
    pub(super) fn home(&self, name: &str) -> ShardIndex {
        self.home_of_plain(name.strip_prefix(PRESENCE_PREFIX).unwrap_or(name))
    }

    /// The same for a name that is known to tell of no other channel.
    pub(super) fn home_of_plain(&self, name: &str) -> ShardIndex {
        (self.hasher.hash_one(name) % u64::from(self.shards)) as ShardIndex
    }

    pub(super) fn find(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.table.iter()
    }

    /// Where topics are: below this.
    pub(super) const fn places(&self) -> usize {
        self.table.places()
    }

    /// The topic at `place`, if one is there.
    pub(super) fn at(&self, place: usize) -> Option<(TopicId, &Topic)> {
        self.table.at(place)
    }

    pub(super) fn get(&self, id: TopicId) -> Option<&Topic> {
        self.table.get(id)
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.table.get_mut(id)
    }

    /// Begins the life of a channel that is not known.
    pub(super) fn insert(
        &mut self,
        name: &str,
        rule: Rule,
        state: State,
        home: Option<Home>,
    ) -> TopicId {
        let id = self.free.pop().unwrap_or_else(|| {
            Key::new(u32::try_from(self.table.len()).expect("channels are bounded"), 0)
        });
        let name: Arc<str> = name.into();
        let rule = self.share(rule);
        let topic = Topic {
            prefix: envelope::message_prefix(&name),
            name: Arc::clone(&name),
            state,
            home,
            recovering: None,
            audience: Audience::default(),
            conflation: rule.conflate.interval.map(|interval| {
                let key = rule.conflate.key.clone();
                let meter = self.conflated.clone();
                let intervals = interval..=rule.interval_max().max(interval);
                Box::new(Conflation::new(key, intervals, self.hasher.clone(), meter))
            }),
            rule,
            unsettled: VecDeque::new(),
            listed: false,
            settled_seq: 0,
        };
        self.table.insert(id, topic);
        let before = self.names.insert(name, id);
        assert!(before.is_none(), "a channel lives once on a shard");
        id
    }

    /// The one copy of `rule`.
    fn share(&mut self, rule: Rule) -> Rc<Rule> {
        let known = self.rules.iter().find(|known| ***known == rule).cloned();
        known.unwrap_or_else(|| {
            let shared = Rc::new(rule);
            self.rules.push(Rc::clone(&shared));
            shared
        })
    }

    /// Ends the life of a channel; returns its name.
    pub(super) fn remove(&mut self, id: TopicId) -> Arc<str> {
        let topic = self.table.remove(id).expect("who removes a topic has just looked at it");
        self.names.remove(&topic.name);
        self.free.push(id.next_life());
        topic.name
    }
}

impl Home {
    /// Whether something is kept for the sake of which the numbering goes on.
    pub(super) fn has_something_kept(&mut self, rule: KeyWindow, now: Time) -> bool {
        if let Some(history) = &mut self.history {
            history.trim(now);
        }
        if let Some(keys) = &mut self.keys {
            keys.trim(rule, now);
            self.keys.take_if(|keys| keys.is_empty());
        }
        self.keys.is_some() || self.history.as_ref().is_some_and(|history| !history.is_empty())
    }
}

impl Topic {
    /// Whether somebody here is to be offered its messages.
    pub(super) fn has_audience(&self) -> bool {
        !self.audience.is_empty()
            || self.conflation.as_ref().is_some_and(|conflation| conflation.has_audience())
    }

    /// How often somebody gets messages that has asked for `asked`, if they are conflated.
    pub(super) fn interval(&self, asked: Option<Duration>) -> Option<Duration> {
        self.conflation.as_ref().map(|conflation| conflation.interval(asked))
    }

    /// Takes in `client`, which is owed everything after `seq`, the newest message; returns its place.
    pub(super) fn take_in(
        &mut self,
        client: ClientId,
        seq: u64,
        asked: Option<Duration>,
    ) -> Result<u32, Refusal> {
        if let Some(conflation) = &mut self.conflation {
            return conflation.take_in(client, seq, asked);
        }
        Ok(match self.unsettled.is_empty() {
            true => self.audience.subscribe(client),
            false => self.audience.welcome(client, seq),
        })
    }

    /// The last message that `client`, which is in the place `position`, has been offered or is not
    /// owed.
    pub(super) fn offered(&self, client: ClientId, position: u32) -> u64 {
        if let Some(conflation) = &self.conflation {
            return conflation.offered(client, position);
        }
        self.audience.newcomer(client).unwrap_or(self.settled_seq)
    }

    /// Whether no client and no other shard wants this channel, and nobody was there just now.
    pub(super) fn is_deserted(&self) -> bool {
        self.audience.is_empty()
            && self.conflation.as_ref().is_none_or(|conflation| conflation.is_idle())
            && self.recovering.is_none()
            && self.unsettled.is_empty()
            && !self.listed
            && !matches!(&self.state, State::Attaching(waiting) if !waiting.is_empty())
            && self
                .home
                .as_ref()
                .is_none_or(|home| home.attached.is_empty() && home.members.is_none())
    }
}
