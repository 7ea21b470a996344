//! How clients leave, and how the server lets them go.

use super::single::{gap, messages, subscribed};
use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::*;
use crate::limits::PUBLISHES_UNANSWERED_MAX;
use crate::proto::envelope::Since;

/// What was seen (world 1748): the server said good-bye to a client whose publishes another shard had
/// not answered, and did not read the good-bye that it sent back. When the answers came nobody was to be
/// told of them, and so it was read from no more.
#[test]
fn who_is_let_go_is_read_from_though_its_publishes_have_not_been_answered() {
    let mut world = World::new(&Settings { shards: 2, ..settings() }, 1);
    let (away, client) = (world.channel_at_home_on(1), world.open(0));
    for id in 0..=PUBLISHES_UNANSWERED_MAX {
        world.publish(client, id.into(), &away);
    }
    let (now, key) = (world.now, world.clients[client].key);
    assert!(world.hubs[0].is_kept_waiting(key));
    world.hubs[0].mute(key, now);
    let mut last_words = Vec::new();
    crate::proto::envelope::pong(&mut last_words, Some(b"7"), None);
    world.hubs[0].reply_last(key, &mut last_words);
    assert!(!world.hubs[0].is_kept_waiting(key) && !world.hubs[0].throttle(key));
    world.run();
    assert_eq!(world.take_heard(client), [Heard::Pong { id: 7 }]);
    let _ = world.hubs[0].audit();
}

#[test]
fn a_retired_client_gets_what_waits_for_it_and_nothing_else() {
    let mut world = subscribed(&settings(), 2, "a");
    world.clients[0].room = 0;
    for id in 0..3 {
        world.publish(1, id, "a");
    }
    world.settle(0);
    let key = world.clients[0].key;
    world.hubs[0].retire(key);
    world.publish(1, 4, "a");
    world.unsubscribe(0, 5, "a");
    world.publish(0, 6, "a");
    world.settle(0);
    world.make_room(0, usize::MAX);
    world.settle(0);
    assert_eq!(world.take_heard(0), messages("a", 1..=3));
    assert!(!world.clients[0].is_open, "it finished");
}

/// What was seen: a panic ("a topic outlives its subscribers") while the server went down. Why: a
/// client with a gap notice in its queue had been unsubscribed from everything, its channel was
/// known here for nobody but it, and so the notice had no name any more. Now a retired client
/// stays subscribed until it closes; it is only that nothing more is queued for it.
#[test]
fn a_retired_client_is_told_of_gaps_in_a_channel_that_nobody_else_here_wants() {
    let mut world = World::new(&Settings { shards: 2, ..settings() }, 1);
    let (client, publisher) = (world.open(0), world.open(1));
    let channel = world.channel_at_home_on(1);
    world.subscribe(client, 0, &channel);
    world.run();
    world.take_heard(client);
    world.clients[client].room = 0;
    for id in 0..12 {
        world.publish(publisher, id, &channel);
        world.run();
    }
    let key = world.clients[client].key;
    world.hubs[0].retire(key);
    world.publish(publisher, 12, &channel);
    world.unsubscribe(client, 13, &channel);
    world.run();
    world.make_room(client, usize::MAX);
    world.run();
    let heard = world.take_heard(client);
    assert_eq!(heard[0], gap(&channel, 1, 4, "slow_consumer"));
    assert_eq!(heard[1..], messages(&channel, 5..=12));
    assert!(!world.clients[client].is_open, "it finished");
    assert_eq!((world.hubs[0].channels(), world.hubs[0].counts().subscriptions), (0, 0));
}

/// What was seen: a client that had come back as the server went down was let go between two pages
/// of what it had missed, though all of it had been acknowledged. Now it catches up first.
#[test]
fn a_retired_client_catches_up_before_it_is_let_go() {
    const COUNT: u64 = 30;
    for shard in [0, 1] {
        let mut settings = Settings { shards: 2, ..settings() };
        settings.rules.default.history = Retention { messages: 100, ..Retention::default() };
        let mut world = World::new(&settings, 1);
        let (client, publisher) = (world.open(shard), world.open(0));
        let channel = world.channel_at_home_on(0);
        for id in 0..COUNT {
            world.publish(publisher, id, &channel);
            world.run();
        }
        // Two messages of a page of eight fit, then it reads no more for a while.
        world.clients[client].room = 300;
        world.resume(client, 100, &channel, Some(Since::Last(COUNT as u32)));
        world.run();
        let key = world.clients[client].key;
        assert!(!world.hubs[shard].retire(key), "much is left to be sent");
        world.publish(publisher, COUNT, &channel);
        world.resume(client, 101, "other", None);
        world.run();
        assert!(world.clients[client].is_open);
        world.make_room(client, usize::MAX);
        world.run();
        let heard = world.take_heard(client);
        assert!(matches!(heard[0], Heard::Subscribed { .. }), "{:?}", heard[0]);
        assert_eq!(heard[1..], messages(&channel, 1..=COUNT + 1));
        assert!(!world.clients[client].is_open, "it finished");
    }
}

/// What was seen: a client that was catching up as the server went down, and that no longer wanted the
/// channel, was let go without the answer: for all it knew, messages were owed to it.
#[test]
fn a_retired_client_that_lets_go_of_what_it_catches_up_with_is_answered() {
    let mut settings = settings();
    settings.rules.default.history = Retention { messages: 100, ..Retention::default() };
    let mut world = World::new(&settings, 1);
    let (client, publisher) = (world.open(0), world.open(0));
    for id in 0..30 {
        world.publish(publisher, id, "a");
        world.settle(0);
    }
    world.resume(client, 100, "a", Some(Since::Last(30)));
    let key = world.clients[client].key;
    assert!(!world.hubs[0].retire(key), "much is left to be sent");
    world.unsubscribe(client, 101, "a");
    world.run();
    let heard = world.take_heard(client);
    assert!(matches!(heard.last(), Some(Heard::Ack { id: 101, .. })), "{heard:?}");
    assert!(!world.clients[client].is_open, "it finished");
}

#[test]
fn a_muted_client_gets_its_last_words_and_nothing_else() {
    let mut world = subscribed(&settings(), 2, "a");
    world.clients[0].room = 0;
    for id in 0..3 {
        world.publish(1, id, "a");
    }
    world.settle(0);
    let (now, key) = (world.now, world.clients[0].key);
    world.hubs[0].mute(key, now);
    let mut last_words = Vec::new();
    crate::proto::envelope::pong(&mut last_words, Some(b"7"), None);
    world.hubs[0].reply_last(key, &mut last_words);
    world.publish(1, 4, "a");
    world.settle(0);
    world.make_room(0, usize::MAX);
    world.settle(0);
    let heard = world.take_heard(0);
    // The message that had been begun is finished first, if one had.
    assert_eq!(heard.last(), Some(&Heard::Pong { id: 7 }));
    assert!(heard.len() <= 2, "{heard:?}");
    assert!(!world.clients[0].is_open, "it finished");
}

#[test]
fn a_client_that_closes_leaves_nothing_behind() {
    let mut world = subscribed(&settings(), 2, "a");
    world.clients[0].room = 0;
    world.publish(1, 1, "a");
    world.unsubscribe(0, 2, "nothing");
    world.settle(0);
    assert_eq!(world.hubs[0].flow().blocked, 1);
    world.close(0);
    assert_eq!(world.hubs[0].flow().blocked, 0);
    assert_eq!((world.hubs[0].segments_bytes(), world.hubs[0].replies_bytes()), (0, 0));
    assert_eq!(world.hubs[0].counts().subscriptions, 1);
}
