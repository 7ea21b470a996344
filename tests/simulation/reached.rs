//! Where a simulation has been. One that never gets somewhere proves nothing there.

use std::collections::BTreeMap;
use std::fmt;

use ringcast::conn::EndReason;
use ringcast::proto::http::Refusal;

/// A table of situations and how each is described.
macro_rules! situations {
    ($($name:ident: $text:literal),+ $(,)?) => {
        /// Somewhere worth having been.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Situation { $($name),+ }

        impl Situation {
            const ALL: &[(Self, &str)] = &[$((Self::$name, $text)),+];
        }
    };
}

situations! {
    CutInHttpAnswer: "a send was cut within the HTTP answer",
    CutInFrameHeader: "a send was cut within a frame's header",
    CutInPayload: "a send was cut within a frame's payload",
    CutBetweenFrames: "a send was cut between two frames, or took nothing",
    MessageBegun: "the rest of a message waits that the kernel took a part of",
    RepliesBehindMessageBegun: "replies wait behind the rest of a message",
    RepliesBegun: "the kernel took a part of the replies",
    SentTwiceInTick: "a client was sent to twice in one tick, to make room",
    GapForSlowness: "a gap was told: slow consumer",
    GapForMemory: "a gap was told: memory ceiling",
    GapForStaleness: "a gap was told: too old to be sent",
    GapForAge: "a gap was told: not kept for so long",
    GapForLimit: "a gap was told: the history gave way for want of memory",
    GapForAnotherLife: "a gap was told: the beginning of another life is not kept",
    ResumedAtNewest: "somebody came back and had missed nothing",
    ResumedWhole: "somebody came back and got everything it had missed",
    ResumedTooLate: "somebody came back too late for a part of it",
    ResumedForgotten: "somebody came back, and the history had given way",
    ResumedInAnotherLife: "somebody came back to another life of a channel",
    SubscribedWithLast: "somebody began with the last messages",
    Recovering: "a client was catching up",
    RecoveringAsServerLeaves: "a client was catching up while the server drained",
    RecoveringUnanswered: "a client that came back waited for the home's answer",
    RecoveringWithWishes: "a client that came back asked more before the home had answered",
    HistoryKept: "messages were kept for those who are away",
    PublishRepeated: "a publish without an answer was said again on another connection",
    RepeatedPublishAcked: "a repeated publish was acknowledged with its first number",
    ConflatedWaiting: "messages waited for the end of an interval",
    ConflatedNewcomer: "a client joined while messages waited for the end of an interval",
    OthersCovered: "a message covered others that it or later ones superseded",
    GapWhereConflated: "a gap was told where messages are conflated",
    IntervalAskedFor: "somebody asked for an interval of its own",
    NewestOfKeysHeard: "somebody had the newest message of each key, or had been told that it was lost",
    ChannelBegan: "a channel began, or went on, for a client because of a pattern",
    PatternLeft: "somebody let go of a pattern",
    PatternLeftAmidBacklog: "a pattern ended, and messages that it brought were not sent yet",
    PatternEnded: "a pattern ended for want of memory",
    PatternSearching: "the channels that a pattern matches had not all been found",
    MatchedAndAsked: "a client had a channel by a pattern and by its name",
    AskedForMatched: "somebody asked for a channel that a pattern had brought",
    WatcherUnnamed: "a shard that watches was attached and had not named the channel",
    RollAnswered: "somebody was told who is in a channel",
    RollInPages: "a list was read in several pages",
    RollFolded: "a list and those who came and went since were the truth",
    StatsAnswered: "somebody was told how many are in a channel",
    SomebodyTold: "it was told that somebody came or left",
    UserLeaving: "a user's last connection had left, and there was time to come back",
    MembersUntold: "who came and went waited to be told",
    ConnectionUnlisted: "a connection found no room on a list",
    GapMerged: "a gap that stands for several messages waits",
    GapBehindGap: "a gap waits behind another one",
    GapBehindMessage: "a gap waits behind messages",
    GapBeforeMessage: "a gap waits before messages",
    GapAfterGap: "a gap followed a gap of its channel at the client",
    MessageAfterGap: "a message followed a gap at the client",
    ChannelsMixed: "several channels wait in one outbox",
    Throttled: "a client was not read from: it does not read its replies",
    HeldBack: "a client was not read from: another shard's mailbox is full",
    MailboxFull: "letters waited on a shelf",
    DeliveriesHeld: "deliveries waited on a shelf, so nothing was acknowledged",
    HomeAsked: "a channel's home was asked and had not answered",
    WaitingForHome: "clients waited for a home's answer",
    UnsubscribedWhileWaiting: "a client let go of a channel before its home had answered",
    HomeAttached: "a channel had subscribers on other shards",
    HomeDeserted: "a channel was wanted by nobody and not yet forgotten",
    NumberingAnew: "a channel was forgotten and began anew",
    UnsubscribedAmidBacklog: "an unsubscribe found messages that were not sent yet",
    SealedBacklog: "a connection was ending and had something waiting",
    EndedAmidBacklog: "a connection broke while messages waited for it",
    DroppedOldest: "drop_oldest lost messages",
    DroppedNewest: "drop_newest lost messages",
    PingUnansweredAmidMessages: "messages came before the answer to a ping that was heard",
    ManyPingsOutstanding: "many pings were unanswered at once",
    CompressedMessage: "a message came compressed",
    WindowKept: "what a client's compressed messages may refer back to was kept",
    PartialReceive: "a message or request head was kept incomplete",
    BrokenAmidFrame: "a connection broke in the middle of a frame to the client",
    HandedOver: "an accepted peer was passed on to a lighter shard",
    AdoptRefused: "a passed-on peer found no room",
    AcceptFailed: "accepting failed and was tried again",
    ShardStalled: "a shard stalled",
    ClockJumped: "the clock jumped",
    UplinkDown: "the uplink was down",
    PeerVanished: "a peer vanished without a word",
    DrainedAmidTrouble: "the server drained amid trouble",
    DrainedInPeace: "the server drained in peace",
    GoodbyeWaitedForBacklog: "a good-bye waited until what was queued had left",
    ToldToGo: "a client was told to come back later",
    Deserted: "everybody left, and every pool was full again",
    LossesEqualCounters: "what clients were told as lost equals the server's counters",
    PublishedOverHttp: "a message published over HTTP was answered",
    StreamEvent: "an event was heard on a stream",
    StreamAccused: "a stream was told why it ends",
    PollAnswered: "a poll was answered with what there was",
    PollAnsweredEmpty: "a poll was answered with nothing but where it goes on",
    PeerServerBothClose: "both sides closed at the same time",
}

/// How often a simulation was where.
#[derive(Debug, Default, Clone)]
pub struct Reached {
    counts: BTreeMap<&'static str, u64>,
    /// By name: end reasons, refusals, close codes, errors.
    named: BTreeMap<String, u64>,
}

impl Reached {
    pub fn count(&mut self, situation: Situation) {
        self.add(situation, 1);
    }

    pub fn add(&mut self, situation: Situation, times: u64) {
        if times > 0 {
            let (_, text) = Situation::ALL[situation as usize];
            *self.counts.entry(text).or_default() += times;
        }
    }

    pub fn error(&mut self, code: &str) {
        self.name(&format!("error {code}"), 1);
    }

    pub fn close_code(&mut self, code: u16) {
        self.name(&format!("close {code}"), 1);
    }

    pub fn ended(&mut self, reason: EndReason, times: u64) {
        self.name(&format!("end {}", reason.name()), times);
    }

    pub fn refused(&mut self, name: &str, times: u64) {
        self.name(&format!("refused {name}"), times);
    }

    fn name(&mut self, name: &str, times: u64) {
        if times > 0 {
            *self.named.entry(name.to_owned()).or_default() += times;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (name, times) in &other.counts {
            *self.counts.entry(name).or_default() += times;
        }
        for (name, times) in &other.named {
            *self.named.entry(name.clone()).or_default() += times;
        }
    }

    /// Every row of the table.
    pub fn rows(&self) -> impl Iterator<Item = (String, u64)> {
        let situations = Situation::ALL.iter().map(|(_, text)| {
            ((*text).to_owned(), self.counts.get(text).copied().unwrap_or_default())
        });
        let named = expected().into_iter().map(|name| {
            let times = self.named.get(&name).copied().unwrap_or_default();
            (name, times)
        });
        situations.chain(named)
    }

    /// Rows that were never reached.
    pub fn missing(&self) -> Vec<String> {
        self.rows().filter(|(_, times)| *times == 0).map(|(name, _)| name).collect()
    }
}

/// What there must be by name.
fn expected() -> Vec<String> {
    let ends = EndReason::ALL.into_iter().map(|reason| format!("end {}", reason.name()));
    // The others need requests that only a parser's test would send.
    let refusals = [
        "bad_request",
        "not_found",
        "unavailable",
        "request_timeout",
        "too_many_connections",
        "content_too_large",
        "unanswered",
    ];
    let refusals = refusals.into_iter().filter(|name| Refusal::NAMES.contains(name));
    let errors = [
        "already_subscribed",
        "too_many_channels",
        "too_many_intervals",
        "not_conflated",
        "channels_exhausted",
        "not_subscribed",
        "overloaded",
        "unknown_type",
        "missing_field",
        "bad_channel",
    ];
    let codes = [1000, 1001, 1002, 1003, 1007, 1009, 1013, 4400, 4409];
    ends.chain(refusals.map(|name| format!("refused {name}")))
        .chain(errors.into_iter().map(|code| format!("error {code}")))
        .chain(codes.into_iter().map(|code| format!("close {code}")))
        .collect()
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, times) in self.rows() {
            writeln!(f, "{times:>12}  {name}")?;
        }
        Ok(())
    }
}
