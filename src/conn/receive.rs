//! What received bytes mean, phase by phase.

use super::handshake::{Outcome, Service};
use super::{Closing, Conn, EndReason, Event, Settings, Stage};
use crate::proto::ws::frame::{Opcode, Role, write_frame};
use crate::proto::ws::{self, Decoder, Violation, close};
use crate::time::Time;

impl Conn {
    /// Hands out what the front of `input` means and moves `input` past it; `None` when all of it
    /// is used up (what is incomplete is kept inside). Replies are appended to `replies`.
    #[inline]
    pub fn receive<'s, 'i: 's>(
        &'s mut self,
        now: Time,
        input: &mut &'i mut [u8],
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> Option<Event<'s>> {
        self.keepalive.heard(now);
        let until = now + settings.close_timeout;
        if let Some(closing) = &mut self.closing {
            let decoder = match &mut self.stage {
                Stage::Open { decoder, .. } => Some(decoder),
                Stage::Handshake(_) => None,
            };
            closing.receive(input, decoder, settings.message_bytes_max);
            return None;
        }
        if let Stage::Handshake(handshake) = &mut self.stage {
            let outcome = handshake.receive(input, replies, settings);
            if let Outcome::Upgraded(service) = outcome {
                self.keepalive.message(now);
                self.stage = Stage::Open { decoder: Decoder::new(Role::Server), service };
                return Some(Event::Opened { hub: service == Service::Hub });
            }
            let reason = outcome.end_reason()?;
            self.closing = Some(Closing::linger(until));
            return Some(match outcome {
                Outcome::Refused(refusal) => Event::Refused(refusal),
                _ => Event::Ending(reason),
            });
        }
        let Stage::Open { decoder, service } = &mut self.stage else {
            unreachable!("the handshake was handled above")
        };
        let closing = &mut self.closing;
        let event = match decoder.next(input, settings.message_bytes_max) {
            Ok(Some(event)) => event,
            Ok(None) => return None,
            Err(violation) => return Some(fail(violation, closing, until, replies)),
        };
        Some(match (event, *service) {
            (ws::Event::Text(text), Service::Hub) => {
                self.keepalive.message(now);
                Event::Text(text)
            }
            (ws::Event::Text(text), Service::Echo) => echo(Opcode::Text, text, replies),
            (ws::Event::Binary(binary), Service::Echo) => echo(Opcode::Binary, binary, replies),
            (ws::Event::Binary(_), Service::Hub) => {
                let reason = "ringcast.json.v1 is text; binary frames are not taken";
                close::write_close(replies, close::UNSUPPORTED_DATA, reason);
                *closing = Some(Closing::handshake(until));
                Event::Ending(EndReason::UnacceptableMessage)
            }
            // RFC 6455 5.5.2 and 5.5.3: a ping is answered by a pong with the same payload.
            (ws::Event::Ping(payload), _) => echo(Opcode::Pong, payload, replies),
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

fn echo<'a>(opcode: Opcode, payload: &[u8], replies: &mut Vec<u8>) -> Event<'a> {
    write_frame(replies, opcode, payload);
    Event::Handled
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
