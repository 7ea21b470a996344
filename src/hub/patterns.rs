//! The patterns a shard knows: those its clients are subscribed to, and those that other shards
//! watch at the homes that are here.
//!
//! A subscription to a pattern becomes ordinary subscriptions to each channel that matches, when the
//! channel comes to life or the pattern comes: so outboxes, gaps and limits know nothing of
//! patterns, and a message that several subscriptions of one client match is delivered once. What
//! happens then is in `watch` (what clients want) and `begin` (what channels do).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::trie::Trie;
use super::{ClientId, PatternId, RequestId, ShardIndex, TopicId};
use crate::limits::{PATTERN_PLACE_BYTES, PATTERN_SEGMENT_BYTES};
use crate::mem::{Key, Table};

/// The patterns of one shard.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    table: Table<Pattern>,
    /// Ids whose lives have ended.
    free: Vec<PatternId>,
    /// Of clients here.
    own: Trie<PatternId>,
    /// Which other shards want to hear of channels whose home is here.
    watched: Trie<SmallVec<[ShardIndex; 4]>>,
    /// Searches of the topics here for new patterns, in order.
    pub(super) searches: VecDeque<Search>,
    /// Bytes that all of this takes, and the subscriptions by patterns.
    pub(super) bytes: usize,
}

/// A pattern that clients here are subscribed to: each of them to each of `topics`.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) name: Arc<str>,
    pub(super) clients: BTreeSet<ClientId>,
    /// The channels here that match and whose messages are heard, as far as they have been found.
    pub(super) topics: BTreeSet<TopicId>,
    /// Shards that have not found all of theirs, this one included.
    pub(super) searching: u16,
    /// Whose requests are answered when all have.
    pub(super) waiting: Vec<(ClientId, Option<RequestId>)>,
}

/// The topics of this shard are looked through for those that a pattern matches.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) pattern: Arc<str>,
    /// Who wants to know: with this shard it is all topics, with another one the homes.
    pub(super) shard: ShardIndex,
    /// What that shard calls the pattern.
    pub(super) id: PatternId,
    /// The next place to look at.
    pub(super) place: usize,
}

impl Patterns {
    pub(super) fn find(&self, pattern: &str) -> Option<PatternId> {
        self.own.get(pattern).copied()
    }

    pub(super) fn get(&self, id: PatternId) -> Option<&Pattern> {
        self.table.get(id)
    }

    pub(super) fn get_mut(&mut self, id: PatternId) -> Option<&mut Pattern> {
        self.table.get_mut(id)
    }

    /// Begins the life of a pattern that no client here has.
    pub(super) fn insert(&mut self, pattern: &str, searching: u16) -> PatternId {
        let id = self.free.pop().unwrap_or_else(|| {
            Key::new(u32::try_from(self.table.len()).expect("clients are bounded"), 0)
        });
        let name: Arc<str> = pattern.into();
        self.own.get_or_insert_with(pattern, || id);
        self.bytes += place_bytes(pattern);
        self.table.insert(
            id,
            Pattern {
                name,
                clients: BTreeSet::new(),
                topics: BTreeSet::new(),
                searching,
                waiting: Vec::new(),
            },
        );
        id
    }

    /// Ends the life of a pattern that no client has any more.
    pub(super) fn remove(&mut self, id: PatternId, own: ShardIndex) -> Arc<str> {
        let Pattern { name, clients, .. } = self.table.remove(id).expect("it has just been found");
        debug_assert!(clients.is_empty(), "a pattern ends with its last client");
        self.own.remove(&name);
        self.free.push(id.next_life());
        self.bytes -= place_bytes(&name);
        self.searches.retain(|search| search.shard != own || search.id != id);
        name
    }

    /// The patterns of clients here that match `channel`.
    pub(super) fn matching(&self, channel: &str) -> SmallVec<[PatternId; 4]> {
        let mut matching = SmallVec::new();
        self.own.visit(channel, &mut |id| matching.push(*id));
        matching
    }

    /// Whether there is no pattern that a channel here could match.
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.watched.is_empty()
    }

    /// The channel `topic` is known here no more.
    pub(super) fn forget(&mut self, topic: TopicId, channel: &str) {
        for id in self.matching(channel) {
            let pattern = self.table.get_mut(id).expect("trie and table agree");
            pattern.topics.remove(&topic);
        }
    }

    /// Another shard wants to hear of the channels here that match.
    pub(super) fn watch(&mut self, pattern: Box<str>, shard: ShardIndex, id: PatternId) {
        let bytes = place_bytes(&pattern);
        let shards = self.watched.get_or_insert_with(&pattern, || {
            self.bytes += bytes;
            SmallVec::new()
        });
        debug_assert!(!shards.contains(&shard), "a shard watches a pattern once");
        shards.push(shard);
        self.searches.push_back(Search { pattern: pattern.into(), shard, id, place: 0 });
    }

    /// It does no more.
    pub(super) fn unwatch(&mut self, pattern: &str, shard: ShardIndex) {
        let bytes = &mut self.bytes;
        self.watched.edit(pattern, |shards| {
            shards.retain(|watching| *watching != shard);
            if shards.is_empty() {
                *bytes -= place_bytes(pattern);
            }
            shards.is_empty()
        });
        self.searches.retain(|search| search.shard != shard || *search.pattern != *pattern);
    }

    /// The other shards that watch a pattern which matches `channel`, each once.
    pub(super) fn watching(&self, channel: &str) -> SmallVec<[ShardIndex; 4]> {
        let mut watching = SmallVec::new();
        self.watched.visit(channel, &mut |shards| {
            for shard in shards {
                if !watching.contains(shard) {
                    watching.push(*shard);
                }
            }
        });
        watching
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PatternId, &Pattern)> {
        self.table.iter()
    }

    /// Bytes of the patterns that other shards watch, which nothing else lists: the sum less the
    /// patterns here.
    pub(super) fn own_bytes(&self) -> usize {
        self.table.iter().map(|(_, pattern)| place_bytes(&pattern.name)).sum()
    }
}

/// What a pattern takes, once for its clients or once for other shards.
pub(super) fn place_bytes(pattern: &str) -> usize {
    let segments = 1 + pattern.bytes().filter(|byte| *byte == b'.').count();
    PATTERN_PLACE_BYTES + 2 * pattern.len() + segments * PATTERN_SEGMENT_BYTES
}

mod audit;
