//! How a client's life ends, and then its connection's.

use super::{Holds, Shard};
use crate::conn::{Afterwards, EndReason};
use crate::io::{Driver, SocketId};
use crate::proto::http::Refusal;
use crate::time::Time;

impl<D: Driver> Shard<D> {
    /// Ends a client's life: it is subscribed to nothing any more, and what was just written to
    /// the scratch replies are the last words it is sent.
    pub(super) fn end(&mut self, now: Time, socket: SocketId, reason: EndReason) {
        self.count_end(socket, reason);
        let Some(connection) = self.conns.get_mut(socket) else { return };
        self.wheel.set(socket, connection.conn.deadline(now, &self.settings.conn));
        if connection.answers.take().is_some() {
            self.account_held(socket);
        }
        self.hub.mute(socket, now);
        self.hub.reply_last(socket, &mut self.scratch.replies);
        // What else it says is read, to be thrown away: its own good-bye is behind that.
        self.read_again(now, socket, Holds::ANSWERS | Holds::REPLIES);
        if self.hub.is_drained(socket) {
            self.finished(now, socket);
        }
    }

    /// Ends a client's life together with its connection: there is nobody to say last words to.
    pub(super) fn cut_off(&mut self, now: Time, socket: SocketId, reason: EndReason) {
        self.count_end(socket, reason);
        self.forget(now, socket);
    }

    /// Ends a connection that is beyond words, whatever phase it is in.
    pub(super) fn break_off(&mut self, now: Time, socket: SocketId, reason: EndReason) {
        if self.conns.get(socket).is_some_and(|connection| connection.conn.is_closing()) {
            self.forget(now, socket);
        } else {
            self.cut_off(now, socket, reason);
        }
    }

    /// Answers a peer that has not finished its request with `refusal`, and ends its life.
    pub(super) fn turn_away(
        &mut self,
        now: Time,
        socket: SocketId,
        refusal: Refusal,
        reason: EndReason,
    ) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        let replies = &mut self.scratch.replies;
        connection.conn.turn_away(now, refusal, replies, &self.settings.conn);
        self.metrics.refused[refusal.index()].add(1);
        self.end(now, socket, reason);
    }

    fn count_end(&mut self, socket: SocketId, reason: EndReason) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        self.metrics.ended[reason as usize].add(1);
        if std::mem::take(&mut connection.client) {
            self.metrics.clients.sub(1);
        }
    }

    /// Closes an open client with a close frame.
    pub(super) fn close(&mut self, now: Time, socket: SocketId, code: u16, why: (EndReason, &str)) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        let (reason, text) = why;
        let replies = &mut self.scratch.replies;
        if connection.conn.close(now, code, text, replies, &self.settings.conn) {
            self.end(now, socket, reason);
        }
    }

    /// All that was to be said to a client has left.
    pub(super) fn finished(&mut self, now: Time, socket: SocketId) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        if connection.conn.is_open() {
            // It was only waited for that its messages leave: now the good-bye.
            self.say_goodbye(now, socket);
            return;
        }
        match connection.conn.flushed() {
            Afterwards::Wait => {}
            Afterwards::Shutdown => self.driver.shutdown(socket),
            Afterwards::Close => self.forget(now, socket),
        }
    }

    /// Ends a connection: nothing names it any more.
    pub(super) fn forget(&mut self, now: Time, socket: SocketId) {
        let Some(connection) = self.conns.remove(socket) else { return };
        self.held_bytes -= connection.held_bytes as usize;
        if connection.admitted {
            self.admission.leave(connection.peer);
        }
        self.wheel.cancel(socket);
        self.hub.close(socket, now);
        self.driver.close(socket);
        self.admission.set_load(self.index, self.conns.len());
    }
}
