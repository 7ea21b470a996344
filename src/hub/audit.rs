//! The hub's books, checked: every sum against its parts, every list against its twin.
//!
//! Not on any message's way. Whoever wants to be sure calls [`Hub::audit`] between ticks: what
//! must hold is asserted, what may be is counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::audience::Audience;
use super::letter::Delivery;
use super::topic::{State, Topic, Wish};
use super::{ClientId, Epoch, Hub, ShardIndex, TopicId};

/// What an audit saw: how many of what there is, and in how many places which situation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audit {
    /// Clients there are.
    pub clients: u64,
    /// Channels known, homes and attachments.
    pub topics: u64,
    /// Channels whose home was asked and has not answered.
    pub attaching: u64,
    /// Clients that wait for that answer.
    pub waiting_for_home: u64,
    /// Unsubscribes among what waits for that answer.
    pub unsubscribes_waiting: u64,
    /// Homes that nobody wants at the moment.
    pub homes_deserted: u64,
    /// Channels with subscribers on several shards, seen from their homes.
    pub homes_attached: u64,
    /// Sockets that are full.
    pub blocked: u64,
    /// Clients that are not read from because they do not read their replies.
    pub throttled: u64,
    /// Clients with messages waiting.
    pub backlog: u64,
    /// Clients whose last frame is queued and who have something waiting.
    pub sealed_backlog: u64,
    /// Outboxes with several channels in them.
    pub channels_mixed: u64,
    /// Outboxes with the rest of a message that the kernel took a part of.
    pub message_begun: u64,
    /// The same with replies that wait behind it.
    pub replies_behind_message_begun: u64,
    /// Outboxes with replies of which the kernel took a part.
    pub replies_begun: u64,
    /// Gap notices that wait behind another one.
    pub gap_behind_gap: u64,
    /// Gap notices that wait behind messages.
    pub gap_behind_message: u64,
    /// Gap notices with messages behind them.
    pub gap_before_message: u64,
    /// Gap notices that stand for several messages.
    pub gap_merged: u64,
    /// Messages that are lost, and whose loss waits to be told.
    pub lost_untold: u64,
    /// Channels in which a client catches up.
    pub recovering: u64,
    /// Of these, those of which the client has heard nothing yet.
    pub recovering_unanswered: u64,
    /// Of these, those of which the client has asked more meanwhile.
    pub recovering_with_wishes: u64,
    /// Messages that wait for the end of an interval.
    pub conflated_waiting: u64,
    /// Clients that joined while something waited.
    pub conflated_newcomers: u64,
    /// Messages that are kept for those who were away.
    pub kept: u64,
    /// Bytes of them.
    pub kept_bytes: u64,
    /// Patterns that clients here are subscribed to.
    pub patterns: u64,
    /// Of these, those whose channels have not all been found.
    pub patterns_searching: u64,
    /// Subscriptions to channels that only patterns hold.
    pub matched: u64,
    /// Those that a pattern holds and the client itself.
    pub matched_and_asked: u64,
    /// Shards that were attached for the sake of a pattern and have not said what they call the
    /// channel.
    pub unnamed: u64,
    /// Users on lists.
    pub users: u64,
    /// Of these, those whose last connection has left.
    pub users_leaving: u64,
    /// Lists of which something is still to be told.
    pub members_untold: u64,
    /// Connections that found no room on a list.
    pub connections_unlisted: u64,
}

impl Hub {
    /// Checks the books.
    ///
    /// # Panics
    /// When something does not agree that must.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        let mut segments: BTreeMap<usize, usize> = BTreeMap::new();
        let mut waiting: BTreeMap<ClientId, u16> = BTreeMap::new();
        let mut listed: BTreeSet<(TopicId, ClientId)> = BTreeSet::new();
        let (mut homes, mut idle, mut keys_bytes) = (0, 0, 0);
        let (mut conflated_bytes, mut groups_listed) = (0, 0);
        for (id, topic) in self.topics.iter() {
            audit.topics += 1;
            assert_eq!(self.topics.find(&topic.name), Some(id), "names and table agree");
            if let State::Attaching(wishes) = &topic.state {
                audit.attaching += 1;
                for wish in wishes {
                    let is_subscribe = matches!(wish.wish, Wish::Subscribe(_));
                    audit.waiting_for_home += u64::from(is_subscribe);
                    audit.unsubscribes_waiting += u64::from(!is_subscribe);
                    if is_subscribe && self.clients.get(wish.client).is_some() {
                        *waiting.entry(wish.client).or_default() += 1;
                    }
                }
            }
            let groups = topic.conflation.iter().flat_map(|conflation| conflation.audiences());
            for audience in [&topic.audience].into_iter().chain(groups) {
                self.audit_audience(id, audience, &mut listed);
            }
            if let Some(conflation) = &topic.conflation {
                assert!(topic.audience.is_empty(), "everybody is in a group");
                conflated_bytes += conflation.audit(&mut audit);
                groups_listed += conflation.listed();
            }
            assert_eq!(
                topic.listed,
                self.unsettled.contains(&id),
                "a channel knows that it has something to settle"
            );
            segments.extend(topic.unsettled.iter().flat_map(|segment| segment.audit()));
            match &topic.home {
                Some(home) => {
                    homes += 1;
                    keys_bytes += home.keys.as_ref().map_or(0, |keys| keys.bytes());
                    if let Some(history) = &home.history {
                        segments.extend(history.audit(&mut audit));
                        let expiries = self.topics.expiries.iter();
                        let listed = expiries.filter(|Reverse((_, listed))| *listed == id).count();
                        assert_eq!(listed, usize::from(history.is_listed()), "listed once");
                        assert!(history.is_listed() || history.is_empty(), "it grows old");
                    }
                    idle += usize::from(home.idle_listed);
                    audit.homes_deserted += u64::from(topic.is_deserted());
                    audit.homes_attached += u64::from(!home.attached.is_empty());
                    assert!(
                        !topic.is_deserted() || home.idle_listed,
                        "{} is wanted by nobody and will never be forgotten",
                        topic.name
                    );
                }
                None => assert!(
                    !topic.is_deserted() || matches!(topic.state, State::Attaching(_)),
                    "{} is wanted by nobody here and still attached",
                    topic.name
                ),
            }
        }
        assert!(self.answers.is_empty(), "a publish was answered and nobody writes it");
        assert!(self.letters.is_empty(), "a letter was written and nobody posts it");
        assert_eq!(homes, self.counts.channels_home, "homes are counted");
        assert_eq!(idle, self.topics.idle.len(), "deserted homes are listed once");
        let subscribed = self.clients.audit(&self.topics, &waiting, &mut segments, &mut audit);
        listed.extend(self.recoveries.audit(&self.clients, &self.topics, &mut audit));
        assert_eq!(subscribed, listed, "clients and channels agree who is subscribed");
        assert_eq!(subscribed.len() as u64, self.counts.subscriptions, "subscriptions are counted");
        let alive: usize = segments.values().sum();
        assert_eq!(alive, self.segments_bytes(), "segments_bytes is the sum over who holds them");
        assert_eq!(keys_bytes, self.keys_bytes(), "keys_bytes is the sum over the homes");
        assert_eq!(conflated_bytes, self.conflated_bytes(), "what waits in groups is counted");
        assert_eq!(groups_listed, self.topics.flushes.len(), "a group is listed once");
        self.audit_patterns(&mut audit);
        self.audit_presence(&mut audit);
        audit
    }

    fn audit_audience(
        &self,
        topic: TopicId,
        audience: &Audience,
        listed: &mut BTreeSet<(TopicId, ClientId)>,
    ) {
        for (position, client) in audience.subscribers.iter().enumerate() {
            let subscribed = self.clients.get(*client).expect("subscribers are open");
            let place = subscribed.subscriptions.iter().find(|place| place.topic == topic);
            let place = place.expect("a subscriber has a subscription");
            assert_eq!(place.position as usize, position, "a subscription knows its place");
            listed.insert((topic, *client));
        }
        listed.extend(audience.newcomers.iter().map(|(client, _)| (topic, *client)));
    }

    /// The channels whose numbering is kept here, and how far each has come.
    pub fn homes(&self) -> impl Iterator<Item = (&str, Epoch, u64)> {
        self.topics.iter().filter(|(_, topic)| topic.home.is_some()).map(|(_, topic)| {
            let State::Attached { epoch, seq } = topic.state else {
                unreachable!("a home is attached to itself")
            };
            (&*topic.name, epoch, seq)
        })
    }

    /// The messages that `delivery` carries to `shard`, if their home is here: their channel, its life,
    /// and the first number.
    pub fn carried_by(&self, delivery: &Delivery, shard: ShardIndex) -> Option<(&str, Epoch, u64)> {
        let is_it = |known: &Topic| match (delivery, &known.home) {
            (Delivery::Messages { topic, .. }, Some(home)) => {
                home.attached.iter().any(|it| (it.shard, it.topic) == (shard, Some(*topic)))
            }
            (Delivery::MessagesOf { channel, .. }, Some(_)) => *channel == known.name,
            _ => false,
        };
        let (Delivery::Messages { frames, .. } | Delivery::MessagesOf { frames, .. }) = delivery
        else {
            return None;
        };
        let (_, known) = self.topics.iter().find(|(_, known)| is_it(known))?;
        let State::Attached { epoch, .. } = known.state else { return None };
        Some((&known.name, epoch, frames.first_seq))
    }
}
