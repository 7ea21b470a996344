//! A shard's books, checked. Not part of any tick.

use super::{Holds, Shard};
use crate::hub::{self, Epoch};
use crate::io::Driver;

/// What an audit of a shard saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audit {
    /// What its hub says.
    pub hub: hub::Audit,
    /// Connections there are.
    pub connections: u64,
    /// Those whose client's life has ended.
    pub closing: u64,
    /// Open WebSockets, and streams.
    pub open: u64,
    /// Bytes of replies that wait for the WebSocket for which most do.
    pub websocket_replies_bytes_most: u64,
    /// The same over HTTP, where the answer to a poll is one.
    pub http_replies_bytes_most: u64,
    /// Timers that are set.
    pub timers: u64,
    /// Connections that keep a part of a message or of a request head.
    pub holding: u64,
    /// Connections that keep what a compressed message may refer back to.
    pub windows: u64,
    /// Clients that are not read from because letters wait on shelves.
    pub held_back: u64,
    /// Whether letters wait on shelves.
    pub congested: bool,
    /// Whether deliveries do, so that no publish is acknowledged.
    pub deliveries_held: bool,
    /// Letters that wait to be heard.
    pub letters_waiting: u64,
    /// Good-byes that are dealt out and not said.
    pub goodbyes: u64,
    /// Whether accepting waits after a failure.
    pub accepting_waits: bool,
}

impl<D: Driver> Shard<D> {
    /// Checks the books.
    ///
    /// # Panics
    /// When something does not agree that must.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let mut audit = Audit {
            hub: self.hub.audit(),
            connections: self.conns.len() as u64,
            timers: self.wheel.len() as u64,
            congested: self.post.is_congested(),
            deliveries_held: self.post.holds_deliveries(),
            letters_waiting: self.post.letters_waiting() as u64,
            goodbyes: self.drain.as_ref().map_or(0, |drain| drain.goodbyes() as u64),
            accepting_waits: self.accept_again.is_some(),
            ..Audit::default()
        };
        let mut held_bytes = 0;
        for (socket, connection) in self.conns.iter() {
            let held = connection.keeps_bytes();
            assert_eq!(connection.held_bytes as usize, held, "what {socket:?} keeps is accounted");
            held_bytes += held;
            let most = if connection.conn.is_websocket() {
                &mut audit.websocket_replies_bytes_most
            } else {
                &mut audit.http_replies_bytes_most
            };
            *most = (*most).max(self.hub.replies_waiting(socket) as u64);
            let window = connection.conn.window_bytes();
            audit.holding += u64::from(held > window);
            audit.windows += u64::from(window > 0);
            audit.closing += u64::from(connection.conn.is_closing());
            audit.open += u64::from(connection.client);
            audit.held_back += u64::from(connection.holds.contains(Holds::LETTERS));
            let ready = connection.answers.as_ref().is_some_and(|answers| answers.is_ready());
            assert!(!ready, "{socket:?} could be answered");
            assert!(
                !connection.holds.contains(Holds::ANSWERS) || connection.answers.is_some(),
                "{socket:?} is not read from, and there is no answer to wait for"
            );
            assert!(
                !connection.holds.contains(Holds::LETTERS) || self.held_back.contains(&socket),
                "{socket:?} is held back and nobody will read from it again"
            );
        }
        assert_eq!(held_bytes, self.held_bytes, "held_bytes is the sum over the connections");
        assert_eq!(audit.connections, audit.hub.clients, "who has a connection has a hub's client");
        assert_eq!(audit.open, self.metrics.clients.get(), "open clients are counted");
        let timers = audit.timers + self.scratch.due.len() as u64;
        assert!(
            timers >= audit.connections,
            "{} connections and {timers} timers: somebody has no time limit",
            audit.connections
        );
        assert!(
            audit.timers <= audit.connections,
            "{} connections and {} timers: somebody who is gone has one",
            audit.connections,
            audit.timers
        );
        audit
    }

    /// Messages that wait on shelves: of which channel and life, and the first number of them. None of
    /// these may have been acknowledged.
    pub fn messages_held(&self) -> impl Iterator<Item = (&str, Epoch, u64)> {
        let held = self.post.deliveries_held();
        held.filter_map(|(shard, delivery)| self.hub.carried_by(delivery, shard))
    }

    /// The hub, to be looked at.
    #[must_use]
    pub const fn hub(&self) -> &hub::Hub {
        &self.hub
    }
}
