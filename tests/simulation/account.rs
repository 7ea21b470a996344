//! What one connection's peer knows from nothing but what it said and heard, and what must
//! therefore be so.

use std::collections::{BTreeMap, VecDeque};

use simd_json::prelude::*;

use crate::ledger::{self, Ledger};
use crate::listener::Listening;
use crate::reached::{Reached, Situation};
use crate::roll::{Event, PREFIX, Page, Rolls};

/// What a peer has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To what, and when it was asked.
    Subscribe(String, u64),
    Resume(String, Since),
    Unsubscribe(String),
    /// To subscribe to a pattern.
    Watch(String),
    Unwatch(String),
    Publish(usize),
    /// Who is there, and how many.
    Roll(Page),
    Stats(String),
    Ping,
    /// Something that is answered with this error.
    Nonsense(&'static str),
}

/// Where a peer says that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    After(Position),
    Last(u64),
}

/// The life of a channel, and the last message of it that a peer had or was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub epoch: String,
    pub seq: u64,
}

impl Since {
    /// The last message that the peer has by the answer to it, which must be as it may be.
    fn check(
        &self,
        epoch: &str,
        newest: u64,
        from: u64,
        lost: Option<&str>,
        reached: &mut Reached,
    ) -> u64 {
        match (self, lost) {
            (Self::After(had), None | Some("too_old" | "limit")) => {
                assert_eq!(
                    (had.epoch.as_str(), had.seq + 1),
                    (epoch, from),
                    "it goes on where it was"
                );
                reached.count(match lost {
                    None if from > newest => Situation::ResumedAtNewest,
                    None => Situation::ResumedWhole,
                    Some("limit") => Situation::ResumedForgotten,
                    Some(_) => Situation::ResumedTooLate,
                });
            }
            (Self::After(had), Some("epoch_changed")) => {
                assert!(had.epoch != epoch || had.seq > newest, "nothing has begun anew");
                assert_eq!(from, 1, "everything of another life is new");
                reached.count(Situation::ResumedInAnotherLife);
            }
            (Self::Last(count), lost) => {
                let wanted = (newest + 1).saturating_sub(*count).max(1);
                assert!(
                    (wanted..=newest + 1).contains(&from),
                    "the last {count} of {newest} from {from}"
                );
                assert_eq!(lost.is_none(), from == wanted, "what is not there is told");
                reached.count(Situation::SubscribedWithLast);
            }
            (since, lost) => panic!("{since:?} was answered with {lost:?}"),
        }
        from - 1
    }
}

/// One subscription.
#[derive(Debug)]
struct Following {
    epoch: String,
    /// The last message that was received or told as lost.
    last: u64,
    /// Whether the last thing heard was a gap.
    after_gap: bool,
    /// And one of what this client lost and others did not.
    after_loss: bool,
    /// Where it gets the newest messages only.
    conflated: Option<Conflated>,
    /// Since when it has known that it is subscribed itself, if it is.
    direct_since: Option<u64>,
}

/// What somebody knows of a channel that is conflated.
#[derive(Debug)]
struct Conflated {
    /// Milliseconds between two messages of a key, as the server says.
    interval_ms: u64,
    /// When it asked for what comes next, if it did not ask for what it had missed.
    asked_at: Option<u64>,
    /// The last message before the subscription.
    joined: u64,
    /// The newest message of each key, and how many there were.
    keys: BTreeMap<Option<usize>, (u64, u64)>,
    /// What was told as lost.
    gaps: Vec<(u64, u64)>,
}

impl Conflated {
    /// What is told of `channel`, where it is followed from `joined` on.
    fn told(
        channel: &str,
        interval: Option<&str>,
        asked_at: Option<u64>,
        joined: u64,
    ) -> Option<Self> {
        assert_eq!(interval.is_some(), channel.starts_with("flow"), "{channel} {interval:?}");
        let interval_ms = millis(interval?);
        Some(Self { interval_ms, asked_at, joined, keys: BTreeMap::new(), gaps: Vec::new() })
    }

    /// Message `seq` has come, which has this key.
    fn hear(&mut self, key: Option<usize>, seq: u64, now: u64, is_strict: bool) {
        let (newest, count) = self.keys.entry(key).or_default();
        assert!(seq > *newest, "the messages of a key keep their order");
        (*newest, *count) = (seq, *count + 1);
        let Some(asked_at) = self.asked_at.filter(|_| is_strict) else { return };
        let intervals = (now / 1_000 - asked_at / 1_000) / self.interval_ms;
        assert!(
            *count <= intervals + 1,
            "{count} messages of key {key:?} in {intervals} intervals of {} ms",
            self.interval_ms
        );
    }

    /// What is the newest of each key by what is known, has come or was told as lost.
    fn check(&self, channel: &str, last: u64, newest: &BTreeMap<Option<usize>, u64>) {
        for (key, seq) in newest {
            let had = self.keys.get(key).map_or(self.joined, |(had, _)| *had);
            let is_lost = self.gaps.iter().any(|(from, to)| (from..=to).contains(&seq));
            assert!(
                *seq <= had || *seq > last || *seq <= self.joined || is_lost,
                "{channel} {seq} is the newest of key {key:?} and was never told; {had} was"
            );
        }
    }
}

impl Following {
    fn new(epoch: &str, last: u64, conflated: Option<Conflated>) -> Self {
        let (after_gap, after_loss, direct_since) = (false, false, None);
        Self { epoch: epoch.into(), last, after_gap, after_loss, conflated, direct_since }
    }

    /// How often it gets messages of a key.
    fn interval_ms(&self) -> Option<u64> {
        self.conflated.as_ref().map(|conflated| conflated.interval_ms)
    }
}

/// What a peer knows.
#[derive(Debug, Default)]
pub struct Account {
    following: BTreeMap<String, Following>,
    /// Of these, those that it has not asked for itself, and the pattern that they were told with.
    matched: BTreeMap<String, String>,
    /// Patterns that it has, and when it was told so.
    patterns: BTreeMap<String, u64>,
    /// Where it was in channels that it has let go of.
    left: BTreeMap<String, Position>,
    asked: BTreeMap<u64, Ask>,
    /// Messages of a publish over HTTP, in order, which are not answered.
    posted: VecDeque<(u64, usize)>,
    /// Pings that are not answered: what they say, where in the stream they end, and since when
    /// the server has read them, if it has.
    pings: VecDeque<(Vec<u8>, u64, Option<u64>)>,
    /// How many of them the server has read.
    pings_heard: usize,
    /// Messages told as lost.
    pub lost: u64,
    pub received: u64,
    welcomed: bool,
    /// It was told to come back later.
    pub told_to_go: bool,
    /// Whether the server has no reason to send what is conflated before its time.
    pub is_strict: bool,
    /// Whether payloads have keys.
    pub has_keys: bool,
    /// When the message that it hears had left the server.
    pub left_at: u64,
    /// How old messages may be then, in channels that are conflated and in others.
    pub max_ages_ms: [Option<u64>; 2],
    /// Who it says that it is, and for how long that is not told to have left, in microseconds.
    pub user: Option<String>,
    pub grace_us: Option<u64>,
    /// What it knows of who is where.
    pub rolls: Rolls,
}

impl Account {
    /// It begins to follow `channel` from there on.
    pub fn follow(&mut self, channel: &str, Position { epoch, seq }: Position) {
        self.follow_conflated(channel, &epoch, seq, None);
    }

    fn follow_conflated(
        &mut self,
        channel: &str,
        epoch: &str,
        last: u64,
        conflated: Option<Conflated>,
    ) {
        self.rolls.follow(channel, epoch, last);
        let following = Following::new(epoch, last, conflated);
        let interval_ms = following.interval_ms();
        if let Some(before) = self.following.insert(channel.to_owned(), following) {
            let by = self.matched.remove(channel);
            assert!(by.is_some(), "nobody is subscribed twice: {channel}");
            assert_eq!(before.interval_ms(), interval_ms, "{channel}: it gets no more and no less");
            assert_eq!(
                (&*before.epoch, before.last),
                (epoch, last),
                "{channel}: it is told where it is"
            );
        }
    }

    /// Where it is in a channel that it follows.
    pub fn position(&self, channel: &str) -> Option<Position> {
        let Following { epoch, last, .. } = self.following.get(channel)?;
        Some(Position { epoch: epoch.clone(), seq: *last })
    }

    /// An object has come that was not asked for by name: it listens.
    pub fn hear_listened(
        &mut self,
        listening: &Listening,
        text: &str,
        now: u64,
        ledger: &mut Ledger,
        reached: &mut Reached,
    ) {
        self.welcomed = true;
        if !text.starts_with(r#"{"type":"subscribed""#) {
            return self.hear(text, now, ledger, reached);
        }
        let mut bytes = text.as_bytes().to_vec();
        let said = simd_json::to_borrowed_value(&mut bytes).expect("it is JSON");
        let channel = said.get_str("channel").expect("a channel").to_owned();
        assert_eq!(said.get("id"), None, "nobody gave it a number: {text}");
        let ask = match listening.since(&channel) {
            Some(since) => Ask::Resume(channel, since.clone()),
            // Whenever that was.
            None => Ask::Subscribe(channel, 0),
        };
        self.subscribed(Some(ask), &said, text, reached);
    }

    pub fn ask(&mut self, id: u64, ask: Ask) {
        self.asked.insert(id, ask);
    }

    /// It publishes a message over HTTP as request `id`.
    pub fn post(&mut self, id: u64, publication: usize) {
        self.posted.push_back((id, publication));
    }

    /// The answer to the oldest message of a publish over HTTP, or why no more of them come.
    pub fn hear_line(&mut self, line: &str, now: u64, ledger: &mut Ledger, reached: &mut Reached) {
        let mut bytes = line.as_bytes().to_vec();
        let said = simd_json::to_borrowed_value(&mut bytes);
        let said = said.unwrap_or_else(|error| panic!("{line}: {error}"));
        let string = |name| said.get_str(name).unwrap_or_else(|| panic!("{line}: {name}"));
        let Some(id) = said.get_u64("id") else {
            let enough = ["content_too_large", "request_timeout", "unanswered", "unavailable"];
            assert!(enough.contains(&string("code")), "{line}");
            self.posted.clear();
            return;
        };
        let (asked, publication) =
            self.posted.pop_front().expect("what was asked is answered once");
        assert_eq!(id, asked, "answers come in the order of the lines");
        reached.count(Situation::PublishedOverHttp);
        if string("type") == "ack" {
            let seq = said.get_u64("seq").expect("an ack has a number");
            return ledger.acked(publication, string("channel"), seq, now);
        }
        let code = string("code");
        assert!(["overloaded", "channels_exhausted"].contains(&code), "{line}");
        reached.error(code);
        ledger.refused(publication);
    }

    /// All answers to a publish over HTTP have come.
    pub fn hear_last_line(&self) {
        assert!(self.posted.is_empty(), "{} lines are not answered", self.posted.len());
    }

    pub fn ping(&mut self, payload: Vec<u8>, end: u64) {
        self.pings.push_back((payload, end, None));
    }

    /// The server has read the peer's stream up to `read`, at the latest `now`.
    pub fn heard_by_server(&mut self, read: u64, now: u64) {
        while let Some((_, _, heard)) =
            self.pings.get_mut(self.pings_heard).filter(|(_, end, _)| *end <= read)
        {
            *heard = Some(now);
            self.pings_heard += 1;
        }
    }

    /// Where it was, in this life of it and before, in channels that it has heard of.
    pub fn into_positions(mut self) -> BTreeMap<String, Position> {
        let following = std::mem::take(&mut self.following).into_iter();
        self.left.extend(following.map(|(channel, following)| {
            (channel, Position { epoch: following.epoch, seq: following.last })
        }));
        self.left
    }

    /// Knows where it was in a life before.
    pub fn remember(&mut self, positions: BTreeMap<String, Position>) {
        self.left = positions;
    }

    /// Where it was in `channel`, which it does not follow.
    pub fn left(&self, channel: &str) -> Option<&Position> {
        self.left.get(channel)
    }

    /// The publication whose answer it waits for, if there is one: it may say it again.
    pub fn unanswered_publications(&self) -> impl Iterator<Item = usize> {
        self.asked.values().filter_map(|ask| match ask {
            Ask::Publish(publication) => Some(*publication),
            _ => None,
        })
    }

    /// It follows what it follows with the newest value of each key.
    pub fn check_newest_of_keys(&self, ledger: &Ledger, reached: &mut Reached) {
        let conflated = self.following.iter();
        let conflated =
            conflated.filter_map(|(channel, it)| Some((channel, it, it.conflated.as_ref()?)));
        for (channel, following, conflated) in conflated.filter(|_| self.has_keys) {
            conflated.check(channel, following.last, &ledger.newest_of_keys(channel));
            reached.count(Situation::NewestOfKeysHeard);
        }
    }

    /// Channels that it follows.
    pub fn channels(&self) -> impl Iterator<Item = &String> {
        self.following.keys()
    }

    /// Patterns that it has.
    pub fn patterns(&self) -> impl Iterator<Item = &String> {
        self.patterns.keys()
    }

    /// Whether it is subscribed to `channel` by itself, and has not asked for the end of that.
    pub fn is_member(&self, channel: &str) -> bool {
        let is_leaving = |ask: &Ask| matches!(ask, Ask::Unsubscribe(asked) if asked == channel);
        self.following.contains_key(channel)
            && !self.matched.contains_key(channel)
            && !self.asked.values().any(is_leaving)
    }

    /// Whether it waits for a list, or a page of it.
    pub fn is_calling_roll(&self, channel: &str) -> bool {
        let is_it = |ask: &Ask| matches!(ask, Ask::Roll(page) if page.channel == channel);
        self.asked.values().any(is_it)
    }

    /// It has `pattern` no more, nor the channels that were told with it.
    fn let_go(&mut self, pattern: &str, ledger: &Ledger, reached: &mut Reached) {
        let told = self.matched.iter().filter(|(_, by)| *by == pattern);
        let told: Vec<String> = told.map(|(channel, _)| channel.clone()).collect();
        for channel in told {
            self.matched.remove(&channel);
            let Following { epoch, last, .. } = self.following.remove(&channel).expect("told");
            self.rolls.leave(&channel);
            if ledger.last(&channel).is_some_and(|(_, newest)| newest > last) {
                reached.count(Situation::PatternLeftAmidBacklog);
            }
            self.left.insert(channel, Position { epoch, seq: last });
        }
    }

    /// A channel that it should have been told of, because of a pattern and what was published since.
    fn untold(&self, ledger: &Ledger) -> Option<String> {
        self.patterns.iter().find_map(|(pattern, since)| {
            let mut published = ledger.published_since(*since);
            published
                .find(|it| matches(pattern, it) && !self.following.contains_key(*it))
                .map(|channel| format!("{channel}, which {pattern} matches"))
        })
    }

    /// What is still owed to it, if something is.
    pub fn owed(&self, ledger: &Ledger) -> Option<String> {
        if let Some((id, ask)) = self.asked.iter().next() {
            return Some(format!("the answer to {id}, {ask:?}"));
        }
        if !self.pings.is_empty() {
            return Some(format!("{} pongs", self.pings.len()));
        }
        if let Some(untold) = self.untold(ledger) {
            return Some(untold);
        }
        self.following.iter().find_map(|(channel, following)| {
            let home = ledger.last(channel);
            let is_even =
                home.is_some_and(|(epoch, seq)| epoch == following.epoch && seq == following.last);
            (!is_even).then(|| {
                format!("{channel} after {} of {}, home {home:?}", following.last, following.epoch)
            })
        })
    }

    /// What was acknowledged before the server began to leave has come, or was told as lost.
    pub fn check_good_bye(&self, ledger: &Ledger, began: u64) {
        for (channel, Following { epoch, last, .. }) in &self.following {
            let acked = ledger.last_acked_before(channel, epoch, began);
            assert!(
                acked.is_none_or(|acked| acked <= *last),
                "{channel} {acked:?} was acknowledged, and its subscriber was let go at {last}"
            );
        }
    }

    /// The last thing heard of a channel is its newest message, not that it was lost.
    pub fn check_newest(&self) {
        for (channel, following) in &self.following {
            assert!(
                !following.after_loss,
                "{channel}: the oldest give way, and the newest message was lost"
            );
        }
    }

    /// A pong has come. A server that leaves need not answer every ping (RFC 6455 5.5.3 lets it
    /// answer the last one only), but those that it answers in order.
    pub fn pong(&mut self, payload: &[u8], is_leaving: bool, reached: &mut Reached) {
        let at = self.pings.iter().position(|(ping, ..)| ping == payload);
        let at = at.expect("a pong says what its ping said");
        assert!(at == 0 || is_leaving, "a pong answers ping {at} of {}", self.pings.len());
        self.pings.drain(..=at);
        self.pings_heard = self.pings_heard.saturating_sub(at + 1);
        if self.pings.len() > 8 {
            reached.count(Situation::ManyPingsOutstanding);
        }
    }

    /// A text message has come.
    pub fn hear(&mut self, text: &str, now: u64, ledger: &mut Ledger, reached: &mut Reached) {
        if let Some(rest) = text.strip_prefix(r#"{"type":"message","channel":""#) {
            let (channel, rest) = rest.split_once(r#"","seq":"#).expect("channel, then seq");
            let (numbers, rest) = rest.split_once(r#","payload":"#).expect("seq, then payload");
            let payload = rest.strip_suffix('}').expect("an object ends");
            let number = |text: &str| text.parse().expect("a number");
            let (from, seq) = match numbers.split_once(r#","from":"#) {
                None => (number(numbers), number(numbers)),
                Some((seq, from)) => (number(from), number(seq)),
            };
            return self.message(channel, (from, seq), payload, now, ledger, reached);
        }
        let mut bytes = text.as_bytes().to_vec();
        let said = simd_json::to_borrowed_value(&mut bytes);
        let said = said.unwrap_or_else(|error| panic!("{text}: {error}"));
        let string = |name| said.get_str(name).unwrap_or_else(|| panic!("{text}: {name}"));
        let number = |name| said.get_u64(name).unwrap_or_else(|| panic!("{text}: {name}"));
        let kind = string("type");
        assert!(self.welcomed != (kind == "welcome"), "the welcome comes first, and once: {text}");
        match kind {
            "welcome" => self.welcomed = true,
            "goaway" => {
                self.told_to_go = true;
                reached.count(Situation::ToldToGo);
            }
            "subscribed" if said.get_str("channel").is_none() => {
                let pattern = string("pattern").to_owned();
                let ask = self.asked.remove(&number("id"));
                assert_eq!(ask, Some(Ask::Watch(pattern.clone())), "{text}");
                let matched = self.following.keys().filter(|it| matches(&pattern, it)).count();
                // Who does not want it any more is answered before all have been looked for.
                let is_leaving = self.asked.values().any(|it| *it == Ask::Unwatch(pattern.clone()));
                let channels = number("channels");
                assert!(channels >= matched as u64 || is_leaving, "{text}: it follows {matched}");
                let before = self.patterns.insert(pattern, now);
                assert!(before.is_none(), "nobody has a pattern twice: {text}");
            }
            "subscribed" if said.get_str("pattern").is_some() => {
                let place = (string("epoch"), number("seq"));
                let interval = said.get_str("conflate");
                self.begun(string("channel"), string("pattern"), place, interval, ledger);
                reached.count(Situation::ChannelBegan);
            }
            "unsubscribed" => {
                let pattern = string("pattern");
                assert_eq!(string("code"), "overloaded", "{text}");
                assert!(self.patterns.remove(pattern).is_some(), "it had the pattern: {text}");
                self.let_go(pattern, ledger, reached);
                reached.count(Situation::PatternEnded);
            }
            "ack" if said.get_str("pattern").is_some() => {
                let pattern = string("pattern");
                let ask = self.asked.remove(&number("id"));
                assert_eq!(ask, Some(Ask::Unwatch(pattern.to_owned())), "{text}");
                assert!(self.patterns.remove(pattern).is_some(), "it had the pattern: {text}");
                self.let_go(pattern, ledger, reached);
                reached.count(Situation::PatternLeft);
            }
            "subscribed" => {
                let ask = self.asked.remove(&number("id"));
                self.subscribed(ask, &said, text, reached);
            }
            "gap" => {
                self.gap(string("channel"), number("from"), number("to"), string("reason"), reached)
            }
            "ack" => {
                if said.get_bool("duplicate") == Some(true) {
                    reached.count(Situation::RepeatedPublishAcked);
                }
                self.ack(number("id"), string("channel"), number("seq"), now, ledger, reached);
            }
            "presence" => {
                let Some(Ask::Roll(page)) = self.asked.remove(&number("id")) else {
                    panic!("nobody asked: {text}");
                };
                assert_eq!(page.channel, string("channel"), "{text}");
                self.rolls.answered(&page, &said, reached);
            }
            "presence_stats" => {
                let ask = self.asked.remove(&number("id"));
                assert_eq!(ask, Some(Ask::Stats(string("channel").to_owned())), "{text}");
                let unlisted = said.get_u64("unlisted").unwrap_or_default();
                let others = number("anonymous") + unlisted;
                assert!(number("connections") >= others, "{text}");
                reached.count(Situation::StatsAnswered);
            }
            "pong" => {
                let ask = self.asked.remove(&number("id"));
                assert_eq!(ask, Some(Ask::Ping), "{text}");
            }
            "error" => {
                let code = string("code");
                reached.error(code);
                // Requests without an id are answered when they fail, and nobody knows which.
                let Some(id) = said.get_u64("id") else { return };
                let ask = self.asked.remove(&id).unwrap_or_else(|| panic!("{text}"));
                let codes: &[&str] = match &ask {
                    Ask::Subscribe(..) | Ask::Resume(..) => &[
                        "already_subscribed",
                        "not_conflated",
                        "too_many_intervals",
                        "too_many_channels",
                        "channels_exhausted",
                        "too_many_requests",
                        // Where nobody is told who comes and goes.
                        "no_presence",
                    ],
                    Ask::Roll(_) => &["channels_exhausted"],
                    Ask::Stats(_) => &[],
                    Ask::Unsubscribe(_) | Ask::Unwatch(_) => {
                        &["not_subscribed", "too_many_requests"]
                    }
                    Ask::Watch(_) => &["already_subscribed", "overloaded", "too_many_requests"],
                    Ask::Publish(publication) => {
                        ledger.refused(*publication);
                        &["overloaded", "channels_exhausted"]
                    }
                    Ask::Ping => &[],
                    Ask::Nonsense(code) => std::slice::from_ref(code),
                };
                assert!(codes.contains(&code), "{ask:?} was answered by {text}");
                if let (Ask::Watch(pattern), "overloaded") = (&ask, code) {
                    self.let_go(pattern, ledger, reached);
                }
            }
            _ => panic!("{text}"),
        }
    }

    fn subscribed(
        &mut self,
        ask: Option<Ask>,
        said: &simd_json::BorrowedValue<'_>,
        text: &str,
        reached: &mut Reached,
    ) {
        let string = |name| said.get_str(name).unwrap_or_else(|| panic!("{text}: {name}"));
        let number = |name| said.get_u64(name).unwrap_or_else(|| panic!("{text}: {name}"));
        let (channel, epoch, newest) = (string("channel"), string("epoch"), number("seq"));
        let (last, asked_at) = match ask {
            Some(Ask::Subscribe(asked, at)) if asked == channel => (newest, Some(at)),
            Some(Ask::Resume(asked, since)) if asked == channel => {
                let lost = said.get_str("reason");
                assert_eq!(said.get_bool("recovered"), Some(lost.is_none()), "{text}");
                (since.check(epoch, newest, number("from"), lost, reached), None)
            }
            ask => panic!("{ask:?} was answered by {text}"),
        };
        let is_matched = self.matched.contains_key(channel);
        if is_matched {
            reached.count(Situation::AskedForMatched);
        }
        // What it had by a pattern may have waited for it for several intervals.
        let asked_at = asked_at.filter(|_| !is_matched);
        let conflated = Conflated::told(channel, said.get_str("conflate"), asked_at, last);
        self.follow_conflated(channel, epoch, last, conflated);
    }

    /// A channel begins by a pattern, or goes on by it.
    fn begun(
        &mut self,
        channel: &str,
        pattern: &str,
        (epoch, seq): (&str, u64),
        interval: Option<&str>,
        ledger: &Ledger,
    ) {
        assert!(matches(pattern, channel), "{pattern} does not match {channel}");
        let mut asked = self.asked.values();
        let is_asked = asked.any(|ask| *ask == Ask::Watch(pattern.to_owned()));
        assert!(is_asked || self.patterns.contains_key(pattern), "nobody asked for {pattern}");
        // Nobody knows when it came into its group.
        let conflated = Conflated::told(channel, interval, None, seq);
        let following = Following::new(epoch, seq, conflated);
        match self.following.get(channel) {
            Some(known) => {
                assert!(self.matched.contains_key(channel), "{channel} was asked for");
                let place = (known.epoch.as_str(), known.last);
                assert_eq!(place, (epoch, seq), "{channel} goes on where it is");
                assert_eq!(known.interval_ms(), following.interval_ms(), "{channel} as before");
            }
            None => {
                let goes_on =
                    self.left.get(channel).is_some_and(|it| (&*it.epoch, it.seq) == (epoch, seq));
                let answered = self.patterns.get(pattern).filter(|_| !goes_on && seq > 0);
                assert!(
                    answered.is_none_or(|at| ledger.was_numbered_by(channel, epoch, seq, *at)),
                    "{channel} begins behind {seq}, which was published after {pattern} was answered"
                );
                self.rolls.follow(channel, epoch, seq);
                self.following.insert(channel.to_owned(), following);
            }
        }
        self.matched.insert(channel.to_owned(), pattern.to_owned());
    }

    fn ack(
        &mut self,
        id: u64,
        channel: &str,
        seq: u64,
        now: u64,
        ledger: &mut Ledger,
        reached: &mut Reached,
    ) {
        match self.asked.remove(&id) {
            Some(Ask::Publish(publication)) => ledger.acked(publication, channel, seq, now),
            Some(Ask::Unsubscribe(asked)) => {
                assert_eq!(asked, channel, "an ack names the channel that was asked for");
                let following = self.following.remove(channel).expect("it was subscribed");
                self.rolls.leave(channel);
                assert!(!self.matched.contains_key(channel), "{channel} was not asked for");
                assert_eq!(seq, following.last, "an unsubscribe tells the last message sent");
                if ledger.last(channel).is_some_and(|(_, last)| last > seq) {
                    reached.count(Situation::UnsubscribedAmidBacklog);
                }
                let position = Position { epoch: following.epoch, seq };
                self.left.insert(channel.to_owned(), position);
            }
            other => panic!("{id}: {other:?} was answered by an ack"),
        }
    }

    fn message(
        &mut self,
        channel: &str,
        (from, seq): (u64, u64),
        payload: &str,
        now: u64,
        ledger: &mut Ledger,
        reached: &mut Reached,
    ) {
        assert!(self.welcomed, "the welcome comes first");
        let following = self.following.get_mut(channel);
        let following = following.unwrap_or_else(|| panic!("{channel} {seq} for no subscriber"));
        assert_eq!(from, following.last + 1, "{channel}: the next message, or a gap before it");
        assert!(from == seq || from < seq && channel.starts_with("flow"), "{channel} {seq}");
        (following.last, following.after_loss) = (seq, false);
        self.received += 1;
        if std::mem::take(&mut following.after_gap) {
            reached.count(Situation::MessageAfterGap);
        }
        let epoch = following.epoch.clone();
        let direct_since = following.direct_since.get_or_insert(now);
        if self.matched.contains_key(channel) {
            following.direct_since = None;
        } else if let (Some(user), Some(grace_us)) = (&self.user, self.grace_us) {
            // It was there when that got its number, and must not be told to have left soon after.
            let numbered = ledger.numbered_at(channel, &epoch, seq);
            if numbered > *direct_since && !channel.starts_with(PREFIX) {
                ledger.was_there(channel, user, numbered, grace_us);
            }
        }
        if let Some(of) = channel.strip_prefix(PREFIX) {
            let event = Event::read(payload);
            if let (Event::Left(users), Some(grace_us)) = (&event, self.grace_us) {
                let numbered = ledger.numbered_at(channel, &epoch, seq);
                for user in users {
                    ledger.was_told_to_leave(of, user, numbered, grace_us);
                }
            }
            self.rolls.hear(channel, seq, event);
            reached.count(Situation::SomebodyTold);
            return self.check_time(channel, &epoch, seq, ledger, reached);
        }
        let publication = ledger.delivered(channel, &epoch, seq, payload);
        if let Some(conflated) = &mut following.conflated {
            let key = ledger::key(publication).filter(|_| self.has_keys);
            conflated.hear(key, seq, now, self.is_strict);
            reached.add(Situation::OthersCovered, u64::from(from < seq));
        }
        self.check_time(channel, &epoch, seq, ledger, reached);
    }

    /// A message is not too old, and not ahead of what was asked for before it.
    fn check_time(
        &self,
        channel: &str,
        epoch: &str,
        seq: u64,
        ledger: &Ledger,
        reached: &mut Reached,
    ) {
        let max_age = self.max_ages_ms[usize::from(!channel.starts_with("flow"))];
        if let Some(max_age) = max_age {
            let published = ledger.numbered_at(channel, epoch, seq);
            let age = (self.left_at / 1_000).saturating_sub(published / 1_000);
            assert!(age <= max_age, "{channel} {seq} was {age} ms old when it left");
        }
        let unanswered = self.pings.front().and_then(|(_, _, heard)| *heard);
        if let Some(heard) = unanswered {
            assert!(
                ledger.was_numbered_by(channel, epoch, seq, heard),
                "{channel} {seq} overtook the answer to a ping that was heard before it was published"
            );
            reached.count(Situation::PingUnansweredAmidMessages);
        }
    }

    fn gap(&mut self, channel: &str, from: u64, to: u64, reason: &str, reached: &mut Reached) {
        let following = self.following.get_mut(channel);
        let following = following.unwrap_or_else(|| panic!("a gap of {channel} for no subscriber"));
        assert_eq!(from, following.last + 1, "{channel}: a gap begins where the last one ended");
        assert!(to >= from, "a gap has a length");
        following.last = to;
        if channel.starts_with(PREFIX) {
            self.rolls.hear(channel, to, Event::Unknown);
        }
        if let Some(conflated) = &mut following.conflated {
            conflated.gaps.push((from, to));
            reached.count(Situation::GapWhereConflated);
        }
        let (situation, is_counted) = match reason {
            "slow_consumer" => (Situation::GapForSlowness, true),
            "memory" => (Situation::GapForMemory, true),
            "stale" => (Situation::GapForStaleness, true),
            // It was never offered: nobody was slow.
            "too_old" => (Situation::GapForAge, false),
            "limit" => (Situation::GapForLimit, false),
            "epoch_changed" => (Situation::GapForAnotherLife, false),
            other => panic!("a gap because of {other}"),
        };
        following.after_loss = is_counted;
        self.lost += if is_counted { to - from + 1 } else { 0 };
        reached.count(situation);
        if std::mem::replace(&mut following.after_gap, true) {
            reached.count(Situation::GapAfterGap);
        }
    }
}

/// A duration as the server writes it.
fn millis(written: &str) -> u64 {
    let (number, unit) = match written.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (
            written.trim_end_matches(['s', 'm']),
            if written.ends_with('m') { 60_000 } else { 1_000 },
        ),
    };
    number.parse::<u64>().expect("a number and a unit") * unit
}

/// What a pattern means, written down here a second time.
fn matches(pattern: &str, channel: &str) -> bool {
    let (pattern, channel) = (pattern.split('.'), channel.split('.'));
    let (pattern, channel): (Vec<_>, Vec<_>) = (pattern.collect(), channel.collect());
    let is_open = pattern.last() == Some(&">");
    let fixed = pattern.len() - usize::from(is_open);
    let fits = if is_open { channel.len() > fixed } else { channel.len() == fixed };
    let mut pairs = pattern[..fixed].iter().zip(&channel);
    fits && pairs.all(|(segment, name)| *segment == "*" || segment == name)
}
