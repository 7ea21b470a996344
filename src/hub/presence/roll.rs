//! A client asks who is in a channel, without being subscribed to it: for the list, a page at a time,
//! or for numbers.
//!
//! With each page stands the number of the newest message that tells who has come and gone. Who folds
//! the messages behind the first page's number into the pages, in any order of names, has the list as
//! it is: whatever a page shows that changes is told behind it.

use std::sync::Arc;

use crate::hub::letter::{Delivery, Letter, Refusal, Request};
use crate::hub::{ClientId, Epoch, Hub, RequestId, ShardIndex};
use crate::limits::PRESENCE_PREFIX;
use crate::proto::envelope;
use crate::time::Time;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// For users, in the order of their names.
    Users {
        /// Behind this name.
        after: Option<Box<str>>,
        /// At most so many; fewer where a page has no more room.
        limit: Option<u32>,
    },
    /// For numbers.
    Stats,
}

/// The answer.
#[derive(Debug)]
pub enum Roll {
    /// Users.
    Users(Box<Listed>),
    /// Numbers.
    Stats(envelope::PresenceStats),
}

/// A page of users.
#[derive(Debug)]
pub struct Listed {
    /// Where those who come and go are told, and the newest message there; if they are told.
    place: Option<(Epoch, u64)>,
    /// How many users there are, and how many connections are not on the list.
    total: u64,
    unlisted: u64,
    has_more: bool,
    users: Vec<(Arc<str>, u32)>,
}

impl Hub {
    /// `client` asks who is in `channel`. The answer follows, when the home has answered.
    ///
    /// # Errors
    /// When that is not known.
    pub fn call_roll(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        channel: &str,
        ask: Ask,
        now: Time,
    ) -> Result<(), Refusal> {
        if self.settings.rules.presence_in(channel).grace.is_none() {
            return Err(Refusal::NoPresence);
        }
        // Who asks finds itself on the list.
        if let Some(topic) = self.topics.find(channel) {
            self.tell_presence_in(topic, now);
        }
        let home = self.topics.home(channel);
        let (shard, id) = (self.settings.shard, id.map(Into::into));
        if home == shard {
            let roll = self.roll(channel, ask, now)?;
            self.tell_roll(client, id, channel, &roll);
            return Ok(());
        }
        let request = Request::CallRoll { channel: channel.into(), shard, client, id, ask };
        self.letters.push((home, Letter::Request(request)));
        Ok(())
    }

    /// Another shard's request, heard at the channel's home.
    pub(in crate::hub) fn answer_roll(
        &mut self,
        channel: Box<str>,
        (shard, client): (ShardIndex, ClientId),
        id: Option<RequestId>,
        ask: Ask,
        now: Time,
    ) {
        let answer = self.roll(&channel, ask, now);
        let answer = Delivery::Roll { client, id, channel, answer };
        self.letters.push((shard, Letter::Delivery(answer)));
    }

    /// What the home of `channel` knows.
    fn roll(&mut self, channel: &str, ask: Ask, now: Time) -> Result<Roll, Refusal> {
        let Ask::Users { after, limit } = ask else { return Ok(self.stats(channel)) };
        let place = self.place_of_events(channel, now)?;
        let known = self.topics.find(channel).and_then(|topic| self.topics.get_mut(topic));
        let members = known.and_then(|known| known.home.as_mut()?.members.as_deref_mut());
        let listed = match members {
            None => Listed { place, total: 0, unlisted: 0, has_more: false, users: Vec::new() },
            Some(members) => {
                let (total, unlisted) = (members.users.len() as u64, members.unlisted);
                let page = members.page(after.as_deref(), limit);
                Listed { place, total, unlisted, has_more: page.has_more, users: page.users }
            }
        };
        Ok(Roll::Users(Box::new(listed)))
    }

    /// The numbering of the channel where those who come to `channel` and go are told, if they are. Its
    /// life begins here if need be: whoever asks is going to subscribe to it.
    fn place_of_events(
        &mut self,
        channel: &str,
        now: Time,
    ) -> Result<Option<(Epoch, u64)>, Refusal> {
        if self.settings.rules.presence_in(channel).interval_of(channel).is_none() {
            return Ok(None);
        }
        let topic = self.home(&format!("{PRESENCE_PREFIX}{channel}"), now)?;
        let place = self.numbering(topic);
        self.tidy(topic, now);
        Ok(Some(place))
    }

    fn stats(&self, channel: &str) -> Roll {
        let known = self.topics.find(channel).and_then(|topic| self.topics.get(topic));
        let members = known.and_then(|known| known.home.as_ref()?.members.as_deref());
        Roll::Stats(members.map_or_else(Default::default, |members| envelope::PresenceStats {
            users: members.users.len() as u64,
            connections: members.listed + members.anonymous + members.unlisted,
            anonymous: members.anonymous,
            unlisted: members.unlisted,
        }))
    }

    /// The answer.
    pub(in crate::hub) fn tell_roll(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        channel: &str,
        roll: &Roll,
    ) {
        let id = id.as_deref();
        self.clients.write_reply(client, |replies| match roll {
            Roll::Stats(stats) => envelope::presence_stats(replies, id, channel, stats),
            Roll::Users(listed) => {
                let Listed { place, total, unlisted, has_more, users } = &**listed;
                let place = place.as_ref().map(|(epoch, seq)| (epoch.as_str(), *seq));
                let (total, unlisted, has_more) = (*total, *unlisted, *has_more);
                let told = envelope::Presence { channel, place, total, unlisted, has_more };
                let users = users.iter().map(|(name, connections)| (&**name, *connections));
                envelope::presence(replies, id, &told, users);
            }
        });
    }

    /// Whether `channel` can be subscribed to and looked at as far as presence goes: what tells of
    /// others is there only where that is told.
    pub(in crate::hub) fn check_presence(&self, channel: &str) -> Result<(), Refusal> {
        let Some(of) = channel.strip_prefix(PRESENCE_PREFIX) else { return Ok(()) };
        match self.settings.rules.presence_in(of).interval_of(of) {
            Some(_) => Ok(()),
            None => Err(Refusal::NoPresence),
        }
    }
}

impl Roll {
    /// Bytes it points to; names are shared with the list.
    pub(in crate::hub) fn pointed_bytes(&self) -> usize {
        match self {
            Self::Stats(_) => 0,
            Self::Users(listed) => {
                size_of::<Listed>() + listed.users.len() * size_of::<(Arc<str>, u32)>()
            }
        }
    }
}
