//! The books about patterns.

use std::collections::BTreeSet;

use crate::hub::topic::State;
use crate::hub::{Audit, Hub, ShardIndex};
use crate::limits::MATCH_PLACE_BYTES;
use crate::proto::envelope::pattern;

impl Hub {
    /// Checks that everybody who has a pattern is where it matches, as far as has been looked.
    pub(in crate::hub) fn audit_patterns(&self, audit: &mut Audit) {
        let own = self.settings.shard;
        for (id, known) in self.patterns.iter() {
            audit.patterns += 1;
            audit.patterns_searching += u64::from(known.searching > 0);
            let name = &*known.name;
            assert_eq!(self.patterns.find(name), Some(id), "trie and table agree about {name}");
            assert!(!known.clients.is_empty(), "{name} is wanted by nobody");
            assert!(known.searching > 0 || known.waiting.is_empty(), "{name} is not answered");
            for topic in &known.topics {
                let topic = self.topics.get(*topic).expect("what a pattern has found lives");
                assert!(pattern::matches(name, &topic.name), "{name} has found {}", topic.name);
            }
            let is_searching = self.is_searched_for(own, name);
            for (topic, there) in self.topics.iter() {
                let is_heard = matches!(there.state, State::Attached { .. });
                let is_found = known.topics.contains(&topic);
                assert!(
                    is_searching || !is_heard || is_found == pattern::matches(name, &there.name),
                    "{name} and {} do not know of each other",
                    there.name
                );
            }
            for client in &known.clients {
                let of = self.clients.get(*client).expect("who has a pattern is open");
                assert!(of.takes_part() && of.patterns().contains(&id), "{client:?} has {name}");
                let followed = of.subscriptions.iter().filter(|it| it.by_pattern);
                let followed: BTreeSet<_> = followed.map(|it| it.topic).collect();
                assert!(known.topics.is_subset(&followed), "{client:?} lacks something of {name}");
            }
        }
        self.audit_matched(audit);
        self.audit_watched(audit);
    }

    /// Whether this shard has still to look for channels that match `pattern`, for `shard`.
    fn is_searched_for(&self, shard: ShardIndex, pattern: &str) -> bool {
        let mut searches = self.patterns.searches.iter();
        searches.any(|search| search.shard == shard && &*search.pattern == pattern)
    }

    /// Every subscription is held by something.
    fn audit_matched(&self, audit: &mut Audit) {
        let mut matched = 0;
        for (id, client) in self.clients.iter() {
            let alone = client.subscriptions.iter().filter(|it| !it.is_direct).count();
            assert_eq!(usize::from(client.matched()), alone, "client {id:?} counts its matches");
            matched += alone;
            for held in client.subscriptions.iter() {
                audit.matched_and_asked += u64::from(held.is_direct && held.by_pattern);
                let channel = &self.topics.get(held.topic).expect("it is subscribed to").name;
                let mut patterns = client.patterns().iter().filter_map(|id| self.patterns.get(*id));
                let is_matched = patterns.any(|known| pattern::matches(&known.name, channel));
                assert!(
                    !client.takes_part() || (held.is_direct && !held.by_pattern) || is_matched,
                    "nothing holds client {id:?} in {channel}"
                );
            }
        }
        audit.matched += matched as u64;
        let least = self.patterns.own_bytes() + matched * MATCH_PLACE_BYTES;
        assert!(self.patterns.bytes >= least, "what patterns take is counted");
        if self.patterns.watched.is_empty() {
            assert_eq!(self.patterns.bytes, least, "what patterns take is counted");
        }
    }

    /// Every shard that watches a pattern is attached to the homes that match.
    fn audit_watched(&self, audit: &mut Audit) {
        for (_, topic) in self.topics.iter() {
            let Some(home) = &topic.home else { continue };
            audit.unnamed += home.attached.iter().filter(|it| it.topic.is_none()).count() as u64;
            let shards: BTreeSet<_> = home.attached.iter().map(|it| it.shard).collect();
            assert_eq!(shards.len(), home.attached.len(), "a shard is attached once");
            for shard in self.patterns.watching(&topic.name) {
                let mut searches = self.patterns.searches.iter();
                let is_searching = searches.any(|search| {
                    search.shard == shard && pattern::matches(&search.pattern, &topic.name)
                });
                assert!(
                    is_searching || shards.contains(&shard),
                    "shard {shard} watches for {} and is not attached",
                    topic.name
                );
            }
        }
    }
}
