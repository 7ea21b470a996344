//! How connections end that nobody closes, and who is not let in.

use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Error;

use crate::client::{Client, Event};
use crate::on_every_setup;
use crate::raw::{Raw, answer, ask, upgrade_request};
use crate::server::{Server, Setup, patience};

on_every_setup!(
    a_peer_that_answers_no_ping_is_ended_and_one_that_does_stays,
    any_received_byte_is_life,
    a_client_without_a_message_is_ended_when_idle_timeout_says_so,
    a_close_that_nobody_answers_ends_after_close_timeout,
    connections_beyond_the_limit_get_503_until_one_leaves,
    connections_beyond_the_limit_of_an_address_are_refused,
    hundreds_of_connections_at_once_are_all_served,
);

pub async fn a_peer_that_answers_no_ping_is_ended_and_one_that_does_stays(setup: Setup) {
    let config = "[timing]\nping_interval = \"300ms\"\npong_timeout = \"300ms\"";
    let server = Server::start(setup, config).await;
    let mut good = Client::open(&server).await;
    let mut dead = Raw::open(server.address, "/ws").await;
    let opened = Instant::now();
    let staying = tokio::spawn(async move {
        while opened.elapsed() < Duration::from_millis(2500) {
            let event = good.event_within(Duration::from_millis(100)).await;
            assert!(event.is_none(), "{event:?}");
        }
        good.heard_nothing_more().await;
        good.pings
    });
    let mut pings = 0;
    while let Some(frame) = dead.next().await {
        pings += usize::from(frame.opcode == 9);
    }
    let lasted = opened.elapsed();
    assert!(pings >= 1, "it was asked before it was given up");
    assert!(lasted >= Duration::from_millis(300), "given up after {lasted:?}");
    assert!(lasted < Duration::from_millis(2500), "given up after {lasted:?} only");
    let answered = staying.await.expect("the other one stays");
    assert!(answered >= 4, "{answered} pings in 2.5 s");
}

pub async fn any_received_byte_is_life(setup: Setup) {
    let config = "[timing]\nping_interval = \"300ms\"\npong_timeout = \"300ms\"";
    let server = Server::start(setup, config).await;
    let mut raw = Raw::open(server.address, "/ws").await;
    // A large message on a thin line: no pong fits in between, but bytes keep coming.
    let text = format!(r#"{{"type":"ping","id":"thin line","x":"{}"}}"#, "x".repeat(100));
    let frame = crate::raw::frame(0x81, text.as_bytes());
    for byte in frame.chunks(5) {
        raw.send(byte).await;
        sleep(Duration::from_millis(60)).await;
    }
    loop {
        let frame = raw.next_but_pings().await.expect("it is still there");
        if frame.text().contains("thin line") {
            break;
        }
    }
}

pub async fn a_client_without_a_message_is_ended_when_idle_timeout_says_so(setup: Setup) {
    let config =
        "[timing]\nping_interval = \"300ms\"\npong_timeout = \"300ms\"\nidle_timeout = \"700ms\"";
    let server = Server::start(setup, config).await;
    let mut busy = Client::open(&server).await;
    let mut idle = Client::open(&server).await;
    let opened = Instant::now();
    let working = tokio::spawn(async move {
        while opened.elapsed() < Duration::from_millis(2000) {
            busy.heard_nothing_more().await;
            sleep(Duration::from_millis(150)).await;
        }
    });
    let (code, reason) = idle.closed().await;
    let lasted = opened.elapsed();
    assert!(code >= 1000 && !reason.is_empty(), "{code} {reason}");
    assert!((500..2500).contains(&lasted.as_millis()), "ended after {lasted:?}");
    working.await.expect("who talks stays");
}

pub async fn a_close_that_nobody_answers_ends_after_close_timeout(setup: Setup) {
    let server = Server::start(setup, "[timing]\nclose_timeout = \"400ms\"").await;
    let mut raw = Raw::open(server.address, "/ws").await;
    raw.say("not json").await;
    assert_eq!(raw.close_code().await, 4400);
    let closed = Instant::now();
    assert_eq!(raw.next().await, None);
    let waited = closed.elapsed();
    assert!(waited < Duration::from_millis(3000), "still there after {waited:?}");
}

pub async fn connections_beyond_the_limit_get_503_until_one_leaves(setup: Setup) {
    let mut server = Server::start(setup, "[limits]\nconnections_max = 4").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::open(&server).await);
    }
    for _ in 0..3 {
        let refused = ask(server.address, &upgrade_request("/ws")).await.expect("an answer");
        assert_eq!(refused.status, 503, "{}", refused.head);
        let seconds = refused.header("Retry-After").expect("when to come back");
        assert!(seconds.parse::<u32>().is_ok(), "{seconds}");
    }
    for client in &mut clients {
        client.heard_nothing_more().await;
    }
    clients.pop();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match Client::try_open(&server, None).await {
            Ok(client) => {
                clients.push(client);
                break;
            }
            Err(Error::Http(_) | Error::Io(_)) => {
                assert!(Instant::now() < deadline, "the place is never given to another");
                sleep(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    drop(clients);
    sleep(Duration::from_millis(300)).await;
    server.assert_lives().await;
}

pub async fn connections_beyond_the_limit_of_an_address_are_refused(setup: Setup) {
    let server = Server::start(setup, "[limits]\nconnections_per_address_max = 3").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::open(&server).await);
    }
    let refused = ask(server.address, &upgrade_request("/ws")).await.expect("an answer");
    assert_eq!(refused.status, 429, "{}", refused.head);
    assert!(refused.header("Retry-After").is_some(), "{}", refused.head);
    // Somebody else has places of their own.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 2], 0).into()).expect("loopback is a whole network");
    let mut elsewhere: TcpStream = socket.connect(server.address).await.expect("connects");
    let request = upgrade_request("/ws");
    tokio::io::AsyncWriteExt::write_all(&mut elsewhere, request.as_bytes()).await.expect("sent");
    Raw::upgraded(elsewhere).await;
    // A refused one does not take a place, and one that leaves gives it back.
    clients.pop();
    let deadline = Instant::now() + Duration::from_secs(5);
    while Client::try_open(&server, None).await.is_err() {
        assert!(Instant::now() < deadline, "the place is never given to another");
        sleep(Duration::from_millis(20)).await;
    }
    let mut page = TcpStream::connect(server.address).await.expect("connects");
    drop(clients);
    sleep(Duration::from_millis(200)).await;
    tokio::io::AsyncWriteExt::write_all(&mut page, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("sent");
    assert!(answer(&mut page).await.is_some());
}

pub async fn hundreds_of_connections_at_once_are_all_served(setup: Setup) {
    // All of them are in their handshakes for as long as this machine needs.
    let timeout = patience(Duration::from_secs(10)).as_secs();
    let config = format!("[timing]\nhandshake_timeout = \"{timeout}s\"");
    let server = Server::start(setup, &config).await;
    let mut opening = Vec::new();
    for _ in 0..300 {
        // Opened from one thread, but all under way at the same time.
        opening.push(Client::open(&server));
    }
    let mut clients = futures_util::future::join_all(opening).await;
    futures_util::future::join_all(clients.iter_mut().map(|client| client.subscribe("a"))).await;
    clients[0].publish("a", "1").await;
    for client in &mut clients {
        assert!(matches!(client.event().await, Event::Text(heard) if heard.kind() == "message"));
    }
    assert!((server.metric("ringcast_connections").await - 300.0).abs() < 0.5);
    drop(clients);
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    while server.metric("ringcast_connections").await > 0.0 {
        assert!(Instant::now() < deadline, "connections that have ended are still counted");
        sleep(Duration::from_millis(20)).await;
    }
}
