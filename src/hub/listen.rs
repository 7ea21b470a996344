//! Clients that listen over HTTP, to a stream or for one answer.
//!
//! They name their channels at once and have no more to say. What they are told is one object behind
//! the other, each written for the client alone, because with it stands how far the client has come
//! in *all* of its channels: there it goes on, when it comes again.
//!
//! ```text
//! queue    | run a 5..6 | gap b 9..11 | ...        what the channels' rules are about
//! replies  | id: k3.5,m8.8  data: {a 5} | id: k3.6,m8.8  data: {a 6} | id: k3.6,m8.11  data: {gap}
//! ```
//!
//! A stream is written as far as `EVENTS_WRITTEN_BYTES_MAX`; a poll is written when it is answered,
//! and it is not before it is known where it is in each channel.

use smallvec::SmallVec;

use super::clients::{Clients, Door};
use super::outbox::{Gap, Staged};
use super::recall::Recall;
use super::{ClientId, Epoch, Hub, TopicId, flush};
use crate::proto::dialect::{self, Frame};
use crate::proto::envelope::{self, Bare, Subscribed};
use crate::proto::events;
use crate::proto::ws::close;
use crate::proto::ws::frame::Opcode;
use crate::time::Time;

/// What there is to know of a client that listens.
#[derive(Debug)]
pub(super) struct Listening {
    is_stream: bool,
    /// A poll whose time is up.
    is_hasty: bool,
    /// Where it is, in the order in which it has named its channels.
    places: SmallVec<[Place; 1]>,
}

#[derive(Debug, Default)]
struct Place {
    /// The channel, once it has been reached.
    topic: Option<TopicId>,
    /// The last message that it was told, or told of, once that is known.
    told: Option<(Epoch, u64)>,
}

impl Listening {
    /// Whether a poll may be answered as to where it is.
    pub(super) fn is_placed(&self) -> bool {
        self.places.iter().all(|place| place.told.is_some())
    }

    /// Says again what `frames`, whole ones as they are in JSON, say from the byte `from` on.
    pub(super) fn retell(&self, frames: &mut Vec<u8>, from: usize) {
        let said = frames.split_off(from);
        for frame in dialect::frames(&said) {
            self.write(frames, &frame);
        }
    }

    fn write(&self, out: &mut Vec<u8>, frame: &Frame<'_>) {
        match frame.opcode {
            Opcode::Text => self.write_object(out, frame.payload),
            Opcode::Ping if self.is_stream => events::write_heartbeat(out),
            Opcode::Close if self.is_stream => self.write_good_bye(out, frame.payload),
            _ => {}
        }
    }

    fn write_object(&self, out: &mut Vec<u8>, object: &[u8]) {
        if self.is_stream {
            events::write_event(out, |out| self.write_cursors(out), object);
        } else {
            out.extend_from_slice(object);
            out.push(b',');
        }
    }

    /// A good-bye without fault has been announced.
    fn write_good_bye(&self, out: &mut Vec<u8>, payload: &[u8]) {
        let said = close::parse_payload(payload).expect("our own frames are sound");
        let (code, reason) = match said {
            Some((close::SLOW_CONSUMER, reason)) => ("slow_consumer", reason),
            Some((close::TRY_AGAIN_LATER, reason)) => ("try_again_later", reason),
            Some((close::POLICY_VIOLATION, reason)) => ("refused", reason),
            _ => return,
        };
        let mut object = Vec::new();
        envelope::error(&mut Bare(&mut object), None, code, reason);
        self.write_object(out, &object);
    }

    fn write_cursors(&self, out: &mut Vec<u8>) {
        let told = self.places.iter().map(|place| place.told.as_ref());
        let told = told.map(|told| told.map(|(epoch, seq)| (epoch.as_str(), *seq)));
        envelope::write_cursors(out, told);
    }

    fn place_mut(&mut self, topic: TopicId) -> &mut Place {
        let place = self.places.iter_mut().find(|place| place.topic == Some(topic));
        place.expect("nobody hears of what it did not ask for")
    }

    fn advance(&mut self, topic: TopicId, to: u64) {
        let (_, seq) = self.place_mut(topic).told.as_mut().expect("it was told where it is");
        debug_assert!(*seq < to, "{seq} was told before {to}");
        *seq = to;
    }
}

impl Hub {
    /// `client` listens from now on to `channels`, and from where each says on. With
    /// [`Door::Stream`] everything else that is queued for it becomes events; with [`Door::Poll`] it
    /// is [`ready`](Self::next_ready) once there is something to say, or at once when `is_hasty` or
    /// when it does not say where it was.
    pub fn listen<'c>(
        &mut self,
        client: ClientId,
        door: Door,
        channels: impl ExactSizeIterator<Item = (&'c str, Option<Recall>)>,
        is_hasty: bool,
        now: Time,
    ) {
        let is_stream = door == Door::Stream;
        // Every event says where it is in all of them, also the first one.
        let places = (0..channels.len()).map(|_| Place::default()).collect();
        let listening = Listening { is_stream, is_hasty, places };
        self.clients.begin_listening(client, door, listening);
        for (index, (channel, since)) in channels.enumerate() {
            let topic = match self.find_or_reach(client, channel) {
                Ok(topic) => topic,
                Err(refusal) => return self.refuse(client, None, refusal),
            };
            let Some(listening) = self.clients.listening_mut(client) else { return };
            listening.places[index].topic = Some(topic);
            listening.is_hasty |= since.is_none();
            // What is said of it, is said by `place`.
            if let Err(refusal) =
                self.subscribe_to(client, topic, None, since.into(), &mut Vec::new(), now)
            {
                return self.refuse(client, None, refusal);
            }
        }
    }

    /// The time of a poll is up: it is ready as soon as may be.
    pub fn hasten(&mut self, client: ClientId) {
        if let Some(listening) = self.clients.listening_mut(client) {
            listening.is_hasty = true;
            self.clients.look_whether_ready(client);
        }
    }

    /// Whether there are polls that can be answered.
    #[must_use]
    pub const fn has_ready(&self) -> bool {
        !self.clients.ready.is_empty()
    }

    /// A poll that can be answered, each once.
    pub fn next_ready(&mut self) -> Option<ClientId> {
        self.clients.ready.pop()
    }

    /// Ends the listening of a poll: appends what it is told, JSON objects with a comma behind each,
    /// to `events`, and where it goes on to `cursors`. False when it does not listen any more.
    /// Replies to it are bytes of an HTTP answer from now on.
    pub fn take_told(
        &mut self,
        client: ClientId,
        events: &mut Vec<u8>,
        cursors: &mut Vec<u8>,
        now: Time,
    ) -> bool {
        if self.clients.door(client) != Some(Door::Poll) {
            return false;
        }
        // It may have waited for a home to say where it is.
        if self.has_max_age {
            self.clients.drop_stale(client, now);
        }
        let topics = &self.topics;
        let write_gap = |replies: &mut Vec<u8>, gap| flush::write_gap(topics, replies, gap);
        self.clients.stage(client, usize::MAX, write_gap);
        let Some(listening) = self.clients.end_listening(client, events) else { return false };
        listening.write_cursors(cursors);
        true
    }
}

impl Clients {
    /// It is known where a client that listens is in `topic`: behind which message of which epoch.
    pub(super) fn place(
        &mut self,
        id: ClientId,
        topic: TopicId,
        told: (Epoch, u64),
        subscribed: &Subscribed<'_>,
    ) {
        let Some(listening) = self.listening_mut(id) else { return };
        listening.place_mut(topic).told = Some(told);
        // Of a poll the cursors say the rest.
        let is_lossy = matches!(subscribed.resumed, Some((_, Some(_))));
        if listening.is_stream || is_lossy {
            self.write_reply(id, |replies| envelope::subscribed(replies, None, subscribed));
        }
        self.look_whether_ready(id);
    }

    /// A poll whose time is up, or for which something waits, can be answered if it is known where it
    /// is.
    fn look_whether_ready(&mut self, id: ClientId) {
        let Some(client) = self.get(id) else { return };
        let (Door::Poll, Some(listening)) = (client.door, client.listening()) else { return };
        if listening.is_placed() && (listening.is_hasty || client.has_something_waiting()) {
            self.mark_dirty(id);
        }
    }

    /// Writes what waits for a client that listens, oldest first, behind its replies, as long as these
    /// are below `bytes_max`.
    #[cold]
    pub(super) fn stage(
        &mut self,
        id: ClientId,
        bytes_max: usize,
        mut write_gap: impl FnMut(&mut Vec<u8>, Gap),
    ) {
        let Some((outbox, listening)) = self.outbox_and_listening(id) else { return };
        let before = outbox.replies_bytes();
        let mut notice = Vec::new();
        let gaps = outbox.stage(bytes_max, |replies, staged| match staged {
            Staged::Gap(gap) => {
                listening.advance(gap.topic, gap.to);
                notice.clear();
                write_gap(&mut notice, gap);
                let mut frames = dialect::frames(&notice);
                listening.write(replies, &frames.next().expect("a notice is a frame"));
            }
            Staged::Message { topic, seq, frame } => {
                listening.advance(topic, seq);
                let mut frames = dialect::frames(frame);
                listening.write(replies, &frames.next().expect("a message is a frame"));
            }
        });
        let after = outbox.replies_bytes();
        self.flow.gaps += gaps;
        self.replies_bytes += after - before;
    }
}
