//! Clients that are to be closed: the hub knows why, and the shard knows how.

use super::outbox::Gap;
use super::topic::State;
use super::{ClientId, Epoch, GapReason, Hub, Refusal};
use crate::proto::envelope;

/// Why a client is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A channel's rule says so, because its outbox is full.
    Overflow,
    /// Messages are lost, and it can be told of that in no other way.
    Lost {
        /// The life of the channel's numbering.
        epoch: Epoch,
        /// The first message lost.
        from: u64,
        /// The last one; before the first one when only the numbering is another.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// It was to be let go when it had caught up, and it has; see [`Hub::retire`].
    Retired,
    /// It asked for something that is not done, and can be told so in no other way.
    Refused(Refusal),
}

impl Hub {
    /// Whether there are clients that are to be closed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        !self.clients.failed.is_empty()
    }

    /// Clients that are to be closed since the last call. Some may be there twice.
    pub fn take_failed(&mut self, failed: &mut Vec<(ClientId, Failure)>) {
        failed.append(&mut self.clients.failed);
    }

    /// Tells `client` that what it asked for with `id` is not done; one that can ask for nothing else is
    /// to be closed.
    pub fn refuse(&mut self, client: ClientId, id: Option<&[u8]>, refusal: Refusal) {
        let is_told = self.clients.format(client).has_notices();
        if !is_told || self.clients.is_listening(client) {
            self.clients.failed.push((client, Failure::Refused(refusal)));
            return;
        }
        let mut replies = Vec::new();
        envelope::error(&mut replies, id, refusal.code(), refusal.reason());
        self.reply(client, &mut replies);
    }

    /// `client` is to be closed instead of being told of `gap`.
    pub(super) fn fail_for(&mut self, client: ClientId, gap: Gap) {
        let Gap { topic, from, to, reason } = gap;
        let topic = self.topics.get(topic).expect("a topic outlives its subscribers");
        let State::Attached { epoch, .. } = topic.state else {
            unreachable!("only an attached channel has subscribers")
        };
        self.leave_patterns(client);
        // Its queue does not move any more: whoever waits for room in it would wait for ever.
        self.clients.seal(client, true);
        self.clients.failed.push((client, Failure::Lost { epoch, from, to, reason }));
    }
}
