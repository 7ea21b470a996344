//! Letters from other shards and notes from the house.

use super::{Note, Shard};
use crate::io::Driver;
use crate::limits::LETTERS_PER_TICK_MAX;
use crate::time::Time;

impl<D: Driver> Shard<D> {
    /// Hears what waits in the mailboxes, up to a bound.
    pub(super) fn hear(&mut self, now: Time) {
        if self.post.is_congested() {
            self.post.empty_shelves();
            // Before anything is heard that may fill the shelves again: else acks would wait for
            // a pause that need not come.
            self.acknowledge();
        }
        for _ in 0..LETTERS_PER_TICK_MAX {
            let Some(letter) = self.post.next_letter() else { break };
            self.hub.hear(letter, now);
        }
        for _ in 0..LETTERS_PER_TICK_MAX {
            let Some(note) = self.post.next_note() else { break };
            match note {
                Note::Adopt { socket, peer } => self.adopt(now, socket, peer),
                Note::Drain => self.begin_drain(now),
            }
        }
        if !self.held_back.is_empty() && !self.post.is_congested() {
            self.release_held_back(now);
        }
    }

    /// Hears every letter that is in the mailbox now.
    pub(super) fn hear_all(&mut self, now: Time) {
        for _ in 0..self.post.letters_waiting() {
            let Some(letter) = self.post.next_letter() else { break };
            self.hub.hear(letter, now);
        }
    }

    /// Hands the hub's letters to the post.
    pub(super) fn post_letters(&mut self) {
        if !self.hub.has_letters() {
            return;
        }
        let mut letters = std::mem::take(&mut self.scratch.letters);
        self.hub.take_letters(&mut letters);
        for (shard, letter) in letters.drain(..) {
            self.post.send(shard, letter);
        }
        self.scratch.letters = letters;
    }
}
