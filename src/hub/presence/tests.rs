//! A list alone, with many on it.

use super::*;
use crate::limits::{PRESENCE_CHANGES_TOLD_MAX, PRESENCE_USERS_PER_EVENT_MAX};

const RULE: Presence = Presence {
    grace: Some(Duration::from_secs(5)),
    events: Some(Duration::from_secs(1)),
    users_max: 100_000,
};

fn name(number: usize) -> Arc<str> {
    format!("user-{number:06}@example.org").into()
}

fn at(seconds: u64) -> Time {
    Time::START + Duration::from_secs(seconds)
}

fn come(members: &mut Members, tally: &mut Tally, numbers: std::ops::Range<usize>) {
    for number in numbers {
        members.change(Some(&name(number)), 1, 1 << 30, tally, at(0));
    }
}

fn told(members: &mut Members, tally: &mut Tally) -> Vec<String> {
    let untold = members.untold.as_mut().expect("its rule says so");
    let told = untold.take(&members.users, tally).into_iter();
    told.map(|event| String::from_utf8(event).expect("JSON")).collect()
}

#[test]
fn a_hundred_thousand_members_cost_what_their_names_cost_and_one_event() {
    let (mut members, mut tally) = (Members::new(RULE, "room"), Tally::default());
    come(&mut members, &mut tally, 0..150_000);
    assert_eq!((members.users.len(), members.unlisted), (100_000, 50_000));
    let each = name(0).len() + PRESENCE_PLACE_BYTES;
    assert!(tally.bytes <= 100_000 * each, "{} bytes", tally.bytes);
    let many = r#"{"event":"presence.many","joined":100000,"left":0,"total":100000}"#;
    assert_eq!(told(&mut members, &mut tally), [many]);
    assert_eq!(told(&mut members, &mut tally), [""; 0]);

    // All of them are read, a page at a time.
    let (mut count, mut after, mut pages) = (0, None::<Arc<str>>, 0);
    loop {
        let page = members.page(after.as_deref(), None);
        (count, pages) = (count + page.users.len(), pages + 1);
        after = page.users.last().map(|(name, _)| Arc::clone(name));
        if !page.has_more {
            break;
        }
    }
    assert_eq!(count, 100_000);
    assert!((100..200).contains(&pages), "{pages} pages");

    for number in 0..150_000 {
        members.change(Some(&name(number)), -1, 1 << 30, &mut tally, at(1));
    }
    assert_eq!((members.listed, members.unlisted, tally.connections), (0, 0, 0));
    assert_eq!(members.depart(at(5), 200_000, &mut tally), 0);
    let mut gone = 0;
    while gone < 100_000 {
        let departed = members.depart(at(6), 4_096, &mut tally);
        assert!(departed > 0 && departed <= 4_096);
        gone += departed;
    }
    let many = r#"{"event":"presence.many","joined":0,"left":100000,"total":0}"#;
    assert_eq!(told(&mut members, &mut tally), [many]);
    assert_eq!((tally.bytes, tally.users), (0, 0));
}

#[test]
fn as_many_as_are_told_by_name_are_told_in_messages_of_a_bounded_size() {
    let (mut members, mut tally) = (Members::new(RULE, "room"), Tally::default());
    come(&mut members, &mut tally, 0..PRESENCE_CHANGES_TOLD_MAX);
    let events = told(&mut members, &mut tally);
    assert_eq!(events.len(), PRESENCE_CHANGES_TOLD_MAX / PRESENCE_USERS_PER_EVENT_MAX);
    for event in events {
        assert!(event.starts_with(r#"{"event":"presence.join","users":["user-"#), "{event}");
        assert!(event.len() < 9_000, "{} bytes", event.len());
    }
    come(&mut members, &mut tally, 5_000..5_001 + PRESENCE_CHANGES_TOLD_MAX);
    let expected = r#"{"event":"presence.many","joined":1001,"left":0,"total":2001}"#;
    assert_eq!(told(&mut members, &mut tally), [expected]);
}

#[test]
fn a_list_takes_no_more_bytes_than_it_may() {
    let (mut members, mut tally) = (Members::new(RULE, "room"), Tally::default());
    let each = place_bytes(&name(0));
    for number in 0..100 {
        members.change(Some(&name(number)), 1, 10 * each, &mut tally, at(0));
    }
    // A place on the list, and one among those who are to be told.
    assert_eq!((members.users.len(), members.unlisted), (5, 95));
    assert_eq!(tally.bytes, 10 * each);
}

#[test]
fn a_name_that_leaves_no_room_for_a_prefix_is_told_nowhere() {
    let longest = CHANNEL_NAME_BYTES_MAX - PRESENCE_PREFIX.len();
    assert!(Members::new(RULE, &"c".repeat(longest)).untold.is_some());
    assert!(Members::new(RULE, &"c".repeat(longest + 1)).untold.is_none());
    assert!(Members::new(Presence { events: None, ..RULE }, "c").untold.is_none());
}
