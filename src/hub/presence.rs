//! Who is in a channel: its users, each with the number of their connections, and how many others.
//!
//! ```text
//! subscribes  --> ann +1 --(end of the tick)--> home: ann 3
//! leaves      --> ann -1 ---------------------> home: ann 0, leaving --grace--> gone
//! home: who came, who has gone --(interval)--> one message to presence:NAME
//! ```
//!
//! The list is kept at the channel's home. `change` is what shards tell it, `untold` what is to be
//! told of it, `roll` the list as it is asked for; `audit` checks the books. Nothing on a message's way
//! comes here.
//!
//! Those who come and go are told by ordinary messages of a channel of its own, so a client that knows
//! a list and the number it was made at follows the list as it follows any channel, and is told of gaps.

mod audit;
mod change;
mod roll;
#[cfg(test)]
mod tests;
mod untold;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::{Hub, Presence, TopicId};
use crate::limits::{
    CHANNEL_NAME_BYTES_MAX, PRESENCE_DUE_PER_TICK_MAX, PRESENCE_PAGE_BYTES_MAX,
    PRESENCE_PAGE_USERS_MAX, PRESENCE_PLACE_BYTES, PRESENCE_PREFIX,
};
use crate::time::Time;
use change::Changes;
use untold::Untold;

pub(super) use change::Change;
pub use roll::{Ask, Roll};

/// What one shard knows of who is where.
#[derive(Debug, Default)]
pub(super) struct Presences {
    /// Who has come and gone here, of which homes have not been told.
    changes: BTreeMap<TopicId, Changes>,
    /// When something is due in the list of a channel.
    due: BinaryHeap<Reverse<(Time, TopicId, Due)>>,
    pub(super) tally: Tally,
}

/// The sums over the lists of a shard.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Users on lists.
    pub(super) users: u64,
    /// Connections, those that are on no list among them.
    pub(super) connections: u64,
    /// Bytes of the lists, and of names that are to be told.
    pub(super) bytes: usize,
}

/// What is due in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Somebody's time to come back is over.
    Departure,
    /// Who has come and gone is to be told.
    Telling,
}

/// Who is in one channel.
///
/// Whoever is listed is there, or was not long ago. Who found no room is counted in `unlisted`, and so
/// are as many of the connections as that user has beyond those that are listed.
#[derive(Debug)]
pub(super) struct Members {
    rule: Presence,
    users: BTreeMap<Arc<str>, User>,
    /// The sum over `users`.
    listed: u64,
    /// Connections that have not said whose they are.
    anonymous: u64,
    /// Connections that there was no room for.
    unlisted: u64,
    /// Those of `users` without a connection, and since when.
    leaving: BTreeSet<(Time, Arc<str>)>,
    /// Who has come and gone and has not been told, if that is told.
    untold: Option<Untold>,
    /// Listed in `Presences::due`.
    is_departure_due: bool,
    is_telling_due: bool,
}

#[derive(Debug, Clone, Copy)]
struct User {
    connections: u32,
    /// Since when there is none.
    left: Option<Time>,
}

/// A part of a list.
#[derive(Debug)]
struct Page {
    users: Vec<(Arc<str>, u32)>,
    has_more: bool,
}

impl Members {
    /// Nobody yet, in the channel called `name`.
    fn new(rule: Presence, name: &str) -> Self {
        Self {
            untold: rule.interval_of(name).map(Untold::new),
            rule,
            users: BTreeMap::new(),
            listed: 0,
            anonymous: 0,
            unlisted: 0,
            leaving: BTreeSet::new(),
            is_departure_due: false,
            is_telling_due: false,
        }
    }

    /// `name`, or somebody who has not said a name, has `by` connections more. Lists may take
    /// `bytes_max` bytes.
    fn change(
        &mut self,
        name: Option<&Arc<str>>,
        by: i32,
        bytes_max: usize,
        tally: &mut Tally,
        now: Time,
    ) {
        add(&mut tally.connections, by);
        let Some(name) = name else { return add(&mut self.anonymous, by) };
        let has_room = self.has_room(name, bytes_max, tally);
        match self.users.get_mut(name) {
            Some(user) if by < 0 => {
                let taken = user.connections.min(by.unsigned_abs());
                user.connections -= taken;
                self.listed -= u64::from(taken);
                self.unlisted -= u64::from(by.unsigned_abs() - taken);
                if taken > 0 && user.connections == 0 {
                    user.left = Some(now);
                    self.leaving.insert((now, Arc::clone(name)));
                }
            }
            Some(user) => {
                user.connections += by.unsigned_abs();
                self.listed += u64::from(by.unsigned_abs());
                if let Some(left) = user.left.take() {
                    self.leaving.remove(&(left, Arc::clone(name)));
                }
            }
            None if by > 0 && has_room => {
                let connections = by.unsigned_abs();
                self.users.insert(Arc::clone(name), User { connections, left: None });
                self.listed += u64::from(connections);
                tally.users += 1;
                tally.bytes += place_bytes(name);
                self.note(name, true, tally);
            }
            None => add(&mut self.unlisted, by),
        }
    }

    fn has_room(&self, name: &str, bytes_max: usize, tally: &Tally) -> bool {
        self.users.len() < self.rule.users_max as usize
            && tally.bytes + place_bytes(name) <= bytes_max
    }

    /// Those whose time to come back is over are gone, at most so many. Returns how many.
    fn depart(&mut self, now: Time, most: usize, tally: &mut Tally) -> usize {
        let grace = self.grace();
        let mut count = 0;
        while count < most && self.leaving.first().is_some_and(|(left, _)| *left + grace <= now) {
            let (_, name) = self.leaving.pop_first().expect("looked at just now");
            self.users.remove(&name);
            tally.users -= 1;
            tally.bytes -= place_bytes(&name);
            self.note(&name, false, tally);
            count += 1;
        }
        count
    }

    fn grace(&self) -> Duration {
        self.rule.grace.unwrap_or_default()
    }

    fn note(&mut self, name: &Arc<str>, is_there: bool, tally: &mut Tally) {
        if let Some(untold) = &mut self.untold {
            untold.note(name, is_there, tally);
        }
    }

    /// What is due when, and has not been listed before.
    fn take_due(&mut self, now: Time) -> [Option<(Time, Due)>; 2] {
        let grace = self.grace();
        let departure = self.leaving.first().filter(|_| !self.is_departure_due);
        let departure = departure.map(|(left, _)| (*left + grace, Due::Departure));
        let untold = self.untold.as_ref().filter(|untold| !untold.is_empty());
        let untold = untold.filter(|_| !self.is_telling_due);
        let telling = untold.map(|untold| (now + untold.interval(), Due::Telling));
        self.is_departure_due |= departure.is_some();
        self.is_telling_due |= telling.is_some();
        [departure, telling]
    }

    /// Whether nobody is there, and nothing is to come.
    fn is_idle(&self) -> bool {
        self.users.is_empty()
            && self.anonymous + self.unlisted == 0
            && !(self.is_departure_due || self.is_telling_due)
    }

    /// The users behind `after` in the order of names. Whoever changes from now on will be told, also
    /// if it is as it was before: somebody has seen it.
    fn page(&mut self, after: Option<&str>, limit: Option<u32>) -> Page {
        if let Some(untold) = &mut self.untold {
            untold.show();
        }
        let limit = limit.unwrap_or(PRESENCE_PAGE_USERS_MAX).min(PRESENCE_PAGE_USERS_MAX) as usize;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.users.range::<str, _>((from, Bound::Unbounded));
        let (mut users, mut bytes) = (Vec::new(), 0);
        while users.len() < limit
            && bytes < PRESENCE_PAGE_BYTES_MAX
            && let Some((name, user)) = rest.next()
        {
            bytes += name.len();
            users.push((Arc::clone(name), user.connections));
        }
        Page { users, has_more: rest.next().is_some() }
    }
}

impl Presence {
    /// For how long those who come to and go from the channel called `name` are gathered, if they are
    /// told at all: with a name that leaves no room for a prefix they cannot be.
    fn interval_of(&self, name: &str) -> Option<Duration> {
        let has_name = name.len() + PRESENCE_PREFIX.len() <= CHANNEL_NAME_BYTES_MAX;
        self.events.filter(|_| self.grace.is_some() && has_name)
    }
}

impl Hub {
    /// When something is due in a list.
    #[must_use]
    pub fn next_presence(&self) -> Option<Time> {
        self.presences.due.peek().map(|Reverse((due, ..))| *due)
    }

    /// Does what is due, up to a bound: whose time is over has left, and who has come and gone is told.
    pub fn expire_presence(&mut self, now: Time) {
        let mut most = PRESENCE_DUE_PER_TICK_MAX;
        while most > 0
            && let Some(Reverse((due, topic, what))) = self.presences.due.peek().copied()
            && due <= now
        {
            self.presences.due.pop();
            most -= 1;
            let home = self.topics.get_mut(topic).and_then(|known| known.home.as_mut());
            let members = home.and_then(|home| home.members.as_deref_mut());
            let members = members.expect("a list outlives what is due in it");
            match what {
                Due::Departure => {
                    members.is_departure_due = false;
                    let count = members.depart(now, most + 1, &mut self.presences.tally);
                    most = most.saturating_sub(count);
                }
                Due::Telling => {
                    members.is_telling_due = false;
                    self.tell_members(topic, now);
                }
            }
            self.look_at_members(topic, now);
        }
    }

    /// Tells who has come to the home `topic` and gone; at the memory ceiling later.
    fn tell_members(&mut self, topic: TopicId, now: Time) {
        if self.is_overloaded() {
            return;
        }
        let known = self.topics.get_mut(topic).expect("something was due in it");
        let members = known.home.as_mut().and_then(|home| home.members.as_deref_mut());
        let members = members.expect("something was due in it");
        let Some(untold) = &mut members.untold else { return };
        let events = untold.take(&members.users, &mut self.presences.tally);
        if events.is_empty() {
            return;
        }
        let channel = format!("{PRESENCE_PREFIX}{}", known.name);
        // Where there is no room for the channel nobody can have subscribed to it.
        let Ok(told) = self.home(&channel, now) else { return };
        for event in events {
            self.append(told, &event, now);
        }
    }

    /// Lists what has become due in the list of `topic`, or lets go of the list.
    fn look_at_members(&mut self, topic: TopicId, now: Time) {
        let home = self.topics.get_mut(topic).and_then(|known| known.home.as_mut());
        let home = home.expect("lists are kept at homes");
        let Some(members) = &mut home.members else { return };
        let due = members.take_due(now).into_iter().flatten();
        self.presences.due.extend(due.map(|(time, what)| Reverse((time, topic, what))));
        if members.is_idle() {
            home.members = None;
            self.tidy(topic, now);
        }
    }

    /// Bytes of the lists of who is where.
    #[must_use]
    pub const fn presence_bytes(&self) -> usize {
        self.presences.tally.bytes
    }
}

/// What a user takes on a list, or among those to be told.
fn place_bytes(name: &str) -> usize {
    name.len() + PRESENCE_PLACE_BYTES
}

fn add(count: &mut u64, by: i32) {
    *count = count.checked_add_signed(by.into()).expect("nobody leaves who has not come");
}
