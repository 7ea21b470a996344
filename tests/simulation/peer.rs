//! Somebody who connects, does what people do, and knows what must come of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringcast::io::sim::{LinkId, Network, peer_address};

use crate::account::{Account, Ask, Position, Since};
use crate::ledger::Ledger;
use crate::listener::Listening;
use crate::plan::Plan;
use crate::reached::{Reached, Situation};
use crate::reader::{Cut, Read, Reader};
use crate::roll::{PREFIX, Page};
use crate::speech::{self, Deflate};

/// What everybody can see and touch.
pub struct Scene<'a> {
    pub now: u64,
    pub network: &'a Network,
    pub plan: &'a Plan,
    pub ledger: &'a mut Ledger,
    pub reached: &'a mut Reached,
    /// Numbers requests and lives.
    pub next_id: &'a mut u64,
    pub mood: Mood,
    /// When the server began to leave, if it did.
    pub draining: Option<u64>,
}

/// What people are up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Whatever their habits are.
    Ordinary,
    /// They only read and answer.
    Listening,
    /// They leave.
    Leaving,
}

/// Somebody.
#[derive(Debug)]
pub struct Peer {
    number: u32,
    random: fastrand::Rng,
    life: Option<Life>,
    /// When it does something next.
    act_at: u64,
    /// Before that it does nothing.
    rest_until: u64,
    /// When it looks at what has arrived, or writes the rest of what it has to say.
    look_at: Option<u64>,
    /// Messages told as lost, in the lives before this one.
    lost: u64,
    /// Where it was in each channel, in the lives before this one.
    positions: BTreeMap<String, Position>,
    /// What it published with a key, and never had an answer to.
    unanswered: Vec<usize>,
}

/// One connection of somebody.
#[derive(Debug)]
struct Life {
    id: u64,
    link: LinkId,
    stage: Stage,
    reader: Reader,
    /// How it compresses, if that was agreed on.
    deflate: Option<Deflate>,
    account: Account,
    /// Who it says that it is.
    user: Option<String>,
    /// What it listens to over HTTP.
    listening: Option<Listening>,
    /// Said and not sent yet.
    outgoing: VecDeque<u8>,
    /// Bytes ever said.
    said: u64,
    /// Bytes that are sent in small pieces.
    dribble: usize,
    reading: Reading,
    is_deaf: bool,
    /// When it last read something.
    read_at: u64,
    /// The longest time, in microseconds, in which it has read nothing.
    longest_pause: u64,
    /// It broke a rule: how it may be answered.
    insulted: Option<&'static [u16]>,
    /// What it has published with a key.
    keyed: BTreeSet<usize>,
    /// What it said last is incomplete and stays so.
    lied: bool,
    said_close: bool,
    heard_close: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It asked for something else than a WebSocket.
    Plain,
    /// It publishes over HTTP.
    Posting,
    /// It listens over HTTP.
    Listening,
    Shaking,
    Open,
    /// It has said good-bye, in one way or another.
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Eager,
    Slow { bytes: usize },
    Stopped { until: u64 },
}

/// How long it takes at most until the network knows that a listener has vanished.
pub const LISTENER_FOUND_OUT_US_MAX: u64 = 20_000_000;

/// What people watch for. Some match each other's channels, and one matches none.
const PATTERNS: [&str; 9] =
    [">", "*", "old.>", "old.*.*", "*.1.*", "new.*.>", "close.0.*", "flow.>", "nothing.>"];

/// Codes with which the server may close a peer that did nothing wrong.
const NO_FAULT: &[u16] = &[1000, 1001, 1013, 4409];

impl Peer {
    pub fn new(number: u32, mut random: fastrand::Rng, plan: &Plan) -> Self {
        let act_at = random.u64(..plan.habits.pause_us * 4 + 1);
        Self {
            number,
            random,
            life: None,
            act_at,
            rest_until: 0,
            look_at: None,
            lost: 0,
            positions: BTreeMap::new(),
            unanswered: Vec::new(),
        }
    }

    /// When it has something to do next.
    pub fn next(&self) -> u64 {
        self.look_at.map_or(self.act_at, |at| at.min(self.act_at))
    }

    /// Its connection, if it has one.
    pub fn link(&self) -> Option<LinkId> {
        self.life.as_ref().map(|life| life.link)
    }

    /// It does nothing before `until`.
    pub fn rest(&mut self, until: u64) {
        self.rest_until = until;
    }

    /// Something has arrived for it.
    pub fn touched(&mut self, now: u64) {
        let at = now + self.random.u64(..500);
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }

    /// The server may have read some of what it said.
    pub fn note_heard(&mut self, network: &Network, now: u64) {
        if let Some(life) = &mut self.life {
            life.account.heard_by_server(network.heard(life.link), now);
        }
    }

    /// What is still owed to it.
    pub fn owed(&self, network: &Network, ledger: &Ledger) -> Option<String> {
        let life = self.life.as_ref()?;
        let what = match life.stage {
            _ if life.is_dawdling() => Some("to be told that its time is up".to_owned()),
            _ if life.insulted.is_some() => Some("the answer to its insult".to_owned()),
            Stage::Open if !life.outgoing.is_empty() => Some("to be heard".to_owned()),
            Stage::Open => life.account.owed(ledger),
            Stage::Listening if !life.outgoing.is_empty() => Some("to be heard".to_owned()),
            Stage::Listening => life.account.owed(ledger),
            Stage::Shaking => Some("the answer to its handshake".to_owned()),
            Stage::Plain | Stage::Posting | Stage::Leaving => None,
        };
        let unread = network.view(life.link).readable > 0;
        let what = what.or_else(|| unread.then(|| "to read".to_owned()))?;
        Some(format!("peer {} ({:?}, {:?}) waits for {what}", self.number, life.link, life.stage))
    }

    /// Whether it has an open WebSocket or a stream, and means well.
    pub fn is_well(&self) -> bool {
        self.life.as_ref().is_some_and(|life| {
            let is_told = match life.stage {
                Stage::Open => true,
                Stage::Listening => life.listening.as_ref().is_some_and(Listening::is_alive),
                _ => false,
            };
            is_told && life.is_well()
        })
    }

    /// Where the oldest give way, the newest message has come.
    pub fn check_newest(&self) {
        if let Some(life) = self.life.as_ref().filter(|_| self.is_well()) {
            life.account.check_newest();
        }
    }

    /// It has the newest value of each key in channels that are conflated.
    pub fn check_newest_of_keys(&self, scene: &mut Scene<'_>) {
        if let Some(life) = self.life.as_ref().filter(|_| self.is_well()) {
            life.account.check_newest_of_keys(scene.ledger, scene.reached);
        }
    }

    /// Where it is, if it is well, and as whom.
    pub fn presence(&self) -> impl Iterator<Item = (&String, Option<&str>)> {
        let life = self.life.as_ref().filter(|_| self.is_well());
        life.into_iter().flat_map(|life| {
            let channels = life.account.channels().filter(|it| life.account.is_member(it));
            channels.map(|channel| (channel, life.user.as_deref()))
        })
    }

    /// Who is in `channel` by what it was told, if it was told all; `listed` are.
    pub fn check_roll(&self, channel: &str, listed: &BTreeSet<String>, reached: &mut Reached) {
        let Some(life) = self.life.as_ref().filter(|_| self.is_well()) else { return };
        if let Some(known) = life.account.rolls.fold(channel) {
            assert_eq!(known, *listed, "peer {} knows who is in {channel}", self.number);
            reached.count(Situation::RollFolded);
        }
    }

    /// Everything heals: it reads, says things whole, and lets go of what is beyond repair.
    pub fn heal(&mut self, scene: &mut Scene<'_>) {
        self.rest_until = 0;
        self.act_at = scene.now + self.random.u64(..100_000);
        self.look_at = Some(scene.now + 1);
        let Some(life) = &mut self.life else { return };
        (life.reading, life.dribble) = (Reading::Eager, 0);
        let is_insulting = life.insulted.is_some() && !life.lied && life.stage == Stage::Open;
        if is_insulting || life.is_dawdling() {
            return; // The server has to end that.
        }
        let is_polling = life.listening.as_ref().is_some_and(|it| !it.is_stream);
        if !life.is_well() || is_polling || matches!(life.stage, Stage::Plain | Stage::Posting) {
            scene.network.reset(life.link);
            self.end(scene);
        }
    }

    /// One of two asks for everything again that has been said of late.
    pub fn look_back(&mut self, scene: &mut Scene<'_>) {
        let habits = &scene.plan.habits;
        let Some(life) = self.life.as_mut().filter(|life| life.is_well()) else { return };
        if life.stage != Stage::Open
            || habits.resume == 0
            || habits.unsubscribe == 0
            || self.random.bool()
        {
            return;
        }
        life.let_go(&mut self.random, scene.next_id);
        if self.random.bool() {
            life.reading = Reading::Slow { bytes: self.random.usize(1..200) };
        }
        for channel in &scene.plan.channels {
            *scene.next_id += 1;
            life.look_back(&mut self.random, *scene.next_id, channel);
        }
    }

    /// It does what is due.
    pub fn step(&mut self, scene: &mut Scene<'_>) {
        if self.look_at.is_some_and(|at| at <= scene.now) {
            self.look_at = None;
            self.read(scene);
        }
        if self.act_at <= scene.now {
            self.act(scene);
        }
        self.write(scene);
    }

    // ---- reading ----

    fn read(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        life.account.is_strict = scene.draining.is_none() && scene.plan.has_plenty();
        life.account.has_keys = scene.plan.has_keys();
        life.account.max_ages_ms = scene.plan.max_ages_ms();
        life.account.grace_us = scene.plan.grace_us();
        life.account.user.clone_from(&life.user);
        let view = scene.network.view(life.link);
        let bytes = match life.reading {
            Reading::Eager => usize::MAX,
            Reading::Slow { bytes } => bytes,
            Reading::Stopped { until } if until > scene.now => {
                self.look_at = Some(until);
                return;
            }
            Reading::Stopped { .. } => {
                life.reading = Reading::Eager;
                usize::MAX
            }
        };
        let bytes = scene.network.receive(life.link, bytes);
        scene.network.tell(Some(life.link), ("peer reads", bytes.len()));
        life.longest_pause = life.longest_pause.max(scene.now - life.read_at);
        if !bytes.is_empty() {
            life.read_at = scene.now;
        }
        let cuts = scene.network.take_partial_sends(life.link);
        life.reader.feed(&bytes, cuts, scene.network.take_sends(life.link));
        if bytes.len() < view.readable {
            self.look_at = Some(scene.now + self.random.u64(1_000..20_000));
        }
        while let Some(read) = self.life.as_mut().and_then(|life| life.reader.next()) {
            self.understand(read, scene);
        }
        let Some(life) = &mut self.life else { return };
        let view = scene.network.view(life.link);
        if view.reset && view.readable == 0 {
            if life.reader.is_amid() {
                scene.reached.count(Situation::BrokenAmidFrame);
            }
            if life.account.owed(scene.ledger).is_some() {
                scene.reached.count(Situation::EndedAmidBacklog);
            }
            self.end(scene);
        } else if view.ended {
            if let (Stage::Listening, Some(listening)) = (life.stage, &life.listening) {
                // A heartbeat comes up to a tenth early.
                let beat = scene.plan.settings.conn.ping_interval.as_micros() as u64 / 10 * 9;
                // Last words wait for no more than close_timeout behind what was not read; on a
                // line that is slow enough, half of them come.
                let is_excused = life.longest_pause >= beat
                    || life.reader.is_amid()
                    || scene.plan.is_short_of_memory()
                    || scene.plan.closes_the_slow();
                listening.ended(scene.draining.is_some(), is_excused);
                // When the window is over, everybody goes, whatever waits for them.
                let window = scene.plan.settings.drain_window.as_micros() as u64;
                let is_good_bye = !listening.is_accused && !is_excused;
                if let Some(began) = scene.draining.filter(|began| began + window > scene.now)
                    && is_good_bye
                {
                    assert!(life.account.told_to_go, "a stream ends after the goaway");
                    life.account.check_good_bye(scene.ledger, began);
                }
            }
            scene.network.close(life.link);
            self.end(scene);
        }
    }

    fn understand(&mut self, read: Read, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        let reached = &mut *scene.reached;
        match read {
            Read::Cut(Cut::HttpAnswer) => reached.count(Situation::CutInHttpAnswer),
            Read::Cut(Cut::FrameHeader) => reached.count(Situation::CutInFrameHeader),
            Read::Cut(Cut::Payload) => reached.count(Situation::CutInPayload),
            Read::Cut(Cut::BetweenFrames) => reached.count(Situation::CutBetweenFrames),
            Read::Status(101) => {
                assert_eq!(life.stage, Stage::Shaking, "an upgrade was asked for");
                life.stage = Stage::Open;
                life.deflate = life.reader.agreement.as_deref().map(Deflate::agreed);
            }
            Read::Status(200) if life.stage == Stage::Posting => {}
            Read::Status(200 | 204) if life.listening.is_some() => {}
            Read::Event { id, text } => {
                let listening = life.listening.as_mut().expect("it listens");
                let Life { account, .. } = life;
                listening.hear_event(account, &id, &text, scene.now, scene.ledger, reached);
            }
            Read::Answer { cursors, events } => {
                let listening = life.listening.take().expect("it listens");
                let (now, ledger) = (scene.now, &mut *scene.ledger);
                listening.hear_answer(&mut life.account, &cursors, &events, now, ledger, reached);
                life.stage = Stage::Leaving;
            }
            Read::Line(line) => {
                life.account.hear_line(&line, scene.now, scene.ledger, reached);
            }
            Read::LastLine => {
                life.account.hear_last_line();
                life.stage = Stage::Leaving;
            }
            Read::Status(status) => {
                let allowed: &[u16] = match life.stage {
                    Stage::Plain => &[200, 400, 404, 408, 429, 503],
                    Stage::Posting => &[408, 413, 429, 503],
                    _ if life.listening.is_some() => &[400, 408, 429, 503],
                    _ => &[408, 429, 503],
                };
                assert!(allowed.contains(&status), "status {status} in {:?}", life.stage);
                life.stage = Stage::Leaving;
            }
            Read::Text { text, compressed, left_at } => {
                if compressed {
                    reached.count(Situation::CompressedMessage);
                }
                assert_ne!(life.stage, Stage::Shaking, "the answer comes before any frame");
                life.account.left_at = left_at;
                life.account.hear(&text, scene.now, scene.ledger, reached);
            }
            Read::Ping(payload) => {
                if !life.is_deaf && !life.said_close && !life.lied {
                    let pong = speech::frame(&mut self.random, speech::PONG, &payload);
                    life.say(&pong);
                }
            }
            Read::Pong(payload) => {
                life.account.pong(&payload, scene.draining.is_some(), reached);
            }
            Read::Close(code) => {
                life.heard_close = true;
                reached.close_code(code.unwrap_or(1005));
                let insulted = life.insulted.unwrap_or_default();
                let code = code.unwrap_or(1000);
                assert!(
                    NO_FAULT.contains(&code) || insulted.contains(&code),
                    "closed with {code} after {insulted:?}"
                );
                if code == 1001 {
                    let began = scene.draining.expect("1001 means that the server leaves");
                    if life.insulted.is_none() && !life.said_close {
                        assert!(life.account.told_to_go, "1001 comes after the goaway");
                        life.account.check_good_bye(scene.ledger, began);
                    }
                }
                if life.said_close && code != 1000 {
                    reached.count(Situation::PeerServerBothClose);
                }
                if !life.said_close && !life.lied {
                    life.said_close = true;
                    let close = speech::close(&mut self.random, code);
                    life.say(&close);
                }
                life.stage = Stage::Leaving;
            }
        }
    }

    // ---- acting ----

    fn act(&mut self, scene: &mut Scene<'_>) {
        let pause = scene.plan.habits.pause_us;
        self.act_at = scene.now.max(self.rest_until) + self.random.u64(pause / 4..=pause * 2);
        if self.rest_until > scene.now {
            return;
        }
        let Some(life) = &mut self.life else {
            match scene.mood {
                Mood::Ordinary => self.connect(scene),
                _ => self.act_at = u64::MAX,
            }
            return;
        };
        if scene.mood == Mood::Leaving {
            self.act_at = scene.now + 100_000;
            if matches!(life.stage, Stage::Open | Stage::Listening) {
                self.leave(scene);
            }
            return;
        }
        if scene.mood == Mood::Listening || !life.is_well() {
            return;
        }
        match life.stage {
            Stage::Open => self.live(scene),
            Stage::Listening => self.listen_on(scene),
            // Some have no patience for an answer.
            Stage::Plain | Stage::Posting | Stage::Shaking
                if self.random.u8(..20) == 0 && scene.plan.habits.reset > 0 =>
            {
                scene.network.reset(life.link);
                self.end(scene);
            }
            _ => {}
        }
    }

    fn connect(&mut self, scene: &mut Scene<'_>) {
        let random = &mut self.random;
        let line = scene.plan.line(random);
        let address = peer_address(self.number / scene.plan.peers_per_address);
        let link = scene.network.connect(address, line);
        let habits = &scene.plan.habits;
        *scene.next_id += 1;
        let mut life = Life::new(*scene.next_id, link);
        life.read_at = scene.now;
        life.account.remember(std::mem::take(&mut self.positions));
        life.is_deaf = random.u16(..1000) < habits.deaf;
        if scene.plan.presence().is_some() {
            // Few names, so that some have several connections.
            life.user =
                Some(random.u8(..10)).filter(|user| *user < 8).map(|user| format!("u{user}"));
        }
        let user = life.user.clone();
        if random.u16(..1000) < habits.listen {
            let listening = Listening::choose(random, &scene.plan.channels, &life.account);
            life.say(listening.request(random, user.as_deref()).as_bytes());
            (life.stage, life.listening) = (Stage::Listening, Some(listening));
        } else if random.u16(..1000) < habits.plain_http {
            if random.bool() {
                Self::post(&mut life, random, scene);
                return self.begin(life, scene);
            }
            life.stage = Stage::Plain;
            life.say(match random.u8(..4) {
                0 => b"GET / HTTP/1.1\r\nHost: sim\r\n\r\n",
                1 => b"GET /nowhere HTTP/1.1\r\nHost: sim\r\n\r\n",
                2 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                _ => b"nonsense\r\n\r\n",
            });
        } else {
            let upgrade = speech::upgrade(random, user.as_deref());
            let is_slow = random.u16(..1000) < habits.slow_handshake;
            let said = if is_slow { random.usize(..upgrade.len()) } else { upgrade.len() };
            life.say(&upgrade[..said]);
            life.lied = said < upgrade.len();
        }
        self.begin(life, scene);
    }

    fn begin(&mut self, mut life: Life, scene: &Scene<'_>) {
        if scene.plan.habits.dribble > 0 && self.random.u8(..4) == 0 {
            life.dribble = self.random.usize(..400);
        }
        self.life = Some(life);
    }

    /// It publishes over HTTP, and some do not finish what they have begun.
    fn post(life: &mut Life, random: &mut fastrand::Rng, scene: &mut Scene<'_>) {
        life.stage = Stage::Posting;
        let mut lines = Vec::new();
        for _ in 0..random.u32(1..=scene.plan.habits.burst_max) {
            let channel = random.choice(&scene.plan.channels).expect("there is one").clone();
            let (number, payload) = Self::message(life, random, &channel, scene);
            *scene.next_id += 1;
            let id = *scene.next_id;
            life.account.post(id, number);
            lines.push(format!(r#"{{"payload":{payload},"channel":"{channel}","id":{id}}}"#));
        }
        let request = speech::publish(random, &lines);
        let is_slow = random.u16(..1000) < scene.plan.habits.slow_handshake;
        let said = if is_slow { random.usize(..request.len()) } else { request.len() };
        life.say(&request[..said]);
        life.lied = said < request.len();
    }

    /// A message that is going to be published.
    fn message(
        life: &Life,
        random: &mut fastrand::Rng,
        channel: &str,
        scene: &mut Scene<'_>,
    ) -> (usize, String) {
        let bytes_max = scene.plan.habits.payload_bytes_max;
        // The envelope around it takes its part of what a message may have.
        let bytes_max = bytes_max.min(scene.plan.settings.conn.message_bytes_max - 256);
        scene.ledger.publish(channel, life.id, random.usize(..=bytes_max), scene.now)
    }

    /// One thing that somebody with an open connection does.
    fn live(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        let habits = &scene.plan.habits;
        let random = &mut self.random;
        let weights = [
            habits.subscribe,
            habits.unsubscribe,
            habits.publish,
            habits.ping,
            habits.flood_pings,
            habits.read_slowly,
            habits.stop_reading,
            habits.dribble,
            habits.insult,
            habits.lie,
            habits.misunderstand,
            habits.watch,
            habits.unwatch,
            habits.call_roll,
            habits.close + habits.finish + habits.reset + habits.vanish,
        ];
        // Somebody whose words are not taken does not go on talking for ever.
        if life.outgoing.len() > 64 * 1024 {
            return;
        }
        let mut chosen = random.u32(..weights.iter().sum::<u32>());
        let act = weights.iter().position(|weight| {
            let is_it = chosen < *weight;
            chosen = chosen.saturating_sub(*weight);
            is_it
        });
        let channel = random.choice(&scene.plan.channels).expect("there is one").clone();
        *scene.next_id += 1;
        let id = *scene.next_id;
        let act = act.expect("one of them");
        let is_observing = act == 0 && habits.observe > 0 && random.u16(..1000) < habits.observe;
        let channel = if is_observing { format!("{PREFIX}{channel}") } else { channel };
        match act {
            0 if random.u16(..1000) < habits.resume => life.resume(random, id, &channel),
            0 => {
                let conflate = Self::asked_interval(random, &channel, scene.reached);
                life.ask(random, id, Ask::Subscribe(channel.clone(), scene.now), || {
                    format!(r#"{{"type":"subscribe","id":{id},"channel":"{channel}"{conflate}}}"#)
                });
            }
            1 => {
                let channel = random
                    .choice(life.account.channels().collect::<Vec<_>>())
                    .cloned()
                    .unwrap_or(channel);
                life.unsubscribe(random, id, &channel);
                // Where everybody comes back, some cannot make up their mind.
                if habits.resume == 1000 && random.u8(..4) == 0 {
                    for _ in 0..2 {
                        *scene.next_id += 2;
                        life.resume(random, *scene.next_id - 1, &channel);
                        life.unsubscribe(random, *scene.next_id, &channel);
                    }
                }
            }
            2 => {
                if let Some(publication) = self.unanswered.pop() {
                    life.publish_again(random, publication, id, scene);
                }
                for _ in 0..random.u32(1..=habits.burst_max) {
                    Self::publish(life, random, &channel, scene);
                }
            }
            3 if random.bool() => life
                .ask(random, id, Ask::Ping, || format!(r#"{{"type":"ping","id":{id},"t":{id}}}"#)),
            3 => life.ping(random),
            4 => (0..random.u32(1..400)).for_each(|_| life.ping(random)),
            5 => life.reading = Reading::Slow { bytes: random.usize(1..200) },
            6 => {
                let until = scene.now + random.u64(..=habits.stop_us_max);
                life.reading = Reading::Stopped { until };
                self.look_at = Some(until);
            }
            7 => life.dribble = random.usize(..300),
            8 => {
                let message_bytes_max = scene.plan.settings.conn.message_bytes_max;
                let (bytes, codes) =
                    speech::insult(random, message_bytes_max, life.deflate.as_mut());
                life.say(&bytes);
                life.insulted = Some(codes);
            }
            9 => {
                let bytes = speech::lie(random, scene.plan.settings.conn.message_bytes_max);
                life.say(&bytes);
                life.lied = true;
            }
            10 => {
                let (text, code) = speech::nonsense(random, id);
                life.ask(random, id, Ask::Nonsense(code), || text.clone());
            }
            11 => {
                let pattern = random.choice(PATTERNS).expect("there are some");
                life.ask(random, id, Ask::Watch(pattern.into()), || {
                    format!(r#"{{"type":"subscribe","id":{id},"channel":"{pattern}"}}"#)
                });
                // What it had one by one comes by the pattern now.
                if habits.unsubscribe > 0 && random.bool() {
                    life.let_go(random, scene.next_id);
                }
            }
            12 => {
                let known = random.choice(life.account.patterns().collect::<Vec<_>>()).cloned();
                let other = random.choice(PATTERNS).expect("there are some");
                let pattern = known.unwrap_or_else(|| other.into());
                life.ask(random, id, Ask::Unwatch(pattern.clone()), || {
                    format!(r#"{{"type":"unsubscribe","id":{id},"channel":"{pattern}"}}"#)
                });
            }
            13 if random.u8(..4) == 0 => {
                life.ask(random, id, Ask::Stats(channel.clone()), || {
                    format!(r#"{{"type":"presence_stats","id":{id},"channel":"{channel}"}}"#)
                });
            }
            13 => life.call_roll(random, id, &channel),
            _ => self.leave_somehow(scene),
        }
    }

    /// One thing that somebody does who can do no more than read, or be gone.
    fn listen_on(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        let habits = &scene.plan.habits;
        match self.random.u8(..12) {
            0 if habits.read_slowly > 0 => {
                // A full socket takes something again only when much of it has been read.
                life.longest_pause = u64::MAX;
                life.reading = Reading::Slow { bytes: self.random.usize(1..200) };
            }
            1 if habits.stop_reading > 0 => {
                let until = scene.now + self.random.u64(..=habits.stop_us_max);
                life.reading = Reading::Stopped { until };
                self.look_at = Some(until);
            }
            2 if habits.finish > 0 => {
                scene.network.finish(life.link);
                life.stage = Stage::Leaving;
            }
            3 if habits.reset > 0 => {
                scene.network.reset(life.link);
                self.end(scene);
            }
            4 if habits.vanish > 0 => {
                // Nobody asks a stream whether it hears: the network has to find out.
                let after = self.random.u64(1_000_000..LISTENER_FOUND_OUT_US_MAX);
                scene.reached.count(Situation::PeerVanished);
                scene.network.vanish(life.link, after);
                self.end(scene);
            }
            _ => {}
        }
    }

    /// Some want the newest messages less often than the rule says.
    fn asked_interval(random: &mut fastrand::Rng, channel: &str, reached: &mut Reached) -> String {
        // Where nothing is conflated, that is an error, and hardly ever asked for.
        let one_in = if channel.starts_with("flow") { 3 } else { 50 };
        if random.u8(..one_in) > 0 {
            return String::new();
        }
        reached.count(Situation::IntervalAskedFor);
        format!(r#","conflate":"{}ms""#, random.u64(1..30) * 100)
    }

    fn publish(life: &mut Life, random: &mut fastrand::Rng, channel: &str, scene: &mut Scene<'_>) {
        let (number, payload) = Self::message(life, random, channel, scene);
        if random.u16(..1000) < scene.plan.habits.anonymous {
            let text = format!(r#"{{"type":"publish","channel":"{channel}","payload":{payload}}}"#);
            let said = speech::text(random, &text, life.deflate.as_mut());
            return life.say(&said);
        }
        *scene.next_id += 1;
        let id = *scene.next_id;
        if random.u16(..1000) < scene.plan.habits.keyed {
            life.keyed.insert(number);
            return life.publish_keyed(random, id, number, channel, &payload);
        }
        life.ask(random, id, Ask::Publish(number), || {
            format!(r#"{{"payload":{payload},"type":"publish","channel":"{channel}","id":{id}}}"#)
        });
    }

    fn leave_somehow(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        let habits = &scene.plan.habits;
        let weights = [habits.close, habits.finish, habits.reset, habits.vanish];
        let mut chosen = self.random.u32(..weights.iter().sum::<u32>());
        let way = weights.iter().position(|weight| {
            let is_it = chosen < *weight;
            chosen = chosen.saturating_sub(*weight);
            is_it
        });
        match way {
            Some(0) => life.say_close(&mut self.random, 1000),
            Some(1) => {
                scene.network.finish(life.link);
                life.stage = Stage::Leaving;
            }
            Some(2) => {
                scene.network.reset(life.link);
                self.end(scene);
            }
            _ => {
                let after = self.random.u64(1_000_000..200_000_000);
                scene.reached.count(Situation::PeerVanished);
                scene.network.vanish(life.link, after);
                self.end(scene);
            }
        }
    }

    /// It leaves for good.
    fn leave(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        match self.random.u8(..4) {
            0 => {
                scene.network.reset(life.link);
                self.end(scene);
            }
            1 => {
                scene.network.finish(life.link);
                life.stage = Stage::Leaving;
            }
            _ if life.stage == Stage::Listening => {
                scene.network.finish(life.link);
                life.stage = Stage::Leaving;
            }
            _ => life.say_close(&mut self.random, 1000),
        }
    }

    /// Its connection is over.
    fn end(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = self.life.take() else { return };
        scene.network.tell(Some(life.link), "peer is gone");
        self.lost += life.account.lost;
        let keyed = life.account.unanswered_publications().filter(|it| life.keyed.contains(it));
        self.unanswered.extend(keyed);
        self.positions = life.account.into_positions();
        self.act_at = match scene.mood {
            Mood::Ordinary => scene.now + self.random.u64(..=scene.plan.habits.away_us_max),
            _ => u64::MAX,
        };
        self.look_at = None;
    }

    /// Messages told as lost, in all its lives.
    pub fn lost_so_far(&self) -> u64 {
        self.lost + self.life.as_ref().map_or(0, |life| life.account.lost)
    }

    // ---- writing ----

    fn write(&mut self, scene: &mut Scene<'_>) {
        let Some(life) = &mut self.life else { return };
        if life.outgoing.is_empty() {
            return;
        }
        let whole = life.outgoing.make_contiguous();
        let is_dribbling = life.dribble > 0;
        let piece =
            if is_dribbling { self.random.usize(1..9).min(whole.len()) } else { whole.len() };
        let taken = scene.network.send(life.link, &whole[..piece]);
        life.outgoing.drain(..taken);
        life.dribble = life.dribble.saturating_sub(taken.max(1));
        if !life.outgoing.is_empty() {
            let pause = if is_dribbling { 1..3_000 } else { 2_000..20_000 };
            let at = scene.now + self.random.u64(pause);
            self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
        }
    }
}

impl Life {
    fn new(id: u64, link: LinkId) -> Self {
        Self {
            id,
            link,
            stage: Stage::Shaking,
            reader: Reader::default(),
            deflate: None,
            account: Account::default(),
            user: None,
            listening: None,
            outgoing: VecDeque::new(),
            said: 0,
            dribble: 0,
            reading: Reading::Eager,
            is_deaf: false,
            read_at: 0,
            longest_pause: 0,
            insulted: None,
            keyed: BTreeSet::new(),
            lied: false,
            said_close: false,
            heard_close: false,
        }
    }

    fn is_well(&self) -> bool {
        !self.is_deaf
            && !self.lied
            && !self.said_close
            && !self.heard_close
            && self.insulted.is_none()
    }

    /// Whether it has sent a part of its request and will not send the rest.
    fn is_dawdling(&self) -> bool {
        self.lied && matches!(self.stage, Stage::Shaking | Stage::Posting)
    }

    fn say(&mut self, bytes: &[u8]) {
        self.said += bytes.len() as u64;
        self.outgoing.extend(bytes);
    }

    fn ask(
        &mut self,
        random: &mut fastrand::Rng,
        id: u64,
        ask: Ask,
        text: impl FnOnce() -> String,
    ) {
        self.account.ask(id, ask);
        let said = speech::text(random, &text(), self.deflate.as_mut());
        self.say(&said);
    }

    /// Unsubscribes from everything that it follows.
    fn let_go(&mut self, random: &mut fastrand::Rng, next_id: &mut u64) {
        let channels: Vec<_> = self.account.channels().cloned().collect();
        for channel in channels {
            *next_id += 1;
            self.unsubscribe(random, *next_id, &channel);
        }
    }

    fn unsubscribe(&mut self, random: &mut fastrand::Rng, id: u64, channel: &str) {
        self.ask(random, id, Ask::Unsubscribe(channel.to_owned()), || {
            format!(r#"{{"type":"unsubscribe","id":{id},"channel":"{channel}"}}"#)
        });
    }

    /// Subscribes where it was, or with the last messages.
    fn resume(&mut self, random: &mut fastrand::Rng, id: u64, channel: &str) {
        let (since, written) = match self.account.left(channel) {
            Some(position) if random.u8(..8) > 0 => {
                let Position { epoch, seq } = position;
                // Some have lost a part of what they had.
                let seq = if random.bool() { *seq } else { seq.saturating_sub(random.u64(..9)) };
                let written = format!(r#"{{"epoch":"{epoch}","seq":{seq}}}"#);
                (Since::After(Position { epoch: epoch.clone(), seq }), written)
            }
            _ if random.bool() => {
                // As long as a real one, or not.
                let epoch = random.choice(["elsewher", "elsewhere"]).expect("one of two");
                let position = Position { epoch: epoch.into(), seq: random.u64(..50) };
                let written = format!(r#"{{"epoch":"{epoch}","seq":{}}}"#, position.seq);
                (Since::After(position), written)
            }
            _ if random.bool() => (Since::Last(1), r#""latest""#.to_owned()),
            _ => return self.look_back(random, id, channel),
        };
        self.resume_since(random, id, channel, since, &written);
    }

    /// Subscribes with so many of the last messages.
    fn look_back(&mut self, random: &mut fastrand::Rng, id: u64, channel: &str) {
        let count_max = if random.bool() { 60 } else { 3_000 };
        let count = random.u64(..count_max);
        let written = format!(r#"{{"last":{count}}}"#);
        self.resume_since(random, id, channel, Since::Last(count), &written);
    }

    fn resume_since(
        &mut self,
        random: &mut fastrand::Rng,
        id: u64,
        channel: &str,
        since: Since,
        written: &str,
    ) {
        self.ask(random, id, Ask::Resume(channel.to_owned(), since), || {
            format!(r#"{{"type":"subscribe","id":{id},"channel":"{channel}","since":{written}}}"#)
        });
    }

    /// Asks for a list, or for the next page of one.
    fn call_roll(&mut self, random: &mut fastrand::Rng, id: u64, channel: &str) {
        if self.account.is_calling_roll(channel) {
            return;
        }
        let member = self.user.clone().filter(|_| self.account.is_member(channel));
        let (channel, limit) = (channel.to_owned(), random.u64(1..10));
        let after = self.account.rolls.next_page(&channel);
        let behind =
            after.as_ref().map_or_else(String::new, |after| format!(r#","after":"{after}""#));
        let text = format!(
            r#"{{"type":"presence","id":{id},"channel":"{channel}","limit":{limit}{behind}}}"#
        );
        self.ask(random, id, Ask::Roll(Page { channel, after, limit, member }), || text);
    }

    /// Says again what it has no answer to.
    fn publish_again(
        &mut self,
        random: &mut fastrand::Rng,
        publication: usize,
        id: u64,
        scene: &mut Scene<'_>,
    ) {
        let (channel, payload) = scene.ledger.publish_again(publication);
        scene.reached.count(Situation::PublishRepeated);
        self.keyed.insert(publication);
        self.publish_keyed(random, id, publication, &channel, &payload);
    }

    fn publish_keyed(
        &mut self,
        random: &mut fastrand::Rng,
        id: u64,
        publication: usize,
        channel: &str,
        payload: &str,
    ) {
        let key = format!(r#""key":"p{publication}""#);
        self.ask(random, id, Ask::Publish(publication), || {
            format!(
                r#"{{"payload":{payload},"type":"publish",{key},"channel":"{channel}","id":{id}}}"#
            )
        });
    }

    fn ping(&mut self, random: &mut fastrand::Rng) {
        let payload: Vec<u8> = (0..random.usize(..=125)).map(|_| random.u8(..)).collect();
        self.say(&speech::frame(random, speech::PING, &payload));
        self.account.ping(payload, self.said);
    }

    fn say_close(&mut self, random: &mut fastrand::Rng, code: u16) {
        self.say(&speech::close(random, code));
        self.said_close = true;
        self.stage = Stage::Leaving;
    }
}
