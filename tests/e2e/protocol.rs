//! RFC 6455 where a broken or hostile peer tests it: each violation has its close code, and the
//! server lives on. (The rest of the RFC is for the conformance suite.)

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::client::{Client, Event};
use crate::on_every_setup;
use crate::raw::{Raw, frame, header, upgrade_request};
use crate::server::{Server, Setup};

on_every_setup!(
    what_is_not_json_closes_with_4400,
    a_binary_frame_closes_with_1003,
    oversized_messages_close_with_1009,
    lengths_beyond_reason_close_at_the_header,
    an_unmasked_frame_closes_with_1002,
    text_that_is_not_utf8_closes_with_1007,
    a_close_is_answered_in_kind,
    half_a_frame_and_a_hang_up_harm_nobody,
    what_follows_the_handshake_in_one_packet_is_heard,
    a_handshake_and_a_message_byte_by_byte_are_heard,
    echo_gives_back_large_and_fragmented_messages,
);

pub async fn what_is_not_json_closes_with_4400(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    for text in ["hello", "", "{", r#"{"type":"ping"}}"#, "[1]", "7", r#""text""#, "{\"a\":01}"] {
        let mut client = Client::open(&server).await;
        client.say(text).await;
        let (code, reason) = client.closed().await;
        assert_eq!(code, 4400, "{text}");
        assert!(!reason.is_empty(), "{text}");
    }
    server.assert_lives().await;
}

pub async fn a_binary_frame_closes_with_1003(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    client.send(Message::binary(br#"{"type":"ping","id":1}"#.to_vec())).await;
    assert_eq!(client.closed().await.0, 1003);
    server.assert_lives().await;
}

pub async fn oversized_messages_close_with_1009(setup: Setup) {
    let mut server = Server::start(setup, "[limits]\nmessage_bytes_max = 1000").await;
    let fill = |length: usize| {
        let frame = r#"{"type":"ping","id":1,"x":""}"#.len();
        format!(r#"{{"type":"ping","id":1,"x":"{}"}}"#, "x".repeat(length - frame))
    };
    let mut client = Client::open(&server).await;
    client.say(fill(1000)).await;
    client.hear_kind("pong").await;
    client.say(fill(1001)).await;
    assert_eq!(client.closed().await.0, 1009);

    // In fragments: the sum counts, and the byte too many is not waited for.
    let mut raw = Raw::open(server.address, "/ws").await;
    raw.send(&frame(0x01, &[b' '; 600])).await;
    raw.send(&header(0x80, 401)).await;
    assert_eq!(raw.close_code().await, 1009);
    server.assert_lives().await;
}

pub async fn lengths_beyond_reason_close_at_the_header(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let before = server.resident_bytes();
    for (length, codes) in [
        (1_u64 << 63, [1002, 1009]),
        (u64::MAX, [1002, 1009]),
        (1 << 62, [1009, 1009]),
        (1 << 40, [1009, 1009]),
        (65_537, [1009, 1009]),
    ] {
        let mut raw = Raw::open(server.address, "/ws").await;
        raw.send(&header(0x81, length)).await;
        let code = raw.close_code().await;
        assert!(codes.contains(&code), "{length} closed with {code}");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "a claimed length cost {grown} bytes");
    server.assert_lives().await;
}

pub async fn an_unmasked_frame_closes_with_1002(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let mut raw = Raw::open(server.address, "/ws").await;
    raw.send(b"\x81\x02{}").await;
    assert_eq!(raw.close_code().await, 1002);
    server.assert_lives().await;
}

pub async fn text_that_is_not_utf8_closes_with_1007(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    // The bad byte is enough: the rest of the frame never comes.
    let whole = frame(0x81, b"{\"type\":\"\xff                    ");
    let mut raw = Raw::open(server.address, "/ws").await;
    raw.send(&whole[..6 + 10]).await;
    assert_eq!(raw.close_code().await, 1007);
    server.assert_lives().await;
}

pub async fn a_close_is_answered_in_kind(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut client = Client::open(&server).await;
    client.subscribe("a").await;
    let goodbye = CloseFrame { code: 3001.into(), reason: "enough".into() };
    client.send(Message::Close(Some(goodbye))).await;
    assert_eq!(client.closed().await.0, 3001);
    assert!(matches!(client.event().await, Event::Gone), "the server closes the connection");

    let mut raw = Raw::open(server.address, "/ws").await;
    raw.send(&frame(0x88, b"")).await;
    let mut answer = raw.next().await.expect("something");
    while answer.opcode != 8 {
        answer = raw.next().await.expect("a close frame");
    }
    assert!(answer.payload.is_empty() || answer.close_code() == 1000, "{answer:?}");
    assert_eq!(raw.next().await, None);
}

pub async fn half_a_frame_and_a_hang_up_harm_nobody(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let whole = frame(0x81, br#"{"type":"subscribe","channel":"a"}"#);
    for cut in 0..whole.len() {
        let mut raw = Raw::open(server.address, "/ws").await;
        raw.send(&whole[..cut]).await;
        if cut % 2 == 0 {
            // A reset instead of an end.
            socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(raw);
    }
    let request = upgrade_request("/ws");
    for cut in (0..request.len()).step_by(7) {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        stream.write_all(&request.as_bytes()[..cut]).await.expect("sent");
    }
    server.assert_lives().await;
    let limit = Duration::from_secs(10);
    let gone = timeout(limit, async {
        while server.metric("ringcast_connections").await > 0.0 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("every one of them is forgotten");
}

pub async fn what_follows_the_handshake_in_one_packet_is_heard(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let mut packet = upgrade_request("/ws").into_bytes();
    packet.extend(frame(0x81, br#"{"type":"ping","id":1}"#));
    packet.extend(&frame(0x81, br#"{"type":"ping","id":2}"#)[..9]);
    stream.write_all(&packet).await.expect("sent");
    let mut raw = Raw::upgraded(stream).await;
    raw.next().await.expect("the welcome");
    assert_eq!(raw.next().await.expect("a pong").text(), r#"{"type":"pong","id":1}"#);
    raw.send(&frame(0x81, br#"{"type":"ping","id":2}"#)[9..]).await;
    assert_eq!(raw.next().await.expect("a pong").text(), r#"{"type":"pong","id":2}"#);
}

pub async fn a_handshake_and_a_message_byte_by_byte_are_heard(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    stream.set_nodelay(true).expect("a socket");
    for byte in upgrade_request("/ws?room=1").bytes() {
        stream.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut raw = Raw::upgraded(stream).await;
    for byte in frame(0x81, r#"{"type":"ping","id":"é😀"}"#.as_bytes()) {
        raw.send(&[byte]).await;
        sleep(Duration::from_micros(200)).await;
    }
    raw.next().await.expect("the welcome");
    assert_eq!(raw.next().await.expect("a pong").text(), r#"{"type":"pong","id":"é😀"}"#);
}

pub async fn echo_gives_back_large_and_fragmented_messages(setup: Setup) {
    const BYTES: usize = 4 << 20;
    let config = "[limits]\nmessage_bytes_max = \"16MiB\"\noutbox_bytes_max = \"32MiB\"";
    let server = Server::start_with(setup, config, "serve", &["--echo"]).await;
    let payload: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();

    let mut raw = Raw::open(server.address, "/echo").await;
    raw.send(&frame(0x82, &payload)).await;
    let back = raw.next().await.expect("the echo");
    assert!(back.opcode == 2 && back.payload == payload, "{} bytes came back", back.payload.len());

    // 65,536 fragments of 64 bytes, a ping among them.
    let mut packet = Vec::new();
    let pieces = BYTES / 64;
    for (index, piece) in payload.chunks(64).enumerate() {
        let fin = if index + 1 == pieces { 0x80 } else { 0 };
        packet.extend(frame(fin | if index == 0 { 2 } else { 0 }, piece));
        if index == pieces / 2 {
            packet.extend(frame(0x89, b"between"));
        }
    }
    raw.send(&packet).await;
    let pong = raw.next().await.expect("the pong");
    assert_eq!((pong.opcode, pong.payload.as_slice()), (10, &b"between"[..]));
    let back = raw.next().await.expect("the echo");
    assert!(back.opcode == 2 && back.payload == payload, "{} bytes came back", back.payload.len());
}
