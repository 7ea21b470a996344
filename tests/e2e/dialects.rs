//! The other dialects: ringcast.msgpack.v1, read and written by a library nobody here wrote
//! (`rmpv`), and ringcast.raw.v1. Whatever one of them says, the others hear.

use std::time::Duration;

use rmpv::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::on_every_setup;
use crate::peer::Peer;
use crate::server::{Server, Setup};

on_every_setup!(
    the_first_offer_that_is_spoken_is_the_dialect,
    what_one_dialect_publishes_all_of_them_hear,
    msgpack_has_the_same_requests_and_answers,
    what_json_cannot_say_closes_a_msgpack_client,
    a_raw_client_may_come_to_publish_or_to_listen_only,
    what_a_raw_client_must_not_send_closes_it,
    a_raw_client_that_lost_messages_is_told_which_in_its_close_frame,
    a_raw_client_goes_on_where_its_close_frame_says,
    a_raw_client_hears_a_good_bye_when_the_server_leaves,
);

pub async fn the_first_offer_that_is_spoken_is_the_dialect(setup: Setup) {
    let server = Server::start(setup, "").await;
    for (path, offers, chosen) in [
        ("/ws", "", None),
        ("/ws", "ringcast.json.v1, ringcast.msgpack.v1", Some("ringcast.json.v1")),
        ("/ws", "mqtt, ringcast.msgpack.v1, ringcast.json.v1", Some("ringcast.msgpack.v1")),
        ("/raw/a", "", None),
        ("/raw/a", "ringcast.json.v1, ringcast.raw.v1", Some("ringcast.raw.v1")),
    ] {
        let (mut peer, said) = Peer::open_with(&server, path, offers, None).await;
        assert_eq!(said.as_deref(), chosen, "{offers}");
        if path == "/raw/a" {
            // No welcome: the first thing heard is what it says itself.
            peer.send(Message::text("[1]")).await;
            assert_eq!(peer.hear().await, Message::text("[1]"));
        } else if chosen == Some("ringcast.msgpack.v1") {
            assert_eq!(peer.hear_map().await["type"], "welcome".into());
        } else {
            let Message::Text(text) = peer.hear().await else { panic!("not JSON") };
            assert!(text.starts_with(r#"{"type":"welcome","#), "{text}");
        }
    }
}

pub async fn what_one_dialect_publishes_all_of_them_hear(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut json = Client::open(&server).await;
    json.subscribe("a/b").await;
    let mut msgpack = Peer::msgpack(&server).await;
    msgpack.subscribe("a/b").await;
    let mut raw = Peer::open(&server, "/raw/a%2Fb", "ringcast.raw.v1").await;
    // Its own message comes back when it is subscribed.
    raw.send(Message::text("\"first\"")).await;
    assert_eq!(raw.hear().await, Message::text("\"first\""));
    assert_eq!(json.hear_kind("message").await.payload(), "\"first\"");
    assert_eq!(msgpack.hear_map().await["payload"], "first".into());

    // Each with what it says best; what it is in JSON, in MessagePack, and bare.
    let digits = "123456789012345678901234567890";
    let big = Value::Ext(74, digits.into());
    let bytes: Vec<u8> = (0..=255).collect();
    let base64 = {
        let mut text = Vec::new();
        ringcast::proto::msgpack::binary::write_bin(&mut text, &bytes);
        String::from_utf8(text).expect("JSON is text")
    };
    enum By {
        Json(String),
        Msgpack(Value),
        Raw(Message),
    }
    for (by, text, value, bare) in [
        (
            By::Json(format!(" [ {digits} , -0.0 ]")),
            format!("[ {digits} , -0.0 ]"),
            Value::Array(vec![big, (-0.0).into()]),
            Message::text(format!("[ {digits} , -0.0 ]")),
        ),
        (
            By::Msgpack(Value::Map(vec![("n".into(), u64::MAX.into()), ("f".into(), 1.5.into())])),
            format!("{{\"n\":{},\"f\":1.5}}", u64::MAX),
            Value::Map(vec![("n".into(), u64::MAX.into()), ("f".into(), 1.5.into())]),
            Message::text(format!("{{\"n\":{},\"f\":1.5}}", u64::MAX)),
        ),
        (
            By::Msgpack(Value::Binary(bytes.clone())),
            base64.clone(),
            Value::Binary(bytes.clone()),
            Message::binary(bytes.clone()),
        ),
        (
            By::Raw(Message::binary(bytes.clone())),
            base64.clone(),
            Value::Binary(bytes.clone()),
            Message::binary(bytes.clone()),
        ),
        (
            By::Raw(Message::text("\n{\"a\":[]} ")),
            "{\"a\":[]}".to_owned(),
            Value::Map(vec![("a".into(), Value::Array(vec![]))]),
            Message::text("{\"a\":[]}"),
        ),
        (
            By::Json(base64.clone()),
            base64.clone(),
            Value::Binary(bytes.clone()),
            Message::binary(bytes.clone()),
        ),
    ] {
        match by {
            By::Json(payload) => json.publish("a/b", &payload).await,
            By::Msgpack(payload) => {
                let members = vec![
                    ("type", "publish".into()),
                    ("channel", "a/b".into()),
                    ("payload", payload),
                ];
                msgpack.say_map(members).await;
            }
            By::Raw(message) => raw.send(message).await,
        }
        assert_eq!(json.hear_kind("message").await.payload(), text);
        let message = msgpack.hear_map().await;
        assert_eq!((&message["type"], &message["channel"]), (&"message".into(), &"a/b".into()));
        assert_eq!(message["payload"], value);
        assert_eq!(raw.hear().await, bare);
    }
}

pub async fn msgpack_has_the_same_requests_and_answers(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut peer = Peer::msgpack(&server).await;
    let channel = ("channel", Value::from("orders"));
    let kind = |kind: &str| ("type", Value::from(kind));
    peer.say_map(vec![kind("subscribe"), ("id", "s".into()), channel.clone()]).await;
    let subscribed = peer.hear_map().await;
    assert_eq!((&subscribed["id"], &subscribed["seq"]), (&"s".into(), &0.into()));

    peer.say_map(vec![kind("publish"), ("id", 7.into()), channel.clone(), ("payload", Value::Nil)])
        .await;
    let heard = [peer.hear_map().await, peer.hear_map().await];
    let of = |kind: &str| heard.iter().find(|it| it["type"] == kind.into()).expect(kind);
    assert_eq!((&of("ack")["id"], &of("ack")["seq"]), (&7.into(), &1.into()));
    assert_eq!((&of("message")["payload"], &of("message")["seq"]), (&Value::Nil, &1.into()));

    peer.say_map(vec![kind("ping"), ("t", 1.5.into())]).await;
    assert_eq!(peer.hear_map().await["t"], 1.5.into());
    peer.say_map(vec![kind("shout"), ("id", 8.into())]).await;
    let error = peer.hear_map().await;
    assert_eq!((&error["code"], &error["id"]), (&"unknown_type".into(), &8.into()));
    peer.say_map(vec![kind("unsubscribe"), ("id", 9.into()), channel]).await;
    assert_eq!(peer.hear_map().await["seq"], 1.into());
}

pub async fn what_json_cannot_say_closes_a_msgpack_client(setup: Setup) {
    let mut server = Server::start(setup, "[limits]\nmessage_bytes_max = 1000").await;
    let publish = |payload: &[u8]| {
        [&b"\x83\xa4type\xa7publish\xa7channel\xa1a\xa7payload"[..], payload].concat()
    };
    for (message, code, word) in [
        (Message::text(r#"{"type":"ping"}"#), 1003, "ringcast.msgpack.v1"),
        (Message::binary(b"\x81\xa4type".to_vec()), 4400, "ends inside"),
        (Message::binary(b"\x80\x80".to_vec()), 4400, "follows"),
        (Message::binary(b"\x93\x01\x02\x03".to_vec()), 4400, "not a JSON object"),
        (Message::binary(publish(b"\xcb\x7f\xf8\0\0\0\0\0\0")), 4400, "NaN"),
        (Message::binary(publish(b"\xa1\xff")), 4400, "UTF-8"),
        (Message::binary(publish(b"\x81\x01\x02")), 4400, "key"),
        // Short enough as it comes, and too long for those who would hear it in JSON.
        (Message::binary(publish(&[&b"\xc5\x03\x20"[..], &[0; 800]].concat())), 1009, "as JSON"),
    ] {
        let mut peer = Peer::msgpack(&server).await;
        peer.send(message.clone()).await;
        let (said, reason) = peer.closed().await;
        assert_eq!(said, code, "{message:?}: {reason}");
        assert!(reason.contains(word), "{message:?}: {reason}");
    }
    server.assert_lives().await;
}

pub async fn a_raw_client_may_come_to_publish_or_to_listen_only(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut listening = Peer::open(&server, "/raw/orders?mode=sub", "").await;
    let mut both = Peer::open(&server, "/raw/orders?mode=both", "").await;
    let mut publishing = Peer::open(&server, "/raw/orders?mode=pub", "").await;
    // Who listens is known to be there when it has heard something.
    both.send(Message::text("0")).await;
    assert_eq!(both.hear().await, Message::text("0"));
    let first = loop {
        publishing.send(Message::text("1")).await;
        if let Some(heard) = listening.next_within(Duration::from_millis(50)).await {
            break heard;
        }
    };
    assert!([Message::text("0"), Message::text("1")].contains(&first));
    // What is sent to it would come before the answer to this.
    publishing.send(Message::Ping(vec![1].into())).await;
    let heard = publishing.hear_any().await;
    assert_eq!(heard, Message::Pong(vec![1].into()), "who only publishes hears nothing else");
}

pub async fn what_a_raw_client_must_not_send_closes_it(setup: Setup) {
    let mut server = Server::start(setup, "[limits]\nmessage_bytes_max = 1000").await;
    for (path, message, code) in [
        ("/raw/a", Message::text("hello"), 4400),
        ("/raw/a", Message::text(""), 4400),
        ("/raw/a", Message::text("1 2"), 4400),
        ("/raw/a", Message::binary(vec![0; 760]), 1009),
        ("/raw/a?mode=sub", Message::text("1"), 1003),
        ("/raw/a?mode=sub", Message::binary(vec![0]), 1003),
    ] {
        let mut peer = Peer::open(&server, path, "").await;
        peer.send(message.clone()).await;
        let (said, reason) = peer.closed().await;
        assert_eq!(said, code, "{message:?}: {reason}");
        assert!(!reason.is_empty());
    }
    server.assert_lives().await;
}

pub async fn a_raw_client_that_lost_messages_is_told_which_in_its_close_frame(setup: Setup) {
    let config = "
[limits]
outbox_messages_max = 24
outbox_bytes_max = \"16KiB\"
[socket]
send_buffer_bytes = 4096
notsent_lowat_bytes = 2048
[[channel]]
match = \"new\"
overflow = \"drop_newest\"
";
    let server = Server::start(setup, config).await;
    for channel in ["old", "new"] {
        let path = format!("/raw/{channel}");
        let (mut slow, _) = Peer::open_with(&server, &path, "", Some(4096)).await;
        let mut publisher = Client::open(&server).await;
        slow.send(Message::text("0")).await;
        assert_eq!(slow.hear().await, Message::text("0"));
        for number in 1..=400 {
            let payload = format!("[{number},\"{}\"]", "x".repeat(1000));
            assert_eq!(publisher.publish_acked(channel, &payload).await, number + 1);
        }
        // Now it reads: everything up to a number, and then the numbers that are lost.
        let mut last = 1;
        let (code, reason) = loop {
            match slow.hear().await {
                Message::Text(text) => {
                    last += 1;
                    assert!(text.starts_with(&format!("[{},", last - 1)), "after {last}: {text}");
                }
                Message::Close(frame) => {
                    let frame = frame.expect("a code and a reason");
                    break (u16::from(frame.code), frame.reason.as_str().to_owned());
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(code, 4409);
        let words: Vec<&str> = reason.split(' ').collect();
        let ["lost", from, "to", to, "of", "epoch", epoch, "(slow_consumer)"] = words[..] else {
            panic!("{reason}")
        };
        assert_eq!(from.parse(), Ok(last + 1), "{reason}");
        assert!(to.parse::<u64>().is_ok_and(|to| (last + 1..=401).contains(&to)), "{reason}");
        assert_eq!(epoch, publisher.subscribe(channel).await.str("epoch"));
    }
}

pub async fn a_raw_client_goes_on_where_its_close_frame_says(setup: Setup) {
    let server = Server::start(setup, "[history]\nmessages = 3\nage = \"10m\"\n").await;
    let mut publisher = Client::open(&server).await;
    for number in 1..=10 {
        assert_eq!(publisher.publish_acked("a", &number.to_string()).await, number);
    }
    let texts = |numbers: std::ops::RangeInclusive<u64>| numbers.map(|it| it.to_string());
    // It knows another life of the channel, and is told of this one.
    let mut raw = Peer::open(&server, "/raw/a?since=elsewhen.7", "").await;
    let (code, reason) = raw.closed().await;
    let words: Vec<&str> = reason.split(' ').collect();
    let ["lost", "1", "to", "7", "of", "epoch", epoch, "(epoch_changed)"] = words[..] else {
        panic!("{code} {reason}")
    };
    assert_eq!(code, 4409);
    // What it may have missed of this life, which is no longer all there.
    let mut raw = Peer::open(&server, &format!("/raw/a?since={epoch}.4"), "").await;
    let lost = format!("lost 5 to 7 of epoch {epoch} (too_old)");
    assert_eq!(raw.closed().await, (4409, lost));
    // And on behind that, up to what is new.
    let mut raw = Peer::open(&server, &format!("/raw/a?since={epoch}.7"), "").await;
    let mut latest = Peer::open(&server, "/raw/a?since=latest", "").await;
    for text in texts(8..=10) {
        assert_eq!(raw.hear().await, Message::text(text));
    }
    assert_eq!(latest.hear().await, Message::text("10"));
    publisher.publish("a", "11").await;
    for peer in [&mut raw, &mut latest] {
        assert_eq!(peer.hear().await, Message::text("11"));
    }
}

pub async fn a_raw_client_hears_a_good_bye_when_the_server_leaves(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\ndrain_window = \"1s\"").await;
    let mut raw = Peer::open(&server, "/raw/a", "").await;
    let mut msgpack = Peer::msgpack(&server).await;
    raw.send(Message::text("1")).await;
    assert_eq!(raw.hear().await, Message::text("1"));
    server.signal(libc::SIGTERM);
    assert_eq!(msgpack.hear_map().await["type"], "goaway".into());
    assert_eq!(msgpack.closed().await.0, 1001);
    let Message::Close(Some(frame)) = raw.hear().await else { panic!("no good-bye") };
    assert_eq!(u16::from(frame.code), 1001);
    assert!(server.ended(Duration::from_secs(15)).await.success());
}
