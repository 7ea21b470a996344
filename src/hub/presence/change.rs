//! What a shard tells homes of its clients: who has come to a channel and who has left it.
//!
//! Gathered until the end of the tick, so whoever comes and leaves within it is nothing; and on their
//! way in order with what else the shard asks of the home.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Members;
use crate::hub::letter::{Letter, Request};
use crate::hub::{ClientId, Hub, TopicId};
use crate::limits::{PRESENCE_CHANGES_PER_LETTER_MAX, PRESENCE_MEMORY_PART};
use crate::time::Time;

/// How many connections there are more, for each user and for those who have said no name. Never 0.
pub(super) type Changes = BTreeMap<Option<Arc<str>>, i32>;

/// One of them, in a letter.
pub(in crate::hub) type Change = (Option<Arc<str>>, i32);

impl Hub {
    /// `client` is called `user` wherever it subscribes from now on.
    pub fn introduce(&mut self, client: ClientId, user: &str) {
        if let Some(client) = self.clients.get_mut(client) {
            client.extra_mut().user = Some(user.into());
        }
    }

    /// `client` has subscribed to `topic`.
    pub(in crate::hub) fn enter(&mut self, client: ClientId, topic: TopicId) {
        self.move_member(client, topic, 1);
    }

    /// `client` has left `topic`.
    pub(in crate::hub) fn exit(&mut self, client: ClientId, topic: TopicId) {
        self.move_member(client, topic, -1);
    }

    #[inline]
    fn move_member(&mut self, client: ClientId, topic: TopicId, by: i32) {
        let known = self.topics.get(topic).expect("a topic outlives its subscribers");
        if known.rule.presence.grace.is_some() {
            self.note_change(client, topic, by);
        }
    }

    fn note_change(&mut self, client: ClientId, topic: TopicId, by: i32) {
        let client = self.clients.get(client).expect("who comes or leaves is open");
        let user = client.user().cloned();
        let changes = self.presences.changes.entry(topic).or_default();
        let sum = changes.get(&user).copied().unwrap_or_default() + by;
        if sum == 0 {
            changes.remove(&user);
        } else {
            changes.insert(user, sum);
        }
        if changes.is_empty() {
            self.presences.changes.remove(&topic);
        }
    }

    /// Whether somebody has come or left and a home has not been told.
    #[must_use]
    pub fn has_presence_to_tell(&self) -> bool {
        !self.presences.changes.is_empty()
    }

    /// Tells homes who has come and who has left since the last call.
    pub fn tell_presence(&mut self, now: Time) {
        while let Some((topic, _)) = self.presences.changes.first_key_value() {
            self.tell_presence_in(*topic, now);
        }
    }

    /// The same of one channel, which is known.
    pub(in crate::hub) fn tell_presence_in(&mut self, topic: TopicId, now: Time) {
        let Some(changes) = self.presences.changes.remove(&topic) else { return };
        let known = self.topics.get(topic).expect("a topic outlives what is to be told of it");
        if known.home.is_some() {
            return self.change_members(topic, changes, now);
        }
        let channel = Arc::clone(&known.name);
        let home = self.topics.home(&channel);
        let mut changes = changes.into_iter();
        loop {
            let part: Box<[Change]> =
                changes.by_ref().take(PRESENCE_CHANGES_PER_LETTER_MAX).collect();
            if part.is_empty() {
                break;
            }
            let request = Request::Present { channel: channel.as_ref().into(), changes: part };
            self.letters.push((home, Letter::Request(request)));
        }
    }

    /// Another shard tells who has come to the home `channel` and who has left it.
    pub(in crate::hub) fn hear_present(
        &mut self,
        channel: &str,
        changes: Box<[Change]>,
        now: Time,
    ) {
        let topic = self.topics.find(channel);
        debug_assert!(topic.is_some(), "a shard tells of {channel} while it is attached");
        if let Some(topic) = topic {
            self.change_members(topic, changes, now);
        }
    }

    fn change_members(
        &mut self,
        topic: TopicId,
        changes: impl IntoIterator<Item = Change>,
        now: Time,
    ) {
        let bytes_max = match self.is_overloaded() {
            true => 0,
            false => self.settings.memory_bytes_max / PRESENCE_MEMORY_PART,
        };
        let known = self.topics.get_mut(topic).expect("looked at just now");
        let (rule, name) = (known.rule.presence, &known.name);
        let home = known.home.as_mut().expect("lists are kept at homes");
        let members = home.members.get_or_insert_with(|| Box::new(Members::new(rule, name)));
        for (user, by) in changes {
            members.change(user.as_ref(), by, bytes_max, &mut self.presences.tally, now);
        }
        self.look_at_members(topic, now);
    }
}
