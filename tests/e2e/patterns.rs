//! Subscriptions to patterns.

use std::collections::BTreeMap;

use crate::client::{Client, Heard};
use crate::on_every_setup;
use crate::server::{Server, Setup};

on_every_setup!(
    channels_begin_as_they_come_and_nothing_of_them_is_missed_on_any_shard,
    what_several_subscriptions_match_is_delivered_once,
    gaps_are_told_channel_by_channel,
    after_the_answer_that_ends_a_pattern_nothing_of_it_follows,
    who_comes_back_goes_on_in_each_channel_where_it_was,
    what_is_no_pattern_is_refused_and_the_connection_goes_on,
    a_pattern_that_matches_too_much_has_a_clear_end,
);

fn watch(pattern: &str) -> String {
    format!(r#""type":"subscribe","channel":"{pattern}""#)
}

fn leave(name: &str) -> String {
    format!(r#""type":"unsubscribe","channel":"{name}""#)
}

/// Subscribes to a pattern that matches `channels` channels by now.
async fn watching(client: &mut Client, pattern: &str, channels: u64) {
    let answer = client.ask("watch", &watch(pattern)).await;
    assert_eq!(answer.kind(), "subscribed", "{}", answer.text);
    assert_eq!((answer.str("pattern"), answer.number("channels")), (pattern, channels));
}

/// What is known of each channel: its epoch, and the last message that came or was told as lost.
#[derive(Debug, Default)]
struct Known {
    channels: BTreeMap<String, (String, u64)>,
    lost: u64,
}

impl Known {
    /// What was heard follows what was known.
    fn hear(&mut self, heard: &Heard) {
        let channel = heard.str("channel").to_owned();
        match heard.kind() {
            "subscribed" => {
                let place = (heard.str("epoch").to_owned(), heard.number("seq"));
                if let Some(before) = self.channels.insert(channel, place.clone()) {
                    assert_eq!(before, place, "it goes on where it is: {}", heard.text);
                }
            }
            kind => {
                let (_, last) = self.channels.get_mut(&channel).expect("a channel begins first");
                let (from, to) = match kind {
                    "message" => (heard.number("seq"), heard.number("seq")),
                    "gap" => (heard.number("from"), heard.number("to")),
                    _ => panic!("{}", heard.text),
                };
                assert!(from == *last + 1 && to >= from, "{} after {last}", heard.text);
                self.lost += if kind == "gap" { to + 1 - from } else { 0 };
                *last = to;
            }
        }
    }

    fn last(&self, channel: &str) -> u64 {
        self.channels.get(channel).map_or(0, |(_, last)| *last)
    }

    /// Hears until it knows of message `last` of `channel`.
    async fn hear_up_to(&mut self, client: &mut Client, channel: &str, last: u64) {
        while self.last(channel) < last {
            let heard = client.hear().await;
            self.hear(&heard);
        }
    }
}

pub async fn channels_begin_as_they_come_and_nothing_of_them_is_missed_on_any_shard(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    for number in 0..5 {
        publisher.publish_acked(&format!("iot.{number}.temp"), "0").await;
    }
    // Several connections, so that with several shards both have some.
    let mut watchers = Vec::new();
    for _ in 0..6 {
        let mut client = Client::open(&server).await;
        watching(&mut client, "iot.*.temp", 5).await;
        watchers.push((client, Known::default()));
    }
    for round in 0..4 {
        for number in 0..10 {
            publisher.publish_acked(&format!("iot.{number}.temp"), "1").await;
            publisher.publish_acked(&format!("iot.{number}.{round}.temp"), "2").await;
        }
    }
    for (client, known) in &mut watchers {
        for number in 0..10 {
            let last = if number < 5 { 5 } else { 4 };
            known.hear_up_to(client, &format!("iot.{number}.temp"), last).await;
        }
        assert_eq!((known.channels.len(), known.lost), (10, 0));
        client.heard_nothing_more().await;
    }
}

pub async fn what_several_subscriptions_match_is_delivered_once(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    for _ in 0..4 {
        let mut client = Client::open(&server).await;
        client.subscribe("md.us.a").await;
        for pattern in ["md.>", "*.us.*", "md.us.*"] {
            let answer = client.ask("watch", &watch(pattern)).await;
            assert_eq!(answer.kind(), "subscribed", "{}", answer.text);
        }
        let seq = publisher.publish_acked("md.us.a", "1").await;
        let heard = client.hear_kind("message").await;
        assert_eq!((heard.str("channel"), heard.number("seq")), ("md.us.a", seq));
        client.heard_nothing_more().await;

        // It goes on as long as something holds it.
        let answer = client.ask("1", &leave("md.us.a")).await;
        assert_eq!((answer.kind(), answer.number("seq")), ("ack", seq));
        let goes_on = client.hear_kind("subscribed").await;
        assert_eq!((goes_on.str("channel"), goes_on.number("seq")), ("md.us.a", seq));
        for pattern in ["md.>", "*.us.*"] {
            assert_eq!(client.ask("2", &leave(pattern)).await.kind(), "ack");
            assert_eq!(client.hear_kind("subscribed").await.number("seq"), seq);
        }
        publisher.publish_acked("md.us.a", "2").await;
        assert_eq!(client.hear_kind("message").await.number("seq"), seq + 1);
        assert_eq!(client.ask("3", &leave("md.us.*")).await.kind(), "ack");
        publisher.publish_acked("md.us.a", "3").await;
        client.heard_nothing_more().await;
    }
}

pub async fn gaps_are_told_channel_by_channel(setup: Setup) {
    let config = "[limits]\noutbox_messages_max = 8\n[socket]\nsend_buffer_bytes = \"8KiB\"\n";
    let server = Server::start(setup, config).await;
    let mut publisher = Client::open(&server).await;
    let mut client = Client::open_with(&server, Some(4096)).await;
    watching(&mut client, "md.*", 0).await;
    let payload = format!("\"{}\"", "x".repeat(1_000));
    let mut last = 0;
    for _ in 0..100 {
        for channel in ["md.a", "md.b", "md.c"] {
            last = publisher.publish_acked(channel, &payload).await;
        }
    }
    assert_eq!(last, 100);
    let mut known = Known::default();
    for channel in ["md.a", "md.b", "md.c"] {
        known.hear_up_to(&mut client, channel, last).await;
    }
    assert!(known.lost > 30, "{} lost messages prove little", known.lost);
    client.heard_nothing_more().await;
}

pub async fn after_the_answer_that_ends_a_pattern_nothing_of_it_follows(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    let mut client = Client::open(&server).await;
    for round in 0..10 {
        client.say(format!(r#"{{"id":"on",{}}}"#, watch("md.>"))).await;
        for number in 0..20 {
            publisher.publish(&format!("md.{number}"), "1").await;
            if number == round {
                client.say(format!(r#"{{"id":"off",{}}}"#, leave("md.>"))).await;
            }
        }
        // Messages come before the answer, and none after it.
        let answer = client.answer("on").await;
        assert_eq!(answer.str("pattern"), "md.>");
        loop {
            let heard = client.hear().await;
            if heard.kind() == "ack" {
                break;
            }
        }
        publisher.publish_acked("md.0", "2").await;
        client.heard_nothing_more().await;
    }
}

pub async fn who_comes_back_goes_on_in_each_channel_where_it_was(setup: Setup) {
    let server = Server::start(setup, "[history]\nmessages = 50\nage = \"10m\"\n").await;
    let mut publisher = Client::open(&server).await;
    let mut known = Known::default();
    let channels: Vec<String> = (0..6).map(|number| format!("iot.{number}.temp")).collect();
    for life in 0..3 {
        let mut client = Client::open(&server).await;
        let before: Vec<String> = known.channels.keys().cloned().collect();
        for channel in &before {
            let (epoch, seq) = &known.channels[channel];
            let since = format!(r#"{{"epoch":"{epoch}","seq":{seq}}}"#);
            let ask = format!(r#""type":"subscribe","channel":"{channel}","since":{since}"#);
            let answer = client.ask("resume", &ask).await;
            assert_eq!(answer.number("from"), seq + 1, "{}", answer.text);
        }
        let answer = client.ask("watch", &watch("iot.*.temp")).await;
        assert_eq!(answer.kind(), "subscribed", "{}", answer.text);
        for channel in &before {
            assert_eq!(client.ask("leave", &leave(channel)).await.kind(), "ack");
        }
        // One more channel in each life.
        for channel in &channels[..3 + life] {
            let last = publisher.publish_acked(channel, "1").await;
            known.hear_up_to(&mut client, channel, last).await;
        }
        drop(client);
        for channel in &channels[..3 + life] {
            publisher.publish_acked(channel, "2").await;
        }
    }
    assert_eq!(known.lost, 0);
}

pub async fn what_is_no_pattern_is_refused_and_the_connection_goes_on(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    let stars = "*".repeat(255);
    let deep = ["*"; 128].join(".");
    for pattern in ["a.>.b", "a..*", "a*", ".*", "*.", &stars, &deep] {
        for kind in ["subscribe", "unsubscribe"] {
            let ask = format!(r#""type":"{kind}","channel":"{pattern}""#);
            assert_eq!(client.ask("1", &ask).await.str("code"), "bad_pattern", "{pattern}");
        }
    }
    let since = format!(r#"{},"since":"latest""#, watch("a.*"));
    assert_eq!(client.ask("2", &since).await.str("code"), "bad_since");
    for request in [r#""type":"publish","payload":1"#, r#""type":"history""#] {
        let ask = format!(r#"{request},"channel":"a.*""#);
        assert_eq!(client.ask("3", &ask).await.str("code"), "bad_channel");
    }
    assert_eq!(client.ask("4", &leave("a.*")).await.str("code"), "not_subscribed");
    for number in 0..16 {
        watching(&mut client, &format!("p.{number}.*"), 0).await;
    }
    assert_eq!(client.ask("5", &watch("p.0.*")).await.str("code"), "already_subscribed");
    assert_eq!(client.ask("6", &watch("p.16.*")).await.str("code"), "too_many_patterns");
    client.heard_nothing_more().await;
}

pub async fn a_pattern_that_matches_too_much_has_a_clear_end(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    let mut client = Client::open(&server).await;
    client.subscribe("own").await;
    watching(&mut client, ">", 1).await;
    for number in 0..1_023 {
        publisher.publish(&format!("c.{number}"), "1").await;
    }
    publisher.publish_acked("c.last", "1").await;
    publisher.publish_acked("one.more", "1").await;
    let mut known = Known::default();
    let end = loop {
        let heard = client.hear().await;
        if heard.kind() == "unsubscribed" {
            break heard;
        }
        known.hear(&heard);
    };
    assert_eq!((end.str("pattern"), end.str("code")), (">", "too_many_matches"));
    // Which of them was one too many is for the shards to decide: their channels come as they come.
    assert_eq!(known.channels.len(), 1_024);
    publisher.publish_acked("c.1", "1").await;
    publisher.publish_acked("own", "1").await;
    let own = client.hear_kind("message").await;
    assert_eq!((own.str("channel"), own.number("seq")), ("own", 1));
    client.heard_nothing_more().await;
    // To ask again is answered the same way: by an error, since now they are there.
    assert_eq!(client.ask("1", &watch(">")).await.str("code"), "too_many_matches");
}
