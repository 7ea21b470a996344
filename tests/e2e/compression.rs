//! permessage-deflate (RFC 7692) on real sockets: what is compressed says the same, costs the
//! server no more than the largest message, and whoever offers nothing notices nothing.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::client::{Client, publish_text};
use crate::on_every_setup;
use crate::raw::{Frame, Raw, frame};
use crate::server::{Server, Setup};

on_every_setup!(
    subscribers_hear_the_same_compressed_or_not,
    a_publisher_may_refer_back_to_what_it_said,
    a_bomb_closes_with_1009_and_leaves_no_memory_behind,
    broken_data_closes_with_1007,
    without_leave_nothing_is_compressed,
);

const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// A client that compresses what it says.
struct Deflating {
    raw: Raw,
    state: Compress,
}

impl Deflating {
    async fn open(server: &Server) -> Self {
        let (mut raw, answer) = Raw::open_offering(server.address, "/ws", OFFER).await;
        let answer = answer.expect("compression is agreed to");
        assert_eq!(
            answer,
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=12"
        );
        let welcome = raw.next().await.expect("a welcome");
        assert!(welcome.text().contains("welcome"));
        let state = Compress::new_with_window_bits(Compression::new(6), false, 12);
        Self { raw, state }
    }

    /// Says `text` compressed, and as how many bytes.
    async fn say(&mut self, text: &[u8]) -> usize {
        let mut payload = Vec::with_capacity(text.len() + 100);
        self.state.compress_vec(text, &mut payload, FlushCompress::Sync).expect("compressed");
        payload.truncate(payload.len() - 4);
        self.raw.send(&frame(0xc1, &payload)).await;
        payload.len()
    }

    async fn subscribe(&mut self, channel: &str) {
        let text = format!(r#"{{"type":"subscribe","id":1,"channel":"{channel}"}}"#);
        self.say(text.as_bytes()).await;
        let answer = self.raw.next_but_pings().await.expect("an answer");
        assert!(answer.text().contains(r#""type":"subscribed""#), "{}", answer.text());
    }

    async fn hear(&mut self) -> (String, bool) {
        let frame = self.raw.next_but_pings().await.expect("a frame");
        (inflated(&frame), frame.compressed)
    }
}

/// What a frame says, inflated by itself.
fn inflated(frame: &Frame) -> String {
    if !frame.compressed {
        return frame.text().to_owned();
    }
    let data = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
    let mut text = Vec::with_capacity(1 << 20);
    let mut state = Decompress::new(false);
    state.decompress_vec(&data, &mut text, FlushDecompress::Sync).expect("sound data");
    assert_eq!(state.total_in(), data.len() as u64);
    String::from_utf8(text).expect("UTF-8")
}

fn payload(number: usize) -> String {
    let records: Vec<String> = (0..30)
        .map(|record| format!(r#"{{"order":{number},"record":{record},"status":"paid"}}"#))
        .collect();
    format!("[{}]", records.join(","))
}

pub async fn subscribers_hear_the_same_compressed_or_not(setup: Setup) {
    const COUNT: usize = 40;
    let server = Server::start(setup, "").await;
    let mut compressed = Vec::new();
    for _ in 0..8 {
        let mut client = Deflating::open(&server).await;
        client.subscribe("orders").await;
        compressed.push(client);
    }
    let mut plain = Client::open(&server).await;
    plain.subscribe("orders").await;
    let mut publisher = Client::open(&server).await;
    for number in 0..COUNT {
        // What is short is sent as it is.
        let payload = if number % 2 == 0 { payload(number) } else { number.to_string() };
        publisher.publish_acked("orders", &payload).await;
        let expected = plain.hear_kind("message").await;
        assert_eq!(expected.payload(), payload);
        for client in &mut compressed {
            assert_eq!(client.hear().await, (expected.text.clone(), number % 2 == 0));
        }
    }
    // Once for all, on each shard that has somebody who wants it.
    let encoded = server.metric("ringcast_frames_encoded_total").await as usize;
    assert!(encoded <= COUNT + COUNT / 2 * setup.shards, "{encoded} messages were encoded");
    assert!(encoded >= COUNT + COUNT / 2, "{encoded} messages were encoded");
}

pub async fn a_publisher_may_refer_back_to_what_it_said(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut plain = Client::open(&server).await;
    plain.subscribe("orders").await;
    let mut publisher = Deflating::open(&server).await;
    let mut first = None;
    for number in 0..30 {
        let payload = payload(number / 10);
        let bytes = publisher.say(publish_text("orders", &payload).as_bytes()).await;
        assert_eq!(plain.hear_kind("message").await.payload(), payload);
        let first = *first.get_or_insert(bytes);
        assert!(number == 0 || bytes < first, "{bytes} bytes refer back to {first}");
    }
}

pub async fn a_bomb_closes_with_1009_and_leaves_no_memory_behind(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let bomb = vec![b' '; 48 << 20];
    let explode = async || {
        let mut client = Deflating::open(&server).await;
        let bytes = client.say(&bomb).await;
        assert!(bytes < 64 * 1024, "{bytes} bytes would be refused for their own length");
        assert_eq!(client.raw.close_code().await, 1009);
    };
    explode().await;
    let before = server.resident_bytes();
    for _ in 0..5 {
        explode().await;
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more than before");
    server.assert_lives().await;
}

pub async fn broken_data_closes_with_1007(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    for payload in [&[0x07_u8, 0xff][..], &[0xf2, 0x48, 0xcd]] {
        let mut client = Deflating::open(&server).await;
        client.raw.send(&frame(0xc1, payload)).await;
        assert_eq!(client.raw.close_code().await, 1007);
    }
    let mut client = Deflating::open(&server).await;
    client.say(b"{\"type\":\"ping\",\"t\":\"\xff\xfe\"}").await;
    assert_eq!(client.raw.close_code().await, 1007);
    server.assert_lives().await;
}

pub async fn without_leave_nothing_is_compressed(setup: Setup) {
    let server = Server::start(setup, "compression = false").await;
    let (mut raw, answer) = Raw::open_offering(server.address, "/ws", OFFER).await;
    assert_eq!(answer, None);
    raw.next().await.expect("a welcome");
    raw.say(r#"{"type":"subscribe","channel":"orders"}"#).await;
    raw.say(&publish_text("orders", &payload(1))).await;
    loop {
        let frame = raw.next_but_pings().await.expect("a frame");
        assert!(!frame.compressed);
        if frame.text().contains(r#""type":"message""#) {
            break;
        }
    }
    raw.send(&frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])).await;
    assert_eq!(raw.close_code().await, 1002);
}
