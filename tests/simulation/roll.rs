//! What a peer knows of who is in a channel: a list that it has asked for, and those who came and went
//! since, which together must be the truth.

use std::collections::{BTreeMap, BTreeSet};

use simd_json::prelude::*;

use crate::reached::{Reached, Situation};

/// What stands in front of a channel's name where it is told who comes and goes.
pub const PREFIX: &str = "presence:";

/// By channel.
#[derive(Debug, Default)]
pub struct Rolls(BTreeMap<String, Roll>);

#[derive(Debug, Default)]
struct Roll {
    hearing: Option<Hearing>,
    list: Option<List>,
}

/// Those who come and go, from a message on.
#[derive(Debug)]
struct Hearing {
    epoch: String,
    /// The last message before.
    from: u64,
    last: u64,
    events: Vec<(u64, Event)>,
}

#[derive(Debug, Clone)]
pub enum Event {
    Joined(Vec<String>),
    Left(Vec<String>),
    /// It was lost, or has no names.
    Unknown,
}

#[derive(Debug)]
struct List {
    epoch: String,
    /// Of the first page.
    seq: u64,
    users: BTreeSet<String>,
    is_complete: bool,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub channel: String,
    pub after: Option<String>,
    pub limit: u64,
    /// Who asks, if it was there when it asked.
    pub member: Option<String>,
}

impl Rolls {
    /// What tells of the channel that `told` is about is heard from behind message `seq`.
    pub fn follow(&mut self, told: &str, epoch: &str, seq: u64) {
        let Some(channel) = told.strip_prefix(PREFIX) else { return };
        let roll = self.0.entry(channel.to_owned()).or_default();
        // It may be told again where it is.
        let is_known = |known: &Hearing| known.epoch == epoch && known.last == seq;
        if !roll.hearing.as_ref().is_some_and(is_known) {
            let (from, last) = (seq, seq);
            roll.hearing = Some(Hearing { epoch: epoch.into(), from, last, events: Vec::new() });
        }
    }

    /// It is heard no more.
    pub fn leave(&mut self, told: &str) {
        let channel = told.strip_prefix(PREFIX);
        if let Some(roll) = channel.and_then(|channel| self.0.get_mut(channel)) {
            roll.hearing = None;
        }
    }

    /// Message `seq` has come, or everything up to it was lost.
    pub fn hear(&mut self, told: &str, seq: u64, event: Event) {
        let channel = told.strip_prefix(PREFIX).expect("it tells of a channel");
        let roll = self.0.get_mut(channel).and_then(|roll| roll.hearing.as_mut());
        let hearing = roll.expect("it is followed");
        hearing.last = seq;
        hearing.events.push((seq, event));
    }

    /// Behind which user the next page begins; with a new list, at the first one.
    pub fn next_page(&self, channel: &str) -> Option<String> {
        let list = self.0.get(channel)?.list.as_ref().filter(|list| !list.is_complete)?;
        list.users.last().cloned()
    }

    /// A page has come.
    pub fn answered(
        &mut self,
        page: &Page,
        said: &simd_json::BorrowedValue<'_>,
        reached: &mut Reached,
    ) {
        let number = |name| said.get_u64(name).unwrap_or_else(|| panic!("{said}: {name}"));
        let users = said.get_array("users").expect("a list").iter();
        let users = users.map(|user| user.get_str("user").expect("a name").to_owned());
        let users: Vec<String> = users.collect();
        let has_more = said.get_bool("more").expect("it says whether there are more");
        assert!(users.is_sorted_by(|one, next| one < next), "names have an order: {said}");
        assert!(users.first().is_none_or(|first| Some(first) > page.after.as_ref()), "{said}");
        assert!(users.len() as u64 <= page.limit && number("total") >= users.len() as u64);
        assert!(!has_more || !users.is_empty(), "a page has somebody on it: {said}");
        reached.count(Situation::RollAnswered);
        if let Some(member) = &page.member {
            let is_before = page.after.as_ref().is_some_and(|after| member <= after);
            let is_behind = has_more && users.last().is_some_and(|last| member > last);
            let is_all = said.get_u64("unlisted").is_none();
            let is_there = users.contains(member);
            assert!(is_there || is_before || is_behind || !is_all, "{member} is there: {said}");
        }
        let Some(epoch) = said.get_str("epoch") else { return };
        let roll = self.0.entry(page.channel.clone()).or_default();
        let known = roll.list.take().filter(|list| page.after.is_some() && list.epoch == epoch);
        // Of another life, it is read anew.
        if page.after.is_some() && known.is_none() {
            return;
        }
        reached.add(Situation::RollInPages, u64::from(known.is_some()));
        let list = roll.list.insert(known.unwrap_or_else(|| List {
            epoch: epoch.to_owned(),
            seq: number("seq"),
            users: BTreeSet::new(),
            is_complete: false,
        }));
        list.users.extend(users);
        list.is_complete = !has_more;
    }

    /// Who is in `channel`, where that is known.
    pub fn fold(&self, channel: &str) -> Option<BTreeSet<String>> {
        let Roll { hearing: Some(hearing), list: Some(list) } = self.0.get(channel)? else {
            return None;
        };
        let is_whole = list.is_complete && hearing.epoch == list.epoch && hearing.from <= list.seq;
        if !is_whole {
            return None;
        }
        let mut users = list.users.clone();
        for (_, event) in hearing.events.iter().filter(|(seq, _)| *seq > list.seq) {
            match event {
                Event::Joined(names) => users.extend(names.iter().cloned()),
                Event::Left(names) => users.retain(|name| !names.contains(name)),
                Event::Unknown => return None,
            }
        }
        Some(users)
    }
}

impl Event {
    /// What the payload of a message says.
    pub fn read(payload: &str) -> Self {
        let mut bytes = payload.as_bytes().to_vec();
        let said = simd_json::to_borrowed_value(&mut bytes);
        let said = said.unwrap_or_else(|error| panic!("{payload}: {error}"));
        let names = || -> Vec<String> {
            let users = said.get_array("users").expect("names").iter();
            users.map(|user| user.as_str().expect("a name").to_owned()).collect()
        };
        assert!(said.get_u64("total").is_some(), "{payload}");
        match said.get_str("event") {
            Some("presence.join") => Self::Joined(names()),
            Some("presence.leave") => Self::Left(names()),
            Some("presence.many") => Self::Unknown,
            _ => panic!("{payload}"),
        }
    }
}
