//! What a client is told: each function appends one JSON object, framed for the door that the
//! client came through.

use std::time::Duration;

use crate::proto::json::{self, Decimal};
use crate::proto::ws::frame::{self, Opcode, write_frame_with};
use crate::time::Span;

/// Where an object is appended to, and how it is framed there. Bytes alone are those of a
/// WebSocket: a text frame for each object.
pub trait Framed {
    /// Appends one object, which `write` writes.
    fn object(&mut self, write: impl FnOnce(&mut Vec<u8>));
}

impl Framed for Vec<u8> {
    #[inline]
    fn object(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write_frame_with(self, Opcode::Text, write);
    }
}

/// Where objects stand as they are.
#[derive(Debug)]
pub struct Bare<'a>(pub &'a mut Vec<u8>);

impl Framed for Bare<'_> {
    fn object(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.0);
    }
}

/// What a client learns when the connection opens.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The name the server knows the client by.
    pub client: &'a str,
    /// How often the server pings.
    pub ping_interval_ms: u64,
    /// The longest message the server takes.
    pub message_bytes_max: u64,
    /// How many channels one client may subscribe to.
    pub channels_max: u64,
}

/// `{"type":"welcome","client":"..","ping_interval_ms":..,"message_bytes_max":..,"channels_max":..}`
pub fn welcome(out: &mut impl Framed, welcome: &Welcome<'_>) {
    object(out, b"welcome", |object| {
        object.string("client", welcome.client);
        object.number("ping_interval_ms", welcome.ping_interval_ms);
        object.number("message_bytes_max", welcome.message_bytes_max);
        object.number("channels_max", welcome.channels_max);
    });
}

/// What a client learns when it is subscribed.
#[derive(Clone, Copy, Debug)]
pub struct Subscribed<'a> {
    /// To what.
    pub channel: &'a str,
    /// The life of the numbering.
    pub epoch: &'a str,
    /// The newest message.
    pub seq: u64,
    /// For a client that said where it was: the first message or gap that follows, and why
    /// something is gone, if it is.
    pub resumed: Option<(u64, Option<&'static str>)>,
    /// Where messages are conflated, how often it gets the newest of each key.
    pub conflate: Option<Duration>,
}

/// `{"type":"subscribed","id":..,"channel":"..","epoch":"..","seq":..,"recovered":..}`, and when
/// it was asked for `"from":..` and perhaps `"reason":".."`; where messages are conflated,
/// `"conflate":".."`
pub fn subscribed(out: &mut impl Framed, id: Option<&[u8]>, subscribed: &Subscribed<'_>) {
    let Subscribed { channel, epoch, seq, resumed, conflate } = subscribed;
    object(out, b"subscribed", |object| {
        object.id(id);
        object.string("channel", channel);
        object.string("epoch", epoch);
        object.number("seq", *seq);
        object.boolean("recovered", matches!(resumed, Some((_, None))));
        if let Some((from, lost)) = resumed {
            object.number("from", *from);
            if let Some(reason) = lost {
                object.string("reason", reason);
            }
        }
        object.conflate(*conflate);
    });
}

/// `{"type":"subscribed","channel":"..","pattern":"..","epoch":"..","seq":..}`: a client hears from
/// now on what is published to a channel that a pattern matches; where messages are conflated, with
/// `"conflate":".."`.
pub fn matched(
    out: &mut impl Framed,
    pattern: &str,
    channel: &str,
    epoch: &str,
    seq: u64,
    conflate: Option<Duration>,
) {
    object(out, b"subscribed", |object| {
        object.string("channel", channel);
        object.string("pattern", pattern);
        object.string("epoch", epoch);
        object.number("seq", seq);
        object.conflate(conflate);
    });
}

/// `{"type":"subscribed","id":..,"pattern":"..","channels":..}`, with the number of channels that
/// the pattern matches now.
pub fn subscribed_pattern(
    out: &mut impl Framed,
    id: Option<&[u8]>,
    pattern: &str,
    channels: usize,
) {
    object(out, b"subscribed", |object| {
        object.id(id);
        object.string("pattern", pattern);
        object.number("channels", channels as u64);
    });
}

/// `{"type":"ack","id":..,"pattern":".."}`: the client hears no more of what the pattern matches.
pub fn unsubscribed_pattern(out: &mut impl Framed, id: Option<&[u8]>, pattern: &str) {
    object(out, b"ack", |object| {
        object.id(id);
        object.string("pattern", pattern);
    });
}

/// `{"type":"unsubscribed","pattern":"..","code":"..","reason":".."}`: the same, and the client has
/// not asked for it.
pub fn pattern_ended(out: &mut impl Framed, pattern: &str, code: &str, reason: &str) {
    object(out, b"unsubscribed", |object| {
        object.string("pattern", pattern);
        object.string("code", code);
        object.string("reason", reason);
    });
}

/// What a page of a history begins with.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Of what.
    pub channel: &'a str,
    /// The life of the numbering.
    pub epoch: &'a str,
    /// The newest message.
    pub seq: u64,
    /// Whether newer messages are kept than those of this page.
    pub has_more: bool,
}

/// `{"type":"history","id":..,"channel":"..","epoch":"..","seq":..,"more":..,"messages":[..]}`, with
/// the `messages` as they were sent.
pub fn history<'m>(
    out: &mut impl Framed,
    id: Option<&[u8]>,
    history: &History<'_>,
    messages: impl Iterator<Item = &'m [u8]>,
) {
    object(out, b"history", |object| {
        object.id(id);
        object.string("channel", history.channel);
        object.string("epoch", history.epoch);
        object.number("seq", history.seq);
        object.boolean("more", history.has_more);
        object.array("messages", messages);
    });
}

/// `{"type":"ack","id":..,"channel":"..","seq":..}`, and `"duplicate":true` for a key that was
/// known.
pub fn ack(out: &mut impl Framed, id: Option<&[u8]>, channel: &str, seq: u64, is_repeated: bool) {
    object(out, b"ack", |object| {
        object.id(id);
        object.string("channel", channel);
        object.number("seq", seq);
        if is_repeated {
            object.boolean("duplicate", true);
        }
    });
}

/// `{"type":"gap","channel":"..","from":..,"to":..,"reason":".."}`
pub fn gap(out: &mut impl Framed, channel: &str, from: u64, to: u64, reason: &str) {
    object(out, b"gap", |object| {
        object.string("channel", channel);
        object.number("from", from);
        object.number("to", to);
        object.string("reason", reason);
    });
}

/// `{"type":"error","id":..,"code":"..","reason":".."}`
pub fn error(out: &mut impl Framed, id: Option<&[u8]>, code: &str, reason: &str) {
    object(out, b"error", |object| {
        object.id(id);
        object.string("code", code);
        object.string("reason", reason);
    });
}

/// `{"type":"goaway","reconnect_after_ms":..}`
pub fn goaway(out: &mut impl Framed, reconnect_after_ms: u64) {
    object(out, b"goaway", |object| object.number("reconnect_after_ms", reconnect_after_ms));
}

/// `{"type":"pong","id":..,"t":..}`
pub fn pong(out: &mut impl Framed, id: Option<&[u8]>, t: Option<&[u8]>) {
    object(out, b"pong", |object| {
        object.id(id);
        if let Some(t) = t {
            object.raw("t", t);
        }
    });
}

/// What every message of a channel begins with, escaped once: `{"type":"message","channel":"..","seq":`
#[must_use]
pub fn message_prefix(channel: &str) -> Box<[u8]> {
    let mut prefix = b"{\"type\":\"message\",\"channel\":".to_vec();
    json::write_string(&mut prefix, channel);
    prefix.extend_from_slice(b",\"seq\":");
    prefix.into_boxed_slice()
}

/// `{"type":"message","channel":"..","seq":..,"payload":..}`, the frame of the hot path: its
/// length is known before its first byte, so nothing moves.
#[inline]
pub fn message(out: &mut Vec<u8>, prefix: &[u8], seq: u64, payload: &[u8]) {
    let seq = Decimal::new(seq);
    let body_bytes = message_body_bytes(prefix, seq.as_bytes(), payload);
    out.reserve(frame::SERVER_HEADER_BYTES_MAX + body_bytes);
    frame::write_header(out, Opcode::Text, body_bytes);
    out.extend_from_slice(prefix);
    out.extend_from_slice(seq.as_bytes());
    out.extend_from_slice(PAYLOAD);
    out.extend_from_slice(payload);
    out.push(b'}');
}

/// Bytes of the frame that [`message`] appends, for a caller that must know before it fits.
#[must_use]
pub fn message_bytes(prefix: &[u8], seq: u64, payload: &[u8]) -> usize {
    let body_bytes = message_body_bytes(prefix, Decimal::new(seq).as_bytes(), payload);
    frame::header_bytes(body_bytes) + body_bytes
}

/// `{"type":"message","channel":"..","seq":..,"from":..,"payload":..}`, a message that stands for all
/// from `from` on; alone it is one like others. Apart from [`message`], which is to be a part of its only
/// caller.
pub fn covering_message(out: &mut Vec<u8>, prefix: &[u8], seq: u64, from: u64, payload: &[u8]) {
    let covers = from < seq;
    let (seq, from) = (Decimal::new(seq), Decimal::new(from));
    let from: [&[u8]; 2] = if covers { [FROM, from.as_bytes()] } else { [&[], &[]] };
    let body_bytes =
        message_body_bytes(prefix, seq.as_bytes(), payload) + from[0].len() + from[1].len();
    out.reserve(frame::SERVER_HEADER_BYTES_MAX + body_bytes);
    frame::write_header(out, Opcode::Text, body_bytes);
    for part in [prefix, seq.as_bytes(), from[0], from[1], PAYLOAD, payload, b"}"] {
        out.extend_from_slice(part);
    }
}

/// The payload in the `frame` of message `seq`, which [`message`] has written with this `prefix`.
#[must_use]
pub fn message_payload<'a>(frame: &'a [u8], prefix: &[u8], seq: u64) -> &'a [u8] {
    let header = frame::FrameHeader::parse(frame, frame::Role::Client).ok().flatten();
    let (_, header_bytes) = header.expect("it is a frame of ours");
    let seq = Decimal::new(seq);
    let start = header_bytes + prefix.len() + seq.as_bytes().len() + PAYLOAD.len();
    &frame[start..frame.len() - 1]
}

const PAYLOAD: &[u8] = b",\"payload\":";

const FROM: &[u8] = b",\"from\":";

fn message_body_bytes(prefix: &[u8], seq: &[u8], payload: &[u8]) -> usize {
    prefix.len() + seq.len() + PAYLOAD.len() + payload.len() + 1
}

/// One object. `kind` needs no escapes.
#[inline]
pub(super) fn object(out: &mut impl Framed, kind: &[u8], write: impl FnOnce(&mut Object<'_>)) {
    out.object(|body| {
        body.extend_from_slice(b"{\"type\":\"");
        body.extend_from_slice(kind);
        body.push(b'"');
        write(&mut Object { body });
        body.push(b'}');
    });
}

/// An object that has its first member already. Names need no escapes.
pub(super) struct Object<'a> {
    body: &'a mut Vec<u8>,
}

impl Object<'_> {
    #[inline]
    fn name(&mut self, name: &str) {
        self.body.extend_from_slice(b",\"");
        self.body.extend_from_slice(name.as_bytes());
        self.body.extend_from_slice(b"\":");
    }

    /// A value that is JSON already.
    #[inline]
    fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.body.extend_from_slice(value);
    }

    /// Values that are JSON already.
    fn array<'m>(&mut self, name: &str, values: impl Iterator<Item = &'m [u8]>) {
        self.list(name, values, |body, value| body.extend_from_slice(value));
    }

    /// Values, each of which `write` writes.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) {
        self.name(name);
        self.body.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.body.push(b',');
            }
            write(self.body, value);
        }
        self.body.push(b']');
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    #[inline]
    pub(super) fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        json::write_string(self.body, value);
    }

    #[inline]
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        json::write_number(self.body, value);
    }

    #[inline]
    pub(super) fn id(&mut self, id: Option<&[u8]>) {
        if let Some(id) = id {
            self.raw("id", id);
        }
    }

    fn conflate(&mut self, interval: Option<Duration>) {
        if let Some(interval) = interval {
            self.string("conflate", &Span(interval).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ws::{Decoder, Event, Role};

    /// The text of the only frame in `out`.
    fn text(mut out: Vec<u8>) -> String {
        let mut input = out.as_mut_slice();
        let mut decoder = Decoder::new(Role::Client);
        let Ok(Some(Event::Text(text))) = decoder.next(&mut input, usize::MAX) else {
            panic!("not a text frame");
        };
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(input.is_empty());
        assert_eq!(json::document(text.as_bytes()), Ok(()), "{text}");
        text
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        text(out)
    }

    #[test]
    fn replies_look_as_the_protocol_says() {
        let id: Option<&[u8]> = Some(b"\"a\\u0062\"");
        let greeting = Welcome {
            client: "k3-7",
            ping_interval_ms: 25_000,
            message_bytes_max: 65_536,
            channels_max: 128,
        };
        assert_eq!(
            written(|out| welcome(out, &greeting)),
            r#"{"type":"welcome","client":"k3-7","ping_interval_ms":25000,"message_bytes_max":65536,"channels_max":128}"#
        );
        let page = History { channel: "orders", epoch: "k3x9", seq: 123, has_more: true };
        let messages = [br#"{"seq":1}"#.as_slice(), br#"{"seq":2}"#];
        assert_eq!(
            written(|out| history(out, Some(b"7"), &page, messages.into_iter())),
            r#"{"type":"history","id":7,"channel":"orders","epoch":"k3x9","seq":123,"more":true,"messages":[{"seq":1},{"seq":2}]}"#
        );
        let fresh = Subscribed {
            channel: "orders",
            epoch: "k3x9",
            seq: 123,
            resumed: None,
            conflate: None,
        };
        assert_eq!(
            written(|out| subscribed(out, None, &fresh)),
            r#"{"type":"subscribed","channel":"orders","epoch":"k3x9","seq":123,"recovered":false}"#
        );
        let resumed = Subscribed { resumed: Some((121, None)), ..fresh };
        assert_eq!(
            written(|out| subscribed(out, id, &resumed)),
            r#"{"type":"subscribed","id":"a\u0062","channel":"orders","epoch":"k3x9","seq":123,"recovered":true,"from":121}"#
        );
        let late = Subscribed { resumed: Some((3, Some("too_old"))), ..fresh };
        assert_eq!(
            written(|out| subscribed(out, None, &late)),
            r#"{"type":"subscribed","channel":"orders","epoch":"k3x9","seq":123,"recovered":false,"from":3,"reason":"too_old"}"#
        );
        let conflated = Subscribed { conflate: Some(Duration::from_millis(100)), ..resumed };
        assert_eq!(
            written(|out| subscribed(out, None, &conflated)),
            r#"{"type":"subscribed","channel":"orders","epoch":"k3x9","seq":123,"recovered":true,"from":121,"conflate":"100ms"}"#
        );
        assert_eq!(
            written(|out| matched(out, "iot.*.temp", "iot.1.temp", "k3x9", 0, None)),
            r#"{"type":"subscribed","channel":"iot.1.temp","pattern":"iot.*.temp","epoch":"k3x9","seq":0}"#
        );
        let interval = Some(Duration::from_millis(250));
        assert_eq!(
            written(|out| matched(out, "md.>", "md.A", "k3x9", 7, interval)),
            r#"{"type":"subscribed","channel":"md.A","pattern":"md.>","epoch":"k3x9","seq":7,"conflate":"250ms"}"#
        );
        assert_eq!(
            written(|out| subscribed_pattern(out, Some(b"8"), "md.>", 12)),
            r#"{"type":"subscribed","id":8,"pattern":"md.>","channels":12}"#
        );
        assert_eq!(
            written(|out| unsubscribed_pattern(out, Some(b"9"), "md.>")),
            r#"{"type":"ack","id":9,"pattern":"md.>"}"#
        );
        assert_eq!(
            written(|out| pattern_ended(out, "md.>", "too_many_matches", "why")),
            r#"{"type":"unsubscribed","pattern":"md.>","code":"too_many_matches","reason":"why"}"#
        );
        assert_eq!(
            written(|out| ack(out, Some(b"3"), "orders", 124, false)),
            r#"{"type":"ack","id":3,"channel":"orders","seq":124}"#
        );
        assert_eq!(
            written(|out| ack(out, None, "orders", 124, true)),
            r#"{"type":"ack","channel":"orders","seq":124,"duplicate":true}"#
        );
        assert_eq!(
            written(|out| gap(out, "orders", 125, 131, "slow_consumer")),
            r#"{"type":"gap","channel":"orders","from":125,"to":131,"reason":"slow_consumer"}"#
        );
        assert_eq!(
            written(|out| error(out, Some(b"6"), "forbidden", "say \"please\"")),
            r#"{"type":"error","id":6,"code":"forbidden","reason":"say \"please\""}"#
        );
        assert_eq!(
            written(|out| goaway(out, 4210)),
            r#"{"type":"goaway","reconnect_after_ms":4210}"#
        );
        assert_eq!(
            written(|out| pong(out, Some(b"5"), Some(b"1685440800"))),
            r#"{"type":"pong","id":5,"t":1685440800}"#
        );
        assert_eq!(written(|out| pong(out, None, None)), r#"{"type":"pong"}"#);
    }

    #[test]
    fn a_message_is_its_prefix_its_number_and_its_payload() {
        for payload_bytes in [2, 60, 70, 80, 90, 65_000, 65_480, 65_490, 65_500, 70_000] {
            let payload = format!("\"{}\"", "p".repeat(payload_bytes - 2));
            let prefix = message_prefix("a \"b\"\n");
            let mut out = b"before".to_vec();
            message(&mut out, &prefix, 124, payload.as_bytes());
            assert_eq!(out.len() - 6, message_bytes(&prefix, 124, payload.as_bytes()));
            assert_eq!(
                text(out.split_off(6)),
                format!(
                    r#"{{"type":"message","channel":"a \"b\"\n","seq":124,"payload":{payload}}}"#
                )
            );
        }
    }

    #[test]
    fn a_message_that_covers_others_says_from_where_on() {
        let prefix = message_prefix("a");
        for payload_bytes in [2, 60, 70, 80, 90, 65_480, 65_490, 70_000] {
            let payload = format!("\"{}\"", "p".repeat(payload_bytes - 2));
            let covering = |seq, from| {
                written(|out| covering_message(out, &prefix, seq, from, payload.as_bytes()))
            };
            assert_eq!(
                covering(120, 99),
                format!(
                    r#"{{"type":"message","channel":"a","seq":120,"from":99,"payload":{payload}}}"#
                )
            );
            assert_eq!(
                covering(120, 120),
                written(|out| message(out, &prefix, 120, payload.as_bytes()))
            );
        }
    }

    #[test]
    fn the_payload_of_a_message_is_found_in_its_frame() {
        let prefix = message_prefix("a \"b\"\n");
        for (seq, payload_bytes) in
            [(1, 2), (9, 60), (10, 90), (u64::MAX, 65_490), (124, 65_500), (5, 70_000)]
        {
            let payload = format!("\"{}\"", "p".repeat(payload_bytes - 2));
            let mut out = Vec::new();
            message(&mut out, &prefix, seq, payload.as_bytes());
            assert_eq!(message_payload(&out, &prefix, seq), payload.as_bytes());
        }
    }

    #[test]
    fn the_longest_channel_still_makes_a_whole_frame() {
        let channel = "\"".repeat(255);
        let text = written(|out| gap(out, &channel, 1, u64::MAX, "slow_consumer"));
        assert!(text.contains(&u64::MAX.to_string()));
    }
}
