//! One world: shards on a simulated network, people, weather, and what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringcast::conn::EndReason;
use ringcast::hub;
use ringcast::io::Driver;
use ringcast::io::sim::{LinkId, Network, Sim};
use ringcast::limits::{CHANNEL_IDLE, PUBLISHES_UNANSWERED_MAX, REPLIES_BYTES_MAX};
use ringcast::proto::http::Refusal;
use ringcast::shard::{Address, Admission, Audit, Metrics, Post, Settings, Shard, Shared, mailbox};
use ringcast::time::{Clock, Time};

use crate::ledger::Ledger;
use crate::peer::{LISTENER_FOUND_OUT_US_MAX, Mood, Peer, Scene};
use crate::plan::{Ending, Plan};
use crate::reached::{Reached, Situation};

const SECOND: u64 = 1_000_000;

/// Ticks of one world at most: beyond it something turns in circles.
const TICKS_MAX: u64 = 3_000_000;

/// Bytes of an ack in these worlds, whose channels have short names and whose ids are numbers.
const ACK_BYTES_MAX: u64 = 80;

/// Bytes of replies that wait for one WebSocket at most: those that stop the reading, what the requests
/// cause that had been read by then, and answers that all come at once.
const WEBSOCKET_REPLIES_BYTES_MAX: u64 =
    (REPLIES_BYTES_MAX + 80 * 1024) as u64 + ACK_BYTES_MAX * PUBLISHES_UNANSWERED_MAX as u64;

/// The same over HTTP. Where people poll, one answer is all that a queue held.
fn http_replies_bytes_bound(plan: &Plan) -> u64 {
    let Settings { conn, hub, .. } = &plan.settings;
    let polled = u64::from(hub.outbox.bytes) + conn.message_bytes_max as u64;
    WEBSOCKET_REPLIES_BYTES_MAX + if plan.habits.listen > 0 { polled } else { 0 }
}

/// What became of a world.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// A number for everything that happened.
    pub digest: u64,
    pub events: u64,
    pub ticks: u64,
    pub published: u64,
    pub delivered: u64,
    /// Simulated time.
    pub lived: Duration,
    pub reached: Reached,
}

/// A shard and when it gets its turn.
struct Turn {
    shard: Shard<Sim>,
    /// When, if something has happened.
    at: Option<u64>,
    /// When, if nothing happens.
    deadline: Option<u64>,
    stalled_until: u64,
}

struct Fixed(Time);

impl Clock for Fixed {
    fn now(&mut self) -> Time {
        self.0
    }
}

/// One world.
pub struct World {
    plan: Plan,
    network: Network,
    /// Shards that have not ended.
    turns: Vec<Option<Turn>>,
    metrics: Vec<Arc<Metrics>>,
    addresses: Vec<(Address, ringcast::io::Waker)>,
    admission: Arc<Admission>,
    peers: Vec<Peer>,
    by_link: BTreeMap<LinkId, usize>,
    ledger: Ledger,
    reached: Reached,
    random: fastrand::Rng,
    now: u64,
    next_id: u64,
    ticks: u64,
    mood: Mood,
    draining: Option<u64>,
    is_healed: bool,
    /// Where the clock jumped last.
    jumped_to: u64,
    /// Connections that were there when their shard ended.
    left_behind: u64,
}

impl World {
    /// The world of `plan`. All of its chance comes from `seed`.
    pub fn new(plan: Plan, seed: u64, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let network = Network::new(random.fork(), plan.faults.clone());
        if trace {
            network.log().print_lines();
        }
        let admission = Arc::new(Admission::new(
            usize::from(plan.shards),
            plan.connections_max,
            plan.per_address_max,
        ));
        let drivers: Vec<Sim> =
            (0..plan.shards).map(|_| Sim::new(&network).expect("a waker")).collect();
        let (addresses, mailboxes): (Vec<Address>, Vec<_>) =
            (0..plan.shards).map(|_| mailbox(plan.room)).unzip();
        let wakers = drivers.iter().map(Driver::waker);
        let addresses: Vec<_> = addresses.into_iter().zip(wakers).collect();
        let metrics: Vec<Arc<Metrics>> = drivers.iter().map(|_| Arc::default()).collect();
        let mut turns = Vec::new();
        for (index, (driver, mailbox)) in drivers.into_iter().zip(mailboxes).enumerate() {
            let mut settings = plan.settings.clone();
            settings.hub.shard = index as u16;
            let shared = Shared {
                post: Post::new(mailbox, addresses.clone()),
                admission: admission.clone(),
                metrics: metrics[index].clone(),
            };
            turns.push(Some(Turn::new(settings, driver, shared, random.fork())));
        }
        let peers = (0..plan.peers).map(|number| Peer::new(number, random.fork(), &plan));
        Self {
            peers: peers.collect(),
            network,
            turns,
            metrics,
            addresses,
            admission,
            by_link: BTreeMap::new(),
            ledger: Ledger::default(),
            reached: Reached::default(),
            random,
            now: 0,
            next_id: 0,
            ticks: 0,
            mood: Mood::Ordinary,
            draining: None,
            is_healed: false,
            jumped_to: 0,
            left_behind: 0,
            plan,
        }
    }

    /// Lives through it.
    pub fn run(mut self) -> Outcome {
        match self.plan.ending {
            Ending::DrainedInTrouble(permille) => {
                self.run_until(self.plan.life_us * u64::from(permille) / 1000);
                self.drain();
                self.reached.count(Situation::DrainedAmidTrouble);
            }
            Ending::DrainedInPeace => {
                self.run_until(self.plan.life_us);
                self.heal();
                self.drain();
                self.reached.count(Situation::DrainedInPeace);
            }
            Ending::Deserted => {
                self.run_until(self.plan.life_us / 2);
                for peer in &mut self.peers {
                    peer.rest(self.now + self.plan.lull_us);
                }
                self.run_until(self.plan.life_us + self.plan.lull_us);
                self.heal();
                self.desert();
                self.reached.count(Situation::Deserted);
            }
        }
        self.ledger.close();
        self.count_metrics();
        let log = self.network.log();
        Outcome {
            digest: log.digest(),
            events: log.events(),
            ticks: self.ticks,
            published: self.ledger.published() as u64,
            delivered: self.metrics.iter().map(|metrics| metrics.deliveries.get()).sum(),
            lived: Duration::from_micros(self.now),
            reached: self.reached.clone(),
        }
    }

    // ---- phases ----

    /// Nothing goes wrong any more, and everybody listens: everything that is owed must come.
    fn heal(&mut self) {
        (self.is_healed, self.mood) = (true, Mood::Listening);
        self.network.heal();
        self.network.tell(None, "everything heals");
        for turn in self.turns.iter_mut().flatten() {
            turn.stalled_until = 0;
            turn.at = turn.at.map(|at| at.min(self.now));
        }
        self.for_each_peer(|peer, scene| peer.heal(scene));
        self.run_until(self.now + SECOND);
        let well = self.well();
        self.get_even();
        // What they had said before is heard now, and may be too much for who reads slowly.
        let well = if self.plan.closes_the_slow() { self.well() } else { well };
        // Who vanished is found out by its silence, who dawdles by its time limit.
        let conn = &self.plan.settings.conn;
        let patience = conn.ping_interval * 11 / 10
            + conn.pong_timeout
            + conn.handshake_timeout
            + conn.request_timeout
            + conn.close_timeout * 2;
        let patience = patience.as_micros() as u64 + LISTENER_FOUND_OUT_US_MAX;
        let until = self.now + patience + 5 * SECOND;
        loop {
            let well = self.peers.iter().filter(|peer| peer.is_well()).count() as u64;
            let connections = self.connections();
            if connections == well {
                break;
            }
            assert!(
                self.now < until,
                "{well} peers are connected, and {connections} connections are kept"
            );
            self.run_until(self.now + SECOND / 2);
        }
        self.get_even();
        let is_cut_off =
            self.plan.settings.conn.idle_timeout.is_some() || self.plan.is_short_of_memory();
        let left = self.well();
        let lost: Vec<&LinkId> = well.iter().filter(|link| !left.contains(link)).collect();
        assert!(
            is_cut_off || lost.is_empty(),
            "who is well when all is well stays connected, and {lost:?} did not"
        );
        // With several channels, the oldest of all of them give way; for want of memory, all do.
        let is_plain = self.plan.channels.len() == 1
            && !self.plan.is_short_of_memory()
            && self.plan.presence().is_none()
            && self.plan.max_ages_ms() == [None; 2];
        if is_plain && self.plan.channels[0].starts_with("old") {
            for peer in &self.peers {
                peer.check_newest();
            }
        }
        self.for_each_peer(|peer, scene| peer.check_newest_of_keys(scene));
        self.check_losses();
        self.check_presence();
    }

    /// Lists say who is there, and whoever has read one and heard who came and went knows it.
    fn check_presence(&mut self) {
        let Some(presence) = self.plan.presence() else { return };
        let ends = self.plan.settings.conn.idle_timeout.is_some();
        if ends || self.plan.is_short_of_memory() {
            return;
        }
        let wait = presence.grace.unwrap_or_default() + presence.events.unwrap_or_default() * 2;
        self.run_until(self.now + wait.as_micros() as u64 + SECOND);
        self.get_even();
        for channel in self.plan.channels.clone() {
            let mut there: BTreeMap<&str, u64> = BTreeMap::new();
            let mut nameless = 0;
            let everybody = self.peers.iter().flat_map(Peer::presence);
            for (_, user) in everybody.filter(|(known, _)| **known == channel) {
                match user {
                    Some(user) => *there.entry(user).or_default() += 1,
                    None => nameless += 1,
                }
            }
            let hubs = self.turns.iter().flatten().map(|turn| turn.shard.hub());
            let lists = hubs.map(|hub| hub.members(&channel));
            let list = lists.max_by_key(|(users, anonymous, unlisted)| {
                users.len() as u64 + anonymous + unlisted
            });
            let (users, anonymous, unlisted) = list.expect("there is a shard");
            assert_eq!(anonymous, nameless, "those without a name in {channel}");
            let listed: u64 = users.iter().map(|(_, count)| u64::from(*count)).sum();
            assert_eq!(listed + unlisted, there.values().sum::<u64>(), "connections in {channel}");
            for (user, count) in &users {
                let known = there.get(user).copied().unwrap_or_default();
                assert!(u64::from(*count) <= known, "{user} has {known} connections in {channel}");
                assert!(*count > 0, "{user} has left {channel} for good");
            }
            assert!(unlisted == 0 || presence.users_max < 1_000, "there is room for all");
            let listed: BTreeSet<String> = users.iter().map(|(user, _)| (*user).into()).collect();
            for peer in &self.peers {
                peer.check_roll(&channel, &listed, &mut self.reached);
            }
        }
    }

    /// The connections of those who mean well.
    fn well(&self) -> Vec<LinkId> {
        self.peers.iter().filter(|peer| peer.is_well()).filter_map(Peer::link).collect()
    }

    /// Nobody who means well is owed anything.
    fn get_even(&mut self) {
        let until = self.now + 60 * SECOND;
        while let Some(owed) = self.owed() {
            assert!(self.now < until, "everything heals, and yet after a minute: {owed}");
            self.run_until(self.now + SECOND / 2);
        }
    }

    /// Everybody leaves; then nothing is left of anything.
    fn desert(&mut self) {
        self.mood = Mood::Leaving;
        self.for_each_peer(|peer, scene| peer.heal(scene));
        let until =
            self.now + self.plan.settings.conn.close_timeout.as_micros() as u64 + 5 * SECOND;
        while self.connections() > 0 {
            assert!(
                self.now < until,
                "{} connections stay after all have left",
                self.connections()
            );
            self.run_until(self.now + SECOND / 2);
        }
        // What is kept for those who were away keeps its channel, too.
        let kept = self.plan.kept_for_max();
        self.run_until(self.now + (kept + 3 * CHANNEL_IDLE).as_micros() as u64 + SECOND);
        for audit in self.audits() {
            assert_eq!(audit.timers, 0, "no connection, no timer");
            assert_eq!(audit.hub, hub::Audit::default(), "nobody there, nothing kept");
            assert_eq!(
                (audit.letters_waiting, audit.congested),
                (0, false),
                "all letters are heard"
            );
        }
        for turn in self.turns.iter().flatten() {
            let hub = turn.shard.hub();
            assert_eq!((hub.segments_bytes(), hub.replies_bytes()), (0, 0), "all memory is back");
            assert_eq!((hub.keys_bytes(), hub.patterns_bytes()), (0, 0), "all memory is back");
            assert_eq!(hub.presence_bytes(), 0, "all memory is back");
        }
        assert_eq!(self.admission.connections(), 0, "who has left does not count");
        self.check_ends();
    }

    /// Every accepted connection ends with exactly one reason.
    fn check_ends(&self) {
        let sum = |of: fn(&Metrics) -> u64| -> u64 { self.metrics.iter().map(|m| of(m)).sum() };
        let ended = sum(|metrics| metrics.ended.iter().map(|number| number.get()).sum());
        let accepted = sum(|metrics| metrics.accepted.get());
        assert_eq!(accepted, ended, "every accepted connection ends with exactly one reason");
    }

    /// The server leaves.
    fn drain(&mut self) {
        // Some have just come back, and are still catching up.
        self.for_each_peer(|peer, scene| peer.look_back(scene));
        self.draining = Some(self.now);
        self.network.tell(None, "the server drains");
        for (address, waker) in &self.addresses {
            address.drain();
            waker.wake();
        }
        self.plan_turns();
        let window = self.plan.settings.drain_window.as_micros() as u64;
        let mut until = self.now + window + 2 * SECOND;
        while self.turns.iter().any(Option::is_some) {
            // A shard that stalls, or is passed over by the clock, may hear of it only then.
            let stalled = self.turns.iter().flatten().map(|turn| turn.stalled_until).max();
            let lost = stalled.unwrap_or_default().max(self.jumped_to);
            until = until.max(lost + window + 2 * SECOND);
            assert!(self.now < until, "the drain window is over, and the server is still there");
            self.run_until(self.now + SECOND / 4);
        }
        // When the window is over, the process ends whoever is there.
        if self.left_behind + self.admission.connections() as u64 == 0 {
            self.check_ends();
        }
    }

    // ---- time ----

    /// Lets everything happen that happens until `until`.
    fn run_until(&mut self, until: u64) {
        loop {
            let shards = self.turns.iter().flatten().filter_map(Turn::next);
            let peers = self.peers.iter().map(Peer::next);
            let next = shards.chain(peers).chain(self.network.next()).min();
            match next {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => break,
            }
            self.step();
        }
        self.now = self.now.max(until);
        self.network.advance(self.now);
    }

    /// Everything that is due now.
    fn step(&mut self) {
        self.network.advance(self.now);
        for link in self.network.take_touched() {
            if let Some(peer) = self.by_link.get(&link) {
                self.peers[*peer].touched(self.now);
            }
        }
        let now = self.now;
        let first = self.random.usize(..self.peers.len());
        for offset in 0..self.peers.len() {
            let index = (first + offset) % self.peers.len();
            if self.peers[index].next() <= now {
                self.with_peer(index, Peer::step);
            }
        }
        self.plan_turns();
        for index in 0..self.turns.len() {
            let is_due = |turn: &Turn| turn.next().is_some_and(|at| at <= now);
            if self.turns[index].as_ref().is_some_and(is_due) {
                self.tick(index);
            }
        }
        self.plan_turns();
    }

    /// Shards that have something to do get a turn.
    fn plan_turns(&mut self) {
        for (index, turn) in self.turns.iter_mut().enumerate() {
            let Some(turn) = turn.as_mut().filter(|turn| turn.at.is_none()) else { continue };
            if self.network.has_news(index) {
                let turn_us_max = if self.is_healed { 100 } else { self.plan.weather.turn_us_max };
                turn.at = Some(self.now + self.random.u64(..=turn_us_max));
            }
        }
    }

    fn tick(&mut self, index: usize) {
        self.ticks += 1;
        assert!(self.ticks < TICKS_MAX, "the world turns in circles");
        self.storm(index);
        let Some(turn) = &mut self.turns[index] else { return };
        if turn.stalled_until > self.now {
            turn.at = Some(turn.stalled_until);
            return;
        }
        let time = Time::from_start(Duration::from_micros(self.now));
        let goes_on = turn.shard.tick(time, &mut Fixed(time)).expect("memory does not break");
        let rest = turn.shard.rest(time);
        turn.at = None;
        turn.deadline = rest.map(|rest| (time.as_millis() + rest.as_millis() as u64) * 1_000);
        if rest == Some(Duration::ZERO) {
            turn.at = Some(self.now + 1 + self.random.u64(..=20));
        }
        let audit = turn.shard.audit();
        let most = audit.websocket_replies_bytes_most;
        assert!(
            most <= WEBSOCKET_REPLIES_BYTES_MAX,
            "{most} bytes of replies wait for a WebSocket"
        );
        let most = audit.http_replies_bytes_most;
        assert!(
            most <= http_replies_bytes_bound(&self.plan),
            "{most} bytes of replies wait for a client over HTTP"
        );
        for (channel, epoch, seq) in turn.shard.hub().homes() {
            let is_anew = self.ledger.home(channel, epoch.as_str(), seq, self.now);
            self.reached.add(Situation::NumberingAnew, u64::from(is_anew));
        }
        for (channel, epoch, seq) in turn.shard.messages_held() {
            self.ledger.is_on_its_way(channel, epoch.as_str(), seq);
        }
        if !goes_on {
            self.left_behind += audit.connections;
            self.turns[index] = None;
        }
        self.note(&audit);
        for peer in &mut self.peers {
            peer.note_heard(&self.network, self.now);
        }
    }

    /// Trouble with time and the uplink.
    fn storm(&mut self, index: usize) {
        if self.is_healed {
            return;
        }
        let weather = self.plan.weather;
        let random = &mut self.random;
        let mut strikes = |ppm: u32| ppm > 0 && random.u32(..1_000_000) < ppm;
        let (stalls, jumps, breaks) =
            (strikes(weather.stall_ppm), strikes(weather.jump_ppm), strikes(weather.outage_ppm));
        let may_stall = weather.stalls_only.is_none_or(|it| it == index);
        if stalls
            && may_stall
            && let Some(turn) = &mut self.turns[index]
        {
            turn.stalled_until = self.now + self.random.u64(..=weather.stall_us_max);
            self.reached.count(Situation::ShardStalled);
        }
        if jumps {
            self.now += self.random.u64(..=weather.jump_us_max);
            self.jumped_to = self.now;
            self.network.tell(None, ("clock jumps to", self.now));
            self.reached.count(Situation::ClockJumped);
        }
        if breaks {
            self.network.set_outage(self.now + self.random.u64(..=weather.outage_us_max));
            self.reached.count(Situation::UplinkDown);
        }
    }

    // ---- people ----

    fn with_peer(&mut self, index: usize, act: impl FnOnce(&mut Peer, &mut Scene<'_>)) {
        let peer = &mut self.peers[index];
        let before = peer.link();
        crate::concerning(before);
        let mut scene = Scene {
            now: self.now,
            network: &self.network,
            plan: &self.plan,
            ledger: &mut self.ledger,
            reached: &mut self.reached,
            next_id: &mut self.next_id,
            mood: self.mood,
            draining: self.draining,
        };
        act(peer, &mut scene);
        let after = peer.link();
        if before != after {
            if let Some(before) = before {
                self.by_link.remove(&before);
            }
            if let Some(after) = after {
                self.by_link.insert(after, index);
            }
        }
        crate::concerning(None);
    }

    fn for_each_peer(&mut self, act: impl Fn(&mut Peer, &mut Scene<'_>)) {
        for index in 0..self.peers.len() {
            self.with_peer(index, &act);
        }
    }

    /// What somebody who means well is still owed.
    fn owed(&self) -> Option<String> {
        self.peers.iter().find_map(|peer| peer.owed(&self.network, &self.ledger))
    }

    // ---- books ----

    fn audits(&self) -> Vec<Audit> {
        self.turns.iter().flatten().map(|turn| turn.shard.audit()).collect()
    }

    fn connections(&self) -> u64 {
        self.audits().iter().map(|audit| audit.connections).sum()
    }

    /// What people were told as lost is what the server counted.
    fn check_losses(&mut self) {
        if !self.plan.habits.everybody_stays() || self.plan.settings.conn.idle_timeout.is_some() {
            return;
        }
        // A pattern that ends for want of memory forgets what was lost and not told.
        if self.plan.habits.watch > 0 && self.plan.is_short_of_memory() {
            return;
        }
        let ended: u64 = self
            .metrics
            .iter()
            .flat_map(|metrics| metrics.ended.iter().map(|number| number.get()))
            .sum();
        if ended > 0 {
            return; // Somebody was cut off, with losses that nobody could be told of.
        }
        let told: u64 = self.peers.iter().map(Peer::lost_so_far).sum();
        let counted: u64 = self
            .metrics
            .iter()
            .map(|m| {
                let for_room = m.dropped_oldest.get() + m.dropped_newest.get();
                for_room + m.dropped_memory.get() + m.dropped_stale.get()
            })
            .sum();
        assert_eq!(told, counted, "what was told as lost is what was counted as lost");
        self.reached.add(Situation::LossesEqualCounters, u64::from(counted > 0));
    }

    /// Counts where the shard is.
    fn note(&mut self, audit: &Audit) {
        let hub = &audit.hub;
        for (situation, times) in [
            (Situation::MessageBegun, hub.message_begun),
            (Situation::RepliesBehindMessageBegun, hub.replies_behind_message_begun),
            (Situation::RepliesBegun, hub.replies_begun),
            (Situation::GapMerged, hub.gap_merged),
            (Situation::GapBehindGap, hub.gap_behind_gap),
            (Situation::GapBehindMessage, hub.gap_behind_message),
            (Situation::GapBeforeMessage, hub.gap_before_message),
            (Situation::ChannelsMixed, hub.channels_mixed),
            (Situation::Throttled, hub.throttled),
            (Situation::HeldBack, audit.held_back),
            (Situation::MailboxFull, u64::from(audit.congested)),
            (Situation::DeliveriesHeld, u64::from(audit.deliveries_held)),
            (Situation::HomeAsked, hub.attaching),
            (Situation::WaitingForHome, hub.waiting_for_home),
            (Situation::UnsubscribedWhileWaiting, hub.unsubscribes_waiting),
            (Situation::HomeAttached, hub.homes_attached),
            (Situation::HomeDeserted, hub.homes_deserted),
            (Situation::SealedBacklog, hub.sealed_backlog),
            (Situation::Recovering, hub.recovering),
            (
                Situation::RecoveringAsServerLeaves,
                if self.draining.is_some() { hub.recovering } else { 0 },
            ),
            (Situation::RecoveringUnanswered, hub.recovering_unanswered),
            (Situation::RecoveringWithWishes, hub.recovering_with_wishes),
            (Situation::HistoryKept, hub.kept),
            (Situation::ConflatedWaiting, hub.conflated_waiting),
            (Situation::ConflatedNewcomer, hub.conflated_newcomers),
            (Situation::PatternSearching, hub.patterns_searching),
            (Situation::MatchedAndAsked, hub.matched_and_asked),
            (Situation::WatcherUnnamed, hub.unnamed),
            (Situation::UserLeaving, hub.users_leaving),
            (Situation::MembersUntold, hub.members_untold),
            (Situation::ConnectionUnlisted, hub.connections_unlisted),
            (Situation::PartialReceive, audit.holding),
            (Situation::WindowKept, audit.windows),
        ] {
            self.reached.add(situation, times);
        }
        if self.draining.is_some() && hub.sealed_backlog > 0 && audit.open > 0 {
            self.reached.count(Situation::GoodbyeWaitedForBacklog);
        }
    }

    /// Counts what the server's own numbers say.
    fn count_metrics(&mut self) {
        self.reached.add(Situation::SentTwiceInTick, self.network.sent_again());
        self.reached.add(Situation::AdoptRefused, self.network.adopts_refused());
        for metrics in &self.metrics {
            for reason in EndReason::ALL {
                self.reached.ended(reason, metrics.ended[reason as usize].get());
            }
            for (name, refused) in Refusal::NAMES.iter().zip(&metrics.refused) {
                self.reached.refused(name, refused.get());
            }
            self.reached.add(Situation::DroppedOldest, metrics.dropped_oldest.get());
            self.reached.add(Situation::DroppedNewest, metrics.dropped_newest.get());
            self.reached.add(Situation::HandedOver, metrics.handed_over.get());
            self.reached.add(Situation::AcceptFailed, metrics.accept_failures.get());
        }
    }
}

impl Turn {
    fn new(settings: Settings, driver: Sim, shared: Shared, random: fastrand::Rng) -> Self {
        let mut shard = Shard::new(settings, driver, shared, random);
        let listener = std::fs::File::open("/dev/null").expect("it is always there");
        shard.listen(listener.into()).expect("a simulated listener");
        Self { shard, at: None, deadline: None, stalled_until: 0 }
    }

    fn next(&self) -> Option<u64> {
        let next = self.at.into_iter().chain(self.deadline).min()?;
        Some(next.max(self.stalled_until))
    }
}
