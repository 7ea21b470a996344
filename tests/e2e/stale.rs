//! Channels whose messages may be only so old: who reads late is told, and gets what is fresh.

use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use crate::client::Client;
use crate::on_every_setup;
use crate::server::{Server, Setup, patience};

on_every_setup!(
    who_reads_late_gets_nothing_old_and_is_told_what_that_was,
    who_comes_back_late_is_told_that_what_is_kept_is_too_old,
);

/// Room enough in the outbox, and little in the kernel.
const CONFIG: &str = "
max_age = \"300ms\"
[history]
messages = 1000
[limits]
outbox_messages_max = 5000
outbox_bytes_max = \"4MiB\"
[socket]
send_buffer_bytes = 4096
notsent_lowat_bytes = 2048
";

const MAX_AGE: Duration = Duration::from_millis(300);

/// For the network, and for machines with other things to do.
const PATIENCE: Duration = Duration::from_millis(700);

pub async fn who_reads_late_gets_nothing_old_and_is_told_what_that_was(setup: Setup) {
    let server = Server::start(setup, CONFIG).await;
    let mut reader = Client::open_with(&server, Some(4096)).await;
    let mut publisher = Client::open(&server).await;
    assert_eq!(reader.subscribe("a").await.number("seq"), 0);
    let began = Instant::now();
    let count = 500;
    let publishing = tokio::spawn(async move {
        for number in 0..count {
            sleep_until((began + Duration::from_millis(6) * number).into()).await;
            let at = began.elapsed().as_millis();
            publisher.publish("a", &format!("[{at},\"{}\"]", "x".repeat(400))).await;
        }
        publisher
    });
    sleep(Duration::from_millis(2_000)).await;
    let (mut last, mut stale, mut old, mut fresh) = (0, 0, 0, 0);
    while last < u64::from(count) {
        let heard = reader.hear().await;
        if heard.kind() == "gap" {
            assert_eq!((heard.number("from"), heard.str("reason")), (last + 1, "stale"));
            last = heard.number("to");
            stale += last - heard.number("from") + 1;
            continue;
        }
        assert_eq!(heard.number("seq"), last + 1, "{}", heard.text);
        last += 1;
        let at = heard.payload()[1..].split(',').next().and_then(|at| at.parse().ok());
        let age = began.elapsed() - Duration::from_millis(at.expect("a time"));
        if age < MAX_AGE + patience(PATIENCE) {
            fresh += 1;
        } else {
            // What the kernel had before the reader began nobody could drop; it is not much.
            old += 1;
            assert_eq!(fresh, 0, "{} was {age:?} old", heard.text);
        }
    }
    assert!(old < 120, "{old} of those that waited were old");
    assert!(stale > 50 && fresh > 50, "{stale} stale and {fresh} fresh ones prove little");
    publishing.await.expect("everything is published");
}

pub async fn who_comes_back_late_is_told_that_what_is_kept_is_too_old(setup: Setup) {
    let server = Server::start(setup, CONFIG).await;
    let mut publisher = Client::open(&server).await;
    for number in 1..=3 {
        assert_eq!(publisher.publish_acked("a", "0").await, number);
    }
    sleep(MAX_AGE * 2).await;
    // Several connections, so that with several shards some are not on the channel's home.
    for next in 4..8 {
        assert_eq!(publisher.publish_acked("a", "1").await, next);
        let mut reader = Client::open(&server).await;
        let request = r#""type":"subscribe","channel":"a","since":{"last":100}"#;
        let answer = reader.ask("1", request).await;
        assert_eq!((answer.number("from"), answer.number("seq")), (1, next), "{}", answer.text);
        let gap = reader.hear_kind("gap").await;
        assert_eq!((gap.number("from"), gap.str("reason")), (1, "stale"));
        assert!(gap.number("to") >= 3, "{}", gap.text);
        for seq in gap.number("to") + 1..=next {
            assert_eq!(reader.hear_kind("message").await.number("seq"), seq);
        }
        reader.heard_nothing_more().await;
    }
}
