//! Those who are offered the same messages: clients in a list, each of which knows its place in it.
//!
//! Whoever comes while messages wait to be offered is not owed all of them. It stands apart, as a
//! newcomer, until they have been.

use super::clients::{Clients, Subscription};
use super::{ClientId, TopicId};

/// Clients, and how far those have come who came last.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// Clients that every message is offered to.
    pub(super) subscribers: Vec<ClientId>,
    /// Clients that joined since the last settling, and the `seq` after which they are owed.
    pub(super) newcomers: Vec<(ClientId, u64)>,
}

impl Audience {
    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.newcomers.is_empty()
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> usize {
        self.subscribers.len() + self.newcomers.len()
    }

    /// Whether `client`, whose place is `position`, is one of these.
    pub(super) fn has(&self, client: ClientId, position: u32) -> bool {
        match position {
            Subscription::NEWCOMER => self.newcomer(client).is_some(),
            position => self.subscribers.get(position as usize) == Some(&client),
        }
    }

    /// After which message the newcomer `client` is owed.
    pub(super) fn newcomer(&self, client: ClientId) -> Option<u64> {
        let newcomer = self.newcomers.iter().find(|(newcomer, _)| *newcomer == client);
        newcomer.map(|(_, seq)| *seq)
    }

    /// Takes in `client`, to whom everything is owed that has not been offered; returns its place.
    pub(super) fn subscribe(&mut self, client: ClientId) -> u32 {
        self.subscribers.push(client);
        self.subscribers.len() as u32 - 1
    }

    /// Takes in `client`, to whom only what comes after `seq` is owed; returns its place.
    pub(super) fn welcome(&mut self, client: ClientId, seq: u64) -> u32 {
        self.newcomers.push((client, seq));
        Subscription::NEWCOMER
    }

    /// Lets `client` go; the last one on the list takes its place. When messages have been offered
    /// to those before `cursor` only, they stay before it and the others behind it.
    pub(super) fn leave(
        &mut self,
        client: ClientId,
        Subscription { topic, position, .. }: Subscription,
        cursor: &mut usize,
        clients: &mut Clients,
    ) {
        if position == Subscription::NEWCOMER {
            let at = self.newcomers.iter().position(|(newcomer, _)| *newcomer == client);
            let at = at.expect("a newcomer is on the list");
            self.newcomers.remove(at);
            *cursor -= usize::from(self.subscribers.len() + at < *cursor);
            return;
        }
        let position = position as usize;
        let mut vacant = position;
        if position < *cursor {
            vacant = (*cursor - 1).min(self.subscribers.len() - 1);
            self.subscribers.swap(position, vacant);
            *cursor -= 1;
        }
        self.subscribers.swap_remove(vacant);
        for place in [position, vacant] {
            if let Some(moved) = self.subscribers.get(place) {
                clients.move_to(*moved, topic, place as u32);
            }
        }
    }

    /// The newcomers that `is_even` are subscribers like the others from now on.
    pub(super) fn admit(
        &mut self,
        topic: TopicId,
        clients: &mut Clients,
        is_even: impl Fn(u64) -> bool,
    ) {
        let Self { subscribers, newcomers } = self;
        newcomers.retain(|(client, seq)| {
            if is_even(*seq) {
                clients.move_to(*client, topic, subscribers.len() as u32);
                subscribers.push(*client);
            }
            !is_even(*seq)
        });
        if newcomers.is_empty() {
            *newcomers = Vec::new();
        }
    }
}
