//! Channels whose messages may be only so old when they go to a socket.

use std::time::Duration;

use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::*;
use crate::proto::envelope::Since;

const MAX_AGE: Duration = Duration::from_millis(500);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn fresh() -> Settings {
    let mut settings = settings();
    settings.rules.default.max_age = Some(MAX_AGE);
    settings.rules.default.history = Retention { messages: 100, ..Retention::default() };
    settings.rules.rules.push(ChannelRule { pattern: "old*".into(), rule: Rule::default() });
    settings.rules.rules.push(ChannelRule {
        pattern: "flow*".into(),
        rule: Rule {
            conflate: Conflate { key: Some("k".into()), interval: Some(ms(100)) },
            max_age: Some(MAX_AGE),
            ..Rule::default()
        },
    });
    settings
}

/// A world of one shard with a publisher and a subscriber of these channels, whose socket is full.
fn blocked(channels: &[&str]) -> World {
    let mut world = World::new(&fresh(), 1);
    for client in 0..2 {
        world.open(0);
        for channel in channels {
            world.subscribe(client, 0, channel);
        }
    }
    world.settle(0);
    world.take_heard(1);
    world.clients[1].room = 0;
    world
}

fn message(channel: &str, from: u64, seq: u64) -> Heard {
    Heard::Message { channel: channel.into(), from, seq }
}

fn gap(channel: &str, from: u64, to: u64) -> Heard {
    Heard::Gap { channel: channel.into(), from, to, reason: "stale".into() }
}

fn publish(world: &mut World, channel: &str, count: u64) {
    for _ in 0..count {
        world.publish(0, 9, channel);
    }
    world.settle(0);
}

/// The socket takes everything again, after some time.
fn read_after(world: &mut World, time: Duration) -> Vec<Heard> {
    world.now = world.now + time;
    world.make_room(1, usize::MAX);
    world.settle(0);
    world.take_heard(1)
}

#[test]
fn what_has_become_too_old_is_told_and_what_has_not_is_sent() {
    let mut world = blocked(&["a"]);
    publish(&mut world, "a", 2);
    world.now = world.now + ms(400);
    publish(&mut world, "a", 3);
    let heard = read_after(&mut world, ms(200));
    let expected = [gap("a", 1, 2), message("a", 3, 3), message("a", 4, 4), message("a", 5, 5)];
    assert_eq!(heard, expected);
    assert_eq!(world.hubs[0].flow().dropped_stale, 2);
    assert_eq!(world.hubs[0].audit().backlog, 0);
}

#[test]
fn what_is_just_as_old_as_it_may_be_is_sent() {
    let mut world = blocked(&["a"]);
    publish(&mut world, "a", 1);
    assert_eq!(read_after(&mut world, MAX_AGE), [message("a", 1, 1)]);
    world.clients[1].room = 0;
    publish(&mut world, "a", 1);
    assert_eq!(read_after(&mut world, MAX_AGE + ms(1)), [gap("a", 2, 2)]);
}

#[test]
fn a_message_that_has_begun_is_finished_however_old_it_is() {
    let mut world = blocked(&["a"]);
    world.clients[1].room = 20;
    publish(&mut world, "a", 3);
    assert!(world.clients[1].blocked);
    let heard = read_after(&mut world, ms(10_000));
    assert_eq!(heard, [message("a", 1, 1), gap("a", 2, 3)]);
}

#[test]
fn what_may_be_of_any_age_waits_beside_what_may_not() {
    let mut world = blocked(&["a", "old", "b"]);
    for channel in ["old", "a", "old", "b", "a", "old"] {
        publish(&mut world, channel, 1);
    }
    let heard = read_after(&mut world, ms(600));
    let (old, lost): (Vec<Heard>, Vec<Heard>) =
        heard.into_iter().partition(|heard| matches!(heard, Heard::Message { .. }));
    assert_eq!(old, [1, 2, 3].map(|seq| message("old", seq, seq)));
    assert_eq!(lost, [gap("a", 1, 2), gap("b", 1, 1)]);
}

#[test]
fn what_is_lost_for_want_of_room_and_what_is_too_old_is_one_gap() {
    let mut world = blocked(&["a"]);
    publish(&mut world, "a", 20);
    assert_eq!(world.hubs[0].flow().dropped_oldest, 12);
    let heard = read_after(&mut world, ms(600));
    let expected =
        Heard::Gap { channel: "a".into(), from: 1, to: 20, reason: "slow_consumer".into() };
    assert_eq!(heard, [expected]);
    assert_eq!(world.hubs[0].flow().dropped_stale, 8);
}

#[test]
fn what_was_too_long_between_shards_is_lost_for_all_who_are_there() {
    let mut world = World::new(&Settings { shards: 2, ..fresh() }, 1);
    let channel = world.channel_at_home_on(0);
    for shard in [0, 1, 1] {
        let client = world.open(shard);
        world.subscribe(client, 0, &channel);
    }
    world.run();
    for client in 0..3 {
        world.take_heard(client);
    }
    publish(&mut world, &channel, 2);
    world.now = world.now + ms(501);
    publish(&mut world, &channel, 1);
    world.run();
    for client in [1, 2] {
        assert_eq!(world.take_heard(client), [gap(&channel, 1, 2), message(&channel, 3, 3)]);
    }
    assert_eq!(world.hubs[1].flow().dropped_stale, 4);
    assert_eq!(world.hubs[0].flow().dropped_stale, 0);
}

#[test]
fn who_comes_back_gets_of_what_is_kept_what_is_not_too_old() {
    for shards in [1, 2] {
        let mut world = World::new(&Settings { shards, ..fresh() }, 1);
        let channel = world.channel_at_home_on(0);
        world.open(0);
        publish(&mut world, &channel, 3);
        world.now = world.now + ms(300);
        publish(&mut world, &channel, 2);
        world.now = world.now + ms(300);
        let back = world.open(usize::from(shards) - 1);
        world.resume(back, 1, &channel, Some(Since::Last(10)));
        world.run();
        let heard = world.take_heard(back);
        assert!(matches!(heard[0], Heard::Subscribed { seq: 5, .. }), "{heard:?}");
        let expected = [gap(&channel, 1, 3), message(&channel, 4, 4), message(&channel, 5, 5)];
        assert_eq!(heard[1..], expected, "{shards}");
    }
}

#[test]
fn what_waited_too_long_for_the_end_of_an_interval_is_told() {
    let mut world = blocked(&["flow"]);
    world.make_room(1, usize::MAX);
    let publish = |world: &mut World, keys: &str| {
        for key in keys.chars() {
            world.publish_payload(0, 9, "flow", &format!("{{\"k\":\"{key}\"}}"));
        }
        world.settle(0);
    };
    publish(&mut world, "a");
    publish(&mut world, "abab");
    let late = world.open(0);
    world.subscribe(late, 1, "flow");
    publish(&mut world, "c");
    world.now = world.now + ms(80);
    publish(&mut world, "ba");
    // The shard has stalled.
    world.now = world.now + ms(430);
    world.settle(0);
    let heard = world.take_heard(1);
    let expected =
        [message("flow", 1, 1), gap("flow", 2, 6), message("flow", 7, 7), message("flow", 8, 8)];
    assert_eq!(heard, expected);
    let heard = world.take_heard(late);
    assert!(matches!(heard[0], Heard::Subscribed { seq: 5, .. }), "{heard:?}");
    assert_eq!(heard[1..], [gap("flow", 6, 6), message("flow", 7, 7), message("flow", 8, 8)]);
}

#[test]
fn nobody_may_ask_for_intervals_in_which_messages_become_too_old() {
    let mut world = blocked(&["flow"]);
    let slow = world.open(0);
    let terms = Terms { since: None, conflate: Some(ms(10_000)) };
    world.subscribe_on(slow, 1, "flow", terms);
    for _ in 0..6 {
        publish(&mut world, "flow", 1);
        world.now = world.now + ms(125);
    }
    let heard = world.take_heard(slow);
    // Half of what a message may be old.
    assert_eq!(heard[1..], [message("flow", 1, 1), message("flow", 2, 3), message("flow", 4, 5)]);
}
