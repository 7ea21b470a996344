//! The loop of one core: the only place that knows both the machines and the world.
//!
//! One tick is five verbs, each with a bound: *harvest* what the world did (`receive`, `accept`),
//! *hear* the mailboxes (`hear`), *expire* timers (`expire`), *flush* the outboxes that were
//! touched (`flush`), *rest* until the next deadline. `request` turns messages into calls of the
//! hub, `publish` keeps the answers to HTTP publishes in order, `listen` answers polls, `relieve` keeps the memory ceiling, `drain` says good-bye, `mailbox` and `admission` are what shards share, `report` tells the
//! house. `audit` checks the books and is no part of a tick.

mod accept;
mod admission;
mod audit;
mod drain;
mod expire;
mod flush;
mod hear;
mod leave;
mod listen;
mod mailbox;
mod metrics;
mod publish;
mod receive;
mod relieve;
mod report;
mod request;
mod settings;

#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;

use crate::conn::Conn;
use crate::hub::{ClientId, Failure, Hub, ShardIndex};
use crate::io::{Completion, Driver, Sent};
use crate::mem::{Key, Table};
use crate::proto::ws::deflate::Codec;
use crate::time::{Clock, Time, Wheel};
use drain::Drain;
use publish::Answers;
use request::Requests;

pub use admission::Admission;
pub use audit::Audit;
pub use mailbox::{Address, Mailbox, MailboxRoom, Note, Post, PostCounts, mailbox};
pub use metrics::{Door, Metrics};
pub use settings::Settings;

/// How long a shard rests at most while letters wait on its shelves: nobody tells it when the
/// mailbox they are for has room again.
const CONGESTED_REST: Duration = Duration::from_millis(1);

/// One core's share of the server.
#[derive(Debug)]
pub struct Shard<D> {
    index: ShardIndex,
    settings: Settings,
    driver: D,
    conns: Table<Connection>,
    hub: Hub,
    requests: Requests,
    wheel: Wheel,
    post: Post,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    random: fastrand::Rng,
    drain: Option<Drain>,
    /// When accepting is tried again after it failed.
    accept_again: Option<Time>,
    /// When it was last said in the log that accepting fails.
    accept_warned: Option<Time>,
    /// Clients that are not read from while letters wait on shelves.
    held_back: Vec<Key>,
    /// Connections with answers that can be given, each once.
    answered: Vec<Key>,
    /// Bytes that connections keep of incomplete messages, for later compressed ones, and of answers
    /// to be given in order.
    held_bytes: usize,
    /// What inflates for all connections.
    codec: Codec,
    scratch: Scratch,
}

/// A connection and what only the shard knows of it.
#[derive(Debug)]
struct Connection {
    conn: Conn,
    peer: IpAddr,
    /// Answers to publishes over HTTP that are still to be given.
    answers: Option<Box<Answers>>,
    /// What it keeps of incomplete messages, for later ones and of answers, as counted in
    /// `Shard::held_bytes`.
    held_bytes: u32,
    /// Counts against the limits of [`Admission`].
    admitted: bool,
    /// An open WebSocket, or listening; counted in `Metrics::clients`.
    client: bool,
    /// It is read from while there are none.
    holds: Holds,
}

bitflags! {
    /// Reasons not to read from a connection.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Holds: u8 {
        /// Replies wait that it does not read.
        const REPLIES = 1;
        /// Letters wait that another shard has no room for.
        const LETTERS = 1 << 1;
        /// It has asked much over HTTP that is still to be answered.
        const ANSWERS = 1 << 2;
    }
}

/// Idle connections are what there is most of.
const _: () = assert!(size_of::<Connection>() <= 120);

impl Connection {
    /// Bytes it keeps of incomplete messages and of answers.
    fn keeps_bytes(&self) -> usize {
        let answers = self.answers.as_ref().map_or(0, |answers| answers.held_bytes());
        self.conn.held_bytes() + answers
    }
}

/// Buffers that live longer than a tick only to keep their memory, except for `due`, which may
/// keep timers that a tick had no time for.
#[derive(Debug, Default)]
struct Scratch {
    completions: Vec<Completion>,
    replies: Vec<u8>,
    due: Vec<Key>,
    batch: Vec<ClientId>,
    outcomes: Vec<Sent>,
    failed: Vec<(ClientId, Failure)>,
    answers: Vec<crate::hub::Answer>,
    letters: Vec<(ShardIndex, crate::hub::Letter)>,
}

/// What a shard shares with the others and with the house.
#[derive(Debug)]
pub struct Shared {
    /// Its way to the others.
    pub post: Post,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// What it tells the house.
    pub metrics: Arc<Metrics>,
}

impl<D: Driver> Shard<D> {
    /// A shard that has accepted nobody yet. All of its chance comes from `random`.
    #[must_use]
    pub fn new(settings: Settings, driver: D, shared: Shared, mut random: fastrand::Rng) -> Self {
        let Shared { post, admission, metrics } = shared;
        Self {
            index: settings.hub.shard,
            codec: Codec::new(settings.hub.compression_level),
            hub: Hub::new(settings.hub.clone(), random.fork()),
            settings,
            driver,
            conns: Table::new(),
            requests: Requests::default(),
            wheel: Wheel::new(),
            post,
            admission,
            metrics,
            random,
            drain: None,
            accept_again: None,
            accept_warned: None,
            held_back: Vec::new(),
            answered: Vec::new(),
            held_bytes: 0,
            scratch: Scratch::default(),
        }
    }

    /// Begins to accept from `listener`.
    ///
    /// # Errors
    /// When the driver does not take it.
    pub fn listen(&mut self, listener: std::os::fd::OwnedFd) -> io::Result<()> {
        self.driver.listen(listener)
    }

    /// One turn of the loop. False when the shard has drained and nothing is left to do.
    ///
    /// # Errors
    /// When the driver is broken.
    pub fn tick(&mut self, now: Time, clock: &mut impl Clock) -> io::Result<bool> {
        let rest = self.rest(now);
        self.metrics.resting.set(1);
        let mut completions = std::mem::take(&mut self.scratch.completions);
        self.driver.harvest(rest, &mut completions)?;
        self.metrics.resting.set(0);
        let now = clock.now();
        for completion in completions.drain(..) {
            self.handle(now, completion);
        }
        self.scratch.completions = completions;
        self.hear(now);
        self.expire(now);
        self.settle(now);
        self.report();
        Ok(!self.has_drained(now))
    }

    /// What the world did.
    fn handle(&mut self, now: Time, completion: Completion) {
        match completion {
            Completion::Received { socket, buffer } => self.receive(now, socket, buffer),
            Completion::Accepted { socket, peer } => self.accept(now, socket, peer),
            Completion::AcceptFailed { error } => self.accept_failed(now, &error),
            Completion::Writable { socket } => self.hub.unblocked(socket, now),
            Completion::EndOfStream { socket } => self.end_of_stream(now, socket),
            Completion::Failed { socket, error } => self.failed(now, socket, &error),
            Completion::ListenerClosed => self.listener_closed(),
            // It was heard by waking; what it was about is in the mailboxes.
            Completion::Woken => {}
        }
    }

    /// How long nothing will be due: what the next tick passes to its driver, unless something
    /// happens before.
    #[must_use]
    pub fn rest(&self, now: Time) -> Option<Duration> {
        let is_searching = self.hub.has_searches() && !self.post.is_congested();
        let has_work = is_searching || self.has_presence_to_tell();
        let is_busy = self.hub.has_dirty() || self.hub.has_recalls_due() || has_work;
        if is_busy || self.post.has_mail() || !self.scratch.due.is_empty() {
            return Some(Duration::ZERO);
        }
        let drain = self.drain.as_ref().map(|drain| drain.next(now));
        let (expiry, flush) = (self.hub.next_channel_expiry(), self.hub.next_flush());
        let presence = self.hub.next_presence();
        let deadlines = [self.wheel.next(), expiry, flush, presence, self.accept_again, drain];
        let next = deadlines.into_iter().flatten().min().map(|deadline| deadline.since(now));
        if self.post.is_congested() {
            return Some(next.map_or(CONGESTED_REST, |rest| rest.min(CONGESTED_REST)));
        }
        next
    }
}
