//! Which rule a channel follows.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::{CONFLATION_INTERVAL_MAX, PRESENCE_PREFIX};
use crate::proto::envelope::pattern;

/// How messages of the channels that `pattern` matches are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRule {
    /// In the language of [`pattern`].
    pub pattern: String,
    /// How.
    pub rule: Rule,
}

/// How one channel's messages are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What happens when a subscriber's outbox is full.
    pub overflow: Overflow,
    /// What is kept for those who were away.
    pub history: Retention,
    /// How long the keys of publishes are remembered.
    pub keys: KeyWindow,
    /// Whether subscribers get the newest messages only.
    pub conflate: Conflate,
    /// How old a message may be when it goes to a socket; an older one is dropped.
    pub max_age: Option<Duration>,
    /// Whether it is known who is there.
    pub presence: Presence,
}

/// How long messages wait for a client that does not read, and what ends that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// What happens when the client's outbox is full.
    pub overflow: Overflow,
    /// How old they may be when they go to the socket.
    pub max_age: Option<Duration>,
}

impl Rule {
    /// The longest interval that a subscriber may ask for: what waits for its end must not be too old
    /// then, nor soon.
    #[must_use]
    pub fn interval_max(&self) -> Duration {
        self.max_age
            .map_or(CONFLATION_INTERVAL_MAX, |max_age| (max_age / 2).min(CONFLATION_INTERVAL_MAX))
    }

    /// How long its messages wait for a client.
    #[must_use]
    pub const fn patience(&self) -> Patience {
        Patience { overflow: self.overflow, max_age: self.max_age }
    }
}

/// Subscribers get the newest message of each key only, and no oftener than this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflate {
    /// The member of a payload whose value is the key; without one, all messages have the same.
    pub key: Option<Arc<str>>,
    /// The shortest time between two messages of one key, and the one for who asks for no other;
    /// without one, everybody gets every message.
    pub interval: Option<Duration>,
}

/// Who is subscribed to a channel, and what is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// How long a user whose last connection has left is still there; without it nobody is listed.
    pub grace: Option<Duration>,
    /// For how long those who come and go are gathered before they are told in one message; without
    /// it they are not told.
    pub events: Option<Duration>,
    /// How many users are listed; the connections of others are counted.
    pub users_max: u32,
}

/// What happens to a channel's message when a subscriber's outbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest queued messages make room, and a gap notice takes their place.
    DropOldest,
    /// The new message is not queued, and a gap notice takes its place.
    DropNewest,
    /// The client is closed with 4409.
    Close,
}

/// What a channel's home keeps of its messages: the newest, as many as each of these allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Messages; with none there is no history.
    pub messages: u32,
    /// How long ago they were published.
    pub age: Duration,
    /// Bytes of their frames. What is shared with clients that have not read yet counts once.
    pub bytes: usize,
}

/// Which keys of publishes a channel's home remembers, so that a repeated one is not published
/// again: the newest, as many as each of these allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyWindow {
    /// How long.
    pub age: Duration,
    /// How many.
    pub keys: u32,
}

impl Default for Rule {
    fn default() -> Self {
        let overflow = Overflow::DropOldest;
        let (history, keys) = (Retention::default(), KeyWindow::default());
        let (conflate, presence) = (Conflate::default(), Presence::default());
        Self { overflow, history, keys, conflate, max_age: None, presence }
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self { grace: None, events: Some(Duration::from_secs(1)), users_max: 100_000 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { messages: 0, age: Duration::from_secs(60), bytes: 1 << 20 }
    }
}

impl Default for KeyWindow {
    fn default() -> Self {
        Self { age: Duration::from_secs(120), keys: 1_000 }
    }
}

/// Rules by channel name: the first whose pattern matches decides, else the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// In order.
    pub rules: Vec<ChannelRule>,
    /// For channels that none of `rules` matches.
    pub default: Rule,
}

impl Rules {
    /// Whether messages of any channel may become too old.
    #[must_use]
    pub fn have_max_age(&self) -> bool {
        let mut rules = self.rules.iter().map(|rule| &rule.rule).chain([&self.default]);
        rules.any(|rule| rule.max_age.is_some())
    }

    /// How messages of `channel` are treated. Where others come and go is told in full or as a gap:
    /// that is not conflated, and nobody is listed there.
    #[must_use]
    pub fn of(&self, channel: &str) -> Rule {
        let mut rule = self.find(channel).clone();
        if channel.starts_with(PRESENCE_PREFIX) {
            (rule.conflate, rule.presence) = (Conflate::default(), Presence::default());
        }
        rule
    }

    /// What is known of who is in `channel`.
    #[must_use]
    pub fn presence_in(&self, channel: &str) -> Presence {
        match channel.starts_with(PRESENCE_PREFIX) {
            true => Presence::default(),
            false => self.find(channel).presence,
        }
    }

    fn find(&self, channel: &str) -> &Rule {
        let rule = self.rules.iter().find(|rule| pattern::matches(&rule.pattern, channel));
        rule.map_or(&self.default, |rule| &rule.rule)
    }
}
