//! The numbers of this tick, put where the house can read them.

use super::Shard;
use crate::io::Driver;

impl<D: Driver> Shard<D> {
    /// Publishes the counts of the tick.
    pub(super) fn report(&self) {
        let metrics = &self.metrics;
        let counts = self.hub.counts();
        let flow = self.hub.flow();
        let post = self.post.counts();
        for (number, value) in [
            (&metrics.connections, self.conns.len() as u64),
            (&metrics.publishes, counts.publishes),
            (&metrics.subscriptions, counts.subscriptions),
            (&metrics.channels, counts.channels_home),
            (&metrics.users, counts.users),
            (&metrics.connections_present, counts.connections_present),
            (&metrics.presence_bytes, self.hub.presence_bytes() as u64),
            (&metrics.deliveries, flow.deliveries),
            (&metrics.dropped_oldest, flow.dropped_oldest),
            (&metrics.dropped_newest, flow.dropped_newest),
            (&metrics.dropped_memory, flow.dropped_memory),
            (&metrics.dropped_stale, flow.dropped_stale),
            (&metrics.gaps, flow.gaps),
            (&metrics.blocked, flow.blocked),
            (&metrics.segments_bytes, self.hub.segments_bytes() as u64),
            (&metrics.replies_bytes, self.hub.replies_bytes() as u64),
            (&metrics.held_bytes, self.held_bytes as u64),
            (&metrics.letters_sent, post.sent),
            (&metrics.letters_heard, post.heard),
            (&metrics.letters_shelved, post.shelved),
        ] {
            number.set(value);
        }
        for (number, value) in metrics.encoded.iter().zip(self.hub.encoded()) {
            number.set(value);
        }
        metrics.ticks.add(1);
    }
}
