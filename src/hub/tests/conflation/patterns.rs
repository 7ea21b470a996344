//! Conflated channels that patterns bring.

use super::*;

/// Checks that the first thing heard is that `md` begins by a pattern after `last`, at this interval.
fn assert_matched(heard: &[Heard], last: u64, interval: &str) {
    let told = match heard {
        [Heard::Matched { channel, seq, conflate, .. }, ..] => {
            (channel.as_str(), *seq, conflate.as_deref())
        }
        heard => panic!("{heard:?}"),
    };
    assert_eq!(told, ("md", last, Some(interval)));
}

#[test]
fn who_watches_for_a_pattern_gets_the_newest_of_each_key_like_others() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    publish(&mut world, 0, "a");
    world.settle(0);
    publish(&mut world, 0, "ab");
    let watching = world.open(0);
    world.subscribe_pattern(watching, 1, "*");
    world.settle(0);
    let heard = world.take_heard(watching);
    assert_matched(&heard, 3, "100ms");
    assert_eq!(heard[1], Heard::SubscribedPattern { id: 1, pattern: "*".into(), channels: 1 });
    publish(&mut world, 0, "aab");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, 0), [(1, 1), (2, 5), (6, 6)]);
    assert_eq!(ranges(&mut world, watching), [(4, 5), (6, 6)], "it was told to begin behind 3");
    publish(&mut world, 0, "aa");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, watching), [(7, 8)]);
}

#[test]
fn who_watches_for_a_pattern_keeps_it_whatever_intervals_others_have() {
    let mut world = World::new(&conflated(None), 1);
    let others = (0..CONFLATION_INTERVALS_MAX as u32).map(|place| {
        let client = world.open(0);
        let terms = Terms { since: None, conflate: Some(INTERVAL * (place + 2)) };
        world.subscribe_on(client, 1, "md", terms);
        client
    });
    let others: Vec<usize> = others.collect();
    let watching = world.open(0);
    world.subscribe_pattern(watching, 1, "*");
    world.settle(0);
    let heard = world.take_heard(watching);
    assert_matched(&heard, 0, "100ms");
    assert!(matches!(heard[1..], [Heard::SubscribedPattern { .. }]), "{heard:?}");
    let last = *others.last().expect("there are some");
    assert!(matches!(world.take_heard(last)[..], [Heard::Error { .. }]), "a place is kept");
}

#[test]
fn a_channel_that_begins_is_conflated_from_its_first_message_on_for_who_watches() {
    let mut world = World::new(&Settings { shards: 2, ..conflated(Some("k")) }, 1);
    let watchers = [world.open(0), world.open(1)];
    for client in watchers {
        world.subscribe_pattern(client, 1, "*");
    }
    world.run();
    for client in watchers {
        assert_eq!(world.take_heard(client).len(), 1, "nothing matches yet");
    }
    let publisher = world.open(0);
    publish(&mut world, publisher, "a");
    world.run();
    publish(&mut world, publisher, "aabaaa");
    world.run();
    world.now = world.now + INTERVAL;
    world.run();
    for client in watchers {
        let begun = world.clients[client].heard.remove(0);
        assert_matched(&[begun], 0, "100ms");
        assert_eq!(ranges(&mut world, client), [(1, 1), (2, 4), (5, 7)]);
    }
}

#[test]
fn what_a_pattern_brought_is_asked_for_as_it_is_or_not_at_all() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    let client = world.open(0);
    world.subscribe_pattern(client, 1, "*");
    world.settle(0);
    world.take_heard(client);
    publish(&mut world, 0, "a");
    world.settle(0);
    publish(&mut world, 0, "ab");
    world.settle(0);
    assert_eq!(ranges(&mut world, client), [(1, 1)]);
    let terms = |millis| Terms { since: None, conflate: Some(ms(millis)) };
    world.subscribe_on(client, 2, "md", terms(250));
    world.subscribe_on(client, 3, "md", terms(1));
    world.settle(0);
    let heard = world.take_heard(client);
    let code = "already_subscribed".into();
    assert_eq!(heard[0], Heard::Error { id: Some(2), code }, "it has another interval");
    // The shortest there is, which it has; what waits is still to come.
    assert!(matches!(heard[1], Heard::Subscribed { id: 3, seq: 1, .. }), "{heard:?}");
    pass(&mut world, INTERVAL);
    assert_eq!(ranges(&mut world, client), [(2, 2), (3, 3)]);
}

#[test]
fn an_interval_lasts_as_long_as_anything_holds_the_channel() {
    let mut world = subscribed(&conflated(Some("k")), 1);
    let client = world.open(0);
    let terms = Terms { since: None, conflate: Some(ms(250)) };
    world.subscribe_on(client, 1, "md", terms);
    world.subscribe_pattern(client, 2, "*");
    world.settle(0);
    assert_eq!(world.take_heard(client).len(), 2, "it was told already where the channel begins");
    publish(&mut world, 0, "a");
    world.settle(0);
    publish(&mut world, 0, "aab");
    world.settle(0);
    assert_eq!(ranges(&mut world, client), [(1, 1)]);
    world.unsubscribe(client, 3, "md");
    world.settle(0);
    let heard = world.take_heard(client);
    assert_eq!(heard[0], Heard::Ack { id: 3, channel: "md".into(), seq: 1 });
    assert_matched(&heard[1..], 1, "250ms");
    pass(&mut world, ms(249));
    assert_eq!(ranges(&mut world, client), []);
    world.subscribe_on(client, 4, "md", terms);
    world.unsubscribe_pattern(client, 5, "*");
    world.settle(0);
    let heard = world.take_heard(client);
    assert!(matches!(heard[0], Heard::Subscribed { id: 4, seq: 1, .. }), "{heard:?}");
    pass(&mut world, ms(1));
    assert_eq!(ranges(&mut world, client), [(2, 3), (4, 4)]);
}

#[test]
fn where_a_pattern_goes_on_is_told_by_what_waiting_messages_cover() {
    // Nothing of what waits has begun to leave, or some of the first message.
    for room in [0, 10] {
        let mut world = subscribed(&conflated(Some("k")), 1);
        let client = world.open(0);
        world.subscribe(client, 1, "md");
        world.subscribe_pattern(client, 2, "*");
        publish(&mut world, 0, "a");
        world.settle(0);
        world.take_heard(client);
        world.clients[client].room = room;
        for keys in ["aaa", "aaab"] {
            publish(&mut world, 0, keys);
            pass(&mut world, INTERVAL);
        }
        assert!(world.clients[client].blocked);
        world.unsubscribe(client, 3, "md");
        world.make_room(client, usize::MAX);
        world.settle(0);
        let heard = world.take_heard(client);
        let mut last = 1;
        for heard in &heard {
            match heard {
                Heard::Ack { id: 3, seq, .. } | Heard::Matched { seq, .. } => {
                    assert_eq!(*seq, last, "room for {room} bytes");
                }
                Heard::Message { from, seq, .. } => {
                    assert_eq!(*from, last + 1, "room for {room} bytes");
                    last = *seq;
                }
                heard => panic!("{heard:?}"),
            }
        }
        assert_eq!((heard.len(), last), (5, 8), "{heard:?}");
    }
}
