//! Who was away gets what it missed, or is told exactly what is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{Chance, Client, Event, Heard};
use crate::on_every_setup;
use crate::server::{Server, Setup};

const HISTORY: &str = "[history]\nmessages = 50\nage = \"10m\"\n";

on_every_setup!(
    who_was_away_gets_what_it_missed_and_then_what_is_new,
    what_the_history_gave_up_is_a_gap_and_the_rest_follows,
    after_a_restart_the_epoch_has_changed_and_what_is_new_is_all_there_is,
    the_last_messages_come_first_when_they_are_asked_for,
    a_key_that_is_repeated_is_acknowledged_with_the_first_number,
    a_history_far_larger_than_an_outbox_comes_whole,
    what_is_too_old_is_kept_no_more,
    a_history_is_shown_page_by_page_to_whoever_asks,
    killed_at_any_moment_and_back_again_nobody_misses_or_repeats_a_message,
);

pub fn since(channel: &str, epoch: &str, seq: u64) -> String {
    let since = format!(r#"{{"epoch":"{epoch}","seq":{seq}}}"#);
    format!(r#""type":"subscribe","channel":"{channel}","since":{since}"#)
}

async fn publish_all(client: &mut Client, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(client.publish_acked(channel, &number.to_string()).await, number);
    }
}

/// Hears messages `numbers` of a channel whose payloads are their numbers.
async fn hear_all(client: &mut Client, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let heard = client.hear_kind("message").await;
        assert_eq!((heard.number("seq"), heard.payload()), (number, number.to_string().as_str()));
    }
}

/// The number, the first that follows, and why something is gone.
fn resumed(answer: &Heard) -> (u64, u64, Option<&str>) {
    assert_eq!(answer.kind(), "subscribed", "{}", answer.text);
    let lost = answer.has("reason").then(|| answer.str("reason"));
    let recovered = format!(r#""recovered":{}"#, lost.is_none());
    assert!(answer.text.contains(&recovered), "{}", answer.text);
    (answer.number("seq"), answer.number("from"), lost)
}

pub async fn who_was_away_gets_what_it_missed_and_then_what_is_new(setup: Setup) {
    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    let mut reader = Client::open(&server).await;
    let epoch = reader.subscribe("a").await.str("epoch").to_owned();
    publish_all(&mut publisher, "a", 1..=5).await;
    hear_all(&mut reader, 1..=5).await;
    drop(reader);
    publish_all(&mut publisher, "a", 6..=9).await;

    // Several connections, so that with several shards some are not on the channel's home.
    for _ in 0..4 {
        let mut reader = Client::open(&server).await;
        let answer = reader.ask("1", &since("a", &epoch, 5)).await;
        assert_eq!(resumed(&answer), (9, 6, None));
        hear_all(&mut reader, 6..=9).await;
        let seq = publisher.publish_acked("b", "0").await;
        assert!(seq > 0);
        reader.heard_nothing_more().await;
        let answer = reader.ask("2", &since("a", &epoch, 9)).await;
        assert_eq!(answer.str("code"), "already_subscribed");
    }
    let mut reader = Client::open(&server).await;
    let answer = reader.ask("1", &since("a", &epoch, 9)).await;
    assert_eq!(resumed(&answer), (9, 10, None));
    publish_all(&mut publisher, "a", 10..=12).await;
    hear_all(&mut reader, 10..=12).await;
}

pub async fn what_the_history_gave_up_is_a_gap_and_the_rest_follows(setup: Setup) {
    let config = "[[channel]]\nmatch = \"a\"\nhistory = { messages = 3 }\n";
    let server = Server::start(setup, config).await;
    let mut publisher = Client::open(&server).await;
    let mut reader = Client::open(&server).await;
    let epoch = reader.subscribe("a").await.str("epoch").to_owned();
    let other_epoch = reader.subscribe("b").await.str("epoch").to_owned();
    drop(reader);
    publish_all(&mut publisher, "a", 1..=10).await;
    publish_all(&mut publisher, "b", 1..=2).await;

    let mut reader = Client::open(&server).await;
    let answer = reader.ask("1", &since("a", &epoch, 2)).await;
    assert_eq!(resumed(&answer), (10, 3, Some("too_old")));
    let gap = reader.hear_kind("gap").await;
    assert_eq!((gap.number("from"), gap.number("to"), gap.str("reason")), (3, 7, "too_old"));
    hear_all(&mut reader, 8..=10).await;
    // Without a history everything is gone, and told.
    let answer = reader.ask("2", &since("b", &other_epoch, 1)).await;
    assert_eq!(resumed(&answer), (2, 2, Some("too_old")));
    let gap = reader.hear_kind("gap").await;
    assert_eq!((gap.str("channel"), gap.number("from"), gap.number("to")), ("b", 2, 2));
    publish_all(&mut publisher, "b", 3..=3).await;
    hear_all(&mut reader, 3..=3).await;
}

pub async fn after_a_restart_the_epoch_has_changed_and_what_is_new_is_all_there_is(setup: Setup) {
    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    let epoch = publisher.subscribe("a").await.str("epoch").to_owned();
    publish_all(&mut publisher, "a", 1..=5).await;
    drop((publisher, server));

    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    publish_all(&mut publisher, "a", 1..=2).await;
    let mut reader = Client::open(&server).await;
    let answer = reader.ask("1", &since("a", &epoch, 5)).await;
    assert_ne!(answer.str("epoch"), epoch);
    assert_eq!(resumed(&answer), (2, 1, Some("epoch_changed")));
    hear_all(&mut reader, 1..=2).await;
    reader.heard_nothing_more().await;
}

pub async fn the_last_messages_come_first_when_they_are_asked_for(setup: Setup) {
    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    publish_all(&mut publisher, "a", 1..=9).await;
    let mut reader = Client::open(&server).await;
    let latest = r#""type":"subscribe","channel":"a","since":"latest""#;
    assert_eq!(resumed(&reader.ask("1", latest).await), (9, 9, None));
    hear_all(&mut reader, 9..=9).await;
    let mut reader = Client::open(&server).await;
    let last = r#""type":"subscribe","channel":"a","since":{"last":4}"#;
    assert_eq!(resumed(&reader.ask("1", last).await), (9, 6, None));
    hear_all(&mut reader, 6..=9).await;
    publish_all(&mut publisher, "a", 10..=10).await;
    hear_all(&mut reader, 10..=10).await;
    // Of a channel on which nothing was ever said.
    let last = r#""type":"subscribe","channel":"new","since":{"last":4}"#;
    assert_eq!(resumed(&reader.ask("2", last).await), (0, 1, None));
}

pub async fn a_key_that_is_repeated_is_acknowledged_with_the_first_number(setup: Setup) {
    let server = Server::start(setup, "[idempotency]\nage = \"1s\"").await;
    let mut reader = Client::open(&server).await;
    reader.subscribe("a").await;
    let publish =
        |key: &str| format!(r#""type":"publish","channel":"a","payload":1,"key":"{key}""#);
    // Other connections, as after a failure: on other shards, too.
    for round in 0..4 {
        let mut publisher = Client::open(&server).await;
        let ack = publisher.ask("1", &publish("one")).await;
        assert_eq!((ack.kind(), ack.number("seq")), ("ack", 1), "{}", ack.text);
        assert_eq!(ack.text.contains(r#""duplicate":true"#), round > 0, "{}", ack.text);
    }
    let ack = reader.ask("2", &publish("two")).await;
    assert_eq!((ack.number("seq"), ack.has("duplicate")), (2, false));
    for seq in [1, 2] {
        assert_eq!(reader.hear_kind("message").await.number("seq"), seq);
    }
    reader.heard_nothing_more().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let ack = reader.ask("3", &publish("one")).await;
    assert_eq!((ack.number("seq"), ack.has("duplicate")), (3, false), "its time was over");
}

pub async fn a_history_far_larger_than_an_outbox_comes_whole(setup: Setup) {
    let config = "[history]\nmessages = 3000\nage = \"10m\"\nbytes = \"16MiB\"\n\
                  [limits]\noutbox_messages_max = 16\noutbox_bytes_max = \"8KiB\"\n";
    let server = Server::start(setup, config).await;
    let mut publisher = Client::open(&server).await;
    let epoch = publisher.ask("e", r#""type":"subscribe","channel":"a""#).await;
    let epoch = epoch.str("epoch").to_owned();
    publisher.ask("u", r#""type":"unsubscribe","channel":"a""#).await;
    for number in 1..=2_000 {
        publisher.publish("a", &number.to_string()).await;
        if number % 100 == 0 {
            publisher.ask("p", r#""type":"ping""#).await;
        }
    }
    publish_all(&mut publisher, "a", 2_001..=2_001).await;
    for _ in 0..2 {
        let mut reader = Client::open(&server).await;
        let answer = reader.ask("1", &since("a", &epoch, 0)).await;
        assert_eq!(resumed(&answer), (2_001, 1, None));
        hear_all(&mut reader, 1..=2_001).await;
    }
}

pub async fn what_is_too_old_is_kept_no_more(setup: Setup) {
    let server = Server::start(setup, "[history]\nmessages = 50\nage = \"300ms\"\n").await;
    let mut publisher = Client::open(&server).await;
    publish_all(&mut publisher, "a", 1..=3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    publish_all(&mut publisher, "a", 4..=4).await;
    let mut reader = Client::open(&server).await;
    let last = r#""type":"subscribe","channel":"a","since":{"last":4}"#;
    assert_eq!(resumed(&reader.ask("1", last).await), (4, 4, Some("too_old")));
    hear_all(&mut reader, 4..=4).await;
}

pub async fn a_history_is_shown_page_by_page_to_whoever_asks(setup: Setup) {
    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    publish_all(&mut publisher, "a", 1..=60).await;
    for _ in 0..4 {
        let mut client = Client::open(&server).await;
        let (mut from, mut seen) = (0, Vec::new());
        loop {
            let ask = format!(r#""type":"history","channel":"a","from":{from},"limit":20"#);
            let page = client.ask("1", &ask).await.text;
            let (head, messages) = page.split_once(r#","messages":["#).expect("messages");
            assert!(head.starts_with(r#"{"type":"history","id":"1","channel":"a","epoch":""#));
            assert!(head.contains(r#""seq":60"#), "{head}");
            let seqs = messages.split(r#""seq":"#).skip(1);
            let seqs = seqs.map(|rest| rest.split_once(',').expect("a payload follows").0);
            seen.extend(seqs.map(|seq| seq.parse::<u64>().expect("a number")));
            from = seen.last().expect("no page is empty") + 1;
            if head.ends_with(r#""more":false"#) {
                break;
            }
        }
        assert_eq!(seen, (11..=60).collect::<Vec<u64>>(), "fifty are kept");
        let none = client.ask("2", r#""type":"history","channel":"never""#).await;
        assert!(none.text.ends_with(r#""seq":0,"more":false,"messages":[]}"#), "{}", none.text);
        client.heard_nothing_more().await;
    }
}

/// How many lives are lived; RINGCAST_TEST_SCHEDULES says more.
pub fn schedules() -> u64 {
    let wanted = std::env::var("RINGCAST_TEST_SCHEDULES").ok();
    wanted.map_or(60, |count| count.parse().expect("RINGCAST_TEST_SCHEDULES counts"))
}

/// What a reader knows of each channel: the epoch and the last message it has or was told of.
pub type Known = BTreeMap<&'static str, (String, u64)>;

pub async fn killed_at_any_moment_and_back_again_nobody_misses_or_repeats_a_message(setup: Setup) {
    const CHANNELS: [&str; 3] = ["a", "b", "c"];
    let config = "[history]\nmessages = 4\nage = \"10m\"\n\
                  [limits]\noutbox_messages_max = 8\n";
    let server = Server::start(setup, config).await;
    let mut publisher = Client::open(&server).await;
    let mut published: BTreeMap<&str, u64> = CHANNELS.map(|channel| (channel, 0)).into();
    let (mut heard, mut lost) = (0, 0);
    for seed in 0..schedules() {
        let mut chance = Chance::new(seed);
        let mut known = Known::new();
        for _life in 0..3 {
            let mut reader = Client::open(&server).await;
            for (number, channel) in CHANNELS.into_iter().enumerate() {
                let request = match known.get(channel) {
                    Some((epoch, seq)) => since(channel, epoch, *seq),
                    None => format!(r#""type":"subscribe","channel":"{channel}""#),
                };
                reader.say(format!(r#"{{"id":"{number}",{request}}}"#)).await;
            }
            for _ in 0..chance.below(25) {
                let channel = CHANNELS[chance.below(3) as usize];
                *published.get_mut(channel).expect("one of them") += 1;
                publisher.publish(channel, &published[channel].to_string()).await;
            }
            // It reads some of it, and is gone in the middle of the rest.
            for _ in 0..chance.below(40) {
                match reader.event_within(Duration::from_millis(20)).await {
                    Some(Event::Text(text)) => lost += follow(&mut known, &text),
                    Some(other) => panic!("seed {seed}: {other:?}"),
                    None => break,
                }
                heard += 1;
            }
        }
    }
    let mut reader = Client::open(&server).await;
    publisher.ask("p", r#""type":"ping""#).await;
    for channel in CHANNELS {
        let last = publisher.publish_acked(channel, "0").await;
        assert_eq!(last, published[channel] + 1, "every publish has a number");
        reader.ask("1", &since(channel, "none", 0)).await;
    }
    assert!(heard > 500 && lost > 20, "{heard} heard and {lost} lost prove little");
}

/// What was heard follows what was known; returns how many messages were told as lost.
pub fn follow(known: &mut Known, heard: &Heard) -> u64 {
    let channel = ["a", "b", "c"].into_iter().find(|channel| *channel == heard.str("channel"));
    let channel = channel.expect("one of them");
    match heard.kind() {
        "subscribed" => {
            let from = match known.get(channel) {
                Some((epoch, seq)) => {
                    assert_eq!((heard.str("epoch"), heard.number("from")), (&**epoch, seq + 1));
                    seq + 1
                }
                None => heard.number("seq") + 1,
            };
            known.insert(channel, (heard.str("epoch").to_owned(), from - 1));
            0
        }
        "message" => {
            let (_, last) = known.get_mut(channel).expect("it is subscribed");
            assert_eq!(heard.number("seq"), *last + 1, "{}", heard.text);
            assert_eq!(heard.payload(), (*last + 1).to_string(), "its own payload");
            *last += 1;
            0
        }
        "gap" => {
            let (_, last) = known.get_mut(channel).expect("it is subscribed");
            let (from, to) = (heard.number("from"), heard.number("to"));
            assert!(from == *last + 1 && to >= from, "{} after {last}", heard.text);
            *last = to;
            to - from + 1
        }
        _ => panic!("{}", heard.text),
    }
}
