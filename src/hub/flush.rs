//! What the shard asks of the hub while it sends: who, what, and how far it came.

use std::io::IoSlice;

use super::clients::Progress;
use super::outbox::Gap;
use super::topic::Topics;
use super::{ClientId, Hub};
use crate::proto::envelope;
use crate::time::Time;

impl Hub {
    /// Whether somebody can be sent something.
    #[must_use]
    pub fn has_dirty(&self) -> bool {
        self.clients.has_dirty()
    }

    /// Moves up to `count_max` clients that can be sent something to `batch`. Each is to be
    /// [`gather`](Self::gather)ed, sent to, and [`sent`](Self::sent) or
    /// [`blocked`](Self::blocked) or closed.
    pub fn take_dirty(&mut self, batch: &mut Vec<ClientId>, count_max: usize) {
        let first = batch.len();
        self.clients.take_dirty(batch, count_max);
        for client in &batch[first..] {
            let write = |replies: &mut Vec<u8>, gap| write_gap(&self.topics, replies, gap);
            if let Some(gap) = self.clients.announce_gaps(*client, write) {
                self.fail_for(*client, gap);
            }
        }
    }

    /// Appends to `slices` what waits for `client`, at most `slices_max` of them.
    pub fn gather<'a>(
        &'a self,
        client: ClientId,
        slices: &mut Vec<IoSlice<'a>>,
        slices_max: usize,
    ) {
        self.clients.gather(client, slices, slices_max);
    }

    /// The kernel has taken `bytes` of what was gathered for `client`. If more waits, the client
    /// is listed again.
    pub fn sent(&mut self, client: ClientId, bytes: usize) -> Progress {
        self.clients.release(client, bytes)
    }

    /// The socket of `client` is full: it is not listed until [`unblocked`](Self::unblocked).
    pub fn blocked(&mut self, client: ClientId) {
        self.clients.set_blocked(client, true);
    }

    /// The socket of `client` takes bytes again. What has become too old while it did not is dropped;
    /// but for polls nothing else waits for longer than a tick.
    pub fn unblocked(&mut self, client: ClientId, now: Time) {
        if self.has_max_age {
            self.clients.drop_stale(client, now);
        }
        self.clients.set_blocked(client, false);
    }

    /// Whether anything waits for `client`.
    #[must_use]
    pub fn is_drained(&self, client: ClientId) -> bool {
        self.clients.outbox(client).is_none_or(|outbox| outbox.is_empty())
    }

    /// Bytes of replies that wait for `client`.
    #[must_use]
    pub fn replies_waiting(&self, client: ClientId) -> usize {
        self.clients.outbox(client).map_or(0, |outbox| outbox.replies_bytes())
    }

    /// Messages that wait for `client`.
    #[must_use]
    pub fn messages_waiting(&self, client: ClientId) -> u32 {
        self.clients.outbox(client).map_or(0, |outbox| outbox.messages())
    }
}

/// Stands apart: most of those who are sent something have lost nothing.
#[cold]
pub(super) fn write_gap(topics: &Topics, replies: &mut Vec<u8>, gap: Gap) {
    let topic = topics.get(gap.topic).expect("a topic outlives its subscribers");
    envelope::gap(replies, &topic.name, gap.from, gap.to, gap.reason.name());
}
