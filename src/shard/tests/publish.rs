//! Publishes over HTTP.

use super::*;
use crate::hub::Publisher;
use crate::limits::PUBLISHES_UNANSWERED_MAX;

const HEAD: &str = "POST /publish HTTP/1.1\r\nHost: a\r\n";

fn object(body: &str) -> Vec<u8> {
    format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The head of a request that says that so many bytes of lines follow.
fn lines(bytes: usize) -> Vec<u8> {
    format!("{HEAD}Content-Type: application/x-ndjson\r\nContent-Length: {bytes}\r\n\r\n").into()
}

impl One {
    /// A channel whose home is here, or with the neighbour.
    fn channel(&mut self, is_here: bool) -> String {
        let mut names = (0..).map(|number| format!("c{number}"));
        let is_so = |name: &String| {
            self.text(&format!(r#"{{"type":"publish","channel":"{name}","payload":1}}"#));
            self.neighbour.next_letter().is_none() == is_here
        };
        names.find(is_so).expect("one of them")
    }

    /// The neighbour hears what it was asked, and answers as a home would.
    fn neighbour_answers(&mut self, seq: u64) {
        let letter = self.neighbour.next_letter();
        let Some(Letter::Request(Request::Publish { channel, publisher, .. })) = letter else {
            panic!("{letter:?} is no publish")
        };
        let Publisher { shard, client, id } = publisher;
        let (id, channel) = (id.expect("it is to be answered"), Arc::from(&*channel));
        let is_repeated = false;
        let published = Delivery::Published { client, id, channel, seq, is_repeated };
        self.neighbour.send(shard, Letter::Delivery(published));
        self.tick();
    }
}

#[test]
fn an_object_is_published_and_its_ack_is_the_response() {
    let mut one = One::new();
    one.text(r#"{"type":"subscribe","channel":"a"}"#);
    let peer = one.connect(1);
    one.send_from(peer, &object(r#"{"channel":"a","payload":{"x":1},"id":7}"#));
    let said = one.said_to(peer);
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\n{\"type\":\"ack\",\"id\":7,\"channel\":\"a\",\"seq\":1}\n"));
    assert!(one.said_to(SOCKET).ends_with(r#""seq":1,"payload":{"x":1}}"#));
    assert!(one.shard.driver.sockets[&peer].shut);
    one.shard.driver.completions.push_back(Completion::EndOfStream { socket: peer });
    one.tick();
    assert!(one.shard.driver.sockets[&peer].closed);
    let _ = one.shard.audit();
}

#[test]
fn what_is_not_taken_is_told_with_its_status() {
    for (body, status, code) in [
        ("{", 400, "malformed"),
        ("", 400, "malformed"),
        ("[1]", 400, "malformed"),
        (r#"{"channel":"a"}"#, 400, "missing_field"),
        (r#"{"channel":"","payload":1}"#, 400, "bad_channel"),
        (r#"{"type":"subscribe","channel":"a"}"#, 400, "unknown_type"),
    ] {
        let mut one = One::new();
        let peer = one.connect(1);
        one.send_from(peer, &object(body));
        let said = one.said_to(peer);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{body}: {said}");
        assert!(said.contains(&format!("{{\"type\":\"error\",\"code\":\"{code}\"")), "{said}");
        assert!(one.shard.driver.sockets[&peer].shut);
    }
    let mut one = One::new();
    let peer = one.connect(1);
    let broken = b"{\"channel\":\"a\",\"payload\":\"\xff\"}";
    let head = format!("{HEAD}Content-Length: {}\r\n\r\n", broken.len());
    one.send_from(peer, &[head.as_bytes(), broken].concat());
    assert!(one.said_to(peer).contains("message is not UTF-8"), "{}", one.said_to(peer));
}

#[test]
fn at_the_memory_ceiling_a_publish_is_told_to_come_back() {
    let mut one = One::with(1_500, 1);
    one.text(r#"{"type":"subscribe","channel":"a"}"#);
    one.socket().room = 0;
    let (many, single) = (one.connect(1), one.connect(2));
    // A segment of sixteen messages, and another one: it is a tick that brings too much.
    let message = r#"{"channel":"a","payload":1}"#;
    let body = format!("{message}\n").repeat(40);
    one.arrives(many, &[lines(body.len()).as_slice(), body.as_bytes()].concat());
    one.arrives(single, &object(message));
    one.tick();
    let said = one.said_to(many);
    assert_eq!(said.matches(r#""type":"ack""#).count(), 32, "{said}");
    assert_eq!(said.matches(r#""code":"overloaded""#).count(), 8, "{said}");
    let said = one.said_to(single);
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("\r\nRetry-After: 1\r\n"), "{said}");
    assert!(said.contains(r#""code":"overloaded""#), "{said}");
}

#[test]
fn answers_of_several_shards_come_in_the_order_of_the_lines() {
    let mut one = One::with(1 << 20, 2);
    let (here, there) = (one.channel(true), one.channel(false));
    let peer = one.connect(1);
    let body = format!(
        "{{\"channel\":\"{there}\",\"payload\":1,\"id\":\"first\"}}\n{{\"channel\":1}}\n\
         {{\"channel\":\"{here}\",\"payload\":3}}\n"
    );
    one.send_from(peer, &[lines(body.len()).as_slice(), body.as_bytes()].concat());
    assert_eq!(one.said_to(peer), "", "the first answer is another shard's");
    one.neighbour_answers(41);
    let said = one.said_to(peer);
    let answers: Vec<&str> = said.lines().filter(|line| line.starts_with('{')).collect();
    let first = format!(r#"{{"type":"ack","id":"first","channel":"{there}","seq":41}}"#);
    assert_eq!(answers[0], first);
    assert!(answers[1].starts_with(r#"{"type":"error","code":"wrong_type""#), "{said}");
    assert!(answers[2].starts_with(&format!(r#"{{"type":"ack","channel":"{here}""#)), "{said}");
    assert!(said.ends_with("\r\n0\r\n\r\n") && answers.len() == 3, "{said}");
    assert!(one.shard.driver.sockets[&peer].shut);
}

/// What could happen: one publish that another shard does not answer, and behind it lines that are
/// answered at once, each of which waited for it.
#[test]
fn who_asks_on_and_on_behind_an_answer_that_does_not_come_is_not_read_from() {
    let mut one = One::with(1 << 20, 2);
    let there = one.channel(false);
    let peer = one.connect(1);
    one.send_from(peer, &lines(9_999));
    one.send_from(peer, format!("{{\"channel\":\"{there}\",\"payload\":1}}\n").as_bytes());
    let paused = |one: &One| one.shard.driver.sockets[&peer].paused;
    let mut asked = 1;
    while !paused(&one) {
        one.send_from(peer, &b"{}\n".repeat(100));
        asked += 100;
        assert!(asked <= PUBLISHES_UNANSWERED_MAX + 100, "it is read from");
    }
    assert!(one.shard.held_bytes > 10_000, "what waits is counted");
    one.neighbour_answers(1);
    assert!(!paused(&one));
    let answers = one.said_to(peer).lines().filter(|line| line.starts_with('{')).count();
    assert_eq!(answers, asked as usize);
    let _ = one.shard.audit();
}

#[test]
fn who_ends_its_half_of_the_connection_is_still_answered() {
    let mut one = One::with(1 << 20, 2);
    let there = one.channel(false);
    let peer = one.connect(1);
    one.send_from(peer, &object(&format!(r#"{{"channel":"{there}","payload":1}}"#)));
    one.shard.driver.completions.push_back(Completion::EndOfStream { socket: peer });
    one.tick();
    assert!(!one.shard.driver.sockets[&peer].closed);
    one.neighbour_answers(1);
    assert!(one.said_to(peer).starts_with("HTTP/1.1 200 "));
    assert!(one.shard.driver.sockets[&peer].closed, "nobody is waited for");
}

#[test]
fn an_answer_for_somebody_who_is_gone_finds_nobody() {
    let mut one = One::with(1 << 20, 2);
    let there = one.channel(false);
    let peer = one.connect(1);
    one.send_from(peer, &object(&format!(r#"{{"channel":"{there}","payload":1}}"#)));
    let error = io::ErrorKind::ConnectionReset.into();
    one.shard.driver.completions.push_back(Completion::Failed { socket: peer, error });
    one.tick();
    assert!(one.shard.driver.sockets[&peer].closed);
    one.neighbour_answers(1);
    let _ = one.shard.audit();
}

#[test]
fn a_publish_without_an_answer_ends_when_its_time_is_up() {
    let mut one = One::with(1 << 20, 2);
    let there = one.channel(false);
    let peer = one.connect(1);
    one.send_from(peer, &object(&format!(r#"{{"channel":"{there}","payload":1}}"#)));
    for _ in 0..8 {
        assert_eq!(one.said_to(peer), "");
        one.now = one.now + Duration::from_secs(1);
        one.tick();
    }
    one.now = one.now + Duration::from_millis(50);
    one.tick();
    assert!(one.said_to(peer).starts_with("HTTP/1.1 503 "), "{}", one.said_to(peer));
    assert_eq!(one.shard.metrics.ended[EndReason::Unanswered as usize].get(), 1);
    one.neighbour_answers(1);
    assert!(!one.said_to(peer).contains("ack"));
}

#[test]
fn at_the_end_of_a_drain_an_unfinished_publish_is_told_so() {
    let mut one = One::new();
    one.shard.settings.conn.request_timeout = Duration::from_secs(60);
    let peer = one.connect(1);
    one.send_from(peer, &lines(9_999));
    one.send_from(peer, b"{\"channel\":\"a\",\"payload\":1}\n{\"chan");
    one.shard.begin_drain(one.now);
    let mut seconds = 0;
    while !one.shard.driver.sockets[&peer].shut {
        one.now = one.now + Duration::from_secs(1);
        one.tick();
        seconds += 1;
        assert!(seconds < 30);
    }
    let said = one.said_to(peer);
    assert!(said.contains(r#"{"type":"ack","channel":"a","seq":1}"#), "{said}");
    assert!(said.contains(r#"{"type":"error","code":"unavailable""#), "{said}");
    assert!(said.ends_with("\r\n0\r\n\r\n"), "{said}");
}
