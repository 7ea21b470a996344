//! The books about who is where.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Due, Members, Tally, place_bytes};
use crate::hub::{Audit, Hub};

impl Hub {
    /// Checks every list against its sums, and that what is due will be done.
    pub(in crate::hub) fn audit_presence(&self, audit: &mut Audit) {
        let mut sums = Tally::default();
        let mut due = 0;
        for (id, topic) in self.topics.iter() {
            let members = topic.home.as_ref().and_then(|home| home.members.as_deref());
            let Some(members) = members else { continue };
            members.audit(&mut sums, audit);
            assert!(!members.is_idle(), "{} keeps a list of nobody", topic.name);
            assert!(topic.rule.presence.grace.is_some(), "{} has a list", topic.name);
            for (what, is_due) in
                [(Due::Departure, members.is_departure_due), (Due::Telling, members.is_telling_due)]
            {
                let mut listed = self.presences.due.iter();
                let is_listed =
                    listed.any(|Reverse((_, topic, listed))| (*topic, *listed) == (id, what));
                assert_eq!(is_due, is_listed, "{} knows what is due", topic.name);
                due += usize::from(is_due);
            }
        }
        assert_eq!(due, self.presences.due.len(), "a list is due once");
        let Tally { users, connections, bytes } = &self.presences.tally;
        let expected = (sums.users, sums.connections, sums.bytes);
        assert_eq!((*users, *connections, *bytes), expected, "the sums over the lists");
        for (topic, changes) in &self.presences.changes {
            assert!(self.topics.get(*topic).is_some(), "what is to be told is of a channel");
            assert!(!changes.is_empty() && changes.values().all(|by| *by != 0), "of a change");
        }
    }

    /// Who is on the list of `channel`, whose home this is: the users with their connections, how many
    /// connections have no name, and how many found no room.
    #[must_use]
    pub fn members(&self, channel: &str) -> (Vec<(&str, u32)>, u64, u64) {
        let known = self.topics.find(channel).and_then(|topic| self.topics.get(topic));
        let members = known.and_then(|known| known.home.as_ref()?.members.as_deref());
        let Some(members) = members else { return (Vec::new(), 0, 0) };
        let users = members.users.iter().map(|(name, user)| (&**name, user.connections));
        (users.collect(), members.anonymous, members.unlisted)
    }
}

impl Members {
    fn audit(&self, sums: &mut Tally, audit: &mut Audit) {
        let mut listed = 0;
        for (name, user) in &self.users {
            listed += u64::from(user.connections);
            sums.bytes += place_bytes(name);
            assert_eq!(user.left.is_some(), user.connections == 0, "{name} is there or leaving");
            let is_leaving =
                user.left.is_some_and(|left| self.leaving.contains(&(left, Arc::clone(name))));
            assert_eq!(user.left.is_some(), is_leaving, "{name} will have left in time");
        }
        let leaving = self.users.values().filter(|user| user.left.is_some()).count();
        assert_eq!(leaving, self.leaving.len(), "who leaves is listed once");
        assert_eq!(listed, self.listed, "connections are counted");
        assert!(leaving == 0 || self.is_departure_due, "nobody sees that they have left");
        let untold = self.untold.as_ref();
        let has_untold = untold.is_some_and(|untold| !untold.is_empty());
        assert!(!has_untold || self.is_telling_due, "nobody tells who has come and gone");
        sums.bytes += untold.map_or(0, super::Untold::bytes);
        sums.users += self.users.len() as u64;
        sums.connections += self.listed + self.anonymous + self.unlisted;
        audit.users += self.users.len() as u64;
        audit.users_leaving += leaving as u64;
        audit.members_untold += u64::from(has_untold);
        audit.connections_unlisted += self.unlisted;
    }
}
