//! At the memory ceiling the worst offenders give way.
//!
//! All that a hub holds between ticks waits in outboxes or is history (keys, patterns, lists of users,
//! and what waits to be conflated, have bounds of their own), so as long as somebody gives way the hub
//! gets below its ceiling. Who holds the most is worked out only when the ceiling is passed, and giving
//! way goes on until a tenth is free again: the price of looking at everybody is paid once for each
//! tenth of the memory that is filled.

use super::{ClientId, GapReason, Hub, TopicId};

/// What one client, or one channel's history, makes the hub hold, and how it can give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Burden {
    /// How much, about. What clients share counts for each of them with its share only.
    pub bytes: usize,
    /// What ends it.
    pub way: Way,
}

/// Who gives way, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A client's queue becomes gap notices: [`Hub::shed`].
    Shed(ClientId),
    /// A client's replies wait, or the rest of a message whose beginning it has: neither can be
    /// taken back, so it is to be closed.
    CutOff(ClientId),
    /// A channel's history is given up: [`Hub::give_up_history`].
    Forget(TopicId),
}

impl Hub {
    /// Whether the hub holds more than it may.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.held_bytes() > self.settings.memory_bytes_max
    }

    /// Whether enough has been given up that the next message does not overload the hub again.
    #[must_use]
    pub fn is_relieved(&self) -> bool {
        self.held_bytes() <= self.settings.memory_bytes_max / 10 * 9
    }

    /// What each client and each history makes the hub hold, the worst first. They are to give way in this order
    /// until the hub [`is_relieved`](Self::is_relieved), which is asked again after each: what
    /// others share is free only when the last of them has let go of it.
    #[must_use]
    pub fn burdens(&self) -> Vec<Burden> {
        let mut burdens = self.clients.burdens();
        burdens.extend(self.topics.iter().filter_map(|(topic, known)| {
            let bytes = known.home.as_ref()?.history.as_ref()?.bytes();
            (bytes > 0).then_some(Burden { bytes, way: Way::Forget(topic) })
        }));
        burdens.sort_unstable_by(|a, b| b.cmp(a));
        burdens
    }

    /// Turns the messages that wait for `client` into gap notices.
    pub fn shed(&mut self, client: ClientId) {
        self.clients.shed(client, GapReason::Memory);
    }

    /// Gives up what is kept of `topic` for those who are away.
    pub fn give_up_history(&mut self, topic: TopicId) {
        let home = self.topics.get_mut(topic).and_then(|known| known.home.as_mut());
        if let Some(history) = home.and_then(|home| home.history.as_mut()) {
            history.relieve();
        }
    }

    fn held_bytes(&self) -> usize {
        let bounded = self.keys_bytes() + self.patterns_bytes() + self.conflated_bytes();
        self.segments_bytes() + self.replies_bytes() + bounded + self.presence_bytes()
    }
}
