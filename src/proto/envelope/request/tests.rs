use std::time::Duration;

use super::*;
use crate::proto::cuts::Seeded;

fn check(text: &str, id: Option<&str>, request: Result<Request<'_>, Reject>) {
    let mut parser = Parser::new();
    // Twice, since the second time the buffers are not fresh.
    for _ in 0..2 {
        let message = parser.parse(text.as_bytes());
        assert_eq!(message, Ok(Message { id: id.map(str::as_bytes), request }), "{text}");
    }
}

fn rejected(text: &str) -> Reject {
    Parser::new().parse(text.as_bytes()).expect(text).request.expect_err(text)
}

#[test]
fn the_requests_of_the_protocol_are_understood() {
    check(
        r#"{"type":"subscribe","id":2,"channel":"orders"}"#,
        Some("2"),
        Ok(Request::Subscribe { channel: "orders", since: None, conflate: None }),
    );
    check(
        r#"{"type":"unsubscribe","id":"four","channel":"orders"}"#,
        Some("\"four\""),
        Ok(Request::Unsubscribe { channel: "orders" }),
    );
    check(
        r#"{"type":"publish","id":3,"channel":"orders","payload":{"order":"123"}}"#,
        Some("3"),
        Ok(Request::Publish { channel: "orders", payload: br#"{"order":"123"}"#, key: None }),
    );
    check(
        r#"{"type":"ping","id":5,"t":1685440800}"#,
        Some("5"),
        Ok(Request::Ping { t: Some(b"1685440800") }),
    );
    check(r#"{"type":"ping"}"#, None, Ok(Request::Ping { t: None }));
}

#[test]
fn a_name_with_a_wildcard_is_a_pattern_where_one_subscribes_and_no_channel_elsewhere() {
    let pattern = "iot.*.temp";
    check(
        r#"{"type":"subscribe","id":8,"channel":"iot.*.temp","since":null}"#,
        Some("8"),
        Ok(Request::SubscribePattern { pattern }),
    );
    check(
        r#"{"type":"unsubscribe","channel":"iot.\u002a.temp"}"#,
        None,
        Ok(Request::UnsubscribePattern { pattern }),
    );
    let of = |kind: &str, channel: &str| {
        rejected(&format!(
            r#"{{"type":"{kind}","channel":"{channel}","since":"latest","payload":1}}"#
        ))
    };
    assert_eq!(of("subscribe", "md.>"), Reject::SincePattern);
    let conflated = r#"{"type":"subscribe","channel":"md.>","conflate":"2s"}"#;
    assert_eq!(rejected(conflated), Reject::ConflatePattern);
    for kind in ["publish", "history"] {
        assert_eq!(of(kind, "md.>"), Reject::BadChannel);
        assert_eq!(of(kind, "a*b"), Reject::BadChannel);
    }
    let stars = "*".repeat(255);
    for channel in ["a*b", "a..*", ">.a", "*.*.*.*.*.*.*.*.*", &stars] {
        assert_eq!(of("subscribe", channel), Reject::BadPattern, "{channel}");
        assert_eq!(of("unsubscribe", channel), Reject::BadPattern, "{channel}");
    }
}

#[test]
fn order_and_whitespace_do_not_matter_and_unknown_members_are_ignored() {
    check(
        " {\n\"payload\" : [ 1 ] ,\"x\":{\"type\":1},\t\"channel\": \"c\" , \"type\" :\"publish\" } ",
        None,
        Ok(Request::Publish { channel: "c", payload: b"[ 1 ]", key: None }),
    );
}

#[test]
fn a_payload_is_the_bytes_that_were_sent() {
    for payload in [
        "null",
        "-0.0",
        "1e400",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        r#""\u0041\/\ud800""#,
        r#"{"a":1,"a":2,"\u0061":3}"#,
        "[ 1,\t2 ]",
        "\"\u{20ac}\"",
    ] {
        check(
            &format!(r#"{{"type":"publish","channel":"c","payload": {payload} }}"#),
            None,
            Ok(Request::Publish { channel: "c", payload: payload.as_bytes(), key: None }),
        );
    }
}

#[test]
fn an_id_is_echoed_as_it_was_written() {
    for id in ["1", "-0.0", "1e999", "12345678901234567890123", r#""a\u0062\"""#, "\"\""] {
        check(
            &format!(r#"{{"type":"ping","id": {id} }}"#),
            Some(id),
            Ok(Request::Ping { t: None }),
        );
    }
    let longest = format!("\"{}\"", "i".repeat(REQUEST_ID_BYTES_MAX - 2));
    check(
        &format!(r#"{{"type":"ping","id":{longest}}}"#),
        Some(&longest),
        Ok(Request::Ping { t: None }),
    );
}

#[test]
fn an_id_of_another_kind_or_size_is_refused_and_not_echoed() {
    let long = format!("\"{}\"", "i".repeat(REQUEST_ID_BYTES_MAX - 1));
    for id in ["null", "true", "[1]", "{}", &long] {
        check(&format!(r#"{{"type":"ping","id":{id}}}"#), None, Err(Reject::BadId));
    }
}

#[test]
fn escapes_in_type_channel_and_names_are_understood() {
    check(
        r#"{"\u0074ype":"\u0073ubscribe","channel":"caf\u00e9 \ud83e\udd80 \"\\\/"}"#,
        None,
        Ok(Request::Subscribe {
            channel: "caf\u{e9} \u{1f980} \"\\/",
            since: None,
            conflate: None,
        }),
    );
}

#[test]
fn each_fault_has_its_reject() {
    for (text, reject) in [
        (r#"{}"#, Reject::MissingField(Field::Type)),
        (r#"{"channel":"c"}"#, Reject::MissingField(Field::Type)),
        (r#"{"type":"subscribe"}"#, Reject::MissingField(Field::Channel)),
        (r#"{"type":"unsubscribe"}"#, Reject::MissingField(Field::Channel)),
        (r#"{"type":"publish","payload":1}"#, Reject::MissingField(Field::Channel)),
        (r#"{"type":"publish","channel":"c"}"#, Reject::MissingField(Field::Payload)),
        (r#"{"type":1}"#, Reject::WrongType(Field::Type)),
        (r#"{"type":null}"#, Reject::WrongType(Field::Type)),
        (r#"{"type":["publish"]}"#, Reject::WrongType(Field::Type)),
        (r#"{"type":"subscribe","channel":7}"#, Reject::WrongType(Field::Channel)),
        (r#"{"type":"subscribe","channel":1e999}"#, Reject::WrongType(Field::Channel)),
        (r#"{"type":"subscribe","channel":null}"#, Reject::WrongType(Field::Channel)),
        (r#"{"type":"subscribe","channel":["c"]}"#, Reject::WrongType(Field::Channel)),
        (r#"{"type":"subscribe","channel":""}"#, Reject::BadChannel),
        (r#"{"type":"subscribe","channel":"a\nb"}"#, Reject::BadChannel),
        (r#"{"type":"subscribe","channel":"\u0000"}"#, Reject::BadChannel),
        (r#"{"type":"subscribe","channel":"\ud800"}"#, Reject::BadString),
        (r#"{"type":"\udc00","channel":"c"}"#, Reject::BadString),
        (r#"{"type":"ping","type":"ping"}"#, Reject::DuplicateField(Field::Type)),
        (r#"{"type":"ping","\u0074ype":"ping"}"#, Reject::DuplicateField(Field::Type)),
        (
            r#"{"type":"publish","channel":"c","payload":1,"payload":2}"#,
            Reject::DuplicateField(Field::Payload),
        ),
        (r#"{"type":"shout","channel":"c"}"#, Reject::UnknownType),
        (r#"{"type":""}"#, Reject::UnknownType),
        (r#"{"type":"PING"}"#, Reject::UnknownType),
        (r#"{"type":"auth","token":"x"}"#, Reject::AuthUnsupported),
        (r#"{"type":"history"}"#, Reject::MissingField(Field::Channel)),
        (r#"{"type":"history","channel":"c","from":-1}"#, Reject::BadRange),
        (r#"{"type":"history","channel":"c","limit":0}"#, Reject::BadRange),
        (r#"{"type":"history","channel":"c","limit":"1"}"#, Reject::BadRange),
        (r#"{"type":"subscribe","channel":"c","since":{"epoch":"k"}}"#, Reject::BadSince),
        (r#"{"type":"subscribe","channel":"c","since":7}"#, Reject::BadSince),
        (r#"{"type":"publish","channel":"c","payload":1,"key":7}"#, Reject::BadKey),
        (r#"{"type":"subscribe","channel":"c","conflate":500}"#, Reject::BadConflate),
        (r#"{"type":"subscribe","channel":"c","conflate":"500"}"#, Reject::BadConflate),
        (r#"{"type":"subscribe","channel":"c","conflate":"61s"}"#, Reject::BadConflate),
    ] {
        check(text, None, Err(reject));
    }
}

#[test]
fn a_client_may_say_where_it_was_and_what_it_publishes_twice() {
    check(
        r#"{"type":"subscribe","channel":"c","since":{"epoch":"k3x9","seq":120}}"#,
        None,
        Ok(Request::Subscribe {
            channel: "c",
            since: Some(Since::After { epoch: "k3x9", seq: 120 }),
            conflate: None,
        }),
    );
    check(
        r#"{"type":"publish","channel":"c","payload":1,"key":"a\u0062"}"#,
        None,
        Ok(Request::Publish { channel: "c", payload: b"1", key: Some(br#""a\u0062""#) }),
    );
    check(
        r#"{"type":"history","channel":"c","from":7,"limit":99999999999}"#,
        None,
        Ok(Request::History { channel: "c", from: Some(7), limit: Some(u32::MAX) }),
    );
    let longest = format!("\"{}\"", "k".repeat(PUBLISH_KEY_BYTES_MAX - 2));
    let publish =
        |key: &str| format!(r#"{{"type":"publish","channel":"c","payload":1,"key":{key}}}"#);
    let key = Some(longest.as_bytes());
    check(&publish(&longest), None, Ok(Request::Publish { channel: "c", payload: b"1", key }));
    assert_eq!(rejected(&publish(&format!("\"k{}", &longest[1..]))), Reject::BadKey);
}

#[test]
fn a_reject_still_knows_the_id() {
    check(r#"{"id":9,"type":"shout"}"#, Some("9"), Err(Reject::UnknownType));
}

#[test]
fn a_client_may_say_how_often_it_wants_messages() {
    for (written, conflate) in [
        ("\"250ms\"", Some(Duration::from_millis(250))),
        ("\"60s\"", Some(Duration::from_secs(60))),
        ("\"1m\"", Some(Duration::from_secs(60))),
        ("null", None),
    ] {
        check(
            &format!(r#"{{"type":"subscribe","channel":"c","conflate":{written}}}"#),
            None,
            Ok(Request::Subscribe { channel: "c", since: None, conflate }),
        );
    }
}

#[test]
fn a_client_may_ask_who_is_there_from_any_user_on() {
    for (written, after, limit) in [
        ("", None, None),
        (r#","after":null,"limit":null"#, None, None),
        (r#","after":"ann","limit":5"#, Some("ann"), Some(5)),
        (r#","limit":99999999999,"after":"\u0061\"" "#, Some("a\""), Some(u32::MAX)),
    ] {
        check(
            &format!(r#"{{"type":"presence","channel":"c"{written}}}"#),
            None,
            Ok(Request::Presence { channel: "c", after, limit }),
        );
    }
    let text = r#"{"channel":"c","after":"\u0061","type":"pr\u0065sence","id":1}"#;
    check(text, Some("1"), Ok(Request::Presence { channel: "c", after: Some("a"), limit: None }));
    check(
        r#"{"type":"presence_stats","id":2,"channel":"c"}"#,
        Some("2"),
        Ok(Request::PresenceStats { channel: "c" }),
    );
    let long = format!(r#""after":"{}""#, "u".repeat(385));
    for (written, reject) in [
        (r#""after":7"#, Reject::BadAfter),
        (long.as_str(), Reject::BadAfter),
        (r#""after":"\ud800""#, Reject::BadString),
        (r#""after":"a","after":"a""#, Reject::DuplicateField(Field::After)),
        (r#""limit":0"#, Reject::BadRange),
    ] {
        let text = format!(r#"{{"type":"presence","channel":"c",{written}}}"#);
        assert_eq!(rejected(&text), reject, "{text}");
    }
    assert_eq!(rejected(r#"{"type":"presence"}"#), Reject::MissingField(Field::Channel));
    // Others do not know `after`, so what it is there is nobody's business.
    check(r#"{"type":"ping","after":"\ud800"}"#, None, Ok(Request::Ping { t: None }));
}

#[test]
fn since_null_is_no_since() {
    check(
        r#"{"type":"subscribe","channel":"c","since":null}"#,
        None,
        Ok(Request::Subscribe { channel: "c", since: None, conflate: None }),
    );
}

#[test]
fn a_channel_has_1_to_255_bytes_once_unescaped() {
    let subscribe = |raw: &str| format!(r#"{{"type":"subscribe","channel":"{raw}"}}"#);
    let longest = "c".repeat(255);
    check(
        &subscribe(&longest),
        None,
        Ok(Request::Subscribe { channel: &longest, since: None, conflate: None }),
    );
    check(
        &subscribe(&"\\u0063".repeat(255)),
        None,
        Ok(Request::Subscribe { channel: &longest, since: None, conflate: None }),
    );
    assert_eq!(rejected(&subscribe(&"c".repeat(256))), Reject::BadChannel);
    assert_eq!(rejected(&subscribe(&"\\u0063".repeat(256))), Reject::BadChannel);
    assert_eq!(rejected(&subscribe(&"c".repeat(1 << 20))), Reject::BadChannel);
    let type_too_long = format!(r#"{{"type":"{}"}}"#, "t".repeat(1 << 20));
    assert_eq!(rejected(&type_too_long), Reject::UnknownType);
}

#[test]
fn a_long_t_is_refused() {
    let ping = |t: &str| format!(r#"{{"type":"ping","t":{t}}}"#);
    assert_eq!(rejected(&ping(&"1".repeat(REQUEST_ID_BYTES_MAX + 1))), Reject::BadT);
    check(&ping("{\"a\":[null]}"), None, Ok(Request::Ping { t: Some(b"{\"a\":[null]}") }));
}

#[test]
fn what_is_no_message_at_all_is_told_apart() {
    let mut parser = Parser::new();
    for (text, not_json) in [
        ("", NotJson::Syntax),
        ("hello", NotJson::Syntax),
        ("{", NotJson::Syntax),
        ("{\"type\":\"ping\"} x", NotJson::Syntax),
        ("{\"type\":\"ping\",}", NotJson::Syntax),
        ("{\"type\":\"publish\",\"channel\":\"c\",\"payload\":01}", NotJson::Syntax),
        ("{\"type\":\"publish\",\"channel\":\"c\",\"payload\":nan}", NotJson::Syntax),
        ("{\"type\":\"ping\",\"t\":\"\n\"}", NotJson::Syntax),
        ("[", NotJson::Syntax),
        ("[]", NotJson::NotAnObject),
        ("1", NotJson::NotAnObject),
        ("\"{}\"", NotJson::NotAnObject),
        ("null", NotJson::NotAnObject),
    ] {
        assert_eq!(parser.parse(text.as_bytes()), Err(not_json), "{text}");
    }
    let deep = format!("{{\"payload\":{}", "[".repeat(100_000));
    assert_eq!(parser.parse(deep.as_bytes()), Err(NotJson::TooDeep));
    // The parser goes on after all that.
    assert!(parser.parse(b"{\"type\":\"ping\"}").is_ok());
}

#[test]
fn the_buffers_do_not_grow_with_what_clients_send() {
    let mut parser = Parser::new();
    let before = parser.strings.capacity();
    let channel = "\\u0063".repeat(255);
    let payload = "x".repeat(1 << 20);
    for _ in 0..3 {
        let text = format!(r#"{{"type":"publish","channel":"{channel}","payload":"{payload}"}}"#);
        assert!(parser.parse(text.as_bytes()).unwrap().request.is_ok());
        let many = format!("{{{}\"type\":\"ping\"}}", "\"a\":1,".repeat(100_000));
        assert!(parser.parse(many.as_bytes()).unwrap().request.is_ok());
    }
    assert_eq!(parser.strings.capacity(), before);
    assert!(parser.tape.0.capacity() <= 16);
}

#[test]
fn every_reject_has_a_code_and_a_sentence() {
    for field in [
        Field::Type,
        Field::Id,
        Field::Channel,
        Field::Payload,
        Field::T,
        Field::Since,
        Field::Key,
        Field::From,
        Field::Limit,
        Field::Conflate,
    ] {
        let reason = Reject::DuplicateField(field).reason();
        assert!(reason.ends_with("is there twice"), "{reason}");
    }
    assert_eq!(Reject::AuthUnsupported.code(), "unsupported");
    assert_eq!(Reject::MissingField(Field::Payload).reason(), "payload is missing");
}

#[test]
fn a_damaged_message_is_refused_exactly_when_it_is_no_json_object() {
    let text =
        br#"{"type":"publish","id":"\u00e9","channel":"a\"b","payload":[1,{"k":-0.5e3}],"t":0}"#;
    let mut parser = Parser::new();
    for seed in 0..4000 {
        let mut seeded = Seeded::new(seed);
        let mut damaged = text.to_vec();
        for _ in 0..1 + seeded.below(3) {
            let at = seeded.below(damaged.len());
            damaged[at] = b"\"\\[]{},:0-eu t\n"[seeded.below(15)];
        }
        let is_object = json::document(&damaged).is_ok() && damaged[0] == b'{';
        assert_eq!(parser.parse(&damaged).is_ok(), is_object, "seed {seed}");
    }
}

#[test]
fn where_only_a_publish_is_taken_the_type_need_not_be_said() {
    let mut parser = Parser::new();
    let publish = Request::Publish { channel: "a", payload: b"1", key: None };
    for text in [
        r#"{"channel":"a","payload":1}"#,
        r#"{"payload":1,"type":"publish","channel":"a"}"#,
        r#"{"t\u0079pe":"publis\u0068","channel":"a","payload":1}"#,
    ] {
        let message = parser.parse_publish(text.as_bytes()).unwrap();
        assert_eq!(message, Message { id: None, request: Ok(publish) }, "{text}");
    }
    for (text, reject) in [
        (r#"{"type":"subscribe","channel":"a"}"#, Reject::NotPublish),
        (r#"{"type":"ping"}"#, Reject::NotPublish),
        (r#"{"type":"poke"}"#, Reject::UnknownType),
        (r#"{"type":null,"channel":"a","payload":1}"#, Reject::WrongType(Field::Type)),
        (r#"{"payload":1}"#, Reject::MissingField(Field::Channel)),
        (r#"{"channel":"a"}"#, Reject::MissingField(Field::Payload)),
    ] {
        assert_eq!(parser.parse_publish(text.as_bytes()).unwrap().request, Err(reject), "{text}");
    }
    let with_id = parser.parse_publish(br#"{"id":"x","type":"ping"}"#).unwrap();
    assert_eq!(with_id, Message { id: Some(b"\"x\""), request: Err(Reject::NotPublish) });
    assert_eq!(parser.parse_publish(b"[]"), Err(NotJson::NotAnObject));
    assert_eq!(parser.parse_publish(b""), Err(NotJson::Syntax));
}
