//! What clients say to each other through the server: ringcast.json.v1 from outside.

use crate::client::Client;
use crate::on_every_setup;
use crate::raw::Raw;
use crate::server::{Server, Setup};

on_every_setup!(
    publisher_hears_its_own_message_and_its_ack,
    every_subscriber_hears_everything_in_one_order,
    unsubscribed_hears_nothing_after_its_ack,
    subscribing_twice_delivers_once,
    numbering_goes_on_while_nobody_listens,
    payloads_keep_their_bytes,
    channel_names_of_every_kind_come_back_as_they_were,
    ids_come_back_as_they_were,
    without_an_id_only_a_failure_is_answered,
    requests_that_cannot_be_met_get_a_stable_code_and_the_connection_lives,
    one_channel_too_many_is_refused_and_the_others_live,
    requests_in_one_packet_are_answered_in_order,
);

pub async fn publisher_hears_its_own_message_and_its_ack(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    assert_eq!(client.welcome.number("ping_interval_ms"), 25_000);
    assert_eq!(client.welcome.number("message_bytes_max"), 65_536);
    assert!(!client.welcome.str("client").is_empty());

    let subscribed = client.subscribe("orders").await;
    assert_eq!(subscribed.str("channel"), "orders");
    assert_eq!(subscribed.number("seq"), 0);
    assert!(!subscribed.str("epoch").is_empty());
    assert!(subscribed.text.contains(r#""recovered":false"#), "{}", subscribed.text);

    assert_eq!(client.publish_acked("orders", r#"{"order":"123"}"#).await, 1);
    let message = client.hear_kind("message").await;
    assert_eq!((message.str("channel"), message.number("seq")), ("orders", 1));
    assert_eq!(message.payload(), r#"{"order":"123"}"#);
    client.heard_nothing_more().await;
}

pub async fn every_subscriber_hears_everything_in_one_order(setup: Setup) {
    const SUBSCRIBERS: usize = 12;
    const PUBLISHERS: usize = 4;
    const EACH: usize = 150;
    let config = "[limits]\noutbox_messages_max = 4096\noutbox_bytes_max = \"4MiB\"";
    let server = Server::start(setup, config).await;
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = Client::open(&server).await;
        client.subscribe("all").await;
        subscribers.push(client);
    }
    let mut publishing = Vec::new();
    for publisher in 0..PUBLISHERS {
        let mut client = Client::open(&server).await;
        publishing.push(tokio::spawn(async move {
            for number in 0..EACH {
                client.publish("all", &format!("[{publisher},{number}]")).await;
            }
            client.publish_acked("all", "null").await;
        }));
    }
    for task in publishing {
        task.await.expect("published");
    }
    let mut orders = Vec::new();
    for client in &mut subscribers {
        let mut order = Vec::new();
        for seq in 1..=PUBLISHERS * (EACH + 1) {
            let message = client.hear_kind("message").await;
            assert_eq!(message.number("seq"), seq as u64);
            order.push(message.payload().to_owned());
        }
        client.heard_nothing_more().await;
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "the orders differ");
    for publisher in 0..PUBLISHERS {
        let of_one = orders[0].iter().filter(|text| text.starts_with(&format!("[{publisher},")));
        let expected = (0..EACH).map(|number| format!("[{publisher},{number}]"));
        assert!(of_one.cloned().eq(expected), "one publisher's messages keep their order");
    }
}

pub async fn unsubscribed_hears_nothing_after_its_ack(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut listener = Client::open(&server).await;
    let mut publisher = Client::open(&server).await;
    listener.subscribe("off").await;
    for number in 0..40 {
        publisher.publish("off", &number.to_string()).await;
    }
    listener.say(r#"{"id":"bye","type":"unsubscribe","channel":"off"}"#).await;
    for number in 40..80 {
        publisher.publish("off", &number.to_string()).await;
    }
    // What came before the ack is a piece of the order without holes; after it comes nothing.
    let mut seq = 0;
    let ack = loop {
        let heard = listener.hear().await;
        if heard.kind() == "ack" {
            break heard;
        }
        seq += 1;
        assert_eq!((heard.kind(), heard.number("seq")), ("message", seq), "{}", heard.text);
    };
    assert_eq!((ack.str("id"), ack.str("channel")), ("bye", "off"));
    assert_eq!(ack.number("seq"), seq, "the ack names the last number before it");
    assert_eq!(publisher.publish_acked("off", "81").await, 81);
    listener.heard_nothing_more().await;

    let again = listener.ask("again", r#""type":"unsubscribe","channel":"off""#).await;
    assert!(matches!(again.kind(), "ack" | "error"), "it is answered: {}", again.text);
}

pub async fn subscribing_twice_delivers_once(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    client.subscribe("twice").await;
    let again = client.ask("again", r#""type":"subscribe","channel":"twice""#).await;
    assert!(matches!(again.kind(), "subscribed" | "error"), "it is answered: {}", again.text);
    client.publish_acked("twice", "1").await;
    client.hear_kind("message").await;
    client.heard_nothing_more().await;
}

pub async fn numbering_goes_on_while_nobody_listens(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    let mut listener = Client::open(&server).await;
    let first = listener.subscribe("number").await;
    assert_eq!(publisher.publish_acked("number", "1").await, 1);
    listener.hear_kind("message").await;
    listener.ask("off", r#""type":"unsubscribe","channel":"number""#).await;
    for seq in 2..=5 {
        assert_eq!(publisher.publish_acked("number", "1").await, seq);
    }
    let second = listener.subscribe("number").await;
    assert_eq!(second.number("seq"), 5);
    assert_eq!(second.str("epoch"), first.str("epoch"));
}

pub async fn payloads_keep_their_bytes(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    let mut listener = Client::open(&server).await;
    listener.subscribe("bytes").await;
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let long = format!("\"{}\"", "x".repeat(60_000));
    let payloads = [
        "123456789012345678901234567890",
        "-0.0",
        "1e400",
        "0.10000000000000000000000001",
        "-12E-07",
        "null",
        "true",
        r#""""#,
        r#""A😀\/\b\f\n\r\t\"\\\u0000""#,
        "\"é😀\u{2028}\u{7f}\"",
        r#"{"k":1,"k":2,"":{"k":[]}}"#,
        r#"{ "a" : [ 1 , 2 ] }"#,
        r#"{"type":"message","channel":"other","payload":1,"seq":9}"#,
        &deep,
        &long,
    ];
    for payload in payloads {
        publisher.publish("bytes", payload).await;
        assert_eq!(listener.hear_kind("message").await.payload(), payload);
    }
    // The payload may stand anywhere in the request, with any spaces around it.
    let shuffled =
        "{\n\"payload\"\t:\r  [1.0] ,\"more\":{}, \"channel\":\"bytes\",\"type\":\"publish\"}";
    publisher.say(shuffled).await;
    assert_eq!(listener.hear_kind("message").await.payload(), "[1.0]");
}

pub async fn channel_names_of_every_kind_come_back_as_they_were(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    let longest = "c".repeat(255);
    // As written in the request, and as it comes back inside quotes.
    for (written, back) in [
        ("a b", "a b"),
        ("md..a", "md..a"),
        ("größe/😀", "größe/😀"),
        (r"gr\u00f6\u00dfe/\ud83d\ude00", "größe/😀"),
        (r#"quote\"back\\slash"#, r#"quote"back\slash"#),
        (r"\/", "/"),
        (longest.as_str(), longest.as_str()),
    ] {
        let subscribed = client.subscribe(written).await;
        assert_eq!(subscribed.str("channel"), back);
        client.publish_acked(written, "1").await;
        assert_eq!(client.hear_kind("message").await.str("channel"), back);
        client.ask("off", &format!(r#""type":"unsubscribe","channel":"{written}""#)).await;
    }
}

pub async fn ids_come_back_as_they_were(setup: Setup) {
    let server = Server::start(setup, "").await;
    // By hand: no JSON library here keeps a number of any size.
    let mut raw = Raw::open(server.address, "/ws").await;
    raw.next().await.expect("the welcome");
    let longest = format!("\"{}\"", "i".repeat(126));
    for id in ["0", "-1", "1e2", "18446744073709551616", r#""""#, r#""A\"""#, &longest] {
        raw.say(&format!(r#"{{"type":"ping","id":{id},"t":1.50}}"#)).await;
        let pong = raw.next().await.expect("the pong");
        assert_eq!(pong.text(), format!(r#"{{"type":"pong","id":{id},"t":1.50}}"#));
    }
}

pub async fn without_an_id_only_a_failure_is_answered(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    client.publish("quiet", "1").await;
    client.heard_nothing_more().await;
    client.say(r#"{"type":"publish","channel":"quiet"}"#).await;
    let error = client.hear_kind("error").await;
    assert!(!error.has("id"), "{}", error.text);
    // A subscriber has to know the number it starts from, asked for by id or not.
    client.say(r#"{"type":"subscribe","channel":"quiet"}"#).await;
    client.publish("quiet", "2").await;
    loop {
        let heard = client.hear().await;
        if heard.kind() == "message" {
            assert_eq!(heard.number("seq"), 2);
            break;
        }
        assert_eq!(heard.kind(), "subscribed", "{}", heard.text);
    }
}

pub async fn requests_that_cannot_be_met_get_a_stable_code_and_the_connection_lives(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    let too_long = format!(r#""type":"subscribe","channel":"{}""#, "c".repeat(256));
    for (request, code) in [
        (r#""type":"dance""#, "unknown_type"),
        (r#""channel":"a""#, "missing_field"),
        (r#""type":"subscribe""#, "missing_field"),
        (r#""type":"publish","channel":"a""#, "missing_field"),
        (r#""type":"publish","payload":1"#, "missing_field"),
        (r#""type":7"#, "wrong_type"),
        (r#""type":"subscribe","channel":null"#, "wrong_type"),
        (r#""type":"unsubscribe","channel":["a"]"#, "wrong_type"),
        (r#""type":"subscribe","channel":"""#, "bad_channel"),
        (r#""type":"subscribe","channel":"a\u0000b""#, "bad_channel"),
        (r#""type":"publish","channel":"\n","payload":1"#, "bad_channel"),
        (too_long.as_str(), "bad_channel"),
        (r#""type":"subscribe","channel":"a","since":{"epoch":"e"}"#, "bad_since"),
        (r#""type":"subscribe","channel":"a","since":"yesterday""#, "bad_since"),
        (r#""type":"publish","channel":"a","payload":1,"key":1"#, "bad_key"),
        (r#""type":"auth","token":"t""#, "unsupported"),
    ] {
        let answer = client.ask("x", request).await;
        assert_eq!(answer.kind(), "error", "{request}: {}", answer.text);
        assert_eq!(answer.str("code"), code, "{request}: {}", answer.text);
        assert!(!answer.str("reason").is_empty());
    }
    client.subscribe("still here").await;
}

pub async fn one_channel_too_many_is_refused_and_the_others_live(setup: Setup) {
    let server = Server::start(setup, "[limits]\nchannels_per_client_max = 4").await;
    let mut client = Client::open(&server).await;
    for channel in ["a", "b", "c", "d"] {
        client.subscribe(channel).await;
    }
    let refused = client.ask("x", r#""type":"subscribe","channel":"e""#).await;
    assert_eq!((refused.kind(), refused.str("code")), ("error", "too_many_channels"));
    client.publish_acked("d", "1").await;
    client.hear_kind("message").await;
    client.ask("off", r#""type":"unsubscribe","channel":"a""#).await;
    client.subscribe("e").await;
}

pub async fn requests_in_one_packet_are_answered_in_order(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut raw = Raw::open(server.address, "/ws").await;
    let mut packet = Vec::new();
    for number in 0..200 {
        let text = format!(r#"{{"type":"ping","id":{number}}}"#);
        packet.extend(crate::raw::frame(0x81, text.as_bytes()));
    }
    raw.send(&packet).await;
    raw.next().await.expect("the welcome");
    for number in 0..200 {
        let pong = raw.next().await.expect("an answer");
        assert_eq!(pong.text(), format!(r#"{{"type":"pong","id":{number}}}"#));
    }
}
