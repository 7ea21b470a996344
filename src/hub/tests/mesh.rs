//! Several shards whose letters arrive in a seeded order, and clients that do anything at any
//! time: a day in the life of the hub, replayed from a number.

use std::collections::BTreeMap;

use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::topic::State;
use crate::hub::*;
use crate::limits::CHANNEL_IDLE;

/// What one client knows, from nothing but what it heard.
#[derive(Debug, Default)]
struct Account {
    /// Channels it is subscribed to: the epoch and the last message heard or told of.
    channels: BTreeMap<String, (String, u64)>,
    /// Its unsubscribes and publishes, by id, that may still be answered.
    unsubscribes: BTreeMap<u64, String>,
    publishes: BTreeMap<u64, String>,
    retired: bool,
}

impl Account {
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Subscribed { channel, epoch, seq, .. } => {
                let before = self.channels.insert(channel, (epoch, seq));
                assert!(before.is_none(), "nobody is subscribed twice");
            }
            Heard::Message { channel, seq } => self.advance(&channel, seq, seq),
            Heard::Gap { channel, from, to, .. } => self.advance(&channel, from, to),
            Heard::Ack { id, channel, seq } => {
                if self.unsubscribes.remove(&id).is_some() {
                    let (_, last) = self.channels.remove(&channel).expect("it was subscribed");
                    assert_eq!(seq, last, "an unsubscribe tells the last message sent");
                } else {
                    assert_eq!(self.publishes.remove(&id), Some(channel));
                }
            }
            Heard::Error { id, .. } => {
                let id = id.expect("every request has an id");
                self.unsubscribes.remove(&id);
                self.publishes.remove(&id);
            }
            Heard::Pong { .. } => unreachable!("nobody pings"),
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
        let channels = (0..random.usize(1..8)).map(|number| {
            format!("{}{number}", random.choice(["old", "new", "close"]).expect("one of three"))
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
                self.world.open(shard);
                self.accounts.push(Account::default());
            }
            20..110 => self.client_step(),
            110..180 => {
                let random = &mut self.random;
                self.world.deliver(|lines| random.usize(..lines));
            }
            180..250 => {
                let shard = self.random.usize(..self.world.hubs.len());
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
            0..25 => self.world.subscribe(client, id, &channel),
            25..35 => {
                account.unsubscribes.insert(id, channel.clone());
                self.world.unsubscribe(client, id, &channel);
            }
            35..75 => {
                for id in id..id + self.random.u64(1..6) {
                    self.accounts[client].publishes.insert(id, channel.clone());
                    self.next_id = id;
                    let bytes = self.random.usize(..200);
                    self.world.publish_bytes(client, id, &channel, bytes);
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
                hub.retire(of.key);
                if hub.is_drained(of.key) {
                    self.world.close(client);
                }
            }
            _ => self.world.close(client),
        }
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
        self.hear();
        // Whoever is subscribed knows of everything that was given a number.
        for (client, account) in self.accounts.iter().enumerate() {
            let of = &self.world.clients[client];
            if !of.is_open || account.retired {
                continue;
            }
            assert!(!of.throttled && !of.blocked);
            assert!(account.unsubscribes.is_empty() && account.publishes.is_empty());
            for (channel, (epoch, last)) in &account.channels {
                assert_eq!((epoch.as_str(), *last), self.numbering(channel), "{channel}");
            }
        }
        for hub in &self.world.hubs {
            assert_eq!((hub.segments_bytes(), hub.replies_bytes()), (0, 0));
            assert_eq!(hub.flow().blocked, 0);
        }
        for client in 0..self.accounts.len() {
            if self.world.clients[client].is_open {
                self.world.close(client);
            }
        }
        self.world.run();
        self.world.now = self.world.now + CHANNEL_IDLE;
        for hub in &mut self.world.hubs {
            assert_eq!(hub.counts().subscriptions, 0);
            hub.expire_channels(self.world.now);
            hub.expire_channels(self.world.now + CHANNEL_IDLE);
            assert_eq!((hub.channels(), hub.counts().channels_home), (0, 0));
            assert_eq!(hub.next_channel_expiry(), None);
        }
    }
}

#[test]
fn whatever_clients_do_and_however_letters_arrive_nobody_misses_a_message_untold() {
    let (mut messages, mut gaps) = (0, 0);
    for seed in 0..400 {
        let flow = std::panic::catch_unwind(|| {
            let mut day = Day::new(seed);
            for _ in 0..600 {
                day.step();
            }
            day.evening();
            let flow = day.world.hubs.iter().map(Hub::flow);
            flow.fold((0, 0), |(all, gaps), flow| (all + flow.deliveries, gaps + flow.gaps))
        });
        let Ok(flow) = flow else { panic!("seed {seed}") };
        messages += flow.0;
        gaps += flow.1;
    }
    assert!(messages > 10_000 && gaps > 500, "{messages} messages and {gaps} gaps prove little");
}
