//! Channels whose subscribers get the newest message of each key only.

mod patterns;

use std::time::Duration;

use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::*;
use crate::limits::{CONFLATION_INTERVALS_MAX, CONFLATION_KEYS_MAX};
use crate::proto::envelope::Since;

/// Of the rule that these tests are about.
const INTERVAL: Duration = Duration::from_millis(100);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn conflated(key: Option<&str>) -> Settings {
    let mut settings = settings();
    settings.rules.rules.push(ChannelRule {
        pattern: "md*".into(),
        rule: Rule {
            history: Retention { messages: 100, ..Retention::default() },
            conflate: Conflate { key: key.map(Into::into), interval: Some(INTERVAL) },
            ..Rule::default()
        },
    });
    settings
}

/// A world with `count` subscribers of `md`, which have heard that they are.
fn subscribed(settings: &Settings, count: usize) -> World {
    let mut world = World::new(settings, 1);
    for client in 0..count {
        world.open(0);
        world.subscribe(client, 0, "md");
    }
    world.settle(0);
    for client in 0..count {
        assert_eq!(world.take_heard(client).len(), 1);
    }
    world
}

/// Somebody publishes a message of each of these keys.
fn publish(world: &mut World, publisher: usize, keys: &str) {
    for key in keys.chars() {
        let payload = match key {
            '-' => "{\"other\":1}".into(),
            '!' => "[\"no object\"]".into(),
            key => format!("{{\"a\":{{\"k\":0}},\"k\":\"{key}\"}}"),
        };
        world.publish_payload(publisher, 1_000, "md", &payload);
    }
}

/// What `client` has heard of `md`: the ranges of messages, and gaps with a minus.
fn ranges(world: &mut World, client: usize) -> Vec<(i64, i64)> {
    let heard = world.take_heard(client).into_iter();
    let ranges = heard.filter_map(|heard| match heard {
        Heard::Message { from, seq, .. } => Some((from as i64, seq as i64)),
        Heard::Gap { from, to, .. } => Some((-(from as i64), -(to as i64))),
        Heard::Ack { .. } => None,
        heard => panic!("{heard:?}"),
    });
    ranges.collect()
}

/// Time passes, and what is due leaves.
fn pass(world: &mut World, time: Duration) {
    world.now = world.now + time;
    world.settle(0);
}

#[test]
fn once_an_interval_the_newest_message_of_each_key_leaves_and_covers_what_it_supersedes() {
    let mut world = subscribed(&conflated(Some("k")), 2);
    publish(&mut world, 0, "a");
    world.settle(0);
    assert_eq!(ranges(&mut world, 1), [(1, 1)], "nothing came for an interval");
    publish(&mut world, 0, "aba");
    pass(&mut world, ms(50));
    publish(&mut world, 0, "cab");
    pass(&mut world, ms(49));
    assert_eq!(ranges(&mut world, 1), []);
    assert_eq!(world.hubs[0].next_flush(), Some(world.now + ms(1)));
    pass(&mut world, ms(1));
    assert_eq!(ranges(&mut world, 1), [(2, 5), (6, 6), (7, 7)], "c, a and b");
    publish(&mut world, 0, "a");
    pass(&mut world, ms(99));
    assert_eq!(ranges(&mut world, 1), []);
    pass(&mut world, ms(1));
    assert_eq!(ranges(&mut world, 1), [(8, 8)]);
    pass(&mut world, ms(100));
    publish(&mut world, 0, "b");
    world.settle(0);
    assert_eq!(ranges(&mut world, 1), [(9, 9)], "it had been quiet");
    assert_eq!(ranges(&mut world, 0), [(1, 1), (2, 5), (6, 6), (7, 7), (8, 8), (9, 9)]);
    assert_eq!(world.hubs[0].audit().conflated_waiting, 0);
}

#[test]
fn what_has_no_key_has_one_together() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    publish(&mut world, 0, "a");
    world.settle(0);
    publish(&mut world, 0, "b-!a-b");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, 0), [(1, 1), (2, 5), (6, 6), (7, 7)]);
    let mut world = subscribed(&conflated(None), 1);
    publish(&mut world, 0, "a");
    world.settle(0);
    publish(&mut world, 0, "b-!a-b");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, 0), [(1, 1), (2, 7)], "the rule names none");
}

#[test]
fn who_joins_while_something_waits_is_owed_only_what_comes_after() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    publish(&mut world, 0, "a");
    world.settle(0);
    publish(&mut world, 0, "abc");
    let early = world.open(0);
    world.subscribe(early, 1, "md");
    publish(&mut world, 0, "ab");
    world.settle(0);
    let (late, last) = (world.open(0), world.open(0));
    world.subscribe(late, 1, "md");
    publish(&mut world, 0, "b");
    world.settle(0);
    world.subscribe(last, 1, "md");
    pass(&mut world, INTERVAL);
    for (client, seq) in [(early, 4), (late, 6), (last, 7)] {
        let heard = world.clients[client].heard.remove(0);
        assert!(matches!(heard, Heard::Subscribed { seq: told, .. } if told == seq), "{heard:?}");
    }
    assert_eq!(ranges(&mut world, 0), [(1, 1), (2, 4), (5, 5), (6, 7)], "c, a and b");
    assert_eq!(ranges(&mut world, early), [(5, 5), (6, 7)]);
    assert_eq!(ranges(&mut world, late), [(7, 7)]);
    assert_eq!(ranges(&mut world, last), []);
    publish(&mut world, 0, "aba");
    pass(&mut world, INTERVAL);
    for client in [early, late, last] {
        assert_eq!(ranges(&mut world, client), [(8, 9), (10, 10)], "they are like others");
    }
    assert_eq!(world.hubs[0].audit().conflated_newcomers, 0);
}

#[test]
fn who_comes_back_gets_everything_it_missed_and_then_the_newest_only() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    publish(&mut world, 0, "aaaa");
    world.settle(0);
    assert_eq!(ranges(&mut world, 0), [(1, 4)]);
    publish(&mut world, 0, "ab");
    world.settle(0);
    let back = world.open(0);
    world.resume(back, 1, "md", Some(Since::Last(4)));
    world.run();
    let heard = world.clients[back].heard.remove(0);
    assert!(matches!(heard, Heard::Subscribed { seq: 6, .. }), "{heard:?}");
    assert_eq!(ranges(&mut world, back), [(3, 3), (4, 4), (5, 5), (6, 6)]);
    publish(&mut world, 0, "aa");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, back), [(7, 8)]);
    assert_eq!(ranges(&mut world, 0), [(5, 6), (7, 8)]);
}

#[test]
fn a_lost_message_is_told_with_all_that_it_covers() {
    let mut settings = conflated(Some("k"));
    settings.outbox.messages = 2;
    let mut world = subscribed(&settings, 2);
    world.clients[1].room = 0;
    publish(&mut world, 0, "a");
    world.settle(0);
    assert!(world.clients[1].blocked);
    for _ in 0..3 {
        publish(&mut world, 0, "aaab");
        pass(&mut world, INTERVAL);
    }
    world.make_room(1, usize::MAX);
    world.settle(0);
    assert_eq!(ranges(&mut world, 1), [(-1, -9), (10, 12), (13, 13)]);
    assert_eq!(world.hubs[0].flow().dropped_oldest, 9, "as many as were told");
}

#[test]
fn a_flush_that_is_larger_than_an_outbox_reaches_who_reads_it() {
    let mut world = subscribed(&conflated(Some("k")), 2);
    publish(&mut world, 0, "a");
    world.settle(0);
    let letters: String = ('a'..='z').chain('a'..='z').collect();
    publish(&mut world, 0, &letters);
    pass(&mut world, INTERVAL);
    let mut expected = vec![(1, 1), (2, 28)];
    expected.extend((29..=53).map(|seq| (seq, seq)));
    assert_eq!(ranges(&mut world, 0), expected);
    assert_eq!(ranges(&mut world, 1), expected);
}

#[test]
fn who_asks_for_less_gets_less_and_nobody_more_than_the_rule_allows() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    let (slow, fast) = (world.open(0), world.open(0));
    let terms = |millis| Terms { since: None, conflate: Some(ms(millis)) };
    world.subscribe_on(slow, 1, "md", terms(250));
    world.subscribe_on(fast, 1, "md", terms(1));
    world.settle(0);
    for client in [slow, fast] {
        world.take_heard(client);
    }
    for _ in 0..10 {
        publish(&mut world, 0, "aa");
        world.settle(0);
        world.now = world.now + ms(50);
    }
    world.settle(0);
    assert_eq!(ranges(&mut world, fast), ranges(&mut world, 0));
    assert_eq!(ranges(&mut world, slow), [(1, 2), (3, 12), (13, 20)]);
}

#[test]
fn a_channel_is_sent_at_so_many_intervals_and_no_more() {
    let mut world = subscribed(&conflated(None), 1);
    world.open(0);
    world.subscribe(1, 1, "a");
    let terms = |place| Terms { since: None, conflate: Some(INTERVAL * (place as u32 + 1)) };
    world.subscribe_on(1, 2, "b", terms(1));
    let refused = |world: &mut World, client| match world.take_heard(client).pop() {
        Some(Heard::Error { code, .. }) => code,
        heard => panic!("{heard:?}"),
    };
    world.settle(0);
    assert_eq!(refused(&mut world, 1), "not_conflated");
    for place in 1..=CONFLATION_INTERVALS_MAX {
        let client = world.open(0);
        let since = (place % 2 == 0).then_some(Recall::Last(1));
        world.subscribe_on(client, 1, "md", Terms { since, ..terms(place) });
    }
    world.run();
    let last = world.clients.len() - 1;
    assert_eq!(refused(&mut world, last), "too_many_intervals");
    // When somebody has left, there is room for another.
    world.close(last - 1);
    world.subscribe_on(last, 2, "md", terms(40));
    world.settle(0);
    assert!(matches!(world.take_heard(last)[..], [Heard::Subscribed { .. }]));
}

#[test]
fn whatever_intervals_others_have_a_channel_is_there_at_its_own() {
    let mut world = World::new(&conflated(None), 1);
    for place in 1..=CONFLATION_INTERVALS_MAX as u32 {
        let client = world.open(0);
        let terms = Terms { since: None, conflate: Some(INTERVAL * (place + 1)) };
        world.subscribe_on(client, 1, "md", terms);
    }
    let asking = world.open(0);
    world.subscribe(asking, 1, "md");
    world.settle(0);
    let is_told = |heard: Vec<Heard>| match &heard[..] {
        [Heard::Subscribed { .. }] => true,
        [Heard::Error { code, .. }] if code == "too_many_intervals" => false,
        heard => panic!("{heard:?}"),
    };
    let taken = (0..CONFLATION_INTERVALS_MAX).filter(|client| is_told(world.take_heard(*client)));
    assert_eq!(taken.count(), CONFLATION_INTERVALS_MAX - 1, "a place is kept");
    assert!(is_told(world.take_heard(asking)));
}

#[test]
fn what_is_more_than_may_wait_leaves_before_its_time() {
    let settings = Settings { memory_bytes_max: 64 << 20, ..conflated(Some("k")) };
    let mut world = subscribed(&settings, 2);
    for number in 0..CONFLATION_KEYS_MAX + 2 {
        world.publish_payload(0, 1, "md", &format!("{{\"k\":{number}}}"));
        if number == 0 {
            world.settle(0);
        }
    }
    world.settle(0);
    assert_eq!(ranges(&mut world, 1).len(), CONFLATION_KEYS_MAX + 1);
    publish(&mut world, 0, "a");
    world.settle(0);
    assert_eq!(ranges(&mut world, 1), [], "a new interval has begun");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, 1).len(), 2);

    // Of 16 KiB of memory one may wait.
    let settings = Settings { memory_bytes_max: 16 << 10, ..conflated(Some("k")) };
    let mut world = subscribed(&settings, 2);
    publish(&mut world, 0, "aab");
    world.settle(0);
    assert_eq!(ranges(&mut world, 1), [(1, 2), (3, 3)]);
    publish(&mut world, 0, "abcd");
    world.settle(0);
    assert_eq!(ranges(&mut world, 1), []);
    publish(&mut world, 0, "efghij");
    world.settle(0);
    let early = ranges(&mut world, 1);
    assert!(!early.is_empty() && early.len() < 10, "{early:?}");
    assert!(world.hubs[0].conflated_bytes() <= 1 << 10);
    pass(&mut world, INTERVAL);
    let rest = ranges(&mut world, 1);
    assert_eq!(early.len() + rest.len(), 10, "and nothing is missing: {early:?} {rest:?}");
}

#[test]
fn nothing_waits_where_nobody_listens() {
    let mut world = subscribed(&conflated(Some("k")), 2);
    publish(&mut world, 0, "aab");
    world.settle(0);
    publish(&mut world, 0, "aab");
    world.settle(0);
    assert!(world.hubs[0].conflated_bytes() > 0);
    world.take_heard(1);
    world.unsubscribe(1, 7, "md");
    world.unsubscribe(0, 7, "md");
    world.settle(0);
    let last = |heard: Vec<Heard>| match heard.last() {
        Some(Heard::Ack { id: 7, seq, .. }) => *seq,
        heard => panic!("{heard:?}"),
    };
    assert_eq!(last(world.take_heard(1)), 3, "what waits was not sent");
    assert_eq!(last(world.take_heard(0)), 3);
    assert_eq!(world.hubs[0].conflated_bytes(), 0);
    // Who comes now is owed nothing of it, and the interval is not over.
    world.subscribe(1, 8, "md");
    publish(&mut world, 0, "a");
    world.settle(0);
    assert!(matches!(world.take_heard(1)[..], [Heard::Subscribed { seq: 6, .. }]));
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, 1), [(7, 7)]);
}

#[test]
fn a_server_that_leaves_conflates_no_more() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    publish(&mut world, 0, "aab");
    world.settle(0);
    publish(&mut world, 0, "aab");
    world.settle(0);
    assert_eq!(ranges(&mut world, 0), [(1, 2), (3, 3)]);
    world.hubs[0].stop_conflating();
    world.settle(0);
    assert_eq!(ranges(&mut world, 0), [(4, 5), (6, 6)]);
    publish(&mut world, 0, "a");
    world.settle(0);
    assert_eq!(ranges(&mut world, 0), [(7, 7)]);
    assert_eq!(world.hubs[0].next_flush(), None);
}

#[test]
fn what_leaves_is_printed_once_for_all_in_each_form() {
    let mut world = World::new(&conflated(Some("k")), 1);
    let formats = [Format::Json, Format::Msgpack, Format::JsonDeflate, Format::Msgpack];
    for format in formats {
        let client = world.open_with(0, format);
        world.subscribe(client, 0, "md");
    }
    world.settle(0);
    publish(&mut world, 0, "a");
    world.settle(0);
    let before = world.hubs[0].encoded();
    publish(&mut world, 0, "aab");
    pass(&mut world, INTERVAL);
    let after = world.hubs[0].encoded();
    // Three for the history, and two that leave.
    assert_eq!(after[Format::Json as usize] - before[Format::Json as usize], 5);
    assert_eq!(after[Format::Msgpack as usize] - before[Format::Msgpack as usize], 2);
    for client in 0..formats.len() {
        world.clients[client].heard.remove(0);
        assert_eq!(ranges(&mut world, client), [(1, 1), (2, 3), (4, 4)]);
    }
}

#[test]
fn who_breaks_off_while_a_flush_is_sent_costs_nobody_a_message() {
    for broken in 0..6 {
        let mut settings = conflated(Some("k"));
        settings.outbox.messages = 2;
        let mut world = subscribed(&settings, 5);
        publish(&mut world, 0, "a");
        world.settle(0);
        let late = world.open(0);
        publish(&mut world, 0, "abcdefgh");
        world.subscribe(late, 1, "md");
        publish(&mut world, 0, "abcdefgh");
        world.clients[broken].is_broken = true;
        pass(&mut world, INTERVAL);
        for client in (0..5).filter(|client| *client != broken) {
            let mut expected = vec![(1, 1), (2, 10)];
            expected.extend((11..=17).map(|seq| (seq, seq)));
            assert_eq!(ranges(&mut world, client), expected, "{client}, broken {broken}");
        }
        if broken != late {
            world.clients[late].heard.remove(0);
            let expected: Vec<_> = (10..=17).map(|seq| (seq, seq)).collect();
            assert_eq!(ranges(&mut world, late), expected, "broken {broken}");
        }
    }
}
