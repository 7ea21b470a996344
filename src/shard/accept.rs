//! Peers that come, and where they go.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tracing::warn;

use super::admission::TRY_AGAIN;
use super::{Connection, Holds, Shard};
use crate::conn::{Conn, EndReason};
use crate::io::{Driver, SocketId};
use crate::limits::{ACCEPT_RETRY_DELAY, ACCEPT_WARNING_INTERVAL};
use crate::time::Time;

impl<D: Driver> Shard<D> {
    /// A peer has connected to this shard's listener.
    pub(super) fn accept(&mut self, now: Time, socket: SocketId, peer: SocketAddr) {
        self.metrics.accepted.add(1);
        if let Some(lighter) = self.admission.lighter_than(self.index)
            && let Some(released) = self.driver.release(socket)
        {
            match self.post.hand_over(lighter, released, peer) {
                Ok(()) => self.metrics.handed_over.add(1),
                Err((socket, peer)) => self.adopt(now, socket, peer),
            }
            return;
        }
        self.welcome(now, socket, peer);
    }

    /// A peer that another shard passed on.
    pub(super) fn adopt(&mut self, now: Time, socket: OwnedFd, peer: SocketAddr) {
        match self.driver.adopt(socket) {
            Ok(socket) => self.welcome(now, socket, peer),
            Err(error) => {
                // Its life ends before it began; there is no socket to say so on.
                self.metrics.ended[EndReason::ServerFull as usize].add(1);
                warn!(%error, %peer, "no room for a passed-on connection");
            }
        }
    }

    /// Begins the life of a connection, or turns the peer away.
    fn welcome(&mut self, now: Time, socket: SocketId, peer: SocketAddr) {
        let conn = Conn::accepted(now, &mut self.random);
        let connection = Connection {
            conn,
            peer: peer.ip(),
            answers: None,
            held_bytes: 0,
            admitted: false,
            client: false,
            holds: Holds::empty(),
        };
        self.conns.insert(socket, connection);
        self.hub.open(socket);
        self.admission.set_load(self.index, self.conns.len());
        // Whoever comes after the good-byes were dealt out would get none.
        let refusal = if self.drain.is_some()
            || self.hub.is_overloaded()
            || self.held_bytes > self.settings.held_bytes_max
        {
            Some(TRY_AGAIN)
        } else {
            self.admission.enter(peer.ip()).err()
        };
        let connection = self.conns.get_mut(socket).expect("inserted just now");
        match refusal {
            None => {
                connection.admitted = true;
                self.wheel.set(socket, connection.conn.deadline(now, &self.settings.conn));
            }
            Some(refusal) => self.turn_away(now, socket, refusal, EndReason::ServerFull),
        }
    }

    /// Accepting failed for want of something; it is tried again a little later.
    pub(super) fn accept_failed(&mut self, now: Time, error: &io::Error) {
        self.metrics.accept_failures.add(1);
        if self.accept_warned.is_none_or(|time| time + ACCEPT_WARNING_INTERVAL <= now) {
            self.accept_warned = Some(now);
            warn!(%error, "cannot accept now; raise RLIMIT_NOFILE if this stays");
        }
        self.accept_again = Some(now + ACCEPT_RETRY_DELAY);
    }
}
