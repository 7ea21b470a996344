//! Who receives what, and what waits for each client.
//!
//! Every channel has a *home* shard, the hash of its name, which gives each message its `seq` and
//! knows which shards have subscribers; on every such shard a `topic` lists its clients. Within
//! a tick a publish only appends to its topic; [`Hub::settle`] then offers each topic's new
//! messages to each subscriber's [`Outbox`] once, however many they are, and the shard sends what
//! the outboxes hold.
//!
//! Reading order: `segment` (shared bytes), `format` (in which form), `outbox` (what waits),
//! `clients`, `audience` and `topic` (who), then the verbs: `subscribe`, `life` (of a channel),
//! `publish`, `settle`, `conflation` (for who wants the newest only), `flush`, `failure`, `relieve`,
//! and `letter` (between shards); `patterns` (subscriptions to channels that are to come), `trie`,
//! `watch` and `begin`; then what is for those who were away: `history` (what a home keeps), `recall`
//! (the home answers), `recovery` (a client catches up), `browse` (a client looks), `keys` (publishes
//! that are repeated), and `listen` (what is told over HTTP). `presence` is about who is there.
//!
//! `audit` checks the books; nothing on a message's way calls it.
//!
//! The hub does no I/O and reads no clock; it does not know what a connection is.
#![forbid(unsafe_code)]

mod audience;
mod audit;
mod begin;
mod browse;
mod clients;
mod conflation;
mod failure;
mod flush;
mod format;
mod history;
mod keys;
mod letter;
mod life;
mod listen;
mod outbox;
mod patterns;
mod presence;
mod publish;
mod recall;
mod recovery;
mod relieve;
mod rules;
mod segment;
mod settle;
mod subscribe;
mod topic;
mod trie;
mod watch;

#[cfg(test)]
mod tests;

use std::fmt;

pub use audit::Audit;
pub use browse::{Browse, Kept};
pub use clients::{Door, Flow, Progress};
pub use failure::Failure;
pub use format::Format;
pub use history::Page;
pub use letter::{Delivery, Letter, Publisher, Refusal, Request, RequestId};
pub use outbox::{Capacity, Outbox};
pub use presence::{Ask, Roll};
pub use publish::{Acked, Answer, Publish};
pub use recall::{Asker, Part, Recall, Recalled};
pub use relieve::{Burden, Way};
pub use rules::{
    ChannelRule, Conflate, KeyWindow, Overflow, Patience, Presence, Retention, Rule, Rules,
};
pub use settle::Settled;
pub use subscribe::Terms;

use crate::mem::Key;
use crate::time::Time;
use clients::Clients;
use format::Encoder;
use patterns::Patterns;
use presence::Presences;
use recovery::Recoveries;
use segment::Meter;
use topic::Topics;

/// Names a client: the same key as its connection and its socket.
pub type ClientId = Key;
/// Names a channel on one shard.
pub type TopicId = Key;
/// Names a pattern on one shard.
pub type PatternId = Key;
/// Which shard, counted from 0.
pub type ShardIndex = u16;

/// What the hub needs to know, proven by `config`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which shard this is.
    pub shard: ShardIndex,
    /// Of how many.
    pub shards: u16,
    /// Seeds the hash that gives each channel its home; the same on all shards.
    pub home_seed: u64,
    /// How much one outbox may hold.
    pub outbox: Capacity,
    /// Channels one client may be subscribed to.
    pub channels_per_client_max: usize,
    /// Channels this shard may keep numbering for.
    pub channels_max: usize,
    /// How hard compressing a message is tried, from 1 to 9.
    pub compression_level: u32,
    /// Bytes this hub may hold in segments and replies.
    pub memory_bytes_max: usize,
    /// What happens where messages do not fit.
    pub rules: Rules,
}

/// Channels, subscriptions and outboxes of one shard.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    random: fastrand::Rng,
    topics: Topics,
    clients: Clients,
    /// Topics with messages that no subscriber has been offered yet.
    unsettled: Vec<TopicId>,
    /// How far `settle` has come.
    cursor: settle::Cursor,
    /// Acks that wait until what they promise is in the outboxes and in the mailboxes.
    acks: Vec<publish::Ack>,
    /// How many of them, from the first on, wait for the mailboxes only.
    acks_settled: usize,
    /// What became of publishes whose answers somebody else writes.
    answers: Vec<Answer>,
    /// Letters for other shards, in order.
    letters: Vec<(ShardIndex, Letter)>,
    /// Who catches up.
    recoveries: Recoveries,
    /// Who hears of channels to come.
    patterns: Patterns,
    /// Who is where.
    presences: Presences,
    /// Bytes of the segments alive on this shard.
    segments: Meter,
    /// Bytes of the keys that are remembered here.
    keys: Meter,
    /// What writes messages in other forms.
    encoder: Encoder,
    /// Whether anything may wait for the end of an interval.
    conflates: bool,
    /// Whether messages of any channel may become too old.
    has_max_age: bool,
    counts: Counts,
}

/// What the hub has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages given a `seq` here.
    pub publishes: u64,
    /// Subscriptions there are now.
    pub subscriptions: u64,
    /// Channels whose numbering is kept here now.
    pub channels_home: u64,
    /// Users on the lists of these channels.
    pub users: u64,
    /// Connections that are counted there, those on no list among them.
    pub connections_present: u64,
}

/// Why messages were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The client did not read fast enough.
    SlowConsumer,
    /// The server was at its memory ceiling, and this client had the most waiting.
    Memory,
    /// The numbering has begun anew since, and the beginning of the new one is not kept.
    EpochChanged,
    /// The history keeps neither as many nor for so long.
    TooOld,
    /// The server was at its memory ceiling, and gave up the channel's history.
    Limit,
    /// It was older than the channel's rule allows before the client could be sent it.
    Stale,
}

impl GapReason {
    /// Whether this client lost what others got, which is counted; else nobody could have it.
    const fn is_loss_of_client(self) -> bool {
        matches!(self, Self::SlowConsumer | Self::Memory | Self::Stale)
    }

    /// The stable `reason` of the gap notice.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow_consumer",
            Self::Memory => "memory",
            Self::EpochChanged => "epoch_changed",
            Self::TooOld => "too_old",
            Self::Limit => "limit",
            Self::Stale => "stale",
        }
    }
}

/// The life of a channel's numbering. When it changes, `seq` has begun anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Epoch([u8; Self::LETTERS]);

impl Epoch {
    /// 40 bits of chance: two lives of a channel practically never agree.
    const LETTERS: usize = 8;

    fn new(random: &mut fastrand::Rng) -> Self {
        // Crockford's base 32: no letters that look like digits.
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        Self(std::array::from_fn(|_| ALPHABET[random.usize(..ALPHABET.len())]))
    }

    /// The epoch that is written so, if one can be.
    fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// As it is written in messages.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Hub {
    /// An empty hub. All of its chance comes from `random`.
    #[must_use]
    pub fn new(settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            topics: Topics::new(settings.home_seed, settings.shards),
            clients: Clients::new(settings.outbox),
            random,
            unsettled: Vec::new(),
            cursor: settle::Cursor::default(),
            acks: Vec::new(),
            acks_settled: 0,
            answers: Vec::new(),
            letters: Vec::new(),
            recoveries: Recoveries::default(),
            patterns: Patterns::default(),
            presences: Presences::default(),
            segments: Meter::default(),
            keys: Meter::default(),
            encoder: Encoder::new(settings.compression_level),
            conflates: true,
            has_max_age: settings.rules.have_max_age(),
            counts: Counts::default(),
            settings,
        }
    }

    /// Begins the life of `client`: it may be replied to.
    pub fn open(&mut self, client: ClientId) {
        self.clients.open(client);
    }

    /// Messages and replies for `client` are written in `format` from now on; in [`Format::Json`]
    /// before.
    pub fn agree(&mut self, client: ClientId, format: Format) {
        self.clients.agree(client, format);
    }

    /// Ends the life of `client` and forgets what waited for it.
    pub fn close(&mut self, client: ClientId, now: Time) {
        self.unsubscribe_all(client, now);
        self.clients.close(client);
    }

    /// Ends the subscriptions of `client` and forgets the messages that wait for it. Replies
    /// still reach it.
    pub fn mute(&mut self, client: ClientId, now: Time) {
        self.unsubscribe_all(client, now);
        if let Some(outbox) = self.clients.outbox_mut(client) {
            outbox.forget_data();
        }
        if self.clients.door(client) == Some(Door::Poll) {
            // Its last words are an answer that says why there is none.
            self.clients.end_listening(client, &mut Vec::new());
        }
    }

    /// What waits for `client` still reaches it, and what it catches up with, and nothing else. It
    /// stays subscribed until it closes, because a gap notice that waits needs its channel's name.
    /// True when nothing is left to be sent; else [`Progress::finished`] says when, or
    /// [`Failure::Retired`].
    pub fn retire(&mut self, client: ClientId) -> bool {
        self.leave_patterns(client);
        self.clients.retire(client)
    }

    /// Queues `replies`, whole frames, for `client` and leaves the buffer empty.
    pub fn reply(&mut self, client: ClientId, replies: &mut Vec<u8>) {
        if !replies.is_empty() {
            self.clients.reply(client, replies);
            replies.clear();
        }
    }

    /// Queues the last `replies` for `client`; nothing is queued for it afterwards, and it is never
    /// throttled again.
    pub fn reply_last(&mut self, client: ClientId, replies: &mut Vec<u8>) {
        self.clients.seal(client, false);
        self.reply(client, replies);
        self.clients.seal(client, true);
        self.clients.mute(client);
    }

    /// Whether so many replies wait for `client`, whose socket is full, or so many of its publishes
    /// are unanswered, that nothing more is to be read from it. Told once, until
    /// [`Progress::unthrottled`].
    pub fn throttle(&mut self, client: ClientId) -> bool {
        self.clients.throttle(client)
    }

    /// Whether `client` is throttled because others have not answered its publishes, and not
    /// because of anything it does.
    #[must_use]
    pub fn is_kept_waiting(&self, client: ClientId) -> bool {
        self.clients.is_kept_waiting(client)
    }

    /// Whether the socket of `client` was full when this was asked last, and has taken nothing since.
    pub fn is_stuck(&mut self, client: ClientId) -> bool {
        self.clients.is_stuck(client)
    }

    /// Whether there are letters for other shards.
    #[must_use]
    pub const fn has_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// Letters for other shards since the last call, in order.
    pub fn take_letters(&mut self, letters: &mut Vec<(ShardIndex, Letter)>) {
        letters.append(&mut self.letters);
    }

    /// What the hub has done so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        let tally = &self.presences.tally;
        Counts { users: tally.users, connections_present: tally.connections, ..self.counts }
    }

    /// Messages encoded so far, by [`Format`].
    #[must_use]
    pub const fn encoded(&self) -> [u64; Format::ALL.len()] {
        self.encoder.encoded()
    }

    /// What flowed out so far.
    #[must_use]
    pub const fn flow(&self) -> Flow {
        self.clients.flow
    }

    /// Channels known here, homes and attachments.
    #[cfg(test)]
    fn channels(&self) -> usize {
        self.topics.len()
    }

    /// Bytes of shared messages alive on this shard.
    #[must_use]
    pub fn segments_bytes(&self) -> usize {
        self.segments.bytes()
    }

    /// Bytes of the keys of publishes that are remembered.
    #[must_use]
    pub fn keys_bytes(&self) -> usize {
        self.keys.bytes()
    }

    /// Bytes of messages that wait for the end of an interval.
    #[must_use]
    pub fn conflated_bytes(&self) -> usize {
        self.topics.conflated.bytes()
    }

    /// Bytes of patterns, and of the subscriptions that they hold.
    #[must_use]
    pub const fn patterns_bytes(&self) -> usize {
        self.patterns.bytes
    }

    /// Bytes of replies that wait.
    #[must_use]
    pub const fn replies_bytes(&self) -> usize {
        self.clients.replies_bytes
    }
}
