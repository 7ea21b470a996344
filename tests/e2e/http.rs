//! HTTP on both listeners: every refusal has its status, and nothing that is sent there costs
//! more than it should.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Client;
use crate::on_every_setup;
use crate::raw::{self, Raw, answer, ask, get, upgrade_request};
use crate::server::{Server, Setup};

on_every_setup!(
    the_page_and_the_client_are_served,
    each_bad_request_has_its_status,
    a_slow_head_is_timed_out_with_408,
    a_hundred_megabytes_without_a_newline_are_bounded,
    the_admin_pages_answer_and_lead_who_is_lost,
    metrics_parse_and_count,
);

pub async fn the_page_and_the_client_are_served(setup: Setup) {
    const PAGE: &str = include_str!("../../src/web/index.html");
    const CLIENT: &str = include_str!("../../src/web/ringcast.js");
    const TYPES: &str = include_str!("../../src/web/ringcast.d.ts");
    let server = Server::start(setup, "").await;
    for (path, content_type, source) in [
        ("/", "text/html; charset=utf-8", PAGE),
        ("/?a=b", "text/html; charset=utf-8", PAGE),
        ("/ringcast.js", "text/javascript; charset=utf-8", CLIENT),
        ("/ringcast.d.ts", "application/typescript; charset=utf-8", TYPES),
    ] {
        let answer = get(server.address, path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("Content-Type"), Some(content_type));
        assert!(answer.body == source, "{path}");
        let length = answer.header("Content-Length").expect("a length").to_owned();
        assert_eq!(length, answer.body.len().to_string());

        let request = format!("HEAD {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
        let head = ask(server.address, &request).await.expect("an answer");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("Content-Length"), Some(length.as_str()));
    }
}

pub async fn each_bad_request_has_its_status(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let upgrade = upgrade_request("/ws");
    let with = |from: &str, to: &str| {
        assert!(upgrade.contains(from), "{from}");
        upgrade.replace(from, to)
    };
    let plain = |line: &str| format!("{line}\r\nHost: edge\r\n\r\n");
    let fat = format!("GET / HTTP/1.1\r\nHost: edge\r\nCookie: {}\r\n\r\n", "c".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: edge\r\n{}\r\n", "A: b\r\n".repeat(200));
    for (request, status, field) in [
        (plain("GET /nothing HTTP/1.1"), 404, None),
        (upgrade_request("/echo"), 404, None),
        (plain("POST / HTTP/1.1"), 405, Some(("Allow", "GET, HEAD"))),
        (with("GET", "POST"), 405, None),
        (plain("GET /ws HTTP/1.1"), 426, Some(("Upgrade", "websocket"))),
        (with("Version: 13", "Version: 12"), 426, Some(("Sec-WebSocket-Version", "13"))),
        (with("Version: 13", "Version: x"), 426, Some(("Sec-WebSocket-Version", "13"))),
        (with("Host: edge\r\n", ""), 400, None),
        (with("Connection: Upgrade\r\n", ""), 0, None),
        (with(raw::KEY, "c2hvcnQ="), 400, None),
        (with(raw::KEY, ""), 400, None),
        (with("\r\nHost", "\r\n Folded: x\r\nHost"), 400, None),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400, None),
        ("hello\r\n\r\n".to_owned(), 400, None),
        (fat, 431, None),
        (many, 431, None),
    ] {
        let first = request.lines().next().unwrap_or_default().to_owned();
        let answer = ask(server.address, &request).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {first:?}"));
        if status == 0 {
            // No upgrade was asked for: 400 and 426 both say it.
            assert!(matches!(answer.status, 400 | 426), "{first:?}: {}", answer.head);
        } else {
            assert_eq!(answer.status, status, "{first:?}: {}\n{}", answer.head, answer.body);
        }
        assert_eq!(answer.body.trim_end().lines().count(), 1, "one clear line: {}", answer.body);
        if let Some((name, value)) = field {
            assert_eq!(answer.header(name), Some(value), "{first:?}: {}", answer.head);
        }
    }
    server.assert_lives().await;
}

pub async fn a_slow_head_is_timed_out_with_408(setup: Setup) {
    let mut server = Server::start(setup, "[timing]\nhandshake_timeout = \"400ms\"").await;
    let mut silent = TcpStream::connect(server.address).await.expect("connects");
    let mut dripping = TcpStream::connect(server.address).await.expect("connects");
    let started = Instant::now();
    // Bytes that keep coming do not buy time: the whole head has to be there.
    for byte in upgrade_request("/ws").bytes() {
        if dripping.write_all(&[byte]).await.is_err() || started.elapsed().as_millis() > 1500 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let late = answer(&mut dripping).await.expect("an answer");
    assert_eq!(late.status, 408, "{}", late.head);
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(5), silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "who says nothing is sent away too");
    server.assert_lives().await;
}

pub async fn a_hundred_megabytes_without_a_newline_are_bounded(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    let before = server.resident_bytes();
    let mut peak = before;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let chunk = vec![b'a'; 1 << 20];
    let mut sent = 0;
    let sending = async {
        while sent < 100 {
            if stream.write_all(&chunk).await.is_err() {
                break;
            }
            sent += 1;
            peak = peak.max(server.resident_bytes());
        }
    };
    timeout(Duration::from_secs(20), sending)
        .await
        .expect("taken or refused, but not left hanging");
    assert!(peak - before < 16 << 20, "{} bytes for {sent} MiB", peak - before);

    // A smaller one, so that nothing of the answer can be lost to a reset.
    let line = format!("GET /{}", "a".repeat(20_000));
    let refused = ask(server.address, &line).await.expect("an answer");
    assert_eq!(refused.status, 431, "{}", refused.head);
    server.assert_lives().await;
}

pub async fn the_admin_pages_answer_and_lead_who_is_lost(setup: Setup) {
    let mut server = Server::start(setup, "").await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(server.admin, path).await.expect("an answer").status, 200, "{path}");
    }
    let lost = get(server.admin, "/").await.expect("an answer");
    assert_eq!(lost.status, 404);
    assert!(lost.body.contains("/metrics"), "{}", lost.body);
    // A WebSocket client at the wrong door.
    let wrong = upgrade_request("/ws").replace("Upgrade\r\n", "Upgrade, close\r\n");
    assert_eq!(ask(server.admin, &wrong).await.expect("an answer").status, 404);
    server.assert_lives().await;
}

pub async fn metrics_parse_and_count(setup: Setup) {
    let server = Server::start(setup, "").await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::open(&server).await;
        client.subscribe("count").await;
        clients.push(client);
    }
    for _ in 0..10 {
        clients[0].publish_acked("count", r#""payload""#).await;
    }
    for client in &mut clients {
        for _ in 0..10 {
            client.hear_kind("message").await;
        }
    }
    get(server.address, "/nothing").await.expect("an answer");
    let mut raw = Raw::open(server.address, "/ws").await;
    raw.next().await.expect("the welcome");

    for (name, expected) in [
        ("ringcast_connections", 6.0),
        ("ringcast_subscriptions", 5.0),
        ("ringcast_channels", 1.0),
        ("ringcast_publishes_total", 10.0),
        ("ringcast_deliveries_total", 50.0),
        ("ringcast_gaps_total", 0.0),
        ("ringcast_driver_info", 1.0),
        ("ringcast_ready", 1.0),
    ] {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let value = server.metric(name).await;
            if (value - expected).abs() < 0.5 {
                break;
            }
            assert!(Instant::now() < deadline, "{name} is {value}, not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(server.metric("ringcast_accepted_total").await >= 7.0);
    assert!(server.metric("ringcast_handshakes_failed_total").await >= 1.0);
    assert!(server.metric("ringcast_sent_bytes_total").await >= 500.0);

    let page = get(server.admin, "/metrics").await.expect("the page");
    assert!(page.body.contains(&format!("driver=\"{}\"", expected_driver(setup))), "{}", page.body);
    // OpenMetrics 1.0: lines are comments or samples, every family has a type before its
    // samples, and the page ends with EOF.
    assert!(page.body.ends_with("# EOF\n"), "it ends with EOF");
    for line in page.body.lines().filter(|line| !line.starts_with("# ")) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().expect("a name");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
        let typed = page.body.lines().any(|line| {
            line.strip_prefix("# TYPE ")
                .and_then(|line| line.split(' ').next())
                .is_some_and(|family| name.starts_with(family))
        });
        assert!(typed, "{name} has no type");
    }
}

fn expected_driver(setup: Setup) -> &'static str {
    if setup.forbidden { "epoll" } else { setup.driver }
}
