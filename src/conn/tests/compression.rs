//! permessage-deflate.

use super::*;

/// A connection with whose peer compression was agreed on as it offered.
fn open_compressed(path: &str, offer: &str) -> (Peer, String) {
    let mut peer = Peer::new(settings());
    let line = format!("\r\nSec-WebSocket-Extensions: permessage-deflate{offer}\r\n\r\n");
    peer.feed(upgrade(path).replace("\r\n\r\n", &line).as_bytes());
    let said = String::from_utf8(std::mem::take(&mut peer.replies)).expect("HTTP is text");
    assert!(peer.conn.is_open(), "{said}");
    let answer = said.split("Sec-WebSocket-Extensions: permessage-deflate").nth(1);
    (peer, answer.expect("it is agreed to").split("\r\n").next().unwrap().to_owned())
}

/// A compressed message, as a client sends it.
fn compressed(state: &mut flate2::Compress, opcode: Opcode, message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() + 100);
    state.compress_vec(message, &mut payload, flate2::FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    let mut out = frame(opcode, &payload);
    out[0] |= 0x40;
    out
}

fn deflate() -> flate2::Compress {
    flate2::Compress::new_with_window_bits(flate2::Compression::new(6), false, 12)
}

#[test]
fn compressed_messages_are_heard_like_others_however_they_are_cut() {
    let message = br#"{"type":"publish","channel":"orders","payload":"more of the same"}"#;
    let mut state = deflate();
    let stream = [
        compressed(&mut state, Opcode::Text, message),
        // It refers back to the first.
        compressed(&mut state, Opcode::Text, message),
        frame(Opcode::Text, b"plain"),
        frame(Opcode::Ping, b"?"),
        compressed(&mut state, Opcode::Text, message),
    ];
    assert!(stream[1].len() < stream[0].len() / 2);
    for pieces in every_cut(&stream.concat()) {
        let (mut peer, answer) = open_compressed("/ws", "; client_max_window_bits");
        assert_eq!(answer, "; server_no_context_takeover; client_max_window_bits=12");
        let seen: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
        let text = || Seen::Text(message.to_vec());
        let plain = Seen::Text(b"plain".to_vec());
        assert_eq!(seen, [text(), text(), plain, Seen::Handled, text()]);
    }
}

#[test]
fn what_a_client_may_refer_back_to_is_held_for_it_and_bounded() {
    let (mut peer, _) = open_compressed("/ws", "; client_max_window_bits=9");
    assert_eq!(peer.conn.held_bytes(), 0, "who has said nothing costs nothing");
    let mut state = deflate();
    peer.feed(&compressed(&mut state, Opcode::Text, &[b'x'; 100]));
    let held = peer.conn.held_bytes();
    assert!((100..200).contains(&held), "{held}");
    for _ in 0..20 {
        peer.feed(&compressed(&mut state, Opcode::Text, &[b'x'; 900]));
    }
    let held = peer.conn.held_bytes();
    assert!((512..600).contains(&held), "{held}");
    peer.close();
    peer.conn.abandon(peer.now, &peer.settings);
    assert_eq!(peer.conn.held_bytes(), 0);
}

#[test]
fn nothing_is_held_where_no_message_refers_to_another() {
    let offer = "; client_no_context_takeover";
    let (mut peer, answer) = open_compressed("/ws", offer);
    assert_eq!(answer, "; server_no_context_takeover; client_no_context_takeover");
    for _ in 0..3 {
        let message = compressed(&mut deflate(), Opcode::Text, &[b'x'; 900]);
        assert_eq!(peer.feed(&message), [Seen::Text(vec![b'x'; 900])]);
        assert_eq!(peer.conn.held_bytes(), 0);
    }
}

#[test]
fn a_compressed_message_that_breaks_a_rule_closes_with_its_code() {
    let whole = |message: &[u8]| compressed(&mut deflate(), Opcode::Text, message);
    let broken = {
        let mut out = frame(Opcode::Text, &[0x07, 0xff]);
        out[0] |= 0x40;
        out
    };
    for (bytes, code, reason) in [
        (whole(&[b' '; 1_001]), 1009, EndReason::UnacceptableMessage),
        (whole(&vec![b' '; 4 << 20]), 1009, EndReason::UnacceptableMessage),
        (whole(b"\xc0\xaf"), 1007, EndReason::Violation),
        (broken, 1007, EndReason::Violation),
    ] {
        for pieces in every_cut(&bytes) {
            let (mut peer, _) = open_compressed("/ws", "");
            let seen: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
            assert_eq!(seen, [Seen::Ending(reason)]);
            assert_eq!(peer.close_code(), code);
        }
    }
    // Text that is cut is none, and a binary message is not for the hub.
    let (mut peer, _) = open_compressed("/ws", "");
    peer.feed(&compressed(&mut deflate(), Opcode::Binary, &[b'x'; 200]));
    assert_eq!(peer.close_code(), 1003);
}

#[test]
fn nobody_compresses_who_was_not_agreed_with() {
    for (compression, offer) in [(true, "x-other"), (true, ""), (false, "permessage-deflate")] {
        let mut peer = Peer::new(Settings { compression, ..settings() });
        let line = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
        let seen = peer.feed(upgrade("/ws").replace("\r\n\r\n", &line).as_bytes());
        assert_eq!(seen, [Seen::Opened { hub: true, compression: None }]);
        assert!(!String::from_utf8_lossy(&peer.replies).contains("Extensions"));
        peer.replies.clear();
        peer.feed(&compressed(&mut deflate(), Opcode::Text, b"hello"));
        assert_eq!(peer.close_code(), 1002);
    }
    let mut peer = Peer::new(settings());
    let line = "\r\nSec-WebSocket-Extensions: permessage-deflate;\r\n\r\n";
    peer.feed(upgrade("/ws").replace("\r\n\r\n", line).as_bytes());
    assert_eq!(peer.status(), 400);
}

#[test]
fn an_echo_is_compressed_when_that_was_agreed_on_and_makes_it_shorter() {
    let (long, short) = ([b'x'; 900], b"short");
    for offer in ["", "; server_max_window_bits=8"] {
        let (mut peer, _) = open_compressed("/echo", offer);
        for message in [long.as_slice(), short] {
            peer.feed(&compressed(&mut deflate(), Opcode::Binary, message));
            assert!(peer.replies.len() < 30);
            assert_eq!(peer.replies[0] & 0x40 != 0, message.len() > 100);
            assert_eq!(peer.said(), [(Opcode::Binary, message.to_vec())]);
        }
    }
}
