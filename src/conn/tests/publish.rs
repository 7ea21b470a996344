//! Publishes over HTTP.

use super::*;
use crate::proto::http::{Body, Cors, Framing, Piece};

fn post(fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /publish HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

/// A body by line, in chunks of `chunk_bytes`.
fn post_lines(body: &str, chunk_bytes: usize) -> Vec<u8> {
    let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut out = head.as_bytes().to_vec();
    for chunk in body.as_bytes().chunks(chunk_bytes) {
        http::write_chunk(&mut out, &[chunk]);
    }
    http::write_last_chunk(&mut out);
    out
}

impl Peer {
    fn answer(&mut self, object: &str) -> Option<Event<'static>> {
        let answer = Answer { status: 200, retry_after_s: None, object: object.as_bytes() };
        self.conn.answer(self.now, &answer, &mut self.replies, &self.settings)
    }

    /// The head and the body of the response that is all it has said.
    fn response(&mut self) -> (String, String) {
        let said = String::from_utf8(std::mem::take(&mut self.replies)).expect("text");
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        let mut body = body.as_bytes().to_vec();
        if !head.contains("Transfer-Encoding: chunked") {
            return (head.into(), String::from_utf8(body).expect("text"));
        }
        let (mut reader, mut read) =
            (Body::new(Framing::Chunked, u64::MAX, Refusal::BODY_TOO_LARGE), Vec::new());
        let mut input = body.as_mut_slice();
        while let Some(Piece::Data(data)) = reader.next(&mut input, None).expect("sound chunks") {
            read.extend_from_slice(data);
        }
        assert!(reader.is_at_end() && input.is_empty(), "it is complete");
        (head.into(), String::from_utf8(read).expect("text"))
    }
}

fn objects(seen: &[Seen]) -> Vec<&str> {
    let mut objects = Vec::new();
    for seen in seen {
        if let Seen::Object(object) = seen {
            objects.push(std::str::from_utf8(object).expect("text").trim_end());
        }
    }
    objects
}

#[test]
fn one_object_is_handed_out_whole_and_its_answer_is_the_response() {
    let stream = post("", "{\"a\":\n1}\n");
    for pieces in every_cut(stream.as_bytes()) {
        let mut peer = Peer::new(settings());
        let seen: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
        assert_eq!(seen[0], Seen::Publishing);
        assert_eq!(seen[1..], [Seen::Object(b"{\"a\":\n1}\n".to_vec())]);
        assert!(peer.replies.is_empty() && !peer.conn.is_open() && !peer.conn.is_closing());
        assert_eq!(peer.answer("{}"), Some(Event::Ending(EndReason::Answered)));
        let (head, body) = peer.response();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json"), "{head}");
        assert_eq!(body, "{}\n");
        assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
    }
}

#[test]
fn an_object_a_line_is_handed_out_as_soon_as_it_is_whole() {
    for chunk_bytes in [1, 5, 1_000] {
        let stream = post_lines("{1}\n\n  \r\n{2}\r\n{3}", chunk_bytes);
        for (index, pieces) in every_cut(&stream).enumerate() {
            let mut peer = Peer::new(settings());
            let mut seen: Vec<Seen> = Vec::new();
            for piece in &pieces {
                seen.extend(peer.feed(piece));
            }
            assert_eq!(objects(&seen), ["{1}", "{2}", "{3}"], "cut {index}");
            assert_eq!(peer.answer("[1]"), None);
            assert_eq!(peer.answer("[2]"), None);
            assert_eq!(peer.answer("[3]"), Some(Event::Ending(EndReason::Answered)));
            let (head, body) = peer.response();
            assert!(head.contains("\r\nContent-Type: application/x-ndjson"), "{head}");
            assert_eq!(body, "[1]\n[2]\n[3]\n");
            assert_eq!(peer.conn.held_bytes(), 0);
        }
    }
}

#[test]
fn an_answer_may_leave_before_the_next_line_has_come() {
    let mut peer = Peer::new(settings());
    let fields = "Content-Type: application/x-ndjson\r\n";
    let stream = post(fields, "{1}\n{2}\n");
    let (first, second) = stream.split_at(stream.len() - 4);
    assert_eq!(objects(&peer.feed(first.as_bytes())), ["{1}"]);
    assert_eq!(peer.answer("[1]"), None);
    assert!(peer.replies.ends_with(b"[1]\n\r\n"), "{}", String::from_utf8_lossy(&peer.replies));
    assert_eq!(objects(&peer.feed(second.as_bytes())), ["{2}"]);
    assert_eq!(peer.answer("[2]"), Some(Event::Ending(EndReason::Answered)));
    assert_eq!(peer.response().1, "[1]\n[2]\n");
}

#[test]
fn no_lines_are_answered_with_none_and_no_object_with_whatever_is_said() {
    let mut peer = Peer::new(settings());
    let seen = peer.feed(&post_lines("\n\n", 10));
    assert_eq!(seen, [Seen::Publishing, Seen::Ending(EndReason::Answered)]);
    assert_eq!(peer.response().1, "");

    let mut peer = Peer::new(settings());
    assert_eq!(peer.feed(post("", "").as_bytes()), [Seen::Publishing, Seen::Object(Vec::new())]);
}

#[test]
fn a_client_of_http_1_0_reads_its_answers_to_the_end_of_the_connection() {
    let mut peer = Peer::new(settings());
    let fields = "Content-Type: application/x-ndjson\r\nExpect: 100-continue\r\n";
    peer.feed(post(fields, "{1}\n{2}").replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    peer.answer("[1]");
    peer.answer("[2]");
    let said = String::from_utf8(std::mem::take(&mut peer.replies)).expect("text");
    assert!(said.starts_with("HTTP/1.1 200 ") && !said.contains("chunked"), "{said}");
    assert!(said.ends_with("\r\n\r\n[1]\n[2]\n"), "{said}");
}

#[test]
fn who_waits_for_leave_to_go_on_gets_it_unless_it_is_refused() {
    let expecting = |body: &str| post("Expect: 100-continue\r\n", body);
    let mut peer = Peer::new(settings());
    let stream = expecting("{}");
    peer.feed(&stream.as_bytes()[..stream.len() - 2]);
    assert_eq!(peer.replies, b"HTTP/1.1 100 Continue\r\n\r\n");

    let mut peer = Peer::new(settings());
    let seen = peer.feed(expecting(&"x".repeat(1_001)).as_bytes());
    assert!(matches!(seen[..], [Seen::Refused(Refusal::ContentTooLarge(_))]), "{seen:?}");
    assert_eq!(peer.status(), 413);
}

#[test]
fn a_line_that_is_too_long_is_thrown_away_and_the_next_one_is_read() {
    let lines = format!("{{1}}\n{}\n{{2}}\n{}", "x".repeat(1_001), "y".repeat(5_000));
    for pieces in every_cut(&post_lines(&lines, 700)) {
        let mut peer = Peer::new(settings());
        let mut seen = Vec::new();
        for piece in pieces {
            seen.extend(peer.feed(&piece));
            assert!(peer.conn.held_bytes() <= 2_048, "{}", peer.conn.held_bytes());
        }
        let kinds: Vec<Option<&str>> = seen[1..]
            .iter()
            .map(|seen| match seen {
                Seen::Object(object) => std::str::from_utf8(object).ok().map(str::trim_end),
                Seen::ObjectTooLong => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, [Some("{1}"), None, Some("{2}"), None]);
    }
    // A thousand bytes are allowed, and their line end is none of them.
    let mut peer = Peer::new(settings());
    let seen = peer.feed(&post_lines(&format!("{}\n", "x".repeat(1_000)), 700));
    assert_eq!(objects(&seen), ["x".repeat(1_000)]);
}

#[test]
fn what_is_too_large_as_a_whole_ends_after_the_answers_to_what_was_read() {
    // Nothing answered yet: a status.
    let mut peer = Peer::new(settings());
    let fields = "Content-Type: application/x-ndjson\r\n";
    peer.feed(post(fields, &"{1}\n".repeat(2_501)).as_bytes());
    assert_eq!(peer.status(), 413);
    // In the midst of it: a line.
    let lines: String = (0..40).map(|_| format!("{}\n", "x".repeat(300))).collect();
    for pieces in every_cut(&post_lines(&lines, 602)).step_by(3) {
        let mut peer = Peer::new(settings());
        let seen: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
        let count = objects(&seen).len();
        assert!((30..34).contains(&count), "{count} of 40 fit 10 000 bytes");
        for _ in 1..count {
            assert_eq!(peer.answer("[]"), None);
        }
        let end = peer.answer("[]");
        assert_eq!(end, Some(Event::Refused(Refusal::BODY_TOO_LARGE)));
        let (_, body) = peer.response();
        assert_eq!(body.matches("[]\n").count(), count);
        let last = body.lines().last().expect("a line");
        assert!(last.starts_with(r#"{"type":"error","code":"content_too_large""#), "{last}");
    }
}

#[test]
fn a_slow_body_is_ended_when_its_time_is_up_however_it_drips() {
    let stream = post("", &"x".repeat(500));
    let mut peer = Peer::new(settings());
    let head_bytes = stream.len() - 500;
    peer.now = at(1);
    peer.feed(&stream.as_bytes()[..head_bytes]);
    assert_eq!(peer.conn.deadline(peer.now, &peer.settings), at(9));
    for second in 2..9 {
        peer.now = at(second);
        peer.feed(b"x");
        assert_eq!(peer.expire(at(second)), Expired::Later(at(9)), "a byte buys no time");
    }
    assert_eq!(peer.expire(at(9)), Expired::Ending(EndReason::RequestTimeout));
    assert_eq!(peer.status(), 408);
    assert_eq!(peer.feed(b"x"), []);
    assert_eq!(peer.expire(at(12)), Expired::Close(None));
}

#[test]
fn answers_that_do_not_come_in_time_are_told_as_that() {
    let mut peer = Peer::new(settings());
    peer.feed(post("", "{}").as_bytes());
    assert_eq!(peer.expire(at(8)), Expired::Ending(EndReason::Unanswered));
    assert_eq!(peer.status(), 503);
    assert_eq!(peer.answer("{}"), None, "it comes too late");
    assert!(peer.replies.is_empty());

    let mut peer = Peer::new(settings());
    peer.feed(&post_lines("{1}\n{2}\n", 100));
    peer.answer("[1]");
    assert_eq!(peer.expire(at(8)), Expired::Ending(EndReason::Unanswered));
    let (_, body) = peer.response();
    assert!(body.starts_with("[1]\n{\"type\":\"error\",\"code\":\"unanswered\""), "{body}");
}

#[test]
fn who_has_sent_everything_may_end_its_half_and_is_answered() {
    let mut peer = Peer::new(settings());
    peer.feed(post("", "{}").as_bytes());
    assert_eq!(peer.conn.end_of_stream(peer.now, &peer.settings), None);
    assert!(!peer.conn.is_closing());
    assert_eq!(peer.answer("{}"), Some(Event::Ending(EndReason::Answered)));
    assert_eq!(peer.conn.flushed(), Afterwards::Close, "its end has been seen before");

    let mut peer = Peer::new(settings());
    peer.feed(&post("", "{}").as_bytes()[..55]);
    let end = peer.conn.end_of_stream(peer.now, &peer.settings);
    assert_eq!(end, Some(EndReason::PeerVanished));
}

#[test]
fn every_wrong_request_gets_its_status_as_an_error_object() {
    let with = |from: &str, to: &str| {
        let stream = post("X: y\r\n", "{}");
        assert!(stream.contains(from));
        stream.replace(from, to)
    };
    for (request, status) in [
        (with("POST", "GET"), 405),
        (with("POST", "PUT"), 405),
        (with("Content-Length: 2", "Content-Length: x"), 400),
        (with("X: y", "Transfer-Encoding: chunked"), 400),
        (with("X: y\r\nContent-Length: 2", "Transfer-Encoding: gzip"), 400),
        (with("Content-Length: 2", "Content-Length: 1001"), 413),
        (with("X: y", "Origin: https://elsewhere.example"), 403),
        (with("X: y\r\nContent-Length: 2", "Transfer-Encoding: chunked"), 400),
    ] {
        let mut peer = Peer::new(settings());
        let seen = peer.feed(request.as_bytes());
        assert!(matches!(seen[..], [.., Seen::Refused(_)]), "{request}: {seen:?}");
        let (head, body) = peer.response();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert!(body.starts_with(r#"{"type":"error","code":""#), "{body}");
        assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
    }
}

#[test]
fn pages_of_allowed_origins_may_ask_publish_and_read_the_answer() {
    let app = "Origin: https://app.example\r\n";
    let allowing =
        Settings { cors: Cors::Listed(vec!["https://app.example".into()]), ..settings() };
    let allowed = "\r\nAccess-Control-Allow-Origin: https://app.example\r\n";
    let mut peer = Peer::new(allowing.clone());
    let preflight = format!("OPTIONS /publish HTTP/1.1\r\nHost: a\r\n{app}\r\n");
    assert_eq!(peer.feed(preflight.as_bytes()), [Seen::Ending(EndReason::Answered)]);
    let head = String::from_utf8(std::mem::take(&mut peer.replies)).expect("text");
    assert!(head.starts_with("HTTP/1.1 204 ") && head.contains(allowed), "{head}");

    for body in ["{}", "{ this is too long for it"] {
        let settings = Settings { message_bytes_max: 10, ..allowing.clone() };
        let mut peer = Peer::new(settings);
        if let [.., Seen::Object(_)] = &peer.feed(post(app, body).as_bytes())[..] {
            peer.answer("{}");
        }
        assert!(peer.response().0.contains(allowed), "{body}");
    }
    let mut peer = Peer::new(settings());
    peer.feed(preflight.as_bytes());
    assert!(!peer.response().0.contains("Access-Control"), "by default nobody is");
}

#[test]
fn who_is_turned_away_in_the_midst_of_its_answers_is_told_in_a_line() {
    let refusal = Refusal::Unavailable { retry_after_s: 5 };
    let mut peer = Peer::new(settings());
    let stream = post_lines("{1}\n{2}\n", 4);
    peer.feed(&stream[..stream.len() - 10]);
    peer.answer("[1]");
    peer.conn.turn_away(peer.now, refusal, &mut peer.replies, &peer.settings);
    let (_, body) = peer.response();
    assert!(body.starts_with("[1]\n{\"type\":\"error\",\"code\":\"unavailable\""), "{body}");

    let mut peer = Peer::new(settings());
    peer.feed(&post("", "{}").as_bytes()[..55]);
    peer.conn.turn_away(peer.now, refusal, &mut peer.replies, &peer.settings);
    peer.conn.abandon(peer.now, &peer.settings);
    assert_eq!(peer.conn.held_bytes(), 0);
    assert_eq!(peer.status(), 503);
}
