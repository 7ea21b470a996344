//! Server-Sent Events and long polling: the same messages, the same positions, the same rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::on_every_setup;
use crate::raw::{answer, ask};
use crate::server::{Server, Setup, patience};
use crate::stream::{Stream, poll, poll_answer, polled};

const HISTORY: &str = "[history]\nmessages = 50\nage = \"10m\"\n";

on_every_setup!(
    a_stream_says_where_it_begins_and_each_event_where_it_goes_on,
    a_stream_that_is_taken_up_again_goes_on_behind_its_last_event,
    what_cannot_be_had_any_more_is_a_gap_on_a_stream_and_in_a_poll,
    a_payload_of_many_lines_is_one_event,
    a_quiet_stream_shows_that_it_lives,
    a_poll_is_answered_as_soon_as_there_is_something_and_else_when_its_time_is_up,
    one_poll_after_the_other_misses_nothing_and_repeats_nothing,
    what_asks_for_nothing_that_there_is_has_its_status_and_an_error_object,
    pages_may_listen_where_the_configuration_says_so,
    who_never_reads_a_stream_costs_little_and_is_let_go,
    where_the_rule_says_close_a_stream_is_told_why_it_ends,
    who_listens_counts_in_limits_and_metrics,
    in_a_drain_streams_and_polls_are_told_when_to_come_back,
);

async fn publish_all(client: &mut Client, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(client.publish_acked(channel, &number.to_string()).await, number);
    }
}

async fn hear_all(stream: &mut Stream, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let heard = stream.hear_kind("message").await;
        assert_eq!((heard.str("channel"), heard.number("seq")), (channel, number));
        assert_eq!(heard.payload(), number.to_string());
    }
}

pub async fn a_stream_says_where_it_begins_and_each_event_where_it_goes_on(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    publish_all(&mut publisher, "b", 1..=3).await;
    let mut stream = Stream::open(&server, "channel=a&channel=b").await;
    for field in ["Content-Type: text/event-stream\r\n", "Cache-Control: no-store\r\n"] {
        assert!(stream.head.contains(field), "{}", stream.head);
    }
    let mut epochs = BTreeMap::new();
    for _ in 0..2 {
        let told = stream.hear_kind("subscribed").await;
        let seq = if told.str("channel") == "a" { 0 } else { 3 };
        assert_eq!(told.number("seq"), seq, "{}", told.text);
        epochs.insert(told.str("channel").to_owned(), told.str("epoch").to_owned());
    }
    let (a, b) = (&epochs["a"], &epochs["b"]);
    assert_eq!(stream.cursors, format!("{a}.0,{b}.3"));
    publish_all(&mut publisher, "b", 4..=5).await;
    hear_all(&mut stream, "b", 4..=5).await;
    assert_eq!(stream.cursors, format!("{a}.0,{b}.5"));
    publish_all(&mut publisher, "a", 1..=1).await;
    hear_all(&mut stream, "a", 1..=1).await;
    assert_eq!(stream.cursors, format!("{a}.1,{b}.5"));
}

pub async fn a_stream_that_is_taken_up_again_goes_on_behind_its_last_event(setup: Setup) {
    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    let query = "channel=a&channel=b&channel=c";
    let mut cursors = None;
    let mut published = 0;
    for _life in 0..6 {
        // The header of a browser outdoes what the URL said at first.
        let fields = cursors.map(|cursors| format!("Last-Event-ID: {cursors}\r\n"));
        let fields = fields.unwrap_or_default();
        let query = format!("{query}&since=-,-,-");
        let mut stream = Stream::open_with(&server, &query, &fields, None).await;
        let mut next = BTreeMap::new();
        let missed = if fields.is_empty() { 0 } else { 2 };
        for _ in 0..3 * (1 + missed) {
            // What was missed of one may come before another is told.
            let heard = stream.next().await.expect("an event");
            let channel = heard.str("channel").to_owned();
            if heard.kind() == "subscribed" {
                let recovered = format!(r#""recovered":{}"#, missed > 0);
                assert!(heard.text.contains(&recovered) && !heard.has("id"), "{}", heard.text);
                assert_eq!(next.insert(channel, published - missed + 1), None);
                continue;
            }
            let next = next.get_mut(&channel).expect("it was told where it begins");
            assert_eq!((heard.kind(), heard.number("seq")), ("message", *next));
            *next += 1;
        }
        assert!(next.values().all(|next| *next == published + 1), "{next:?}");
        for channel in ["a", "b", "c"] {
            publish_all(&mut publisher, channel, published + 1..=published + 2).await;
            hear_all(&mut stream, channel, published + 1..=published + 2).await;
        }
        cursors = Some(stream.cursors.clone());
        drop(stream);
        published += 4;
        for channel in ["a", "b", "c"] {
            publish_all(&mut publisher, channel, published - 1..=published).await;
        }
    }
}

pub async fn what_cannot_be_had_any_more_is_a_gap_on_a_stream_and_in_a_poll(setup: Setup) {
    let config = "[[channel]]\nmatch = \"a\"\nhistory = { messages = 3 }\n";
    let server = Server::start(setup, config).await;
    let mut publisher = Client::open(&server).await;
    let epoch = publisher.ask("1", r#""type":"subscribe","channel":"a""#).await;
    let epoch = epoch.str("epoch").to_owned();
    publisher.ask("2", r#""type":"unsubscribe","channel":"a""#).await;
    publish_all(&mut publisher, "a", 1..=10).await;

    let mut stream = Stream::open(&server, &format!("channel=a&since={epoch}.2")).await;
    let told = stream.hear_kind("subscribed").await;
    assert_eq!((told.str("reason"), told.number("from")), ("too_old", 3));
    assert_eq!(stream.cursors, format!("{epoch}.2"));
    let gap = stream.hear_kind("gap").await;
    assert_eq!((gap.number("from"), gap.number("to"), gap.str("reason")), (3, 7, "too_old"));
    assert_eq!(stream.cursors, format!("{epoch}.7"));
    hear_all(&mut stream, "a", 8..=10).await;

    let answer = poll(&server, &format!("channel=a&since={epoch}.2")).await;
    let kinds: Vec<_> = answer.events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, ["subscribed", "gap", "message", "message", "message"]);
    assert_eq!(answer.cursors, format!("{epoch}.10"));

    let other = poll(&server, "channel=a&since=another.2").await;
    assert_eq!(other.events[0].str("reason"), "epoch_changed");
    assert_eq!((other.events[1].number("from"), other.events[1].number("to")), (1, 7));
    assert_eq!(other.cursors, format!("{epoch}.10"));
    let latest = poll(&server, "channel=a&since=latest").await;
    assert_eq!((latest.events.len(), latest.events[0].number("seq")), (1, 10));
}

pub async fn a_payload_of_many_lines_is_one_event(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut publisher = Client::open(&server).await;
    let mut stream = Stream::open(&server, "channel=a").await;
    stream.hear_kind("subscribed").await;
    let body = "{\"channel\":\"a\",\"payload\":[\n1,\r\n\r2,\"\\n\"]}";
    let length = body.len();
    let post =
        format!("POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    assert_eq!(ask(server.address, &post).await.expect("an answer").status, 200);
    let heard = stream.hear_kind("message").await;
    assert_eq!(heard.payload(), "[\n1,\n\n2,\"\\n\"]", "a line end is a line end");
    publish_all(&mut publisher, "a", 2..=2).await;
    hear_all(&mut stream, "a", 2..=2).await;
}

pub async fn a_quiet_stream_shows_that_it_lives(setup: Setup) {
    let config = "[timing]\nping_interval = \"200ms\"\npong_timeout = \"100ms\"\n";
    let server = Server::start(setup, config).await;
    let mut stream = Stream::open(&server, "channel=a").await;
    stream.hear_kind("subscribed").await;
    let heard = stream.next_within(patience(Duration::from_millis(1_500))).await;
    assert!(heard.is_none() && stream.heartbeats >= 2, "{} heartbeats", stream.heartbeats);
    let mut publisher = Client::open(&server).await;
    publish_all(&mut publisher, "a", 1..=1).await;
    hear_all(&mut stream, "a", 1..=1).await;
}

pub async fn a_poll_is_answered_as_soon_as_there_is_something_and_else_when_its_time_is_up(
    setup: Setup,
) {
    let server = Server::start(setup, HISTORY).await;
    let mut publisher = Client::open(&server).await;
    // Where it is, is answered at once: with two channels, also from other shards.
    let begun = Instant::now();
    let first = poll(&server, "channel=a&channel=b").await;
    assert!(first.events.is_empty());
    for query in ["since=-,-", "since=-,-&timeout=0s", "timeout=0s"] {
        let again = poll(&server, &format!("channel=a&channel=b&{query}")).await;
        assert!(again.events.is_empty() && again.cursors == first.cursors, "{again:?}");
    }
    assert!(begun.elapsed() < patience(Duration::from_secs(10)), "none of them has waited");
    let query = format!("channel=a&channel=b&since={}&timeout=0s", first.cursors);
    assert!(poll(&server, &query).await.events.is_empty());

    // Nothing happens.
    let begun = Instant::now();
    let query = format!("channel=a&channel=b&since={}&timeout=300ms", first.cursors);
    let none = poll_answer(&server, &query).await;
    assert_eq!((none.status, none.header("Ringcast-Cursor")), (204, Some(&*first.cursors)));
    assert!(begun.elapsed() >= Duration::from_millis(300));

    // Something happens.
    let query = format!("channel=a&channel=b&since={}&timeout=60s", first.cursors);
    let waiting = poll(&server, &query);
    let happening = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        publisher.publish_acked("b", "[1]").await
    };
    let (answer, seq) = tokio::join!(waiting, happening);
    assert_eq!((answer.events.len(), seq), (1, 1));
    assert_eq!((answer.events[0].str("channel"), answer.events[0].payload()), ("b", "[1]"));
    let (a, b) = first.cursors.split_once(',').expect("two");
    let b = b.strip_suffix(".0").expect("at the beginning");
    assert_eq!(answer.cursors, format!("{a},{b}.1"));
}

pub async fn one_poll_after_the_other_misses_nothing_and_repeats_nothing(setup: Setup) {
    let server = Server::start(setup, "[history]\nmessages = 2000\nage = \"10m\"\n").await;
    let mut publisher = Client::open(&server).await;
    let mut cursors = poll(&server, "channel=a&channel=b").await.cursors;
    let publishing = async {
        for number in 1..=300 {
            publisher.publish_acked("a", &number.to_string()).await;
            publisher.publish_acked("b", &number.to_string()).await;
        }
    };
    let polling = async {
        let (mut seen, mut polls) = (BTreeMap::from([("a", 0), ("b", 0)]), 0);
        while seen.values().any(|seen| *seen < 300) {
            let answer = poll(&server, &format!("channel=a&channel=b&since={cursors}")).await;
            for event in &answer.events {
                let channel = if event.str("channel") == "a" { "a" } else { "b" };
                let last = seen.get_mut(channel).expect("one of them");
                assert_eq!((event.kind(), event.number("seq")), ("message", *last + 1));
                assert_eq!(event.payload(), (*last + 1).to_string());
                *last += 1;
            }
            cursors = answer.cursors;
            polls += 1;
        }
        polls
    };
    let ((), polls) = tokio::join!(publishing, polling);
    assert!(polls > 2, "{polls} polls prove little");
}

pub async fn what_asks_for_nothing_that_there_is_has_its_status_and_an_error_object(setup: Setup) {
    let mut server = Server::start(setup, "[limits]\nchannels_per_client_max = 4").await;
    for (method, target, fields, status) in [
        ("GET", "/sse", "", 400),
        ("GET", "/poll", "", 400),
        ("GET", "/sse?channel=", "", 400),
        ("GET", "/sse?channel=a&channel=a", "", 400),
        ("GET", "/sse?channel=a&since=x", "", 400),
        ("GET", "/sse?channel=a", "Last-Event-ID: 7\r\n", 400),
        ("GET", "/poll?channel=a&timeout=soon", "", 400),
        ("GET", "/sse?channel=1&channel=2&channel=3&channel=4&channel=5", "", 400),
        ("POST", "/sse?channel=a", "", 405),
        ("HEAD", "/poll?channel=a", "", 405),
        ("GET", "/sse?channel=a", "Content-Length: 5\r\n", 413),
        ("GET", "/sse?channel=a", "Origin: https://other.example\r\n", 403),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: edge\r\n{fields}\r\n");
        let answer = ask(server.address, &request).await.expect("an answer");
        assert_eq!(answer.status, status, "{request}{}", answer.body);
        assert!(answer.body.starts_with(r#"{"type":"error","code":""#), "{}", answer.body);
    }
    server.assert_lives().await;
}

pub async fn pages_may_listen_where_the_configuration_says_so(setup: Setup) {
    let server = Server::start(setup, "cors = [\"https://app.example\"]\n").await;
    let origin = "Origin: https://app.example\r\n";
    let allowed = "Access-Control-Allow-Origin: https://app.example";
    let preflight = format!("OPTIONS /sse?channel=a HTTP/1.1\r\nHost: edge\r\n{origin}\r\n");
    let answer = ask(server.address, &preflight).await.expect("an answer");
    assert_eq!(answer.status, 204);
    assert!(answer.head.contains(allowed) && answer.head.contains("Last-Event-ID"));
    let stream = Stream::open_with(&server, "channel=a", origin, None).await;
    assert!(stream.head.contains(allowed), "{}", stream.head);
    let request = format!("GET /poll?channel=a HTTP/1.1\r\nHost: edge\r\n{origin}\r\n");
    let answer = ask(server.address, &request).await.expect("an answer");
    assert!(answer.status == 204 && answer.head.contains(allowed), "{}", answer.head);
    assert!(answer.head.contains("Access-Control-Expose-Headers: Ringcast-Cursor"));
}

/// Publishes enough on `a` to fill what the kernels keep between them.
async fn flood(server: &Server) {
    let mut publisher = Client::open(server).await;
    let payload = format!("\"{}\"", "x".repeat(1_000));
    for _ in 0..8_000 {
        publisher.publish("a", &payload).await;
    }
    publisher.ask("1", r#""type":"ping""#).await;
}

pub async fn who_never_reads_a_stream_costs_little_and_is_let_go(setup: Setup) {
    // It is not let go before the flood has passed.
    let [interval, timeout] = [400, 200].map(|ms| patience(Duration::from_millis(ms)).as_millis());
    let config = format!(
        "[timing]\nping_interval = \"{interval}ms\"\npong_timeout = \"{timeout}ms\"\n\
         [limits]\noutbox_messages_max = 16\noutbox_bytes_max = \"64KiB\"\n"
    );
    let mut server = Server::start(setup, &config).await;
    let mut stuck = Stream::open_with(&server, "channel=a", "", Some(4096)).await;
    flood(&server).await;
    assert!(server.metric("ringcast_dropped_total").await > 1_000.0);
    assert!(server.metric_with("ringcast_memory_bytes", "line=\"replies\"").await < 40_000.0);
    let begun = Instant::now();
    while server.metric_with("ringcast_ended_total", "pong_timeout").await < 1.0 {
        assert!(begun.elapsed() < patience(Duration::from_secs(10)), "it is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What it got was in order, up to where it was cut off. The kernel takes its time with a window
    // that was closed for so long, and need not come to the end.
    let mut last = 0;
    stuck.hear_kind("subscribed").await;
    while let Some(heard) = stuck.next_within(Duration::from_secs(2)).await {
        let (from, to) = match heard.kind() {
            "gap" => (heard.number("from"), heard.number("to")),
            _ => (heard.number("seq"), heard.number("seq")),
        };
        assert_eq!(from, last + 1);
        last = to;
    }
    assert!(last > 0);
    server.assert_lives().await;
}

pub async fn where_the_rule_says_close_a_stream_is_told_why_it_ends(setup: Setup) {
    // The last word waits until the flood has passed.
    let close_timeout = patience(Duration::from_secs(5)).as_secs();
    let config = format!(
        "[[channel]]\nmatch = \"a\"\noverflow = \"close\"\n\
         [limits]\noutbox_messages_max = 4\n[timing]\nclose_timeout = \"{close_timeout}s\"\n"
    );
    let server = Server::start(setup, &config).await;
    let mut slow = Stream::open_with(&server, "channel=a", "", Some(4096)).await;
    flood(&server).await;
    let (mut last, mut error) = (0, None);
    slow.hear_kind("subscribed").await;
    while let Some(heard) = slow.next().await {
        assert!(error.is_none(), "nothing follows the last word");
        match heard.kind() {
            "message" => {
                assert_eq!(heard.number("seq"), last + 1);
                last += 1;
            }
            _ => error = Some(heard.str("code").to_owned()),
        }
    }
    assert_eq!(error.as_deref(), Some("slow_consumer"));
    assert!(last > 4 && last < 8_000, "{last} came before");
}

pub async fn who_listens_counts_in_limits_and_metrics(setup: Setup) {
    let config = "[limits]\nconnections_per_address_max = 4\n";
    let mut server = Server::start(setup, config).await;
    let begun = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = Stream::open(&server, "channel=a").await;
        stream.hear_kind("subscribed").await;
        streams.push(stream);
    }
    let request = "GET /poll?channel=a HTTP/1.1\r\nHost: edge\r\n\r\n";
    let answer = ask(server.address, request).await.expect("an answer");
    assert_eq!(answer.status, 429);
    assert!(server.metric("ringcast_clients").await >= 4.0);
    assert!(server.metric_with("ringcast_requests_total", "\"sse\"").await >= 4.0);
    streams.clear();
    loop {
        let ended = server.metric_with("ringcast_ended_total", "peer_closed").await;
        if ended >= 4.0 && server.metric("ringcast_clients").await < 1.0 {
            break;
        }
        assert!(begun.elapsed() < patience(Duration::from_secs(10)), "{ended} of 4 have ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    poll(&server, "channel=a").await;
    assert!(server.metric_with("ringcast_requests_total", "\"poll\"").await >= 1.0);
    server.assert_lives().await;
}

pub async fn in_a_drain_streams_and_polls_are_told_when_to_come_back(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\ndrain_window = \"2s\"\n").await;
    let mut stream = Stream::open(&server, "channel=a").await;
    stream.hear_kind("subscribed").await;
    let cursors = poll(&server, "channel=a").await.cursors;
    let mut waiting = TcpStream::connect(server.address).await.expect("connects");
    let request = format!("GET /poll?channel=a&since={cursors} HTTP/1.1\r\nHost: edge\r\n\r\n");
    waiting.write_all(request.as_bytes()).await.expect("sent");
    let begun = Instant::now();
    while server.metric("ringcast_clients").await < 2.0 {
        assert!(begun.elapsed() < patience(Duration::from_secs(10)), "it does not poll");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.signal(libc::SIGTERM);
    let told = polled(&answer(&mut waiting).await.expect("an answer"));
    assert_eq!((told.events[0].kind(), &told.cursors), ("goaway", &cursors));
    assert!(told.events[0].number("reconnect_after_ms") <= 2_000);
    stream.hear_kind("goaway").await;
    assert!(stream.next().await.is_none(), "it ends without a fault");
    assert!(server.ended(Duration::from_secs(10)).await.success());
}
