//! What received bytes mean, phase by phase.

use super::handshake::{Outcome, Service};
use super::open::{Open, Said, echo};
use super::publish::{Answer, Step};
use super::{Closing, Conn, EndReason, Event, Payload, Settings, Stage};
use crate::proto::dialect::Dialect;
use crate::proto::ws::deflate::Codec;
use crate::proto::ws::frame::Opcode;
use crate::proto::ws::{self, Violation, close};
use crate::time::Time;

impl Conn {
    /// Hands out what the front of `input` means and moves `input` past it; `None` when all of it
    /// is used up (what is incomplete is kept inside). Replies are appended to `replies`. `codec`
    /// is any, the same for all connections.
    #[inline]
    pub fn receive<'s, 'i: 's>(
        &'s mut self,
        now: Time,
        input: &mut &'i mut [u8],
        replies: &mut Vec<u8>,
        codec: &'s mut Codec,
        settings: &Settings,
    ) -> Option<Event<'s>> {
        self.keepalive.heard(now);
        let until = now + settings.close_timeout;
        if let Some(closing) = &mut self.closing {
            let decoder = match &mut self.stage {
                Stage::Open(open) => Some(&mut open.decoder),
                Stage::Handshake(_) | Stage::Publish(_) | Stage::Listen(_) => None,
            };
            closing.receive(input, decoder, settings.message_bytes_max);
            return None;
        }
        if !matches!(self.stage, Stage::Open(_)) {
            return self.receive_http(now, input, replies, settings);
        }
        let Stage::Open(open) = &mut self.stage else {
            unreachable!("the others were handled above")
        };
        let Open { service, dialect, .. } = *open;
        let reach = open.reach();
        let closing = &mut self.closing;
        let Codec { inflater, deflater } = codec;
        let Said { event, channel } = match open.next(input, inflater, settings.message_bytes_max) {
            Ok(Some(said)) => said,
            Ok(None) => return None,
            Err(violation) => return Some(fail(violation, closing, until, replies)),
        };
        Some(match (event, service) {
            (ws::Event::Text(text), Service::Echo) => {
                echo(Opcode::Text, text, replies, reach.map(|reach| (reach, deflater)));
                Event::Handled
            }
            (ws::Event::Binary(binary), Service::Echo) => {
                echo(Opcode::Binary, binary, replies, reach.map(|reach| (reach, deflater)));
                Event::Handled
            }
            (ws::Event::Compressed(..), _) => unreachable!("an open WebSocket inflates"),
            (event @ (ws::Event::Text(_) | ws::Event::Binary(_)), Service::Hub) => {
                if let Some(message) = message(event, dialect, channel) {
                    self.keepalive.message(now);
                    return Some(message);
                }
                close::write_close(replies, close::UNSUPPORTED_DATA, not_taken(dialect));
                *closing = Some(Closing::handshake(until));
                Event::Ending(EndReason::UnacceptableMessage)
            }
            // RFC 6455 5.5.2 and 5.5.3: a ping is answered by a pong with the same payload.
            (ws::Event::Ping(payload), _) => {
                echo(Opcode::Pong, payload, replies, None);
                Event::Handled
            }
            (ws::Event::Pong(_), _) => Event::Handled,
            // RFC 6455 5.5.1: a close frame is answered by one that typically echoes its code.
            (ws::Event::Close(said), _) => {
                let code = said.map_or(close::NORMAL, |(code, _)| code);
                close::write_close(replies, code, "");
                *closing = Some(Closing::done(until));
                Event::Ending(EndReason::PeerClosed)
            }
        })
    }
}

/// What a text or binary message is in `dialect`, if it is a kind that this has; `channel` is where
/// bare payloads go.
#[inline]
fn message<'a>(
    event: ws::Event<'a>,
    dialect: Dialect,
    channel: Option<&'a str>,
) -> Option<Event<'a>> {
    match (event, dialect) {
        (ws::Event::Text(text), Dialect::Json) => Some(Event::Text(text)),
        (ws::Event::Binary(binary), Dialect::Msgpack) => Some(Event::Msgpack(binary)),
        (ws::Event::Text(text), Dialect::Raw) => {
            Some(Event::Payload(channel?, Payload::Text(text)))
        }
        (ws::Event::Binary(binary), Dialect::Raw) => {
            Some(Event::Payload(channel?, Payload::Binary(binary)))
        }
        _ => None,
    }
}

/// Why a message is of a kind that is not taken.
const fn not_taken(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Json => "ringcast.json.v1 is text; binary frames are not taken",
        Dialect::Msgpack => "ringcast.msgpack.v1 is binary; text frames are not taken",
        Dialect::Raw => "nothing is published with mode=sub",
    }
}

impl Conn {
    /// What is not, or not yet, a WebSocket.
    fn receive_http<'s, 'i: 's>(
        &'s mut self,
        now: Time,
        input: &mut &'i mut [u8],
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> Option<Event<'s>> {
        let until = now + settings.close_timeout;
        if let Stage::Handshake(handshake) = &mut self.stage {
            let ending = match handshake.receive(now, input, replies, settings) {
                Outcome::Incomplete => return None,
                Outcome::Upgraded { service, dialect, channel, agreement, user } => {
                    self.keepalive.message(now);
                    let hub = service == Service::Hub;
                    let open = Open::new(service, dialect, channel, agreement);
                    let compression = open.reach();
                    self.stage = Stage::Open(open);
                    return Some(Event::Opened { hub, compression, user });
                }
                Outcome::Publishes(publish) => {
                    self.stage = Stage::Publish(publish);
                    return Some(Event::Publishing);
                }
                Outcome::Listens(listen, wanted, user) => {
                    let listens = listen.listens();
                    self.stage = Stage::Listen(listen);
                    return Some(Event::Listening(listens, wanted, user));
                }
                Outcome::Served => Event::Ending(EndReason::PageServed),
                Outcome::Answered => Event::Ending(EndReason::Answered),
                Outcome::Refused(refusal) => Event::Refused(refusal),
            };
            self.closing = Some(Closing::linger(until));
            return Some(ending);
        }
        let Stage::Publish(publish) = &mut self.stage else {
            // Who listens has said all it has to say: there is no second request.
            *input = &mut [];
            return None;
        };
        match publish.receive(input, replies, settings.message_bytes_max) {
            Step::Nothing => None,
            Step::Object(object) => Some(Event::Object(object)),
            Step::ObjectTooLong => Some(Event::ObjectTooLong),
            Step::Over(event) => {
                self.closing = Some(Closing::linger(until));
                Some(event)
            }
        }
    }

    /// Answers the oldest [`Event::Object`] that has not been answered. With an event, the
    /// client's life ends.
    pub fn answer(
        &mut self,
        now: Time,
        answer: &Answer<'_>,
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> Option<Event<'static>> {
        let (None, Stage::Publish(publish)) = (&self.closing, &mut self.stage) else { return None };
        let event = publish.answer(answer, replies)?;
        self.linger(now, settings);
        Some(event)
    }

    /// Answers a poll with `events`, JSON objects with a comma behind each, and with the cursors where
    /// the next one goes on. The client's life ends.
    pub fn answer_poll(
        &mut self,
        now: Time,
        cursors: &str,
        events: &[u8],
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> EndReason {
        let Stage::Listen(listen) = &self.stage else { unreachable!("nobody else polls") };
        let reason = listen.answer(cursors, events, replies);
        self.linger(now, settings);
        reason
    }
}

/// RFC 6455 7.1.7: fail the connection, saying why.
fn fail<'a>(
    violation: Violation,
    closing: &mut Option<Closing>,
    until: Time,
    replies: &mut Vec<u8>,
) -> Event<'a> {
    close::write_close(replies, violation.close_code(), violation.reason());
    *closing = Some(Closing::linger(until));
    Event::Ending(match violation {
        Violation::MessageTooBig => EndReason::UnacceptableMessage,
        _ => EndReason::Violation,
    })
}
