//! SIGTERM: everybody is told when to come back, nobody loses what was acknowledged, and the
//! process is gone by its deadline.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client::{Client, Event};
use crate::on_every_setup;
use crate::raw::get;
use crate::server::{Server, Setup, patience};

on_every_setup!(
    every_subscriber_gets_goaway_then_1001_spread_over_the_window,
    a_second_signal_ends_at_once,
    without_clients_it_ends_at_once_and_interrupt_does_the_same,
    a_stuck_client_does_not_hold_up_the_end,
    draining_takes_no_new_clients_and_says_so,
);

const SUBSCRIBERS: usize = 1000;

pub async fn every_subscriber_gets_goaway_then_1001_spread_over_the_window(setup: Setup) {
    // Few enough that a slow machine's clients do not read long before they meet their good-bye.
    const MESSAGES: u64 = 10;
    // Long enough for this machine to say a thousand good-byes in.
    let window = patience(Duration::from_millis(2000));
    // Where a thousand clients take half a minute to come, the first have answered no ping by then.
    let (ms, ping) = (window.as_millis(), "ping_interval = \"10m\"");
    let config = format!("[timing]\ndrain_window = \"{ms}ms\"\n{ping}");
    let mut server = Server::start(setup, &config).await;
    let mut clients = Vec::new();
    for _ in 0..SUBSCRIBERS / 50 {
        clients.extend(join_all((0..50).map(|_| Client::open(&server))).await);
    }
    join_all(clients.iter_mut().map(|client| client.subscribe("a"))).await;
    let mut publisher = Client::open(&server).await;
    for seq in 1..=MESSAGES {
        assert_eq!(publisher.publish_acked("a", &seq.to_string()).await, seq);
    }
    // Acknowledged, and the next thing that happens is the signal.
    server.signal(libc::SIGTERM);
    let signalled = Instant::now();
    let ends = join_all(clients.iter_mut().map(async |client| {
        // The notice may overtake a message that comes from another shard; the end may not.
        let (mut next, mut goaway) = (1, None);
        loop {
            match client.event().await {
                Event::Text(heard) if heard.kind() == "message" => {
                    assert_eq!(heard.number("seq"), next);
                    next += 1;
                }
                Event::Text(heard) => {
                    assert_eq!((heard.kind(), goaway), ("goaway", None), "{}", heard.text);
                    goaway = Some(heard.number("reconnect_after_ms"));
                }
                Event::Close(code, reason) => {
                    assert_eq!(code, 1001, "{reason}");
                    break;
                }
                Event::Gone => panic!("no close frame"),
            }
        }
        assert_eq!(next, MESSAGES + 1, "what was acknowledged is delivered");
        (goaway.expect("a goaway before the close"), signalled.elapsed())
    }))
    .await;
    let status = server.ended(window + Duration::from_secs(6)).await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert_eq!(publisher.closed().await.0, 1001);

    // Spread: no quarter of the window is without its share, and none has nearly all.
    let mut quarters = [0_usize; 4];
    for (_, at) in &ends {
        let quarter = (at.as_millis() * 4 / window.as_millis()).min(3) as usize;
        quarters[quarter] += 1;
    }
    assert!(quarters.iter().all(|count| *count >= SUBSCRIBERS / 20), "{quarters:?}");
    assert!(quarters.iter().all(|count| *count <= SUBSCRIBERS * 6 / 10), "{quarters:?}");
    let shortest = ends.iter().map(|(goaway, _)| *goaway).min().expect("some");
    let longest = ends.iter().map(|(goaway, _)| *goaway).max().expect("some");
    let spread = longest - shortest;
    assert!(u128::from(spread) >= window.as_millis() / 2, "all come back at once: {spread} ms");
}

pub async fn a_second_signal_ends_at_once(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\ndrain_window = \"30s\"").await;
    let mut clients = join_all((0..20).map(|_| Client::open(&server))).await;
    server.signal(libc::SIGTERM);
    clients[0].hear_kind("goaway").await;
    assert!(server.child.try_wait().expect("waitable").is_none(), "the window is not over");
    server.signal(libc::SIGTERM);
    let signalled = Instant::now();
    server.ended(Duration::from_secs(3)).await;
    assert!(signalled.elapsed() < Duration::from_secs(2));
}

pub async fn without_clients_it_ends_at_once_and_interrupt_does_the_same(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\ndrain_window = \"30s\"").await;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        server.signal(signal);
        let status = server.ended(Duration::from_secs(3)).await;
        assert_eq!(status.code(), Some(0), "{}", server.log());
        server.restart().await;
    }
}

pub async fn a_stuck_client_does_not_hold_up_the_end(setup: Setup) {
    let config = "[timing]\ndrain_window = \"500ms\"\nclose_timeout = \"500ms\"";
    let mut server = Server::start(setup, config).await;
    let mut stuck = Client::open_with(&server, Some(4096)).await;
    stuck.subscribe("a").await;
    let half_open = TcpStream::connect(server.address).await.expect("connects");
    let mut publisher = Client::open(&server).await;
    for _ in 0..200 {
        publisher.publish("a", &format!("\"{}\"", "x".repeat(50_000))).await;
    }
    publisher.publish_acked("a", "1").await;
    server.signal(libc::SIGTERM);
    let status = server.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    drop((stuck, half_open));
}

pub async fn draining_takes_no_new_clients_and_says_so(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\ndrain_window = \"2s\"").await;
    let mut clients = join_all((0..50).map(|_| Client::open(&server))).await;
    server.signal(libc::SIGTERM);
    clients[0].hear_kind("goaway").await;
    sleep(Duration::from_millis(50)).await;
    // Load balancers ask before they send somebody.
    let ready = get(server.admin, "/readyz").await.expect("the operator is still answered");
    assert_eq!(ready.status, 503);
    assert!(Client::try_open(&server, None).await.is_err(), "it took a new client");
    for client in &mut clients[1..] {
        let event = client.event().await;
        assert!(matches!(&event, Event::Text(heard) if heard.kind() == "goaway"), "{event:?}");
    }
    server.ended(Duration::from_secs(9)).await;
}
