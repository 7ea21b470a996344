//! Test support: what a client makes of the bytes it is sent.

use simd_json::prelude::*;

use crate::proto::msgpack;
use crate::proto::ws::deflate::Inflater;
use crate::proto::ws::{Decoder, Event, Role};

/// One text message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It covers what is from `from` on.
    Message {
        channel: String,
        from: u64,
        seq: u64,
    },
    Gap {
        channel: String,
        from: u64,
        to: u64,
        reason: String,
    },
    Subscribed {
        id: u64,
        channel: String,
        epoch: String,
        seq: u64,
        resumed: Resumed,
    },
    Ack {
        id: u64,
        channel: String,
        seq: u64,
    },
    /// A channel begins that a pattern matches.
    Matched {
        channel: String,
        pattern: String,
        epoch: String,
        seq: u64,
        conflate: Option<String>,
    },
    SubscribedPattern {
        id: u64,
        pattern: String,
        channels: u64,
    },
    AckPattern {
        id: u64,
        pattern: String,
    },
    /// A pattern has ended of itself.
    PatternEnded {
        pattern: String,
        code: String,
    },
    Error {
        id: Option<u64>,
        code: String,
    },
    /// Who has come or gone, in a message of the channel `presence:NAME`.
    Told {
        channel: String,
        seq: u64,
        event: String,
        /// Nobody where they are too many.
        users: Vec<String>,
        total: u64,
    },
    Presence {
        id: u64,
        channel: String,
        place: Option<(String, u64)>,
        total: u64,
        unlisted: u64,
        has_more: bool,
        users: Vec<(String, u64)>,
    },
    PresenceStats {
        id: u64,
        users: u64,
        connections: u64,
        anonymous: u64,
        unlisted: u64,
    },
    Pong {
        id: u64,
    },
}

/// From where a subscribed client goes on, if it said where it was, and why something is gone.
pub(crate) type Resumed = Option<(u64, Option<String>)>;

/// The receiving end of one connection.
#[derive(Debug)]
pub(crate) struct Wire {
    decoder: Decoder,
    inflater: Inflater,
    /// Messages that came compressed.
    pub(crate) compressed: u64,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let decoder = Decoder::with_compression(Role::Client);
        Self { decoder, inflater: Inflater::default(), compressed: 0 }
    }

    /// Reads what arrived. A frame that is broken, or cut into by another, fails here.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Heard> {
        let mut bytes = bytes.to_vec();
        let mut input = bytes.as_mut_slice();
        let mut heard = Vec::new();
        let Self { decoder, inflater, compressed } = self;
        while let Some(event) = decoder.next(&mut input, usize::MAX).expect("frames are sound") {
            heard.push(match event {
                Event::Text(text) => understand(text),
                Event::Compressed(_, payload) => {
                    *compressed += 1;
                    understand(inflater.inflate(b"", payload, 1 << 20).expect("sound data"))
                }
                Event::Binary(message) => {
                    let mut text = Vec::new();
                    msgpack::to_json(message, &mut text, 1 << 20).expect("MessagePack");
                    understand(&mut text)
                }
                event => panic!("only messages are sent here, not {event:?}"),
            });
        }
        heard
    }
}

fn understand(text: &mut [u8]) -> Heard {
    let said = String::from_utf8_lossy(text).into_owned();
    let value = simd_json::to_owned_value(text).unwrap_or_else(|error| panic!("{said}: {error}"));
    let string = |name| value.get_str(name).unwrap_or_else(|| panic!("{said}: {name}")).to_owned();
    let number = |name| value.get_u64(name).unwrap_or_else(|| panic!("{said}: {name}"));
    match value.get_str("type").expect("every message has a type") {
        "message" if string("channel").starts_with("presence:") => {
            let payload = value.get("payload").expect("every message has one");
            let users = payload.get_array("users").into_iter().flatten();
            Heard::Told {
                channel: string("channel"),
                seq: number("seq"),
                event: payload.get_str("event").expect("it says what it is").into(),
                users: users.map(|user| user.as_str().expect("a name").into()).collect(),
                total: payload.get_u64("total").expect("it says how many"),
            }
        }
        "presence" => Heard::Presence {
            id: number("id"),
            channel: string("channel"),
            place: value.get_str("epoch").map(|epoch| (epoch.into(), number("seq"))),
            total: number("total"),
            unlisted: value.get_u64("unlisted").unwrap_or_default(),
            has_more: value.get_bool("more").expect("it says whether there are more"),
            users: value
                .get_array("users")
                .expect("it is a list")
                .iter()
                .map(|user| {
                    let name = user.get_str("user").expect("a name");
                    (name.into(), user.get_u64("connections").expect("a number"))
                })
                .collect(),
        },
        "presence_stats" => Heard::PresenceStats {
            id: number("id"),
            users: number("users"),
            connections: number("connections"),
            anonymous: number("anonymous"),
            unlisted: value.get_u64("unlisted").unwrap_or_default(),
        },
        "message" => {
            let (seq, from) = (number("seq"), value.get_u64("from"));
            assert!(from.is_none_or(|from| from < seq), "{said}: what covers nothing says nothing");
            Heard::Message { channel: string("channel"), from: from.unwrap_or(seq), seq }
        }
        "gap" => Heard::Gap {
            channel: string("channel"),
            from: number("from"),
            to: number("to"),
            reason: string("reason"),
        },
        "subscribed" if value.get_str("channel").is_none() => Heard::SubscribedPattern {
            id: number("id"),
            pattern: string("pattern"),
            channels: number("channels"),
        },
        "subscribed" if value.get_str("pattern").is_some() => Heard::Matched {
            channel: string("channel"),
            pattern: string("pattern"),
            epoch: string("epoch"),
            seq: number("seq"),
            conflate: value.get_str("conflate").map(str::to_owned),
        },
        "unsubscribed" => Heard::PatternEnded { pattern: string("pattern"), code: string("code") },
        "ack" if value.get_str("pattern").is_some() => {
            Heard::AckPattern { id: number("id"), pattern: string("pattern") }
        }
        "subscribed" => Heard::Subscribed {
            id: number("id"),
            channel: string("channel"),
            epoch: string("epoch"),
            seq: number("seq"),
            resumed: value.get_u64("from").map(|from| {
                let lost = value.get_str("reason").map(str::to_owned);
                assert_eq!(value.get_bool("recovered"), Some(lost.is_none()), "{said}");
                (from, lost)
            }),
        },
        "ack" => Heard::Ack { id: number("id"), channel: string("channel"), seq: number("seq") },
        "error" => Heard::Error { id: value.get_u64("id"), code: string("code") },
        "pong" => Heard::Pong { id: number("id") },
        other => panic!("{other}"),
    }
}
