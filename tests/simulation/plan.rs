//! What a seed decides before anything happens: the house, the people, and the weather.
//!
//! Each world is a swarm of its own: it draws which kinds of trouble there are at all, then how
//! often. A world with every kind of trouble at once would hardly ever get far into one of them.

use std::time::Duration;

use ringcast::conn;
use ringcast::hub::{
    self, Capacity, ChannelRule, Conflate, KeyWindow, Overflow, Presence, Retention, Rule, Rules,
};
use ringcast::io::sim::{Faults, Line};
use ringcast::proto::http::Cors;
use ringcast::shard::{MailboxRoom, Settings};

/// Things that people do in one world, about.
const ACTS_MAX: u64 = 10_000;

/// Bytes of memory that no world needs.
const PLENTY: usize = 16 << 20;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many shards.
    pub shards: u16,
    /// Of shard 0; the others differ in their number only.
    pub settings: Settings,
    /// Of every mailbox.
    pub room: MailboxRoom,
    /// Connections that may be open.
    pub connections_max: usize,
    /// Connections from one address.
    pub per_address_max: Option<usize>,
    /// What goes wrong in the drivers.
    pub faults: Faults,
    /// What goes wrong with time and the uplink.
    pub weather: Weather,
    /// How many people there are.
    pub peers: u32,
    /// Of how many of them share one address.
    pub peers_per_address: u32,
    /// What people do, and how often.
    pub habits: Habits,
    /// Channels they speak of.
    pub channels: Vec<String>,
    /// Microseconds of ordinary life before everything heals.
    pub life_us: u64,
    /// Microseconds in the middle of it in which nobody does anything: channels are forgotten.
    pub lull_us: u64,
    /// How it ends.
    pub ending: Ending,
}

/// How a world ends, after everything has healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everybody leaves.
    Deserted,
    /// The server drains, at this part (in thousandths) of ordinary life, with all its trouble.
    DrainedInTrouble(u16),
    /// The server drains when all is well.
    DrainedInPeace,
}

/// Trouble that is nobody's fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Chances in a million per step.
    pub stall_ppm: u32,
    /// How long a shard stalls at most.
    pub stall_us_max: u64,
    /// The one shard that stalls, where the others do not.
    pub stalls_only: Option<usize>,
    /// The clock jumps.
    pub jump_ppm: u32,
    /// By how much at most.
    pub jump_us_max: u64,
    /// The uplink is down.
    pub outage_ppm: u32,
    /// For how long at most.
    pub outage_us_max: u64,
    /// Microseconds until a shard gets its turn, at most.
    pub turn_us_max: u64,
}

/// What people do: weights, 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// Microseconds between two things that one of them does, about.
    pub pause_us: u64,
    pub subscribe: u32,
    /// Where one was before, in thousandths of subscribes.
    pub resume: u16,
    pub unsubscribe: u32,
    pub publish: u32,
    /// Publishes with a key, in thousandths: they are said again when there was no answer.
    pub keyed: u16,
    /// Messages in one go, at most.
    pub burst_max: u32,
    /// Bytes of a payload, at most.
    pub payload_bytes_max: usize,
    /// WebSocket pings, and pings of the protocol.
    pub ping: u32,
    pub flood_pings: u32,
    pub read_slowly: u32,
    pub stop_reading: u32,
    /// For how long at most.
    pub stop_us_max: u64,
    /// Sending byte by byte, or in pieces.
    pub dribble: u32,
    /// What breaks a rule.
    pub insult: u32,
    /// A length that is never made good.
    pub lie: u32,
    /// Requests that are answered with an error.
    pub misunderstand: u32,
    /// Subscribing to patterns, and leaving them.
    pub watch: u32,
    pub unwatch: u32,
    /// Asking who is there.
    pub call_roll: u32,
    /// Where it is told who comes and goes, in thousandths of subscribes.
    pub observe: u16,
    pub close: u32,
    pub finish: u32,
    pub reset: u32,
    pub vanish: u32,
    /// Something else than a WebSocket, in thousandths of connections.
    pub plain_http: u16,
    /// Listening over HTTP, in thousandths of connections.
    pub listen: u16,
    /// A handshake that takes its time or is never done, in thousandths of connections.
    pub slow_handshake: u16,
    /// Requests without an id, in thousandths.
    pub anonymous: u16,
    /// Somebody who does not answer pings, in thousandths of connections.
    pub deaf: u16,
    /// Microseconds until somebody whose connection ended comes again, at most.
    pub away_us_max: u64,
}

impl Habits {
    /// Whether nobody leaves, or lets go of anything, before the end.
    pub const fn everybody_stays(&self) -> bool {
        self.unsubscribe == 0
            && self.unwatch == 0
            && self.insult == 0
            && self.lie == 0
            && self.close == 0
            && self.finish == 0
            && self.reset == 0
            && self.vanish == 0
            && self.deaf == 0
            && self.plain_http == 0
            && self.listen == 0
            && self.slow_handshake == 0
    }
}

/// Draws numbers for a plan.
struct Draw(fastrand::Rng);

impl Draw {
    fn one_in(&mut self, count: u32) -> bool {
        self.0.u32(..count) == 0
    }

    /// Nothing in half of all worlds, else up to `max`.
    fn perhaps(&mut self, max: u32) -> u32 {
        if self.0.bool() { 0 } else { self.0.u32(1..=max) }
    }

    fn permille(&mut self, max: u16) -> u16 {
        self.perhaps(u32::from(max)) as u16
    }

    /// Small numbers as often as large ones.
    fn scale(&mut self, least: u64, most: u64) -> u64 {
        let (least_bits, most_bits) = (least.max(1).ilog2(), most.ilog2());
        let bits = self.0.u32(least_bits..=most_bits);
        self.0.u64(1 << bits..2 << bits).clamp(least, most)
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.scale(least, most))
    }
}

impl Plan {
    /// Whether the plan is that memory is never enough.
    pub fn is_short_of_memory(&self) -> bool {
        self.settings.hub.memory_bytes_max < PLENTY || self.settings.held_bytes_max < PLENTY
    }

    /// The plan of world `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw(fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15));
        let shards = draw.0.u16(1..=4);
        let faults = if draw.one_in(6) { Faults::default() } else { faults(&mut draw) };
        let weather = weather(&mut draw);
        let mut habits = habits(&mut draw);
        let channels = channels(&mut draw);
        let settings = settings(&mut draw, shards, &habits);
        // Where memory is short, keys are forgotten before their time.
        if settings.hub.memory_bytes_max < PLENTY {
            habits.keyed = 0;
        }
        let peers = draw.scale(2, 80) as u32;
        // The worlds are many, so each has an end to what happens in it.
        let acts = ACTS_MAX / (1 + u64::from(habits.burst_max) / 12);
        let life_us_max = habits.pause_us * acts / u64::from(peers);
        let plan = Self {
            shards,
            settings,
            room: room(&mut draw),
            connections_max: if draw.one_in(4) { draw.0.usize(1..40) } else { 1_000 },
            per_address_max: draw.one_in(4).then(|| draw.0.usize(1..8)),
            faults,
            weather,
            peers,
            peers_per_address: draw.0.u32(1..=peers),
            habits,
            channels,
            life_us: draw.scale(2_000_000, 120_000_000).min(life_us_max),
            lull_us: if draw.one_in(4) { draw.0.u64(61_000_000..200_000_000) } else { 0 },
            ending: match draw.0.u32(..6) {
                0 => Ending::DrainedInTrouble(draw.0.u16(100..1000)),
                1 => Ending::DrainedInPeace,
                _ => Ending::Deserted,
            },
        };
        let plan = match draw.0.u32(..12) {
            0 | 7 => plan.into_crowd(&mut draw),
            1 => plan.into_departure(&mut draw),
            2 => plan.into_rush(&mut draw),
            3 | 4 => plan.into_return(&mut draw),
            5 => plan.into_post_office(&mut draw),
            6 => plan.into_market(&mut draw),
            8 => plan.into_broadcast(&mut draw),
            _ => plan,
        };
        plan.with_watchers(&mut draw).with_presence(&mut draw)
    }

    /// In some worlds it is known who is where.
    fn with_presence(mut self, draw: &mut Draw) -> Self {
        if !draw.one_in(3) {
            return self;
        }
        let presence = Presence {
            grace: Some(if draw.one_in(6) { Duration::ZERO } else { draw.millis(20, 5_000) }),
            events: (!draw.one_in(8)).then(|| draw.millis(10, 2_000)),
            users_max: if draw.one_in(5) { draw.0.u32(1..4) } else { 1_000 },
        };
        let rules = &mut self.settings.hub.rules;
        for rule in rules.rules.iter_mut().map(|rule| &mut rule.rule).chain([&mut rules.default]) {
            rule.presence = presence;
        }
        let habits = &mut self.habits;
        (habits.call_roll, habits.observe) = (draw.0.u32(1..10), draw.0.u16(100..600));
        if draw.0.bool() {
            // People come and go all the time, and less is said.
            habits.publish = habits.publish.min(4);
            habits.subscribe = habits.subscribe.max(10);
            habits.away_us_max = habits.away_us_max.min(draw.scale(10_000, 3_000_000));
            self.settings.hub.channels_max = 1_000;
        }
        match draw.0.u32(..4) {
            0 => {
                // What one shard is told it knows at once.
                (self.shards, self.settings.hub.shards) = (1, 1);
            }
            1 => {
                // The home is told late, because it cannot keep up.
                self.shards = draw.0.u16(2..5);
                self.settings.hub.shards = self.shards;
                self.room =
                    MailboxRoom { letters: draw.0.usize(1..4), bytes: draw.0.usize(64..512) };
                (habits.publish, habits.burst_max) = (40, draw.0.u32(10..40));
                (habits.call_roll, habits.subscribe) = (30, 20);
                (habits.payload_bytes_max, habits.pause_us) = (8, draw.0.u64(100..2_000));
                self.life_us = self.life_us.min(draw.0.u64(100_000..1_000_000));
            }
            2 => {
                // They are seen by some and gone before they are told of.
                let (grace, events) = (draw.millis(1, 50), draw.millis(500, 5_000));
                let rules =
                    rules.rules.iter_mut().map(|rule| &mut rule.rule).chain([&mut rules.default]);
                for rule in rules {
                    (rule.presence.grace, rule.presence.events) = (Some(grace), Some(events));
                }
                (habits.call_roll, habits.observe) = (30, 600);
                (habits.subscribe, habits.unsubscribe) = (20, habits.unsubscribe.min(1) * 20);
                habits.pause_us = habits.pause_us.min(20_000);
            }
            _ => {}
        }
        self
    }

    /// What is known of who is where, if that is known.
    pub fn presence(&self) -> Option<Presence> {
        let presence = self.settings.hub.rules.default.presence;
        presence.grace.map(|_| presence)
    }

    /// How long a user is there at least behind what shows that it was, in microseconds: where nothing
    /// can be on its way between shards, and every connection finds room on the list.
    pub fn grace_us(&self) -> Option<u64> {
        let presence = self.presence()?;
        let has_room = presence.users_max >= 1_000 && !self.is_short_of_memory();
        let grace = presence.grace.filter(|_| has_room && self.shards == 1)?;
        Some(grace.as_micros() as u64)
    }

    /// In some worlds people subscribe to patterns, and in some of these to little else.
    fn with_watchers(mut self, draw: &mut Draw) -> Self {
        let leaves = !self.habits.everybody_stays();
        let (peers, habits) = (self.peers, &mut self.habits);
        match draw.0.u32(..5) {
            0 => {
                (habits.watch, habits.subscribe) = (habits.subscribe * 2, habits.subscribe / 2);
                habits.unwatch = if leaves { draw.0.u32(..=habits.watch) } else { 0 };
                if !draw.one_in(3) {
                    // What one shard tells another of them comes in pieces.
                    self.shards = draw.0.u16(2..5);
                    self.settings.hub.shards = self.shards;
                    self.room.letters = draw.0.usize(1..3);
                    habits.unsubscribe = habits.unsubscribe.max(if leaves { 10 } else { 0 });
                    if self.peers < 20 {
                        // So few that one of them is all that its shard has in a channel.
                        self.peers = 2 + self.peers % 6;
                        habits.unwatch = habits.unwatch.max(if leaves { 20 } else { 0 });
                        habits.pause_us = habits.pause_us.min(20_000);
                    }
                }
                if draw.0.bool() {
                    // And let go of them while messages wait.
                    (habits.stop_reading, habits.stop_us_max) = (20, draw.scale(10_000, 500_000));
                }
                if draw.0.u32(..4) < 2 {
                    // Room for a few patterns and some of what they match, and many who want it.
                    self.peers = peers;
                    self.settings.hub.memory_bytes_max = draw.scale(10_000, 60_000) as usize;
                    habits.keyed = 0;
                }
            }
            1 | 2 => {
                habits.watch = draw.0.u32(1..6);
                habits.unwatch = if leaves { draw.perhaps(5) } else { 0 };
            }
            _ => {}
        }
        self
    }

    /// Many who read well, with outboxes so small that one tick fills them, and some of them break
    /// off just then.
    fn into_crowd(mut self, draw: &mut Draw) -> Self {
        self.peers = draw.0.u32(20..60);
        self.channels = (0..draw.0.u32(1..4)).map(|number| format!("old{number}")).collect();
        self.settings.hub.channels_per_client_max = 4;
        self.settings.hub.channels_max = 1_000;
        self.settings.hub.outbox.messages = draw.0.u32(1..5);
        self.settings.hub.memory_bytes_max = 4 * PLENTY;
        (self.connections_max, self.per_address_max) = (1_000, None);
        self.shards = self.shards.min(2);
        self.settings.hub.shards = self.shards;
        // That somebody broke off is found out by a send, more often than it is told before.
        (self.faults.told_late, self.faults.completions_max) = (900, draw.0.usize(2..12));
        let habits = &mut self.habits;
        (habits.subscribe, habits.publish, habits.reset) = (20, draw.0.u32(2..20), 10);
        (habits.unsubscribe, habits.vanish) = (draw.0.u32(..6), 1);
        habits.burst_max = draw.0.u32(4..40);
        (habits.read_slowly, habits.stop_reading) = (0, 0);
        self
    }

    /// More is published than the mailboxes hold, in every tick, by people who want to know that
    /// it was taken.
    fn into_rush(mut self, draw: &mut Draw) -> Self {
        self.peers = draw.0.u32(4..30);
        self.shards = draw.0.u16(2..5);
        self.settings.hub.shards = self.shards;
        (self.connections_max, self.per_address_max) = (1_000, None);
        self.room = MailboxRoom { letters: draw.0.usize(1..4), bytes: draw.0.usize(64..1024) };
        let habits = &mut self.habits;
        (habits.publish, habits.burst_max, habits.anonymous) = (80, draw.0.u32(20..60), 0);
        (habits.payload_bytes_max, habits.pause_us) = (8, draw.0.u64(100..2_000));
        self.life_us = self.life_us.min(draw.0.u64(100_000..600_000));
        if draw.one_in(3) {
            // All of it fits, and waits for a home that stalls, while the other shards do not: for
            // longer than anybody may go on without an answer.
            self.room = MailboxRoom::default();
            self.weather = Weather {
                stalls_only: Some(0),
                stall_ppm: 20_000,
                stall_us_max: draw.scale(300_000, 3_000_000),
                turn_us_max: 1_000,
                ..Weather::default()
            };
            self.peers = self.peers.min(10);
            (self.faults.buffers, self.faults.buffer_bytes) = (256, 16 * 1024);
            self.faults.completions_max = 1024;
            self.life_us = draw.0.u64(1_000_000..4_000_000);
        }
        self
    }

    /// Many listen over HTTP to large messages, and let them wait for a while: more than is written out
    /// for a stream at once.
    fn into_broadcast(mut self, draw: &mut Draw) -> Self {
        self.peers = draw.0.u32(6..20);
        (self.connections_max, self.per_address_max) = (1_000, None);
        self.channels.truncate(draw.0.usize(1..5));
        self.settings.conn.message_bytes_max = 8_192;
        let hub = &mut self.settings.hub;
        hub.channels_max = 1_000;
        hub.outbox = Capacity { messages: draw.0.u32(20..200), bytes: 400_000 };
        hub.memory_bytes_max = 4 * PLENTY;
        let habits = &mut self.habits;
        (habits.listen, habits.publish, habits.payload_bytes_max) = (500, 20, 3_000);
        habits.burst_max = draw.0.u32(4..20);
        (habits.stop_reading, habits.stop_us_max) = (10, draw.scale(10_000, 500_000));
        self.life_us = self.life_us.min(20_000_000);
        self
    }

    /// People go and come back to where they were, again and again, to a history that is long enough,
    /// unless it gives way for want of memory.
    fn into_return(mut self, draw: &mut Draw) -> Self {
        self.peers = draw.0.u32(4..20);
        (self.connections_max, self.per_address_max) = (1_000, None);
        self.channels.truncate(draw.0.usize(1..5));
        let hub = &mut self.settings.hub;
        (hub.channels_max, hub.channels_per_client_max) = (1_000, 8);
        let history = Retention {
            messages: draw.scale(20, 2_000) as u32,
            age: draw.millis(5_000, 60_000),
            bytes: draw.scale(10_000, 400_000) as usize,
        };
        let rules = hub.rules.rules.iter_mut().map(|rule| &mut rule.rule);
        for rule in rules.chain([&mut hub.rules.default]) {
            rule.history = history;
        }
        let habits = &mut self.habits;
        if draw.0.bool() {
            // Many pages, and time to change one's mind between them.
            hub.outbox.messages = draw.0.u32(1..6);
            self.shards = draw.0.u16(2..5);
            hub.shards = self.shards;
            self.weather.turn_us_max = draw.scale(1_000, 100_000);
            habits.pause_us = habits.pause_us.min(draw.scale(500, 20_000));
            self.life_us = self.life_us.min(4_000_000);
            habits.unsubscribe = 12;
            if draw.0.bool() {
                self.ending = Ending::DrainedInTrouble(draw.0.u16(100..1000));
                self.settings.drain_window = draw.millis(20, 500);
            }
        }
        if draw.one_in(3) {
            hub.memory_bytes_max = draw.scale(8_000, 60_000) as usize;
            habits.keyed = 0;
        }
        (habits.resume, habits.subscribe, habits.publish) = (1000, 20, draw.0.u32(4..20));
        (habits.reset, habits.close) = (draw.0.u32(1..4), 1);
        (habits.away_us_max, habits.lie) = (draw.scale(1_000, 3_000_000), 0);
        habits.burst_max = draw.scale(1, 30) as u32;
        self
    }

    /// Many publish over HTTP, and not everybody who is to answer does so in time.
    fn into_post_office(mut self, draw: &mut Draw) -> Self {
        self.peers = draw.0.u32(10..60);
        self.shards = draw.0.u16(2..5);
        self.settings.hub.shards = self.shards;
        self.settings.hub.channels_max = 1_000;
        (self.connections_max, self.per_address_max) = (1_000, None);
        self.settings.conn.request_timeout = draw.millis(200, 2_000);
        self.weather.stall_ppm = draw.0.u32(2_000..20_000);
        self.weather.stall_us_max = draw.scale(500_000, 8_000_000);
        let habits = &mut self.habits;
        (habits.plain_http, habits.away_us_max) = (draw.0.u16(300..900), 200_000);
        (habits.burst_max, habits.close) = (draw.0.u32(1..40), 4);
        self
    }

    /// Everything is conflated, and far more is published than anybody sees.
    fn into_market(mut self, draw: &mut Draw) -> Self {
        self.peers = draw.0.u32(4..40);
        self.channels = (0..draw.0.u32(1..4)).map(|number| format!("flow{number}")).collect();
        self.settings.hub.channels_max = 1_000;
        self.settings.hub.memory_bytes_max = 4 * PLENTY;
        (self.connections_max, self.per_address_max) = (1_000, None);
        let habits = &mut self.habits;
        (habits.publish, habits.subscribe) = (60, draw.0.u32(4..20));
        habits.unsubscribe = habits.unsubscribe.min(4);
        habits.pause_us = habits.pause_us.min(20_000);
        self
    }

    /// The server drains while mailboxes are full and shards stall, and soon.
    fn into_departure(mut self, draw: &mut Draw) -> Self {
        self.ending = Ending::DrainedInTrouble(draw.0.u16(500..1000));
        self.shards = draw.0.u16(2..5);
        self.settings.hub.shards = self.shards;
        self.settings.drain_window = draw.millis(20, 500);
        self.room = MailboxRoom { letters: draw.0.usize(1..4), bytes: draw.0.usize(64..1024) };
        self.weather.stall_ppm = draw.0.u32(2_000..40_000);
        self.weather.stall_us_max = draw.scale(10_000, 2_000_000);
        (self.habits.publish, self.habits.anonymous) = (60, 0);
        self.habits.burst_max = draw.0.u32(1..20);
        if draw.0.bool() {
            // Or in peace, while those who read slowly have something waiting.
            self.settings.drain_window = draw.millis(200, 2_000);
            self.weather = Weather { turn_us_max: 100, ..Weather::default() };
            (self.habits.read_slowly, self.habits.stop_reading) = (40, 0);
            self.settings.hub.outbox = Capacity { messages: 256, bytes: 65_536 };
        }
        self
    }

    /// Whether somebody may be closed for not reading fast enough.
    pub fn closes_the_slow(&self) -> bool {
        let rules = &self.settings.hub.rules;
        self.channels.iter().any(|channel| rules.of(channel).overflow == Overflow::Close)
    }

    /// Whether memory is never short for messages.
    pub fn has_plenty(&self) -> bool {
        self.settings.hub.memory_bytes_max >= PLENTY
    }

    /// Whether what is conflated is so by key.
    pub fn has_keys(&self) -> bool {
        self.settings.hub.rules.of("flow").conflate.key.is_some()
    }

    /// How old a message may be when it leaves, where messages are conflated and elsewhere.
    pub fn max_ages_ms(&self) -> [Option<u64>; 2] {
        ["flow", "old"].map(|channel| {
            let max_age = self.settings.hub.rules.of(channel).max_age;
            max_age.map(|max_age| max_age.as_millis() as u64)
        })
    }

    /// For how long something is kept at most after nobody wants it any more.
    pub fn kept_for_max(&self) -> Duration {
        let rule = &self.settings.hub.rules.default;
        rule.history.age.max(if self.habits.keyed > 0 { rule.keys.age } else { Duration::ZERO })
    }

    /// How one of them is connected.
    pub fn line(&self, random: &mut fastrand::Rng) -> Line {
        let slow = random.u8(..4) == 0;
        Line {
            latency_us: random.u64(50..if slow { 400_000 } else { 3_000 }),
            bytes_per_s: if slow { random.u64(500..50_000) } else { 10_000_000 },
            up_bytes_max: random.usize(200..20_000),
            down_bytes_max: random.usize(200..if slow { 4_000 } else { 60_000 }),
        }
    }
}

fn faults(draw: &mut Draw) -> Faults {
    Faults {
        receive_partial: draw.permille(600),
        send_short: draw.permille(400),
        send_full: draw.permille(200),
        accept_fails: draw.permille(300),
        release_refused: draw.permille(500),
        adopt_refused: draw.permille(600),
        reset_discards: draw.permille(1000).min(999),
        told_late: draw.permille(500),
        buffers: if draw.one_in(3) { draw.0.usize(1..4) } else { 256 },
        buffer_bytes: if draw.one_in(3) { draw.0.usize(16..256) } else { 16 * 1024 },
        completions_max: if draw.one_in(3) { draw.0.usize(2..8) } else { 1024 },
        writable_late_us_max: if draw.one_in(2) { draw.scale(1, 200_000) } else { 0 },
    }
}

fn weather(draw: &mut Draw) -> Weather {
    Weather {
        stall_ppm: draw.perhaps(2_000),
        stall_us_max: draw.scale(1_000, 20_000_000),
        stalls_only: None,
        jump_ppm: draw.perhaps(300),
        jump_us_max: draw.scale(1_000, 200_000_000),
        outage_ppm: draw.perhaps(500),
        outage_us_max: draw.scale(10_000, 60_000_000),
        turn_us_max: draw.scale(1, 20_000),
    }
}

fn habits(draw: &mut Draw) -> Habits {
    let leaving = !draw.one_in(4);
    let leave = |draw: &mut Draw, weight| if leaving { draw.perhaps(weight) } else { 0 };
    Habits {
        pause_us: draw.scale(500, 1_000_000),
        subscribe: draw.0.u32(2..20),
        resume: draw.permille(900),
        unsubscribe: leave(draw, 8),
        publish: draw.0.u32(2..60),
        keyed: draw.permille(600),
        burst_max: draw.scale(1, 64) as u32,
        payload_bytes_max: draw.scale(1, 3_000) as usize,
        ping: draw.perhaps(10),
        flood_pings: draw.perhaps(4),
        read_slowly: draw.perhaps(6),
        stop_reading: draw.perhaps(10),
        stop_us_max: draw.scale(1_000, 30_000_000),
        dribble: draw.perhaps(6),
        insult: leave(draw, 3),
        lie: leave(draw, 2),
        misunderstand: draw.perhaps(4),
        watch: 0,
        unwatch: 0,
        call_roll: 0,
        observe: 0,
        close: leave(draw, 3),
        finish: leave(draw, 2),
        reset: leave(draw, 3),
        vanish: leave(draw, 2),
        plain_http: if leaving { draw.permille(200) } else { 0 },
        listen: if leaving { draw.permille(400) } else { 0 },
        slow_handshake: if leaving { draw.permille(200) } else { 0 },
        anonymous: draw.permille(300),
        deaf: if leaving { draw.permille(200) } else { 0 },
        away_us_max: draw.scale(1_000, 5_000_000),
    }
}

fn channels(draw: &mut Draw) -> Vec<String> {
    (0..draw.scale(1, 16))
        .map(|number| {
            let kind = match draw.0.u32(..6) {
                0 => "new",
                1 => "close",
                2 => "flow",
                _ => "old",
            };
            // Some of several segments.
            match number % 2 {
                0 => format!("{kind}{number}"),
                _ => format!("{kind}.{}.{number}", number % 3),
            }
        })
        .collect()
}

fn settings(draw: &mut Draw, shards: u16, habits: &Habits) -> Settings {
    let tight = draw.one_in(4);
    let closes = !habits.everybody_stays();
    let ping_interval = draw.millis(500, 25_000);
    let ordinary = rule(draw);
    let rule = |pattern: &str, overflow| ChannelRule {
        pattern: pattern.into(),
        rule: Rule { overflow, ..ordinary.clone() },
    };
    let mut flow = rule("flow*", Overflow::DropOldest);
    flow.rule.conflate = Conflate {
        key: (!draw.one_in(4)).then(|| "k".into()),
        interval: Some(draw.millis(10, 2_000)),
    };
    let interval = flow.rule.conflate.interval.unwrap_or_default();
    flow.rule.max_age = ordinary.max_age.map(|max_age| max_age.max(interval * 2));
    Settings {
        conn: conn::Settings {
            message_bytes_max: draw.scale(512, 8_192) as usize,
            handshake_timeout: draw.millis(200, 5_000),
            body_bytes_max: draw.scale(500, 100_000),
            channels_per_client_max: 16,
            request_timeout: draw.millis(200, 10_000),
            cors: Cors::Off,
            ping_interval,
            pong_timeout: draw.millis(200, 10_000).min(ping_interval),
            idle_timeout: (closes && draw.one_in(8)).then(|| draw.millis(1_000, 60_000)),
            close_timeout: draw.millis(200, 3_000),
            compression: !draw.one_in(4),
            compression_window_bytes_max: if draw.one_in(4) {
                0
            } else {
                draw.scale(512, 32_768) as usize
            },
            echo: false,
            pages: vec![conn::Page { path: "/", content_type: "text/plain", body: b"hello" }],
        },
        hub: hub::Settings {
            shard: 0,
            shards,
            home_seed: draw.0.u64(..),
            outbox: Capacity {
                messages: draw.scale(1, 256) as u32,
                bytes: draw.scale(64, 65_536) as u32,
            },
            channels_per_client_max: draw.scale(1, 16) as usize,
            channels_max: if draw.one_in(5) { draw.0.usize(1..4) } else { 1_000 },
            compression_level: 2,
            memory_bytes_max: if tight { draw.scale(2_000, 40_000) as usize } else { 4 * PLENTY },
            rules: Rules {
                rules: vec![
                    rule("new*", Overflow::DropNewest),
                    rule("new.>", Overflow::DropNewest),
                    rule("close*", if closes { Overflow::Close } else { Overflow::DropOldest }),
                    rule("close.>", if closes { Overflow::Close } else { Overflow::DropOldest }),
                    ChannelRule { pattern: "flow.>".into(), ..flow.clone() },
                    flow,
                ],
                default: ordinary.clone(),
            },
        },
        drain_window: draw.millis(500, 30_000),
        held_bytes_max: if tight { draw.scale(500, 20_000) as usize } else { PLENTY },
    }
}

/// What is kept of a channel. Keys are kept for longer than any world lives: who repeats one is
/// told its first number, or something is wrong.
fn rule(draw: &mut Draw) -> Rule {
    let history = Retention {
        messages: if draw.one_in(3) { 0 } else { draw.scale(1, 400) as u32 },
        age: draw.millis(50, 60_000),
        bytes: draw.scale(200, 200_000) as usize,
    };
    let keys = KeyWindow { age: Duration::from_secs(10_000), keys: 1_000_000 };
    let max_age = draw.one_in(4).then(|| draw.millis(20, 10_000));
    Rule { history, keys, max_age, ..Rule::default() }
}

fn room(draw: &mut Draw) -> MailboxRoom {
    if draw.0.bool() {
        return MailboxRoom::default();
    }
    MailboxRoom { letters: draw.scale(1, 64) as usize, bytes: draw.scale(64, 64 * 1024) as usize }
}
