//! Listening over HTTP.

use super::*;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A peer that has asked for `target`, in two pieces cut at `cut`, and what it asked for.
fn listening(target: &str, cut: usize) -> (Peer, Listens, Vec<Wanted>) {
    let mut peer = Peer::new(settings());
    let request = get(target);
    let (front, rest) = request.as_bytes().split_at(cut);
    let mut seen = peer.feed(front);
    seen.extend(peer.feed(rest));
    let seen = <[Seen; 1]>::try_from(seen).expect("one event");
    let [Seen::Listening(listens, wanted)] = seen else { panic!("{seen:?}") };
    (peer, listens, wanted)
}

fn said(peer: &mut Peer) -> String {
    String::from_utf8(std::mem::take(&mut peer.replies)).expect("text")
}

#[test]
fn a_stream_begins_at_once_wherever_its_request_is_cut() {
    let target = "/sse?channel=a&channel=b&since=k3.7,-";
    for cut in 0..get(target).len() {
        let (mut peer, listens, wanted) = listening(target, cut);
        assert_eq!(listens, Listens::Stream);
        let channels: Vec<_> = wanted.iter().map(|it| &*it.channel).collect();
        assert_eq!(channels, ["a", "b"]);
        assert!(wanted[0].since().is_some() && wanted[1].since().is_none());
        let said = said(&mut peer);
        assert!(
            said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nretry: 2000\n\n")
        );
        assert!(peer.conn.is_open() && peer.conn.is_stream() && !peer.conn.is_poll());
        assert_eq!(peer.conn.held_bytes(), 0);
    }
}

#[test]
fn a_stream_beats_for_ever_and_what_its_client_says_is_passed_over() {
    let (mut peer, ..) = listening("/sse?channel=a", 5);
    said(&mut peer);
    let mut now = Time::START;
    for _ in 0..10 {
        let next = peer.conn.deadline(now, &peer.settings);
        assert_eq!(peer.expire(next - Duration::from_millis(1)), Expired::Later(next));
        let Expired::Pinged(time) = peer.expire(next) else { panic!("it does not beat") };
        assert_eq!(
            std::mem::take(&mut peer.replies),
            b"\x89\x00",
            "a ping, for the door to translate"
        );
        assert!(time > next);
        now = next;
        peer.now = now;
        assert_eq!(peer.feed(b"GET / HTTP/1.1\r\n\r\n"), []);
    }
    assert!(peer.replies.is_empty());
}

#[test]
fn a_poll_says_nothing_until_its_time_is_up_and_then_waits_for_its_answer() {
    let (mut peer, listens, _) = listening("/poll?channel=a&timeout=2s", 9);
    assert_eq!(listens, Listens::Poll { at_once: false });
    assert!(peer.conn.is_poll() && !peer.conn.is_open() && peer.replies.is_empty());
    assert_eq!(peer.expire(at(1)), Expired::Later(at(2)));
    assert_eq!(peer.expire(at(2)), Expired::Answer(at(10)));
    assert_eq!(peer.expire(at(3)), Expired::Later(at(10)));
    let Peer { conn, replies, settings, .. } = &mut peer;
    let reason = conn.answer_poll(at(3), "k3.7", br#"{"a":1},"#, replies, settings);
    assert_eq!(reason, EndReason::Answered);
    assert!(said(&mut peer).ends_with("{\"cursor\":\"k3.7\",\"events\":[{\"a\":1}]}\n"));
    assert!(peer.conn.is_closing() && !peer.conn.is_poll());
    assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
}

#[test]
fn a_poll_that_nobody_answers_is_told_so() {
    let (mut peer, listens, _) = listening("/poll?channel=a&timeout=0s", 9);
    assert_eq!(listens, Listens::Poll { at_once: true });
    assert_eq!(peer.expire(at(7)), Expired::Later(at(8)));
    assert_eq!(peer.expire(at(8)), Expired::Ending(EndReason::Unanswered));
    assert!(said(&mut peer).starts_with("HTTP/1.1 503 "));
}

#[test]
fn who_hangs_up_has_said_good_bye() {
    for target in ["/sse?channel=a", "/poll?channel=a"] {
        let (mut peer, ..) = listening(target, 3);
        let end = peer.conn.end_of_stream(at(1), &peer.settings);
        assert_eq!(end, Some(EndReason::PeerClosed), "{target}");
        assert_eq!(peer.conn.flushed(), Afterwards::Close);
    }
}

#[test]
fn a_stream_is_closed_with_words_and_a_poll_is_turned_away_with_a_status() {
    let (mut peer, ..) = listening("/sse?channel=a", 3);
    said(&mut peer);
    assert!(peer.close() && !peer.close());
    assert_eq!(peer.replies, b"\x88\x05\x03\xe9bye");
    assert_eq!(peer.conn.flushed(), Afterwards::Shutdown);
    let (mut peer, ..) = listening("/poll?channel=a", 3);
    let Peer { conn, replies, settings, .. } = &mut peer;
    conn.turn_away(at(1), Refusal::Unavailable { retry_after_s: 1 }, replies, settings);
    assert!(said(&mut peer).starts_with("HTTP/1.1 503 "));
}
