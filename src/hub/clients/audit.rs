//! The books about clients.

use std::collections::{BTreeMap, BTreeSet};

use super::{Clients, Subscription};
use crate::hub::recovery::Recovery;
use crate::hub::topic::Topics;
use crate::hub::{Audit, ClientId, TopicId};
use crate::limits::PUBLISHES_UNANSWERED_MAX;

impl Clients {
    /// Checks every client against the topics and the sums. `waiting` says for how many answers
    /// of home shards each client waits, `segments` gathers the segments that outboxes keep alive.
    pub(in crate::hub) fn audit(
        &self,
        topics: &Topics,
        waiting: &BTreeMap<ClientId, u16>,
        segments: &mut BTreeMap<usize, usize>,
        audit: &mut Audit,
    ) -> BTreeSet<(TopicId, ClientId)> {
        let listed: BTreeSet<ClientId> = self.dirty.iter().copied().collect();
        assert_eq!(listed.len(), self.dirty.len(), "nobody is listed twice as having something");
        let (mut replies_bytes, mut blocked) = (0, 0);
        let mut subscriptions = BTreeSet::new();
        for (id, client) in self.table.iter() {
            audit.clients += 1;
            blocked += u64::from(client.blocked);
            audit.throttled += u64::from(client.throttled);
            // Those that stop the reading, and those of the receive that was one too many.
            assert!(
                client.unanswered <= 2 * PUBLISHES_UNANSWERED_MAX,
                "{} publishes of client {id:?} are unanswered",
                client.unanswered
            );
            assert!(
                client.unanswered <= PUBLISHES_UNANSWERED_MAX || client.throttled || client.muted,
                "{} publishes of client {id:?} are unanswered, and it is read from",
                client.unanswered
            );
            let awaited = waiting.get(&id).copied().unwrap_or_default();
            assert_eq!(client.waiting, awaited, "client {id:?} counts the answers it waits for");
            assert_eq!(client.dirty, listed.contains(&id), "client {id:?} knows that it is listed");
            for subscription in client.subscriptions.iter() {
                let is_new = subscriptions.insert((subscription.topic, id));
                assert!(is_new, "client {id:?} is subscribed twice to {:?}", subscription.topic);
            }
            let Some(outbox) = &client.outbox else {
                assert!(
                    !client.throttled || client.unanswered > 0,
                    "client {id:?} is not read from, yet nothing waits for it"
                );
                continue;
            };
            replies_bytes += outbox.replies_bytes();
            assert!(
                outbox.is_empty() || client.blocked || client.dirty || client.is_held(),
                "client {id:?} has something waiting and nobody will send it"
            );
            audit.sealed_backlog += u64::from(client.sealed && !outbox.is_empty());
            for (topic, (_, last)) in outbox.audit(self.capacity, audit) {
                let known = topics.get(topic).expect("a topic outlives what waits of it");
                let catches_up = client.recoveries().iter();
                let mut of_topic = catches_up.filter(|recovery| recovery.topic == topic);
                if let Some(recovery) = of_topic.next() {
                    assert_eq!(last, recovery.position(), "a page ends where the next begins");
                    continue;
                }
                let places = client.subscriptions.iter();
                let place = places.clone().find(|place| place.topic == topic);
                let place = place.expect("who waits for messages is subscribed");
                let is_newcomer = place.position == Subscription::NEWCOMER;
                let offered = known.offered(id, place.position);
                assert!(
                    client.sealed || is_newcomer || last == offered,
                    "client {id:?} waits for {topic:?} up to {last}, offered up to {offered}"
                );
            }
            segments.extend(outbox.segments());
        }
        assert_eq!(replies_bytes, self.replies_bytes, "replies_bytes is the sum over the outboxes");
        assert_eq!(blocked, self.flow.blocked, "the blocked are counted");
        audit.blocked += blocked;
        assert!(self.spare.iter().all(|outbox| outbox.is_empty()), "spare outboxes are empty");
        subscriptions
    }

    /// Those who catch up with a channel, and whether somebody will look when they have read
    /// what they have.
    pub(in crate::hub) fn recovering(&self) -> impl Iterator<Item = (ClientId, &[Recovery], bool)> {
        self.table.iter().filter_map(|(id, client)| {
            if !client.is_recovering() {
                return None;
            }
            let recoveries = client.recoveries();
            assert!(!recoveries.is_empty(), "nobody catches up with nothing");
            let waits = client.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty());
            let is_looked_at = waits || client.sealed || self.caught_up.contains(&id);
            Some((id, recoveries, is_looked_at))
        })
    }
}
