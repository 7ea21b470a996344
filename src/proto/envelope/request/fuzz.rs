//! Messages of ringcast.json.v1 against the same rules written once more on top of serde_json,
//! and the replies to them.

use serde_json::value::RawValue;

use super::{
    Field, Message, NotJson, Parser, Reject, Request, STRING_BYTES_MAX, USER_STRING_BYTES_MAX,
};
use crate::limits::{
    CHANNEL_NAME_BYTES_MAX, PATTERN_SEGMENTS_MAX, PATTERN_WILDCARDS_MAX, PUBLISH_KEY_BYTES_MAX,
    REQUEST_ID_BYTES_MAX,
};
use crate::proto::envelope::{self, Since, reply};
use crate::proto::json::{self, Fault, fuzz::read_members};
use crate::proto::ws::{Decoder, Event, Role};

/// Reads messages that are separated by 0x1e (which JSON allows nowhere) with one parser.
///
/// # Panics
/// When a parser remembers something, when the rules on top of serde_json say otherwise, or when
/// a reply is not one frame with JSON in it that says what it should.
pub fn envelope(data: &[u8]) {
    let mut parser = Parser::new();
    for (index, message) in data.split(|byte| *byte == 0x1e).enumerate() {
        // The decoder lets nothing else through.
        let text = String::from_utf8_lossy(message);
        let parsed = parser.parse(text.as_bytes());
        if index > 0 {
            assert_eq!(parsed, Parser::new().parse(text.as_bytes()), "a parser remembers nothing");
        }
        match parsed {
            Err(NotJson::TooDeep) => {
                let fault = json::document(text.as_bytes()).map_err(|error| error.fault);
                assert!(fault == Err(Fault::TooDeep) || fault == Ok(()), "{fault:?}");
            }
            Err(not_json) => {
                let is_json = json::document(text.as_bytes()).is_ok();
                assert_eq!(not_json == NotJson::NotAnObject, is_json);
            }
            Ok(message) => {
                check(&text, &message);
                check_replies(&message);
            }
        }
    }
}

/// The members that mean something, and the same rules once more.
fn check(text: &str, message: &Message<'_>) {
    // Half of a surrogate pair in a key, which serde_json cannot read.
    let Some(members) = read_members(text) else { return };
    let find = |name: &str| {
        let mut values = members.iter().filter(|(key, _)| key == name).map(|(_, value)| *value);
        values.next_back().map(RawValue::get)
    };
    let names = [
        "type", "id", "channel", "payload", "t", "since", "conflate", "key", "from", "limit",
        "after",
    ];
    let is_twice =
        names.iter().any(|name| members.iter().filter(|(key, _)| key == name).count() > 1);

    let id = find("id");
    let is_id =
        |id: &str| id.len() <= REQUEST_ID_BYTES_MAX && !id.starts_with(['t', 'f', 'n', '[', '{']);
    if !id.is_none_or(is_id) {
        assert_eq!(*message, Message { id: None, request: Err(Reject::BadId) });
        return;
    }
    assert_eq!(message.id, id.map(str::as_bytes));
    if is_twice {
        assert!(matches!(message.request, Err(Reject::DuplicateField(_))));
        return;
    }

    let channel = || {
        let raw = find("channel").ok_or(Reject::MissingField(Field::Channel))?;
        if !raw.starts_with('"') {
            return Err(Reject::WrongType(Field::Channel));
        }
        // What could not be a name however it were escaped is not read.
        let name = match raw.len() <= STRING_BYTES_MAX {
            true => serde_json::from_str::<String>(raw).map_err(|_| Reject::BadString)?,
            false => return Err(Reject::BadChannel),
        };
        let is_good = (1..=CHANNEL_NAME_BYTES_MAX).contains(&name.len());
        if is_good && !name.chars().any(|char| char.is_control() || "*>".contains(char)) {
            Ok(name)
        } else {
            Err(Reject::BadChannel)
        }
    };
    // A name with a wildcard, if it is one that may be subscribed to.
    let pattern = || {
        let name = find("channel").filter(|raw| raw.len() <= STRING_BYTES_MAX);
        let name = name.and_then(|raw| serde_json::from_str::<String>(raw).ok());
        let pattern = name.filter(|name| name.contains(['*', '>']));
        match pattern {
            Some(pattern) if !is_pattern(&pattern) => Err(Reject::BadPattern),
            pattern => Ok(pattern),
        }
    };
    // Behind which user a page is to begin.
    let after = || match find("after").filter(|raw| *raw != "null") {
        None => Ok(None),
        Some(raw) if raw.starts_with('"') && raw.len() <= USER_STRING_BYTES_MAX => {
            serde_json::from_str::<String>(raw).map(Some).map_err(|_| Reject::BadString)
        }
        Some(_) => Err(Reject::BadAfter),
    };
    let is_presence =
        |raw: &str| serde_json::from_str::<String>(raw).is_ok_and(|kind| kind == "presence");
    let limit = || match find("limit") {
        None | Some("null") => Ok(None),
        Some(raw) => match raw.parse::<u64>() {
            Err(_) | Ok(0) => Err(Reject::BadRange),
            Ok(limit) => Ok(Some(limit)),
        },
    };
    let expected = match find("type") {
        None => Err(Reject::MissingField(Field::Type)),
        Some(raw) if !raw.starts_with('"') => Err(Reject::WrongType(Field::Type)),
        Some(raw) if raw.len() > STRING_BYTES_MAX => Err(Reject::UnknownType),
        // Both strings are read together, so a broken name is told before anything else.
        Some(_) if channel() == Err(Reject::BadString) => Err(Reject::BadString),
        Some(raw) if is_presence(raw) && after() == Err(Reject::BadString) => {
            Err(Reject::BadString)
        }
        Some(raw) => match serde_json::from_str::<String>(raw).as_deref() {
            Err(_) => Err(Reject::BadString),
            Ok("subscribe") => {
                let given = |name| find(name).filter(|raw| *raw != "null");
                match (pattern(), given("since"), given("conflate")) {
                    (Err(reject), ..) => Err(reject),
                    (Ok(Some(pattern)), None, None) => Ok(("watch", Some(pattern), None)),
                    (Ok(Some(_)), Some(_), _) => Err(Reject::SincePattern),
                    (Ok(Some(_)), None, Some(_)) => Err(Reject::ConflatePattern),
                    (Ok(None), since, conflate) => channel().and_then(|channel| {
                        let since = since.map(|raw| read_since(raw).ok_or(Reject::BadSince));
                        let since = since.transpose()?;
                        let conflate =
                            conflate.map(|raw| read_interval(raw).ok_or(Reject::BadConflate));
                        let conflate = conflate.transpose()?;
                        Ok(("subscribe", Some(channel), Some(format!("{since:?} {conflate:?}"))))
                    }),
                }
            }
            Ok("unsubscribe") => match pattern() {
                Err(reject) => Err(reject),
                Ok(Some(pattern)) => Ok(("unwatch", Some(pattern), None)),
                Ok(None) => channel().map(|channel| ("unsubscribe", Some(channel), None)),
            },
            Ok("publish") => channel().and_then(|channel| {
                let payload = find("payload").ok_or(Reject::MissingField(Field::Payload))?;
                let key = find("key").filter(|key| *key != "null").unwrap_or("\"\"");
                if !key.starts_with('"') || key.len() > PUBLISH_KEY_BYTES_MAX {
                    return Err(Reject::BadKey);
                }
                Ok(("publish", Some(channel), Some(format!("{payload} {key}"))))
            }),
            Ok("ping") => match find("t") {
                Some(t) if t.len() > REQUEST_ID_BYTES_MAX => Err(Reject::BadT),
                t => Ok(("ping", None, t.map(str::to_owned))),
            },
            Ok("auth") => Err(Reject::AuthUnsupported),
            Ok("history") => channel().and_then(|channel| {
                let number = |name| match find(name) {
                    None | Some("null") => Ok(None),
                    Some(raw) => raw.parse::<u64>().map(Some).map_err(|_| Reject::BadRange),
                };
                match (number("from")?, number("limit")?) {
                    (_, Some(0)) => Err(Reject::BadRange),
                    range => Ok(("history", Some(channel), Some(format!("{range:?}")))),
                }
            }),
            Ok("presence") => channel().and_then(|channel| {
                let asked = format!("{:?} {:?}", after()?, limit()?);
                Ok(("presence", Some(channel), Some(asked)))
            }),
            Ok("presence_stats") => channel().map(|channel| ("stats", Some(channel), None)),
            Ok(_) => Err(Reject::UnknownType),
        },
    };
    let whole = |limit: Option<u32>| {
        limit.map(|limit| match limit {
            u32::MAX => find("limit").and_then(|raw| raw.parse().ok()).expect("a number"),
            limit => u64::from(limit),
        })
    };
    let asked = message.request.map(|request| match request {
        Request::Subscribe { channel, since, conflate } => {
            let since = since.map(|since| format!("{since:?}"));
            let conflate = conflate.map(|interval| interval.as_millis());
            ("subscribe", Some(channel.to_owned()), Some(format!("{since:?} {conflate:?}")))
        }
        Request::Unsubscribe { channel } => ("unsubscribe", Some(channel.to_owned()), None),
        Request::SubscribePattern { pattern } => ("watch", Some(pattern.to_owned()), None),
        Request::UnsubscribePattern { pattern } => ("unwatch", Some(pattern.to_owned()), None),
        Request::Publish { channel, payload, key } => {
            let text = String::from_utf8_lossy;
            let (payload, key) = (text(payload), text(key.unwrap_or(b"\"\"")));
            ("publish", Some(channel.to_owned()), Some(format!("{payload} {key}")))
        }
        Request::History { channel, from, limit } => {
            ("history", Some(channel.to_owned()), Some(format!("{:?}", (from, whole(limit)))))
        }
        Request::Presence { channel, after, limit } => {
            let asked = format!("{after:?} {:?}", whole(limit));
            ("presence", Some(channel.to_owned()), Some(asked))
        }
        Request::PresenceStats { channel } => ("stats", Some(channel.to_owned()), None),
        Request::Ping { t } => ("ping", None, t.map(|t| String::from_utf8_lossy(t).into_owned())),
    });
    assert_eq!(asked, expected);
}

/// The rules for patterns once more.
fn is_pattern(pattern: &str) -> bool {
    let segments: Vec<&str> = pattern.split('.').collect();
    let (last, before) = segments.split_last().expect("there is always one");
    let is_plain = |segment: &str| !segment.is_empty() && !segment.contains(['*', '>']);
    let wildcards = segments.iter().filter(|segment| ["*", ">"].contains(segment)).count();
    before.iter().all(|segment| *segment == "*" || is_plain(segment))
        && (["*", ">"].contains(last) || is_plain(last))
        && wildcards <= PATTERN_WILDCARDS_MAX
        && segments.len() <= PATTERN_SEGMENTS_MAX
        && pattern.len() <= CHANNEL_NAME_BYTES_MAX
        && !pattern.chars().any(char::is_control)
}

/// Where a client was, as `serde_json` reads it.
fn read_since(raw: &str) -> Option<String> {
    if raw == "\"latest\"" {
        return Some(format!("{:?}", Since::Last(1)));
    }
    let members = read_members(raw)?;
    let find = |name: &str| {
        let mut found = members.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.get())
    };
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let since = match names[..] {
        ["epoch", "seq"] => {
            let epoch = find("epoch")?.strip_prefix('"')?.strip_suffix('"')?;
            Since::After { epoch, seq: find("seq")?.parse().ok()? }
        }
        ["last"] => Since::Last(find("last")?.parse().ok()?),
        _ => return None,
    };
    Some(format!("{since:?}"))
}

/// Milliseconds of an interval of at most a minute.
fn read_interval(raw: &str) -> Option<u128> {
    let written = raw.strip_prefix('"')?.strip_suffix('"')?;
    let unit = written.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = written.split_at(unit);
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let (_, ms) = units.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    let interval = u128::from(number.parse::<u32>().ok()?) * ms;
    (interval <= 60_000).then_some(interval)
}

/// Each reply to it is one frame, which says what it should.
fn check_replies(message: &Message<'_>) {
    let id = message.id;
    let raw = |value: &str| Some(value.as_bytes().to_vec());
    let echoed = id.map(<[u8]>::to_vec);
    let answer = |write: &dyn Fn(&mut Vec<u8>)| Answer::of(write);
    match message.request {
        Err(reject) => {
            let error = answer(&|out| reply::error(out, id, reject.code(), reject.reason()));
            assert_eq!(error.raw("type"), raw("\"error\""));
            assert_eq!(error.raw("id"), echoed);
            assert_eq!(error.string("code"), reject.code());
            assert_eq!(error.string("reason"), reject.reason());
        }
        Ok(Request::Subscribe { channel, .. }) => {
            let resumed = Some((u64::MAX, None));
            let (seq, conflate) = (u64::MAX, None);
            let told = reply::Subscribed { channel, epoch: "k3x9", seq, resumed, conflate };
            let said = answer(&|out| reply::subscribed(out, id, &told));
            assert_eq!((said.raw("type"), said.raw("id")), (raw("\"subscribed\""), echoed));
            assert_eq!(said.string("channel"), channel);
            assert_eq!(said.raw("seq"), raw("18446744073709551615"));
            let gap = answer(&|out| reply::gap(out, channel, 1, 2, "slow_consumer"));
            assert_eq!(gap.string("channel"), channel);
        }
        Ok(Request::History { channel, .. }) => {
            let page = reply::History { channel, epoch: "k3x9", seq: 7, has_more: false };
            let said = answer(&|out| reply::history(out, id, &page, [&b"1"[..], b"2"].into_iter()));
            assert_eq!((said.string("channel").as_str(), said.raw("id")), (channel, echoed));
            assert_eq!(said.raw("messages"), raw("[1,2]"));
        }
        Ok(Request::Presence { channel, after, .. }) => {
            let place = Some(("k3x9", u64::MAX));
            let page =
                envelope::Presence { channel, place, total: 7, unlisted: 1, has_more: false };
            let user = after.unwrap_or("ann");
            let users = [(user, u32::MAX)].into_iter();
            let said = answer(&|out| envelope::presence(out, id, &page, users.clone()));
            assert_eq!((said.string("channel").as_str(), said.raw("id")), (channel, echoed));
            let users = String::from_utf8(said.raw("users").expect("users")).expect("text");
            let users: Vec<serde_json::Value> = serde_json::from_str(&users).expect("a list");
            assert_eq!(users[0]["user"], user);
            let event = envelope::presence_event("presence.join", [user].into_iter(), 7);
            let event: serde_json::Value = serde_json::from_slice(&event).expect("an object");
            assert_eq!(event["users"][0], user);
        }
        Ok(Request::PresenceStats { channel }) => {
            let stats = envelope::PresenceStats { users: 7, ..Default::default() };
            let said = answer(&|out| envelope::presence_stats(out, id, channel, &stats));
            assert_eq!((said.string("channel").as_str(), said.raw("id")), (channel, echoed));
            assert_eq!(said.raw("users"), raw("7"));
        }
        Ok(Request::Unsubscribe { channel }) => {
            let ack = answer(&|out| reply::ack(out, id, channel, 7, true));
            assert_eq!((ack.string("channel").as_str(), ack.raw("id")), (channel, echoed));
            assert_eq!(ack.raw("duplicate"), raw("true"));
        }
        Ok(Request::SubscribePattern { pattern }) => {
            let said = answer(&|out| reply::subscribed_pattern(out, id, pattern, 7));
            assert_eq!((said.raw("channels"), said.raw("id")), (raw("7"), echoed));
            assert_eq!(said.string("pattern"), pattern);
            let begun = answer(&|out| {
                reply::matched(out, pattern, "a \"b\"", "k3x9", u64::MAX, None);
            });
            assert_eq!((begun.string("pattern").as_str(), begun.raw("id")), (pattern, None));
            assert_eq!(begun.string("channel"), "a \"b\"");
            let ended = answer(&|out| reply::pattern_ended(out, pattern, "code", "why"));
            assert_eq!(ended.string("pattern"), pattern);
        }
        Ok(Request::UnsubscribePattern { pattern }) => {
            let ack = answer(&|out| reply::unsubscribed_pattern(out, id, pattern));
            assert_eq!((ack.string("pattern").as_str(), ack.raw("id")), (pattern, echoed));
        }
        Ok(Request::Publish { channel, payload, .. }) => {
            let ack = answer(&|out| reply::ack(out, id, channel, 7, false));
            assert_eq!((ack.raw("seq"), ack.raw("id")), (raw("7"), echoed));
            let prefix = reply::message_prefix(channel);
            let said = answer(&|out| {
                reply::message(out, &prefix, 7, payload);
                assert_eq!(out.len(), reply::message_bytes(&prefix, 7, payload));
            });
            assert_eq!(said.string("channel"), channel);
            assert_eq!(said.raw("payload"), Some(payload.to_vec()), "byte for byte");
        }
        Ok(Request::Ping { t }) => {
            let pong = answer(&|out| reply::pong(out, id, t));
            assert_eq!((pong.raw("id"), pong.raw("t")), (echoed, t.map(<[u8]>::to_vec)));
        }
    }
}

/// The text of the one frame that was written.
struct Answer(String);

impl Answer {
    fn of(write: &dyn Fn(&mut Vec<u8>)) -> Self {
        let mut out = Vec::new();
        write(&mut out);
        let mut input = out.as_mut_slice();
        let mut decoder = Decoder::new(Role::Client);
        let Ok(Some(Event::Text(text))) = decoder.next(&mut input, usize::MAX) else {
            panic!("not a text frame");
        };
        let text = String::from_utf8(text.to_vec()).expect("text");
        assert!(input.is_empty(), "one frame");
        Self(text)
    }

    /// A member as it is written.
    fn raw(&self, name: &str) -> Option<Vec<u8>> {
        let members = read_members(&self.0).expect("an object");
        let mut found = members.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.get().as_bytes().to_vec());
        assert!(found.next().is_none(), "{name} once");
        value
    }

    /// A member that is a string.
    fn string(&self, name: &str) -> String {
        serde_json::from_slice(&self.raw(name).expect(name)).expect("a string")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_ask_what_serde_json_reads() {
        crate::fuzz::replay("envelope", super::envelope);
    }
}
