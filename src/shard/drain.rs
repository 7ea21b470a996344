//! Leaving without breaking a promise.
//!
//! The shard stops accepting, tells every client at once when to come back, and says good-bye to
//! one after the other over the window. Each gets what was queued for it before its close frame.
//! A shard that has nobody left goes on hearing the others until the whole process is empty,
//! because it may be home to their channels.

use std::time::Duration;

use tracing::info;

use super::Shard;
use super::admission::TRY_AGAIN;
use crate::conn::EndReason;
use crate::io::{Driver, SocketId};
use crate::proto::envelope;
use crate::proto::ws::close::GOING_AWAY;
use crate::time::Time;

/// How long a drained shard rests at most before it looks whether the others have drained, too.
const LOOK_AROUND: Duration = Duration::from_millis(20);

/// A shard on its way out.
#[derive(Debug)]
pub(super) struct Drain {
    /// Whose good-bye is when, the last one first.
    goodbyes: Vec<(Time, SocketId)>,
    /// When the process ends, whoever is left.
    deadline: Time,
    listener_closed: bool,
}

impl Drain {
    /// How many good-byes are not said yet.
    pub(super) fn goodbyes(&self) -> usize {
        self.goodbyes.len()
    }

    /// When there is something to do.
    pub(super) fn next(&self, now: Time) -> Time {
        let next = self.goodbyes.last().map_or(now + LOOK_AROUND, |(time, _)| *time);
        next.min(self.deadline)
    }
}

impl<D: Driver> Shard<D> {
    /// Begins to leave. A second call changes nothing.
    pub(super) fn begin_drain(&mut self, now: Time) {
        if self.drain.is_some() {
            return;
        }
        self.driver.stop_listening();
        let window = self.settings.drain_window;
        let mut leaving: Vec<SocketId> = self
            .conns
            .iter()
            .filter(|(_, connection)| !connection.conn.is_closing())
            .map(|(socket, _)| socket)
            .collect();
        self.random.shuffle(&mut leaving);
        info!(shard = self.index, clients = leaving.len(), "draining");
        // The last tenth of the window is for those whose queues take long.
        let spread = window * 9 / 10;
        let count = leaving.len().max(1) as u32;
        let mut goodbyes: Vec<(Time, SocketId)> = leaving
            .into_iter()
            .zip(1..)
            .map(|(socket, place)| (now + spread * place / count, socket))
            .collect();
        for (_, socket) in &goodbyes {
            let is_client = self.conns.get(*socket).is_some_and(|connection| connection.client);
            if is_client {
                say_goaway(&mut self.scratch.replies, &mut self.random, window);
                self.reply(*socket);
            }
        }
        goodbyes.reverse();
        self.drain = Some(Drain { goodbyes, deadline: now + window, listener_closed: false });
    }

    /// No more peers will be accepted.
    pub(super) fn listener_closed(&mut self) {
        if let Some(drain) = &mut self.drain {
            drain.listener_closed = true;
        }
    }

    /// Says the good-byes whose time has come: each client is subscribed to nothing more, and
    /// once what waits for it has left, it is closed with 1001.
    pub(super) fn say_due_goodbyes(&mut self, now: Time) {
        let is_due = |drain: &Drain| drain.goodbyes.last().is_some_and(|(time, _)| *time <= now);
        if !self.drain.as_ref().is_some_and(is_due) {
            return;
        }
        // A publish is acknowledged only when its message is in the mailbox of every shard with
        // subscribers: with the mailbox heard, nothing that was acknowledged is missing.
        self.hear_all(now);
        self.hub.stop_conflating();
        self.settle(now);
        while let Some(drain) = self.drain.as_mut().filter(|drain| is_due(drain)) {
            let Some((_, socket)) = drain.goodbyes.pop() else { return };
            let Some(connection) = self.conns.get(socket) else { continue };
            if connection.conn.is_open() {
                if self.hub.retire(socket) {
                    self.say_goodbye(now, socket);
                }
            } else if !connection.conn.is_closing() {
                // Still in its handshake: HTTP has words for it, too.
                self.turn_away(now, socket, TRY_AGAIN, EndReason::Drained);
            }
        }
    }

    /// Closes a client that has been sent everything.
    pub(super) fn say_goodbye(&mut self, now: Time, socket: SocketId) {
        self.close(now, socket, GOING_AWAY, (EndReason::Drained, "the server is going away"));
    }

    /// Whether nothing is left to do.
    pub(super) fn has_drained(&self, now: Time) -> bool {
        let Some(drain) = &self.drain else { return false };
        // A note may carry a peer that another shard has accepted and passed on.
        let is_empty = drain.listener_closed
            && self.conns.is_empty()
            && self.admission.connections() == 0
            && !self.post.has_mail();
        is_empty || drain.deadline <= now
    }
}

/// Tells a client when to come back: each at a time of its own, so that they do not all come at
/// once.
pub(super) fn say_goaway(replies: &mut Vec<u8>, random: &mut fastrand::Rng, window: Duration) {
    envelope::goaway(replies, random.u64(0..=window.as_millis() as u64));
}
