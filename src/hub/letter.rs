//! What shards tell each other about channels: owned values, nothing shared but frozen bytes.
//!
//! *Requests* go to a channel's home shard and may cause deliveries. *Deliveries* come from a
//! home shard and cause no letter. A shard that cannot get rid of its deliveries hears no more
//! requests; deliveries it always hears: so two full shards cannot wait for each other.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::browse::{Browse, Kept};
use super::history::Page;
use super::presence::{Ask, Change, Roll};
use super::recall::{Asker, Part, Recall, Recalled};
use super::segment::Frames;
use super::{ClientId, Epoch, PatternId, ShardIndex, TopicId};
use crate::limits::{
    CONFLATION_INTERVALS_MAX, MATCHED_CHANNELS_PER_CLIENT_MAX, PATTERNS_PER_CLIENT_MAX,
};

// Some reasons say their bounds in words.
const _: () = assert!(MATCHED_CHANNELS_PER_CLIENT_MAX == 1024 && PATTERNS_PER_CLIENT_MAX == 16);
const _: () = assert!(CONFLATION_INTERVALS_MAX == 8);

/// The `id` of a request, as the client wrote it (raw JSON), to be echoed in the answer.
pub type RequestId = SmallVec<[u8; 16]>;

/// One letter.
#[derive(Debug)]
pub enum Letter {
    /// To a home shard.
    Request(Request),
    /// From a home shard.
    Delivery(Delivery),
}

/// What a shard asks of a channel's home.
#[derive(Debug)]
pub enum Request {
    /// Give this message its `seq` and pass it on.
    Publish {
        /// The channel's name.
        channel: Box<str>,
        /// The payload, raw JSON.
        payload: Bytes,
        /// What tells it from others of its publisher, if it may come twice.
        key: Option<RequestId>,
        /// Who is told.
        publisher: Publisher,
    },
    /// Tell `shard` of every message from now on.
    Attach {
        /// The channel's name.
        channel: Box<str>,
        /// Who asks.
        shard: ShardIndex,
        /// What the asking shard calls the channel.
        topic: TopicId,
    },
    /// Tell one of a shard's clients what it was away for. The shard is attached.
    Recall {
        /// The channel's name.
        channel: Box<str>,
        /// Who is to hear the answer.
        asker: Asker,
        /// Where it wants to go on.
        recall: Recall,
        /// How much at once.
        page: Page,
    },
    /// Tell a client what is kept.
    Browse {
        /// The channel's name.
        channel: Box<str>,
        /// Who asks.
        shard: ShardIndex,
        /// For whom.
        client: ClientId,
        /// As which request, if it had an `id`.
        id: Option<RequestId>,
        /// Which messages.
        browse: Browse,
    },
    /// These have come to a channel, or left it. The shard is attached.
    Present {
        /// The channel's name.
        channel: Box<str>,
        /// Who, and by how many connections more or less.
        changes: Box<[Change]>,
    },
    /// Tell a client who is there.
    CallRoll {
        /// The channel's name.
        channel: Box<str>,
        /// Who asks.
        shard: ShardIndex,
        /// For whom.
        client: ClientId,
        /// As which request, if it had an `id`.
        id: Option<RequestId>,
        /// For what.
        ask: Ask,
    },
    /// Tell `shard` no more.
    Detach {
        /// The channel's name.
        channel: Box<str>,
        /// Who asks.
        shard: ShardIndex,
        /// What it calls the channel.
        topic: TopicId,
    },
    /// Attach `shard` to every channel that matches a pattern, those there are and those to come.
    Watch {
        /// The pattern.
        pattern: Box<str>,
        /// Who asks.
        shard: ShardIndex,
        /// What it calls the pattern.
        id: PatternId,
    },
    /// Attach `shard` to no more of them. It detaches itself where nothing else holds it.
    Unwatch {
        /// The pattern.
        pattern: Box<str>,
        /// Who asks.
        shard: ShardIndex,
    },
    /// A channel that `shard` was attached to for the sake of a pattern is called so by it.
    Named {
        /// The channel's name.
        channel: Box<str>,
        /// Who says so.
        shard: ShardIndex,
        /// What it calls the channel.
        topic: TopicId,
    },
}

/// What a channel's home tells a shard.
#[derive(Debug)]
pub enum Delivery {
    /// You are attached: messages after `seq` will follow.
    Attached {
        /// What the attached shard calls the channel.
        topic: TopicId,
        /// The life of the numbering.
        epoch: Epoch,
        /// The last message before the attachment.
        seq: u64,
    },
    /// You are not attached: the home keeps as many channels as it may.
    Refused {
        /// What the asking shard calls the channel.
        topic: TopicId,
    },
    /// Messages.
    Messages {
        /// What the attached shard calls the channel.
        topic: TopicId,
        /// The messages, encoded.
        frames: Frames,
    },
    /// Messages, for a shard that has not told what it calls the channel.
    MessagesOf {
        /// The channel's name.
        channel: Arc<str>,
        /// The messages, encoded.
        frames: Frames,
    },
    /// A channel that you watch a pattern for: you are attached, and messages after `seq` will
    /// follow.
    Begun {
        /// The channel's name.
        channel: Arc<str>,
        /// The life of the numbering.
        epoch: Epoch,
        /// The last message before the attachment.
        seq: u64,
    },
    /// You are attached to every channel here that matches a pattern.
    Searched {
        /// What the watching shard calls the pattern.
        id: PatternId,
    },
    /// What a client was away for, or the first page of it.
    Recalled {
        /// What the attached shard calls the channel.
        topic: TopicId,
        /// Who asked.
        client: ClientId,
        /// Which of its recoveries.
        ticket: u32,
        /// How far it all goes.
        recalled: Recalled,
        /// The messages.
        parts: Vec<Part>,
    },
    /// What is kept.
    Kept {
        /// Who asked.
        client: ClientId,
        /// As which request, if it had an `id`.
        id: Option<RequestId>,
        /// Of which channel.
        channel: Box<str>,
        /// A page of it.
        answer: Result<Kept, Refusal>,
    },
    /// Who is there.
    Roll {
        /// Who asked.
        client: ClientId,
        /// As which request, if it had an `id`.
        id: Option<RequestId>,
        /// Of which channel.
        channel: Box<str>,
        /// What was asked for.
        answer: Result<Roll, Refusal>,
    },
    /// A publish has its number, and every shard with subscribers has been told before.
    Published {
        /// Who asked.
        client: ClientId,
        /// As which request.
        id: RequestId,
        /// On which channel.
        channel: Arc<str>,
        /// Its number.
        seq: u64,
        /// It has had that before: its key was known.
        is_repeated: bool,
    },
    /// A publish was not taken.
    PublishRefused {
        /// Who asked.
        client: ClientId,
        /// As which request, if it had an `id`.
        id: Option<RequestId>,
        /// Why.
        refusal: Refusal,
    },
}

impl Request {
    /// Bytes it points to.
    #[must_use]
    pub fn pointed_bytes(&self) -> usize {
        match self {
            Self::Publish { channel, payload, .. } => channel.len() + payload.len(),
            Self::Attach { channel, .. }
            | Self::Detach { channel, .. }
            | Self::Named { channel, .. }
            | Self::Recall { channel, .. }
            | Self::Browse { channel, .. } => channel.len(),
            Self::Present { channel, changes } => {
                let names = changes.iter().filter_map(|(name, _)| name.as_deref());
                let names: usize = names.map(str::len).sum();
                channel.len() + size_of_val(&**changes) + names
            }
            Self::CallRoll { channel, ask: Ask::Users { after, .. }, .. } => {
                channel.len() + after.as_ref().map_or(0, |after| after.len())
            }
            Self::CallRoll { channel, ask: Ask::Stats, .. } => channel.len(),
            Self::Watch { pattern, .. } | Self::Unwatch { pattern, .. } => pattern.len(),
        }
    }
}

impl Delivery {
    /// Bytes it points to, except for what its home shares: a channel's name, and what is kept.
    #[must_use]
    pub fn pointed_bytes(&self) -> usize {
        match self {
            Self::Messages { frames, .. } | Self::MessagesOf { frames, .. } => frames.bytes.len(),
            Self::Recalled { parts, .. } => parts.len() * size_of::<Part>(),
            Self::Kept { channel, answer, .. } => {
                let parts = answer.as_ref().map_or(0, |kept| kept.parts.len());
                channel.len() + parts * size_of::<Part>()
            }
            Self::Roll { channel, answer, .. } => {
                channel.len() + answer.as_ref().map_or(0, Roll::pointed_bytes)
            }
            Self::Attached { .. } | Self::Refused { .. } => 0,
            Self::Begun { .. } | Self::Searched { .. } => 0,
            Self::Published { .. } | Self::PublishRefused { .. } => 0,
        }
    }
}

/// Who published.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// On which shard.
    pub shard: ShardIndex,
    /// Which client.
    pub client: ClientId,
    /// As which request; without `id` no ack.
    pub id: Option<RequestId>,
}

/// Why the hub does not do what a client asks. The connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Subscribed already.
    AlreadySubscribed,
    /// The process keeps as many channels as it may.
    ChannelsExhausted,
    /// The channel's rule does not say that it be known who is there.
    NoPresence,
    /// The channel's messages are not conflated.
    NotConflated,
    /// Not subscribed.
    NotSubscribed,
    /// The process is at its memory ceiling.
    Overloaded,
    /// The server itself publishes there.
    Reserved,
    /// Subscribed to as many channels as one client may.
    TooManyChannels,
    /// The channel's messages are sent at as many intervals as may be.
    TooManyIntervals,
    /// The patterns of a client match more channels than one may have by them.
    TooManyMatches,
    /// Subscribed to as many patterns as one client may.
    TooManyPatterns,
    /// It has asked so much of a channel that has not answered yet, or of patterns.
    TooManyWishes,
}

impl Refusal {
    /// Whether the same would be refused whenever it is asked for.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(self, Self::NoPresence | Self::Reserved)
    }

    /// The stable `code` of the error message.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AlreadySubscribed => "already_subscribed",
            Self::ChannelsExhausted => "channels_exhausted",
            Self::NoPresence => "no_presence",
            Self::NotConflated => "not_conflated",
            Self::NotSubscribed => "not_subscribed",
            Self::Overloaded => "overloaded",
            Self::Reserved => "reserved_channel",
            Self::TooManyChannels => "too_many_channels",
            Self::TooManyIntervals => "too_many_intervals",
            Self::TooManyMatches => "too_many_matches",
            Self::TooManyPatterns => "too_many_patterns",
            Self::TooManyWishes => "too_many_requests",
        }
    }

    /// The readable `reason`, which names the limit that was met.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AlreadySubscribed => "this client is subscribed to it already",
            Self::ChannelsExhausted => "the server keeps channels_max channels",
            Self::NoPresence => "the channel's rule has no presence, or no events of it",
            Self::NotConflated => "the channel's rule does not conflate its messages",
            Self::NotSubscribed => "this client is not subscribed to it",
            Self::Overloaded => "the server is at its memory ceiling (memory_max); try again later",
            Self::Reserved => "what begins with presence: is told by the server alone",
            Self::TooManyChannels => "this client has channels_per_client_max channels",
            Self::TooManyIntervals => {
                "others have the channel at 8 different intervals; ask for one of those, or for none"
            }
            Self::TooManyMatches => "the patterns of this client match more than 1024 channels",
            Self::TooManyPatterns => "this client has 16 patterns",
            Self::TooManyWishes => "wait for the answers to the requests before",
        }
    }
}
