//! One shard.

use std::time::Duration;

use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::*;
use crate::limits::{CHANNEL_IDLE, PUBLISHES_UNANSWERED_MAX, REPLIES_BYTES_MAX};

fn message(channel: &str, seq: u64) -> Heard {
    Heard::Message { channel: channel.into(), from: seq, seq }
}

pub(super) fn messages(channel: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<Heard> {
    seqs.map(|seq| message(channel, seq)).collect()
}

pub(super) fn gap(channel: &str, from: u64, to: u64, reason: &str) -> Heard {
    Heard::Gap { channel: channel.into(), from, to, reason: reason.into() }
}

fn ack(id: u64, channel: &str, seq: u64) -> Heard {
    Heard::Ack { id, channel: channel.into(), seq }
}

fn error(id: u64, code: &str) -> Heard {
    Heard::Error { id: Some(id), code: code.into() }
}

/// A world of one shard with `count` clients, all subscribed to `channel` and with that heard.
pub(super) fn subscribed(settings: &Settings, count: usize, channel: &str) -> World {
    let mut world = World::new(settings, 1);
    for client in 0..count {
        world.open(0);
        world.subscribe(client, 0, channel);
    }
    world.settle(0);
    for client in 0..count {
        let heard = world.take_heard(client);
        assert!(matches!(&heard[..], [Heard::Subscribed { seq: 0, .. }]), "{heard:?}");
    }
    world
}

fn epoch(heard: &[Heard]) -> (String, u64) {
    let [Heard::Subscribed { epoch, seq, .. }] = heard else { panic!("{heard:?}") };
    (epoch.clone(), *seq)
}

#[test]
fn a_publisher_that_is_subscribed_hears_its_own_message_and_its_ack() {
    let mut world = subscribed(&settings(), 2, "a");
    world.publish(0, 1, "a");
    world.settle(0);
    let heard = world.take_heard(0);
    assert!(heard.contains(&message("a", 1)) && heard.contains(&ack(1, "a", 1)), "{heard:?}");
    assert_eq!(world.take_heard(1), [message("a", 1)]);
    assert_eq!(world.hubs[0].segments_bytes(), 0);
}

#[test]
fn a_newcomer_is_owed_only_what_comes_after_it_in_the_same_tick() {
    let mut world = subscribed(&settings(), 1, "a");
    let late = world.open(0);
    world.publish(0, 1, "a");
    world.subscribe(late, 2, "a");
    world.publish(0, 3, "a");
    world.settle(0);
    let heard = world.take_heard(late);
    assert!(matches!(heard[0], Heard::Subscribed { seq: 1, .. }), "{heard:?}");
    assert_eq!(heard[1..], [message("a", 2)]);
    world.publish(late, 4, "a");
    world.settle(0);
    assert!(world.take_heard(late).contains(&message("a", 3)), "it is a subscriber like others");
}

#[test]
fn an_unsubscribe_forgets_what_is_queued_and_tells_the_last_one_sent() {
    let mut world = subscribed(&settings(), 2, "a");
    // One message and half of the next fit the socket.
    world.publish(1, 1, "a");
    world.settle(0);
    let bytes = 56;
    world.clients[0].room = bytes * 3 / 2;
    for id in 2..=5 {
        world.publish(1, id, "a");
    }
    world.settle(0);
    assert!(world.clients[0].blocked);
    world.unsubscribe(0, 9, "a");
    world.publish(1, 6, "a");
    world.make_room(0, usize::MAX);
    world.settle(0);
    let heard = world.take_heard(0);
    let Some((Heard::Ack { id: 9, seq: last, .. }, before)) = heard.split_last() else {
        panic!("{heard:?}")
    };
    assert_eq!(before, messages("a", 1..=*last));
    assert!((2..5).contains(last));
    assert_eq!(world.hubs[0].segments_bytes(), 0);
}

#[test]
fn subscribe_publish_and_unsubscribe_in_one_tick_leave_nothing_behind() {
    let mut world = World::new(&settings(), 1);
    let client = world.open(0);
    world.subscribe(client, 1, "a");
    world.publish(client, 2, "a");
    world.unsubscribe(client, 3, "a");
    world.unsubscribe(client, 4, "a");
    world.publish(client, 5, "a");
    world.subscribe(client, 6, "a");
    world.settle(0);
    let heard = world.take_heard(client);
    assert!(matches!(heard[0], Heard::Subscribed { id: 1, seq: 0, .. }));
    assert_eq!(heard[1..3], [ack(3, "a", 0), error(4, "not_subscribed")]);
    assert!(matches!(heard[3], Heard::Subscribed { id: 6, seq: 2, .. }));
    assert_eq!(heard[4..], [ack(2, "a", 1), ack(5, "a", 2)]);
    assert_eq!(world.hubs[0].segments_bytes(), 0);
}

#[test]
fn a_healthy_client_gets_everything_of_a_tick_that_is_larger_than_its_outbox() {
    for channel in ["old", "new", "close"] {
        let mut world = subscribed(&settings(), 3, channel);
        let publisher = world.open(0);
        for id in 1..=100 {
            world.publish(publisher, id, channel);
        }
        world.settle(0);
        for client in 0..3 {
            assert_eq!(world.take_heard(client), messages(channel, 1..=100));
        }
        assert_eq!(world.take_heard(publisher).len(), 100);
    }
}

#[test]
fn many_channels_in_one_tick_keep_their_own_order() {
    let settings = Settings { channels_per_client_max: 30, ..settings() };
    let mut world = World::new(&settings, 1);
    let client = world.open(0);
    for channel in 0..30 {
        world.subscribe(client, 0, &format!("c{channel}"));
    }
    for id in 0..300 {
        world.publish(client, id, &format!("c{}", id * 7 % 30));
    }
    world.settle(0);
    let heard = world.take_heard(client);
    for channel in 0..30 {
        let name = format!("c{channel}");
        let of =
            |heard: &&Heard| matches!(heard, Heard::Message { channel, .. } if *channel == name);
        let heard: Vec<Heard> = heard.iter().filter(of).cloned().collect();
        assert_eq!(heard, messages(&name, 1..=10));
    }
}

/// What was seen: of 40 subscribers one was missing a run of messages that all others had, without
/// a gap notice. Why: the tick brought more than the outboxes hold, so settling stopped half-way
/// to let them be sent; one send failed, its client left the list of subscribers, and the last of
/// the list, which had not had its turn, took the place among those that had. Since then leaving
/// moves only clients on the same side of the cursor.
#[test]
fn a_client_that_breaks_off_half_way_through_a_tick_costs_nobody_a_message() {
    for (broken, full, newcomers) in (0..128).map(|n| (n % 8, n / 8 % 8, n as u64 / 64)) {
        let mut world = subscribed(&settings(), 4, "a");
        let publisher = world.open(0);
        for _ in 5..=8 {
            world.open(0);
        }
        let subscribers = [0, 1, 2, 3, 5, 6, 7, 8];
        // This one's outbox is half full already when its turn comes: settling stops there.
        world.subscribe(subscribers[full], 0, "b");
        for id in 0..5 {
            world.publish(publisher, id, "b");
        }
        // With something unsettled, who comes now is a newcomer of this tick.
        for id in 0..newcomers {
            world.publish(publisher, id, "a");
        }
        for client in 5..=8 {
            world.subscribe(client, 0, "a");
        }
        world.clients[subscribers[broken]].is_broken = true;
        for id in 0..100 {
            world.publish(publisher, id, "a");
        }
        world.settle(0);
        for client in subscribers {
            if client == subscribers[broken] {
                assert!(!world.clients[client].is_open);
                continue;
            }
            let first = if client < 4 { 1 } else { 1 + newcomers };
            let heard = world.take_heard(client).into_iter();
            let of_a = |h: &Heard| matches!(h, Heard::Message { channel, .. } if channel == "a");
            let heard: Vec<Heard> = heard.filter(of_a).collect();
            let expected = messages("a", first..=100 + newcomers);
            assert_eq!(heard, expected, "{client}, broken {broken}, full {full}, {newcomers}");
        }
    }
}

#[test]
fn a_client_that_does_not_keep_up_is_closed_where_the_rule_says_so() {
    let mut world = subscribed(&settings(), 2, "close");
    world.clients[0].room = 0;
    for id in 0..9 {
        world.publish(1, id, "close");
        world.settle(0);
    }
    assert!(!world.clients[0].is_open, "nine messages, and the outbox holds eight");
    assert!(world.clients[1].is_open);
    assert_eq!(world.hubs[0].segments_bytes(), 0);
    assert_eq!(world.hubs[0].counts().subscriptions, 1);
}

#[test]
fn a_client_may_be_subscribed_to_so_many_channels_and_no_more() {
    let mut world = World::new(&settings(), 1);
    let client = world.open(0);
    for id in 0..6 {
        world.subscribe(client, id, &format!("c{id}"));
    }
    world.subscribe(client, 6, "c0");
    world.unsubscribe(client, 7, "c1");
    world.subscribe(client, 8, "c5");
    world.settle(0);
    let heard = world.take_heard(client);
    assert_eq!(heard[4..6], [4, 5].map(|id| error(id, "too_many_channels")));
    assert_eq!(heard[6..8], [error(6, "already_subscribed"), ack(7, "c1", 0)]);
    assert!(matches!(heard[8], Heard::Subscribed { id: 8, .. }));
}

#[test]
fn the_hub_numbers_so_many_channels_and_no_more() {
    let settings = Settings { channels_max: 2, ..settings() };
    let mut world = World::new(&settings, 1);
    let client = world.open(0);
    world.subscribe(client, 1, "a");
    world.publish(client, 2, "b");
    world.publish(client, 3, "c");
    world.subscribe(client, 4, "d");
    world.settle(0);
    let heard = world.take_heard(client);
    assert!(heard.contains(&error(3, "channels_exhausted")), "{heard:?}");
    assert!(heard.contains(&error(4, "channels_exhausted")), "{heard:?}");
    assert!(heard.contains(&ack(2, "b", 1)), "{heard:?}");
}

#[test]
fn a_channel_nobody_wants_for_a_while_begins_anew() {
    let mut world = subscribed(&settings(), 1, "a");
    world.publish(0, 1, "a");
    world.settle(0);
    world.unsubscribe(0, 2, "a");
    world.settle(0);
    world.take_heard(0);
    assert_eq!(world.hubs[0].next_channel_expiry(), Some(world.now + CHANNEL_IDLE));
    world.now = world.now + CHANNEL_IDLE - Duration::from_millis(1);
    world.hubs[0].expire_channels(world.now);
    world.subscribe(0, 3, "a");
    world.settle(0);
    let (first, seq) = epoch(&world.take_heard(0));
    assert_eq!(seq, 1, "its numbering is kept until then");
    world.unsubscribe(0, 4, "a");
    world.settle(0);
    world.take_heard(0);
    world.now = world.now + CHANNEL_IDLE;
    world.hubs[0].expire_channels(world.now);
    assert_eq!((world.hubs[0].channels(), world.hubs[0].counts().channels_home), (0, 0));
    world.subscribe(0, 5, "a");
    world.settle(0);
    let (second, seq) = epoch(&world.take_heard(0));
    assert_eq!(seq, 0);
    assert_ne!(first, second);
}

/// What was seen: a client that had lost its connection for a second came back to a new epoch,
/// though the channel had had subscribers all the time but that second. Why: the time since when
/// nobody wanted a channel was the time when it was first listed, perhaps a minute ago.
#[test]
fn the_time_that_nobody_wants_a_channel_begins_when_the_last_one_leaves() {
    let mut world = subscribed(&settings(), 1, "a");
    world.publish(0, 1, "a");
    for id in [2, 4] {
        world.unsubscribe(0, id, "a");
        world.settle(0);
        world.now = world.now + Duration::from_secs(59);
        world.hubs[0].expire_channels(world.now);
        world.subscribe(0, id + 1, "a");
    }
    world.settle(0);
    world.unsubscribe(0, 6, "a");
    world.settle(0);
    world.now = world.now + Duration::from_secs(2);
    world.hubs[0].expire_channels(world.now);
    world.take_heard(0);
    world.subscribe(0, 7, "a");
    world.settle(0);
    assert_eq!(epoch(&world.take_heard(0)).1, 1);
    world.close(0);
    world.now = world.now + CHANNEL_IDLE;
    world.hubs[0].expire_channels(world.now);
    assert_eq!(world.hubs[0].channels(), 0);
    assert_eq!(world.hubs[0].next_channel_expiry(), None);
}

/// What was seen: after somebody had published to channels_max channels that nobody subscribed
/// to, no channel could be opened any more, for ever. Why: a channel was listed as idle only when
/// somebody left it. Now a publish that nobody wants lists it, too.
#[test]
fn channels_that_are_only_published_to_do_not_live_for_ever() {
    let mut world = World::new(&settings(), 1);
    let client = world.open(0);
    for id in 0..=100 {
        world.publish(client, id, &format!("c{id}"));
    }
    world.settle(0);
    assert!(world.take_heard(client).contains(&error(100, "channels_exhausted")));
    world.now = world.now + CHANNEL_IDLE;
    world.hubs[0].expire_channels(world.now);
    assert_eq!(world.hubs[0].channels(), 0);
}

/// What was seen: a panic ("acked in the tick of its publish"). Why: the channel published to had
/// been idle for so long that it was forgotten between the publish and its ack, which are in one
/// tick. Since then a channel with a publish of this tick is not idle.
#[test]
fn a_publish_in_the_tick_in_which_its_idle_channel_would_be_forgotten_is_acknowledged() {
    let mut world = subscribed(&settings(), 1, "a");
    world.unsubscribe(0, 1, "a");
    world.settle(0);
    world.take_heard(0);
    world.now = world.now + CHANNEL_IDLE;
    world.publish(0, 2, "a");
    world.hubs[0].expire_channels(world.now);
    world.settle(0);
    assert_eq!(world.take_heard(0), [ack(2, "a", 1)]);
}

#[test]
fn at_the_memory_ceiling_publishes_are_refused_and_the_worst_queue_becomes_a_gap() {
    let settings = Settings {
        memory_bytes_max: 10_000,
        outbox: Capacity { messages: 100, bytes: 100_000 },
        ..settings()
    };
    let mut world = subscribed(&settings, 3, "new");
    world.clients[0].room = 0;
    for id in 0..8 {
        world.publish_bytes(2, id, "new", 1_500);
        world.publish_bytes(2, id, "new", 1_500);
    }
    assert_eq!(world.hubs[0].segments_bytes(), 0, "nothing is frozen yet");
    world.settle(0);
    assert_eq!(world.hubs[0].segments_bytes(), 0, "what waited was given up");
    assert_eq!(world.take_heard(1), messages("new", 1..=16));
    assert_eq!(world.hubs[0].flow().dropped_memory, 16);
    world.make_room(0, usize::MAX);
    world.publish(2, 9, "new");
    world.settle(0);
    assert_eq!(world.take_heard(0), [gap("new", 1, 16, "memory"), message("new", 17)]);
}

/// What could happen: with a thousand slow subscribers of one channel every tick at the ceiling
/// looked at all clients and freed nothing. Why: each queue counted as given up though the
/// others held the same messages.
#[test]
fn shared_messages_count_as_given_up_only_when_the_last_queue_lets_go() {
    let settings = Settings {
        memory_bytes_max: 5_000,
        outbox: Capacity { messages: 100, bytes: 100_000 },
        ..settings()
    };
    let mut world = subscribed(&settings, 4, "a");
    for client in 0..3 {
        world.clients[client].room = 0;
    }
    for id in 0..4 {
        world.publish_bytes(3, id, "a", 1_500);
    }
    world.settle(0);
    assert!(world.hubs[0].is_relieved());
    assert_eq!(world.hubs[0].flow().dropped_memory, 12);
    assert!(world.clients.iter().all(|client| client.is_open), "queues give way, not clients");
}

/// What could happen: clients that left replies, or the rest of a large message, unread kept a hub
/// at its ceiling for as long as they liked. Why: only queued messages gave way.
#[test]
fn at_the_memory_ceiling_who_leaves_replies_or_half_a_message_unread_is_to_be_cut_off() {
    let outbox = Capacity { messages: 100, bytes: 100_000 };
    let settings = Settings { memory_bytes_max: 10_000, outbox, ..settings() };
    let mut world = subscribed(&settings, 2, "a");
    let silent = world.open(0);
    world.clients[silent].room = 0;
    for id in 0..300 {
        world.publish(silent, id, "b");
        world.settle(0);
    }
    assert!(!world.clients[silent].is_open);
    // Half of the message is in the kernel: it cannot become a gap any more.
    world.clients[0].room = 100;
    world.publish_bytes(1, 1, "a", 12_000);
    world.settle(0);
    assert!(!world.clients[0].is_open);
    assert!(world.clients[1].is_open);
    assert_eq!((world.hubs[0].replies_bytes(), world.hubs[0].segments_bytes()), (0, 0));
}

#[test]
fn an_overloaded_hub_takes_no_publish() {
    let settings = Settings { memory_bytes_max: 0, ..settings() };
    let mut world = World::new(&settings, 1);
    let (client, silent) = (world.open(0), world.open(0));
    world.clients[silent].room = 0;
    world.subscribe(silent, 1, "a");
    assert!(world.hubs[0].is_overloaded(), "a reply waits");
    world.publish(client, 2, "a");
    world.settle(0);
    assert_eq!(world.take_heard(client), [error(2, "overloaded")]);
}

#[test]
fn a_client_that_publishes_and_does_not_read_its_acks_is_throttled_until_it_does() {
    let mut world = World::new(&settings(), 1);
    let client = world.open(0);
    world.clients[client].room = 0;
    let mut published = 0;
    while !world.clients[client].throttled {
        published += 1;
        world.publish(client, published, "a");
        world.settle(0);
        assert!(world.hubs[0].replies_bytes() <= REPLIES_BYTES_MAX + 100);
    }
    world.make_room(client, REPLIES_BYTES_MAX / 4);
    world.settle(0);
    assert!(world.clients[client].throttled, "more than half of it waits");
    world.make_room(client, usize::MAX);
    world.settle(0);
    assert!(!world.clients[client].throttled);
    assert_eq!(world.take_heard(client).len() as u64, published);
    assert_eq!(world.hubs[0].replies_bytes(), 0);
}

/// A client that published faster than a stalled home shard answered had any number of acks coming
/// to it, all at once and perhaps to a full socket.
#[test]
fn who_publishes_to_a_home_that_does_not_answer_is_throttled_until_it_does() {
    let mut world = World::new(&Settings { shards: 2, ..settings() }, 1);
    let away = (0..).map(|number| format!("c{number}"));
    let away = away.into_iter().find(|name| world.hubs[0].topics.home(name) == 1);
    let (away, client) = (away.expect("half of all names"), world.open(0));
    let mut published = 0;
    while !world.clients[client].throttled {
        published += 1;
        world.publish(client, published, &away);
    }
    assert_eq!(published, u64::from(PUBLISHES_UNANSWERED_MAX) + 1);
    let key = world.clients[client].key;
    assert!(world.hubs[0].is_kept_waiting(key), "it is not its own fault");
    world.run();
    assert!(!world.clients[client].throttled && !world.hubs[0].is_kept_waiting(key));
    assert_eq!(world.take_heard(client).len() as u64, published);
}
