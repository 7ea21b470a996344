//! Test support: hubs that write to each other, and clients with sockets of a given size.
//!
//! Letters travel as between shards: in order on each line, and a line for each pair of shards
//! and each kind of letter; which line moves next is the test's choice.

use std::collections::{BTreeMap, VecDeque};

use super::wire::{Heard, Wire};
use crate::hub::*;
use crate::mem::Key;
use crate::proto::envelope::{self, Since};
use crate::time::Time;

pub(super) struct World {
    pub(super) hubs: Vec<Hub>,
    pub(super) clients: Vec<Client>,
    pub(super) now: Time,
    lines: BTreeMap<Line, VecDeque<Letter>>,
    /// Keys of lives that have ended, by shard, and how many slots there are.
    free: Vec<(Vec<Key>, u32)>,
}

/// From, to, and whether it carries deliveries.
type Line = (ShardIndex, ShardIndex, bool);

pub(super) struct Client {
    pub(super) shard: usize,
    pub(super) key: Key,
    pub(super) wire: Wire,
    /// What was heard and not taken yet.
    pub(super) heard: Vec<Heard>,
    /// Bytes its socket takes before it is full.
    pub(super) room: usize,
    pub(super) blocked: bool,
    pub(super) is_open: bool,
    /// The next send finds the connection broken.
    pub(super) is_broken: bool,
    pub(super) throttled: bool,
}

pub(super) fn settings() -> Settings {
    Settings {
        shard: 0,
        shards: 1,
        home_seed: 7,
        outbox: Capacity { messages: 8, bytes: 4_096 },
        channels_per_client_max: 4,
        channels_max: 100,
        compression_level: 2,
        memory_bytes_max: 1 << 20,
        rules: Rules {
            rules: [("new*", Overflow::DropNewest), ("close*", Overflow::Close)]
                .map(|(pattern, overflow)| ChannelRule {
                    pattern: pattern.into(),
                    rule: Rule { overflow, ..Rule::default() },
                })
                .into(),
            default: Rule::default(),
        },
    }
}

impl World {
    pub(super) fn new(settings: &Settings, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let hubs = (0..settings.shards)
            .map(|shard| Hub::new(Settings { shard, ..settings.clone() }, random.fork()));
        Self {
            hubs: hubs.collect(),
            clients: Vec::new(),
            now: Time::START,
            lines: BTreeMap::new(),
            free: (0..settings.shards).map(|_| (Vec::new(), 0)).collect(),
        }
    }

    /// Opens a client whose messages are written in `format`.
    pub(super) fn open_with(&mut self, shard: usize, format: Format) -> usize {
        let client = self.open(shard);
        self.hubs[shard].agree(self.clients[client].key, format);
        client
    }

    /// Opens a client that says who it is.
    pub(super) fn open_as(&mut self, shard: usize, user: &str) -> usize {
        let client = self.open(shard);
        self.hubs[shard].introduce(self.clients[client].key, user);
        client
    }

    pub(super) fn open(&mut self, shard: usize) -> usize {
        let (free, slots) = &mut self.free[shard];
        let key = free.pop().unwrap_or_else(|| {
            *slots += 1;
            Key::new(*slots - 1, 0)
        });
        self.hubs[shard].open(key);
        self.clients.push(Client {
            shard,
            key,
            wire: Wire::new(),
            heard: Vec::new(),
            room: usize::MAX,
            blocked: false,
            is_open: true,
            is_broken: false,
            throttled: false,
        });
        self.clients.len() - 1
    }

    pub(super) fn subscribe(&mut self, client: usize, id: u64, channel: &str) {
        self.resume(client, id, channel, None);
    }

    pub(super) fn resume(&mut self, client: usize, id: u64, channel: &str, since: Option<Since>) {
        self.subscribe_on(client, id, channel, since.map(Recall::from).into());
    }

    pub(super) fn subscribe_on(&mut self, client: usize, id: u64, channel: &str, terms: Terms) {
        self.ask(client, id, |hub, key, id, replies, now| {
            hub.subscribe(key, id, channel, terms, replies, now)
        });
    }

    pub(super) fn unsubscribe(&mut self, client: usize, id: u64, channel: &str) {
        self.ask(client, id, |hub, key, id, replies, now| {
            hub.unsubscribe(key, id, channel, replies, now)
        });
    }

    pub(super) fn subscribe_pattern(&mut self, client: usize, id: u64, pattern: &str) {
        self.ask(client, id, |hub, key, id, replies, now| {
            hub.subscribe_pattern(key, id, pattern, replies, now)
        });
    }

    pub(super) fn unsubscribe_pattern(&mut self, client: usize, id: u64, pattern: &str) {
        self.ask(client, id, |hub, key, id, replies, now| {
            hub.unsubscribe_pattern(key, id, pattern, replies, now)
        });
    }

    /// Asks for the users behind `after`, or for numbers.
    pub(super) fn call_roll(&mut self, client: usize, id: u64, channel: &str, roll: Ask) {
        self.ask(client, id, |hub, key, id, _, now| hub.call_roll(key, id, channel, roll, now));
    }

    pub(super) fn publish(&mut self, client: usize, id: u64, channel: &str) {
        self.publish_bytes(client, id, channel, 10);
    }

    pub(super) fn publish_bytes(&mut self, client: usize, id: u64, channel: &str, bytes: usize) {
        let payload = format!("\"{}\"", "x".repeat(bytes));
        self.publish_payload(client, id, channel, &payload);
    }

    pub(super) fn publish_payload(&mut self, client: usize, id: u64, channel: &str, payload: &str) {
        self.ask(client, id, |hub, client, id, _, now| {
            let payload = payload.as_bytes();
            hub.publish(client, Publish { channel, payload, id, key: None }, now)
        });
    }

    /// Does what the shard does with a request.
    fn ask(
        &mut self,
        client: usize,
        id: u64,
        ask: impl FnOnce(&mut Hub, Key, Option<&[u8]>, &mut Vec<u8>, Time) -> Result<(), Refusal>,
    ) {
        let Client { shard, key, .. } = self.clients[client];
        let hub = &mut self.hubs[shard];
        let (raw, mut replies) = (id.to_string(), Vec::new());
        let id = Some(raw.as_bytes());
        if let Err(refusal) = ask(hub, key, id, &mut replies, self.now) {
            envelope::error(&mut replies, id, refusal.code(), refusal.reason());
        }
        hub.reply(key, &mut replies);
        self.clients[client].throttled |= hub.throttle(key);
        self.post(shard);
    }

    pub(super) fn close(&mut self, client: usize) {
        let Client { shard, key, .. } = self.clients[client];
        assert!(std::mem::take(&mut self.clients[client].is_open));
        self.hubs[shard].close(key, self.now);
        self.free[shard].0.push(key.next_life());
        self.post(shard);
    }

    /// Puts the hub's letters on their lines.
    pub(super) fn post(&mut self, from: usize) {
        let mut letters = Vec::new();
        self.hubs[from].take_letters(&mut letters);
        for (to, letter) in letters {
            assert_ne!(usize::from(to), from, "nobody writes to himself");
            let line = (from as ShardIndex, to, matches!(letter, Letter::Delivery(_)));
            self.lines.entry(line).or_default().push_back(letter);
        }
    }

    /// Lets the oldest letter of one of the lines that carry some be heard.
    pub(super) fn deliver(&mut self, choose: impl FnOnce(usize) -> usize) -> bool {
        self.lines.retain(|_, letters| !letters.is_empty());
        if self.lines.is_empty() {
            return false;
        }
        let chosen = choose(self.lines.len());
        let (line, letters) = self.lines.iter_mut().nth(chosen).expect("one of the lines");
        let letter = letters.pop_front().expect("empty lines were taken out");
        self.hubs[usize::from(line.1)].hear(letter, self.now);
        true
    }

    /// The end of a tick.
    pub(super) fn settle(&mut self, shard: usize) {
        let mut rounds = 0;
        self.hubs[shard].expire_presence(self.now);
        self.hubs[shard].tell_presence(self.now);
        self.hubs[shard].recall_due(self.now);
        self.hubs[shard].search(self.now);
        while self.hubs[shard].settle(self.now) == Settled::OutboxFull {
            self.flush(shard);
            rounds += 1;
            assert!(rounds < 10_000, "a flush makes room");
        }
        self.post(shard);
        self.hubs[shard].acknowledge_settled();
        self.post(shard);
        let mut failed = Vec::new();
        self.hubs[shard].take_failed(&mut failed);
        for (key, _) in failed {
            let at = self.find(shard, key);
            if self.clients[at].is_open {
                self.close(at);
            }
        }
        self.flush(shard);
        self.relieve(shard);
        self.post(shard);
        let _ = self.hubs[shard].audit();
    }

    /// Does what the shard does at the memory ceiling.
    fn relieve(&mut self, shard: usize) {
        if !self.hubs[shard].is_overloaded() {
            return;
        }
        for Burden { way, .. } in self.hubs[shard].burdens() {
            if self.hubs[shard].is_relieved() {
                break;
            }
            match way {
                Way::Shed(client) => self.hubs[shard].shed(client),
                Way::CutOff(client) => self.close(self.find(shard, client)),
                Way::Forget(topic) => self.hubs[shard].give_up_history(topic),
            }
        }
    }

    /// The name of a channel whose home is `shard`.
    pub(super) fn channel_at_home_on(&self, shard: ShardIndex) -> String {
        let mut names = (0..).map(|number| format!("c{number}"));
        names.find(|name| self.hubs[0].topics.home(name) == shard).expect("one of them")
    }

    fn find(&self, shard: usize, key: Key) -> usize {
        let of = |client: &Client| client.shard == shard && client.key == key;
        self.clients.iter().position(of).expect("a client we opened")
    }

    pub(super) fn flush(&mut self, shard: usize) {
        let mut batch = Vec::new();
        while self.hubs[shard].has_dirty() {
            self.hubs[shard].take_dirty(&mut batch, 3);
            for key in batch.drain(..) {
                self.send(shard, key);
            }
        }
    }

    fn send(&mut self, shard: usize, key: Key) {
        let at = self.find(shard, key);
        let mut slices = Vec::new();
        self.hubs[shard].gather(key, &mut slices, 4);
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        if bytes.is_empty() {
            return;
        }
        if self.clients[at].is_broken {
            self.close(at);
            return;
        }
        let client = &mut self.clients[at];
        assert!(!client.blocked, "nobody sends to a full socket");
        let taken = bytes.len().min(client.room);
        client.room = client.room.saturating_sub(if client.room == usize::MAX { 0 } else { taken });
        client.heard.extend(client.wire.feed(&bytes[..taken]));
        if taken < bytes.len() {
            client.blocked = true;
            self.hubs[shard].blocked(key);
        }
        let progress = self.hubs[shard].sent(key, taken);
        self.clients[at].throttled |= self.hubs[shard].throttle(key);
        self.clients[at].throttled &= !progress.unthrottled;
        if progress.finished {
            self.close(at);
        }
    }

    /// The socket of `client` takes `room` bytes more.
    pub(super) fn make_room(&mut self, client: usize, room: usize) {
        let client = &mut self.clients[client];
        client.room = if room == usize::MAX { room } else { client.room.saturating_add(room) };
        if std::mem::take(&mut client.blocked) && client.is_open {
            self.hubs[client.shard].unblocked(client.key, self.now);
        }
    }

    /// Lets everything that is on its way arrive.
    pub(super) fn run(&mut self) {
        loop {
            for shard in 0..self.hubs.len() {
                self.settle(shard);
            }
            let is_busy = |hub: &Hub| {
                hub.has_recalls_due() || hub.has_searches() || hub.has_presence_to_tell()
            };
            if !self.deliver(|_| 0) && !self.hubs.iter().any(is_busy) {
                break;
            }
        }
    }

    pub(super) fn take_heard(&mut self, client: usize) -> Vec<Heard> {
        std::mem::take(&mut self.clients[client].heard)
    }
}
