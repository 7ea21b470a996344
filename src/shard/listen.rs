//! Who listens over HTTP: the hub hears of it, and polls are answered.

use super::request::Asked;
use super::{Door, Shard};
use crate::conn::{Listens, Wanted};
use crate::hub::{self, Recall};
use crate::io::Driver;
use crate::time::Time;

/// The hub learns what a client listens to. What was replied so far is the head of its answer.
pub(super) fn begin(listens: Listens, wanted: &[Wanted], asked: Asked<'_>) {
    let Asked { hub, client, replies, now } = asked;
    hub.reply(client, replies);
    let (door, is_hasty) = match listens {
        Listens::Stream => (hub::Door::Stream, false),
        Listens::Poll { at_once } => (hub::Door::Poll, at_once),
    };
    let channels = wanted.iter().map(|it| (&*it.channel, it.since().map(Recall::from)));
    hub.listen(client, door, channels, is_hasty, now);
}

/// Through which door it listens.
pub(super) const fn door(listens: Listens) -> Door {
    match listens {
        Listens::Stream => Door::Sse,
        Listens::Poll { .. } => Door::Poll,
    }
}

impl<D: Driver> Shard<D> {
    /// Answers the polls that there is something to say to.
    pub(super) fn answer_polls(&mut self, now: Time) {
        let (mut events, mut cursors) = (Vec::new(), Vec::new());
        while let Some(client) = self.hub.next_ready() {
            events.clear();
            cursors.clear();
            if !self.hub.take_told(client, &mut events, &mut cursors, now) {
                continue;
            }
            let connection = self.conns.get_mut(client).expect("it listened just now");
            let cursors = std::str::from_utf8(&cursors).expect("letters and digits");
            let (replies, settings) = (&mut self.scratch.replies, &self.settings.conn);
            let reason = connection.conn.answer_poll(now, cursors, &events, replies, settings);
            self.end(now, client, reason);
        }
    }
}
