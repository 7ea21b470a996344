//! Who has come to a channel and gone from it, and has not been told.
//!
//! What is told of a user is a state, not a step: that it is there, or is not. Who came and went again
//! need not be told; unless somebody was shown the list in between, and now holds what is not so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Tally, User, place_bytes};
use crate::limits::{PRESENCE_CHANGES_TOLD_MAX, PRESENCE_USERS_PER_EVENT_MAX};
use crate::proto::envelope;

#[derive(Debug)]
pub(super) struct Untold {
    interval: Duration,
    /// How often somebody has come or gone.
    changes: u64,
    /// The same when the list was shown last.
    shown: u64,
    names: Names,
}

#[derive(Debug)]
enum Names {
    Few(BTreeMap<Arc<str>, Change>),
    /// More than are told by name.
    Many {
        joined: u64,
        left: u64,
    },
}

/// What was told of a user last, and since when that is not so.
#[derive(Debug, Clone, Copy)]
struct Change {
    was_there: bool,
    since: u64,
}

impl Untold {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, changes: 0, shown: 0, names: Names::Few(BTreeMap::new()) }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.names, Names::Few(names) if names.is_empty())
    }

    /// The list is shown to somebody.
    pub(super) const fn show(&mut self) {
        self.shown = self.changes;
    }

    /// The user `name` has come, or has gone.
    pub(super) fn note(&mut self, name: &Arc<str>, is_there: bool, tally: &mut Tally) {
        self.changes += 1;
        let names = match &mut self.names {
            Names::Few(names) => names,
            Names::Many { joined, left } => {
                *(if is_there { joined } else { left }) += 1;
                return;
            }
        };
        if let Some(change) = names.get(name) {
            let is_seen = self.shown >= change.since;
            if change.was_there == is_there && !is_seen {
                names.remove(name);
                tally.bytes -= place_bytes(name);
            }
            return;
        }
        let change = Change { was_there: !is_there, since: self.changes };
        tally.bytes += place_bytes(name);
        names.insert(Arc::clone(name), change);
        if names.len() > PRESENCE_CHANGES_TOLD_MAX {
            tally.bytes -= bytes(names);
            let left = names.values().filter(|change| change.was_there).count() as u64;
            self.names = Names::Many { joined: names.len() as u64 - left, left };
        }
    }

    /// What is to be told now, in payloads of messages.
    pub(super) fn take(
        &mut self,
        users: &BTreeMap<Arc<str>, User>,
        tally: &mut Tally,
    ) -> Vec<Vec<u8>> {
        let total = users.len() as u64;
        let names = match std::mem::replace(&mut self.names, Names::Few(BTreeMap::new())) {
            Names::Few(names) => names,
            Names::Many { joined, left } => {
                return vec![envelope::presence_many(joined, left, total)];
            }
        };
        tally.bytes -= bytes(&names);
        let (joined, left): (Vec<_>, Vec<_>) =
            names.into_keys().partition(|name| users.contains_key(name));
        let events = [("presence.join", joined), ("presence.leave", left)];
        let mut told = Vec::new();
        for (event, names) in &events {
            let parts = names.chunks(PRESENCE_USERS_PER_EVENT_MAX);
            told.extend(parts.map(|names| {
                envelope::presence_event(event, names.iter().map(|name| &**name), total)
            }));
        }
        told
    }

    /// Bytes of the names.
    pub(super) fn bytes(&self) -> usize {
        match &self.names {
            Names::Few(names) => bytes(names),
            Names::Many { .. } => 0,
        }
    }
}

fn bytes(names: &BTreeMap<Arc<str>, Change>) -> usize {
    names.keys().map(|name| place_bytes(name)).sum()
}
