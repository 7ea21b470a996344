//! `POST /publish`: for whoever has something to say and no WebSocket to say it on.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Client;
use crate::on_every_setup;
use crate::raw::{Answer, answer, ask};
use crate::server::{Server, Setup, patience};

on_every_setup!(
    an_object_reaches_subscribers_and_its_ack_is_the_response,
    a_batch_is_answered_line_by_line_in_order,
    a_batch_with_keys_can_be_sent_again,
    answers_come_while_the_batch_is_still_being_sent,
    ten_thousand_lines_are_answered_at_the_readers_pace,
    what_is_wrong_has_its_status_and_an_error_object,
    a_body_that_is_slow_or_endless_costs_little_and_ends_clearly,
    pages_may_publish_where_the_configuration_says_so,
    publishes_count_in_limits_and_metrics,
    a_batch_in_a_drain_is_answered_and_ends,
);

fn request(fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /publish HTTP/1.1\r\nHost: edge\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

const BY_LINE: &str = "Content-Type: application/x-ndjson\r\n";

async fn publish(server: &Server, fields: &str, body: &str) -> Answer {
    ask(server.address, &request(fields, body)).await.expect("an answer")
}

pub async fn an_object_reaches_subscribers_and_its_ack_is_the_response(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut subscriber = Client::open(&server).await;
    // Several channels, so that some have their home on the shard that accepts and some do not.
    for number in 0..8 {
        let channel = format!("orders {number}");
        subscriber.subscribe(&channel).await;
        for (seq, fields) in ["", "Content-Type: application/json\r\n"].iter().enumerate() {
            let body =
                format!("{{\"channel\":\"{channel}\",\n\"payload\":[1,  -0.0], \"id\":\"x\"}}\n");
            let answer = publish(&server, fields, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
            let seq = seq + 1;
            let ack = format!(
                "{{\"type\":\"ack\",\"id\":\"x\",\"channel\":\"{channel}\",\"seq\":{seq}}}\n"
            );
            assert_eq!(answer.body, ack);
            let heard = subscriber.hear_kind("message").await;
            assert_eq!(heard.payload(), "[1,  -0.0]", "byte for byte");
            assert_eq!(heard.number("seq"), seq as u64);
        }
    }
    // In chunks, and by somebody who asks for leave first.
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let head = "POST /publish HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\
                Expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut leave = [0; 25];
    timeout(patience(Duration::from_secs(10)), stream.read_exact(&mut leave))
        .await
        .expect("in time")
        .expect("open");
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    let chunks = "1b\r\n{\"channel\":\"orders 0\",\"payl\r\n7\r\noad\":7}\r\n0\r\n\r\n";
    stream.write_all(chunks.as_bytes()).await.expect("sent");
    let told = answer(&mut stream).await.expect("an answer");
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(subscriber.hear_kind("message").await.payload(), "7");
}

pub async fn a_batch_is_answered_line_by_line_in_order(setup: Setup) {
    let server = Server::start(setup, "[limits]\nmessage_bytes_max = 256").await;
    let mut lines = Vec::new();
    for number in 0..400 {
        lines.push(match number % 10 {
            7 => format!("{{\"id\":{number},\"channel\":\"\",\"payload\":1}}"),
            8 => format!("not json {number}"),
            9 => format!("{{\"channel\":\"long\",\"payload\":\"{}\"}}", "x".repeat(300)),
            channel => {
                format!("{{\"id\":{number},\"channel\":\"c{channel}\",\"payload\":{number}}}")
            }
        });
    }
    // The last line may go without its end, and lines with nothing on them are none.
    let body = format!("\n{}\r\n\n{}", lines[0], lines[1..].join("\n"));
    let answer = publish(&server, BY_LINE, &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    let answers: Vec<&str> = answer.body.lines().collect();
    assert_eq!(answers.len(), lines.len(), "{}", answer.body);
    for (number, answer) in answers.iter().enumerate() {
        let expected = match number % 10 {
            7 => format!("{{\"type\":\"error\",\"id\":{number},\"code\":\"bad_channel\""),
            8 => "{\"type\":\"error\",\"code\":\"malformed\"".to_owned(),
            9 => "{\"type\":\"error\",\"code\":\"content_too_large\"".to_owned(),
            channel => {
                let seq = number / 10 + 1;
                format!(
                    "{{\"type\":\"ack\",\"id\":{number},\"channel\":\"c{channel}\",\"seq\":{seq}}}"
                )
            }
        };
        assert!(answer.starts_with(&expected), "line {number}: {answer}, not {expected}");
    }
}

pub async fn a_batch_with_keys_can_be_sent_again(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut subscriber = Client::open(&server).await;
    let mut body = String::new();
    for channel in 0..4 {
        subscriber.subscribe(&format!("c{channel}")).await;
        let (payload, key) = (channel, format!("key {channel}"));
        body += &format!(r#"{{"channel":"c{channel}","payload":{payload},"key":"{key}"}}"#);
        body.push('\n');
    }
    let first = publish(&server, BY_LINE, &body).await;
    let again = publish(&server, BY_LINE, &body).await;
    assert_eq!(again.body, first.body.replace(r#""seq":1}"#, r#""seq":1,"duplicate":true}"#));
    assert_eq!(again.body.lines().count(), 4);
    for _ in 0..4 {
        assert_eq!(subscriber.hear_kind("message").await.number("seq"), 1);
    }
    subscriber.heard_nothing_more().await;
}

pub async fn answers_come_while_the_batch_is_still_being_sent(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: edge\r\n{BY_LINE}Transfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut said = Vec::new();
    for number in 1..=5 {
        let line = format!("{{\"channel\":\"c{number}\",\"payload\":1,\"id\":{number}}}\n");
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        stream.write_all(chunk.as_bytes()).await.expect("sent");
        let expected = format!("\"id\":{number},\"channel\":\"c{number}\",\"seq\":1}}\n");
        while !String::from_utf8_lossy(&said).contains(&expected) {
            let read = timeout(patience(Duration::from_secs(10)), stream.read_buf(&mut said)).await;
            assert!(read.expect("in time").expect("open") > 0);
        }
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sent");
    stream.read_to_end(&mut said).await.expect("ended");
    assert!(said.ends_with(b"\r\n0\r\n\r\n"), "the answer is complete, and says so");
}

pub async fn ten_thousand_lines_are_answered_at_the_readers_pace(setup: Setup) {
    const LINES: usize = 10_000;
    let server = Server::start(setup, "[socket]\nsend_buffer_bytes = 4096").await;
    let before = server.resident_bytes();
    let body: String = (0..LINES)
        .map(|number| {
            format!("{{\"channel\":\"c{}\",\"payload\":1,\"id\":{number}}}\n", number % 7)
        })
        .collect();
    let stream = TcpStream::connect(server.address).await.expect("connects");
    let (mut reading, mut writing) = stream.into_split();
    let request = request(BY_LINE, &body);
    let sending = tokio::spawn(async move {
        writing.write_all(request.as_bytes()).await.expect("sent");
        writing
    });
    // Nobody reads the answers yet: what may wait for that is bounded.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for answers that nobody reads");
    let mut said = Vec::new();
    timeout(patience(Duration::from_secs(30)), reading.read_to_end(&mut said))
        .await
        .expect("in time")
        .expect("read");
    sending.await.expect("sent");
    let said = String::from_utf8(said).expect("text");
    let mut ids = said
        .lines()
        .filter_map(|line| line.strip_prefix("{\"type\":\"ack\",\"id\":"))
        .map(|rest| rest.split(',').next().and_then(|id| id.parse::<usize>().ok()).expect("an id"));
    assert!((0..LINES).all(|number| ids.next() == Some(number)), "in order, and all of them");
    assert!(said.ends_with("\r\n0\r\n\r\n"));
}

pub async fn what_is_wrong_has_its_status_and_an_error_object(setup: Setup) {
    let config = "[limits]\nmessage_bytes_max = 200\nbody_bytes_max = 2048\nchannels_max = 1";
    let mut server = Server::start(setup, config).await;
    let good = r#"{"channel":"a","payload":1}"#;
    // Each shard keeps its share of channels_max, but at least one channel.
    publish(&server, "", good).await;
    let plain = |line: &str| format!("{line}\r\nHost: edge\r\n\r\n");
    let long = format!("{{\"channel\":\"a\",\"payload\":\"{}\"}}", "x".repeat(300));
    let much = format!("{good}\n").repeat(100);
    for (request, status, code) in [
        (request("", "{"), 400, "malformed"),
        (request("", "[]"), 400, "malformed"),
        (request("", &format!("{good} {good}")), 400, "malformed"),
        (request("", r#"{"channel":"a"}"#), 400, "missing_field"),
        (request("", r#"{"type":"subscribe","channel":"a"}"#), 400, "unknown_type"),
        (request("", &long), 413, "content_too_large"),
        (request(BY_LINE, &much), 413, "content_too_large"),
        (plain("GET /publish HTTP/1.1"), 405, "method_not_allowed"),
        (request("Transfer-Encoding: chunked\r\n", good), 400, "bad_request"),
        (request("Origin: https://elsewhere.example\r\n", good), 403, "forbidden"),
        (
            request("", good).replace("Content-Length: 27", "Content-Length: 0x1b"),
            400,
            "bad_request",
        ),
    ] {
        let answer = ask(server.address, &request).await.expect("an answer");
        let first = request.lines().next().unwrap_or_default();
        assert_eq!(answer.status, status, "{request}: {}", answer.body);
        assert!(answer.body.contains(&format!("\"code\":\"{code}\"")), "{first}: {}", answer.body);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.header("Connection"), Some("close"));
    }
    let mut exhausted = None;
    for number in 0..20 {
        let answer = publish(&server, "", &good.replace("\"a\"", &format!("\"b{number}\""))).await;
        if answer.status != 200 {
            exhausted = Some(answer);
        }
    }
    let exhausted = exhausted.expect("channels_max is reached");
    assert_eq!(exhausted.status, 503);
    assert!(
        exhausted.body.contains("channels_exhausted") && exhausted.header("Retry-After").is_some()
    );
    server.assert_lives().await;
}

pub async fn a_body_that_is_slow_or_endless_costs_little_and_ends_clearly(setup: Setup) {
    let config = "[timing]\nrequest_timeout = \"700ms\"\n[limits]\nbody_bytes_max = \"4MiB\"";
    let mut server = Server::start(setup, config).await;
    let before = server.resident_bytes();

    // Ten gigabytes that are announced are not even begun.
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: edge\r\n{BY_LINE}Content-Length: {}\r\n\r\n",
        10_u64 << 30
    );
    assert_eq!(ask(server.address, &head).await.expect("an answer").status, 413);

    // Without an announcement they end at the bound, as fast as they come: here in one line.
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: edge\r\n{BY_LINE}Transfer-Encoding: chunked\r\n\r\n"
    );
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
    let mut sent = 0;
    while sent < 1 << 30 && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken of a body of at most 4 MiB");
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for a line that is too long");

    // Slowly: a byte now and then buys no time.
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let started = Instant::now();
    let (mut reading, mut writing) = stream.split();
    let dripping = async {
        while writing.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut said = Vec::new();
    let ending = timeout(patience(Duration::from_secs(10)), reading.read_to_end(&mut said));
    tokio::select! { () = dripping => {} ended = ending => { let _ = ended.expect("in time"); } }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with("HTTP/1.1 408 "), "after {:?}: {said}", started.elapsed());
    assert!(started.elapsed() >= Duration::from_millis(650), "not before its time");
    server.assert_lives().await;
}

pub async fn pages_may_publish_where_the_configuration_says_so(setup: Setup) {
    let server = Server::start(setup, "cors = [\"https://app.example\"]").await;
    let body = r#"{"channel":"a","payload":1}"#;
    let origin = |origin: &str| format!("Origin: {origin}\r\n");
    let allowed = "Access-Control-Allow-Origin";

    let preflight = "OPTIONS /publish HTTP/1.1\r\nHost: edge\r\nOrigin: https://app.example\r\n\
                     Access-Control-Request-Method: POST\r\n\
                     Access-Control-Request-Headers: content-type\r\n\r\n";
    let answer = ask(server.address, preflight).await.expect("an answer");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header(allowed), Some("https://app.example"));
    assert!(answer.header("Access-Control-Allow-Methods").is_some_and(|it| it.contains("POST")));
    let headers = answer.header("Access-Control-Allow-Headers").expect("there");
    assert!(headers.to_ascii_lowercase().contains("content-type"));

    let answer = publish(&server, &origin("https://app.example"), body).await;
    assert_eq!((answer.status, answer.header(allowed)), (200, Some("https://app.example")));
    let answer = publish(&server, &origin("https://app.example"), "{").await;
    assert_eq!((answer.status, answer.header(allowed)), (400, Some("https://app.example")));
    let answer = publish(&server, &origin("https://elsewhere.example"), body).await;
    assert_eq!((answer.status, answer.header(allowed)), (403, None));
    let answer = publish(&server, &origin("http://edge"), body).await;
    assert_eq!((answer.status, answer.header(allowed)), (200, None), "the server's own page");
}

pub async fn publishes_count_in_limits_and_metrics(setup: Setup) {
    let server = Server::start(setup, "[limits]\nconnections_per_address_max = 2").await;
    for _ in 0..5 {
        let body = "{\"channel\":\"a\",\"payload\":1}\n{\"channel\":\"a\"}\n";
        assert_eq!(publish(&server, BY_LINE, body).await.status, 200);
    }
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    loop {
        let requests = server.metric("ringcast_requests_total").await;
        let publishes = server.metric("ringcast_publishes_total").await;
        let errors = server.metric("ringcast_errors_total").await;
        let connections = server.metric("ringcast_connections").await;
        if [requests, publishes, errors, connections] == [5.0, 5.0, 5.0, 0.0] {
            break;
        }
        let seen = (requests, publishes, errors, connections);
        assert!(Instant::now() < deadline, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Two that have not finished are as many as one address may have.
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.expect("connects");
        stream.write_all(&request("", "{}").as_bytes()[..50]).await.expect("sent");
        unfinished.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = publish(&server, "", "{}").await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("Retry-After").is_some());
}

pub async fn a_batch_in_a_drain_is_answered_and_ends(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\ndrain_window = \"2s\"").await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let head =
        format!("POST /publish HTTP/1.1\r\nHost: edge\r\n{BY_LINE}Content-Length: 5000\r\n\r\n");
    let line = r#"{"channel":"a","payload":1}"#;
    stream.write_all(format!("{head}{line}\n").as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.signal(libc::SIGTERM);
    stream.write_all(format!("{line}\n").as_bytes()).await.expect("sent");
    let told = answer(&mut stream).await.expect("an answer that is complete");
    let lines: Vec<&str> = told.body.lines().collect();
    assert!(lines[0].contains(r#""seq":1"#) && lines[1].contains(r#""seq":2"#), "{}", told.body);
    assert!(lines[2].contains(r#""code":"unavailable""#), "{}", told.body);
    drop(stream);
    assert!(server.ended(Duration::from_secs(5)).await.success());
}
