//! Time limits that have come.

use super::{Holds, Shard};
use crate::conn::{EndReason, Expired};
use crate::io::Driver;
use crate::limits::{QUIET_AFTER, TIMERS_PER_TICK_MAX};
use crate::proto::http::Refusal;
use crate::time::Time;

impl<D: Driver> Shard<D> {
    /// Fires the timers that are due, up to a bound; the rest are first in the next tick.
    pub(super) fn expire(&mut self, now: Time) {
        let mut due = std::mem::take(&mut self.scratch.due);
        self.wheel.expire(now, &mut due);
        for socket in due.drain(..due.len().min(TIMERS_PER_TICK_MAX)) {
            let Some(connection) = self.conns.get_mut(socket) else { continue };
            // Who is not read from because others cannot keep up may have answered long ago.
            if connection.holds.contains(Holds::LETTERS) || self.hub.is_kept_waiting(socket) {
                connection.conn.excuse(now);
            }
            let replies = &mut self.scratch.replies;
            match connection.conn.expire(now, replies, &self.settings.conn) {
                Expired::Later(time) => {
                    let is_quiet = connection.conn.heard() + QUIET_AFTER <= now;
                    if is_quiet {
                        self.driver.quiet(socket);
                    }
                    let look_again = now + QUIET_AFTER * 4;
                    self.wheel.set(socket, if is_quiet { time } else { time.min(look_again) });
                }
                Expired::Pinged(_) if connection.conn.is_stream() && self.hub.is_stuck(socket) => {
                    // It does not talk: that its socket does not move is all there is to know.
                    self.scratch.replies.clear();
                    self.cut_off(now, socket, EndReason::PongTimeout);
                }
                Expired::Answer(time) => {
                    self.wheel.set(socket, time);
                    self.hub.hasten(socket);
                }
                Expired::Pinged(time) => {
                    self.wheel.set(socket, time);
                    self.driver.quiet(socket);
                    self.reply(socket);
                }
                Expired::Ending(reason) => {
                    let refusal = match reason {
                        EndReason::HandshakeTimeout | EndReason::RequestTimeout => {
                            Some(Refusal::RequestTimeout)
                        }
                        EndReason::Unanswered => Some(Refusal::Unanswered),
                        _ => None,
                    };
                    if let Some(refusal) = refusal {
                        self.metrics.refused[refusal.index()].add(1);
                    }
                    self.end(now, socket, reason);
                }
                Expired::Close(Some(reason)) => self.cut_off(now, socket, reason),
                Expired::Close(None) => self.forget(now, socket),
            }
        }
        self.scratch.due = due;
        self.hub.expire_channels(now);
        self.hub.expire_presence(now);
        if self.accept_again.is_some_and(|time| time <= now) {
            self.accept_again = None;
            self.driver.resume_accepting();
        }
        self.say_due_goodbyes(now);
    }
}
