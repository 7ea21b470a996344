//! Subscriptions to patterns.

use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::*;
use crate::limits::{
    MATCHED_CHANNELS_PER_CLIENT_MAX, PATTERNS_PER_CLIENT_MAX, REPLIES_BYTES_MAX,
    TOPICS_FOUND_PER_TICK_MAX,
};

fn message(channel: &str, seq: u64) -> Heard {
    Heard::Message { channel: channel.into(), from: seq, seq }
}

fn error(id: u64, code: &str) -> Heard {
    Heard::Error { id: Some(id), code: code.into() }
}

fn answer(id: u64, pattern: &str, channels: u64) -> Heard {
    Heard::SubscribedPattern { id, pattern: pattern.into(), channels }
}

fn ended(id: u64, pattern: &str) -> Heard {
    Heard::AckPattern { id, pattern: pattern.into() }
}

/// Checks that `heard` is that a channel begins after message `last`.
fn assert_begun(heard: &Heard, pattern: &str, channel: &str, last: u64) {
    let Heard::Matched { channel: told, pattern: by, seq, .. } = heard else { panic!("{heard:?}") };
    assert_eq!((told.as_str(), by.as_str(), *seq), (channel, pattern, last));
}

/// A world of `shards` with room for many channels.
fn world(shards: u16) -> World {
    let outbox = Capacity { messages: 8, bytes: 1 << 20 };
    let settings = settings();
    World::new(&Settings { shards, outbox, channels_max: 5_000, ..settings }, 1)
}

/// A client of `shard` with `pattern`, and its answer heard.
fn watching(world: &mut World, shard: usize, pattern: &str) -> usize {
    let client = world.open(shard);
    world.subscribe_pattern(client, 0, pattern);
    world.run();
    assert_eq!(world.take_heard(client), [answer(0, pattern, 0)]);
    client
}

/// Somebody on `shard` publishes to each of `channels`, and everything arrives.
fn publish(world: &mut World, shard: usize, channels: impl IntoIterator<Item = String>) {
    let publisher = world.open(shard);
    for (id, channel) in channels.into_iter().enumerate() {
        world.publish(publisher, id as u64, &channel);
        if id % 500 == 0 {
            world.run();
        }
    }
    world.run();
    world.close(publisher);
    world.run();
}

fn publish_to(world: &mut World, channel: &str) {
    publish(world, 0, [channel.to_owned()]);
}

#[test]
fn a_channel_begins_ahead_of_its_first_message_and_only_where_the_pattern_matches() {
    let mut world = world(1);
    let client = watching(&mut world, 0, "iot.*.temp");
    publish_to(&mut world, "iot.1.temp");
    publish_to(&mut world, "iot.1.humidity");
    publish_to(&mut world, "iot.1.2.temp");
    publish_to(&mut world, "iot.1.temp");
    let heard = world.take_heard(client);
    assert_begun(&heard[0], "iot.*.temp", "iot.1.temp", 0);
    assert_eq!(heard[1..], [message("iot.1.temp", 1), message("iot.1.temp", 2)]);
}

#[test]
fn a_channel_that_was_there_before_begins_with_what_comes_next() {
    let mut world = world(1);
    publish_to(&mut world, "md.us.AAPL");
    publish_to(&mut world, "md.us.AAPL");
    publish_to(&mut world, "other");
    let client = world.open(0);
    world.subscribe_pattern(client, 7, "md.>");
    world.run();
    let heard = world.take_heard(client);
    assert_begun(&heard[0], "md.>", "md.us.AAPL", 2);
    assert_eq!(heard[1..], [answer(7, "md.>", 1)]);
    publish_to(&mut world, "md.us.AAPL");
    assert_eq!(world.take_heard(client), [message("md.us.AAPL", 3)]);
}

#[test]
fn what_two_patterns_and_the_client_itself_ask_for_is_delivered_once() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for is_known in [false, true] {
            let mut world = world(2);
            let client = world.open(0);
            if is_known {
                publish_to(&mut world, "a.b");
            }
            for what in order {
                match what {
                    0 => world.subscribe(client, 1, "a.b"),
                    1 => world.subscribe_pattern(client, 2, "a.*"),
                    _ => world.subscribe_pattern(client, 3, "*.>"),
                }
            }
            world.run();
            world.take_heard(client);
            publish_to(&mut world, "a.b");
            let last = 1 + u64::from(is_known);
            assert_eq!(world.take_heard(client), [message("a.b", last)], "{order:?}");
        }
    }
}

#[test]
fn a_subscription_ends_with_the_last_thing_that_holds_it() {
    let mut world = world(1);
    let client = watching(&mut world, 0, "a.*");
    world.subscribe_pattern(client, 1, ">");
    publish_to(&mut world, "a.b");
    world.subscribe(client, 2, "a.b");
    world.subscribe(client, 3, "a.b");
    world.run();
    let heard = world.take_heard(client);
    assert!(matches!(heard[3], Heard::Subscribed { id: 2, seq: 1, .. }), "{heard:?}");
    assert_eq!(heard[4..], [error(3, "already_subscribed")]);

    world.unsubscribe_pattern(client, 4, "a.*");
    world.unsubscribe(client, 5, "a.b");
    world.unsubscribe(client, 6, "a.b");
    publish_to(&mut world, "a.b");
    let heard = world.take_heard(client);
    assert_eq!(heard[0], ended(4, "a.*"));
    assert_eq!(heard[1], Heard::Ack { id: 5, channel: "a.b".into(), seq: 1 });
    assert_begun(&heard[2], ">", "a.b", 1);
    assert_eq!(heard[3..], [error(6, "not_subscribed"), message("a.b", 2)]);

    world.subscribe(client, 7, "a.b");
    world.unsubscribe_pattern(client, 8, ">");
    publish_to(&mut world, "a.b");
    publish_to(&mut world, "a.c");
    let heard = world.take_heard(client);
    assert!(matches!(heard[0], Heard::Subscribed { id: 7, seq: 2, .. }), "{heard:?}");
    assert_eq!(heard[1..], [ended(8, ">"), message("a.b", 3)]);

    world.unsubscribe(client, 9, "a.b");
    publish_to(&mut world, "a.b");
    assert_eq!(world.take_heard(client).len(), 1, "the ack and nothing else");
    assert_eq!(world.hubs[0].counts().subscriptions, 0);
    assert_eq!(world.hubs[0].patterns_bytes(), 0);
}

#[test]
fn a_channel_that_another_pattern_holds_goes_on_behind_what_was_heard() {
    let mut world = world(1);
    let client = watching(&mut world, 0, "a.*");
    world.subscribe_pattern(client, 1, ">");
    world.run();
    world.take_heard(client);
    publish(&mut world, 0, ["a.b", "c"].map(str::to_owned));
    world.take_heard(client);
    world.clients[client].room = 0;
    publish(&mut world, 0, ["a.b", "c"].map(str::to_owned));
    world.unsubscribe_pattern(client, 2, "a.*");
    world.make_room(client, usize::MAX);
    world.run();
    let heard = world.take_heard(client);
    assert_eq!(heard[0], ended(2, "a.*"));
    assert_begun(&heard[1], ">", "a.b", 1);
    assert_eq!(heard[2..], [message("a.b", 2), message("c", 2)]);
}

#[test]
fn nothing_that_a_pattern_brought_follows_the_answer_that_ends_it() {
    for shards in [1, 2] {
        let mut world = world(shards);
        let client = watching(&mut world, 0, "md.>");
        publish_to(&mut world, "md.a");
        world.clients[client].room = 10;
        publish(&mut world, 0, ["md.a", "md.b", "md.c"].map(str::to_owned));
        world.unsubscribe_pattern(client, 9, "md.>");
        publish(&mut world, 0, ["md.a", "md.b", "md.d"].map(str::to_owned));
        world.make_room(client, usize::MAX);
        world.run();
        let heard = world.take_heard(client);
        let at = heard.iter().position(|heard| *heard == ended(9, "md.>"));
        assert_eq!(at.map(|at| at + 1), Some(heard.len()), "{heard:?}");
    }
}

#[test]
fn what_is_lost_is_told_channel_by_channel() {
    let mut world = world(2);
    let client = watching(&mut world, 0, "md.*");
    publish(&mut world, 1, ["md.a", "md.b"].map(str::to_owned));
    world.clients[client].room = 0;
    publish(&mut world, 1, ["md.a", "md.b"].iter().cycle().take(41).map(ToString::to_string));
    world.make_room(client, usize::MAX);
    world.run();
    for (channel, last) in [("md.a", 22), ("md.b", 21)] {
        let mut seq = 0;
        for heard in &world.clients[client].heard {
            match heard {
                Heard::Message { channel: of, seq: next, .. } if of == channel => {
                    assert_eq!(*next, seq + 1);
                    seq = *next;
                }
                Heard::Gap { channel: of, from, to, .. } if of == channel => {
                    assert_eq!(*from, seq + 1);
                    seq = *to;
                }
                _ => {}
            }
        }
        assert_eq!(seq, last, "{channel}: received + gaps = published");
    }
    let gaps = world.take_heard(client);
    assert!(gaps.iter().filter(|heard| matches!(heard, Heard::Gap { .. })).count() >= 2);
}

#[test]
fn a_pattern_that_matches_more_channels_than_may_be_ends_and_says_so() {
    for shards in [1, 2] {
        let mut world = world(shards);
        let client = watching(&mut world, 0, ">");
        world.subscribe(client, 1, "own");
        let names = |count: usize| (0..count).map(|number| format!("c{number}"));
        publish(&mut world, 0, names(MATCHED_CHANNELS_PER_CLIENT_MAX));
        let full = world.take_heard(client);
        assert_eq!(full.len(), 2 * MATCHED_CHANNELS_PER_CLIENT_MAX + 1);
        publish_to(&mut world, "own");
        publish_to(&mut world, "one.more");
        publish_to(&mut world, "c0");
        publish_to(&mut world, "own");
        let (pattern, code) = (">".into(), "too_many_matches".into());
        let ended = Heard::PatternEnded { pattern, code };
        assert_eq!(world.take_heard(client), [message("own", 1), ended, message("own", 2)]);
        for hub in &world.hubs {
            assert_eq!(hub.patterns_bytes(), 0, "nothing is kept of it");
        }
    }
}

#[test]
fn a_request_that_matches_too_many_channels_is_answered_with_an_error() {
    for shards in [1, 2] {
        let mut world = world(shards);
        publish(&mut world, 0, (0..3_000).map(|number| format!("c{number}")));
        let client = world.open(0);
        world.subscribe_pattern(client, 5, ">");
        world.run();
        let heard = world.take_heard(client);
        assert_eq!(heard.last(), Some(&error(5, "too_many_matches")));
        assert!(heard.len() <= MATCHED_CHANNELS_PER_CLIENT_MAX + 1);
        // Others do not hear of what one cannot have.
        for hub in &world.hubs {
            assert_eq!((hub.patterns_bytes(), hub.counts().subscriptions), (0, 0));
        }
        world.subscribe_pattern(client, 6, "c1.>");
        world.run();
        assert_eq!(world.take_heard(client), [answer(6, "c1.>", 0)]);
    }
}

#[test]
fn patterns_of_one_client_are_bounded_and_each_is_there_once() {
    let mut world = world(1);
    let client = world.open(0);
    world.unsubscribe_pattern(client, 100, "a.*");
    for number in 0..PATTERNS_PER_CLIENT_MAX as u64 {
        world.subscribe_pattern(client, number, &format!("p{number}.*"));
    }
    world.subscribe_pattern(client, 101, "p0.*");
    world.subscribe_pattern(client, 102, "one.more.>");
    world.unsubscribe_pattern(client, 103, "p0.*");
    world.unsubscribe_pattern(client, 104, "p0.*");
    world.subscribe_pattern(client, 105, "one.more.>");
    world.run();
    let heard = world.take_heard(client);
    let of = |id: u64| {
        let is_it = |heard: &&Heard| match heard {
            Heard::Error { id: of, .. } => *of == Some(id),
            Heard::SubscribedPattern { id: of, .. } | Heard::AckPattern { id: of, .. } => *of == id,
            _ => false,
        };
        let mut found = heard.iter().filter(is_it);
        (found.next().cloned().expect("an answer"), found.next().is_none())
    };
    assert_eq!(of(100), (error(100, "not_subscribed"), true));
    assert_eq!(of(0), (answer(0, "p0.*", 0), true));
    assert_eq!(of(101), (error(101, "already_subscribed"), true));
    assert_eq!(of(102), (error(102, "too_many_patterns"), true));
    assert_eq!(of(103), (ended(103, "p0.*"), true));
    assert_eq!(of(104), (error(104, "not_subscribed"), true));
    assert_eq!(of(105), (answer(105, "one.more.>", 0), true));
}

#[test]
fn patterns_take_no_more_than_their_part_of_the_memory() {
    let settings = Settings { memory_bytes_max: 60_000, ..settings() };
    let mut world = World::new(&settings, 1);
    let (mut taken, mut refused) = (0, 0);
    for number in 0..40 {
        let client = world.open(0);
        world.subscribe_pattern(client, 1, &format!("client.{number}.*"));
        world.run();
        match &world.take_heard(client)[..] {
            [Heard::SubscribedPattern { .. }] => taken += 1,
            [Heard::Error { code, .. }] => {
                assert_eq!(code, "overloaded");
                refused += 1;
            }
            heard => panic!("{heard:?}"),
        }
        assert!(world.hubs[0].patterns_bytes() < 60_000 / 8 + 2_000);
    }
    assert!(taken > 5 && refused > 5, "{taken} and {refused}");
}

#[test]
fn channels_by_patterns_and_channels_asked_for_are_counted_apart() {
    let mut world = world(1);
    let client = watching(&mut world, 0, "m.*");
    publish(&mut world, 0, (0..20).map(|number| format!("m.{number}")));
    for number in 0..5 {
        world.subscribe(client, 100 + number, &format!("d{number}"));
    }
    world.run();
    let heard = world.take_heard(client);
    let subscribed = heard.iter().filter(|heard| matches!(heard, Heard::Subscribed { .. }));
    assert_eq!(subscribed.count(), 4, "channels_per_client_max of these worlds");
    assert_eq!(heard.last(), Some(&error(104, "too_many_channels")));
    world.subscribe(client, 105, "m.1");
    world.run();
    assert_eq!(world.take_heard(client), [error(105, "too_many_channels")]);
}

#[test]
fn the_answer_comes_when_every_shard_has_looked_and_nothing_after_it_is_missed() {
    let mut world = world(3);
    let names: Vec<String> = (0..30).map(|number| format!("m.{number}")).collect();
    publish(&mut world, 1, names.clone());
    let client = world.open(0);
    world.subscribe_pattern(client, 1, "m.*");
    world.settle(0);
    let is_answered = |world: &World| {
        let mut heard = world.clients[client].heard.iter();
        heard.any(|heard| matches!(heard, Heard::SubscribedPattern { .. }))
    };
    assert!(!is_answered(&world), "others have not looked");
    world.run();
    assert_eq!(world.clients[client].heard.last(), Some(&answer(1, "m.*", 30)));
    let begun = world.take_heard(client);
    assert_eq!(begun.len(), 31);
    publish(&mut world, 2, names);
    assert_eq!(world.take_heard(client).len(), 30);
}

#[test]
fn what_follows_at_once_on_a_beginning_is_heard_before_the_home_knows_the_name_for_it() {
    let mut world = world(2);
    let channel = world.channel_at_home_on(1);
    let client = watching(&mut world, 0, "*");
    let publisher = world.open(1);
    for id in 0..5 {
        world.publish(publisher, id, &channel);
        world.settle(1);
    }
    let unnamed = world.hubs[1].audit().unnamed;
    assert_eq!(unnamed, 1);
    world.run();
    assert_eq!(world.hubs[1].audit().unnamed, 0);
    world.publish(publisher, 5, &channel);
    world.run();
    let heard = world.take_heard(client);
    assert_begun(&heard[0], "*", &channel, 0);
    assert_eq!(heard[1..], (1..=6).map(|seq| message(&channel, seq)).collect::<Vec<_>>());
}

#[test]
fn a_shard_that_lets_go_of_a_channel_while_it_begins_to_watch_is_attached_again() {
    let mut world = world(2);
    let channel = world.channel_at_home_on(1);
    let other = world.open(0);
    world.subscribe(other, 1, &channel);
    world.run();
    // The home hears of the pattern while it believes the shard attached; then it lets go.
    let client = world.open(0);
    world.subscribe_pattern(client, 2, "*");
    world.unsubscribe(other, 3, &channel);
    world.run();
    publish(&mut world, 1, [channel.clone()]);
    let heard = world.take_heard(client);
    assert!(heard.contains(&message(&channel, 1)), "{heard:?}");
}

#[test]
fn who_is_let_go_hears_of_no_channel_to_come() {
    let mut world = world(2);
    let client = watching(&mut world, 0, "m.*");
    publish_to(&mut world, "m.1");
    assert_eq!(world.take_heard(client).len(), 2);
    world.clients[client].room = 0;
    publish_to(&mut world, "m.1");
    let key = world.clients[client].key;
    world.hubs[0].retire(key);
    world.post(0);
    publish(&mut world, 0, ["m.1", "m.2"].map(str::to_owned));
    let client_of_later = watching_later(&mut world);
    world.make_room(client, usize::MAX);
    world.run();
    assert_eq!(world.take_heard(client), [message("m.1", 2)]);
    publish_to(&mut world, "m.2");
    assert_eq!(world.take_heard(client_of_later), [message("m.2", 2)]);
}

/// Somebody with the same pattern, who comes after the other one was let go.
fn watching_later(world: &mut World) -> usize {
    let client = world.open(0);
    world.subscribe_pattern(client, 0, "m.*");
    world.run();
    assert_eq!(world.take_heard(client).last(), Some(&answer(0, "m.*", 2)));
    client
}

#[test]
fn looking_for_channels_takes_a_part_of_a_tick_and_goes_on_in_the_next() {
    let mut world = world(1);
    let count = 2 * TOPICS_FOUND_PER_TICK_MAX + 10;
    publish(&mut world, 0, (0..count).map(|number| format!("c{number}")));
    let client = world.open(0);
    world.subscribe_pattern(client, 1, "*");
    for tick in 1..=3 {
        assert!(world.hubs[0].has_searches(), "tick {tick}");
        world.settle(0);
        let heard = world.take_heard(client);
        let begun = heard.iter().filter(|heard| matches!(heard, Heard::Matched { .. })).count();
        let expected = if tick < 3 { TOPICS_FOUND_PER_TICK_MAX } else { 10 };
        assert_eq!(begun, expected, "tick {tick}");
        assert_eq!(heard.contains(&answer(1, "*", count as u64)), tick == 3);
    }
    assert!(!world.hubs[0].has_searches());
}

#[test]
fn a_pattern_asked_for_again_and_again_leaves_no_searches_behind() {
    let mut world = world(2);
    let client = world.open(0);
    for id in 0..100 {
        world.subscribe_pattern(client, 2 * id, "a.*");
        world.unsubscribe_pattern(client, 2 * id + 1, "a.*");
        assert!(!world.hubs[0].has_searches());
    }
    world.run();
    let heard = world.take_heard(client);
    assert_eq!(heard.len(), 200, "every request is answered");
    assert!(heard.chunks(2).enumerate().all(|(round, heard)| {
        let id = 2 * round as u64;
        heard == [answer(id, "a.*", 0), ended(id + 1, "a.*")]
    }));
}

#[test]
fn who_asks_and_lets_go_faster_than_it_reads_is_not_told_more_and_more() {
    let mut world = world(2);
    publish(&mut world, 0, (0..400).map(|number| format!("{}.{number}", number % 2)));
    let client = world.open(0);
    world.clients[client].room = 0;
    // As long as it lets go of nothing it may ask for all it can have.
    for (id, pattern) in ["0.*", "1.*", "*.*"].into_iter().enumerate() {
        world.subscribe_pattern(client, id as u64, pattern);
        world.run();
    }
    let waiting = world.hubs[0].replies_bytes();
    assert!(waiting > REPLIES_BYTES_MAX, "{waiting} bytes prove little");
    for id in 0..500 {
        world.unsubscribe_pattern(client, 10 + 2 * id, "1.*");
        world.subscribe_pattern(client, 11 + 2 * id, "1.*");
        world.run();
    }
    let most = 2 * waiting + 1_000 * 150;
    assert!(world.hubs[0].replies_bytes() < most, "one round and a thousand errors");
    world.make_room(client, usize::MAX);
    world.run();
    let heard = world.take_heard(client);
    assert!(heard.contains(&ended(10, "1.*")) && heard.contains(&error(11, "too_many_requests")));
    world.subscribe_pattern(client, 2_000, "1.*");
    world.run();
    assert_eq!(world.take_heard(client), [answer(2_000, "1.*", 200)], "it has read");
}

#[test]
fn a_client_that_comes_back_to_a_channel_before_its_pattern_gets_what_it_missed_once() {
    for shards in [1, 2] {
        let history = Retention { messages: 100, ..Retention::default() };
        let mut settings = settings();
        settings.rules.default.history = history;
        let mut world = World::new(&Settings { shards, ..settings }, 1);
        let first = watching(&mut world, 0, "m.*");
        publish_to(&mut world, "m.1");
        let heard = world.take_heard(first);
        let Heard::Matched { epoch, .. } = &heard[0] else { panic!("{heard:?}") };
        world.close(first);
        publish(&mut world, 0, ["m.1", "m.2", "m.1"].map(str::to_owned));

        let again = world.open(0);
        let since = crate::proto::envelope::Since::After { epoch, seq: 1 };
        world.resume(again, 1, "m.1", Some(since));
        world.subscribe_pattern(again, 2, "m.*");
        world.run();
        world.unsubscribe(again, 3, "m.1");
        world.run();
        publish(&mut world, 0, ["m.1", "m.2"].map(str::to_owned));
        let heard = world.take_heard(again);
        let of = |name: &str| -> Vec<u64> {
            let seqs = heard.iter().filter_map(|heard| match heard {
                Heard::Message { channel, seq, .. } if channel == name => Some(*seq),
                _ => None,
            });
            seqs.collect()
        };
        assert_eq!((of("m.1"), of("m.2")), (vec![2, 3, 4], vec![2]), "{heard:?}");
        let begun = heard.iter().filter_map(|heard| match heard {
            Heard::Matched { channel, seq, .. } => Some((channel.as_str(), *seq)),
            _ => None,
        });
        let begun: Vec<_> = begun.collect();
        assert_eq!(begun, [("m.2", 1), ("m.1", 3)], "it goes on by the pattern: {heard:?}");
        world.unsubscribe_pattern(again, 4, "m.*");
        world.run();
        assert_eq!(world.hubs[0].counts().subscriptions, 0);
    }
}

/// What was seen (world 1122): a client that had asked for a pattern, let go of a channel and was refused
/// when it asked for that again, all in one receive, was told first that the channel begins by the
/// pattern, and then that it had let go of it: for all it knew, it was there no more.
#[test]
fn what_a_pattern_brings_does_not_overtake_the_answers_before_it() {
    let settings = Settings { channels_per_client_max: 1, ..settings() };
    let mut world = World::new(&settings, 1);
    let client = world.open(0);
    world.subscribe(client, 1, "a");
    world.run();
    world.take_heard(client);
    let (key, now) = (world.clients[client].key, world.now);
    let (hub, mut replies) = (&mut world.hubs[0], Vec::new());
    hub.subscribe_pattern(key, Some(b"2"), "*", &mut replies, now).expect("there is room");
    hub.unsubscribe(key, Some(b"3"), "a", &mut replies, now).expect("it is subscribed");
    hub.subscribe(key, Some(b"4"), "b", None, &mut replies, now).expect("there is room");
    let refused = hub.subscribe(key, Some(b"5"), "a", None, &mut replies, now);
    assert_eq!(refused, Err(Refusal::TooManyChannels));
    hub.reply(key, &mut replies);
    world.run();
    let heard = world.take_heard(client);
    let let_go = heard.iter().position(|it| matches!(it, Heard::Ack { id: 3, .. }));
    let begins =
        heard.iter().position(|it| matches!(it, Heard::Matched { channel, .. } if channel == "a"));
    assert!(let_go.is_some() && let_go < begins, "{heard:?}");
}
