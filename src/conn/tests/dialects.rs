//! Which dialect a client gets, and what it may send in it.

use super::*;

const OPENED: Seen = Seen::Opened { hub: true, compression: None };

/// Opens `path` with `offer` as the list of subprotocols, if there is one; also the subprotocol that
/// was chosen.
fn open(path: &str, offer: Option<&str>) -> (Peer, Option<String>) {
    let mut peer = Peer::new(settings());
    let lines = offer.map(|offer| format!("Sec-WebSocket-Protocol: {offer}\r\n"));
    let head = upgrade_with(path, &lines.unwrap_or_default());
    assert_eq!(peer.feed(head.as_bytes()), [OPENED]);
    let said = String::from_utf8(std::mem::take(&mut peer.replies)).expect("HTTP is text");
    let chosen = said.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
    (peer, chosen.map(str::to_owned))
}

#[test]
fn the_first_offer_that_is_spoken_at_the_path_decides() {
    for (path, offer, chosen, dialect) in [
        ("/ws", None, None, Dialect::Json),
        ("/ws", Some("mqtt"), None, Dialect::Json),
        ("/ws", Some("ringcast.raw.v1"), None, Dialect::Json),
        ("/ws", Some("ringcast.json.v1"), Some("ringcast.json.v1"), Dialect::Json),
        ("/ws", Some("mqtt, ringcast.msgpack.v1"), Some("ringcast.msgpack.v1"), Dialect::Msgpack),
        (
            "/ws",
            Some("ringcast.json.v1, ringcast.msgpack.v1"),
            Some("ringcast.json.v1"),
            Dialect::Json,
        ),
        (
            "/ws",
            Some("ringcast.msgpack.v1, ringcast.json.v1"),
            Some("ringcast.msgpack.v1"),
            Dialect::Msgpack,
        ),
        ("/raw/orders", None, None, Dialect::Raw),
        ("/raw/orders", Some("ringcast.json.v1"), None, Dialect::Raw),
        (
            "/raw/orders?mode=pub",
            Some("ringcast.json.v1, ringcast.raw.v1"),
            Some("ringcast.raw.v1"),
            Dialect::Raw,
        ),
    ] {
        let (peer, said) = open(path, offer);
        assert_eq!((said.as_deref(), peer.conn.dialect()), (chosen, dialect), "{path} {offer:?}");
        assert_eq!(peer.conn.raw_channel().is_some(), dialect == Dialect::Raw);
    }
}

#[test]
fn msgpack_comes_in_binary_frames_and_text_closes_with_1003() {
    let (mut peer, _) = open("/ws", Some("ringcast.msgpack.v1"));
    let seen = peer.feed(&frame(Opcode::Binary, b"\x80"));
    assert_eq!(seen, [Seen::Msgpack(b"\x80".to_vec())]);
    assert_eq!(
        peer.feed(&frame(Opcode::Text, b"{}")),
        [Seen::Ending(EndReason::UnacceptableMessage)]
    );
    assert_eq!(peer.close_code(), close::UNSUPPORTED_DATA);
}

#[test]
fn raw_payloads_of_both_kinds_come_with_their_channel() {
    let stream = [
        upgrade("/raw/a%2Fb").into_bytes(),
        frame(Opcode::Text, b"[1]"),
        frame(Opcode::Binary, b"\xff\x00"),
        close_frame(1000),
    ];
    let payload = |is_text, bytes: &[u8]| Seen::Payload {
        channel: "a/b".to_owned(),
        is_text,
        bytes: bytes.to_vec(),
    };
    let expected = [
        OPENED,
        payload(true, b"[1]"),
        payload(false, b"\xff\x00"),
        Seen::Ending(EndReason::PeerClosed),
    ];
    for (index, pieces) in every_cut(&stream.concat()).enumerate() {
        let mut peer = Peer::new(settings());
        let events: Vec<Seen> = pieces.iter().flat_map(|piece| peer.feed(piece)).collect();
        assert_eq!(events, expected, "cut {index}");
    }
}

#[test]
fn who_came_only_to_receive_publishes_nothing() {
    for opcode in [Opcode::Text, Opcode::Binary] {
        let (mut peer, _) = open("/raw/orders?mode=sub", None);
        let seen = peer.feed(&frame(opcode, b"[1]"));
        assert_eq!(seen, [Seen::Ending(EndReason::UnacceptableMessage)]);
        assert_eq!(peer.close_code(), close::UNSUPPORTED_DATA);
    }
}

#[test]
fn a_raw_url_that_asks_for_nothing_there_is_gets_400() {
    for path in ["/raw/", "/raw/%00", "/raw/%zz", "/raw/orders?mode=all"] {
        let mut peer = Peer::new(settings());
        let seen = peer.feed(upgrade(path).as_bytes());
        assert!(matches!(seen[..], [Seen::Refused(Refusal::BadRequest(_))]), "{path}: {seen:?}");
        assert_eq!(peer.status(), 400, "{path}");
    }
    let mut peer = Peer::new(settings());
    peer.feed(upgrade("/raw").as_bytes());
    assert_eq!(peer.status(), 404);
}
