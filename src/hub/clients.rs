//! The clients of a shard and what waits for each of them.

use std::rc::Rc;
use std::sync::Arc;

use super::format::{Encoder, Format};
use super::listen::Listening;
use super::outbox::{Capacity, Gap, Offered, Outbox};
use super::recovery::Recovery;
use super::segment::{Run, Segment};
use super::{Burden, ClientId, Failure, GapReason, PatternId, TopicId, Way};
use crate::mem::Table;
use crate::time::Time;
use extra::{Extra, Followed};
use subscriptions::Subscriptions;

pub(super) use subscriptions::Subscription;

/// Empty outboxes kept for the next backlog: a burst to as many clients allocates nothing.
const SPARE_MAX: usize = 1024;

/// The clients of a shard, their outboxes, and who of them can be sent something now.
#[derive(Debug)]
pub(super) struct Clients {
    table: Table<Client>,
    capacity: Capacity,
    /// Clients with something to send, each once.
    dirty: Vec<ClientId>,
    /// Clients that are to be closed.
    pub(super) failed: Vec<(ClientId, Failure)>,
    /// Clients that catch up with a channel, and for whom nothing waits any more.
    caught_up: Vec<ClientId>,
    /// Polls that can be answered.
    pub(super) ready: Vec<ClientId>,
    /// Empty outboxes for the next backlog.
    #[expect(clippy::vec_box, reason = "they move in and out of clients as boxes")]
    spare: Vec<Box<Outbox>>,
    /// Bytes of replies that wait.
    pub(super) replies_bytes: usize,
    pub(super) flow: Flow,
}

/// What the hub keeps of one client. An idle client owns no outbox.
#[derive(Debug, Default)]
pub(super) struct Client {
    outbox: Option<Box<Outbox>>,
    /// How its messages are written.
    format: Format,
    pub(super) subscriptions: Subscriptions,
    extra: Option<Box<Extra>>,
    /// Subscriptions that wait for a home shard's answer.
    pub(super) waiting: u16,
    /// Publishes that are to be answered and have not been.
    unanswered: u32,
    /// Listed in `Clients::dirty`.
    dirty: bool,
    /// The socket is full: nothing is sent until it is writable again.
    blocked: bool,
    /// It was when somebody looked, and has taken nothing since.
    stuck: bool,
    /// Nothing more is queued: the last frame has been.
    sealed: bool,
    /// It has been told its last words: nothing that it says counts any more.
    muted: bool,
    /// It is sealed as soon as it has caught up.
    retiring: bool,
    /// Nothing more is read from it until its replies have left.
    throttled: bool,
    /// How it is told what became of its publishes.
    pub(super) door: Door,
}

/// Idle clients are what there is most of.
const _: () = assert!(size_of::<Client>() <= 48);

/// How a client is told what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Door {
    /// In frames.
    #[default]
    Frames,
    /// It publishes over HTTP, and [`Answer`](super::Answer)s are what somebody else writes.
    Answers,
    /// It listens to a stream of events.
    Stream,
    /// It listens for one answer.
    Poll,
}

impl Client {
    /// Whether its last frame has been queued.
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether it may begin something.
    pub(super) const fn takes_part(&self) -> bool {
        !self.sealed && !self.retiring
    }

    /// What few have, to be given something; see [`Client::forget_unused`].
    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Keeps no empty [`Extra`].
    fn forget_unused(&mut self) {
        self.extra.take_if(|extra| extra.is_unused());
    }

    pub(super) fn listening(&self) -> Option<&Listening> {
        self.extra.as_ref()?.listening.as_deref()
    }

    /// What it is called, if it has said so.
    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.extra.as_ref()?.user.as_ref()
    }

    /// How it catches up with channels.
    pub(super) fn recoveries(&self) -> &[Recovery] {
        let recoveries = self.extra.as_ref().and_then(|extra| extra.recoveries.as_deref());
        recoveries.map_or(&[], Vec::as_slice)
    }

    /// The same, to change it.
    fn recoveries_mut(&mut self) -> &mut [Recovery] {
        let recoveries = self.extra.as_mut().and_then(|extra| extra.recoveries.as_deref_mut());
        recoveries.map_or(&mut [], Vec::as_mut_slice)
    }

    /// Whether it catches up with a channel.
    fn is_recovering(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.recoveries.is_some())
    }

    pub(super) fn has_something_waiting(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }

    /// Whether it listens for an answer that cannot be given yet.
    fn is_held(&self) -> bool {
        self.door == Door::Poll && self.listening().is_some_and(|it| !it.is_placed())
    }

    /// How many channels it has asked for itself, or is about to have.
    pub(super) fn channels(&self) -> usize {
        self.subscriptions.len() - usize::from(self.matched()) + usize::from(self.waiting)
    }

    /// Its place in `topic`, if it is subscribed to that.
    pub(super) fn subscription(&self, topic: TopicId) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.topic == topic)
    }

    /// The same, to change it.
    pub(super) fn subscription_mut(&mut self, topic: TopicId) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.topic == topic)
    }

    fn followed(&self) -> Option<&Followed> {
        self.extra.as_ref()?.followed.as_deref()
    }

    /// Patterns that it is subscribed to.
    pub(super) fn patterns(&self) -> &[PatternId] {
        self.followed().map_or(&[], |followed| &followed.patterns)
    }

    /// How many of its subscriptions only patterns hold.
    pub(super) fn matched(&self) -> u16 {
        self.followed().map_or(0, |followed| followed.matched)
    }
}

/// What flowed out so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Messages the kernel took to the last byte, one for each receiver.
    pub deliveries: u64,
    /// Messages lost under `drop_oldest`.
    pub dropped_oldest: u64,
    /// Messages lost under `drop_newest`.
    pub dropped_newest: u64,
    /// Messages lost because the memory ceiling was reached.
    pub dropped_memory: u64,
    /// Messages lost because they were too old.
    pub dropped_stale: u64,
    /// Gap notices written.
    pub gaps: u64,
    /// Clients whose socket is full now.
    pub blocked: u64,
}

/// What a send has brought about for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The last thing that was to be said to it has left.
    pub finished: bool,
    /// It was throttled, and its replies have left: it may be read from again.
    pub unthrottled: bool,
}

impl Clients {
    pub(super) const fn new(capacity: Capacity) -> Self {
        Self {
            table: Table::new(),
            capacity,
            dirty: Vec::new(),
            failed: Vec::new(),
            caught_up: Vec::new(),
            ready: Vec::new(),
            spare: Vec::new(),
            replies_bytes: 0,
            flow: Flow {
                deliveries: 0,
                dropped_oldest: 0,
                dropped_newest: 0,
                dropped_memory: 0,
                dropped_stale: 0,
                gaps: 0,
                blocked: 0,
            },
        }
    }

    pub(super) fn open(&mut self, id: ClientId) {
        self.table.insert(id, Client::default());
    }

    /// How messages for `id` are written from now on.
    pub(super) fn agree(&mut self, id: ClientId, format: Format) {
        if let Some(client) = self.table.get_mut(id) {
            client.format = format;
        }
    }

    /// Ends the life of a client, whose subscriptions have ended.
    pub(super) fn close(&mut self, id: ClientId) {
        let Some(client) = self.table.remove(id) else { return };
        assert!(client.subscriptions.is_empty(), "subscriptions end before the client");
        self.replies_bytes -= client.outbox.map_or(0, |outbox| outbox.replies_bytes());
        self.flow.blocked -= u64::from(client.blocked);
    }

    pub(super) fn format(&self, id: ClientId) -> Format {
        self.table.get(id).map_or(Format::default(), |client| client.format)
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.table.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.table.iter()
    }

    /// A client that still takes part.
    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.table.get_mut(id)
    }

    pub(super) fn outbox(&self, id: ClientId) -> Option<&Outbox> {
        self.table.get(id)?.outbox.as_deref()
    }

    pub(super) fn outbox_mut(&mut self, id: ClientId) -> Option<&mut Outbox> {
        self.table.get_mut(id)?.outbox.as_deref_mut()
    }

    /// Offers `segment` to a client's outbox, in the client's own form. False when the outbox is
    /// full only because the client has not been sent to yet: nothing has changed then.
    ///
    /// Part of the loops over all subscribers, and a call for each would be seen there.
    #[inline(always)]
    pub(super) fn offer(
        &mut self,
        id: ClientId,
        segment: &Rc<Segment>,
        encoder: &mut Encoder,
    ) -> bool {
        self.offer_with(id, |format| match format {
            Format::Json => Run::whole(segment),
            format => Run::whole(&segment.variant(format, encoder)),
        })
    }

    /// The same for a part of a segment.
    pub(super) fn offer_run(&mut self, id: ClientId, mut run: Run, encoder: &mut Encoder) -> bool {
        self.offer_with(id, |format| {
            run.segment = run.segment.variant(format, encoder);
            run
        })
    }

    #[inline(always)]
    fn offer_with(&mut self, id: ClientId, make: impl FnOnce(Format) -> Run) -> bool {
        let client = self.table.get_mut(id).expect("subscribers are open");
        if client.sealed {
            return true;
        }
        let is_held = client.is_held();
        let run = make(client.format);
        let outbox = client.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        if !outbox.fits(&run, self.capacity) && !client.blocked && !is_held {
            return false;
        }
        let Offered { dropped_oldest, dropped_newest, close } = outbox.offer(run, self.capacity);
        self.flow.dropped_oldest += u64::from(dropped_oldest);
        self.flow.dropped_newest += u64::from(dropped_newest);
        if close {
            self.failed.push((id, Failure::Overflow));
        }
        self.mark_dirty(id);
        true
    }

    /// Queues messages of a history, which displace nothing: false when there is no room.
    pub(super) fn offer_kept(&mut self, id: ClientId, mut run: Run, encoder: &mut Encoder) -> bool {
        let client = self.table.get_mut(id).expect("who catches up is open");
        if client.format != Format::Json {
            run.segment = run.segment.recalled(client.format, encoder);
        }
        let outbox = client.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        if !outbox.fits(&run, self.capacity) {
            return false;
        }
        outbox.offer(run, self.capacity);
        self.mark_dirty(id);
        true
    }

    /// Queues the notice of messages that a client was never offered.
    pub(super) fn tell_gap(&mut self, id: ClientId, gap: Gap) {
        let client = self.table.get_mut(id).expect("who catches up is open");
        let outbox = client.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        outbox.tell_gap(gap);
        self.mark_dirty(id);
    }

    /// Queues the notice of messages that `id` loses without having been offered them.
    #[cold]
    pub(super) fn lose(&mut self, id: ClientId, gap: Gap) {
        if self.table.get(id).is_some_and(Client::is_sealed) {
            return;
        }
        self.flow.dropped_stale += gap.numbers();
        self.tell_gap(id, gap);
    }

    /// Drops what has waited too long for `id`.
    pub(super) fn drop_stale(&mut self, id: ClientId, now: Time) {
        let dropped = self.outbox_mut(id).map_or(0, |outbox| outbox.drop_stale(now));
        self.flow.dropped_stale += dropped;
    }

    /// `id` has moved to another place in `topic`.
    pub(super) fn move_to(&mut self, id: ClientId, topic: TopicId, position: u32) {
        let moved = self.table.get_mut(id).and_then(|client| client.subscription_mut(topic));
        moved.expect("a subscriber has a subscription").position = position;
    }

    /// Where `id` is in `topic`, to which it is subscribed.
    pub(super) fn place_in(&self, id: ClientId, topic: TopicId) -> u32 {
        let held = self.table.get(id).and_then(|client| client.subscription(topic));
        held.expect("a subscriber has a subscription").position
    }

    /// What a client has by patterns, or had, to change it.
    pub(super) fn followed_mut(&mut self, id: ClientId) -> Option<&mut Followed> {
        self.table.get_mut(id)?.extra.as_mut()?.followed.as_deref_mut()
    }

    /// How a client catches up with `topic`, if it does.
    pub(super) fn recovery(&self, id: ClientId, topic: TopicId) -> Option<&Recovery> {
        let mut recoveries = self.table.get(id)?.recoveries().iter();
        recoveries.find(|recovery| recovery.topic == topic)
    }

    /// The same, to change it.
    pub(super) fn recovery_mut(&mut self, id: ClientId, topic: TopicId) -> Option<&mut Recovery> {
        let mut recoveries = self.table.get_mut(id)?.recoveries_mut().iter_mut();
        recoveries.find(|recovery| recovery.topic == topic)
    }

    /// Ends it, if there is one.
    pub(super) fn end_recovery(&mut self, id: ClientId, topic: TopicId) -> Option<Recovery> {
        let client = self.table.get_mut(id)?;
        let extra = client.extra.as_mut()?;
        let recoveries = extra.recoveries.as_mut()?;
        let at = recoveries.iter().position(|recovery| recovery.topic == topic)?;
        let ended = recoveries.remove(at);
        if recoveries.is_empty() {
            extra.recoveries = None;
            client.forget_unused();
            if client.retiring {
                client.sealed = true;
                if !client.has_something_waiting() {
                    self.failed.push((id, Failure::Retired));
                }
            }
        }
        Some(ended)
    }

    /// Lists a client that catches up if nothing waits for it: nothing will be sent that would.
    pub(super) fn look_whether_caught_up(&mut self, id: ClientId) {
        let Some(client) = self.table.get(id).filter(|client| client.is_recovering()) else {
            return;
        };
        if client.outbox.as_ref().is_none_or(|outbox| outbox.is_empty()) {
            self.caught_up.push(id);
        }
    }

    pub(super) fn has_caught_up(&self) -> bool {
        !self.caught_up.is_empty()
    }

    /// The next recovery that `is_it` of a client for which nothing waits any more.
    pub(super) fn next_caught_up(
        &mut self,
        mut is_it: impl FnMut(&mut Recovery) -> bool,
    ) -> Option<(ClientId, TopicId)> {
        while let Some(id) = self.caught_up.last().copied() {
            let client = self.table.get_mut(id).into_iter();
            let mut recoveries = client.flat_map(|it| it.recoveries_mut().iter_mut());
            if let Some(recovery) = recoveries.find_map(|it| is_it(it).then_some(it.topic)) {
                return Some((id, recovery));
            }
            self.caught_up.pop();
        }
        None
    }

    /// Queues nothing more for a client once it has caught up. True when nothing is left to be sent.
    pub(super) fn retire(&mut self, id: ClientId) -> bool {
        let Some(client) = self.table.get_mut(id) else { return false };
        client.retiring = true;
        client.sealed = !client.is_recovering();
        client.sealed && !client.has_something_waiting()
    }

    /// Whether nothing more is queued for a client.
    pub(super) fn seal(&mut self, id: ClientId, sealed: bool) {
        if let Some(client) = self.table.get_mut(id) {
            client.sealed = sealed;
        }
    }

    /// Takes `replies`, whole frames as they are in JSON, and leaves the buffer empty.
    pub(super) fn reply(&mut self, id: ClientId, replies: &mut Vec<u8>) {
        let Some(client) = self.table.get_mut(id).filter(|client| !client.sealed) else { return };
        retell(client.format, client.listening(), replies, 0);
        if replies.is_empty() {
            return;
        }
        let outbox = client.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        let before = outbox.replies_bytes();
        outbox.reply(replies);
        self.replies_bytes += outbox.replies_bytes() - before;
        self.mark_dirty(id);
    }

    /// Lets `write` append whole frames, as they are in JSON, to a client's replies.
    pub(super) fn write_reply(&mut self, id: ClientId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(client) = self.table.get_mut(id).filter(|client| !client.sealed) else { return };
        if !client.format.has_notices() {
            return;
        }
        let format = client.format;
        let listening = client.extra.as_ref().and_then(|extra| extra.listening.as_deref());
        let outbox = client.outbox.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        let before = outbox.replies_bytes();
        outbox.write_reply(|replies| {
            let from = replies.len();
            write(replies);
            retell(format, listening, replies, from);
        });
        self.replies_bytes += outbox.replies_bytes() - before;
        self.mark_dirty(id);
    }

    /// `id` listens over HTTP from now on.
    pub(super) fn begin_listening(&mut self, id: ClientId, door: Door, listening: Listening) {
        if let Some(client) = self.table.get_mut(id) {
            client.door = door;
            client.extra_mut().listening = Some(Box::new(listening));
        }
    }

    /// What is replied to `id` are bytes again, and what was written for it moves to `written`.
    pub(super) fn end_listening(
        &mut self,
        id: ClientId,
        written: &mut Vec<u8>,
    ) -> Option<Box<Listening>> {
        let client = self.table.get_mut(id)?;
        client.door = Door::Frames;
        if let Some(outbox) = &mut client.outbox {
            self.replies_bytes -= outbox.replies_bytes();
            outbox.take_replies(written);
        }
        let listening = client.extra.as_mut()?.listening.take();
        client.forget_unused();
        listening
    }

    pub(super) fn is_listening(&self, id: ClientId) -> bool {
        self.table.get(id).is_some_and(|client| client.listening().is_some())
    }

    pub(super) fn listening_mut(&mut self, id: ClientId) -> Option<&mut Listening> {
        self.table.get_mut(id)?.extra.as_mut()?.listening.as_deref_mut()
    }

    pub(super) fn outbox_and_listening(
        &mut self,
        id: ClientId,
    ) -> Option<(&mut Outbox, &mut Listening)> {
        let client = self.table.get_mut(id)?;
        let listening = client.extra.as_mut()?.listening.as_deref_mut()?;
        Some((client.outbox.as_deref_mut()?, listening))
    }

    pub(super) fn door(&self, id: ClientId) -> Option<Door> {
        self.table.get(id).map(|client| client.door)
    }

    /// `id` has published and is to be told what became of it.
    pub(super) fn await_answer(&mut self, id: ClientId) {
        if let Some(client) = self.table.get_mut(id) {
            client.unanswered += 1;
        }
    }

    /// `id` is told what became of a publish: through which door?
    pub(super) fn answered(&mut self, id: ClientId) -> Option<Door> {
        let client = self.table.get_mut(id)?;
        client.unanswered -= 1;
        Some(client.door)
    }

    /// What the outboxes hold, by client and by what can be done about it.
    pub(super) fn burdens(&self) -> Vec<Burden> {
        let mut burdens = Vec::new();
        for (client, Client { outbox, .. }) in self.table.iter() {
            let Some(outbox) = outbox else { continue };
            let shed = (Way::Shed(client), outbox.queued_bytes());
            let held = [shed, (Way::CutOff(client), outbox.kept_bytes())];
            let held = held.into_iter().filter(|(_, bytes)| *bytes > 0);
            burdens.extend(held.map(|(way, bytes)| Burden { bytes, way }));
        }
        burdens
    }

    /// Turns a client's queue into gap notices.
    pub(super) fn shed(&mut self, id: ClientId, reason: GapReason) {
        let shed = self.outbox_mut(id).map_or(0, |outbox| outbox.shed(reason));
        self.flow.dropped_memory += shed;
    }

    /// Lists `id` as having something to send, unless it is listed or cannot be sent to now.
    pub(super) fn mark_dirty(&mut self, id: ClientId) {
        let client = self.table.get_mut(id).expect("who has something to send is open");
        if !client.dirty && !client.blocked {
            client.dirty = true;
            self.dirty.push(id);
        }
    }
}

/// Says again what `frames` say in JSON from the byte `from` on, so that a client understands it.
#[inline]
fn retell(format: Format, listening: Option<&Listening>, frames: &mut Vec<u8>, from: usize) {
    match listening {
        None => format.dialect().translate_replies(frames, from),
        Some(listening) => listening.retell(frames, from),
    }
}

mod audit;
mod extra;
mod sending;
mod subscriptions;
