//! What was queued in this tick leaves: one gathered send for each client.

use std::io::IoSlice;

use super::admission::TRY_AGAIN;
use super::{Holds, Shard};
use crate::conn::EndReason;
use crate::hub::{ClientId, Failure, Settled};
use crate::io::{Driver, SLICES_PER_SEND_MAX, Send, Sent};
use crate::limits::SENDS_PER_SUBMISSION_MAX;
use crate::proto::http;
use crate::proto::ws::close;
use crate::time::Time;

impl<D: Driver> Shard<D> {
    /// Offers what was published in this tick to all subscribers, acknowledges it, and sends.
    pub(super) fn settle(&mut self, now: Time) {
        if self.has_presence_to_tell() {
            self.hub.tell_presence(now);
        }
        // What is found is told to other shards: not while they cannot keep up.
        if self.hub.has_searches() && !self.post.is_congested() {
            self.hub.search(now);
        }
        while self.hub.settle(now) == Settled::OutboxFull {
            self.flush(now);
        }
        // Letters with messages leave before letters with acks, and FIFO keeps it so: whoever
        // hears the ack, the messages were in the mailbox of every shard before.
        self.post_letters();
        self.acknowledge();
        if self.has_answers() {
            self.give_answers(now);
        }
        if self.hub.has_failed() {
            self.close_failed(now);
        }
        self.flush(now);
        // Whoever was away comes behind whoever was not: what was published is on its way.
        self.hub.recall_due(now);
        // Those whose turn it was to be told of a gap, and who cannot be.
        if self.hub.has_failed() {
            self.close_failed(now);
        }
        self.flush(now);
        self.relieve(now);
        // Who was cut off just now has let go of channels, and their homes are told before the rest.
        self.post_letters();
    }

    /// Whether homes are to be told who has come and gone: not while they cannot keep up, because then
    /// what is told later is less.
    pub(super) fn has_presence_to_tell(&self) -> bool {
        self.hub.has_presence_to_tell() && !self.post.is_congested()
    }

    /// Answers the publishes whose messages are in every mailbox they have to reach.
    pub(super) fn acknowledge(&mut self) {
        if !self.post.holds_deliveries() {
            self.hub.acknowledge_settled();
            self.post_letters();
        }
    }

    /// Sends what waits for everybody who can be sent to.
    fn flush(&mut self, now: Time) {
        while self.hub.has_dirty() {
            let mut batch = std::mem::take(&mut self.scratch.batch);
            self.hub.take_dirty(&mut batch, SENDS_PER_SUBMISSION_MAX);
            let totals = self.send(&mut batch);
            let mut outcomes = std::mem::take(&mut self.scratch.outcomes);
            for ((client, total), outcome) in batch.drain(..).zip(totals).zip(outcomes.drain(..)) {
                self.sent(now, client, total, outcome);
            }
            self.scratch.batch = batch;
            self.scratch.outcomes = outcomes;
            if self.hub.has_ready() {
                self.answer_polls(now);
            }
        }
    }

    /// One gathered send for each client of `batch` that has something to be sent; the others are
    /// taken out. Returns how many bytes each was given.
    fn send(&mut self, batch: &mut Vec<ClientId>) -> Vec<usize> {
        let hub = &self.hub;
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(2 * batch.len());
        let mut ends = Vec::with_capacity(batch.len());
        batch.retain(|client| {
            let before = slices.len();
            hub.gather(*client, &mut slices, SLICES_PER_SEND_MAX);
            let has_some = slices.len() > before;
            if has_some {
                ends.push(slices.len());
            }
            has_some
        });
        let mut sends = Vec::with_capacity(batch.len());
        let mut totals = Vec::with_capacity(batch.len());
        let mut start = 0;
        for (socket, end) in batch.iter().copied().zip(ends) {
            let slices = &slices[start..end];
            totals.push(slices.iter().map(|slice| slice.len()).sum());
            sends.push(Send { socket, slices });
            start = end;
        }
        self.driver.send(&sends, &mut self.scratch.outcomes);
        debug_assert_eq!(self.scratch.outcomes.len(), sends.len());
        totals
    }

    /// How a send of `total` bytes ended.
    fn sent(&mut self, now: Time, client: ClientId, total: usize, outcome: Sent) {
        let taken = match outcome {
            Sent::Whole => total,
            Sent::Partial(taken) => taken,
            Sent::Failed(error) => return self.failed(now, client, &error),
        };
        self.metrics.sends.add(1);
        self.metrics.bytes_out.add(taken as u64);
        if taken < total {
            self.hub.blocked(client);
        }
        let progress = self.hub.sent(client, taken);
        if taken < total {
            self.driver.await_writable(client);
            self.metrics.outbox_depth.observe(u64::from(self.hub.messages_waiting(client)));
            self.throttle(client);
            // It is not read from while it does not read its replies, but it does read.
            if taken > 0
                && let Some(connection) = self.conns.get_mut(client)
                && connection.holds.contains(Holds::REPLIES)
            {
                connection.conn.excuse(now);
            }
        }
        if progress.unthrottled {
            self.unthrottle(now, client);
        }
        if progress.finished {
            self.finished(now, client);
        }
    }

    /// Closes the clients that cannot be served any more.
    fn close_failed(&mut self, now: Time) {
        let mut failed = std::mem::take(&mut self.scratch.failed);
        self.hub.take_failed(&mut failed);
        for (client, failure) in failed.drain(..) {
            self.close_for(now, client, failure);
        }
        self.scratch.failed = failed;
    }

    fn close_for(&mut self, now: Time, client: ClientId, failure: Failure) {
        let Some(connection) = self.conns.get(client) else { return };
        if connection.conn.is_poll() {
            if let Failure::Refused(refusal) = failure
                && refusal.is_lasting()
            {
                let answer = http::Refusal::BadRequest(refusal.reason());
                return self.turn_away(now, client, answer, EndReason::Refused);
            }
            let reason = match failure {
                Failure::Overflow | Failure::Lost { .. } => EndReason::SlowConsumer,
                Failure::Refused(_) => EndReason::Refused,
                Failure::Retired => EndReason::Drained,
            };
            return self.turn_away(now, client, TRY_AGAIN, reason);
        }
        match failure {
            Failure::Overflow => {
                let reason = "outbox full (outbox_messages_max, outbox_bytes_max)";
                self.close(now, client, close::SLOW_CONSUMER, (EndReason::SlowConsumer, reason));
            }
            Failure::Lost { epoch, from, to, reason } => {
                let (epoch, reason) = (epoch.as_str(), reason.name());
                let reason = match to >= from {
                    true => format!("lost {from} to {to} of epoch {epoch} ({reason})"),
                    // Everything of the new epoch can be had.
                    false => format!("the epoch is now {epoch} ({reason})"),
                };
                self.close(now, client, close::SLOW_CONSUMER, (EndReason::SlowConsumer, &reason));
            }
            Failure::Retired => self.say_goodbye(now, client),
            Failure::Refused(refusal) => {
                let why = (EndReason::Refused, refusal.reason());
                let code = match refusal.is_lasting() {
                    true => close::POLICY_VIOLATION,
                    false => close::TRY_AGAIN_LATER,
                };
                self.close(now, client, code, why);
            }
        }
    }
}
