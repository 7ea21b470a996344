//! Clients of one channel that receive the same messages in different forms.

use super::wire::Heard;
use super::world::{World, settings};
use crate::hub::*;
use crate::proto::envelope::Since;

/// A world of one shard with a client for each of `formats`, all subscribed to `a`.
fn subscribed(formats: &[Format]) -> World {
    let mut world = World::new(&settings(), 1);
    for format in formats {
        let client = world.open_with(0, *format);
        world.subscribe(client, 0, "a");
    }
    world.settle(0);
    for client in 0..formats.len() {
        world.take_heard(client);
    }
    world
}

fn messages(seqs: std::ops::RangeInclusive<u64>) -> Vec<Heard> {
    seqs.map(|seq| Heard::Message { channel: "a".into(), from: seq, seq }).collect()
}

use Format::{Json, JsonDeflate, JsonDeflateNarrow};

#[test]
fn each_message_is_compressed_once_for_all_who_want_it_so() {
    let formats = [Json, JsonDeflate, JsonDeflate, JsonDeflateNarrow, Json, JsonDeflate];
    let mut world = subscribed(&formats);
    let publisher = world.open(0);
    for round in 1..=3 {
        for id in 0..2 {
            world.publish_bytes(publisher, id, "a", 500);
        }
        world.settle(0);
        assert_eq!(world.hubs[0].encoded(), [2 * round, 2 * round, 2 * round, 0, 0]);
        assert_eq!(world.hubs[0].segments_bytes(), 0);
        for (client, format) in formats.iter().enumerate() {
            assert_eq!(world.take_heard(client), messages(2 * round - 1..=2 * round));
            let expected = if *format == Json { 0 } else { 2 * round };
            assert_eq!(world.clients[client].wire.compressed, expected, "{format:?}");
        }
    }
}

#[test]
fn nothing_is_compressed_that_nobody_wants_so() {
    let mut world = subscribed(&[Json, Json]);
    // Who wants it so is subscribed to nothing.
    world.open_with(0, JsonDeflate);
    world.publish_bytes(0, 1, "a", 500);
    world.settle(0);
    assert_eq!(world.hubs[0].encoded(), [1, 0, 0, 0, 0]);
}

#[test]
fn what_does_not_become_shorter_is_the_same_bytes_for_all() {
    let mut world = subscribed(&[Json, JsonDeflate]);
    world.clients[0].room = 0;
    world.clients[1].room = 0;
    world.publish(0, 1, "a");
    world.settle(0);
    let hub = &world.hubs[0];
    assert_eq!(hub.encoded(), [1, 0, 0, 0, 0]);
    // Both wait for the one segment there is.
    assert_eq!(
        hub.segments_bytes(),
        "..{'type':'message','channel':'a','seq':1,'payload':'xxxxxxxxxx'}".len()
    );
    assert_eq!(hub.audit().backlog, 2);
    for client in 0..2 {
        world.make_room(client, usize::MAX);
        world.settle(0);
        assert!(world.take_heard(client).contains(&messages(1..=1)[0]));
        assert_eq!(world.clients[client].wire.compressed, 0);
    }
    assert_eq!(world.hubs[0].segments_bytes(), 0);
}

#[test]
fn short_and_long_messages_of_one_tick_keep_their_order() {
    let mut world = subscribed(&[JsonDeflate, Json]);
    let publisher = world.open(0);
    for (id, bytes) in [10, 400, 5, 300, 7].into_iter().enumerate() {
        world.publish_bytes(publisher, id as u64, "a", bytes);
    }
    world.settle(0);
    for client in 0..2 {
        assert_eq!(world.take_heard(client), messages(1..=5));
    }
    assert_eq!(world.clients[0].wire.compressed, 2);
    assert_eq!(world.hubs[0].encoded(), [5, 2, 0, 0, 0]);
}

#[test]
fn who_waits_for_a_form_keeps_only_that_form_alive() {
    let mut world = subscribed(&[Json, JsonDeflate]);
    world.clients[1].room = 0;
    let publisher = world.open(0);
    for round in 1..=4 {
        world.publish_bytes(publisher, 1, "a", 1_000);
        world.settle(0);
        assert_eq!(world.take_heard(0), messages(round..=round));
        let bytes = world.hubs[0].segments_bytes();
        assert!(bytes < 150 * round as usize, "{bytes} bytes of {round} messages are alive");
        let audit = world.hubs[0].audit();
        assert_eq!(audit.backlog, 1);
    }
    // Nothing was lost of 4 KiB in an outbox of 4 KiB: it is what is sent that counts.
    world.make_room(1, usize::MAX);
    world.settle(0);
    assert_eq!(world.take_heard(1), messages(1..=4));
    assert_eq!(world.hubs[0].segments_bytes(), 0);
}

#[test]
fn who_catches_up_gets_its_own_form_and_shares_it_with_others_who_do() {
    const COUNT: u64 = 6;
    let mut settings = Settings { shards: 2, ..settings() };
    settings.rules.default.history.messages = 100;
    let mut world = World::new(&settings, 1);
    let channel = world.channel_at_home_on(0);
    let publisher = world.open(0);
    for id in 0..COUNT {
        world.publish_bytes(publisher, id, &channel, 500);
        world.settle(0);
    }
    let kept = world.hubs[0].segments_bytes();
    assert_eq!(world.hubs[0].encoded(), [COUNT, 0, 0, 0, 0], "nobody has wanted it otherwise");
    let late: Vec<usize> =
        [0, 0, 0, 1, 1, 1].map(|shard| world.open_with(shard, JsonDeflate)).into();
    for client in &late {
        world.clients[*client].room = 0;
        world.resume(*client, 9, &channel, Some(Since::Last(100)));
    }
    world.run();
    for hub in &world.hubs {
        assert_eq!(hub.encoded()[JsonDeflate as usize], COUNT, "once on each shard");
        let _ = hub.audit();
    }
    for client in late {
        world.make_room(client, usize::MAX);
        world.run();
        let heard = world.take_heard(client);
        assert!(matches!(&heard[0], Heard::Subscribed { seq: COUNT, .. }), "{heard:?}");
        let seqs = heard[1..].iter().map(|heard| match heard {
            Heard::Message { seq, .. } => *seq,
            other => panic!("{other:?}"),
        });
        assert!(seqs.eq(1..=COUNT), "{heard:?}");
        assert_eq!(world.clients[client].wire.compressed, COUNT);
    }
    // What is kept is kept in one form.
    assert_eq!(world.hubs[0].segments_bytes(), kept);
    assert_eq!(world.hubs[1].segments_bytes(), 0);
}

#[test]
fn what_is_kept_for_later_keeps_no_other_form_alive() {
    let mut settings = settings();
    settings.rules.default.history.messages = 100;
    let mut world = World::new(&settings, 1);
    let client = world.open_with(0, JsonDeflate);
    world.subscribe(client, 0, "a");
    for id in 1..=5 {
        world.publish_bytes(client, id, "a", 500);
        world.settle(0);
        let audit = world.hubs[0].audit();
        assert_eq!(world.hubs[0].segments_bytes() as u64, audit.kept_bytes);
    }
    assert_eq!(world.clients[client].wire.compressed, 5);
}
