//! Several shards whose letters arrive in a seeded order, and clients that do anything at any
//! time: a day in the life of the hub, replayed from a number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::wire::{Heard, Resumed};
use super::world::{World, settings};
use crate::hub::topic::State;
use crate::hub::*;
use crate::limits::CHANNEL_IDLE;
use crate::proto::envelope::Since;
use crate::proto::envelope::pattern::matches;

/// What one client knows, from nothing but what it heard.
#[derive(Debug, Default)]
struct Account {
    /// Channels it is subscribed to: the epoch and the last message heard or told of.
    channels: BTreeMap<String, (String, u64)>,
    /// Of these, those that it has not asked for itself, and the pattern that they were told with.
    matched: BTreeMap<String, String>,
    /// Where it was in those it left.
    left: BTreeMap<String, (String, u64)>,
    /// Its requests, by id, that may still be answered.
    resumes: BTreeMap<u64, Asked>,
    unsubscribes: BTreeMap<u64, String>,
    /// Patterns it has, and what it has asked about patterns.
    patterns: BTreeSet<String>,
    watches: BTreeMap<u64, String>,
    unwatches: BTreeMap<u64, String>,
    publishes: BTreeMap<u64, String>,
    retired: bool,
}

/// Where a client said that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    After { epoch: String, seq: u64 },
    Last(u32),
}

impl Asked {
    fn since(&self) -> Since<'_> {
        match self {
            Self::After { epoch, seq } => Since::After { epoch, seq: *seq },
            Self::Last(count) => Since::Last(*count),
        }
    }

    /// Whether the answer may be so; returns the last message the client has by that.
    fn check(&self, told_epoch: &str, newest: u64, resumed: Resumed) -> u64 {
        let (from, lost) = resumed.expect("who says where it was is told where it goes on");
        match (self, lost.as_deref()) {
            (Self::After { epoch, seq }, None | Some("too_old" | "limit")) => {
                assert_eq!((epoch.as_str(), seq + 1), (told_epoch, from));
            }
            (Self::After { epoch, seq }, Some("epoch_changed")) => {
                assert!(epoch != told_epoch || *seq > newest, "nothing has begun anew");
                assert_eq!(from, 1);
            }
            (Self::Last(count), lost) => {
                let wanted = (newest + 1).saturating_sub(u64::from(*count)).max(1);
                assert!((wanted..=newest + 1).contains(&from), "{self:?} is {from} of {newest}");
                assert_eq!(lost.is_none(), from == wanted);
            }
            (asked, lost) => panic!("{asked:?}: {lost:?}"),
        }
        from - 1
    }
}

impl Account {
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Subscribed { id, channel, epoch, seq, resumed } => {
                let seq = match self.resumes.remove(&id) {
                    Some(asked) => asked.check(&epoch, seq, resumed),
                    None => seq,
                };
                let before = self.channels.insert(channel.clone(), (epoch.clone(), seq));
                if let Some(before) = before {
                    let by = self.matched.remove(&channel);
                    assert!(by.is_some(), "nobody is subscribed twice");
                    assert_eq!(before, (epoch, seq), "it is told where it is");
                }
            }
            Heard::Matched { channel, pattern, epoch, seq, conflate } => {
                assert_eq!(conflate.is_some(), channel.starts_with("flow"), "{channel}");
                let is_meant = matches(&pattern, &channel);
                let asked = self.watches.values().any(|asked| *asked == pattern);
                assert!(is_meant && (asked || self.patterns.contains(&pattern)), "{pattern}");
                let place = (epoch, seq);
                if let Some(before) = self.channels.insert(channel.clone(), place.clone()) {
                    assert!(self.matched.contains_key(&channel), "it has asked for {channel}");
                    assert_eq!(before, place, "it goes on where it is");
                }
                self.matched.insert(channel, pattern);
            }
            Heard::SubscribedPattern { id, pattern, channels } => {
                assert_eq!(self.watches.remove(&id).as_ref(), Some(&pattern));
                let matched = self.channels.keys().filter(|it| matches(&pattern, it)).count();
                // What it comes back to is not told before its page has come.
                assert!(channels >= matched as u64, "{channels} match {pattern}, not {matched}");
                assert!(self.patterns.insert(pattern), "nobody has a pattern twice");
            }
            Heard::AckPattern { id, pattern } => {
                assert_eq!(self.unwatches.remove(&id).as_ref(), Some(&pattern));
                assert!(self.patterns.remove(&pattern), "it had the pattern");
                self.let_go(&pattern);
            }
            Heard::PatternEnded { pattern, code } => {
                assert_eq!(code, "overloaded");
                assert!(self.patterns.remove(&pattern), "it had the pattern");
                self.let_go(&pattern);
            }
            Heard::Message { channel, from, seq } => self.advance(&channel, from, seq),
            Heard::Gap { channel, from, to, .. } => self.advance(&channel, from, to),
            Heard::Ack { id, channel, seq } => {
                if self.unsubscribes.remove(&id).is_some() {
                    let (epoch, last) = self.channels.remove(&channel).expect("it was subscribed");
                    assert_eq!(seq, last, "an unsubscribe tells the last message sent");
                    assert!(!self.matched.contains_key(&channel), "it has asked for {channel}");
                    self.left.insert(channel, (epoch, last));
                } else {
                    assert_eq!(self.publishes.remove(&id), Some(channel));
                }
            }
            Heard::Error { id, code } => {
                let id = id.expect("every request has an id");
                self.resumes.remove(&id);
                self.unsubscribes.remove(&id);
                self.publishes.remove(&id);
                self.unwatches.remove(&id);
                if let Some(pattern) = self.watches.remove(&id)
                    && code != "already_subscribed"
                {
                    self.let_go(&pattern);
                }
            }
            Heard::Pong { .. } => unreachable!("nobody pings"),
            Heard::Told { .. } | Heard::Presence { .. } | Heard::PresenceStats { .. } => {
                unreachable!("no rule has presence")
            }
        }
    }

    /// It has `pattern` no more, nor the channels that were told with it.
    fn let_go(&mut self, pattern: &str) {
        let told = self.matched.iter().filter(|(_, by)| *by == pattern);
        let told: Vec<String> = told.map(|(channel, _)| channel.clone()).collect();
        for channel in told {
            self.matched.remove(&channel);
            let place = self.channels.remove(&channel).expect("it was told");
            self.left.insert(channel, place);
        }
    }

    /// `from..=to` follows what was heard before, without a hole and without a repetition.
    fn advance(&mut self, channel: &str, from: u64, to: u64) {
        let (_, last) = self.channels.get_mut(channel).expect("only subscribers hear messages");
        assert_eq!(from, *last + 1, "{channel}");
        assert!(to >= from);
        *last = to;
    }
}

/// What clients watch for.
const PATTERNS: [&str; 8] =
    [">", "*", "old.>", "old.*.*", "*.1.*", "new.*.>", "close.0.*", "flow.>"];

struct Day {
    world: World,
    random: fastrand::Rng,
    accounts: Vec<Account>,
    channels: Vec<String>,
    next_id: u64,
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = Settings {
            shards: random.u16(1..=4),
            outbox: Capacity { messages: random.u32(1..12), bytes: random.u32(60..2_000) },
            channels_per_client_max: random.usize(1..6),
            channels_max: random.usize(1..8),
            memory_bytes_max: if random.bool() { 1 << 20 } else { random.usize(2_000..20_000) },
            home_seed: random.u64(..),
            ..settings()
        };
        let mut settings = settings;
        let history = Retention {
            messages: if random.bool() { random.u32(1..40) } else { 0 },
            age: Duration::from_millis(random.u64(1_000..200_000)),
            bytes: random.usize(100..4_000),
        };
        settings.rules.default.history = history;
        let conflated = Rule {
            history,
            overflow: if random.bool() { Overflow::DropOldest } else { Overflow::DropNewest },
            conflate: Conflate {
                key: random.bool().then(|| "k".into()),
                interval: Some(Duration::from_millis(random.u64(10..500))),
            },
            ..Rule::default()
        };
        settings.rules.rules.extend(
            ["flow*", "flow.>"]
                .map(|pattern| ChannelRule { pattern: pattern.into(), rule: conflated.clone() }),
        );
        settings.rules.rules[0].rule.history = history;
        let channels = (0..random.usize(1..8)).map(|number| {
            let kind = random.choice(["old", "new", "close", "flow"]).expect("one of four");
            match random.bool() {
                true => format!("{kind}{number}"),
                false => format!("{kind}.{}.{number}", number % 2),
            }
        });
        Self {
            channels: channels.collect(),
            world: World::new(&settings, seed),
            random,
            accounts: Vec::new(),
            next_id: 0,
        }
    }

    fn step(&mut self) {
        match self.random.u8(..) {
            0..20 => {
                let shard = self.random.usize(..self.world.hubs.len());
                // Who hears bare payloads cannot say which messages they were.
                let formats = Format::ALL.into_iter().filter(|format| *format != Format::Raw);
                let format =
                    self.random.choice(formats.collect::<Vec<_>>()).expect("there are some");
                self.world.open_with(shard, format);
                self.accounts.push(Account::default());
            }
            20..110 => self.client_step(),
            110..180 => {
                let random = &mut self.random;
                self.world.deliver(|lines| random.usize(..lines));
            }
            180..250 => {
                let shard = self.random.usize(..self.world.hubs.len());
                self.world.now = self.world.now + Duration::from_millis(self.random.u64(..40));
                self.world.settle(shard);
                self.hear();
            }
            _ => {
                self.world.now = self.world.now + CHANNEL_IDLE / self.random.u32(1..5);
                for hub in &mut self.world.hubs {
                    hub.expire_channels(self.world.now);
                }
            }
        }
    }

    fn client_step(&mut self) {
        let living = (0..self.accounts.len()).filter(|at| self.world.clients[*at].is_open);
        let Some(client) = self.random.choice(living.collect::<Vec<_>>()) else { return };
        let channel = self.random.choice(&self.channels).expect("there is one").clone();
        self.next_id += 1;
        let id = self.next_id;
        let account = &mut self.accounts[client];
        match self.random.u8(..100) {
            0..8 => {
                let intervals = self.random.u64(..12) * 300;
                let conflate = (intervals > 0 && channel.starts_with("flow"))
                    .then(|| Duration::from_millis(intervals));
                self.world.subscribe_on(client, id, &channel, Terms { since: None, conflate });
            }
            8..13 => {
                let pattern = self.random.choice(PATTERNS).expect("there are some");
                account.watches.insert(id, pattern.into());
                self.world.subscribe_pattern(client, id, pattern);
            }
            13..17 => {
                let pattern = self.random.choice(PATTERNS).expect("there are some");
                account.unwatches.insert(id, pattern.into());
                self.world.unsubscribe_pattern(client, id, pattern);
            }
            17..27 => self.resume(client, id, &channel),
            27..35 => {
                account.unsubscribes.insert(id, channel.clone());
                self.world.unsubscribe(client, id, &channel);
            }
            35..75 => {
                for id in id..id + self.random.u64(1..6) {
                    self.accounts[client].publishes.insert(id, channel.clone());
                    self.next_id = id;
                    let (key, bytes) = (self.random.u8(..5), self.random.usize(..200));
                    let payload = format!("{{\"k\":{key},\"x\":\"{}\"}}", "x".repeat(bytes));
                    self.world.publish_payload(client, id, &channel, &payload);
                }
            }
            75..84 => {
                // A socket that is full after so many bytes, or takes so many more.
                let bytes = self.random.usize(..600);
                if self.world.clients[client].room == usize::MAX {
                    self.world.clients[client].room = bytes;
                } else {
                    self.world.make_room(client, bytes);
                }
            }
            84..92 => self.world.make_room(client, usize::MAX),
            92..94 => self.world.clients[client].is_broken = true,
            94..97 => {
                account.retired = true;
                let of = &self.world.clients[client];
                let hub = &mut self.world.hubs[of.shard];
                if hub.retire(of.key) {
                    self.world.close(client);
                }
            }
            _ => self.world.close(client),
        }
    }

    /// Comes back to where it, or somebody before it, was.
    fn resume(&mut self, client: usize, id: u64, channel: &str) {
        let (random, accounts) = (&mut self.random, &self.accounts);
        let known = accounts.iter().filter_map(|account| {
            account.left.get(channel).or_else(|| account.channels.get(channel))
        });
        let asked = match random.choice(known.collect::<Vec<_>>()) {
            Some((epoch, seq)) if random.u8(..4) > 0 => {
                Asked::After { epoch: epoch.clone(), seq: random.u64(seq.saturating_sub(3)..=*seq) }
            }
            _ if random.bool() => Asked::After { epoch: "another".into(), seq: 3 },
            _ => Asked::Last(random.u32(..20)),
        };
        self.accounts[client].resumes.insert(id, asked.clone());
        self.world.resume(client, id, channel, Some(asked.since()));
    }

    fn hear(&mut self) {
        for (client, account) in self.accounts.iter_mut().enumerate() {
            for heard in self.world.take_heard(client) {
                account.hear(heard);
            }
        }
    }

    /// What the home of `channel` says of it.
    fn numbering(&self, channel: &str) -> (&str, u64) {
        let home = usize::from(self.world.hubs[0].topics.home(channel));
        let topics = &self.world.hubs[home].topics;
        match &topics.get(topics.find(channel).expect("it lives")).expect("it lives").state {
            State::Attached { epoch, seq } => (epoch.as_str(), *seq),
            State::Attaching(_) => unreachable!("a home is attached to itself"),
        }
    }

    /// Lets the world heal, and looks whether everything drains.
    fn evening(&mut self) {
        for client in 0..self.accounts.len() {
            self.world.clients[client].is_broken = false;
            self.world.make_room(client, usize::MAX);
        }
        self.world.run();
        // What waits for the end of an interval.
        self.world.now = self.world.now + Duration::from_secs(4);
        self.world.run();
        self.hear();
        // Whoever is subscribed knows of everything that was given a number.
        for (client, account) in self.accounts.iter().enumerate() {
            let of = &self.world.clients[client];
            if !of.is_open || account.retired {
                continue;
            }
            assert!(!of.throttled && !of.blocked);
            assert!(account.unsubscribes.is_empty() && account.publishes.is_empty());
            assert!(account.watches.is_empty() && account.unwatches.is_empty());
            // And whoever has a pattern, of every channel that matches.
            for (channel, ..) in self.world.hubs.iter().flat_map(Hub::homes) {
                let is_matched = account.patterns.iter().any(|it| matches(it, channel));
                assert!(!is_matched || account.channels.contains_key(channel), "{channel}");
            }
            assert!(account.resumes.is_empty(), "everybody is told where it goes on");
            for (channel, (epoch, last)) in &account.channels {
                assert_eq!((epoch.as_str(), *last), self.numbering(channel), "{channel}");
            }
        }
        for hub in &self.world.hubs {
            assert_eq!(hub.segments_bytes() as u64, hub.audit().kept_bytes);
            assert_eq!(hub.replies_bytes(), 0);
            assert_eq!(hub.flow().blocked, 0);
            assert_eq!(hub.audit().conflated_waiting, 0);
        }
        for client in 0..self.accounts.len() {
            if self.world.clients[client].is_open {
                self.world.close(client);
            }
        }
        self.world.run();
        // Groups are forgotten when their time has come.
        self.world.now = self.world.now + Duration::from_secs(4);
        self.world.run();
        for hub in &mut self.world.hubs {
            assert_eq!(hub.counts().subscriptions, 0);
            // The oldest history is kept for 200 s, and then it is idle.
            for _ in 0..6 {
                self.world.now = self.world.now + CHANNEL_IDLE;
                hub.expire_channels(self.world.now);
            }
            assert_eq!((hub.segments_bytes(), hub.patterns_bytes()), (0, 0));
            assert_eq!((hub.channels(), hub.counts().channels_home), (0, 0));
            assert_eq!((hub.next_channel_expiry(), hub.next_flush()), (None, None));
            assert_eq!(hub.conflated_bytes(), 0);
        }
    }
}

#[test]
fn whatever_clients_do_and_however_letters_arrive_nobody_misses_a_message_untold() {
    let (mut messages, mut gaps, mut compressed) = (0, 0, 0);
    for seed in 0..400 {
        let flow = std::panic::catch_unwind(|| {
            let mut day = Day::new(seed);
            for _ in 0..600 {
                day.step();
            }
            day.evening();
            let flow = day.world.hubs.iter().map(Hub::flow);
            let compressed: u64 =
                day.world.clients.iter().map(|client| client.wire.compressed).sum();
            flow.fold((0, 0, compressed), |(all, gaps, compressed), flow| {
                (all + flow.deliveries, gaps + flow.gaps, compressed)
            })
        });
        let Ok(flow) = flow else { panic!("seed {seed}") };
        messages += flow.0;
        gaps += flow.1;
        compressed += flow.2;
    }
    assert!(compressed > 2_000, "{compressed} compressed messages prove little");
    assert!(messages > 10_000 && gaps > 500, "{messages} messages and {gaps} gaps prove little");
}
