//! To the socket: who has something to send, what of it may leave, and what has left.

use std::io::IoSlice;

use super::{Clients, Door, Progress, SPARE_MAX};
use crate::hub::ClientId;
use crate::hub::outbox::Gap;
use crate::limits::{
    EVENTS_WRITTEN_BYTES_MAX, GATHERED_BYTES_MAX, PUBLISHES_UNANSWERED_MAX, REPLIES_BYTES_MAX,
};

impl Clients {
    /// Moves up to `count_max` clients that can be sent to from the list to `batch`.
    pub(in crate::hub) fn take_dirty(&mut self, batch: &mut Vec<ClientId>, count_max: usize) {
        let first = self.dirty.len().saturating_sub(count_max);
        for id in self.dirty.drain(first..) {
            let Some(client) = self.table.get_mut(id) else { continue };
            client.dirty = false;
            match client.door {
                Door::Poll if client.is_held() => {}
                Door::Poll => self.ready.push(id),
                _ => batch.push(id),
            }
        }
    }

    pub(in crate::hub) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Writes the gap notices whose turn has come; or gives the one that this client cannot be told.
    pub(in crate::hub) fn announce_gaps(
        &mut self,
        id: ClientId,
        write: impl FnMut(&mut Vec<u8>, Gap),
    ) -> Option<Gap> {
        let client = self.table.get_mut(id)?;
        if client.door == Door::Stream {
            self.stage(id, EVENTS_WRITTEN_BYTES_MAX, write);
            return None;
        }
        let gap = client.outbox.as_ref()?.front_gap()?;
        if !client.format.has_notices() {
            return Some(gap);
        }
        self.write_gaps(id, write);
        None
    }

    #[cold]
    fn write_gaps(&mut self, id: ClientId, mut write: impl FnMut(&mut Vec<u8>, Gap)) {
        let Some(client) = self.table.get_mut(id) else { return };
        let Some(outbox) = client.outbox.as_mut() else { return };
        let dialect = client.format.dialect();
        let before = outbox.replies_bytes();
        self.flow.gaps += outbox.announce_gaps(|replies, gap| {
            let from = replies.len();
            write(replies, gap);
            dialect.translate_replies(replies, from);
        });
        self.replies_bytes += outbox.replies_bytes() - before;
    }

    /// Appends to `slices` what may leave to a client now. To a stream nothing leaves that has not been
    /// staged.
    pub(in crate::hub) fn gather<'a>(
        &'a self,
        id: ClientId,
        slices: &mut Vec<IoSlice<'a>>,
        slices_max: usize,
    ) {
        let Some(client) = self.table.get(id) else { return };
        let Some(outbox) = &client.outbox else { return };
        let bytes_max = if client.door == Door::Stream { 0 } else { GATHERED_BYTES_MAX };
        outbox.gather(slices, slices_max, bytes_max);
    }

    /// The kernel has taken `bytes`.
    pub(in crate::hub) fn release(&mut self, id: ClientId, bytes: usize) -> Progress {
        let client = self.table.get_mut(id).expect("nothing is sent to closed clients");
        let outbox = client.outbox.as_mut().expect("what was sent is still there");
        let replies_before = outbox.replies_bytes();
        self.flow.deliveries += u64::from(outbox.release(bytes).messages);
        let replies_bytes = outbox.replies_bytes();
        self.replies_bytes -= replies_before - replies_bytes;
        let drained = outbox.is_empty();
        if !drained {
            if !client.dirty && !client.blocked {
                client.dirty = true;
                self.dirty.push(id);
            }
        } else if outbox.is_reusable() && self.spare.len() < SPARE_MAX {
            self.spare.extend(client.outbox.take());
        } else {
            client.outbox = None;
        }
        if drained && client.is_recovering() {
            self.caught_up.push(id);
        }
        let unthrottled = client.throttled
            && replies_bytes <= REPLIES_BYTES_MAX / 2
            && client.unanswered <= PUBLISHES_UNANSWERED_MAX / 2;
        client.throttled &= !unthrottled;
        Progress { finished: drained && client.sealed, unthrottled }
    }

    /// Whether so many replies wait for a client, or are still to come, that nothing more is to be
    /// read from it; told once, until [`Progress::unthrottled`].
    pub(in crate::hub) fn throttle(&mut self, id: ClientId) -> bool {
        let client = self.table.get_mut(id).filter(|client| !client.muted);
        let Some(client) = client else { return false };
        let waiting = client.outbox.as_ref().map_or(0, |outbox| outbox.replies_bytes());
        // What waits for a stream is nothing it has asked for by talking.
        let is_talking = client.door != Door::Stream;
        let is_behind = is_talking && client.blocked && waiting > REPLIES_BYTES_MAX;
        let throttles = is_behind || client.unanswered > PUBLISHES_UNANSWERED_MAX;
        if client.throttled || !throttles {
            return false;
        }
        client.throttled = true;
        true
    }

    /// Nothing that a client says counts any more: it may say what it likes.
    pub(in crate::hub) fn mute(&mut self, id: ClientId) {
        if let Some(client) = self.table.get_mut(id) {
            (client.muted, client.throttled) = (true, false);
        }
    }

    /// Whether a client is not read from because its publishes have not been answered.
    pub(in crate::hub) fn is_kept_waiting(&self, id: ClientId) -> bool {
        let client = self.table.get(id);
        client.is_some_and(|it| it.throttled && it.unanswered > PUBLISHES_UNANSWERED_MAX / 2)
    }

    /// The socket is full, or takes bytes again.
    pub(in crate::hub) fn set_blocked(&mut self, id: ClientId, blocked: bool) {
        let Some(client) = self.table.get_mut(id) else { return };
        if client.blocked == blocked {
            return;
        }
        client.blocked = blocked;
        client.stuck = false;
        if blocked {
            self.flow.blocked += 1;
        } else {
            self.flow.blocked -= 1;
            if client.outbox.is_some() {
                self.mark_dirty(id);
            }
        }
    }

    /// Whether the socket was full when this was asked last, and has taken nothing since.
    pub(in crate::hub) fn is_stuck(&mut self, id: ClientId) -> bool {
        let client = self.table.get_mut(id).filter(|client| client.blocked);
        client.is_some_and(|client| std::mem::replace(&mut client.stuck, true))
    }
}
